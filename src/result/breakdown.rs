//! A run's requests by what was asked, and of whom.

use super::{Histogram, Report};
use crate::histogram::Recorder;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Requests of one kind (`get`) to one target. Of which kind a request is, is known once it has been sent: one that
/// never left is in no group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Group {
    /// As typed; null where there is one only.
    pub target: Option<String>,
    /// Null where all requests are of one kind.
    pub kind: Option<String>,
    /// Of the measured window, like the ledger.
    pub sent: u64,
    pub ok: u64,
    pub errors: BTreeMap<String, u64>,
    pub in_flight_at_end: u64,
    /// Response times of the window, as in `latency`.
    pub response: Option<Histogram>,
    /// From the first request to the end of the drain.
    pub whole_run: GroupCounts,
}

/// `sent = ok + sum(errors) + in_flight_at_end`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GroupCounts {
    pub sent: u64,
    pub ok: u64,
    pub errors: BTreeMap<String, u64>,
    pub in_flight_at_end: u64,
}

/// The groups of all shards, added up.
pub(super) fn merge(shards: &[&Report]) -> Vec<Group> {
    let mut merged: Vec<(Group, Recorder)> = Vec::new();
    for group in shards.iter().flat_map(|shard| &shard.breakdown) {
        // Those that cannot be read were refused before.
        let recorder = group.response.as_ref().and_then(|response| Recorder::from_report(response).ok());
        let known = merged.iter_mut().find(|(known, _)| (&known.target, &known.kind) == (&group.target, &group.kind));
        match known {
            None => merged.push((group.clone(), recorder.unwrap_or_default())),
            Some((sum, response)) => {
                sum.sent = sum.sent.saturating_add(group.sent);
                sum.ok = sum.ok.saturating_add(group.ok);
                sum.in_flight_at_end = sum.in_flight_at_end.saturating_add(group.in_flight_at_end);
                add(&mut sum.errors, &group.errors);
                sum.whole_run.sent = sum.whole_run.sent.saturating_add(group.whole_run.sent);
                sum.whole_run.ok = sum.whole_run.ok.saturating_add(group.whole_run.ok);
                let waiting = &mut sum.whole_run.in_flight_at_end;
                *waiting = waiting.saturating_add(group.whole_run.in_flight_at_end);
                add(&mut sum.whole_run.errors, &group.whole_run.errors);
                recorder.iter().for_each(|recorder| response.merge(recorder));
            }
        }
    }
    merged.into_iter().map(|(group, response)| Group { response: response.report(), ..group }).collect()
}

fn add(sum: &mut BTreeMap<String, u64>, counts: &BTreeMap<String, u64>) {
    for (key, count) in counts {
        let known = sum.entry(key.clone()).or_default();
        *known = known.saturating_add(*count);
    }
}
