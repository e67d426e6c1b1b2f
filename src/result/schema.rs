//! The content of a report, as types. The committed JSON Schema (`schema/loadgen.result-1.json`) is derived from them.
//!
//! Rules: snake case; integers, with the unit at the end of the key (`_ns`, `_bytes`, `_per_s`); keys in the order
//! below; nothing that JSON cannot say (no NaN). Adding a field is compatible, so every field that is not in the very
//! first version has a default; changing what a field means is a new major version.

use super::breakdown::Group;
use super::certainty::Confidence;
use super::datagrams::Delivery;
use super::environment::{Environment, Floor};
use super::scenario_file::ScenarioFile;
use super::server_stats::ServerStats;
use super::shard::{Merged, Shard};
use super::sums::{Stored, since_1970};
use super::tls::{ScenarioTls, Tls};
use super::traffic::{Sessions, Stream, TimeWait};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The value of `schema` that this version writes.
pub const SCHEMA: &str = "loadgen.result/1";

/// One run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "loadgen.result/1")]
pub struct Report {
    /// `loadgen.result/1`. A reader refuses a major version that it does not know and ignores unknown fields.
    pub schema: String,
    pub tool: Tool,
    /// The command line as typed, with `***` in the place of what is secret.
    pub command: Vec<String>,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// The run was interrupted: what is here is true, but it is not all that was asked for.
    pub partial: bool,
    pub scenario: Scenario,
    pub environment: Environment,
    pub phases: Phases,
    pub throughput: Throughput,
    pub ledger: Ledger,
    pub connections: Connections,
    /// Errors by kind and phase, requests' and connections', with the first example of each.
    pub errors: Vec<ErrorRow>,
    pub latency: Latency,
    /// Requests by kind and target, where there are several; empty: all are alike.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub breakdown: Vec<Group>,
    /// What was due for each target, in an open loop with several; empty: there is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<Stream>,
    /// Sessions that arrived by the schedule; null: it was one of requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<Sessions>,
    /// What was agreed on with the server; null: the stream was not encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// What the protocol counted besides, over the whole run, such as `hits` and `misses`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counted: BTreeMap<String, u64>,
    /// Only where requests and replies are datagrams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datagrams: Option<Delivery>,
    /// How much of these figures is chance, and whether the run was steady; null where nothing was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<Confidence>,
    pub series: Series,
    pub cpu: Cpu,
    /// What kept the generator from its work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generator: Option<Generator>,
    /// The counters of `loadgen-server`, where it was ours (embedded).
    pub server: Option<ServerStats>,
    /// Kernel counters (`/proc/net/netstat`, `/proc/net/snmp`), after the run minus before; only those that moved.
    pub kernel: BTreeMap<String, i64>,
    pub engine: EngineStats,
    /// What the generator itself adds; null: not measured (`--no-floor`).
    #[serde(default)]
    pub floor: Option<Floor>,
    pub verdict: Verdict,
    /// What came of the limits of `--fail-if`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<LimitOutcome>,
    pub labels: BTreeMap<String, String>,
    /// Which part of a distributed run this is.
    pub shard: Option<Shard>,
    /// The shards that this report was merged from (`loadgen merge`); absent: it is one run's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged: Option<Merged>,
    /// Where this run stood in an interleaved comparison.
    pub ab: Option<AbSlot>,
    /// FNV-1a (64 bit, hexadecimal) over all of the above. In files only: who has a report in memory may change it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tool {
    pub name: String,
    pub version: String,
}

