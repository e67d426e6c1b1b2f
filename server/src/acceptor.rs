//! Taking connections in, also when no descriptor is left for them.

use crate::serve::tell;
use crate::stats::Counters;
use loadgen_core::sys::{errno, limits, socket};
use loadgen_core::time::{Instant, NS_PER_MS, NS_PER_S};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Connections taken in one turn, so that those that are open have theirs.
pub(crate) const BURST: usize = 64;
/// How long nothing is accepted when the machine lacks what a connection needs: without it the loop would spin.
const PAUSE_NS: u64 = 100 * NS_PER_MS;

#[derive(Debug)]
pub(crate) struct Acceptor {
    listener: OwnedFd,
    /// A descriptor to give up when there is no other, so that waiting peers can be turned away and not just ignored.
    reserve: Option<File>,
    /// The queue may hold more. An edge-triggered poller does not say so twice.
    pub(crate) more: bool,
    pub(crate) paused_until: Option<Instant>,
    quiet_until: Instant,
}

/// What one accept gave.
#[derive(Debug)]
pub(crate) enum Accepted {
    Taken(OwnedFd),
    /// The queue is empty.
    Empty,
    /// This one failed; the next may not.
    Failed,
    /// The machine lacks something that every connection needs.
    Exhausted(io::Error),
}

impl Acceptor {
    pub(crate) fn new(listener: OwnedFd) -> Self {
        Self { listener, reserve: reserve(), more: true, paused_until: None, quiet_until: Instant(0) }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    pub(crate) fn accept(&self, counters: &mut Counters) -> Accepted {
        counters.calls.accept += 1;
        let error = match socket::accept(self.listener.as_fd()) {
            Ok(socket) => return Accepted::Taken(socket),
            Err(error) => error,
        };
        let name = errno::name(&error);
        if name == "EAGAIN" {
            return Accepted::Empty;
        }
        *counters.accept_errors.entry(name).or_default() += 1;
        if Self::is_of_one_connection(name) { Accepted::Failed } else { Accepted::Exhausted(error) }
    }

    /// accept(2): errors of the one connection, or of the network, that are told here.
    pub(crate) fn is_of_one_connection(name: &str) -> bool {
        const THEIRS: &[&str] = &[
            "EINTR",
            "ECONNABORTED",
            "EPROTO",
            "EPERM",
            "ENETDOWN",
            "ENOPROTOOPT",
            "EHOSTDOWN",
            "ENONET",
            "EHOSTUNREACH",
            "EOPNOTSUPP",
            "ENETUNREACH",
        ];
        THEIRS.contains(&name)
    }

    /// Closes a burst of waiting connections with the help of the reserve descriptor.
    pub(crate) fn turn_away(&mut self, counters: &mut Counters) {
        if self.reserve.take().is_some() {
            counters.calls.close += 1;
            for _ in 0..BURST {
                counters.calls.accept += 1;
                let Ok(socket) = socket::accept(self.listener.as_fd()) else { break };
                self.reject(socket, counters);
            }
        }
        self.reserve = reserve();
    }

    pub(crate) fn reject(&self, socket: OwnedFd, counters: &mut Counters) {
        counters.rejected += 1;
        counters.calls.close += 1;
        drop(socket);
    }

    pub(crate) fn pause(&mut self, now: Instant) {
        self.paused_until = Some(now.after(PAUSE_NS));
    }

    /// Says what is wrong, once a second at most.
    pub(crate) fn complain(&mut self, error: &io::Error, now: Instant) {
        if now < self.quiet_until {
            return;
        }
        self.quiet_until = now.after(NS_PER_S);
        let cause = match errno::name(error) {
            "EMFILE" => {
                let limit = limits::descriptors().map_or(0, |(soft, _)| soft);
                format!("EMFILE: all {limit} descriptors are in use; raise `ulimit -n`")
            }
            "ENFILE" => "ENFILE: all descriptors of the system are in use; raise fs.file-max".into(),
            _ => error.to_string(),
        };
        tell(format_args!("accept: {cause} (connections are turned away)"));
    }
}

fn reserve() -> Option<File> {
    File::open("/dev/null").ok()
}
