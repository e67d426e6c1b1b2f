//! The report file `loadgen.result/1`: its types, reading, and atomic writing.

pub mod read;
pub mod schema;
pub mod write;

pub use schema::*;
