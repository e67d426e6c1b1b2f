//! What carries a protocol's bytes, by what follows from it: whoever uses it asks for that, not for its name.

/// Room for any message, in bytes: one over UDP has at most 65,507 of payload over IPv4 (RFC 768, RFC 791), and 65,527
/// over IPv6 but for jumbograms (RFC 8200).
pub const MESSAGE_ROOM: usize = 1 << 16;

/// A transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A stream of bytes: TCP, or a unix socket.
    Stream,
    /// Messages that travel alone: UDP.
    Datagrams,
}

impl Transport {
    /// Whether a connection is made with somebody at the other end, who may close it. Elsewhere a socket is connected
    /// to whatever is typed: that somebody is there, a reply says; that nobody is, the kernel may say of a request.
    pub fn has_connections(self) -> bool {
        self == Self::Stream
    }

    /// Whether what is handed over in one piece arrives in one piece, or not at all.
    pub fn has_messages(self) -> bool {
        self == Self::Datagrams
    }

    /// Whether what was sent may be lost, doubled, or overtaken by what was sent later.
    pub fn may_lose(self) -> bool {
        self == Self::Datagrams
    }
}
