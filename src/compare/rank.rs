//! How far in from the extremes the bounds of an interval lie, from the exact distributions of two rank statistics.
//!
//! An interval between the `k + 1`-th smallest and the `k + 1`-th largest of all averages (or differences) of pairs
//! misses on either side exactly if the statistic is at most `k` (Hodges and Lehmann, "Estimates of location based on
//! rank tests", 1963; Hollander, Wolfe and Chicken, *Nonparametric Statistical Methods*, 2014, 3.3 and 4.3).

/// So many observations at most (of a side, or in all) have exact distributions; those of more are as good as normal.
const EXACT_SIGNED_MOST: usize = 500;
const EXACT_BETWEEN_MOST: usize = 400;

/// Where an interval's bounds lie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rank {
    /// How many values are beyond the bound on each side.
    pub skipped: usize,
    /// How often the interval misses, both sides together: at most what was asked for.
    pub misrate: f64,
}

/// Among the averages of all pairs of `n` observations that scatter evenly around a centre, each with itself too
/// (Wilcoxon's signed ranks). None: `n` observations cannot reach this rate.
pub fn signed(n: usize, misrate: f64) -> Option<Rank> {
    let pairs = n * (n + 1) / 2;
    if n > EXACT_SIGNED_MOST {
        let n = n as f64;
        return Some(normal(pairs as f64 / 2.0, (n * (n + 1.0) * (2.0 * n + 1.0) / 24.0).sqrt(), misrate));
    }
    // Each rank is positive or not, with equal chance; their sum is the statistic. Half of it tells the other half.
    let mut chance = vec![0.0; pairs / 2 + 1];
    chance[0] = 1.0;
    for rank in 1..=n {
        for sum in (0..chance.len()).rev() {
            let with = if sum >= rank { chance[sum - rank] } else { 0.0 };
            chance[sum] = (chance[sum] + with) / 2.0;
        }
    }
    last_within(&chance, 1.0, misrate)
}

/// Among the differences of all pairs of one of `n` and one of `m` observations (Mann and Whitney's U). None: so few
/// cannot reach this rate.
pub fn between(n: usize, m: usize, misrate: f64) -> Option<Rank> {
    if n == 0 || m == 0 {
        return None;
    }
    if n + m > EXACT_BETWEEN_MOST {
        let (n, m) = (n as f64, m as f64);
        return Some(normal(n * m / 2.0, (n * m * (n + m + 1.0) / 12.0).sqrt(), misrate));
    }
    // The counts are the coefficients of a Gaussian binomial: the product of (1 - q^(m + i)) / (1 - q^i).
    let mut count = vec![0.0; n * m / 2 + 1];
    count[0] = 1.0;
    let mut total = 1.0;
    for i in 1..=n {
        for u in (m + i..count.len()).rev() {
            count[u] -= count[u - m - i];
        }
        for u in i..count.len() {
            count[u] += count[u - i];
        }
        total = total * (m + i) as f64 / i as f64; // whole at every step
    }
    last_within(&count, total, misrate)
}

/// Among `n` sorted observations, around their median, whatever their distribution (the sign test). None as above.
pub fn median(n: usize, misrate: f64) -> Option<Rank> {
    let mut chance = vec![0.0; n / 2 + 1];
    chance[0] = 1.0;
    for _ in 0..n {
        for below in (0..chance.len()).rev() {
            let one_more = if below > 0 { chance[below - 1] } else { 0.0 };
            chance[below] = (chance[below] + one_more) / 2.0;
        }
    }
    last_within(&chance, 1.0, misrate)
}

/// The last value of the statistic up to which its share of `total`, on both sides, is within the rate.
fn last_within(counts: &[f64], total: f64, misrate: f64) -> Option<Rank> {
    let mut sum = 0.0;
    let both_sides = counts.iter().map(|count| {
        sum += count;
        2.0 * sum / total
    });
    // A rate that is attained exactly must not fail for its last binary digit.
    let within = both_sides.take_while(|attained| *attained <= misrate * (1.0 + 1e-9));
    within.enumerate().last().map(|(skipped, attained)| Rank { skipped, misrate: attained.min(misrate) })
}

/// By the normal distribution, whose tail beyond z is at most its density over z (Mills). Both statistics have lighter
/// tails than it, so this errs to the safe side.
fn normal(mean: f64, deviation: f64, misrate: f64) -> Rank {
    let both_sides = |z: f64| 2.0 * (-z * z / 2.0).exp() / (std::f64::consts::TAU.sqrt() * z);
    let (mut low, mut high) = (1e-3, 40.0);
    for _ in 0..60 {
        let z = (low + high) / 2.0;
        if both_sides(z) > misrate { low = z } else { high = z }
    }
    Rank { skipped: (mean - high * deviation - 0.5).max(0.0) as usize, misrate }
}
