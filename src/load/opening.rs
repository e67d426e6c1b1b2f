//! Connections come, fail, and come back.

use super::Load;
use super::config::Config;
use super::connections::{Conn, Connections, State, flag};
use super::early::AWAITS_REST;
use super::talking::DRAINING;
use crate::engine::Io;
use crate::load::tally::Phase;
use crate::time::{Instant, NS_PER_MS, NS_PER_S};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};

/// The first back-off after a loss, and the longest of any.
const BACKOFF_FIRST_NS: u64 = 10 * NS_PER_MS;
const BACKOFF_MAX_NS: u64 = NS_PER_S;

/// Attempts in one turn. On loopback a handshake ends within `connect()`, and is noticed only when the turn is over: a
/// longer burst would show in the connect times.
const ATTEMPTS_A_TURN: usize = 16;

/// In an open loop a new connection may have to wait for a request that proves it. After this long the server has taken
/// it, or is in trouble that others will tell of.
const UNPROVEN_MAX_NS: u64 = 200 * NS_PER_MS;

/// Holds back connection attempts.
///
/// A handshake ends in the kernel: on loopback inside our own `connect()`, before the server has run at all. A tight
/// loop of connects therefore overruns the accept queue, and the kernel drops what does not fit without telling us. So
/// the number of connections that have been started and *not been answered yet* is bounded: an answer proves that the
/// server has taken the connection out of that queue.
#[derive(Debug)]
pub(super) struct Gate {
    unproven: usize,
    unproven_max: usize,
    interval_ns: u64,
    next_at: Instant,
    /// Open loop: connections that hold others back until then at the latest, in order.
    until: VecDeque<(Instant, u32)>,
}

impl Gate {
    pub(super) fn new(config: &Config) -> Self {
        let interval_ns = config.connect_rate.map_or(0, |rate| NS_PER_S / rate.max(1));
        Self {
            unproven: 0,
            unproven_max: config.unproven_max.max(1),
            interval_ns,
            next_at: config.origin,
            until: VecDeque::new(),
        }
    }

    fn lets_through(&self, now: Instant) -> bool {
        self.unproven < self.unproven_max && now >= self.next_at
    }

    /// Attempts keep their rate on average: a late one does not delay those behind it, but nor does a long pause allow
    /// a burst of more than 100 ms' worth.
    fn started(&mut self, now: Instant) {
        self.unproven += 1;
        let earliest = Instant(now.0.saturating_sub(NS_PER_S / 10));
        self.next_at = self.next_at.max(earliest).after(self.interval_ns);
    }

    /// When time alone may open the gate.
    pub(super) fn next_at(&self) -> Instant {
        let lets_go = self.until.front().map_or(Instant::NEVER, |(at, _)| *at);
        if self.unproven < self.unproven_max { self.next_at } else { lets_go }
    }
}

impl Load {
    pub(super) fn open_connections(&mut self, io: &mut impl Io, now: Instant) {
        while let Some(slot) = self.on.backoffs.pop(now) {
            if self.on.drain_until.is_none() {
                self.on.to_open.push_back(slot);
            }
        }
        while let Some((_, slot)) = self.on.gate.until.front().copied().filter(|(at, _)| *at <= now) {
            self.on.gate.until.pop_front();
            self.on.passed_gate(slot);
        }
        for _ in 0..ATTEMPTS_A_TURN {
            if !self.on.gate.lets_through(now) {
                return;
            }
            let Some(slot) = self.on.to_open.pop_front() else { return };
            // It may have been let go, or opened otherwise, while it waited.
            if self.on.is_retired(slot) || self.on.conns[slot as usize].state != State::Closed {
                continue;
            }
            self.open_connection(io, slot, now);
        }
    }

    fn open_connection(&mut self, io: &mut impl Io, slot: u32, now: Instant) {
        if !self.demand.is_used(slot) {
            self.on.leave_script(slot);
        }
        let address = self.on.config.address(slot);
        // After a failure from the next local address: one may be out of ports while another has some.
        let attempt = slot as usize + usize::from(self.on.conns[slot as usize].failures);
        self.on.tally.connections.attempts += 1;
        self.on.gate.started(now);
        let conn = &mut self.on.conns[slot as usize];
        let kept_flags = conn.flags & (flag::ESTABLISHED | flag::SERVED | flag::TIMER | flag::DUE | flag::RESERVED);
        let Conn { queued, failures, .. } = *conn;
        let capacity = self.on.config.depth as u16;
        // Requests that came back wait for it.
        let (ring, state) = (conn.ring, State::Connecting);
        *conn = Conn { issued: 0, ring, capacity, state, flags: kept_flags | flag::UNPROVEN, failures, queued };
        self.on.since[slot as usize] = now;
        self.on.open += 1;
        match io.connect(slot, address, attempt) {
            Ok(()) => self.on.arm_timeout(slot, now),
            Err(error) => self.connect_failed(slot, &error, now),
        }
    }

