//! What a run looked like over time, in constant memory: batches of equal length on one time grid.
//!
//! There are at most [`BATCHES_MAX`] of them. When time goes on beyond the last, neighbours are added up in pairs and
//! their length doubles. So a window of a second or more always has between half of them and all.

/// The most batches that there are at once.
pub const BATCHES_MAX: usize = 128;

/// Batches begin with 2^23 ns, 8.4 ms: the batch of an instant is then found by a shift.
const FIRST_SHIFT: u32 = 23;

/// Buckets of response time: sixteen for each power of two (3 to 6 % wide), from 2^10 ns (1 us) to 2^42 ns (73 min).
/// What is shorter or longer counts in the first or the last.
pub(super) const BUCKETS: usize = 512;
const SUB_BITS: u32 = 4;
const LOWEST_BITS: u32 = 10;
const LOWEST_NS: u64 = 1 << LOWEST_BITS;
const HIGHEST_NS: u64 = (1 << 42) - 1;

/// One batch, but for its histogram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// Response times of requests that were due in it, and their sum.
    pub(super) count: u64,
    pub(super) sum_ns: u64,
    /// Replies that arrived in it, whenever they were due.
    pub(super) replies: u64,
}

/// Response times by the time at which they were due, and replies by the time at which they arrived.
#[derive(Clone, PartialEq, Eq)]
pub struct Batches {
    shift: u32,
    heads: Vec<Head>,
    /// `BUCKETS` for each batch.
    buckets: Vec<u32>,
}

// By hand: nobody wants to read 65,536 buckets.
impl std::fmt::Debug for Batches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Batches({} values, {} ns each)", self.count(), self.length_ns())
    }
}

impl Default for Batches {
    fn default() -> Self {
        Self::new()
    }
}

impl Batches {
    /// No batch has anything yet. All memory (about 260 KiB) is taken now, none later.
    pub fn new() -> Self {
        Self { shift: FIRST_SHIFT, heads: vec![Head::default(); BATCHES_MAX], buckets: vec![0; BATCHES_MAX * BUCKETS] }
    }

    /// Counts a response time of a request that was due so long after the window opened.
    #[inline]
    pub fn record(&mut self, due_ns: u64, response_ns: u64) {
        let batch = self.batch(due_ns);
        let head = &mut self.heads[batch];
        head.count += 1;
        head.sum_ns = head.sum_ns.saturating_add(response_ns);
        let bucket = &mut self.buckets[batch * BUCKETS + bucket(response_ns)];
        *bucket = bucket.saturating_add(1);
    }

    /// Counts a valid reply that arrived so long after the window opened.
    #[inline]
    pub fn replied(&mut self, at_ns: u64) {
        let batch = self.batch(at_ns);
        self.heads[batch].replies += 1;
    }

    #[inline]
    fn batch(&mut self, at_ns: u64) -> usize {
        let batch = (at_ns >> self.shift) as usize;
        if batch < BATCHES_MAX { batch } else { self.make_room(at_ns) }
    }

    #[cold]
    fn make_room(&mut self, at_ns: u64) -> usize {
        while at_ns >> self.shift >= BATCHES_MAX as u64 {
            self.coarsen();
        }
        (at_ns >> self.shift) as usize
    }

    /// Neighbours become one.
    fn coarsen(&mut self) {
        self.shift += 1;
        for batch in 0..BATCHES_MAX {
            let head = std::mem::take(&mut self.heads[batch]);
            add_head(&mut self.heads[batch / 2], &head);
            if batch % 2 == 0 {
                self.buckets.copy_within(batch * BUCKETS..(batch + 1) * BUCKETS, batch / 2 * BUCKETS);
            } else {
                let (left, right) = self.buckets.split_at_mut(batch * BUCKETS);
                add_buckets(&mut left[batch / 2 * BUCKETS..][..BUCKETS], &right[..BUCKETS]);
            }
        }
        self.buckets[BATCHES_MAX / 2 * BUCKETS..].fill(0);
    }

    /// Adds everything that `other` recorded, as if it had been recorded here: both count from the same instant.
    pub fn merge(&mut self, other: &Self) {
        while self.shift < other.shift {
            self.coarsen();
        }
        let coarser = self.shift - other.shift;
        for batch in (0..BATCHES_MAX).filter(|batch| other.heads[*batch] != Head::default()) {
            let into = batch >> coarser;
            add_head(&mut self.heads[into], &other.heads[batch]);
            add_buckets(&mut self.buckets[into * BUCKETS..][..BUCKETS], other.row(batch));
        }
    }

    /// Becomes what `other` is, in the memory that is here.
    pub fn copy_from(&mut self, other: &Self) {
        self.shift = other.shift;
        self.heads.copy_from_slice(&other.heads);
        self.buckets.copy_from_slice(&other.buckets);
    }

    /// How many response times were recorded.
    pub fn count(&self) -> u64 {
        self.heads.iter().map(|head| head.count).sum()
    }

