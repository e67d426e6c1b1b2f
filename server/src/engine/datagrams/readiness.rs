//! The readiness loop for datagrams: wait until there are some, take up to a batch of them, answer them all with one
//! system call. While the kernel does not take replies nothing is received, so at most one batch waits.

use super::{Answers, drain_end};
use crate::engine::{LISTENER, Worker, wait_until};
use crate::stats::Counters;
use loadgen_core::protocol::Output;
use loadgen_core::sys::datagram::{self, BATCH, Incoming, Peer};
use loadgen_core::sys::errno;
use loadgen_core::sys::poller::{Event, Interest, Poller};
use loadgen_core::time::Instant;
use loadgen_core::transport::MESSAGE_ROOM;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Batches before the clock and the signals are looked at.
const BATCHES_A_TURN: usize = 16;

/// Serves until told to stop and what had arrived is answered.
pub(in crate::engine) fn run<P: Poller>(worker: Worker) -> io::Result<Counters> {
    let Worker { listener: socket, protocol, drain, signals, ready, injector, .. } = worker;
    let answers = Answers::new(&socket, protocol, injector)?;
    let mut poller = P::new()?;
    poller.add(socket.as_fd(), LISTENER, Interest::READ)?;
    let mut server = Readiness {
        poller,
        socket,
        interest: Interest::READ,
        readable: true,
        incoming: Incoming::default(),
        output: Output::new(BATCH * MESSAGE_ROOM),
        replies: Vec::with_capacity(BATCH),
        taken: 0,
        blocked: false,
        answers,
        signals,
        drain,
        drain_until: None,
    };
    // Nobody listens where another thread has failed to start.
    let _ = ready.send(());
    drop(ready);
    server.serve()?;
    server.answers.counters.poller = server.poller.calls();
    Ok(server.answers.into_counters())
}

#[derive(Debug)]
struct Readiness<P> {
    poller: P,
    socket: OwnedFd,
    /// What the poller watches for.
    interest: Interest,
    /// There may be datagrams. Set by events; cleared by a receive that leaves none behind.
    readable: bool,
    incoming: Incoming,
    /// Replies on their way, back to back; where each ends and where it goes; how many the kernel has taken.
    output: Output,
    replies: Vec<(usize, Peer)>,
    taken: usize,
    /// The kernel takes no replies for now.
    blocked: bool,
    answers: Answers,
    signals: Arc<AtomicUsize>,
    drain: Duration,
    drain_until: Option<Instant>,
}

impl<P: Poller> Readiness<P> {
    fn serve(&mut self) -> io::Result<()> {
        let mut events: Vec<Event> = Vec::with_capacity(1);
        while !self.is_drained() {
            let timeout = self.timeout();
            self.poller.wait(&mut events, Some(timeout))?;
            self.answers.counters.waited(events.len());
            for event in &events {
                self.readable |= event.readable;
                self.blocked &= !event.writable;
            }
            self.turn()?;
            if self.look_at_signals() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn is_drained(&self) -> bool {
        let quiet = !self.readable && self.replies.is_empty() && self.answers.holds() == 0;
        self.drain_until.is_some() && quiet
    }

    fn timeout(&mut self) -> Duration {
        if self.readable && !self.blocked && !self.answers.is_full() {
            return Duration::ZERO;
        }
        // What is released while nothing can be sent has to wait for that.
        let release = if self.blocked { Duration::MAX } else { self.answers.releases.timeout() };
        wait_until([self.drain_until, None, None]).min(release)
    }

    fn turn(&mut self) -> io::Result<()> {
        for _ in 0..BATCHES_A_TURN {
            if self.blocked {
                break;
            }
            if self.replies.is_empty() {
                self.release();
            }
            if self.replies.is_empty() && self.readable && !self.answers.is_full() {
                self.receive()?;
            }
            if self.replies.is_empty() && !self.readable {
                break;
            }
            self.send();
        }
        let interest = match (self.blocked, self.answers.is_full()) {
            (true, _) => Interest::WRITE,
            (false, true) => Interest::NONE,
            (false, false) => Interest::READ,
        };
        if !P::EDGE && interest != self.interest {
            self.interest = interest;
            self.poller.modify(self.socket.as_fd(), LISTENER, interest)?;
        }
        Ok(())
    }

    /// Replies whose time has come join those on their way.
    fn release(&mut self) {
        while self.replies.len() < BATCH
            && let Some((peer, reply)) = self.answers.due()
        {
            let fits = self.output.put(&reply);
            debug_assert!(fits, "there is room for a batch");
            self.replies.push((self.output.bytes().len(), peer));
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        self.answers.counters.calls.recvmmsg += 1;
        let received = match self.incoming.receive(self.socket.as_fd()) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.answers.counters.empty_receives += 1;
                self.readable = false;
                return Ok(());
            }
            Err(error) => return self.answers.receive_failed(error),
        };
        // The kernel stopped because there were no more; with edges, what comes now is told.
        self.readable = received == BATCH;
        for index in 0..received {
            let (datagram, peer, truncated) = self.incoming.datagram(index);
            if self.answers.answer(datagram, peer, truncated, &mut self.output) {
                self.replies.push((self.output.bytes().len(), *peer));
            }
        }
        Ok(())
    }

    /// Sends what is on its way, as far as the kernel takes it.
    fn send(&mut self) {
        let mut tried = false;
        while self.taken < self.replies.len() {
            let start = self.start();
            self.answers.counters.calls.sendmmsg += 1;
            let rest = &self.replies[self.taken..];
            match datagram::send_batch(self.socket.as_fd(), self.output.bytes(), start, rest) {
                Ok(sent) => {
                    self.taken += sent;
                    self.answers.sent(sent as u64, (self.start() - start) as u64);
                    tried = false;
                }
                // Again in the next turn, which is at once and looks at the clock and the signals.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    self.readable = true;
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.answers.counters.short_sends += 1;
                    self.blocked = true;
                    return;
                }
                // A send may be told of what became of an earlier one, which says nothing about this one.
                Err(error) if !tried && errno::name(&error) != "EMSGSIZE" => tried = true,
                Err(error) => {
                    self.answers.refused(&error);
                    self.taken += 1;
                    tried = false;
                }
            }
        }
        self.output.clear();
        self.replies.clear();
        self.taken = 0;
    }

    /// Where the first reply that has not been taken begins.
    fn start(&self) -> usize {
        self.taken.checked_sub(1).map_or(0, |last| self.replies[last].0)
    }

    /// Says whether all is over.
    fn look_at_signals(&mut self) -> bool {
        let signals = self.signals.load(Ordering::Relaxed);
        let why = match self.drain_until {
            None if signals > 0 => {
                self.answers.begin_drain(self.socket.as_fd());
                self.drain_until = Some(drain_end(self.drain));
                self.readable = true;
                return false;
            }
            Some(_) if signals > 1 => "second signal",
            Some(then) if loadgen_core::sys::clock::now() >= then => "drain timeout",
            _ => return false,
        };
        self.answers.cut(why, self.replies.len() - self.taken);
        self.answers.count_unread(self.socket.as_fd(), &mut self.incoming);
        true
    }
}
