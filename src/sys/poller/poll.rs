//! poll(2): an array of descriptors without a limit to their number, handed over and scanned on each call.

use super::super::check;
use super::{Event, Interest, Poller, PollerCalls};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// Marks a descriptor that is not watched.
const NOWHERE: u32 = u32::MAX;

/// poll(2), by its nanosecond form ppoll.
pub struct Poll {
    /// Dense: what is removed is replaced with the last.
    watched: Vec<libc::pollfd>,
    /// Token of each of `watched`.
    tokens: Vec<u64>,
    /// By descriptor: where it is in `watched`.
    indices: Vec<u32>,
    calls: PollerCalls,
}

impl Poller for Poll {
    const EDGE: bool = false;

    fn new() -> io::Result<Self> {
        Ok(Self { watched: Vec::new(), tokens: Vec::new(), indices: Vec::new(), calls: PollerCalls::default() })
    }

    fn add(&mut self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        if self.index(fd).is_ok() {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        let number = fd.as_raw_fd() as usize;
        if self.indices.len() <= number {
            self.indices.resize(number + 1, NOWHERE);
        }
        self.indices[number] = self.watched.len() as u32;
        self.watched.push(libc::pollfd { fd: fd.as_raw_fd(), events: bits(interest), revents: 0 });
        self.tokens.push(token);
        Ok(())
    }

    fn modify(&mut self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        let index = self.index(fd)?;
        self.watched[index].events = bits(interest);
        self.tokens[index] = token;
        Ok(())
    }

    fn remove(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let index = self.index(fd)?;
        self.watched.swap_remove(index);
        self.tokens.swap_remove(index);
        if let Some(moved) = self.watched.get(index) {
            self.indices[moved.fd as usize] = index as u32;
        }
        self.indices[fd.as_raw_fd() as usize] = NOWHERE;
        Ok(())
    }

    fn wait(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        events.clear();
        self.calls.wait += 1;
        let timespec = timeout.map(super::timespec);
        let timespec = timespec.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        let count = self.watched.len() as libc::nfds_t;
        // SAFETY: the array is live, writable and `count` long, the timespec (or null, for ever) is live for the
        // length of the call, and a null signal mask leaves the mask as it is.
        let result = check(unsafe { libc::ppoll(self.watched.as_mut_ptr(), count, timespec, std::ptr::null()) });
        let mut left = match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        };
        for (watched, token) in self.watched.iter().zip(&self.tokens) {
            if left == 0 {
                break;
            }
            if watched.revents != 0 {
                left -= 1;
                events.push(event(*token, watched.revents));
            }
        }
        Ok(())
    }

    fn calls(&self) -> PollerCalls {
        self.calls
    }
}

impl Poll {
    fn index(&self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        match self.indices.get(fd.as_raw_fd() as usize) {
            None | Some(&NOWHERE) => Err(io::Error::from(io::ErrorKind::NotFound)),
            Some(index) => Ok(*index as usize),
        }
    }
}

impl std::fmt::Debug for Poll {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Poll").field("watched", &self.watched.len()).field("calls", &self.calls).finish_non_exhaustive()
    }
}

fn bits(interest: Interest) -> libc::c_short {
    let mut bits = 0;
    if interest.read {
        bits |= libc::POLLIN | libc::POLLRDHUP;
    }
    if interest.write {
        bits |= libc::POLLOUT;
    }
    bits
}

fn event(token: u64, bits: libc::c_short) -> Event {
    let has = |mask: libc::c_short| bits & mask != 0;
    // A closed descriptor (POLLNVAL) is an error too: whoever uses it learns so.
    let broken = libc::POLLHUP | libc::POLLERR | libc::POLLNVAL;
    Event {
        token,
        readable: has(libc::POLLIN | libc::POLLRDHUP | broken),
        writable: has(libc::POLLOUT | broken),
        closing: has(libc::POLLRDHUP | broken),
    }
}
