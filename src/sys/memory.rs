//! How the allocator treats this process, and how the process ends when there is no memory left.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io;
use std::sync::Mutex;

/// The system's allocator, but that a refusal is the end with one line and an exit status of DESIGN's table (7: this
/// machine lacks something), where Rust's own end is an abort.
#[derive(Debug)]
struct Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// The exit status when there is no memory left.
const OUT_OF_MEMORY: libc::c_int = 7;

thread_local! {
    /// This thread asks for memory that it can do without.
    static ASKS: Cell<bool> = const { Cell::new(false) };
}

// SAFETY: blocks come from the system's allocator and go back to it, with the layouts of our caller; nothing is done
// to them in between. `refused` neither unwinds nor allocates.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the layout is as good as our caller's promise, which is the same as the system's allocator wants.
        given(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as for `alloc`.
        given(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: our caller promises that `block` came from here with this layout, and so it is of the system's.
        given(unsafe { System.realloc(block, layout, size) }, size)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as for `realloc`.
        unsafe { System.dealloc(block, layout) }
    }
}

#[inline]
fn given(block: *mut u8, bytes: usize) -> *mut u8 {
    if block.is_null() {
        refused(bytes);
    }
    block
}

/// Returns only where the thread has said that it can do without.
#[cold]
fn refused(bytes: usize) {
    if ASKS.get() {
        return;
    }
    // Nothing here may allocate, and so nothing is formatted.
    let mut digits = [0; 20];
    let before = b"error: out of memory: ";
    let behind = b" more bytes were refused (`ulimit -v`, a control group, or the machine has no more)\n";
    for text in [&before[..], decimal(bytes, &mut digits), &behind[..]] {
        // SAFETY: the kernel reads as many bytes of `text` as it has. What it does not take, nobody can be told.
        unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
    }
    // SAFETY: _exit(2) ends the process, and runs nothing that could want memory.
    unsafe { libc::_exit(OUT_OF_MEMORY) }
}

fn decimal(mut number: usize, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

/// A list with room for so many items; `None`: there is no memory for them.
pub fn room<T>(items: usize) -> Option<Vec<T>> {
    let mut list = Vec::new();
    ASKS.set(true);
    let outcome = list.try_reserve_exact(items);
    ASKS.set(false);
    // There is one reason: no room. Callers know how much they asked for, and say it.
    outcome.ok().map(|()| list)
}

/// What a report takes, with its histograms, its JSON and its checksum: no less than this is kept for it.
const RESERVE_BYTES: usize = 16 << 20;

static RESERVE: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Keeps memory for the end of a run, so that one which took all there is can still be told of. It is not touched, and
/// costs nothing but room.
///
/// # Errors
/// If there is no memory: a run would be lost.
pub fn keep_reserve() -> io::Result<()> {
    let reserve = room(RESERVE_BYTES).ok_or_else(|| {
        let refusal = format!("no memory for a report: {} MiB are refused", RESERVE_BYTES >> 20);
        io::Error::new(io::ErrorKind::OutOfMemory, refusal)
    })?;
    *RESERVE.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = reserve;
    Ok(())
}

/// The run has ended: its report may have what was kept for it.
pub fn spend_reserve() {
    drop(std::mem::take(&mut *RESERVE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)));
}

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
    fn room_that_there_is_not_is_refused_and_no_end() {
        assert!(room::<u8>(usize::MAX >> 2).is_none());
        assert_eq!(room::<u64>(3).unwrap().capacity(), 3);
        keep_reserve().unwrap();
        spend_reserve();
    }

    #[test]
    fn numbers_are_written_without_memory() {
        let told = |number| String::from_utf8(decimal(number, &mut [0; 20]).to_vec()).unwrap();
        assert_eq!((told(0), told(4_096), told(usize::MAX)), ("0".into(), "4096".into(), usize::MAX.to_string()));
    }

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
