//! How much of a run's figures is chance.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Intervals that hold the figures of this run at a level of confidence, and whether it was steady. About this one run:
/// another day or another start of the server can differ by more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Confidence {
    pub level_percent: u64,
    /// How the intervals came about, in words; docs/confidence.md explains.
    pub method: String,
    /// Length of the batches that the run was cut into.
    pub batch_ns: u64,
    /// Of `latency.response`, by quantile.
    pub quantiles: BTreeMap<String, Interval>,
    pub mean: Interval,
    /// Of `throughput.requests_per_s`.
    pub rate: RateInterval,
    /// Null: too short to tell, or not asked (a run of a number of requests contains its own beginning).
    pub drift: Option<Drift>,
    /// What `--until-ci` asked for, and what came of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub until_ci: Vec<UntilCi>,
}

/// Between which values a figure lies; null, with the reason, where that is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Interval {
    pub low_ns: Option<u64>,
    pub high_ns: Option<u64>,
    /// So many independent values would say as much as those that were measured, which depend on one another.
    pub effective_samples: Option<u64>,
    /// `few_values`, `few_independent_values` or `correlated`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RateInterval {
    pub low_per_s: Option<u64>,
    pub high_per_s: Option<u64>,
    /// As in [`Interval`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The first third of the window compared with the last, by medians of batches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Drift {
    /// Neither the median response time nor the rate of replies changed by more than 10 % and 4 standard errors.
    pub steady: bool,
    pub response_first_ns: u64,
    pub response_last_ns: u64,
    /// The change in standard errors, rounded down; at most 1000.
    pub response_sigmas: u64,
    pub rate_first_per_s: u64,
    pub rate_last_per_s: u64,
    pub rate_sigmas: u64,
}

/// One figure of `--until-ci`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UntilCi {
    /// `p50` to `p99.99`, `mean` or `rate`.
    pub figure: String,
    /// Half the width of the interval, in millionths of the figure: as asked, and as it was when the run ended.
    pub asked_ppm: u64,
    pub half_width_ppm: Option<u64>,
    pub reached: bool,
}
