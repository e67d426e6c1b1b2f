//! What a process inherits from whoever started it, and must not be at the mercy of: signals that are ignored or
//! blocked, a umask that keeps us from our own files, closed standard descriptors.
//!
//! [`settle`] comes first in `main`. What programs of ours start is given a clean slate by [`hand_down`].

use super::check;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

/// One bit for each of the descriptors 0 to 2 that was closed.
static CLOSED: AtomicU8 = AtomicU8::new(0);
/// As they were, for those that we start.
static UMASK: AtomicU32 = AtomicU32::new(0o022);
static DESCRIPTORS: AtomicU64 = AtomicU64::new(0);
/// `nohup` says so: a hang-up is nothing to us, nor to those that we start.
static IGNORES_HANGUP: AtomicBool = AtomicBool::new(false);

/// The bits of a umask that would keep the owner of a file from it.
const OWNER: libc::mode_t = 0o700;

/// Standard signals; those of real time mean nothing to us.
const SIGNALS: std::ops::RangeInclusive<libc::c_int> = 1..=31;

/// Left as they are: SIGHUP is ignored on purpose (`nohup`), SIGPIPE by Rust's runtime, SIGXFSZ by whoever wants an
/// error instead, and the others by a shell without job control.
const LEFT_ALONE: [libc::c_int; 6] =
    [libc::SIGHUP, libc::SIGPIPE, libc::SIGXFSZ, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];

/// Runs before Rust's runtime, which opens `/dev/null` in place of each closed standard descriptor: no socket becomes
/// descriptor 1 thereby, but a report that goes there is lost without an error, and nobody can tell any more.
#[cfg(not(miri))]
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look_at_descriptors;

#[cfg(not(miri))]
extern "C" fn look_at_descriptors() {
    for fd in 0..3 {
        // SAFETY: F_GETFD asks about a number, which need not be that of an open descriptor.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
            CLOSED.fetch_or(1 << fd, Ordering::Relaxed);
        }
    }
}

/// Puts right what was inherited. Called first in `main`, while there is one thread.
///
/// - No signal is blocked.
/// - What was ignored has its default again: SIGCHLD (or no child could be waited for), SIGINT and SIGTERM (a shell
///   ignores SIGINT for what it starts in the background, and a load that cannot be stopped helps nobody). But for
///   SIGHUP: `nohup` means it.
/// - The owner of a file that we make can read and write it, whatever the umask says; of others the umask is right.
/// - Writing to a standard output that was closed fails.
pub fn settle() -> io::Result<()> {
    unblock_all()?;
    for signal in SIGNALS.filter(|signal| !LEFT_ALONE.contains(signal)) {
        if is_ignored(signal) {
            default(signal);
        }
    }
    IGNORES_HANGUP.store(is_ignored(libc::SIGHUP), Ordering::Relaxed);
    // SAFETY: umask(2) takes a number; there is one thread, so that nobody makes a file in between.
    let before = unsafe { libc::umask(OWNER) };
    // SAFETY: likewise.
    unsafe { libc::umask(before & !OWNER) };
    UMASK.store(before, Ordering::Relaxed);
    // 0: not known, and then not handed down.
    DESCRIPTORS.store(super::limits::descriptors().map_or(0, |(soft, _)| soft), Ordering::Relaxed);
    if output_was_closed() { fail_writes() } else { Ok(()) }
}

/// Whether standard output was closed when this program began. What is written there fails, as on a full disk.
pub fn output_was_closed() -> bool {
    CLOSED.load(Ordering::Relaxed) & 1 << libc::STDOUT_FILENO != 0
}

/// Whether a hang-up is to be ignored (`nohup`).
pub fn ignores_hangup() -> bool {
    IGNORES_HANGUP.load(Ordering::Relaxed)
}

/// Gives the program that `command` will start what we were given: umask and limit of descriptors, and no handling of
/// signals but the default (and `nohup`'s).
pub fn hand_down(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    let (umask, descriptors) = (UMASK.load(Ordering::Relaxed), DESCRIPTORS.load(Ordering::Relaxed));
    let ignores_hangup = ignores_hangup();
    // SAFETY: between fork and exec only umask(2), getrlimit(2), setrlimit(2), signal(2) and sigprocmask(2) are called,
    // which are async-signal-safe and allocate nothing.
    unsafe {
        command.pre_exec(move || {
            libc::umask(umask);
            if descriptors > 0 {
                super::limits::lower_descriptors(descriptors)?;
            }
            for signal in SIGNALS.filter(|signal| !(ignores_hangup && *signal == libc::SIGHUP)) {
                default(signal);
            }
            unblock_all()
        });
    }
}

fn unblock_all() -> io::Result<()> {
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset(3) fills the set that it is given.
    check(unsafe { libc::sigemptyset(none.as_mut_ptr()) })?;
    // SAFETY: the set has been filled, and lives until the call returns; nobody wants the old one.
    check(unsafe { libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut()) })?;
    Ok(())
}

fn is_ignored(signal: libc::c_int) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: no action is given, and `action` is live and writable; all zero is a value of it.
    let known = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) } == 0;
    // SAFETY: zeroed, or filled by the call.
    known && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

/// SIGKILL and SIGSTOP cannot be changed, which is right.
fn default(signal: libc::c_int) {
    // SAFETY: SIG_DFL is no function of ours. A refusal leaves all as it was.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// Standard output becomes `/dev/full`. (Not a descriptor that cannot be written to: Rust's standard output takes
/// EBADF for success.)
fn fail_writes() -> io::Result<()> {
    let full = File::options().write(true).open("/dev/full")?;
    // SAFETY: both are descriptors of ours; that of standard output is Rust's `/dev/null`, which nobody else has.
    check(unsafe { libc::dup2(full.as_raw_fd(), libc::STDOUT_FILENO) })?;
    Ok(())
}
