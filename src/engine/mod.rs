//! Engines move bytes, and nothing else: what is sent, when it was due and what latency means is the load's. These are
//! the two traits between them: what a load may ask, and what it is told.

use crate::result::RingStats;
use crate::time::Instant;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

/// What a handler may ask of an engine.
pub trait Io {
    /// The time, on the clock that all instants of a run are of. An engine reads it anew for each call.
    fn now(&self) -> Instant;

    /// Starts a connection to an address, which is called by its number; [`Handler::connected`] tells its outcome
    /// unless this fails at once. `attempt`: from which local address, where there are several, they take turns.
    fn connect(&mut self, slot: u32, address: usize, attempt: usize) -> io::Result<()>;

    /// Hands over bytes of the requests that all connections share (they lie ready), and says how many were taken:
    /// by the kernel, or by the engine, which answers for the rest. After less than all, [`Handler::writable`] says
    /// when to go on.
    fn send(&mut self, slot: u32, wire: Range<usize>) -> io::Result<usize>;

    /// Likewise, bytes of this connection alone.
    fn send_own(&mut self, slot: u32, bytes: &[u8]) -> io::Result<usize>;

    /// Whether what the engine takes leaves later: then [`Handler::handed`] says when.
    fn queues(&self) -> bool {
        false
    }

    /// Whether what had been taken was handed to the kernel since this was last asked, and before its time: the engine
    /// had no room for more.
    fn handed_early(&mut self) -> bool {
        false
    }

    /// Whether of the bytes that were said to be taken the kernel has yet to take some, or never will.
    fn has_left_over(&self, slot: u32) -> bool;

    /// Ends our stream; the peer's goes on until [`Handler::ended`].
    fn end_stream(&mut self, slot: u32);

    /// Closes, at once; nothing more is told about this connection.
    fn close(&mut self, slot: u32);

    /// Has [`Handler::writable`] called in the next turn, so that an endless sender lets others have theirs.
    fn resume(&mut self, slot: u32);
}

/// What an engine tells.
pub trait Handler<I: Io> {
    /// A connection attempt came to its end.
    fn connected(&mut self, io: &mut I, slot: u32, outcome: io::Result<()>);

    /// Bytes arrived, just now: of a stream, or one whole datagram, which may be empty.
    fn received(&mut self, io: &mut I, slot: u32, bytes: &[u8]);

    /// The kernel has room for more of ours.
    fn writable(&mut self, io: &mut I, slot: u32);

    /// What the engine has taken is handed to the kernel next: `at` says when that is, and 0 where it is not known.
    /// It is asked only if it matters.
    fn handed(&mut self, _at: impl FnOnce() -> Instant) {}

    /// So many bytes that were said to be taken were not, because their connection is no more; negative: were after
    /// all.
    fn not_taken(&mut self, bytes: i64);

    /// The peer ended its stream, or the connection broke. Everything that had arrived before was told before.
    fn ended(&mut self, io: &mut I, slot: u32, cause: Option<io::Error>);
}

/// What an engine counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub syscalls: BTreeMap<&'static str, u64>,
    pub waits: u64,
    pub events: u64,
    pub ring: Option<RingStats>,
}
