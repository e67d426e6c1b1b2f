//! Requests are issued, answered, or fail; each leaves the ledger exactly once.

use super::{Session, Stamp, State, flag};
use crate::engine::Io;
use crate::request_log::Row;
use crate::tally::Phase;
use loadgen_core::protocol::{Outcome, Reply, ReplyError, Shape};
use loadgen_core::sys::clock;
use loadgen_core::time::Instant;
use std::io;

/// Connections that are looked at in vain in one turn, where they take turns and many are lost or busy.
const TURN_LOOKS: usize = 64;

/// Sends for one endless stream in one turn.
const SENDS_A_TURN: usize = 8;

/// Bytes of a reply that an error message quotes.
const EXAMPLE_BYTES: usize = 64;

impl Session {
    /// Issues what this connection may carry now: one request to prove a new connection, all that `depth` allows once
    /// the load has begun.
    pub(super) fn begin(&mut self, io: &mut impl Io, slot: u32, now: Instant) {
        let proof_only = !self.going || self.is_idle(slot) || self.config.in_flight_max.is_some();
        let conn = &mut self.conns[slot as usize];
        let depth = if proof_only { usize::from(conn.issued == 0) } else { self.config.depth };
        let mut room = (depth as u32).saturating_sub(u32::from(conn.outstanding));
        if let Some(limit) = self.config.requests_per_connection {
            room = room.min(limit - conn.issued);
        }
        if conn.flags & flag::DUE != 0 {
            // Scheduled when the reply before it arrived, on the connection before this one; its stamp is in place.
            conn.flags &= !flag::DUE;
            self.owed -= 1;
            self.stamps[slot as usize * self.config.depth].sent = Instant(0);
            self.enqueue(slot, 1);
            room = room.saturating_sub(1);
        }
        self.issue(io, slot, room, now);
    }

    /// Where not all connections may have a request in flight, those go on whose turn it is.
    pub(super) fn take_turns(&mut self, io: &mut impl Io, now: Instant) {
        let most = self.config.in_flight_max.unwrap_or(0);
        let mut looks = TURN_LOOKS;
        while self.in_flight < most && looks > 0 && self.budget > 0 && self.drain_until.is_none() {
            let slot = self.next_turn;
            self.next_turn = (slot + 1) % self.config.active as u32;
            let conn = &self.conns[slot as usize];
            if conn.state == State::Open && usize::from(conn.outstanding) < self.config.depth {
                self.issue(io, slot, 1, now);
            } else {
                looks -= 1;
            }
        }
    }

    /// Issues so many requests on a connection, and what it has due.
    fn issue(&mut self, io: &mut impl Io, slot: u32, room: u32, now: Instant) {
        let reserved = self.take_reserved(slot, room);
        let from_budget = (u64::from(room) - reserved).min(self.budget);
        self.budget -= from_budget;
        let fresh = reserved + from_budget;
        self.schedule(fresh, now);
        for _ in 0..fresh {
            let position = usize::from(self.conns[slot as usize].outstanding);
            *self.stamp(slot, position) = Stamp { due: now, sent: Instant(0) };
            self.enqueue(slot, 1);
        }
        if self.conns[slot as usize].unsent > 0 {
            let _ = self.flush(io, slot);
            self.arm_timeout(slot, now);
        }
    }

    fn take_reserved(&mut self, slot: u32, room: u32) -> u64 {
        let conn = &mut self.conns[slot as usize];
        if room == 0 || conn.flags & flag::RESERVED == 0 {
            return 0;
        }
        conn.flags &= !flag::RESERVED;
        self.owed -= 1;
        1
    }

    pub(super) fn schedule(&mut self, requests: u64, due: Instant) {
        self.tally.whole.scheduled += requests;
        if self.window.covers(due) {
            self.tally.window.scheduled += requests;
        }
    }

    pub(super) fn enqueue(&mut self, slot: u32, requests: u16) {
        let conn = &mut self.conns[slot as usize];
        conn.outstanding += requests;
        self.in_flight += u64::from(requests);
        conn.issued = conn.issued.saturating_add(u32::from(requests));
        conn.unsent += u32::from(requests) * self.request_len as u32;
    }

    pub(super) fn stamp(&mut self, slot: u32, position: usize) -> &mut Stamp {
        let depth = self.config.depth;
        let index = (usize::from(self.conns[slot as usize].oldest) + position) % depth;
        &mut self.stamps[slot as usize * depth + index]
    }

