//! What became of a run's datagrams, beside the ledger.

use super::Report;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Counts of the whole run, where requests and replies are datagrams (docs/udp.md).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Datagrams")]
pub struct Delivery {
    /// All that arrived.
    pub received: u64,
    /// Requests without a reply within the timeout; the errors of kind `timeout`.
    pub lost: u64,
    /// Replies to requests that had been answered.
    pub duplicated: u64,
    /// Replies that came after one to a later request of their connection (Type-P-Reordered, RFC 4737).
    pub reordered: u64,
    /// Replies to requests that had been given up.
    pub late: u64,
    /// Replies of which it is not known whether they are late or duplicated: their requests are too long ago.
    pub old: u64,
    /// What answers no request of its connection.
    pub foreign: u64,
}

impl Delivery {
    /// Adds those of others.
    pub fn merge(&mut self, other: &Self) {
        self.received += other.received;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.late += other.late;
        self.old += other.old;
        self.foreign += other.foreign;
    }
}

/// Those of all shards.
pub(super) fn merge(shards: &[&Report]) -> Option<Delivery> {
    let all = shards.iter().filter_map(|shard| shard.datagrams.as_ref());
    all.fold(None, |sum: Option<Delivery>, one| {
        let mut sum = sum.unwrap_or_default();
        sum.merge(one);
        Some(sum)
    })
}
