//! Scenario files: read, turned into flags of the run, held against its protocol, and written again.

// Doc comments of flags are their help, and no links or tags to rustdoc.
#![allow(rustdoc::broken_intra_doc_links, rustdoc::invalid_html_tags)]

use crate::cli::RunArgs;
use crate::failure::Failure;
use crate::plan::Plan;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args};
use loadgen_core::files::read;
use loadgen_core::protocol::ask::Asker;
use loadgen_core::protocol::{ClientOptions, PROTOCOLS, Protocol};
use loadgen_core::scenario::{Flag, Scenario, What, nearest, quoted};
use loadgen_core::service_time::exact;
use loadgen_core::{secrets, url};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of a scenario file, and of each file that it names.
const SCENARIO_MAX: u64 = 4 << 20;
const NAMED_MAX: u64 = 256 << 20;

/// Requests that `--dump-scenario` shows, and bytes of each.
const SHOWN: usize = 10;
const SHOWN_BYTES: usize = 2_000;

/// Flags that a file cannot have in its `[defaults]`: they say which file it is, and what to do with it.
const ABOUT_FILES: &[&str] = &["scenario", "dump-scenario", "no-scenario-defaults"];

/// A flag that was typed, and those that a file must not add to it.
const INSTEAD: &[(&str, &[&str])] = &[
    ("target", &["weights"]),
    ("positional_target", &["target", "weights"]),
    ("requests", &["duration", "warmup", "until-ci"]),
    ("duration", &["requests"]),
    ("until_ci", &["requests"]),
    ("mix", &["command"]),
    ("commands", &["mix"]),
    ("cpus", &["no-pin"]),
    ("no_pin", &["cpus"]),
];

#[derive(Args, Clone, Debug, Default)]
pub struct ScenarioArgs {
    /// Take requests, targets, and defaults of these flags from a file (docs/scenarios.md)
    ///
    /// A mix of requests, scripts of them, or a recorded list. What is typed goes before what the file says.
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub scenario: Option<PathBuf>,
    /// Of the scenario file, take the requests only: no [defaults], [keys] and [[target]]
    #[arg(long, requires = "scenario", hide_short_help = true)]
    pub no_scenario_defaults: bool,
    /// Print what would run as a scenario file, with its first requests, and do nothing
    #[arg(long, hide_short_help = true)]
    pub dump_scenario: bool,
    /// The file, understood.
    #[arg(skip)]
    pub file: Option<Arc<Scenario>>,
    /// All flags with their values, typed or not.
    #[arg(skip)]
    pub flags: Vec<Flag>,
}

/// The command line with what its scenario file says put before what was typed, except for that; and the file.
///
/// # Errors
/// One line that names the file, and the line in it.
pub fn with_defaults(
    mut args: Vec<OsString>,
    command: clap::Command,
) -> Result<(Vec<OsString>, Option<Arc<Scenario>>), clap::Error> {
    // What is wrong beside the file is found when all is parsed again.
    let matches = command.ignore_errors(true).try_get_matches_from(&args)?;
    let Some((_, typed)) = matches.subcommand().filter(|(name, _)| ["run", "ab", "search"].contains(name)) else {
        return Ok((args, None));
    };
    let Some(path) = typed.get_one::<PathBuf>("scenario") else { return Ok((args, None)) };
    let scenario = load(path).map_err(refusal)?;
    let flags: Vec<String> = match typed.get_flag("no_scenario_defaults") {
        true => Vec::new(),
        false => defaults(&scenario, typed, path).map_err(refusal)?,
    };
    // Behind the program's name and the command.
    let at = args.len().min(2);
    args.splice(at..at, flags.into_iter().map(OsString::from));
    Ok((args, Some(Arc::new(scenario))))
}

fn refusal(why: String) -> clap::Error {
    clap::Error::raw(ErrorKind::ValueValidation, format!("{why}\n"))
}

/// Flags that do not go together: with a file, some of them may not have been typed.
pub fn blame(error: clap::Error, file: Option<&Arc<Scenario>>) -> clap::Error {
    let together = [ErrorKind::MissingRequiredArgument, ErrorKind::ArgumentConflict].contains(&error.kind());
    match file {
        Some(file) if together => refusal(format!("{} and what was typed: {}", file.file, in_a_line(&error))),
        _ => error,
    }
}

