//! The engines: ways of learning which connections can go on.

mod readiness;

use crate::stats::Counters;
use loadgen_core::protocol::{Server, Shape};
use loadgen_core::sys::poller::{epoll, poll, select};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::Sender;
use std::time::Duration;

/// The table: a newcomer is a file and an entry here.
pub static ENGINES: &[Engine] = &[
    Engine {
        name: "epoll",
        about: "epoll(7), level-triggered: the reference",
        wait_call: "epoll_wait",
        run: readiness::run::<epoll::Epoll>,
    },
    Engine {
        name: "epoll-et",
        about: "epoll(7), edge-triggered: one registration a connection",
        wait_call: "epoll_wait",
        run: readiness::run::<epoll::EpollEdge>,
    },
    Engine {
        name: "poll",
        about: "poll(2): an array that is scanned on each call",
        wait_call: "poll",
        run: readiness::run::<poll::Poll>,
    },
    Engine {
        name: "select",
        about: "select(2): bit sets that end at 1024 descriptors",
        wait_call: "select",
        run: readiness::run::<select::Select>,
    },
];

/// One line of the table.
#[derive(Debug)]
pub struct Engine {
    /// The word of `--engine` and of reports.
    pub name: &'static str,
    /// One line of help.
    pub about: &'static str,
    /// The name under which waits for events are counted.
    pub(crate) wait_call: &'static str,
    /// Serves until told to stop, on the calling thread.
    pub(crate) run: fn(Worker) -> io::Result<Counters>,
}

/// The engine that is called `name`.
pub fn by_name(name: &str) -> Option<&'static Engine> {
    ENGINES.iter().find(|engine| engine.name == name)
}

/// What a thread starts with.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) listener: OwnedFd,
    pub(crate) protocol: Box<dyn Server>,
    pub(crate) shape: Shape,
    /// How long connections may take to end.
    pub(crate) drain: Duration,
    /// Signals received: 1 is to drain, more is to leave.
    pub(crate) signals: Arc<AtomicUsize>,
    /// Told once, when the first connection can be accepted.
    pub(crate) ready: Sender<()>,
}

/// The token of the listener, which no connection has.
pub(crate) const LISTENER: u64 = u64::MAX;
