//! Endless streams: throughput only, as nothing in them is a request or a reply.

use super::{Session, State, requests};
use crate::engine::Io;
use crate::tally::Phase;
use loadgen_core::protocol::Shape;
use loadgen_core::time::Instant;
use std::io;

/// Sends for one endless stream in one turn.
const SENDS_A_TURN: usize = 8;

impl Session {
    /// Sends blocks until the kernel takes no more, or it is somebody else's turn.
    pub(super) fn upload(&mut self, io: &mut impl Io, slot: u32) {
        if !self.going || self.is_idle(slot) {
            return;
        }
        if self.tls.is_some() {
            if self.upload_secured(io, slot, SENDS_A_TURN) {
                io.resume(slot);
            }
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
        let now = io.now();
        let target = self.config.target(slot);
        match self.clients[target].consume(&mut self.conns[slot as usize].parser, bytes) {
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
        let kind = cause.map_or("closed", requests::loss);
        let example =
            cause.map_or_else(|| "the server ended the stream".to_owned(), |error| format!("receive: {error}"));
        self.note(kind, Phase::Idle, 1, || example);
        self.closed(slot);
        self.tally.connections.lost += 1;
        self.back_off(slot, now);
    }
}
