//! Which CPUs a thread may run on (sched_setaffinity(2)).

use super::check;
use std::io;

/// Number of CPUs that a `cpu_set_t` can name.
const MAX_CPUS: usize = 1024;

/// The CPUs that the calling thread may run on, in order.
pub fn allowed() -> io::Result<Vec<usize>> {
    // SAFETY: cpu_set_t is an array of integers; all zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is live and writable, and its true size is passed.
    check(unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) })?;
    // SAFETY: CPU_ISSET reads within the set for every index below MAX_CPUS (CPU_SETSIZE).
    Ok((0..MAX_CPUS).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect())
}

/// Restricts the calling thread, and threads and processes that it starts later, to `cpus`.
pub fn pin(cpus: &[usize]) -> io::Result<()> {
    // SAFETY: as above.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for cpu in cpus.iter().filter(|cpu| **cpu < MAX_CPUS) {
        // SAFETY: the index is below MAX_CPUS (CPU_SETSIZE), so the write stays within the set.
        unsafe { libc::CPU_SET(*cpu, &mut set) };
    }
    // SAFETY: `set` is live and its true size is passed.
    check(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_is_allowed_one_cpu() {
        let first = allowed().unwrap()[0];
        std::thread::spawn(move || {
            pin(&[first]).unwrap();
            assert_eq!(allowed().unwrap(), [first]);
        })
        .join()
        .unwrap();
        assert!(pin(&[]).is_err());
    }
}
