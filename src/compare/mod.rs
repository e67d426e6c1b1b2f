//! Two sets of runs, base and candidate: how much they differ, how sure that is, and what could have been seen.
//!
//! One run is one observation, never one request: requests of a run share a server process, a machine and a moment.
//! In reading order: [`comparable`] (may they be compared), [`mod@design`] (how they were taken), [`mod@gates`] (by
//! which metrics), [`rows`] (a metric compared), [`rank`] (ranks of exact tests), [`estimate`] (a change with its
//! interval), [`decision`] (the verdict), [`sense`] (whether there is anything to say), [`power`] (what could have been
//! seen), [`schema`] (the result), [`page`] (the result for people).

pub mod comparable;
pub mod decision;
pub mod design;
pub mod estimate;
pub mod gates;
mod limits;
pub mod page;
pub mod power;
pub mod rank;
pub mod rows;
pub mod schema;
pub mod sense;

pub use decision::Verdict;
pub use schema::*;

use crate::limit::Limit;
use crate::metric::Metric;
use crate::result::{Report, Tool, pretty};
use comparable::{disturbed, environment_differences, scenario_differences, unanswered, unusable};
use design::design;
use gates::gates;
use rows::{Observations, row};
use std::collections::{BTreeMap, BTreeSet};

/// How often a comparison may call equal things different, over all its gates, in millionths: 1 %.
pub const ALPHA_PPM: u64 = 10_000;
/// More invalid runs than this, in percent, and the rest is a selection.
const INVALID_MAX_PERCENT: usize = 20;

/// A named set of runs.
#[derive(Clone, Debug, Default)]
pub struct Set<'a> {
    /// Where they are from.
    pub from: String,
    pub runs: Vec<(String, &'a Report)>,
}

/// What is to be compared, and how.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    pub base: Set<'a>,
    pub candidate: Set<'a>,
    /// The base once more.
    pub null: Set<'a>,
    /// A comparison that was interrupted: its finished blocks, and how many were planned.
    pub interrupted: Option<(u64, u64)>,
    pub options: Options,
}

#[derive(Clone, Debug)]
pub struct Options {
    pub alpha_ppm: u64,
    /// Instead of the usual ones.
    pub gates: Vec<&'static Metric>,
    /// By the name of a metric, or by an empty name for all; shares.
    pub margins: Vec<(String, f64)>,
    /// Fields of the scenario that may differ.
    pub may_differ: Vec<String>,
    pub accept_environment: bool,
    pub accept_sequential: bool,
    /// Of `--fail-if`.
    pub limits: Vec<Limit>,
}

impl Options {
    /// How often the interval of one of so many gates may miss.
    pub fn misrate(&self, gates: usize) -> f64 {
        self.alpha_ppm as f64 / 1e6 / gates.max(1) as f64
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            alpha_ppm: ALPHA_PPM,
            gates: Vec::new(),
            margins: Vec::new(),
            may_differ: Vec::new(),
            accept_environment: false,
            accept_sequential: false,
            limits: Vec::new(),
        }
    }
}

/// Why there is nothing to compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Different loads: the fields.
    Scenarios(Vec<Difference>),
    /// A side without a single run that can be used.
    NoRuns(String),
    /// This run is on both sides.
    Same(String),
}

/// Compares.
///
/// # Errors
/// If the runs are of different loads, or a side has no usable run.
pub fn compare(question: &Question<'_>) -> Result<Comparison, Refusal> {
    let Question { base, candidate, null, options, .. } = question;
    let varied = same_load(question)?;
    if let Some((name, _)) = base.runs.iter().find(|(_, run)| candidate.runs.iter().any(|(_, other)| run == other)) {
        return Err(Refusal::Same(name.clone()));
    }
    let (base_runs, base_side) = usable(base);
    let (candidate_runs, candidate_side) = usable(candidate);
    let (null_runs, null_side) = usable(null);
    for (runs, side) in [(&base_runs, &base_side), (&candidate_runs, &candidate_side)] {
        if runs.is_empty() {
            return Err(Refusal::NoRuns(side.from.clone()));
        }
    }
    let all: Vec<&Report> = base_runs.iter().chain(&candidate_runs).copied().collect();
    let gates = gates(&base_runs, &options.gates, &options.margins, limits::metrics(options));
    let misrate = options.misrate(gates.iter().filter(|gate| gate.gated).count());
    let design = design(&base_runs, &candidate_runs);
    let spoilt = spoilt_blocks(question);
    let observed = Observations::new(design, &base_runs, &candidate_runs, &spoilt);
    let rows: Vec<Row> = gates.iter().map(|gate| row(gate, &observed, misrate)).collect();
    let observed_null = Observations::new(design, &base_runs, &null_runs, &spoilt);
    let of_null = gates.iter().filter(|gate| gate.gated && !null_runs.is_empty());
    let null: Vec<Row> = of_null.map(|gate| row(gate, &observed_null, misrate)).collect();
    let mut comparison = Comparison {
        schema: COMPARISON_SCHEMA.to_owned(),
        tool: Tool::ours(),
        scenario: page::scenario(&all[0].scenario, &varied),
        scenario_hash: all[0].scenario.hash.clone(),
        varied,
        design,
        alpha_ppm: options.alpha_ppm,
        blocks: observed.blocks() as u64,
        blocks_left_out: spoilt.len() as u64,
        base: base_side,
        candidate: candidate_side,
        rows,
        null,
        caps: Vec::new(),
        limits: Vec::new(),
        notes: notes(&base_runs, &candidate_runs, options),
        verdict: Verdict::Inconclusive,
    };
    let notes = comparison.rows.iter().filter(|row| row.not_measurable);
    let notes = notes.filter_map(|row| Some(format!("{}: {}", row.metric, row.reason.as_ref()?)));
    comparison.notes.extend(notes.collect::<Vec<_>>());
    comparison.caps = caps(&comparison, &all, question, &null_side);
    comparison.base.runs = observed.base().len() as u64;
    comparison.candidate.runs = observed.candidate().len() as u64;
    comparison.verdict = comparison.overall();
    comparison.limits = limits::judge(&comparison, observed.candidate(), options, misrate);
    Ok(comparison)
}

