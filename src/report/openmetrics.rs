//! OpenMetrics 1.0 text, for Prometheus and whatever reads the same. Latencies are histograms, which can be added up
//! over runs; never summaries, which cannot.

use super::benchmark::printable;
use super::names;
use crate::histogram::Recorder;
use crate::metric::{METRICS, Metric, Unit};
use crate::result::{Histogram, Ledger, Report, VerdictState};
use std::collections::BTreeMap;

/// Bounds of the buckets: 1, 2 and 5 of each power of ten from 10 us to 100 s. A value within 0.1 % above a bound may
/// count as below it, as the report's histograms have it.
const FIRST_NS: u64 = 10_000;
const LAST_NS: u64 = 100_000_000_000;

/// All samples of a family stand together, whichever run they are of; the labels `run` (1, 2, …) and `name` tell the
/// runs apart.
pub fn render(reports: &[Report]) -> String {
    let runs: Vec<Run<'_>> = names(reports).iter().zip(reports).enumerate().map(Run::new).collect();
    let mut text = String::new();
    about_runs(&runs, &mut text);
    for (name, help, of) in HISTOGRAMS {
        histogram(name, help, *of, &runs, &mut text);
    }
    for (name, unit, help, of) in COUNTERS {
        let mut family = Family::new(&format!("loadgen_{name}"), "counter", unit, help);
        for run in &runs {
            for (label, count) in of(run.report) {
                family.sample("_total", run, &label, &count.to_string());
            }
        }
        family.end(&mut text);
    }
    METRICS.iter().filter(|metric| is_gauge(metric)).for_each(|metric| gauge(metric, &runs, &mut text));
    text.push_str("# EOF\n");
    text
}

struct Run<'a> {
    report: &'a Report,
    /// `run="1",name="…"`
    labels: String,
}

