//! The report file `loadgen.result/1`: its types, reading, and atomic writing.

pub mod read;
pub mod schema;
pub mod write;

pub use read::{ReadError, read};
pub use schema::*;
pub use write::{WriteError, default_path, probe, write_atomically};
