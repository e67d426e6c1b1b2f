//! What can be merged: all shards of one run, each once, and counted in the same way.

use crate::histogram::Recorder;
use crate::result::{Histogram, Latency, Report, differing_fields};
use std::fmt;

/// Why reports cannot be merged. Reports are named by their places, from 0, in what was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MergeError {
    Nothing,
    /// It says of no part of a run that it is one.
    NoShard(usize),
    /// Their runs had so many shards: (report, count), twice.
    OtherCount((usize, u64), (usize, u64)),
    /// Both are the shard of this index.
    Twice(u64, usize, usize),
    /// These indices are not there, of so many.
    Missing(Vec<u64>, u64),
    /// The fields that differ from those of the first named, with both values.
    OtherScenario(usize, usize, Vec<(String, String, String)>),
    /// Versions that may count differently.
    OtherTool((usize, String), (usize, String)),
    /// A histogram that cannot be added, and why; or the columns of a series.
    Uncountable(usize, String),
}

impl MergeError {
    /// In one line, with the reports' names.
    pub fn describe(&self, name: impl Fn(usize) -> String) -> String {
        match self {
            Self::Nothing => "there is nothing to merge".to_owned(),
            Self::NoShard(at) => format!("{} is no shard: it is the report of a whole run", name(*at)),
            Self::OtherCount((a, count), (b, other)) => {
                format!("{} is one of {count} shards, and {} one of {other}", name(*a), name(*b))
            }
            Self::Twice(index, a, b) => format!("{} and {} are both shard {index}", name(*a), name(*b)),
            Self::Missing(indices, count) => format!("of {count} shards these are missing: {}", some(indices)),
            Self::OtherScenario(a, b, fields) => {
                let fields: Vec<String> = fields.iter().map(|(field, a, b)| format!("{field} {a} and {b}")).collect();
                format!("{} and {} are of different scenarios: {}", name(*a), name(*b), fields.join(", "))
            }
            Self::OtherTool((a, version), (b, other)) => {
                format!("{} was made by {version}, and {} by {other}, which may count differently", name(*a), name(*b))
            }
            Self::Uncountable(at, why) => format!("{}: {why}", name(*at)),
        }
    }
}

/// The first few, and how many more.
fn some(indices: &[u64]) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<String> = indices.iter().take(SHOWN).map(u64::to_string).collect();
    match indices.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

impl fmt::Display for MergeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe(|at| format!("report {}", at + 1)))
    }
}

impl std::error::Error for MergeError {}

/// The places of all shards, by their index.
pub(super) fn order(reports: &[Report]) -> Result<Vec<usize>, MergeError> {
    let mut order = Vec::new();
    for (at, report) in reports.iter().enumerate() {
        let shard = report.shard.as_ref().ok_or(MergeError::NoShard(at))?;
        order.push((shard.index, shard.count, at));
    }
    let (_, count, first) = *order.first().ok_or(MergeError::Nothing)?;
    if let Some((_, other, at)) = order.iter().find(|(_, other, _)| *other != count) {
        return Err(MergeError::OtherCount((first, count), (*at, *other)));
    }
    order.sort_unstable();
    if let Some(pair) = order.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(MergeError::Twice(pair[0].0, pair[0].2, pair[1].2));
    }
    // Not one by one up to a count that a damaged file may say.
    if order.len() as u64 != count || order.last().is_some_and(|(index, ..)| *index >= count) {
        let held = |index: &u64| order.binary_search_by_key(index, |(index, ..)| *index).is_ok();
        let missing = (0..count.min(100_000)).filter(|index| !held(index)).collect();
        return Err(MergeError::Missing(missing, count));
    }
    Ok(order.into_iter().map(|(.., at)| at).collect())
}

/// Whether all others can be added to the first.
pub(super) fn compatible(reports: &[Report], order: &[usize]) -> Result<(), MergeError> {
    let first = order[0];
    let of = &reports[first];
    for &at in order {
        let report = &reports[at];
        if generation(report) != generation(of) {
            let tool = |report: &Report| format!("{} {}", report.tool.name, report.tool.version);
            return Err(MergeError::OtherTool((first, tool(of)), (at, tool(report))));
        }
        let mut fields = differing_fields(&of.scenario, &report.scenario);
        if of.scenario.target != report.scenario.target {
            fields.push(("target".to_owned(), of.scenario.target.clone(), report.scenario.target.clone()));
        }
        if !fields.is_empty() {
            return Err(MergeError::OtherScenario(first, at, fields));
        }
        let (series, other) = (&of.series, &report.series);
        if (&series.columns, series.interval_ns) != (&other.columns, other.interval_ns) {
            return Err(MergeError::Uncountable(at, "its series has other columns, or another interval".to_owned()));
        }
        for (name, histogram) in histograms(&report.latency) {
            let checked = Recorder::check_buckets(histogram).and_then(|()| Recorder::from_report(histogram));
            checked.map_err(|why| MergeError::Uncountable(at, format!("latency.{name}: {why}")))?;
        }
    }
    Ok(())
}

/// Within which versions count alike: of 1.4.2 it is 1, of 0.4.2 it is 0.4 (Semantic Versioning 2.0, 4).
fn generation(report: &Report) -> (&str, Vec<&str>) {
    let version: Vec<&str> = report.tool.version.split('.').collect();
    let digits = if version.first() == Some(&"0") { 2 } else { 1 };
    (&report.tool.name, version.into_iter().take(digits).collect())
}

fn histograms(latency: &Latency) -> impl Iterator<Item = (&'static str, &Histogram)> {
    let Latency { response, service, connect, handshake, backlog_wait, generator_lag, .. } = latency;
    [
        ("response", response),
        ("service", service),
        ("connect", connect),
        ("handshake", handshake),
        ("backlog_wait", backlog_wait),
        ("generator_lag", generator_lag),
    ]
    .into_iter()
    .filter_map(|(name, histogram)| Some((name, histogram.as_ref()?)))
}