impl Tool {
    /// This version of loadgen.
    pub fn ours() -> Self {
        Self { name: "loadgen".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

/// What was run. Two reports can be compared when everything that `hash` covers is the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Scenario {
    /// FNV-1a (64 bit, hexadecimal) over all fields below except `target` and `resolved`, in order, as JSON.
    pub hash: String,
    pub protocol: String,
    /// As typed, without what is secret; several with blanks between them; for an embedded server, the address that it
    /// was given.
    pub target: String,
    /// Every address that the name resolved to; `addresses` says which of them were used.
    pub resolved: Vec<String>,
    pub engine: String,
    /// The embedded server's engine; null for a server of somebody else.
    pub server_engine: Option<String>,
    /// Connections that carry requests.
    pub connections: u64,
    /// Connections that are opened, proved with one request, and then left idle.
    #[serde(default)]
    pub idle_connections: u64,
    pub threads: u64,
    /// `closed` or `open`.
    pub mode: String,
    /// Open loop only: requests, or where there is `session_requests`, sessions.
    pub rate_per_s: Option<u64>,
    /// Open loop only: `constant` or `poisson`.
    pub arrival: Option<String>,
    /// Requests in flight on one connection, at most.
    pub pipeline: u64,
    /// Payload of one request.
    pub size_bytes: u64,
    /// A digest (FNV-1a) of the bytes of one request, so that scenarios that differ in a header do not pass as one.
    /// Where those bytes name the target (the Host header), the name is left out.
    pub request_hash: String,
    /// Requests after which a connection is closed and opened anew; null: never.
    pub requests_per_connection: Option<u64>,
    pub timeout_ns: u64,
    pub seed: u64,
    pub warmup_ns: u64,
    /// The window asked for; null where the run stopped after a number of requests.
    pub duration_ns: Option<u64>,
    /// Stop after this many requests; null: after `duration_ns`.
    pub requests: Option<u64>,
    /// Requests in flight on all connections together, at most; null: `pipeline` on each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u64>,
    /// Open loop: the rate where it changes over time, as typed (`1k:10s,1k..5k:20s`); `rate_per_s` is null then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_steps: Option<String>,
    /// The number of connections where it changes over time, likewise; `connections` is the highest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_steps: Option<String>,
    /// Open loop: how long before a request is due its thread waits for it without sleeping.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub spin_ns: u64,
    /// Options of engine `io_uring` that differ from the defaults, of the client and of the embedded server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub engine_options: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub server_engine_options: Vec<String>,
    /// What the embedded server injects (`service-time=fixed:1ms`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub server_injected: Vec<String>,
    /// The run was to end when these intervals are narrow enough (`p99=2%`), at the latest after `duration_ns`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub until_ci: Vec<String>,
    /// Shares of several targets, in the order of `target`; empty: there is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<u64>,
    /// Which of a target's addresses were used: `all` (in turn), `ipv4`, `ipv6`; null: the first that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<String>,
    /// How long users think before each request, as `exp:1s`, in one spelling; `script`: only where a step of a script
    /// says so; null: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub think: Option<String>,
    /// Partly open: sessions arrive by the schedule, and each has so many requests (`5`, `1..20`, `geom:0.2`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_requests: Option<String>,
    /// `new`: each session has a connection of its own; null: it takes any that is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_connection: Option<String>,
    /// `rst`: connections are closed by a reset; null: in good order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub close: Option<String>,
    /// The scenario file, where one says which requests are made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<ScenarioFile>,
    /// How the stream was to be encrypted; null: it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ScenarioTls>,
    /// Names of headers whose values are secret: those are in no part of this report, and in no digest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secret_headers: Vec<String>,
}

/// The parts of a run, in order; lengths in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Phases {
    /// Opening connections, until each had been answered once.
    pub ramp_ns: u64,
    pub warmup_ns: u64,
    /// The window that the headline figures describe.
    pub measure_ns: u64,
    /// Waiting for the last replies.
    pub drain_ns: u64,
    /// When the measured window opened: microseconds since 1970, UTC, by this machine's clock.
    #[serde(alias = "window_started_unix_ns", deserialize_with = "since_1970")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_started_unix_us: Option<u64>,
    /// How long after `--start-at` the load began, because connections were not open by then; 0: it was on time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_late_ns: Option<u64>,
}

/// Within the measured window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Throughput {
    /// `replies` / window, rounded.
    pub requests_per_s: u64,
    /// Valid replies that arrived within the window, whenever they were asked for. (The ledger counts requests by the
    /// time at which they were due; at the window's edges the two differ by what was in flight.)
    pub replies: u64,
    pub sent_bytes_per_s: u64,
    pub received_bytes_per_s: u64,
    pub window_ns: u64,
    /// Open loop: requests that were due within the window / window, rounded. What was asked for, not what was had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered_per_s: Option<u64>,
    /// Bytes of the whole run, handed to the kernel and received; a server's own counters equal these.
    #[serde(default)]
    pub whole_run_sent_bytes: u64,
    #[serde(default)]
    pub whole_run_received_bytes: u64,
}

/// Where every request went. `scheduled = sent + unsent`, `sent = ok + sum(errors) + in_flight_at_end`.
///
/// At the top level of a report: requests that were due within the measured window, and what had become of them when
/// it closed (open loop: when the last replies had been waited for). `whole_run`: from the first request to the end of
/// the drain; a server's own counters equal these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ledger {
    pub scheduled: u64,
    /// Due, but no connection took it before the end.
    pub unsent: u64,
    pub sent: u64,
    pub ok: u64,
    /// By kind; the kinds are listed in docs/report.md.
    pub errors: BTreeMap<String, u64>,
    pub in_flight_at_end: u64,
    /// The same for the whole run; absent within itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole_run: Option<Box<Self>>,
}

