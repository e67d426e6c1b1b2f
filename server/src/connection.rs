//! What one connection does when it may: receive, have the protocol answer, send. The engine says when that is.
//!
//! A connection costs its slot, and at most [`CAPACITY`] bytes of input that the protocol wants to see again and
//! [`CAPACITY`] bytes of output that the kernel did not take: while output is pending nothing is received, so a peer
//! that never reads costs these 128 KiB and no more (besides what the kernel's own buffers hold). Replies that are
//! delayed until their release are such output.

use crate::cause::Cause;
use crate::deadlines::{Awaits, Signs};
use crate::delayed::{DelayedReplies, Half};
use crate::injector::Injector;
use crate::phase::{DISCARDED_AT_CLOSE, Draining, Phase, UNBOUNDED};
use crate::pool::Pool;
use crate::stats::Counters;
use crate::tls_connection::{Keys, Opened, TlsConnection};
use loadgen_core::protocol::{MAX_KEPT, MIN_OUTPUT, Next, Output, Server, ServerState, Shape};
use loadgen_core::sys::poller::{Event, Interest};
use loadgen_core::sys::{clock, errno, socket};
use loadgen_core::time::Instant;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Bytes of the receive buffer and of the output buffer, which all connections of a thread share.
pub(crate) const CAPACITY: usize = 64 << 10;
const _: () = assert!(CAPACITY >= MAX_KEPT && CAPACITY >= MIN_OUTPUT);
/// What one connection may do in a turn before the others have theirs.
const STEPS_PER_TURN: usize = 16;
const BYTES_PER_TURN: u64 = 256 << 10;
/// How often a send is tried again at once that failed for what passes.
const SENDS_AGAIN: u32 = 3;
/// What the connections of a thread share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) protocol: Box<dyn Server>,
    pub(crate) shape: Shape,
    pub(crate) scratch: Box<[u8]>,
    pub(crate) output: Output,
    pub(crate) pool: Pool,
    pub(crate) counters: Counters,
    /// `None`: nothing is injected, and replies leave at once.
    pub(crate) injector: Option<Arc<Injector>>,
    /// `None`: the stream is not encrypted.
    pub(crate) keys: Option<Box<Keys>>,
}

/// What arrived with the end of a record may be that much more when it is decrypted.
const RECORD: usize = 16 << 10;

impl Shared {
    pub(crate) fn new(
        protocol: Box<dyn Server>,
        shape: Shape,
        injector: Option<Arc<Injector>>,
        keys: Option<Box<Keys>>,
    ) -> Self {
        let output = if injector.is_some() { Output::one_reply(CAPACITY) } else { Output::new(CAPACITY) };
        Self {
            protocol,
            shape,
            scratch: vec![0; if keys.is_some() { CAPACITY + RECORD } else { CAPACITY }].into(),
            output,
            injector,
            keys,
            pool: Pool::new(),
            counters: Counters::default(),
        }
    }

    fn bytes_moved(&self) -> u64 {
        self.counters.received_bytes + self.counters.sent_bytes
    }
}

#[derive(Debug)]
pub(crate) struct Connection {
    socket: OwnedFd,
    phase: Phase,
    /// A receive may find something. Set by events; cleared by a receive that leaves nothing behind.
    readable: bool,
    /// The peer ended its stream, or the connection broke: a short receive is not the last word.
    closing: bool,
    /// The end of the peer's stream has been received.
    ended: bool,
    /// The protocol has more to say, without more input.
    unfinished: bool,
    draining: Draining,
    /// Look for the end of the peer's stream before saying more.
    looking: bool,
    /// On the ready list.
    pub(crate) queued: bool,
    /// What the poller watches for.
    pub(crate) interest: Interest,
    /// For the deadlines.
    pub(crate) signs: Signs,
    /// Bytes of `pending` that the kernel has taken.
    taken: u32,
    /// Replies that end in the output that is not wholly sent. They count once all of it is; where they end within it
    /// is not known, so those of a connection that dies before are not counted.
    replies: u32,
    /// Bytes still to be received: while draining, what had arrived by then; while lingering, what is discarded.
    left: u32,
    state: ServerState,
    /// Received, and to be shown to the protocol again.
    input: Vec<u8>,
    /// Output that the kernel did not take.
    pending: Vec<u8>,
    /// Where service times are injected: replies until their release, in place of `pending` and `replies`.
    delayed: Option<Box<DelayedReplies>>,
    /// Where the stream is encrypted; `input` is not, `pending` is.
    tls: Option<Box<TlsConnection>>,
}

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing can be done before this.
    Wait(Interest),
    /// The budget is spent, and there is more to do.
    Again,
    Closed(Cause),
}

