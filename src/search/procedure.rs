//! Where to probe next, and when it is enough.
//!
//! Up by a factor from a rate that somebody guessed until something breaks (or down until all holds); then the bracket
//! is halved; then probes on both sides of the crossing, where the share of slow requests is neither nothing nor all,
//! for those say most about where it is. It ends when the interval is narrow enough, or nothing more can be learnt.

use super::bracket::{Bracket, bracket, isotonic};
use super::fit::{Crossing, PROBES_LEAST, crossing};
use super::observation::{Evidence, Observation, Share, Standing};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// From one rate to the next while nothing breaks, and while everything does.
const UP: f64 = 2.0;
const DOWN: f64 = 4.0;
/// A bracket wider than this is halved before its inside is looked at.
const NARROW: f64 = 1.35;
/// Probes within this logarithm of the crossing's rate are near it: there the log odds are a straight line.
const NEAR: f64 = 0.26;
/// How far from the crossing probes are placed: where the odds differ from what is allowed by e to the power of this,
/// and no further than so much of the rate.
const ODDS_APART: f64 = 0.8;
const FURTHEST: f64 = 0.12;
/// Probes at one rate, each with the generator at its limit, that make it one that cannot be measured.
const TRIES: usize = 3;
/// Disturbed probes, one after the other, after which it is no use to go on.
const USELESS_MOST: usize = 10;
/// How far down from the first rate it goes.
const LOWEST_PART: f64 = 1.0 / 1024.0;
/// More than any machine can ask for.
const HIGHEST: f64 = 1e9;

/// What a search is to find.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// The first rate, requests a second.
    pub from: f64,
    /// Half of the interval's width, relative to the rate, that is narrow enough.
    pub precision: f64,
    pub probes_most: usize,
    /// How many limits there are.
    pub slos: usize,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// Measure at so many requests a second, a whole number.
    Probe(f64),
    End(Ending),
}

/// Why nothing more is to be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The interval is narrow enough.
    Precise,
    /// `probes_most` are over.
    OutOfProbes,
    /// Everything held up to the rate beyond which the generator was the limit.
    GeneratorBound,
    /// Something was broken at every rate.
    NeverHeld,
    /// One probe after the other was of no use.
    NothingUsable,
}

/// The highest rate at which everything holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Knee {
    pub rate: f64,
    /// Within which it lies; None: that end is not known.
    pub low: Option<f64>,
    pub high: Option<f64>,
    pub basis: Basis,
    /// The limit that breaks first.
    pub slo: usize,
    /// Probes that it rests on.
    pub probes: usize,
}

/// How the interval came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// A fit through probes near the crossing: at 95 %.
    Fit,
    /// Between a rate that held and one that did not.
    Bracket,
}

impl Knee {
    /// Half of the interval's width, relative to the rate; None: an end is not known.
    pub fn half_width(&self) -> Option<f64> {
        Some((self.high? - self.low?) / 2.0 / self.rate)
    }
}

/// A search: what was asked, and what has been seen.
#[derive(Clone, Debug)]
pub struct Search {
    settings: Settings,
    observations: Vec<Observation>,
}

impl Search {
    pub fn new(settings: Settings) -> Self {
        Self { settings, observations: Vec::new() }
    }

    pub fn observe(&mut self, observation: Observation) {
        self.observations.push(observation);
    }

    pub fn observations(&self) -> &[Observation] {
        &self.observations
    }

    /// What to do next.
    pub fn next(&self) -> Step {
        if self.observations.len() >= self.settings.probes_most {
            return Step::End(Ending::OutOfProbes);
        }
        if let Some(last) = self.observations.last().filter(|last| !last.standing.is_usable()) {
            let useless = self.observations.iter().rev().take_while(|o| !o.standing.is_usable());
            let same = useless.clone().take_while(|o| o.rate == last.rate).count();
            if useless.filter(|o| o.standing == Standing::Unusable).count() >= USELESS_MOST {
                return Step::End(Ending::NothingUsable);
            }
            // The next one may be luckier.
            if last.standing == Standing::Unusable || !same.is_multiple_of(TRIES) {
                return Step::Probe(last.rate);
            }
        }
        let answers = || self.observations.iter().filter_map(|o| Some((o.rate, o.holds()?)));
        let held = answers().filter(|(_, held)| *held).map(|(rate, _)| rate).reduce(f64::max);
        let broken = answers().filter(|(_, held)| !held).map(|(rate, _)| rate).reduce(f64::min);
        match (held, broken) {
            (held, None) => self.climb(held),
            (None, Some(broken)) => self.descend(broken),
            (Some(_), Some(_)) => self.refine(),
        }
    }

