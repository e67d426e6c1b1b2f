//! A run on several processes: which part of it one report is, and what a merged report keeps of each part.

use super::schema::VerdictState;
use super::sums::since_1970;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One of `count` processes that make one load together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Shard {
    /// From 0 on.
    pub index: u64,
    pub count: u64,
    /// A digest that is the same for two processes on one running kernel; absent: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// Likewise for one network namespace: its processes share the counters of `kernel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
}

impl Shard {
    /// A run that nobody has divided.
    pub fn whole() -> Self {
        Self { index: 0, count: 1, ..Self::default() }
    }

    /// This shard's share of a number that all share: those of `0..total` that leave its index when divided by the
    /// count. The shares of all shards add up to `total`.
    pub fn share(&self, total: u64) -> u64 {
        let count = self.count.max(1);
        total / count + u64::from(self.index < total % count)
    }

    /// Which worker a thread of this shard is, of how many in all shards. Dealt out in turn, so that the workers of a
    /// shard have together exactly the shard's [`share`](Self::share) of everything.
    pub fn worker(&self, thread: u64, threads: u64) -> (u64, u64) {
        (thread * self.count + self.index, threads * self.count)
    }
}

/// How a merged report came about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Merged {
    /// By index.
    pub shards: Vec<ShardSummary>,
    /// Between the opening of the first window and that of the last; null: not known.
    pub windows_apart_ns: Option<u64>,
    /// `windows`: `throughput` adds up the shards' own. `series`: the windows did not coincide, and it is of the whole
    /// seconds within all of them.
    pub throughput_of: String,
    /// What a reader should know, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The figures of one shard, before they were added to the others'.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShardSummary {
    pub index: u64,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// As in `phases`.
    #[serde(default, alias = "window_started_unix_ns", deserialize_with = "since_1970")]
    pub window_started_unix_us: Option<u64>,
    pub window_ns: u64,
    pub requests_per_s: u64,
    pub response_p50_ns: Option<u64>,
    pub response_p99_ns: Option<u64>,
    /// As in [`Shard`].
    pub machine: Option<String>,
    pub partial: bool,
    pub state: VerdictState,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shards(count: u64) -> impl Iterator<Item = Shard> {
        (0..count).map(move |index| Shard { index, count, ..Shard::default() })
    }

    #[test]
    fn shares_add_up_and_differ_by_one_at_most() {
        for (count, total) in [(1, 7), (2, 6), (3, 10), (4, 10), (4, 3), (7, 1_000_003)] {
            let shares: Vec<u64> = shards(count).map(|shard| shard.share(total)).collect();
            assert_eq!(shares.iter().sum::<u64>(), total, "{shares:?}");
            assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1, "{shares:?}");
        }
    }

    #[test]
    fn the_workers_of_a_shard_have_its_share_and_no_two_are_the_same() {
        for (count, threads, total) in [(2, 2, 6), (3, 2, 11), (4, 3, 25), (1, 4, 9)] {
            let mut seen = Vec::new();
            for shard in shards(count) {
                let workers: Vec<(u64, u64)> = (0..threads).map(|thread| shard.worker(thread, threads)).collect();
                let share = |(index, of): (u64, u64)| Shard { index, count: of, ..Shard::default() }.share(total);
                assert_eq!(workers.iter().map(|worker| share(*worker)).sum::<u64>(), shard.share(total));
                seen.extend(workers.iter().map(|(index, _)| *index));
            }
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..count * threads));
        }
    }
}
