//! Command lines whose secrets are in no list of processes.
//!
//! Who may see `/proc/PID/cmdline` is everybody; `/proc/PID/environ` is for its owner. So a process of ours whose
//! command line has secrets is started with them masked, and with the words as they are in its environment; and so is
//! this process itself, once more, as soon as it finds secrets in its own. Until then they can be seen.

use loadgen_core::secrets;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// How many words there are; and before the number of each, its own.
const COUNT: &str = "LOADGEN_ARGUMENTS";
const WORD: &str = "LOADGEN_ARGUMENT_";

/// What was meant by the command line `args`: what stands in the environment, where it is the same but for its secrets.
pub fn received(args: Vec<OsString>) -> Vec<OsString> {
    let meant: Option<Vec<OsString>> = std::env::var(COUNT).ok().and_then(|count| {
        // Of a process further up, whose command line was another.
        let count = count.parse::<usize>().ok().filter(|count| *count == args.len())?;
        (0..count).map(|at| std::env::var_os(format!("{WORD}{at}"))).collect()
    });
    match meant {
        Some(meant) if masked(&meant) == shown(&args) => meant,
        _ => args,
    }
}

/// Becomes this program anew with `args` hidden, if there is something to hide.
pub fn hide(args: &[OsString]) {
    let (Some(name), Ok(program)) = (args.first(), std::env::current_exe()) else { return };
    if !is_secret(args) || std::env::args_os().ne(args.iter().cloned()) {
        return;
    }
    // That it cannot be done is no reason not to measure: what was typed was typed, and the documents say so.
    let _ = command(&program, name, &args[1..]).exec();
}

/// `program` with these arguments, hidden where they have secrets.
pub fn command(program: &Path, name: &OsStr, args: &[OsString]) -> Command {
    let mut command = Command::new(program);
    forget(&mut command);
    let all: Vec<OsString> = std::iter::once(name.to_owned()).chain(args.iter().cloned()).collect();
    command.arg0(name);
    if !is_secret(&all) {
        command.args(args);
        return command;
    }
    let masked = masked(&all);
    command.args(args.iter().zip(&masked[1..]).map(|(word, masked)| match word.to_string_lossy() == *masked {
        true => word.clone(),
        false => masked.into(),
    }));
    command.env(COUNT, all.len().to_string());
    command.envs(all.into_iter().enumerate().map(|(at, word)| (format!("{WORD}{at}"), word)));
    command
}

/// What was hidden from others is not for the processes that we start.
pub fn forget(command: &mut Command) {
    let names = std::env::vars_os().map(|(name, _)| name);
    let ours = names.filter(|name| name.to_str().is_some_and(|name| name == COUNT || name.starts_with(WORD)));
    ours.for_each(|name| _ = command.env_remove(name));
}

fn shown(words: &[OsString]) -> Vec<String> {
    words.iter().map(|word| word.to_string_lossy().into_owned()).collect()
}

fn masked(words: &[OsString]) -> Vec<String> {
    secrets::words(&shown(words))
}

/// Not where it would go on for ever.
fn is_secret(words: &[OsString]) -> bool {
    let masked = masked(words);
    masked != shown(words) && secrets::words(&masked) == masked
}