impl<'a> Run<'a> {
    fn new((index, (name, report)): (usize, (&String, &'a Report))) -> Self {
        Self { report, labels: format!("run=\"{}\",{}", index + 1, label("name", name)) }
    }
}

type OfHistogram = fn(&Report) -> Option<&Histogram>;
const HISTOGRAMS: &[(&str, &str, OfHistogram)] = &[
    ("response_time", "From the intended send time to the end of the reply", |r| r.latency.response.as_ref()),
    ("service_time", "From sending to the end of the reply", |r| r.latency.service.as_ref()),
    ("connect_time", "From the start of a connection attempt to its success", |r| r.latency.connect.as_ref()),
    ("handshake_time", "Handshakes of TLS", |r| r.latency.handshake.as_ref()),
    ("backlog_wait", "Wait of due requests for a connection", |r| r.latency.backlog_wait.as_ref()),
    ("generator_lag", "Lateness of requests although a connection was free", |r| r.latency.generator_lag.as_ref()),
];

/// Label and count.
type Counts = Vec<(String, u64)>;
type OfCounter = fn(&Report) -> Counts;
/// Of the whole run; name, unit, help.
const COUNTERS: &[(&str, &str, &str, OfCounter)] = &[
    ("requests", "", "Requests that were due, by what became of them", |r| outcomes(whole(r))),
    ("request_errors", "", "Failed requests by kind", |r| by_kind(&whole(r).errors)),
    ("connection_attempts", "", "Connection attempts", |r| one(r.connections.attempts)),
    ("connection_failures", "", "Failed connection attempts by kind", |r| by_kind(&r.connections.failed)),
    ("sent_bytes", "bytes", "Bytes handed to the kernel", |r| one(r.throughput.whole_run_sent_bytes)),
    ("received_bytes", "bytes", "Bytes received", |r| one(r.throughput.whole_run_received_bytes)),
];

fn whole(report: &Report) -> &Ledger {
    report.ledger.whole_run.as_deref().unwrap_or(&report.ledger)
}

fn one(count: u64) -> Counts {
    vec![(String::new(), count)]
}

fn by_kind(counts: &BTreeMap<String, u64>) -> Counts {
    counts.iter().map(|(kind, count)| (label("kind", kind), *count)).collect()
}

fn outcomes(ledger: &Ledger) -> Counts {
    let errors = ledger.errors.values().fold(0, |sum: u64, count| sum.saturating_add(*count));
    [("ok", ledger.ok), ("error", errors), ("in_flight", ledger.in_flight_at_end), ("unsent", ledger.unsent)]
        .map(|(outcome, count)| (label("outcome", outcome), count))
        .to_vec()
}

/// What was run, and whether to believe it.
fn about_runs(runs: &[Run<'_>], text: &mut String) {
    let mut info = Family::new("loadgen_run", "info", "", "What was run");
    let mut verdict = Family::new("loadgen_verdict", "stateset", "", "Whether to believe the figures");
    let mut partial = Family::new("loadgen_partial", "gauge", "", "1: the run ended before its time");
    let mut limits = Family::new("loadgen_limits", "gauge", "", "Limits (--fail-if) by judgement");
    for run in runs {
        info.sample("_info", run, &facts(run.report), "1");
        let states = [
            ("valid", VerdictState::Valid),
            ("overloaded", VerdictState::Overloaded),
            ("invalid", VerdictState::Invalid),
        ];
        for (name, state) in states {
            let is = u8::from(run.report.verdict.state == state).to_string();
            verdict.sample("", run, &label("loadgen_verdict", name), &is);
        }
        partial.sample("", run, "", &u8::from(run.report.partial).to_string());
        let mut judged: BTreeMap<String, u64> = BTreeMap::new();
        for limit in &run.report.limits {
            *judged.entry(label("judgement", &format!("{:?}", limit.judgement).to_lowercase())).or_default() += 1;
        }
        judged.iter().for_each(|(label, count)| limits.sample("", run, label, &count.to_string()));
    }
    [info, verdict, partial, limits].into_iter().for_each(|family| family.end(text));
}

/// Scenario and labels of the user, whose names are made fit; of two that become the same, the first stands.
fn facts(report: &Report) -> String {
    let scenario = &report.scenario;
    let ours = [
        ("version", &report.tool.version),
        ("started_at", &report.started_at),
        ("protocol", &scenario.protocol),
        ("target", &scenario.target),
        ("mode", &scenario.mode),
        ("engine", &scenario.engine),
        ("scenario", &scenario.hash),
    ];
    let mut facts: Vec<String> = ours.iter().map(|(name, value)| label(name, value)).collect();
    let mut taken = std::collections::BTreeSet::new();
    for (name, value) in &report.labels {
        let fit: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        if taken.insert(fit.clone()) {
            facts.push(label(&format!("label_{fit}"), value));
        }
    }
    facts.join(",")
}

fn histogram(name: &str, help: &str, of: OfHistogram, runs: &[Run<'_>], text: &mut String) {
    let mut family = Family::new(&format!("loadgen_{name}_seconds"), "histogram", "seconds", help);
    for run in runs {
        let Some(stored) = of(run.report) else { continue };
        let Ok(recorder) = Recorder::from_report(stored) else { continue };
        let bounds = (0..).map(|step| [1, 2, 5][step % 3] * FIRST_NS * 10_u64.pow(step as u32 / 3));
        for bound in bounds.take_while(|bound| *bound <= LAST_NS) {
            let count = recorder.buckets().count_between(0, bound);
            family.sample("_bucket", run, &label("le", &canonical(bound)), &count.to_string());
        }
        family.sample("_bucket", run, &label("le", "+Inf"), &stored.count.to_string());
        family.sample("_count", run, "", &stored.count.to_string());
        family.sample("_sum", run, "", &seconds(stored.sum_ns));
    }
    family.end(text);
}

/// Whether neither a histogram nor a counter says the same, and better.
fn is_gauge(metric: &Metric) -> bool {
    let cpu_or_max = metric.unit == Unit::Nanoseconds && (metric.name == "max" || metric.name.ends_with("_cpu"));
    cpu_or_max || matches!(metric.unit, Unit::PerSecond | Unit::BytesPerSecond | Unit::Share)
}

fn gauge(metric: &Metric, runs: &[Run<'_>], text: &mut String) {
    let unit = match metric.unit {
        Unit::Nanoseconds => "seconds",
        Unit::PerSecond => "requests_per_second",
        Unit::BytesPerSecond => "bytes_per_second",
        Unit::Count => "",
        Unit::Share => "ratio",
    };
    let name = format!("loadgen_{}_{unit}", metric.name.replace('.', "_"));
    let mut family = Family::new(&name, "gauge", unit, metric.about);
    for run in runs {
        if let Some(value) = (metric.value)(run.report) {
            let value = if metric.unit == Unit::Nanoseconds { seconds(value as u64) } else { value.to_string() };
            family.sample("", run, "", &value);
        }
    }
    family.end(text);
}

/// The samples of one metric, which have to stand together.
struct Family {
    name: String,
    head: String,
    samples: String,
}

impl Family {
    fn new(name: &str, kind: &str, unit: &str, help: &str) -> Self {
        let mut head = format!("# TYPE {name} {kind}\n");
        if !unit.is_empty() {
            head.push_str(&format!("# UNIT {name} {unit}\n"));
        }
        head.push_str(&format!("# HELP {name} {help}.\n"));
        Self { name: name.to_owned(), head, samples: String::new() }
    }

    fn sample(&mut self, suffix: &str, run: &Run<'_>, labels: &str, value: &str) {
        let comma = if labels.is_empty() { "" } else { "," };
        self.samples.push_str(&format!("{}{suffix}{{{}{comma}{labels}}} {value}\n", self.name, run.labels));
    }

    fn end(self, text: &mut String) {
        if !self.samples.is_empty() {
            text.push_str(&self.head);
            text.push_str(&self.samples);
        }
    }
}

fn label(name: &str, value: &str) -> String {
    format!("{name}=\"{}\"", printable(value).replace('\\', "\\\\").replace('"', "\\\""))
}

/// Nanoseconds as seconds, exactly.
fn seconds(ns: u64) -> String {
    format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
}

/// A bound as the format wants it, so that the same bound is the same text everywhere: `1e-05`, `0.0001`, `1.0`.
fn canonical(ns: u64) -> String {
    if ns < 100_000 {
        let power = ns.ilog10();
        return format!("{}e-{:02}", ns / 10_u64.pow(power), 9 - power);
    }
    format!("{:?}", ns as f64 / 1e9)
}