    /// Nothing has broken yet.
    fn climb(&self, held: Option<f64>) -> Step {
        let saturated = self.observations.iter().filter(|o| o.standing == Standing::Saturated);
        let often = |rate: f64| saturated.clone().filter(|o| o.rate == rate).count() >= TRIES;
        let ceiling = saturated
            .clone()
            .filter(|o| often(o.rate))
            .map(|o| o.rate)
            .filter(|rate| held.is_none_or(|held| *rate > held))
            .reduce(f64::min);
        let highest = ceiling.unwrap_or(HIGHEST);
        match held {
            None if ceiling.is_none() => probe(self.settings.from),
            None if highest / DOWN < self.lowest() => Step::End(Ending::NothingUsable),
            None => probe(highest / DOWN),
            Some(held) if highest / held <= 1.0 + 2.0 * self.settings.precision || highest - held <= 1.0 => {
                Step::End(Ending::GeneratorBound)
            }
            Some(held) => probe((held * UP).min((held * highest).sqrt())),
        }
    }

    /// Nothing has held yet.
    fn descend(&self, broken: f64) -> Step {
        let next = (broken / DOWN).round();
        if next < self.lowest() { Step::End(Ending::NeverHeld) } else { probe(next) }
    }

    fn lowest(&self) -> f64 {
        (self.settings.from * LOWEST_PART).max(1.0)
    }

    fn refine(&self) -> Step {
        let Some(Crossed { knee, fit, ends, open }) = self.crossed() else { return self.again() };
        let precise = knee.half_width().is_some_and(|half| half <= self.settings.precision);
        let (low, high) = ends;
        // Rates are whole numbers.
        let exact = knee.low.zip(knee.high).is_some_and(|(low, high)| high - low <= 1.0);
        if precise || exact {
            return Step::End(Ending::Precise);
        }
        // Chance has had the highest rate hold, or the lowest break: something that does not is needed beyond it.
        match open {
            [true, _] => return self.descend(low / UP * DOWN),
            [_, true] => return probe(high * NARROW),
            _ => {}
        }
        let middle = (low * high).sqrt();
        let halved = middle.round() > low && middle.round() < high;
        let Some(fit) = fit.filter(|fit| high / low <= NARROW || fit.probes >= PROBES_LEAST) else {
            return if halved && high / low > 1.0 + self.settings.precision { probe(middle) } else { self.again() };
        };
        let centre = fit.rate.clamp(low * 0.9, high * 1.1);
        let away = (ODDS_APART / fit.slope).clamp(self.settings.precision / 2.0, FURTHEST);
        let side = |upper: bool| {
            let near = self.near(knee.slo, centre).into_iter().filter(|(rate, _)| (*rate > centre) == upper);
            near.map(|(_, share)| share.count).sum::<f64>()
        };
        probe(if side(false) <= side(true) { centre * (1.0 - away) } else { centre * (1.0 + away) })
    }

    /// No fit, and no room between the bracket's ends: one of them was chance, so a rate beside them is measured again.
    fn again(&self) -> Step {
        let rates = self.observations.iter().filter(|o| o.holds() == Some(true)).map(|o| o.rate);
        let centre = self.knee().map_or_else(|| rates.fold(1.0, f64::max), |knee| knee.rate);
        let part = if self.observations.len().is_multiple_of(2) { -FURTHEST / 2.0 } else { FURTHEST / 2.0 };
        probe(centre * (1.0 + part))
    }

    /// What is known about the highest rate; None: nothing has held and broken yet.
    pub fn knee(&self) -> Option<Knee> {
        self.crossed().map(|crossed| crossed.knee)
    }

    /// The limit that breaks first, with the ends of all others taken into account.
    fn crossed(&self) -> Option<Crossed> {
        let all: Vec<Crossed> = (0..self.settings.slos).filter_map(|slo| self.crossed_by(slo)).collect();
        let mut first = all.iter().min_by(|a, b| a.knee.rate.total_cmp(&b.knee.rate)).cloned()?;
        // The lower end is unknown if one of them is; the upper end is that of whoever has one.
        first.knee.low = all.iter().map(|crossed| crossed.knee.low).reduce(|a, b| Some(a?.min(b?))).flatten();
        first.knee.high = all.iter().filter_map(|crossed| crossed.knee.high).reduce(f64::min);
        Some(first)
    }

