//! Which request a message is, and what a reply is that nobody waits for: one that comes twice, or too late.
//!
//! What was given up is remembered, the last [`REMEMBERED`] of it, so that the two can be told apart.

use std::collections::{HashSet, VecDeque};

/// Requests that were given up and are remembered, of all connections of a thread together.
pub const REMEMBERED: usize = 1 << 16;

/// Which request a message is, or answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    /// Unlike that of every other connection, and of earlier runs: a port is soon used again.
    pub connection: u64,
    /// From 0, one more for each request of the connection.
    pub sequence: u64,
}

/// What a reply is that answers no request that is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unawaited {
    /// The request has been answered before.
    Duplicate,
    /// The request had been given up. Its next reply is a duplicate.
    Late,
    /// One of the two: it is too long ago to say which.
    Old,
    /// No such request was made.
    Unasked,
}

/// The sequence numbers of all connections of a thread. Memory is taken once, and does not grow with requests.
#[derive(Debug)]
pub struct Sequences {
    connections: Vec<Connection>,
    /// Connection and sequence number of what was given up, and the same in order of time.
    lost: HashSet<(u32, u64)>,
    lost_order: VecDeque<(u32, u64)>,
    remembered: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Connection {
    /// Of the next request; of the reply that is expected next.
    next: u64,
    expected: u64,
    /// What was given up before this is forgotten.
    forgotten: u64,
}

impl Sequences {
    pub fn new(connections: usize) -> Self {
        Self::remembering(connections, REMEMBERED)
    }

    fn remembering(connections: usize, remembered: usize) -> Self {
        let remembered = if connections == 0 { 0 } else { remembered };
        Self {
            connections: vec![Connection::default(); connections],
            lost: HashSet::with_capacity(remembered),
            lost_order: VecDeque::with_capacity(remembered),
            remembered,
        }
    }

    /// The number of the next request of a connection, until [`Self::sent`].
    pub fn next(&self, connection: u32) -> u64 {
        self.connections[connection as usize].next
    }

    /// That request was sent.
    pub fn sent(&mut self, connection: u32) {
        self.connections[connection as usize].next += 1;
    }

    /// A request that was awaited is answered. Says whether the reply came out of order: one to a later request came
    /// before (Type-P-Reordered of RFC 4737, 3.3: its number is smaller than the one that was expected next).
    pub fn answered(&mut self, connection: u32, sequence: u64) -> bool {
        let expected = &mut self.connections[connection as usize].expected;
        let reordered = sequence < *expected;
        *expected = (*expected).max(sequence + 1);
        reordered
    }

    /// A request is not awaited any longer.
    pub fn gave_up(&mut self, connection: u32, sequence: u64) {
        if self.lost_order.len() == self.remembered
            && let Some((other, oldest)) = self.lost_order.pop_front()
            && self.lost.remove(&(other, oldest))
        {
            let forgotten = &mut self.connections[other as usize].forgotten;
            *forgotten = (*forgotten).max(oldest + 1);
        }
        self.lost.insert((connection, sequence));
        self.lost_order.push_back((connection, sequence));
    }

    /// A reply came to a request that is not awaited.
    pub fn unawaited(&mut self, connection: u32, sequence: u64) -> Unawaited {
        let Connection { next, forgotten, .. } = self.connections[connection as usize];
        if sequence >= next {
            Unawaited::Unasked
        } else if self.lost.remove(&(connection, sequence)) {
            Unawaited::Late
        } else if sequence < forgotten {
            Unawaited::Old
        } else {
            Unawaited::Duplicate
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn with_sent(count: u64, remembered: usize) -> Sequences {
        let mut sequences = Sequences::remembering(2, remembered);
        for sequence in 0..count {
            assert_eq!(sequences.next(1), sequence);
            sequences.sent(1);
        }
        sequences
    }

    #[test]
    fn replies_that_are_overtaken_are_told() {
        // The examples of RFC 4737, 4.2.4 and 10: of 0 2 1, the 1 is reordered; of 3 0 1 2, all but the first.
        for (order, reordered) in [(&[0, 2, 1][..], &[1][..]), (&[3, 0, 1, 2], &[0, 1, 2]), (&[0, 1, 3, 4], &[])] {
            let mut sequences = with_sent(5, 8);
            let told: Vec<u64> = order.iter().copied().filter(|n| sequences.answered(1, *n)).collect();
            assert_eq!(told, reordered);
        }
    }

    #[test]
    fn late_replies_are_told_from_duplicates() {
        let mut sequences = with_sent(2, 8);
        sequences.gave_up(1, 0);
        assert!(!sequences.answered(1, 1));
        let told = [1, 0, 0, 2].map(|sequence| sequences.unawaited(1, sequence));
        assert_eq!(told, [Unawaited::Duplicate, Unawaited::Late, Unawaited::Duplicate, Unawaited::Unasked]);
        assert_eq!(sequences.unawaited(0, 0), Unawaited::Unasked, "of another connection");
    }

    #[test]
    fn what_is_too_long_ago_is_not_guessed() {
        let mut sequences = with_sent(5, 2);
        (0..4).for_each(|sequence| sequences.gave_up(1, sequence));
        let told = [0, 1, 2, 3, 4].map(|sequence| sequences.unawaited(1, sequence));
        use Unawaited::{Duplicate, Late, Old};
        assert_eq!(told, [Old, Old, Late, Late, Duplicate]);
        assert_eq!((sequences.lost.len(), sequences.lost_order.len()), (0, 2), "memory is bounded");
    }

    /// Against a model that remembers everything.
    #[test]
    fn any_history_is_told_as_it_was() {
        #[derive(Clone, Copy, PartialEq)]
        enum Is {
            Awaited,
            Answered,
            Lost,
        }
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            let mut sequences = Sequences::new(3);
            let mut history: [Vec<Is>; 3] = Default::default();
            let mut highest = [None; 3];
            for _ in 0..400 {
                let connection = rng.below(3) as usize;
                let of = &mut history[connection];
                if rng.below(2) == 0 || of.is_empty() {
                    assert_eq!(sequences.next(connection as u32), of.len() as u64);
                    sequences.sent(connection as u32);
                    of.push(Is::Awaited);
                    continue;
                }
                let which = of.len() - 1 - rng.below(of.len().min(12) as u64) as usize;
                let number = (connection as u32, which as u64);
                match of[which] {
                    Is::Awaited if rng.below(4) == 0 => {
                        sequences.gave_up(number.0, number.1);
                        of[which] = Is::Lost;
                    }
                    Is::Awaited => {
                        let top = &mut highest[connection];
                        assert_eq!(sequences.answered(number.0, number.1), *top > Some(which), "seed {seed}");
                        *top = (*top).max(Some(which));
                        of[which] = Is::Answered;
                    }
                    Is::Lost => {
                        assert_eq!(sequences.unawaited(number.0, number.1), Unawaited::Late, "seed {seed}");
                        of[which] = Is::Answered;
                    }
                    Is::Answered => {
                        assert_eq!(sequences.unawaited(number.0, number.1), Unawaited::Duplicate, "seed {seed}");
                    }
                }
            }
        }
    }
}
