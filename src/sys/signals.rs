//! Signals that ask a program to stop. They are counted in the handler itself: no thread has to be awake, and no read
//! has to succeed, for the loops to learn of them.

use super::inherited;
use signal_hook::low_level;
use std::io;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

pub const INTERRUPT: i32 = libc::SIGINT;
pub const TERMINATE: i32 = libc::SIGTERM;
pub const HANGUP: i32 = libc::SIGHUP;

static COUNT: OnceLock<Arc<AtomicUsize>> = OnceLock::new();
static FIRST: AtomicI32 = AtomicI32::new(0);

/// From here on SIGINT, SIGTERM and SIGHUP (unless `nohup` had it ignored) are counted, in the word that this gives.
/// The one that comes as the `leave`th ends the process on the spot, with status 128 and its number. A hang-up never
/// does: a terminal that is closed sends several, one by the kernel and one by the shell, and nobody is impatient.
/// Asking again gives the same word.
pub fn watch(leave: usize) -> io::Result<Arc<AtomicUsize>> {
    let mut is_new = false;
    let count = COUNT.get_or_init(|| {
        is_new = true;
        Arc::default()
    });
    let hangup = (!inherited::ignores_hangup()).then_some(HANGUP);
    for signal in [INTERRUPT, TERMINATE].into_iter().chain(hangup).filter(|_| is_new) {
        let count = Arc::clone(count);
        let handle = move || {
            let before = count.fetch_add(1, Ordering::Relaxed);
            if FIRST.load(Ordering::Relaxed) == 0 {
                FIRST.store(signal, Ordering::Relaxed);
            }
            if signal != HANGUP && before + 1 >= leave {
                low_level::exit(128 + signal);
            }
        };
        // SAFETY: the handler touches atomic words, and may end the process by _exit(2): both are async-signal-safe.
        unsafe { low_level::register(signal, handle) }?;
    }
    Ok(Arc::clone(count))
}

/// How many came.
pub fn count() -> usize {
    COUNT.get().map_or(0, |count| count.load(Ordering::Relaxed))
}

/// The first that came.
pub fn first() -> Option<i32> {
    match FIRST.load(Ordering::Relaxed) {
        0 => None,
        signal => Some(signal),
    }
}
