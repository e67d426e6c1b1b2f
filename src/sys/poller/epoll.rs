//! epoll(7), level- and edge-triggered: the kernel keeps the set, and a wait costs what is ready, not what is watched.

use super::super::{check, errno};
use super::{Event, Interest, Poller, PollerCalls};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;
use std::time::Duration;

/// Events taken from the kernel at once. More would age the last ones' time stamps, fewer cost system calls.
const BATCH: usize = 512;

/// The token of the timer in the set. Those of sockets are slots and generations, or [`u64::MAX`].
const TIMER: u64 = u64::MAX - 1;

/// The same number on every architecture, as all calls since 5.1 have; not every C library's headers know it.
const SYS_EPOLL_PWAIT2: libc::c_long = 441;

/// The error of epoll_pwait2(2), where it was tried and failed.
static WHY: OnceLock<&'static str> = OnceLock::new();

/// What runs in place of epoll_pwait2(2), and why; `None`: nothing had to (or no set was made yet).
pub fn fallback() -> Option<String> {
    Some(format!("epoll_wait and a timer descriptor (epoll_pwait2: {})", WHY.get()?))
}

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
    /// `None`: the kernel's own waits are precise.
    timer: Option<Timer>,
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

    fn fallback() -> Option<String> {
        fallback()
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

    fn fallback() -> Option<String> {
        fallback()
    }
}

impl Set {
    fn new() -> io::Result<Self> {
        // SAFETY: epoll_create1(2) touches no memory of ours.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }).map_err(named("epoll_create1"))?;
        // SAFETY: epoll_create1 returned a new descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let mut set = Self { fd, ready: Vec::with_capacity(BATCH), timer: None, calls: PollerCalls::default() };
        if let Err(error) = set.wait_precisely(Some(Duration::ZERO))
            && error.kind() != io::ErrorKind::Interrupted
        {
            WHY.get_or_init(|| errno::name(&error));
            let timer = Timer::new().map_err(named("timerfd_create"))?;
            set.control(libc::EPOLL_CTL_ADD, timer.fd.as_fd(), TIMER, libc::EPOLLIN as u32)
                .map_err(named("epoll_ctl"))?;
            set.timer = Some(timer);
        }
        set.calls = PollerCalls::default();
        Ok(set)
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
        let result = if self.timer.is_none() { self.wait_precisely(timeout) } else { self.wait_for_timer(timeout) };
        let count = match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        };
        // SAFETY: the kernel has written `count` events, at most BATCH, which is the capacity.
        unsafe { self.ready.set_len(count) };
        let of_others = self.ready.iter().filter(|ready| ready.u64 != TIMER);
        events.extend(of_others.map(|ready| event(ready.u64, ready.events)));
        Ok(())
    }

    /// epoll_pwait2(2), Linux 5.11: nanoseconds, where epoll_wait would round to milliseconds. Gives the number of
    /// events that the kernel has written.
    fn wait_precisely(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        let timespec = timeout.map(super::timespec);
        let timespec = timespec.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: `ready` has room for BATCH events, the timespec (or null, for ever) is live for the length of the
        // call, and a null signal mask with its size leaves the mask as it is.
        let count = check(unsafe {
            libc::syscall(
                SYS_EPOLL_PWAIT2,
                self.fd.as_raw_fd(),
                self.ready.as_mut_ptr(),
                BATCH as libc::c_int,
                timespec,
                std::ptr::null::<libc::sigset_t>(),
                8usize,
            ) as libc::c_int
        })?;
        Ok(count as usize)
    }

    /// The same by epoll_wait(2): a timer descriptor in the set ends the wait, to the nanosecond too.
    fn wait_for_timer(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        let mut most_ms = -1;
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            most_ms = 0;
        } else if let Some(timer) = &self.timer {
            self.calls.timer += 1;
            timer.set(timeout)?;
        }
        // SAFETY: `ready` has room for BATCH events, and is live for the length of the call.
        let count = check(unsafe {
            libc::epoll_wait(self.fd.as_raw_fd(), self.ready.as_mut_ptr(), BATCH as libc::c_int, most_ms)
        })?;
        Ok(count as usize)
    }
}

/// A timerfd(2) on `CLOCK_MONOTONIC`.
#[derive(Debug)]
struct Timer {
    fd: OwnedFd,
}

impl Timer {
    fn new() -> io::Result<Self> {
        let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
        // SAFETY: timerfd_create(2) touches no memory of ours.
        let fd = check(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) })?;
        // SAFETY: a new descriptor that nobody else owns.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Rings once after that time (`None`: never). It is not ready from here on, whether it had rung or not.
    fn set(&self, after: Option<Duration>) -> io::Result<()> {
        let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let time = libc::itimerspec { it_interval: never, it_value: after.map_or(never, super::timespec) };
        // SAFETY: `time` is live for the length of the call, and nobody wants the old setting.
        check(unsafe { libc::timerfd_settime(self.fd.as_raw_fd(), 0, &time, std::ptr::null_mut()) })?;
        Ok(())
    }
}

/// Says which call an error is of: "Function not implemented" helps nobody. (EMFILE does, by its number: whoever sees
/// it knows the remedy.)
fn named(call: &'static str) -> impl Fn(io::Error) -> io::Error {
    move |error| match error.raw_os_error() {
        Some(libc::EMFILE) => error,
        _ => io::Error::new(error.kind(), format!("{call}: {}: {error}", errno::name(&error))),
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
