//! What goes wrong in a simulated run, how often, and how long things take.

use loadgen_core::rng::Rng;
use loadgen_core::time::{NS_PER_MS, NS_PER_US};
use std::io;

/// What is wrong with a connection, or with the attempt to make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    ConnectFails,
    ConnectFailsAtOnce,
    ConnectHangs,
    /// The peer answers when it has seen the first byte of a request, and reads the rest of it.
    EarlyReplies,
    /// Likewise, and reads nothing more.
    EarlyThenDeaf,
    /// Likewise, and ends the stream.
    EarlyThenEnds,
    /// Some requests are never answered.
    Silent,
    /// Some replies come twice.
    Doubles,
    /// Bytes that answer nothing come between replies.
    Noise,
    /// The stream is ended, or the connection reset, in the middle of a reply or between two.
    Ends,
    Resets,
    /// Ends the stream at some time, whatever is going on.
    EndsUnasked,
    /// Reads nothing after its first request.
    NeverReads,
    /// Some sends are refused with an error (`EPERM` of a firewall, `ENOBUFS`, `ECONNREFUSED`, `ECONNRESET`).
    SendFails,
}

const OF_CONNECTIONS: [Fault; 11] = [
    Fault::EarlyReplies,
    Fault::EarlyThenDeaf,
    Fault::EarlyThenEnds,
    Fault::Silent,
    Fault::Doubles,
    Fault::Noise,
    Fault::Ends,
    Fault::Resets,
    Fault::EndsUnasked,
    Fault::NeverReads,
    Fault::SendFails,
];

/// How a run's network and peers behave.
#[derive(Clone, Debug)]
pub(super) struct Faults {
    /// In how many of 100 connections something is wrong, and of attempts.
    of_connections: u64,
    of_attempts: u64,
    /// Only this kind, in half of the runs: a kind that ends connections hides others.
    only: Option<Fault>,
    /// Mean of an exponential time that a reply takes.
    service_mean_ns: u64,
    /// How often in 1,000 the peer stands still for a while.
    stalls: u64,
    /// Bytes that our kernel takes before the peer has read.
    capacity: u64,
}

impl Faults {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let calm = rng.below(4) == 0;
        let some = |share: u64| if calm { 0 } else { share };
        Self {
            of_connections: some([0, 10, 50, 100][rng.below(4) as usize]),
            of_attempts: some([0, 0, 10, 60][rng.below(4) as usize]),
            only: (rng.below(2) == 0).then(|| OF_CONNECTIONS[rng.below(OF_CONNECTIONS.len() as u64) as usize]),
            service_mean_ns: [0, 100 * NS_PER_US, 2 * NS_PER_MS][rng.below(3) as usize],
            stalls: some([0, 2, 20][rng.below(3) as usize]),
            capacity: [200, 5_000, 100_000, 1_000_000][rng.below(4) as usize],
        }
    }

    /// Endless streams: no more on its way than can be simulated.
    pub(super) fn is_for_streams(&mut self) {
        self.capacity = self.capacity.min(5_000);
    }

    /// Nothing ever goes wrong.
    pub(super) fn is_calm(&self) -> bool {
        self.of_connections == 0 && self.of_attempts == 0 && self.stalls == 0
    }

    pub(super) fn connect(&self, rng: &mut Rng) -> Option<Fault> {
        let wrong = rng.below(100) < self.of_attempts;
        wrong.then(|| [Fault::ConnectFails, Fault::ConnectFailsAtOnce, Fault::ConnectHangs][rng.below(3) as usize])
    }

    pub(super) fn connection(&self, rng: &mut Rng) -> Option<Fault> {
        let any = OF_CONNECTIONS[rng.below(OF_CONNECTIONS.len() as u64) as usize];
        (rng.below(100) < self.of_connections).then_some(self.only.unwrap_or(any))
    }

    /// At least one byte.
    pub(super) fn capacity(&self, rng: &mut Rng) -> usize {
        (self.capacity / 2 + rng.below(self.capacity)) as usize
    }

    pub(super) fn service_ns(&self, rng: &mut Rng) -> u64 {
        if self.service_mean_ns == 0 { 0 } else { rng.exponential(self.service_mean_ns as f64) as u64 }
    }

    /// What a send of a message is refused with.
    pub(super) fn refusal(rng: &mut Rng) -> io::Error {
        const EPERM: i32 = 1;
        const ENOBUFS: i32 = 105;
        const ECONNREFUSED: i32 = 111;
        io::Error::from_raw_os_error([EPERM, ENOBUFS, ECONNREFUSED][rng.below(3) as usize])
    }

    /// How long what has arrived lies before the peer looks.
    pub(super) fn reading_ns(&self, rng: &mut Rng) -> u64 {
        if rng.below(1_000) < self.stalls { rng.below(200 * NS_PER_MS) } else { 0 }
    }
}
