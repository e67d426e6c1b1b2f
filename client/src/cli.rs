//! What was typed. Parsing does nothing; what it means is worked out in `plan`.

// Doc comments of flags are their help, and no links or tags to rustdoc.
#![allow(rustdoc::broken_intra_doc_links, rustdoc::invalid_html_tags)]

use crate::command::search::args::SearchArgs;
use crate::destination::Addresses;
use crate::fail_if;
use crate::plan::tls::TlsArgs;
use crate::scenario::{self, ScenarioArgs};
use crate::traffic::TrafficArgs;
use crate::workload::WorkloadArgs;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use loadgen_core::arrivals::Profile;
use loadgen_core::confidence::Goal;
use loadgen_core::limit::Limit;
use loadgen_core::result::Shard;
use loadgen_core::units;
use std::ffi::OsString;
use std::path::PathBuf;

/// A load generator whose numbers can be trusted.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, max_term_width = 100)]
#[command(after_help = "Without a command, `run` is meant; without --target, it starts a server of its own.")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Put load on a target and write a report
    Run(Box<RunArgs>),
    /// Say whether one set of reports is worse than another
    Compare(CompareArgs),
    /// Let two servers take turns, and say whether the second is worse
    Ab(Box<AbArgs>),
    /// Find the highest rate at which limits hold, and draw latency against load
    Search(Box<SearchArgs>),
    /// Print a report file in another format
    Report(ReportArgs),
    /// Add the reports of all shards of one run up
    Merge(MergeArgs),
    /// Say what this machine can carry, what would spoil a measurement, and how to mend it
    Doctor(DoctorArgs),
    /// Run the reference server (the same as `loadgen-server`)
    #[command(disable_help_flag = true)]
    Server {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

impl Cli {
    /// Parses a command line; `run` may be left out.
    pub fn parse_args(mut args: Vec<OsString>) -> Result<Self, clap::Error> {
        let first = args.get(1).and_then(|arg| arg.to_str()).unwrap_or("--conns");
        let is_command =
            ["run", "compare", "ab", "search", "report", "merge", "server", "doctor", "help", "--version", "-V"]
                .contains(&first);
        if !is_command && args.len() > 1 || args.len() == 1 {
            args.insert(1, "run".into());
        }
        if args.get(1).is_some_and(|command| command != "server") {
            args = fail_if::each_with_its_flag(args);
        }
        let (args, file) = scenario::with_defaults(args, command_line())?;
        let matches =
            command_line().try_get_matches_from(args).map_err(|error| scenario::blame(error, file.as_ref()))?;
        let mut cli = Self::from_arg_matches(&matches)?;
        if let (Command::Run(run), Some(matches)) = (&mut cli.command, matches.subcommand_matches("run")) {
            run.scenario.flags = scenario::flags(matches);
            run.scenario.file = file;
        }
        if let (Command::Ab(ab), Some(matches)) = (&mut cli.command, matches.subcommand_matches("ab")) {
            ab.run_flags = flags_of_run(matches);
            ab.seed_typed = matches.value_source("seed") == Some(ValueSource::CommandLine);
        }
        if let (Command::Search(search), Some(matches)) = (&mut cli.command, matches.subcommand_matches("search")) {
            search.run_flags = flags_of_run(matches);
        }
        Ok(cli)
    }
}

/// The table of flags. Those that `ab` and `search` share with `run` mean a little else there.
fn command_line() -> clap::Command {
    let with_help = |name: &'static str, help: &'static str| {
        move |ab: clap::Command| ab.mut_arg(name, move |flag| flag.help(help).long_help(help))
    };
    let search = move |search: clap::Command| {
        let search = with_help("duration", "Length of the measured window of each probe [default: 5s]")(search);
        let search = with_help("arrival", "Gaps between requests: poisson or constant [default: poisson]")(search);
        let search = with_help("format", "How the result is printed: text, json, md, csv")(search);
        let search = with_help("output", "Where the result goes [default: results/<UTC time>-search.json]")(search);
        let search = with_help("strict", "Exit with 8 when the answer is not as precise as was asked for")(search);
        with_help("seed", "Seed of the first probe; each further one has the next [default: 1]")(search)
    };
    Cli::command().mut_subcommand("search", search).mut_subcommand("ab", |ab| {
        let ab = with_help("duration", "Length of the measured window of each slot [default: 5s]")(ab);
        let ab = with_help("format", "How the comparison is printed: text, md, json")(ab);
        let ab = with_help("output", "Where the bundle goes [default: results/<UTC time>-ab.json]")(ab);
        let ab = with_help("strict", "Exit with 8 when the verdict is inconclusive, or a limit is unresolvable")(ab);
        let ab =
            with_help("fail_if", "Exit with 1 when a limit is broken, e.g. 'p99>+3%' 'errors>0' (docs/limits.md)")(ab);
        with_help(
            "seed",
            "Seed of everything random, and of the order of the slots [default: 1; the order: another each time]",
        )(ab)
    })
}

/// The flags of `run` among those that were typed, as `run` would take them, except for those that `ab` sees to itself.
fn flags_of_run(matches: &ArgMatches) -> Vec<String> {
    // Those of a scenario file are among them.
    let from_file = matches.contains_id("scenario") && !matches.get_flag("no_scenario_defaults");
    const OUR_OWN: &[&str] =
        &["target", "positional_target", "output", "format", "quiet", "strict", "no_floor", "fail_if"];
    let run = RunArgs::augment_args(clap::Command::new("run"));
    let mut flags: Vec<String> = from_file.then(|| "--no-scenario-defaults".to_owned()).into_iter().collect();
    for argument in run.get_arguments() {
        let id = argument.get_id().as_str();
        let typed = matches.value_source(id) == Some(ValueSource::CommandLine);
        let Some(long) = argument.get_long().filter(|_| typed && !OUR_OWN.contains(&id)) else { continue };
        if !argument.get_action().takes_values() {
            flags.push(format!("--{long}"));
            continue;
        }
        for occurrence in matches.get_raw_occurrences(id).into_iter().flatten() {
            flags.extend(occurrence.map(|value| format!("--{long}={}", value.to_string_lossy())));
        }
    }
    flags
}

#[derive(Args, Debug)]
#[command(
    after_help = "Others: ab, search, compare, merge, report, server, doctor. `loadgen help COMMAND` explains them."
)]
pub struct RunArgs {
    /// host:port (TCP echo) or a URL: http[s]:// redis:// memcached:// udp:// …; none: a server of our own
    ///
    /// Or unix:PATH, with --protocol where it is no echo. Several may be given, of one protocol: connections are shared
    /// out among them by --weights.
    #[arg(short = 'T', long, value_name = "TARGET")]
    pub target: Vec<String>,
    /// The same, without the flag
    #[arg(value_name = "TARGET", conflicts_with = "target", hide_short_help = true)]
    pub positional_target: Option<String>,
    /// Shares of several targets, in their order, e.g. 3,1 [default: equal]
    #[arg(long, value_name = "LIST", value_delimiter = ',', hide_short_help = true)]
    pub weights: Vec<u32>,
    /// Of a target's addresses: first (that answers), all (in turn), ipv4, ipv6
    #[arg(long, value_name = "WHICH", default_value = "first", value_parser = Addresses::parse, hide_short_help = true)]
    pub addresses: Addresses,
    /// Connections that carry load, e.g. 100 or 10k
    ///
    /// Steps and ramps with their lengths make their number change over time: 10:5s,10..1k:20s,1k:5s.
    #[arg(short, long, value_name = "N", default_value = "100", value_parser = Profile::parse)]
    pub conns: Profile,
    /// Open loop: so many requests a second in all, whatever the server does, e.g. 10k [default: closed loop]
    ///
    /// Steps and ramps with their lengths make it change over time: 1k:10s,1k..20k:30s. Requests are due at times that
    /// are fixed when the load begins, and latency counts from there. A due request takes any connection with room;
    /// while all are busy it waits, and the wait counts.
    #[arg(short, long, value_name = "R", value_parser = Profile::parse)]
    pub rate: Option<Profile>,
    /// Gaps between the requests of an open loop: constant or poisson
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub arrival: Option<String>,
    /// Wait without sleeping for so long before a request is due; 0us: never [default: a tenth of the gap, up to 100us]
    ///
    /// Waking up takes a sleeping thread 5 to 100 us, most of all on a virtual machine, and by so much its requests
    /// would leave late. What the waiting costs is in the report (generator.spin_ns): by default up to a tenth of a
    /// CPU a thread.
    #[arg(long, value_name = "T", value_parser = units::parse_duration_ns, hide_short_help = true)]
    pub spin: Option<u64>,
    /// Length of the measured window, e.g. 10s [default: 10s]
    #[arg(short, long, value_name = "T", value_parser = units::parse_duration_ns)]
    pub duration: Option<u64>,
    /// Go on until the 95 % intervals of these figures are so narrow, e.g. p99=2% or p50=1%,rate=0.5%
    ///
    /// Half of an interval's width, in percent of the figure: p50, p90, p95, p99, p99.9, p99.99, mean, rate. At least
    /// 2 s; at most --duration, which is then 5m unless given. The summary says if that was not enough.
    #[arg(long, value_name = "LIST", value_parser = goals, hide_short_help = true)]
    pub until_ci: Option<Goals>,
    /// Stop after N requests instead; the whole run is measured
    #[arg(short = 'n', long, value_name = "N", value_parser = units::parse_count)]
    pub requests: Option<u64>,
    /// Time under load before the window opens [default: 1s]
    #[arg(long, value_name = "T", value_parser = units::parse_duration_ns)]
    pub warmup: Option<u64>,
    /// Threads, each with its share of the connections
    #[arg(short, long, value_name = "N", default_value = "1", value_parser = units::parse_count)]
    pub threads: u64,
    /// Requests in flight on one connection
    #[arg(short, long, value_name = "N", default_value = "1", value_parser = units::parse_count)]
    pub pipeline: u64,
    /// Requests in flight on all connections together: they take turns [default: all may have their --pipeline]
    ///
    /// A connection that is opened anew makes one request besides, which proves it.
    #[arg(long, value_name = "N", value_parser = units::parse_count, hide_short_help = true)]
    pub in_flight: Option<u64>,
    /// Payload: a request (echo), a block (discard), a body (embedded HTTP)
    #[arg(short, long, value_name = "BYTES", value_parser = units::parse_size)]
    pub size: Option<u64>,
    /// Give a request or a connection attempt up after this long
    #[arg(long, value_name = "T", default_value = "5s", value_parser = units::parse_duration_ns)]
    pub timeout: u64,
    /// Further connections: opened, proved with one request, then idle
    #[arg(long, value_name = "N", default_value = "0", value_parser = units::parse_count)]
    pub idle: u64,
    /// Close a connection after N requests and open it anew (churn)
    #[arg(long, value_name = "N", value_parser = units::parse_count)]
    pub requests_per_conn: Option<u64>,
    /// Connection attempts a second, at most
    #[arg(long, value_name = "N", value_parser = units::parse_count)]
    pub connect_rate: Option<u64>,
    /// Connections started but not yet answered, at most
    ///
    /// A handshake ends in the kernel, before the server has accepted: faster than this, connections pile up in the
    /// accept queue (nginx: 511) and are dropped there. The bound holds for reconnects too.
    #[arg(long, value_name = "N", default_value = "256", value_parser = units::parse_count, hide_short_help = true)]
    pub max_unproven: u64,
    /// Connect from these local addresses in turn [default for a loopback target: one for 8,000 connections]
    #[arg(long, value_name = "IP", value_delimiter = ',', hide_short_help = true)]
    pub source: Vec<std::net::IpAddr>,
    /// Engine of the client: epoll, io_uring, or auto (io_uring where it works)
    #[arg(long, value_name = "NAME", default_value = "epoll")]
    pub engine: String,
    /// Engine of the embedded server: epoll, epoll-et, poll, select, io_uring, or auto
    #[arg(long, value_name = "NAME", default_value = "epoll")]
    pub server_engine: String,
    /// Options of the client's engine io_uring, e.g. cq=4096,buffers=64x64KiB (docs/io_uring.md)
    #[arg(long, value_name = "WORDS", default_value = "", hide_short_help = true)]
    pub ring: String,
    /// Options of the embedded server's engine io_uring
    #[arg(long, value_name = "WORDS", default_value = "", hide_short_help = true)]
    pub server_ring: String,
    /// Threads of the embedded server
    #[arg(long, value_name = "N", default_value = "1", value_parser = units::parse_count, hide_short_help = true)]
    pub server_threads: u64,
    /// Service times that the embedded server injects: fixed:1ms, exp:1ms, bimodal:0.1,1ms,50ms, trace:FILE
    ///
    /// As if one resource served all requests, one after the other; no CPU is burnt (docs/server.md).
    #[arg(long, value_name = "DIST", hide_short_help = true)]
    pub server_service_time: Option<String>,
    /// Delays that the embedded server injects, of each request by itself
    #[arg(long, value_name = "DIST", hide_short_help = true)]
    pub server_delay: Option<String>,
    /// The embedded server holds all replies for the last LENGTH of every PERIOD: 1s/10s
    #[arg(long, value_name = "LENGTH/PERIOD", hide_short_help = true)]
    pub server_stall: Option<String>,
    /// Protocol, where the target does not choose it: echo, http, redis, memcached, udp, …
    #[arg(long, value_name = "NAME")]
    pub protocol: Option<String>,
    #[command(flatten)]
    pub workload: WorkloadArgs,
    #[command(flatten)]
    pub traffic: TrafficArgs,
    #[command(flatten)]
    pub scenario: ScenarioArgs,
    #[command(flatten)]
    pub tls: TlsArgs,
    /// HTTP method
    #[arg(short = 'X', long, value_name = "M", default_value = "GET", hide_short_help = true)]
    pub method: String,
    /// HTTP header line, e.g. -H 'Accept: text/html'; @FILE: from a file
    ///
    /// May be repeated. @FILE has one a line, whose values are in no list of processes and in no report; so are those
    /// of the environment variable LOADGEN_HEADERS. Others are masked by their names (docs/targets.md).
    #[arg(short = 'H', long = "header", value_name = "LINE")]
    pub headers: Vec<String>,
    /// HTTP request body; @FILE reads it from a file
    #[arg(long, value_name = "TEXT", hide_short_help = true)]
    pub body: Option<String>,
    /// HTTP path and query [default: that of the target URL]
    #[arg(long, value_name = "PATH", hide_short_help = true)]
    pub path: Option<String>,
    /// Pin the client's threads to these CPUs, e.g. 1 or 0-3,7
    #[arg(long, value_name = "LIST", value_parser = cpus)]
    pub cpus: Option<CpuList>,
    /// Pin nothing (an embedded server and the client are kept apart otherwise)
    #[arg(long, conflicts_with = "cpus", hide_short_help = true)]
    pub no_pin: bool,
    /// Seed of everything random
    #[arg(long, value_name = "N", default_value = "1", value_parser = units::parse_count, hide_short_help = true)]
    pub seed: u64,
    /// A label for the report, KEY=VALUE; may be repeated
    #[arg(long = "label", value_name = "K=V", hide_short_help = true)]
    pub labels: Vec<String>,
    /// Where the report goes; - is standard output [default: results/<UTC time>-<what>.json]
    #[arg(short, long, value_name = "PATH")]
    pub output: Option<PathBuf>,
    /// Write every request that a connection took, with its times, to a CSV file, for checking (4M at most)
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub request_log: Option<PathBuf>,
    /// On standard output: text, json, csv, md, junit, ... (docs/formats.md)
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub format: String,
    /// Exit with 1 when a limit is broken, e.g. 'p99>5ms' 'errors>0'
    ///
    /// In quotes, or the shell takes the rest for a file. Further limits may follow, with the flag, without it, or
    /// behind a comma. A limit that the run cannot tell from the figure is not held but unresolvable (docs/limits.md).
    #[arg(long, value_name = "LIMIT", value_delimiter = ',', value_parser = Limit::parse)]
    pub fail_if: Vec<Limit>,
    /// Do not measure the generator's own floor before the run (an eighth of a second)
    #[arg(long, hide_short_help = true)]
    pub no_floor: bool,
    /// Exit with 5 when the verdict is invalid, 8 when inconclusive
    ///
    /// Inconclusive: --until-ci was not reached, or the run cannot tell whether a limit of --fail-if is kept.
    #[arg(long)]
    pub strict: bool,
    /// No progress line and no notes
    #[arg(short, long)]
    pub quiet: bool,
    /// Put on this part of the load only, e.g. 0/4 to 3/4 from four processes (docs/shards.md)
    ///
    /// --conns, --rate and --requests are then of all together. Without this flag, the variables of Kubernetes (with
    /// LOADGEN_SHARDS), Open MPI and Slurm say it; `loadgen merge` adds the reports up.
    #[arg(long, value_name = "I/N", value_parser = crate::shard::parse, hide_short_help = true)]
    pub shard: Option<Shard>,
    /// Begin the load at this time, once connections are open: 2026-11-23T13:02:40Z, …T15:02:40+02:00, or seconds
    /// since 1970
    #[arg(long, value_name = "TIME", value_parser = crate::start_at::parse, hide_short_help = true)]
    pub start_at: Option<u64>,
}

