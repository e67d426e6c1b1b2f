//! `loadgen ab`: two arms take turns, each run with a fresh server, and are compared.
//!
//! In reading order: `check` (what can be refused at once), `order` (of the arms in a block), `server` (one that
//! somebody gave the command for), `slot` (one run), `blocks` (until there are enough), `planner` (how many
//! that is).

mod blocks;
mod check;
mod order;
mod planner;
mod server;
pub mod slot;

use crate::cli::AbArgs;
use crate::command::compare;
use crate::failure::{Exit, Failure};
use crate::progress::tell;
use blocks::{BlockRunner, Stop};
use loadgen_core::compare::Options;
use loadgen_core::compare::page::Format;
use loadgen_core::result::{Arm, BUNDLE_SCHEMA, Bundle, Tool, write};
use loadgen_core::rng::Rng;
use loadgen_core::secrets;
use loadgen_core::time::NS_PER_S;
use loadgen_core::units::format_duration;
use slot::Bench;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// The window of one slot, unless `--duration` or `--requests` says otherwise.
const DEFAULT_SLOT: &str = "5s";
/// Blocks, unless `--blocks` or `--detect` says otherwise (docs/compare.md has what they can see).
const DEFAULT_BLOCKS: u64 = 12;
const BLOCKS_MOST: u64 = 500;
/// How often the finished blocks are written while the comparison goes on.
const KEEP_EVERY: Duration = Duration::from_secs(30);

pub fn run(args: &AbArgs, command: Vec<String>) -> Result<Exit, Failure> {
    let options = compare::options(&args.options, &args.run.fail_if)?;
    let summary = compare::summary_of(&args.options)?;
    let format = compare::choose_format(&args.run.format)?;
    let detect = args.detect.as_deref().map(|text| compare::share_of("--detect", text, 1e-4, 1.0)).transpose()?;
    if args.blocks.is_some_and(|blocks| !(1..=BLOCKS_MOST).contains(&blocks)) {
        return Err(Failure::usage(format!("--blocks takes 1 to {BLOCKS_MOST}")));
    }
    let arms = arms(args)?;
    check::arms(args, &arms, &options)?;
    args.blocks.map_or(Ok(()), |blocks| check::blocks(blocks, &options))?;
    let started_at = write::timestamp(SystemTime::now());
    let output = args.run.output.clone().unwrap_or_else(|| write::default_path(&started_at, "ab"));
    if args.run.output.as_deref() == Some(Path::new("-")) {
        return Err(Failure::usage("a bundle needs a file: --output - is for a single report"));
    }
    write::probe(&output).map_err(|error| not_written(&output, &error))?;
    let mut file = BundleFile { path: output, ours: args.run.output.is_some(), kept: Instant::now() };
    let folder = tempfile::tempdir().map_err(|error| {
        Failure::new(Exit::NotWritten, format!("no folder for reports that are on their way: {error}"))
            .help("TMPDIR names the place for temporary files")
    })?;
    let seed = if args.seed_typed { args.run.seed } else { random_seed() };
    let bench = Bench {
        program: std::env::current_exe()
            .map_err(|error| Failure::new(Exit::Machine, format!("this program's own file: {error}")))?,
        flags: flags(args),
        folder: folder.path().to_owned(),
        ready: Duration::from_nanos(args.ready),
        of: "arm",
    };
    let mut bundle = Bundle {
        schema: BUNDLE_SCHEMA.to_owned(),
        tool: Tool::ours(),
        command,
        started_at,
        partial: true,
        session: format!("{:016x}", random_seed()),
        seed,
        arms: arms.iter().map(shown).collect(),
        blocks_planned: args.blocks.unwrap_or(DEFAULT_BLOCKS),
        plan: None,
        order: Vec::new(),
        runs: Vec::new(),
        checksum: None,
    };
    let mut runner = BlockRunner::new(&bench, &arms, args.run.quiet)?;
    let plan = detect.map(|detect| planner::plan(&mut runner, &mut bundle, &options, detect));
    let done = match plan.transpose()?.flatten() {
        Some(refused) => return Ok(refused),
        None => runner.run(&mut bundle, &mut |bundle| file.keep(bundle)),
    };
    finish(args, &options, (format, summary.as_ref()), file, &mut bundle, done)
}

/// Where the bundle goes.
#[derive(Debug)]
struct BundleFile {
    path: PathBuf,
    /// Somebody chose it, or we have made it: what is there is replaced.
    ours: bool,
    kept: Instant,
}

impl BundleFile {
    /// Writes what there is now and then, so that a comparison which is killed is not lost. Between blocks it disturbs
    /// nobody.
    fn keep(&mut self, bundle: &Bundle) -> Result<(), Failure> {
        if self.kept.elapsed() < KEEP_EVERY { Ok(()) } else { self.write(bundle) }
    }

    fn write(&mut self, bundle: &Bundle) -> Result<(), Failure> {
        let written = match self.ours {
            true => write::write_bundle_atomically(&self.path, bundle),
            false => write::write_new_bundle(&self.path, bundle),
        };
        let written = written.map_err(|error| not_written(&self.path, &error))?;
        written.warning().iter().for_each(tell);
        self.path = written.path;
        (self.ours, self.kept) = (true, Instant::now());
        Ok(())
    }
}

