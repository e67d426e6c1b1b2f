//! Connections and what is on them: the protocol, the requests under way, and the books.

use super::config::{Config, StopRule};
use super::leaving::Leaving;
use super::opening::Gate;
use super::outboxes::Outboxes;
use super::requests;
use super::unprocessed::Unprocessed;
use super::window::Window;
use crate::engine::Io;
use crate::load::request_log::RequestLog;
use crate::load::tally::{Phase, Tally};
use crate::load::timers::Timers;
use crate::protocol::Client;
use crate::protocol::ask::Asker;
use crate::protocol::client::Events;
use crate::protocol::ticket::{Order, Ring, Ticket, Tickets};
use crate::rng::Rng;
use crate::time::Instant;
use std::collections::{HashMap, VecDeque};
use std::io;

/// One connection. With its stamp (16 bytes), its protocol's state (16), its engine's (8), its timer (8) and when its
/// state began (8) it takes 72 bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Conn {
    /// Requests issued since the connection was opened.
    pub(super) issued: u32,
    /// Those that are due or sent, and unanswered.
    pub(super) ring: Ring,
    /// Requests at a time that the peer takes, at most.
    pub(super) capacity: u16,
    pub(super) state: State,
    pub(super) flags: u8,
    /// Failures in a row.
    pub(super) failures: u8,
    /// Which queues of the open loop have an entry of it, whether it waits for a rest to leave (see `early`), whether
    /// the peer is about to close it (see `talking`), and whether the load has begun in its slot (see `window`).
    pub(super) queued: u8,
}

const _: () = assert!(size_of::<Conn>() == 16);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
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
pub(super) mod flag {
    /// Was established once; was served once.
    pub(in super::super) const ESTABLISHED: u8 = 1;
    pub(in super::super) const SERVED: u8 = 2;
    /// Started, and not answered yet: counts in the gate.
    pub(in super::super) const UNPROVEN: u8 = 4;
    /// Has an entry in the timeouts' queue.
    pub(in super::super) const TIMER: u8 = 8;
    /// A request is due (`owing` says since when) and waits for this connection to open, or for the peer to take it.
    pub(in super::super) const DUE: u8 = 16;
    /// Bytes of an incomplete reply are kept for it.
    pub(in super::super) const KEPT: u8 = 32;
    /// It has something to say that the kernel has not taken.
    pub(in super::super) const OUTBOX: u8 = 64;
    /// One request of a run with a given number of them is set aside to prove this connection.
    pub(in super::super) const RESERVED: u8 = 128;
}

/// Sets what those ask who arrive by a schedule apart from what users of connections do.
const ARRIVALS: u64 = 0x6172_7269_7661_6c73;

/// A request that is no longer on its connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) due: Instant,
    /// 0: never.
    pub(super) sent: Instant,
    /// Its index in [`Tally::groups`], if there are any.
    pub(super) group: usize,
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

/// The users of connections, as long as nobody else arrives.
fn askers(config: &Config) -> Vec<Asker> {
    let slots = (config.active + config.idle) as u32;
    (0..slots).map(|slot| Asker::new(config.run_seed, config.number(slot))).collect()
}

