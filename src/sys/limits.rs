//! Resource limits of this process (getrlimit(2)).

use super::check;
use std::io;

/// The soft and the hard limit of open descriptors (RLIMIT_NOFILE).
pub fn descriptors() -> io::Result<(u64, u64)> {
    let limit = get(libc::RLIMIT_NOFILE)?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Raises the soft limit of open descriptors to the hard limit, and says what it is now.
pub fn raise_descriptors() -> io::Result<u64> {
    let mut limit = get(libc::RLIMIT_NOFILE)?;
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: `limit` is a live rlimit for the length of the call.
        check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    }
    Ok(limit.rlim_cur)
}

/// The limit of locked memory, in bytes (RLIMIT_MEMLOCK).
pub fn locked_bytes() -> io::Result<u64> {
    Ok(get(libc::RLIMIT_MEMLOCK)?.rlim_cur)
}

/// Has writing beyond the limit of file sizes (RLIMIT_FSIZE) fail with `EFBIG`, as beyond the end of a disk. Otherwise
/// the kernel ends the process without a word (SIGXFSZ, setrlimit(2)).
///
/// A handler and not `SIG_IGN`, which the programs that we start would inherit.
pub fn survive_file_size() -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    let handler: extern "C" fn(libc::c_int) = nothing;
    // SAFETY: the handler does nothing at all, which is safe in a signal; it lives as long as the program.
    let before = unsafe { libc::signal(libc::SIGXFSZ, handler as libc::sighandler_t) };
    if before == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Lowers the soft limit of open descriptors, if it is higher.
pub(super) fn lower_descriptors(most: u64) -> io::Result<()> {
    let mut limit = get(libc::RLIMIT_NOFILE)?;
    if limit.rlim_cur > most {
        limit.rlim_cur = most;
        // SAFETY: `limit` is a live rlimit for the length of the call.
        check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    }
    Ok(())
}

/// The type of a resource's number is one of each C library's own.
#[cfg(target_env = "gnu")]
type Resource = libc::__rlimit_resource_t;
#[cfg(not(target_env = "gnu"))]
type Resource = libc::c_int;

fn get(resource: Resource) -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is live and writable for the length of the call.
    check(unsafe { libc::getrlimit(resource, &mut limit) })?;
    Ok(limit)
}
