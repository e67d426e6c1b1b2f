//! The replies of one connection that wait for their release, in order. They are made when their requests arrive, so
//! that a request never waits for a reply before it to be seen.
//!
//! At most [`CAPACITY`] bytes and [`MOST`] replies are delayed or under way; beyond that nothing more is received.

use crate::connection::CAPACITY;
use crate::injector::{Injector, Ticket};
use crate::stats::Counters;
use loadgen_core::protocol::{MIN_OUTPUT, Next, Output, Served, Server, ServerState};
use loadgen_core::time::Instant;
use std::collections::VecDeque;
use std::sync::Arc;

/// Replies, or parts of one, that one connection has waiting.
const MOST: usize = 1024;
/// What one that has nothing waiting keeps, so that idle connections cost little.
const KEPT_WHEN_EMPTY: usize = 1 << 10;
const SEGMENTS_WHEN_EMPTY: usize = 16;

#[derive(Debug)]
pub(crate) struct DelayedReplies {
    injector: Arc<Injector>,
    /// Its number, and how many requests it has made.
    connection: u32,
    requests: u32,
    bytes: Vec<u8>,
    /// Bytes that have been sent; those on their way and then `bytes` come behind them.
    offset: u64,
    segments: VecDeque<Segment>,
    /// The request whose reply is being made.
    current: Option<Ticket>,
    /// The protocol has more to say than there was room for.
    cramped: bool,
    /// Bytes that were taken out and are on their way, and since when.
    under_way: usize,
    under_way_since: Instant,
    /// The release that the engine knows of.
    armed: Instant,
    /// The kernel did not take what is due.
    pub(crate) stuck: bool,
}

/// Output up to `end` that is released at once.
#[derive(Debug)]
struct Segment {
    end: u64,
    /// 0: belongs to no complete request (an interim reply, a refusal), and waits only for what is before it.
    release: Instant,
    row: Option<u32>,
    /// A reply ends here.
    reply: bool,
}

/// The protocol's side of a connection, at its turn.
#[derive(Debug)]
pub(crate) struct Half<'a> {
    pub(crate) protocol: &'a mut dyn Server,
    pub(crate) state: &'a mut ServerState,
    /// The end of the peer's stream has been received.
    pub(crate) ended: bool,
    /// One that takes one reply at a time.
    pub(crate) output: &'a mut Output,
}

impl DelayedReplies {
    /// For a new connection.
    pub(crate) fn new(injector: &Arc<Injector>) -> Self {
        Self {
            injector: Arc::clone(injector),
            connection: injector.number_connection(),
            requests: 0,
            bytes: Vec::new(),
            offset: 0,
            segments: VecDeque::new(),
            current: None,
            cramped: false,
            under_way: 0,
            under_way_since: Instant(0),
            armed: Instant(u64::MAX),
            stuck: false,
        }
    }

    /// Nothing waits, and nothing is on its way.
    pub(crate) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Nothing more may be received.
    pub(crate) fn is_full(&self) -> bool {
        self.cramped || self.room() < MIN_OUTPUT || self.segments.len() >= MOST
    }

    fn room(&self) -> usize {
        CAPACITY - self.bytes.len() - self.under_way
    }

    /// Has the protocol answer `input`, which was seen at `now`; each reply is delayed until its release. Says how many
    /// bytes were consumed and what is to come next: `Flush` if there is no room for more.
    pub(crate) fn serve(
        &mut self,
        half: &mut Half<'_>,
        input: &[u8],
        now: Instant,
        counters: &mut Counters,
    ) -> (usize, Next) {
        let mut used = 0;
        loop {
            half.output.start(self.room());
            let served = half.protocol.serve(half.state, &input[used..], half.ended, half.output);
            used += served.consumed;
            counters.requests += served.requests;
            let bytes = half.output.bytes();
            self.cramped = served.next == Next::Flush && served.consumed == 0 && bytes.is_empty();
            self.delay(&served, bytes, now);
            if served.next != Next::Flush || self.is_full() {
                return (used, served.next);
            }
        }
    }

    fn delay(&mut self, served: &Served, bytes: &[u8], now: Instant) {
        debug_assert!(served.requests <= 1 && served.replies <= 1, "one at a time");
        if served.requests > 0 {
            self.requests += 1;
            self.current = Some(self.injector.admit(self.connection, self.requests, now));
        }
        if bytes.is_empty() {
            debug_assert!(served.replies == 0, "a reply ends with a byte");
            return;
        }
        let needed = self.bytes.len() + bytes.len();
        if needed > self.bytes.capacity() {
            // Growth by doubling alone could pass the bound that a connection is promised to cost.
            let capacity = (2 * self.bytes.capacity()).clamp(needed, CAPACITY);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(bytes);
        let end = self.offset + (self.under_way + self.bytes.len()) as u64;
        let reply = served.replies > 0;
        let ticket = self.current.unwrap_or(Ticket { release: Instant(0), row: None });
        self.segments.push_back(Segment { end, release: ticket.release, row: ticket.row, reply });
        if reply {
            self.current = None;
        }
    }

    /// What may leave now, while nothing is on its way. A reply that is due waits for those before it.
    pub(crate) fn due(&self, now: Instant) -> &[u8] {
        let due = self.segments.iter().take_while(|segment| segment.release <= now).last();
        let len = due.map_or(0, |segment| segment.end.saturating_sub(self.offset));
        &self.bytes[..len as usize]
    }

    /// The kernel took the first `taken` bytes, from `at` on.
    pub(crate) fn sent(&mut self, taken: usize, at: Instant, counters: &mut Counters) {
        self.bytes.drain(..taken);
        self.offset += taken as u64;
        self.cramped = false;
        while let Some(segment) = self.segments.front()
            && segment.end <= self.offset
        {
            if segment.reply {
                counters.replies += 1;
                counters.releasing.get_or_insert_default().overrun.record(at.since(segment.release));
            }
            if let (true, Some(row)) = (segment.reply, segment.row) {
                self.injector.sent(row, at);
            }
            self.segments.pop_front();
        }
        if self.segments.is_empty() {
            self.bytes.shrink_to(KEPT_WHEN_EMPTY);
            self.segments.shrink_to(SEGMENTS_WHEN_EMPTY);
        }
    }

    /// Moves what is due into `buffer`, which is empty, to be sent from there; [`Self::arrived`] is to follow.
    pub(crate) fn take_due(&mut self, now: Instant, mut buffer: Vec<u8>) -> Vec<u8> {
        buffer.extend_from_slice(self.due(now));
        (self.under_way, self.under_way_since) = (buffer.len(), now);
        self.bytes.drain(..buffer.len());
        buffer
    }

    /// What was on its way has been sent.
    pub(crate) fn arrived(&mut self, counters: &mut Counters) {
        self.offset += std::mem::take(&mut self.under_way) as u64;
        self.sent(0, self.under_way_since, counters);
    }

    /// The instant at which the engine has to come back, unless it was told before.
    pub(crate) fn next_release(&mut self) -> Option<Instant> {
        let release = self.segments.front()?.release;
        (std::mem::replace(&mut self.armed, release) != release).then_some(release)
    }
}
