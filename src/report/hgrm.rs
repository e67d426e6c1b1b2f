//! The percentile distribution that HdrHistogram prints, of response times in milliseconds, as its plotter
//! (<https://hdrhistogram.github.io/HdrHistogram/plotFiles.html>) reads it.

use super::{caveat, names};
use crate::histogram::Recorder;
use crate::result::Report;
use std::fmt::Write as _;

const NS_PER_MS: f64 = 1e6;
/// Lines for each halving of the distance to 100 %, as HdrHistogram's own tools have it.
const TICKS_PER_HALF: u32 = 5;

/// Value, percentile, count up to it, and `1/(1-percentile)`; six digits behind the point are nanoseconds. Of several
/// reports, the first.
pub fn render(reports: &[Report]) -> String {
    let Some(report) = reports.first() else { return String::new() };
    let mut text = format!("#[{}: response times in milliseconds]\n", names(reports)[0]);
    if let Some(caveat) = caveat(report) {
        let _ = writeln!(text, "#[{caveat}]"); // writing to a String does not fail
    }
    match report.latency.response.as_ref().map(Recorder::from_report) {
        Some(Ok(response)) if response.count() > 0 => distribution(&response, &mut text),
        Some(Err(problem)) => text.push_str(&format!("#[{problem}]\n")),
        _ => text.push_str("#[no response times]\n"),
    }
    text
}

fn distribution(response: &Recorder, text: &mut String) {
    // Writing to a String does not fail.
    let _ = write!(text, "{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    let (buckets, max_ns) = (response.buckets(), response.max_ns().unwrap_or(0));
    let mut seen = 0;
    for step in buckets.iter_quantiles(TICKS_PER_HALF) {
        seen += step.count_since_last_iteration();
        let ms = step.value_iterated_to().min(max_ns) as f64 / NS_PER_MS;
        let q = step.quantile_iterated_to();
        let _ = write!(text, "{ms:>12.6} {q:>14.12} {seen:>10}");
        let _ = if q < 1.0 { writeln!(text, " {:>14.2}", 1.0 / (1.0 - q)) } else { writeln!(text) };
    }
    let (mean, deviation) = (response.mean_ns().unwrap_or(0) as f64 / NS_PER_MS, buckets.stdev() / NS_PER_MS);
    let _ = writeln!(text, "#[Mean    = {mean:>12.6}, StdDeviation   = {deviation:>12.6}]");
    let (max, count) = (max_ns as f64 / NS_PER_MS, response.count());
    let _ = writeln!(text, "#[Max     = {max:>12.6}, Total count    = {count:>12}]");
    let _ = writeln!(text, "#[Buckets = {:>12}, SubBuckets     = {:>12}]", buckets.buckets(), SUB_BUCKETS);
}

/// What three significant digits take: the next power of two above 2 * 1000.
const SUB_BUCKETS: u32 = 2048;
