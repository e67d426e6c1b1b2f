//! Think times: how long a user looks at a reply before the next request is due. Latency counts from there, so a user
//! who waits for a slow server is not taken for one who thinks.

use crate::load::users::Traffic;
use crate::rng::Rng;
use crate::scenario::taken_apart;
use crate::service_time::{Distribution, Draws};
use crate::time::Instant;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

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

    /// How long to wait before the request that comes next at this cursor of a script; 0: it begins one.
    pub(super) fn draw_ns(&mut self, cursor: u32) -> u64 {
        let step = taken_apart(cursor).and_then(|(script, step)| self.steps.get_mut(script)?.get_mut(step)?.as_mut());
        step.or(self.draws.as_mut()).map_or(0, Draws::next_ns)
    }

    pub(super) fn is_busy(&self, slot: u32) -> bool {
        self.wakes.get(slot as usize).is_some_and(|wakes| *wakes != Instant::NEVER)
    }

    pub(super) fn push(&mut self, slot: u32, wakes: Instant) {
        self.wakes[slot as usize] = wakes;
        self.queue.push(Reverse((wakes, slot)));
    }

    pub(super) fn next(&self) -> Instant {
        self.queue.peek().map_or(Instant::NEVER, |Reverse((wakes, _))| *wakes)
    }

    /// One whose time has come, and when that was.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(u32, Instant)> {
        while self.next() <= now {
            let Reverse((wakes, slot)) = self.queue.pop()?;
            if self.wakes[slot as usize] == wakes {
                self.wakes[slot as usize] = Instant::NEVER;
                return Some((slot, wakes));
            }
        }
        None
    }

    pub(super) fn forget(&mut self, slot: u32) {
        self.wakes[slot as usize] = Instant::NEVER;
    }

    /// The first thought, of which a random part is over: users who think equally long do not march in step.
    pub(super) fn draw_rest_ns(&mut self, cursor: u32) -> u64 {
        (self.draw_ns(cursor) as f64 * self.phases.unit()) as u64
    }

    /// Those whose time comes before `at`.
    pub(super) fn until(&self, at: Instant) -> Vec<(Instant, u32)> {
        let entries = self.queue.iter().map(|Reverse(entry)| *entry);
        entries.filter(|(wakes, slot)| *wakes < at && self.wakes[*slot as usize] == *wakes).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;
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
        let cursors = [0, 1 << 16 | 1, 1 << 16 | 2, 9 << 16 | 1];
        let mut thinking = Thinking::new(&usual, 1, 4);
        assert_eq!(cursors.map(|cursor| thinking.draw_ns(cursor)), [1, 7, 1, 1]);
        let mut thinking = Thinking::new(&Traffic { think: None, ..usual }, 1, 4);
        assert_eq!(cursors.map(|cursor| thinking.draw_ns(cursor)), [0, 7, 0, 0]);
    }
}
