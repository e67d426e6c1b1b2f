//! The standard streams as this process got them. Rust's start opens `/dev/null` in place of one that is closed, before
//! `main`; what was written there would be lost in silence.

use std::sync::atomic::{AtomicBool, Ordering};

static STDOUT_WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Whether whoever started us had closed standard output (`>&-`).
pub fn stdout_was_closed() -> bool {
    STDOUT_WAS_CLOSED.load(Ordering::Relaxed)
}

extern "C" fn look() {
    // SAFETY: F_GETFD asks for the flags of a descriptor by its number and touches no memory.
    let closed = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) } < 0;
    STDOUT_WAS_CLOSED.store(closed, Ordering::Relaxed);
}

/// Run by the C library before Rust's own start. Why that is sound: the section `.init_array` holds pointers to
/// functions of C's calling convention, which is what this is; it calls fcntl(2) and stores into an atomic, and needs
/// nothing that is not there yet.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = look;
