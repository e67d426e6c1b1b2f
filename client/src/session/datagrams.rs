//! Requests and replies that are datagrams: each may be lost, doubled or overtaken by others.
//!
//! A request is found by its sequence number, times out alone, and leaves its connection open for those beside it. What
//! comes late or twice is counted, and answers nothing.

use super::opening::connect_failure;
use super::requests::quote;
use super::{Session, State, flag};
use crate::engine::Io;
use crate::tally::Phase;
use loadgen_core::protocol::sequence::{Sequences, Tag, Unawaited};
use loadgen_core::protocol::{Client, Shape};
use loadgen_core::rng::Rng;
use loadgen_core::time::{Instant, NS_PER_MS};
use std::io;

/// How long connections stay open, answered, when the run stops: a datagram may be on its way twice.
const LINGER_NS: u64 = 100 * NS_PER_MS;

/// What a session knows besides where requests are datagrams.
#[derive(Debug)]
pub(super) struct Datagrams {
    sequences: Sequences,
    /// Where each request has its stamp: its sequence number, once it was sent.
    numbers: Vec<u64>,
    /// The one that is being written.
    writing: Vec<u8>,
    /// Unlike that of other runs.
    run: u64,
    /// Once no more is sent: when connections that are answered are closed.
    linger_until: Instant,
}

impl Datagrams {
    pub(super) fn new(config: &super::Config, client: &dyn Client) -> Option<Self> {
        if config.shape != Shape::Datagram {
            return None;
        }
        let capacity = config.active + config.idle;
        Some(Self {
            sequences: Sequences::new(capacity),
            numbers: vec![0; capacity * config.depth.max(1)],
            writing: client.request().to_vec(),
            run: Rng::new(config.origin.0).next_u64() << 32,
            linger_until: Instant::NEVER,
        })
    }

    /// When connections that are answered may be closed, if that is to come.
    pub(super) fn linger_until(&self) -> Instant {
        self.linger_until
    }
}

impl Session {
    /// Hands the kernel what it will take of the due requests, each a datagram, and answers when that was.
    pub(super) fn flush_datagrams(&mut self, io: &mut impl Io, slot: u32) -> Instant {
        let now = io.now();
        let connection = self.connection_number(slot);
        while self.conns[slot as usize].unsent > 0 {
            let conn = &self.conns[slot as usize];
            let position = usize::from(conn.outstanding) - conn.unsent as usize;
            let (place, target) = (self.place(slot, position), self.config.target(slot));
            let Some(datagrams) = &mut self.datagrams else { return now };
            let sequence = datagrams.sequences.next(slot);
            self.clients[target].mark(&mut datagrams.writing, Tag { connection, sequence });
            match io.send_own(slot, &datagrams.writing) {
                Ok(0) => break,
                Ok(bytes) => {
                    datagrams.sequences.sent(slot);
                    datagrams.numbers[place] = sequence;
                    self.tally.bytes.sent += bytes as u64;
                    self.conns[slot as usize].unsent -= 1;
                    self.sent(slot, position, now);
                }
                // The kernel tells by it what became of an earlier one. It tells once, so the receive will not.
                Err(error) => {
                    self.refused.push_back((slot, error));
                    break;
                }
            }
        }
        now
    }

    /// Connections of which the kernel said, while something was sent, that nobody listens there.
    pub(super) fn end_refused(&mut self, io: &mut impl Io, now: Instant) {
        while let Some((slot, error)) = self.refused.pop_front() {
            if self.conns[slot as usize].state == State::Open {
                self.datagrams_ended(io, slot, Some(&error), now);
            }
        }
    }

    /// A datagram arrived.
    pub(super) fn datagram(&mut self, io: &mut impl Io, slot: u32, bytes: &[u8], now: Instant) {
        self.tally.datagrams.received += 1;
        let (target, connection) = (self.config.target(slot), self.connection_number(slot));
        let tag = self.clients[target].tag_of(bytes).filter(|tag| tag.connection == connection);
        let Some(Tag { sequence, .. }) = tag else {
            self.tally.datagrams.foreign += 1;
            return;
        };
        let Some(position) = self.awaited(slot, sequence) else { return self.unawaited(slot, sequence) };
        self.bring_forward(slot, position);
        let parser = &mut self.conns[slot as usize].parser;
        match self.clients[target].consume(parser, bytes) {
            Ok(consumed) => {
                let datagrams = self.datagrams.as_mut();
                let reordered = datagrams.is_some_and(|of| of.sequences.answered(slot, sequence));
                self.tally.datagrams.reordered += u64::from(reordered);
                if let Some(reply) = consumed.reply {
                    self.complete(slot, reply, now);
                }
            }
            Err(error) => {
                self.give_up_oldest(slot, error.kind.name(), now);
                self.note(error.kind.name(), Phase::Reply, 1, || format!("{}: {}", error.detail, quote(bytes)));
            }
        }
        self.go_on(io, slot, now);
    }

