//! Requests that came back: a peer that takes no more at a time, or is about to close, promises not to have acted on
//! them (HTTP/2's REFUSED_STREAM and GOAWAY: RFC 9113, 8.7 and 6.8).
//!
//! Such a request keeps its ticket, and with it its place. It is asked for again, on its connection or on the one that
//! is opened instead, after a back-off that doubles each time. It is sent once in the ledger, and how often it came
//! back is counted beside that; its due time and its timeout are those of the first time, its service time is that of
//! the last. Where no connection will come for it any more, it fails as `unprocessed`.

use super::Load;
use super::connections::{Connections, State};
use super::timers::Timers;
use crate::engine::Io;
use crate::load::tally::Phase;
use crate::protocol::ask::Ask;
use crate::protocol::ticket::Ticket;
use crate::time::{Instant, NS_PER_MS};
use std::collections::HashMap;

/// The first back-off.
const BACKOFF_FIRST_NS: u64 = NS_PER_MS;

/// After so long, a request that finds no connection looks for one again.
const LOOK_NS: u64 = 10 * NS_PER_MS;

#[derive(Debug)]
pub(super) struct Unprocessed {
    /// Those that came back at least once, and have not ended.
    requests: HashMap<Ticket, Again>,
    /// When to look after those of a connection.
    timers: Timers,
    /// What each ticket stands for, where requests can come back.
    asked: Vec<Ask>,
}

#[derive(Clone, Copy, Debug)]
struct Again {
    /// When it left the first time; 0: it never has.
    sent: Instant,
    times: u32,
    /// When it is to be asked for again; `None`: it has been.
    at: Option<Instant>,
}

impl Unprocessed {
    /// `tickets`: how many there are, where requests can come back; else 0.
    pub(super) fn new(origin: Instant, tickets: usize) -> Self {
        Self { requests: HashMap::new(), timers: Timers::new(origin, 0), asked: vec![Ask::default(); tickets] }
    }

    pub(super) fn next(&self) -> Instant {
        self.timers.next()
    }

    #[inline]
    pub(super) fn are_none(&self) -> bool {
        self.requests.is_empty()
    }

    /// Remembers what a ticket stands for.
    #[inline]
    pub(super) fn asks(&mut self, ticket: Ticket, ask: Ask) {
        if let Some(asked) = self.asked.get_mut(ticket as usize) {
            *asked = ask;
        }
    }

    fn waits(&self, ticket: Ticket) -> bool {
        self.requests.get(&ticket).is_some_and(|again| again.at.is_some())
    }
}

impl Load {
    /// Looks after requests that came back.
    pub(super) fn fire_unprocessed(&mut self, io: &mut impl Io, now: Instant) {
        while let Some(slot) = self.on.unprocessed.timers.pop(now) {
            if self.ask_again(io, slot, now) {
                self.go_on(io, slot, now);
            }
        }
    }

    /// Asks for those of a connection again whose time has come, and gives up those that had theirs. Says whether there
    /// were such, so that the connection has room for others.
    pub(super) fn ask_again(&mut self, io: &mut impl Io, slot: u32, now: Instant) -> bool {
        if self.on.unprocessed.are_none() {
            return false;
        }
        let mut goes_on = false;
        for ticket in self.on.unprocessed_of(slot) {
            // What became of one may have ended others.
            let Some(again) = self.on.unprocessed.requests.get(&ticket).copied() else { continue };
            if now >= self.on.waits_since(ticket).after(self.on.config.timeout_ns) {
                if self.request_timed_out(io, slot, ticket, now).is_break() {
                    return false;
                }
                goes_on = true;
            } else if again.at.is_some_and(|at| at <= now) {
                self.on.reissue(io, slot, ticket, now);
            }
        }
        goes_on
    }
}

impl Connections {
    /// The peer promises not to have acted on a request. Where it had left, that counts.
    pub(super) fn came_back(&mut self, slot: u32, ticket: Ticket, now: Instant) {
        debug_assert!(self.clients[0].gives_back(), "a request comes back that is not remembered");
        let since = self.waits_since(ticket);
        let sent = std::mem::take(&mut self.tickets.stamp_mut(ticket).sent);
        self.tally.unprocessed += u64::from(sent != Instant(0));
        self.outboxes.forget(slot, ticket);
        let before = self.unprocessed.requests.get(&ticket).copied();
        let (times, first) = before.map_or((0, Instant(0)), |again| (again.times, again.sent));
        let at = now.after(self.backoff_ns(BACKOFF_FIRST_NS, times));
        self.unprocessed.timers.push(at, slot);
        if first == Instant(0) {
            // Since when it has the timeout is known from its first sending on, and does not change after that.
            self.unprocessed.timers.push(since.after(self.config.timeout_ns), slot);
        }
        let sent = if first == Instant(0) { sent } else { first };
        self.unprocessed.requests.insert(ticket, Again { sent, times: times.saturating_add(1), at: Some(at) });
    }

