//! The session: what is sent on which connection and when, what a reply means for the ledger, and how a lost
//! connection comes back. Every engine is driven by this same code.
//!
//! Read in this order: here, what a connection is and its states; `opening` (connections come, fail and come back);
//! `greeting` (what is said before the first request); `requests` (they are sent, answered, or fail); `outbox` (where
//! each is written anew); `early` (replies that come before their requests have left); `unasked` (bytes that answer no
//! request); `deadlines` (what takes too long); `datagrams` (where each is one); `secure` (what goes over the wire is
//! encrypted); `thinking` (users take their time); `visits` (users come and go); `streams` (where there are no
//! requests); `pacing` (the open loop); `window` (what counts for the measured window).

mod datagrams;
mod deadlines;
mod early;
mod greeting;
mod opening;
mod outbox;
mod pacing;
mod requests;
mod secure;
mod streams;
mod thinking;
mod unasked;
mod visits;
mod window;

use crate::engine::{Handler, Io};
use crate::request_log::RequestLog;
use crate::tally::{Phase, Tally};
use crate::timers::Timers;
use crate::traffic::Traffic;
use crate::turns::Turns;
use datagrams::Datagrams;
use loadgen_core::arrivals::{Profile, Schedule};
use loadgen_core::protocol::{Client, ClientState, Shape};
use loadgen_core::rng::Rng;
use loadgen_core::sys::endpoint::Endpoint;
use loadgen_core::time::{Instant, NS_PER_S};
use loadgen_core::tls::client::Settings;
use opening::Gate;
use outbox::Outbox;
use pacing::Pacer;
use secure::Keys;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use thinking::Thinking;
use visits::Visits;
use window::Window;

/// What a session is to do. Counts are this worker's share.
#[derive(Clone, Debug)]
pub struct Config {
    pub shape: Shape,
    pub remotes: Vec<Remote>,
    /// For each target; none: nothing is encrypted.
    pub tls: Vec<Settings>,
    /// Which of `remotes` a connection goes to, by its number among those of all workers.
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
    pub seed: u64,
    /// The beginning of the run; times in the report count from here.
    pub origin: Instant,
}

/// Where connections go.
#[derive(Clone, Debug)]
pub struct Remote {
    pub endpoint: Endpoint,
    /// Local addresses to connect from, in turn; none: the kernel's choice.
    pub sources: Vec<SocketAddr>,
}

impl Config {
    /// Where the connection in a slot goes.
    pub fn remote(&self, slot: u32) -> &Remote {
        if self.remotes.len() == 1 {
            return &self.remotes[0];
        }
        &self.remotes[self.turns.address(self.number(slot))]
    }

    /// The number of a connection among those of all workers: first all that carry load, then all that are idle.
    #[inline]
    fn number(&self, slot: u32) -> u64 {
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
        if self.remotes.len() == 1 { 0 } else { self.turns.target(self.number(slot)) }
    }

    /// This worker's share of a number that all share.
    pub fn share(&self, total: u64) -> u64 {
        let (index, workers) = self.worker;
        total / workers + u64::from(index < total % workers)
    }
}

/// Connections that begin with the load in one turn.
const STARTS_A_TURN: usize = 2048;

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

/// One connection. With its stamp (16 bytes), its engine's (8) and its timer (8) it takes 64 bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Conn {
    parser: ClientState,
    /// Bytes of due requests that the kernel has not taken yet; where requests are written anew, how many of them have
    /// not been.
    unsent: u32,
    /// Requests issued since the connection was opened.
    issued: u32,
    /// Where the ring of stamps begins.
    oldest: u16,
    /// Requests that are due or sent, and unanswered.
    outstanding: u16,
    state: State,
    flags: u8,
    /// Failures in a row.
    failures: u8,
    /// Which queues of the open loop have an entry of it, and whether it waits for a rest to leave (see `early`).
    queued: u8,
}

