//! Completions by script: thousands of seeded runs of an engine that echoes, with all that a kernel may do to it. What
//! must hold whatever happens is checked on the way (see [`Script`]) and at the end.

use super::buffers::Filled;
use super::flow::{Completion, Event, Flows};
use super::script::{ACCEPTED, SLOTS, Script, Seen};
use super::token::{Op, Token};
use crate::rng::Rng;
use std::collections::HashMap;

const SEEDS: u64 = if cfg!(miri) { 3 } else { 2500 };
const TURNS: u32 = if cfg!(miri) { 60 } else { 120 };
/// A calm run in which nothing has come to rest by then never will.
const PATIENCE: u32 = 5000;

/// What the engine knows of a socket.
#[derive(Debug, Default)]
struct Conn {
    slot: u32,
    connected: bool,
    closed: bool,
    received: Vec<u8>,
    /// What was given to be sent.
    handed: Vec<u8>,
    /// Received and not yet given to be sent.
    to_echo: Vec<u8>,
    /// As said by `close`, by failed sends, and by completions that came too late.
    unsent: usize,
    taken_late: usize,
    /// As said by the sends that went well.
    sent: usize,
    /// An answer to a look is owed to us.
    looking: bool,
    ended: Option<i32>,
    send_failed: bool,
}

struct Echo {
    script: Script,
    flows: Flows,
    rng: Rng,
    /// By number of the socket, and which number a token means.
    conns: Vec<Conn>,
    numbers: HashMap<(u32, u16), usize>,
    /// Received bytes that have not been given back.
    held: Vec<Filled>,
    /// Bytes that all connections send from: 0 to 255.
    shared: u32,
}

impl Echo {
    fn new(seed: u64) -> Self {
        let mut script = Script::new(seed);
        let shared = script.leases.lend((0..=255).collect()).unwrap();
        let (flows, rng) = (Flows::default(), Rng::new(!seed));
        Self { script, flows, rng, conns: Vec::new(), numbers: HashMap::new(), held: Vec::new(), shared }
    }

    fn chance(&mut self, times: u64) -> bool {
        self.rng.below(times) == 0
    }

    /// One pass of the loop.
    fn turn(&mut self) {
        self.give_some_back();
        if self.script.calm || self.chance(2) {
            self.script.may_feed();
            self.flows.feed(&mut self.script, usize::MAX);
        }
        self.script.submit();
        for _ in 0..self.rng.below(6) {
            self.script.step();
        }
        for _ in 0..self.rng.below(8) {
            let Some(completion) = self.script.reap() else { break };
            self.complete(completion);
        }
        if !self.script.calm {
            self.do_as_you_like();
        }
    }

    fn give_some_back(&mut self) {
        while !self.held.is_empty() && (self.script.calm || self.chance(2)) {
            // In any order.
            let index = self.rng.below(self.held.len() as u64) as usize;
            let filled = self.held.swap_remove(index);
            self.script.give_back(&filled);
        }
    }

    /// Socket `number` is in the slot. Others before it may not have been told yet.
    fn admit(&mut self, slot: u32, generation: u16, number: usize, connected: bool) {
        self.numbers.insert((slot, generation), number);
        let len = self.conns.len().max(number + 1);
        self.conns.resize_with(len, || Conn { closed: true, ..Conn::default() });
        self.conns[number] = Conn { slot, connected, ..Conn::default() };
    }

    fn complete(&mut self, completion: Completion) {
        let token = completion.token;
        let accept = token.op() == Some(Op::Accept);
        let number = self.numbers.get(&(token.slot(), token.generation())).copied().filter(|_| !accept);
        let more = completion.more;
        let event = self.flows.complete(&mut self.script, completion);
        if accept {
            return self.accepted(event, more);
        }
        let number = number.expect("every socket was admitted");
        let slot = self.conns[number].slot;
        assert!(!self.conns[number].closed || matches!(event, Event::Stale { .. } | Event::Nothing), "{event:?}");
        match event {
            Event::Nothing => {}
            Event::Stale { filled, taken } => {
                assert!(self.conns[number].closed, "stale, but open");
                self.conns[number].taken_late += taken as usize;
                if let Some(filled) = filled {
                    self.take(number, filled);
                }
            }
            Event::Received { slot: at, filled, look } => {
                assert_eq!((at, look), (slot, token.op() == Some(Op::Look)));
                self.take(number, filled);
                self.received(number);
            }
            Event::Empty { .. } => {
                // Who has asked for receives meanwhile gets them without asking again.
                let looking = std::mem::take(&mut self.conns[number].looking);
                if looking && (self.script.calm || !self.chance(4)) {
                    self.flows.receive(&mut self.script, slot);
                }
            }
            Event::Ended { error, .. } => self.ended(number, error),
            Event::Connected { error: 0, .. } => {
                self.conns[number].connected = true;
                self.flows.receive(&mut self.script, slot);
                self.send_something(number);
            }
            Event::Connected { .. } => self.close(number),
            Event::Sent { bytes, .. } => {
                self.conns[number].sent += bytes as usize;
                self.send_something(number);
            }
            Event::PartlySent { bytes } => self.conns[number].sent += bytes as usize,
            Event::SendFailed { unsent, error, .. } => {
                assert_eq!(error, libc::EPIPE, "nothing else breaks a connection");
                self.conns[number].unsent += unsent as usize;
                self.conns[number].send_failed = true;
                if self.chance(2) {
                    self.close(number);
                }
            }
            Event::StreamEnded { .. } => self.close(number),
            Event::Accepted { .. } | Event::AcceptEnded { .. } => unreachable!("no accept: {event:?}"),
            Event::EmptyMessage { .. } | Event::MessageFailed { .. } => unreachable!("a stream: {event:?}"),
        }
    }

