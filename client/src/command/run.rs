//! `loadgen run`: plan, pre-flight, run, report.

use crate::assemble::{self, Circumstances};
use crate::cli::RunArgs;
use crate::destination;
use crate::embedded::Embedded;
use crate::engine;
use crate::fail_if;
use crate::failure::{Exit, Failure};
use crate::floor::{self, Pinning};
use crate::plan::Plan;
use crate::preflight;
use crate::progress::tell;
use crate::run::{self, Run};
use crate::time_wait::{self, Rules};
use crate::{scenario, shard, start_at, verdict};
use loadgen_core::files::stdout;
use loadgen_core::machine::{self, KernelCounters};
use loadgen_core::report::Format;
use loadgen_core::result::{Floor, Report, ServerStats, Shard, VerdictState, integers, write};
use loadgen_core::sys::{clock, memory};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Kinds of failed connections for which the target can do nothing.
const MACHINES: [&str; 3] = ["no_descriptor", "no_memory", "no_port"];

pub fn run(args: &RunArgs, command: Vec<String>) -> Result<Exit, Failure> {
    let mut plan = planned(args)?;
    fail_if::check(&args.fail_if)?;
    if args.scenario.dump_scenario {
        return print(&scenario::dump(args, &plan)?).map(|()| Exit::Done);
    }
    let started_at = write::timestamp(SystemTime::now());
    let path = output_path(&plan, &started_at);
    if let Some(path) = &path {
        write::probe(path).map_err(|error| not_written(path, &error))?;
    }
    if let Some(log) = &plan.request_log {
        write::probe(log).map_err(|error| log_not_written(log, &error))?;
    }
    let machine = machine::describe();
    let server = match plan.is_embedded() {
        false => None,
        true => {
            preflight::check(&plan, &destination::only(SocketAddr::from(([127, 0, 0, 1], 0))))?;
            Some(Embedded::start(&plan)?)
        }
    };
    let to = match &server {
        Some(server) => destination::only(destination::endpoint(server.address, plan.protocol)),
        None => destination::choose(&plan)?,
    };
    preflight::check(&plan, &to)?;
    if let Some(warning) = engine::make_room(&mut plan, args.engine == engine::AUTO)? {
        tell(warning);
        preflight::check(&plan, &to)?;
    }
    run::catch_signals()?;
    let mut notes = Vec::new();
    let forecast = time_wait::before(&plan, &to, Rules::read()).and_then(|forecast| forecast.note);
    if let Some(note) = forecast.filter(|_| !plan.quiet) {
        tell(format_args!("note: {note}"));
    }
    let floor = floor(&plan, &mut notes);
    // Behind the floor, whose connections are none of the run's.
    let kernel = KernelCounters::read();
    memory::keep_reserve().map_err(|error| Failure::new(Exit::Machine, error.to_string()))?;
    let mut run = run::run(&plan, &to, server.as_ref())?;
    memory::spend_reserve();
    let kernel = KernelCounters::read().since(&kernel);
    notes.extend(run.notes.iter().cloned());
    let server = stop(server, &mut notes);
    let circumstances = Circumstances { command, started_at, to, machine, server, kernel, floor };
    let mut report = assemble::report(&plan, &run, circumstances);
    fail_if::judge(&args.fail_if, &mut report);
    if !plan.quiet {
        notes.iter().for_each(|note| tell(format_args!("note: {note}")));
    }
    let (chosen, strict) = (plan.output.is_some(), plan.strict);
    let delivery = Delivery { format: plan.format, chosen, quiet: plan.quiet, strict };
    delivery.deliver(&report, path.as_deref())?;
    if let Some(log) = &plan.request_log {
        let written = write::atomically(log, |to| run.tally.log.write(to));
        written.map_err(|error| log_not_written(log, &error))?.warning().iter().for_each(tell);
        if run.tally.log.left_out > 0 {
            let left_out = run.tally.log.left_out;
            tell(format_args!("note: {} has no room for {left_out} more requests: it is not whole", log.display()));
        }
    }
    Ok(exit(&plan, &run, &report))
}

