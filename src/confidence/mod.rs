//! How much of what a run measured is chance: intervals for its figures, and whether it was steady.
//!
//! A run is one sample of a process whose values depend on one another. What is said here is about that run: with the
//! same programs on the same machine at the same time, the figure would lie within its interval in 95 of 100 runs.
//! Another day, or a restart of the server, can differ by more; only repeated runs tell.
//!
//! In reading order: [`batches`] (what is kept while a run goes on), [`spread`] (formulas and their sources),
//! [`figures`] (a run's figures by these formulas), [`drift`], [`goal`] (`--until-ci`).

pub mod batches;
pub mod drift;
pub mod figures;
pub mod goal;
pub mod spread;

pub use batches::Batches;
pub use goal::Goal;

use crate::histogram::{QUANTILES, Recorder, count_beyond};
use crate::result::{self, Interval, RateInterval};
use crate::time::NS_PER_S;
use drift::Drift;
use figures::Figures;

/// A percentile with fewer values than this beyond it is chance.
pub const ENOUGH_BEYOND: u64 = 10;

/// A shorter window is not asked whether it was steady: its thirds are too short for more than the scheduler's moods.
const STEADY_WINDOW_LEAST_NS: u64 = 3 * NS_PER_S;

/// As the report names it.
const METHOD: &str = "batch means, order statistics";

/// What there is to say about a window.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    pub batches: &'a Batches,
    pub response: &'a Recorder,
    pub window_ns: u64,
    /// Valid replies that arrived in the window.
    pub replies: u64,
    /// The window cannot be steady: the load changes by plan, or the run's beginning is part of it.
    pub uneven: bool,
}

impl Sample<'_> {
    /// None where nothing was answered.
    pub fn confidence(&self, goals: &[Goal]) -> Option<result::Confidence> {
        if self.response.count() == 0 || self.window_ns == 0 {
            return None;
        }
        let figures = Figures::new(self.batches, self.window_ns);
        let drift = Drift::of(self.batches, self.window_ns)
            .filter(|_| self.window_ns >= STEADY_WINDOW_LEAST_NS && !self.uneven);
        let mut confidence = result::Confidence {
            level_percent: 95,
            method: METHOD.to_owned(),
            batch_ns: self.batches.length_ns(),
            quantiles: QUANTILES.iter().map(|(name, q)| ((*name).to_owned(), self.quantile(&figures, *q))).collect(),
            mean: mean(&figures),
            rate: self.rate(&figures),
            drift: drift.map(report),
            until_ci: Vec::new(),
        };
        confidence.until_ci = goals.iter().map(|goal| goal.judge(&confidence, self)).collect();
        Some(confidence)
    }

    fn per_second(&self) -> f64 {
        self.replies as f64 * NS_PER_S as f64 / self.window_ns as f64
    }

    fn quantile(&self, figures: &Figures<'_>, q: f64) -> Interval {
        if count_beyond(self.response.count(), q) < ENOUGH_BEYOND || figures.are_too_few() {
            return unknown("few_values", None);
        }
        let Some(ranks) = figures.quantile(q) else { return unknown("correlated", None) };
        let effective = Some(ranks.effective as u64);
        let Some((low, high)) = ranks.between else { return unknown("few_independent_values", effective) };
        Interval {
            low_ns: Some(self.response.quantile(low)),
            high_ns: Some(self.response.quantile(high)),
            effective_samples: effective,
            reason: None,
        }
    }

    fn rate(&self, figures: &Figures<'_>) -> RateInterval {
        let Some(spread) = figures.rate() else {
            let reason = if figures.are_too_few() { "few_values" } else { "correlated" };
            return RateInterval { low_per_s: None, high_per_s: None, reason: Some(reason.to_owned()) };
        };
        let (rate, half) = (self.per_second(), spread.half_width());
        RateInterval {
            low_per_s: Some((rate - half).max(0.0).floor() as u64),
            high_per_s: Some((rate + half).ceil() as u64),
            reason: None,
        }
    }
}

fn mean(figures: &Figures<'_>) -> Interval {
    if figures.are_too_few() {
        return unknown("few_values", None);
    }
    let Some((spread, effective)) = figures.mean() else { return unknown("correlated", None) };
    if !figures::enough_for_a_mean(&spread, effective) {
        return unknown("few_independent_values", Some(effective as u64));
    }
    let half = spread.half_width();
    Interval {
        low_ns: Some((spread.estimate - half).max(0.0) as u64),
        high_ns: Some((spread.estimate + half).ceil() as u64),
        effective_samples: Some(effective as u64),
        reason: None,
    }
}

fn unknown(reason: &str, effective_samples: Option<u64>) -> Interval {
    Interval { low_ns: None, high_ns: None, effective_samples, reason: Some(reason.to_owned()) }
}

fn report(drift: Drift) -> result::Drift {
    // Without any scatter the change is infinitely many deviations.
    let sigmas = |sigmas: f64| sigmas.min(1_000.0) as u64;
    result::Drift {
        steady: drift.is_steady(),
        response_first_ns: drift.response.first as u64,
        response_last_ns: drift.response.last as u64,
        response_sigmas: sigmas(drift.response.sigmas),
        rate_first_per_s: drift.rate.first as u64,
        rate_last_per_s: drift.rate.last as u64,
        rate_sigmas: sigmas(drift.rate.sigmas),
    }
}