    fn accepted(&mut self, event: Event, more: bool) {
        let over = match event {
            Event::Nothing => false,
            Event::AcceptEnded { error } => error != 0,
            Event::Accepted { slot, last } => {
                let number = self.script.socket_in(slot);
                let generation = self.flows.admit(slot, false);
                self.admit(slot, generation, number, true);
                self.flows.receive(&mut self.script, slot);
                last
            }
            _ => unreachable!("{event:?}"),
        };
        assert_eq!(over, !more, "accepting is over when the kernel says so");
        self.script.accepting |= over && !self.script.calm;
    }

    fn take(&mut self, number: usize, filled: Filled) {
        let bytes = self.script.bytes(&filled);
        let conn = &mut self.conns[number];
        conn.received.extend(&bytes);
        conn.to_echo.extend(&bytes);
        self.held.push(filled);
        self.give_some_back();
    }

    fn received(&mut self, number: usize) {
        let conn = &self.conns[number];
        if conn.looking {
            self.flows.look(&mut self.script, conn.slot);
        }
        self.send_something(number);
    }

    fn ended(&mut self, number: usize, error: i32) {
        let conn = &mut self.conns[number];
        assert!(conn.ended.is_none(), "a stream ends once, but for those who look again");
        (conn.ended, conn.looking) = (Some(error), false);
        let socket = &self.script.sockets[number];
        assert_eq!((conn.received.len(), conn.ended), (socket.gives.len(), socket.ends), "the end comes last");
        let slot = conn.slot;
        if error != 0 && self.chance(2) {
            self.close(number);
        } else if error == 0 && !self.script.calm && self.chance(4) {
            self.flows.end_stream(&mut self.script, slot);
        }
    }

    fn close(&mut self, number: usize) {
        let conn = &mut self.conns[number];
        conn.unsent += self.flows.close(&mut self.script, conn.slot) as usize;
        conn.closed = true;
    }

    /// Sends what is to be echoed from a lease of its own, or from the shared one, or nothing.
    fn send_something(&mut self, number: usize) {
        let slot = self.conns[number].slot;
        if self.conns[number].send_failed || self.flows.is_sending(slot) {
            return;
        }
        if !self.script.calm && self.chance(4) {
            let from = self.rng.below(200) as u32;
            let to = from + 1 + self.rng.below(50) as u32;
            self.conns[number].handed.extend(from as u8..to as u8);
            return self.flows.send_shared(&mut self.script, slot, self.shared, from, to);
        }
        let conn = &mut self.conns[number];
        if !conn.to_echo.is_empty() {
            let mut bytes = self.script.leases.spare();
            bytes.append(&mut conn.to_echo);
            conn.handed.extend(&bytes);
            let len = bytes.len() as u32;
            let lease = self.script.leases.lend(bytes).unwrap();
            self.flows.send_owned(&mut self.script, slot, lease, len);
        }
    }