/// The CPUs of `--cpus`, in the order given; never empty.
#[derive(Clone, Debug)]
pub struct CpuList(pub Vec<usize>);

fn cpus(text: &str) -> Result<CpuList, String> {
    units::parse_cpus(text).map(CpuList)
}

/// What `--until-ci` asks for; never empty.
#[derive(Clone, Debug)]
pub struct Goals(pub Vec<Goal>);

fn goals(text: &str) -> Result<Goals, String> {
    Goal::parse_list(text).map(Goals)
}

/// How two sets of runs are compared.
#[derive(Args, Debug)]
#[command(next_help_heading = "How to compare")]
pub struct CompareOptions {
    /// The verdict depends on these metrics, e.g. p50,p99 [default: docs/compare.md]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub gate: Vec<String>,
    /// Changes that do not matter, of all metrics or of one: 3% or p99=10% [default: 2%, p99=5%, p99.9=10%]
    #[arg(long, value_name = "P", value_delimiter = ',')]
    pub margin: Vec<String>,
    /// How often equal things may be called different, over all gates
    #[arg(long, value_name = "P", default_value = "1%")]
    pub alpha: String,
    /// Fields of the scenario that may differ, e.g. pipeline
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub may_differ: Vec<String>,
    /// Judge although the machines differ
    #[arg(long)]
    pub accept_environment: bool,
    /// Judge although the order of the runs was not drawn by lot: how often that errs is not known
    #[arg(long)]
    pub accept_sequential: bool,
    /// Within GitHub Actions: add a page to the step's summary, and mark what is wrong beside the log
    #[arg(long)]
    pub github: bool,
}

