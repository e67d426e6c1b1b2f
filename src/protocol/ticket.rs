//! Tickets: the names of requests while they are under way.
//!
//! A ticket begins when the load takes a request up for a connection, and ends with the request; numbers are used again
//! after that. They lie in a block of `depth` for each connection, so that nothing needs to be looked up: ticket and
//! connection say each other.

use crate::time::Instant;

/// The name of a request that is under way.
pub type Ticket = u32;

/// Not a request, but a stream without any.
pub const STREAM: Ticket = Ticket::MAX;

/// In which order replies come on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    OfRequests,
    Any,
}

/// When a request was due, and when its first byte was handed to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// 0: the ticket is nobody's.
    pub due: Instant,
    /// 0: not yet.
    pub sent: Instant,
}

impl Stamp {
    pub fn is_alive(&self) -> bool {
        self.due != Instant(0)
    }

    pub fn is_sent(&self) -> bool {
        self.sent != Instant(0)
    }
}

/// The tickets of one connection: a ring, in which `next` is the position that is taken next.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ring {
    pub next: u16,
    pub alive: u16,
}

/// The one table of requests that are under way, of all connections of a thread.
#[derive(Debug)]
pub struct Tickets {
    depth: usize,
    order: Order,
    stamps: Vec<Stamp>,
    /// Of which kind each is; empty where all are alike.
    kinds: Vec<u16>,
}

impl Tickets {
    pub fn new(slots: usize, depth: usize, order: Order, has_kinds: bool) -> Self {
        let (depth, room) = (depth.max(1), slots * depth.max(1));
        assert!(u32::try_from(room).is_ok_and(|room| room < STREAM), "{slots} x {depth} requests under way");
        let kinds = if has_kinds { vec![0; room] } else { Vec::new() };
        Self { depth, order, stamps: vec![Stamp::default(); room], kinds }
    }

    /// Names a request of the connection in `slot`, which must have one to spare.
    #[inline]
    pub fn take(&mut self, slot: u32, ring: &mut Ring, due: Instant) -> Ticket {
        debug_assert!(usize::from(ring.alive) < self.depth, "more requests than places");
        let base = slot as usize * self.depth;
        let mut at = usize::from(ring.next);
        // In order, the place behind the newest one is always free.
        while self.order == Order::Any && self.stamps[base + at].is_alive() {
            at = self.behind(at);
        }
        self.lay(base + at, due);
        ring.next = self.behind(at) as u16;
        ring.alive += 1;
        (base + at) as Ticket
    }

    /// Likewise so many, of a connection whose replies come in order.
    #[inline]
    pub fn take_many(&mut self, slot: u32, ring: &mut Ring, due: Instant, count: u16) {
        debug_assert!(self.order == Order::OfRequests && usize::from(ring.alive + count) <= self.depth);
        let base = slot as usize * self.depth;
        let mut at = usize::from(ring.next);
        for _ in 0..count {
            self.lay(base + at, due);
            at = self.behind(at);
        }
        ring.next = at as u16;
        ring.alive += count;
    }

    #[inline]
    fn lay(&mut self, at: usize, due: Instant) {
        debug_assert!(!self.stamps[at].is_alive(), "a ticket that is alive is given away");
        self.stamps[at] = Stamp { due, sent: Instant(0) };
    }

    #[inline]
    fn behind(&self, at: usize) -> usize {
        if at + 1 == self.depth { 0 } else { at + 1 }
    }

    /// Ends a ticket, and answers what it stood for.
    #[inline]
    pub fn end(&mut self, ticket: Ticket, ring: &mut Ring) -> Stamp {
        ring.alive -= 1;
        let stamp = std::mem::take(&mut self.stamps[ticket as usize]);
        debug_assert!(stamp.is_alive(), "a ticket ends twice");
        stamp
    }

    #[inline]
    pub fn stamp(&self, ticket: Ticket) -> Stamp {
        self.stamps[ticket as usize]
    }

    #[inline]
    pub fn stamp_mut(&mut self, ticket: Ticket) -> &mut Stamp {
        &mut self.stamps[ticket as usize]
    }

    #[inline]
    pub fn kind(&self, ticket: Ticket) -> u16 {
        if self.kinds.is_empty() { 0 } else { self.kinds[ticket as usize] }
    }

    pub fn set_kind(&mut self, ticket: Ticket, kind: u16) {
        if let Some(known) = self.kinds.get_mut(ticket as usize) {
            *known = kind;
        }
    }

