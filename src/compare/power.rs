//! What an experiment that is yet to be made will see: the smallest change that nine of ten find, and how many blocks
//! that takes. What one that was made could see is [`Estimate::reach`](super::estimate::Estimate).
//!
//! A change is found if the interval's bound clears the margin. For a given number of blocks and normal noise, that
//! bound is off by a multiple of the spread that nine of ten experiments stay within. The t distribution makes it far
//! too small (10 blocks at 0.25 %: 1.8 instead of 2.3, because the bound is the smallest difference). So it is found by
//! simulation: always the same experiments, so always the same answer.

use super::estimate::{POWER, averages, differences};
use super::rank;
use crate::rng::Rng;

/// What the observations are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Paired { blocks: usize },
    Unpaired { base: usize, candidate: usize },
}

/// Experiments are simulated until they had so many pairs: 10,000 small ones, 1,200 large ones. Each counts twice, once
/// for each of its bounds.
const PAIRS: usize = 1_000_000;
/// What is taken for [`POWER`] there, so that the simulation's own error of half a point does no harm.
const POWER_WITH_ERROR: f64 = POWER + 0.01;
/// Beyond so many observations the multiple shrinks with the square root of their number (in truth a little faster).
const SIMULATED_MOST: usize = 40;

/// The smallest change (a share, 0.031) that such an experiment finds in 90 % of cases; `spread` is that of block
/// differences ([`spread`]), or of the runs of either side ([`pooled_spread`]), as logarithms; `margin` is a share.
/// None: it can find none, because it is too small for this rate, or the spread is not known.
pub fn smallest_visible(shape: Shape, spread: f64, misrate: f64, margin: f64) -> Option<f64> {
    let visible = margin.ln_1p() + multiple(shape, misrate)? * spread;
    visible.is_finite().then(|| visible.exp_m1())
}

/// How many blocks make [`smallest_visible`] at most `detect`. None: more than `most`.
pub fn blocks_needed(spread: f64, misrate: f64, margin: f64, detect: f64, most: usize) -> Option<usize> {
    let enough = |blocks: usize| {
        let visible = smallest_visible(Shape::Paired { blocks }, spread, misrate, margin);
        visible.is_some_and(|visible| visible <= detect)
    };
    if !enough(most) {
        return None;
    }
    let (mut few, mut many) = (0, most);
    while many - few > 1 {
        let blocks = usize::midpoint(few, many);
        if enough(blocks) { many = blocks } else { few = blocks }
    }
    Some(many)
}

/// How many spreads beyond the margin a change must be to be found in 90 % of experiments. None: nothing ever is.
pub fn multiple(shape: Shape, misrate: f64) -> Option<f64> {
    let distances = match shape {
        Shape::Paired { blocks } => paired_distances(blocks.min(SIMULATED_MOST), misrate)?,
        Shape::Unpaired { base, candidate } => {
            unpaired_distances(base.min(SIMULATED_MOST), candidate.min(SIMULATED_MOST), misrate)?
        }
    };
    Some(quantile(distances, POWER_WITH_ERROR) * (variance(shape, usize::MAX) / variance(shape, SIMULATED_MOST)).sqrt())
}

/// Of the centre, in squared spreads, if no side has more than `most` observations.
fn variance(shape: Shape, most: usize) -> f64 {
    let one = |n: usize| 1.0 / n.min(most) as f64;
    match shape {
        Shape::Paired { blocks } => one(blocks),
        Shape::Unpaired { base, candidate } => one(base) + one(candidate),
    }
}

/// How far beyond the truth the bounds of the interval are, in spreads, in each experiment.
fn paired_distances(blocks: usize, misrate: f64) -> Option<Vec<f64>> {
    let skipped = rank::signed(blocks, misrate)?.skipped;
    let mut rng = Rng::new(blocks as u64);
    let experiment = |_| bounds(averages(&normals(&mut rng, blocks)), skipped);
    Some((0..experiments(blocks * (blocks + 1) / 2)).flat_map(experiment).collect())
}

fn unpaired_distances(base: usize, candidate: usize, misrate: f64) -> Option<Vec<f64>> {
    let skipped = rank::between(base, candidate, misrate)?.skipped;
    let mut rng = Rng::new((base * 1_000 + candidate) as u64);
    let experiment = |_| bounds(differences(&normals(&mut rng, base), &normals(&mut rng, candidate)), skipped);
    Some((0..experiments(base * candidate)).flat_map(experiment).collect())
}

fn experiments(pairs: usize) -> usize {
    (PAIRS / pairs).clamp(1_000, 10_000)
}

fn bounds(mut pairs: Vec<f64>, skipped: usize) -> [f64; 2] {
    let last = pairs.len() - 1;
    let low = *pairs.select_nth_unstable_by(skipped, f64::total_cmp).1;
    let high = *pairs.select_nth_unstable_by(last - skipped, f64::total_cmp).1;
    [-low, high]
}

fn quantile(mut values: Vec<f64>, q: f64) -> f64 {
    let at = (q * values.len() as f64) as usize;
    *values.select_nth_unstable_by(at, f64::total_cmp).1
}

/// By Box and Muller (1958).
fn normals(rng: &mut Rng, n: usize) -> Vec<f64> {
    let normal = |_| (-2.0 * rng.unit().ln()).sqrt() * (std::f64::consts::TAU * rng.unit()).cos();
    (0..n).map(normal).collect()
}

/// The standard deviation of block differences. Infinite for fewer than two: nothing is known then.
pub fn spread(differences: &[f64]) -> f64 {
    deviation(squares(differences), differences.len().saturating_sub(1))
}

/// The standard deviation of the runs of either side around the mean of their side.
pub fn pooled_spread(base: &[f64], candidate: &[f64]) -> f64 {
    deviation(squares(base) + squares(candidate), (base.len() + candidate.len()).saturating_sub(2))
}

/// For plans: a spread that the true one exceeds in one of five cases (normal noise), from a pilot of few blocks. The
/// chi-squared quantile is by Wilson and Hilferty (1931); four blocks make it 1.7 times as large as their own.
pub fn cautious_spread(differences: &[f64]) -> f64 {
    const NORMAL_FIFTH: f64 = -0.841_621;
    let part = 2.0 / (9.0 * differences.len().saturating_sub(1) as f64);
    let share = (1.0 - part + NORMAL_FIFTH * part.sqrt()).max(0.1);
    spread(differences) / share.powf(1.5)
}

fn deviation(squares: f64, freedom: usize) -> f64 {
    if freedom == 0 { f64::INFINITY } else { (squares / freedom as f64).sqrt() }
}

fn squares(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    values.iter().map(|v| (v - mean) * (v - mean)).sum()
}
