//! Requests that an engine has taken and not yet handed to the kernel: they leave when it says so.

use super::connections::Connections;
use crate::engine::Io;
use crate::protocol::ticket::{Stamp, Ticket};
use crate::time::Instant;

/// What left since the engine last said when.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    tickets: Vec<Ticket>,
    waits: Vec<Wait>,
}

/// How late a request leaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    pub(super) slot: u32,
    pub(super) ticket: Ticket,
    pub(super) due: Instant,
    /// When it left, as far as is known.
    pub(super) at: Instant,
    /// So much of its wait was the server's.
    pub(super) backlog_ns: u64,
    /// The window covers it.
    pub(super) covered: bool,
}

impl Leaving {
    #[inline]
    pub(super) fn push(&mut self, ticket: Ticket) {
        self.tickets.push(ticket);
    }

    pub(super) fn wait(&mut self, wait: Wait) {
        self.waits.push(wait);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tickets.is_empty()
    }
}

impl Connections {
    /// What the engine had taken before it took something at `now` may have left, to make room for that.
    #[inline]
    pub(super) fn may_have_left(&mut self, io: &mut impl Io, now: Instant) {
        if io.queues() && io.handed_early() {
            self.left_at(now);
        }
    }

    /// They leave at `at`, if not before they were taken.
    pub(super) fn left_at(&mut self, at: Instant) {
        let mut leaving = std::mem::take(&mut self.leaving);
        for wait in leaving.waits.drain(..) {
            // Its request may have ended since, and another have its name.
            let is_leaving = self.tickets.stamp(wait.ticket) == Stamp { due: wait.due, sent: wait.at };
            self.was_late(if is_leaving { Wait { at: wait.at.max(at), ..wait } } else { wait });
        }
        for ticket in leaving.tickets.drain(..) {
            let stamp = self.tickets.stamp_mut(ticket);
            if stamp.is_sent() {
                stamp.sent = stamp.sent.max(at);
            }
        }
        self.leaving = leaving;
    }
}
