//! The completion loop for datagrams: one receive that goes on and fills a buffer with each, and a send for each reply.
//! The bytes of a reply are the ring's until the kernel is done with them.

use super::{Answers, drain_end};
use crate::engine::{Worker, wait_until};
use crate::stats::Counters;
use loadgen_core::protocol::Output;
use loadgen_core::sys::clock;
use loadgen_core::sys::datagram::{self, Incoming, Peer};
use loadgen_core::sys::ring::datagrams::{BUFFER_BYTES, received};
use loadgen_core::sys::ring::{Buffers, Completion, Filled, Lanes, Op, Options};
use loadgen_core::time::Instant;
use loadgen_core::transport::MESSAGE_ROOM;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Replies on their way. Beyond that, what has been received waits in its buffers, and when these are used up in the
/// kernel's.
const IN_FLIGHT_MOST: usize = 256;
const ENOBUFS: i32 = 105;
/// How long the last look for datagrams that are on their way to us takes.
const LAST_LOOK: Duration = Duration::from_millis(1);

/// Serves until told to stop and what had arrived is answered.
pub(in crate::engine) fn run(worker: Worker) -> io::Result<Counters> {
    let Worker { listener: socket, protocol, drain, signals, ready, ring, injector, .. } = worker;
    let answers = Answers::new(&socket, protocol, injector)?;
    let options = Options { buffer_bytes: ring.buffer_bytes.max(BUFFER_BYTES), receive_limit: 0, ..ring };
    let mut lanes = Lanes::default();
    let buffers = lanes.add_at_start(1, &options).map_err(|refusal| io::Error::other(refusal.to_string()))?;
    let mut server = Uring {
        lanes,
        buffers: [buffers],
        socket,
        armed: false,
        waiting: VecDeque::with_capacity(options.buffers.into()),
        in_flight: 0,
        output: Output::new(Peer::ROOM + MESSAGE_ROOM),
        answers,
        signals,
        drain,
        drain_until: None,
    };
    // Nobody listens where another thread has failed to start.
    let _ = ready.send(());
    drop(ready);
    server.serve()?;
    Ok(server.into_counters())
}

#[derive(Debug)]
struct Uring {
    lanes: Lanes,
    buffers: [Buffers; 1],
    socket: OwnedFd,
    /// The receive goes on.
    armed: bool,
    /// Received, and not answered: too many replies are on their way, or delayed.
    waiting: VecDeque<Filled>,
    in_flight: usize,
    output: Output,
    answers: Answers,
    signals: Arc<AtomicUsize>,
    drain: Duration,
    drain_until: Option<Instant>,
}

impl Uring {
    fn serve(&mut self) -> io::Result<()> {
        let mut completed = Vec::new();
        loop {
            self.arm();
            let empty = self.drain_until.is_some() && !datagram::has_datagram(self.socket.as_fd());
            let timeout = self.timeout(empty);
            self.lanes.turn(&mut self.buffers, timeout, &mut completed)?;
            self.answers.counters.waited(completed.len());
            let quiet = empty && completed.is_empty();
            for (_, completion) in completed.drain(..) {
                self.completed(completion)?;
            }
            self.work()?;
            let busy = self.in_flight > 0 || !self.waiting.is_empty() || self.answers.holds() > 0;
            if quiet && !busy {
                return Ok(());
            }
            if let Some(why) = self.look_at_signals() {
                return self.cut(why);
            }
        }
    }

    /// Receives from here on, where there is a buffer for it.
    fn arm(&mut self) {
        if !self.armed && self.buffers[0].given() > 0 {
            self.lanes.lane(0).ring.receive_datagrams(self.socket.as_fd());
            self.armed = true;
        }
    }

    fn timeout(&mut self, empty: bool) -> Duration {
        let releases = if self.has_room() { self.answers.releases.timeout() } else { Duration::MAX };
        let last_look = if empty && self.in_flight == 0 { LAST_LOOK } else { Duration::MAX };
        wait_until([self.drain_until, None, None]).min(releases).min(last_look)
    }

    fn has_room(&self) -> bool {
        self.in_flight < IN_FLIGHT_MOST
    }

