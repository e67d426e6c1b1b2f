//! When the shards of a run measured, and what they did together in that time.

use crate::result::integers;
use crate::result::{Report, Series, Throughput};
use crate::time::{NS_PER_S, NS_PER_US};

/// Windows coincide where all have this much of the longest in common, in percent.
const COINCIDE_PERCENT: u128 = 99;
/// With less in common, the load was not on as a whole for too long.
const TOGETHER_MIN_PERCENT: u128 = 90;

/// The windows of all shards.
#[derive(Debug)]
pub(super) struct Windows {
    /// Between the first opening and the last; `None`: not known.
    pub(super) apart_ns: Option<u64>,
    pub(super) longest_ns: u64,
    /// Part of all windows.
    pub(super) common_ns: u64,
    /// Opening of the last window, and end of the first to close.
    common: Option<(u64, u64)>,
    /// The runs' beginnings, where they are known.
    origins: Vec<Option<u64>>,
    counted: bool,
}

impl Windows {
    pub(super) fn new(shards: &[&Report]) -> Self {
        let started_ns = |shard: &&Report| shard.phases.window_started_unix_us.map(|us| us.saturating_mul(NS_PER_US));
        let opened = |shard: &&Report| started_ns(shard).filter(|_| shard.throughput.window_ns > 0);
        let closed = |shard: &&Report| Some(opened(shard)?.saturating_add(shard.throughput.window_ns));
        let opens: Option<Vec<u64>> = shards.iter().map(opened).collect();
        let closes: Option<Vec<u64>> = shards.iter().map(closed).collect();
        let common = opens
            .as_ref()
            .zip(closes)
            .and_then(|(opens, closes)| Some((opens.iter().max().copied()?, closes.iter().min().copied()?)));
        let apart_ns = opens.and_then(|opens| Some(opens.iter().max()? - opens.iter().min()?));
        let origin = |shard: &&Report| {
            let phases = &shard.phases;
            started_ns(shard)?.checked_sub(phases.warmup_ns)?.checked_sub(phases.ramp_ns)
        };
        Self {
            apart_ns,
            longest_ns: shards.iter().map(|shard| shard.throughput.window_ns).max().unwrap_or(0),
            common_ns: common.map_or(0, |(from, to)| to.saturating_sub(from)),
            common,
            origins: shards.iter().map(origin).collect(),
            counted: shards.iter().any(|shard| shard.scenario.requests.is_some()),
        }
    }

    fn share(&self, part_ns: u64, percent: u128) -> bool {
        u128::from(part_ns) * 100 >= u128::from(self.longest_ns) * percent
    }

    /// Whether they can be taken for one window. Where that is not known, nothing says that they cannot.
    pub(super) fn coincide(&self) -> bool {
        self.common.is_none() || self.share(self.common_ns, COINCIDE_PERCENT)
    }

    /// Whether the load was on as a whole for most of the time. Shards that count requests end when they have sent
    /// theirs, as threads do: only their beginnings tell.
    pub(super) fn together(&self) -> bool {
        let begun_ns = self.longest_ns.saturating_sub(self.apart_ns.unwrap_or(0));
        let shared_ns = if self.counted { begun_ns } else { self.common_ns };
        self.common.is_none() || self.share(shared_ns, TOGETHER_MIN_PERCENT)
    }

    /// How long after the first shard each began, as far as that is known.
    pub(super) fn offsets(&self) -> Vec<u64> {
        let first = self.origins.iter().flatten().min().copied().unwrap_or(0);
        self.origins.iter().map(|origin| origin.map_or(0, |origin| origin - first)).collect()
    }

    /// For each shard the row of its series with which the common window's whole seconds begin, and how many of them
    /// all shards have.
    fn whole_seconds(&self, shards: &[&Report]) -> Option<(Vec<usize>, usize)> {
        let (from, to) = self.common?;
        let interval_ns = shards.first()?.series.interval_ns.max(1);
        let mut firsts = Vec::new();
        let mut least = usize::MAX;
        for (shard, origin) in shards.iter().zip(&self.origins) {
            let origin = (*origin)?;
            let first = from.checked_sub(origin)?.div_ceil(interval_ns);
            let end = to.checked_sub(origin)? / interval_ns;
            let rows = (end.saturating_sub(first) as usize).min(shard.series.rows.len().saturating_sub(first as usize));
            firsts.push(first as usize);
            least = least.min(rows);
        }
        (least > 0).then_some((firsts, least))
    }

