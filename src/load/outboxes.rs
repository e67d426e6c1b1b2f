//! Bytes of single connections: what one has to say is handed to the kernel, and what that does not take is kept until
//! it does. Likewise what was received and is incomplete.

use super::connections::{Conn, Connections, State, flag};
use crate::engine::Io;
use crate::protocol::client::Context;
use crate::protocol::outbox::{Front, Outbox};
use crate::protocol::ticket::Ticket;
use crate::time::Instant;
use std::collections::HashMap;
use std::io::ErrorKind;

/// Hand-overs for one connection in one turn: an endless sender lets others have theirs.
const SENDS_A_TURN: usize = 8;

/// The outboxes of all connections: of nearly all, the same empty one, in turn.
#[derive(Debug, Default)]
pub(super) struct Outboxes {
    /// What is being said. Empty, unless in the midst of it.
    pub(super) writing: Box<Outbox>,
    /// Of connections of which the kernel has not taken all: those with [`flag::OUTBOX`].
    left: HashMap<u32, Box<Outbox>>,
    #[expect(clippy::vec_box, reason = "an outbox is handed over as a pointer")]
    spare: Vec<Box<Outbox>>,
}

impl Outboxes {
    /// That of a connection, which has one of its own or not.
    #[inline]
    pub(super) fn of(&mut self, slot: u32, own: bool) -> &mut Outbox {
        if own { self.own(slot) } else { &mut self.writing }
    }

    #[cold]
    fn own(&mut self, slot: u32) -> &mut Outbox {
        self.left.entry(slot).or_default()
    }

    /// What a connection has left over.
    pub(super) fn left(&self, slot: u32) -> Option<&Outbox> {
        self.left.get(&slot).map(Box::as_ref)
    }

    /// A request of that connection ended before it left. Should its bytes leave yet, they are of no request.
    #[cold]
    pub(super) fn forget(&mut self, slot: u32, ticket: Ticket) {
        if let Some(outbox) = self.left.get_mut(&slot) {
            outbox.forget(ticket);
        }
    }

    fn take(&mut self, slot: u32, own: bool) -> Box<Outbox> {
        if own {
            return self.left.remove(&slot).unwrap_or_default();
        }
        std::mem::replace(&mut self.writing, self.spare.pop().unwrap_or_default())
    }

    /// Answers whether there is something left, which then is the connection's own.
    fn put(&mut self, slot: u32, outbox: Box<Outbox>) -> bool {
        let is_left = !outbox.is_empty();
        if is_left {
            self.left.insert(slot, outbox);
        } else {
            self.spare.push(outbox);
        }
        is_left
    }
}

impl Connections {
    /// Hands the kernel what it will take of what a connection has to say, and answers when that was.
    ///
    /// When it refuses because the connection broke, nothing is decided here: replies may still be waiting to be
    /// received, and the engine tells them before it tells the end.
    pub(super) fn flush(&mut self, io: &mut impl Io, slot: u32) -> Instant {
        let (now, queues) = (io.now(), io.queues());
        if queues && io.handed_early() {
            // With something else, nobody knows when.
            self.left_at(Instant(0));
        }
        let conn = &self.conns[slot as usize];
        let own = conn.flags & flag::OUTBOX != 0;
        if !own && self.shared_len > 0 && self.outboxes.writing.is_one_shared(self.shared_len) && conn.ring.alive > 0 {
            // Nearly always it is one request, of which nothing has left.
            let ticket = self.tickets.newest(slot, conn.ring);
            let taken = match io.send(slot, 0..self.shared_len) {
                Ok(taken) => taken,
                Err(error) => self.not_sent(slot, error),
            };
            self.may_have_left(io, now);
            self.outboxes.writing.took_shared(taken);
            if taken > 0 {
                self.tally.bytes.sent += taken as u64;
                self.sent(queues, slot, ticket, now);
            }
            if taken < self.shared_len {
                self.put_away(slot);
            }
            return now;
        }
        let mut outbox = self.outboxes.take(slot, own);
        self.conns[slot as usize].flags &= !flag::OUTBOX;
        match self.config.transport.has_messages() {
            true => self.hand_over_messages(io, slot, &mut outbox, now),
            false => self.hand_over(io, slot, &mut outbox, now),
        }
        if self.outboxes.put(slot, outbox) {
            self.conns[slot as usize].flags |= flag::OUTBOX;
        }
        now
    }

    /// What was being said is left over.
    #[cold]
    fn put_away(&mut self, slot: u32) {
        let outbox = self.outboxes.take(slot, false);
        if self.outboxes.put(slot, outbox) {
            self.conns[slot as usize].flags |= flag::OUTBOX;
        }
    }