const _: () = assert!(size_of::<Conn>() == 32 && size_of::<Stamp>() == 16);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// No socket: not opened yet, waiting for its turn, or for the end of its back-off.
    #[default]
    Closed,
    Connecting,
    /// Established, and within the handshake of TLS.
    Securing,
    /// Established; what is said before the first request has yet to be answered.
    Greeting,
    /// Open. Requests flow, or will when the load begins.
    Open,
    /// We ended our stream and wait for the end of the peer's.
    Ending,
}

/// Flags of a connection.
mod flag {
    /// Was established once; was served once.
    pub(super) const ESTABLISHED: u8 = 1;
    pub(super) const SERVED: u8 = 2;
    /// Started, and not answered yet: counts in the gate.
    pub(super) const UNPROVEN: u8 = 4;
    /// Has an entry in the timeouts' queue.
    pub(super) const TIMER: u8 = 8;
    /// A request is due (its stamp says since when) and waits for this connection to open.
    pub(super) const DUE: u8 = 16;
    /// Bytes of an incomplete reply are kept for it.
    pub(super) const KEPT: u8 = 32;
    /// It has bytes of its own that the kernel has not taken.
    pub(super) const OUTBOX: u8 = 64;
    /// One request of a run with a given number of them is set aside to prove this connection.
    pub(super) const RESERVED: u8 = 128;
}

/// When a request was due, and when its first byte was handed to the kernel (0: not yet).
#[derive(Clone, Copy, Debug, Default)]
struct Stamp {
    due: Instant,
    sent: Instant,
}

/// A request that is no longer on its connection.
#[derive(Clone, Copy, Debug)]
struct Request {
    due: Instant,
    /// 0: never.
    sent: Instant,
    /// Its place in [`Tally::groups`], if there are any.
    group: usize,
}

/// Whether requests are written anew for each connection: where they differ, also from target to target, and where
/// they are encrypted.
pub fn composes(config: &Config, clients: &[Box<dyn Client>]) -> bool {
    clients.len() > 1 || clients[0].composes() || !config.tls.is_empty()
}

/// All connections of one worker.
#[derive(Debug)]
pub struct Session {
    config: Config,
    /// One for each target.
    clients: Vec<Box<dyn Client>>,
    shape: Shape,
    /// What a request adds to [`Conn::unsent`]: its bytes; where each is written anew, 1.
    request_len: usize,
    /// Requests are written anew for each connection, and do not lie ready for all.
    composes: bool,
    conns: Vec<Conn>,
    /// A ring of `depth` stamps for each connection.
    stamps: Vec<Stamp>,
    /// Likewise of which kind each request is, where the report tells kinds apart; and how many there are.
    kinds: Vec<u16>,
    kinds_a_target: usize,
    /// What is being written, what the kernel has not taken yet, and buffers that are free.
    writing: Outbox,
    outboxes: HashMap<u32, Outbox>,
    spare_outboxes: Vec<Outbox>,
    tls: Option<Box<Keys>>,
    /// Incomplete replies, of the few connections where a reply was cut where it cannot be.
    kept: HashMap<u32, Vec<u8>>,
    spare: Vec<Vec<u8>>,
    /// Where requests are datagrams; and connections that turned out to lead nowhere.
    datagrams: Option<Datagrams>,
    refused: VecDeque<(u32, io::Error)>,
    gate: Gate,
    to_open: VecDeque<u32>,
    /// Slots that have yet to hear that the load has begun.
    to_start: Range<u32>,
    timeouts: Timers,
    backoffs: Timers,
    rng: Rng,
    /// Requests that may still be issued, beside those that are owed to a connection: due there, or reserved for it.
    budget: u64,
    owed: u64,
    /// Requests that are due or sent, and unanswered; whose turn is next, where they take turns.
    in_flight: u64,
    next_turn: u32,
    /// Open loop only: one for all connections, or for those to each target.
    pacers: Vec<Pacer>,
    thinking: Option<Thinking>,
    visits: Option<Visits>,
    /// Where each connection is in its script, where requests are written anew.
    places: Vec<u32>,
    /// The place of the request that is being issued, on its connection.
    issuing: Option<usize>,
    /// Of the active slots, those in use: all, unless their number changes over time.
    in_use: u32,
    /// When the load began.
    began: Instant,
    /// When that happened which is being dealt with.
    latest: Instant,
    going: bool,
    /// When unanswered requests are given up; set once no more are sent.
    drain_until: Option<Instant>,
    window: Window,
    /// Sockets; of those, connections that are open.
    open: u64,
    alive: u64,
    request_failures: u64,
    connect_failures: u64,
    tally: Tally,
    log: RequestLog,
}

