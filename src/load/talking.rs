//! What a protocol is told of a connection, and what it says about it.

use super::Load;
use super::connections::{Conn, Connections, State, flag};
use super::early::AWAITS_REST;
use crate::engine::{Handler, Io};
use crate::load::tally::Phase;
use crate::protocol::Client;
use crate::protocol::ask::Ask;
use crate::protocol::client::{Context, Ended, Event};
use crate::protocol::sequence::Unawaited;
use crate::protocol::ticket::STREAM;
use crate::time::Instant;
use std::io;
use std::ops::ControlFlow;

/// A bit of `Conn::queued`: the peer is about to close.
pub(super) const DRAINING: u8 = 8;

impl Load {
    /// The connection is established: the protocol says what comes first.
    pub(super) fn prepare(&mut self, io: &mut impl Io, slot: u32, now: Instant) {
        self.on.conns[slot as usize].state = State::Preparing;
        self.on.since[slot as usize] = now;
        let outcome = self.on.ask(slot, now, |client, cx| client.connected(slot, cx));
        self.heard(io, slot, outcome, now);
    }

    /// Shows the protocol what arrived, behind what it did not use before.
    fn show(&mut self, io: &mut impl Io, slot: u32, bytes: &[u8], now: Instant) {
        if self.on.conns[slot as usize].flags & flag::KEPT == 0 {
            let used = self.on.ask(slot, now, |client, cx| client.received(slot, bytes, cx));
            if let Ok(used) = used {
                self.on.keep(slot, &bytes[used..]);
            }
            return self.heard(io, slot, used.map(|_| ()), now);
        }
        let mut kept = self.on.take_kept(slot);
        kept.extend_from_slice(bytes);
        let used = self.on.ask(slot, now, |client, cx| client.received(slot, &kept, cx));
        if let Ok(used) = used {
            self.on.keep(slot, &kept[used..]);
        }
        self.on.recycle(kept);
        self.heard(io, slot, used.map(|_| ()), now);
    }

    /// Deals with what the protocol told of a connection in one call, and with what follows from it.
    #[inline]
    pub(super) fn heard(&mut self, io: &mut impl Io, slot: u32, outcome: Result<(), Ended>, now: Instant) {
        let replies = self.on.events.completed.len();
        for at in 0..replies {
            let (ticket, outcome) = self.on.events.completed[at];
            self.on.complete(slot, ticket, outcome, now);
        }
        self.on.events.completed.clear();
        let is_more = outcome.is_err() || !self.on.events.others.is_empty();
        if is_more || !self.on.outboxes.writing.is_empty() {
            return self.heard_more(io, slot, outcome, replies > 0, now);
        }
        if replies > 0 && self.on.conns[slot as usize].state == State::Open {
            self.go_on(io, slot, now);
        }
    }

    /// Likewise, where there was more than replies.
    #[cold]
    fn heard_more(&mut self, io: &mut impl Io, slot: u32, outcome: Result<(), Ended>, mut goes_on: bool, now: Instant) {
        let events = std::mem::take(&mut self.on.events.others);
        // What it says leaves before anything else does, of this connection or another.
        if !self.on.outboxes.writing.is_empty() {
            self.on.flush(io, slot);
        }
        for event in events {
            match event {
                Event::LastReply => return self.closed_as_announced(io, slot, now),
                Event::Ready => {
                    self.opened(io, slot, now);
                    // At the end of a run, or of a user's stay, it is closed at once: what else was told is of nobody.
                    if self.on.conns[slot as usize].state != State::Open {
                        return;
                    }
                }
                other => goes_on |= self.on.happened(slot, other, now).is_continue(),
            }
        }
        match outcome {
            Err(end) => self.ended_by_protocol(io, slot, *end, now),
            Ok(()) if goes_on && self.on.conns[slot as usize].state == State::Open => self.go_on(io, slot, now),
            Ok(()) => {}
        }
    }

    /// Protocols that wanted to be called at a certain time.
    pub(super) fn fire_wishes(&mut self, io: &mut impl Io, now: Instant) {
        while let Some(slot) = self.on.wakes.pop(now) {
            if self.on.wishes.get(&slot).is_some_and(|at| *at <= now) {
                self.on.wishes.remove(&slot);
                let outcome = self.on.ask(slot, now, |client, cx| client.timed_out(slot, cx));
                self.heard(io, slot, outcome, now);
            }
        }
    }
}