    /// What an engine may want to do at any time.
    fn do_as_you_like(&mut self) {
        if self.chance(6)
            && let Some(slot) = (ACCEPTED..SLOTS).find(|slot| !self.flows.is_open(*slot))
        {
            let generation = self.flows.admit(slot, true);
            let number = self.script.connect(Token::new(Op::Connect, generation, slot));
            self.admit(slot, generation, number, false);
        }
        let open: Vec<usize> = (0..self.conns.len()).filter(|number| !self.conns[*number].closed).collect();
        if open.is_empty() {
            return;
        }
        let number = open[self.rng.below(open.len() as u64) as usize];
        let (slot, connected) = (self.conns[number].slot, self.conns[number].connected);
        match self.rng.below(40) {
            0..=2 => self.close(number),
            _ if !connected => {}
            3..=6 => self.flows.pause(&mut self.script, slot),
            7..=14 => {
                self.flows.receive(&mut self.script, slot);
                self.conns[number].looking = false;
            }
            15..=19 => {
                self.flows.look(&mut self.script, slot);
                self.conns[number].looking = true;
                self.conns[number].ended = None; // which the look tells again
            }
            20..=25 => self.send_something(number),
            _ => {}
        }
    }

    /// From here on nothing goes wrong, and everything has to come to its end.
    fn calm_down(&mut self) {
        self.script.calm = true;
        for number in 0..self.conns.len() {
            // Who looks is owed an answer, and receives after that.
            let Conn { slot, closed: false, connected: true, looking, .. } = self.conns[number] else { continue };
            self.send_something(number);
            if !looking {
                self.flows.receive(&mut self.script, slot);
            }
        }
        for _ in 0..PATIENCE {
            self.turn();
            if (0..self.conns.len()).all(|number| self.is_done(number)) {
                return;
            }
        }
        let stuck = (0..self.conns.len()).find(|number| !self.is_done(*number)).unwrap();
        panic!("socket {stuck} gets no further: {:?} {:?}", self.conns[stuck], self.script.sockets[stuck]);
    }

    /// Whether all bytes of a connection have gone where they belong.
    fn is_done(&self, number: usize) -> bool {
        let (conn, socket) = (&self.conns[number], &self.script.sockets[number]);
        let received = conn.received.len() == socket.gives.len() && conn.ended == socket.ends;
        let echoed = conn.send_failed || conn.to_echo.is_empty() && conn.handed.len() == socket.takes.len();
        let waits = self.flows.is_sending(conn.slot) || !echoed || !conn.connected;
        conn.closed || !conn.looking && (received || !conn.connected) && (socket.silent || !waits)
    }

    /// Closes everything, and hears of the last completions.
    fn wind_up(&mut self) {
        self.script.accepting = false;
        for number in 0..self.conns.len() {
            if !self.conns[number].closed {
                self.close(number);
            }
        }
        self.script.leases.release(self.shared);
        for _ in 0..PATIENCE {
            self.turn();
            if self.script.is_quiet() && self.held.is_empty() {
                break;
            }
        }
        (0..50).for_each(|_| self.turn());
    }

    fn check(&self) {
        self.script.check_empty();
        assert_eq!((self.flows.open(), self.conns.len()), (0, self.script.sockets.len()));
        for (number, (conn, socket)) in self.conns.iter().zip(&self.script.sockets).enumerate() {
            assert!(conn.received == socket.gives[..socket.given], "socket {number}: received other than given");
            assert!(conn.handed.starts_with(&socket.takes), "socket {number}: sent other than handed");
            let accounted = conn.handed.len() - conn.unsent + conn.taken_late;
            assert_eq!(accounted, socket.takes.len(), "socket {number}: handed, less unsent, and taken late");
            assert_eq!(conn.sent + conn.taken_late, socket.takes.len(), "socket {number}: sent, and taken late");
        }
    }
}

fn run(seed: u64) -> (Seen, Flows) {
    let mut echo = Echo::new(seed);
    for _ in 0..TURNS {
        echo.turn();
    }
    // Accepted sockets of which we have not heard yet.
    echo.script.accepting = false;
    while let Some(completion) = echo.script.reap() {
        echo.complete(completion);
    }
    echo.calm_down();
    echo.wind_up();
    echo.check();
    (echo.script.seen, echo.flows)
}

/// Says which seed went wrong: `LOADGEN_SEED=n` runs that one alone.
struct Failing(u64);

impl Drop for Failing {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}", self.0);
        }
    }
}

#[test]
fn no_byte_buffer_or_lease_is_lost_whatever_the_kernel_does() {
    let alone: Option<u64> = std::env::var("LOADGEN_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = alone.map_or(0..SEEDS, |seed| seed..seed + 1);
    let (mut seen, mut stale, mut rearms) = (Seen::default(), 0, 0);
    for seed in seeds {
        let failing = Failing(seed);
        let (now, flows) = run(seed);
        drop(failing);
        seen.add(now);
        stale += flows.counters.stale;
        rearms += flows.counters.rearms;
    }
    // A script that never does the rare things proves nothing.
    assert!(alone.is_some() || cfg!(miri) || seen.all_above(1000) && stale > 1000 && rearms > 1000, "{seen:?}");
}
