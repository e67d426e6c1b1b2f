//! Signals that ask a program to stop. They are counted in the handler itself: no thread has to be awake, and no read
//! has to succeed, for the loops to learn of them.

use super::{clock, inherited};
use crate::time::NS_PER_MS;
use signal_hook::low_level;
use std::io;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

pub const INTERRUPT: i32 = libc::SIGINT;
pub const TERMINATE: i32 = libc::SIGTERM;
pub const HANGUP: i32 = libc::SIGHUP;

static COUNT: OnceLock<Arc<AtomicUsize>> = OnceLock::new();
static FIRST: AtomicI32 = AtomicI32::new(0);
static LAST: AtomicU64 = AtomicU64::new(0);

/// What comes so soon after another is no second request: `timeout` signals its child, and then its process group.
const SAME_NS: u64 = 50 * NS_PER_MS;

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
            let (now, last) = (clock::now().0, LAST.load(Ordering::Relaxed));
            if last != 0 && now.saturating_sub(last) < SAME_NS {
                return;
            }
            LAST.store(now, Ordering::Relaxed);
            let before = count.fetch_add(1, Ordering::Relaxed);
            if FIRST.load(Ordering::Relaxed) == 0 {
                FIRST.store(signal, Ordering::Relaxed);
            }
            if signal != HANGUP && before + 1 >= leave {
                low_level::exit(128 + signal);
            }
        };
        // SAFETY: the handler reads a clock by clock_gettime(2), touches atomic words, and may end the process by
        // _exit(2): all of them are async-signal-safe.
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
