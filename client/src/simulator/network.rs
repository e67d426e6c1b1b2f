//! A network in virtual time: what the session hands over arrives at a peer later, in pieces or not at all, and what
//! the peer answers comes back the same way.

use super::faults::{Fault, Faults};
use super::peer::{Peer, Said};
use crate::engine::{Handler, Io};
use loadgen_core::load::Load;
use loadgen_core::protocol::{Protocol, Shape};
use loadgen_core::rng::Rng;
use loadgen_core::time::{Instant, NS_PER_MS};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::ops::Range;

/// No byte gets from one end to the other in less time.
pub(super) const ONE_WAY_MIN_NS: u64 = 20_000;

/// What reading the clock takes, so that no two instants are the same.
const CLOCK_NS: u64 = 40;

/// What happens when its time has come.
#[derive(Debug)]
enum Event {
    Connected(io::Result<()>),
    /// The peer looks at bytes of ours, or at a datagram.
    Arrived(Vec<u8>),
    /// Bytes of the peer, or a datagram.
    Received(Vec<u8>),
    Writable,
    Ended(Option<ErrorKind>),
}

/// A connection and both of its ends.
#[derive(Debug)]
struct Link {
    /// Events of an earlier connection in the same slot are nobody's.
    generation: u64,
    fault: Option<Fault>,
    /// What our kernel takes before the peer has read.
    room: usize,
    /// Our side was told that there is no room.
    blocked: bool,
    peer: Peer,
    /// Nothing of ours, or of the peer, comes before that: streams are in order.
    /// Bytes that the engine took although the kernel has no room for them yet.
    held: Vec<u8>,
    next_arrival: Instant,
    next_delivery: Instant,
    broken: bool,
    over: bool,
}

/// The engine's side of it.
#[derive(Debug)]
pub(super) struct Network {
    protocol: &'static Protocol,
    now: Cell<u64>,
    rng: Rng,
    faults: Faults,
    /// As engine io_uring does: what is handed over is the engine's, whether the kernel has room for it or not.
    engine_holds: bool,
    /// Of what it took, so much never left.
    not_taken: i64,
    wire: Vec<u8>,
    /// Of which all are copies; empty where they differ.
    request: Vec<u8>,
    size: usize,
    /// By time, then in the order in which they were made.
    events: BTreeMap<(Instant, u64), (u32, u64, Event)>,
    made: u64,
    links: Vec<Option<Link>>,
    /// What both ends saw, to be held against the tally.
    pub(super) taken_bytes: u64,
    pub(super) delivered_bytes: u64,
    pub(super) connects: u64,
    pub(super) answered: u64,
    /// A stream had bytes that answered nothing: they may have been taken for the reply to the request behind.
    pub(super) misled: bool,
}

impl Network {
    pub(super) fn new(
        protocol: &'static Protocol,
        (request, size): (Vec<u8>, usize),
        depth: usize,
        capacity: usize,
        faults: Faults,
        seed: u64,
    ) -> Self {
        Self {
            protocol,
            now: Cell::new(NS_PER_MS),
            rng: Rng::new(!seed),
            engine_holds: seed.is_multiple_of(3),
            not_taken: 0,
            faults,
            wire: request.repeat(depth),
            request,
            size,
            events: BTreeMap::new(),
            made: 0,
            links: std::iter::repeat_with(|| None).take(capacity).collect(),
            taken_bytes: 0,
            delivered_bytes: 0,
            connects: 0,
            answered: 0,
            misled: false,
        }
    }

    /// When something happens next.
    pub(super) fn next(&self) -> Instant {
        self.events.first_key_value().map_or(Instant::NEVER, |((at, _), _)| *at)
    }

    /// The time, without its being looked at.
    pub(super) fn time(&self) -> Instant {
        Instant(self.now.get())
    }

    /// Time passes until then; it never goes back.
    pub(super) fn pass(&self, until: Instant) {
        self.now.set(self.now.get().max(until.0));
    }

    /// Tells the session all that has happened by now, as an engine does: in order, nothing of a closed connection.
    pub(super) fn turn(&mut self, session: &mut Load) {
        let until = Instant(self.now.get());
        while self.next() <= until {
            let Some((_, (slot, generation, event))) = self.events.pop_first() else { return };
            if self.links[slot as usize].as_ref().is_some_and(|link| link.generation == generation) {
                self.tell(session, slot, event);
            }
        }
    }

    /// Tells what never left, as an engine does behind all else.
    pub(super) fn tell_not_taken(&mut self, session: &mut Load) {
        let bytes = std::mem::take(&mut self.not_taken);
        self.taken_bytes -= bytes as u64;
        <Load as Handler<Self>>::not_taken(session, bytes);
    }

