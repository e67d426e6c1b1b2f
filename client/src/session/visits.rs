//! Partly open: users arrive by a schedule that waits for nobody, and each then asks one thing after the other
//! (Schroeder, Wierman, Harchol-Balter, "Open versus closed: a cautionary tale", NSDI 2006). Elsewhere such a user's
//! stay is called a session; here that word is taken.

use super::{Session, State, flag};
use crate::engine::Io;
use crate::traffic::{Lengths, Sessions};
use loadgen_core::rng::Rng;
use loadgen_core::time::Instant;

/// Sets these draws apart from others of the same seed.
const SALT: u64 = 0x7365_7373_696f_6e73;

/// Who is there.
#[derive(Debug)]
pub(super) struct Visits {
    lengths: Lengths,
    rng: Rng,
    /// Each has a connection of its own, opened when it arrives and closed when it ends.
    fresh: bool,
    /// By active slot.
    slots: Vec<Visit>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Visit {
    /// When it arrived, by the schedule.
    began: Instant,
    /// Since when the slot has been free, where visits have connections of their own.
    freed: Instant,
    /// How late we were to begin with it.
    lag_ns: u64,
    /// Requests of it; 0: nobody is there.
    length: u32,
    /// Requests that have yet to be issued.
    left: u32,
}

impl Visits {
    pub(super) fn new(sessions: &Sessions, seed: u64, connections: usize) -> Self {
        let (lengths, fresh) = (sessions.lengths.clone(), sessions.fresh);
        Self { lengths, rng: Rng::new(seed ^ SALT), fresh, slots: vec![Visit::default(); connections] }
    }
}

impl Session {
    fn visit(&self, slot: u32) -> Option<&Visit> {
        self.visits.as_ref()?.slots.get(slot as usize).filter(|visit| visit.length > 0)
    }

    /// Whether somebody uses this connection, so that it is not free for others.
    pub(super) fn is_visited(&self, slot: u32) -> bool {
        self.visit(slot).is_some()
    }

    /// Whether each visit has a connection of its own.
    pub(super) fn visits_are_fresh(&self) -> bool {
        self.visits.as_ref().is_some_and(|visits| visits.fresh)
    }

    /// Whether the next visit can have this slot, where each has a connection of its own.
    pub(super) fn is_vacant(&self, slot: u32) -> bool {
        let conn = &self.conns[slot as usize];
        conn.state == State::Closed && conn.flags & flag::DUE == 0 && !self.is_visited(slot) && !self.is_retired(slot)
    }

    /// Somebody arrived, and has this slot from here on; its first request is about to be issued.
    pub(super) fn arrive(&mut self, slot: u32, due: Instant) {
        let Some(visits) = &mut self.visits else { return };
        let length = visits.lengths.draw(&mut visits.rng);
        let visit = &mut visits.slots[slot as usize];
        *visit = Visit { began: due, length, left: length - 1, ..*visit };
        self.tally.visits.started += 1;
        if let Some(place) = self.places.get_mut(slot as usize) {
            *place = 0;
        }
    }

    /// The first request waits for a connection of its own.
    pub(super) fn arrive_anew(&mut self, io: &mut impl Io, slot: u32, due: Instant) {
        self.arrive(slot, due);
        let now = io.now();
        let stream = self.stream(slot);
        let late_ns = now.since(due);
        let freed = self.visit(slot).map_or(now, |visit| visit.freed);
        let backlog_ns = self.pacers[stream].backlog_ns(due, freed).min(late_ns);
        self.note_lag(slot, late_ns - backlog_ns);
        self.owe(slot, due);
        self.to_open.push_back(slot);
        self.open_connections(io, now);
    }

    pub(super) fn note_lag(&mut self, slot: u32, lag_ns: u64) {
        if let Some(visit) = self.visits.as_mut().and_then(|visits| visits.slots.get_mut(slot as usize)) {
            visit.lag_ns = lag_ns;
        }
    }

