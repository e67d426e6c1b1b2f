//! What one probe says about each limit.

use super::slo::Slo;
use crate::histogram::Recorder;
use crate::limit::Bound;
use crate::result::{Report, VerdictState};

/// One probe, as far as the search is concerned.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// Requests a second that were asked for.
    pub rate: f64,
    pub standing: Standing,
    /// In the order of the limits.
    pub evidence: Vec<Evidence>,
}

/// Whether a probe can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Steady,
    /// The target could not keep up, so that the figures depend on how long it lasted: no limit holds.
    Overloaded,
    /// Something disturbed the generator, or the books: it says nothing.
    Unusable,
    /// The generator was at its own limit: it says nothing, and would not at a higher rate either.
    Saturated,
}

impl Standing {
    /// Whether the probe says something about the target.
    pub fn is_usable(self) -> bool {
        matches!(self, Self::Steady | Self::Overloaded)
    }
}

/// What a probe says about one limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Evidence {
    /// A quantile of response times.
    Share(Share),
    /// Anything else: whether the figure itself holds; None: there is no figure.
    Judged(Option<bool>),
}

/// Of `count` requests `beyond` took longer than the limit, and a share of `allowed` may.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    pub count: f64,
    pub beyond: f64,
    pub allowed: f64,
    /// How many of these requests say as much as one independent one, by batch means; None: not known.
    pub inflation: Option<f64>,
}

/// A share this many standard errors from what is allowed is on its side for certain.
const CERTAIN: f64 = 3.0;

/// A client thread that uses this much of its CPU has no time to catch up.
const BUSY_PERCENT: u64 = 60;

/// Correlated over the whole probe: as if it had so many independent requests beyond the limit, at most.
const FEW: f64 = 2.0;

impl Share {
    pub fn holds(&self) -> bool {
        self.beyond <= self.count * self.allowed
    }

    /// Whether it holds; None: that may be chance.
    pub fn certainly(&self) -> Option<bool> {
        let expected = self.count * self.allowed;
        // Not known: the values are few, or depend on one another over the whole probe.
        let inflation = self.inflation.unwrap_or_else(|| (expected / FEW).max(1.0)).max(1.0);
        let error = (expected * (1.0 - self.allowed) * inflation).sqrt();
        let distance = (self.beyond - expected) / error;
        (distance.abs() >= CERTAIN).then_some(distance < 0.0)
    }
}

impl Evidence {
    /// Whether the figure is on the good side, chance or not.
    pub fn holds(&self) -> Option<bool> {
        match self {
            Self::Share(share) => Some(share.holds()),
            Self::Judged(holds) => *holds,
        }
    }
}

impl Observation {
    /// What the report of a probe says.
    pub fn of(rate: f64, report: &Report, slos: &[Slo]) -> Self {
        let evidence: Vec<Evidence> = slos.iter().map(|slo| evidence(slo, report)).collect();
        let all_hold = evidence.iter().all(|evidence| evidence.holds() == Some(true));
        let standing = match report.verdict.state {
            VerdictState::Valid => Standing::Steady,
            VerdictState::Overloaded => Standing::Overloaded,
            // A queue that grows slowly has no steady figure; those that it has are beyond the limit all the same.
            VerdictState::Invalid if only_unsteady(report) && !all_hold => Standing::Overloaded,
            VerdictState::Invalid if saturated(report) => Standing::Saturated,
            VerdictState::Invalid => Standing::Unusable,
        };
        Self { rate, standing, evidence }
    }

    /// Whether everything holds at this rate, chance or not; None: the probe is of no use.
    pub fn holds(&self) -> Option<bool> {
        match self.standing {
            Standing::Unusable | Standing::Saturated => None,
            Standing::Overloaded => Some(false),
            Standing::Steady => Some(self.evidence.iter().all(|evidence| evidence.holds() != Some(false))),
        }
    }

