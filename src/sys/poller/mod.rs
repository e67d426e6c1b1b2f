//! Which of many sockets are ready: one file a way of asking the kernel.

pub mod epoll;
pub mod poll;
pub mod select;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// One way of asking the kernel for readiness.
///
/// A token is the caller's name for a socket and comes back with each of its events. A socket must be removed or
/// forgotten before it is closed.
pub trait Poller: Debug + Sized {
    /// Whether an event is told once a change (edge) and not for as long as it holds (level). With edges the caller
    /// must go on until the kernel says `WouldBlock`, or remember that it did not.
    const EDGE: bool;

    fn new() -> io::Result<Self>;

    /// Starts watching. A descriptor that this poller cannot watch (select beyond FD_SETSIZE) is an error of kind
    /// `InvalidInput`.
    fn add(&mut self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()>;

    /// Changes what is watched for. Edge-triggered pollers watch for everything from the start and need no call.
    fn modify(&mut self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()>;

    fn remove(&mut self, fd: BorrowedFd<'_>) -> io::Result<()>;

    /// Forgets a socket that is about to be closed. Where the kernel does so by itself, this saves the system call
    /// that `remove` makes.
    fn forget(&mut self, fd: BorrowedFd<'_>) {
        // It can only be unknown already; closing the socket takes it out in any case.
        let _ = self.remove(fd);
    }

    /// Waits until something is ready or `timeout` has passed (`None`: for ever), and replaces `events`' content.
    /// A signal ends the wait early, with no events.
    fn wait(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()>;

    /// System calls made so far.
    fn calls(&self) -> PollerCalls;

    /// What runs in place of a system call that is not to be had here, and why.
    fn fallback() -> Option<String> {
        None
    }
}

/// What to watch a socket for. Errors and hang-ups are always told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    pub read: bool,
    pub write: bool,
}

impl Interest {
    pub const NONE: Self = Self { read: false, write: false };
    pub const READ: Self = Self { read: true, write: false };
    pub const WRITE: Self = Self { read: false, write: true };
    pub const BOTH: Self = Self { read: true, write: true };
}

/// A socket that became ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub token: u64,
    /// A receive will not block: there are bytes, the end of the stream, or an error to be had.
    pub readable: bool,
    /// A send will not block; true on errors too, so that a handler meets them by writing.
    pub writable: bool,
    /// The peer ended its stream, or the connection broke: a short receive is not the last word.
    pub closing: bool,
}

/// A time-out in the kernel's form.
pub(super) fn timespec(timeout: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or_else(|_| i32::MAX.into()),
        tv_nsec: timeout.subsec_nanos().into(),
    }
}

/// System calls of a poller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PollerCalls {
    pub wait: u64,
    pub control: u64,
    /// Of a timer, where waits are not precise by themselves.
    pub timer: u64,
}