impl Session {
    /// `clients`: one for each target.
    pub fn new(config: Config, clients: Vec<Box<dyn Client>>) -> Self {
        let capacity = config.active + config.idle;
        let (shape, depth) = (config.shape, config.depth.max(1));
        let composes = composes(&config, &clients);
        let request_len = if composes { 1 } else { clients[0].request().len() };
        let kinds_a_target = clients[0].kinds().len().max(1);
        let groups = kinds_a_target * clients.len();
        let first = config.connections_over_time.as_ref().map_or(config.active as u64, |p| config.share(p.first()));
        let in_use = (first as usize).min(config.active) as u32;
        let mut conns = vec![Conn::default(); capacity];
        let (budget, owed) = requests::set_aside(&mut conns, &config, in_use);
        let mut session = Self {
            shape,
            request_len,
            composes,
            conns,
            stamps: vec![Stamp::default(); capacity * depth],
            kinds: if kinds_a_target > 1 { vec![0; capacity * depth] } else { Vec::new() },
            kinds_a_target,
            writing: Outbox::default(),
            outboxes: HashMap::new(),
            spare_outboxes: Vec::new(),
            tls: Keys::new(&config.tls, capacity),
            kept: HashMap::new(),
            spare: Vec::new(),
            datagrams: Datagrams::new(&config, &*clients[0]),
            refused: VecDeque::new(),
            gate: Gate::new(&config),
            to_open: (0..in_use).chain(config.active as u32..capacity as u32).collect(),
            to_start: 0..0,
            timeouts: Timers::new(config.origin, capacity),
            backoffs: Timers::new(config.origin, 0),
            rng: Rng::new(config.seed),
            budget,
            owed,
            in_flight: 0,
            next_turn: 0,
            pacers: config.schedules.iter().map(|schedule| Pacer::new(schedule.clone(), config.active)).collect(),
            thinking: config.traffic.thinks().then(|| Thinking::new(&config.traffic, config.seed, config.active)),
            visits: config.traffic.sessions.as_ref().map(|of| Visits::new(of, config.seed, config.active)),
            places: if composes { vec![0; capacity] } else { Vec::new() },
            issuing: None,
            in_use,
            began: Instant::NEVER,
            latest: config.origin,
            going: false,
            drain_until: None,
            window: Window::new(config.origin),
            open: 0,
            alive: 0,
            request_failures: 0,
            connect_failures: 0,
            tally: Tally::of_groups(
                if groups > 1 || !clients[0].kinds().is_empty() { groups } else { 0 },
                if config.schedules.len() > 1 { config.schedules.len() } else { 0 },
            ),
            log: RequestLog::default(),
            config,
            clients,
        };
        if session.counts_requests() {
            session.window.open_at(session.config.origin, session.config.stop_rule);
        }
        session
    }

    /// Every request is written down there, as far as there is room.
    pub fn log_to(&mut self, log: RequestLog) {
        self.log = log;
    }

    /// Begins the load: until here connections were opened and proved, now all send. `at` is the same instant for all
    /// workers.
    pub fn go(&mut self, io: &mut impl Io, at: Instant, now: Instant) {
        self.going = true;
        self.began = at;
        if let StopRule::After(ns) = self.config.stop_rule {
            self.window.open_at(at.after(self.config.warmup_ns), self.config.stop_rule);
            self.begin_schedule(at, at.after(self.config.warmup_ns + ns));
            self.keep_proofs_before(at);
            self.cross_boundaries(now);
        }
        if self.config.in_flight_max.is_some() {
            return self.take_turns(io, now);
        }
        self.to_start = 0..self.config.active as u32;
        self.start_some(io, now);
    }