    /// The evidence about a quantile, where the probe is steady.
    pub fn share(&self, slo: usize) -> Option<&Share> {
        match self.evidence.get(slo) {
            Some(Evidence::Share(share)) if self.standing == Standing::Steady && share.count > 0.0 => Some(share),
            _ => None,
        }
    }
}

fn only_unsteady(report: &Report) -> bool {
    report.verdict.reasons.iter().all(|reason| reason.code == "not_steady")
}

/// Whether the generator had enough to do with the load itself. One that was kept off its CPU, or that was late with
/// its CPU idle, was disturbed: the next probe may be luckier.
fn saturated(report: &Report) -> bool {
    let said = |codes: &[&str]| report.verdict.reasons.iter().any(|reason| codes.contains(&reason.code.as_str()));
    let busy = report.cpu.client_thread_max_percent >= BUSY_PERCENT;
    let disturbed = said(&["generator_stalled", "cpu_contention"]);
    said(&["client_saturated", "ring_overflow", "buffer_shortage"])
        || !disturbed && busy && said(&["rate_missed", "generator_lag"])
}

fn evidence(slo: &Slo, report: &Report) -> Evidence {
    let figure = || (slo.broken_if.metric.value)(report);
    let judged = |value: f64| match slo.broken_if.bound {
        Bound::Value(bound) | Bound::Change(bound) => !slo.broken_if.op.breaks(value, bound),
    };
    let Some((q, limit_ns)) = slo.response_quantile() else { return Evidence::Judged(figure().map(judged)) };
    // What cannot be read shows nothing: there is no evidence, and the page says so.
    let response = report.latency.response.as_ref().and_then(|response| Recorder::from_report(response).ok());
    let Some(response) = response else { return Evidence::Judged(None) };
    let count = response.count() as f64;
    let beyond = beyond(&response, limit_ns);
    let interval = report.confidence.as_ref().and_then(|known| {
        let name = crate::histogram::QUANTILES.iter().find(|(_, known)| *known == q).map(|(name, _)| *name)?;
        known.quantiles.get(name)
    });
    let effective = interval.and_then(|interval| interval.effective_samples).filter(|samples| *samples > 0);
    let inflation = effective.map(|samples| (count / samples as f64).max(1.0));
    Evidence::Share(Share { count, beyond, allowed: 1.0 - q, inflation })
}

/// How many values lie beyond the limit. Within the bucket that holds it, by the part of it that does.
fn beyond(response: &Recorder, limit_ns: u64) -> f64 {
    let buckets = response.buckets();
    let (low, high) = (buckets.lowest_equivalent(limit_ns), buckets.next_non_equivalent(limit_ns));
    let inside = buckets.count_at(limit_ns) as f64;
    let above = response.count() as f64 - buckets.count_between(0, high.saturating_sub(1)) as f64;
    let part = high.saturating_sub(limit_ns) as f64 / high.saturating_sub(low).max(1) as f64;
    above.max(0.0) + inside * part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_beyond_a_limit_are_counted_within_its_bucket() {
        let mut response = Recorder::new();
        (1..=1_000_u64).for_each(|us| response.record(us * 1_000));
        for us in [1_u64, 10, 500, 990, 999] {
            let found = beyond(&response, us * 1_000 + 500);
            assert!((found - (1_000 - us) as f64).abs() <= 1.5, "{us}: {found}");
        }
        assert!((beyond(&response, 2_000_000), beyond(&response, 0)) == (0.0, 1_000.0));
    }

    #[test]
    fn a_share_is_certain_only_far_from_what_is_allowed() {
        let share = |beyond: f64, inflation| Share { count: 10_000.0, beyond, allowed: 0.01, inflation };
        assert_eq!(share(69.0, Some(1.0)).certainly(), Some(true));
        assert_eq!(share(131.0, Some(1.0)).certainly(), Some(false));
        assert_eq!((share(131.0, Some(4.0)).certainly(), share(131.0, None).certainly()), (None, None));
        assert!(share(100.0, None).holds() && !share(101.0, None).holds());
    }
}
