//! Deadlines of connections: 8 bytes each, in milliseconds, rounded up so that none fires early.

use crate::time::{Instant, NS_PER_MS};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A queue of (deadline, slot). An entry is not taken back when it is no longer wanted: the caller looks at the
/// connection when it fires, and puts it in again where it came too early.
#[derive(Debug)]
pub(super) struct Timers {
    origin: Instant,
    heap: BinaryHeap<Reverse<u64>>,
}

impl Timers {
    pub(super) fn new(origin: Instant, capacity: usize) -> Self {
        Self { origin, heap: BinaryHeap::with_capacity(capacity) }
    }

    pub(super) fn push(&mut self, at: Instant, slot: u32) {
        let ms = at.since(self.origin).div_ceil(NS_PER_MS).min(u64::from(u32::MAX));
        self.heap.push(Reverse(ms << 32 | u64::from(slot)));
    }

    /// The earliest deadline, or never.
    pub(super) fn next(&self) -> Instant {
        self.heap.peek().map_or(Instant::NEVER, |entry| self.origin.after((entry.0 >> 32) * NS_PER_MS))
    }

    /// The slot of an entry that is due, if there is one.
    pub(super) fn pop(&mut self, now: Instant) -> Option<u32> {
        if self.next() > now {
            return None;
        }
        self.heap.pop().map(|entry| entry.0 as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_fire_in_order_and_never_early() {
        let origin = Instant(500);
        let mut timers = Timers::new(origin, 4);
        timers.push(origin.after(2 * NS_PER_MS + 1), 7);
        timers.push(origin.after(NS_PER_MS), 9);
        assert_eq!(timers.pop(origin.after(NS_PER_MS - 1)), None);
        assert_eq!(timers.pop(origin.after(NS_PER_MS)), Some(9));
        assert_eq!(timers.pop(origin.after(2 * NS_PER_MS + 1)), None);
        assert_eq!(timers.next(), origin.after(3 * NS_PER_MS));
        assert_eq!(timers.pop(origin.after(3 * NS_PER_MS)), Some(7));
        assert_eq!(timers.next(), Instant::NEVER);
    }
}
