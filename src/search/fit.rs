//! The share of requests beyond the limit against the rate, near the rate where it crosses what is allowed: a logistic
//! regression, and the interval of the crossing.
//!
//! Counts beyond a limit come in bursts, so they scatter more than a binomial distribution says. The factor is the
//! larger of two estimates: how much whole probes scatter about the fit (Pearson's statistic; probes are independent
//! of one another), and how much batches do within probes (McCullagh and Nelder, *Generalized Linear Models*, 1989,
//! 4.5: quasi-likelihood). The interval is Fieller's: all rates at which the fit cannot be told from what is allowed
//! (Finney, *Probit Analysis*, 1971, 4.7, for the dose with a given response).

use super::observation::Share;
use crate::confidence::spread::student_t;

/// Probes that a fit takes: with fewer, the interval would be a guess.
pub const PROBES_LEAST: usize = 6;
/// Steps of the iteration; it has converged after five or six, or never will.
const STEPS: usize = 40;
/// Relative change of the share's odds over the width of the window beyond which it is a step, not a slope.
const STEEPEST: f64 = 2_000.0;

/// A crossing with its interval, in requests a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Crossing {
    pub rate: f64,
    /// At 95 %; None: the slope is too uncertain for both ends to be known.
    pub interval: Option<(f64, f64)>,
    /// Change of the log odds for a relative change of the rate.
    pub slope: f64,
    /// By how much the counts scatter more than independent ones would.
    pub inflation: f64,
    pub probes: usize,
}

/// Where the fit through these (rate, share) crosses what is allowed. `centre` is a rate about which they lie.
///
/// None: they are too few, or do not determine a rising curve.
pub fn crossing(points: &[(f64, Share)], centre: f64) -> Option<Crossing> {
    let allowed = points.first()?.1.allowed;
    if points.len() < 3 {
        return None;
    }
    let wanted = (allowed / (1.0 - allowed)).ln();
    let at = |rate: f64| rate / centre - 1.0;
    let (a, b, information) = regression(points, &at)?;
    // Between probes, and within them.
    let freedom = points.len() as f64 - 2.0;
    let between = pearson(points, &at, a, b) / freedom;
    let known: Vec<f64> = points.iter().filter_map(|(_, share)| share.inflation).collect();
    let within = if known.is_empty() { 1.0 } else { known.iter().sum::<f64>() / known.len() as f64 };
    let inflation = between.max(within).max(1.0);
    let [[i11, i12], [_, i22]] = information;
    let determinant = i11 * i22 - i12 * i12;
    let [v11, v12, v22] = [i22, -i12, i11].map(|element| element / determinant * inflation);
    let rate = centre * (1.0 + (wanted - a) / b);
    let enough = points.len() >= PROBES_LEAST;
    let t = student_t(freedom);
    let ends = fieller([a - wanted, b], [v11, v12, v22], t).filter(|_| enough);
    let interval = ends.map(|(low, high)| (centre * (1.0 + low), centre * (1.0 + high)));
    let interval = interval.filter(|(low, high)| *low > 0.0 && high.is_finite());
    Some(Crossing { rate, interval, slope: b, inflation, probes: points.len() })
}

type Matrix = [[f64; 2]; 2];

/// Intercept and slope of the log odds, with Fisher's information, by iteratively reweighted least squares.
fn regression(points: &[(f64, Share)], at: &impl Fn(f64) -> f64) -> Option<(f64, f64, Matrix)> {
    let count: f64 = points.iter().map(|(_, share)| share.count).sum();
    let beyond: f64 = points.iter().map(|(_, share)| share.beyond).sum();
    if beyond <= 0.0 || beyond >= count {
        return None;
    }
    let (mut a, mut b) = ((beyond / (count - beyond)).ln(), 0.0);
    for _ in 0..STEPS {
        let (mut gradient, mut information) = ([0.0; 2], [[0.0; 2]; 2]);
        for (rate, share) in points {
            let x = at(*rate);
            let mean = logistic(a + b * x);
            let weight = share.count * mean * (1.0 - mean);
            let residual = share.beyond - share.count * mean;
            gradient = [gradient[0] + residual, gradient[1] + residual * x];
            information[0][0] += weight;
            information[0][1] += weight * x;
            information[1][1] += weight * x * x;
        }
        information[1][0] = information[0][1];
        let determinant = information[0][0] * information[1][1] - information[0][1] * information[1][0];
        if !determinant.is_finite() || determinant <= information[0][0].powi(2) * 1e-12 {
            return None; // all at one rate, or no curve at all
        }
        let step_a = (information[1][1] * gradient[0] - information[0][1] * gradient[1]) / determinant;
        let step_b = (information[0][0] * gradient[1] - information[0][1] * gradient[0]) / determinant;
        // A long step overshoots where the curve is flat.
        let short = (2.0 / step_a.abs().max(step_b.abs() * 0.1)).min(1.0);
        (a, b) = (a + short * step_a, b + short * step_b);
        if !a.is_finite() || b.abs() > STEEPEST {
            return None;
        }
        if step_a.abs() < 1e-9 && step_b.abs() < 1e-7 {
            return (b > 0.0).then_some((a, b, information));
        }
    }
    None
}