    /// Our part in the wait of a request that had to wait for its connection.
    pub(super) fn take_lag(&mut self, slot: u32) -> u64 {
        let visit = self.visits.as_mut().and_then(|visits| visits.slots.get_mut(slot as usize));
        visit.map_or(0, |visit| std::mem::take(&mut visit.lag_ns))
    }

    /// What follows a reply: the next request of the visit, or its end.
    pub(super) fn visit_goes_on(&mut self, io: &mut impl Io, slot: u32, now: Instant) {
        let conn = &self.conns[slot as usize];
        if conn.ring.alive > 0 || conn.flags & flag::DUE != 0 || self.thinks(slot) {
            return;
        }
        let Some(due) = self.next_of_visit(slot, now) else { return self.leave(io, slot, now) };
        if due > now {
            self.think(slot, due);
        } else if !self.is_too_late(due) && self.owe(slot, due) {
            self.send_due(io, slot, due);
        }
    }

    /// The server closed the connection in good order: the visit goes on, with another one.
    pub(super) fn visit_moves_on(&mut self, slot: u32, now: Instant) {
        if !self.is_visited(slot) {
            return;
        }
        match self.next_of_visit(slot, now) {
            Some(due) if due > now => self.think(slot, due),
            Some(due) if !self.is_too_late(due) => _ = self.owe(slot, due),
            _ => {}
        }
    }

    /// When the next request of a visit is due; `None`: it was the last, and the visit is over.
    fn next_of_visit(&mut self, slot: u32, now: Instant) -> Option<Instant> {
        let visit = &mut self.visits.as_mut()?.slots[slot as usize];
        if visit.length == 0 {
            return None;
        }
        if visit.left > 0 {
            visit.left -= 1;
            return Some(self.due_after(slot, now));
        }
        let Visit { began, length, .. } = *visit;
        (visit.length, visit.freed) = (0, now);
        self.tally.visits.completed(length);
        if self.window.covers(began) {
            self.tally.visits.duration.record(now.since(began));
        }
        None
    }

    /// The slot is free for the next visit.
    pub(super) fn leave(&mut self, io: &mut impl Io, slot: u32, now: Instant) {
        if self.visits_are_fresh() && self.conns[slot as usize].state == State::Open {
            if self.hold_for_rest(io, slot) {
                return self.issue_due(io, now);
            }
            io.close(slot);
            self.tally.connections.closed += 1;
            self.closed(slot);
            self.vacate(slot, now);
        } else {
            self.offer(slot);
        }
        self.issue_due(io, now);
    }

    /// A slot without a connection, which the next visit will open one in. False: it needs another now.
    pub(super) fn rests(&mut self, slot: u32, now: Instant) -> bool {
        let rests = self.going && self.visits_are_fresh() && !self.is_idle(slot) && self.is_vacant(slot);
        if rests {
            self.vacate(slot, now);
        }
        rests
    }

    fn vacate(&mut self, slot: u32, now: Instant) {
        if let Some(visits) = &mut self.visits {
            visits.slots[slot as usize].freed = now;
        }
        self.offer(slot);
    }

    /// The connection of a visit died under it.
    pub(super) fn break_visit(&mut self, slot: u32) {
        if !self.is_visited(slot) {
            return;
        }
        if let Some(visits) = &mut self.visits {
            visits.slots[slot as usize].length = 0;
        }
        self.stop_thinking(slot);
        self.tally.visits.broken += 1;
    }

    /// The run is over, and with it the visits that are not: their durations are those until now.
    pub(super) fn close_visits(&mut self, now: Instant) {
        let Some(visits) = &self.visits else { return };
        for visit in visits.slots.iter().filter(|visit| visit.length > 0) {
            self.tally.visits.in_progress += 1;
            if self.window.covers(visit.began) {
                self.tally.visits.duration.record(now.since(visit.began));
                self.tally.visits.censored += 1;
            }
        }
    }
}
