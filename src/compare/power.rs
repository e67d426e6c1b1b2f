//! What an experiment can see: the smallest change that it finds in nine of ten sessions, and how many blocks that takes.
//!
//! A change is found if the interval's lower bound is beyond the margin. For a given number of blocks and noise of a
//! given kind, that bound lies below the true change by a multiple of the spread that nine of ten sessions stay within.
//! The spread is that of the same few blocks, which are often calmer than the noise is, so the multiple is that of the
//! bound's distance over the *estimated* spread (as Student's t is to the normal distribution). It is found by
//! simulation: always the same sessions, so always the same answer.

use super::estimate::averages;
use super::rank;
use crate::rng::Rng;

/// What the observations are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Paired { blocks: usize },
    Unpaired { base: usize, candidate: usize },
}

/// Simulated sessions; each counts twice, once for each side.
const SESSIONS: usize = 2_000;
/// The share of sessions that must find a change.
const POWER: f64 = 0.9;
/// Beyond so many observations the multiple shrinks with the square root of their number (in truth a little faster).
const SIMULATED_MOST: usize = 60;

/// The smallest change (a share, 0.031) that such an experiment finds in 90 % of sessions; `spread` is that of block
/// differences ([`spread`]), or of the runs of both sides ([`pooled_spread`]), as logarithms; `margin` is a share.
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

/// How many spreads beyond the margin a change must be to be found in 90 % of sessions. None: nothing ever is.
pub fn multiple(shape: Shape, misrate: f64) -> Option<f64> {
    let distances = match shape {
        Shape::Paired { blocks } => paired_distances(blocks.min(SIMULATED_MOST), misrate)?,
        Shape::Unpaired { base, candidate } => {
            unpaired_distances(base.min(SIMULATED_MOST), candidate.min(SIMULATED_MOST), misrate)?
        }
    };
    Some(quantile(distances, POWER) * (variance(shape, usize::MAX) / variance(shape, SIMULATED_MOST)).sqrt())
}

/// Of the centre, in squared spreads, if no side has more than `most` observations.
fn variance(shape: Shape, most: usize) -> f64 {
    let one = |n: usize| 1.0 / n.min(most) as f64;
    match shape {
        Shape::Paired { blocks } => one(blocks),
        Shape::Unpaired { base, candidate } => one(base) + one(candidate),
    }
}

/// How far the bounds of the interval are from the truth, in estimated spreads, in each session.
fn paired_distances(blocks: usize, misrate: f64) -> Option<Vec<f64>> {
    let rank = rank::signed(blocks, misrate)?;
    let mut rng = Rng::new(blocks as u64);
    let sessions = (0..SESSIONS).flat_map(|_| {
        let noise = normals(&mut rng, blocks);
        distances(averages(&noise), rank.skipped, spread(&noise))
    });
    Some(sessions.collect())
}

fn unpaired_distances(base: usize, candidate: usize, misrate: f64) -> Option<Vec<f64>> {
    let rank = rank::between(base, candidate, misrate)?;
    let mut rng = Rng::new((base * 1_000 + candidate) as u64);
    let sessions = (0..SESSIONS).flat_map(|_| {
        let (base, candidate) = (normals(&mut rng, base), normals(&mut rng, candidate));
        let differences = candidate.iter().flat_map(|c| base.iter().map(move |b| c - b)).collect();
        distances(differences, rank.skipped, pooled_spread(&base, &candidate))
    });
    Some(sessions.collect())
}

fn distances(mut pairs: Vec<f64>, skipped: usize, spread: f64) -> [f64; 2] {
    let last = pairs.len() - 1;
    let low = *pairs.select_nth_unstable_by(skipped, f64::total_cmp).1;
    let high = *pairs.select_nth_unstable_by(last - skipped, f64::total_cmp).1;
    [-low / spread, high / spread]
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

fn deviation(squares: f64, freedom: usize) -> f64 {
    if freedom == 0 { f64::INFINITY } else { (squares / freedom as f64).sqrt() }
}

fn squares(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    values.iter().map(|v| (v - mean) * (v - mean)).sum()
}
