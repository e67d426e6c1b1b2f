//! A network in virtual time: what the load hands over arrives at a peer later, in pieces or not at all, and what
//! the peer answers comes back the same way.

use super::faults::{Fault, Faults};
use super::peer::{Kind, Peer, Said};
use super::truth::{Message, Truth, Visit};
use loadgen_core::engine::{Handler, Io};
use loadgen_core::load::Load;
use loadgen_core::protocol::Shape;
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
    /// The peer looks at bytes of ours, or at a message.
    Arrived(Vec<u8>),
    /// Bytes of the peer, or a message. They end the reply to which request of the connection.
    Received(Vec<u8>, Option<usize>),
    Writable,
    /// The peer has more of an endless stream.
    Produces,
    /// Our stream ended, and the peer has read all of it.
    StreamEnded,
    Ended(Option<ErrorKind>),
}

/// A connection and both of its ends.
#[derive(Debug)]
struct Link {
    /// Events of an earlier connection in the same slot are nobody's. Its place in [`Truth::visits`].
    generation: u64,
    fault: Option<Fault>,
    /// What our kernel takes before the peer has read.
    room: usize,
    /// Our side was told that there is no room.
    blocked: bool,
    peer: Peer,
    /// Bytes that the engine took although the kernel has no room for them yet.
    held: Vec<u8>,
    /// Our stream has ended; behind those that are held.
    ends: bool,
    /// Nothing of ours, or of the peer, comes before that: streams are in order.
    next_arrival: Instant,
    next_delivery: Instant,
    broken: bool,
    over: bool,
}

/// The engine's side of it.
#[derive(Debug)]
pub(super) struct Network {
    kind: Kind,
    now: Cell<u64>,
    rng: Rng,
    faults: Faults,
    /// As engine io_uring does: what is handed over is the engine's, whether the kernel has room for it or not.
    pub(super) engine_holds: bool,
    /// Likewise: what it takes leaves when all is done that there is to do; what it took since then.
    queues: bool,
    queued: Queued,
    handed_early: bool,
    /// Of what it took, so much never left.
    not_taken: i64,
    wire: Vec<u8>,
    /// By time, then in the order in which they were made.
    events: BTreeMap<(Instant, u64), (u32, u64, Event)>,
    made: u64,
    links: Vec<Option<Link>>,
    /// What both ends saw, to be held against the tally.
    pub(super) truth: Truth,
    pub(super) answered: u64,
    /// Of all targets.
    pub(super) addresses: usize,
    /// A stream had bytes that answered nothing: they may have been taken for the reply to the request behind.
    pub(super) misled: bool,
}

/// What the engine took and has yet to hand over.
#[derive(Debug, Default)]
struct Queued {
    /// When it took the first of it, and how many events had been made by then.
    since: Option<(Instant, u64)>,
    /// Entries of visits, and messages, whose time it is.
    taken: Vec<(u64, usize)>,
    messages: Vec<(u32, u64)>,
}

impl Network {
    pub(super) fn new(kind: Kind, depth: usize, capacity: usize, faults: Faults, seed: u64) -> Self {
        Self {
            now: Cell::new(NS_PER_MS),
            rng: Rng::new(!seed),
            engine_holds: seed.is_multiple_of(3),
            queues: seed % 5 < 2,
            queued: Queued::default(),
            handed_early: false,
            not_taken: 0,
            faults,
            wire: kind.request.repeat(depth),
            kind,
            events: BTreeMap::new(),
            made: 0,
            links: std::iter::repeat_with(|| None).take(capacity).collect(),
            truth: Truth::default(),
            answered: 0,
            addresses: 1,
            misled: false,
        }
    }

    fn has_messages(&self) -> bool {
        self.kind.protocol.transport.has_messages()
    }

