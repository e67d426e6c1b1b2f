//! One metric of a comparison: from the values of all runs to an estimate and a verdict.

use super::comparable::unanswered;
use super::decision::{Verdict, decide, decide_absolute};
use super::design::{Block, blocks};
use super::estimate::{self, Estimate, TooFew};
use super::gates::Gate;
use super::page::signed;
use super::schema::{Design, Row};
use super::sense::{self, Figures};
use crate::histogram::HIGHEST_NS;
use crate::metric::{Better, Metric, Unit};
use crate::result::{Report, integers};
use std::collections::BTreeSet;

/// Runs, arranged for estimates.
#[derive(Debug)]
pub(super) struct Observations<'a> {
    paired: bool,
    pairs: Vec<Block<'a>>,
    base: Vec<&'a Report>,
    candidate: Vec<&'a Report>,
}

impl<'a> Observations<'a> {
    /// `spoilt`: blocks that are left out.
    pub(super) fn new(design: Design, base: &[&'a Report], candidate: &[&'a Report], spoilt: &BTreeSet<u64>) -> Self {
        if design != Design::PairedBlocks {
            return Self { paired: false, pairs: Vec::new(), base: base.to_vec(), candidate: candidate.to_vec() };
        }
        let whole = |run: &&&'a Report| run.ab.as_ref().is_some_and(|ab| !spoilt.contains(&ab.block));
        let [base, candidate] =
            [base, candidate].map(|runs| runs.iter().filter(whole).copied().collect::<Vec<&'a Report>>());
        Self { paired: true, pairs: blocks(&base, &candidate), base, candidate }
    }

    /// The candidate's runs that are compared.
    pub(super) fn candidate(&self) -> &[&'a Report] {
        &self.candidate
    }

    /// The base's runs that are compared.
    pub(super) fn base(&self) -> &[&'a Report] {
        &self.base
    }

    pub(super) fn blocks(&self) -> usize {
        self.pairs.len()
    }
}

/// What a figure of nothing at all counts as, where a logarithm is taken.
const LEAST: f64 = 1e-3;

/// A metric as it is estimated: the logarithm, so that a difference is a ratio; of shares, the share itself. A time
/// where nothing was answered is as long as can be: a server that says nothing is not left out of its own latencies.
fn scaled(metric: &Metric, report: &Report) -> Option<f64> {
    let never = || match metric.unit {
        _ if !unanswered(report) => None,
        Unit::Nanoseconds => Some(HIGHEST_NS as f64),
        Unit::PerSecond => Some(0.0),
        _ => None,
    };
    let value = (metric.value)(report).or_else(never)?;
    // A figure of nothing at all is as far away as can be, and still a number.
    Some(if metric.unit == Unit::Share { value } else { value.max(LEAST).ln() })
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// A metric of all runs, or none: runs without it are no accident.
fn values(metric: &Metric, runs: &[&Report]) -> Option<Vec<f64>> {
    let values: Vec<f64> = runs.iter().filter_map(|run| scaled(metric, run)).collect();
    (values.len() == runs.len() && !values.is_empty()).then_some(values)
}

/// The difference of each block, candidate less base, as logarithms (shares: as they are). None: a run lacks it.
pub fn block_differences(metric: &Metric, base: &[&Report], candidate: &[&Report]) -> Option<Vec<f64>> {
    differences(metric, &blocks(base, candidate))
}

/// The difference of each block, candidate less base, on the scale of `scaled`.
fn differences(metric: &Metric, pairs: &[Block<'_>]) -> Option<Vec<f64>> {
    pairs
        .iter()
        .map(|(base, candidate)| Some(mean(&values(metric, candidate)?) - mean(&values(metric, base)?)))
        .collect()
}

pub(super) fn row(gate: &Gate, observed: &Observations<'_>, misrate: f64) -> Row {
    let metric = gate.metric;
    let mut row = Row {
        metric: metric.name.to_owned(),
        unit: unit_word(metric.unit).to_owned(),
        gated: gate.gated,
        higher_is_better: metric.better == Better::Higher,
        base: None,
        candidate: None,
        change_ppm: None,
        low_ppm: None,
        high_ppm: None,
        misrate_ppm: None,
        margin_ppm: ppm(gate.margin) as u64,
        sees_ppm: None,
        verdict: Verdict::Inconclusive,
        reason: None,
        not_measurable: false,
        differences_ppm: Vec::new(),
        base_values: whole(metric, &observed.base),
        candidate_values: whole(metric, &observed.candidate),
    };
    row.base = median(&row.base_values);
    row.candidate = median(&row.candidate_values);
    if metric.unit == Unit::Count {
        row.reason = Some("a count".to_owned());
        return row;
    }
    let (Some(base), Some(candidate)) = (values(metric, &observed.base), values(metric, &observed.candidate)) else {
        let nothing = observed.base.is_empty() || observed.candidate.is_empty();
        row.reason = Some(if nothing { "no runs are left" } else { "not every run has enough values" }.to_owned());
        return row;
    };
    let zeros = observed.base.iter().filter(|run| !unanswered(run) && (metric.value)(run) == Some(0.0)).count();
    if zeros > 0 && metric.unit != Unit::Share {
        let runs = observed.base.len();
        no_figure(&mut row, &format!("the base is 0 in {zeros} of {runs} runs, and nothing is a percentage of that"));
        return row;
    }
    let estimate = if observed.paired {
        let differences = differences(metric, &observed.pairs).unwrap_or_default();
        row.differences_ppm = differences.iter().map(|d| change(metric, *d)).collect();
        estimate::paired(&differences, misrate)
    } else {
        estimate::unpaired(&base, &candidate, misrate)
    };
    match estimate {
        Ok(estimate) => judge(&mut row, gate, &estimate, observed),
        Err(TooFew { needs }) => {
            let what = if observed.paired { "blocks" } else { "runs a side" };
            let figures = figures(&row, metric, mean(&candidate) - mean(&base));
            row.change_ppm = Some(change(metric, figures.centre));
            row.reason = Some(format!("{needs} {what} are needed"));
            if let Some(why) = sense::contradiction(&figures, false, |difference| shown(metric, difference)) {
                no_figure(&mut row, &format!("{why}, and {needs} {what} are needed"));
            }
        }
    }
    row
}

fn judge(row: &mut Row, gate: &Gate, estimate: &Estimate, observed: &Observations<'_>) {
    let Gate { metric, margin, .. } = *gate;
    row.change_ppm = Some(change(metric, estimate.centre));
    row.low_ppm = Some(change(metric, estimate.low));
    row.high_ppm = Some(change(metric, estimate.high));
    row.misrate_ppm = Some(ppm(estimate.misrate) as u64);
    let sees = estimate.smallest_visible(margin);
    row.sees_ppm = (sees <= sense::RESOLUTION_MOST).then(|| ppm(sees) as u64);
    let worse = match metric.better {
        Better::Lower => *estimate,
        Better::Higher => Estimate { centre: -estimate.centre, low: -estimate.high, high: -estimate.low, ..*estimate },
    };
    let is_share = metric.unit == Unit::Share;
    row.verdict = if is_share { decide_absolute(&worse, margin) } else { decide(&worse, margin) };
    // A candidate that says nothing is worse than a base that answers, however wildly that scatters, and the medians
    // are of the other runs.
    let dead = |runs: &[&Report]| runs.iter().any(|run| unanswered(run));
    if row.verdict == Verdict::Regressed && dead(&observed.candidate) && !dead(&observed.base) {
        return;
    }
    let figures = figures(row, metric, estimate.centre);
    let nonsense = sense::nonsense(&figures, estimate, margin, row.verdict, |difference| shown(metric, difference));
    if let Some(why) = nonsense {
        no_figure(row, &why);
    }
}

fn figures(row: &Row, metric: &Metric, centre: f64) -> Figures {
    let is_share = metric.unit == Unit::Share;
    let scaled = |median: u64| if is_share { median as f64 / 1e6 } else { (median as f64).max(LEAST).ln() };
    let medians = row.base.zip(row.candidate).map(|(base, candidate)| scaled(candidate) - scaled(base));
    Figures { centre, medians, is_share }
}

/// A difference for people.
fn shown(metric: &Metric, difference: f64) -> String {
    let unit = if metric.unit == Unit::Share { "points" } else { "%" };
    format!("{} {unit}", signed(change(metric, difference)))
}

/// Takes back what looks like a figure and is none.
fn no_figure(row: &mut Row, why: &str) {
    (row.change_ppm, row.low_ppm, row.high_ppm, row.misrate_ppm, row.sees_ppm) = (None, None, None, None, None);
    row.verdict = Verdict::Inconclusive;
    row.not_measurable = true;
    row.reason = Some(format!("{}: {why}; {}", sense::WORDS, sense::REMEDY));
}

/// A difference on the scale of `scaled` as a change in millionths.
fn change(metric: &Metric, difference: f64) -> i64 {
    ppm(if metric.unit == Unit::Share { difference } else { difference.exp_m1() })
}

/// No integer of a file may be beyond what other programs hold exactly (2^53 - 1).
fn ppm(share: f64) -> i64 {
    // Beyond all sense it is as much as a file can say.
    const MOST: f64 = integers::MOST as f64;
    (share * 1e6).round().clamp(-MOST, MOST) as i64
}

/// The values themselves, as integers in the unit of `unit_word`.
fn whole(metric: &Metric, runs: &[&Report]) -> Vec<u64> {
    let scale = if metric.unit == Unit::Share { 1e6 } else { 1.0 };
    runs.iter().filter_map(|run| (metric.value)(run)).map(|value| (value * scale).round() as u64).collect()
}

fn median(values: &[u64]) -> Option<u64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let upper = *sorted.get(sorted.len() / 2)?;
    Some(if sorted.len() % 2 == 1 { upper } else { sorted[sorted.len() / 2 - 1].midpoint(upper) })
}

fn unit_word(unit: Unit) -> &'static str {
    match unit {
        Unit::Nanoseconds => "ns",
        Unit::PerSecond => "per_s",
        Unit::BytesPerSecond => "bytes_per_s",
        Unit::Count => "count",
        Unit::Share => "ppm",
    }
}