#[derive(Args, Debug)]
pub struct CompareArgs {
    /// Base and candidate, each a report, a folder of reports or an arm of a bundle (FILE#A); or one bundle
    #[arg(required = true, num_args = 1..=2, value_names = ["BASE", "CAND"])]
    pub inputs: Vec<PathBuf>,
    #[command(flatten)]
    pub options: CompareOptions,
    /// text, md, json
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub format: String,
    /// Exit with 1 when a limit of the change or of the candidate is broken, e.g. 'p99>+3%' 'errors>0'
    #[arg(long, value_name = "LIMIT", value_delimiter = ',', value_parser = Limit::parse)]
    pub fail_if: Vec<Limit>,
    /// Exit with 8 when the verdict is inconclusive, or a limit is unresolvable
    #[arg(long)]
    pub strict: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Flags of `run` are for each slot. Example: \
    loadgen ab --a './server-main --port {port}' --b './server-new --port {port}' --target http://127.0.0.1:{port}/")]
pub struct AbArgs {
    /// Command that starts the base's server, by `sh -c`; {port} is a free port
    #[arg(long, value_name = "CMD")]
    pub a: Option<String>,
    /// Command that starts the candidate's server
    #[arg(long, value_name = "CMD")]
    pub b: Option<String>,
    /// Where the base is, if not at --target; without a command it must be running
    #[arg(long, value_name = "TARGET")]
    pub a_target: Option<String>,
    /// Where the candidate is
    #[arg(long, value_name = "TARGET")]
    pub b_target: Option<String>,
    /// Flags of `run` for the base only, e.g. '--server-engine epoll'
    #[arg(long, value_name = "FLAGS", allow_hyphen_values = true)]
    pub a_flags: Option<String>,
    /// Flags of `run` for the candidate only
    #[arg(long, value_name = "FLAGS", allow_hyphen_values = true)]
    pub b_flags: Option<String>,
    /// Blocks: two runs of each arm, in an order that is drawn by lot [default: 12]
    #[arg(long, value_name = "N", value_parser = units::parse_count, conflicts_with = "detect")]
    pub blocks: Option<u64>,
    /// As many blocks as it takes to see such a change, e.g. 3%; four pilot blocks say how many that is
    #[arg(long, value_name = "P")]
    pub detect: Option<String>,
    /// Measure the base against itself, too: half as long again, and a proof that nothing else takes part
    #[arg(long)]
    pub null: bool,
    /// How long a server may take until it accepts
    #[arg(long, value_name = "T", default_value = "10s", value_parser = units::parse_duration_ns)]
    pub ready: u64,
    #[command(flatten)]
    pub options: CompareOptions,
    #[command(flatten, next_help_heading = "Each run")]
    pub run: RunArgs,
    /// The flags of `run` that were typed.
    #[arg(skip)]
    pub run_flags: Vec<String>,
    #[arg(skip)]
    pub seed_typed: bool,
}

#[derive(Args, Debug)]
pub struct ReportArgs {
    /// Report files
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// text, json, csv, md, hgrm, hlog, openmetrics, bmf, gha-bigger, gha-smaller, junit (docs/formats.md)
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub format: String,
    /// Exit with 1 when a limit is broken, e.g. 'p99>5ms' 'errors>0' (docs/limits.md)
    #[arg(long, value_name = "LIMIT", value_delimiter = ',', value_parser = Limit::parse)]
    pub fail_if: Vec<Limit>,
    /// Exit with 5 when a run is invalid, 8 when a limit is unresolvable
    #[arg(long)]
    pub strict: bool,
    /// Within GitHub Actions: add a page to the step's summary, and mark what is wrong beside the log
    #[arg(long)]
    pub github: bool,
}

#[derive(Args, Debug)]
pub struct MergeArgs {
    /// The reports of all shards, or folders of them
    #[arg(required = true, value_name = "IN")]
    pub inputs: Vec<PathBuf>,
    /// Where the merged report goes; - is standard output [default: results/<UTC time>-<what>-merged.json]
    #[arg(short, long, value_name = "PATH")]
    pub output: Option<PathBuf>,
    /// What is printed on standard output: text, json, csv
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub format: String,
    /// Exit with 5 when the verdict is invalid
    #[arg(long)]
    pub strict: bool,
    /// No notes
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// Examine this engine only: epoll, io_uring [default: all of them]
    #[arg(long, value_name = "NAME")]
    pub engine: Option<String>,
    /// text, json
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub format: String,
    /// No word on what is being measured
    #[arg(short, long)]
    pub quiet: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_flags_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_may_be_left_out() {
        for line in [vec!["loadgen", "--conns", "10k"], vec!["loadgen", "run", "-c", "10000"]] {
            let cli = Cli::parse_args(line.iter().map(OsString::from).collect()).unwrap();
            let Command::Run(run) = cli.command else { panic!("not run") };
            assert_eq!(run.conns.steady(), Some(10_000));
        }
    }

    #[test]
    fn the_help_of_report_names_every_format() {
        let mut command = Cli::command();
        let help = command.find_subcommand_mut("report").unwrap().render_long_help().to_string();
        for format in loadgen_core::report::FORMATS {
            let mut words = help.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
            assert!(words.any(|word| word == format.name), "{}: {help}", format.name);
        }
    }

    #[test]
    fn short_help_fits_one_screen() {
        let mut command = Cli::command();
        let run = command.find_subcommand_mut("run").unwrap();
        let lines = run.render_help().to_string().lines().count();
        assert!(lines <= 40, "{lines} lines");
    }
}
