//! What one connection does with completions: what arrived is answered, what was sent makes room for more. The
//! counterpart of `connection` for an engine where the kernel moves the bytes and tells afterwards.
//!
//! The bounds are the same: at most [`crate::connection::CAPACITY`] bytes of output under way, and of input that is
//! kept. While output is under way nothing more is received, but for what the kernel had taken already: one receive,
//! which brings at most `CAPACITY` bytes (before Linux 6.17 it ends when the ring's buffers are used up).

use crate::cause::Cause;
use crate::connection::CAPACITY;
use crate::deadlines::{Awaits, Signs};
use crate::delayed::{DelayedReplies, Half};
use crate::injector::Injector;
use crate::phase::{DISCARDED_AT_CLOSE, Draining, Phase, UNBOUNDED};
use crate::pool::Pool;
use crate::stats::Counters;
use crate::tls_connection::{Keys, Opened, TlsConnection};
use loadgen_core::protocol::{Next, Output, Server, ServerState, Shape};
use loadgen_core::sys::clock;
use loadgen_core::sys::ring::Lane;
use loadgen_core::time::Instant;
use std::io;
use std::sync::Arc;

/// What the connections of a thread share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) protocol: Box<dyn Server>,
    pub(crate) shape: Shape,
    pub(crate) output: Output,
    pub(crate) pool: Pool,
    pub(crate) counters: Counters,
    /// `None`: nothing is injected, and replies leave at once.
    pub(crate) injector: Option<Arc<Injector>>,
    /// `None`: the stream is not encrypted.
    pub(crate) keys: Option<Box<Keys>>,
}

/// One connection. Its socket is known to the ring by the slot.
#[derive(Debug)]
pub(crate) struct Peer {
    state: ServerState,
    /// Received, and to be shown to the protocol again.
    input: Vec<u8>,
    phase: Phase,
    /// The end of the peer's stream has been received.
    ended: bool,
    /// The protocol has more to say, without more input.
    unfinished: bool,
    /// Input that the protocol has not seen.
    unseen: bool,
    draining: Draining,
    /// For the deadlines.
    pub(crate) signs: Signs,
    /// While draining: all that had arrived has been received.
    looked: bool,
    /// Replies that end in the output that is under way.
    replies: u32,
    /// While lingering: bytes that are still read and thrown away.
    left: u32,
    /// Where service times are injected: replies until their release, in place of `replies`.
    delayed: Option<Box<DelayedReplies>>,
    /// Where the stream is encrypted; `input` is not.
    tls: Option<Box<TlsConnection>>,
}

const _: () = assert!(size_of::<Peer>() <= 80);

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    Nothing,
    /// It waits for the end of the peer's stream now, and not for ever.
    Lingers,
    Closed(Cause),
}

/// A connection at its turn.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    pub(crate) lane: &'a mut Lane,
    pub(crate) slot: u32,
    pub(crate) peer: &'a mut Peer,
    pub(crate) context: &'a mut Context,
}

impl Peer {
    pub(crate) fn new(delayed: Option<Box<DelayedReplies>>, tls: Option<Box<TlsConnection>>) -> Self {
        Self {
            state: ServerState::default(),
            input: Vec::new(),
            phase: Phase::Serving,
            ended: false,
            unfinished: false,
            unseen: false,
            draining: Draining::No,
            signs: Signs::new(tls.is_some()),
            looked: false,
            replies: 0,
            left: 0,
            delayed,
            tls,
        }
    }

    /// The instant at which this connection needs a turn, unless it was told before.
    pub(crate) fn next_release(&mut self) -> Option<Instant> {
        self.delayed.as_mut()?.next_release()
    }

    pub(crate) fn lingering_cause(&self) -> Option<Cause> {
        self.phase.lingering_cause()
    }

