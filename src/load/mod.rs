//! The load: who asks what when, and what became of it. Every engine is driven by this same code, and every protocol is
//! asked by it.
//!
//! Two halves. `Demand` makes requests due; `Connections` carry them. A [`Load`] is both, and what leads from one
//! to the other: what happens to a connection is told to the demand, which asks for more.
//!
//! Read in this order: `config`; `connections` (what a connection is, and its states); `opening` (they come, fail and
//! come back); `talking` (what a protocol is told of a connection, and what it says about it); `requests` (they are
//! taken up, answered, or fail); `waits` (for what a request waited); `outboxes` (what has yet to leave); `early`
//! (replies that come before their requests have left); `leaving` (what an engine has taken and not handed over);
//! `unprocessed` (what came back); `endings` (how a connection ends); `deadlines` (what takes too long); `window` (what
//! counts for the measured window); `demand`.

mod config;
mod connections;
mod deadlines;
mod demand;
mod early;
mod endings;
mod leaving;
mod opening;
mod outboxes;
pub mod request_log;
mod requests;
mod talking;
pub mod tally;
mod timers;
pub mod turns;
mod unprocessed;
pub mod users;
mod waits;
mod window;

pub use config::{Config, StopRule, Usage};
pub use connections::shares;

use crate::engine::Io;
use crate::load::request_log::RequestLog;
use crate::load::tally::Tally;
use crate::protocol::Client;
use crate::time::{Instant, NS_PER_S};
use connections::{Connections, State, flag};
use demand::{Demand, Start};
use std::ops::Range;

/// Connections that begin with the load in one turn.
const STARTS_A_TURN: usize = 2048;

/// The load of one worker.
#[derive(Debug)]
pub struct Load {
    on: Connections,
    demand: Demand,
    /// Slots that have yet to hear that the load has begun.
    to_start: Range<u32>,
}

impl Load {
    /// `clients`: one for each target.
    pub fn new(config: Config, clients: Vec<Box<dyn Client>>) -> Self {
        let demand = Demand::new(&config);
        Self { on: Connections::new(config, clients), demand, to_start: 0..0 }
    }

    /// Every request is written down there, as far as there is room.
    pub fn log_to(&mut self, log: RequestLog) {
        self.on.log = log;
    }

    /// Begins the load: until here connections were opened and proved, now all send. `at` is the same instant for all
    /// workers.
    pub fn go(&mut self, io: &mut impl Io, at: Instant, now: Instant) {
        let on = &mut self.on;
        on.going = true;
        on.began = at;
        if let StopRule::After(ns) = on.config.stop_rule {
            let opens = at.after(on.config.warmup_ns);
            on.window.open_at(opens, on.config.stop_rule);
            self.demand.begin(on, at, opens.after(ns));
            // The word that the load began comes a little late. What proves a connection meanwhile was not booked as of
            // the window, and stays so.
            on.tickets.keep_before(at);
        }
        self.cross_boundaries(now);
        if self.demand.takes_turns() {
            return self.ask_for_what_is_due(io, now);
        }
        self.to_start = 0..self.on.config.active as u32;
        self.start_some(io, now);
    }

    /// Connections that were opened before the load began send their first requests, a bounded number of them in one
    /// turn: an engine would otherwise have to remember as many as there are.
    fn start_some(&mut self, io: &mut impl Io, now: Instant) {
        for _ in 0..STARTS_A_TURN {
            let Some(slot) = self.to_start.next() else { return };
            let on = &mut self.on;
            if on.conns[slot as usize].state != State::Open {
                continue;
            }
            if !on.has_requests {
                on.let_flow(io, slot);
            } else if self.demand.start(on, io, slot, now) == Start::GoesOn {
                self.go_on(io, slot, now);
            }
        }
    }

    /// Stops sending. What is unanswered at `until` is in flight; called again, `until` may come closer.
    pub fn stop(&mut self, io: &mut impl Io, now: Instant, until: Instant) {
        if let Some(drain_until) = &mut self.on.drain_until {
            *drain_until = until.min(*drain_until);
            return;
        }
        self.cross_boundaries(now);
        let on = &mut self.on;
        on.window.call_off();
        self.demand.last(on, io, now);
        self.demand.end(on, now);
        self.close_window(now);
        self.to_start = 0..0;
        self.on.stop(io, now, until);
    }

