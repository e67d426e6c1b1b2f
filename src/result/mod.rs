//! The report file `loadgen.result/1`: its types, reading, and atomic writing.

pub mod bundle;
pub mod environment;
pub mod hash;
pub mod read;
pub mod schema;
pub mod write;

pub use bundle::*;
pub use environment::*;
pub use hash::fnv1a_hex;
pub use schema::*;
