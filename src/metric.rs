//! The figures of a run by which people judge it, each with its direction: a table that comparison, limits
//! (`--fail-if`) and exports share.

use crate::confidence::ENOUGH_BEYOND;
use crate::histogram::{QUANTILES, count_beyond};
use crate::result::{Histogram, Ledger, Report};
use crate::units::{format_count, format_duration, format_exact_count, format_rate};

/// What a figure is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Nanoseconds,
    /// Requests a second.
    PerSecond,
    BytesPerSecond,
    Count,
    /// A part of a whole, 0 to 1.
    Share,
}

impl Unit {
    /// A figure for people: `6.20 ms`, `142k/s`, `9.09 MB/s`, `1,234`, `0.120 %`.
    pub fn show(self, value: f64) -> String {
        let whole = value.round() as u64;
        match self {
            Self::Nanoseconds => format_duration(whole),
            Self::PerSecond => format!("{}/s", format_count(whole)),
            Self::BytesPerSecond => format_rate(whole),
            Self::Count => format_exact_count(whole),
            Self::Share => percent(value * 100.0),
        }
    }

    /// `5.90-6.60 ms`, `496-504/s`, or `950 us-1.20 ms` where the ends have different units.
    pub fn show_range(self, low: f64, high: f64) -> String {
        let (low, high) = (self.show(low), self.show(high));
        let unit = |text: &str| text.find([' ', '/']).map_or(text.len(), |at| at);
        let (digits, same) = (unit(&low), low[unit(&low)..] == high[unit(&high)..]);
        if same { format!("{}-{high}", &low[..digits]) } else { format!("{low}-{high}") }
    }

    /// What keys of machine-readable formats end with: `ns`, `per_s`; nothing for counts and shares.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Nanoseconds => "ns",
            Self::PerSecond => "per_s",
            Self::BytesPerSecond => "bytes_per_s",
            Self::Count | Self::Share => "",
        }
    }
}

/// Three significant digits.
fn percent(value: f64) -> String {
    if value <= 0.0 {
        return "0 %".to_owned();
    }
    let digits = (2.0 - value.log10().floor()).clamp(0.0, 9.0) as usize;
    format!("{value:.digits$} %")
}

/// Which direction is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    Lower,
    Higher,
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// The word that people type: `p99`.
    pub name: &'static str,
    /// What it is, in a few words.
    pub about: &'static str,
    pub unit: Unit,
    pub better: Better,
    /// None: this run does not have it, or has too few values for it.
    pub value: fn(&Report) -> Option<f64>,
    /// Within which values it lies at 95 %, as the run itself knows; None: not known.
    pub interval: fn(&Report) -> Option<(f64, f64)>,
}

impl Metric {
    /// The name with its unit, for machine-readable formats: `p99_ns`, `rate_per_s`, `errors`.
    pub fn key(&self) -> String {
        match self.unit.suffix() {
            "" => self.name.to_owned(),
            suffix => format!("{}_{suffix}", self.name),
        }
    }
}

/// Every metric.
pub static METRICS: &[Metric] = &[
    Metric { interval: rate_interval, ..higher("rate", "requests a second", Unit::PerSecond, rate) },
    higher("received", "bytes received a second", Unit::BytesPerSecond, |r| {
        Some(r.throughput.received_bytes_per_s as f64)
    }),
    higher("sent", "bytes sent a second", Unit::BytesPerSecond, |r| Some(r.throughput.sent_bytes_per_s as f64)),
    response("p50", "median response time", |r| quantile(r, "0.5"), |r| quantile_interval(r, "0.5")),
    response("p90", "90th percentile of response times", |r| quantile(r, "0.9"), |r| quantile_interval(r, "0.9")),
    response("p95", "95th percentile of response times", |r| quantile(r, "0.95"), |r| quantile_interval(r, "0.95")),
    response("p99", "99th percentile of response times", |r| quantile(r, "0.99"), |r| quantile_interval(r, "0.99")),
    response("p99.9", "99.9th percentile", |r| quantile(r, "0.999"), |r| quantile_interval(r, "0.999")),
    response("p99.99", "99.99th percentile", |r| quantile(r, "0.9999"), |r| quantile_interval(r, "0.9999")),
    response("mean", "mean response time", |r| Some(r.latency.response.as_ref()?.mean_ns as f64), mean_interval),
    response("max", "longest response time", |r| Some(r.latency.response.as_ref()?.max_ns as f64), unknown),
    response("service_p50", "median service time", |r| known(r.latency.service.as_ref(), "0.5"), unknown),
    response("service_p99", "99th percentile of service times", |r| known(r.latency.service.as_ref(), "0.99"), unknown),
    response("connect_p99", "99th percentile of connect times", |r| known(r.latency.connect.as_ref(), "0.99"), unknown),
    response("lag_p99", "99th percentile of generator lag", lag, unknown),
    Metric {
        interval: exact_errors,
        ..lower("errors", "requests and connection attempts failed", Unit::Count, errors)
    },
    lower("error_share", "failed of all requests and connection attempts", Unit::Share, error_share),
    lower("unsent", "requests that were due and never left", Unit::Count, |r| Some(whole(r).unsent as f64)),
    lower("server_cpu", "server CPU time a request", Unit::Nanoseconds, |r| {
        r.cpu.server_ns_per_request.map(|ns| ns as f64)
    }),
    lower("client_cpu", "client CPU time a request", Unit::Nanoseconds, |r| {
        r.cpu.client_ns_per_request.map(|ns| ns as f64)
    }),
];