    /// What time brings: connections to open, deadlines, the end of the window.
    pub fn tick(&mut self, io: &mut impl Io, now: Instant) {
        self.cross_boundaries(now);
        let on = &self.on;
        if on.drain_until.is_none() && (on.has_spent_its_budget() || on.window.is_over(now)) {
            // Every request has its own timeout; a little more lets the last of them fire as such.
            self.stop(io, now, now.after(on.config.timeout_ns + NS_PER_S / 10));
        }
        self.ask_for_what_is_due(io, now);
        self.fire_timeouts(io, now);
        self.fire_unprocessed(io, now);
        self.fire_wishes(io, now);
        self.end_refused(io, now);
        self.on.end_lingering(io, now);
        self.start_some(io, now);
        self.on.follow_profile(io, now);
        self.open_connections(io, now);
        if self.on.drain_until.is_some_and(|until| now >= until) {
            self.on.give_up(io);
        }
    }

    fn ask_for_what_is_due(&mut self, io: &mut impl Io, now: Instant) {
        if self.on.going {
            self.demand.due(&mut self.on, io, now);
        }
    }

    /// What follows when a request has ended, or there is room for more: the next request, the planned end of the
    /// connection, or of the run.
    fn go_on(&mut self, io: &mut impl Io, slot: u32, now: Instant) {
        let on = &mut self.on;
        if on.drain_until.is_some() || on.is_retired(slot) {
            return on.close_when_answered(io, slot);
        }
        if on.is_spent(slot) {
            // An idle connection made its one request and stays, whatever the limit.
            let conn = &on.conns[slot as usize];
            let is_done = conn.ring.alive == 0 && !on.is_idle(slot) && (on.going || conn.issued > 1);
            if is_done && !on.awaits_rest(io, slot) {
                on.close_in_order(io, slot);
                self.goes_on_elsewhere(slot, now);
                self.reopen(slot, now);
            }
            return;
        }
        // What is due may have waited for the peer to take it.
        if !on.carries_load(slot) || on.conns[slot as usize].flags & flag::DUE != 0 {
            return on.begin(io, slot, now);
        }
        self.demand.ended(on, io, slot, now);
        self.open_at_once(io, now);
    }

    /// A connection was closed behind a reply, in good order: what is due next waits for another one.
    fn goes_on_elsewhere(&mut self, slot: u32, now: Instant) {
        // The peer may have taken none before, and then it has been due since.
        let is_owed = self.on.conns[slot as usize].flags & flag::DUE != 0;
        // One that is not wanted any more is not opened again: what is left of a given number is for the others.
        let has_room = self.on.conns[slot as usize].ring.alive == 0;
        if self.on.carries_load(slot) && !self.on.is_retired(slot) && !is_owed && has_room {
            self.demand.closed(&mut self.on, slot, now);
        }
    }

    pub fn finished(&self) -> bool {
        self.on.drain_until.is_some() && self.on.open == 0
    }

    /// When [`Load::tick`] is next needed.
    pub fn next_deadline(&self) -> Instant {
        if !self.to_start.is_empty() {
            return Instant(0);
        }
        let next = self.on.next_deadline();
        if self.on.drain_until.is_some() { next } else { next.min(self.demand.next()) }
    }

    /// When the next request can leave: when it is due, if there is a connection for it.
    pub fn next_issue(&self) -> Instant {
        if self.on.drain_until.is_some() { Instant::NEVER } else { self.demand.next_issue() }
    }

    /// The engine will wait until `expected` at most.
    pub fn waits_until(&mut self, expected: Instant) {
        self.demand.waits_until(expected);
    }

    /// This thread stood still.
    pub fn stood_still(&mut self, from: Instant, to: Instant) {
        self.demand.stood_still(from, to);
        let on = &mut self.on;
        on.tally.stalls.note(to.since(from), from.since(on.config.origin));
    }

    /// So long was spent looking for a deadline instead of sleeping.
    pub fn spun(&mut self, ns: u64) {
        if self.on.window.is_open() {
            self.on.tally.spin_ns += ns;
        }
    }

    pub fn tally(&self) -> &Tally {
        &self.on.tally
    }

    pub fn request_failures(&self) -> u64 {
        self.on.request_failures
    }

    pub fn connect_failures(&self) -> u64 {
        self.on.connect_failures
    }

    /// Connections that need not be waited for before the load begins: served, or, where nothing is ever answered,
    /// established.
    pub fn ready(&self) -> u64 {
        let connections = &self.on.tally.connections;
        if self.on.is_answered { connections.served } else { connections.established }
    }

    /// Connections that are open now.
    pub fn alive(&self) -> u64 {
        self.on.alive
    }

    /// The final figures.
    pub fn into_tally(mut self, now: Instant) -> Tally {
        self.demand.close(&mut self.on, now);
        self.on.into_tally(now)
    }
}
