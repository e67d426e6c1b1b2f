//! Partly open: users arrive by a schedule that waits for nobody, and each then asks one thing after the other
//! (Schroeder, Wierman, Harchol-Balter, "Open versus closed: a cautionary tale", NSDI 2006).

use super::super::connections::Connections;
use crate::load::users::{self, Lengths};
use crate::rng::Rng;
use crate::time::Instant;

/// Sets these draws apart from others of the same seed.
const SALT: u64 = 0x7365_7373_696f_6e73;

/// Who is there.
#[derive(Debug)]
pub(super) struct Sessions {
    lengths: Lengths,
    rng: Rng,
    /// Each has a connection of its own, opened when it arrives and closed when it ends.
    fresh: bool,
    /// By active slot.
    slots: Vec<Session>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Session {
    /// When it arrived, by the schedule.
    began: Instant,
    /// Since when the slot has been free, where sessions have connections of their own.
    freed: Instant,
    /// Requests of it; 0: nobody is there.
    length: u32,
    /// Requests that have yet to be issued.
    left: u32,
}

/// What comes next in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Request,
    /// It was the last request, or nobody is there.
    End,
}

impl Sessions {
    pub(super) fn new(of: &users::Sessions, seed: u64, connections: usize) -> Self {
        let (lengths, fresh) = (of.lengths.clone(), of.fresh);
        Self { lengths, rng: Rng::new(seed ^ SALT), fresh, slots: vec![Session::default(); connections] }
    }

    /// Whether each has a connection of its own.
    pub(super) fn are_fresh(&self) -> bool {
        self.fresh
    }

    /// Whether somebody uses this connection, so that it is not free for others.
    pub(super) fn is_there(&self, slot: u32) -> bool {
        self.slots.get(slot as usize).is_some_and(|session| session.length > 0)
    }

    pub(super) fn freed(&self, slot: u32) -> Instant {
        self.slots[slot as usize].freed
    }

    /// Somebody arrived, and has this slot from here on; the first request is about to be issued.
    pub(super) fn arrive(&mut self, on: &mut Connections, slot: u32, due: Instant, nth: u64) {
        let length = self.lengths.draw(&mut self.rng);
        let session = &mut self.slots[slot as usize];
        *session = Session { began: due, length, left: length - 1, ..*session };
        on.tally.sessions.started += 1;
        on.arrives(slot, nth);
    }

    /// A reply is here.
    pub(super) fn next(&mut self, on: &mut Connections, slot: u32, now: Instant) -> Next {
        let session = &mut self.slots[slot as usize];
        if session.length == 0 {
            return Next::End;
        }
        if session.left > 0 {
            session.left -= 1;
            return Next::Request;
        }
        let Session { began, length, .. } = *session;
        (session.length, session.freed) = (0, now);
        on.tally.sessions.completed(length);
        if on.window.covers(began) {
            on.tally.sessions.duration.record(now.since(began));
        }
        Next::End
    }

    /// The slot is free for the next one from now on.
    pub(super) fn free(&mut self, slot: u32, now: Instant) {
        self.slots[slot as usize].freed = now;
    }

    /// The connection of a session died under it. Says whether there was one.
    pub(super) fn break_off(&mut self, on: &mut Connections, slot: u32) -> bool {
        if !self.is_there(slot) {
            return false;
        }
        self.slots[slot as usize].length = 0;
        on.tally.sessions.broken += 1;
        true
    }

    /// The run is over, and with it the sessions that are not: their durations are those until now.
    pub(super) fn close(&mut self, on: &mut Connections, now: Instant) {
        for session in self.slots.iter().filter(|session| session.length > 0) {
            on.tally.sessions.in_progress += 1;
            if on.window.covers(session.began) {
                on.tally.sessions.duration.record(now.since(session.began));
                on.tally.sessions.censored += 1;
            }
        }
    }
}
