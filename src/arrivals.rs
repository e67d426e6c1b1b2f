//! When a request is due. This is pacing only: it knows neither when a run stops nor what latency means.
//!
//! In a closed loop the next request on a connection is due the moment the reply before it arrived. In an open loop
//! ([`Schedule`]) the due times are fixed from the start, whatever the server does: they depend on rate, arrival
//! process and seed alone, and not on the number of threads that share them.

use crate::rng::Rng;
use crate::time::{Instant, NS_PER_S};
use crate::units;
use std::fmt;
use std::sync::Arc;

/// Sets the lot by which arrivals are dealt out apart from their times, which are of the same seed.
const LOT: u64 = 0x6c6f_745f_6f66_5f31;

/// The length of a value without steps.
const FOR_EVER_NS: u64 = u64::MAX;

/// The highest rate: one request a nanosecond is beyond any clock.
const RATE_MAX: u64 = 100_000_000;

/// How the requests of an open loop are spaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Process {
    /// Equal gaps.
    #[default]
    Constant,
    /// Exponential gaps: many independent users.
    Poisson,
}

impl Process {
    /// The word of `--arrival` and of `scenario.arrival`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Poisson => "poisson",
        }
    }

    /// The process that is called `name`.
    pub fn by_name(name: &str) -> Option<Self> {
        [Self::Constant, Self::Poisson].into_iter().find(|process| process.name() == name)
    }
}

/// A value over time: steps and ramps, one after the other; after the last, its final value for ever.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile(Vec<Segment>);

/// A value that goes evenly from one to another.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Segment {
    from: f64,
    to: f64,
    length_ns: u64,
}

impl Segment {
    /// The area below it, up to `seconds` from its beginning.
    fn area(&self, seconds: f64) -> f64 {
        self.from * seconds + self.slope() * seconds * seconds / 2.0
    }

    fn slope(&self) -> f64 {
        (self.to - self.from) / self.seconds()
    }

    fn seconds(&self) -> f64 {
        self.length_ns as f64 / NS_PER_S as f64
    }

    /// After how many seconds the area is reached. The form of the quadratic's root that also holds without a slope.
    fn reached(&self, area: f64) -> f64 {
        let root = (self.from * self.from + 2.0 * self.slope() * area).max(0.0).sqrt();
        2.0 * area / (self.from + root)
    }
}

/// As it is typed; parsing it gives the same again.
impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.length_ns().is_none() {
            return write!(f, "{}", self.first());
        }
        for (index, Segment { from, to, length_ns }) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let ramp = if from == to { String::new() } else { format!("..{to}") };
            write!(f, "{comma}{from}{ramp}:{length_ns}ns")?;
        }
        Ok(())
    }
}

impl Profile {
    /// One value, for ever.
    pub fn flat(value: u64) -> Self {
        Self(vec![Segment { from: value as f64, to: value as f64, length_ns: FOR_EVER_NS }])
    }

