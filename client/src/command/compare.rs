//! `loadgen compare`: two sets of reports, and whether the second is worse.

use super::json_files;
use crate::cli::{CompareArgs, CompareOptions};
use crate::failure::{Exit, Failure};
use crate::github::{self, Level};
use crate::plan::unknown;
use crate::progress::tell;
use loadgen_core::compare::page::{self, FORMATS, Format};
use loadgen_core::compare::{self, Comparison, Difference, Options, Question, Refusal, Set, Verdict};
use loadgen_core::limit::Limit;
use loadgen_core::metric::{self, METRICS, Metric, Unit};
use loadgen_core::result::read::{self, Document};
use loadgen_core::result::{Bundle, LimitState, Report, Scenario};
use loadgen_core::units;
use std::path::{Path, PathBuf};

/// Fields that are named when two loads differ.
const FIELDS_LISTED: usize = 6;

pub fn run(args: &CompareArgs) -> Result<Exit, Failure> {
    let options = options(&args.options, &args.fail_if)?;
    let summary = summary_of(&args.options)?;
    let format = choose_format(&args.format)?;
    let comparison = match args.inputs.as_slice() {
        [only] => match input(only)? {
            Input::Bundle(bundle, None) => of_bundle(&bundle, options)?,
            _ => {
                let message = format!("{} alone has nothing to be compared with", only.display());
                return Err(Failure::usage(message).help("give a base and a candidate, or a bundle written by `ab`"));
            }
        },
        [base, candidate] => {
            let (base, candidate) = (Runs::read(base)?, Runs::read(candidate)?);
            let interrupted = base.interrupted.or(candidate.interrupted);
            let (base, candidate) = (base.set(), candidate.set());
            let question = Question { base, candidate, null: Set::default(), interrupted, options };
            answer(&question)?
        }
        // clap takes one or two.
        _ => return Err(Failure::usage("compare takes a base and a candidate")),
    };
    Telling { format, summary: summary.as_ref(), strict: args.strict, quiet: false }.deliver(&comparison)?;
    Ok(exit(&comparison, args.strict))
}

/// What the words of the command line mean.
pub fn options(typed: &CompareOptions, limits: &[Limit]) -> Result<Options, Failure> {
    let gates = typed.gate.iter().map(|name| metric_of(name)).collect::<Result<Vec<_>, _>>()?;
    if let Some(count) = gates.iter().find(|metric| metric.unit == Unit::Count) {
        let message = format!("--gate {}: a count has no change in percent", count.name);
        return Err(Failure::usage(message).help("the gate for failures is error_share; a limit is --fail-if"));
    }
    let fields = Scenario::fields();
    if let Some(other) = typed.may_differ.iter().find(|field| !fields.contains(field)) {
        return Err(unknown("field", other, fields.iter().map(String::as_str)));
    }
    let mut margins = Vec::new();
    for text in &typed.margin {
        let (name, share) = text.split_once('=').unwrap_or(("", text));
        let name = if name.is_empty() { "" } else { metric_of(name)?.name };
        margins.push((name.to_owned(), share_of("--margin", share, 0.0, 1.0)?));
    }
    let alpha = share_of("--alpha", &typed.alpha, 1e-6, 0.2)?;
    Ok(Options {
        alpha_ppm: (alpha * 1e6).round() as u64,
        gates,
        margins,
        may_differ: typed.may_differ.clone(),
        accept_environment: typed.accept_environment,
        accept_sequential: typed.accept_sequential,
        limits: limits.to_vec(),
    })
}

fn metric_of(name: &str) -> Result<&'static Metric, Failure> {
    metric::by_name(name).ok_or_else(|| unknown("metric", name, METRICS.iter().map(|metric| metric.name)))
}

/// `2%` as 0.02, within bounds.
pub fn share_of(flag: &str, text: &str, least: f64, most: f64) -> Result<f64, Failure> {
    let percent: Option<f64> = text.trim().strip_suffix('%').and_then(|number| units::parse_decimal(number.trim()));
    match percent.map(|percent| percent / 100.0) {
        Some(share) if (least..=most).contains(&share) => Ok(share),
        Some(_) => {
            // Rounded: 0.0001 % is not a number that can be written in binary.
            let [least, most] = [least, most].map(|share| (share * 1e8).round() / 1e6);
            Err(Failure::usage(format!("{flag} {text} is out of range; it takes {least}% to {most}%")))
        }
        None => Err(Failure::usage(format!("{flag} '{text}' is no percentage, such as 2%"))),
    }
}