impl Comparison {
    /// What the gates say, whatever caps it.
    pub fn uncapped(&self) -> Verdict {
        let any = |verdict| self.rows.iter().any(|row| row.gated && row.verdict == verdict);
        [Verdict::Regressed, Verdict::Inconclusive, Verdict::Improved]
            .into_iter()
            .find(|verdict| any(*verdict))
            .unwrap_or(Verdict::Equivalent)
    }

    /// As JSON with a newline at its end.
    pub fn to_json(&self) -> String {
        pretty(self)
    }

    fn overall(&self) -> Verdict {
        if self.caps.is_empty() { self.uncapped() } else { Verdict::Inconclusive }
    }

    /// Whether the inputs are no measurement: too many invalid runs, or a base that differs from itself.
    pub fn is_invalid(&self) -> bool {
        let codes = ["invalid_runs", "contaminated", "nothing_measured"];
        self.caps.iter().any(|cap| codes.contains(&cap.code.as_str()))
    }
}

/// What base and candidate differ in with permission.
fn same_load(question: &Question<'_>) -> Result<Vec<Difference>, Refusal> {
    let Some((_, first)) = question.base.runs.first() else { return Err(Refusal::NoRuns(question.base.from.clone())) };
    let Some((_, other)) = question.candidate.runs.first() else {
        return Err(Refusal::NoRuns(question.candidate.from.clone()));
    };
    // Within a side nothing may differ: its runs are repetitions.
    let mut refused = Vec::new();
    for (set, like) in [(&question.base, first), (&question.candidate, other), (&question.null, first)] {
        for (name, run) in &set.runs {
            for difference in scenario_differences(&like.scenario, &run.scenario) {
                refused.push(Difference { field: format!("{} ({name})", difference.field), ..difference });
            }
        }
    }
    let permitted = |difference: &Difference| question.options.may_differ.contains(&difference.field);
    let (varied, others): (Vec<_>, Vec<_>) =
        scenario_differences(&first.scenario, &other.scenario).into_iter().partition(permitted);
    refused.extend(others);
    if refused.is_empty() { Ok(varied) } else { Err(Refusal::Scenarios(refused)) }
}

fn usable<'a>(set: &Set<'a>) -> (Vec<&'a Report>, Side) {
    let mut side = Side { from: set.from.clone(), ..Side::default() };
    let mut runs = Vec::new();
    for (name, run) in &set.runs {
        match unusable(run) {
            Some(why) => side.invalid.push(Unused { run: name.clone(), why }),
            None => runs.push(*run),
        }
    }
    side.runs = runs.len() as u64;
    (runs, side)
}

/// Blocks with an unusable run. They are left out whole, whichever arm it was in: so the draws still bound the errors.
fn spoilt_blocks(question: &Question<'_>) -> BTreeSet<u64> {
    let sets = [&question.base, &question.candidate, &question.null];
    let runs = sets.into_iter().flat_map(|set| &set.runs);
    runs.filter(|(_, run)| unusable(run).is_some()).filter_map(|(_, run)| Some(run.ab.as_ref()?.block)).collect()
}

/// What is wrong with an order that was not drawn by lot.
fn undrawn(design: Design) -> Option<(&'static str, &'static str)> {
    match design {
        Design::PairedBlocks => None,
        Design::Interleaved => Some((
            "not_drawn",
            "runs took turns in an order that nobody drew by lot: what keeps time with the turns passes for the change",
        )),
        Design::Sequential => Some((
            "sequential",
            "base and candidate were measured one after the other: what else changed in between passes for the change",
        )),
    }
}

