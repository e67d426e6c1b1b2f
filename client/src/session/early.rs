//! Replies that come before their requests have left: a server may answer from the head alone (RFC 9110, 10.1.1).
//!
//! Answered is not sent. The rest of such a request leaves before anything else that its connection says (RFC 9112, 9.3
//! and 9.5), and before that is closed as planned; in an open loop nobody else is given the place in between. Where it
//! does not leave within the timeout after the reply, the connection is closed, and that is told.

use super::{Session, State, flag};
use crate::engine::Io;
use crate::tally::Phase;
use loadgen_core::protocol::Shape;
use loadgen_core::time::Instant;
use loadgen_core::units::format_duration;

/// A bit of `Conn::queued`: what was to follow a reply waits for the rest of its request to leave.
pub(super) const HELD: u8 = 4;

impl Session {
    /// Whether the last request that was answered on this connection has yet to leave in full.
    #[inline]
    pub(super) fn has_rest(&self, io: &impl Io, slot: u32) -> bool {
        let conn = &self.conns[slot as usize];
        let pending = conn.unsent > 0 || conn.flags & flag::OUTBOX != 0 || io.has_left_over(slot);
        pending && self.rest_is_pending(io, slot)
    }

    /// Whether the first bytes that are on their way belong to none of the requests that are awaited: replies come in
    /// order, so that of those no byte has left then.
    fn rest_is_pending(&self, io: &impl Io, slot: u32) -> bool {
        let conn = &self.conns[slot as usize];
        if self.shape != Shape::Exchange || conn.state != State::Open || conn.issued == 0 {
            return false;
        }
        let (outstanding, unsent) = (usize::from(conn.outstanding), conn.unsent as usize);
        if !self.composes {
            let untouched = outstanding * self.request_len;
            return unsent > untouched || unsent == untouched && io.has_left_over(slot);
        }
        let (written, begun) = self.written(slot);
        outstanding == unsent + written && (begun || io.has_left_over(slot))
    }

    /// What is planned for a connection waits for such a rest to leave, if there is one.
    pub(super) fn hold_for_rest(&mut self, io: &impl Io, slot: u32) -> bool {
        let has_rest = self.has_rest(io, slot);
        if has_rest {
            self.conns[slot as usize].queued |= HELD;
        }
        has_rest
    }

    /// The kernel has room for what it has not taken yet.
    pub(super) fn may_send(&mut self, io: &mut impl Io, slot: u32) {
        if self.has_unsent(slot) {
            self.flush(io, slot);
        }
        self.rest_may_have_left(io, slot);
    }

    /// The kernel took more: where that was the rest, what waited for it goes on.
    fn rest_may_have_left(&mut self, io: &mut impl Io, slot: u32) {
        if self.conns[slot as usize].queued & HELD == 0 || self.has_rest(io, slot) {
            return;
        }
        self.conns[slot as usize].queued &= !HELD;
        let now = io.now();
        self.cross_boundaries(now);
        // Until now the server kept its place taken.
        self.free_from(slot, now);
        self.go_on(io, slot, now);
    }

    /// Closes a connection at once. Of what was answered, something may be cut off thereby.
    pub(super) fn shut(&mut self, io: &mut impl Io, slot: u32) {
        self.tally.connections.cut_off += u64::from(self.has_rest(io, slot));
        io.close(slot);
    }

    /// Since when such a rest has had to leave: the last reply freed the place before the oldest request.
    pub(super) fn answered_at(&mut self, slot: u32) -> Instant {
        let last = self.config.depth.max(1) - 1;
        self.stamp(slot, last).sent
    }

    /// It had its time.
    pub(super) fn rest_timed_out(&mut self, io: &mut impl Io, slot: u32, now: Instant) {
        self.shut(io, slot);
        self.break_visit(slot);
        let timeout = format_duration(self.config.timeout_ns);
        self.note("timeout", Phase::Send, 1, || {
            format!(
                "a request was answered before it had left, and its rest did not leave within {timeout} (--timeout)"
            )
        });
        self.closed(slot);
        self.tally.connections.lost += 1;
        self.back_off(slot, now);
    }
}
