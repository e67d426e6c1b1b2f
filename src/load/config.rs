//! What a load is to be, in one worker's share.

use super::tally::CpuTime;
use super::turns::Turns;
use super::users::Traffic;
use crate::arrivals::{Profile, Schedule};
use crate::protocol::Shape;
use crate::time::Instant;
use crate::transport::Transport;

/// What a load is to be. Counts are this worker's share.
#[derive(Clone, Debug)]
pub struct Config {
    pub transport: Transport,
    pub shape: Shape,
    /// Where connections go, as messages name it.
    pub addresses: Vec<String>,
    /// Which of `addresses` a connection goes to, by its number among those of all workers.
    pub turns: Turns,
    /// How many carry load, of all workers.
    pub all_active: u64,
    /// Connections that carry load: slots `0..active`.
    pub active: usize,
    /// Connections that are proved with one request and then left idle: the slots behind them.
    pub idle: usize,
    /// Open loop: when requests (where sessions arrive: their first ones) are due, for each target; none to a target
    /// that this worker has no connections to. Empty: a closed loop, where a reply makes the next request due.
    pub schedules: Vec<Option<Schedule>>,
    /// How long users think, how they come and go, and how they leave.
    pub traffic: Traffic,
    /// How many of `active` are in use, over the time since the load began; all workers' together.
    pub connections_over_time: Option<Profile>,
    /// Which worker this is, of how many.
    pub worker: (u64, u64),
    /// Requests in flight on one connection, at most.
    pub depth: usize,
    /// Requests in flight on all connections together, at most: they take turns.
    pub in_flight_max: Option<u64>,
    /// Requests after which a connection is closed and opened anew.
    pub requests_per_connection: Option<u32>,
    pub stop_rule: StopRule,
    pub warmup_ns: u64,
    pub timeout_ns: u64,
    /// Connection attempts a second, at most.
    pub connect_rate: Option<u64>,
    /// Connections that have been started and not been answered yet, at most.
    pub unproven_max: usize,
    /// Of this worker's own draws.
    pub seed: u64,
    /// Of what users ask for, whichever worker they are of.
    pub run_seed: u64,
    /// The beginning of the run; times in the report count from here.
    pub origin: Instant,
    /// What this thread has used by now.
    pub usage: fn() -> Usage,
}

/// What a thread has used of its CPU, and how long it had to wait for one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub cpu: CpuTime,
    pub run_delay_ns: u64,
}

impl Config {
    /// To which of the addresses the connection in a slot goes.
    pub fn address(&self, slot: u32) -> usize {
        if self.addresses.len() == 1 { 0 } else { self.turns.address(self.number(slot)) }
    }

    /// The number of a connection among those of all workers: first all that carry load, then all that are idle.
    #[inline]
    pub fn number(&self, slot: u32) -> u64 {
        let (index, workers) = self.worker;
        let number = |slot: u64| slot * workers + index;
        match u64::from(slot).checked_sub(self.active as u64) {
            None => number(slot.into()),
            Some(idle) => self.all_active + number(idle),
        }
    }

    /// Which target it belongs to.
    #[inline]
    pub fn target(&self, slot: u32) -> usize {
        if self.addresses.len() == 1 { 0 } else { self.turns.target(self.number(slot)) }
    }

    /// This worker's share of a number that all share.
    pub fn share(&self, total: u64) -> u64 {
        let (index, workers) = self.worker;
        total / workers + u64::from(index < total % workers)
    }
}

/// When a run stops by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopRule {
    /// When the window has been open for so many nanoseconds.
    After(u64),
    /// When so many requests have been sent by this worker (at least one a connection). The window is the whole run.
    Requests(u64),
    /// Whichever comes first; the window is the whole run.
    RequestsOrAfter(u64, u64),
}
