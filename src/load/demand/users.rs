//! Users: each asks one thing after the other on a connection, and thinks before the next. They are as many as there
//! are connections (a closed loop), or their sessions arrive by a schedule (partly open).

use super::super::config::Config;
use super::super::connections::{Connections, State, flag};
use super::Start;
use super::paced::Paced;
use super::sessions::{Next, Sessions};
use super::thinking::Thinking;
use crate::engine::Io;
use crate::time::Instant;

/// Connections that go on in one turn: replies must not wait for all that woke at once.
const WAKES_A_TURN: usize = 256;

#[derive(Debug)]
pub(in crate::load) struct Users {
    thinking: Option<Thinking>,
    arrivals: Option<(Paced, Sessions)>,
}

impl Users {
    pub(super) fn new(config: &Config) -> Self {
        let (traffic, seed) = (&config.traffic, config.seed);
        let sessions = traffic.sessions.as_ref().map(|of| Sessions::new(of, seed, config.active));
        Self {
            thinking: traffic.thinks().then(|| Thinking::new(traffic, seed, config.active)),
            arrivals: sessions.map(|sessions| (Paced::new(config), sessions)),
        }
    }

    pub(super) fn arrivals(&self) -> Option<&Paced> {
        self.arrivals.as_ref().map(|(paced, _)| paced)
    }

    pub(super) fn arrivals_mut(&mut self) -> Option<&mut Paced> {
        self.arrivals.as_mut().map(|(paced, _)| paced)
    }

    fn thinks(&self, slot: u32) -> bool {
        self.thinking.as_ref().is_some_and(|thinking| thinking.is_busy(slot))
    }

    fn think(&mut self, slot: u32, until: Instant) {
        if let Some(thinking) = &mut self.thinking {
            thinking.push(slot, until);
        }
    }

    pub(super) fn is_used(&self, slot: u32) -> bool {
        self.arrivals.as_ref().is_some_and(|(_, sessions)| sessions.is_there(slot))
    }

    fn are_fresh(&self) -> bool {
        self.arrivals.as_ref().is_some_and(|(_, sessions)| sessions.are_fresh())
    }

    /// When the request after a reply that arrived now is due.
    fn due_after(&mut self, on: &Connections, slot: u32, now: Instant) -> Instant {
        self.thinking.as_mut().map_or(now, |thinking| now.after(thinking.draw_ns(on.cursor(slot))))
    }

    pub(super) fn start(&mut self, on: &mut Connections, io: &mut impl Io, slot: u32, now: Instant) -> Start {
        if let Some((paced, _)) = &mut self.arrivals {
            paced.start(on, slot);
            return Start::GoesOn;
        }
        if on.counts_requests() {
            on.begins_late(slot, now);
            return Start::GoesOn;
        }
        if on.is_spent(slot) {
            on.close_when_answered(io, slot);
        }
        on.begins(slot);
        if let Some(thinking) = &mut self.thinking {
            let rest_ns = thinking.draw_rest_ns(on.cursor(slot));
            thinking.push(slot, on.began.after(rest_ns));
        }
        Start::Thinks
    }

    pub(super) fn opened(&mut self, on: &mut Connections, io: &mut impl Io, slot: u32, now: Instant) {
        if self.thinks(slot) || on.conns[slot as usize].is_busy() {
            // The request that will prove it has yet to be thought of, or came back and is not asked again yet.
            return on.is_proved_by_and_by(slot, now);
        }
        if self.are_fresh() {
            return self.leave(on, io, slot, now);
        }
        match &mut self.arrivals {
            None => on.begin(io, slot, now),
            Some((paced, sessions)) => {
                on.is_proved_by_and_by(slot, now);
                paced.offer_fresh(on, slot, now);
                paced.begin_sessions(sessions, on, io, now);
            }
        }
    }

    pub(super) fn ended(&mut self, on: &mut Connections, io: &mut impl Io, slot: u32, now: Instant) {
        if on.conns[slot as usize].is_busy() || self.thinks(slot) {
            return;
        }
        if let Some((_, sessions)) = &mut self.arrivals
            && sessions.next(on, slot, now) == Next::End
        {
            return self.leave(on, io, slot, now);
        }
        let due = self.due_after(on, slot, now);
        if due > now {
            self.think(slot, due);
        } else if !on.is_too_late(due) && on.owe(slot, due) {
            on.send_due(io, slot, due);
        }
    }

