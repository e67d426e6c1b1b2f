//! Connections whose stream we have ended, and how long they are waited for. No clock.

use loadgen_core::time::{Instant, NS_PER_MS, NS_PER_S};
use std::collections::VecDeque;

/// How long a peer may take to end its stream after we ended ours.
const LINGER_NS: u64 = 2 * NS_PER_S;
/// Likewise at shutdown, where nothing was under way: time for what it sends in this moment to arrive.
const QUIET_NS: u64 = 300 * NS_PER_MS;

/// In the order in which they come to their end: two queues, as one kind is given longer than the other.
#[derive(Debug)]
pub(super) struct Lingering<N> {
    answered: VecDeque<(Instant, N)>,
    quiet: VecDeque<(Instant, N)>,
}

impl<N: Copy> Lingering<N> {
    pub(super) fn new() -> Self {
        Self { answered: VecDeque::new(), quiet: VecDeque::new() }
    }

    /// Our stream of this connection has ended.
    pub(super) fn push(&mut self, now: Instant, name: N) {
        self.answered.push_back((now.after(LINGER_NS), name));
    }

    /// Likewise at shutdown, of a connection that had no request under way.
    pub(super) fn push_quiet(&mut self, now: Instant, name: N) {
        self.quiet.push_back((now.after(QUIET_NS), name));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.answered.is_empty() && self.quiet.is_empty()
    }

    /// When the next one has been waited for long enough.
    pub(super) fn next(&self) -> Option<Instant> {
        let fronts = [self.answered.front(), self.quiet.front()];
        fronts.into_iter().flatten().map(|(then, _)| *then).min()
    }

    /// One that has been.
    pub(super) fn pop(&mut self, now: Instant) -> Option<N> {
        let queues = [&mut self.answered, &mut self.quiet];
        let mut due = queues.into_iter().filter(|queue| queue.front().is_some_and(|(then, _)| *then <= now));
        due.next()?.pop_front().map(|(_, name)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_quiet_at_the_end_is_waited_for_less_long() {
        let mut lingering = Lingering::new();
        assert!(lingering.is_empty() && lingering.next().is_none());
        lingering.push(Instant(0), 'a');
        lingering.push_quiet(Instant(1), 'b');
        assert_eq!(lingering.next(), Some(Instant(1 + QUIET_NS)));
        assert_eq!((lingering.pop(Instant(QUIET_NS)), lingering.pop(Instant(1 + QUIET_NS))), (None, Some('b')));
        assert_eq!((lingering.next(), lingering.pop(Instant(LINGER_NS))), (Some(Instant(LINGER_NS)), Some('a')));
        assert!(lingering.is_empty());
    }
}
