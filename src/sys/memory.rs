//! How the allocator treats this process.

/// Blocks from this size on are histograms, buffers and tables: few, and long-lived.
#[cfg(target_env = "gnu")]
const LARGE_BYTES: libc::c_int = 128 * 1024;

/// Has large blocks go back to the system when they are freed. glibc does so until the first of them has been freed,
/// and then keeps blocks of that size: a measurement before a run would be in the run's peak memory.
pub fn give_large_blocks_back() {
    // SAFETY: mallopt(3) takes two numbers. A refusal leaves all as it was, which costs memory and nothing else.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES);
    }
}

/// The memory of this machine (sysinfo(2)), in bytes; 0: the kernel does not say.
pub fn total_bytes() -> u64 {
    let mut info = std::mem::MaybeUninit::<libc::sysinfo>::zeroed();
    // SAFETY: `info` is live and writable; all zero is a value of it.
    let known = unsafe { libc::sysinfo(info.as_mut_ptr()) } == 0;
    // SAFETY: zeroed, or filled by the call.
    let info = unsafe { info.assume_init() };
    if known { u64::from(info.mem_unit).saturating_mul(total(&info)) } else { 0 }
}

/// Words of another size on other machines.
#[allow(clippy::useless_conversion)]
fn total(info: &libc::sysinfo) -> u64 {
    info.totalram.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine;

    #[test]
    #[cfg(target_env = "gnu")]
    #[cfg_attr(miri, ignore = "makes system calls")]
    fn a_large_block_is_gone_when_it_is_freed() {
        const BYTES: usize = 16 << 20;
        give_large_blocks_back();
        // Twice: after the first, glibc would keep the second.
        for _ in 0..2 {
            let block = vec![1_u8; BYTES];
            let with = machine::resident_bytes(None).unwrap();
            assert_eq!(block.iter().map(|byte| usize::from(*byte)).sum::<usize>(), BYTES);
            drop(block);
            // Other tests take memory at the same time.
            assert!(machine::resident_bytes(None).unwrap() + (BYTES as u64 / 2) < with);
        }
    }
}
