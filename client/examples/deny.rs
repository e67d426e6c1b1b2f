//! A program without io_uring, as under a container runtime's seccomp profile, for trying what it does then:
//!
//! `deny EPERM|ENOSYS|EINVAL|ENOMEM PROGRAM ARGS...`: io_uring_setup(2) fails with that error in the program and all
//! that it starts. `deny EPERM loadgen --engine auto`, for one. The tests use it too.

use loadgen_core::sys::seccomp::{self, Call};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// Errors that a kernel, or a filter, is known to refuse io_uring with.
const ERRORS: [(&str, i32); 4] = [("EPERM", 1), ("ENOMEM", 12), ("EINVAL", 22), ("ENOSYS", 38)];

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    let error = args.get(1).and_then(|name| ERRORS.iter().find(|(known, _)| name == known));
    let (Some((_, error)), Some(program)) = (error, args.get(2)) else {
        eprintln!("usage: deny EPERM|ENOSYS|EINVAL|ENOMEM PROGRAM ARGS...");
        return ExitCode::from(2);
    };
    if let Err(error) = seccomp::refuse(&[Call::Setup], *error) {
        eprintln!("deny: seccomp: {error}");
        return ExitCode::from(126);
    }
    let error = Command::new(program).args(&args[3..]).exec();
    eprintln!("deny: {}: {error}", program.display());
    ExitCode::from(127)
}
