//! Which scenario file a run had.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a scenario file asks for. Flags that it sets are in the scenario like those that are typed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ScenarioFile {
    pub name: String,
    /// FNV-1a (64 bit, hexadecimal) over its requests, scripts and weights, and the content of the files that it names.
    pub hash: String,
    /// In the order of the file; of a recorded list, its methods, and how many lines each has.
    pub requests: Vec<Weighted>,
    /// Requests that are made in order on one connection.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scripts: Vec<Weighted>,
}

/// Something that is drawn by weight.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Weighted {
    pub name: String,
    /// 0: a request that only scripts make.
    pub weight: u64,
    /// Of a script: its requests, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<String>,
}
