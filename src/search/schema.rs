//! The result of a search, as types: the file `loadgen.search/1`.

use super::procedure::{Basis, Ending};
use crate::result::{Report, Tool};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The value of `schema` that this version writes.
pub const SEARCH_SCHEMA: &str = "loadgen.search/1";

/// What `loadgen search` writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "loadgen.search/1")]
pub struct Found {
    /// `loadgen.search/1`.
    pub schema: String,
    pub tool: Tool,
    /// The command line as typed.
    pub command: Vec<String>,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// It was interrupted: the finished probes are here.
    pub partial: bool,
    /// What was asked of the target, in a line.
    pub scenario: String,
    /// What has to hold, as typed.
    pub slos: Vec<String>,
    /// `poisson` or `constant`.
    pub arrival: String,
    /// Of the first probe; each further one has the next.
    pub seed: u64,
    /// Half of the interval's width that is narrow enough, in millionths of the rate.
    pub precision_ppm: u64,
    /// Time and probes that the search may take.
    pub budget_ns: u64,
    pub probes_most: u64,
    /// The window of a probe.
    pub probe_ns: u64,
    pub took_ns: u64,
    pub outcome: Outcome,
    /// Why it ended, and what that means, in a sentence.
    pub ended: String,
    /// The highest rate at which everything held, as probes saw it, chance or not; null: there is none.
    pub highest_held_per_s: Option<u64>,
    /// Null unless something held and something broke.
    pub knee: Option<KneeRow>,
    /// In the order in which they were taken.
    pub probes: Vec<Probe>,
    pub warnings: Vec<String>,
    /// What came of `--at-least`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<AtLeast>,
    /// One for each probe, in the same order: whole reports, each with its own checksum, so that one can be taken out.
    pub runs: Vec<Report>,
    /// As a report's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
}

/// What is known in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A knee, as precise as was asked for.
    Found,
    /// A knee, less precise.
    Wide,
    /// Everything held up to the highest rate that could be measured: the generator was the bound.
    AtLeast,
    /// Nothing held at any rate that was tried.
    Never,
    /// Too little was measured to say anything.
    Unknown,
}

/// The highest rate at which all limits hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KneeRow {
    pub rate_per_s: u64,
    /// Null: that end is not known.
    pub low_per_s: Option<u64>,
    pub high_per_s: Option<u64>,
    /// `fit`: an interval at 95 %; `bracket`: between a rate at which it held and one at which it did not.
    pub basis: Basis,
    /// The limit that breaks first.
    pub slo: String,
    /// Probes that it rests on.
    pub probes: u64,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Probe {
    /// Requests a second that were asked for; null: a closed loop, for a first idea of what the target can take.
    pub rate_per_s: Option<u64>,
    pub achieved_per_s: u64,
    pub p50_ns: Option<u64>,
    pub p99_ns: Option<u64>,
    pub errors: u64,
    pub verdict: ProbeVerdict,
    /// Limits that it broke, as typed, or the codes of the verdict of a run that is of no use.
    pub why: Vec<String>,
    /// By limit, where it is a percentile: requests, and how many of them took longer.
    pub slow: Vec<Option<Slow>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProbeVerdict {
    Holds,
    Broken,
    /// The target could not keep up, so nothing holds.
    Overloaded,
    /// The generator or the machine was the limit: the probe says nothing.
    Unusable,
    /// The closed loop: not judged.
    NotJudged,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Slow {
    pub requests: u64,
    pub beyond: u64,
}

/// `--at-least`: a rate that has to be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AtLeast {
    pub rate_per_s: u64,
    pub judgement: crate::result::LimitState,
}

impl Found {
    /// The content of its file: indented JSON with checksums, and a newline at the end.
    pub fn to_json(&self) -> String {
        let runs = self.runs.iter().map(Report::sealed).collect();
        let sealed = Self { runs, checksum: None, ..self.clone() };
        crate::result::pretty(&Self { checksum: Some(crate::result::checksum::of(&sealed)), ..sealed })
    }

    /// Reads what [`Self::to_json`] wrote.
    ///
    /// # Errors
    /// One line, if it is something else, or has changed since.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let mut content: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        match content.get("schema").and_then(|schema| schema.as_str()) {
            Some(SEARCH_SCHEMA) => {}
            other => return Err(format!("it is {}, not {SEARCH_SCHEMA}", other.unwrap_or("without a schema"))),
        }
        let mut found: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let (stored, actual) = crate::result::checksum::take(&mut content);
        if stored.as_ref().and_then(|stored| stored.as_str()) != Some(actual.as_str()) {
            return Err("its checksum is not that of its content: it was changed after loadgen wrote it".to_owned());
        }
        found.checksum = None;
        found.runs.iter_mut().for_each(|run| run.checksum = None);
        Ok(found)
    }

    /// What is known about a rate that has to be reached: whether the knee is above it, by its interval.
    pub fn judge_at_least(&self, rate_per_s: u64) -> crate::result::LimitState {
        use crate::result::LimitState::{Broken, Holds, Unresolvable};
        let (low, high) = match (&self.knee, self.outcome) {
            (_, Outcome::Never) => return Broken,
            (Some(knee), _) => (knee.low_per_s, knee.high_per_s),
            (None, Outcome::AtLeast) => (self.highest_held_per_s, None),
            (None, _) => (None, None),
        };
        match (low, high) {
            (Some(low), _) if low >= rate_per_s => Holds,
            (_, Some(high)) if high < rate_per_s => Broken,
            _ => Unresolvable,
        }
    }
}

impl Outcome {
    /// Of a search that ended so. `knee`: something held and something broke.
    pub fn of(ending: Option<Ending>, knee: bool) -> Self {
        match ending {
            Some(Ending::Precise) => Self::Found,
            Some(Ending::GeneratorBound) => Self::AtLeast,
            Some(Ending::NeverHeld) => Self::Never,
            Some(Ending::OutOfProbes | Ending::NothingUsable) | None if knee => Self::Wide,
            Some(Ending::OutOfProbes | Ending::NothingUsable) | None => Self::Unknown,
        }
    }
}

/// The JSON Schema of [`Found`], as committed in `schema/loadgen.search-1.json`.
pub fn schema_json() -> String {
    crate::result::schema_of::<Found>()
}