    /// A connection attempt failed; its socket is gone already.
    pub(super) fn connect_failed(&mut self, slot: u32, error: &io::Error, now: Instant) {
        let kind = connect_failure(error);
        let example = format!("connect to {}: {error}", self.on.config.addresses[self.on.config.address(slot)]);
        self.on.note(kind, Phase::Connect, 1, || example);
        *self.on.tally.connections.failed.entry(kind).or_default() += 1;
        self.on.connect_failures += 1;
        self.on.closed(slot);
        self.back_off(slot, now);
    }

    /// The connection is there; what the protocol says first comes before requests.
    pub(super) fn established(&mut self, io: &mut impl Io, slot: u32, now: Instant) {
        self.on.tally.connect.record(now.since(self.on.since[slot as usize]));
        self.on.tally.connections.opened += 1;
        self.prepare(io, slot, now);
    }

    /// The connection can carry requests.
    pub(super) fn opened(&mut self, io: &mut impl Io, slot: u32, now: Instant) {
        let conn = &mut self.on.conns[slot as usize];
        conn.state = State::Open;
        self.on.alive += 1;
        // Elsewhere, that somebody is there is said by the first reply.
        if self.on.config.transport.has_connections() {
            self.on.count_established(slot);
        }
        if self.on.drain_until.is_some() || self.on.is_retired(slot) {
            return self.on.wind_up(io, slot);
        }
        // A window that lasts as long as the run is open before the load begins. Where connections take turns, others
        // had this one's.
        if (self.on.going || self.on.window.is_open()) && !self.demand.takes_turns() {
            self.on.begins_late(slot, now);
        }
        if !self.on.has_requests {
            // Nothing ever comes back to prove it by; the end of the server's stream will (see `peer_closed`).
            if !self.on.is_answered {
                self.on.passed_gate(slot);
            }
            return self.on.let_flow(io, slot);
        }
        if self.ask_again(io, slot, now) && self.demand.is_used(slot) {
            return self.go_on(io, slot, now);
        }
        let on = &mut self.on;
        if on.conns[slot as usize].flags & flag::DUE != 0 || !on.carries_load(slot) {
            on.begin(io, slot, now);
            return on.needs_no_proof(slot);
        }
        self.demand.opened(on, io, slot, now);
        self.on.needs_no_proof(slot);
        self.open_at_once(io, now);
    }

    /// What was asked for within a turn is not left until the next one.
    pub(super) fn open_at_once(&mut self, io: &mut impl Io, now: Instant) {
        if std::mem::take(&mut self.on.opens_now) {
            self.open_connections(io, now);
        }
    }

    /// Opens the connection anew as soon as the gate lets it through.
    pub(super) fn reopen(&mut self, slot: u32, now: Instant) {
        if self.has_use_for(slot, now) {
            self.on.to_open.push_back(slot);
        }
    }

    /// Whether there is a request left for a connection that would be opened: of a given number, all may be spent, and
    /// users open their connection when they need it. What is due on one that is never opened again will not leave.
    fn has_use_for(&mut self, slot: u32, now: Instant) -> bool {
        let on = &mut self.on;
        if on.drain_until.is_some() || on.is_retired(slot) {
            on.drop_due(slot);
            if on.has_unprocessed(slot) {
                on.let_go_unprocessed(slot, now);
                self.demand.lost(on, slot);
            }
            return false;
        }
        self.demand.wants(on, slot, now)
            && (on.budget > 0
                || on.conns[slot as usize].flags & (flag::DUE | flag::RESERVED) != 0
                || on.has_unprocessed(slot))
    }

    /// Opens the connection anew after a while.
    pub(super) fn back_off(&mut self, slot: u32, now: Instant) {
        if !self.has_use_for(slot, now) {
            return;
        }
        let conn = &mut self.on.conns[slot as usize];
        conn.failures = conn.failures.saturating_add(1);
        let before = u32::from(conn.failures - 1);
        let wait_ns = self.on.backoff_ns(BACKOFF_FIRST_NS, before);
        self.on.backoffs.push(now.after(wait_ns), slot);
    }
}

impl Connections {
    /// How long to wait after so many failures in a row `before` this one: from `first_ns` on, doubled with each up to
    /// 1 s, and shortened by up to a half at random so that thousands do not come back in step.
    pub(super) fn backoff_ns(&mut self, first_ns: u64, before: u32) -> u64 {
        let longest = BACKOFF_MAX_NS.min(first_ns << before.min(16));
        longest - self.rng.below(longest / 2)
    }

    /// In an open loop, or while a user thinks, a connection has to wait for the request that proves it.
    pub(super) fn is_proved_by_and_by(&mut self, slot: u32, now: Instant) {
        self.gate.until.push_back((now.after(UNPROVEN_MAX_NS), slot));
    }

