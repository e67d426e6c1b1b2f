//! What one worker counted: where every request and every connection went, and how long it took.
//!
//! Threads share nothing: each has a tally of its own, and they are added up when the run is over.

mod traffic;

pub use traffic::{SessionTally, StreamTally};

use crate::confidence::Batches;
use crate::engine::Counters;
use crate::handshake::Handshakes;
use crate::histogram::Recorder;
use crate::load::request_log::RequestLog;
use crate::result::Delivery;
use crate::time::{Instant, NS_PER_S};
use std::collections::BTreeMap;

/// A worker's tally, or the sum of several.
#[derive(Debug)]
pub struct Tally {
    /// From the first request to the end of the drain.
    pub whole: Counts,
    /// Requests that were due within the measured window, as they stood when it closed.
    pub window: Counts,
    pub connections: ConnectionCounts,
    pub errors: Vec<ErrorExample>,
    pub response: Recorder,
    /// The same over time, and the replies of the window.
    pub batches: Batches,
    pub service: Recorder,
    pub connect: Recorder,
    pub handshakes: Handshakes,
    /// Open loop only.
    pub backlog_wait: Recorder,
    pub generator_lag: Recorder,
    /// Times that a request came back because the peer had not acted on it.
    pub unprocessed: u64,
    /// How many of `response` had no reply.
    pub censored: u64,
    /// How long within the window tickets were taken by requests that had been due before it.
    pub carried_ns: u64,
    /// Valid replies that arrived within the window, whenever they were due.
    pub window_replies: u64,
    /// When the window opened and closed, as this worker saw it.
    pub window_from: Option<Instant>,
    pub window_to: Option<Instant>,
    pub window_bytes: Bytes,
    /// Connections that were opened within the window.
    pub window_opened: u64,
    pub bytes: Bytes,
    pub window_cpu: CpuTime,
    /// The busiest thread's CPU time within the window.
    pub window_cpu_max_ns: u64,
    pub seconds: Vec<Second>,
    pub engine: Counters,
    /// Times at which a worker stood still although it had work, or was to wake up.
    pub stalls: Stalls,
    /// CPU time spent waiting for deadlines (`--spin`), within the window.
    pub spin_ns: u64,
    /// How long a thread that could run waited for a CPU, within the window; of the worst one.
    pub run_delay_ns: u64,
    /// Where what is sent may be lost.
    pub delivery: Delivery,
    /// By target and kind of request, where the report tells these apart.
    pub groups: Vec<Group>,
    /// Open loop with several targets: what was due for each.
    pub streams: Vec<StreamTally>,
    /// Sessions that arrived by a schedule.
    pub sessions: SessionTally,
    /// What the clients' protocol counted, such as `hits`.
    pub counted: BTreeMap<&'static str, u64>,
    /// Requests one by one, and how many connections they are of.
    pub log: RequestLog,
    pub slots: u32,
}

impl Default for Tally {
    fn default() -> Self {
        Self::new()
    }
}

impl Tally {
    pub fn new() -> Self {
        Self {
            whole: Counts::default(),
            window: Counts::default(),
            connections: ConnectionCounts::default(),
            errors: Vec::new(),
            response: Recorder::new(),
            batches: Batches::new(),
            service: Recorder::new(),
            connect: Recorder::new(),
            handshakes: Handshakes::default(),
            backlog_wait: Recorder::new(),
            generator_lag: Recorder::new(),
            unprocessed: 0,
            censored: 0,
            carried_ns: 0,
            window_replies: 0,
            window_from: None,
            window_to: None,
            window_bytes: Bytes::default(),
            window_opened: 0,
            bytes: Bytes::default(),
            window_cpu: CpuTime::default(),
            window_cpu_max_ns: 0,
            seconds: Vec::new(),
            engine: Counters::default(),
            stalls: Stalls::default(),
            spin_ns: 0,
            run_delay_ns: 0,
            delivery: Delivery::default(),
            groups: Vec::new(),
            streams: Vec::new(),
            sessions: SessionTally::default(),
            counted: BTreeMap::new(),
            log: RequestLog::default(),
            slots: 0,
        }
    }

    /// One that tells so many groups of requests apart, and so many streams of them.
    pub fn of_groups(groups: usize, streams: usize) -> Self {
        Self {
            groups: std::iter::repeat_with(Group::new).take(groups).collect(),
            streams: std::iter::repeat_with(StreamTally::default).take(streams).collect(),
            ..Self::new()
        }
    }

    /// A response time of a request of the window, which was due so long after it opened.
    #[inline]
    pub fn responded(&mut self, due_ns: u64, response_ns: u64) {
        self.response.record(response_ns);
        self.batches.record(due_ns, response_ns);
    }

    /// Counts an error that belongs to no request, or the request's own; keeps the first example of each kind.
    pub fn note(&mut self, kind: &'static str, phase: Phase, count: u64, at_ns: u64, example: impl FnOnce() -> String) {
        if let Some(known) = self.errors.iter_mut().find(|e| e.kind == kind && e.phase == phase) {
            known.count += count;
            return;
        }
        self.errors.push(ErrorExample { kind, phase, count, first_at_ns: at_ns, first: example() });
    }