    fn tell(&mut self, session: &mut Load, slot: u32, event: Event) {
        match event {
            Event::Connected(outcome) => {
                if outcome.is_err() {
                    self.links[slot as usize] = None;
                }
                session.connected(self, slot, outcome);
            }
            Event::Arrived(bytes) => self.arrived(slot, &bytes),
            Event::Received(bytes) => {
                self.delivered_bytes += bytes.len() as u64;
                session.received(self, slot, &bytes);
            }
            Event::Writable => {
                if let Some(link) = &mut self.links[slot as usize] {
                    link.blocked = false;
                    if !link.held.is_empty() && link.room > 0 {
                        return self.go_on_sending(slot);
                    }
                }
                session.writable(self, slot);
            }
            Event::Ended(cause) => session.ended(self, slot, cause.map(io::Error::from)),
        }
    }

    fn later(&mut self, after_ns: u64, slot: u32, event: Event) {
        self.at(self.time().after(after_ns), slot, event);
    }

    fn at(&mut self, at: Instant, slot: u32, event: Event) {
        let Some(link) = &self.links[slot as usize] else { return };
        self.made += 1;
        self.events.insert((at, self.made), (slot, link.generation, event));
    }

    fn one_way_ns(&mut self) -> u64 {
        ONE_WAY_MIN_NS + self.rng.below(50_000)
    }

    /// The peer reads what has arrived, and answers.
    fn arrived(&mut self, slot: u32, bytes: &[u8]) {
        let Some(link) = &mut self.links[slot as usize] else { return };
        let datagram = self.protocol.shape == Shape::Datagram;
        if link.over || !datagram && link.fault == Some(Fault::NeverReads) && link.peer.requests > 0 {
            return;
        }
        let said = link.peer.read(bytes, link.fault, &mut self.rng);
        link.room += bytes.len();
        let answered = said.iter().filter(|said| matches!(said, Said::Reply(_))).count() as u64;
        self.answered += answered;
        self.misled |= said.iter().any(|said| matches!(said, Said::Noise(_)));
        for said in said {
            self.say(slot, said);
        }
        self.go_on_sending(slot);
    }

    /// There is room again.
    fn go_on_sending(&mut self, slot: u32) {
        let Some(link) = &mut self.links[slot as usize] else { return };
        let held = std::mem::take(&mut link.held);
        let moved = held.len().min(link.room);
        link.room -= moved;
        link.held = held[moved..].to_vec();
        let goes_on = link.held.is_empty() && (link.blocked || moved > 0);
        self.leaves(slot, &held[..moved]);
        if goes_on {
            self.later(1_000, slot, Event::Writable);
        }
    }

    fn say(&mut self, slot: u32, said: Said) {
        let datagram = self.protocol.shape == Shape::Datagram;
        let delay_ns = self.one_way_ns() + self.faults.service_ns(&mut self.rng);
        let now = self.time();
        let Some(link) = &mut self.links[slot as usize] else { return };
        let mut at = now.after(delay_ns);
        if !datagram {
            at = at.max(link.next_delivery);
            link.next_delivery = at.after(1);
        }
        match said {
            Said::Reply(bytes) | Said::Noise(bytes) if datagram => self.at(at, slot, Event::Received(bytes)),
            Said::Reply(bytes) | Said::Noise(bytes) => self.deliver(slot, at, &bytes),
            Said::End => {
                link.over = true;
                self.at(at, slot, Event::Ended(None));
            }
            Said::Reset => {
                (link.over, link.broken) = (true, true);
                self.at(at, slot, Event::Ended(Some(ErrorKind::ConnectionReset)));
            }
        }
    }

    /// A stream may be cut anywhere.
    fn deliver(&mut self, slot: u32, at: Instant, bytes: &[u8]) {
        let mut rest = bytes;
        let mut at = at;
        while !rest.is_empty() {
            let piece = match self.rng.below(4) {
                0 => 1 + self.rng.below(rest.len() as u64) as usize,
                _ => rest.len(),
            };
            self.at(at, slot, Event::Received(rest[..piece].to_vec()));
            rest = &rest[piece..];
            at = at.after(1 + self.rng.below(30_000));
        }
        if let Some(link) = &mut self.links[slot as usize] {
            link.next_delivery = at;
        }
    }

