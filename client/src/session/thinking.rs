//! Think times: how long a user looks at a reply before the next request is due. Latency counts from there, so a user
//! who waits for a slow server is not taken for one who thinks.

use super::{Session, State, flag};
use crate::engine::Io;
use crate::traffic::Traffic;
use loadgen_core::rng::Rng;
use loadgen_core::scenario::taken_apart;
use loadgen_core::service_time::{Distribution, Draws};
use loadgen_core::time::Instant;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Connections that go on in one turn: replies must not wait for all that woke at once.
const WAKES_A_TURN: usize = 256;

/// Sets these draws apart from others of the same seed.
const SALT: u64 = 0x7468_696e_6b5f_7469;

/// Who thinks, and until when.
#[derive(Debug)]
pub(super) struct Thinking {
    /// Where the step does not say it; none: at once.
    draws: Option<Draws>,
    /// By script and step, where a scenario file says it.
    steps: Vec<Vec<Option<Draws>>>,
    /// Of which part of a think time is over when the load begins.
    phases: Rng,
    /// An entry counts if `wakes` says the same: a connection may have been lost since.
    queue: BinaryHeap<Reverse<(Instant, u32)>>,
    /// By slot; never: it does not think.
    wakes: Vec<Instant>,
}

impl Thinking {
    /// `seed`: this worker's. Room for all connections is taken now.
    pub(super) fn new(traffic: &Traffic, seed: u64, connections: usize) -> Self {
        let scripts = traffic.scripts.iter().flat_map(|scenario| &scenario.scripts);
        let draws = |(think, number): (&Option<Distribution>, u64)| {
            think.clone().map(|think| Draws::new(think, (seed ^ SALT).wrapping_add(number)))
        };
        // Numbers set the draws of steps apart from each other.
        let steps = scripts.zip(1..).map(|(script, number)| {
            script.steps.iter().map(|step| &step.think).zip(number << 16..).map(draws).collect()
        });
        Self {
            steps: steps.collect(),
            draws: draws((&traffic.think, 0)),
            phases: Rng::new(!seed ^ SALT),
            queue: BinaryHeap::with_capacity(connections),
            wakes: vec![Instant::NEVER; connections],
        }
    }

    /// How long to wait before the request that comes next at this place of a script; 0: it begins one.
    fn draw_ns(&mut self, place: u32) -> u64 {
        let step = taken_apart(place).and_then(|(script, step)| self.steps.get_mut(script)?.get_mut(step)?.as_mut());
        step.or(self.draws.as_mut()).map_or(0, Draws::next_ns)
    }

    fn is_busy(&self, slot: u32) -> bool {
        self.wakes.get(slot as usize).is_some_and(|wakes| *wakes != Instant::NEVER)
    }

    fn push(&mut self, slot: u32, wakes: Instant) {
        self.wakes[slot as usize] = wakes;
        self.queue.push(Reverse((wakes, slot)));
    }

    fn next(&self) -> Instant {
        self.queue.peek().map_or(Instant::NEVER, |Reverse((wakes, _))| *wakes)
    }

    /// One whose time has come, and when that was.
    fn pop(&mut self, now: Instant) -> Option<(u32, Instant)> {
        while self.next() <= now {
            let Reverse((wakes, slot)) = self.queue.pop()?;
            if self.wakes[slot as usize] == wakes {
                self.wakes[slot as usize] = Instant::NEVER;
                return Some((slot, wakes));
            }
        }
        None
    }

    fn forget(&mut self, slot: u32) {
        self.wakes[slot as usize] = Instant::NEVER;
    }
}

impl Session {
    /// When the request after a reply that arrived now is due.
    pub(super) fn due_after(&mut self, slot: u32, now: Instant) -> Instant {
        let place = self.places.get(slot as usize).copied().unwrap_or(0);
        self.thinking.as_mut().map_or(now, |thinking| now.after(thinking.draw_ns(place)))
    }