    fn crossed_by(&self, slo: usize) -> Option<Crossed> {
        let shares: Vec<(f64, Share)> =
            self.observations.iter().filter_map(|o| Some((o.rate, share_of(o, slo)?))).collect();
        let (held, broken) = isotonic(&shares);
        let (lowest, highest) =
            shares.iter().fold((f64::INFINITY, 0.0_f64), |(low, high), (rate, share)| match share.holds() {
                true => (low, high.max(*rate)),
                false => (low.min(*rate), high),
            });
        if lowest == f64::INFINITY || highest == 0.0 {
            return None; // it has never been broken, or never been kept
        }
        let (low, high) = (held.unwrap_or(lowest), broken.unwrap_or(highest));
        let open = [held.is_none(), broken.is_none()];
        let centre = (low * high).sqrt();
        let first = crossing(&self.near(slo, centre), centre);
        // Again about the rate that it has found, if that is one that can be.
        let better = first.map(|fit| fit.rate).filter(|rate| (low * 0.8..=high * 1.25).contains(rate));
        let fit = better.and_then(|rate| crossing(&self.near(slo, rate), rate)).or(first);
        let knee = match fit.and_then(|fit| Some((fit, fit.interval?))) {
            Some((fit, (low, high))) => {
                let (rate, probes) = (fit.rate, fit.probes);
                Knee { rate, low: Some(low), high: Some(high), basis: Basis::Fit, slo, probes }
            }
            None => {
                let answers = self.observations.iter().filter_map(|o| Some((o.rate, certainly(o, slo)?)));
                let Bracket { held: low, broken: high } = bracket(answers);
                let rate = fit.map_or(centre, |fit| fit.rate);
                // It held at the lower end, which is what is asked for.
                let rate = low.unwrap_or_else(|| rate.min(high.unwrap_or(rate)));
                Knee { rate, low, high, basis: Basis::Bracket, slo, probes: shares.len() }
            }
        };
        Some(Crossed { knee, fit, ends: (low, high), open })
    }

    /// The shares of steady probes whose rates are near this one.
    fn near(&self, slo: usize, centre: f64) -> Vec<(f64, Share)> {
        let near = self.observations.iter().filter(|o| (o.rate / centre).ln().abs() <= NEAR);
        near.filter_map(|o| Some((o.rate, *o.share(slo)?))).collect()
    }
}

/// A limit with rates at which it held and others at which it did not.
#[derive(Clone, Debug)]
struct Crossed {
    knee: Knee,
    fit: Option<Crossing>,
    /// Between a rate at which it held and one at which it did not, chance or not.
    ends: (f64, f64),
    /// Which of them is none, because the lowest rate did not hold, or the highest did.
    open: [bool; 2],
}

/// What a probe says about a limit, as a share: all requests of one that was overloaded are beyond it, and a figure
/// that is on the wrong side counts like one request that is.
fn share_of(observation: &Observation, slo: usize) -> Option<Share> {
    let one = |holds: bool| Share { count: 1.0, beyond: f64::from(u8::from(!holds)), allowed: 0.5, inflation: None };
    match (observation.standing, observation.evidence.get(slo)?) {
        (Standing::Unusable | Standing::Saturated, _) => None,
        (Standing::Overloaded, Evidence::Share(share)) => Some(Share { beyond: share.count, ..*share }),
        (Standing::Overloaded, Evidence::Judged(_)) => Some(one(false)),
        (Standing::Steady, Evidence::Share(share)) => Some(*share),
        (Standing::Steady, Evidence::Judged(holds)) => holds.map(one),
    }
}

/// Whether the limit holds, where that is no chance.
fn certainly(observation: &Observation, slo: usize) -> Option<bool> {
    match (observation.standing, observation.evidence.get(slo)?) {
        (Standing::Unusable | Standing::Saturated, _) => None,
        (Standing::Overloaded, _) => Some(false),
        (Standing::Steady, Evidence::Share(share)) => share.certainly(),
        (Standing::Steady, Evidence::Judged(holds)) => *holds,
    }
}

