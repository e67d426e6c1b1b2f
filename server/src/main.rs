//! `loadgen-server`: see `loadgen-server --help`.

#![forbid(unsafe_code)]

use loadgen_core::sys::inherited;
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Err(error) = inherited::settle() {
        return loadgen_server::cannot_begin(&error);
    }
    loadgen_server::main_with(std::env::args_os())
}
