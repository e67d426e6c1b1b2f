//! Requests are issued, answered, or fail; each leaves the ledger exactly once.

use super::{Config, Conn, Request, Session, Stamp, State, StopRule, flag};
use crate::engine::Io;
use crate::request_log::Row;
use crate::tally::Phase;
use loadgen_core::protocol::{Outcome, Reply, ReplyError};
use loadgen_core::time::Instant;
use std::io;

/// Connections that are looked at in vain in one turn, where they take turns and many are lost or busy.
const TURN_LOOKS: usize = 64;

/// Bytes of a reply that an error message quotes.
const EXAMPLE_BYTES: usize = 64;

/// Of a connection's oldest request, and of those behind it.
type Kinds = [&'static str; 2];

impl Session {
    /// Issues what this connection may carry now: one request to prove a new connection, all that `depth` allows once
    /// the load has begun.
    pub(super) fn begin(&mut self, io: &mut impl Io, slot: u32, now: Instant) {
        let proof_only = !self.going || self.is_idle(slot) || self.config.in_flight_max.is_some();
        let conn = &mut self.conns[slot as usize];
        // Of a datagram the request or the reply may be lost, and then there is another.
        let unproven = conn.issued == 0 || self.datagrams.is_some() && conn.flags & flag::UNPROVEN != 0;
        let depth = if proof_only { usize::from(unproven) } else { self.config.depth };
        let mut room = (depth as u32).saturating_sub(u32::from(conn.outstanding));
        if let Some(limit) = self.config.requests_per_connection {
            room = room.min(limit - conn.issued);
        }
        if conn.flags & flag::DUE != 0 {
            // Scheduled when the reply before it arrived, on the connection before this one; its stamp is in place.
            conn.flags &= !flag::DUE;
            self.owed -= 1;
            self.stamps[slot as usize * self.config.depth].sent = Instant(0);
            self.enqueue(slot, 1);
            room = room.saturating_sub(1);
        }
        self.issue(io, slot, room, now);
    }

    /// Where not all connections may have a request in flight, those go on whose turn it is.
    pub(super) fn take_turns(&mut self, io: &mut impl Io, now: Instant) {
        let most = self.config.in_flight_max.unwrap_or(0);
        let mut looks = TURN_LOOKS;
        while self.in_flight < most && looks > 0 && self.budget > 0 && self.drain_until.is_none() {
            let slot = self.next_turn;
            self.next_turn = (slot + 1) % self.config.active as u32;
            let conn = &self.conns[slot as usize];
            if conn.state == State::Open
                && usize::from(conn.outstanding) < self.config.depth
                && !self.has_rest(io, slot)
            {
                self.issue(io, slot, 1, now);
            } else {
                looks -= 1;
            }
        }
    }

    /// Issues so many requests on a connection, and what it has due.
    fn issue(&mut self, io: &mut impl Io, slot: u32, room: u32, now: Instant) {
        let reserved = self.take_reserved(slot, room);
        let from_budget = (u64::from(room) - reserved).min(self.budget);
        self.budget -= from_budget;
        let fresh = reserved + from_budget;
        self.schedule(fresh, now);
        for _ in 0..fresh {
            let position = usize::from(self.conns[slot as usize].outstanding);
            *self.stamp(slot, position) = Stamp { due: now, sent: Instant(0) };
            self.enqueue(slot, 1);
        }
        if self.conns[slot as usize].unsent > 0 {
            self.flush(io, slot);
            self.arm_timeout(slot, now);
        }
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

    pub(super) fn schedule(&mut self, requests: u64, due: Instant) {
        self.tally.whole.scheduled += requests;
        if self.window.covers(due) {
            self.tally.window.scheduled += requests;
        }
    }

    pub(super) fn enqueue(&mut self, slot: u32, requests: u16) {
        let conn = &mut self.conns[slot as usize];
        conn.outstanding += requests;
        self.in_flight += u64::from(requests);
        conn.issued = conn.issued.saturating_add(u32::from(requests));
        conn.unsent += u32::from(requests) * self.request_len as u32;
    }

    /// Where the request in a position on a connection has its stamp, and its kind.
    #[inline]
    pub(super) fn place(&self, slot: u32, position: usize) -> usize {
        let depth = self.config.depth;
        slot as usize * depth + (usize::from(self.conns[slot as usize].oldest) + position) % depth
    }

    #[inline]
    pub(super) fn stamp(&mut self, slot: u32, position: usize) -> &mut Stamp {
        let place = self.place(slot, position);
        &mut self.stamps[place]
    }

    pub(super) fn set_kind(&mut self, slot: u32, position: usize, kind: u16) {
        let place = self.place(slot, position);
        if let Some(known) = self.kinds.get_mut(place) {
            *known = kind;
        }
    }

    fn kind(&self, slot: u32, position: usize) -> u16 {
        if self.kinds.is_empty() { 0 } else { self.kinds[self.place(slot, position)] }
    }

    /// Which of [`crate::tally::Tally::groups`] a request belongs to.
    pub(super) fn group(&self, slot: u32, position: usize) -> usize {
        self.config.target(slot) * self.kinds_a_target + usize::from(self.kind(slot, position))
    }

    /// Hands the kernel what it will take of the due requests.
    ///
    /// When it refuses because the connection broke, nothing is decided here: replies may still be waiting to be
    /// received, and the engine tells them before it tells the end. Answers when that was.
    pub(super) fn flush(&mut self, io: &mut impl Io, slot: u32) -> Instant {
        if self.datagrams.is_some() {
            return self.flush_datagrams(io, slot);
        }
        if self.composes {
            return self.flush_own(io, slot);
        }
        let now = io.now();
        let length = self.request_len;
        let conn = &self.conns[slot as usize];
        if conn.unsent as usize == length && conn.outstanding > 0 {
            // Nearly always it is one request, of which nothing has left.
            let position = usize::from(conn.outstanding) - 1;
            let Ok(taken @ 1..) = io.send(slot, 0..length) else { return now };
            self.tally.bytes.sent += taken as u64;
            self.conns[slot as usize].unsent -= taken as u32;
            self.sent(slot, position, now);
            return now;
        }
        self.flush_several(io, slot, now)
    }

    /// Likewise where several requests are due, or parts of them.
    fn flush_several(&mut self, io: &mut impl Io, slot: u32, now: Instant) -> Instant {
        let (length, lying_ready) = (self.request_len, self.request_len * self.config.depth.max(1));
        loop {
            let unsent = self.conns[slot as usize].unsent as usize;
            let requests = unsent.div_ceil(length);
            let from = requests * length - unsent;
            // Behind the rest of one that is answered there may be as many as lie ready.
            let to = (requests * length).min(lying_ready);
            let Ok(taken) = io.send(slot, from..to) else { return now };
            self.tally.bytes.sent += taken as u64;
            let conn = &mut self.conns[slot as usize];
            conn.unsent -= taken as u32;
            let outstanding = usize::from(conn.outstanding);
            let left = conn.unsent as usize;
            for position in outstanding.saturating_sub(requests)..outstanding - left / length {
                self.sent(slot, position, now);
            }
            if left == 0 || taken < to - from {
                return now;
            }
        }
    }

    /// The kernel took the first byte of a request, or further ones.
    #[inline]
    pub(super) fn sent(&mut self, slot: u32, position: usize, now: Instant) {
        let stamp = self.stamp(slot, position);
        if stamp.sent != Instant(0) {
            return;
        }
        stamp.sent = now;
        let due = stamp.due;
        self.left_later(slot, position, due, now);
        let covered = u64::from(self.window.covers(due));
        self.tally.whole.sent += 1;
        self.tally.window.sent += covered;
        if !self.tally.groups.is_empty() {
            let group = self.group(slot, position);
            self.tally.groups[group].whole.sent += 1;
            self.tally.groups[group].window.sent += covered;
        }
    }

    /// Bytes arrived on a connection of requests and replies.
    pub(super) fn replies(&mut self, io: &mut impl Io, slot: u32, bytes: &[u8], now: Instant) {
        if self.has_strayed(slot) {
            return self.unasked_goes_on(io, slot, bytes, now);
        }
        let parsed = if self.conns[slot as usize].flags & flag::KEPT == 0 {
            let parsed = self.parse(io, slot, bytes, now);
            if let Parsed::More(used) = parsed {
                self.keep(slot, &bytes[used..]);
            }
            parsed
        } else {
            let mut kept = self.take_kept(slot);
            kept.extend_from_slice(bytes);
            let parsed = self.parse(io, slot, &kept, now);
            if let Parsed::More(used) = parsed {
                self.keep(slot, &kept[used..]);
            }
            self.recycle(kept);
            parsed
        };
        match parsed {
            Parsed::More(_) => self.go_on(io, slot, now),
            Parsed::Last => self.closed_as_announced(io, slot, now),
            Parsed::Broken | Parsed::Unasked => {}
        }
    }

    fn parse(&mut self, io: &mut impl Io, slot: u32, input: &[u8], now: Instant) -> Parsed {
        let mut used = 0;
        while used < input.len() {
            let rest = &input[used..];
            if self.conns[slot as usize].outstanding == 0 || self.stamp(slot, 0).sent == Instant(0) {
                self.unasked(io, slot, rest, now);
                return Parsed::Unasked;
            }
            let kind = self.kind(slot, 0);
            let target = self.config.target(slot);
            let parser = &mut self.conns[slot as usize].parser;
            parser.kind = kind;
            match self.clients[target].consume(parser, rest) {
                Err(error) => {
                    self.broken_reply(io, slot, error, rest, now);
                    return Parsed::Broken;
                }
                Ok(consumed) => {
                    used += consumed.bytes;
                    let Some(reply) = consumed.reply else { break };
                    if reply.outcome == Outcome::TurnedAway {
                        self.turned_away(io, slot, &rest[..consumed.bytes], now);
                        return Parsed::Broken;
                    }
                    self.complete(slot, reply, now);
                    if reply.last {
                        return Parsed::Last;
                    }
                }
            }
        }
        Parsed::More(used)
    }

    /// A reply is complete.
    pub(super) fn complete(&mut self, slot: u32, reply: Reply, now: Instant) {
        let request = self.pop(slot, now);
        let conn = &self.conns[slot as usize];
        if conn.flags & (flag::UNPROVEN | flag::SERVED) != flag::SERVED || conn.failures > 0 {
            self.served(slot);
        }
        let Outcome::Refused(kind) = reply.outcome else {
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

    /// Takes the oldest request off a connection. Its place is free from now on: the open loop wants to know since
    /// when.
    pub(super) fn pop(&mut self, slot: u32, now: Instant) -> Request {
        let group = if self.tally.groups.is_empty() { 0 } else { self.group(slot, 0) };
        let place = self.stamp(slot, 0);
        let Stamp { due, sent } = std::mem::replace(place, Stamp { due: place.due, sent: now });
        let conn = &mut self.conns[slot as usize];
        conn.oldest = ((usize::from(conn.oldest) + 1) % self.config.depth) as u16;
        conn.outstanding -= 1;
        self.in_flight -= 1;
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

    /// Books all requests of a connection that is no more: the first failed by `first`, those behind it by `rest`.
    /// Where none had been sent, the loss itself is noted, under the phase in which it happened.
    pub(super) fn fail_all(&mut self, slot: u32, [first, rest]: Kinds, now: Instant, example: String) {
        self.break_visit(slot);
        let outstanding = self.conns[slot as usize].outstanding;
        let mut failed = (0, 0);
        for position in 0..outstanding {
            let request = self.pop(slot, now);
            if position == 0 {
                failed.0 += u64::from(self.fail(slot, request, first, now));
            } else {
                failed.1 += u64::from(self.fail(slot, request, rest, now));
            }
        }
        if failed.0 == 0 {
            let phase = if outstanding == 0 { Phase::Idle } else { Phase::Send };
            return self.note(first, phase, 1, || example);
        }
        if failed.1 > 0 && rest != first {
            self.note(rest, Phase::Reply, failed.1, || format!("behind this on the same connection: {example}"));
            failed.1 = 0;
        }
        self.note(first, Phase::Reply, failed.0 + failed.1, || example);
    }

    /// What follows a receive: the next request, the planned end of the connection, or of the run.
    pub(super) fn go_on(&mut self, io: &mut impl Io, slot: u32, now: Instant) {
        if self.drain_until.is_some() {
            return self.close_when_answered(io, slot);
        }
        if self.is_retired(slot) {
            return self.close_when_answered(io, slot);
        }
        let conn = &self.conns[slot as usize];
        if self.config.requests_per_connection.is_some_and(|limit| conn.issued >= limit) {
            // An idle connection made its one request and stays, whatever the limit.
            let done = conn.outstanding == 0 && !self.is_idle(slot) && (self.going || conn.issued > 1);
            if done && !self.hold_for_rest(io, slot) {
                self.say_goodbye(io, slot);
                io.close(slot);
                self.tally.connections.closed += 1;
                self.closed(slot);
                self.due_on_reopening(slot, now);
                self.reopen(slot, now);
            }
            return;
        }
        if self.config.in_flight_max.is_some() && self.going && !self.is_idle(slot) {
            return self.take_turns(io, now);
        }
        if self.going && !self.is_idle(slot) {
            if self.visits.is_some() {
                return self.visit_goes_on(io, slot, now);
            }
            if !self.pacers.is_empty() {
                if !self.hold_for_rest(io, slot) {
                    self.offer(slot);
                }
                return self.issue_due(io, now);
            }
            if self.thinking.is_some() {
                return self.think_on(io, slot, now);
            }
        }
        self.begin(io, slot, now);
    }

    /// The server said in its reply that it closes: what was behind that reply will never be answered.
    fn closed_as_announced(&mut self, io: &mut impl Io, slot: u32, now: Instant) {
        self.shut(io, slot);
        self.closed(slot);
        self.tally.connections.closed_by_server += 1;
        if self.conns[slot as usize].outstanding > 0 {
            self.fail_all(slot, ["closed"; 2], now, "the server closed as announced, behind this".to_owned());
        }
        if self.drain_until.is_none() {
            self.due_on_reopening(slot, now);
        }
        self.reopen(slot, now);
    }

    /// In a closed loop the next request is due the moment the reply before it arrived, also when a new connection
    /// must be opened for it first: that is then part of its response time.
    fn due_on_reopening(&mut self, slot: u32, now: Instant) {
        if !self.going || self.is_idle(slot) {
            return;
        }
        if !self.pacers.is_empty() {
            return self.visit_moves_on(slot, now);
        }
        self.leave_script(slot);
        match self.due_after(slot, now) {
            due if due > now => self.think(slot, due),
            due => _ = self.owe(slot, due),
        }
    }

    /// The server's stream ended, or the connection broke.
    pub(super) fn exchange_ended(&mut self, io: &mut impl Io, slot: u32, cause: Option<&io::Error>, now: Instant) {
        self.shut(io, slot);
        let kept = self.take_kept(slot);
        let kind = if self.conns[slot as usize].outstanding > 0 { self.kind(slot, 0) } else { 0 };
        let target = self.config.target(slot);
        let parser = &mut self.conns[slot as usize].parser;
        parser.kind = kind;
        let finish = self.clients[target].finish(parser, &kept);
        self.recycle(kept);
        let outstanding = self.conns[slot as usize].outstanding;
        let cut_off = self.is_cut_off(slot);
        match (cause, finish) {
            (None, Ok(Some(reply))) if outstanding > 0 && !cut_off => {
                self.complete(slot, reply, now);
                return self.closed_as_announced(io, slot, now);
            }
            (None, Ok(_)) if outstanding == 0 => return self.closed_while_idle(slot, now),
            (Some(error), _) => {
                let kind = loss(error);
                self.fail_all(slot, [kind; 2], now, format!("receive: {error}"));
            }
            (None, Err(error)) => {
                self.fail_all(slot, [error.kind.name(), "closed"], now, error.detail.to_owned());
            }
            (None, Ok(_)) => {
                let example = "the server ended the stream before the reply".to_owned();
                self.fail_all(slot, ["closed"; 2], now, example);
            }
        }
        self.closed(slot);
        self.tally.connections.lost += 1;
        self.back_off(slot, now);
    }

    pub(super) fn broken_reply(&mut self, io: &mut impl Io, slot: u32, error: ReplyError, input: &[u8], now: Instant) {
        let example = format!("{}: {}", error.detail, quote(input));
        self.drop_connection(io, slot, [error.kind.name(), "aborted"], now, example);
    }

    /// Bytes that answer nothing. They must never be credited to a request that comes later.
    pub(super) fn unexpected(&mut self, io: &mut impl Io, slot: u32, input: &[u8], now: Instant) {
        let example = format!("bytes that answer no request: {}", quote(input));
        self.drop_connection(io, slot, ["unexpected", "aborted"], now, example);
    }

    pub(super) fn drop_connection(&mut self, io: &mut impl Io, slot: u32, kinds: Kinds, now: Instant, example: String) {
        self.shut(io, slot);
        self.fail_all(slot, kinds, now, example);
        self.closed(slot);
        self.tally.connections.lost += 1;
        self.back_off(slot, now);
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
                State::Open | State::Securing | State::Greeting => self.tally.connections.closed += 1,
            }
            self.shut(io, slot);
            for _ in 0..self.conns[slot as usize].outstanding {
                let request = self.pop(slot, now);
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

/// What became of received bytes.
enum Parsed {
    /// So many were used; what follows is incomplete.
    More(usize),
    /// A reply was the last on this connection, the server said.
    Last,
    /// The connection had to be closed.
    Broken,
    /// What is left answers no request, and has been dealt with.
    Unasked,
}

/// The word for a connection that broke.
pub(super) fn loss(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "reset",
        _ => "other",
    }
}

/// The first bytes of what was received, printable.
pub(super) fn quote(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(EXAMPLE_BYTES)];
    let more = if bytes.len() > EXAMPLE_BYTES { "…" } else { "" };
    format!("\"{}\"{more}", shown.escape_ascii())
}
