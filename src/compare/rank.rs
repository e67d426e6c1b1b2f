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
        let reached = (rank * (rank + 1) / 2).min(chance.len() - 1);
        for sum in (0..=reached).rev() {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The critical values of Wilcoxon's and of Mann and Whitney's tests, two-sided at 5 % and 1 %, from any textbook.
    #[test]
    fn ranks_are_those_of_the_published_tables() {
        for (n, at_5, at_1) in [(8, 3, 0), (10, 8, 3), (12, 13, 7), (16, 29, 19), (20, 52, 37), (30, 137, 109)] {
            let skipped = [0.05, 0.01].map(|misrate| signed(n, misrate).map(|rank| rank.skipped));
            assert_eq!(skipped, [Some(at_5), Some(at_1)], "{n} blocks");
        }
        for (n, m, at_5, at_1) in [(5, 5, 2, 0), (6, 8, 8, 4), (8, 8, 13, 7), (10, 10, 23, 16), (20, 20, 127, 105)] {
            let skipped = [0.05, 0.01].map(|misrate| between(n, m, misrate).map(|rank| rank.skipped));
            assert_eq!(skipped, [Some(at_5), Some(at_1)], "{n} and {m} runs");
        }
        assert_eq!(median(20, 0.05).map(|rank| rank.skipped), Some(5));
    }

    #[test]
    fn a_rate_that_cannot_be_reached_is_refused_and_one_that_just_can_is_not() {
        assert_eq!(signed(9, 0.0025), None);
        assert_eq!(signed(10, 0.0025), Some(Rank { skipped: 0, misrate: 1.0 / 512.0 }));
        assert_eq!(signed(10, 1.0 / 512.0), Some(Rank { skipped: 0, misrate: 1.0 / 512.0 }));
        assert_eq!(between(5, 5, 0.0025), None);
        assert_eq!(between(6, 6, 2.0 / 924.0), Some(Rank { skipped: 0, misrate: 2.0 / 924.0 }));
        assert_eq!(median(10, 1.0 / 512.0), Some(Rank { skipped: 0, misrate: 1.0 / 512.0 }));
        assert!([signed(0, 0.5), between(0, 3, 0.5), between(3, 0, 0.5), median(0, 0.5)].iter().all(Option::is_none));
    }

    /// The first size without exact figures is no bolder than the last with them.
    #[test]
    fn many_observations_go_on_where_few_end() {
        for misrate in [0.01, 0.0025, 0.0001] {
            let by_pairs = |n: usize, skipped: usize| skipped as f64 / (n * n) as f64;
            let (last, first) = (signed(500, misrate).unwrap(), signed(501, misrate).unwrap());
            let change = by_pairs(501, first.skipped) / by_pairs(500, last.skipped);
            assert!((0.99..1.001).contains(&change), "{misrate}: {last:?}, {first:?}");
            let (last, first) = (between(200, 200, misrate).unwrap(), between(201, 201, misrate).unwrap());
            let change = by_pairs(201, first.skipped) / by_pairs(200, last.skipped);
            assert!((0.99..1.003).contains(&change), "{misrate}: {last:?}, {first:?}");
        }
    }
}
