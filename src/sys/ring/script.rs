//! A kernel in small, for tests of [`super::flow`]: sockets with peers, requests that complete in any order that a real
//! one may choose, and a completion queue that overflows. Where the meaning of completions is wrong, its assertions or
//! the streams of bytes tell.

use super::buffers::{Filled, Ledger};
use super::flow::{Completion, Driver};
use super::leases::Leases;
use super::token::{Op, Token};
use crate::rng::Rng;
use std::collections::{HashSet, VecDeque};

/// Slots that accepted sockets get, and that connections get.
pub(super) const ACCEPTED: u32 = 3;
pub(super) const SLOTS: u32 = 5;
const BUFFERS: u16 = 4;
const BUFFER_BYTES: u32 = 16;
/// Completions that fit into the queue.
const QUEUE: usize = 6;

/// A socket and its peer. It lives on when it has left its slot, for as long as a request needs it.
#[derive(Debug, Default)]
pub(super) struct Socket {
    /// What the peer sends, how much of that has arrived, and how much of it we have been given.
    pub(super) gives: Vec<u8>,
    arrived: usize,
    pub(super) given: usize,
    /// How its stream ends behind that: 0 or an errno. `None`: it does not.
    pub(super) ends: Option<i32>,
    /// What was sent to it.
    pub(super) takes: Vec<u8>,
    /// It takes no more.
    broken: bool,
    /// It never answers: connecting to it and sending to it takes until they are cancelled.
    pub(super) silent: bool,
}

/// Something asked for that has not left yet.
enum Entry {
    /// For the socket that is in the slot of the token when this leaves.
    Request(Token, u32, u32),
    Connect(Token, usize),
    Cancel(Token),
    Close(u32),
}

/// Something under way.
struct Request {
    token: Token,
    socket: usize,
    from: u32,
    to: u32,
    /// It was too late to cancel it; it ends soon, in whatever way.
    doomed: bool,
}

/// A send without a copy, whose bytes are still needed.
struct Unnoticed {
    token: Token,
    from: usize,
    bytes: Vec<u8>,
}

/// A completion before anybody has seen it.
struct Raw {
    token: Token,
    result: i32,
    more: bool,
    notice: bool,
    buffer: Option<u16>,
}

pub(super) struct Script {
    rng: Rng,
    /// Nothing goes wrong any more.
    pub(super) calm: bool,
    pub(super) leases: Leases,
    pub(super) ledger: Ledger,
    /// The buffers' bytes, and those that the kernel may fill, in the order in which they were given.
    memory: Vec<Vec<u8>>,
    buffers: VecDeque<u16>,
    pub(super) sockets: Vec<Socket>,
    slots: Vec<Option<usize>>,
    pub(super) accepting: bool,
    entries: VecDeque<Entry>,
    requests: Vec<Request>,
    unnoticed: Vec<Unnoticed>,
    queue: VecDeque<Raw>,
    overflow: VecDeque<Raw>,
    /// Receives, looks and sends whose last result has not been told; sockets that wait to be fed.
    armed: HashSet<u64>,
    starved: HashSet<u64>,
    /// How often each rare thing happened, so that a test can say that it did.
    pub(super) seen: Seen,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) overflows: u32,
    pub(super) shortages: u32,
    pub(super) ended_with_data: u32,
    pub(super) notices: u32,
    pub(super) cancelled: u32,
    pub(super) too_late: u32,
    pub(super) not_found: u32,
    pub(super) refused: u32,
}

impl Seen {
    fn counts(&mut self) -> [&mut u32; 8] {
        let Self { overflows, shortages, ended_with_data, notices, cancelled, too_late, not_found, refused } = self;
        [overflows, shortages, ended_with_data, notices, cancelled, too_late, not_found, refused]
    }

    pub(super) fn add(&mut self, mut other: Self) {
        self.counts().into_iter().zip(other.counts()).for_each(|(sum, more)| *sum += *more);
    }

