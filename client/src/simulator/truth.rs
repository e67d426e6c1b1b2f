//! What really happened, written down by the network and the peers: nothing of it is the load's word.

use loadgen_core::time::Instant;
use std::collections::BTreeMap;

/// What a peer saw of one request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// Where in our stream it begins; unknown where that is encrypted.
    pub(super) from: Option<u64>,
    /// When the peer had all of it.
    pub(super) whole: Option<Instant>,
    /// When the load was told the last byte of its reply.
    pub(super) answered: Option<Instant>,
}

/// One attempt to connect, and what became of it.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) slot: u32,
    pub(super) address: usize,
    pub(super) attempted: Instant,
    pub(super) established: Option<Instant>,
    /// The load was told so, or said so.
    pub(super) gone: Option<Instant>,
    /// So many bytes of ours had been taken then.
    pub(super) taken: Vec<(u64, Instant)>,
    /// Our kernel had once no room for what was to be sent.
    pub(super) was_full: bool,
    /// The peer read so many.
    pub(super) read: u64,
    pub(super) seen: Vec<Seen>,
    /// Bytes came that answer nothing: they may have been taken for a reply.
    pub(super) misled: bool,
    /// The load was told of the end of the peer's stream.
    pub(super) ended: bool,
    /// We ended our stream, and the peer has read all of it.
    pub(super) read_to_end: bool,
    /// Which steps of scripts the requests were.
    pub(super) steps: Vec<u8>,
}

impl Visit {
    pub(super) fn new(slot: u32, address: usize, attempted: Instant) -> Self {
        Self {
            slot,
            address,
            attempted,
            established: None,
            gone: None,
            taken: Vec::new(),
            was_full: false,
            read: 0,
            seen: Vec::new(),
            misled: false,
            ended: false,
            read_to_end: false,
            steps: Vec::new(),
        }
    }

    pub(super) fn took(&mut self, bytes: usize, at: Instant) {
        if bytes > 0 {
            self.taken.push((self.taken_bytes() + bytes as u64, at));
        }
    }

    pub(super) fn taken_bytes(&self) -> u64 {
        self.taken.last().map_or(0, |(bytes, _)| *bytes)
    }

    /// When the byte at that place of our stream left.
    pub(super) fn left_at(&self, place: u64) -> Option<Instant> {
        let at = self.taken.partition_point(|(until, _)| *until <= place);
        self.taken.get(at).map(|(_, at)| *at)
    }
}

/// A message that left.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) taken: Instant,
    /// When the load was told each of its whole replies.
    pub(super) answered: Vec<Instant>,
}

/// Of all connections of a worker.
#[derive(Debug, Default)]
pub(super) struct Truth {
    pub(super) visits: Vec<Visit>,
    /// By slot and sequence number.
    pub(super) messages: BTreeMap<(u32, u64), Message>,
    /// Messages that the load was told, in all, and those that are none of ours.
    pub(super) messages_told: u64,
    pub(super) foreign_told: u64,
    /// Bytes that were said to be taken, and that the load was told.
    pub(super) taken_bytes: u64,
    pub(super) delivered_bytes: u64,
    /// Likewise, until then.
    pub(super) bytes_over_time: Vec<(Instant, u64, u64)>,
}

impl Truth {
    /// Once at least, what was to be sent on that slot had to wait for its connection to take it.
    pub(super) fn was_full(&self, slot: u32) -> bool {
        self.visits.iter().any(|visit| visit.slot == slot && visit.was_full)
    }

    pub(super) fn bytes_now(&mut self, at: Instant) {
        self.bytes_over_time.push((at, self.taken_bytes, self.delivered_bytes));
    }
}
