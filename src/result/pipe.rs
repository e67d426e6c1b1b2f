//! A report into a named pipe, whose reader may come late, read slowly, or never: the wait has an end, and a signal
//! that asks us to stop ends it at once.

use crate::sys::signals;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// How long a reader may take to come, or to take more.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// O_NONBLOCK of `<fcntl.h>` and ENXIO of `<errno.h>`, as on all architectures that this runs on.
const NONBLOCK: i32 = 0o4000;
const NO_READER: i32 = 6;

/// Writes all of `text`.
///
/// # Errors
/// Nobody reads within a minute, or until a signal comes; the pipe breaks.
pub(super) fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let before = signals::count();
    let mut pipe = open(path, before)?;
    let (mut left, mut moved) = (text, Instant::now());
    while !left.is_empty() {
        match pipe.write(left) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => (left, moved) = (&left[count..], Instant::now()),
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind()) => {
                wait(before, moved, "its reader does not read on")?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn open(path: &Path, before: usize) -> io::Result<File> {
    let began = Instant::now();
    loop {
        match OpenOptions::new().append(true).custom_flags(NONBLOCK).open(path) {
            Err(error) if error.raw_os_error() == Some(NO_READER) => wait(before, began, "nobody reads it")?,
            outcome => return outcome,
        }
    }
}

fn wait(before: usize, since: Instant, why: &str) -> io::Result<()> {
    if signals::count() > before {
        return Err(io::Error::other(format!("{why}, and a signal came")));
    }
    if since.elapsed() >= PATIENCE {
        return Err(io::Error::other(format!("{why} within {PATIENCE:?}")));
    }
    thread::sleep(LOOK_EVERY);
    Ok(())
}