    pub(super) fn all_above(mut self, least: u32) -> bool {
        self.counts().into_iter().all(|count| *count > least)
    }
}

impl Script {
    pub(super) fn new(seed: u64) -> Self {
        let mut ledger = Ledger::new(BUFFERS, BUFFER_BYTES);
        (0..BUFFERS).for_each(|buffer| _ = ledger.give(buffer));
        Self {
            rng: Rng::new(seed),
            calm: false,
            leases: Leases::default(),
            ledger,
            memory: vec![vec![0xDD; BUFFER_BYTES as usize]; usize::from(BUFFERS)],
            buffers: (0..BUFFERS).collect(),
            sockets: Vec::new(),
            slots: vec![None; SLOTS as usize],
            accepting: true,
            entries: VecDeque::new(),
            requests: Vec::new(),
            unnoticed: Vec::new(),
            queue: VecDeque::new(),
            overflow: VecDeque::new(),
            armed: HashSet::new(),
            starved: HashSet::new(),
            seen: Seen::default(),
        }
    }

    /// Once in `times`, as long as things may go wrong.
    fn rarely(&mut self, times: u64) -> bool {
        !self.calm && self.rng.below(times) == 0
    }

    fn below(&mut self, bound: usize) -> usize {
        self.rng.below(bound as u64) as usize
    }

    fn socket(&mut self) -> usize {
        let len = self.below(120);
        let gives = (0..len).map(|_| self.rng.next_u64() as u8).collect();
        let ends = [None, Some(0), Some(0), Some(libc::ECONNRESET)][self.below(4)];
        let silent = self.below(8) == 0;
        self.sockets.push(Socket { gives, ends, silent, ..Socket::default() });
        self.sockets.len() - 1
    }

    /// The socket that is in a slot.
    pub(super) fn socket_in(&self, slot: u32) -> usize {
        self.slots[slot as usize].expect("the slot has a socket")
    }

    /// Makes a connection, as [`super::Ring::connect`] does, and says which socket it is.
    pub(super) fn connect(&mut self, token: Token) -> usize {
        let socket = self.socket();
        self.entries.push_back(Entry::Connect(token, socket));
        socket
    }

    /// Sockets that wait for buffers may ask again.
    pub(super) fn may_feed(&mut self) {
        self.starved.clear();
    }

    /// The bytes of a completion.
    pub(super) fn bytes(&self, filled: &Filled) -> Vec<u8> {
        let pieces = self.ledger.pieces(filled);
        pieces
            .flat_map(|(buffer, from, to)| &self.memory[usize::from(buffer)][from as usize..to as usize])
            .copied()
            .collect()
    }

    pub(super) fn give_back(&mut self, filled: &Filled) {
        let buffers: Vec<u16> = self.ledger.pieces(filled).map(|(buffer, ..)| buffer).collect();
        for buffer in buffers {
            assert!(self.ledger.part_done(buffer));
            self.ledger.give(buffer);
            self.memory[usize::from(buffer)].fill(0xDD);
            self.buffers.push_back(buffer);
        }
    }

    /// Whether nothing is on its way to anywhere.
    pub(super) fn is_quiet(&self) -> bool {
        self.entries.is_empty() && self.queue.is_empty() && self.overflow.is_empty() && self.unnoticed.is_empty()
    }

    /// Nothing may be left of anything.
    pub(super) fn check_empty(&self) {
        let left: Vec<String> = self.requests.iter().map(|request| format!("{:?}", request.token.op())).collect();
        assert!(left.is_empty(), "requests that keep sockets alive: {left:?}");
        assert!(self.slots.iter().all(Option::is_none), "a slot was not closed");
        assert!(self.armed.is_empty(), "a completion was never told");
        assert_eq!(
            (self.leases.alive(), self.ledger.ours_count()),
            (0, 0),
            "leases and buffers that were not given back"
        );
        assert_eq!(self.buffers.len(), usize::from(BUFFERS));
    }

