//! The files `loadgen.result/1` and `loadgen.bundle/1`: their types, reading, and atomic writing.

pub mod bundle;
mod check;
pub mod checksum;
mod content;
pub mod environment;
pub mod hash;
pub mod read;
pub mod schema;
pub mod write;

pub use bundle::*;
pub use environment::*;
pub use hash::fnv1a_hex;
pub use schema::*;