/// What was typed, and which part of it falls to this process.
fn planned(args: &RunArgs) -> Result<Plan, Failure> {
    let mut plan = Plan::new(args)?;
    if let Some(warning) = plan.warning_of_layers() {
        tell(warning);
    }
    if let Some(why) = &plan.instead_of {
        tell(format_args!("engine {} instead of {why}", plan.engine.name));
    }
    if let Some(found) = shard::find(args.shard.as_ref(), |name| std::env::var(name).ok())? {
        let Shard { index, count, .. } = found.shard;
        plan.divide(found.shard)?;
        if let Some((name, of)) = found.variables.filter(|_| !plan.quiet) {
            tell(format_args!("note: this is shard {index} of {count}, by {name} and {of}; --shard goes before them"));
            let output = plan.output.iter().map(|path| path.to_string_lossy());
            for path in output.filter(|path| count > 1 && *path != "-" && !path.contains("%i")) {
                tell(format_args!("note: every shard writes {path}: on a common file system, write %i in its name"));
            }
        }
        let numbered = |path: PathBuf| match path.to_str() {
            Some(text) => PathBuf::from(text.replace("%i", &index.to_string())),
            None => path,
        };
        plan.output = plan.output.map(numbered);
        plan.request_log = plan.request_log.map(numbered);
    }
    if let Some(at_ns) = plan.start_at {
        if plan.requests().is_some() {
            let message =
                "--start-at does not go with --requests in a closed loop: its window has no beginning to wait for";
            return Err(Failure::usage(message).help("use --duration"));
        }
        start_at::check(at_ns, clock::wall_ns())
            .map_err(|why| Failure::usage(why).help("give a time that leaves room for opening the connections"))?;
    }
    Ok(plan)
}

/// What the generator itself adds. That this cannot be had is no reason not to measure.
fn floor(plan: &Plan, notes: &mut Vec<String>) -> Option<Floor> {
    if !plan.floor {
        return None;
    }
    match floor::measure(plan.engine, &plan.ring, Pinning::of(plan), floor::BRIEF) {
        Ok(measured) => Some(measured.floor),
        Err(why) => {
            notes.push(format!("the generator's floor could not be measured: {why}"));
            None
        }
    }
}

/// Where the report goes; `None`: standard output.
fn output_path(plan: &Plan, started_at: &str) -> Option<PathBuf> {
    match &plan.output {
        None => {
            let shard = plan.shard.as_ref().map_or(String::new(), |s| format!("-shard{}of{}", s.index, s.count));
            Some(write::default_path(started_at, &format!("{}{shard}", plan.protocol.name)))
        }
        Some(path) if path.as_os_str() == "-" => None,
        Some(path) => Some(path.clone()),
    }
}

pub fn not_written(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::NotWritten, format!("cannot write the report to {}: {error}", path.display()))
        .help("choose another place with --output, or --output - for standard output")
}

fn log_not_written(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::NotWritten, format!("cannot write the requests to {}: {error}", path.display()))
        .help("choose another place with --request-log")
}

fn stop(server: Option<Embedded>, notes: &mut Vec<String>) -> Option<ServerStats> {
    match server?.stop() {
        Ok(stats) => Some(stats),
        Err(error) => {
            notes.push(format!("{error}; the report is without its counters"));
            None
        }
    }
}

/// How a report is handed over.
#[derive(Debug)]
pub struct Delivery {
    pub format: &'static Format,
    /// Somebody chose its place, and what is there is replaced.
    pub chosen: bool,
    pub quiet: bool,
    /// As the command was told.
    pub strict: bool,
}