    fn hand_over(&mut self, io: &mut impl Io, slot: u32, outbox: &mut Outbox, now: Instant) {
        let (queues, mut has_more) = (io.queues(), self.fills || self.gathers);
        for _ in 0..SENDS_A_TURN {
            if outbox.is_empty() {
                if !has_more {
                    return;
                }
                self.fill(slot, outbox, now);
                has_more = self.fills;
            }
            let (is_shared, offered, taken) = match outbox.front() {
                Front::Nothing => return,
                Front::Own(bytes) => (false, bytes.len(), io.send_own(slot, bytes)),
                Front::Shared(left) => {
                    // Behind the rest of one that is answered there may be as many as lie ready.
                    let from = left.next_multiple_of(self.shared_len) - left;
                    let to = (from + left).min(self.shared_len * self.config.depth.max(1));
                    (true, to - from, io.send(slot, from..to))
                }
            };
            let taken = match taken {
                Ok(taken) => taken,
                Err(error) => self.not_sent(slot, error),
            };
            self.may_have_left(io, now);
            self.tally.bytes.sent += taken as u64;
            if is_shared {
                self.took_shared(queues, slot, outbox, taken, now);
            } else {
                outbox.took(taken, |ticket| self.sent(queues, slot, ticket, now));
            }
            if taken < offered {
                return;
            }
        }
        io.resume(slot);
    }

    /// Asks the protocol for more.
    fn fill(&mut self, slot: u32, outbox: &mut Outbox, now: Instant) {
        let Conn { state, ring, .. } = self.conns[slot as usize];
        if !matches!(state, State::Preparing | State::Open) {
            return;
        }
        let client = &mut self.clients[self.config.target(slot)];
        let awaited = self.tickets.awaited(slot, ring);
        client.writable(slot, &mut Context { now, out: outbox, events: &mut self.events, awaited });
        if self.shared_len == 0 && outbox.shared() > 0 {
            outbox.unshare(client.request());
        }
        self.heard_aside(slot);
    }

    /// Of shared requests, those that have not begun to leave are the newest of the connection.
    fn took_shared(&mut self, queues: bool, slot: u32, outbox: &mut Outbox, taken: usize, now: Instant) {
        let waiting = outbox.shared() / self.shared_len;
        outbox.took_shared(taken);
        if self.has_requests && taken > 0 {
            let ring = self.conns[slot as usize].ring;
            let alive = usize::from(ring.alive);
            let waiting = waiting.min(alive);
            let waits_still = (outbox.shared() / self.shared_len).min(waiting);
            for position in alive - waiting..alive - waits_still {
                let ticket = self.tickets.nth(slot, ring, position);
                self.sent(queues, slot, ticket, now);
            }
        }
    }

    fn hand_over_messages(&mut self, io: &mut impl Io, slot: u32, outbox: &mut Outbox, now: Instant) {
        let queues = io.queues();
        while let Some((message, _)) = outbox.message() {
            let taken = io.send_own(slot, message);
            self.may_have_left(io, now);
            match taken {
                Ok(0) => return,
                Ok(bytes) => {
                    self.tally.bytes.sent += bytes as u64;
                    outbox.took(bytes, |ticket| self.sent(queues, slot, ticket, now));
                }
                Err(error) => {
                    self.not_sent(slot, error);
                    return;
                }
            }
        }
    }

    /// The kernel took nothing, and says why. Of a stream that broke the engine tells the end, behind what is still to
    /// be received. All else is told here only; where there are no connections, it says what became of
    /// an earlier message.
    #[cold]
    fn not_sent(&mut self, slot: u32, error: std::io::Error) -> usize {
        let engine_tells = matches!(
            error.kind(),
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::NotConnected | ErrorKind::WouldBlock
        );
        if !self.config.transport.has_connections() || !engine_tells {
            self.refused.push_back((slot, error));
        }
        0
    }

    /// Whether there is something that the kernel has yet to take.
    pub(super) fn has_unsent(&self, slot: u32) -> bool {
        self.conns[slot as usize].flags & flag::OUTBOX != 0
    }

    pub(super) fn forget_outbox(&mut self, slot: u32) {
        self.outboxes.writing.clear();
        if self.has_unsent(slot) {
            self.conns[slot as usize].flags &= !flag::OUTBOX;
            let mut outbox = self.outboxes.take(slot, true);
            outbox.clear();
            self.outboxes.put(slot, outbox);
        }
    }

    /// Remembers bytes of a reply that is incomplete.
    pub(super) fn keep(&mut self, slot: u32, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut kept = self.spare.pop().unwrap_or_default();
        kept.extend_from_slice(bytes);
        self.kept.insert(slot, kept);
        self.conns[slot as usize].flags |= flag::KEPT;
    }

    pub(super) fn take_kept(&mut self, slot: u32) -> Vec<u8> {
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
    pub(super) fn recycle(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() > 0 {
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}