    /// Reads `10k` (for ever), or `1k:10s,1k..5k:20s,5k:10s`: steps and ramps with their lengths.
    ///
    /// # Errors
    /// One line that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let value = |text: &str| match units::parse_count(text)? {
            value @ 1..=RATE_MAX => Ok(value),
            value => Err(format!("{value} is out of range; it takes 1 to {RATE_MAX}")),
        };
        if !text.contains(':') {
            if text.contains(',') || text.contains("..") {
                return Err(format!("'{text}': each step needs its length, e.g. 1k:10s,1k..5k:20s"));
            }
            return value(text).map(Self::flat);
        }
        let segment = |part: &str| {
            let (values, length) =
                part.split_once(':').ok_or_else(|| format!("'{part}' has no length; write e.g. {part}:10s"))?;
            let (from, to) = values.split_once("..").unwrap_or((values, values));
            let length_ns = units::parse_duration_ns(length)?;
            if length_ns == 0 {
                return Err(format!("'{part}' lasts no time"));
            }
            Ok(Segment { from: value(from)? as f64, to: value(to)? as f64, length_ns })
        };
        text.split(',').map(segment).collect::<Result<_, String>>().map(Self)
    }

    /// Its value at the beginning.
    pub fn first(&self) -> u64 {
        self.0[0].from as u64
    }

    /// The one value, if it is the same all the time.
    pub fn steady(&self) -> Option<u64> {
        let first = self.first();
        self.0.iter().all(|s| s.from as u64 == first && s.to as u64 == first).then_some(first)
    }

    pub fn highest(&self) -> u64 {
        self.0.iter().map(|s| s.from.max(s.to) as u64).max().unwrap_or(0)
    }

    /// How long its steps last, all together; `None`: it has none.
    pub fn length_ns(&self) -> Option<u64> {
        let length_ns = self.0.iter().map(|s| s.length_ns).fold(0, u64::saturating_add);
        (length_ns != FOR_EVER_NS).then_some(length_ns)
    }

    /// The value after `ns`, rounded.
    pub fn at(&self, mut ns: u64) -> u64 {
        for segment in &self.0 {
            if ns < segment.length_ns {
                let share = ns as f64 / segment.length_ns as f64;
                return (segment.from + (segment.to - segment.from) * share).round() as u64;
            }
            ns -= segment.length_ns;
        }
        self.0.last().map_or(0, |last| last.to as u64)
    }

    /// The same with its first value held for `ns` before.
    pub fn after(&self, ns: u64) -> Self {
        if self.length_ns().is_none() {
            return self.clone();
        }
        let first = self.0[0];
        let held = Segment { from: first.from, to: first.from, length_ns: ns };
        let held = (ns > 0).then_some(held);
        Self(held.into_iter().chain(self.0.iter().copied()).collect())
    }
}

/// The due times of one worker's requests, in order: every n-th of all.
///
/// An arrival process of rate 1 is laid along the area below the rate profile: where `L(t)` is the number of requests
/// that the profile asks for until `t`, arrival `x` of the unit process is due at `L^-1(x)`. For `Constant` the unit
/// process is 0, 1, 2, ...; for `Poisson` its gaps are exponential with mean 1 (time change: Cinlar, "Introduction to
/// Stochastic Processes", 1975, 4.7). All workers walk the same sequence, so that together they make one schedule.
#[derive(Clone, Debug)]
pub struct Schedule {
    process: Process,
    profile: Profile,
    rng: Rng,
    begins: Instant,
    /// Ours is each `stride`-th arrival.
    stride: u64,
    skip: u64,
    /// The next arrival: its number, and its position in the unit process.
    index: u64,
    position: f64,
    /// The segment that holds it: its number, when it begins, and the area before it.
    segment: usize,
    segment_ns: u64,
    area: f64,
    /// Several targets: which arrivals are meant; none: all.
    split: Option<Split>,
}

/// The share of one target in an arrival process that several have.
///
/// Constant arrivals take turns, so that each target's number is as its weight asks, at any time and within one. Of a
/// Poisson process each arrival is dealt out by lot, which makes of it one Poisson process for each target, independent
/// of each other (Kingman, "Poisson Processes", 1993, 5.1).
#[derive(Clone, Debug)]
pub struct Split {
    /// Targets by turn.
    turns: Arc<[u16]>,
    target: u16,
    lot: Rng,
    /// Whose the next arrival is.
    next: u16,
}

impl Split {
    /// The arrivals of `target`, where `turns` holds each target as often as its weight asks; it is not empty.
    pub fn new(turns: Arc<[u16]>, target: u16, seed: u64) -> Self {
        Self { turns, target, lot: Rng::new(seed ^ LOT), next: 0 }
    }

    /// Looks at the arrival of this number; each is looked at once, and in order.
    fn look(&mut self, process: Process, index: u64) {
        let turns = self.turns.len() as u64;
        let turn = if process == Process::Constant { index % turns } else { self.lot.below(turns) };
        self.next = self.turns[turn as usize];
    }

    fn is_ours(&self) -> bool {
        self.next == self.target
    }
}

impl Schedule {
    /// The requests of worker `index` of `workers`, from `begins` on.
    pub fn new(process: Process, profile: Profile, seed: u64, index: u64, workers: u64, begins: Instant) -> Self {
        let mut rng = Rng::new(seed);
        let position = if process == Process::Poisson { rng.exponential(1.0) } else { 0.0 };
        let mut schedule = Self {
            process,
            profile,
            rng,
            begins,
            stride: workers.max(1),
            skip: index,
            index: 0,
            position,
            segment: 0,
            segment_ns: 0,
            area: 0.0,
            split: None,
        };
        schedule.walk(schedule.skip);
        schedule
    }