impl Ledger {
    /// Whether both identities hold, here and in `whole_run`.
    pub fn closes(&self) -> bool {
        // In 128 bits: a damaged file may hold numbers whose sum is too large for 64.
        let sum = |counts: &[u64]| counts.iter().map(|count| u128::from(*count)).sum::<u128>();
        let errors: Vec<u64> = self.errors.values().copied().collect();
        u128::from(self.scheduled) == sum(&[self.sent, self.unsent])
            && u128::from(self.sent) == sum(&[self.ok, self.in_flight_at_end]) + sum(&errors)
            && self.whole_run.as_ref().is_none_or(|whole| whole.closes())
    }
}

/// Connections, over the whole run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Connections {
    /// Connections that were to be open at once (active and idle).
    pub requested: u64,
    /// Of those, how many were established at least once.
    pub established: u64,
    /// Of those, how many got at least one reply that does not refuse the connection itself: a handshake alone can end
    /// in the server's backlog.
    pub served: u64,
    /// Open when the run stopped sending.
    pub alive_at_end: u64,
    /// Connection attempts, first ones and later ones.
    pub attempts: u64,
    /// Attempts that succeeded; a server's count of accepts equals this, unless it died in between.
    pub opened: u64,
    /// Attempts that failed, by kind.
    pub failed: BTreeMap<String, u64>,
    /// Attempts that were cut off by the end of the run.
    #[serde(default)]
    pub unfinished: u64,
    /// Closed by us as planned (`--requests-per-conn`, end of the run).
    pub closed: u64,
    /// Closed by the server between two replies, or announced in one: no error.
    pub closed_by_server: u64,
    /// Lost with requests on them, reset, or closed by us because of an error.
    pub lost: u64,
    /// Of `lost`, those that the server accepted only to refuse them, with words of its own (Redis: `maxclients`,
    /// protected mode; memcached: `-c`; HTTP: 503 or 429 before anything was asked).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub turned_away: u64,
    /// Requests that were answered before they had left, and whose rest never did, because their connection was closed
    /// or broke first. (Each is in the ledger as what its reply was.)
    #[serde(default, skip_serializing_if = "is_zero")]
    pub requests_cut_off: u64,
    /// Of `closed`, those that we closed by a reset (`--close rst`).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub closed_by_reset: u64,
    /// Connections that were opened within the measured window, a second; null: none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened_per_s: Option<u64>,
    /// Where connections come and go: what they leave behind; null where they do not, or leave nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_wait: Option<TimeWait>,
}

/// How often something went wrong, and the first example.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorRow {
    /// As in `ledger.errors` or `connections.failed`.
    pub kind: String,
    /// `connect`, `send`, `reply` or `idle`.
    pub phase: String,
    pub count: u64,
    /// Since the run began.
    pub first_at_ns: u64,
    /// What happened, with the system's words and up to 64 bytes of what was received, escaped.
    pub first: String,
}

/// Histograms; their meaning is in docs/report.md.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Latency {
    /// Last byte of the reply minus the intended send time, for requests of the window. Timeouts and requests in
    /// flight at its end count with the time they had waited.
    pub response: Option<Histogram>,
    /// Last byte of the reply minus the moment the request was handed to the kernel, for replies only.
    pub service: Option<Histogram>,
    /// From the start of a connection attempt to its success, over the whole run.
    pub connect: Option<Histogram>,
    /// TLS only: from the end of TCP's handshake to that of TLS, over the whole run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake: Option<Histogram>,
    /// Open loop only: how long a due request waited because every connection was busy.
    pub backlog_wait: Option<Histogram>,
    /// Open loop and think times: how late a request left although a connection was free.
    pub generator_lag: Option<Histogram>,
    /// How many of `response` are requests without a reply (timeouts and in flight): their true time is longer.
    #[serde(default)]
    pub censored: u64,
    /// Closed loop only: how long within the window, over all places for requests, those were under way that had been
    /// due before it opened, or connections had yet to begin. That is in no histogram; with `response` it adds up to
    /// the time that there was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried_ns: Option<u64>,
}

/// A histogram, whole, with what people ask of it first. In a file, its sum is there twice (`result/sums.rs`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Histogram {
    pub count: u64,
    /// Exact, like max, mean (rounded down) and sum.
    pub min_ns: u64,
    pub mean_ns: u64,
    pub max_ns: u64,
    pub sum_ns: u64,
    /// By quantile (`"0.99"`), within 0.1 %.
    pub quantiles_ns: BTreeMap<String, u64>,
    /// HdrHistogram V2 compressed, 3 significant digits, base64.
    pub hdr: String,
}

/// What happened in each second after the first request, ramp and warm-up included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Series {
    pub interval_ns: u64,
    pub columns: Vec<String>,
    pub rows: Vec<Vec<u64>>,
}