    /// Connections come and go as their number over time asks for.
    pub(super) fn follow_profile(&mut self, io: &mut impl Io, now: Instant) {
        let Some(profile) = self.config.connections_over_time.as_ref().filter(|_| self.going) else { return };
        if self.drain_until.is_some() {
            return;
        }
        let wanted = profile.at(now.since(self.began));
        let wanted = (self.config.share(wanted) as u32).min(self.config.active as u32);
        let before = std::mem::replace(&mut self.in_use, wanted);
        for slot in before..wanted {
            if self.conns[slot as usize].state == State::Closed {
                self.to_open.push_back(slot);
            }
        }
        for slot in wanted..before {
            self.give_back_reserved(slot);
            if self.conns[slot as usize].state == State::Closed {
                self.let_go(slot, now);
            }
            if self.conns[slot as usize].state == State::Open {
                self.close_when_answered(io, slot);
            }
        }
    }

    fn count_established(&mut self, slot: u32) {
        let conn = &mut self.conns[slot as usize];
        if conn.flags & flag::ESTABLISHED == 0 {
            conn.flags |= flag::ESTABLISHED;
            self.tally.connections.established += 1;
        }
    }

    /// Of a given number of requests, others may have had the last while this connection was opened: nothing is left
    /// that could prove it.
    fn needs_no_proof(&mut self, slot: u32) {
        if self.budget == 0 && self.conns[slot as usize].ring.alive == 0 {
            self.passed_gate(slot);
        }
    }

    /// The connection has been answered (or never will be): it no longer holds others back.
    pub(super) fn passed_gate(&mut self, slot: u32) {
        let conn = &mut self.conns[slot as usize];
        if conn.flags & flag::UNPROVEN != 0 {
            conn.flags &= !flag::UNPROVEN;
            self.gate.unproven -= 1;
        }
    }

    /// The first bytes of an answer: the server has accepted this connection.
    pub(super) fn served(&mut self, slot: u32) {
        self.passed_gate(slot);
        if !self.config.transport.has_connections() {
            self.count_established(slot);
        }
        let conn = &mut self.conns[slot as usize];
        conn.failures = 0;
        if conn.flags & flag::SERVED == 0 {
            conn.flags |= flag::SERVED;
            self.tally.connections.served += 1;
        }
    }

    /// Books a socket that has been closed.
    pub(super) fn closed(&mut self, slot: u32) {
        self.passed_gate(slot);
        self.forget_kept(slot);
        self.forget_outbox(slot);
        self.wishes.remove(&slot);
        self.clients[self.config.target(slot)].disconnected(slot);
        let conn = &mut self.conns[slot as usize];
        self.alive -= u64::from(conn.state == State::Open);
        conn.state = State::Closed;
        conn.queued &= !(AWAITS_REST | DRAINING);
        self.open -= 1;
    }

    /// The run stops: an idle connection is closed, a busy one when its last reply is here.
    pub(super) fn wind_up(&mut self, io: &mut impl Io, slot: u32) {
        match self.conns[slot as usize].state {
            State::Closed => self.let_go(slot, self.latest),
            State::Connecting => {
                io.close(slot);
                self.tally.connections.unfinished += 1;
                self.closed(slot);
                self.let_go(slot, self.latest);
            }
            State::Preparing => {
                io.close(slot);
                self.tally.connections.closed += 1;
                self.closed(slot);
                self.let_go(slot, self.latest);
            }
            State::Open if self.has_requests => {
                self.drop_due(slot);
                self.close_when_answered(io, slot);
            }
            State::Open => {
                self.conns[slot as usize].state = State::Ending;
                self.alive -= 1;
                self.end_stream(io, slot);
            }
            State::Ending => {}
        }
    }

    /// Nobody waits for a connection in this slot any longer.
    fn let_go(&mut self, slot: u32, now: Instant) {
        self.drop_due(slot);
        self.let_go_unprocessed(slot, now);
    }

    /// A request that waited for its connection to open will not be sent any more.
    pub(super) fn drop_due(&mut self, slot: u32) {
        if let Some(due) = self.take_owed(slot) {
            self.tally.whole.unsent += 1;
            // A window that has been closed has counted it already.
            self.tally.window.unsent += u64::from(self.window.covers(due));
            self.never_left(slot, due);
        }
    }
}

/// The word for a failed connection attempt in `connections.failed`.
pub(super) fn connect_failure(error: &io::Error) -> &'static str {
    // Numbers of errno(3) on Linux.
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ENOMEM: i32 = 12;
    const ENOBUFS: i32 = 105;
    match (error.kind(), error.raw_os_error()) {
        // Of a unix socket: there is no such file, or its listener's queue is full (unix(7)).
        (ErrorKind::ConnectionRefused | ErrorKind::NotFound, _) => "refused",
        (ErrorKind::WouldBlock, _) => "queue_full",
        (ErrorKind::TimedOut, _) => "timeout",
        (ErrorKind::ConnectionReset, _) => "reset",
        (ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable | ErrorKind::PermissionDenied, _) => "unreachable",
        (ErrorKind::AddrNotAvailable, _) => "no_port",
        (_, Some(ENFILE | EMFILE)) => "no_descriptor",
        (_, Some(ENOMEM | ENOBUFS)) => "no_memory",
        _ => "other",
    }
}
