//! System calls: the only place with `unsafe`. Each file is one concept of the kernel, and offers safe functions only:
//! descriptors are owned ([`std::os::fd::OwnedFd`]) or borrowed, buffers are slices, results are [`std::io::Result`].

#![allow(unsafe_code)]

pub mod affinity;
pub mod bell;
pub mod clock;
pub mod datagram;
pub mod endpoint;
pub mod errno;
pub mod inherited;
pub mod interface;
pub mod limits;
pub mod memory;
pub mod poller;
pub mod process;
pub mod ring;
pub mod seccomp;
pub mod signals;
pub mod socket;

use std::io;

/// For opening files: nothing waits for somebody at the other end (`O_NONBLOCK`).
pub const NOT_BLOCKING: i32 = libc::O_NONBLOCK;

/// The result of a system call that says -1 on error, with `errno` as an [`io::Error`].
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Likewise for calls that return a count of bytes.
fn check_len(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
