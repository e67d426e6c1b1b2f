//! Which requests of a datagram protocol are unanswered, and what a reply that arrives is: an answer, in order or
//! overtaken, or one that was not waited for.
//!
//! A reply names its request by a [`Tag`]. Each connection has as many cells as it may have requests in flight, and the
//! tag says which one its request is in: so any reply is found at once, in whatever order they come, and one that is
//! missing keeps nobody from using the other cells.
//!
//! What had been given up is remembered, the last [`REMEMBERED`] of it, so that a reply that comes late is told from
//! one that comes twice.

use std::collections::{HashSet, VecDeque};

/// Requests that were given up and are remembered, of all connections of a thread together.
pub const REMEMBERED: usize = 1 << 16;

/// Which request a datagram is, or answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    /// Where its connection keeps it.
    pub cell: u32,
    /// Unlike that of every other connection, and of earlier runs: a port is soon used again.
    pub connection: u64,
    /// From 0, one more for each request of the connection.
    pub sequence: u64,
}

/// What a reply turned out to be. `T` is what the caller noted with its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival<T> {
    /// The reply to a request that is outstanding until here.
    Answer {
        noted: T,
        /// One that was sent later has been answered before (Type-P-Reordered of RFC 4737, section 3.3: its sequence
        /// number is smaller than the one that was expected next).
        reordered: bool,
    },
    /// The request has been answered before.
    Duplicate,
    /// The request had been given up. Its next reply will be a duplicate.
    Late,
    /// One of the two before: it is too long ago to say which.
    Old,
    /// No such request was made.
    Unasked,
}

/// The unanswered requests of all connections of a thread. Memory is taken once, and does not grow with requests.
#[derive(Debug)]
pub struct Outstanding<T> {
    depth: usize,
    connections: Vec<Connection>,
    /// `depth` of them for each connection.
    cells: Vec<Cell<T>>,
    /// Connection and sequence number of what was given up, and the same in order of time.
    lost: HashSet<(u32, u64)>,
    lost_order: VecDeque<(u32, u64)>,
    remembered: usize,
}

#[derive(Clone, Copy, Debug)]
struct Connection {
    /// Of the next request; of the reply that is expected next.
    sequence: u64,
    expected: u64,
    /// What was given up before this is forgotten.
    forgotten: u64,
    /// The first free cell.
    free: u32,
    used: u32,
}

/// A free cell has the next free one in `sequence`.
#[derive(Clone, Copy, Debug)]
struct Cell<T> {
    sequence: u64,
    noted: Option<T>,
}

const _: () = assert!(size_of::<Connection>() == 32);

impl<T: Copy> Outstanding<T> {
    /// For so many connections with at most `depth` (at least 1) requests in flight each.
    pub fn new(connections: usize, depth: usize) -> Self {
        Self::remembering(connections, depth, REMEMBERED)
    }

    fn remembering(connections: usize, depth: usize, remembered: usize) -> Self {
        let depth = depth.max(1);
        let cell = |index: usize| Cell { sequence: (index % depth) as u64 + 1, noted: None };
        Self {
            depth,
            connections: vec![Connection { sequence: 0, expected: 0, forgotten: 0, free: 0, used: 0 }; connections],
            cells: (0..connections * depth).map(cell).collect(),
            lost: HashSet::with_capacity(remembered),
            lost_order: VecDeque::with_capacity(remembered),
            remembered,
        }
    }

    /// Requests of a connection that are outstanding.
    pub fn used(&self, connection: u32) -> usize {
        self.connections[connection as usize].used as usize
    }

    /// Books the next request of a connection: its cell and its sequence number. `None`: as many as there may be are
    /// outstanding.
    pub fn issue(&mut self, connection: u32, noted: T) -> Option<(u32, u64)> {
        let of = &mut self.connections[connection as usize];
        let (cell, sequence) = (of.free, of.sequence);
        let place = self.cells[connection as usize * self.depth..][..self.depth].get_mut(cell as usize)?;
        of.free = place.sequence as u32;
        of.sequence += 1;
        of.used += 1;
        *place = Cell { sequence, noted: Some(noted) };
        Some((cell, sequence))
    }

