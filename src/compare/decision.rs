//! Four verdicts: what an interval says about a change, given what change would matter.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::estimate::Estimate;

/// What an interval says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Worse by more than the margin.
    Regressed,
    /// Better by more than the margin.
    Improved,
    /// If there is a change, it is smaller than the margin.
    Equivalent,
    /// The interval is too wide to tell.
    Inconclusive,
}

/// `estimate` says how much worse, as a difference of logarithms (positive: worse); `margin` is a share (0.02).
pub fn decide(estimate: &Estimate, margin: f64) -> Verdict {
    decide_absolute(estimate, margin.ln_1p())
}

/// The same with a margin in the unit of the estimate, for shares of errors.
pub fn decide_absolute(estimate: &Estimate, margin: f64) -> Verdict {
    if estimate.low > margin {
        Verdict::Regressed
    } else if estimate.high < -margin {
        Verdict::Improved
    } else if estimate.low >= -margin && estimate.high <= margin {
        Verdict::Equivalent
    } else {
        Verdict::Inconclusive
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_follows_from_where_the_interval_lies() {
        let margin = 0.02_f64;
        let verdict = |low: f64, high: f64| {
            decide(&Estimate { centre: (low + high) / 2.0, low, high, misrate: 0.01, reach: 0.0 }, margin)
        };
        let edge = margin.ln_1p();
        assert_eq!(verdict(0.021, 0.03), Verdict::Regressed);
        assert_eq!(verdict(edge, 0.03), Verdict::Inconclusive);
        assert_eq!(verdict(-0.03, -0.021), Verdict::Improved);
        assert_eq!(verdict(-0.03, -edge), Verdict::Inconclusive);
        assert_eq!(verdict(-edge, edge), Verdict::Equivalent);
        assert_eq!(verdict(-0.03, 0.03), Verdict::Inconclusive);
        assert_eq!(verdict(f64::NAN, f64::NAN), Verdict::Inconclusive);
    }

    #[test]
    fn without_a_margin_only_an_interval_without_zero_is_a_change() {
        let verdict =
            |low: f64, high: f64| decide_absolute(&Estimate { centre: 0.0, low, high, misrate: 0.01, reach: 0.0 }, 0.0);
        assert_eq!(verdict(0.0, 0.0), Verdict::Equivalent);
        assert_eq!(verdict(0.0, 1.0), Verdict::Inconclusive);
        assert_eq!(verdict(1e-9, 1.0), Verdict::Regressed);
        assert_eq!(serde_json::to_string(&Verdict::Regressed).unwrap(), "\"regressed\"");
    }
}