/// What `clap` says, up to its advice.
fn in_a_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    lines.join(" ").trim_start_matches("error: ").to_owned()
}

fn load(path: &Path) -> Result<Scenario, String> {
    let shown = path.display().to_string();
    let text = read::text(regular(path)?, SCENARIO_MAX)?;
    Scenario::parse(&shown, &text, &mut |name| read::bytes(regular(&beside(path, name))?, NAMED_MAX))
}

/// A scenario is read again by each slot of `ab`, and so it has to be a file that stays.
fn regular(path: &Path) -> Result<&Path, String> {
    let cannot = |why: String| format!("cannot read {}: {why}", path.display());
    match path.metadata().map_err(|error| cannot(error.to_string()))?.is_file() {
        true => Ok(path),
        false => Err(cannot("it is no regular file".to_owned())),
    }
}

/// Where a file lies that is named in the scenario file at `path`.
fn beside(path: &Path, name: &str) -> PathBuf {
    path.parent().unwrap_or_else(|| Path::new("")).join(name)
}

/// The file's flags, except for those that were typed or are replaced by one that was.
fn defaults(scenario: &Scenario, typed: &ArgMatches, path: &Path) -> Result<Vec<String>, String> {
    let run = RunArgs::augment_args(clap::Command::new("run").no_binary_name(true));
    let is_typed = |id: &str| typed.value_source(id) == Some(ValueSource::CommandLine);
    let replaced: Vec<&str> =
        INSTEAD.iter().filter(|(id, _)| is_typed(id)).flat_map(|(_, flags)| flags.iter().copied()).collect();
    let mut args = Vec::new();
    for flag in &scenario.flags {
        let in_the_file = |why: String| format!("{}, line {}: {why}", scenario.file, flag.line);
        let known = || run.get_arguments().filter(|arg| !arg.get_long().is_none_or(|it| ABOUT_FILES.contains(&it)));
        let Some(known) = known().find(|arg| arg.get_long() == Some(&flag.name)) else {
            let meant = nearest(&flag.name, known().filter_map(clap::Arg::get_long));
            let guess = meant.map_or_else(String::new, |meant| format!("; did you mean '{meant}'?"));
            return Err(in_the_file(format!("'{}' is no flag of `run`, without dashes{guess}", flag.name)));
        };
        let values = flag.values.iter().map(|value| match value {
            Some(value) => format!("--{}={}", flag.name, beside_scenario(&flag.name, value, path)),
            None => format!("--{}", flag.name),
        });
        let words: Vec<String> = values.collect();
        match run.clone().try_get_matches_from(&words) {
            Ok(_) => {}
            // Other flags are not there; they are looked at together.
            Err(error)
                if [ErrorKind::MissingRequiredArgument, ErrorKind::ArgumentConflict].contains(&error.kind())
                    && words.len() < 2 => {}
            Err(error) => return Err(in_the_file(in_a_line(&error))),
        }
        if !is_typed(known.get_id().as_str()) && !replaced.contains(&flag.name.as_str()) {
            args.extend(words);
        }
    }
    Ok(args)
}

/// A value that names a file to be read: it lies beside the scenario file.
fn beside_scenario(name: &str, value: &str, path: &Path) -> String {
    let prefix = match name {
        "body" | "header" => "@",
        "think" | "server-service-time" | "server-delay" => "trace:",
        _ => return value.to_owned(),
    };
    match value.strip_prefix(prefix) {
        Some(file) => format!("{prefix}{}", beside(path, file).display()),
        None => value.to_owned(),
    }
}

/// All flags with their values, given or by default, of a command line of `run`.
pub fn flags(matches: &ArgMatches) -> Vec<Flag> {
    let run = RunArgs::augment_args(clap::Command::new("run"));
    let mut flags = Vec::new();
    for argument in run.get_arguments() {
        let id = argument.get_id().as_str();
        let Some(long) = argument.get_long().filter(|long| !ABOUT_FILES.contains(long)) else { continue };
        let values: Vec<Option<String>> = match argument.get_action().takes_values() {
            false => matches.get_flag(id).then_some(None).into_iter().collect(),
            true => {
                let raw = matches.get_raw(id).into_iter().flatten();
                raw.map(|value| Some(value.to_string_lossy().into_owned())).collect()
            }
        };
        // A list that is empty, or a text, is like none.
        if !argument.get_action().takes_values() || values.iter().flatten().any(|value| !value.is_empty()) {
            flags.push(Flag { name: long.to_owned(), values, line: 0 });
        }
    }
    flags
}

