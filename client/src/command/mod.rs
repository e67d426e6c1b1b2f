//! The commands: one file each.

pub mod doctor;
pub mod merge;
pub mod report;
pub mod run;