    fn take(&mut self, slot: u32, bytes: &[u8]) -> io::Result<usize> {
        let datagram = self.protocol.shape == Shape::Datagram;
        let Some(link) = &mut self.links[slot as usize] else { return Err(ErrorKind::NotConnected.into()) };
        if link.broken {
            return Err(ErrorKind::BrokenPipe.into());
        }
        if !link.held.is_empty() {
            link.blocked = true;
            return Ok(0);
        }
        let most = if datagram && link.room < bytes.len() { 0 } else { bytes.len().min(link.room) };
        let taken = match self.rng.below(8) {
            0 if most > 1 && !datagram => 1 + self.rng.below(most as u64 - 1) as usize,
            _ => most,
        };
        link.room -= taken;
        if self.engine_holds && !datagram {
            link.held = bytes[taken..].to_vec();
            let waits_for_nobody = link.room > 0 && !link.held.is_empty();
            self.taken_bytes += bytes.len() as u64;
            self.leaves(slot, &bytes[..taken]);
            if waits_for_nobody {
                self.later(2_000, slot, Event::Writable);
            }
            return Ok(bytes.len());
        }
        if taken < bytes.len() {
            link.blocked = true;
            // What was cut short although there was room goes on soon, as an engine has it.
            if link.room > 0 && !datagram {
                self.later(2_000, slot, Event::Writable);
            }
        }
        self.taken_bytes += taken as u64;
        self.leaves(slot, &bytes[..taken]);
        Ok(taken)
    }

    /// Bytes set out for the peer.
    fn leaves(&mut self, slot: u32, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let delay_ns = self.one_way_ns() + self.faults.reading_ns(&mut self.rng);
        let mut at = self.time().after(delay_ns);
        let datagram = self.protocol.shape == Shape::Datagram;
        if let Some(link) = self.links[slot as usize].as_mut().filter(|_| !datagram) {
            at = at.max(link.next_arrival);
            link.next_arrival = at.after(1);
        }
        self.at(at, slot, Event::Arrived(bytes.to_vec()));
    }
}

impl Io for Network {
    fn now(&self) -> Instant {
        self.now.set(self.now.get() + CLOCK_NS);
        Instant(self.now.get())
    }

    fn connect(&mut self, slot: u32, _address: usize, _attempt: usize) -> io::Result<()> {
        assert!(self.links[slot as usize].is_none(), "slot {slot} is connected twice");
        self.connects += 1;
        let outcome = self.faults.connect(&mut self.rng);
        if outcome == Some(Fault::ConnectFailsAtOnce) {
            return Err(ErrorKind::AddrNotAvailable.into());
        }
        // At least a datagram.
        let least = if self.protocol.shape == Shape::Datagram { self.size } else { 1 };
        let room = self.faults.capacity(&mut self.rng).max(least);
        let fault = self.faults.connection(&mut self.rng);
        self.links[slot as usize] = Some(Link {
            generation: self.connects,
            fault,
            room,
            blocked: false,
            peer: Peer::new(self.protocol, &self.request, self.size),
            held: Vec::new(),
            next_arrival: Instant(0),
            next_delivery: Instant(0),
            broken: false,
            over: false,
        });
        let delay_ns = 2 * self.one_way_ns();
        match outcome {
            Some(Fault::ConnectHangs) => {}
            Some(_) => self.later(delay_ns, slot, Event::Connected(Err(ErrorKind::ConnectionRefused.into()))),
            None => self.later(delay_ns, slot, Event::Connected(Ok(()))),
        }
        if outcome.is_none() && fault == Some(Fault::EndsUnasked) {
            let after_ns = delay_ns + self.rng.below(300 * NS_PER_MS);
            self.later(after_ns, slot, Event::Ended(None));
        }
        Ok(())
    }

    fn send(&mut self, slot: u32, wire: Range<usize>) -> io::Result<usize> {
        let bytes = std::mem::take(&mut self.wire);
        let taken = self.take(slot, &bytes[wire]);
        self.wire = bytes;
        taken
    }

    fn send_own(&mut self, slot: u32, bytes: &[u8]) -> io::Result<usize> {
        self.take(slot, bytes)
    }

    fn end_stream(&mut self, slot: u32) {
        let delay_ns = 2 * self.one_way_ns();
        self.later(delay_ns, slot, Event::Ended(None));
    }

    fn has_left_over(&self, slot: u32) -> bool {
        self.links[slot as usize].as_ref().is_some_and(|link| !link.held.is_empty())
    }

    fn close(&mut self, slot: u32) {
        if let Some(link) = self.links[slot as usize].take() {
            self.not_taken += link.held.len() as i64;
        }
    }

    fn resume(&mut self, slot: u32) {
        self.later(1_000, slot, Event::Writable);
    }
}