    /// Of the requests to one target, those of worker `index` of the `workers` that share them. All targets and workers
    /// together have the due times that one alone would have.
    pub fn of_target(process: Process, profile: Profile, seed: u64, split: Split, index: u64, workers: u64) -> Self {
        let mut schedule = Self::new(process, profile, seed, 0, 1, Instant(0));
        let mut split = split;
        // Else there is none to walk to.
        debug_assert!(split.turns.contains(&split.target));
        split.look(process, 0);
        schedule.stride = workers.max(1);
        let ours = split.is_ours();
        schedule.split = Some(split);
        schedule.walk(index + u64::from(!ours));
        schedule
    }

    /// Moves the whole schedule: it counts from `at`.
    pub fn begin(&mut self, at: Instant) {
        self.begins = at;
    }

    /// When the next request is due. It never ends.
    pub fn next_due(&mut self) -> Instant {
        let due = self.due();
        self.walk(self.stride);
        due
    }

    fn walk(&mut self, arrivals: u64) {
        let Some(mut split) = self.split.take() else { return self.step(arrivals) };
        for _ in 0..arrivals {
            loop {
                self.step(1);
                split.look(self.process, self.index);
                if split.is_ours() {
                    break;
                }
            }
        }
        self.split = Some(split);
    }

    fn step(&mut self, arrivals: u64) {
        self.index += arrivals;
        match self.process {
            Process::Constant => self.position = self.index as f64,
            Process::Poisson => (0..arrivals).for_each(|_| self.position += self.rng.exponential(1.0)),
        }
    }