    /// What was noted with the request in a cell, if one is.
    pub fn noted(&mut self, connection: u32, cell: u32) -> Option<&mut T> {
        self.cells[connection as usize * self.depth..][..self.depth].get_mut(cell as usize)?.noted.as_mut()
    }

    /// A reply arrived.
    pub fn arrived(&mut self, connection: u32, cell: u32, sequence: u64) -> Arrival<T> {
        let of = &mut self.connections[connection as usize];
        if sequence >= of.sequence || cell as usize >= self.depth {
            return Arrival::Unasked;
        }
        let place = self.cells[connection as usize * self.depth + cell as usize];
        if let Some(noted) = place.noted
            && place.sequence == sequence
        {
            let reordered = sequence < of.expected;
            of.expected = of.expected.max(sequence + 1);
            self.free(connection, cell);
            return Arrival::Answer { noted, reordered };
        }
        // One that was forgotten late stays in the order until its turn, and is not in the set any more.
        if self.lost.remove(&(connection, sequence)) {
            return Arrival::Late;
        }
        if sequence < of.forgotten { Arrival::Old } else { Arrival::Duplicate }
    }

    /// Gives up the request in a cell, and remembers that. `None`: there is none.
    pub fn give_up(&mut self, connection: u32, cell: u32) -> Option<T> {
        let place = *self.cells[connection as usize * self.depth..][..self.depth].get(cell as usize)?;
        let noted = place.noted?;
        self.free(connection, cell);
        if self.lost_order.len() == self.remembered
            && let Some((connection, sequence)) = self.lost_order.pop_front()
            && self.lost.remove(&(connection, sequence))
        {
            let of = &mut self.connections[connection as usize];
            of.forgotten = of.forgotten.max(sequence + 1);
        }
        self.lost.insert((connection, place.sequence));
        self.lost_order.push_back((connection, place.sequence));
        Some(noted)
    }

    /// Takes a request back that never left. `None`: there is none.
    pub fn take_back(&mut self, connection: u32, cell: u32) -> Option<T> {
        let noted = self.cells[connection as usize * self.depth..][..self.depth].get(cell as usize)?.noted?;
        self.free(connection, cell);
        Some(noted)
    }

    fn free(&mut self, connection: u32, cell: u32) {
        let of = &mut self.connections[connection as usize];
        let place = &mut self.cells[connection as usize * self.depth + cell as usize];
        *place = Cell { sequence: u64::from(of.free), noted: None };
        of.free = cell;
        of.used -= 1;
    }

