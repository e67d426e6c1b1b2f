//! How a connection ends: the peer ends its stream, or says that it is about to; it breaks; or what the peer says makes
//! no sense.

use super::Load;
use super::connections::{Connections, State, flag};
use super::opening::connect_failure;
use super::requests::Kinds;
use crate::engine::Io;
use crate::load::tally::Phase;
use crate::protocol::client::End;
use crate::time::Instant;
use std::io;

/// The word in the ledger for connections that a server accepts only to refuse them.
const TURNED_AWAY: &str = "turned_away";

impl Load {
    /// The peer ended its stream.
    pub(super) fn stream_ended(&mut self, io: &mut impl Io, slot: u32, now: Instant) {
        match self.on.conns[slot as usize].state {
            State::Preparing => self.ended_early(io, slot, "closed", "the server ended the stream", now),
            _ if !self.on.config.transport.has_connections() => self.socket_ended(io, slot, None, now),
            _ => {
                let kept = self.on.take_kept(slot);
                let outcome = self.on.ask(slot, now, |client, cx| client.stream_ended(slot, &kept, true, cx));
                self.on.recycle(kept);
                let is_silent = outcome.is_ok() && self.on.events.are_none();
                self.heard(io, slot, if is_silent { Err(Box::new(End::Farewell)) } else { outcome }, now);
            }
        }
    }

    /// The connection broke.
    pub(super) fn broke(&mut self, io: &mut impl Io, slot: u32, error: &io::Error, now: Instant) {
        let kind = loss(error);
        match self.on.conns[slot as usize].state {
            State::Preparing => self.ended_early(io, slot, kind, &error.to_string(), now),
            _ if !self.on.config.transport.has_connections() => self.socket_ended(io, slot, Some(error), now),
            _ => self.drop_connection(io, slot, [kind; 2], now, format!("receive: {error}")),
        }
    }

    fn ended_early(&mut self, io: &mut impl Io, slot: u32, kind: &'static str, why: &str, now: Instant) {
        let stage = self.on.clients[self.on.config.target(slot)].stage(slot);
        self.preparing_failed(io, slot, kind, &format!("within {stage}: {why}"), now);
    }

    /// The protocol cannot use the connection any further.
    pub(super) fn ended_by_protocol(&mut self, io: &mut impl Io, slot: u32, end: End, now: Instant) {
        if self.on.conns[slot as usize].state == State::Preparing {
            return match end {
                End::Broken([kind, _], why) => self.preparing_failed(io, slot, kind, &why, now),
                End::Farewell => self.ended_early(io, slot, "closed", "the server ended the stream", now),
                End::TurnedAway(said) => {
                    self.on.tally.connections.turned_away += 1;
                    let why = format!("the server refused the connection: {said}");
                    self.preparing_failed(io, slot, TURNED_AWAY, &why, now);
                }
            };
        }
        let conn = &self.on.conns[slot as usize];
        match end {
            End::Broken(kinds, why) => self.drop_connection(io, slot, kinds, now, why),
            // All that was asked on it is still unanswered.
            End::TurnedAway(said) if conn.issued == u32::from(self.on.on_wire(slot)) => {
                self.on.tally.connections.turned_away += 1;
                let why = format!("the server refused the connection: {said}");
                self.drop_connection(io, slot, [TURNED_AWAY, "closed"], now, why);
            }
            End::TurnedAway(_) | End::Farewell => self.peer_closed(io, slot, now),
        }
    }

    /// The peer ended its stream in good order, or said that it is about to.
    fn peer_closed(&mut self, io: &mut impl Io, slot: u32, now: Instant) {
        let conn = &self.on.conns[slot as usize];
        if conn.state == State::Ending {
            io.close(slot);
            // The server has read all of ours up to its end, so it had accepted the connection.
            if !self.on.is_answered {
                self.on.served(slot);
            }
            self.on.tally.connections.closed += 1;
            return self.on.closed(slot);
        }
        if !self.on.has_requests {
            return self.drop_connection(io, slot, ["closed"; 2], now, "the server ended the stream".to_owned());
        }
        if self.on.on_wire(slot) > 0 {
            let example = "the server closed the connection, which had been idle, as this was about to be answered";
            return self.drop_connection(io, slot, ["closed"; 2], now, example.to_owned());
        }
        self.on.shut(io, slot);
        let proven = self.on.conns[slot as usize].flags & flag::UNPROVEN == 0;
        self.on.closed(slot);
        self.on.tally.connections.closed_by_server += 1;
        if proven { self.reopen(slot, now) } else { self.back_off(slot, now) }
    }

    /// The server said in its reply that it closes: what was behind that reply will never be answered.
    pub(super) fn closed_as_announced(&mut self, io: &mut impl Io, slot: u32, now: Instant) {
        self.on.shut(io, slot);
        self.on.closed(slot);
        self.on.tally.connections.closed_by_server += 1;
        if self.on.on_wire(slot) > 0 {
            self.lost(slot);
            self.on.fail_all(slot, ["closed"; 2], now, "the server closed as announced, behind this".to_owned());
        }
        if self.on.drain_until.is_none() {
            self.goes_on_elsewhere(slot, now);
        }
        self.reopen(slot, now);
    }