/// CPU time in the measured window; per valid reply where there were any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cpu {
    pub client_ns_per_request: Option<u64>,
    /// Like `server_ns`: of a server that `ab` started by a command, over the whole run.
    pub server_ns_per_request: Option<u64>,
    pub client_ns: u64,
    pub client_user_ns: u64,
    pub client_system_ns: u64,
    pub server_ns: Option<u64>,
    /// The busiest client thread's CPU time as percent of the window.
    pub client_thread_max_percent: u64,
    /// Peak resident memory of the client.
    pub client_memory_bytes: u64,
    pub server_memory_bytes: Option<u64>,
}

/// What kept the generator from its work: times at which a thread did nothing although it was to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Generator {
    /// Times of 5 ms and more at which a thread stood still: stopped, or kept off its CPU. Since the load began.
    pub stalls: u64,
    pub stalled_ns: u64,
    pub longest_stall_ns: u64,
    /// When the longest began, since the run did.
    pub longest_stall_at_ns: u64,
    /// How long the worst thread could run within the window and waited for a CPU that others had.
    pub run_delay_ns: u64,
    /// CPU time within the window that was spent waiting for due times without sleeping (`--spin`), of all threads.
    pub spin_ns: u64,
}

/// What an engine did, over the whole run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EngineStats {
    pub name: String,
    /// Why this engine and not the one asked for (`--engine auto`); null: as asked.
    pub instead_of: Option<String>,
    /// What runs in place of a system call that this kernel, or a sandbox, does not offer, and why; absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// System calls by name.
    pub syscalls: BTreeMap<String, u64>,
    /// Per valid reply, times 1000.
    pub syscalls_per_1000_requests: Option<u64>,
    pub events: u64,
    pub waits: u64,
    /// Engine `io_uring` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring: Option<RingStats>,
}

/// What the io_uring rings of a program did, all together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RingStats {
    pub rings: u64,
    /// Calls of io_uring_enter(2).
    pub enters: u64,
    pub completions: u64,
    /// Times that a completion queue had overflowed: the run is no measure of io_uring then.
    pub overflows: u64,
    /// Receives that found no buffer.
    pub buffer_shortages: u64,
    /// Receives that had ended and were armed again.
    pub rearms: u64,
    pub short_sends: u64,
    /// Completions for connections that were gone.
    pub stale: u64,
    pub cancels: u64,
    /// Flags that the kernel granted, and options that differ from the defaults.
    pub setup: Vec<String>,
}

impl Report {
    /// Whether it is a run of this arm of a bundle.
    pub fn is_of_arm(&self, arm: &str) -> bool {
        self.ab.as_ref().is_some_and(|ab| ab.arm == arm)
    }

    /// The rings of those sides that have some, the client's first.
    pub fn rings(&self) -> impl Iterator<Item = (&'static str, &RingStats)> {
        let server = self.server.as_ref().and_then(|server| server.ring.as_ref());
        [("client", self.engine.ring.as_ref()), ("server", server)]
            .into_iter()
            .filter_map(|(who, ring)| Some((who, ring?)))
    }
}

impl Verdict {
    /// The codes of all reasons: `cpu_contention, generator_lag`.
    pub fn codes(&self) -> String {
        self.reasons.iter().map(|reason| reason.code.as_str()).collect::<Vec<_>>().join(", ")
    }
}

impl RingStats {
    /// Adds those of another thread.
    pub fn merge(&mut self, other: &Self) {
        self.rings += other.rings;
        self.enters += other.enters;
        self.completions += other.completions;
        self.overflows += other.overflows;
        self.buffer_shortages += other.buffer_shortages;
        self.rearms += other.rearms;
        self.short_sends += other.short_sends;
        self.stale += other.stale;
        self.cancels += other.cancels;
        if self.setup.is_empty() {
            self.setup.clone_from(&other.setup);
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    pub state: VerdictState,
    pub reasons: Vec<Reason>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VerdictState {
    Valid,
    /// The target could not keep up; the numbers are true.
    Overloaded,
    /// The generator or the machine was the limit.
    #[default]
    Invalid,
}

/// Why a run is not simply valid: what happened, why it matters, what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reason {
    pub code: String,
    pub detail: String,
}

/// One limit of `--fail-if`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LimitOutcome {
    /// As typed: `p99>5ms`.
    pub expression: String,
    pub judgement: LimitState,
    /// The figure with its interval, or why it cannot be told.
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitState {
    Holds,
    Broken,
    /// The limit is closer to the figure than the measurement can tell.
    Unresolvable,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AbSlot {
    /// That of the bundle.
    pub session: String,
    /// From 0 on, like `slot`, its place within the block.
    pub block: u64,
    pub slot: u64,
    /// `A` (base), `B` (candidate) or `N` (base again).
    pub arm: String,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// The JSON Schema of [`Report`], as committed in `schema/loadgen.result-1.json`.
pub fn schema_json() -> String {
    super::schema_of::<Report>()
}
