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
/// How long nothing is accepted after connections were turned away: without it the loop would spin.
const PAUSE_NS: u64 = 100 * NS_PER_MS;
/// Likewise when accepting fails for another reason; doubled each time, up to a second.
const FIRST_PAUSE_NS: u64 = 10 * NS_PER_MS;
const DOUBLINGS_MAX: u32 = 7;

#[derive(Debug)]
pub(crate) struct Acceptor {
    listener: OwnedFd,
    /// A descriptor to give up when there is no other, so that waiting peers can be turned away and not just ignored.
    reserve: Option<File>,
    /// The queue may hold more. An edge-triggered poller does not say so twice.
    pub(crate) more: bool,
    pub(crate) paused_until: Option<Instant>,
    quiet_until: Instant,
    /// Accepts in a row that failed.
    failures: u32,
}

/// What one accept gave.
#[derive(Debug)]
pub(crate) enum Accepted {
    Taken(OwnedFd),
    /// The queue is empty.
    Empty,
    /// This one failed; the next may not.
    Failed,
    /// No descriptor is left: who waits can be turned away, or others make room.
    Exhausted(io::Error),
    /// The machine lacks something else, or forbids it: who waits can go on waiting, and it is tried again later.
    Lacking(io::Error),
}

/// What an error of accept(2) is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The one connection, or the network on its way; the next may be well.
    OfOneConnection,
    Descriptors,
    /// Memory, a firewall, and what nobody has thought of. It says nothing about those who wait.
    Other,
}

impl Trouble {
    pub(crate) fn of(error: &io::Error) -> Self {
        match errno::name(error) {
            "EINTR" | "ECONNABORTED" | "EPROTO" | "ENETDOWN" | "ENOPROTOOPT" | "EHOSTDOWN" | "ENONET"
            | "EHOSTUNREACH" | "EOPNOTSUPP" | "ENETUNREACH" | "ETIMEDOUT" => Self::OfOneConnection,
            "EMFILE" | "ENFILE" => Self::Descriptors,
            _ => Self::Other,
        }
    }
}

impl Acceptor {
    pub(crate) fn new(listener: OwnedFd) -> Self {
        Self { listener, reserve: reserve(), more: true, paused_until: None, quiet_until: Instant(0), failures: 0 }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    pub(crate) fn accept(&mut self, counters: &mut Counters) -> Accepted {
        counters.calls.accept += 1;
        let error = match socket::accept(self.listener.as_fd()) {
            Ok(socket) => {
                self.succeeded();
                return Accepted::Taken(socket);
            }
            Err(error) => error,
        };
        let name = errno::name(&error);
        if name == "EAGAIN" {
            return Accepted::Empty;
        }
        *counters.accept_errors.entry(name).or_default() += 1;
        match Trouble::of(&error) {
            Trouble::OfOneConnection if self.goes_on() => Accepted::Failed,
            Trouble::Descriptors => Accepted::Exhausted(error),
            _ => Accepted::Lacking(error),
        }
    }

    /// A connection was accepted.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// One connection failed: whether the next is to be taken at once. When a whole burst has failed it is no longer
    /// about the one, and without a pause it would go on for ever.
    pub(crate) fn goes_on(&mut self) -> bool {
        self.failures += 1;
        !self.failures.is_multiple_of(BURST as u32)
    }

    /// Nothing is accepted for a while, which is longer each time; who waits goes on waiting.
    pub(crate) fn back_off(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        let doublings = (self.failures - 1).min(DOUBLINGS_MAX);
        self.paused_until = Some(now.after((FIRST_PAUSE_NS << doublings).min(NS_PER_S)));
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
            _ if Trouble::of(error) != Trouble::Descriptors => {
                return tell(format_args!("accept: {error} (connections wait, and it is tried again)"));
            }
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
    // Without one, nobody is turned away until a descriptor is free again; they wait.
    File::open("/dev/null").ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(errno: i32) -> Trouble {
        Trouble::of(&io::Error::from_raw_os_error(errno))
    }

    #[test]
    fn only_who_cannot_have_a_descriptor_is_turned_away() {
        // ECONNABORTED, EPROTO, EINTR, ENETDOWN; EMFILE, ENFILE; ENOMEM, ENOBUFS, EPERM, ENOSR, EINVAL.
        assert!([103, 71, 4, 100].into_iter().all(|errno| trouble(errno) == Trouble::OfOneConnection));
        assert!([24, 23].into_iter().all(|errno| trouble(errno) == Trouble::Descriptors));
        assert!([12, 105, 1, 63, 22].into_iter().all(|errno| trouble(errno) == Trouble::Other));
    }

    #[test]
    fn each_pause_is_longer_until_one_is_accepted() {
        let mut acceptor = Acceptor::new(File::open("/dev/null").unwrap().into());
        let mut pauses = Vec::new();
        for _ in 0..9 {
            acceptor.back_off(Instant(0));
            pauses.push(acceptor.paused_until.take().unwrap().0 / NS_PER_MS);
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        acceptor.succeeded();
        assert!((1..BURST).all(|_| acceptor.goes_on()) && !acceptor.goes_on(), "a burst of failures ends in a pause");
    }
}
