//! Requests are issued, answered, or fail; each leaves the ledger exactly once.

use super::config::{Config, StopRule};
use super::connections::{Conn, Connections, Request, State, flag};
use crate::engine::Io;
use crate::load::request_log::Row;
use crate::load::tally::Phase;
use crate::protocol::Outcome;
use crate::protocol::ask::Ask;
use crate::protocol::ticket::{Order, Stamp, Ticket};
use crate::time::Instant;

/// Of a connection's oldest request, and of those behind it.
pub(super) type Kinds = [&'static str; 2];

impl Connections {
    /// Issues what this connection may carry now: one request to prove a new connection, all that `depth` and the peer
    /// allow once the load has begun.
    pub(super) fn begin(&mut self, io: &mut impl Io, slot: u32, now: Instant) {
        let proof_only = !self.going || self.is_idle(slot) || self.config.in_flight_max.is_some();
        let conn = &self.conns[slot as usize];
        // The one that was to prove it may be lost, or given up alone, and then there is another.
        let unproven = conn.issued == 0 || self.order == Order::Any && conn.flags & flag::UNPROVEN != 0;
        let most = if proof_only { u16::from(unproven).min(conn.capacity) } else { conn.capacity };
        let mut room = u32::from(most.saturating_sub(conn.ring.alive));
        if let Some(limit) = self.config.requests_per_connection {
            room = room.min(limit.saturating_sub(conn.issued));
        }
        let mut issued = false;
        if conn.flags & flag::DUE != 0 && conn.capacity > conn.ring.alive {
            // Scheduled when the reply before it arrived, on the connection before this one.
            self.issue_owed(slot);
            room = room.saturating_sub(1);
            issued = true;
        }
        issued |= self.issue(slot, room, now);
        self.send_issued(io, slot, issued, now);
    }

    /// The same within the load, where nothing is special about a connection: as many as it may carry.
    #[inline]
    pub(super) fn fill_up(&mut self, io: &mut impl Io, slot: u32, now: Instant) {
        let conn = &self.conns[slot as usize];
        let is_special = conn.flags & (flag::DUE | flag::RESERVED) != 0;
        if is_special || self.config.requests_per_connection.is_some() {
            return self.begin(io, slot, now);
        }
        let fresh = u64::from(conn.capacity.saturating_sub(conn.ring.alive)).min(self.budget);
        self.budget -= fresh;
        self.take_up_fresh(slot, now, fresh);
        self.send_issued(io, slot, fresh > 0, now);
    }

    /// The request that waited for this connection is one of its requests now.
    pub(super) fn issue_owed(&mut self, slot: u32) -> Option<Ticket> {
        let due = self.take_owed(slot)?;
        Some(self.take_up(slot, due))
    }

    pub(super) fn send_issued(&mut self, io: &mut impl Io, slot: u32, issued: bool, now: Instant) {
        if issued || self.has_unsent(slot) {
            self.flush(io, slot);
            self.arm_timeout(slot, now);
        }
    }

    /// Issues so many requests on a connection, if there are as many left of a given number.
    pub(super) fn issue(&mut self, slot: u32, room: u32, now: Instant) -> bool {
        let reserved = self.take_reserved(slot, room);
        let from_budget = (u64::from(room) - reserved).min(self.budget);
        self.budget -= from_budget;
        let fresh = reserved + from_budget;
        self.take_up_fresh(slot, now, fresh);
        fresh > 0
    }

    /// A request that is due gets its name, and its place in what the connection has to say.
    #[inline]
    pub(super) fn take_up(&mut self, slot: u32, due: Instant) -> Ticket {
        let conn = &mut self.conns[slot as usize];
        let ticket = self.tickets.take(slot, &mut conn.ring, due);
        conn.issued = conn.issued.saturating_add(1);
        self.in_flight += 1;
        if self.shared_len > 0 {
            self.outboxes.of(slot, conn.flags & flag::OUTBOX != 0).share(self.shared_len);
        } else {
            self.start(slot, ticket);
        }
        ticket
    }

    /// So many requests become due now, and are taken up: together, where they are the same for all connections.
    #[inline]
    fn take_up_fresh(&mut self, slot: u32, now: Instant, count: u64) {
        self.schedule(count, now);
        if self.shared_len == 0 {
            return (0..count).for_each(|_| _ = self.take_up(slot, now));
        }
        let conn = &mut self.conns[slot as usize];
        self.tickets.take_many(slot, &mut conn.ring, now, count as u16);
        conn.issued = conn.issued.saturating_add(count as u32);
        self.in_flight += count;
        self.outboxes.of(slot, conn.flags & flag::OUTBOX != 0).share(self.shared_len * count as usize);
    }

    /// Has the protocol write a request that is not the same for all connections.
    fn start(&mut self, slot: u32, ticket: Ticket) {
        let mut ask = self.askers[slot as usize].next_ask();
        self.unprocessed.asks(ticket, ask);
        self.start_as(slot, ticket, &mut ask);
        self.askers[slot as usize].cursor = ask.cursor;
    }

    /// Likewise, one that is given.
    #[inline]
    pub(super) fn start_as(&mut self, slot: u32, ticket: Ticket, ask: &mut Ask) {
        let kind = self.ask(slot, self.latest, |client, cx| client.start(slot, ticket, ask, cx));
        self.tickets.set_kind(ticket, kind);
        self.heard_aside(slot);
    }

    fn take_reserved(&mut self, slot: u32, room: u32) -> u64 {
        let conn = &mut self.conns[slot as usize];
        if room == 0 || conn.flags & flag::RESERVED == 0 {
            return 0;
        }
        conn.flags &= !flag::RESERVED;
        self.owed -= 1;
        1
    }

    /// A connection is not wanted any more: what was set aside to prove it is anybody's.
    pub(super) fn give_back_reserved(&mut self, slot: u32) {
        let conn = &mut self.conns[slot as usize];
        if conn.flags & flag::RESERVED != 0 {
            conn.flags &= !flag::RESERVED;
            self.owed -= 1;
            self.budget += 1;
        }
    }

    #[inline]
    pub(super) fn schedule(&mut self, requests: u64, due: Instant) {
        self.tally.whole.scheduled += requests;
        if self.window.covers(due) {
            self.tally.window.scheduled += requests;
        }
    }

    /// Which of [`crate::load::tally::Tally::groups`] a request belongs to.
    pub(super) fn group(&self, slot: u32, ticket: Ticket) -> usize {
        self.config.target(slot) * self.kinds_a_target + usize::from(self.tickets.kind(ticket))
    }

    /// The kernel took the first byte of a request, or an engine that `queues` it.
    #[inline]
    pub(super) fn sent(&mut self, queues: bool, slot: u32, ticket: Ticket, now: Instant) {
        if queues {
            self.leaving.push(ticket);
        }
        if !self.unprocessed.are_none() && self.leaves_again(ticket, now) {
            return;
        }
        let stamp = self.tickets.stamp_mut(ticket);
        debug_assert!(!stamp.is_sent(), "a request is sent twice");
        stamp.sent = now;
        let due = stamp.due;
        self.left_later(queues, slot, ticket, due, now);
        let covered = u64::from(self.window.covers(due));
        self.tally.whole.sent += 1;
        self.tally.window.sent += covered;
        if !self.tally.groups.is_empty() {
            let group = self.group(slot, ticket);
            self.tally.groups[group].whole.sent += 1;
            self.tally.groups[group].window.sent += covered;
        }
    }

    /// A reply is complete.
    #[inline]
    pub(super) fn complete(&mut self, slot: u32, ticket: Ticket, outcome: Outcome, now: Instant) {
        let request = self.end(slot, ticket, now);
        let conn = &self.conns[slot as usize];
        if conn.flags & (flag::UNPROVEN | flag::SERVED) != flag::SERVED || conn.failures > 0 {
            self.served(slot);
        }
        let Outcome::Refused(kind) = outcome else {
            let response_ns = now.since(request.due);
            let covered = self.window.covers(request.due);
            self.log(slot, request, now, "ok");
            self.tally.whole.ok += 1;
            self.window.replied(now, response_ns);
            if self.window.is_open() {
                self.tally.batches.replied(self.window.age_ns(now));
            }
            if covered {
                self.tally.window.ok += 1;
                self.tally.responded(self.window.age_ns(request.due), response_ns);
                self.tally.service.record(now.since(request.sent));
            } else {
                self.carried_over(now);
            }
            if let Some(group) = self.tally.groups.get_mut(request.group) {
                group.answered(covered, response_ns);
            }
            return;
        };
        self.fail(slot, request, kind, now);
        self.note(kind, Phase::Reply, 1, || "the server answered with an error status".to_owned());
    }

    /// Takes a request off its connection. Its ticket is free from now on: the open loop wants to know since when.
    #[inline]
    pub(super) fn end(&mut self, slot: u32, ticket: Ticket, now: Instant) -> Request {
        let group = if self.tally.groups.is_empty() { 0 } else { self.group(slot, ticket) };
        let Stamp { due, mut sent } = self.tickets.end(ticket, &mut self.conns[slot as usize].ring);
        if let Some(freed) = self.freed.get_mut(ticket as usize) {
            *freed = now;
            // Where the peer takes fewer than there are places, no other could be had before either.
            let conn = &self.conns[slot as usize];
            if usize::from(conn.capacity) < self.config.depth && conn.ring.alive + 1 == conn.capacity {
                self.free_from(slot, now);
            }
        }
        self.in_flight -= 1;
        if sent == Instant(0) {
            self.outboxes.forget(slot, ticket);
        }
        if !self.unprocessed.are_none() {
            sent = sent.max(self.comes_back_no_more(ticket));
        }
        Request { due, sent, group }
    }

    #[inline]
    fn log(&mut self, slot: u32, request: Request, ended: Instant, outcome: &'static str) {
        if !self.log.is_kept() {
            return;
        }
        // What proved a connection before the load began is marked as such.
        let outcome = if outcome == "ok" && request.due < self.began { "proof" } else { outcome };
        // A deadline that fires is of the time at which the turn began, and a request may have left within that turn.
        let ended = ended.max(request.sent);
        self.log.note(Row { slot, due: request.due, sent: request.sent, ended, outcome });
    }

    /// Books a request that failed, or that never left.
    pub(super) fn fail(&mut self, slot: u32, request: Request, kind: &'static str, now: Instant) -> bool {
        let covered = self.window.covers(request.due);
        self.log(slot, request, now, if request.sent == Instant(0) { "unsent" } else { kind });
        if request.sent == Instant(0) {
            self.tally.whole.unsent += 1;
            self.tally.window.unsent += u64::from(covered);
            self.waited_in_vain(slot, request.due, now);
            return false;
        }
        *self.tally.whole.errors.entry(kind).or_default() += 1;
        if let Some(group) = self.tally.groups.get_mut(request.group) {
            group.failed(covered, kind, now.since(request.due));
        }
        self.request_failures += 1;
        self.window.failed(now);
        if covered {
            *self.tally.window.errors.entry(kind).or_default() += 1;
            if kind == "timeout" {
                self.tally.responded(self.window.age_ns(request.due), now.since(request.due));
                self.tally.censored += 1;
            }
        }
        true
    }

    /// Books all requests on a connection that is no more: the first failed by `first`, those behind it by `rest`.
    /// Where none had been sent, the loss itself is noted, under the phase in which it happened.
    pub(super) fn fail_all(&mut self, slot: u32, [first, rest]: Kinds, now: Instant, example: String) {
        let (mut failed, mut count) = ((0, 0), 0);
        while let Some(ticket) = self.oldest_on_wire(slot) {
            let request = self.end(slot, ticket, now);
            if count == 0 {
                failed.0 += u64::from(self.fail(slot, request, first, now));
            } else {
                failed.1 += u64::from(self.fail(slot, request, rest, now));
            }
            count += 1;
        }
        if failed.0 == 0 {
            let phase = if count == 0 { Phase::Idle } else { Phase::Send };
            return self.note(first, phase, 1, || example);
        }
        if failed.1 > 0 && rest != first {
            self.note(rest, Phase::Reply, failed.1, || format!("behind this on the same connection: {example}"));
            failed.1 = 0;
        }
        self.note(first, Phase::Reply, failed.0 + failed.1, || example);
    }

    /// The time for the last replies is over: what is unanswered now is in flight for good.
    pub(super) fn give_up(&mut self, io: &mut impl Io) {
        let now = io.now();
        for slot in 0..self.conns.len() as u32 {
            match self.conns[slot as usize].state {
                State::Closed => continue,
                State::Ending => {
                    self.tally.connections.lost += 1;
                    self.note("timeout", Phase::Idle, 1, || "the server did not end its stream after us".to_owned());
                }
                State::Connecting => self.tally.connections.unfinished += 1,
                State::Open | State::Preparing => self.tally.connections.closed += 1,
            }
            self.shut(io, slot);
            while let Some(ticket) = self.tickets.oldest(slot, self.conns[slot as usize].ring) {
                let request = self.end(slot, ticket, now);
                self.in_flight(slot, request, now);
            }
            self.closed(slot);
        }
    }

    fn in_flight(&mut self, slot: u32, request: Request, now: Instant) {
        if request.sent == Instant(0) {
            self.fail(slot, request, "unsent", now);
            return;
        }
        self.log(slot, request, now, "in_flight");
        self.tally.whole.in_flight += 1;
        let covered = self.window.covers(request.due);
        if let Some(group) = self.tally.groups.get_mut(request.group) {
            group.in_flight(covered, now.since(request.due));
        }
        if covered {
            self.tally.window.in_flight += 1;
            self.tally.responded(self.window.age_ns(request.due), now.since(request.due));
            self.tally.censored += 1;
        }
    }
}

/// Sets one of a given number of requests aside for each connection, to prove it. Answers how many anybody may have,
/// and how many are set aside.
pub(super) fn set_aside(conns: &mut [Conn], config: &Config, in_use: u32) -> (u64, u64) {
    let (StopRule::Requests(n) | StopRule::RequestsOrAfter(n, _)) = config.stop_rule else { return (u64::MAX, 0) };
    // Connections that are wanted later may never be: nothing is set aside for them.
    let (active, idle) = conns.split_at_mut(config.active);
    let at_first = active[..in_use as usize].iter_mut().chain(idle);
    let owed = at_first.map(|conn| conn.flags = flag::RESERVED).count() as u64;
    (n.saturating_sub(owed), owed)
}
