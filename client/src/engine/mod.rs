//! Engines move bytes, and nothing else: what is sent, when it was due and what latency means is the load's.
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
pub use loadgen_core::engine::{Counters, Handler, Io};
use loadgen_core::histogram::Recorder;
use loadgen_core::sys::endpoint::Endpoint;
use std::io;
use std::net::SocketAddr;
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

/// Where connections go.
#[derive(Clone, Debug)]
pub struct Remote {
    pub endpoint: Endpoint,
    /// Local addresses to connect from, in turn; none: the kernel's choice.
    pub sources: Vec<SocketAddr>,
}

impl Remote {
    /// The local address of an attempt.
    fn source(&self, attempt: usize) -> Option<&SocketAddr> {
        (!self.sources.is_empty()).then(|| &self.sources[attempt % self.sources.len()])
    }
}