impl Connections {
    /// Has the protocol of a connection do something.
    #[inline]
    pub(super) fn ask<R>(
        &mut self,
        slot: u32,
        now: Instant,
        ask: impl FnOnce(&mut dyn Client, &mut Context<'_>) -> R,
    ) -> R {
        let target = self.config.target(slot);
        let Conn { flags, ring, .. } = self.conns[slot as usize];
        let mut cx = Context {
            now,
            out: self.outboxes.of(slot, flags & flag::OUTBOX != 0),
            events: &mut self.events,
            awaited: self.tickets.awaited(slot, ring),
        };
        ask(&mut *self.clients[target], &mut cx)
    }

    /// What happens less often than replies. Says whether the connection may go on from there.
    fn happened(&mut self, slot: u32, event: Event, now: Instant) -> ControlFlow<()> {
        match event {
            Event::Handshake(handshake) => {
                self.tally.handshakes.note(handshake, now.since(self.since[slot as usize]));
            }
            Event::Served => self.served(slot),
            Event::Failed(ticket, kind, why) => {
                let request = self.end(slot, ticket, now);
                self.fail(slot, request, kind, now);
                self.note(kind, Phase::Reply, 1, || why);
                return ControlFlow::Continue(());
            }
            Event::Unprocessed(ticket) => self.came_back(slot, ticket, now),
            Event::Stray(what) => {
                let counts = &mut self.tally.delivery;
                *match what {
                    Unawaited::Duplicate => &mut counts.duplicated,
                    Unawaited::Late => &mut counts.late,
                    Unawaited::Old => &mut counts.old,
                    Unawaited::Unasked => &mut counts.foreign,
                } += 1;
            }
            Event::Overtaken => self.tally.delivery.reordered += 1,
            Event::Capacity(most) => {
                let most = (most as usize).min(self.config.depth) as u16;
                let before = std::mem::replace(&mut self.conns[slot as usize].capacity, most);
                if most > before {
                    if self.conns[slot as usize].ring.alive >= before {
                        self.free_from(slot, now);
                    }
                    return ControlFlow::Continue(());
                }
            }
            Event::Wake(at) => {
                self.wishes.insert(slot, at);
                self.wakes.push(at, slot);
            }
            Event::Draining => {
                self.since[slot as usize] = now;
                let conn = &mut self.conns[slot as usize];
                conn.capacity = 0;
                conn.queued |= DRAINING;
                self.arm_timeout(slot, now);
            }
            Event::LastReply | Event::Ready => {}
        }
        ControlFlow::Break(())
    }

    /// Deals with what the protocol told while it was asked to say something: there nothing comes to its end.
    #[inline]
    pub(super) fn heard_aside(&mut self, slot: u32) {
        if !self.events.are_none() {
            self.deal_with_asides(slot);
        }
    }

    #[cold]
    fn deal_with_asides(&mut self, slot: u32) {
        debug_assert!(self.events.completed.is_empty(), "a reply while something is said");
        for event in std::mem::take(&mut self.events.others) {
            let ends = matches!(event, Event::Ready | Event::Failed(..) | Event::LastReply);
            debug_assert!(!ends, "{event:?} while something is said");
            if !ends {
                // Should there be room for more, what comes next finds it.
                let (ControlFlow::Continue(()) | ControlFlow::Break(())) = self.happened(slot, event, self.latest);
            }
        }
    }

    /// Whether the peer is about to close a connection.
    pub(super) fn is_draining(&self, slot: u32) -> bool {
        self.conns[slot as usize].queued & DRAINING != 0
    }

    /// The stream of a connection may flow, where there are no requests.
    pub(super) fn let_flow(&mut self, io: &mut impl Io, slot: u32) {
        if !self.going || self.is_idle(slot) {
            return;
        }
        self.ask(slot, self.latest, |client, cx| client.start(slot, STREAM, &mut Ask::default(), cx));
        self.heard_aside(slot);
        if self.fills {
            self.flush(io, slot);
        }
    }
}

impl<I: Io> Handler<I> for Load {
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
        self.on.tally.bytes.received += bytes.len() as u64;
        self.on.tally.delivery.received += u64::from(self.on.config.transport.may_lose());
        self.show(io, slot, bytes, now);
    }

    fn writable(&mut self, io: &mut I, slot: u32) {
        let conn = &self.on.conns[slot as usize];
        // Edges tell it with each reply that arrives.
        let has_nothing_to_say = conn.flags & flag::OUTBOX == 0 && conn.queued & AWAITS_REST == 0 && !self.on.fills;
        match conn.state {
            State::Ending if self.on.gathers && self.on.has_unsent(slot) => {
                self.on.flush(io, slot);
                return self.on.end_when_said(io, slot);
            }
            State::Preparing | State::Open if !has_nothing_to_say => {}
            _ => return,
        }
        self.cross_boundaries(io.now());
        self.on.flush(io, slot);
        self.rest_may_have_left(io, slot);
    }

    fn handed(&mut self, at: impl FnOnce() -> Instant) {
        if !self.on.leaving.is_empty() {
            self.on.left_at(at());
        }
    }

    fn not_taken(&mut self, bytes: i64) {
        self.on.take_back(bytes);
    }

    fn ended(&mut self, io: &mut I, slot: u32, cause: Option<io::Error>) {
        let now = io.now();
        self.cross_boundaries(now);
        match cause {
            None => self.stream_ended(io, slot, now),
            Some(error) => self.broke(io, slot, &error, now),
        }
    }
}
