//! When delayed replies are due: by connection, the earliest first.

use crate::stats::Counters;
use loadgen_core::sys::clock;
use loadgen_core::time::{Instant, NS_PER_US};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// A wait ends this long before a release, and events are looked for without sleeping from there on: a thread that
/// sleeps wakes up some tens of microseconds late.
const SPIN_NS: u64 = 50 * NS_PER_US;

/// Instants at which connections `N` have a reply to be released. Lazy: a connection that is gone stays until its time.
#[derive(Debug)]
pub(super) struct Releases<N> {
    queue: BinaryHeap<Reverse<(Instant, N)>>,
    spinning_since: Option<Instant>,
    spin_ns: u64,
}

impl<N: Copy + Ord> Releases<N> {
    pub(super) fn new() -> Self {
        Self { queue: BinaryHeap::new(), spinning_since: None, spin_ns: 0 }
    }

    pub(super) fn push(&mut self, at: Instant, name: N) {
        self.queue.push(Reverse((at, name)));
    }

    /// How long the engine may sleep, as far as releases are concerned.
    pub(super) fn timeout(&mut self) -> Duration {
        let Some(Reverse((next, _))) = self.queue.peek() else { return Duration::MAX };
        let now = clock::now();
        let left = next.since(now);
        if left > SPIN_NS {
            self.stop_spinning(now);
            return Duration::from_nanos(left - SPIN_NS);
        }
        self.spinning_since.get_or_insert(now);
        Duration::ZERO
    }

    /// The next connection whose time has come, if there is one.
    pub(super) fn next(&mut self) -> Option<N> {
        let Reverse((at, name)) = *self.queue.peek()?;
        let now = clock::now();
        if at > now {
            return None;
        }
        self.stop_spinning(now);
        self.queue.pop();
        Some(name)
    }

    /// Notes what it cost, where there was anything to release.
    pub(super) fn add_to(&self, counters: &mut Counters) {
        if let Some(releasing) = &mut counters.releasing {
            releasing.spin_ns += self.spin_ns;
        }
    }

    fn stop_spinning(&mut self, now: Instant) {
        if let Some(since) = self.spinning_since.take() {
            self.spin_ns += now.since(since);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_comes_first_and_none_before_its_time() {
        let mut releases = Releases::new();
        assert_eq!((releases.timeout(), releases.next()), (Duration::MAX, None::<u64>));
        let now = clock::now();
        releases.push(now.after(3_600_000_000_000), 3);
        assert!(releases.timeout() > Duration::from_secs(3_500) && releases.next().is_none());
        releases.push(now, 2);
        releases.push(Instant(0), 1);
        assert_eq!(releases.timeout(), Duration::ZERO);
        assert_eq!((releases.next(), releases.next(), releases.next()), (Some(1), Some(2), None));
    }
}