/// What keeps the verdict from being more than inconclusive.
fn caps(comparison: &Comparison, runs: &[&Report], question: &Question<'_>, null: &Side) -> Vec<Cap> {
    let options = &question.options;
    let mut caps = Vec::new();
    let mut cap = |code: &str, detail: String| caps.push(Cap { code: code.to_owned(), detail });
    if let Some((finished, planned)) = question.interrupted {
        cap(
            "interrupted",
            format!(
                "the session ended after {finished} of {planned} blocks: whoever stops when they like what they see \
                 has no rate of false alarms; run it to its end"
            ),
        );
    }
    if runs[..comparison.base.runs as usize].iter().all(|run| unanswered(run)) {
        cap(
            "nothing_measured",
            "the base answered nothing in any run, so nothing can be worse: is it the right server, and the right port?"
                .to_owned(),
        );
    }
    if let Some((code, why)) = undrawn(comparison.design).filter(|_| !options.accept_sequential) {
        let what = "how often this errs is not known; use `loadgen ab`, or say --accept-sequential";
        cap(code, format!("{why}, and {what}"));
    }
    let mut environment: Vec<Difference> =
        runs.iter().skip(1).flat_map(|run| environment_differences(runs[0], run)).collect();
    environment.dedup();
    if let Some(first) = environment.first().filter(|_| !options.accept_environment) {
        let more = environment.len() - 1;
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let Difference { field, base, candidate } = first;
        cap(
            "environment",
            format!(
                "the machines differ, and that may be the whole difference: {field} is '{base}' and \
                 '{candidate}'{more}; measure on one machine, or say --accept-environment"
            ),
        );
    }
    let invalid = [&comparison.base, &comparison.candidate, null].map(|side| side.invalid.len()).iter().sum::<usize>();
    let all = invalid + runs.len() + null.runs as usize;
    if invalid * 100 > all * INVALID_MAX_PERCENT {
        let sides = [&comparison.base, &comparison.candidate, null];
        let mut causes: Vec<&str> = sides.iter().flat_map(|side| &side.invalid).map(|run| run.why.as_str()).collect();
        causes.sort_unstable();
        causes.dedup();
        cap(
            "invalid_runs",
            format!(
                "{invalid} of {all} runs cannot be used, and the rest is a selection ({}): remove the cause (each run \
                 says more; `loadgen doctor` helps)",
                causes.join("; ")
            ),
        );
    }
    let differs = |row: &&Row| row.low_ppm.is_some_and(|low| low > 0) || row.high_ppm.is_some_and(|high| high < 0);
    if let Some(row) = comparison.null.iter().find(differs) {
        cap(
            "contaminated",
            format!("the base differs from itself in {}: something takes part that is no part of the test", row.metric),
        );
    }
    caps
}

/// Kinds of errors that only the candidate has, and how quiet the machine was.
fn notes(base: &[&Report], candidate: &[&Report], options: &Options) -> Vec<String> {
    let runs = base.len() + candidate.len();
    let disturbed: Vec<&&Report> = base.iter().chain(candidate).filter(|run| disturbed(run)).collect();
    let mut notes = Vec::new();
    for (side, runs) in [("base", base), ("candidate", candidate)] {
        let count = runs.iter().filter(|run| unanswered(run)).count();
        if count > 0 {
            notes.push(format!("the {side} answered nothing at all in {count} of {} runs", runs.len()));
        }
    }
    for (name, values) in gates::left_out(base).into_iter().filter(|_| options.gates.is_empty()) {
        notes.push(format!("{name} is no gate here: that takes {values} requests a run (longer runs, or --gate)"));
    }
    if let Some(first) = disturbed.first() {
        notes.push(format!(
            "{} of {runs} runs were disturbed ({} and the like) and are used all the same: as the order was drawn by \
             lot, that is noise; without it smaller changes could be seen",
            disturbed.len(),
            first.verdict.codes()
        ));
    }
    let kinds = |runs: &[&Report]| {
        let rows = runs.iter().flat_map(|run| run.errors.iter());
        let mut kinds = BTreeMap::new();
        rows.for_each(|row| {
            let count = kinds.entry(row.kind.clone()).or_insert(0_u64);
            *count = count.saturating_add(row.count);
        });
        kinds
    };
    let known = kinds(base);
    if !known.is_empty() {
        let each: Vec<String> = known.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        notes.push(format!("the base has errors, and equal ones in the candidate are no change: {}", each.join(", ")));
    }
    let new = kinds(candidate).into_iter().filter(|(kind, _)| !known.contains_key(kind));
    notes.extend(new.map(|(kind, count)| format!("only the candidate has errors of kind {kind}: {count}")));
    notes
}