/// Has the requests made that the scenario file asks for; refuses them where nobody would.
pub fn fill(args: &RunArgs, options: &mut ClientOptions, protocol: &Protocol) -> Result<(), Failure> {
    let Some(scenario) = args.scenario.file.as_ref().filter(|scenario| scenario.has_requests()) else { return Ok(()) };
    let file = &scenario.file;
    let commands = commands(scenario);
    if commands.is_empty() {
        fits_http(args, options, protocol, scenario)?;
    } else {
        fits_store(args, protocol, scenario)?;
        if let Some(script) = scenario.scripts.iter().find_map(|script| script.name.as_ref()) {
            return Err(Failure::usage(format!("{file}: script '{script}' is of commands, and scripts are for http"))
                .help("give each [[request]] a weight: commands are drawn one by one"));
        }
    }
    options.commands = commands;
    options.scenario = Some(Arc::clone(scenario));
    Ok(())
}

/// Whether there is a scenario file that asks for requests of HTTP.
pub fn is_of_http(args: &RunArgs) -> bool {
    let scenario = args.scenario.file.as_ref();
    scenario.is_some_and(|scenario| scenario.has_requests() && commands(scenario).is_empty())
}

/// Its commands with their weights; none: it has requests of HTTP.
fn commands(scenario: &Scenario) -> Vec<(String, u32)> {
    let command = |request: &loadgen_core::scenario::Request| match &request.what {
        What::Command(command) => Some((command.clone(), request.weight.unwrap_or(1))),
        What::Message(_) => None,
    };
    scenario.requests.iter().filter_map(command).collect()
}

fn fits_http(args: &RunArgs, options: &ClientOptions, protocol: &Protocol, scenario: &Scenario) -> Result<(), Failure> {
    let file = &scenario.file;
    if !protocol.headers {
        let message = format!("{file} asks for requests of http, and {} cannot make them", protocol.name);
        return Err(
            Failure::usage(message).help("give an http:// target or --protocol http, or requests with a command")
        );
    }
    let recorded = scenario.recorded.is_some();
    let typed = [
        (args.path.is_some(), "--path"),
        (options.path != "/", "the path in the target"),
        (args.body.is_some(), "--body"),
        (recorded && args.method != "GET", "--method"),
    ];
    match typed.iter().find(|(typed, _)| *typed) {
        Some((_, what)) => Err(Failure::usage(format!("{what} says nothing beside the requests of {file}"))
            .help("leave it out; headers (-H) are added to all requests")),
        None => Ok(()),
    }
}

fn fits_store(args: &RunArgs, protocol: &Protocol, scenario: &Scenario) -> Result<(), Failure> {
    let file = &scenario.file;
    if !protocol.store {
        let stores: Vec<&str> = PROTOCOLS.iter().filter(|p| p.store).map(|p| p.name).collect();
        let message = format!("{file} asks for commands, and {} has none", protocol.name);
        return Err(Failure::usage(message).help(format!("protocols that have them: {}", stores.join(", "))));
    }
    let typed = [(!args.workload.mix.is_empty(), "--mix"), (!args.workload.commands.is_empty(), "--command")];
    match typed.iter().find(|(typed, _)| *typed) {
        Some((_, what)) => Err(Failure::usage(format!("{what} does not go with the requests of {file}"))),
        None => Ok(()),
    }
}

/// What would run, as a scenario file, with its first requests as comments.
pub fn dump(args: &RunArgs, plan: &Plan) -> Result<String, Failure> {
    let ScenarioArgs { file, flags, scenario: path, .. } = &args.scenario;
    let name = file.as_ref().map_or("run", |scenario| scenario.name.as_str());
    let mut text = format!("name = {}\n\n[defaults]\n", quoted(name));
    for flag in filled_in(args, plan, flags) {
        text.push_str(&line(&shown(flag)));
    }
    for resolved in &plan.targets {
        let mut url = resolved.target.typed.clone();
        if resolved.target.login.is_some() {
            text.push_str("\n# Its login is left out: give LOADGEN_LOGIN=user:password.");
            let authority = url::split(&url).authority.to_owned();
            url = url.replacen(&authority, authority.rsplit('@').next().unwrap_or_default(), 1);
        }
        text.push_str(&format!("\n[[target]]\nurl = {}\n", quoted(&url)));
        if plan.targets.len() > 1 {
            text.push_str(&format!("weight = {}\n", resolved.weight));
        }
    }
    if let (Some(scenario), Some(path)) = (file, path) {
        // Also where the text is kept in another folder.
        let name_file = |name: &str| {
            let file = beside(path, name);
            std::path::absolute(&file).unwrap_or(file).display().to_string()
        };
        let masked = scenario.without_secrets();
        text.push_str(&masked.as_ref().unwrap_or(scenario).requests_as_toml(&name_file));
    }
    if text.contains(secrets::MASK) {
        text.insert_str(0, "# *** stands for something secret, which is left out.\n");
    }
    text.push_str(&shown_requests(plan)?);
    Ok(text)
}

