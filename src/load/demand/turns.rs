//! A closed loop with fewer requests under way than there are connections: they take turns.

use super::super::connections::{Connections, State};
use crate::engine::Io;
use crate::time::Instant;

/// Connections that are looked at in vain in one turn, where many are lost or busy.
const LOOKS: usize = 64;

#[derive(Debug)]
pub(in crate::load) struct Turns {
    /// Requests under way, at most.
    most: u64,
    /// Whose turn is next.
    next: u32,
}

impl Turns {
    pub(super) fn new(most: u64) -> Self {
        Self { most, next: 0 }
    }

    /// Those go on whose turn it is.
    pub(super) fn take(&mut self, on: &mut Connections, io: &mut impl Io, now: Instant) {
        let mut looks = LOOKS;
        while on.in_flight < self.most && looks > 0 && on.budget > 0 && on.drain_until.is_none() {
            let slot = self.next;
            self.next = (slot + 1) % on.config.active as u32;
            let conn = &on.conns[slot as usize];
            if conn.state == State::Open && conn.ring.alive < conn.capacity && !on.has_rest(io, slot) {
                let issued = on.issue(slot, 1, now);
                on.send_issued(io, slot, issued, now);
            } else {
                looks -= 1;
            }
        }
    }
}