fn pearson(points: &[(f64, Share)], at: &impl Fn(f64) -> f64, a: f64, b: f64) -> f64 {
    let term = |(rate, share): &(f64, Share)| {
        let mean = logistic(a + b * at(*rate));
        (share.beyond - share.count * mean).powi(2) / (share.count * mean * (1.0 - mean)).max(f64::MIN_POSITIVE)
    };
    points.iter().map(term).sum()
}

/// The `x` at which `a + b x` is 0 within `t` standard errors; None: they have no end.
fn fieller([a, b]: [f64; 2], [v11, v12, v22]: [f64; 3], t: f64) -> Option<(f64, f64)> {
    let (square, half, rest) = (b * b - t * t * v22, a * b - t * t * v12, a * a - t * t * v11);
    let under = half * half - square * rest;
    if square <= 0.0 || under < 0.0 {
        return None;
    }
    let root = under.sqrt();
    Some(((-half - root) / square, (-half + root) / square))
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// Independent counts whose log odds are linear in the rate, with the crossing of 1 % at 1,000.
    fn points(slope: f64, probes: usize, rng: &mut Rng) -> Vec<(f64, Share)> {
        let wanted = (0.01_f64 / 0.99).ln();
        let point = |index: usize| {
            let rate = 900.0 + 200.0 * (index % 5) as f64 / 4.0;
            let p = logistic(wanted + slope * (rate / 1000.0 - 1.0));
            let beyond = (0..5_000).filter(|_| rng.unit() < p).count() as f64;
            (rate, Share { count: 5_000.0, beyond, allowed: 0.01, inflation: None })
        };
        (0..probes).map(point).collect()
    }

    #[test]
    fn the_interval_holds_the_truth_as_often_as_it_says() {
        let mut rng = Rng::new(11);
        let (mut found, mut held) = (0, 0);
        for _ in 0..1_000 {
            let crossing = crossing(&points(8.0, 10, &mut rng), 980.0);
            if let Some((low, high)) = crossing.and_then(|crossing| crossing.interval) {
                found += 1;
                held += u32::from(low <= 1000.0 && 1000.0 <= high);
            }
        }
        // The standard error of a share of 0.95 is 0.7 %; the factor of at least 1 makes it a little more.
        assert!(found > 900 && (930..=990).contains(&(held * 1000 / found)), "{held} of {found}");
    }

    #[test]
    fn what_determines_no_crossing_has_none() {
        let mut rng = Rng::new(1);
        assert!(crossing(&points(8.0, 2, &mut rng), 1000.0).is_none());
        // So few that an interval would be a guess.
        assert!(crossing(&points(30.0, 5, &mut rng), 1000.0).is_some_and(|fit| fit.interval.is_none()));
        let falling = crossing(&points(-30.0, 10, &mut rng), 1000.0);
        assert!(falling.is_none(), "{falling:?}");
        let mut one_rate = points(8.0, 10, &mut rng);
        one_rate.iter_mut().for_each(|(rate, _)| *rate = 1000.0);
        assert!(crossing(&one_rate, 1000.0).is_none());
        let mut never = points(8.0, 10, &mut rng);
        never.iter_mut().for_each(|(_, share)| share.beyond = 0.0);
        assert!(crossing(&never, 1000.0).is_none());
    }
}
