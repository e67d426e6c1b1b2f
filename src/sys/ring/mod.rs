//! io_uring: requests and completions through memory that is shared with the kernel, one system call for many of both.
//!
//! Safe to use: the ring owns every buffer that the kernel may touch until its completion has been seen. In reading
//! order:
//!
//! - [`token`]: what a completion is about
//! - [`flow`]: what it means for its socket; pure, and tested by scripts of completions
//! - [`leases`], [`buffers`]: memory that the kernel reads from, and writes to
//! - [`queues`]: one ring; `submit`: what can be asked of it; [`lanes`]: several rings with one wait
//! - [`datagrams`]: the same for a socket without connections
//! - [`options`], `setup`, `smoke`: making a ring, and seeing whether it works
//! - [`refusal`]: why there is none
//!
//! Sockets live in the ring's own table (direct descriptors): they are no descriptors of the process, and a request
//! finds them without the cost of those. What a ring cannot do to them (shutdown, getsockname) is done by making one
//! an ordinary descriptor for a moment.
//!
//! Linux 6.11 or later; see `io_uring(7)`, `io_uring_setup(2)`, `io_uring_enter(2)`.

pub mod buffers;
pub mod datagrams;
pub mod flow;
#[cfg(test)]
mod flow_tests;
pub mod lanes;
pub mod leases;
pub mod options;
pub mod queues;
pub mod refusal;
#[cfg(test)]
mod script;
#[cfg(test)]
mod script_tests;
mod setup;
mod smoke;
mod submit;
pub mod token;

pub use buffers::{Buffers, Filled};
pub use flow::{Completion, Driver, Event, FlowCounters, Flows};
pub use lanes::{Lane, Lanes};
pub use leases::Leases;
pub use options::Options;
pub use queues::{Ring, RingCounters, Wait};
pub use refusal::Refusal;
pub use smoke::{check, room};
pub use token::{Op, Token};
