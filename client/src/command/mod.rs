//! The commands: one file each.

pub mod ab;
pub mod compare;
pub mod doctor;
pub mod report;
pub mod run;