    /// Hands the kernel what it will take of the due requests.
    ///
    /// When it refuses because the connection broke, nothing is decided here: replies may still be waiting to be
    /// received, and the engine tells them before it tells the end. Answers when that was.
    pub(super) fn flush(&mut self, io: &mut impl Io, slot: u32) -> Instant {
        let unsent = self.conns[slot as usize].unsent as usize;
        let requests = unsent.div_ceil(self.request_len);
        let end = requests * self.request_len;
        let now = clock::now();
        let Ok(taken) = io.send(slot, end - unsent..end) else { return now };
        self.tally.bytes.sent += taken as u64;
        let conn = &mut self.conns[slot as usize];
        conn.unsent -= taken as u32;
        let outstanding = usize::from(conn.outstanding);
        let untouched = conn.unsent as usize / self.request_len;
        for position in outstanding - requests..outstanding - untouched {
            let stamp = self.stamp(slot, position);
            if stamp.sent == Instant(0) {
                stamp.sent = now;
                let due = stamp.due;
                self.left_later(slot, position, due, now);
                self.tally.whole.sent += 1;
                if self.window.covers(due) {
                    self.tally.window.sent += 1;
                }
            }
        }
        now
    }

    /// Bytes arrived on a connection of requests and replies.
    pub(super) fn replies(&mut self, io: &mut impl Io, slot: u32, bytes: &[u8], now: Instant) {
        let parsed = if self.conns[slot as usize].flags & flag::KEPT == 0 {
            let parsed = self.parse(io, slot, bytes, now);
            if let Parsed::More(used) = parsed {
                self.keep(slot, &bytes[used..]);
            }
            parsed
        } else {
            let mut kept = self.take_kept(slot);
            kept.extend_from_slice(bytes);
            let parsed = self.parse(io, slot, &kept, now);
            if let Parsed::More(used) = parsed {
                self.keep(slot, &kept[used..]);
            }
            self.recycle(kept);
            parsed
        };
        match parsed {
            Parsed::More(_) => self.go_on(io, slot, now),
            Parsed::Last => self.closed_as_announced(io, slot, now),
            Parsed::Broken => {}
        }
    }

    fn parse(&mut self, io: &mut impl Io, slot: u32, input: &[u8], now: Instant) -> Parsed {
        let mut used = 0;
        while used < input.len() {
            let rest = &input[used..];
            if self.conns[slot as usize].outstanding == 0 || self.stamp(slot, 0).sent == Instant(0) {
                self.unexpected(io, slot, rest, now);
                return Parsed::Broken;
            }
            match self.client.consume(&mut self.conns[slot as usize].parser, rest) {
                Err(error) => {
                    self.broken_reply(io, slot, error, rest, now);
                    return Parsed::Broken;
                }
                Ok(consumed) => {
                    used += consumed.bytes;
                    let Some(reply) = consumed.reply else { break };
                    self.complete(slot, reply, now);
                    if reply.last {
                        return Parsed::Last;
                    }
                }
            }
        }
        Parsed::More(used)
    }

    /// A reply is complete.
    fn complete(&mut self, slot: u32, reply: Reply, now: Instant) {
        let stamp = self.pop(slot, now);
        let conn = &self.conns[slot as usize];
        if conn.flags & (flag::UNPROVEN | flag::SERVED) != flag::SERVED || conn.failures > 0 {
            self.served(slot);
        }
        let Outcome::Refused(kind) = reply.outcome else {
            let response_ns = now.since(stamp.due);
            self.log(slot, stamp, now, "ok");
            self.tally.whole.ok += 1;
            self.window.replied(now, response_ns);
            if self.window.is_open() {
                self.tally.batches.replied(self.window.age_ns(now));
            }
            if self.window.covers(stamp.due) {
                self.tally.window.ok += 1;
                self.tally.responded(self.window.age_ns(stamp.due), response_ns);
                self.tally.service.record(now.since(stamp.sent));
            }
            return;
        };
        self.fail(slot, stamp, kind, now);
        self.note(kind, Phase::Reply, 1, || "the server answered with an error status".to_owned());
    }

    /// Takes the oldest request off a connection. Its place is free from now on: the open loop wants to know since
    /// when.
    fn pop(&mut self, slot: u32, now: Instant) -> Stamp {
        let place = self.stamp(slot, 0);
        let stamp = std::mem::replace(place, Stamp { due: place.due, sent: now });
        let conn = &mut self.conns[slot as usize];
        conn.oldest = ((usize::from(conn.oldest) + 1) % self.config.depth) as u16;
        conn.outstanding -= 1;
        self.in_flight -= 1;
        stamp
    }