    /// Everything that was asked for leaves.
    pub(super) fn submit(&mut self) {
        while let Some(entry) = self.entries.pop_front() {
            match entry {
                Entry::Request(token, from, to) => self.begin(token, self.socket_in(token.slot()), from, to),
                Entry::Connect(token, socket) => {
                    let before = self.slots[token.slot() as usize].replace(socket);
                    assert!(before.is_none(), "the slot has a socket already");
                    self.begin(token, socket, 0, 0);
                }
                Entry::Cancel(target) => self.cancel_now(target),
                Entry::Close(slot) => _ = self.slots[slot as usize].take().expect("a slot is closed once"),
            }
        }
    }

    fn begin(&mut self, token: Token, socket: usize, from: u32, to: u32) {
        match token.op().unwrap() {
            Op::Look => self.look_now(token, socket),
            Op::EndStream => {
                let result = if self.rarely(8) { -libc::ENOTCONN } else { 0 };
                self.post(token, result);
            }
            _ => self.requests.push(Request { token, socket, from, to, doomed: false }),
        }
    }

    fn cancel_now(&mut self, target: Token) {
        let token = Token::new(Op::Cancel, target.generation(), target.slot());
        let Some(index) = self.requests.iter().position(|request| request.token == target) else {
            self.seen.not_found += 1;
            return self.post(token, -libc::ENOENT);
        };
        match self.below(4) {
            0 => {
                self.seen.too_late += 1;
                self.requests[index].doomed = true;
                self.post(token, -libc::EALREADY);
            }
            way => {
                self.seen.cancelled += 1;
                self.requests.remove(index);
                let mut both = [(token, 0), (target, -libc::ECANCELED)];
                both.rotate_left(way % 2);
                both.into_iter().for_each(|(token, result)| self.post(token, result));
            }
        }
    }

    /// Something happens: bytes arrive, a socket is accepted, or something that is under way gets on.
    pub(super) fn step(&mut self) {
        if !self.sockets.is_empty() {
            let (socket, len) = (self.below(self.sockets.len()), self.below(40));
            let socket = &mut self.sockets[socket];
            socket.arrived = if self.calm { socket.gives.len() } else { socket.gives.len().min(socket.arrived + len) };
        }
        if self.accepting && self.rarely(6) {
            self.accept();
        }
        if !self.unnoticed.is_empty() && (self.calm || self.rarely(3)) {
            let index = self.below(self.unnoticed.len());
            self.notice(index);
        }
        if !self.requests.is_empty() {
            let index = self.below(self.requests.len());
            let Request { token, socket, doomed, .. } = self.requests[index];
            if doomed || !self.sockets[socket].silent || token.op() == Some(Op::Receive) {
                self.get_on(index);
            }
        }
    }

    fn accept(&mut self) {
        let token = Token::new(Op::Accept, 0, 0);
        let more = !self.rarely(6) && !self.is_full();
        self.accepting = more;
        let free = (0..ACCEPTED).find(|slot| self.slots[*slot as usize].is_none());
        let result = match free {
            Some(_) if self.rarely(6) => -libc::ECONNABORTED,
            Some(slot) => {
                self.slots[slot as usize] = Some(self.socket());
                slot as i32
            }
            None => -libc::ENFILE,
        };
        self.post_raw(Raw { token, result, more, notice: false, buffer: None });
    }

    /// The peer's side is done with the bytes of a send: they must be the same still.
    fn notice(&mut self, index: usize) {
        let Unnoticed { token, from, bytes } = self.unnoticed.remove(index);
        let lease = self.leases.bytes(token.lease());
        assert_eq!(lease.get(from..from + bytes.len()), Some(&bytes[..]), "bytes that the kernel needed were changed");
        self.seen.notices += 1;
        self.post_raw(Raw { token, result: 0, more: false, notice: true, buffer: None });
    }