    /// A script ends with its connection: the next request begins another.
    pub(super) fn leave_script(&mut self, slot: u32) {
        if let Some(place) = self.places.get_mut(slot as usize) {
            *place = 0;
        }
    }

    pub(super) fn thinks(&self, slot: u32) -> bool {
        self.thinking.as_ref().is_some_and(|thinking| thinking.is_busy(slot))
    }

    pub(super) fn think(&mut self, slot: u32, until: Instant) {
        if let Some(thinking) = &mut self.thinking {
            thinking.push(slot, until);
        }
    }

    pub(super) fn stop_thinking(&mut self, slot: u32) {
        if let Some(thinking) = &mut self.thinking {
            thinking.forget(slot);
        }
    }

    /// When somebody goes on.
    pub(super) fn next_wake(&self) -> Instant {
        match &self.thinking {
            Some(thinking) if self.drain_until.is_none() => thinking.next(),
            _ => Instant::NEVER,
        }
    }

    /// The load begins: the first request is due when a random part of a think time has passed, so that users who think
    /// equally long do not march in step.
    pub(super) fn first_thought(&mut self, io: &mut impl Io, slot: u32) {
        if self.config.requests_per_connection.is_some_and(|limit| self.conns[slot as usize].issued >= limit) {
            self.close_when_answered(io, slot);
        }
        let Some(thinking) = &mut self.thinking else { return };
        let place = self.places.get(slot as usize).copied().unwrap_or(0);
        let rest_ns = thinking.draw_ns(place) as f64 * thinking.phases.unit();
        thinking.push(slot, self.began.after(rest_ns as u64));
    }