/// The format of comparisons that is called `name`.
pub fn choose_format(name: &str) -> Result<&'static Format, Failure> {
    FORMATS.iter().find(|f| f.name == name).ok_or_else(|| unknown("format", name, FORMATS.iter().map(|f| f.name)))
}

/// Compares the arms of a bundle. They may differ in what arms differ in.
pub fn of_bundle(bundle: &Bundle, mut options: Options) -> Result<Comparison, Failure> {
    options.may_differ.extend(compare::comparable::TREATMENTS.iter().map(|field| (*field).to_owned()));
    let [base, candidate, null] = ["A", "B", "N"].map(|arm| arm_of(bundle, arm));
    answer(&Question { base, candidate, null, interrupted: interrupted(bundle), options })
}

/// Of a bundle that was not finished: its blocks, and how many were planned.
fn interrupted(bundle: &Bundle) -> Option<(u64, u64)> {
    bundle.partial.then_some((bundle.order.len() as u64, bundle.blocks_planned))
}

fn answer(question: &Question<'_>) -> Result<Comparison, Failure> {
    compare::compare(question).map_err(|refusal| match refusal {
        Refusal::Scenarios(fields) => different_loads(&fields),
        Refusal::Same(run) => Failure::usage(format!("{run} is on both sides, and no run can be compared with itself"))
            .help("give the candidate's reports as the second argument"),
        Refusal::NoRuns(from) => {
            let sides = [&question.base, &question.candidate];
            let runs = sides.into_iter().filter(|set| set.from == from).flat_map(|set| &set.runs);
            let why = runs.filter_map(|(name, run)| Some(format!("{name}: {}", compare::comparable::unusable(run)?)));
            let why = why.take(3).collect::<Vec<_>>().join("; ");
            let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
            Failure::new(Exit::Invalid, format!("{from} has no run that can be used{why}"))
        }
    })
}

/// Where `--github` writes; refused before anything is measured where that is not known.
pub fn summary_of(typed: &CompareOptions) -> Result<Option<PathBuf>, Failure> {
    if typed.github { github::summary_file().map(Some) } else { Ok(None) }
}

/// Says what two loads differ in.
pub fn different_loads(fields: &[Difference]) -> Failure {
    let more = fields.len().saturating_sub(FIELDS_LISTED);
    let named = fields.iter().take(FIELDS_LISTED).map(|difference| {
        let Difference { field, base, candidate } = difference;
        match field.as_str() {
            "request_hash" => "the request itself (its path, method, headers or body)".to_owned(),
            _ => format!("{field} ({base} and {candidate})"),
        }
    });
    let named = named.collect::<Vec<_>>().join(", ");
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Failure::usage(format!("these runs are of different loads: {named}{more}"))
        .help("compare runs of one load; what is to differ all the same is named with --may-differ")
}

/// How a comparison is handed over.
#[derive(Debug)]
pub struct Telling<'a> {
    pub format: &'static Format,
    /// The page of a GitHub step.
    pub summary: Option<&'a PathBuf>,
    pub strict: bool,
    pub quiet: bool,
}

impl Telling<'_> {
    /// Prints the comparison, and says beside it what will not stop anybody.
    pub fn deliver(&self, comparison: &Comparison) -> Result<(), Failure> {
        super::run::print(&(self.format.render)(comparison))?;
        let unresolvable = comparison.limits.iter().filter(|limit| limit.judgement == LimitState::Unresolvable);
        for limit in unresolvable.clone() {
            tell(format_args!("warning: limit {} was NOT checked: {}", limit.expression, limit.detail));
        }
        let undecided = comparison.verdict == Verdict::Inconclusive && !comparison.is_invalid();
        if !self.strict && !self.quiet && (undecided || unresolvable.count() > 0) {
            tell("note: what is inconclusive does not change the exit status; with --strict it is 8");
        }
        let Some(summary) = self.summary else { return Ok(()) };
        if comparison.verdict == Verdict::Regressed {
            github::annotate(Level::Error, &page::sentence(comparison));
        }
        for cap in &comparison.caps {
            let level = if comparison.is_invalid() { Level::Error } else { Level::Warning };
            github::annotate(level, &format!("{}: {}", cap.code, cap.detail));
        }
        for limit in comparison.limits.iter().filter(|limit| limit.judgement != LimitState::Holds) {
            let level = if limit.judgement == LimitState::Broken { Level::Error } else { Level::Warning };
            github::annotate(level, &format!("limit {limit}"));
        }
        github::append(summary, &page::markdown::render(comparison))
    }
}

