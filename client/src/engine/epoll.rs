//! The reference engine: edge-triggered epoll, one registration a connection, one receive and one send a request.

use super::waits::{self, Waits};
use super::{Counters, Engine, Entry, Handler, Io, Remote};
use crate::worker::{self, Tally, Task};
use loadgen_core::histogram::Recorder;
use loadgen_core::sys::clock;
use loadgen_core::sys::errno;
use loadgen_core::sys::poller::epoll::EpollEdge;
use loadgen_core::sys::poller::{Event, Interest, Poller};
use loadgen_core::sys::socket;
use loadgen_core::time::Instant;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// One buffer for all connections of a thread: a reply is looked at once and never kept, so that 10,000 connections
/// share memory that stays in the cache.
const RECEIVE_BUFFER_BYTES: usize = 64 * 1024;

/// Receives for one connection in one turn; more wait for the next, so that a flood on one does not starve the others.
const RECEIVES_A_TURN: usize = 16;

pub static ENTRY: Entry = Entry {
    name: "epoll",
    about: "edge-triggered epoll(7), the default",
    run,
    waits,
    needs_ring: false,
    fallback: EpollEdge::fallback,
};

/// Runs a worker's task on this engine.
pub fn run(task: Task) -> io::Result<Tally> {
    let mut engine = Epoll::new(task.capacity(), task.wire())?;
    engine.io.addresses = task.remotes.clone();
    engine.io.reset = task.config.traffic.reset;
    worker::run(engine, task)
}

/// Measures timed waits of this engine.
fn waits(waits: &Waits) -> io::Result<Recorder> {
    waits::measure(Epoll::new(0, Vec::new())?, waits)
}

#[derive(Debug)]
struct Epoll {
    io: EpollIo,
    events: Vec<Event>,
    buffer: Box<[u8]>,
    /// Those of the last turn that were not finished with; swapped with `io.again`.
    unfinished: Vec<u64>,
}

#[derive(Debug)]
struct EpollIo {
    poller: EpollEdge,
    wire: Vec<u8>,
    /// By slot: 4 bytes each.
    sockets: Vec<Option<OwnedFd>>,
    /// By slot: how many sockets it has had, so that an event of an earlier one is known. The top bit: connecting.
    generations: Vec<u32>,
    /// Where connections go.
    addresses: Vec<Remote>,
    /// Likewise, of those that have been connected to, by TCP.
    remotes: Vec<SocketAddr>,
    again: Vec<u64>,
    /// Connections are closed by a reset.
    reset: bool,
    /// What is sent is messages, and no stream.
    has_messages: bool,
    calls: Calls,
}

const CONNECTING: u32 = 1 << 31;

#[derive(Debug, Default)]
struct Calls {
    connect: u64,
    send: u64,
    receive: u64,
    shutdown: u64,
    close: u64,
    events: u64,
}

impl Epoll {
    fn new(capacity: usize, wire: Vec<u8>) -> io::Result<Self> {
        let io = EpollIo {
            poller: EpollEdge::new()?,
            wire,
            sockets: (0..capacity).map(|_| None).collect(),
            generations: vec![0; capacity],
            addresses: Vec::new(),
            remotes: Vec::new(),
            again: Vec::new(),
            reset: false,
            has_messages: false,
            calls: Calls::default(),
        };
        let buffer = vec![0; RECEIVE_BUFFER_BYTES].into_boxed_slice();
        Ok(Self { io, events: Vec::new(), buffer, unfinished: Vec::new() })
    }

    fn dispatch(&mut self, event: Event, handler: &mut impl Handler<EpollIo>) {
        let slot = event.token as u32;
        if !self.io.is_current(event.token) {
            return;
        }
        if self.io.generations[slot as usize] & CONNECTING != 0 {
            if !event.writable {
                return;
            }
            self.io.generations[slot as usize] &= !CONNECTING;
            let outcome = self.io.outcome_of_connect(slot);
            let failed = outcome.is_err();
            handler.connected(&mut self.io, slot, outcome);
            if failed {
                return;
            }
        }
        if event.readable && self.io.is_current(event.token) {
            self.receive(event.token, event.closing, handler);
        }
        if event.writable && self.io.is_current(event.token) {
            handler.writable(&mut self.io, slot);
        }
    }

