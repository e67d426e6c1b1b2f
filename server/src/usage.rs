//! What clap has to say: help and version on standard output, what was typed wrong on standard error.

use crate::serve::{UNWRITTEN, USAGE};
use loadgen_core::files::stdout;
use loadgen_core::secrets;
use std::fmt::Display;
use std::io::IsTerminal;

/// Says it, and answers the exit status. Help that could not be written was asked for in vain, and `complain` says so.
pub fn tell(error: &clap::Error, complain: impl FnOnce(&dyn Display)) -> u8 {
    if error.use_stderr() {
        let plain = error.to_string();
        let shown = secrets::text(&plain);
        if shown == plain {
            // Where standard error is closed, nobody wants to hear it; the exit status still tells.
            let _ = error.print();
        } else {
            complain(&shown.trim_end().trim_start_matches("error: "));
        }
        return USAGE;
    }
    let text = error.render();
    let styled = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let text = if styled { text.ansi().to_string() } else { text.to_string() };
    match stdout::print(&text) {
        Ok(()) => 0,
        Err(error) => {
            complain(&format_args!("cannot write to standard output: {error}"));
            UNWRITTEN
        }
    }
}
