//! epoll(7), level- and edge-triggered: the kernel keeps the set, and a wait costs what is ready, not what is watched.

use super::super::check;
use super::{Event, Interest, Poller, PollerCalls};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Events taken from the kernel at once. More would age the last ones' time stamps, fewer cost system calls.
const BATCH: usize = 512;

/// Level-triggered epoll: the reference.
#[derive(Debug)]
pub struct Epoll(Set);

/// Edge-triggered epoll: one registration a connection, for everything.
#[derive(Debug)]
pub struct EpollEdge(Set);

#[derive(Debug)]
struct Set {
    fd: OwnedFd,
    ready: Vec<libc::epoll_event>,
    calls: PollerCalls,
}

impl Poller for Epoll {
    const EDGE: bool = false;

    fn new() -> io::Result<Self> {
        Set::new().map(Self)
    }

    fn add(&mut self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        self.0.control(libc::EPOLL_CTL_ADD, fd, token, bits(interest))
    }

    fn modify(&mut self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        self.0.control(libc::EPOLL_CTL_MOD, fd, token, bits(interest))
    }

    fn remove(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.0.control(libc::EPOLL_CTL_DEL, fd, 0, 0)
    }

    /// Closing the only descriptor of a socket takes it out of the set (epoll(7), question 6).
    fn forget(&mut self, _: BorrowedFd<'_>) {}

    fn wait(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        self.0.wait(events, timeout)
    }

    fn calls(&self) -> PollerCalls {
        self.0.calls
    }
}

impl Poller for EpollEdge {
    const EDGE: bool = true;

    fn new() -> io::Result<Self> {
        Set::new().map(Self)
    }

    fn add(&mut self, fd: BorrowedFd<'_>, token: u64, _: Interest) -> io::Result<()> {
        self.0.control(libc::EPOLL_CTL_ADD, fd, token, bits(Interest::BOTH) | libc::EPOLLET as u32)
    }

    fn modify(&mut self, _: BorrowedFd<'_>, _: u64, _: Interest) -> io::Result<()> {
        Ok(())
    }

    fn remove(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.0.control(libc::EPOLL_CTL_DEL, fd, 0, 0)
    }

    /// Closing the only descriptor of a socket takes it out of the set (epoll(7), question 6).
    fn forget(&mut self, _: BorrowedFd<'_>) {}

    fn wait(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        self.0.wait(events, timeout)
    }

    fn calls(&self) -> PollerCalls {
        self.0.calls
    }
}

impl Set {
    fn new() -> io::Result<Self> {
        // SAFETY: epoll_create1(2) touches no memory of ours.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        Ok(Self {
            // SAFETY: epoll_create1 returned a new descriptor that nobody else owns.
            fd: unsafe { OwnedFd::from_raw_fd(fd) },
            ready: Vec::with_capacity(BATCH),
            calls: PollerCalls::default(),
        })
    }

    fn control(&mut self, op: libc::c_int, fd: BorrowedFd<'_>, token: u64, bits: u32) -> io::Result<()> {
        self.calls.control += 1;
        let mut event = libc::epoll_event { events: bits, u64: token };
        // SAFETY: both descriptors are open and `event` is live for the length of the call.
        check(unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), op, fd.as_raw_fd(), &mut event) })?;
        Ok(())
    }

    fn wait(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        events.clear();
        self.calls.wait += 1;
        // epoll_pwait2(2), Linux 5.11: nanoseconds, where epoll_wait would round to milliseconds.
        let timespec = timeout.map(super::timespec);
        let timespec = timespec.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: `ready` has room for BATCH events, the timespec (or null, for ever) is live for the length of the
        // call, and a null signal mask with its size leaves the mask as it is.
        let result = check(unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.fd.as_raw_fd(),
                self.ready.as_mut_ptr(),
                BATCH as libc::c_int,
                timespec,
                std::ptr::null::<libc::sigset_t>(),
                8usize,
            ) as libc::c_int
        });
        let count = match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other? as usize,
        };
        // SAFETY: the kernel has written `count` events, at most BATCH, which is the capacity.
        unsafe { self.ready.set_len(count) };
        events.extend(self.ready.iter().map(|ready| event(ready.u64, ready.events)));
        Ok(())
    }
}

fn bits(interest: Interest) -> u32 {
    let mut bits = 0;
    if interest.read {
        bits |= libc::EPOLLIN | libc::EPOLLRDHUP;
    }
    if interest.write {
        bits |= libc::EPOLLOUT;
    }
    bits as u32
}

fn event(token: u64, bits: u32) -> Event {
    let has = |mask: libc::c_int| bits & mask as u32 != 0;
    Event {
        token,
        readable: has(libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR),
        writable: has(libc::EPOLLOUT | libc::EPOLLHUP | libc::EPOLLERR),
        closing: has(libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR),
    }
}
