//! From serving to the end: what a connection is still to do.

use crate::cause::Cause;
use crate::deadlines::Awaits;

/// Input that is read and thrown away after our stream has ended: closing with unread input would send a reset, and
/// that can destroy the reply on its way.
pub(crate) const DISCARDED_AT_CLOSE: u32 = 256 << 10;

/// While draining: what is received and thrown away may be as much as it likes, within the time there is.
pub(crate) const UNBOUNDED: u32 = u32::MAX;

/// Whether the server is about to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Draining {
    No,
    /// It is, and when that was said this connection had no request under way.
    Quiet,
    Busy,
}

impl Draining {
    /// What it is for a connection that awaits this, when there is something `unread` of it.
    pub(crate) fn of(awaits: Awaits, unread: bool) -> Self {
        let quiet = matches!(awaits, Awaits::First | Awaits::Handshake | Awaits::Next);
        if quiet && !unread { Self::Quiet } else { Self::Busy }
    }
}

/// How far a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Serving,
    /// Once the output that is under way is gone, our stream ends.
    Closing(Cause),
    /// Our stream has ended, or is about to; waiting for the end of the peer's.
    Lingering(Cause),
}

impl Phase {
    /// Why the connection is ending, where only the end of the peer's stream is missing.
    pub(crate) fn lingering_cause(self) -> Option<Cause> {
        if let Self::Lingering(cause) = self { Some(cause) } else { None }
    }
}
