//! The files `loadgen.result/1` and `loadgen.bundle/1`: their types, reading, atomic writing, and merging.

mod breakdown;
pub mod bundle;
mod check;
pub mod checksum;
mod content;
mod datagrams;
pub mod environment;
pub mod hash;
pub mod merge;
mod pretty;
pub mod read;
pub mod schema;
pub mod server_stats;
pub mod shard;
mod traffic;
pub mod write;

pub use breakdown::{Group, GroupCounts};
pub use bundle::*;
pub use datagrams::Datagrams;
pub use environment::*;
pub use hash::{differences, differing_fields, fnv1a_hex};
pub use pretty::{pretty, schema_of};
pub use schema::*;
pub use server_stats::*;
pub use shard::*;
pub use traffic::{Sessions, Stream, TimeWait};
