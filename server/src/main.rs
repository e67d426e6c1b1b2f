//! `loadgen-server`: see `loadgen-server --help`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    loadgen_server::main_with(std::env::args_os())
}