    /// The connection came to nothing before it could carry a request.
    pub(super) fn preparing_failed(
        &mut self,
        io: &mut impl Io,
        slot: u32,
        kind: &'static str,
        why: &str,
        now: Instant,
    ) {
        io.close(slot);
        self.on.note(kind, Phase::Connect, 1, || why.to_owned());
        self.on.connect_failures += 1;
        self.on.tally.connections.lost += 1;
        self.on.closed(slot);
        self.back_off(slot, now);
    }

    pub(super) fn drop_connection(&mut self, io: &mut impl Io, slot: u32, kinds: Kinds, now: Instant, example: String) {
        self.on.shut(io, slot);
        self.lost(slot);
        self.on.fail_all(slot, kinds, now, example);
        self.on.closed(slot);
        self.on.tally.connections.lost += 1;
        self.back_off(slot, now);
    }

    /// A connection was lost. Where what was asked on it will be asked for again, its user stays.
    fn lost(&mut self, slot: u32) {
        if !self.on.has_unprocessed(slot) {
            self.demand.lost(&mut self.on, slot);
        }
    }

    /// Of a socket without a connection: the kernel says that what was sent reached nobody (ICMP), or it broke.
    fn socket_ended(&mut self, io: &mut impl Io, slot: u32, cause: Option<&io::Error>, now: Instant) {
        let kind = cause.map_or("closed", connect_failure);
        let example = cause.map_or_else(|| "the socket was closed".to_owned(), |error| format!("receive: {error}"));
        if self.on.conns[slot as usize].flags & flag::SERVED == 0 {
            self.on.connect_failures += 1;
        }
        self.drop_connection(io, slot, [kind; 2], now, example);
    }

    /// Connections of which the kernel said, while something was sent, that this will never be.
    pub(super) fn end_refused(&mut self, io: &mut impl Io, now: Instant) {
        while let Some((slot, error)) = self.on.refused.pop_front() {
            match self.on.conns[slot as usize].state {
                State::Preparing => self.ended_early(io, slot, loss(&error), &error.to_string(), now),
                // It tells what became of one that was sent before.
                State::Open if !self.on.config.transport.has_connections() => {
                    self.socket_ended(io, slot, Some(&error), now)
                }
                State::Open => self.drop_connection(io, slot, [loss(&error); 2], now, format!("send: {error}")),
                State::Closed | State::Connecting | State::Ending => {}
            }
        }
    }
}

impl Connections {
    /// Closes a connection at once. Of what was answered, something may be cut off thereby.
    pub(super) fn shut(&mut self, io: &mut impl Io, slot: u32) {
        self.tally.connections.cut_off += u64::from(self.has_rest(io, slot));
        io.close(slot);
    }

    pub(super) fn close_when_answered(&mut self, io: &mut impl Io, slot: u32) {
        let lingers = self.linger_until != Instant::NEVER;
        if self.conns[slot as usize].ring.alive == 0 && !lingers && !self.awaits_rest(io, slot) {
            self.close_in_order(io, slot);
        }
    }

    /// Closes an idle connection, with what the protocol says last.
    pub(super) fn close_in_order(&mut self, io: &mut impl Io, slot: u32) {
        self.say_goodbye(io, slot);
        io.close(slot);
        self.tally.connections.closed += 1;
        self.closed(slot);
    }

    /// We are about to end our stream in good order: says so, if that can be said at once.
    pub(super) fn say_goodbye(&mut self, io: &mut impl Io, slot: u32) {
        if !self.config.traffic.reset && !self.has_unsent(slot) {
            self.say_last_word(io, slot);
        }
    }

    fn say_last_word(&mut self, io: &mut impl Io, slot: u32) {
        self.ask(slot, self.latest, |client, cx| client.close(slot, cx));
        self.heard_aside(slot);
        if !self.outboxes.writing.is_empty() || self.has_unsent(slot) {
            self.flush(io, slot);
        }
    }

    /// Ends our stream in good order. Where a layer has the last word, that comes behind what it has begun to say.
    pub(super) fn end_stream(&mut self, io: &mut impl Io, slot: u32) {
        if self.gathers && !self.config.traffic.reset {
            self.say_last_word(io, slot);
        }
        self.end_when_said(io, slot);
    }

    /// Ends our stream, unless there is something that has yet to leave before.
    pub(super) fn end_when_said(&mut self, io: &mut impl Io, slot: u32) {
        if !self.gathers || !self.has_unsent(slot) {
            io.end_stream(slot);
        }
    }

    /// The time is over for which connections were kept open behind their last replies.
    pub(super) fn end_lingering(&mut self, io: &mut impl Io, now: Instant) {
        if now < self.linger_until {
            return;
        }
        self.linger_until = Instant::NEVER;
        for slot in 0..self.conns.len() as u32 {
            if self.conns[slot as usize].state == State::Open {
                self.close_when_answered(io, slot);
            }
        }
    }
}

/// The word for a connection that broke.
pub(super) fn loss(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "reset",
        _ => "other",
    }
}