    /// Closed loop: the connection has nothing on it, and goes on when its user has thought.
    pub(super) fn think_on(&mut self, io: &mut impl Io, slot: u32, now: Instant) {
        let conn = &self.conns[slot as usize];
        if conn.ring.alive > 0 || conn.flags & flag::DUE != 0 || self.thinks(slot) {
            return;
        }
        match self.due_after(slot, now) {
            due if due > now => self.think(slot, due),
            due if self.owe(slot, due) => self.send_due(io, slot, due),
            _ => {}
        }
    }

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
        self.issuing = self.issue_owed(slot);
        let Some(ticket) = self.issuing else { return };
        self.flush(io, slot);
        self.arm_timeout(slot, due);
        self.issuing = None;
        let stamp = self.tickets.stamp(ticket);
        if !stamp.is_sent() {
            return;
        }
        let lag_ns = stamp.sent.since(due);
        if self.pacers.is_empty() {
            self.was_late(due, lag_ns);
        } else {
            self.left(slot, due, lag_ns, 0);
        }
    }

    /// A request that is due sets out for a connection that has yet to be opened.
    fn set_out(&mut self, slot: u32, due: Instant, now: Instant) {
        let lag_ns = now.since(due);
        if self.pacers.is_empty() {
            self.was_late(due, lag_ns);
        } else {
            self.note_lag(slot, lag_ns);
        }
    }

    fn was_late(&mut self, due: Instant, lag_ns: u64) {
        self.window.issued(lag_ns, 0);
        if self.window.covers(due) {
            self.tally.generator_lag.record(lag_ns);
        }
    }

    /// Those go on who have thought long enough.
    pub(super) fn wake(&mut self, io: &mut impl Io, now: Instant) {
        for _ in 0..WAKES_A_TURN {
            let Some((slot, due)) = self.thinking.as_mut().and_then(|thinking| thinking.pop(now)) else { return };
            self.woke(io, slot, due);
        }
    }

    fn woke(&mut self, io: &mut impl Io, slot: u32, due: Instant) {
        let conn = &self.conns[slot as usize];
        let owed = conn.flags & flag::DUE != 0;
        if self.drain_until.is_some() || self.is_retired(slot) || self.is_too_late(due) || conn.ring.alive > 0 {
            return;
        }
        if !owed && !self.owe(slot, due) {
            return;
        }
        match self.conns[slot as usize].state {
            State::Open => self.send_due(io, slot, due),
            // It goes on when it is open, and our part in its wait is what has passed so far.
            state => {
                if state == State::Closed {
                    self.to_open.push_back(slot);
                }
                self.set_out(slot, due, io.now());
            }
        }
    }

    /// The schedule ends: what was due before it did, and had not been looked at, is sent as if we had been in time.
    /// (In a closed loop it is booked as unsent, by [`Session::owe_until`].)
    pub(super) fn wake_all(&mut self, io: &mut impl Io, now: Instant) {
        if self.pacers.is_empty() {
            return;
        }
        while let Some((slot, due)) = self.thinking.as_mut().and_then(|thinking| thinking.pop(now)) {
            self.woke(io, slot, due);
        }
    }

    /// The window of a closed loop closes at `at`: likewise.
    pub(super) fn owe_until(&mut self, at: Instant) {
        let Some(thinking) = &self.thinking else { return };
        // Few: those of the last moment.
        let entries = thinking.queue.iter().map(|Reverse(entry)| *entry);
        let due = entries.filter(|(wakes, slot)| *wakes < at && thinking.wakes[*slot as usize] == *wakes);
        for (wakes, slot) in due.collect::<Vec<_>>() {
            if self.conns[slot as usize].flags & flag::DUE == 0 && !self.is_retired(slot) {
                self.owe(slot, wakes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loadgen_core::scenario::Scenario;
    use std::sync::Arc;

    #[test]
    fn thoughts_end_in_order_to_the_nanosecond_and_lost_ones_never() {
        let traffic = Traffic { think: Some(Distribution::Fixed(1)), ..Traffic::default() };
        let mut thinking = Thinking::new(&traffic, 1, 4);
        for (slot, wakes) in [(0, 30), (1, 10), (2, 20), (3, 11)] {
            thinking.push(slot, Instant(wakes));
        }
        thinking.forget(2);
        assert!(thinking.is_busy(0) && !thinking.is_busy(2) && !thinking.is_busy(9));
        assert_eq!((thinking.next(), thinking.pop(Instant(9))), (Instant(10), None));
        assert_eq!(thinking.pop(Instant(10)), Some((1, Instant(10))));
        assert_eq!(thinking.pop(Instant(10)), None);
        // One that was lost and thinks again is not woken by its earlier thought.
        thinking.push(2, Instant(40));
        assert_eq!(thinking.pop(Instant(29)), Some((3, Instant(11))));
        assert_eq!(thinking.pop(Instant(29)), None);
        assert_eq!(thinking.pop(Instant(50)), Some((0, Instant(30))));
        assert_eq!(thinking.pop(Instant(50)), Some((2, Instant(40))));
        assert_eq!((thinking.pop(Instant(99)), thinking.next()), (None, Instant::NEVER));
    }
    #[test]
    fn a_step_has_its_own_think_time_and_others_the_usual_one() {
        let text = "[[request]]\nname = 'a'\npath = '/'\n[[script]]\nname = 's'\n\
            steps = ['a', { request = 'a', think = 'fixed:7ns' }, 'a']\n";
        let scenario = Scenario::parse("s", text, &mut |file| Err(file.to_owned())).unwrap();
        let scripts = Some(Arc::new(scenario));
        let usual = Traffic { think: Some(Distribution::Fixed(1)), scripts, ..Traffic::default() };
        let places = [0, 1 << 16 | 1, 1 << 16 | 2, 9 << 16 | 1];
        let mut thinking = Thinking::new(&usual, 1, 4);
        assert_eq!(places.map(|place| thinking.draw_ns(place)), [1, 7, 1, 1]);
        let mut thinking = Thinking::new(&Traffic { think: None, ..usual }, 1, 4);
        assert_eq!(places.map(|place| thinking.draw_ns(place)), [0, 7, 0, 0]);
    }
}