/// How a step ended.
enum Step {
    Go,
    Wait(Interest),
    Closed(Cause),
}

impl Connection {
    /// `speaks_first`: the protocol has something to say before it has heard anything.
    pub(crate) fn new(
        socket: OwnedFd,
        speaks_first: bool,
        delayed: Option<Box<DelayedReplies>>,
        tls: Option<Box<TlsConnection>>,
    ) -> Self {
        Self {
            socket,
            phase: Phase::Serving,
            readable: false,
            closing: false,
            ended: false,
            unfinished: speaks_first,
            draining: Draining::No,
            looking: false,
            queued: false,
            interest: Interest::READ,
            signs: Signs::new(tls.is_some()),
            taken: 0,
            replies: 0,
            left: 0,
            state: ServerState::default(),
            input: Vec::new(),
            pending: Vec::new(),
            delayed,
            tls,
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(crate) fn into_socket(self) -> OwnedFd {
        self.socket
    }

    /// What it is waiting for, as far as deadlines are concerned.
    pub(crate) fn awaits(&self, shared: &Shared) -> Awaits {
        if !self.pending.is_empty() || self.delayed.as_ref().is_some_and(|delayed| delayed.stuck) {
            return Awaits::Unread;
        }
        let has_delayed = self.delayed.as_ref().is_some_and(|delayed| !delayed.is_empty());
        if self.queued || self.phase != Phase::Serving || has_delayed {
            return Awaits::Nothing;
        }
        if self.is_handshaking() {
            return Awaits::Handshake;
        }
        let kept = !self.input.is_empty() || self.tls.as_ref().is_some_and(|tls| tls.is_within_record());
        let within = shared.protocol.is_within_request(&self.state);
        Awaits::of(shared.shape, within, kept, self.signs)
    }

    pub(crate) fn is_lingering(&self) -> bool {
        self.lingering_cause().is_some()
    }

    /// Why the connection is ending, where only the end of the peer's stream is missing.
    pub(crate) fn lingering_cause(&self) -> Option<Cause> {
        self.phase.lingering_cause()
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

    /// Takes note of an event and says whether it is this connection's turn. (Edge-triggered pollers also tell what
    /// it is not waiting for.)
    pub(crate) fn note(&mut self, event: Event) -> bool {
        self.readable |= event.readable;
        self.closing |= event.closing;
        if !self.pending.is_empty() {
            return event.writable;
        }
        if let Some(delayed) = &self.delayed {
            // One that has broken says so, even to those who wait for nothing but the time.
            return event.closing || delayed.stuck && event.writable || self.readable && !delayed.is_full();
        }
        self.readable
    }

    /// Answers what has arrived until now, and nothing that arrives later; then ends.
    pub(crate) fn drain(&mut self, shared: &Shared) {
        if self.phase == Phase::Serving {
            self.left = socket::unread(self.fd()).unwrap_or(0).try_into().unwrap_or(u32::MAX);
            self.draining = Draining::of(self.awaits(shared), self.left > 0);
            self.readable |= self.left > 0;
        }
    }

    /// Goes on until nothing more can be done, or until it is the others' turn.
    pub(crate) fn turn(&mut self, shared: &mut Shared) -> Turn {
        // An endless sender never waits for input, and would not learn that its peer has ended its stream.
        self.looking = shared.shape == Shape::Download;
        let mut have = self.input.len();
        if have > 0 {
            shared.scratch[..have].copy_from_slice(&self.input);
            shared.pool.give_back(&mut self.input);
        }
        let turn = match self.steps(shared, &mut have) {
            Ok(turn) => turn,
            Err(error) => match self.phase {
                Phase::Lingering(cause) => Turn::Closed(cause),
                _ => Turn::Closed(Cause::of(&error)),
            },
        };
        if have > 0 && self.phase == Phase::Serving && !matches!(turn, Turn::Closed(_)) {
            shared.pool.keep(&mut self.input, &shared.scratch[..have]);
        }
        turn
    }

    /// Ends without a word. What is still pending was never handed to the kernel, and its replies do not count.
    pub(crate) fn close(mut self, cause: Cause, shared: &mut Shared) {
        shared.pool.give_back(&mut self.input);
        shared.pool.give_back(&mut self.pending);
        shared.counters.closed(cause);
        shared.counters.calls.close += 1;
    }

    /// `have` bytes of the scratch buffer are input of this connection.
    fn steps(&mut self, shared: &mut Shared, have: &mut usize) -> io::Result<Turn> {
        let start = shared.bytes_moved();
        for _ in 0..STEPS_PER_TURN {
            match self.step(shared, have)? {
                Step::Go => {}
                Step::Wait(interest) => return Ok(Turn::Wait(interest)),
                Step::Closed(cause) => return Ok(Turn::Closed(cause)),
            }
            if shared.bytes_moved() - start >= BYTES_PER_TURN {
                break;
            }
        }
        Ok(Turn::Again)
    }

    fn step(&mut self, shared: &mut Shared, have: &mut usize) -> io::Result<Step> {
        if !self.pending.is_empty() {
            return self.send_pending(shared);
        }
        if self.tls.as_ref().is_some_and(|tls| tls.has_output()) {
            shared.output.clear();
            return self.send_output(shared);
        }
        if let Some(step) = self.step_delayed(shared)? {
            return Ok(step);
        }
        match self.phase {
            Phase::Serving => self.go_on_serving(shared, have),
            Phase::Closing(cause) => Ok(self.end_stream(shared, cause)),
            Phase::Lingering(cause) => self.discard(shared, cause),
        }
    }

    /// Where replies are delayed: sends those that are due, and waits where nothing else is to be done before the next.
    fn step_delayed(&mut self, shared: &mut Shared) -> io::Result<Option<Step>> {
        let Some(delayed) = &mut self.delayed else { return Ok(None) };
        if delayed.is_empty() {
            return Ok(None);
        }
        let now = clock::now();
        let due = delayed.due(now).len();
        if let (true, Some(tls), Some(keys)) = (due > 0, &mut self.tls, &mut shared.keys) {
            keys.plaintext.clear();
            keys.plaintext = delayed.take_due(now, std::mem::take(&mut keys.plaintext));
            if !tls.seal(&keys.plaintext, &mut keys.ciphertext) {
                return Ok(Some(Step::Closed(Cause::Error)));
            }
            return self.send_sealed(shared).map(Some);
        }
        if due > 0 {
            let taken = send(self.socket.as_fd(), delayed.due(now), &mut shared.counters)?;
            delayed.sent(taken, now, &mut shared.counters);
            delayed.stuck = taken < due;
            if taken > 0 {
                self.signs.sent();
            }
            return Ok(Some(if delayed.stuck { Step::Wait(Interest::WRITE) } else { Step::Go }));
        }
        if self.phase == Phase::Serving && !delayed.is_full() {
            return Ok(None);
        }
        if self.closing {
            socket::take_error(self.socket.as_fd())?;
        }
        Ok(Some(Step::Wait(Interest::NONE)))
    }

    /// The instant at which this connection needs a turn, unless it was told before.
    pub(crate) fn next_release(&mut self) -> Option<Instant> {
        self.delayed.as_mut()?.next_release()
    }

    fn go_on_serving(&mut self, shared: &mut Shared, have: &mut usize) -> io::Result<Step> {
        if self.unfinished && !self.is_handshaking() {
            // An endless stream has no end to wait for.
            if self.draining != Draining::No && shared.shape == Shape::Download {
                return Ok(self.begin_close(Cause::Drained));
            }
            if self.looking {
                self.looking = false;
                *have += self.receive(shared, *have)?.unwrap_or(0);
                if self.phase != Phase::Serving {
                    return Ok(Step::Go);
                }
            }
            return self.serve(shared, have);
        }
        if self.draining != Draining::No && (!self.readable || self.left == 0) {
            return Ok(self.begin_close(Cause::Drained));
        }
        if !self.readable {
            return Ok(Step::Wait(Interest::READ));
        }
        match self.receive(shared, *have)? {
            None => Ok(Step::Go),
            // A handshake says nothing to the protocol; what it has to say itself is sent first.
            Some(0) if self.tls.is_some() && !self.ended => Ok(Step::Go),
            Some(_) if self.is_handshaking() => Ok(self.begin_close(Cause::Peer)),
            Some(n) => {
                *have += n;
                self.serve(shared, have)
            }
        }
    }

    fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Receives behind the `have` bytes of the scratch buffer; 0 bytes are the end of the peer's stream (but where it
    /// is encrypted, where not all of them say something).
    fn receive(&mut self, shared: &mut Shared, have: usize) -> io::Result<Option<usize>> {
        debug_assert!(have < CAPACITY, "no room is no end of the stream");
        let buffer = &mut shared.scratch[have..CAPACITY];
        shared.counters.calls.recv += 1;
        match socket::receive(self.socket.as_fd(), buffer) {
            Ok(0) => {
                if let (Some(tls), Phase::Serving, false) = (&mut self.tls, self.phase, self.ended) {
                    tls.ended(&mut shared.counters);
                }
                self.ended = true;
                self.readable = false;
                Ok(Some(0))
            }
            Ok(n) => {
                shared.counters.received_bytes += n as u64;
                // epoll(7), question 9: a short receive from a stream has emptied it, unless its end is behind.
                self.readable = n == buffer.len() || self.closing;
                self.left = self.left.saturating_sub(n as u32);
                Ok(Some(if self.tls.is_some() { self.decrypt(shared, have, n) } else { n }))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                shared.counters.empty_receives += 1;
                self.readable = false;
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts what the `n` bytes behind the `have` say in their place, and answers how much that is.
    fn decrypt(&mut self, shared: &mut Shared, have: usize, n: usize) -> usize {
        let (Some(tls), Some(keys), Phase::Serving) = (&mut self.tls, &mut shared.keys, self.phase) else { return 0 };
        let arrived = &mut shared.scratch[have..have + n];
        match tls.received(arrived, &mut keys.plaintext, &mut shared.counters) {
            Opened::Failed => {
                self.phase = Phase::Closing(Cause::ProtocolError);
                return 0;
            }
            Opened::Handshaking => {}
            Opened::Plaintext { ended } => self.ended |= ended,
        }
        let n = keys.plaintext.len();
        shared.scratch[have..have + n].copy_from_slice(&keys.plaintext);
        n
    }

    fn serve(&mut self, shared: &mut Shared, have: &mut usize) -> io::Result<Step> {
        let input = &shared.scratch[..*have];
        let (consumed, next) = match &mut self.delayed {
            None => {
                shared.output.clear();
                let served = shared.protocol.serve(&mut self.state, input, self.ended, &mut shared.output);
                shared.counters.requests += served.requests;
                self.replies += served.replies as u32;
                self.signs.heard(served.requests);
                (served.consumed, served.next)
            }
            Some(delayed) => {
                let (protocol, output) = (&mut *shared.protocol, &mut shared.output);
                let mut half = Half { protocol, state: &mut self.state, ended: self.ended, output };
                let before = shared.counters.requests;
                let served = delayed.serve(&mut half, input, clock::now(), &mut shared.counters);
                self.signs.heard(shared.counters.requests - before);
                served
            }
        };
        if consumed > 0 {
            shared.scratch.copy_within(consumed..*have, 0);
            *have -= consumed;
        }
        self.unfinished = next == Next::Flush;
        if let Some(cause) = Cause::to_close(next, self.ended, *have) {
            self.phase = Phase::Closing(cause);
        }
        // What is delayed is sent in a step of its own.
        if self.delayed.is_some() { Ok(Step::Go) } else { self.send_output(shared) }
    }

    fn begin_close(&mut self, cause: Cause) -> Step {
        self.phase = Phase::Closing(cause);
        Step::Go
    }

    /// Sends straight from the shared output; only what the kernel does not take is copied.
    fn send_output(&mut self, shared: &mut Shared) -> io::Result<Step> {
        if let (Some(tls), Some(keys)) = (&mut self.tls, &mut shared.keys) {
            let sealed = tls.seal(shared.output.bytes(), &mut keys.ciphertext);
            return if sealed { self.send_sealed(shared) } else { Ok(Step::Closed(Cause::Error)) };
        }
        let taken = self.send_some(shared.output.bytes(), &mut shared.counters, &mut shared.pool)?;
        Ok(self.after_sending(taken, shared))
    }

    /// Likewise what has been encrypted.
    fn send_sealed(&mut self, shared: &mut Shared) -> io::Result<Step> {
        let bytes = shared.keys.as_ref().map_or(&[][..], |keys| &keys.ciphertext);
        let taken = self.send_some(bytes, &mut shared.counters, &mut shared.pool)?;
        Ok(self.after_sending(taken, shared))
    }

    /// Whether the kernel took all of it; what it did not take is pending.
    fn send_some(&mut self, bytes: &[u8], counters: &mut Counters, pool: &mut Pool) -> io::Result<bool> {
        let taken = if bytes.is_empty() { 0 } else { send(self.socket.as_fd(), bytes, counters)? };
        if taken > 0 {
            self.signs.sent();
        }
        if taken < bytes.len() {
            pool.keep(&mut self.pending, &bytes[taken..]);
            self.taken = 0;
        }
        Ok(taken == bytes.len())
    }

    fn after_sending(&mut self, all: bool, shared: &mut Shared) -> Step {
        if !all {
            return Step::Wait(Interest::WRITE);
        }
        match &mut self.delayed {
            None => shared.counters.replies += u64::from(std::mem::take(&mut self.replies)),
            Some(delayed) => delayed.arrived(&mut shared.counters),
        }
        Step::Go
    }

    fn send_pending(&mut self, shared: &mut Shared) -> io::Result<Step> {
        let taken = send(self.socket.as_fd(), &self.pending[self.taken as usize..], &mut shared.counters)?;
        self.taken += taken as u32;
        if taken > 0 {
            self.signs.sent();
        }
        if (self.taken as usize) < self.pending.len() {
            return Ok(Step::Wait(Interest::WRITE));
        }
        shared.pool.give_back(&mut self.pending);
        Ok(self.after_sending(true, shared))
    }

    fn end_stream(&mut self, shared: &mut Shared, cause: Cause) -> Step {
        // Said once, and sent before anything else is done.
        if self.tls.as_mut().is_some_and(|tls| !tls.close()) {
            return Step::Go;
        }
        if self.ended {
            return Step::Closed(cause);
        }
        shared.counters.calls.shutdown += 1;
        if socket::end_stream(self.fd()).is_err() {
            return Step::Closed(cause);
        }
        self.phase = Phase::Lingering(cause);
        self.left = if self.draining == Draining::No { DISCARDED_AT_CLOSE } else { UNBOUNDED };
        Step::Go
    }

    fn discard(&mut self, shared: &mut Shared, cause: Cause) -> io::Result<Step> {
        if !self.readable {
            return Ok(Step::Wait(Interest::READ));
        }
        self.receive(shared, 0)?;
        Ok(if self.ended || self.left == 0 { Step::Closed(cause) } else { Step::Go })
    }
}

/// Sends and says how many bytes the kernel took. Where that was interrupted, or it had no memory for a moment, it is
/// tried again, since no edge will tell of room that was there all along; not for ever: then the deadline of a reply
/// ends it, or the error.
fn send(socket: BorrowedFd<'_>, bytes: &[u8], counters: &mut Counters) -> io::Result<usize> {
    let mut again = SENDS_AGAIN;
    let taken = loop {
        counters.calls.send += 1;
        match socket::send(socket, bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break 0,
            Err(error) if again > 0 && matches!(errno::name(&error), "EINTR" | "ENOBUFS" | "ENOMEM") => again -= 1,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => break 0,
            other => break other?,
        }
    };
    counters.sent_bytes += taken as u64;
    counters.short_sends += u64::from(taken < bytes.len());
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use loadgen_core::protocol::{ServerOptions, by_name};
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_drained_connection_answers_what_had_arrived_and_discards_the_rest() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let accepted = listener.accept().unwrap().0;
        accepted.set_nonblocking(true).unwrap();
        let echo = (by_name("echo").unwrap().server)(&ServerOptions { size: 10, ..ServerOptions::default() }).unwrap();
        let mut shared = Shared::new(echo, Shape::Exchange, None, None);
        let mut connection = Connection::new(accepted.into(), false, None, None);

        peer.write_all(&[1; 10]).unwrap();
        connection.drain(&shared);
        peer.write_all(&[2; 3 * CAPACITY]).unwrap();
        while connection.turn(&mut shared) == Turn::Again {}
        assert_eq!(connection.lingering_cause(), Some(Cause::Drained));
        // One receive may take more than had arrived, and that is answered too.
        let mut reply = Vec::new();
        peer.read_to_end(&mut reply).unwrap();
        assert!((10..=CAPACITY).contains(&reply.len()), "{}", reply.len());
        assert_eq!(shared.counters.sent_bytes, reply.len() as u64);
    }
}