    #[inline]
    fn log(&mut self, slot: u32, stamp: Stamp, ended: Instant, outcome: &'static str) {
        if !self.log.is_kept() {
            return;
        }
        // What proved a connection before the load began is marked as such.
        let outcome = if outcome == "ok" && stamp.due < self.began { "proof" } else { outcome };
        self.log.note(Row { slot, due: stamp.due, sent: stamp.sent, ended, outcome });
    }

    /// Books a request that failed, or that never left.
    fn fail(&mut self, slot: u32, stamp: Stamp, kind: &'static str, now: Instant) -> bool {
        let covered = self.window.covers(stamp.due);
        self.log(slot, stamp, now, if stamp.sent == Instant(0) { "unsent" } else { kind });
        if stamp.sent == Instant(0) {
            self.tally.whole.unsent += 1;
            self.tally.window.unsent += u64::from(covered);
            if covered && self.pacer.is_some() {
                self.tally.backlog_wait.record(now.since(stamp.due));
                self.tally.responded(self.window.age_ns(stamp.due), now.since(stamp.due));
                self.tally.censored += 1;
            }
            return false;
        }
        *self.tally.whole.errors.entry(kind).or_default() += 1;
        self.request_failures += 1;
        self.window.failed(now);
        if covered {
            *self.tally.window.errors.entry(kind).or_default() += 1;
            if kind == "timeout" {
                self.tally.responded(self.window.age_ns(stamp.due), now.since(stamp.due));
                self.tally.censored += 1;
            }
        }
        true
    }

    /// Books all requests of a connection that is no more: the first failed by `first`, those behind it by `rest`.
    /// Where none had been sent, the loss itself is noted, under the phase in which it happened.
    fn fail_all(&mut self, slot: u32, first: &'static str, rest: &'static str, now: Instant, example: String) {
        let outstanding = self.conns[slot as usize].outstanding;
        let mut failed = (0, 0);
        for position in 0..outstanding {
            let stamp = self.pop(slot, now);
            if position == 0 {
                failed.0 += u64::from(self.fail(slot, stamp, first, now));
            } else {
                failed.1 += u64::from(self.fail(slot, stamp, rest, now));
            }
        }
        if failed.0 == 0 {
            let phase = if outstanding == 0 { Phase::Idle } else { Phase::Send };
            return self.note(first, phase, 1, || example);
        }
        if failed.1 > 0 && rest != first {
            self.note(rest, Phase::Reply, failed.1, || format!("behind this on the same connection: {example}"));
            failed.1 = 0;
        }
        self.note(first, Phase::Reply, failed.0 + failed.1, || example);
    }

    /// What follows a receive: the next request, the planned end of the connection, or of the run.
    pub(super) fn go_on(&mut self, io: &mut impl Io, slot: u32, now: Instant) {
        if self.drain_until.is_some() {
            return self.close_when_answered(io, slot);
        }
        if self.is_retired(slot) {
            return self.close_when_answered(io, slot);
        }
        let conn = &self.conns[slot as usize];
        if self.config.requests_per_connection.is_some_and(|limit| conn.issued >= limit) {
            // An idle connection made its one request and stays, whatever the limit.
            if conn.outstanding == 0 && !self.is_idle(slot) && (self.going || conn.issued > 1) {
                io.close(slot);
                self.tally.connections.closed += 1;
                self.closed(slot);
                self.due_on_reopening(slot, now);
                self.reopen(slot);
            }
            return;
        }
        if self.config.in_flight_max.is_some() && self.going && !self.is_idle(slot) {
            return self.take_turns(io, now);
        }
        if self.pacer.is_some() && self.going && !self.is_idle(slot) {
            self.offer(slot);
            return self.issue_due(io, now);
        }
        self.begin(io, slot, now);
    }

    /// The server said in its reply that it closes: what was behind that reply will never be answered.
    fn closed_as_announced(&mut self, io: &mut impl Io, slot: u32, now: Instant) {
        io.close(slot);
        self.closed(slot);
        self.tally.connections.closed_by_server += 1;
        if self.conns[slot as usize].outstanding > 0 {
            self.fail_all(slot, "closed", "closed", now, "the server closed as announced, behind this".to_owned());
        }
        if self.drain_until.is_none() {
            self.due_on_reopening(slot, now);
        }
        self.reopen(slot);
    }