    pub(super) fn closed(&mut self, on: &mut Connections, slot: u32, now: Instant) {
        match &mut self.arrivals {
            None => on.leave_script(slot),
            // The session goes on, with another connection.
            Some((_, sessions)) if sessions.is_there(slot) => {
                if sessions.next(on, slot, now) == Next::End {
                    return;
                }
            }
            Some(_) => return,
        }
        let due = self.due_after(on, slot, now);
        if due > now {
            self.think(slot, due);
        } else if !on.is_too_late(due) {
            on.owe(slot, due);
        }
    }

    pub(super) fn lost(&mut self, on: &mut Connections, slot: u32) {
        let Some((_, sessions)) = &mut self.arrivals else { return };
        if sessions.break_off(on, slot)
            && let Some(thinking) = &mut self.thinking
        {
            thinking.forget(slot);
        }
    }

    /// Users open their connection when they need it.
    pub(super) fn wants(&mut self, on: &mut Connections, slot: u32, now: Instant) -> bool {
        if self.thinks(slot) {
            return false;
        }
        let rests = on.carries_load(slot) && self.are_fresh() && on.is_vacant(slot) && !self.is_used(slot);
        if rests {
            self.vacate(on, slot, now);
        }
        !rests
    }

    /// A session is over: its slot is free for the next one.
    fn leave(&mut self, on: &mut Connections, io: &mut impl Io, slot: u32, now: Instant) {
        if self.are_fresh() && on.conns[slot as usize].state == State::Open {
            if !on.awaits_rest(io, slot) {
                io.close(slot);
                on.tally.connections.closed += 1;
                on.closed(slot);
                self.vacate(on, slot, now);
            }
        } else if let Some((paced, _)) = &mut self.arrivals {
            paced.offer(on, slot);
        }
        self.begin_sessions(on, io, now);
    }

    fn vacate(&mut self, on: &mut Connections, slot: u32, now: Instant) {
        if let Some((paced, sessions)) = &mut self.arrivals {
            sessions.free(slot, now);
            paced.offer(on, slot);
        }
    }

    fn begin_sessions(&mut self, on: &mut Connections, io: &mut impl Io, now: Instant) {
        if let Some((paced, sessions)) = &mut self.arrivals {
            paced.begin_sessions(sessions, on, io, now);
        }
    }

    /// When somebody goes on.
    pub(super) fn next_wake(&self) -> Instant {
        self.thinking.as_ref().map_or(Instant::NEVER, Thinking::next)
    }

    pub(super) fn due(&mut self, on: &mut Connections, io: &mut impl Io, now: Instant) {
        self.begin_sessions(on, io, now);
        for _ in 0..WAKES_A_TURN {
            let Some((slot, due)) = self.thinking.as_mut().and_then(|thinking| thinking.pop(now)) else { return };
            woke(on, io, slot, due);
        }
    }

    pub(super) fn last(&mut self, on: &mut Connections, io: &mut impl Io, now: Instant) {
        self.begin_sessions(on, io, now);
        // In a closed loop it is booked as unsent (`owe_until`).
        while self.arrivals.is_some()
            && let Some((slot, due)) = self.thinking.as_mut().and_then(|thinking| thinking.pop(now))
        {
            woke(on, io, slot, due);
        }
    }

    pub(super) fn owe_until(&mut self, on: &mut Connections, at: Instant) {
        let Some(thinking) = self.thinking.as_ref().filter(|_| self.arrivals.is_none()) else { return };
        // Few: those of the last moment.
        for (wakes, slot) in thinking.until(at) {
            if on.conns[slot as usize].flags & flag::DUE == 0 && !on.is_retired(slot) {
                on.owe(slot, wakes);
            }
        }
    }

    pub(super) fn close(&mut self, on: &mut Connections, now: Instant) {
        if let Some((_, sessions)) = &mut self.arrivals {
            sessions.close(on, now);
        }
    }
}

/// A user has thought long enough: the next request is due.
fn woke(on: &mut Connections, io: &mut impl Io, slot: u32, due: Instant) {
    let conn = &on.conns[slot as usize];
    let is_owed = conn.flags & flag::DUE != 0;
    if on.drain_until.is_some() || on.is_retired(slot) || on.is_too_late(due) || conn.ring.alive > 0 {
        return;
    }
    if !is_owed && !on.owe(slot, due) {
        return;
    }
    match on.conns[slot as usize].state {
        State::Open => on.send_due(io, slot, due),
        // It goes on when it is open, and our part in its wait is what has passed so far.
        state => {
            if state == State::Closed {
                on.to_open.push_back(slot);
            }
            on.sets_out(slot, due, io.now());
        }
    }
}
