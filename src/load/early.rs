//! Replies that come before their requests have left: a server may answer from the head alone (RFC 9110, 10.1.1).
//!
//! Answered is not sent. The rest of such a request leaves before anything else that its connection says (RFC 9112, 9.3
//! and 9.5), and before that is closed as planned; in an open loop nobody else gets the connection in between. Where
//! it does not leave within the timeout after the reply, the connection is closed, and that is told.

use super::Load;
use super::connections::{Connections, State};
use crate::engine::Io;
use crate::load::tally::Phase;
use crate::protocol::ticket::Order;
use crate::time::Instant;
use crate::units::format_duration;

/// A bit of `Conn::queued`: what was to follow a reply waits for the rest of its request to leave.
pub(super) const AWAITS_REST: u8 = 4;

impl Load {
    /// The kernel took more: where that was the rest, what waited for it goes on.
    pub(super) fn rest_may_have_left(&mut self, io: &mut impl Io, slot: u32) {
        if self.on.conns[slot as usize].queued & AWAITS_REST == 0 || self.on.has_rest(io, slot) {
            return;
        }
        self.on.conns[slot as usize].queued &= !AWAITS_REST;
        let now = io.now();
        self.cross_boundaries(now);
        // Until now the server kept its ticket taken.
        self.on.free_from(slot, now);
        self.go_on(io, slot, now);
    }

    /// It had its time.
    pub(super) fn rest_timed_out(&mut self, io: &mut impl Io, slot: u32, now: Instant) {
        self.on.shut(io, slot);
        self.demand.lost(&mut self.on, slot);
        let timeout = format_duration(self.on.config.timeout_ns);
        self.on.note("timeout", Phase::Send, 1, || {
            format!(
                "a request was answered before it had left, and its rest did not leave within {timeout} (--timeout)"
            )
        });
        self.on.closed(slot);
        self.on.tally.connections.lost += 1;
        self.back_off(slot, now);
    }
}

impl Connections {
    /// Whether the last request that was answered on this connection has yet to leave in full.
    #[inline]
    pub(super) fn has_rest(&self, io: &impl Io, slot: u32) -> bool {
        (self.has_unsent(slot) || io.has_left_over(slot)) && self.rest_is_pending(io, slot)
    }

    /// Whether the first bytes that are on their way belong to none of the requests that are awaited: replies come in
    /// order, so that of those no byte has left then.
    fn rest_is_pending(&self, io: &impl Io, slot: u32) -> bool {
        let conn = &self.conns[slot as usize];
        if !self.has_requests || self.order != Order::OfRequests || conn.state != State::Open || conn.issued == 0 {
            return false;
        }
        let oldest = self.tickets.oldest(slot, conn.ring);
        if oldest.is_some_and(|ticket| self.tickets.stamp(ticket).is_sent()) {
            return false;
        }
        let has_begun = self.outboxes.left(slot).is_some_and(|outbox| outbox.has_begun(self.shared_len));
        has_begun || io.has_left_over(slot)
    }

    /// What is planned for a connection waits for such a rest to leave, if there is one.
    pub(super) fn awaits_rest(&mut self, io: &impl Io, slot: u32) -> bool {
        let has_rest = self.has_rest(io, slot);
        if has_rest && self.conns[slot as usize].queued & AWAITS_REST == 0 {
            self.conns[slot as usize].queued |= AWAITS_REST;
            self.since[slot as usize] = self.latest;
        }
        has_rest
    }
}
