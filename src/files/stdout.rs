//! Standard output. The standard library's own takes what cannot be written to a descriptor that is closed, or open for
//! reading only, for written; so the descriptor is written to directly.

use crate::sys::inherited;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

/// Writes `text`, all of it.
///
/// # Errors
/// If it cannot be written. A reader who has gone away is `BrokenPipe`.
pub fn write(text: &str) -> io::Result<()> {
    if inherited::output_was_closed() {
        return Err(io::Error::other("it is closed"));
    }
    File::from(io::stdout().as_fd().try_clone_to_owned()?).write_all(text.as_bytes())
}

/// Likewise; but that a reader has gone away (`| head`) is no error, as with other programs whose output people page.
///
/// # Errors
/// If it cannot be written.
pub fn print(text: &str) -> io::Result<()> {
    match write(text) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
