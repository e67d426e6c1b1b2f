//! How far a figure of one run may be off by chance, where its values depend on one another: a queue that is long now
//! is long a moment later, so that a million response times may say no more than a few thousand independent ones.
//!
//! The method of batch means (Law, *Simulation Modeling and Analysis*, 9.5.3): figures of long enough batches are as
//! good as independent, so that their scatter tells the uncertainty of the whole. All figures here are ratios of two
//! sums (values up to a limit for each value, nanoseconds for each value, replies for each nanosecond), and their
//! variance is that of a ratio estimator (Cochran, *Sampling Techniques*, 1977, 6.3), which bears unequal batches.

/// Batches that are looked at first, and fewer than which say nothing.
const GROUPS_MOST: usize = 64;
pub const GROUPS_LEAST: usize = 8;

/// Neighbours whose residuals correlate more than chance explains belong into one batch (Fishman, "Grouping
/// observations in digital simulation", Management Science 24, 1978). Under independence the correlation is about
/// normal with deviation 1 / sqrt(groups); this is the one-sided limit at 5 %.
const CORRELATION_LIMIT: f64 = 1.645;

/// A ratio of two sums and its uncertainty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub estimate: f64,
    pub variance: f64,
    /// Degrees of freedom of the variance.
    pub freedom: f64,
}

impl Spread {
    /// Of `sum(over) / sum(under)`, from the parts that each batch, in the order of time, contributed. None: the
    /// batches are too few, or depend on one another however long they are made.
    pub fn of_ratio(over: &[f64], under: &[f64]) -> Option<Self> {
        let (total_over, total_under) = (over.iter().sum::<f64>(), under.iter().sum::<f64>());
        if total_under <= 0.0 {
            return None;
        }
        let estimate = total_over / total_under;
        let mut groups = GROUPS_MOST.min(over.len());
        while groups >= GROUPS_LEAST {
            let residuals: Vec<f64> = grouped(over, groups)
                .zip(grouped(under, groups))
                .map(|(over, under)| over - estimate * under)
                .collect();
            let square: f64 = residuals.iter().map(|r| r * r).sum();
            let beside: f64 = residuals.windows(2).map(|pair| pair[0] * pair[1]).sum();
            let correlation = if square > 0.0 { (beside / square).max(0.0) } else { 0.0 };
            let count = groups as f64;
            if correlation <= CORRELATION_LIMIT / count.sqrt() {
                // What correlation remains makes the variance too small: the term of order 1 / length is removed by
                // extrapolation, 2 V(2 m) - V(m) = V(m) (1 + 2 r) (Vats and Flegal, "Lugsail lag windows", 2022).
                let variance = square * count / (count - 1.0) / (total_under * total_under);
                let variance = variance * (1.0 + 2.0 * correlation);
                return Some(Self { estimate, variance, freedom: count - 1.0 });
            }
            groups /= 2;
        }
        None
    }

    /// Half of the two-sided interval at 95 %.
    pub fn half_width(&self) -> f64 {
        student_t(self.freedom) * self.variance.sqrt()
    }
}

/// Sums of so many groups of neighbours, as equal as they can be.
fn grouped(values: &[f64], groups: usize) -> impl Iterator<Item = f64> + '_ {
    let bound = move |group: usize| group * values.len() / groups;
    (0..groups).map(move |group| values[bound(group)..bound(group + 1)].iter().sum())
}

/// The normal distribution's two-sided 95 % point.
pub const Z: f64 = 1.959_964;

