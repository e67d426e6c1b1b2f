//! Whether io_uring works here: `ok`, or why not and what to do about it, with exit 7 as of `loadgen`.

use loadgen_core::sys::ring::{Options, check};
use std::process::ExitCode;

fn main() -> ExitCode {
    match check(&Options::default()) {
        Ok(()) => {
            println!("ok");
            ExitCode::SUCCESS
        }
        Err(refusal) => {
            println!("{refusal}");
            ExitCode::from(7)
        }
    }
}
