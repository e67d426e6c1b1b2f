//! Why connections are closed.

use crate::connection::CAPACITY;
use loadgen_core::protocol::Next;
use loadgen_core::sys::errno;
use std::io;

/// One word in the statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Peer,
    Reset,
    Error,
    Answered,
    ProtocolError,
    Drained,
    Cut,
    LateFirst,
    LateHandshake,
    LateHead,
    LateBody,
    LateReader,
    LateNext,
    /// No descriptor was left for others.
    MadeRoom,
}

impl Cause {
    pub(crate) const ALL: [Self; 14] = [
        Self::Peer,
        Self::Reset,
        Self::Error,
        Self::Answered,
        Self::ProtocolError,
        Self::Drained,
        Self::Cut,
        Self::LateFirst,
        Self::LateHandshake,
        Self::LateHead,
        Self::LateBody,
        Self::LateReader,
        Self::LateNext,
        Self::MadeRoom,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Reset => "reset",
            Self::Error => "error",
            Self::Answered => "answered",
            Self::ProtocolError => "protocol_error",
            Self::Drained => "drained",
            Self::Cut => "cut",
            Self::LateFirst => "deadline_first",
            Self::LateHandshake => "deadline_handshake",
            Self::LateHead => "deadline_head",
            Self::LateBody => "deadline_body",
            Self::LateReader => "deadline_unread",
            Self::LateNext => "deadline_idle",
            Self::MadeRoom => "made_room",
        }
    }

    /// Why the connection is to be closed after what the protocol said, if it is. `ended`: the peer's stream has;
    /// `kept`: bytes that the protocol wants to see again.
    pub(crate) fn to_close(next: Next, ended: bool, kept: usize) -> Option<Self> {
        match next {
            Next::Read | Next::Close if ended => Some(Self::Peer),
            Next::Close => Some(Self::Answered),
            Next::Reject => Some(Self::ProtocolError),
            // It wants to see more than we keep.
            Next::Read if kept >= CAPACITY => Some(Self::ProtocolError),
            Next::Read | Next::Flush => None,
        }
    }

    pub(crate) fn of(error: &io::Error) -> Self {
        match errno::name(error) {
            "ECONNRESET" | "EPIPE" | "ECONNABORTED" | "ENOTCONN" | "ETIMEDOUT" => Self::Reset,
            _ => Self::Error,
        }
    }
}
