//! select(2): three bit sets of at most FD_SETSIZE (1024) descriptors, copied in and out and scanned on each call.

use super::super::check;
use super::{Event, Interest, Poller, PollerCalls};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

/// Descriptors that an `fd_set` can name: 0 to 1023, whatever the descriptor limit is.
const LIMIT: usize = libc::FD_SETSIZE;

/// select(2). It cannot tell that the peer ended its stream before that is read, so `closing` is never set, and it
/// tells of a broken connection only where it watches for reading or writing.
pub struct Select {
    read: libc::fd_set,
    write: libc::fd_set,
    /// By descriptor; `None`: not watched.
    tokens: Vec<Option<u64>>,
    /// One more than the highest watched descriptor.
    end: usize,
    calls: PollerCalls,
}

impl Poller for Select {
    const EDGE: bool = false;

    fn new() -> io::Result<Self> {
        Ok(Self { read: empty(), write: empty(), tokens: vec![None; LIMIT], end: 0, calls: PollerCalls::default() })
    }

    fn add(&mut self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        let slot = index(fd.as_raw_fd())?;
        if self.tokens[slot].replace(token).is_some() {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        self.end = self.end.max(slot + 1);
        self.watch(slot, interest);
        Ok(())
    }

    fn modify(&mut self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        let slot = index(fd.as_raw_fd())?;
        let known = self.tokens[slot].as_mut().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        *known = token;
        self.watch(slot, interest);
        Ok(())
    }

    fn remove(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let slot = index(fd.as_raw_fd())?;
        self.tokens[slot].take().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        self.watch(slot, Interest::NONE);
        while self.end > 0 && self.tokens[self.end - 1].is_none() {
            self.end -= 1;
        }
        Ok(())
    }

    fn wait(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        events.clear();
        self.calls.wait += 1;
        let (mut read, mut write) = (self.read, self.write);
        // Rounded up, so that a wait for less than a microsecond is none for nothing.
        let mut timeval = timeout.map(|t| {
            let us = t.as_nanos().div_ceil(1_000);
            libc::timeval {
                tv_sec: (us / 1_000_000).try_into().unwrap_or_else(|_| i32::MAX.into()),
                tv_usec: (us % 1_000_000) as _,
            }
        });
        let timeval = timeval.as_mut().map_or(std::ptr::null_mut(), std::ptr::from_mut);
        // SAFETY: both sets and the timeout (or null, for ever) are live and writable for the length of the call, and
        // `end` is at most FD_SETSIZE, so the kernel stays within the sets.
        let result = check(unsafe {
            libc::select(self.end as libc::c_int, &raw mut read, &raw mut write, std::ptr::null_mut(), timeval)
        });
        let mut bits = match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        };
        for (slot, token) in self.tokens[..self.end].iter().enumerate() {
            if bits == 0 {
                break;
            }
            let Some(token) = *token else { continue };
            let (readable, writable) = (contains(&read, slot), contains(&write, slot));
            if readable || writable {
                bits -= i32::from(readable) + i32::from(writable);
                events.push(Event { token, readable, writable, closing: false });
            }
        }
        Ok(())
    }

    fn calls(&self) -> PollerCalls {
        self.calls
    }
}

impl Select {
    fn watch(&mut self, slot: usize, interest: Interest) {
        put(&mut self.read, slot, interest.read);
        put(&mut self.write, slot, interest.write);
    }
}

impl std::fmt::Debug for Select {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Select").field("end", &self.end).field("calls", &self.calls).finish_non_exhaustive()
    }
}

/// The place of a descriptor in an `fd_set`, where it has one.
fn index(fd: RawFd) -> io::Result<usize> {
    usize::try_from(fd).ok().filter(|slot| *slot < LIMIT).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("select cannot watch descriptor {fd}: its sets end at {LIMIT} (FD_SETSIZE); use poll or epoll"),
        )
    })
}

fn empty() -> libc::fd_set {
    // SAFETY: fd_set is an array of integers; all zero is the empty set.
    unsafe { std::mem::zeroed() }
}

fn put(set: &mut libc::fd_set, slot: usize, member: bool) {
    let fd = slot as libc::c_int;
    assert!(slot < LIMIT);
    // SAFETY: the descriptor is below FD_SETSIZE (just asserted), so the write stays within the set.
    unsafe { if member { libc::FD_SET(fd, set) } else { libc::FD_CLR(fd, set) } }
}

fn contains(set: &libc::fd_set, slot: usize) -> bool {
    assert!(slot < LIMIT);
    // SAFETY: the descriptor is below FD_SETSIZE (just asserted), so the read stays within the set.
    unsafe { libc::FD_ISSET(slot as libc::c_int, set) }
}
