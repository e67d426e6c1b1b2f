//! The session: what is sent on which connection and when, what a reply means for the ledger, and how a lost
//! connection comes back. Every engine is driven by this same code.
//!
//! Read in this order: here, what a connection is and its states; `opening` (connections come, fail and come back);
//! `talking` (what a protocol is told of a connection, and what it says about it); `requests` (they are issued,
//! answered, or fail); `outboxes` (what has yet to leave); `early` (replies that come before their requests have left);
//! `endings` (how a connection ends); `deadlines` (what takes too long); `thinking` (users take their time); `visits`
//! (users come and go); `pacing` (the open loop); `window` (what counts for the measured window).

mod deadlines;
mod early;
mod endings;
mod opening;
mod outboxes;
mod pacing;
mod requests;
mod talking;
mod thinking;
mod visits;
mod window;

use crate::engine::Io;
use crate::request_log::RequestLog;
use crate::tally::{Phase, Tally};
use crate::timers::Timers;
use crate::traffic::Traffic;
use crate::turns::Turns;
use loadgen_core::arrivals::{Profile, Schedule};
use loadgen_core::protocol::client::Event;
use loadgen_core::protocol::ticket::{Order, Ring, Ticket, Tickets};
use loadgen_core::protocol::{Client, Shape};
use loadgen_core::rng::Rng;
use loadgen_core::sys::endpoint::Endpoint;
use loadgen_core::time::{Instant, NS_PER_S};
use opening::Gate;
use outboxes::Outboxes;
use pacing::Pacer;
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

/// One connection. With its stamp (16 bytes), its protocol's state (16), its engine's (8), its timer (8) and when its
/// state began (8) it takes 72 bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Conn {
    /// Requests issued since the connection was opened.
    issued: u32,
    /// Those that are due or sent, and unanswered.
    ring: Ring,
    /// Requests at a time that the peer takes, at most.
    capacity: u16,
    state: State,
    flags: u8,
    /// Failures in a row.
    failures: u8,
    /// Which queues of the open loop have an entry of it, and whether it waits for a rest to leave (see `early`).
    queued: u8,
}

const _: () = assert!(size_of::<Conn>() == 16);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// No socket: not opened yet, waiting for its turn, or for the end of its back-off.
    #[default]
    Closed,
    Connecting,
    /// Established; what comes before the first request (a handshake, a login) is not over.
    Preparing,
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
    /// A request is due (`owing` says since when) and waits for this connection to open.
    pub(super) const DUE: u8 = 16;
    /// Bytes of an incomplete reply are kept for it.
    pub(super) const KEPT: u8 = 32;
    /// It has something to say that the kernel has not taken.
    pub(super) const OUTBOX: u8 = 64;
    /// One request of a run with a given number of them is set aside to prove this connection.
    pub(super) const RESERVED: u8 = 128;
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

/// Whether the bytes of a request are the same for all connections, so that they can lie ready.
pub fn shares(clients: &[Box<dyn Client>]) -> bool {
    clients.len() == 1 && clients[0].shares()
}

fn make_room(clients: &mut [Box<dyn Client>], config: &Config) {
    let slots = config.active + config.idle;
    let run = Rng::new(config.origin.0).next_u64();
    clients.iter_mut().for_each(|client| client.make_room(slots, config.depth.max(1), config.worker, run));
}