    /// The shards' throughput together, and whether it is of the series' whole seconds.
    pub(super) fn throughput(&self, shards: &[&Report]) -> (Throughput, bool) {
        let sum = |of: fn(&Throughput) -> u64| add_all(shards.iter().map(|shard| of(&shard.throughput)));
        let offered: Option<Vec<u64>> = shards.iter().map(|shard| shard.throughput.offered_per_s).collect();
        let (replies, window_ns) = (sum(|t| t.replies), mean_window(shards, self.longest_ns));
        let own = Throughput {
            requests_per_s: rounded(scaled(replies, window_ns)),
            replies,
            sent_bytes_per_s: sum(|t| t.sent_bytes_per_s),
            received_bytes_per_s: sum(|t| t.received_bytes_per_s),
            window_ns,
            offered_per_s: offered.map(add_all),
            whole_run_sent_bytes: sum(|t| t.whole_run_sent_bytes),
            whole_run_received_bytes: sum(|t| t.whole_run_received_bytes),
        };
        if self.coincide() {
            return (own, false);
        }
        let Some((firsts, rows)) = self.whole_seconds(shards) else { return (own, false) };
        let interval_ns = shards[0].series.interval_ns.max(1);
        let within = |column: &str| {
            let Some(column) = shards[0].series.columns.iter().position(|name| name == column) else { return 0 };
            let of_shard = |(shard, first): (&&Report, &usize)| {
                add_all(shard.series.rows[*first..first + rows].iter().filter_map(|row| row.get(column).copied()))
            };
            add_all(shards.iter().zip(&firsts).map(of_shard))
        };
        let window_ns = interval_ns.saturating_mul(rows as u64);
        let rate = |count: u64| rounded(scaled(count, window_ns));
        let replies = within("ok");
        let clipped = Throughput {
            requests_per_s: rate(replies),
            replies,
            sent_bytes_per_s: rate(within("sent_bytes")),
            received_bytes_per_s: rate(within("received_bytes")),
            window_ns,
            ..own
        };
        (clipped, true)
    }

    /// All series as one, which begins with the first shard. Shards that began later are moved by whole intervals, to
    /// the nearest; what is a maximum (`…_max_ns`) stays one, all else adds up.
    pub(super) fn series(&self, shards: &[&Report]) -> Series {
        let of = &shards[0].series;
        let mut rows: Vec<Vec<u64>> = Vec::new();
        for (shard, offset_ns) in shards.iter().zip(self.offsets()) {
            let interval_ns = of.interval_ns.max(1);
            let shift = offset_ns.saturating_add(interval_ns / 2) / interval_ns;
            // A clock that is wrong by years is no reason for a series of that length.
            let shift = if shift > SHIFT_MAX { 0 } else { shift as usize };
            rows.resize(rows.len().max(shift + shard.series.rows.len()), vec![0; of.columns.len()]);
            for (into, row) in rows[shift..].iter_mut().zip(&shard.series.rows) {
                for ((sum, value), column) in into.iter_mut().zip(row).zip(&of.columns) {
                    *sum = if column.ends_with("_max_ns") { (*sum).max(*value) } else { sum.saturating_add(*value) };
                }
            }
        }
        Series { interval_ns: of.interval_ns, columns: of.columns.clone(), rows }
    }
}

/// Intervals between the beginnings of shards that are still one run.
const SHIFT_MAX: u64 = 1_000_000;

/// As much as a file can say, where it is more.
pub(super) fn add_all(values: impl IntoIterator<Item = u64>) -> u64 {
    values.into_iter().fold(0, u64::saturating_add).min(integers::MOST)
}

/// Bits behind the point of a rate that is to be added to others.
const FRACTION: u32 = 20;

fn scaled(count: u64, window_ns: u64) -> u128 {
    ((u128::from(count) * u128::from(NS_PER_S)) << FRACTION).checked_div(u128::from(window_ns)).unwrap_or(0)
}

fn rounded(scaled: u128) -> u64 {
    u64::try_from((scaled + (1 << (FRACTION - 1))) >> FRACTION).unwrap_or(u64::MAX)
}

/// The window in which all replies would have come at the sum of the shards' rates, each over its own window: their
/// mean, by replies. Of equal windows it is any of them.
fn mean_window(shards: &[&Report], longest_ns: u64) -> u64 {
    let measured = || shards.iter().map(|shard| &shard.throughput).filter(|own| own.replies > 0);
    if measured().all(|own| own.window_ns == longest_ns) {
        return longest_ns;
    }
    let rates: u128 = measured().map(|own| scaled(own.replies, own.window_ns)).sum();
    let replies = add_all(measured().map(|own| own.replies));
    let ns = ((u128::from(replies) * u128::from(NS_PER_S)) << FRACTION).checked_div(rates);
    ns.map_or(longest_ns, |ns| u64::try_from(ns).unwrap_or(u64::MAX))
}
