//! `loadgen search`: the highest rate at which limits hold.
//!
//! In reading order: `args` (what was typed), `check` (what can be refused at once), `probing` (probes, one after the
//! other). Where to probe next, and what it all means, is decided in `loadgen_core::search`.

pub mod args;
mod check;
mod probing;

use crate::command::ab::slot::Bench;
use crate::command::run::print;
use crate::embedded::Embedded;
use crate::failure::{Exit, Failure};
use crate::plan;
use crate::progress::tell;
use args::SearchArgs;
use check::Asked;
use loadgen_core::arrivals::Process;
use loadgen_core::result::{LimitState, Tool, write};
use loadgen_core::search::page::{FORMATS, Format, answer};
use loadgen_core::search::schema::{AtLeast, Found, KneeRow, Outcome, ProbeVerdict, SEARCH_SCHEMA};
use loadgen_core::search::{Ending, Search, Slo};
use loadgen_core::sys::clock;
use loadgen_core::units::format_duration;
use probing::{End, Probing};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How long the server may take until it accepts. Ours does when it says so, and somebody else's runs already.
const READY: Duration = Duration::ZERO;
/// Fewer requests than this beyond a percentile, in a probe at the knee, say little.
const BEYOND_LEAST: f64 = 10.0;

pub fn run(args: &SearchArgs, command: Vec<String>) -> Result<Exit, Failure> {
    let format = FORMATS.iter().find(|format| format.name == args.run.format);
    let format =
        format.ok_or_else(|| plan::unknown("format", &args.run.format, FORMATS.iter().map(|format| format.name)))?;
    let mut asked = check::asked(args)?;
    asked.plan.quiet = args.run.quiet;
    let started_at = write::timestamp(SystemTime::now());
    if args.run.output.as_deref() == Some(Path::new("-")) {
        return Err(Failure::usage("a search needs a file; for its result on standard output there is --format json"));
    }
    let path = args.run.output.clone().unwrap_or_else(|| write::default_path(&started_at, "search"));
    write::probe(&path).map_err(|error| not_written(&path, &error))?;
    let mut file = ResultFile { path, ours: args.run.output.is_some() };
    let folder = tempfile::tempdir().map_err(|error| {
        Failure::new(Exit::NotWritten, format!("no folder for reports that are on their way: {error}"))
            .help("TMPDIR names the place for temporary files")
    })?;
    let bench = Bench {
        program: std::env::current_exe()
            .map_err(|error| Failure::new(Exit::Machine, format!("this program's own file: {error}")))?,
        flags: asked.flags.clone(),
        folder: folder.path().to_owned(),
        ready: READY,
        of: "probe",
    };
    // One server for all probes: what is looked for is a property of a server that runs.
    let server = asked.plan.is_embedded().then(|| Embedded::start(&asked.plan)).transpose()?;
    let targets = match &server {
        Some(server) => vec![format!("--target={}", server.address)],
        None => check::targets(&args.run).collect(),
    };
    let mut found = begin(args, &asked, command, started_at);
    let mut probing = Probing::new(&bench, &asked, &args.slo, targets)?;
    let began = probing.began;
    let (search, end) = probing.run(args.from, &mut found, &mut |found, search| {
        conclude(args, found, search, None);
        file.write(found)
    });
    found.took_ns = clock::now().since(began);
    // An error is told by `finish`.
    conclude(args, &mut found, &search, end.as_ref().ok().copied());
    finish(args, format, &mut file, &found, end)
}

/// The result before the first probe.
fn begin(args: &SearchArgs, asked: &Asked, command: Vec<String>, started_at: String) -> Found {
    Found {
        schema: SEARCH_SCHEMA.to_owned(),
        tool: Tool::ours(),
        command,
        started_at,
        partial: true,
        scenario: scenario(asked),
        slos: args.slo.iter().map(Slo::to_string).collect(),
        arrival: asked.arrival.name().to_owned(),
        seed: args.run.seed,
        precision_ppm: (asked.precision * 1e6).round() as u64,
        budget_ns: args.budget,
        probes_most: args.probes,
        probe_ns: asked.probe_ns,
        took_ns: 0,
        outcome: Outcome::Unknown,
        ended: String::new(),
        highest_held_per_s: None,
        knee: None,
        probes: Vec::new(),
        warnings: Vec::new(),
        at_least: None,
        runs: Vec::new(),
        checksum: None,
    }
}

/// What is asked of the target, in a line.
fn scenario(asked: &Asked) -> String {
    let plan = &asked.plan;
    let typed: Vec<&str> = plan.targets.iter().map(|resolved| resolved.target.typed.as_str()).collect();
    let server = match (plan.is_embedded(), plan.server_injected.words.as_slice()) {
        (false, _) => typed.join(", "),
        (true, []) => format!("embedded server ({})", plan.server_engine),
        (true, injected) => format!("embedded server ({}, {})", plan.server_engine, injected.join(", ")),
    };
    let (connections, probe) = (plan.connections, format_duration(asked.probe_ns));
    let arrival = asked.arrival.name();
    format!("{}, {server}: {connections} connections, {arrival} arrivals, probes of {probe}", plan.protocol.name)
}