    fn completed(&mut self, completion: Completion) -> io::Result<()> {
        let Completion { token, result, more, filled, .. } = completion;
        match token.op() {
            Some(Op::ReceiveFrom) => {
                if !more {
                    self.armed = false;
                    self.lanes.lane(0).flows.counters.rearms += 1;
                }
                self.waiting.extend(filled);
                match -result {
                    ENOBUFS => self.lanes.lane(0).flows.counters.buffer_shortages += 1,
                    error @ 1.. => self.answers.receive_failed(io::Error::from_raw_os_error(error))?,
                    _ => {}
                }
            }
            Some(Op::SendTo) => {
                self.in_flight -= 1;
                match result {
                    0.. => self.answers.sent(1, result as u64),
                    error => self.answers.refused(&io::Error::from_raw_os_error(-error)),
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Answers what has been received and sends what is due, as far as there is room.
    fn work(&mut self) -> io::Result<()> {
        while self.has_room()
            && let Some((peer, reply)) = self.answers.due()
        {
            self.begin(&peer);
            let fits = self.output.put(&reply);
            debug_assert!(fits, "there is room for any datagram");
            self.send()?;
        }
        while self.has_room()
            && !self.answers.is_full()
            && let Some(filled) = self.waiting.pop_front()
        {
            self.answer(&filled)?;
            self.buffers[0].give_back(filled);
        }
        Ok(())
    }

    fn answer(&mut self, filled: &Filled) -> io::Result<()> {
        let piece = self.buffers[0].pieces(filled).next().unwrap_or_default();
        let Some((datagram, peer, truncated)) = received(piece) else {
            return Err(io::Error::other("io_uring: a received datagram is not laid out as documented"));
        };
        self.output.clear();
        // An empty output has room for an address.
        let _ = self.output.put(&peer.padded());
        if self.answers.answer(datagram, &peer, truncated, &mut self.output) { self.send() } else { Ok(()) }
    }

    /// A reply begins with the address that it goes to.
    fn begin(&mut self, peer: &Peer) {
        self.output.clear();
        // An empty output has room for an address.
        let _ = self.output.put(&peer.padded());
    }

    fn send(&mut self) -> io::Result<()> {
        let ring = &mut self.lanes.lane(0).ring;
        let bytes = self.output.take(ring.spare());
        let lease = ring.lend(bytes)?;
        ring.send_datagram(self.socket.as_fd(), lease);
        self.in_flight += 1;
        Ok(())
    }

    /// Why all is over, if it is.
    fn look_at_signals(&mut self) -> Option<&'static str> {
        let signals = self.signals.load(Ordering::Relaxed);
        match self.drain_until {
            None if signals > 0 => {
                self.answers.begin_drain(self.socket.as_fd());
                self.drain_until = Some(drain_end(self.drain));
                None
            }
            Some(_) if signals > 1 => Some("second signal"),
            Some(then) if clock::now() >= then => Some("drain timeout"),
            _ => None,
        }
    }

    /// What is under way, received or not read will not be answered.
    fn cut(&mut self, why: &str) -> io::Result<()> {
        // First the socket: from then on the ring finds nothing more in it either, and what it had taken is told.
        self.answers.count_unread(self.socket.as_fd(), &mut Incoming::default());
        let mut completed = Vec::new();
        self.lanes.turn(&mut self.buffers, Duration::ZERO, &mut completed)?;
        for (_, completion) in completed {
            self.completed(completion)?;
        }
        self.answers.cut(why, self.in_flight);
        while let Some(filled) = self.waiting.pop_front() {
            self.answers.counters.requests += 1;
            self.answers.dropped("cut", 1);
            self.buffers[0].give_back(filled);
        }
        Ok(())
    }

    fn into_counters(self) -> Counters {
        let mut counters = self.answers.into_counters();
        let ring = self.lanes.stats();
        for (name, count) in self.lanes.calls() {
            match name {
                "io_uring_enter" => counters.poller.wait += count,
                "ppoll" => counters.calls.ppoll += count,
                _ => {}
            }
        }
        counters.ring = Some(ring);
        counters
    }
}