/// All connections of one worker.
#[derive(Debug)]
pub(super) struct Connections {
    pub(super) config: Config,
    /// One for each target.
    pub(super) clients: Vec<Box<dyn Client>>,
    /// Elsewhere nothing is a request or a reply (throughput only).
    pub(super) has_requests: bool,
    /// Of the protocol: see [`Client::fills`], [`Client::gathers`], [`Client::is_answered`], [`Client::order`].
    pub(super) fills: bool,
    pub(super) gathers: bool,
    pub(super) is_answered: bool,
    pub(super) order: Order,
    /// The bytes of a request that is the same for all connections, of which as many lie ready as one may carry; 0:
    /// they differ.
    pub(super) shared_len: usize,
    pub(super) conns: Vec<Conn>,
    pub(super) tickets: Tickets,
    pub(super) unprocessed: Unprocessed,
    /// Since when each connection has been in its state; while it is open, since when it waits for a rest to leave.
    pub(super) since: Vec<Instant>,
    /// Open loop: since when each ticket has been free.
    pub(super) freed: Vec<Instant>,
    /// Requests that wait for their connection to open, and since when they are due.
    pub(super) owing: HashMap<u32, Instant>,
    pub(super) kinds_a_target: usize,
    pub(super) outboxes: Outboxes,
    pub(super) leaving: Leaving,
    /// What the protocol has told, to be dealt with next.
    pub(super) events: Events,
    /// When protocols want to be called again, and the one wish of each connection that counts.
    pub(super) wakes: Timers,
    pub(super) wishes: HashMap<u32, Instant>,
    /// Incomplete replies, of the few connections where a reply was cut where it cannot be.
    pub(super) kept: HashMap<u32, Vec<u8>>,
    pub(super) spare: Vec<Vec<u8>>,
    /// Connections of which the kernel said, while something was sent, that this will never be.
    pub(super) refused: VecDeque<(u32, io::Error)>,
    /// Once no more is sent: when connections that are answered are closed, if not at once.
    pub(super) linger_until: Instant,
    pub(super) gate: Gate,
    pub(super) to_open: VecDeque<u32>,
    pub(super) timeouts: Timers,
    pub(super) backoffs: Timers,
    pub(super) rng: Rng,
    /// Requests that may still be issued, beside those that are owed to a connection: due there, or reserved for it.
    pub(super) budget: u64,
    pub(super) owed: u64,
    /// Requests that are due or sent, and unanswered.
    pub(super) in_flight: u64,
    /// Open loop: no request is due from there on.
    pub(super) schedule_ends: Instant,
    /// Our part in the wait of a request that waits for its connection.
    pub(super) lags: HashMap<u32, u64>,
    /// Something is to be opened before we sleep.
    pub(super) opens_now: bool,
    /// Who asks on each connection, where requests are not all the same.
    pub(super) askers: Vec<Asker>,
    /// The request that is being issued.
    pub(super) issuing: Option<Ticket>,
    /// Of the active slots, those in use: all, unless their number changes over time.
    pub(super) in_use: u32,
    /// When the load began.
    pub(super) began: Instant,
    /// When that happened which is being dealt with.
    pub(super) latest: Instant,
    pub(super) going: bool,
    /// When unanswered requests are given up; set once no more are sent.
    pub(super) drain_until: Option<Instant>,
    pub(super) window: Window,
    /// Sockets; of those, connections that are open.
    pub(super) open: u64,
    pub(super) alive: u64,
    pub(super) request_failures: u64,
    pub(super) connect_failures: u64,
    pub(super) tally: Tally,
    pub(super) log: RequestLog,
}