    fn reissue(&mut self, io: &mut impl Io, slot: u32, ticket: Ticket, now: Instant) {
        let may =
            self.conns[slot as usize].state == State::Open && self.on_wire(slot) < self.conns[slot as usize].capacity;
        if let Some(again) = self.unprocessed.requests.get_mut(&ticket) {
            again.at = (!may).then(|| now.after(LOOK_NS));
        }
        if !may {
            return self.unprocessed.timers.push(now.after(LOOK_NS), slot);
        }
        let conn = &mut self.conns[slot as usize];
        conn.issued = conn.issued.saturating_add(1);
        let mut ask = self.unprocessed.asked[ticket as usize];
        self.start_as(slot, ticket, &mut ask);
        self.flush(io, slot);
        self.arm_timeout(slot, now);
    }

    /// A request leaves that left before: it is sent already.
    #[cold]
    pub(super) fn leaves_again(&mut self, ticket: Ticket, now: Instant) -> bool {
        let left_before = self.unprocessed.requests.get(&ticket).is_some_and(|again| again.sent != Instant(0));
        if left_before {
            self.tickets.stamp_mut(ticket).sent = now;
        }
        left_before
    }

    /// Whether a request is sent, or was before it came back.
    pub(super) fn was_sent(&self, ticket: Ticket) -> bool {
        let again = || self.unprocessed.requests.get(&ticket).is_some_and(|again| again.sent != Instant(0));
        self.tickets.stamp(ticket).is_sent() || again()
    }

    /// A request ends. Answers when it left first, if it came back at all.
    #[cold]
    pub(super) fn comes_back_no_more(&mut self, ticket: Ticket) -> Instant {
        self.unprocessed.requests.remove(&ticket).map_or(Instant(0), |again| again.sent)
    }

    /// From when on a request has the timeout.
    pub(super) fn waits_since(&self, ticket: Ticket) -> Instant {
        let stamp = self.tickets.stamp(ticket);
        let first = self.unprocessed.requests.get(&ticket).map(|again| again.sent);
        first.filter(|sent| *sent != Instant(0)).unwrap_or(stamp.sent).max(stamp.due)
    }

    /// Whether a request came back, and has not been asked for again.
    pub(super) fn is_unprocessed(&self, ticket: Ticket) -> bool {
        self.unprocessed.waits(ticket)
    }

    fn unprocessed_of(&self, slot: u32) -> Vec<Ticket> {
        let ring = self.conns[slot as usize].ring;
        self.tickets.of(slot, ring).filter(|ticket| self.unprocessed.requests.contains_key(ticket)).collect()
    }

    /// Whether requests of a connection wait to be asked for again.
    pub(super) fn has_unprocessed(&self, slot: u32) -> bool {
        self.on_wire(slot) < self.conns[slot as usize].ring.alive
    }

    /// Requests of a connection that its peer has, or will have as soon as they have left.
    #[inline]
    pub(super) fn on_wire(&self, slot: u32) -> u16 {
        let ring = self.conns[slot as usize].ring;
        if self.unprocessed.are_none() {
            return ring.alive;
        }
        self.tickets.of(slot, ring).filter(|ticket| !self.unprocessed.waits(*ticket)).count() as u16
    }

    /// The one of those that has been waited for longest.
    #[inline]
    pub(super) fn oldest_on_wire(&self, slot: u32) -> Option<Ticket> {
        let ring = self.conns[slot as usize].ring;
        if self.unprocessed.are_none() {
            return self.tickets.oldest(slot, ring);
        }
        let on_wire = self.tickets.of(slot, ring).filter(|ticket| !self.unprocessed.waits(*ticket));
        on_wire.min_by_key(|ticket| self.waits_since(*ticket))
    }

    /// No connection will come any more for those that wait for this one.
    pub(super) fn let_go_unprocessed(&mut self, slot: u32, now: Instant) {
        for ticket in self.unprocessed_of(slot) {
            let request = self.end(slot, ticket, now);
            if self.fail(slot, request, "unprocessed", now) {
                self.note("unprocessed", Phase::Reply, 1, || {
                    "the server did not act on it, and no connection was left to ask again".to_owned()
                });
            }
        }
    }
}
