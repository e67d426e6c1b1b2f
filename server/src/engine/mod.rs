//! The engines: ways of learning which connections can go on.

mod datagrams;
mod io_uring;
mod lingering;
mod readiness;
mod releases;

use crate::cli::Options as Asked;
use crate::deadlines::Deadlines;
use crate::injector::Injector;
use crate::stats::Counters;
use loadgen_core::protocol::{Server, Shape};
use loadgen_core::sys::clock;
use loadgen_core::sys::poller::{Poller, epoll, poll, select};
use loadgen_core::sys::ring::{self, Options, Refusal};
use loadgen_core::time::{Instant, NS_PER_MS};
use loadgen_core::tls::server::Settings;
use loadgen_core::transport::Transport;
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
        probe: probe::<epoll::Epoll>,
        fallback: epoll::Epoll::fallback,
        needs_ring: false,
    },
    Engine {
        name: "epoll-et",
        about: "epoll(7), edge-triggered: one registration a connection",
        wait_call: "epoll_wait",
        run: readiness::run::<epoll::EpollEdge>,
        probe: probe::<epoll::EpollEdge>,
        fallback: epoll::EpollEdge::fallback,
        needs_ring: false,
    },
    Engine {
        name: "poll",
        about: "poll(2): an array that is scanned on each call",
        wait_call: "poll",
        run: readiness::run::<poll::Poll>,
        probe: probe::<poll::Poll>,
        fallback: poll::Poll::fallback,
        needs_ring: false,
    },
    Engine {
        name: "select",
        about: "select(2): bit sets that end at 1024 descriptors",
        wait_call: "select",
        run: readiness::run::<select::Select>,
        probe: probe::<select::Select>,
        fallback: select::Select::fallback,
        needs_ring: false,
    },
    Engine {
        name: "io_uring",
        about: "io_uring(7): completions; connections beyond the descriptor limit",
        wait_call: "io_uring_enter",
        run: io_uring::run,
        probe: || Ok(()),
        fallback: || None,
        needs_ring: true,
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
    /// Makes what it waits with, and lets it go again: before anybody is told that clients may come.
    pub(crate) probe: fn() -> io::Result<()>,
    /// What it runs in place of a system call that is not to be had here, and why, once it was probed.
    pub(crate) fallback: fn() -> Option<String>,
    /// It works only where the kernel offers io_uring, and its connections are no descriptors.
    pub needs_ring: bool,
}

/// The word of `--engine` for: io_uring where it works, else epoll.
pub const AUTO: &str = "auto";

fn probe<P: Poller>() -> io::Result<()> {
    P::new().map(drop)
}

/// What was asked for with `--engine`.
#[derive(Clone, Copy, Debug)]
pub enum Choice {
    Auto,
    This(&'static Engine),
}

impl Choice {
    /// The engine to run, and for `auto` why it is not the best one; or why the one that was asked for cannot run.
    pub(crate) fn settle(self, asked: &Asked) -> Result<(&'static Engine, Option<String>), Refusal> {
        let works = || ring::check(&asked.ring).and_then(|()| io_uring::room(asked));
        match self {
            Self::This(engine) if engine.needs_ring => works().map(|()| (engine, None)),
            Self::This(engine) => Ok((engine, None)),
            Self::Auto => Ok(match (works(), by_name("io_uring")) {
                (Ok(()), Some(best)) => (best, None),
                (Err(refusal), _) => (&ENGINES[0], Some(refusal.instead_of())),
                (Ok(()), None) => (&ENGINES[0], None),
            }),
        }
    }
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
    pub(crate) transport: Transport,
    pub(crate) shape: Shape,
    /// How long connections may take to end.
    pub(crate) drain: Duration,
    /// Signals received: 1 is to drain, more is to leave.
    pub(crate) signals: Arc<AtomicUsize>,
    /// Told once, when the first connection can be accepted.
    pub(crate) ready: Sender<()>,
    /// Options of engine `io_uring`.
    pub(crate) ring: Options,
    /// Connections that will come to this thread; 0: nobody knows.
    pub(crate) expected: u64,
    /// What is injected, if anything is.
    pub(crate) injector: Option<Arc<Injector>>,
    /// `None`: the stream is not encrypted.
    pub(crate) tls: Option<Settings>,
    pub(crate) deadlines: Deadlines,
}

/// The longest wait: a signal is noticed by another thread.
const LONGEST_WAIT_NS: u64 = 100 * NS_PER_MS;
/// Waits after which the clock is looked at for the sake of deadlines, also where there was no time to sleep.
const LOOK_EVERY: u32 = 32;

/// How long to wait for events when time alone brings something to do at the earliest of these.
fn wait_until(instants: [Option<Instant>; 3]) -> Duration {
    let next = instants.into_iter().flatten().min();
    Duration::from_nanos(next.map_or(LONGEST_WAIT_NS, |then| then.since(clock::now()).min(LONGEST_WAIT_NS)))
}

/// The token of the listener, which no connection has.
pub(crate) const LISTENER: u64 = u64::MAX;
