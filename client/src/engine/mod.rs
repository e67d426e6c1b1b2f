//! Engines move bytes, and nothing else: what is sent, when it was due and what latency means is the session's.
//!
//! An engine is one file and one line in [`ENGINES`]. It drives connections that are called by slot numbers
//! `0..capacity`; whatever it learns from the kernel it tells the [`Handler`], and the handler answers by calling
//! [`Io`].

mod choice;
pub mod epoll;
pub mod io_uring;
pub mod waits;

pub use choice::{Engines, make_room};

use crate::worker::{Tally, Task};
use loadgen_core::histogram::Recorder;
use loadgen_core::result::RingStats;
use loadgen_core::sys::endpoint::Endpoint;
use loadgen_core::time::Instant;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;
use waits::Waits;

/// The table of `--engine`.
pub static ENGINES: &[&Entry] = &[&epoll::ENTRY, &io_uring::ENTRY];

/// The word of `--engine` for: io_uring where it works, else epoll.
pub const AUTO: &str = "auto";

/// One line of the table.
#[derive(Debug)]
pub struct Entry {
    pub name: &'static str,
    pub about: &'static str,
    /// Runs one worker thread's task on this engine, to its end.
    pub run: fn(Task) -> io::Result<Tally>,
    /// How late this engine wakes from timed waits.
    pub waits: fn(&Waits) -> io::Result<Recorder>,
    /// It works only where the kernel offers io_uring, and its connections are no descriptors.
    pub needs_ring: bool,
    /// What it runs in place of a system call that is not to be had here, and why, once it has run.
    pub fallback: fn() -> Option<String>,
}

/// The engine that is called `name`.
pub fn by_name(name: &str) -> Option<&'static Entry> {
    ENGINES.iter().copied().find(|entry| entry.name == name)
}

/// An engine: it waits, and tells a handler what happened.
pub trait Engine {
    type Io: Io;

    /// What a handler may do, between two turns.
    fn io(&mut self) -> &mut Self::Io;

    /// Waits until something happened or `timeout` has passed, and tells `handler` all of it.
    fn turn(&mut self, timeout: Duration, handler: &mut impl Handler<Self::Io>) -> io::Result<()>;

    /// All connections have been closed: tells what there is still to be told of them.
    fn finish(&mut self, _handler: &mut impl Handler<Self::Io>) -> io::Result<()> {
        Ok(())
    }

    fn counters(&self) -> Counters;
}

/// What a handler may ask of an engine.
pub trait Io {
    /// The time, on the clock that all instants of a run are of. An engine reads it anew for each call.
    fn now(&self) -> Instant;

    /// Starts a connection; [`Handler::connected`] tells its outcome unless this fails at once.
    fn connect(&mut self, slot: u32, remote: &Endpoint, source: Option<&SocketAddr>) -> io::Result<()>;

    /// Hands over bytes of the requests that all connections share ([`Task::wire`]), and says how many were taken:
    /// by the kernel, or by the engine, which answers for the rest. After less than all, [`Handler::writable`] says
    /// when to go on.
    fn send(&mut self, slot: u32, wire: Range<usize>) -> io::Result<usize>;

    /// Likewise, bytes of this connection alone.
    fn send_own(&mut self, slot: u32, bytes: &[u8]) -> io::Result<usize>;

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