    /// Connections that were opened before the load began send their first requests, a bounded number of them in one
    /// turn: an engine would otherwise have to remember as many as there are.
    fn start_some(&mut self, io: &mut impl Io, now: Instant) {
        for _ in 0..STARTS_A_TURN {
            let Some(slot) = self.to_start.next() else { return };
            if self.conns[slot as usize].state != State::Open {
                continue;
            }
            match self.shape {
                Shape::Exchange | Shape::Datagram if !self.pacers.is_empty() => self.let_in(io, slot, now),
                Shape::Exchange if self.thinking.is_some() && !self.is_idle(slot) && !self.counts_requests() => {
                    self.first_thought(io, slot);
                }
                Shape::Exchange | Shape::Datagram => {
                    self.begins_late(slot, now);
                    self.go_on(io, slot, now);
                }
                Shape::Upload => self.upload(io, slot),
                Shape::Download => {}
            }
        }
    }

    /// Stops sending. What is unanswered at `until` is in flight; called again, `until` may come closer.
    pub fn stop(&mut self, io: &mut impl Io, now: Instant, until: Instant) {
        if let Some(drain_until) = &mut self.drain_until {
            *drain_until = until.min(*drain_until);
            return;
        }
        self.cross_boundaries(now);
        self.issue_due(io, now);
        self.wake_all(io, now);
        self.end_schedule(now);
        self.close_window(now);
        self.drain_until = Some(until);
        self.to_start = 0..0;
        self.tally.connections.alive_at_end = self.alive();
        self.to_open.clear();
        self.linger(now);
        for slot in 0..self.conns.len() as u32 {
            self.wind_up(io, slot);
        }
    }

    /// What time brings: connections to open, deadlines, the end of the window.
    pub fn tick(&mut self, io: &mut impl Io, now: Instant) {
        self.cross_boundaries(now);
        if self.drain_until.is_none() {
            let spent = self.budget == 0 && self.owed == 0;
            if spent || self.window.is_over(now) {
                // Every request has its own timeout; a little more lets the last of them fire as such.
                self.stop(io, now, now.after(self.config.timeout_ns + NS_PER_S / 10));
            }
        }
        self.issue_due(io, now);
        self.wake(io, now);
        self.fire_timeouts(io, now);
        self.end_refused(io, now);
        self.end_lingering(io, now);
        if self.going && self.config.in_flight_max.is_some() {
            self.take_turns(io, now);
        }
        self.start_some(io, now);
        if self.going && self.drain_until.is_none() {
            self.follow_profile(io, now);
        }
        self.open_connections(io, now);
        if self.drain_until.is_some_and(|until| now >= until) {
            self.give_up(io);
        }
    }

    pub fn finished(&self) -> bool {
        self.drain_until.is_some() && self.open == 0
    }

    /// When [`Session::tick`] is next needed.
    pub fn next_deadline(&self) -> Instant {
        let mut next = self.window.next_boundary().min(self.timeouts.next()).min(self.backoffs.next());
        next = next.min(self.next_issue()).min(self.next_wake());
        next = self.datagrams.as_ref().map_or(next, |datagrams| next.min(datagrams.linger_until()));
        if !self.to_start.is_empty() || !self.refused.is_empty() {
            return Instant(0);
        }
        if !self.to_open.is_empty() {
            next = next.min(self.gate.next_at());
        }
        self.drain_until.map_or(next, |until| next.min(until))
    }

    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    pub fn request_failures(&self) -> u64 {
        self.request_failures
    }

    pub fn connect_failures(&self) -> u64 {
        self.connect_failures
    }

    /// Connections that need not be waited for before the load begins: served, or, where nothing is ever answered,
    /// established.
    pub fn ready(&self) -> u64 {
        let connections = &self.tally.connections;
        if self.shape == Shape::Upload { connections.established } else { connections.served }
    }