impl Delivery {
    /// Writes the file first: what is on the terminal scrolls away, and a closed pipe must not cost the report. No
    /// path: the report goes to standard output.
    pub fn deliver(&self, report: &Report, path: Option<&Path>) -> Result<(), Failure> {
        let reports = std::slice::from_ref(report);
        let text = (self.format.render)(reports);
        let Some(path) = path else {
            // The report itself has standard output; the summary goes beside it.
            let json = loadgen_core::report::json::render(report);
            integers::check(&json)
                .map_err(std::io::Error::other)
                .and_then(|()| stdout::write(&json))
                .map_err(|error| not_written(Path::new("-"), &error))?;
            if !self.quiet {
                tell(text.trim_end());
            }
            fail_if::warn(reports, self.format.says_verdict && !self.quiet, self.strict);
            return Ok(());
        };
        let written = match self.chosen {
            true => write::write_atomically(path, report),
            false => write::write_new(path, report),
        };
        print(&text)?;
        fail_if::warn_of_caveats(self.format, reports);
        fail_if::warn(reports, self.format.says_verdict, self.strict);
        let written = written.map_err(|error| not_written(path, &error))?;
        written.warning().iter().for_each(tell);
        if !self.quiet {
            tell(format_args!("report: {}", written.path.display()));
        }
        Ok(())
    }
}

/// Prints on standard output. A reader who has gone away (`| head`) is no error.
pub fn print(text: &str) -> Result<(), Failure> {
    stdout::print(text)
        .map_err(|error| Failure::new(Exit::NotWritten, format!("cannot write to standard output: {error}")))
}

fn exit(plan: &Plan, run: &Run, report: &Report) -> Exit {
    let connections = &report.connections;
    let whole = report.ledger.whole_run.as_ref();
    // Nobody cut the run short, so that requests without an answer at its very end were not answered in time.
    let failed_requests = whole.is_some_and(|whole| !whole.errors.is_empty() || whole.in_flight_at_end > 0);
    let failed_connections = !connections.failed.is_empty() || connections.lost > 0;
    let short = verdict::is_short(report);
    if let Some(signal) = run.interrupted {
        return Exit::of_signal(signal);
    }
    let turned_away = report.errors.iter().find(|row| row.kind == "turned_away");
    if let Some(first) = turned_away.filter(|_| connections.served == 0) {
        tell(format_args!("error: the target takes no connection: {}", first.first));
        tell("  help: raise its limit of connections, or have it let this machine in; then run again");
        return Exit::Unreachable;
    }
    if connections.established == 0 {
        if let Some(failure) = plan.failure_of_layers(report) {
            tell(format_args!("error: {failure}"));
        } else if let Some(ours) = report.errors.first().filter(|row| MACHINES.contains(&row.kind.as_str())) {
            tell(format_args!("error: this machine could open no connection: {}", ours.first));
            return Exit::Machine;
        } else if let Some(first) = report.errors.first() {
            tell(format_args!("error: the target could not be reached: {}", first.first));
            let refused = connections.opened > 0 && !["timeout", "closed", "reset"].contains(&first.kind.as_str());
            if refused {
                tell("  help: it runs, and refuses what is said first: check user, password and database");
            } else {
                tell(format_args!("  help: is it running, and is {} its address?", report.scenario.target));
            }
        }
        return Exit::Unreachable;
    }
    if let Some(why) = &run.gave_up {
        tell(format_args!("error: the run was given up: {why}"));
        tell("  help: see the errors; is it this protocol that is spoken there, and within --timeout?");
    }
    let limits = fail_if::exit(std::slice::from_ref(report), plan.strict);
    if limits == Some(Exit::Worse) {
        return Exit::Worse;
    }
    if plan.strict && report.verdict.state == VerdictState::Invalid {
        return Exit::Invalid;
    }
    if failed_requests || failed_connections || short || run.gave_up.is_some() {
        return Exit::Failures;
    }
    let until = report.confidence.iter().flat_map(|confidence| &confidence.until_ci);
    if plan.strict && !plan.until_ci.is_empty() && until.filter(|goal| goal.reached).count() < plan.until_ci.len() {
        return Exit::Inconclusive;
    }
    limits.unwrap_or(Exit::Done)
}
