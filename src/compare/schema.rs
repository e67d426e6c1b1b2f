//! The result of a comparison, as types: what `loadgen compare --format json` prints.
//!
//! Changes are in millionths (ppm) of the base's figure, so that everything is an integer; `errors` has millionths of
//! all requests.

use super::decision::Verdict;
use crate::result::{LimitOutcome, Tool};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The value of `schema` that this version writes.
pub const COMPARISON_SCHEMA: &str = "loadgen.comparison/1";

/// Two sets of runs, compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "loadgen.comparison/1")]
pub struct Comparison {
    /// `loadgen.comparison/1`.
    pub schema: String,
    pub tool: Tool,
    /// What was asked of both sides, in a line.
    pub scenario: String,
    pub scenario_hash: String,
    /// What the two sides differ in on purpose.
    pub varied: Vec<Difference>,
    pub design: Design,
    /// How often, in millionths, this comparison may call two equal things different, over all its gates.
    pub alpha_ppm: u64,
    pub base: Side,
    pub candidate: Side,
    /// Blocks that were compared, and those left out because one of their runs was invalid; 0: there are no blocks.
    pub blocks: u64,
    pub blocks_left_out: u64,
    pub rows: Vec<Row>,
    /// The base against itself (`ab --null`): gates only.
    pub null: Vec<Row>,
    /// Why the verdict is no more than `inconclusive`, whatever the rows say.
    pub caps: Vec<Cap>,
    /// What became of `--fail-if`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<LimitOutcome>,
    /// What else there is to know.
    pub notes: Vec<String>,
    pub verdict: Verdict,
}

/// How the runs were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Design {
    /// By `loadgen ab`: blocks, their order drawn by lot. Its error rates are bounded whatever the noise is like.
    PairedBlocks,
    /// Base and candidate took turns, in an order of somebody else's.
    Interleaved,
    /// One side first, then the other: what changed in between passes for the change.
    Sequential,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Side {
    /// Where the runs are from: files, or the arm of a bundle.
    pub from: String,
    pub runs: u64,
    /// Runs that were not used, and why.
    pub invalid: Vec<Unused>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unused {
    pub run: String,
    pub why: String,
}

/// A field that has two values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    pub field: String,
    pub base: String,
    pub candidate: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cap {
    /// `sequential`, `not_drawn`, `interrupted`, `environment`, `contaminated`, `invalid_runs` or
    /// `nothing_measured`.
    pub code: String,
    pub detail: String,
}

/// One metric.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Row {
    /// As in docs/compare.md: `rate`, `p99`, …
    pub metric: String,
    /// `ns`, `per_s`, `bytes_per_s`, `count` or `ppm`.
    pub unit: String,
    /// Whether the verdict depends on it.
    pub gated: bool,
    /// Whether more is better.
    pub higher_is_better: bool,
    /// Medians of the runs.
    pub base: Option<u64>,
    pub candidate: Option<u64>,
    /// The candidate against the base: -40000 is 4 % less. Of an interval that holds the truth but for `misrate_ppm`.
    pub change_ppm: Option<i64>,
    pub low_ppm: Option<i64>,
    pub high_ppm: Option<i64>,
    pub misrate_ppm: Option<u64>,
    /// A change that matters is larger than this.
    pub margin_ppm: u64,
    /// The smallest change for the worse that would have been found in 9 of 10 such comparisons.
    pub sees_ppm: Option<u64>,
    pub verdict: Verdict,
    /// Why there is no interval, or why the verdict is not what the interval alone would make it.
    pub reason: Option<String>,
    /// The estimate contradicts the medians, or only changes beyond 1000 % could have been seen (`reason` says which):
    /// there is no change, no interval and no `sees_ppm`, and the verdict is `inconclusive`.
    #[serde(default)]
    pub not_measurable: bool,
    /// One value a block (the difference), or none.
    pub differences_ppm: Vec<i64>,
    /// One value a run, in the order of the runs, in `unit`.
    pub base_values: Vec<u64>,
    pub candidate_values: Vec<u64>,
}

/// The JSON Schema of [`Comparison`], as committed in `schema/loadgen.comparison-1.json`.
pub fn schema_json() -> String {
    crate::result::schema_of::<Comparison>()
}
