//! Clocks. `CLOCK_MONOTONIC` is answered by the vDSO without a system call where the clock source is tsc.

use super::check;
use crate::time::Instant;
use std::io;

/// Now, on `CLOCK_MONOTONIC`.
pub fn now() -> Instant {
    Instant(read(libc::CLOCK_MONOTONIC).unwrap_or(0))
}

/// Nanoseconds since 1970, UTC, on `CLOCK_REALTIME`: for telling people and other machines, never for differences.
pub fn wall_ns() -> u64 {
    read(libc::CLOCK_REALTIME).unwrap_or(0)
}

/// CPU time that the calling thread has used, in nanoseconds.
pub fn thread_cpu_ns() -> u64 {
    read(libc::CLOCK_THREAD_CPUTIME_ID).unwrap_or(0)
}

/// CPU time that process `pid` has used, in nanoseconds (clock_getcpuclockid(3)). `ESRCH` when it is gone.
pub fn process_cpu_ns(pid: u32) -> io::Result<u64> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: `clock` is a live, writable clockid_t for the length of the call.
    let errno = unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &mut clock) };
    if errno != 0 {
        return Err(io::Error::from_raw_os_error(errno));
    }
    read(clock)
}

fn read(clock: libc::clockid_t) -> io::Result<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a live, writable timespec for the length of the call.
    check(unsafe { libc::clock_gettime(clock, &mut time) })?;
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// User and system CPU time of the calling thread, in nanoseconds (getrusage(2), RUSAGE_THREAD).
pub fn thread_user_system_ns() -> (u64, u64) {
    usage(libc::RUSAGE_THREAD)
}

/// User and system CPU time of this process, in nanoseconds.
pub fn process_user_system_ns() -> (u64, u64) {
    usage(libc::RUSAGE_SELF)
}

fn usage(who: libc::c_int) -> (u64, u64) {
    // SAFETY: rusage is plain integers; all zero is a value of it.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is live and writable for the length of the call. It cannot fail with these arguments.
    unsafe { libc::getrusage(who, &mut usage) };
    let ns = |t: libc::timeval| t.tv_sec as u64 * 1_000_000_000 + t.tv_usec as u64 * 1_000;
    (ns(usage.ru_utime), ns(usage.ru_stime))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_moves_forward() {
        let before = now();
        assert!(before.0 > 0);
        assert!(now() >= before);
    }

    #[test]
    fn cpu_time_of_this_process_can_be_read_and_of_none_cannot() {
        assert!(process_cpu_ns(std::process::id()).unwrap() > 0);
        assert!(process_cpu_ns(0x3fff_fff0).is_err());
    }
}