    /// Adds another worker's tally.
    pub fn merge(&mut self, mut other: Self) {
        self.log.append(std::mem::take(&mut other.log), self.slots);
        self.merge_counts(&other);
    }

    fn merge_counts(&mut self, other: &Self) {
        self.whole.merge(&other.whole);
        self.window.merge(&other.window);
        self.connections.merge(&other.connections);
        for error in &other.errors {
            self.merge_error(error);
        }
        self.response.merge(&other.response);
        self.batches.merge(&other.batches);
        self.service.merge(&other.service);
        self.connect.merge(&other.connect);
        self.handshakes.merge(&other.handshakes);
        self.backlog_wait.merge(&other.backlog_wait);
        self.generator_lag.merge(&other.generator_lag);
        self.slots += other.slots;
        self.stalls.merge(&other.stalls);
        self.spin_ns += other.spin_ns;
        self.run_delay_ns = self.run_delay_ns.max(other.run_delay_ns);
        self.delivery.merge(&other.delivery);
        self.unprocessed += other.unprocessed;
        self.censored += other.censored;
        self.carried_ns += other.carried_ns;
        self.window_replies += other.window_replies;
        self.window_from = earlier(self.window_from, other.window_from);
        self.window_to = self.window_to.max(other.window_to);
        self.window_bytes.add(&other.window_bytes);
        self.bytes.add(&other.bytes);
        self.window_cpu.user_ns += other.window_cpu.user_ns;
        self.window_cpu.system_ns += other.window_cpu.system_ns;
        self.window_cpu.total_ns += other.window_cpu.total_ns;
        self.window_cpu_max_ns = self.window_cpu_max_ns.max(other.window_cpu_max_ns);
        merge_seconds(&mut self.seconds, &other.seconds);
        if self.groups.len() < other.groups.len() {
            self.groups.resize_with(other.groups.len(), Group::new);
        }
        self.groups.iter_mut().zip(&other.groups).for_each(|(sum, group)| sum.merge(group));
        traffic::merge_streams(&mut self.streams, &other.streams);
        self.sessions.merge(&other.sessions);
        self.window_opened += other.window_opened;
        for (name, count) in &other.counted {
            *self.counted.entry(name).or_default() += count;
        }
        for (name, calls) in &other.engine.syscalls {
            *self.engine.syscalls.entry(name).or_default() += calls;
        }
        self.engine.waits += other.engine.waits;
        self.engine.events += other.engine.events;
        if let Some(ring) = &other.engine.ring {
            self.engine.ring.get_or_insert_default().merge(ring);
        }
    }

    fn merge_error(&mut self, other: &ErrorExample) {
        match self.errors.iter_mut().find(|e| e.kind == other.kind && e.phase == other.phase) {
            None => self.errors.push(other.clone()),
            Some(known) => {
                known.count += other.count;
                if other.first_at_ns < known.first_at_ns {
                    known.first_at_ns = other.first_at_ns;
                    known.first.clone_from(&other.first);
                }
            }
        }
    }
}

/// Where requests went: `scheduled = sent + unsent`, `sent = ok + errors + in_flight`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub scheduled: u64,
    pub unsent: u64,
    pub sent: u64,
    pub ok: u64,
    pub errors: BTreeMap<&'static str, u64>,
    pub in_flight: u64,
}

impl Counts {
    fn merge(&mut self, other: &Self) {
        self.scheduled += other.scheduled;
        self.unsent += other.unsent;
        self.sent += other.sent;
        self.ok += other.ok;
        self.in_flight += other.in_flight;
        for (kind, count) in &other.errors {
            *self.errors.entry(kind).or_default() += count;
        }
    }
}

/// Requests of one kind to one target. Of which kind a request is, is known once it has been sent: before, none counts
/// it.
#[derive(Debug)]
pub struct Group {
    pub whole: Counts,
    pub window: Counts,
    pub response: Recorder,
}

impl Group {
    fn new() -> Self {
        Self { whole: Counts::default(), window: Counts::default(), response: Recorder::new() }
    }

    /// `covered`: it was due within the window.
    pub fn answered(&mut self, covered: bool, response_ns: u64) {
        self.whole.ok += 1;
        if covered {
            self.window.ok += 1;
            self.response.record(response_ns);
        }
    }

    pub fn failed(&mut self, covered: bool, kind: &'static str, waited_ns: u64) {
        *self.whole.errors.entry(kind).or_default() += 1;
        if covered {
            *self.window.errors.entry(kind).or_default() += 1;
            if kind == "timeout" {
                self.response.record(waited_ns);
            }
        }
    }

    /// The run is over, and it has no answer.
    pub fn in_flight(&mut self, covered: bool, waited_ns: u64) {
        self.whole.in_flight += 1;
        if covered {
            self.waiting(waited_ns);
        }
    }

