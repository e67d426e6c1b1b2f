//! The file `loadgen.bundle/1`: the runs of one interleaved comparison, and the order in which they were taken.

use super::schema::{Report, Tool};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The value of `schema` that this version writes.
pub const BUNDLE_SCHEMA: &str = "loadgen.bundle/1";

/// What `loadgen ab` writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "loadgen.bundle/1")]
pub struct Bundle {
    /// `loadgen.bundle/1`.
    pub schema: String,
    pub tool: Tool,
    /// The command line as typed.
    pub command: Vec<String>,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// It was interrupted: the finished blocks are here, and they are fewer than were planned.
    pub partial: bool,
    /// Names this session; the runs have it too (`ab.session`).
    pub session: String,
    /// Of the draws that decided the order.
    pub seed: u64,
    /// What was compared: base `A`, candidate `B`, and, where it was asked for, `N`: the base once more.
    pub arms: Vec<Arm>,
    /// Without invalid runs. In place of blocks that have some there may be up to half as many more.
    pub blocks_planned: u64,
    /// How the number of blocks was found (`--detect`); null: it was given.
    pub plan: Option<BlockPlan>,
    /// The arms of each block in the order in which they ran: a draw, and then the same backwards (`A B B A`).
    pub order: Vec<Vec<String>>,
    /// In the order in which they ran; whole reports, each with its own checksum, so that one can be taken out.
    pub runs: Vec<Report>,
    /// As a report's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
}

/// One side of a comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Arm {
    /// `A`, `B` or `N`.
    pub name: String,
    /// The command that starts its server; null: the embedded one, or somebody else's.
    pub server_command: Option<String>,
    /// Where its server is; null: the embedded one.
    pub target: Option<String>,
    /// Flags of this arm only.
    pub flags: Vec<String>,
}

/// What the pilot blocks said, which are not part of the comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BlockPlan {
    /// The change that is to be seen, in millionths.
    pub detect_ppm: u64,
    pub pilot_blocks: u64,
    /// Standard deviation of a block's difference that the true one hardly exceeds, in millionths, by metric.
    pub spread_ppm: std::collections::BTreeMap<String, u64>,
    /// Blocks that it takes.
    pub blocks: u64,
}

/// The JSON Schema of [`Bundle`], as committed in `schema/loadgen.bundle-1.json`.
pub fn bundle_schema_json() -> String {
    super::schema_of::<Bundle>()
}
