//! The files `loadgen.result/1` and `loadgen.bundle/1`: their types, reading, atomic writing, and merging.

mod breakdown;
pub mod bundle;
mod certainty;
mod check;
pub mod checksum;
mod content;
mod datagrams;
pub mod environment;
pub mod hash;
pub mod integers;
pub mod merge;
mod picked;
mod pipe;
mod pretty;
pub mod read;
mod scenario_file;
pub mod schema;
pub mod server_stats;
pub mod shard;
mod sums;
mod tls;
mod traffic;
pub mod write;

pub use breakdown::{Group, GroupCounts};
pub use bundle::*;
pub use certainty::*;
pub use datagrams::Delivery;
pub use environment::*;
pub use hash::{Fnv1a, differences, differing_fields, fnv1a_hex};
pub use pretty::{pretty, schema_of};
pub use scenario_file::{ScenarioFile, Weighted};
pub use schema::*;
pub use server_stats::*;
pub use shard::*;
pub use tls::{ScenarioTls, Tls};
pub use traffic::{Sessions, Stream, TimeWait};