/// Student's t, two-sided 95 %: the expansion of Abramowitz and Stegun, 26.7.5. From 7 degrees of freedom on it is
/// right to three digits.
pub fn student_t(freedom: f64) -> f64 {
    let z = Z;
    let first = (z.powi(3) + z) / 4.0;
    let second = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
    let third = (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0;
    z + first / freedom + second / freedom.powi(2) + third / freedom.powi(3)
}

/// The part of a sample that its quantile `q` lies within, at 95 %: (0.45, 0.55) says that the true median lies between
/// the values at these two quantiles. By order statistics (Conover, *Practical Nonparametric Statistics*, 1999, 3.2):
/// how many of `n` independent values lie below the true quantile is binomial, whatever their distribution.
///
/// None where the interval leaves the sample.
pub fn order_statistics(q: f64, n: f64) -> Option<(f64, f64)> {
    let scarce = q.min(1.0 - q);
    let (low, high) = if n * scarce < EXACT_BELOW { binomial_ranks(scarce, n)? } else { normal_ranks(scarce, n) };
    if low < 1.0 || high > n {
        return None;
    }
    // Ranks count from the near end, and a quantile is the rank from below.
    Some(if q > 0.5 { (1.0 - (high - 1.0) / n, 1.0 - (low - 1.0) / n) } else { (low / n, high / n) })
}

/// Where fewer values than this lie beyond a quantile, the binomial distribution is added up; above, it is as good as
/// normal.
const EXACT_BELOW: f64 = 100.0;

/// The ranks, from 1, whose values hold quantile `p` (up to 0.5) between them with at least 95 %.
fn binomial_ranks(p: f64, n: f64) -> Option<(f64, f64)> {
    let n = n.floor();
    let (mut count, mut probability) = (0.0, (n * (1.0 - p).ln()).exp());
    let (mut below, mut low) = (probability, None);
    // `below` is the probability that `count` values or fewer lie below the true quantile.
    while below < 0.975 {
        if below > 0.025 && low.is_none() {
            low = Some(count);
        }
        if count >= n {
            return None;
        }
        probability *= (n - count) / (count + 1.0) * p / (1.0 - p);
        count += 1.0;
        below += probability;
    }
    Some((low?, count + 1.0))
}

fn normal_ranks(p: f64, n: f64) -> (f64, f64) {
    let (mean, half) = (n * p, Z * (n * p * (1.0 - p)).sqrt());
    (mean - half, mean + half + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t_is_that_of_the_tables() {
        for (freedom, t) in [(7.0, 2.365), (15.0, 2.131), (31.0, 2.040), (63.0, 1.998), (1e9, 1.960)] {
            assert!((student_t(freedom) - t).abs() < 0.002, "{freedom}: {}", student_t(freedom));
        }
    }

    #[test]
    fn ranks_are_those_of_the_tables() {
        assert_eq!(binomial_ranks(0.5, 20.0), Some((6.0, 15.0)));
        assert_eq!(binomial_ranks(0.5, 100.0), Some((40.0, 61.0)));
        assert_eq!(order_statistics(0.5, 5.0), None);
        assert_eq!(order_statistics(0.5, 20.0), Some((0.3, 0.75)));
        // Of 1,000 values, the 4th to the 18th from above hold p99.
        let (low, high) = order_statistics(0.99, 1_000.0).unwrap();
        assert!((low - 0.983).abs() < 1e-9 && (high - 0.997).abs() < 1e-9, "{low} {high}");
    }

    #[test]
    fn the_normal_approximation_continues_the_binomial() {
        for q in [0.5, 0.9, 0.99, 0.999] {
            let n = EXACT_BELOW / (1.0 - q);
            let [exact, normal] = [n * 0.9999, n * 1.0001].map(|n| order_statistics(q, n).unwrap());
            let width = exact.1 - exact.0;
            let close = |a: f64, b: f64| (a - b).abs() < width * 0.05;
            assert!(close(exact.0, normal.0) && close(exact.1, normal.1), "{q}: {exact:?} {normal:?}");
        }
    }

    #[test]
    fn batches_that_follow_one_another_are_merged() {
        let ones = vec![1.0; 128];
        let steady: Vec<f64> = (0..128).map(|i| f64::from(i % 2)).collect();
        let spread = Spread::of_ratio(&steady, &ones).unwrap();
        assert!((spread.estimate - 0.5).abs() < 1e-9 && spread.half_width() < 1e-6, "{spread:?}");
        let rising: Vec<f64> = (0..128).map(f64::from).collect();
        assert_eq!(Spread::of_ratio(&rising, &ones), None);
        assert_eq!(Spread::of_ratio(&[1.0; 7], &[1.0; 7]), None);
        assert_eq!(Spread::of_ratio(&[], &[]), None);
        assert!(Spread::of_ratio(&ones, &ones).is_some_and(|spread| spread.variance == 0.0));
    }
}
