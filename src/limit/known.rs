//! What a run knows about one of its figures: between which values it lies, or why that cannot be said.

use super::Limit;
use crate::confidence::{ENOUGH_BEYOND, goal};
use crate::histogram::{QUANTILES, Recorder};
use crate::metric::{Metric, Unit};
use crate::protocol;
use crate::result::{Report, VerdictState};

/// Buckets of a histogram hold a value within this share of it.
const RESOLUTION: f64 = 0.001;
/// A figure without an interval is judged only by limits that are so far from it.
const FAR: f64 = 2.0;

/// Between which values a figure lies.
pub(super) struct Range {
    pub(super) low: f64,
    pub(super) high: f64,
    /// Why this is no interval of the run's own; None: it is one, or exact.
    guessed: Option<String>,
}

/// Why nothing that a run says can be held against a limit.
pub(super) fn untrusted(report: &Report) -> Option<String> {
    if report.verdict.state == VerdictState::Invalid {
        return Some(format!("the run is invalid ({}); mend that first", report.verdict.codes()));
    }
    report.partial.then(|| "the run ended before its time; measure again".to_owned())
}

/// Why the run does not have the figure.
pub(super) fn why_missing(metric: &Metric, report: &Report) -> String {
    let one_way = protocol::by_name(&report.scenario.protocol).is_some_and(|known| !known.shape.has_replies());
    let answered = report.latency.response.is_some();
    match metric.name {
        "lag_p99" if report.scenario.mode == "closed" && report.latency.generator_lag.is_none() => {
            "a closed loop has no generator lag".to_owned()
        }
        "connect_p99" if report.latency.connect.is_some() => too_few(),
        "connect_p99" => "no connection was established".to_owned(),
        _ if one_way => "a one-way stream has no requests".to_owned(),
        "server_cpu" if report.cpu.server_ns.is_none() => "only an embedded server tells its CPU time".to_owned(),
        _ if answered => too_few(),
        _ => "nothing was answered".to_owned(),
    }
}

fn too_few() -> String {
    format!("too few values: a percentile takes {ENOUGH_BEYOND} beyond it; measure longer")
}

/// What the generator itself adds is in every response: no server could keep such a limit.
pub(super) fn below_floor(limit: &Limit, report: &Report, bound: f64) -> Option<String> {
    let floor_ns = report.floor.as_ref()?.response_p50()?;
    let below = is_response(limit.metric) && limit.op.upwards() && bound < floor_ns as f64;
    let floor = Unit::Nanoseconds.show(floor_ns as f64);
    below.then(|| format!("the limit is below what the generator itself takes (floor p50 {floor})"))
}

/// Of requests, with or without their wait.
fn is_response(metric: &Metric) -> bool {
    let estimated = ["mean", "max"].contains(&metric.name) || metric.name.starts_with("service_");
    estimated || quantile(metric).is_some()
}

/// The quantile of the response times that the metric is, as reports name it.
fn quantile(metric: &Metric) -> Option<(&'static str, f64)> {
    QUANTILES.iter().find(|(name, _)| goal::percentile(name) == metric.name).copied()
}

/// Counted or seen, not estimated.
fn is_exact(metric: &Metric) -> bool {
    matches!(metric.unit, Unit::Count | Unit::Share) || metric.name == "max"
}

pub(super) fn range(metric: &Metric, report: &Report, value: f64) -> Range {
    if is_exact(metric) {
        return Range { low: value, high: value, guessed: None };
    }
    let blur = if metric.unit == Unit::Nanoseconds { RESOLUTION } else { 0.0 };
    match (metric.interval)(report) {
        Some((low, high)) => Range { low: low * (1.0 - blur), high: high * (1.0 + blur), guessed: None },
        None => Range { low: value / FAR, high: value * FAR, guessed: Some(why_unknown(metric, report)) },
    }
}

fn why_unknown(metric: &Metric, report: &Report) -> String {
    let confidence = report.confidence.as_ref();
    let reason = match metric.name {
        "rate" => confidence.and_then(|known| known.rate.reason.clone()),
        "mean" => confidence.and_then(|known| known.mean.reason.clone()),
        _ => quantile(metric).and_then(|(name, _)| confidence?.quantiles.get(name)?.reason.clone()),
    };
    reason.map_or_else(|| "no interval is known".to_owned(), |code| format!("no interval: {}", code.replace('_', " ")))
}

/// Why the limit cannot be told from the figure, and what to do.
pub(super) fn too_close(limit: &Limit, range: &Range, value: f64, bound: f64) -> String {
    let metric = limit.metric;
    let has_goal = quantile(metric).is_some() || ["mean", "rate"].contains(&metric.name);
    let percent = ((value - bound).abs() / value * 1000.0).floor() / 10.0;
    let remedy = match percent.is_finite() && percent >= 0.1 && has_goal {
        true => format!("measure longer (--duration), or --until-ci {}={}%", metric.name, percent.min(20.0)),
        false if has_goal && range.guessed.is_some() => "measure longer (--duration)".to_owned(),
        false => "choose a limit that is further away".to_owned(),
    };
    match &range.guessed {
        Some(why) => format!("{why}, and the limit is within a factor of {FAR}; {remedy}"),
        None => format!("the limit lies within what the run can tell apart; {remedy}"),
    }
}

/// The highest that a figure can be if the replies that had not come are taken into account. With a share `c` of such
/// values, a quantile `q` is in truth as high as that at `q + c` at most.
pub(super) fn with_censored(metric: &Metric, report: &Report, range: &Range) -> f64 {
    let (Some(response), true) = (&report.latency.response, report.latency.censored > 0) else { return range.high };
    let share = report.latency.censored as f64 / response.count.max(1) as f64;
    // Where everything was answered in the end, nothing took longer than the longest wait and the drain together.
    let longest = late(report).map_or(f64::INFINITY, |late| response.max_ns as f64 + late);
    let highest = match (metric.name, quantile(metric)) {
        ("max", _) => longest,
        ("mean", _) => range.high + late(report).map_or(f64::INFINITY, |late| share * late),
        (_, Some((_, q))) if q + share < 1.0 => {
            let Ok(recorded) = Recorder::from_report(response) else { return f64::INFINITY };
            let higher = recorded.quantile(q + share) as f64 / recorded.quantile(q).max(1) as f64;
            (range.high * higher).min(longest)
        }
        (_, Some(_)) => longest,
        _ => range.high,
    };
    highest.max(range.high)
}

/// How long after the window the last replies came; None: some never did.
fn late(report: &Report) -> Option<f64> {
    let whole = report.ledger.whole_run.as_deref()?;
    let answered = whole.in_flight_at_end == 0 && whole.unsent == 0 && whole.errors.is_empty();
    answered.then_some(report.phases.drain_ns as f64)
}

pub(super) fn censored(report: &Report) -> String {
    let count = report.latency.censored;
    format!("{count} requests without a reply count with the time they had waited: in truth it can be beyond the limit")
}