    /// In a closed loop the next request is due the moment the reply before it arrived, also when a new connection
    /// must be opened for it first: that is then part of its response time.
    fn due_on_reopening(&mut self, slot: u32, now: Instant) {
        if !self.going || self.is_idle(slot) || self.budget == 0 || self.pacer.is_some() {
            return;
        }
        self.budget -= 1;
        self.owed += 1;
        self.schedule(1, now);
        let conn = &mut self.conns[slot as usize];
        conn.oldest = 0;
        conn.flags |= flag::DUE;
        self.stamps[slot as usize * self.config.depth] = Stamp { due: now, sent: Instant(0) };
    }

    /// The server's stream ended, or the connection broke.
    pub(super) fn exchange_ended(&mut self, io: &mut impl Io, slot: u32, cause: Option<&io::Error>, now: Instant) {
        io.close(slot);
        let kept = self.take_kept(slot);
        let finish = self.client.finish(&mut self.conns[slot as usize].parser, &kept);
        self.recycle(kept);
        let outstanding = self.conns[slot as usize].outstanding;
        let proven = self.conns[slot as usize].flags & flag::UNPROVEN == 0;
        match (cause, finish) {
            (None, Ok(Some(reply))) if outstanding > 0 => {
                self.complete(slot, reply, now);
                return self.closed_as_announced(io, slot, now);
            }
            (None, Ok(_)) if outstanding == 0 => {
                self.closed(slot);
                self.tally.connections.closed_by_server += 1;
                return if proven { self.reopen(slot) } else { self.back_off(slot, now) };
            }
            (Some(error), _) => {
                let kind = loss(error);
                self.fail_all(slot, kind, kind, now, format!("receive: {error}"));
            }
            (None, Err(error)) => {
                self.fail_all(slot, error.kind.name(), "closed", now, error.detail.to_owned());
            }
            (None, Ok(_)) => {
                let example = "the server ended the stream before the reply".to_owned();
                self.fail_all(slot, "closed", "closed", now, example);
            }
        }
        self.closed(slot);
        self.tally.connections.lost += 1;
        self.back_off(slot, now);
    }

    fn broken_reply(&mut self, io: &mut impl Io, slot: u32, error: ReplyError, input: &[u8], now: Instant) {
        let example = format!("{}: {}", error.detail, quote(input));
        self.drop_connection(io, slot, error.kind.name(), "aborted", now, example);
    }

    /// Bytes that answer nothing. They must never be credited to a request that comes later.
    fn unexpected(&mut self, io: &mut impl Io, slot: u32, input: &[u8], now: Instant) {
        let example = format!("bytes that answer no request: {}", quote(input));
        self.drop_connection(io, slot, "unexpected", "aborted", now, example);
    }

    fn drop_connection(
        &mut self,
        io: &mut impl Io,
        slot: u32,
        first: &'static str,
        rest: &'static str,
        now: Instant,
        example: String,
    ) {
        io.close(slot);
        self.fail_all(slot, first, rest, now, example);
        self.closed(slot);
        self.tally.connections.lost += 1;
        self.back_off(slot, now);
    }

    pub(super) fn arm_timeout(&mut self, slot: u32, from: Instant) {
        let conn = &mut self.conns[slot as usize];
        if conn.flags & flag::TIMER == 0 {
            conn.flags |= flag::TIMER;
            self.timeouts.push(from.after(self.config.timeout_ns), slot);
        }
    }

    /// Looks at the connections whose deadline has come. Most have been answered since it was set: they get a new one.
    pub(super) fn fire_timeouts(&mut self, io: &mut impl Io, now: Instant) {
        while let Some(slot) = self.timeouts.pop(now) {
            self.conns[slot as usize].flags &= !flag::TIMER;
            let conn = self.conns[slot as usize];
            let oldest = *self.stamp(slot, 0);
            let since = match conn.state {
                State::Connecting => oldest.sent,
                State::Open if conn.outstanding > 0 => oldest.sent.max(oldest.due),
                _ => continue,
            };
            if now < since.after(self.config.timeout_ns) {
                self.arm_timeout(slot, since);
            } else if conn.state == State::Connecting {
                io.close(slot);
                self.connect_failed(slot, &io::ErrorKind::TimedOut.into(), now);
            } else {
                let waited = loadgen_core::units::format_duration(now.since(oldest.due));
                self.drop_connection(io, slot, "timeout", "aborted", now, format!("no reply within {waited}"));
            }
        }
    }

