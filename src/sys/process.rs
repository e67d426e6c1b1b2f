//! Processes and threads of ours.

use super::check;
use std::io;

/// Sends `SIGTERM` to a child that has not been waited for (so its id cannot have been reused).
pub fn terminate(child: &std::process::Child) -> io::Result<()> {
    // SAFETY: kill(2) touches no memory of ours.
    check(unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) })?;
    Ok(())
}

/// For [`signal_group`].
pub const INTERRUPT: i32 = libc::SIGINT;
pub const TERMINATE: i32 = libc::SIGTERM;
pub const KILL: i32 = libc::SIGKILL;

/// Sends `signal` to the process group that `child` was started as the head of (`CommandExt::process_group(0)`).
pub fn signal_group(child: &std::process::Child, signal: i32) -> io::Result<()> {
    // SAFETY: kill(2) touches no memory of ours. The group is the child's: as long as one of its members lives, the
    // kernel gives that id to nobody else.
    check(unsafe { libc::kill(-(child.id() as libc::pid_t), signal) })?;
    Ok(())
}

/// Has the kernel kill the process that `command` will start when the thread that starts it ends: a signal that can be
/// ignored would leave it behind. A program that changes its user on the way loses the bond (prctl(2)).
pub fn dies_with_us(command: &mut std::process::Command) {
    signalled_when_we_end(command, libc::SIGKILL);
}

/// Likewise by `SIGTERM`, for a program that has processes of its own to take along.
pub fn ends_with_us(command: &mut std::process::Command) {
    signalled_when_we_end(command, libc::SIGTERM);
}

fn signalled_when_we_end(command: &mut std::process::Command, signal: libc::c_int) {
    use std::os::unix::process::CommandExt;
    let parent = std::process::id();
    // SAFETY: between fork and exec only prctl(2) and getppid(2) are called, which are async-signal-safe and allocate
    // nothing; neither does making an error out of a number.
    unsafe {
        command.pre_exec(move || {
            check(libc::prctl(libc::PR_SET_PDEATHSIG, signal))?;
            // It may have died before it was asked about.
            if libc::getppid() as u32 == parent { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
        });
    }
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
