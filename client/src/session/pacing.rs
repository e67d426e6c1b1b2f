//! The open loop: requests are due by a schedule that waits for nobody, and any connection with room carries them.
//!
//! Why a request left late is told apart, because the two have different culprits. *Backlog wait*: every connection
//! was busy, which is the server's doing. *Generator lag*: the rest, which is ours.

use super::{Session, State, flag};
use crate::engine::Io;
use loadgen_core::arrivals::Schedule;
use loadgen_core::protocol::ticket::Ticket;
use loadgen_core::time::Instant;
use std::collections::VecDeque;

/// Requests that are issued in one go: after a pause thousands may be due at once, and replies must not wait for all.
const ISSUES_A_TURN: usize = 256;

/// Bits of `Conn::queued`.
const IN_IDLE: u8 = 1;
const IN_PARTLY: u8 = 2;

#[derive(Debug)]
pub(super) struct Pacer {
    schedule: Option<Schedule>,
    /// The request that is due next and has not been issued; never, unless the load has begun.
    next: Instant,
    /// Requests due from here on belong to nobody.
    ends: Instant,
    /// Connections with no request on them, and with some and room for more; who has waited longest is first. An entry
    /// is not taken back when a connection is lost: it is looked at when its turn comes.
    idle: VecDeque<u32>,
    partly: VecDeque<u32>,
    /// The engine's wait was to end here: what comes later is our lateness.
    expected: Instant,
    /// The last time that this thread stood still.
    stall: (Instant, Instant),
}

impl Pacer {
    pub(super) fn new(schedule: Option<Schedule>, connections: usize) -> Self {
        Self {
            schedule,
            next: Instant::NEVER,
            ends: Instant::NEVER,
            idle: VecDeque::with_capacity(connections),
            partly: VecDeque::new(),
            expected: Instant(0),
            stall: (Instant(0), Instant(0)),
        }
    }

    fn advance(&mut self) -> Instant {
        let due = self.next;
        self.next = self.schedule.as_mut().map_or(Instant::NEVER, Schedule::next_due);
        if self.next >= self.ends {
            self.next = Instant::NEVER;
        }
        due
    }

    /// How much of the time from `due` on, until a connection became free at `freed`, was the server's.
    pub(super) fn backlog_ns(&self, due: Instant, freed: Instant) -> u64 {
        let until = freed.min(self.expected.max(due));
        let stalled = until.min(self.stall.1).since(due.max(self.stall.0));
        until.since(due).saturating_sub(stalled)
    }
}

impl Session {
    /// The load begins: the schedule counts from `at`, and ends where the window does.
    pub(super) fn begin_schedule(&mut self, at: Instant, ends: Instant) {
        for pacer in &mut self.pacers {
            if let Some(schedule) = &mut pacer.schedule {
                schedule.begin(at);
            }
            pacer.ends = ends;
            pacer.advance();
        }
    }

    /// No request that is due later will be sent.
    pub(super) fn end_schedule(&mut self, now: Instant) {
        for pacer in &mut self.pacers {
            pacer.ends = pacer.ends.min(now);
            if pacer.next >= pacer.ends {
                pacer.next = Instant::NEVER;
            }
        }
    }

    /// Whether it is due after the schedule's end, and so of nobody.
    pub(super) fn is_too_late(&self, due: Instant) -> bool {
        self.pacers.first().is_some_and(|pacer| due >= pacer.ends)
    }

    /// Which of the pacers a connection belongs to.
    #[inline]
    pub(super) fn stream(&self, slot: u32) -> usize {
        if self.pacers.len() < 2 { 0 } else { self.config.target(slot) }
    }

    /// When the next request can leave: when it is due, if there is a connection for it.
    pub fn next_issue(&self) -> Instant {
        if self.drain_until.is_some() {
            return Instant::NEVER;
        }
        let able = self.pacers.iter().filter(|pacer| !(pacer.idle.is_empty() && pacer.partly.is_empty()));
        able.map(|pacer| pacer.next).fold(Instant::NEVER, Instant::min)
    }