    /// The time for the last replies is over: what is unanswered now is in flight for good.
    pub(super) fn give_up(&mut self, io: &mut impl Io) {
        let now = clock::now();
        for slot in 0..self.conns.len() as u32 {
            match self.conns[slot as usize].state {
                State::Closed => continue,
                State::Ending => {
                    self.tally.connections.lost += 1;
                    self.note("timeout", Phase::Idle, 1, || "the server did not end its stream after us".to_owned());
                }
                State::Connecting => self.tally.connections.unfinished += 1,
                State::Open => self.tally.connections.closed += 1,
            }
            io.close(slot);
            for _ in 0..self.conns[slot as usize].outstanding {
                let stamp = self.pop(slot, now);
                self.in_flight(slot, stamp, now);
            }
            self.closed(slot);
        }
    }

    fn in_flight(&mut self, slot: u32, stamp: Stamp, now: Instant) {
        if stamp.sent == Instant(0) {
            self.fail(slot, stamp, "unsent", now);
            return;
        }
        self.log(slot, stamp, now, "in_flight");
        self.tally.whole.in_flight += 1;
        if self.window.covers(stamp.due) {
            self.tally.window.in_flight += 1;
            self.tally.responded(self.window.age_ns(stamp.due), now.since(stamp.due));
            self.tally.censored += 1;
        }
    }

    /// Sends blocks until the kernel takes no more, or it is somebody else's turn.
    pub(super) fn upload(&mut self, io: &mut impl Io, slot: u32) {
        if !self.going || self.is_idle(slot) {
            return;
        }
        for _ in 0..SENDS_A_TURN {
            let conn = &mut self.conns[slot as usize];
            if conn.unsent == 0 {
                conn.unsent = self.request_len as u32;
            }
            let start = self.request_len - conn.unsent as usize;
            let Ok(taken) = io.send(slot, start..self.request_len) else { return };
            conn.unsent -= taken as u32;
            self.tally.bytes.sent += taken as u64;
            if conn.unsent > 0 {
                return;
            }
        }
        io.resume(slot);
    }

    pub(super) fn stream_received(&mut self, io: &mut impl Io, slot: u32, bytes: &[u8]) {
        let now = clock::now();
        match self.client.consume(&mut self.conns[slot as usize].parser, bytes) {
            Err(error) => self.broken_reply(io, slot, error, bytes, now),
            Ok(_) => self.served(slot),
        }
    }

    pub(super) fn stream_ended(&mut self, io: &mut impl Io, slot: u32, cause: Option<&io::Error>, now: Instant) {
        io.close(slot);
        if self.conns[slot as usize].state == State::Ending && cause.is_none() {
            // The server has read all of ours up to its end, so it had accepted the connection.
            if self.shape == Shape::Upload {
                self.served(slot);
            }
            self.tally.connections.closed += 1;
            return self.closed(slot);
        }
        let kind = cause.map_or("closed", loss);
        let example =
            cause.map_or_else(|| "the server ended the stream".to_owned(), |error| format!("receive: {error}"));
        self.note(kind, Phase::Idle, 1, || example);
        self.closed(slot);
        self.tally.connections.lost += 1;
        self.back_off(slot, now);
    }

    fn keep(&mut self, slot: u32, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut kept = self.spare.pop().unwrap_or_default();
        kept.extend_from_slice(bytes);
        self.kept.insert(slot, kept);
        self.conns[slot as usize].flags |= flag::KEPT;
    }

    fn take_kept(&mut self, slot: u32) -> Vec<u8> {
        self.conns[slot as usize].flags &= !flag::KEPT;
        self.kept.remove(&slot).unwrap_or_default()
    }

    pub(super) fn forget_kept(&mut self, slot: u32) {
        if self.conns[slot as usize].flags & flag::KEPT != 0 {
            let kept = self.take_kept(slot);
            self.recycle(kept);
        }
    }

    /// Keeps a buffer's memory for the next incomplete reply.
    fn recycle(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() > 0 {
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}

/// What became of received bytes.
enum Parsed {
    /// So many were used; what follows is incomplete.
    More(usize),
    /// A reply was the last on this connection, the server said.
    Last,
    /// The connection had to be closed.
    Broken,
}

/// The word for a connection that broke.
fn loss(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "reset",
        _ => "other",
    }
}

/// The first bytes of what was received, printable.
fn quote(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(EXAMPLE_BYTES)];
    let more = if bytes.len() > EXAMPLE_BYTES { "…" } else { "" };
    format!("\"{}\"{more}", shown.escape_ascii())
}