    /// Those of a connection, in the order in which they were taken.
    pub fn of(&self, slot: u32, ring: Ring) -> impl Iterator<Item = Ticket> + '_ {
        let base = slot as usize * self.depth;
        let skipped = match self.order {
            Order::OfRequests => self.depth - usize::from(ring.alive),
            Order::Any => 0,
        };
        let all = (skipped..self.depth).map(move |at| base + (usize::from(ring.next) + at) % self.depth);
        all.filter(|at| self.stamps[*at].is_alive()).map(|at| at as Ticket)
    }

    /// The one that has been waited for longest, of a connection.
    pub fn oldest(&self, slot: u32, ring: Ring) -> Option<Ticket> {
        match self.order {
            Order::OfRequests => (ring.alive > 0).then(|| self.nth(slot, ring, 0)),
            Order::Any => self.of(slot, ring).min_by_key(|ticket| {
                let stamp = self.stamp(*ticket);
                stamp.sent.max(stamp.due)
            }),
        }
    }

    /// In order: the one at a position, from the oldest on.
    #[inline]
    pub fn nth(&self, slot: u32, ring: Ring, position: usize) -> Ticket {
        debug_assert!(position < usize::from(ring.alive));
        let at = usize::from(ring.next) + self.depth - usize::from(ring.alive) + position;
        let at = if at >= self.depth { at - self.depth } else { at };
        (slot as usize * self.depth + at) as Ticket
    }

    /// The one that was taken last, of a connection that has some in their order.
    #[inline]
    pub fn newest(&self, slot: u32, ring: Ring) -> Ticket {
        let behind = usize::from(ring.next);
        let at = if behind == 0 { self.depth - 1 } else { behind - 1 };
        (slot as usize * self.depth + at) as Ticket
    }

    /// What a protocol may see of them.
    #[inline]
    pub fn awaited(&self, slot: u32, ring: Ring) -> Awaited<'_> {
        Awaited { tickets: self, slot, ring }
    }

    /// Requests of before a load began are none of it: their due times lie before that.
    pub fn keep_before(&mut self, at: Instant) {
        let before = Instant(at.0.saturating_sub(1));
        self.stamps.iter_mut().for_each(|stamp| stamp.due = stamp.due.min(before));
    }
}

/// The requests of a connection that have no reply yet.
#[derive(Clone, Copy, Debug)]
pub struct Awaited<'a> {
    tickets: &'a Tickets,
    slot: u32,
    ring: Ring,
}

impl Awaited<'_> {
    /// Where replies come in order: the request whose reply is awaited behind `answered` others, and its kind, if a
    /// byte of it has left.
    #[inline]
    pub fn sent(&self, answered: usize) -> Option<(Ticket, u16)> {
        if answered >= usize::from(self.ring.alive) {
            return None;
        }
        let ticket = self.tickets.nth(self.slot, self.ring, answered);
        self.tickets.stamp(ticket).is_sent().then(|| (ticket, self.tickets.kind(ticket)))
    }

    /// Without the oldest ones, which have been answered by now.
    #[must_use]
    pub fn behind(mut self, answered: usize) -> Self {
        self.ring.alive -= answered as u16;
        self
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.ring.alive.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use std::collections::BTreeMap;

    /// Against a model: a ticket is nobody else's while it is alive, and its connection and order are known.
    #[test]
    fn a_ticket_that_is_alive_is_never_given_away() {
        for (seed, order) in (0..100).zip([Order::OfRequests, Order::Any].into_iter().cycle()) {
            let mut rng = Rng::new(seed);
            let depth = 1 + rng.below(5) as usize;
            let mut tickets = Tickets::new(3, depth, order, false);
            let mut rings = [Ring::default(); 3];
            let mut model: [BTreeMap<u64, Ticket>; 3] = Default::default();
            for step in 1..500 {
                let slot = rng.below(3) as usize;
                let alive = &mut model[slot];
                if alive.len() < depth && rng.below(2) == 0 {
                    let ticket = tickets.take(slot as u32, &mut rings[slot], Instant(step));
                    assert!(alive.values().all(|other| *other != ticket), "seed {seed}");
                    assert_eq!(ticket as usize / depth, slot, "it lies in the block of its connection");
                    alive.insert(step, ticket);
                } else if !alive.is_empty() {
                    let which = if order == Order::Any { rng.below(alive.len() as u64) as usize } else { 0 };
                    let (due, ticket) = alive.iter().nth(which).map(|(due, ticket)| (*due, *ticket)).unwrap();
                    assert_eq!(tickets.end(ticket, &mut rings[slot]).due, Instant(due), "seed {seed}");
                    alive.remove(&due);
                }
                let mut known: Vec<Ticket> = tickets.of(slot as u32, rings[slot]).collect();
                if order == Order::OfRequests {
                    assert_eq!(known, alive.values().copied().collect::<Vec<_>>(), "seed {seed}");
                }
                assert_eq!(tickets.oldest(slot as u32, rings[slot]), alive.values().next().copied(), "seed {seed}");
                known.sort_unstable();
                let mut expected: Vec<Ticket> = alive.values().copied().collect();
                expected.sort_unstable();
                assert_eq!(known, expected, "seed {seed}");
            }
        }
    }
}
