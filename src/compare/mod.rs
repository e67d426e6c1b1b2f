//! Whether two versions differ: estimates with exact intervals, verdicts, and what an experiment can see.
//!
//! One run (a fresh server) is one observation. Pure: it gets figures and returns figures. docs/compare.md has the
//! method, its sources and its measured error rates.

pub mod decision;
pub mod estimate;
pub mod power;
pub mod rank;