    /// The engine will wait until `expected` at most.
    pub fn waits_until(&mut self, expected: Instant) {
        self.pacers.iter_mut().for_each(|pacer| pacer.expected = expected);
    }

    /// This thread stood still.
    pub fn stood_still(&mut self, from: Instant, to: Instant) {
        self.pacers.iter_mut().for_each(|pacer| pacer.stall = (from, to));
        self.tally.stalls.note(to.since(from), from.since(self.config.origin));
    }

    /// So long was spent looking for a deadline instead of sleeping.
    pub fn spun(&mut self, ns: u64) {
        if self.window.is_open() {
            self.tally.spin_ns += ns;
        }
    }

    /// A connection may carry (more) requests.
    pub(super) fn offer(&mut self, slot: u32) {
        let stream = self.stream(slot);
        let conn = &mut self.conns[slot as usize];
        let Some(pacer) = self.pacers.get_mut(stream) else { return };
        let (bit, queue) =
            if conn.ring.alive == 0 { (IN_IDLE, &mut pacer.idle) } else { (IN_PARTLY, &mut pacer.partly) };
        if conn.queued & bit == 0 {
            conn.queued |= bit;
            queue.push_back(slot);
        }
    }

    /// All places of a connection that has just been opened, or is let in, are free from now on.
    pub(super) fn offer_fresh(&mut self, slot: u32, now: Instant) {
        self.free_from(slot, now);
        self.offer(slot);
    }

    /// Whoever takes one of its free places could not have had it before.
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

    /// Issues what is due, as long as there are connections for it.
    pub(super) fn issue_due(&mut self, io: &mut impl Io, now: Instant) {
        for stream in 0..self.pacers.len() {
            self.issue_of(io, stream, now);
        }
    }

    fn issue_of(&mut self, io: &mut impl Io, stream: usize, now: Instant) {
        for _ in 0..ISSUES_A_TURN {
            if self.pacers[stream].next > now {
                return;
            }
            let Some(slot) = self.take_free(io, stream) else { return };
            let due = self.pacers[stream].advance();
            if self.visits_are_fresh() {
                self.arrive_anew(io, slot, due);
            } else {
                self.arrive(slot, due);
                self.issue_one(io, stream, slot, due);
            }
        }
    }

    fn take_free(&mut self, io: &impl Io, stream: usize) -> Option<u32> {
        while let Some(slot) = self.pacers[stream].idle.pop_front() {
            self.conns[slot as usize].queued &= !IN_IDLE;
            if self.has_room(io, slot) {
                return Some(slot);
            }
        }
        while let Some(slot) = self.pacers[stream].partly.pop_front() {
            self.conns[slot as usize].queued &= !IN_PARTLY;
            if self.has_room(io, slot) {
                return Some(slot);
            }
        }
        None
    }

    fn has_room(&self, io: &impl Io, slot: u32) -> bool {
        if self.visits_are_fresh() {
            return self.is_vacant(slot);
        }
        let conn = &self.conns[slot as usize];
        conn.state == State::Open
            && conn.ring.alive < conn.capacity
            && self.config.requests_per_connection.is_none_or(|limit| conn.issued < limit)
            && !self.is_retired(slot)
            && !self.is_visited(slot)
            && !self.has_rest(io, slot)
    }

    fn issue_one(&mut self, io: &mut impl Io, stream: usize, slot: u32, due: Instant) {
        self.schedule(1, due);
        self.offered(slot, due);
        let ticket = self.take_up(slot, due);
        let freed = self.freed[ticket as usize];
        self.issuing = Some(ticket);
        let now = self.flush(io, slot);
        self.issuing = None;
        self.arm_timeout(slot, now);
        if self.has_room(io, slot) {
            self.offer(slot);
        }
        // It may stand behind another on its connection: then it leaves later.
        if self.tickets.stamp(ticket).sent != now {
            return;
        }
        let late = now.since(due);
        let backlog_ns = self.pacers[stream].backlog_ns(due, freed).min(late);
        self.left(slot, due, late - backlog_ns, backlog_ns);
    }