    fn get_on(&mut self, index: usize) {
        let over = match self.requests[index].token.op() {
            Some(Op::Receive) => self.receive_on(index),
            Some(Op::Send) => self.send_on(index),
            _ => self.connect_on(index),
        };
        if over {
            self.requests.remove(index);
        }
    }

    fn connect_on(&mut self, index: usize) -> bool {
        let token = self.requests[index].token;
        if !self.calm && !self.requests[index].doomed && self.below(3) > 0 {
            return false; // it takes its time
        }
        let result = if self.rarely(4) { -libc::ECONNREFUSED } else { 0 };
        self.seen.refused += u32::from(result < 0);
        self.post(token, result);
        true
    }

    /// A multishot receive gets on. Says whether it is over.
    fn receive_on(&mut self, index: usize) -> bool {
        let Request { token, socket, doomed, .. } = self.requests[index];
        if doomed && self.below(2) == 0 {
            self.post(token, -libc::ECANCELED);
            return true;
        }
        // With an empty ring it may fail also where nothing has arrived (liburing issue 1275).
        if self.buffers.is_empty() && (self.sockets[socket].arrived > self.sockets[socket].given || self.rarely(4)) {
            self.seen.shortages += 1;
            self.post(token, -libc::ENOBUFS);
            return true;
        }
        if self.rarely(30) {
            self.post(token, -libc::EINTR);
            return true;
        }
        if let Some((result, buffer)) = self.fill(socket) {
            // A full queue ends it too.
            let more = !self.rarely(6) && !self.is_full() && !doomed;
            self.seen.ended_with_data += u32::from(!more);
            self.post_raw(Raw { token, result, more, notice: false, buffer: Some(buffer) });
            return !more;
        }
        let end = self.end(socket).or_else(|| doomed.then_some(-libc::ECANCELED));
        end.inspect(|result| self.post(token, *result)).is_some()
    }

    fn look_now(&mut self, token: Token, socket: usize) {
        let waiting = self.sockets[socket].arrived > self.sockets[socket].given;
        if self.buffers.is_empty() && (waiting || self.rarely(4)) {
            self.seen.shortages += 1;
            return self.post(token, -libc::ENOBUFS);
        }
        if let Some((result, buffer)) = self.fill(socket) {
            return self.post_raw(Raw { token, result, more: false, notice: false, buffer: Some(buffer) });
        }
        let result = self.end(socket).unwrap_or(-libc::EAGAIN);
        self.post(token, result);
    }

    /// How the stream ends, where nothing more will come.
    fn end(&self, socket: usize) -> Option<i32> {
        let socket = &self.sockets[socket];
        socket.ends.filter(|_| socket.given == socket.gives.len()).map(|error| -error)
    }

    /// Puts bytes that have arrived, if any, into a buffer.
    fn fill(&mut self, socket: usize) -> Option<(i32, u16)> {
        let waiting = self.sockets[socket].arrived - self.sockets[socket].given;
        let len = self.below((waiting + 1).min(BUFFER_BYTES as usize)) + usize::from(self.calm);
        let len = len.min(waiting);
        let buffer = if len > 0 { self.buffers.pop_front()? } else { return None };
        let socket = &mut self.sockets[socket];
        self.memory[usize::from(buffer)][..len].copy_from_slice(&socket.gives[socket.given..socket.given + len]);
        socket.given += len;
        Some((len as i32, buffer))
    }

    fn send_on(&mut self, index: usize) -> bool {
        let Request { token, socket, from, to, doomed } = self.requests[index];
        let without_copy = self.rng.below(3) == 0;
        let doom = doomed && self.below(2) == 0;
        self.sockets[socket].broken |= self.rarely(60);
        let error = match () {
            () if doom => libc::ECANCELED,
            () if self.sockets[socket].broken => libc::EPIPE,
            () if self.rarely(20) => libc::EINTR,
            () => 0,
        };
        if error != 0 {
            self.post(token, -error);
            return true;
        }
        let len = (to - from) as usize;
        let len = if self.rarely(2) { 1 + self.below(len) } else { len };
        let from = from as usize;
        let bytes = self.leases.bytes(token.lease())[from..from + len].to_vec();
        self.sockets[socket].takes.extend(&bytes);
        self.post_raw(Raw { token, result: len as i32, more: without_copy, notice: false, buffer: None });
        if without_copy {
            self.unnoticed.push(Unnoticed { token, from, bytes });
        }
        true
    }

