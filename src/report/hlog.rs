//! The interval log of HdrHistogram, version 1.3: every histogram of a run whole, with its place in time. Values are
//! nanoseconds; the column of maxima, which is for people, is in milliseconds.

use super::{caveat, names};
use crate::histogram::Recorder;
use crate::result::{Histogram, Report};
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use std::time::Duration;

const NS_PER_MS: f64 = 1e6;

/// One interval a histogram, tagged with its name: `response`, `service`, `connect`, `handshake`, `backlog_wait`,
/// `generator_lag`.
/// Each run begins with a start and a base time of its own.
pub fn render(reports: &[Report]) -> String {
    let mut log = Vec::new();
    for (name, report) in names(reports).iter().zip(reports) {
        // Writing to memory does not fail, and what a histogram holds has been read before.
        one(name, report, &mut log).expect("a log in memory");
    }
    String::from_utf8(log).expect("a log is text")
}

type Problem = Box<dyn std::error::Error>;

fn one(name: &str, report: &Report, log: &mut Vec<u8>) -> Result<(), Problem> {
    let mut serializer = V2DeflateSerializer::new();
    let mut head = IntervalLogWriterBuilder::new();
    head.add_comment("[Histogram log format version 1.3]").add_comment(&format!("[{name}: values in nanoseconds]"));
    if let Some(caveat) = caveat(report) {
        head.add_comment(&format!("[{caveat}]"));
    }
    if let Ok(started) = humantime::parse_rfc3339(&report.started_at) {
        head.with_start_time(started).with_base_time(started);
    }
    let mut writer = head.with_max_value_divisor(NS_PER_MS).begin_log_with(log, &mut serializer)?;
    let (latency, phases) = (&report.latency, &report.phases);
    let before = phases.ramp_ns.saturating_add(phases.warmup_ns);
    let window = (before, phases.measure_ns);
    let whole = (0, before.saturating_add(phases.measure_ns).saturating_add(phases.drain_ns));
    let histograms: [(&str, &Option<Histogram>, (u64, u64)); 6] = [
        ("response", &latency.response, window),
        ("service", &latency.service, window),
        ("connect", &latency.connect, whole),
        ("handshake", &latency.handshake, whole),
        ("backlog_wait", &latency.backlog_wait, window),
        ("generator_lag", &latency.generator_lag, window),
    ];
    for (tag, histogram, (from_ns, length_ns)) in histograms {
        match histogram.as_ref().map(Recorder::from_report) {
            Some(Ok(recorder)) => {
                let [from, length] = [from_ns, length_ns].map(Duration::from_nanos);
                writer
                    .write_histogram(recorder.buckets(), from, length, Tag::new(tag))
                    .map_err(|e| format!("{e:?}"))?;
            }
            Some(Err(problem)) => writer.write_comment(&format!("[{tag}: {problem}]"))?,
            None => {}
        }
    }
    Ok(())
}