    /// How many replies.
    pub fn replies(&self) -> u64 {
        self.heads.iter().map(|head| head.replies).sum()
    }

    /// The length of a batch.
    pub fn length_ns(&self) -> u64 {
        1 << self.shift
    }

    /// Batches of which a window of this length has the whole.
    pub fn whole(&self, window_ns: u64) -> usize {
        ((window_ns >> self.shift) as usize).min(BATCHES_MAX)
    }

    /// Batches up to the last that has something.
    pub(super) fn used(&self) -> usize {
        self.heads.iter().rposition(|head| *head != Head::default()).map_or(0, |last| last + 1)
    }

    pub(super) fn heads(&self) -> &[Head] {
        &self.heads
    }

    /// The histogram of a batch.
    pub(super) fn row(&self, batch: usize) -> &[u32] {
        &self.buckets[batch * BUCKETS..(batch + 1) * BUCKETS]
    }
}

fn add_head(into: &mut Head, head: &Head) {
    into.count += head.count;
    into.sum_ns = into.sum_ns.saturating_add(head.sum_ns);
    into.replies += head.replies;
}

fn add_buckets(into: &mut [u32], from: &[u32]) {
    for (sum, count) in into.iter_mut().zip(from) {
        *sum = sum.saturating_add(*count);
    }
}

#[inline]
fn bucket(ns: u64) -> usize {
    let ns = ns.clamp(LOWEST_NS, HIGHEST_NS);
    let bits = ns.ilog2();
    let sub = (ns >> (bits - SUB_BITS)) & ((1 << SUB_BITS) - 1);
    (((bits - LOWEST_BITS) << SUB_BITS) as u64 + sub) as usize
}

/// Where a bucket begins.
pub(super) fn bucket_start_ns(bucket: usize) -> u64 {
    let bits = LOWEST_BITS + (bucket >> SUB_BITS) as u32;
    let sub = bucket as u64 & ((1 << SUB_BITS) - 1);
    (1 << bits) + (sub << (bits - SUB_BITS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn buckets_follow_one_another_and_are_narrow() {
        for index in 0..BUCKETS {
            let (start, end) = (bucket_start_ns(index), bucket_start_ns(index + 1));
            assert_eq!((bucket(start), bucket(end - 1)), (index, index));
            assert!((end - start) * 16 <= start, "{start} to {end}");
        }
        assert_eq!((bucket(0), bucket(u64::MAX)), (0, BUCKETS - 1));
    }

    #[test]
    fn length_doubles_and_nothing_is_lost() {
        let mut batches = Batches::new();
        for at_ms in 0..5_000_u64 {
            batches.record(at_ms * 1_000_000, 1_000 * (at_ms + 1));
            batches.replied(at_ms * 1_000_000 + 7);
        }
        assert_eq!(batches.length_ns(), 1 << 26); // 67 ms: 75 of them
        assert_eq!((batches.count(), batches.whole(5_000_000_000)), (5_000, 74));
        let heads = batches.heads();
        assert_eq!(heads.iter().map(|head| head.sum_ns).sum::<u64>(), 1_000 * 5_000 * 5_001 / 2);
        assert_eq!(heads.iter().map(|head| head.replies).sum::<u64>(), 5_000);
        for (batch, head) in heads.iter().enumerate() {
            assert_eq!(batches.row(batch).iter().map(|count| u64::from(*count)).sum::<u64>(), head.count);
            assert_eq!(head.count > 0, batch < 75, "batch {batch}");
        }
    }

    #[test]
    fn a_merge_equals_the_record_of_the_union() {
        let mut rng = Rng::new(1);
        let mut random = |n: u64, longest_ns: u64| -> Vec<(u64, u64)> {
            (0..n).map(|_| (rng.below(longest_ns), rng.below(1 << 30))).collect()
        };
        let recorded = |values: &[(u64, u64)]| {
            let mut batches = Batches::new();
            for (due_ns, response_ns) in values {
                batches.record(*due_ns, *response_ns);
                batches.replied(due_ns + response_ns);
            }
            batches
        };
        // One of them is longer than the other, whichever comes first; so are their batches.
        let (short, long) = (random(3_000, 900_000_000), random(2_000, 70_000_000_000));
        let union = recorded(&[short.clone(), long.clone()].concat());
        for (first, second) in [(&short, &long), (&long, &short)] {
            let mut merged = recorded(first);
            merged.merge(&recorded(second));
            merged.merge(&Batches::new());
            assert_eq!(merged, union);
            let mut copy = Batches::new();
            copy.copy_from(&merged);
            assert_eq!(copy, union);
        }
    }

    #[test]
    fn a_time_beyond_reason_ends() {
        let mut batches = Batches::new();
        batches.record(5, 5);
        batches.record(u64::MAX, u64::MAX);
        assert_eq!(batches.count(), 2);
    }
}