/// Writes what there is, compares it, and says how that ends.
fn finish(
    args: &AbArgs,
    options: &Options,
    (format, summary): (&'static Format, Option<&PathBuf>),
    mut file: BundleFile,
    bundle: &mut Bundle,
    done: Result<Option<Stop>, Failure>,
) -> Result<Exit, Failure> {
    bundle.partial = !matches!(done, Ok(None));
    if bundle.runs.is_empty() {
        if let Ok(Some(_)) = done {
            tell("interrupted before the first block was finished: there is nothing to keep");
        }
        return done.map(|stop| stop.map_or(Exit::Done, Stop::exit));
    }
    let comparison = compare::of_bundle(bundle, options.clone());
    let (strict, quiet) = (args.run.strict, args.run.quiet);
    let delivered = match &comparison {
        Ok(comparison) => compare::Telling { format, summary, strict, quiet }.deliver(comparison),
        Err(_) => Ok(()),
    };
    // Whatever becomes of one of the two, the other is not lost.
    file.write(bundle)?;
    if !quiet {
        tell(format_args!("bundle: {}", file.path.display()));
    }
    delivered?;
    // What ended the runs is more than what the finished blocks say.
    if let Some(stop) = done? {
        if let Err(refused) = &comparison {
            tell(format_args!("interrupted, and what was finished cannot be compared: {}", refused.cause()));
        }
        return Ok(stop.exit());
    }
    Ok(compare::exit(&comparison?, strict))
}

fn not_written(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::NotWritten, format!("cannot write the bundle to {}: {error}", path.display()))
        .help("choose another place with --output")
}

/// Base, candidate, and the base once more where that was asked for.
fn arms(args: &AbArgs) -> Result<Vec<Arm>, Failure> {
    let common = match &args.run.target[..] {
        [] => args.run.positional_target.as_ref(),
        [one] => Some(one),
        _ => return Err(Failure::usage("ab compares two servers, and takes one --target")),
    };
    let arm = |name: &str, command: &Option<String>, target: &Option<String>, flags: &Option<String>| {
        let words = flags.as_deref().map_or(Some(Vec::new()), shlex::split);
        let lower = name.to_ascii_lowercase();
        let flags = words.ok_or_else(|| Failure::usage(format!("--{lower}-flags: a quote is not closed")))?;
        let target = target.as_ref().or(common).cloned();
        if command.is_none() && target.as_ref().is_some_and(|target| target.contains("{port}")) {
            return Err(Failure::usage(format!(
                "{{port}} in a target is that of a command, and there is no --{lower}"
            )));
        }
        if let Some(command) = command.as_ref().filter(|command| target.is_none() && !command.contains("{port}")) {
            return Err(Failure::usage(format!("where does '{}' listen?", secrets::shell(command)))
                .help(format!("say so with --target or --{lower}-target, or write {{port}} in the command")));
        }
        Ok(Arm { name: name.to_owned(), server_command: command.clone(), target, flags })
    };
    let base = arm("A", &args.a, &args.a_target, &args.a_flags)?;
    let candidate = arm("B", &args.b, &args.b_target, &args.b_flags)?;
    if base.server_command.is_some() != candidate.server_command.is_some() {
        return Err(Failure::usage("one arm has a command and the other has none")
            .help("give --a and --b; for servers that run already --a-target and --b-target"));
    }
    if base.target.is_some() != candidate.target.is_some() {
        return Err(Failure::usage("one arm has a target and the other has none, which would be an embedded server")
            .help("give both: --a-target and --b-target, or one for both: --target"));
    }
    let mut arms = vec![base, candidate];
    if args.null {
        arms.push(Arm { name: "N".to_owned(), ..arms[0].clone() });
    }
    Ok(arms)
}

/// An arm as the bundle has it: without what is secret.
fn shown(arm: &Arm) -> Arm {
    Arm {
        name: arm.name.clone(),
        server_command: arm.server_command.as_deref().map(secrets::shell),
        target: arm.target.as_deref().map(secrets::url),
        flags: secrets::words(&arm.flags),
    }
}

/// Flags of each run: those that were typed, and the length of a slot.
fn flags(args: &AbArgs) -> Vec<String> {
    let mut flags = args.run_flags.clone();
    if args.run.duration.is_none() && args.run.requests.is_none() && args.run.until_ci.is_none() {
        flags.extend(["--duration".to_owned(), DEFAULT_SLOT.to_owned()]);
    }
    flags
}

/// The draws must not be the same in every comparison: what keeps time with them would then always meet the same arm.
fn random_seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // Below 2^53, so that every JSON reader gets it whole.
    Rng::new(now.as_nanos() as u64 ^ u64::from(std::process::id()) << 32).next_u64() >> 11
}

/// `4m 10s`: roughly how long something takes.
fn roughly(ns: u64) -> String {
    let seconds = ns.div_ceil(NS_PER_S);
    match (seconds / 60, seconds % 60) {
        (0, _) => format_duration(seconds * NS_PER_S),
        (minutes @ 1..60, seconds) => format!("{minutes} min {seconds} s"),
        (minutes, _) => format!("{} h {} min", minutes / 60, minutes % 60),
    }
}
