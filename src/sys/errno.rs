//! The names of the errors that socket calls give.

use std::io;

/// An outcome as the kernel puts it into a completion: a count, or a negated errno (`otherwise`, where the error has
/// none).
pub fn result_of(outcome: io::Result<usize>, otherwise: i32) -> i32 {
    outcome.map_or_else(|error| -error.raw_os_error().unwrap_or(otherwise), |count| count as i32)
}

/// Whether this machine, its limits or a sandbox refused something, and not whoever typed the command.
pub fn is_machines(error: &io::Error) -> bool {
    const MACHINES: &[i32] = &[
        libc::EAFNOSUPPORT,
        libc::EAGAIN,
        libc::EBUSY,
        libc::EINTR,
        libc::EIO,
        libc::EMFILE,
        libc::ENFILE,
        libc::ENOBUFS,
        libc::ENOMEM,
        libc::ENOPROTOOPT,
        libc::ENOSPC,
        libc::ENOSYS,
        libc::EOPNOTSUPP,
        libc::EPERM,
        libc::EPROTONOSUPPORT,
    ];
    error.raw_os_error().is_some_and(|code| MACHINES.contains(&code))
}

/// Whether a call was refused for what it is, and not because it failed.
pub fn is_refusal(error: &io::Error) -> bool {
    const REFUSALS: &[i32] = &[libc::EACCES, libc::EINVAL, libc::ENOSYS, libc::EOPNOTSUPP, libc::EPERM, libc::EROFS];
    error.raw_os_error().is_some_and(|code| REFUSALS.contains(&code))
}

/// The name of a system error (`EMFILE`); `other` where it is none of those that a socket call is known to give.
pub fn name(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EACCES) => "EACCES",
        Some(libc::EADDRINUSE) => "EADDRINUSE",
        Some(libc::EADDRNOTAVAIL) => "EADDRNOTAVAIL",
        Some(libc::EAGAIN) => "EAGAIN",
        Some(libc::EBADF) => "EBADF",
        Some(libc::EBUSY) => "EBUSY",
        Some(libc::ECANCELED) => "ECANCELED",
        Some(libc::ECONNABORTED) => "ECONNABORTED",
        Some(libc::ECONNREFUSED) => "ECONNREFUSED",
        Some(libc::ECONNRESET) => "ECONNRESET",
        Some(libc::EHOSTDOWN) => "EHOSTDOWN",
        Some(libc::EHOSTUNREACH) => "EHOSTUNREACH",
        Some(libc::EINTR) => "EINTR",
        Some(libc::EINVAL) => "EINVAL",
        Some(libc::EMFILE) => "EMFILE",
        Some(libc::EMSGSIZE) => "EMSGSIZE",
        Some(libc::ENETDOWN) => "ENETDOWN",
        Some(libc::ENETUNREACH) => "ENETUNREACH",
        Some(libc::ENFILE) => "ENFILE",
        Some(libc::ENOBUFS) => "ENOBUFS",
        Some(libc::ENOMEM) => "ENOMEM",
        Some(libc::ENONET) => "ENONET",
        Some(libc::ENOPROTOOPT) => "ENOPROTOOPT",
        Some(libc::ENOSYS) => "ENOSYS",
        Some(libc::ENOSPC) => "ENOSPC",
        Some(libc::ENOTCONN) => "ENOTCONN",
        Some(libc::EOPNOTSUPP) => "EOPNOTSUPP",
        Some(libc::EPERM) => "EPERM",
        Some(libc::EPIPE) => "EPIPE",
        Some(libc::EPROTO) => "EPROTO",
        Some(libc::ETIMEDOUT) => "ETIMEDOUT",
        _ => "other",
    }
}
