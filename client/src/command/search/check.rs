//! What can be known to be wrong before anything is started, and what a probe's command line is.

use super::args::SearchArgs;
use crate::cli::{Cli, Command, RunArgs};
use crate::command::compare::share_of;
use crate::failure::Failure;
use crate::plan::Plan;
use loadgen_core::arrivals::Process;
use loadgen_core::time::{NS_PER_MS, NS_PER_S};
use loadgen_core::units::format_duration;

/// The window of a probe, unless `--duration` says otherwise.
const DEFAULT_PROBE_NS: u64 = 5 * NS_PER_S;
const PROBE_LEAST_NS: u64 = 100 * NS_PER_MS;
const PROBES_MOST: u64 = 1_000;
const RATE_MOST: u64 = 1_000_000_000;
/// Flags that each probe has a value of its own for, and those that are the embedded server's.
const NOT_SHARED: &[&str] = &["--duration", "--arrival", "--seed", "--cpus", "--no-pin", "--server-"];

/// What was asked, with every default filled in.
#[derive(Debug)]
pub struct Asked {
    /// Of a probe at some rate; the embedded server starts by it.
    pub plan: Plan,
    pub arrival: Process,
    pub probe_ns: u64,
    pub precision: f64,
    /// Flags that all probes share.
    pub flags: Vec<String>,
}

pub fn asked(args: &SearchArgs) -> Result<Asked, Failure> {
    flags_of_other_commands(&args.run)?;
    let precision = share_of("--precision", &args.precision, 0.001, 0.5)?;
    let probe_ns = args.run.duration.unwrap_or(DEFAULT_PROBE_NS);
    if probe_ns < PROBE_LEAST_NS {
        let least = format_duration(PROBE_LEAST_NS);
        return Err(Failure::usage(format!("--duration is that of a probe, and takes {least} at least")));
    }
    if !(1..=PROBES_MOST).contains(&args.probes) {
        return Err(Failure::usage(format!("--probes takes 1 to {PROBES_MOST}")));
    }
    for (flag, rate) in [("--from", args.from), ("--at-least", args.at_least)] {
        if rate.is_some_and(|rate| !(1..=RATE_MOST).contains(&rate)) {
            return Err(Failure::usage(format!("{flag} takes 1 to {RATE_MOST}")));
        }
    }
    let arrival = args.run.arrival.as_deref().unwrap_or_else(|| Process::Poisson.name());
    let plan = plan(args, arrival)?;
    if !plan.protocol.shape.has_replies() {
        let name = plan.protocol.name;
        return Err(Failure::usage(format!("search turns the rate of requests, and {name} is a stream without any")));
    }
    let arrival = plan.pacing.as_ref().map_or(Process::Poisson, |pacing| pacing.arrival);
    let shared = |flag: &&String| {
        // That one is the name in a target's certificate.
        flag.starts_with("--server-name") || !NOT_SHARED.iter().any(|other| flag.starts_with(other))
    };
    let mut flags: Vec<String> = args.run_flags.iter().filter(shared).cloned().collect();
    if plan.is_embedded() && args.run.protocol.is_none() {
        flags.push(format!("--protocol={}", plan.protocol.name));
    }
    flags.extend(args.run.layers_towards_own_server().into_iter().map(str::to_owned));
    if !plan.client_cpus.is_empty() {
        let cpus: Vec<String> = plan.client_cpus.iter().map(usize::to_string).collect();
        flags.push(format!("--cpus={}", cpus.join(",")));
    } else if args.run.no_pin {
        flags.push("--no-pin".to_owned());
    }
    Ok(Asked { plan, arrival, probe_ns, precision, flags })
}

/// What the parser and the planner of `run` say about a probe.
fn plan(args: &SearchArgs, arrival: &str) -> Result<Plan, Failure> {
    let own = [format!("--rate={}", args.from.unwrap_or(1)), format!("--arrival={arrival}")];
    let typed = args.run_flags.iter().filter(|flag| !flag.starts_with("--arrival")).cloned();
    let line = ["loadgen".to_owned(), "run".to_owned()].into_iter().chain(typed).chain(own).chain(targets(&args.run));
    match Cli::parse_args(line.map(Into::into).collect()).map(|cli| cli.command) {
        Ok(Command::Run(run)) => Plan::new(&run),
        Ok(_) => Err(Failure::usage("these are no flags of `run`")),
        Err(error) => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            Err(Failure::usage(first.strip_prefix("error: ").unwrap_or(first)))
        }
    }
}

/// Where the load goes, as flags of a probe; none: to an embedded server.
pub fn targets(run: &RunArgs) -> impl Iterator<Item = String> {
    run.target.iter().chain(&run.positional_target).map(|target| format!("--target={target}"))
}

/// Flags that contradict a search, or mean nothing in it.
fn flags_of_other_commands(run: &RunArgs) -> Result<(), Failure> {
    let given = [
        (run.rate.is_some(), "--rate", "is what a search looks for: give --from for its first one"),
        (run.requests.is_some(), "--requests", "does not go with a search, whose probes last for --duration"),
        (run.until_ci.is_some(), "--until-ci", "is for a single run: a search has --precision"),
        (!run.fail_if.is_empty(), "--fail-if", "is for a single run: a search has --slo and --at-least"),
        (run.in_flight.is_some(), "--in-flight", "is for closed loops, and a search is an open one"),
        (
            run.traffic.session_requests.is_some(),
            "--session-requests",
            "is for a single run: a search turns the rate of requests, not that of sessions",
        ),
        (run.request_log.is_some(), "--request-log", "is for a single run"),
        (run.scenario.dump_scenario, "--dump-scenario", "is for a single run"),
        (run.shard.is_some(), "--shard", "is for a single run, and a search makes many"),
        (run.start_at.is_some(), "--start-at", "is for a single run, and a search makes many"),
        (run.conns.steady().is_none(), "--conns", "takes one number in a search: the load changes by its rate"),
    ];
    match given.iter().find(|(given, ..)| *given) {
        Some((_, flag, why)) => Err(Failure::usage(format!("{flag} {why}"))),
        None => Ok(()),
    }
}