    /// Receives until nothing is left. A short receive means that nothing is left (epoll(7), question 9), unless the
    /// stream has ended or broken: then the end itself has yet to be received. Messages come one by one, some without
    /// content.
    fn receive(&mut self, token: u64, closing: bool, handler: &mut impl Handler<EpollIo>) {
        let slot = token as u32;
        for _ in 0..RECEIVES_A_TURN {
            let Some(socket) = &self.io.sockets[slot as usize] else { return };
            self.io.calls.receive += 1;
            match socket::receive(socket.as_fd(), &mut self.buffer) {
                Ok(0) if !self.io.has_messages => return handler.ended(&mut self.io, slot, None),
                Ok(n) => {
                    handler.received(&mut self.io, slot, &self.buffer[..n]);
                    let last = n < self.buffer.len() && !closing && !self.io.has_messages;
                    if !self.io.is_current(token) || last {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return handler.ended(&mut self.io, slot, Some(error)),
            }
        }
        self.io.again.push(token);
    }
}

impl Engine for Epoll {
    type Io = EpollIo;

    fn io(&mut self) -> &mut EpollIo {
        &mut self.io
    }

    fn turn(&mut self, timeout: Duration, handler: &mut impl Handler<EpollIo>) -> io::Result<()> {
        std::mem::swap(&mut self.unfinished, &mut self.io.again);
        let timeout = if self.unfinished.is_empty() { timeout } else { Duration::ZERO };
        let mut events = std::mem::take(&mut self.events);
        self.io.poller.wait(&mut events, Some(timeout))?;
        self.io.calls.events += events.len() as u64;
        for event in &events {
            self.dispatch(*event, handler);
        }
        self.events = events;
        // An edge is told once: what was left over is ours to remember. It may be readable, writable or both.
        let mut unfinished = std::mem::take(&mut self.unfinished);
        // One that is here twice may come back twice for each, and so on.
        unfinished.sort_unstable();
        unfinished.dedup();
        for token in unfinished.drain(..) {
            self.dispatch(Event { token, readable: true, writable: true, closing: true }, handler);
        }
        self.unfinished = unfinished;
        Ok(())
    }

    fn counters(&self) -> Counters {
        let calls = &self.io.calls;
        let poller = self.io.poller.calls();
        let syscalls = BTreeMap::from([
            ("connect", calls.connect),
            ("send", calls.send),
            ("recv", calls.receive),
            ("shutdown", calls.shutdown),
            ("close", calls.close),
            ("epoll_wait", poller.wait),
            ("epoll_ctl", poller.control),
            ("timerfd_settime", poller.timer),
        ]);
        Counters { syscalls, waits: poller.wait, events: calls.events, ring: None }
    }
}

impl EpollIo {
    fn token(&self, slot: u32) -> u64 {
        u64::from(self.generations[slot as usize] & !CONNECTING) << 32 | u64::from(slot)
    }

    /// Whether `token` names the socket that its slot holds now, and not an earlier one.
    fn is_current(&self, token: u64) -> bool {
        let slot = token as u32;
        self.sockets[slot as usize].is_some() && self.token(slot) == token
    }

    /// How many bytes of a send the kernel took; none where it has no room. One that was interrupted, or found no
    /// memory, is tried again in the next turn, which looks at the deadlines first: no edge will tell of it.
    #[inline(always)]
    fn taken(&mut self, slot: u32, outcome: io::Result<usize>) -> io::Result<usize> {
        outcome.or_else(|error| self.nothing_taken(slot, error))
    }

    #[cold]
    fn nothing_taken(&mut self, slot: u32, error: io::Error) -> io::Result<usize> {
        match errno::name(&error) {
            _ if error.kind() == ErrorKind::WouldBlock => Ok(0),
            "EINTR" => Ok(self.later(slot)),
            "ENOBUFS" | "ENOMEM" if !self.has_messages => Ok(self.later(slot)),
            _ => Err(error),
        }
    }

    fn later(&mut self, slot: u32) -> usize {
        self.resume(slot);
        0
    }

    fn outcome_of_connect(&self, slot: u32) -> io::Result<()> {
        let socket = self.sockets[slot as usize].as_ref();
        socket.map_or(Ok(()), |socket| socket::connect_outcome(socket.as_fd(), &self.remotes))
    }
}

impl Io for EpollIo {
    #[inline]
    fn now(&self) -> Instant {
        clock::now()
    }

    fn connect(&mut self, slot: u32, address: usize, attempt: usize) -> io::Result<()> {
        self.calls.connect += 1;
        let remote = &self.addresses[address];
        let (remote, source) = (&remote.endpoint, remote.source(attempt));
        let socket = socket::connect(remote, source)?;
        if self.reset && !remote.has_messages() {
            socket::reset_on_close(socket.as_fd())?;
        }
        self.has_messages = remote.has_messages();
        if let Some(remote) = remote.socket_addr().filter(|remote| !self.remotes.contains(remote)) {
            self.remotes.push(remote);
        }
        let token = self.token(slot);
        self.poller.add(socket.as_fd(), token, Interest::BOTH)?;
        self.sockets[slot as usize] = Some(socket);
        self.generations[slot as usize] |= CONNECTING;
        Ok(())
    }

    fn send(&mut self, slot: u32, wire: Range<usize>) -> io::Result<usize> {
        let Some(socket) = &self.sockets[slot as usize] else { return Ok(0) };
        let outcome = send(socket, &self.wire[wire], &mut self.calls);
        self.taken(slot, outcome)
    }

    fn send_own(&mut self, slot: u32, bytes: &[u8]) -> io::Result<usize> {
        let Some(socket) = &self.sockets[slot as usize] else { return Ok(0) };
        let outcome = send(socket, bytes, &mut self.calls);
        self.taken(slot, outcome)
    }

    #[inline]
    fn has_left_over(&self, _slot: u32) -> bool {
        false
    }

    fn end_stream(&mut self, slot: u32) {
        if let Some(socket) = &self.sockets[slot as usize] {
            self.calls.shutdown += 1;
            // ENOTCONN: the peer was faster, and `ended` will tell.
            let _ = socket::end_stream(socket.as_fd());
        }
    }

    /// Closing the only descriptor of a socket takes it out of the epoll set (epoll(7), question 6).
    fn close(&mut self, slot: u32) {
        if self.sockets[slot as usize].take().is_some() {
            self.calls.close += 1;
            let generation = &mut self.generations[slot as usize];
            *generation = (*generation & !CONNECTING).wrapping_add(1) & !CONNECTING;
        }
    }

    fn resume(&mut self, slot: u32) {
        let token = self.token(slot);
        self.again.push(token);
    }
}

/// Hands bytes to the kernel.
#[inline]
fn send(socket: &OwnedFd, bytes: &[u8], calls: &mut Calls) -> io::Result<usize> {
    calls.send += 1;
    socket::send(socket.as_fd(), bytes)
}
