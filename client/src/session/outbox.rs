//! Bytes of one connection alone: requests that differ from each other are written when they can leave, and what the
//! kernel does not take is kept until it does. Likewise what was received and is incomplete.

use super::{Session, flag};
use crate::engine::Io;
use loadgen_core::protocol::Shape;
use loadgen_core::time::Instant;

/// What was written for one connection.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    /// Of these, the kernel has taken so many.
    taken: usize,
    /// Where the requests begin of which it has not taken a byte; they are the last ones.
    starts: Vec<usize>,
}

impl Outbox {
    fn is_empty(&self) -> bool {
        self.taken == self.bytes.len()
    }

    /// Bytes before the first of those requests are still to be taken.
    fn has_begun(&self) -> bool {
        self.taken < self.starts.first().copied().unwrap_or(self.bytes.len())
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.starts.clear();
        self.taken = 0;
    }
}

impl Session {
    /// Hands the kernel what it will take of the requests that are due, and answers when that was.
    pub(super) fn flush_own(&mut self, io: &mut impl Io, slot: u32) -> Instant {
        let now = io.now();
        let mut outbox = self.take_outbox(slot);
        loop {
            if outbox.is_empty() {
                outbox.clear();
                if self.conns[slot as usize].unsent == 0 && !self.has_tls_output(slot) {
                    break;
                }
                self.compose(slot, &mut outbox);
            }
            // Where it refuses because the connection broke, the engine tells, after what is still to be received.
            let taken = io.send_own(slot, &outbox.bytes[outbox.taken..]).unwrap_or(0);
            self.took(slot, &mut outbox, taken, now);
            if !outbox.is_empty() {
                break;
            }
        }
        self.put_outbox(slot, outbox);
        now
    }

    /// Has something said that is no request.
    pub(super) fn say(&mut self, io: &mut impl Io, slot: u32, bytes: &[u8]) {
        let mut outbox = self.take_outbox(slot);
        match &mut self.tls {
            Some(tls) => _ = tls.seal(slot, &mut outbox.bytes, |out| out.extend_from_slice(bytes)),
            None => outbox.bytes.extend_from_slice(bytes),
        }
        self.put_outbox(slot, outbox);
        self.flush_own(io, slot);
    }

    /// Whether there is something that the kernel has yet to take.
    pub(super) fn has_unsent(&self, slot: u32) -> bool {
        let conn = &self.conns[slot as usize];
        conn.unsent > 0 || conn.flags & flag::OUTBOX != 0
    }

    /// How many requests have been written of which no byte has left, and whether bytes from before them have yet to.
    pub(super) fn written(&self, slot: u32) -> (usize, bool) {
        let outbox = self.outboxes.get(&slot).filter(|_| self.conns[slot as usize].flags & flag::OUTBOX != 0);
        outbox.map_or((0, false), |outbox| (outbox.starts.len(), outbox.has_begun()))
    }

    pub(super) fn forget_outbox(&mut self, slot: u32) {
        if self.conns[slot as usize].flags & flag::OUTBOX != 0 {
            let mut outbox = self.take_outbox(slot);
            outbox.clear();
            self.put_outbox(slot, outbox);
        }
    }

    /// Writes all requests that are due and have not been written yet.
    fn compose(&mut self, slot: u32, outbox: &mut Outbox) {
        let conn = &mut self.conns[slot as usize];
        let due = std::mem::take(&mut conn.unsent) as usize;
        let end = usize::from(conn.outstanding);
        let target = self.config.target(slot);
        if let Some(mut tls) = self.tls.take() {
            let from = tls.seal(slot, &mut outbox.bytes, |out| match self.shape {
                Shape::Exchange => (end - due..end).for_each(|position| self.write(slot, target, position, out)),
                Shape::Upload => (0..due).for_each(|_| out.extend_from_slice(self.clients[target].request())),
                Shape::Download | Shape::Datagram => {}
            });
            // They leave in one piece, all when its first byte does.
            if self.shape == Shape::Exchange {
                outbox.starts.resize(due, from);
            }
            self.tls = Some(tls);
            return;
        }
        for position in end - due..end {
            outbox.starts.push(outbox.bytes.len());
            self.write(slot, target, position, &mut outbox.bytes);
        }
    }

    /// Writes the request in a position on a connection.
    fn write(&mut self, slot: u32, target: usize, position: usize, out: &mut Vec<u8>) {
        let kind = self.clients[target].compose_next(&mut self.places[slot as usize], out);
        self.set_kind(slot, position, kind);
    }

    /// The kernel took so many bytes: the requests that it took the first byte of have been sent.
    fn took(&mut self, slot: u32, outbox: &mut Outbox, taken: usize, now: Instant) {
        outbox.taken += taken;
        self.tally.bytes.sent += taken as u64;
        if outbox.starts.is_empty() {
            return;
        }
        let conn = &self.conns[slot as usize];
        let first = usize::from(conn.outstanding) - conn.unsent as usize - outbox.starts.len();
        let sent = outbox.starts.partition_point(|start| *start < outbox.taken);
        for position in first..first + sent {
            self.sent(slot, position, now);
        }
        outbox.starts.drain(..sent);
    }

    /// What is left over of a connection, or the empty one that all use in turn.
    fn take_outbox(&mut self, slot: u32) -> Outbox {
        let conn = &mut self.conns[slot as usize];
        if conn.flags & flag::OUTBOX == 0 {
            return std::mem::take(&mut self.writing);
        }
        conn.flags &= !flag::OUTBOX;
        self.outboxes.remove(&slot).unwrap_or_default()
    }

    fn put_outbox(&mut self, slot: u32, mut outbox: Outbox) {
        if !outbox.is_empty() {
            self.conns[slot as usize].flags |= flag::OUTBOX;
            self.outboxes.insert(slot, outbox);
            if self.writing.bytes.capacity() == 0 {
                self.writing = self.spare_outboxes.pop().unwrap_or_default();
            }
            return;
        }
        outbox.clear();
        if self.writing.bytes.capacity() == 0 {
            self.writing = outbox;
        } else {
            self.spare_outboxes.push(outbox);
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