/// All connections of one worker.
#[derive(Debug)]
pub struct Session {
    config: Config,
    /// One for each target.
    clients: Vec<Box<dyn Client>>,
    /// The connections are sockets for datagrams; nothing is a request or a reply (throughput only).
    is_datagram: bool,
    has_requests: bool,
    /// Of the protocol: see [`Client::fills`], [`Client::is_answered`], [`Client::order`].
    fills: bool,
    is_answered: bool,
    order: Order,
    /// The bytes of a request that is the same for all connections (0: they differ), and how many lie ready.
    shared_len: usize,
    lying_ready: usize,
    conns: Vec<Conn>,
    tickets: Tickets,
    /// Since when each connection has been in its state; while it is open, since when it waits for a rest to leave.
    since: Vec<Instant>,
    /// Open loop: since when each ticket has been free.
    freed: Vec<Instant>,
    /// Requests that wait for their connection to open, and since when they are due.
    owing: HashMap<u32, Instant>,
    kinds_a_target: usize,
    outboxes: Outboxes,
    /// What the protocol has told, to be dealt with next.
    events: Vec<Event>,
    /// When protocols want to be called again, and the one wish of each connection that counts.
    wakes: Timers,
    wishes: HashMap<u32, Instant>,
    /// Incomplete replies, of the few connections where a reply was cut where it cannot be.
    kept: HashMap<u32, Vec<u8>>,
    spare: Vec<Vec<u8>>,
    /// Connections of which the kernel said, while something was sent, that this will never be.
    refused: VecDeque<(u32, io::Error)>,
    /// Once no more is sent: when connections that are answered are closed, if not at once.
    linger_until: Instant,
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
    /// The request that is being issued.
    issuing: Option<Ticket>,
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
    pub fn new(config: Config, mut clients: Vec<Box<dyn Client>>) -> Self {
        let capacity = config.active + config.idle;
        let (shape, depth) = (config.shape, config.depth.max(1));
        let kinds_a_target = clients[0].kinds().len().max(1);
        let groups = kinds_a_target * clients.len();
        let first = config.connections_over_time.as_ref().map_or(config.active as u64, |p| config.share(p.first()));
        let in_use = (first as usize).min(config.active) as u32;
        let mut conns = vec![Conn { capacity: depth as u16, ..Conn::default() }; capacity];
        let (budget, owed) = requests::set_aside(&mut conns, &config, in_use);
        make_room(&mut clients, &config);
        let order = clients[0].order();
        let groups = if groups > 1 || !clients[0].kinds().is_empty() { groups } else { 0 };
        let streams = if config.schedules.len() > 1 { config.schedules.len() } else { 0 };
        let mut session = Self {
            is_datagram: shape == Shape::Datagram,
            has_requests: shape.has_replies(),
            fills: clients[0].fills(),
            is_answered: clients[0].is_answered(),
            order,
            shared_len: if shares(&clients) { clients[0].request().len() } else { 0 },
            lying_ready: depth,
            conns,
            tickets: Tickets::new(capacity, depth, order, kinds_a_target > 1),
            since: vec![Instant(0); capacity],
            freed: if config.schedules.is_empty() { Vec::new() } else { vec![Instant(0); capacity * depth] },
            owing: HashMap::new(),
            kinds_a_target,
            outboxes: Outboxes::default(),
            events: Vec::new(),
            wakes: Timers::new(config.origin, 0),
            wishes: HashMap::new(),
            kept: HashMap::new(),
            spare: Vec::new(),
            refused: VecDeque::new(),
            linger_until: Instant::NEVER,
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
            places: if shares(&clients) { Vec::new() } else { vec![0; capacity] },
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
            tally: Tally::of_groups(groups, streams),
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
            // The word that the load began comes a little late. What proves a connection meanwhile was not booked as of
            // the window, and stays so.
            self.tickets.keep_before(at);
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
            if !self.has_requests {
                self.let_flow(io, slot);
            } else if !self.pacers.is_empty() {
                self.let_in(io, slot, now);
            } else if self.thinking.is_some() && !self.is_idle(slot) && !self.counts_requests() {
                self.first_thought(io, slot);
            } else {
                self.begins_late(slot, now);
                self.go_on(io, slot, now);
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
        let lingers_ns = self.clients[0].lingers_ns();
        if lingers_ns > 0 {
            self.linger_until = now.after(lingers_ns);
        }
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
        self.fire_wishes(io, now);
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
        next = next.min(self.linger_until).min(self.wakes.next());
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
        if self.is_answered { connections.served } else { connections.established }
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
}
