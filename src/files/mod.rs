//! Files and standard output, for all that the programs read and write: within bounds, and with failures that are
//! noticed. How files are written is `result/write.rs`.

pub mod read;
pub mod stdout;
pub mod sweep;