    fn due(&mut self) -> Instant {
        // In whole numbers where that is exact: after 2^53 parts of a second a float no longer is.
        if let (Process::Constant, [only]) = (self.process, &self.profile.0[..])
            && only.from == only.to
        {
            let ns = u128::from(self.index) * u128::from(NS_PER_S) / u128::from(only.from as u64);
            return self.begins.after(ns as u64);
        }
        while self.segment + 1 < self.profile.0.len() {
            let segment = self.profile.0[self.segment];
            let end = self.area + segment.area(segment.seconds());
            if self.position < end {
                break;
            }
            self.area = end;
            self.segment_ns += segment.length_ns;
            self.segment += 1;
        }
        let segment = self.profile.0[self.segment];
        let within = self.position - self.area;
        let seconds = match self.segment + 1 == self.profile.0.len() {
            // Beyond its length the last segment goes on with its final value.
            true if within > segment.area(segment.seconds()) => {
                segment.seconds() + (within - segment.area(segment.seconds())) / segment.to
            }
            _ => segment.reached(within),
        };
        self.begins.after(self.segment_ns + (seconds * NS_PER_S as f64) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dues(process: Process, profile: &str, seed: u64, workers: u64, each: usize) -> Vec<u64> {
        let mut all = Vec::new();
        for index in 0..workers {
            let profile = Profile::parse(profile).unwrap();
            let mut schedule = Schedule::new(process, profile, seed, index, workers, Instant(7));
            all.extend((0..each).map(|_| schedule.next_due().0 - 7));
        }
        all.sort_unstable();
        all
    }

    #[test]
    fn constant_arrivals_are_exact_and_never_drift() {
        let dues = dues(Process::Constant, "3", 1, 1, 3_001);
        assert_eq!(&dues[..4], &[0, 333_333_333, 666_666_666, 1_000_000_000]);
        assert_eq!(dues[3_000], 1_000 * NS_PER_S);
    }

    #[test]
    fn workers_share_one_schedule_whatever_their_number() {
        for (process, profile) in [
            (Process::Constant, "1k"),
            (Process::Constant, "100:1s,100..1k:2s"),
            (Process::Poisson, "1k"),
            (Process::Poisson, "1k:1s,10:1s"),
        ] {
            let alone = dues(process, profile, 9, 1, 1_200);
            assert_eq!(alone, dues(process, profile, 9, 4, 300), "{process:?} {profile}");
        }
        assert_ne!(dues(Process::Poisson, "1k", 1, 1, 10), dues(Process::Poisson, "1k", 2, 1, 10));
    }

    #[test]
    fn each_step_and_ramp_has_as_many_requests_as_it_asks_for() {
        for process in [Process::Constant, Process::Poisson] {
            let dues = dues(process, "1k:10s,1k..3k:10s,500:10s,2k..1k:10s", 5, 1, 80_000);
            let between = |from: u64, to: u64| dues.iter().filter(|ns| (from..to).contains(&(**ns / NS_PER_S))).count();
            for (from, to, expected) in [
                (0, 10, 10_000),
                (10, 20, 20_000),
                (15, 20, 12_500),
                (20, 30, 5_000),
                (30, 40, 15_000),
                (40, 50, 10_000),
            ] {
                // Poisson: five standard deviations. Constant: what rounding at the edges may move.
                let most = if process == Process::Poisson { 5.0 * f64::from(expected).sqrt() } else { 1.0 };
                let seen = between(from, to) as f64;
                assert!((seen - f64::from(expected)).abs() <= most, "{process:?} {from}-{to} s: {seen}");
            }
            assert!(dues.is_sorted());
        }
    }

    #[test]
    fn targets_share_one_schedule_by_weight() {
        let turns: Arc<[u16]> = Arc::from([0, 1, 0, 2, 0, 1, 0]);
        for (process, profile) in
            [(Process::Constant, "1k"), (Process::Poisson, "1k"), (Process::Constant, "9:1s,9..1k:5s")]
        {
            let alone = dues(process, profile, 9, 1, 7_000);
            let mut all = Vec::new();
            for (target, weight) in [(0, 4), (1, 2), (2, 1)] {
                let stream = |index, workers| {
                    let split = Split::new(Arc::clone(&turns), target, 9);
                    let profile = Profile::parse(profile).unwrap();
                    let mut schedule = Schedule::of_target(process, profile, 9, split, index, workers);
                    std::iter::repeat_with(move || schedule.next_due().0)
                };
                let last = alone[6_999];
                let own: Vec<u64> = stream(0, 1).take_while(|due| *due <= last).collect();
                let mut shared: Vec<u64> = (0..3).flat_map(|n| stream(n, 3).take_while(|due| *due <= last)).collect();
                shared.sort_unstable();
                assert_eq!(own, shared, "{process:?} {profile}: worker by worker");
                for until in (0..last).step_by(last as usize / 20) {
                    let [part, whole] = [&own, &alone].map(|dues| dues.partition_point(|due| *due < until) as f64);
                    let expected = whole * f64::from(weight) / 7.0;
                    let most = if process == Process::Poisson { 5.0 * expected.sqrt().max(1.0) } else { 1.0 };
                    assert!((part - expected).abs() <= most, "{process:?} {profile}: {part} of {whole}");
                }
                all.extend(own);
            }
            all.sort_unstable();
            assert_eq!(all, alone, "{process:?} {profile}");
        }
    }

    #[test]
    fn poisson_gaps_have_the_mean_and_the_spread_of_an_exponential() {
        let dues = dues(Process::Poisson, "10k", 11, 1, 100_001);
        let gaps: Vec<f64> = dues.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean / 1e5 - 1.0).abs() < 0.02, "{mean}");
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.02, "{}", variance.sqrt() / mean);
    }

    #[test]
    fn profiles_are_read_and_refused() {
        let profile = Profile::parse("1k:10s,1k..5k:20s").unwrap();
        assert_eq!((profile.length_ns(), profile.highest(), profile.steady()), (Some(30 * NS_PER_S), 5_000, None));
        assert_eq!([0, 9, 20, 30, 99].map(|s| profile.at(s * NS_PER_S)), [1_000, 1_000, 3_000, 5_000, 5_000]);
        assert_eq!(profile.after(NS_PER_S).at(10 * NS_PER_S + 1), 1_000);
        assert_eq!(Profile::parse("2.5k").unwrap().steady(), Some(2_500));
        for same in ["7", "1k:10s,1k..5k:20s", "5:1ms"] {
            let profile = Profile::parse(same).unwrap();
            assert_eq!(Profile::parse(&profile.to_string()), Ok(profile));
        }
        for wrong in ["", "0", "-1", "1k,2k", "1..2", "1k:", "1k:0s", "1k:1s,", "a:1s", "1..:1s", "1e30", "2G:1s"] {
            let problem = Profile::parse(wrong).unwrap_err();
            assert!(!problem.contains('\n') && !problem.is_empty(), "{wrong}");
        }
    }
}
