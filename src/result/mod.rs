//! The files `loadgen.result/1` and `loadgen.bundle/1`: their types, reading, atomic writing, and merging.

pub mod bundle;
mod check;
pub mod checksum;
mod content;
pub mod environment;
pub mod hash;
pub mod merge;
pub mod read;
pub mod schema;
pub mod shard;
pub mod write;

pub use bundle::*;
pub use environment::*;
pub use hash::{differences, differing_fields, fnv1a_hex};
pub use schema::*;
pub use shard::*;