    /// Connections that nobody has closed.
    pub(super) fn left_open(&self) -> usize {
        self.links.iter().flatten().count()
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

    /// A time that is after all that has happened.
    pub(super) fn moment(&mut self) -> Instant {
        self.pass(self.time().after(100));
        self.time()
    }

    /// The engine hands over what it took: all that sets out for peers does so now.
    pub(super) fn hand_over(&mut self, load: &mut Load) {
        if !self.queues {
            return;
        }
        let (now, early) = (self.moment(), self.handed_early());
        <Load as Handler<Self>>::handed(load, || if early { Instant(0) } else { now });
        self.leave_at(now);
    }

    fn leave_at(&mut self, now: Instant) {
        let Queued { since, taken, messages } = std::mem::take(&mut self.queued);
        let Some((since, made)) = since else { return };
        taken.into_iter().for_each(|(visit, entry)| self.truth.visits[visit as usize].taken[entry].1 = now);
        for key in messages {
            self.truth.messages.entry(key).and_modify(|message| message.taken = now);
        }
        let later_ns = now.since(since);
        let is_later = |((_, number), (.., event)): &(&(Instant, u64), &(u32, u64, Event))| {
            *number > made && matches!(event, Event::Arrived(_) | Event::StreamEnded)
        };
        let later: Vec<(Instant, u64)> = self.events.iter().filter(is_later).map(|(key, _)| *key).collect();
        for (at, number) in later.into_iter().rev() {
            if let Some(event) = self.events.remove(&(at, number)) {
                self.events.insert((at.after(later_ns), number), event);
            }
        }
        self.links.iter_mut().flatten().for_each(|link| link.next_arrival = link.next_arrival.after(later_ns));
    }

    /// Tells the load all that has happened by now, as an engine does: in order, nothing of a closed connection.
    pub(super) fn turn(&mut self, load: &mut Load) {
        let until = Instant(self.now.get());
        while self.next() <= until {
            let Some((_, (slot, generation, event))) = self.events.pop_first() else { return };
            if self.links[slot as usize].as_ref().is_some_and(|link| link.generation == generation) {
                self.tell(load, slot, event);
            }
        }
    }

    /// Tells what never left, as an engine does behind all else.
    pub(super) fn tell_not_taken(&mut self, load: &mut Load) {
        let bytes = std::mem::take(&mut self.not_taken);
        self.truth.taken_bytes = self.truth.taken_bytes.wrapping_add_signed(-bytes);
        <Load as Handler<Self>>::not_taken(load, bytes);
    }

    fn tell(&mut self, load: &mut Load, slot: u32, event: Event) {
        match event {
            Event::Connected(outcome) => self.tell_connected(load, slot, outcome),
            Event::Arrived(bytes) => self.arrived(slot, &bytes),
            Event::Received(bytes, reply) => {
                self.note_told(slot, &bytes, reply);
                load.received(self, slot, &bytes);
            }
            Event::Writable => {
                if let Some(link) = &mut self.links[slot as usize] {
                    link.blocked = false;
                    if !link.held.is_empty() && link.room > 0 {
                        return self.go_on_sending(slot);
                    }
                }
                load.writable(self, slot);
            }
            Event::Produces => self.produces(slot),
            Event::StreamEnded => self.stream_ended(slot),
            Event::Ended(cause) => {
                if let Some(visit) = self.visit(slot) {
                    visit.ended = true;
                }
                load.ended(self, slot, cause.map(io::Error::from));
            }
        }
    }

    fn tell_connected(&mut self, load: &mut Load, slot: u32, outcome: io::Result<()>) {
        let now = self.time();
        if let Some(visit) = self.visit(slot) {
            match outcome {
                Ok(()) => visit.established = Some(now),
                Err(_) => visit.gone = Some(now),
            }
        }
        if outcome.is_err() {
            self.links[slot as usize] = None;
        } else if self.kind.protocol.shape == Shape::Download {
            self.later(ONE_WAY_MIN_NS, slot, Event::Produces);
        }
        load.connected(self, slot, outcome);
    }

    /// The load is about to be told these bytes.
    fn note_told(&mut self, slot: u32, bytes: &[u8], reply: Option<usize>) {
        let now = self.time();
        self.truth.delivered_bytes += bytes.len() as u64;
        self.truth.bytes_now(now);
        if self.has_messages() {
            self.truth.messages_told += 1;
            let whole = bytes.len() == self.kind.size;
            let tag = sequence_of(bytes);
            self.truth.foreign_told += u64::from(tag.is_none());
            let known = tag.and_then(|sequence| self.truth.messages.get_mut(&(slot, sequence)));
            if let Some(message) = known.filter(|_| whole) {
                message.answered.push(now);
            }
        } else if let (Some(number), Some(visit)) = (reply, self.visit(slot)) {
            visit.seen[number].answered = Some(now);
        }
    }

    /// What is being written down of the connection in a slot.
    fn visit(&mut self, slot: u32) -> Option<&mut Visit> {
        let generation = self.links[slot as usize].as_ref()?.generation;
        self.truth.visits.get_mut(generation as usize)
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
        let (now, alone) = (self.time(), self.has_messages());
        let Some(link) = &mut self.links[slot as usize] else { return };
        if link.over || !alone && link.fault == Some(Fault::NeverReads) && link.peer.requests > 0 {
            return;
        }
        let visit = &mut self.truth.visits[link.generation as usize];
        let said = link.peer.read(bytes, link.fault, &mut self.rng, (visit, now));
        link.room += bytes.len();
        let answered = said.iter().filter(|said| matches!(said, Said::Reply(..))).count() as u64;
        self.answered += answered;
        let misled = said.iter().any(|said| matches!(said, Said::Noise(_)));
        visit.misled |= misled;
        self.misled |= misled;
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
        let ends = link.held.is_empty() && moved > 0 && link.ends;
        self.leaves(slot, &held[..moved]);
        if ends {
            self.end_leaves(slot);
        }
        if goes_on {
            self.later(1_000, slot, Event::Writable);
        }
    }

    /// An endless stream of the peer goes on, as fast as it may.
    fn produces(&mut self, slot: u32) {
        let Some(link) = self.links[slot as usize].as_mut().filter(|link| !link.over) else { return };
        let bytes = link.peer.produces();
        if link.fault == Some(Fault::Resets) && self.rng.below(20) == 0 {
            return self.say(slot, Said::Reset);
        }
        self.say(slot, Said::Word(bytes));
        let pause_ns = 50_000 + self.rng.below(300_000) + self.faults.reading_ns(&mut self.rng);
        self.later(pause_ns, slot, Event::Produces);
    }

    /// The peer has read our stream to its end, and ends its own.
    fn stream_ended(&mut self, slot: u32) {
        let Some(link) = self.links[slot as usize].as_mut().filter(|link| !link.over) else { return };
        if link.fault == Some(Fault::NeverReads) && link.peer.requests > 0 {
            return;
        }
        let said = link.peer.reads_end();
        if let Some(visit) = self.visit(slot) {
            visit.read_to_end = true;
        }
        said.into_iter().for_each(|said| self.say(slot, said));
    }

    /// The end of our stream sets out for the peer, behind all of it.
    fn end_leaves(&mut self, slot: u32) {
        let at = self.time().after(self.one_way_ns());
        let Some(link) = &mut self.links[slot as usize] else { return };
        let at = at.max(link.next_arrival);
        link.next_arrival = at.after(1);
        self.at(at, slot, Event::StreamEnded);
    }

    fn say(&mut self, slot: u32, said: Said) {
        let alone = self.has_messages();
        let delay_ns = self.one_way_ns() + self.faults.service_ns(&mut self.rng);
        let now = self.time();
        let Some(link) = &mut self.links[slot as usize] else { return };
        let mut at = now.after(delay_ns);
        if !alone {
            at = at.max(link.next_delivery);
            link.next_delivery = at.after(1);
        }
        match said {
            Said::Reply(bytes, _) | Said::Noise(bytes) if alone => self.at(at, slot, Event::Received(bytes, None)),
            Said::Reply(bytes, number) => self.deliver(slot, at, &bytes, Some(number)),
            Said::Noise(bytes) | Said::Word(bytes) => self.deliver(slot, at, &bytes, None),
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
    fn deliver(&mut self, slot: u32, at: Instant, bytes: &[u8], reply: Option<usize>) {
        let mut rest = bytes;
        let mut at = at;
        while !rest.is_empty() {
            let piece = match self.rng.below(4) {
                0 => 1 + self.rng.below(rest.len() as u64) as usize,
                _ => rest.len(),
            };
            let ends = reply.filter(|_| piece == rest.len());
            self.at(at, slot, Event::Received(rest[..piece].to_vec(), ends));
            rest = &rest[piece..];
            at = at.after(1 + self.rng.below(30_000));
        }
        if let Some(link) = &mut self.links[slot as usize] {
            link.next_delivery = at;
        }
    }

    fn take(&mut self, slot: u32, bytes: &[u8]) -> io::Result<usize> {
        if self.queues {
            let now = self.time();
            if self.rng.below(30) == 0 {
                // The queue is full.
                self.leave_at(now);
                self.handed_early = true;
            }
            self.queued.since.get_or_insert((now, self.made));
        }
        let taken = self.take_some(slot, bytes);
        if let Ok(taken @ 1..) = taken {
            let now = self.time();
            self.truth.taken_bytes += taken as u64;
            self.truth.bytes_now(now);
            if let Some(visit) = self.visit(slot) {
                visit.took(taken, now);
            }
            if let Some(link) = self.links[slot as usize].as_ref().filter(|_| self.queues) {
                let entry = self.truth.visits[link.generation as usize].taken.len() - 1;
                self.queued.taken.push((link.generation, entry));
            }
            if let Some(sequence) = sequence_of(bytes).filter(|_| self.has_messages()) {
                let message = Message { taken: now, answered: Vec::new() };
                let known = self.truth.messages.insert((slot, sequence), message);
                self.queued.messages.push((slot, sequence));
                assert!(known.is_none(), "number {sequence} left twice");
            }
        }
        taken
    }

    fn take_some(&mut self, slot: u32, bytes: &[u8]) -> io::Result<usize> {
        let alone = self.has_messages();
        let now = self.time();
        let Some(link) = &mut self.links[slot as usize] else { return Err(ErrorKind::NotConnected.into()) };
        if link.broken || link.ends {
            return Err(ErrorKind::BrokenPipe.into());
        }
        if link.fault == Some(Fault::SendFails) && self.rng.below(20) == 0 {
            if alone {
                return Err(Faults::refusal(&mut self.rng));
            }
            // What had arrived before is told before.
            (link.broken, link.over) = (true, true);
            let at = now.after(1_000).max(link.next_delivery);
            self.at(at, slot, Event::Ended(Some(ErrorKind::ConnectionReset)));
            return Err(ErrorKind::ConnectionReset.into());
        }
        if !link.held.is_empty() {
            link.blocked = true;
            self.truth.visits[link.generation as usize].was_full = true;
            return Ok(0);
        }
        let most = if alone && link.room < bytes.len() { 0 } else { bytes.len().min(link.room) };
        let taken = match self.rng.below(8) {
            0 if most > 1 && !alone => 1 + self.rng.below(most as u64 - 1) as usize,
            _ => most,
        };
        link.room -= taken;
        if self.engine_holds && !alone {
            link.held = bytes[taken..].to_vec();
            let waits_for_nobody = link.room > 0 && !link.held.is_empty();
            self.leaves(slot, &bytes[..taken]);
            if waits_for_nobody {
                self.later(2_000, slot, Event::Writable);
            }
            return Ok(bytes.len());
        }
        if taken < bytes.len() {
            link.blocked = true;
            self.truth.visits[link.generation as usize].was_full = true;
            // What was cut short although there was room goes on soon, as an engine has it.
            if link.room > 0 && !alone {
                self.later(2_000, slot, Event::Writable);
            }
        }
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
        let alone = self.has_messages();
        if let Some(link) = self.links[slot as usize].as_mut().filter(|_| !alone) {
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

    fn connect(&mut self, slot: u32, address: usize, _attempt: usize) -> io::Result<()> {
        assert!(self.links[slot as usize].is_none(), "slot {slot} is connected twice");
        let generation = self.truth.visits.len() as u64;
        self.truth.visits.push(Visit::new(slot, address, self.time()));
        let outcome = self.faults.connect(&mut self.rng);
        if outcome == Some(Fault::ConnectFailsAtOnce) {
            self.truth.visits[generation as usize].gone = Some(self.time());
            return Err(ErrorKind::AddrNotAvailable.into());
        }
        // At least a message.
        let least = if self.has_messages() { self.kind.size } else { 1 };
        let room = self.faults.capacity(&mut self.rng).max(least);
        let fault = self.faults.connection(&mut self.rng);
        self.links[slot as usize] = Some(Link {
            generation,
            fault,
            room,
            blocked: false,
            peer: Peer::new(&self.kind),
            held: Vec::new(),
            ends: false,
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

    fn queues(&self) -> bool {
        self.queues
    }

    fn handed_early(&mut self) -> bool {
        std::mem::take(&mut self.handed_early)
    }

    fn end_stream(&mut self, slot: u32) {
        let Some(link) = &mut self.links[slot as usize] else { return };
        link.ends = true;
        if link.held.is_empty() {
            self.end_leaves(slot);
        }
    }

    fn has_left_over(&self, slot: u32) -> bool {
        self.links[slot as usize].as_ref().is_some_and(|link| !link.held.is_empty())
    }

    fn close(&mut self, slot: u32) {
        let now = self.time();
        if let Some(visit) = self.visit(slot) {
            visit.gone = Some(now);
        }
        if let Some(link) = self.links[slot as usize].take() {
            self.not_taken += link.held.len() as i64;
        }
    }

    fn resume(&mut self, slot: u32) {
        let after_ns = if self.kind.protocol.shape == Shape::Upload { 20_000 } else { 1_000 };
        self.later(after_ns, slot, Event::Writable);
    }
}

/// The sequence number of a message of ours (see [`loadgen_core::protocol::udp`]).
fn sequence_of(message: &[u8]) -> Option<u64> {
    let number = message.strip_prefix(b"LGU1")?.get(8..16)?;
    number.try_into().ok().map(u64::from_be_bytes)
}