    /// Cells of a connection that are in use, with their sequence numbers, in no order.
    pub fn cells(&self, connection: u32) -> impl Iterator<Item = (u32, u64, T)> {
        let cells = self.cells[connection as usize * self.depth..][..self.depth].iter().enumerate();
        cells.filter_map(|(index, cell)| Some((index as u32, cell.sequence, cell.noted?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn answer(noted: u64, reordered: bool) -> Arrival<u64> {
        Arrival::Answer { noted, reordered }
    }

    #[test]
    fn replies_in_any_order_find_their_requests() {
        let mut out = Outstanding::new(2, 3);
        let tags: Vec<_> = (0..3).map(|n| out.issue(1, 100 + n).unwrap()).collect();
        assert_eq!(tags.iter().map(|(_, sequence)| *sequence).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!((out.issue(1, 0), out.used(1), out.used(0)), (None, 3, 0));
        // RFC 4737, 3.4: of 0 2 1, the 1 is reordered; of 2 first, 0 and 1 are.
        assert_eq!(out.arrived(1, tags[2].0, 2), answer(102, false));
        assert_eq!(out.arrived(1, tags[0].0, 0), answer(100, true));
        let (cell, sequence) = out.issue(1, 103).unwrap();
        assert_eq!(sequence, 3, "a missing reply holds back nobody");
        assert_eq!(out.arrived(1, cell, 3), answer(103, false));
        assert_eq!(out.arrived(1, tags[1].0, 1), answer(101, true));
        assert_eq!(out.used(1), 0);
    }

    #[test]
    fn late_replies_are_told_from_duplicates() {
        let mut out = Outstanding::new(1, 2);
        let (cell, _) = out.issue(0, 7).unwrap();
        assert_eq!(out.give_up(0, cell), Some(7));
        assert_eq!(out.give_up(0, cell), None);
        let (cell, sequence) = out.issue(0, 8).unwrap();
        assert_eq!(out.arrived(0, cell, sequence), answer(8, false));
        assert_eq!(out.arrived(0, cell, sequence), Arrival::Duplicate);
        assert_eq!(out.arrived(0, cell, 0), Arrival::Late);
        assert_eq!(out.arrived(0, cell, 0), Arrival::Duplicate);
        assert_eq!(out.arrived(0, cell, 2), Arrival::Unasked);
        assert_eq!(out.arrived(0, 2, 0), Arrival::Unasked, "there is no such cell");
    }

    #[test]
    fn what_is_too_long_ago_is_not_guessed() {
        let mut out = Outstanding::remembering(1, 1, 2);
        for n in 0..4 {
            let (cell, _) = out.issue(0, n).unwrap();
            out.give_up(0, cell);
        }
        let kinds: Vec<_> = (0..4).map(|sequence| out.arrived(0, 0, sequence)).collect();
        assert_eq!(kinds, [Arrival::Old, Arrival::Old, Arrival::Late, Arrival::Late]);
    }

    #[test]
    fn one_that_never_left_is_no_loss() {
        let mut out = Outstanding::new(1, 1);
        let (cell, _) = out.issue(0, 1).unwrap();
        *out.noted(0, cell).unwrap() = 5;
        assert_eq!(out.cells(0).collect::<Vec<_>>(), [(cell, 0, 5)]);
        assert_eq!((out.take_back(0, cell), out.take_back(0, cell)), (Some(5), None));
        assert_eq!((out.used(0), out.lost.len()), (0, 0));
    }

    /// Against a model that remembers everything.
    #[test]
    fn any_history_is_told_as_it_was() {
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            let (connections, depth) = (1 + rng.below(3) as u32, 1 + rng.below(9) as usize);
            let mut out = Outstanding::new(connections as usize, depth);
            // By connection: cell, whether answered, whether given up; and the highest that was answered.
            let mut history: Vec<Vec<(u32, bool, bool)>> = vec![vec![]; connections as usize];
            let mut highest = vec![None; connections as usize];
            for _ in 0..400 {
                let connection = rng.below(connections.into()) as u32;
                let (of, top) = (&mut history[connection as usize], &mut highest[connection as usize]);
                let open = of.iter().filter(|(_, answered, lost)| !answered && !lost).count();
                assert_eq!((out.used(connection), out.cells(connection).count()), (open, open));
                if rng.below(2) == 0 {
                    let issued = out.issue(connection, of.len() as u64);
                    assert_eq!(issued.is_some(), open < depth);
                    of.extend(issued.map(|(cell, _)| (cell, false, false)));
                    continue;
                }
                if of.is_empty() {
                    continue;
                }
                let which = of.len() - 1 - rng.below(of.len().min(12) as u64) as usize;
                let (cell, answered, lost) = &mut of[which];
                if rng.below(4) == 0 && !*answered && !*lost {
                    assert_eq!(out.give_up(connection, *cell), Some(which as u64));
                    *lost = true;
                    continue;
                }
                let expected = match (*answered, *lost) {
                    (true, _) => Arrival::Duplicate,
                    (false, true) => Arrival::Late,
                    (false, false) => answer(which as u64, *top > Some(which)),
                };
                assert_eq!(out.arrived(connection, *cell, which as u64), expected, "seed {seed}");
                *top = if *lost { *top } else { (*top).max(Some(which)) };
                *answered = true;
            }
        }
    }
}
