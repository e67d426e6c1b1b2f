//! The uncertainty of a run's figures, out of its batches.

use super::batches::{BUCKETS, Batches, bucket_start_ns};
use super::spread::{GROUPS_LEAST, Spread, Z, order_statistics, student_t};

/// Batches, with what is asked of them more than once.
#[derive(Debug)]
pub struct Figures<'a> {
    batches: &'a Batches,
    window_ns: u64,
    totals: Vec<u64>,
    count: u64,
}

/// Where a quantile lies, and what that rests on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ranks {
    /// The quantiles of the sample between which the true one lies, at 95 %; None: too few values.
    pub between: Option<(f64, f64)>,
    /// Independent values that would say as much.
    pub effective: f64,
}

/// Independent values that there have to be in all, and beyond a percentile: with fewer, the scatter is that of a few
/// bursts, and an interval would hold the truth less often than it says.
const EFFECTIVE_IN_ALL: f64 = 100.0;
const EFFECTIVE_BEYOND: f64 = 10.0;
/// And for a mean, which bursts bend more than they bend a percentile.
const EFFECTIVE_FOR_MEAN: f64 = 200.0;

impl<'a> Figures<'a> {
    pub fn new(batches: &'a Batches, window_ns: u64) -> Self {
        let mut totals = vec![0; BUCKETS];
        for batch in 0..batches.used() {
            for (total, count) in totals.iter_mut().zip(batches.row(batch)) {
                *total += u64::from(*count);
            }
        }
        Self { batches, window_ns, count: totals.iter().sum(), totals }
    }

    /// Whether there are too few batches to see how they scatter.
    pub fn are_too_few(&self) -> bool {
        self.batches.whole(self.window_ns) < GROUPS_LEAST || self.batches.used() < GROUPS_LEAST
    }

    /// None: the values depend on one another over too much of the window to tell.
    pub fn quantile(&self, q: f64) -> Option<Ranks> {
        let spread = self.indicator(q)?;
        let p = spread.estimate;
        let independent = p * (1.0 - p) / self.count as f64;
        let inflation = if spread.variance > independent { spread.variance / independent } else { 1.0 };
        let effective = self.count as f64 / inflation;
        // The variance itself is an estimate: t instead of z.
        let penalty = (student_t(spread.freedom) / Z).powi(2);
        let surely = effective / sure(spread.freedom);
        let enough = surely >= EFFECTIVE_IN_ALL && surely * q.min(1.0 - q) >= EFFECTIVE_BEYOND;
        let between = order_statistics(q, effective / penalty).filter(|_| enough);
        Some(Ranks { between, effective })
    }

    /// The part of the values up to a limit close to quantile `q`: up to the end of a bucket, so that it is exact.
    fn indicator(&self, q: f64) -> Option<Spread> {
        let odds = |p: f64| (p / (1.0 - p)).ln();
        let (mut below, mut nearest) = (0, None::<(f64, usize)>);
        for (bucket, count) in self.totals.iter().enumerate().filter(|(_, count)| **count > 0) {
            below += count;
            if below < self.count {
                let distance = (odds(below as f64 / self.count as f64) - odds(q)).abs();
                if nearest.is_none_or(|(least, _)| distance < least) {
                    nearest = Some((distance, bucket));
                }
            }
        }
        let used = self.batches.used();
        let under: Vec<f64> = self.batches.heads()[..used].iter().map(|head| head.count as f64).collect();
        let Some((_, limit)) = nearest else {
            // All in one bucket: their order is not known, nor needed, for they differ by less than 6 %. No variance
            // then, and the values pass for independent.
            return Spread::of_ratio(&under, &under);
        };
        let first = self.totals.iter().position(|count| *count > 0).unwrap_or(0);
        let up_to = |batch: usize| self.batches.row(batch)[first..=limit].iter().map(|n| f64::from(*n)).sum();
        let over: Vec<f64> = (0..used).map(up_to).collect();
        Spread::of_ratio(&over, &under)
    }

    /// The mean response time, ns, and how many independent values would say as much.
    pub fn mean(&self) -> Option<(Spread, f64)> {
        let heads = &self.batches.heads()[..self.batches.used()];
        let sums: Vec<f64> = heads.iter().map(|head| head.sum_ns as f64).collect();
        let counts: Vec<f64> = heads.iter().map(|head| head.count as f64).collect();
        let spread = Spread::of_ratio(&sums, &counts)?;
        let count = self.count as f64;
        let independent = self.variance() / count;
        let effective = if independent < spread.variance { count * independent / spread.variance } else { count };
        Some((spread, effective))
    }

    /// Of single response times, each taken for the middle of its bucket.
    fn variance(&self) -> f64 {
        let middles: Vec<(f64, f64)> = (0..BUCKETS)
            .filter(|bucket| self.totals[*bucket] > 0)
            .map(|bucket| {
                (self.totals[bucket] as f64, (bucket_start_ns(bucket) + bucket_start_ns(bucket + 1)) as f64 / 2.0)
            })
            .collect();
        let count = self.count as f64;
        let mean = middles.iter().map(|(n, ns)| n * ns).sum::<f64>() / count;
        middles.iter().map(|(n, ns)| n * (ns - mean).powi(2)).sum::<f64>() / count
    }

    /// Replies a second.
    pub fn rate(&self) -> Option<Spread> {
        let heads = &self.batches.heads()[..self.batches.whole(self.window_ns)];
        let replies: Vec<f64> = heads.iter().map(|head| head.replies as f64).collect();
        Spread::of_ratio(&replies, &vec![self.batches.length_ns() as f64 / 1e9; heads.len()])
    }
}

pub fn enough_for_a_mean(spread: &Spread, effective: f64) -> bool {
    effective / sure(spread.freedom) >= EFFECTIVE_FOR_MEAN
}

/// By what factor a variance that was estimated with so many degrees of freedom may be too small, with 95 %: freedom /
/// chi-squared, by the approximation of Wilson and Hilferty (1931).
fn sure(freedom: f64) -> f64 {
    let part = 2.0 / (9.0 * freedom);
    (1.0 - part - 1.645 * part.sqrt()).powi(-3)
}