    /// Connections that are open now.
    pub fn alive(&self) -> u64 {
        self.alive
    }

    /// The final figures.
    pub fn into_tally(mut self, now: Instant) -> Tally {
        self.book_unsent();
        self.close_visits(now);
        self.close_series(now);
        for (name, count) in self.clients.iter().flat_map(|client| client.counts()) {
            *self.tally.counted.entry(name).or_default() += count;
        }
        self.tally.log = self.log;
        self.tally.slots = self.conns.len() as u32;
        self.tally
    }

    /// The run ends with a number of requests, and its window is all of it.
    fn counts_requests(&self) -> bool {
        !matches!(self.config.stop_rule, StopRule::After(_))
    }

    fn is_idle(&self, slot: u32) -> bool {
        slot as usize >= self.config.active
    }

    fn note(&mut self, kind: &'static str, phase: Phase, count: u64, example: impl FnOnce() -> String) {
        let at_ns = self.latest.since(self.config.origin);
        self.tally.note(kind, phase, count, at_ns, example);
    }

    /// What the server said arrived, without encryption.
    fn plain_received(&mut self, io: &mut impl Io, slot: u32, bytes: &[u8], now: Instant) {
        if self.conns[slot as usize].state == State::Greeting {
            return self.greeted(io, slot, bytes, now);
        }
        match self.shape {
            Shape::Exchange => self.replies(io, slot, bytes, now),
            Shape::Datagram => self.datagram(io, slot, bytes, now),
            Shape::Upload | Shape::Download => self.stream_received(io, slot, bytes),
        }
    }

    /// The server's stream ended, or the connection broke.
    fn plain_ended(&mut self, io: &mut impl Io, slot: u32, cause: Option<io::Error>, now: Instant) {
        let state = self.conns[slot as usize].state;
        if matches!(state, State::Securing | State::Greeting) {
            let kind = cause.as_ref().map_or("closed", requests::loss);
            let why = cause.map_or_else(|| "the server ended the stream".to_owned(), |error| error.to_string());
            let before = match state {
                State::Securing => "within the TLS handshake",
                _ => "before the greeting was answered",
            };
            return self.greeting_failed(io, slot, kind, &format!("{before}: {why}"), now);
        }
        match self.shape {
            Shape::Exchange => self.exchange_ended(io, slot, cause.as_ref(), now),
            Shape::Datagram => self.datagrams_ended(io, slot, cause.as_ref(), now),
            Shape::Upload | Shape::Download => self.stream_ended(io, slot, cause.as_ref(), now),
        }
    }
}

impl<I: Io> Handler<I> for Session {
    fn connected(&mut self, io: &mut I, slot: u32, outcome: io::Result<()>) {
        let now = io.now();
        self.cross_boundaries(now);
        match outcome {
            Ok(()) => self.established(io, slot, now),
            Err(error) => {
                io.close(slot);
                self.connect_failed(slot, &error, now);
            }
        }
    }

    fn received(&mut self, io: &mut I, slot: u32, bytes: &[u8]) {
        let now = io.now();
        self.cross_boundaries(now);
        self.tally.bytes.received += bytes.len() as u64;
        if self.tls.is_some() { self.decrypt(io, slot, bytes, now) } else { self.plain_received(io, slot, bytes, now) }
    }

    fn writable(&mut self, io: &mut I, slot: u32) {
        self.cross_boundaries(io.now());
        let conn = &self.conns[slot as usize];
        if self.shape == Shape::Upload && conn.state == State::Open {
            self.upload(io, slot);
        } else if self.shape.has_replies() || self.tls.is_some() {
            self.may_send(io, slot);
        }
    }

    fn not_taken(&mut self, bytes: i64) {
        self.take_back(bytes);
    }

    fn ended(&mut self, io: &mut I, slot: u32, cause: Option<io::Error>) {
        let now = io.now();
        self.cross_boundaries(now);
        self.plain_ended(io, slot, cause, now);
    }
}