/// The flags, and what the plan chose where there was none.
fn filled_in(args: &RunArgs, plan: &Plan, flags: &[Flag]) -> Vec<Flag> {
    const ELSEWHERE: &[&str] = &["target", "weights"];
    let mut all: Vec<Flag> = flags.iter().filter(|flag| !ELSEWHERE.contains(&flag.name.as_str())).cloned().collect();
    let timed = args.requests.is_none();
    let chosen = [
        ("protocol", Some(plan.protocol.name.to_owned())),
        ("arrival", plan.pacing.as_ref().map(|pacing| pacing.arrival.name().to_owned())),
        ("spin", plan.pacing.as_ref().map(|_| exact(plan.spin_ns))),
        ("duration", plan.duration_ns().filter(|_| timed).map(exact)),
        ("warmup", timed.then(|| exact(plan.warmup_ns))),
        ("size", Some(plan.size.to_string())),
    ];
    for (name, value) in chosen {
        if value.is_some() && !all.iter().any(|flag| flag.name == name) {
            all.push(Flag { name: name.to_owned(), values: vec![value], line: 0 });
        }
    }
    // In one order, whoever said it.
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// Without what is secret in its values.
fn shown(flag: Flag) -> Flag {
    let shown = |value: String| {
        let words = secrets::words(&[format!("--{}", flag.name), value]);
        words.into_iter().next_back()
    };
    let values = flag.values.into_iter().map(|value| value.and_then(shown)).collect();
    Flag { values, ..flag }
}

/// `conns = 100`.
fn line(flag: &Flag) -> String {
    let one = |value: &String| match value.parse::<i64>() {
        Ok(number) if number.to_string() == *value => value.clone(),
        _ => quoted(value),
    };
    let values: Vec<String> = flag.values.iter().flatten().map(one).collect();
    let value = match &values[..] {
        [] => (!flag.values.is_empty()).to_string(),
        [value] => value.clone(),
        values => format!("[{}]", values.join(", ")),
    };
    format!("{} = {value}\n", flag.name.replace('-', "_"))
}

/// The first requests of the first thread, on one connection, as comments.
fn shown_requests(plan: &Plan) -> Result<String, Failure> {
    if !plan.protocol.converses() {
        return Ok(String::new());
    }
    let Some(options) = plan.options(0).into_iter().next() else { return Ok(String::new()) };
    let client = (plan.protocol.client)(&options.without_secrets()).map_err(Failure::usage)?;
    let Some(mut codec) = client.into_codec() else { return Ok(String::new()) };
    let mut text = "\n# The first requests of one connection:\n".to_owned();
    let (mut asker, mut bytes) = (Asker::new(plan.seed, 0), Vec::new());
    for number in 1..=SHOWN {
        bytes.clear();
        let kind = asker.ask(|ask| codec.compose(ask, &mut bytes));
        let name = codec.kinds().get(usize::from(kind)).map_or("", String::as_str);
        text.push_str(format!("#\n# {number} {}", name.escape_debug()).trim_end());
        text.push('\n');
        for line in bytes[..bytes.len().min(SHOWN_BYTES)].split_inclusive(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
            let line: String = String::from_utf8_lossy(line).chars().map(shown).collect();
            text.push_str(format!("#   {line}").trim_end());
            text.push('\n');
        }
        if bytes.len() > SHOWN_BYTES {
            text.push_str(&format!("#   ... and {} bytes more\n", bytes.len() - SHOWN_BYTES));
        }
    }
    Ok(text)
}