    /// The window closes, and it has no answer yet.
    pub fn waiting(&mut self, waited_ns: u64) {
        self.window.in_flight += 1;
        self.response.record(waited_ns);
    }

    fn merge(&mut self, other: &Self) {
        self.whole.merge(&other.whole);
        self.window.merge(&other.window);
        self.response.merge(&other.response);
    }
}

/// Where connections went; the names are those of the report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionCounts {
    pub established: u64,
    pub served: u64,
    pub alive_at_end: u64,
    pub attempts: u64,
    pub opened: u64,
    pub failed: BTreeMap<&'static str, u64>,
    pub unfinished: u64,
    pub closed: u64,
    pub closed_by_server: u64,
    pub lost: u64,
    pub turned_away: u64,
    pub cut_off: u64,
}

impl ConnectionCounts {
    fn merge(&mut self, other: &Self) {
        self.established += other.established;
        self.served += other.served;
        self.alive_at_end += other.alive_at_end;
        self.attempts += other.attempts;
        self.opened += other.opened;
        self.unfinished += other.unfinished;
        self.closed += other.closed;
        self.closed_by_server += other.closed_by_server;
        self.lost += other.lost;
        self.turned_away += other.turned_away;
        self.cut_off += other.cut_off;
        for (kind, count) in &other.failed {
            *self.failed.entry(kind).or_default() += count;
        }
    }
}

/// What a connection was doing when something went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Connect,
    Send,
    Reply,
    Idle,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Send => "send",
            Self::Reply => "reply",
            Self::Idle => "idle",
        }
    }
}

/// How often something went wrong, and the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorExample {
    pub kind: &'static str,
    pub phase: Phase,
    pub count: u64,
    pub first_at_ns: u64,
    pub first: String,
}

/// Bytes handed to the kernel, and received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    pub sent: u64,
    pub received: u64,
}

impl Bytes {
    pub fn since(&self, earlier: &Self) -> Self {
        Self { sent: self.sent - earlier.sent, received: self.received - earlier.received }
    }

    fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.received += other.received;
    }
}

/// CPU time of threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    pub total_ns: u64,
    pub user_ns: u64,
    pub system_ns: u64,
}

impl CpuTime {
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            total_ns: self.total_ns.saturating_sub(earlier.total_ns),
            user_ns: self.user_ns.saturating_sub(earlier.user_ns),
            system_ns: self.system_ns.saturating_sub(earlier.system_ns),
        }
    }
}

/// When threads stood still.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stalls {
    pub count: u64,
    pub total_ns: u64,
    pub longest_ns: u64,
    /// When the longest began, since the run did.
    pub longest_at_ns: u64,
}

impl Stalls {
    pub fn note(&mut self, ns: u64, at_ns: u64) {
        self.merge(&Self { count: 1, total_ns: ns, longest_ns: ns, longest_at_ns: at_ns });
    }

    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.total_ns += other.total_ns;
        if other.longest_ns > self.longest_ns {
            (self.longest_ns, self.longest_at_ns) = (other.longest_ns, other.longest_at_ns);
        }
    }
}

/// One row of the series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Second {
    pub ok: u64,
    pub errors: u64,
    pub sent_bytes: u64,
    pub received_bytes: u64,
    pub connections: u64,
    pub response_max_ns: u64,
    pub sent: u64,
    pub lag_max_ns: u64,
    pub backlog_max_ns: u64,
}

pub const SERIES_INTERVAL_NS: u64 = NS_PER_S;
pub const SERIES_COLUMNS: [&str; 9] = [
    "ok",
    "errors",
    "sent_bytes",
    "received_bytes",
    "connections_open",
    "response_max_ns",
    "sent",
    "generator_lag_max_ns",
    "backlog_wait_max_ns",
];

impl Second {
    pub fn row(&self) -> Vec<u64> {
        let Self { ok, errors, sent_bytes, received_bytes, connections, response_max_ns, sent, .. } = *self;
        let (lag, backlog) = (self.lag_max_ns, self.backlog_max_ns);
        vec![ok, errors, sent_bytes, received_bytes, connections, response_max_ns, sent, lag, backlog]
    }
}

fn merge_seconds(into: &mut Vec<Second>, other: &[Second]) {
    into.resize(into.len().max(other.len()), Second::default());
    for (sum, second) in into.iter_mut().zip(other) {
        sum.ok += second.ok;
        sum.errors += second.errors;
        sum.sent_bytes += second.sent_bytes;
        sum.received_bytes += second.received_bytes;
        sum.connections += second.connections;
        sum.response_max_ns = sum.response_max_ns.max(second.response_max_ns);
        sum.sent += second.sent;
        sum.lag_max_ns = sum.lag_max_ns.max(second.lag_max_ns);
        sum.backlog_max_ns = sum.backlog_max_ns.max(second.backlog_max_ns);
    }
}

fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