impl Connections {
    /// `clients`: one for each target.
    pub(super) fn new(config: Config, mut clients: Vec<Box<dyn Client>>) -> Self {
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
        let gives_back = clients[0].gives_back();
        let groups = if groups > 1 || !clients[0].kinds().is_empty() { groups } else { 0 };
        let streams = if config.schedules.len() > 1 { config.schedules.len() } else { 0 };
        let mut connections = Self {
            has_requests: shape.has_replies(),
            fills: clients[0].fills(),
            gathers: clients[0].gathers(),
            is_answered: clients[0].is_answered(),
            order,
            shared_len: if shares(&clients) { clients[0].request().len() } else { 0 },
            conns,
            tickets: Tickets::new(capacity, depth, order, kinds_a_target > 1),
            unprocessed: Unprocessed::new(config.origin, if gives_back { capacity * depth } else { 0 }),
            since: vec![Instant(0); capacity],
            freed: if config.schedules.is_empty() { Vec::new() } else { vec![Instant(0); capacity * depth] },
            owing: HashMap::new(),
            kinds_a_target,
            outboxes: Outboxes::default(),
            leaving: Leaving::default(),
            events: Events::default(),
            wakes: Timers::new(config.origin, 0),
            wishes: HashMap::new(),
            kept: HashMap::new(),
            spare: Vec::new(),
            refused: VecDeque::new(),
            linger_until: Instant::NEVER,
            gate: Gate::new(&config),
            to_open: (0..in_use).chain(config.active as u32..capacity as u32).collect(),
            timeouts: Timers::new(config.origin, capacity),
            backoffs: Timers::new(config.origin, 0),
            rng: Rng::new(config.seed),
            budget,
            owed,
            in_flight: 0,
            schedule_ends: Instant::NEVER,
            lags: HashMap::new(),
            opens_now: false,
            askers: if shares(&clients) { Vec::new() } else { askers(&config) },
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
        if connections.counts_requests() {
            connections.window.open_at(connections.config.origin, connections.config.stop_rule);
        }
        connections
    }

    /// No more is sent. What is unanswered at `until` is in flight.
    pub(super) fn stop(&mut self, io: &mut impl Io, now: Instant, until: Instant) {
        self.drain_until = Some(until);
        self.tally.connections.alive_at_end = self.alive;
        self.to_open.clear();
        let lingers_ns = self.clients[0].lingers_ns();
        if lingers_ns > 0 {
            self.linger_until = now.after(lingers_ns);
        }
        for slot in 0..self.conns.len() as u32 {
            self.wind_up(io, slot);
        }
    }

    pub(super) fn next_deadline(&self) -> Instant {
        if !self.refused.is_empty() || self.opens_now {
            return Instant(0);
        }
        let mut next = self.window.next_boundary().min(self.timeouts.next()).min(self.backoffs.next());
        next = next.min(self.linger_until).min(self.wakes.next()).min(self.unprocessed.next());
        if !self.to_open.is_empty() {
            next = next.min(self.gate.next_at());
        }
        self.drain_until.map_or(next, |until| next.min(until))
    }

    /// Of a given number of requests, none is left that anybody may have.
    pub(super) fn has_spent_its_budget(&self) -> bool {
        self.budget == 0 && self.owed == 0
    }

    pub(super) fn into_tally(mut self, now: Instant) -> Tally {
        self.left_at(Instant(0));
        self.close_series(now);
        for (name, count) in self.clients.iter().flat_map(|client| client.counts()) {
            *self.tally.counted.entry(name).or_default() += count;
        }
        if self.tally.unprocessed > 0 {
            self.tally.counted.insert("unprocessed", self.tally.unprocessed);
        }
        self.tally.log = self.log;
        self.tally.slots = self.conns.len() as u32;
        self.tally
    }

    /// The run ends with a number of requests, and its window is all of it.
    pub(super) fn counts_requests(&self) -> bool {
        !matches!(self.config.stop_rule, StopRule::After(_))
    }

    pub(super) fn is_idle(&self, slot: u32) -> bool {
        slot as usize >= self.config.active
    }

    /// Whether the load has begun, and a connection is there to carry it.
    pub(super) fn carries_load(&self, slot: u32) -> bool {
        self.going && !self.is_idle(slot)
    }

    /// A connection that is not wanted any more, or not yet.
    pub(super) fn is_retired(&self, slot: u32) -> bool {
        slot >= self.in_use && !self.is_idle(slot)
    }

    /// Whether a connection has had as many requests as it may carry.
    pub(super) fn is_spent(&self, slot: u32) -> bool {
        let issued = self.conns[slot as usize].issued;
        self.config.requests_per_connection.is_some_and(|limit| issued >= limit)
    }

    /// Whether a connection may carry another request.
    pub(super) fn has_room(&self, io: &impl Io, slot: u32) -> bool {
        let conn = &self.conns[slot as usize];
        conn.state == State::Open
            && conn.ring.alive < conn.capacity
            && !self.is_spent(slot)
            && !self.is_retired(slot)
            && !self.has_rest(io, slot)
    }

    /// Whether a connection could be opened in this slot for somebody.
    pub(super) fn is_vacant(&self, slot: u32) -> bool {
        let conn = &self.conns[slot as usize];
        conn.state == State::Closed && conn.flags & flag::DUE == 0 && !self.is_retired(slot)
    }

    /// How far the user of a connection is in a script; 0: at its beginning.
    pub(super) fn cursor(&self, slot: u32) -> u32 {
        self.askers.get(slot as usize).map_or(0, |asker| asker.cursor)
    }

    /// A script ends with its connection, or its session: the next request begins another.
    pub(super) fn leave_script(&mut self, slot: u32) {
        if let Some(asker) = self.askers.get_mut(slot as usize) {
            asker.cursor = 0;
        }
    }

    /// Somebody arrived by a schedule, the `nth` of theirs, and asks on this connection from here on.
    pub(super) fn arrives(&mut self, slot: u32, nth: u64) {
        if self.askers.is_empty() {
            return;
        }
        let (index, workers) = self.config.worker;
        let streams = self.config.schedules.len() as u64;
        let number = (nth * workers + index) * streams + self.stream(slot) as u64;
        self.askers[slot as usize] = Asker::new(self.config.run_seed ^ ARRIVALS, number);
    }

    /// Whether requests, or sessions, are due by a schedule.
    #[inline]
    pub(super) fn is_paced(&self) -> bool {
        !self.config.schedules.is_empty()
    }

    /// Which stream of arrivals a connection belongs to.
    #[inline]
    pub(super) fn stream(&self, slot: u32) -> usize {
        if self.config.schedules.len() < 2 { 0 } else { self.config.target(slot) }
    }

    pub(super) fn note(&mut self, kind: &'static str, phase: Phase, count: u64, example: impl FnOnce() -> String) {
        let at_ns = self.latest.since(self.config.origin);
        self.tally.note(kind, phase, count, at_ns, example);
    }
}

impl Conn {
    pub(super) fn is_busy(&self) -> bool {
        self.ring.alive > 0 || self.flags & flag::DUE != 0
    }
}
