//! Processes and threads of ours.

use super::check;
use std::io;

/// Sends `SIGTERM` to a child that has not been waited for (so its id cannot have been reused).
pub fn terminate(child: &std::process::Child) -> io::Result<()> {
    // SAFETY: kill(2) touches no memory of ours.
    check(unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) })?;
    Ok(())
}

/// Has the kernel send `SIGTERM` to the calling process when its parent dies, so that no server outlives its user.
/// `parent` is the parent's id as read before; a parent that is gone already is an error.
pub fn die_with_parent(parent: u32) -> io::Result<()> {
    // SAFETY: PR_SET_PDEATHSIG takes a signal number and touches no memory.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) })?;
    if std::os::unix::process::parent_id() != parent {
        return Err(io::Error::other("the parent process is gone"));
    }
    Ok(())
}

/// Has the kernel end the calling thread's waits on time. By default it may be 50 us late, to save wake-ups
/// (PR_SET_TIMERSLACK, prctl(2)).
pub fn precise_timers() -> io::Result<()> {
    // SAFETY: PR_SET_TIMERSLACK takes a number of nanoseconds and touches no memory.
    check(unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) })?;
    Ok(())
}