/// The exit status that a comparison stands for.
pub fn exit(comparison: &Comparison, strict: bool) -> Exit {
    let any = |state| comparison.limits.iter().any(|limit| limit.judgement == state);
    match comparison.verdict {
        _ if any(LimitState::Broken) => Exit::Worse,
        _ if comparison.is_invalid() => Exit::Invalid,
        Verdict::Regressed => Exit::Worse,
        Verdict::Inconclusive if strict => Exit::Inconclusive,
        _ if strict && any(LimitState::Unresolvable) => Exit::Inconclusive,
        Verdict::Inconclusive | Verdict::Improved | Verdict::Equivalent => Exit::Done,
    }
}

/// What a path leads to.
enum Input {
    Reports(Vec<(String, Report)>),
    /// With the arm that was asked for (`FILE#A`).
    Bundle(Box<Bundle>, Option<String>),
}

fn input(path: &Path) -> Result<Input, Failure> {
    let unreadable = |error: read::ReadError| Failure::usage(error.to_string());
    if path.is_dir() {
        return folder(path).map(Input::Reports);
    }
    if let Some(report) = read::numbered(path) {
        return report.map(|report| Input::Reports(vec![(path.display().to_string(), report)])).map_err(unreadable);
    }
    let (file, arm) = match path.to_str().and_then(|text| text.rsplit_once('#')) {
        Some((file, arm)) if !path.exists() => (Path::new(file), Some(arm.to_owned())),
        _ => (path, None),
    };
    match read::read_document(file).map_err(unreadable)? {
        Document::Report(_) if arm.is_some() => {
            Err(Failure::usage(format!("{} is one report and has no arms", file.display())))
        }
        Document::Report(report) => Ok(Input::Reports(vec![(file.display().to_string(), *report)])),
        Document::Bundle(bundle) => Ok(Input::Bundle(bundle, arm)),
    }
}

/// Every `.json` file of a folder, which must all be reports.
fn folder(path: &Path) -> Result<Vec<(String, Report)>, Failure> {
    let report = |file: PathBuf| match read::read(&file) {
        Ok(report) => Ok((file.display().to_string(), report)),
        Err(error) => Err(Failure::usage(error.to_string())),
    };
    let reports = json_files(path)?.into_iter().map(report).collect::<Result<Vec<_>, _>>()?;
    if reports.is_empty() {
        return Err(Failure::usage(format!("{} holds no reports (files *.json)", path.display())));
    }
    Ok(reports)
}

/// One side of a comparison, read.
struct Runs {
    from: String,
    reports: Vec<(String, Report)>,
    /// Of an interrupted comparison: its finished blocks, and how many were planned.
    interrupted: Option<(u64, u64)>,
}

impl Runs {
    fn read(path: &Path) -> Result<Self, Failure> {
        let from = path.display().to_string();
        let mut cut_short = None;
        let reports = match input(path)? {
            Input::Reports(reports) => reports,
            Input::Bundle(bundle, arm) => {
                let file = from.rsplit_once('#').filter(|_| arm.is_some()).map_or(from.as_str(), |(file, _)| file);
                let help = format!("compare it by itself (`loadgen compare {file}`), or name one arm: {file}#B");
                let Some(arm) = arm else {
                    return Err(Failure::usage(format!("{from} holds both sides of a comparison")).help(help));
                };
                cut_short = interrupted(&bundle);
                let runs: Vec<Report> = bundle.runs.into_iter().filter(|run| run.is_of_arm(&arm)).collect();
                if runs.is_empty() {
                    return Err(Failure::usage(format!("{from}: there is no arm {arm}")).help(help));
                }
                runs.into_iter().map(|run| (name_of(&run), run)).collect()
            }
        };
        Ok(Self { from, reports, interrupted: cut_short })
    }

    fn set(&self) -> Set<'_> {
        let runs = self.reports.iter().map(|(name, run)| (name.clone(), run)).collect();
        Set { from: self.from.clone(), runs }
    }
}

/// The runs of an arm, and what it is.
fn arm_of<'a>(bundle: &'a Bundle, name: &str) -> Set<'a> {
    let described = bundle.arms.iter().find(|arm| arm.name == name).map(|arm| {
        let parts = [arm.server_command.clone(), arm.target.clone(), Some(arm.flags.join(" "))];
        let parts: Vec<String> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
        if parts.is_empty() { name.to_owned() } else { format!("{name}: {}", parts.join(", ")) }
    });
    let runs = bundle.runs.iter().filter(|run| run.is_of_arm(name));
    Set { from: described.unwrap_or_else(|| name.to_owned()), runs: runs.map(|run| (name_of(run), run)).collect() }
}

/// A run of a bundle.
fn name_of(run: &Report) -> String {
    run.ab.as_ref().map_or_else(String::new, |ab| format!("block {} slot {} ({})", ab.block + 1, ab.slot + 1, ab.arm))
}
