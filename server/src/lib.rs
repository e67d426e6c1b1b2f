//! The reference server: one protocol, several ways of asking the kernel what is ready. In reading order:
//!
//! - [`cli`]: the command line
//! - [`serve`]: from options to threads and back: listeners, signals, the statistics at the end
//! - [`engine`]: the `ENGINES` table, and the loop behind it
//! - `connection`: what one connection does when it may, whatever the engine
//! - `peer`: the same for io_uring, where the kernel moves the bytes and tells afterwards
//! - `delayed`, `injector`, `request_log`: injected service times: replies that wait for their release, the resource
//!   that all threads share, and what it did to each request
//! - [`tls`], `tls_connection`: encryption: settings as typed, and a connection under them
//! - `slab`, `pool`, `acceptor`: connections by token, buffers, and taking connections in
//! - `stats`: counters
//! - [`usage`]: help, and what was typed wrong

#![forbid(unsafe_code)]

mod acceptor;
mod cause;
pub mod cli;
mod connection;
pub mod deadlines;
mod delayed;
pub mod engine;
mod injector;
mod peer;
mod phase;
mod pool;
mod request_log;
pub mod serve;
mod slab;
mod stats;
pub mod tls;
mod tls_connection;
pub mod usage;

use clap::Parser;
use loadgen_core::sys::limits;
use std::ffi::OsString;
use std::process::ExitCode;

/// What was inherited (signals, descriptors) could not be put right.
pub fn cannot_begin(error: &std::io::Error) -> ExitCode {
    serve::tell(format_args!("cannot put right what was inherited (signals, descriptors): {error}"));
    ExitCode::from(serve::MACHINE)
}

/// The whole program. `args` begins with the program's name, as [`std::env::args_os`] does.
pub fn main_with(args: impl Iterator<Item = OsString>) -> ExitCode {
    let options = match cli::Options::try_parse_from(args) {
        Ok(options) => options,
        Err(error) => return ExitCode::from(usage::tell(&error, |why| serve::tell(why))),
    };
    if let Err(error) = limits::survive_file_size() {
        serve::tell(format_args!("a limit of file sizes would end this process: {error}"));
        return ExitCode::from(serve::MACHINE);
    }
    match serve::serve(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            serve::tell(failure.message);
            ExitCode::from(failure.code)
        }
    }
}
