//! The crossing where only yes and no are known: between the rates at which it held and those at which it did not.

use super::observation::Share;

/// Probes in favour and against, as far as they do not contradict each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bracket {
    /// The highest rate that held, with none below it that did not; None: there is no such rate.
    pub held: Option<f64>,
    /// The lowest rate that did not, with none above it that held.
    pub broken: Option<f64>,
}

/// Of (rate, whether it held). Where a low rate failed and a higher one held, both are within the bracket, which then
/// is as wide as the contradiction.
pub fn bracket(answers: impl Iterator<Item = (f64, bool)> + Clone) -> Bracket {
    let lowest_broken = answers.clone().filter(|(_, held)| !held).map(|(rate, _)| rate).fold(f64::INFINITY, f64::min);
    let highest_held = answers.clone().filter(|(_, held)| *held).map(|(rate, _)| rate).fold(0.0, f64::max);
    let held = answers.clone().filter(|(rate, held)| *held && *rate < lowest_broken).map(|(rate, _)| rate);
    let broken = answers.filter(|(rate, held)| !held && *rate > highest_held).map(|(rate, _)| rate);
    Bracket { held: held.reduce(f64::max), broken: broken.reduce(f64::min) }
}

/// Where (rate, share) in any order cross what is allowed, if shares can only grow with the rate: the highest rate that
/// is within what is allowed, and the lowest that is not. None: there is no such rate.
///
/// Shares that contradict each other are pooled (isotonic regression by pooling adjacent violators: Barlow et al.,
/// *Statistical Inference under Order Restrictions*, 1972).
pub fn isotonic(points: &[(f64, Share)]) -> (Option<f64>, Option<f64>) {
    let mut sorted = points.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut pools: Vec<Pool> = Vec::new();
    for (rate, share) in &sorted {
        let mut pool = Pool { lowest: *rate, highest: *rate, count: share.count, beyond: share.beyond };
        while let Some(below) = pools.pop_if(|below| below.share() >= pool.share() || below.highest == pool.lowest) {
            let (count, beyond) = (below.count + pool.count, below.beyond + pool.beyond);
            pool = Pool { lowest: below.lowest, highest: pool.highest, count, beyond };
        }
        pools.push(pool);
    }
    let allowed = points.first().map_or(0.0, |(_, share)| share.allowed);
    let within = pools.iter().rev().find(|pool| pool.share() <= allowed).map(|pool| pool.highest);
    let beyond = pools.iter().find(|pool| pool.share() > allowed).map(|pool| pool.lowest);
    (within, beyond)
}

/// Neighbours that count as one.
struct Pool {
    lowest: f64,
    highest: f64,
    count: f64,
    beyond: f64,
}

impl Pool {
    fn share(&self) -> f64 {
        self.beyond / self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_that_contradict_each_other_are_pooled() {
        let share = |beyond: f64| Share { count: 100.0, beyond, allowed: 0.1, inflation: None };
        let of = |points: &[(f64, f64)]| {
            isotonic(&points.iter().map(|(rate, beyond)| (*rate, share(*beyond))).collect::<Vec<_>>())
        };
        assert_eq!(of(&[]), (None, None));
        assert_eq!(of(&[(2.0, 5.0), (1.0, 0.0)]), (Some(2.0), None));
        assert_eq!(of(&[(2.0, 50.0), (1.0, 11.0)]), (None, Some(1.0)));
        assert_eq!(of(&[(3.0, 50.0), (1.0, 0.0), (2.0, 9.0)]), (Some(2.0), Some(3.0)));
        // The two in the middle have 11 of 100 together, or 9.
        assert_eq!(of(&[(1.0, 0.0), (2.0, 20.0), (3.0, 2.0), (4.0, 90.0)]), (Some(1.0), Some(2.0)));
        assert_eq!(of(&[(1.0, 0.0), (2.0, 14.0), (3.0, 4.0), (4.0, 90.0)]), (Some(3.0), Some(4.0)));
        assert_eq!(of(&[(1.0, 0.0), (2.0, 14.0), (2.0, 2.0), (3.0, 90.0)]), (Some(2.0), Some(3.0)));
    }

    #[test]
    fn contradictions_widen_it() {
        let of = |answers: &[(f64, bool)]| {
            let Bracket { held, broken } = bracket(answers.iter().copied());
            (held, broken)
        };
        assert_eq!(of(&[]), (None, None));
        assert_eq!(of(&[(1.0, true), (2.0, true)]), (Some(2.0), None));
        assert_eq!(of(&[(1.0, true), (2.0, true), (3.0, false), (4.0, false)]), (Some(2.0), Some(3.0)));
        assert_eq!(of(&[(1.0, true), (2.0, false), (3.0, true), (4.0, false)]), (Some(1.0), Some(4.0)));
        assert_eq!(of(&[(2.0, true), (2.0, false), (1.0, true), (3.0, false)]), (Some(1.0), Some(3.0)));
        assert_eq!(of(&[(2.0, false), (3.0, true)]), (None, None));
    }
}