/// The target's rate is a whole number of requests a second.
fn probe(rate: f64) -> Step {
    Step::Probe(rate.round().clamp(1.0, HIGHEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(slos: usize) -> Search {
        Search::new(Settings { from: 100.0, precision: 0.05, probes_most: 60, slos })
    }

    /// Runs a search in which `seen` is what a probe at a rate sees.
    fn run(slos: usize, mut seen: impl FnMut(f64) -> (Standing, Vec<Evidence>)) -> (Search, Ending) {
        let mut search = search(slos);
        loop {
            match search.next() {
                Step::End(ending) => return (search, ending),
                Step::Probe(rate) => {
                    assert_eq!(rate, rate.round());
                    let (standing, evidence) = seen(rate);
                    search.observe(Observation { rate, standing, evidence });
                }
            }
        }
    }

    fn judged(held: bool) -> (Standing, Vec<Evidence>) {
        (Standing::Steady, vec![Evidence::Judged(Some(held))])
    }

    #[test]
    fn a_step_is_bracketed_wherever_it_is() {
        for truth in [1.5, 3.0, 99.0, 100.5, 777.0, 123_456.0, 9e6] {
            let (search, ending) = run(1, |rate| judged(rate < truth));
            let knee = search.knee().unwrap();
            assert_eq!((ending, knee.basis), (Ending::Precise, Basis::Bracket), "{truth}");
            let (low, high) = (knee.low.unwrap(), knee.high.unwrap());
            assert!(low < truth && truth <= high && knee.rate == low, "{truth}: {knee:?}");
            assert!((high - low) / 2.0 <= 0.05 * low || high - low <= 1.0, "{truth}: {knee:?}");
            assert!(search.observations().len() < 25, "{truth}: {}", search.observations().len());
        }
    }

    #[test]
    fn overload_counts_as_broken_even_where_the_figures_are_good() {
        let standing = |rate| if rate < 640.0 { Standing::Steady } else { Standing::Overloaded };
        let (search, ending) = run(1, |rate| (standing(rate), vec![Evidence::Judged(Some(true))]));
        let knee = search.knee().unwrap();
        assert!(ending == Ending::Precise && knee.low.unwrap() < 640.0 && knee.high.unwrap() >= 640.0, "{knee:?}");
    }

    #[test]
    fn the_limit_that_breaks_first_is_the_one() {
        let evidence = |rate: f64| [900.0, 300.0, 1e6].map(|truth| Evidence::Judged(Some(rate < truth))).to_vec();
        let (search, ending) = run(3, |rate| (Standing::Steady, evidence(rate)));
        let knee = search.knee().unwrap();
        assert_eq!((ending, knee.slo), (Ending::Precise, 1));
        assert!(knee.low.unwrap() < 300.0 && knee.high.unwrap() >= 300.0, "{knee:?}");
    }

    #[test]
    fn what_never_holds_and_what_never_breaks_end() {
        let (search, ending) = run(1, |_| judged(false));
        assert!(ending == Ending::NeverHeld && search.knee().is_none() && search.observations().len() < 8);
        let (search, ending) = run(1, |_| judged(true));
        // More cannot be asked for.
        assert!(ending == Ending::GeneratorBound && search.knee().is_none());
    }

    #[test]
    fn the_generator_as_the_limit_ends_it_and_bad_luck_does_not() {
        let bound = |rate: f64| if rate < 5_000.0 { judged(true) } else { (Standing::Saturated, vec![]) };
        let (search, ending) = run(1, bound);
        assert_eq!(ending, Ending::GeneratorBound);
        let held = search.observations().iter().filter(|o| o.holds() == Some(true)).map(|o| o.rate);
        assert!(held.fold(0.0, f64::max) > 4_500.0 && search.knee().is_none());
        for standing in [Standing::Saturated, Standing::Unusable] {
            let (search, ending) = run(1, |_| (standing, vec![]));
            assert!(ending == Ending::NothingUsable && search.knee().is_none());
        }
        // Every third probe fails, wherever it is.
        let mut probes = 0;
        let (search, ending) = run(1, |rate| {
            probes += 1;
            if probes % 3 == 0 { (Standing::Unusable, vec![]) } else { judged(rate < 1_234.0) }
        });
        assert!(ending == Ending::Precise && search.knee().unwrap().low.unwrap() < 1_234.0);
    }

    #[test]
    fn a_cliff_of_a_quantile_is_bracketed_too() {
        // As of a fast server: nothing is slow, and then everything is.
        let share = |rate: f64| {
            let count = rate * 5.0;
            let beyond = if rate < 50_000.0 { 0.0 } else { count * 0.9 };
            Evidence::Share(Share { count, beyond, allowed: 0.01, inflation: Some(1.0) })
        };
        let (search, ending) = run(1, |rate| (Standing::Steady, vec![share(rate)]));
        let knee = search.knee().unwrap();
        assert_eq!(ending, Ending::Precise, "{knee:?}");
        assert!(knee.low.unwrap() < 50_000.0 && knee.high.unwrap() >= 50_000.0, "{knee:?}");
        assert!(search.observations().len() < 25, "{}", search.observations().len());
    }
}
