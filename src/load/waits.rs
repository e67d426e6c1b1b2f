//! For what requests waited before they left, and the requests that wait for their connection.
//!
//! In an open loop the two parts of a wait have different culprits, see `demand/paced.rs`. A request that never left
//! counts with the time it had waited.

use super::connections::{Connections, State, flag};
use super::leaving::Wait;
use crate::engine::Io;
use crate::protocol::ticket::{STREAM, Ticket};
use crate::time::Instant;

impl Connections {
    /// A request is due on this connection, whether it is open or not. False: there is none left of a given number.
    pub(super) fn owe(&mut self, slot: u32, due: Instant) -> bool {
        if self.budget == 0 {
            return false;
        }
        self.budget -= 1;
        self.owed += 1;
        self.schedule(1, due);
        self.offered(slot, due);
        self.conns[slot as usize].flags |= flag::DUE;
        self.owing.insert(slot, due);
        true
    }

    /// The request that is due on this connection is taken from those that wait. Answers since when it did.
    pub(super) fn take_owed(&mut self, slot: u32) -> Option<Instant> {
        let conn = &mut self.conns[slot as usize];
        if conn.flags & flag::DUE == 0 {
            return None;
        }
        conn.flags &= !flag::DUE;
        self.owed -= 1;
        self.owing.remove(&slot)
    }

    /// Sends what is owed to an open connection.
    pub(super) fn send_due(&mut self, io: &mut impl Io, slot: u32, due: Instant) {
        let conn = &self.conns[slot as usize];
        debug_assert_eq!(conn.state, State::Open);
        if conn.ring.alive >= conn.capacity {
            // The peer takes none now: it is owed until one is taken.
            return;
        }
        self.issuing = self.issue_owed(slot);
        let Some(ticket) = self.issuing else { return };
        self.flush(io, slot);
        self.arm_timeout(slot, due);
        self.issuing = None;
        let stamp = self.tickets.stamp(ticket);
        if !stamp.is_sent() {
            return;
        }
        let wait = self.wait(slot, ticket, due, stamp.sent, 0);
        self.leaves_late(io.queues(), wait);
    }

    /// A request that is due waits for a connection that is opened for it. So much of its wait until now was ours.
    pub(super) fn wait_for_connection(&mut self, slot: u32, due: Instant, lag_ns: u64) {
        self.lags.insert(slot, lag_ns);
        self.owe(slot, due);
        self.to_open.push_back(slot);
        self.opens_now = true;
    }

    /// A request that is due sets out for a connection that has yet to be opened.
    pub(super) fn sets_out(&mut self, slot: u32, due: Instant, now: Instant) {
        if self.is_paced() {
            self.lags.insert(slot, now.since(due));
        } else {
            let wait = self.wait(slot, STREAM, due, now, 0);
            self.was_late(wait);
        }
    }

    /// A request leaves at `at`. So much of its wait was the server's.
    pub(super) fn wait(&self, slot: u32, ticket: Ticket, due: Instant, at: Instant, backlog_ns: u64) -> Wait {
        Wait { slot, ticket, due, at, backlog_ns, covered: self.window.covers(due) }
    }

    /// It left, or leaves with what the engine `queues`.
    pub(super) fn leaves_late(&mut self, queues: bool, wait: Wait) {
        if queues { self.leaving.wait(wait) } else { self.was_late(wait) }
    }

    /// What was not the server's part of a wait was ours. In a closed loop all of it was.
    pub(super) fn was_late(&mut self, Wait { slot, due, at, backlog_ns, covered, .. }: Wait) {
        let lag_ns = at.since(due).saturating_sub(backlog_ns);
        self.window.issued(lag_ns, backlog_ns);
        if !covered {
            return;
        }
        self.tally.generator_lag.record(lag_ns);
        if self.is_paced() {
            self.tally.backlog_wait.record(backlog_ns);
            let stream = self.stream(slot);
            if let Some(stream) = self.tally.streams.get_mut(stream) {
                stream.backlog_wait.record(backlog_ns);
                stream.generator_lag.record(lag_ns);
            }
        }
    }

    /// Whether it is due after the schedule's end, and so of nobody.
    pub(super) fn is_too_late(&self, due: Instant) -> bool {
        self.is_paced() && due >= self.schedule_ends
    }

    /// The tickets of a connection that are nobody's are free from now on: whoever takes one could not have had it
    /// before.
    pub(super) fn free_from(&mut self, slot: u32, now: Instant) {
        if self.freed.is_empty() {
            return;
        }
        let first = slot as usize * self.config.depth;
        for ticket in first..first + self.config.depth {
            if !self.tickets.stamp(ticket as Ticket).is_alive() {
                self.freed[ticket] = now;
            }
        }
    }

    /// A request left that had been issued before: its connection was not yet done with others, and that is backlog.
    #[inline]
    pub(super) fn left_later(&mut self, queues: bool, slot: u32, ticket: Ticket, due: Instant, now: Instant) {
        if self.is_paced() && self.issuing != Some(ticket) && due >= self.began && !self.is_idle(slot) {
            let waited_ns = now.since(due);
            let lag_ns = self.lags.remove(&slot).unwrap_or(0).min(waited_ns);
            let wait = self.wait(slot, ticket, due, now, waited_ns - lag_ns);
            self.leaves_late(queues, wait);
        }
    }

    /// A request is due that this connection will carry; where there are several streams, each counts its own.
    pub(super) fn offered(&mut self, slot: u32, due: Instant) {
        let stream = self.stream(slot);
        let covered = self.window.covers(due);
        if let Some(stream) = self.tally.streams.get_mut(stream) {
            stream.scheduled(covered);
        }
    }

    /// A request that was due never left, and has waited until now.
    pub(super) fn waited_in_vain(&mut self, slot: u32, due: Instant, now: Instant) {
        let stream = self.stream(slot);
        self.unsent_of(stream, due, now);
    }

    /// Likewise, where its connection never came before the schedule ended.
    pub(super) fn never_left(&mut self, slot: u32, due: Instant) {
        let stream = self.stream(slot);
        self.unsent_of(stream, due, self.schedule_ends);
    }

    /// Likewise, where no connection was ever free for it.
    pub(super) fn never_issued(&mut self, stream: usize, due: Instant) {
        let covered = self.window.covers(due);
        self.tally.whole.scheduled += 1;
        self.tally.whole.unsent += 1;
        self.tally.window.scheduled += u64::from(covered);
        self.tally.window.unsent += u64::from(covered);
        if let Some(stream) = self.tally.streams.get_mut(stream) {
            stream.scheduled(covered);
        }
        self.unsent_of(stream, due, self.schedule_ends);
    }

    fn unsent_of(&mut self, stream: usize, due: Instant, until: Instant) {
        if !self.is_paced() {
            return;
        }
        let (covered, waited_ns) = (self.window.covers(due), until.since(due));
        if let Some(stream) = self.tally.streams.get_mut(stream) {
            stream.unsent(covered, waited_ns);
        }
        if covered {
            self.tally.backlog_wait.record(waited_ns);
            self.tally.responded(self.window.age_ns(due), waited_ns);
            self.tally.censored += 1;
        }
    }
}
