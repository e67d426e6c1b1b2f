//! Bytes that answer no request. They must never be credited to one that comes later; but a server may say by them why
//! it closes a connection, and that is not always an error: who waited for a request for long enough says 408 (RFC
//! 9110, 15.5.9), who has too many connections says so as it accepts one.

use super::requests::quote;
use super::{Session, flag};
use crate::engine::Io;
use loadgen_core::protocol::Unasked;
use loadgen_core::time::Instant;

/// A bit of `Conn::queued`: the bytes that are kept of this connection answer no request.
pub(super) const STRAY: u8 = 8;

/// The word in the ledger for connections that a server accepts only to refuse them.
const TURNED_AWAY: &str = "turned_away";

impl Session {
    /// Whether what is kept of a connection answers nothing.
    #[inline]
    pub(super) fn has_strayed(&self, slot: u32) -> bool {
        self.conns[slot as usize].queued & STRAY != 0
    }

    /// Bytes arrived for which no request has left.
    pub(super) fn unasked(&mut self, io: &mut impl Io, slot: u32, input: &[u8], now: Instant) {
        let target = self.config.target(slot);
        let conn = &self.conns[slot as usize];
        // All that was asked on it is still unanswered.
        let never_served = conn.issued == u32::from(conn.outstanding);
        match self.clients[target].unasked(input) {
            Unasked::Nothing => self.unexpected(io, slot, input, now),
            Unasked::More => {
                self.conns[slot as usize].queued |= STRAY;
                self.keep(slot, input);
            }
            Unasked::TurnedAway if never_served => self.turned_away(io, slot, input, now),
            Unasked::Farewell | Unasked::TurnedAway => self.said_farewell(io, slot, now),
        }
    }

    /// Bytes of that kind may be cut anywhere, and a request may have left since the first of them.
    pub(super) fn unasked_goes_on(&mut self, io: &mut impl Io, slot: u32, bytes: &[u8], now: Instant) {
        let mut kept = self.take_kept(slot);
        self.conns[slot as usize].queued &= !STRAY;
        kept.extend_from_slice(bytes);
        self.unasked(io, slot, &kept, now);
        self.recycle(kept);
    }

    /// The server closes an idle connection, and said so: as if it had closed it in silence.
    fn said_farewell(&mut self, io: &mut impl Io, slot: u32, now: Instant) {
        if self.conns[slot as usize].outstanding > 0 {
            let example = "the server closed the connection, which had been idle, as this was about to be answered";
            return self.drop_connection(io, slot, ["closed"; 2], now, example.to_owned());
        }
        self.shut(io, slot);
        self.closed_while_idle(slot, now);
    }

    /// Likewise, in silence.
    pub(super) fn closed_while_idle(&mut self, slot: u32, now: Instant) {
        let proven = self.conns[slot as usize].flags & flag::UNPROVEN == 0;
        self.closed(slot);
        self.tally.connections.closed_by_server += 1;
        if proven { self.reopen(slot, now) } else { self.back_off(slot, now) }
    }

    /// The server accepted the connection only to refuse it: it has not been served.
    pub(super) fn turned_away(&mut self, io: &mut impl Io, slot: u32, said: &[u8], now: Instant) {
        self.tally.connections.turned_away += 1;
        let example = format!("the server refused the connection: {}", quote(said));
        self.drop_connection(io, slot, [TURNED_AWAY, "closed"], now, example);
    }

    /// Likewise, in answer to what is said first.
    pub(super) fn turned_away_greeting(&mut self, io: &mut impl Io, slot: u32, said: &str, now: Instant) {
        self.tally.connections.turned_away += 1;
        let why = format!("the server refused the connection: {said}");
        self.greeting_failed(io, slot, TURNED_AWAY, &why, now);
    }
}