    pub(super) fn left(&mut self, slot: u32, due: Instant, lag_ns: u64, backlog_ns: u64) {
        self.window.issued(lag_ns, backlog_ns);
        if self.window.covers(due) {
            self.tally.backlog_wait.record(backlog_ns);
            self.tally.generator_lag.record(lag_ns);
            let stream = self.stream(slot);
            if let Some(stream) = self.tally.streams.get_mut(stream) {
                stream.backlog_wait.record(backlog_ns);
                stream.generator_lag.record(lag_ns);
            }
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
        if let Some(ends) = self.pacers.get(stream).map(|pacer| pacer.ends) {
            self.unsent_of(stream, due, ends);
        }
    }

    fn unsent_of(&mut self, stream: usize, due: Instant, until: Instant) {
        if self.pacers.is_empty() {
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

    /// A request left that had been issued before: its connection was not yet done with others, and that is backlog.
    pub(super) fn left_later(&mut self, slot: u32, ticket: Ticket, due: Instant, now: Instant) {
        if !self.pacers.is_empty() && self.issuing != Some(ticket) && due >= self.began && !self.is_idle(slot) {
            let waited_ns = now.since(due);
            let lag_ns = self.take_lag(slot).min(waited_ns);
            self.left(slot, due, lag_ns, waited_ns - lag_ns);
        }
    }

    /// What the load begins with, on a connection that was opened before.
    pub(super) fn let_in(&mut self, io: &mut impl Io, slot: u32, now: Instant) {
        if !self.conns[slot as usize].is_busy() {
            self.offer_fresh(slot, now);
        }
        self.go_on(io, slot, now);
    }

    /// Books what was due and never left, because every connection was busy until the end. It counts with the time it
    /// had waited by then: to leave it out would be to leave out the worst.
    pub(super) fn book_unsent(&mut self) {
        for stream in 0..self.pacers.len() {
            while self.pacers[stream].next < self.pacers[stream].ends {
                let ends = self.pacers[stream].ends;
                let due = self.pacers[stream].advance();
                let covered = self.window.covers(due);
                self.tally.visits.unstarted += u64::from(self.visits.is_some());
                self.tally.whole.scheduled += 1;
                self.tally.whole.unsent += 1;
                self.tally.window.scheduled += u64::from(covered);
                self.tally.window.unsent += u64::from(covered);
                if let Some(stream) = self.tally.streams.get_mut(stream) {
                    stream.scheduled(covered);
                }
                self.unsent_of(stream, due, ends);
            }
        }
    }

    /// Connections come and go as their number over time asks for.
    pub(super) fn follow_profile(&mut self, io: &mut impl Io, now: Instant) {
        let Some(profile) = &self.config.connections_over_time else { return };
        let wanted = profile.at(now.since(self.began));
        let wanted = (self.config.share(wanted) as u32).min(self.config.active as u32);
        let before = std::mem::replace(&mut self.in_use, wanted);
        for slot in before..wanted {
            if self.conns[slot as usize].state == State::Closed {
                self.to_open.push_back(slot);
            }
        }
        for slot in wanted..before {
            self.give_back_reserved(slot);
            if self.conns[slot as usize].state == State::Open {
                self.close_when_answered(io, slot);
            }
        }
    }

    /// A connection that is not wanted any more, or not yet.
    pub(super) fn is_retired(&self, slot: u32) -> bool {
        slot >= self.in_use && !self.is_idle(slot)
    }
}

impl super::Conn {
    fn is_busy(&self) -> bool {
        self.ring.alive > 0 || self.flags & flag::DUE != 0
    }
}
