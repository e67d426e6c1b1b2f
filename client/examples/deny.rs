//! A program without some system calls, as under a container runtime's seccomp profile or an older kernel, for trying
//! what it does then:
//!
//! `deny EPERM|ENOSYS|EINVAL|ENOMEM[:CALL,...] PROGRAM ARGS...`: these calls (usually io_uring_setup(2)) fail with that
//! error in the program and all that it starts. `deny EPERM loadgen --engine auto`, for one. The tests use it too.

use loadgen_core::sys::seccomp::{self, Call};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// Errors that a kernel, or a filter, is known to refuse calls with.
const ERRORS: [(&str, i32); 4] = [("EPERM", 1), ("ENOMEM", 12), ("EINVAL", 22), ("ENOSYS", 38)];

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    let asked = args.get(1).and_then(|word| refusal(word.to_str()?));
    let (Some((calls, error)), Some(program)) = (asked, args.get(2)) else {
        eprintln!("usage: deny EPERM|ENOSYS|EINVAL|ENOMEM[:CALL,...] PROGRAM ARGS...");
        return ExitCode::from(2);
    };
    if let Err(error) = seccomp::refuse(&calls, error) {
        eprintln!("deny: seccomp: {error}");
        return ExitCode::from(126);
    }
    let error = Command::new(program).args(&args[3..]).exec();
    eprintln!("deny: {}: {error}", program.display());
    ExitCode::from(127)
}

/// The calls, and the error that they are to fail with.
fn refusal(word: &str) -> Option<(Vec<Call>, i32)> {
    let (name, calls) = word.split_once(':').unwrap_or((word, "io_uring_setup"));
    let (_, error) = ERRORS.iter().find(|(known, _)| name == *known)?;
    Some((calls.split(',').map(Call::named).collect::<Option<_>>()?, *error))
}
