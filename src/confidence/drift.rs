//! Whether a run's end is like its beginning.
//!
//! The first third of the window is compared with the last, once by the batches' medians of response time and once by
//! their rates of replies. A change counts as drift if it is relevant (more than `RELEVANT` of the smaller value) and
//! no chance (more than `SIGMAS` standard errors). Medians of batches, so that a stall that comes and goes does not
//! pass for a trend.

use super::batches::{BUCKETS, Batches, bucket_start_ns};

/// A smaller change than this matters to nobody, and happens on any shared machine.
const RELEVANT: f64 = 0.1;

/// The normal distribution has 1 in 16,000 beyond four deviations; what is left of the correlation makes it more
/// (measured in `tests/confidence.rs`).
const SIGMAS: f64 = 4.0;

/// A third of a window needs so many batches, and a batch so many values, to tell chance from change.
const BATCHES_LEAST: usize = 8;
const VALUES_LEAST: u64 = 20;

/// Where neighbours are nearly the same, nothing can be said about chance; this keeps the variance finite.
const CORRELATION_MOST: f64 = 0.95;

/// A figure in the first and the last third.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    pub first: f64,
    pub last: f64,
    /// The change in standard errors.
    pub sigmas: f64,
}

impl Change {
    pub fn is_drift(&self) -> bool {
        (self.last - self.first).abs() > RELEVANT * self.first.min(self.last) && self.sigmas > SIGMAS
    }

    fn between(first: &[f64], last: &[f64]) -> Option<Self> {
        if first.len().min(last.len()) < BATCHES_LEAST {
            return None;
        }
        let (from, to) = (median(first), median(last));
        let error = (variance_of_median(first) + variance_of_median(last)).sqrt();
        let change = (to - from).abs();
        let sigmas = if change == 0.0 { 0.0 } else { change / error };
        Some(Self { first: from, last: to, sigmas })
    }
}

/// What changed from the first third of the window to the last.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drift {
    /// The median response time, ns.
    pub response: Change,
    /// Replies a second.
    pub rate: Change,
}

impl Drift {
    /// None if there is too little to tell.
    pub fn of(batches: &Batches, window_ns: u64) -> Option<Self> {
        let whole = batches.whole(window_ns);
        let values: u64 = batches.heads()[..whole].iter().map(|head| head.count).sum();
        // So many neighbours together that they have enough values on average.
        let together = (VALUES_LEAST * whole as u64).div_ceil(values.max(1)).max(1) as usize;
        let groups = whole / together;
        let third = groups / 3;
        let (first, last) = (0..third, groups - third..groups);
        let group = |group: usize| group * together..(group + 1) * together;
        let medians = |third: std::ops::Range<usize>| -> Vec<f64> {
            third.filter_map(|index| median_response_ns(batches, group(index))).collect()
        };
        let seconds = batches.length_ns() as f64 * together as f64 / 1e9;
        let rates = |third: std::ops::Range<usize>| -> Vec<f64> {
            let replies = |index| batches.heads()[group(index)].iter().map(|head| head.replies).sum::<u64>();
            third.map(|index| replies(index) as f64 / seconds).collect()
        };
        Some(Self {
            response: Change::between(&medians(first.clone()), &medians(last.clone()))?,
            rate: Change::between(&rates(first), &rates(last))?,
        })
    }

    pub fn is_steady(&self) -> bool {
        !self.response.is_drift() && !self.rate.is_drift()
    }
}

/// The median of some batches, within their buckets by interpolation.
fn median_response_ns(batches: &Batches, range: std::ops::Range<usize>) -> Option<f64> {
    let count: u64 = batches.heads()[range.clone()].iter().map(|head| head.count).sum();
    let (half, mut below) = (count as f64 / 2.0, 0.0);
    for bucket in 0..BUCKETS {
        let mut here = 0.0;
        for batch in range.clone() {
            here += f64::from(batches.row(batch)[bucket]);
        }
        if here > 0.0 && below + here >= half {
            let (start, end) = (bucket_start_ns(bucket) as f64, bucket_start_ns(bucket + 1) as f64);
            return Some(start + (end - start) * (half - below) / here);
        }
        below += here;
    }
    None
}

/// Of the median of values that may depend on their neighbours: the variance of a median of independent normal values,
/// pi / 2 times that of their mean, with the deviation from the median absolute deviation, and times
/// (1 + r) / (1 - r), which is what a first-order autoregression costs.
///
/// All this is about what remains when a straight trend is taken away (Sen, JASA 63, 1968), or else a trend would be
/// taken for correlation and excuse itself.
fn variance_of_median(values: &[f64]) -> f64 {
    let residuals = without_trend(values);
    let distances: Vec<f64> = residuals.iter().map(|value| value.abs()).collect();
    let deviation = 1.4826 * median(&distances);
    let bounded: Vec<f64> = residuals.iter().map(|r| r.clamp(-3.0 * deviation, 3.0 * deviation)).collect();
    let square: f64 = bounded.iter().map(|r| r * r).sum();
    let beside: f64 = bounded.windows(2).map(|pair| pair[0] * pair[1]).sum();
    let n = values.len() as f64;
    let correlation = if square > 0.0 { (beside / square).max(0.0) } else { 0.0 };
    // From few values, and without their trend, it comes out too small by about (2 + 4 r) / n (Kendall, Biometrika 41,
    // 1954, has (1 + 4 r) / n with the mean taken away).
    let correlation = (correlation + (2.0 + 4.0 * correlation) / n).min(CORRELATION_MOST);
    std::f64::consts::FRAC_PI_2 * deviation * deviation / n * (1.0 + correlation) / (1.0 - correlation)
}

/// Distances from the line through the middle whose slope is the median of the slopes between all pairs.
fn without_trend(values: &[f64]) -> Vec<f64> {
    let pairs = (1..values.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
    let slopes: Vec<f64> = pairs.map(|(i, j)| (values[i] - values[j]) / (i - j) as f64).collect();
    let slope = median(&slopes);
    let level: Vec<f64> = values.iter().enumerate().map(|(i, value)| value - slope * i as f64).collect();
    let middle = median(&level);
    level.iter().map(|value| value - middle).collect()
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let n = sorted.len();
    if n % 2 == 1 { sorted[n / 2] } else { f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]) }
}
