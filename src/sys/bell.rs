//! An eventfd(2): something that another part of the kernel rings, and that can be waited for.

use super::poller::timespec;
use super::{check, check_len};
use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

#[derive(Debug)]
pub struct Bell {
    fd: OwnedFd,
    waits: Cell<u64>,
}

impl Bell {
    pub fn new() -> io::Result<Self> {
        // SAFETY: eventfd(2) touches no memory of ours.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: a new descriptor that nobody else owns.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) }, waits: Cell::new(0) })
    }

    /// Waits until it has been rung since the last wait, or the time is over. A signal ends the wait early.
    pub fn wait(&self, timeout: Duration) -> io::Result<()> {
        self.waits.set(self.waits.get() + 1);
        let time = timespec(timeout);
        let mut poll = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd and a timespec, both live for the length of the call; no signal mask.
        match check(unsafe { libc::ppoll(&mut poll, 1, &time, std::ptr::null()) }) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        let mut count = [0_u8; 8];
        // SAFETY: eight writable bytes, which is what an eventfd gives.
        match check_len(unsafe { libc::read(self.fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) }) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }

    /// Waits so far, each a system call.
    pub fn waits(&self) -> u64 {
        self.waits.get()
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
