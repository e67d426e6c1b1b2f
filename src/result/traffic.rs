//! A run's users: sessions that come and go, the streams of several targets, and what closed connections leave behind.

use super::{Histogram, Report};
use crate::histogram::Recorder;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Sessions that arrived by the schedule (`--session-requests`), since the load began.
/// `arrived = completed + broken + in_progress_at_end + unstarted`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sessions {
    pub arrived: u64,
    pub completed: u64,
    /// Their connection died under them.
    pub broken: u64,
    pub in_progress_at_end: u64,
    /// No connection was free for them until the end: each has its first request in `ledger.unsent`.
    pub unstarted: u64,
    /// Completed sessions by their number of requests: up to 1, 2, 4, 8, ... The key is the upper bound.
    pub lengths: BTreeMap<String, u64>,
    /// From the arrival to the last reply, of sessions that arrived within the window; those in progress at the end
    /// count with the time until then.
    pub duration: Option<Histogram>,
    /// How many of `duration` were in progress: their true time is longer.
    pub censored: u64,
}

impl Sessions {
    /// Whether each session that arrived came to one end.
    pub fn closes(&self) -> bool {
        let ends = [self.completed, self.broken, self.in_progress_at_end, self.unstarted];
        u128::from(self.arrived) == ends.iter().map(|count| u128::from(*count)).sum::<u128>()
    }
}

/// What an open loop had due for one of several targets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stream {
    /// As typed.
    pub target: String,
    /// Of the measured window, like the ledger; what has become of what was sent is in `breakdown`.
    pub scheduled: u64,
    pub unsent: u64,
    /// Of requests of the window.
    pub backlog_wait: Option<Histogram>,
    pub generator_lag: Option<Histogram>,
    /// Since the load began.
    pub whole_run_scheduled: u64,
    pub whole_run_unsent: u64,
}

/// What connections that we close in good order leave behind on this machine: each holds its addresses and ports in
/// TIME_WAIT.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TimeWait {
    /// Connections closed a second.
    pub closes_per_s: u64,
    /// How long such a connection's port is not used again for the same destination.
    pub held_ns: u64,
    /// Connections in TIME_WAIT if the load went on for a minute, without a limit.
    pub steady: u64,
    /// Local ports of all source addresses, for all destinations together.
    pub ports: u64,
    /// `net.ipv4.tcp_max_tw_buckets`: beyond so many, connections are dropped from TIME_WAIT at once.
    pub max_tw_buckets: u64,
    /// What will happen, and what to do; absent: there is room for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// The sessions of all shards, added up.
pub(super) fn merge_sessions(shards: &[&Report]) -> Option<Sessions> {
    let mut sum: Option<Sessions> = None;
    let mut duration = Recorder::new();
    for sessions in shards.iter().filter_map(|shard| shard.sessions.as_ref()) {
        let sum = sum.get_or_insert_default();
        for (total, count) in [
            (&mut sum.arrived, sessions.arrived),
            (&mut sum.completed, sessions.completed),
            (&mut sum.broken, sessions.broken),
            (&mut sum.in_progress_at_end, sessions.in_progress_at_end),
            (&mut sum.unstarted, sessions.unstarted),
            (&mut sum.censored, sessions.censored),
        ] {
            *total = total.saturating_add(count);
        }
        for (length, count) in &sessions.lengths {
            let known = sum.lengths.entry(length.clone()).or_default();
            *known = known.saturating_add(*count);
        }
        add(&mut duration, sessions.duration.as_ref());
    }
    sum.map(|sum| Sessions { duration: duration.report(), ..sum })
}

/// The streams of all shards, added up by target.
pub(super) fn merge_streams(shards: &[&Report]) -> Vec<Stream> {
    let mut merged: Vec<(Stream, Recorder, Recorder)> = Vec::new();
    for stream in shards.iter().flat_map(|shard| &shard.streams) {
        let at = merged.iter().position(|(known, ..)| known.target == stream.target).unwrap_or_else(|| {
            let empty = Stream { target: stream.target.clone(), ..Stream::default() };
            merged.push((empty, Recorder::new(), Recorder::new()));
            merged.len() - 1
        });
        let (sum, backlog_wait, generator_lag) = &mut merged[at];
        sum.scheduled = sum.scheduled.saturating_add(stream.scheduled);
        sum.unsent = sum.unsent.saturating_add(stream.unsent);
        sum.whole_run_scheduled = sum.whole_run_scheduled.saturating_add(stream.whole_run_scheduled);
        sum.whole_run_unsent = sum.whole_run_unsent.saturating_add(stream.whole_run_unsent);
        add(backlog_wait, stream.backlog_wait.as_ref());
        add(generator_lag, stream.generator_lag.as_ref());
    }
    let report = |(stream, backlog_wait, generator_lag): (Stream, Recorder, Recorder)| Stream {
        backlog_wait: backlog_wait.report(),
        generator_lag: generator_lag.report(),
        ..stream
    };
    merged.into_iter().map(report).collect()
}

fn add(sum: &mut Recorder, histogram: Option<&Histogram>) {
    // Those that cannot be read were refused before.
    if let Some(recorder) = histogram.and_then(|histogram| Recorder::from_report(histogram).ok()) {
        sum.merge(&recorder);
    }
}
