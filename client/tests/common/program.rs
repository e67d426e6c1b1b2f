//! Programs that tests start. None of them outlives the test, however that ends. (Shared with the server's tests.)

use loadgen_core::sys::process;
use std::ffi::OsStr;
use std::process::Command;

/// A program to start, from the thread that waits for its end: the kernel kills it when this thread ends, so that a
/// test binary that is killed leaves nothing behind. A program that becomes another user loses that bond.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    process::dies_with_us(&mut command);
    command
}

/// Likewise for a program that takes its own processes along on `SIGTERM`, and would leave them behind if it were
/// killed: nginx, timeout.
pub(crate) fn parent_command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    process::ends_with_us(&mut command);
    command
}
