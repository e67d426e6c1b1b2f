//! Where an estimate says nothing, although a formula gives a number: it contradicts the medians that stand beside it,
//! or only changes beyond all sense could have been seen. Such a figure is no figure: it is "not measurable here".
//!
//! The interval of such an estimate is still true, and that is no help: medians and pairs answer the same question, and
//! where runs scatter by factors (two modes, a few wild runs, runs without an answer) each answers it by chance.

use super::decision::Verdict;
use super::estimate::Estimate;

/// Whoever can only see changes beyond this (a share: 1000 %, eleven times as much) sees nothing: no change that
/// anybody asks about is as large, and what has such a spread is more than one thing.
pub const RESOLUTION_MOST: f64 = 10.0;
/// Medians of all runs and an estimate by pairs are two figures, and differ by some percent in good order: drift of
/// 30 % over a comparison moves them apart by half of this (shares of all requests: points).
const APART: f64 = 0.10;
const APART_OF_SHARES: f64 = 0.01;

/// What to do about it.
pub const REMEDY: &str = "take more blocks (--blocks), a quieter machine (`loadgen doctor`) or another figure (--gate)";

/// What stands in the place of the figures.
pub const WORDS: &str = "not measurable here";

/// An estimate beside what it stands beside; all on the scale of the estimate (logarithms; of shares, the share).
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    pub centre: f64,
    /// By how much the medians of the runs differ; none: a side has no median.
    pub medians: Option<f64>,
    pub is_share: bool,
}

/// Why the estimate says nothing, as a clause; `none`: it does say something.
pub fn nonsense(
    figures: &Figures,
    estimate: &Estimate,
    margin: f64,
    verdict: Verdict,
    show: impl Fn(f64) -> String,
) -> Option<String> {
    // What is more than the margin by the medians is not equivalent, whichever way it points.
    let hidden =
        verdict == Verdict::Equivalent && figures.medians.is_some_and(|medians| medians.abs() > margin.ln_1p());
    contradiction(figures, hidden, show).or_else(|| unresolved(estimate, margin))
}

/// Why centre and medians cannot both be right. `hidden`: they cannot even if both point the same way.
pub fn contradiction(figures: &Figures, hidden: bool, show: impl Fn(f64) -> String) -> Option<String> {
    let medians = figures.medians?;
    let apart = (medians - figures.centre).abs();
    let tolerated = if figures.is_share { APART_OF_SHARES } else { APART.ln_1p() };
    let opposite = medians.partial_cmp(&0.0) != figures.centre.partial_cmp(&0.0);
    // Of two that point the same way, one can still be beyond all sense.
    let beyond = !figures.is_share && apart > RESOLUTION_MOST.ln_1p();
    let contradicts = apart > tolerated && (opposite || hidden) || beyond;
    contradicts
        .then(|| format!("the medians differ by {}, but the pairs of runs by {}", show(medians), show(figures.centre)))
}

fn unresolved(estimate: &Estimate, margin: f64) -> Option<String> {
    let sees = estimate.smallest_visible(margin);
    // Also where it is no number.
    let sensible = sees <= RESOLUTION_MOST;
    let most = RESOLUTION_MOST * 100.0;
    (!sensible).then(|| format!("the runs scatter so much that only changes beyond {most} % would be seen"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(medians: f64, centre: f64) -> Figures {
        Figures { centre, medians: Some(medians), is_share: false }
    }

    fn estimate(centre: f64, reach: f64) -> Estimate {
        Estimate { centre, low: centre - reach, high: centre + reach, misrate: 0.0025, reach }
    }

    #[test]
    fn a_figure_that_contradicts_its_neighbours_or_sees_nothing_is_none() {
        let says = |medians: f64, centre: f64, reach: f64, verdict: Verdict| {
            nonsense(&figures(medians, centre), &estimate(centre, reach), 0.02, verdict, |x| format!("{x:.2}"))
        };
        use Verdict::{Equivalent, Improved, Inconclusive, Regressed};
        // 886 us, 2.32 ms and -42.8 %.
        let why = says(0.963, -0.559, 1.0, Inconclusive).unwrap();
        assert_eq!(why, "the medians differ by 0.96, but the pairs of runs by -0.56");
        for (medians, centre, reach, verdict) in [
            (0.963, -0.559, 0.1, Improved),
            (-0.963, 0.559, 0.1, Regressed),
            (0.0, -0.5, 0.1, Improved),
            (0.5, 0.0, 0.01, Equivalent),
            (0.5, 0.001, 0.01, Equivalent),
            (0.1, 4.0, 0.1, Regressed),
            (0.1, 0.1, 2.4, Inconclusive),
            (0.1, 0.1, f64::INFINITY, Inconclusive),
            (0.1, 0.1, f64::NAN, Inconclusive),
        ] {
            assert!(says(medians, centre, reach, verdict).is_some(), "{medians} {centre} {reach}");
        }
        // The usual differences between the two.
        for (medians, centre, verdict) in
            [(0.01, -0.01, Equivalent), (0.04, -0.05, Inconclusive), (-0.02, 0.06, Regressed), (0.7, 0.9, Regressed)]
        {
            assert_eq!(says(medians, centre, 0.1, verdict), None, "{medians} {centre}");
        }
        let without = Figures { centre: 9.0, medians: None, is_share: false };
        assert_eq!(contradiction(&without, true, |x| x.to_string()), None);
    }
}