    /// The position of the request of that number on its connection, if it is awaited there.
    fn awaited(&self, slot: u32, sequence: u64) -> Option<usize> {
        let datagrams = self.datagrams.as_ref()?;
        let conn = &self.conns[slot as usize];
        let sent = usize::from(conn.outstanding) - conn.unsent as usize;
        let number = |position: usize| datagrams.numbers[self.place(slot, position)];
        // Nearly always it is the first; they are in order.
        let (mut low, mut high) = (0, if sent > 0 && number(0) == sequence { 1 } else { sent });
        while low < high {
            let middle = (low + high) / 2;
            match number(middle).cmp(&sequence) {
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    fn unawaited(&mut self, slot: u32, sequence: u64) {
        let Some(datagrams) = &mut self.datagrams else { return };
        let counts = &mut self.tally.datagrams;
        match datagrams.sequences.unawaited(slot, sequence) {
            Unawaited::Duplicate => counts.duplicated += 1,
            Unawaited::Late => counts.late += 1,
            Unawaited::Old => counts.old += 1,
            Unawaited::Unasked => counts.foreign += 1,
        }
    }

    /// Makes a request the oldest of its connection; those before it keep their order.
    fn bring_forward(&mut self, slot: u32, position: usize) {
        for behind in (0..position).rev() {
            let (a, b) = (self.place(slot, behind), self.place(slot, behind + 1));
            self.stamps.swap(a, b);
            if let Some(datagrams) = &mut self.datagrams {
                datagrams.numbers.swap(a, b);
            }
        }
    }

    /// Books the oldest request of a connection as failed. Says whether it had been sent.
    fn give_up_oldest(&mut self, slot: u32, kind: &'static str, now: Instant) -> bool {
        self.forget_number(slot, 0);
        let request = self.pop(slot, now);
        if request.sent == Instant(0) {
            self.conns[slot as usize].unsent -= 1;
        }
        self.fail(slot, request, kind, now)
    }

    /// The request in a position is not awaited any longer.
    fn forget_number(&mut self, slot: u32, position: usize) {
        let was_sent = self.stamp(slot, position).sent != Instant(0);
        let place = self.place(slot, position);
        if let Some(datagrams) = self.datagrams.as_mut().filter(|_| was_sent) {
            datagrams.sequences.gave_up(slot, datagrams.numbers[place]);
        }
    }

    /// Requests of a connection whose time is over; the others are not concerned.
    pub(super) fn datagrams_timed_out(&mut self, io: &mut impl Io, slot: u32, now: Instant) {
        while self.conns[slot as usize].outstanding > 0 {
            let oldest = *self.stamp(slot, 0);
            let since = oldest.sent.max(oldest.due);
            if now < since.after(self.config.timeout_ns) {
                self.arm_timeout(slot, since);
                break;
            }
            if self.give_up_oldest(slot, "timeout", now) {
                self.tally.datagrams.lost += 1;
                let example = self.overdue(oldest, now);
                self.note("timeout", Phase::Reply, 1, || example);
            }
        }
        self.go_on(io, slot, now);
    }

    /// The kernel says that what was sent reached nobody (ICMP), or the socket broke.
    pub(super) fn datagrams_ended(&mut self, io: &mut impl Io, slot: u32, cause: Option<&io::Error>, now: Instant) {
        io.close(slot);
        for position in 0..usize::from(self.conns[slot as usize].outstanding) {
            self.forget_number(slot, position);
        }
        let kind = cause.map_or("closed", connect_failure);
        let example = cause.map_or_else(|| "the socket was closed".to_owned(), |error| format!("receive: {error}"));
        if self.conns[slot as usize].flags & flag::SERVED == 0 {
            self.connect_failures += 1;
        }
        self.fail_all(slot, [kind; 2], now, example);
        self.closed(slot);
        self.tally.connections.lost += 1;
        self.back_off(slot, now);
    }

    /// The run stops: what is on its way twice has a moment to arrive.
    pub(super) fn linger(&mut self, now: Instant) {
        if let Some(datagrams) = &mut self.datagrams {
            datagrams.linger_until = now.after(LINGER_NS);
        }
    }

    /// Whether a connection that is answered is kept for that moment.
    pub(super) fn lingers(&self) -> bool {
        self.datagrams.as_ref().is_some_and(|datagrams| datagrams.linger_until != Instant::NEVER)
    }

    /// That moment is over.
    pub(super) fn end_lingering(&mut self, io: &mut impl Io, now: Instant) {
        let Some(datagrams) = self.datagrams.as_mut().filter(|datagrams| now >= datagrams.linger_until) else { return };
        datagrams.linger_until = Instant::NEVER;
        for slot in 0..self.conns.len() as u32 {
            if self.conns[slot as usize].state == State::Open {
                self.close_when_answered(io, slot);
            }
        }
    }

    /// By which replies are told from those to others.
    fn connection_number(&self, slot: u32) -> u64 {
        let (index, workers) = self.config.worker;
        self.datagrams.as_ref().map_or(0, |of| of.run) | (u64::from(slot) * workers + index)
    }
}