    /// What it is waiting for, as far as deadlines are concerned. `sending`: output is under way.
    pub(crate) fn awaits(&self, context: &Context, sending: bool) -> Awaits {
        if sending && !matches!(self.phase, Phase::Lingering(_)) {
            return Awaits::Unread;
        }
        let has_delayed = self.delayed.as_ref().is_some_and(|delayed| !delayed.is_empty());
        if self.phase != Phase::Serving || has_delayed {
            return Awaits::Nothing;
        }
        if self.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
            return Awaits::Handshake;
        }
        let kept = !self.input.is_empty() || self.tls.as_ref().is_some_and(|tls| tls.is_within_record());
        let within = context.protocol.is_within_request(&self.state);
        Awaits::of(context.shape, within, kept, self.signs)
    }

    /// Draining, it had nothing under way.
    pub(crate) fn is_quiet(&self) -> bool {
        self.draining == Draining::Quiet
    }

    /// Why it is to be closed now that it has been waited for; None: it is still sending what it began before it learnt
    /// that we end.
    pub(crate) fn lingered(&self) -> Option<Cause> {
        self.lingering_cause().filter(|_| self.draining == Draining::No || self.left == UNBOUNDED)
    }

    /// Gives back what it holds.
    pub(crate) fn forget(&mut self, pool: &mut Pool) {
        pool.give_back(&mut self.input);
        self.delayed = None;
        self.tls = None;
    }
}

