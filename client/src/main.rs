//! `loadgen`: puts load on a server and says what it can take.

#![forbid(unsafe_code)]
// Nothing is reachable from outside a program; `pub` says what a module offers to the others.
#![allow(unreachable_pub)]

mod assemble;
mod capacity;
mod cli;
mod command;
mod destination;
mod embedded;
mod engine;
mod fail_if;
mod failure;
mod floor;
mod github;
mod headers;
mod hidden;
mod plan;
mod preflight;
mod progress;
mod request_log;
mod resolve;
mod run;
mod scenario;
mod shard;
#[cfg(test)]
mod simulator;
mod start_at;
mod target;
mod time_wait;
mod traffic;
mod until;
mod verdict;
mod worker;
mod workload;

use cli::{Cli, Command};
use failure::Exit;
use loadgen_core::secrets;
use loadgen_core::sys::{inherited, limits};
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Err(error) = inherited::settle() {
        progress::tell(format_args!("error: cannot put right what was inherited (signals, descriptors): {error}"));
        return ExitCode::from(Exit::Machine as u8);
    }
    let args = hidden::received(std::env::args_os().collect());
    hidden::hide(&args);
    let typed: Vec<String> = args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let typed = secrets::words(&typed);
    let cli = match Cli::parse_args(args) {
        Ok(cli) => cli,
        Err(error) => {
            let complain = |why: &dyn std::fmt::Display| progress::tell(format_args!("error: {why}"));
            return ExitCode::from(loadgen_server::usage::tell(&error, complain));
        }
    };
    if let Err(error) = limits::survive_file_size() {
        progress::tell(format_args!("error: a limit of file sizes would end this process: {error}"));
        return ExitCode::from(Exit::Machine as u8);
    }
    let outcome = match cli.command {
        Command::Run(args) => command::run::run(&args, typed),
        Command::Compare(args) => command::compare::run(&args),
        Command::Ab(args) => command::ab::run(&args, typed),
        Command::Search(args) => command::search::run(&args, typed),
        Command::Report(args) => command::report::run(&args),
        Command::Merge(args) => command::merge::run(&args),
        Command::Doctor(args) => command::doctor::run(&args),
        Command::Server { args } => {
            return loadgen_server::main_with(std::iter::once("loadgen server".into()).chain(args));
        }
    };
    let exit = outcome.unwrap_or_else(|failure| {
        progress::tell(&failure);
        failure.exit
    });
    if exit == Exit::Done { ExitCode::SUCCESS } else { ExitCode::from(exit as u8) }
}