    fn is_full(&self) -> bool {
        self.queue.len() >= QUEUE || !self.overflow.is_empty()
    }

    fn post(&mut self, token: Token, result: i32) {
        self.post_raw(Raw { token, result, more: false, notice: false, buffer: None });
    }

    fn post_raw(&mut self, raw: Raw) {
        if self.is_full() {
            self.seen.overflows += 1;
            self.overflow.push_back(raw);
        } else {
            self.queue.push_back(raw);
        }
    }

    /// The next completion, booked as [`super::Ring`] does. What had not fitted comes when the queue is empty.
    pub(super) fn reap(&mut self) -> Option<Completion> {
        if self.queue.is_empty() {
            let len = self.overflow.len().min(QUEUE);
            self.queue.extend(self.overflow.drain(..len));
        }
        let Raw { token, result, more, notice, buffer } = self.queue.pop_front()?;
        if token.op() == Some(Op::Send) && !more {
            self.leases.end(token.lease());
        }
        let over = if token.op() == Some(Op::Send) { !notice } else { !more };
        // A receive is armed anew by feeding only, unless its stream has ended; so is all that found no buffer.
        let goes_on =
            token.op() == Some(Op::Receive) && (result > 0 || [-libc::EINTR, -libc::ECANCELED].contains(&result));
        if over && self.armed.remove(&token.with_lease(0).0) && (goes_on || result == -libc::ENOBUFS) {
            self.starved.insert(Token::new(Op::Receive, token.generation(), token.slot()).0);
        }
        let filled = buffer.map(|buffer| self.ledger.take(buffer, result as u32, false).expect("the kernel had it"));
        Some(Completion { token, result, more, notice, filled })
    }

    fn ask(&mut self, token: Token, from: u32, to: u32) {
        self.entries.push_back(Entry::Request(token, from, to));
    }

    /// Nothing else may receive from the socket, and nobody asks again before being fed.
    fn arm(&mut self, token: Token) {
        for op in [Op::Receive, Op::Look] {
            let other = Token::new(op, token.generation(), token.slot());
            assert!(!self.armed.contains(&other.0), "{:?} during {op:?}", token.op());
        }
        let socket = Token::new(Op::Receive, token.generation(), token.slot());
        assert!(!self.starved.contains(&socket.0), "armed again before it was fed");
        self.armed.insert(token.0);
    }
}

impl Driver for Script {
    fn receive(&mut self, token: Token) {
        self.arm(token);
        self.ask(token, 0, 0);
    }

    fn look(&mut self, token: Token) {
        self.arm(token);
        self.ask(token, 0, 0);
    }

    fn send(&mut self, token: Token, from: u32, to: u32) {
        assert!(self.armed.insert(token.with_lease(0).0), "two sends at once");
        assert!(from < to && to as usize <= self.leases.bytes(token.lease()).len());
        self.leases.begin(token.lease());
        self.ask(token, from, to);
    }

    fn end_stream(&mut self, token: Token) {
        self.ask(token, 0, 0);
    }

    fn end_stream_without(&mut self, token: Token) {
        self.ask(token, 0, 0);
    }

    fn verify(&mut self, token: Token) {
        self.ask(token, 0, 0);
    }

    fn cancel(&mut self, target: Token) {
        self.entries.push_back(Entry::Cancel(target));
    }

    fn close(&mut self, slot: u32) {
        self.entries.push_back(Entry::Close(slot));
    }

    fn release(&mut self, lease: u32) {
        self.leases.release(lease);
    }
}