impl Turn<'_> {
    /// A new connection: it is listened to, and speaks first where the protocol does.
    pub(crate) fn begin(&mut self) -> After {
        self.lane.flows.receive(&mut self.lane.ring, self.slot);
        if self.peer.tls.is_none() { self.speak_first() } else { After::Nothing }
    }

    fn speak_first(&mut self) -> After {
        if self.context.shape == Shape::Download { self.serve(&[]) } else { After::Nothing }
    }

    /// Bytes arrived. `last`: while draining, those that had arrived by then end with these.
    pub(crate) fn received(&mut self, bytes: &[u8], last: bool) -> After {
        self.context.counters.received_bytes += bytes.len() as u64;
        self.peer.looked |= last;
        if self.peer.draining == Draining::Quiet && self.peer.phase == Phase::Serving {
            self.peer.draining = Draining::Busy;
        }
        let after = match self.peer.phase {
            Phase::Lingering(cause) => {
                self.peer.left = self.peer.left.saturating_sub(bytes.len() as u32);
                return if self.peer.left == 0 { After::Closed(cause) } else { After::Nothing };
            }
            // The last reply is under way: nobody wants to know more.
            Phase::Closing(_) => After::Nothing,
            Phase::Serving if self.peer.tls.is_some() => self.decrypt(bytes),
            Phase::Serving => self.take(bytes),
        };
        self.look_on();
        after
    }

    /// Answers what the peer says, now or when there is room.
    fn take(&mut self, bytes: &[u8]) -> After {
        if self.has_no_room() {
            self.keep(bytes);
            self.peer.unseen = true;
            self.lane.flows.pause(&mut self.lane.ring, self.slot);
            After::Nothing
        } else if self.peer.input.is_empty() {
            self.serve(bytes)
        } else {
            self.keep(bytes);
            self.serve_input()
        }
    }

    fn decrypt(&mut self, bytes: &[u8]) -> After {
        let Context { keys: Some(keys), counters, .. } = &mut *self.context else { return After::Nothing };
        let Some(tls) = &mut self.peer.tls else { return After::Nothing };
        keys.arrived.clear();
        keys.arrived.extend_from_slice(bytes);
        let mut plaintext = std::mem::take(&mut keys.plaintext);
        let handshaking = tls.is_handshaking();
        let opened = tls.received(&mut keys.arrived, &mut plaintext, counters);
        let after = match opened {
            Opened::Failed => {
                self.peer.phase = Phase::Closing(Cause::ProtocolError);
                self.context.pool.give_back(&mut self.peer.input);
                self.settle()
            }
            Opened::Handshaking => self.settle(),
            Opened::Plaintext { ended } => {
                self.peer.ended |= ended;
                self.peer.looked |= ended;
                if !plaintext.is_empty() || ended {
                    self.take(&plaintext)
                } else if handshaking {
                    self.begin_serving()
                } else {
                    self.settle()
                }
            }
        };
        if let Some(keys) = &mut self.context.keys {
            keys.plaintext = plaintext;
        }
        after
    }

    /// The handshake is over, and nothing was said besides.
    fn begin_serving(&mut self) -> After {
        if self.is_sending() {
            self.peer.unfinished |= self.context.shape == Shape::Download;
            return After::Nothing;
        }
        if self.context.shape == Shape::Download { self.serve(&[]) } else { self.settle() }
    }

    /// The output is gone.
    pub(crate) fn sent(&mut self) -> After {
        self.peer.signs.sent();
        if self.peer.delayed.is_some() {
            return self.sent_delayed();
        }
        self.context.counters.replies += u64::from(std::mem::take(&mut self.peer.replies));
        // A stream without an end ends between two portions.
        let endless = self.context.shape == Shape::Download;
        match self.peer.phase {
            Phase::Serving if endless && self.is_draining() && self.peer.looked => self.settle(),
            Phase::Serving if self.peer.unfinished || self.peer.unseen || self.peer.ended => {
                let unseen = self.peer.unseen;
                let after = self.serve_input();
                if endless && unseen && after == After::Nothing {
                    self.listen_between();
                }
                after
            }
            _ => self.settle(),
        }
    }

    /// Output without an end never comes to where it would be settled that we listen on, after what had arrived
    /// meanwhile has been seen.
    fn listen_between(&mut self) {
        let Lane { ring, flows } = &mut *self.lane;
        match self.peer.phase {
            Phase::Serving if self.peer.draining == Draining::No => flows.receive(ring, self.slot),
            Phase::Serving if !self.peer.looked => flows.look(ring, self.slot),
            _ => {}
        }
    }

    /// The peer ended its stream (0), or the connection broke.
    pub(crate) fn ended(&mut self, error: i32) -> After {
        if let (Some(tls), Phase::Serving, false, 0) = (&mut self.peer.tls, self.peer.phase, self.peer.ended, error) {
            tls.ended(&mut self.context.counters);
        }
        self.peer.ended = true;
        self.peer.looked = true;
        match self.peer.phase {
            Phase::Lingering(cause) => After::Closed(cause),
            _ if error != 0 => After::Closed(Cause::of(&io::Error::from_raw_os_error(error))),
            Phase::Serving if !self.has_no_room() => self.serve_input(),
            _ => After::Nothing,
        }
    }

    /// Where replies are delayed: the time of one has come. One that is due while others are sent follows them.
    pub(crate) fn release(&mut self) -> After {
        if !self.is_sending() && !self.send_due() {
            return After::Closed(Cause::Error);
        }
        self.settle()
    }

    /// The output could not be sent.
    pub(crate) fn send_failed(&mut self, error: i32) -> After {
        match self.peer.phase {
            Phase::Lingering(cause) => After::Closed(cause),
            _ => After::Closed(Cause::of(&io::Error::from_raw_os_error(error))),
        }
    }

    /// Our stream has ended, or could not be.
    pub(crate) fn stream_ended(&mut self, error: i32) -> After {
        match self.peer.phase {
            Phase::Lingering(cause) if error != 0 => After::Closed(cause),
            _ => After::Nothing,
        }
    }

    /// Answers what has arrived until now, and nothing that arrives later; then ends.
    pub(crate) fn drain(&mut self) -> After {
        if self.peer.phase == Phase::Serving {
            let awaits = self.peer.awaits(self.context, self.is_sending());
            self.peer.draining = Draining::of(awaits, false);
            if !self.peer.ended {
                let Lane { ring, flows } = &mut *self.lane;
                // What is kept has to go first: a look brings as much again.
                if self.peer.unseen { flows.pause(ring, self.slot) } else { flows.look(ring, self.slot) }
            }
        }
        After::Nothing
    }

    /// Draining, all that had arrived has been received.
    pub(crate) fn empty(&mut self) -> After {
        self.peer.looked = true;
        self.settle()
    }

    fn is_draining(&self) -> bool {
        self.peer.draining != Draining::No
    }

    fn is_sending(&self) -> bool {
        self.lane.flows.is_sending(self.slot)
    }

    /// What is received now can only be kept: the output is under way, or as much is delayed as may be.
    fn has_no_room(&self) -> bool {
        match &self.peer.delayed {
            None => self.is_sending(),
            Some(delayed) => delayed.is_full(),
        }
    }

    /// While draining every look brings one portion, and another is needed to see the end.
    fn look_on(&mut self) {
        if self.is_draining() && !self.peer.looked && self.peer.phase == Phase::Serving && !self.has_no_room() {
            self.lane.flows.look(&mut self.lane.ring, self.slot);
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.peer.input.is_empty() {
            self.context.pool.keep(&mut self.peer.input, bytes);
        } else {
            // Exactly: growth by doubling could pass the bound that a connection is promised to cost.
            self.peer.input.reserve_exact(bytes.len());
            self.peer.input.extend_from_slice(bytes);
        }
    }

    fn serve_input(&mut self) -> After {
        let mut input = std::mem::take(&mut self.peer.input);
        let after = self.serve(&input);
        self.context.pool.give_back(&mut input);
        after
    }

    /// Has the protocol answer, and keeps what it does not consume. Stops when there is output to be sent.
    fn serve(&mut self, data: &[u8]) -> After {
        if self.peer.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
            // Nobody has said anything yet; who ends within the handshake never will.
            self.peer.phase = if self.peer.ended { Phase::Closing(Cause::Peer) } else { self.peer.phase };
            return self.settle();
        }
        if self.peer.delayed.is_some() {
            return self.serve_delayed(data);
        }
        let Context { protocol, output, counters, .. } = &mut *self.context;
        let peer = &mut *self.peer;
        let mut used = 0;
        output.clear();
        loop {
            let served = protocol.serve(&mut peer.state, &data[used..], peer.ended, output);
            used += served.consumed;
            counters.requests += served.requests;
            peer.signs.heard(served.requests);
            peer.replies += served.replies as u32;
            peer.unfinished = served.next == Next::Flush;
            if let Some(cause) = Cause::to_close(served.next, peer.ended, data.len() - used) {
                peer.phase = Phase::Closing(cause);
            }
            if !peer.unfinished || !output.bytes().is_empty() {
                break;
            }
        }
        peer.unseen = false;
        if peer.phase == Phase::Serving && used < data.len() {
            self.keep(&data[used..]);
        }
        self.send_output()
    }

    /// Likewise where replies are delayed: stops when no more may be.
    fn serve_delayed(&mut self, data: &[u8]) -> After {
        let Context { protocol, output, counters, .. } = &mut *self.context;
        let peer = &mut *self.peer;
        let Some(delayed) = &mut peer.delayed else { return After::Nothing };
        let mut half = Half { protocol: &mut **protocol, state: &mut peer.state, ended: peer.ended, output };
        let before = counters.requests;
        let (used, next) = delayed.serve(&mut half, data, clock::now(), counters);
        peer.signs.heard(counters.requests - before);
        peer.unfinished = next == Next::Flush;
        if let Some(cause) = Cause::to_close(next, peer.ended, data.len() - used) {
            peer.phase = Phase::Closing(cause);
        }
        peer.unseen = false;
        if peer.phase == Phase::Serving && used < data.len() {
            self.keep(&data[used..]);
        }
        self.release()
    }

    /// Some of the delayed replies are gone: there is room for others.
    fn sent_delayed(&mut self) -> After {
        let peer = &mut *self.peer;
        let Some(delayed) = &mut peer.delayed else { return After::Nothing };
        delayed.arrived(&mut self.context.counters);
        let more = peer.unfinished || peer.unseen || peer.ended;
        if peer.phase == Phase::Serving && more && !delayed.is_full() { self.serve_input() } else { self.release() }
    }

    /// Sends those of the delayed replies that are due, if any are; false: it cannot.
    fn send_due(&mut self) -> bool {
        let Some(delayed) = &mut self.peer.delayed else { return true };
        let now = clock::now();
        if delayed.due(now).is_empty() {
            return true;
        }
        let Lane { ring, flows } = &mut *self.lane;
        let bytes = match (&mut self.peer.tls, &mut self.context.keys) {
            (Some(tls), Some(keys)) => {
                keys.ciphertext.clear();
                keys.ciphertext = delayed.take_due(now, std::mem::take(&mut keys.ciphertext));
                let mut sealed = ring.spare();
                if !tls.seal(&keys.ciphertext, &mut sealed) {
                    return false;
                }
                sealed
            }
            _ => delayed.take_due(now, ring.spare()),
        };
        let len = bytes.len() as u32;
        let lease = ring.lend(bytes);
        if let Ok(lease) = lease {
            flows.send_owned(ring, self.slot, lease, len);
        }
        lease.is_ok()
    }

    fn send_output(&mut self) -> After {
        if self.context.output.bytes().is_empty() {
            return self.settle();
        }
        if self.peer.tls.is_some() {
            return self.send_sealed();
        }
        let mut spare = self.lane.ring.spare();
        // Exactly, here too: what is never written to costs nothing.
        spare.reserve_exact(CAPACITY);
        let bytes = self.context.output.take(spare);
        self.send(bytes)
    }

    /// Sends what is in the output, encrypted, behind what TLS itself has to say.
    fn send_sealed(&mut self) -> After {
        let Some(tls) = &mut self.peer.tls else { return After::Nothing };
        let mut bytes = self.lane.ring.spare();
        if !tls.seal(self.context.output.bytes(), &mut bytes) {
            return After::Closed(Cause::Error);
        }
        self.send(bytes)
    }

    fn send(&mut self, bytes: Vec<u8>) -> After {
        let Lane { ring, flows } = &mut *self.lane;
        let len = bytes.len() as u32;
        match ring.lend(bytes) {
            Ok(lease) => flows.send_owned(ring, self.slot, lease, len),
            Err(_) => return After::Closed(Cause::Error),
        }
        After::Nothing
    }

    /// What TLS itself has to say, and at the end of the stream that it ends. `None`: nothing, or it is said.
    fn say_of_tls(&mut self, ends: bool) -> Option<After> {
        let sending = self.is_sending();
        let tls = self.peer.tls.as_mut()?;
        if ends {
            if sending {
                return Some(After::Nothing);
            }
            tls.close();
        }
        if sending || !tls.has_output() {
            return None;
        }
        self.context.output.clear();
        Some(self.send_sealed())
    }

    /// Nothing is under way, or (where replies are delayed) there is room for more: listens on, or ends.
    fn settle(&mut self) -> After {
        if self.has_no_room() {
            return After::Nothing;
        }
        let peer = &mut *self.peer;
        let has_delayed = peer.delayed.as_ref().is_some_and(|delayed| !delayed.is_empty());
        if peer.phase == Phase::Serving && peer.draining != Draining::No && peer.looked {
            peer.phase = Phase::Closing(Cause::Drained);
        }
        let ends = matches!(peer.phase, Phase::Closing(_)) && !has_delayed;
        if let Some(after) = self.say_of_tls(ends) {
            return after;
        }
        let peer = &mut *self.peer;
        match peer.phase {
            Phase::Closing(_) if has_delayed => After::Nothing,
            Phase::Closing(cause) if peer.ended => After::Closed(cause),
            Phase::Closing(cause) => {
                peer.phase = Phase::Lingering(cause);
                peer.left = if peer.draining == Draining::No { DISCARDED_AT_CLOSE } else { UNBOUNDED };
                self.lane.flows.end_stream(&mut self.lane.ring, self.slot);
                self.lane.flows.receive(&mut self.lane.ring, self.slot);
                After::Lingers
            }
            Phase::Serving if peer.draining != Draining::No => {
                self.look_on();
                After::Nothing
            }
            Phase::Serving => {
                self.lane.flows.receive(&mut self.lane.ring, self.slot);
                After::Nothing
            }
            Phase::Lingering(_) => After::Nothing,
        }
    }
}
