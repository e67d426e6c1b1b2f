//! The commands: one file each.

pub mod doctor;
pub mod report;
pub mod run;
