//! What is said on a new connection before the first request (a login), where the protocol has such a thing.
//!
//! It belongs to opening the connection: no request is counted, and a server that refuses it fails the attempt.

use super::{Session, State};
use crate::engine::Io;
use crate::tally::Phase;
use loadgen_core::protocol::{GREETING, Outcome};
use loadgen_core::time::Instant;

impl Session {
    /// The connection is established: says what is to be said first, or is open at once.
    pub(super) fn greet(&mut self, io: &mut impl Io, slot: u32, now: Instant) {
        let target = self.config.target(slot);
        let Some((bytes, replies)) = self.clients[target].greeting() else {
            return self.opened(io, slot, now);
        };
        let bytes = bytes.to_vec();
        let conn = &mut self.conns[slot as usize];
        conn.state = State::Greeting;
        // Until the first request is issued, the number of those counts the replies that are awaited.
        conn.issued = replies;
        self.say(io, slot, &bytes);
    }

    /// Bytes arrived in answer to the greeting.
    pub(super) fn greeted(&mut self, io: &mut impl Io, slot: u32, bytes: &[u8], now: Instant) {
        let mut kept = self.take_kept(slot);
        kept.extend_from_slice(bytes);
        let mut used = 0;
        while self.conns[slot as usize].issued > 0 && used < kept.len() {
            let target = self.config.target(slot);
            let conn = &mut self.conns[slot as usize];
            conn.parser.kind = GREETING;
            let consumed = match self.clients[target].consume(&mut conn.parser, &kept[used..]) {
                Ok(consumed) => consumed,
                Err(error) => {
                    let example = format!("{}: {}", error.detail, super::requests::quote(&kept[used..]));
                    self.recycle(kept);
                    return self.greeting_failed(io, slot, error.kind.name(), &example, now);
                }
            };
            let reply = &kept[used..used + consumed.bytes];
            used += consumed.bytes;
            match consumed.reply.map(|reply| reply.outcome) {
                None => break,
                Some(Outcome::Ok) => conn.issued -= 1,
                Some(Outcome::TurnedAway) => {
                    let said = super::requests::quote(reply);
                    self.recycle(kept);
                    return self.turned_away_greeting(io, slot, &said, now);
                }
                Some(Outcome::Refused(kind)) => {
                    let example = format!("the server refused the login: {}", super::requests::quote(reply));
                    self.recycle(kept);
                    return self.greeting_failed(io, slot, kind, &example, now);
                }
            }
        }
        if self.conns[slot as usize].issued > 0 {
            self.keep(slot, &kept[used..]);
            return self.recycle(kept);
        }
        let rest = kept.len() - used;
        self.recycle(kept);
        if rest > 0 {
            let example = "bytes behind the answer to the greeting, which answer nothing";
            return self.greeting_failed(io, slot, "unexpected", example, now);
        }
        self.opened(io, slot, now);
    }

    /// The connection came to nothing before it could carry a request.
    pub(super) fn greeting_failed(&mut self, io: &mut impl Io, slot: u32, kind: &'static str, why: &str, now: Instant) {
        io.close(slot);
        self.note(kind, Phase::Connect, 1, || why.to_owned());
        self.connect_failures += 1;
        self.tally.connections.lost += 1;
        self.conns[slot as usize].issued = 0;
        self.closed(slot);
        self.back_off(slot, now);
    }
}
