//! `--fail-if` on a comparison: a change (`p99>+3%`) is held against the interval of the change, a value (`p99>5ms`)
//! against the candidate's runs, each of which is one observation.

use super::Options;
use super::estimate::{TooFew, one_sample};
use super::page::{change, percent};
use super::schema::{Comparison, Row};
use crate::limit::{Bound, Judgement, Limit};
use crate::metric::{Metric, Unit};
use crate::result::{LimitOutcome, Report};

/// Judges all limits of `options`. `candidate`: the runs that were compared; `misrate`: that of one gate.
pub(super) fn judge(
    comparison: &Comparison,
    candidate: &[&Report],
    options: &Options,
    misrate: f64,
) -> Vec<LimitOutcome> {
    let one = |limit: &Limit| {
        let judgement = match limit.bound {
            Bound::Change(_) => of_change(limit, comparison),
            Bound::Value(bound) => of_value(limit, bound, comparison, candidate, misrate),
        };
        let (judgement, detail) = judgement.parts();
        LimitOutcome { expression: limit.to_string(), judgement, detail }
    };
    options.limits.iter().map(one).collect()
}

fn of_change(limit: &Limit, comparison: &Comparison) -> Judgement {
    if limit.metric.unit == Unit::Count {
        return Judgement::Unresolvable(
            "a count has no change in percent: `error_share` has one, in points".to_owned(),
        );
    }
    let row = comparison.rows.iter().find(|row| row.metric == limit.metric.name);
    let Some((row, low, high)) = row.and_then(|row| Some((row, row.low_ppm?, row.high_ppm?))) else {
        let why = row.and_then(|row| row.reason.clone());
        return Judgement::Unresolvable(why.unwrap_or_else(|| "there is no interval of the change".to_owned()));
    };
    let figure = change(row);
    if let Some(cap) = comparison.caps.first() {
        return Judgement::Unresolvable(format!("{figure}; {}: {}", cap.code, cap.detail));
    }
    match limit.decide(low as f64 / 1e6, high as f64 / 1e6) {
        Some(true) => Judgement::Broken(figure),
        Some(false) => Judgement::Holds(figure),
        None => Judgement::Unresolvable(format!("{figure}; the limit lies within the interval{}", hint(row))),
    }
}

fn hint(row: &Row) -> String {
    let sees = row.sees_ppm.map(|ppm| format!(", and changes below {} cannot be told", percent(ppm as f64)));
    format!("{}: more blocks, longer slots or a quieter machine help", sees.unwrap_or_default())
}

fn of_value(limit: &Limit, bound: f64, comparison: &Comparison, candidate: &[&Report], misrate: f64) -> Judgement {
    let metric = limit.metric;
    let show = |value: f64| metric.unit.show(value);
    let values: Vec<f64> = candidate.iter().filter_map(|run| (metric.value)(run)).collect();
    if values.len() < candidate.len() || values.is_empty() {
        return Judgement::Unresolvable(format!(
            "{} of {} runs have no {}",
            candidate.len() - values.len(),
            candidate.len(),
            metric.name
        ));
    }
    if metric.unit == Unit::Count {
        return of_counts(limit, bound, &values, &show);
    }
    if comparison.is_invalid() {
        return Judgement::Unresolvable("the comparison is invalid".to_owned());
    }
    match one_sample(&values, misrate) {
        Err(TooFew { needs }) => {
            Judgement::Unresolvable(format!("{needs} runs are needed, and there are {}", values.len()))
        }
        Ok(estimate) => {
            let range = metric.unit.show_range(estimate.low, estimate.high);
            let figure = format!("{} ({range} by {} runs)", show(estimate.centre), values.len());
            match limit.decide(estimate.low, estimate.high) {
                Some(true) => Judgement::Broken(figure),
                Some(false) => Judgement::Holds(figure),
                None => Judgement::Unresolvable(format!("{figure}; the limit lies within the interval")),
            }
        }
    }
}

/// Counted, not estimated: the worst run decides.
fn of_counts(limit: &Limit, bound: f64, values: &[f64], show: &dyn Fn(f64) -> String) -> Judgement {
    let broken = values.iter().filter(|value| limit.op.breaks(**value, bound)).count();
    let fold = if limit.op.upwards() { f64::max } else { f64::min };
    let worst = values.iter().copied().reduce(fold).unwrap_or(0.0);
    match broken {
        0 => Judgement::Holds(format!("{} at the worst", show(worst))),
        runs => Judgement::Broken(format!("{} at the worst, broken in {runs} of {} runs", show(worst), values.len())),
    }
}

/// Metrics that limits are about and a comparison would not have otherwise.
pub(super) fn metrics(options: &Options) -> impl Iterator<Item = &'static Metric> {
    options.limits.iter().map(|limit| limit.metric)
}
