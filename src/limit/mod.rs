//! Limits of `--fail-if`: `p99>5ms` fails a run whose 99th percentile is above 5 ms. Three answers, not two: a limit
//! that the measurement cannot tell from the figure is unresolvable, and neither held nor broken.

mod known;
mod parse;

use crate::metric::{Metric, Unit};
use crate::result::{LimitOutcome, LimitState, Report};
use std::fmt;

/// A limit as typed.
#[derive(Clone, Debug)]
pub struct Limit {
    text: String,
    pub metric: &'static Metric,
    pub op: Op,
    pub bound: Bound,
}

/// Which side of the bound is the bad one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `>`
    Above,
    /// `>=`
    AtLeast,
    /// `<`
    Below,
    /// `<=`
    AtMost,
}

/// What the figure is held against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// A value in the unit of the metric: nanoseconds, a second, bytes a second, a count, a share of 1.
    Value(f64),
    /// A change against a base, as a share: `+5%` is 0.05. For comparisons only.
    Change(f64),
}

/// Whether a limit was kept, with the figure or the reason in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    Holds(String),
    Broken(String),
    /// The measurement does not tell.
    Unresolvable(String),
}

impl Op {
    /// Whether `value` is on the bad side of `bound`.
    pub fn breaks(self, value: f64, bound: f64) -> bool {
        match self {
            Self::Above => value > bound,
            Self::AtLeast => value >= bound,
            Self::Below => value < bound,
            Self::AtMost => value <= bound,
        }
    }

    /// Whether more is worse.
    pub fn upwards(self) -> bool {
        matches!(self, Self::Above | Self::AtLeast)
    }
}

impl Limit {
    /// Reads `p99>5ms`, `errors>0`, `rate<50k`, `error_share>0.1%` or, for comparisons, `p99>+5%`.
    ///
    /// # Errors
    /// One line that says what is wrong and what is allowed.
    pub fn parse(text: &str) -> Result<Self, String> {
        parse::limit(text)
    }

    /// For a figure that lies between `low` and `high`, in the terms of the bound: whether the limit is broken; None
    /// if the bound lies in between.
    pub fn decide(&self, low: f64, high: f64) -> Option<bool> {
        let (Bound::Value(bound) | Bound::Change(bound)) = self.bound;
        let breaks = [low, high].map(|value| self.op.breaks(value, bound));
        (breaks[0] == breaks[1]).then_some(breaks[0])
    }

    /// Judges one run. A bound that is a change is unresolvable here: it takes a base.
    pub fn judge(&self, report: &Report) -> Judgement {
        let Bound::Value(bound) = self.bound else {
            return Judgement::Unresolvable("a change takes a base: for `compare` and `ab`".to_owned());
        };
        let Some(value) = (self.metric.value)(report) else {
            return Judgement::Unresolvable(known::why_missing(self.metric, report));
        };
        let figure = self.figure(report, value);
        let unresolvable = |why: String| Judgement::Unresolvable(format!("{figure}; {why}"));
        if let Some(why) = known::untrusted(report) {
            // A count only grows: one that is too high already is, whatever else happened.
            let too_many = self.metric.unit == Unit::Count && self.op.upwards() && self.op.breaks(value, bound);
            return if too_many { Judgement::Broken(figure) } else { unresolvable(why) };
        }
        if let Some(why) = known::below_floor(self, report, bound) {
            return unresolvable(why);
        }
        let measured = known::range(self.metric, report, value);
        let Some(broken) = self.decide(measured.low, measured.high) else {
            return unresolvable(known::too_close(self, &measured, value, bound));
        };
        // A reply that never came would have taken longer than it counts with.
        let highest = known::with_censored(self.metric, report, &measured);
        match broken {
            true if self.decide(measured.low, highest) == Some(true) => Judgement::Broken(figure),
            false if self.decide(measured.low, highest) == Some(false) => Judgement::Holds(figure),
            _ => unresolvable(known::censored(report)),
        }
    }

    /// [`Self::judge`], as a report stores it.
    pub fn outcome(&self, report: &Report) -> LimitOutcome {
        let (judgement, detail) = self.judge(report).parts();
        LimitOutcome { expression: self.text.clone(), judgement, detail }
    }

    /// `6.20 ms (5.90-6.60 ms)`; exact figures have no brackets.
    fn figure(&self, report: &Report, value: f64) -> String {
        let text = self.metric.unit.show(value);
        match (self.metric.interval)(report) {
            Some((low, high)) if low < high => format!("{text} ({})", self.metric.unit.show_range(low, high)),
            _ => text,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Judgement {
    /// As a report has it.
    pub fn parts(self) -> (LimitState, String) {
        match self {
            Self::Holds(detail) => (LimitState::Holds, detail),
            Self::Broken(detail) => (LimitState::Broken, detail),
            Self::Unresolvable(detail) => (LimitState::Unresolvable, detail),
        }
    }
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (state, detail) = self.clone().parts();
        write!(f, "{state}: {detail}")
    }
}

impl fmt::Display for LimitState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Holds => "holds",
            Self::Broken => "BROKEN",
            Self::Unresolvable => "UNRESOLVABLE",
        })
    }
}

impl fmt::Display for LimitOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.expression, self.judgement, self.detail)
    }
}