/// The metric that is called `name`.
pub fn by_name(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.name == name)
}

const fn lower(name: &'static str, about: &'static str, unit: Unit, value: fn(&Report) -> Option<f64>) -> Metric {
    Metric { name, about, unit, better: Better::Lower, value, interval: unknown }
}

const fn higher(name: &'static str, about: &'static str, unit: Unit, value: fn(&Report) -> Option<f64>) -> Metric {
    Metric { name, about, unit, better: Better::Higher, value, interval: unknown }
}

const fn response(
    name: &'static str,
    about: &'static str,
    value: fn(&Report) -> Option<f64>,
    interval: fn(&Report) -> Option<(f64, f64)>,
) -> Metric {
    Metric { name, about, unit: Unit::Nanoseconds, better: Better::Lower, value, interval }
}

fn unknown(_: &Report) -> Option<(f64, f64)> {
    None
}

/// A one-way stream has no requests.
fn rate(report: &Report) -> Option<f64> {
    let rate = report.throughput.requests_per_s;
    (rate > 0 || report.ledger.scheduled > 0).then_some(rate as f64)
}

fn rate_interval(report: &Report) -> Option<(f64, f64)> {
    let rate = &report.confidence.as_ref()?.rate;
    Some((rate.low_per_s? as f64, rate.high_per_s? as f64))
}

fn quantile(report: &Report, name: &str) -> Option<f64> {
    known(report.latency.response.as_ref(), name)
}

/// A quantile with too few values beyond it is chance, and no figure.
fn known(histogram: Option<&Histogram>, name: &str) -> Option<f64> {
    let histogram = histogram?;
    let (_, q) = QUANTILES.iter().find(|(known, _)| *known == name)?;
    let enough = count_beyond(histogram.count, *q) >= ENOUGH_BEYOND;
    histogram.quantiles_ns.get(name).filter(|_| enough).map(|ns| *ns as f64)
}

fn quantile_interval(report: &Report, name: &str) -> Option<(f64, f64)> {
    let interval = report.confidence.as_ref()?.quantiles.get(name)?;
    Some((interval.low_ns? as f64, interval.high_ns? as f64))
}

fn mean_interval(report: &Report) -> Option<(f64, f64)> {
    let interval = &report.confidence.as_ref()?.mean;
    Some((interval.low_ns? as f64, interval.high_ns? as f64))
}

fn lag(report: &Report) -> Option<f64> {
    known(report.latency.generator_lag.as_ref(), "0.99")
}

fn whole(report: &Report) -> &Ledger {
    report.ledger.whole_run.as_deref().unwrap_or(&report.ledger)
}

fn failed(report: &Report) -> u64 {
    whole(report).errors.values().chain(report.connections.failed.values()).fold(0, |sum, n| sum.saturating_add(*n))
}

/// Over the whole run: a failure during the warm-up is one, too.
fn errors(report: &Report) -> Option<f64> {
    Some(failed(report) as f64)
}

/// Counted, not estimated.
fn exact_errors(report: &Report) -> Option<(f64, f64)> {
    errors(report).map(|count| (count, count))
}

fn error_share(report: &Report) -> Option<f64> {
    let tried = whole(report).sent.saturating_add(report.connections.attempts);
    (tried > 0).then(|| failed(report) as f64 / tried as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_shown_with_their_unit() {
        let cases = [
            (Unit::Nanoseconds, 6.2e6, "6.20 ms"),
            (Unit::PerSecond, 50_240.0, "50.2k/s"),
            (Unit::BytesPerSecond, 9.088e6, "9.09 MB/s"),
            (Unit::Count, 1_234.0, "1,234"),
            (Unit::Share, 0.0, "0 %"),
            (Unit::Share, 0.0012, "0.120 %"),
            (Unit::Share, 1.0, "100 %"),
            (Unit::Share, 0.000_000_004_2, "0.000000420 %"),
        ];
        for (unit, value, text) in cases {
            assert_eq!(unit.show(value), text);
        }
        assert_eq!(Unit::Nanoseconds.show_range(5.9e6, 6.6e6), "5.90-6.60 ms");
        assert_eq!(Unit::Nanoseconds.show_range(0.95e6, 1.2e6), "950 us-1.20 ms");
        assert_eq!(Unit::PerSecond.show_range(496.0, 504.0), "496-504/s");
        assert_eq!(Unit::Count.show_range(1.0, 2.0), "1-2");
    }

    #[test]
    fn keys_have_their_unit_and_are_unique() {
        let keys: std::collections::BTreeSet<String> = METRICS.iter().map(Metric::key).collect();
        assert_eq!(keys.len(), METRICS.len());
        assert!(["p99_ns", "rate_per_s", "sent_bytes_per_s", "errors"].iter().all(|key| keys.contains(*key)));
    }
}