/// Says what is known by now. No end: it goes on, or broke off.
fn conclude(args: &SearchArgs, found: &mut Found, search: &Search, end: Option<End>) {
    let ending = match end {
        Some(End::Procedure(ending)) => Some(ending),
        _ => None,
    };
    found.partial = !matches!(end, Some(End::Procedure(_) | End::Budget));
    let held = search.observations().iter().filter(|seen| seen.holds() == Some(true)).map(|seen| seen.rate as u64);
    found.highest_held_per_s = held.max();
    let knee = search.knee();
    found.outcome = Outcome::of(ending, knee.is_some());
    found.knee = knee.map(|knee| KneeRow {
        rate_per_s: knee.rate as u64,
        low_per_s: knee.low.map(|rate| rate as u64),
        high_per_s: knee.high.map(|rate| rate.ceil() as u64),
        basis: knee.basis,
        slo: args.slo[knee.slo].to_string(),
        probes: knee.probes as u64,
    });
    found.ended = ended(found, end);
    found.warnings = warnings(args, found);
    found.at_least = args.at_least.map(|rate_per_s| {
        let judgement = found.judge_at_least(rate_per_s);
        AtLeast { rate_per_s, judgement }
    });
}

/// Why it ended, and what that means.
fn ended(found: &Found, end: Option<End>) -> String {
    let (probes, took) = (found.probes.len(), format_duration(found.took_ns));
    let wider = match &found.knee {
        Some(_) => "the interval is as narrow as that allowed",
        None => "it had not come to an end",
    };
    let why = match end {
        Some(End::Procedure(Ending::Precise)) => "that is as precise as was asked for".to_owned(),
        Some(End::Procedure(Ending::OutOfProbes)) => format!("--probes were over: {wider}"),
        Some(End::Procedure(Ending::GeneratorBound)) => {
            "beyond that the generator was the limit: more --threads, or a faster machine, to see more".to_owned()
        }
        Some(End::Procedure(Ending::NeverHeld)) => "lower rates are not worth a load generator".to_owned(),
        Some(End::Procedure(Ending::NothingUsable)) => {
            "one probe after the other was of no use: see their verdicts, and `loadgen doctor`".to_owned()
        }
        Some(End::Budget) => format!("--budget was over: {wider}"),
        Some(End::Signal(_)) | None => "it was broken off".to_owned(),
    };
    format!("{probes} probes in {took}; {why}")
}

fn warnings(args: &SearchArgs, found: &Found) -> Vec<String> {
    let mut warnings = Vec::new();
    let useless: Vec<_> = found.probes.iter().filter(|probe| probe.verdict == ProbeVerdict::Unusable).collect();
    if !useless.is_empty() {
        let mut codes: Vec<&str> = useless.iter().flat_map(|probe| &probe.why).map(String::as_str).collect();
        codes.sort_unstable();
        codes.dedup();
        warnings.push(format!("{} probes were of no use ({}) and are left out", useless.len(), codes.join(", ")));
    }
    let quantile = args.slo.iter().filter_map(Slo::response_quantile).map(|(q, _)| q).reduce(f64::max);
    if let (Some(q), Some(knee)) = (quantile, &found.knee) {
        let requests = knee.rate_per_s as f64 * found.probe_ns as f64 / 1e9;
        if requests * (1.0 - q) < BEYOND_LEAST {
            warnings.push(format!(
                "at this rate a probe has about {requests:.0} requests, of which {:.1} may be slow: a longer \
                 --duration says more",
                requests * (1.0 - q)
            ));
        }
    }
    if found.arrival == Process::Constant.name() {
        warnings.push(
            "arrivals were constant: independent clients come in bursts (poisson), and queue at lower rates".to_owned(),
        );
    }
    warnings
}

/// Where the result goes.
#[derive(Debug)]
struct ResultFile {
    path: PathBuf,
    /// Somebody chose it, or we have made it: what is there is replaced.
    ours: bool,
}

impl ResultFile {
    fn write(&mut self, found: &Found) -> Result<(), Failure> {
        let text = found.to_json();
        let written = match self.ours {
            true => write::json_atomically(&self.path, &text),
            false => write::new_json(&self.path, &text),
        };
        let written = written.map_err(|error| not_written(&self.path, &error))?;
        written.warning().iter().for_each(tell);
        self.path = written.path;
        self.ours = true;
        Ok(())
    }
}

fn not_written(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::NotWritten, format!("cannot write the search to {}: {error}", path.display()))
        .help("choose another place with --output")
}

/// Writes what there is, prints it, and says how that ends.
fn finish(
    args: &SearchArgs,
    format: &Format,
    file: &mut ResultFile,
    found: &Found,
    end: Result<End, Failure>,
) -> Result<Exit, Failure> {
    if found.probes.is_empty() {
        if let Ok(End::Signal(_)) = end {
            tell("interrupted before the first probe was finished: there is nothing to keep");
        }
        return end.map(|end| exit(args, found, end));
    }
    file.write(found)?;
    print(&(format.render)(found))?;
    if ["json", "csv"].contains(&format.name) && !args.run.quiet {
        tell(answer(found));
    }
    if !args.run.quiet {
        tell(format_args!("search: {}", file.path.display()));
    }
    end.map(|end| exit(args, found, end))
}

fn exit(args: &SearchArgs, found: &Found, end: End) -> Exit {
    if let End::Signal(signal) = end {
        return Exit::of_signal(signal);
    }
    let at_least = found.at_least.map(|at_least| at_least.judgement);
    if found.outcome == Outcome::Never || at_least == Some(LimitState::Broken) {
        return Exit::Worse;
    }
    // An answer that is none must not pass for one in a script.
    let nothing = found.outcome == Outcome::Unknown && found.highest_held_per_s.is_none();
    if end == End::Procedure(Ending::NothingUsable) || nothing {
        return Exit::Invalid;
    }
    let answered = match at_least {
        Some(judgement) => judgement == LimitState::Holds,
        None => found.outcome == Outcome::Found,
    };
    if args.run.strict && !answered { Exit::Inconclusive } else { Exit::Done }
}
