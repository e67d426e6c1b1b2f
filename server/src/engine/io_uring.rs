//! The completion loop: ask for what is wanted, wait, take what has been done. The kernel accepts connections into its
//! own table and receives for all of them at any time; a table that fills up is followed by another ring.

use super::lingering::Lingering;
use super::releases::Releases;
use super::{LOOK_EVERY, Worker, wait_until};
use crate::acceptor::{Acceptor, Trouble};
use crate::cause::Cause;
use crate::cli::Options as Asked;
use crate::connection::CAPACITY;
use crate::deadlines::{Sweep, most_due};
use crate::delayed::DelayedReplies;
use crate::peer::{After, Context, Peer, Turn};
use crate::pool::Pool;
use crate::serve::tell;
use crate::stats::Counters;
use crate::tls_connection::Keys;
use loadgen_core::protocol::Output;
use loadgen_core::sys::ring::{self, Buffers, Completion, Event, Filled, Lane, Lanes, Options, Refusal};
use loadgen_core::sys::{clock, errno, limits};
use loadgen_core::time::{Instant, NS_PER_MS};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How long the last completions are waited for when all connections have been closed.
const LAST_COMPLETIONS_NS: u64 = 500 * NS_PER_MS;
/// Completions that fit in a ring's queue: as many connections may be accepted before we can say stop. The fewer, the
/// less of a small table has to be kept free for that.
const COMPLETIONS_MIN: u32 = 512;
const COMPLETIONS_MAX: u32 = 4096;
const ECANCELED: i32 = 125;

/// Serves until told to stop and every connection has ended.
pub(super) fn run(worker: Worker) -> io::Result<Counters> {
    if worker.transport.has_messages() {
        return super::datagrams::ring::run(worker);
    }
    let Worker { listener, protocol, shape, drain, signals, ready, ring, expected, injector, tls, deadlines, .. } =
        worker;
    let output = if injector.is_some() { Output::one_reply(CAPACITY) } else { Output::new(CAPACITY) };
    let keys = tls.map(|settings| Box::new(Keys::new(settings)));
    let (pool, counters) = (Pool::new(), Counters::default());
    let context = Context { protocol, shape, output, pool, counters, injector, keys };
    let mut server = Uring {
        lanes: Lanes::default(),
        buffers: Vec::new(),
        peers: Vec::new(),
        context,
        acceptor: Acceptor::new(listener),
        accepting: Accepting::No,
        releases: Releases::new(),
        lingering: Lingering::new(),
        sweep: Sweep::new(deadlines),
        since_ms: Vec::new(),
        table: limits::descriptors()?.0.min(u32::MAX.into()) as u32,
        options: Options::default(),
        signals,
        drain,
        drain_until: None,
    };
    server.options = lane_options(&ring, server.table);
    for _ in 0..lanes_for(expected, server.table, &server.options) {
        let buffers = server.lanes.add_at_start(server.table, &server.options);
        server.take_lane(buffers)?;
    }
    server.accept_on(0);
    // Nobody listens where another thread has failed to start.
    let _ = ready.send(());
    drop(ready);
    server.serve()?;
    Ok(server.into_counters())
}

/// What its rings are made with.
fn lane_options(ring: &Options, table: u32) -> Options {
    let by_table = (table / 4).next_power_of_two().clamp(COMPLETIONS_MIN, COMPLETIONS_MAX);
    Options { receive_limit: CAPACITY as u32, completions: ring.completions.or(Some(by_table)), ..ring.clone() }
}

/// Rings that a thread needs for so many connections: of each table, some room is kept for those that come in a burst.
fn lanes_for(connections: u64, table: u32, options: &Options) -> u64 {
    let kept = options.completions.unwrap_or(0).saturating_add(1 + table / 8);
    let usable = if options.inline_send { u64::MAX } else { table.saturating_sub(kept).max(table / 2).max(1).into() };
    connections.div_ceil(usable).max(1)
}

/// Whether all rings of all threads can be had at once.
pub(super) fn room(asked: &Asked) -> Result<(), Refusal> {
    let threads = asked.threads.max(1);
    if asked.protocol.transport.has_messages() {
        return ring::room(&vec![1; threads as usize], &asked.ring);
    }
    let table = limits::descriptors().map_or(1, |(soft, _)| soft).min(u32::MAX.into()) as u32;
    let options = lane_options(&asked.ring, table);
    let lanes = lanes_for(asked.expect / threads, table, &options) * threads;
    ring::room(&vec![table; lanes as usize], &options)
}

/// A connection: its lane, its slot there, and which socket of that slot it is.
type Name = (usize, u32, u16);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepting {
    /// Into the table of this lane.
    On(usize),
    /// That has been told to end: its table is nearly full.
    Leaving(usize),
    /// Paused, or over.
    No,
}

#[derive(Debug)]
struct Uring {
    lanes: Lanes,
    /// By lane. Apart from it, so that received bytes can be read while something is sent.
    buffers: Vec<Buffers>,
    /// By lane and slot.
    peers: Vec<Vec<Peer>>,
    context: Context,
    acceptor: Acceptor,
    accepting: Accepting,
    /// Connections whose replies wait for their release.
    releases: Releases<Name>,
    /// Connections that wait for the end of the peer's stream.
    lingering: Lingering<Name>,
    /// Looks after deadlines.
    sweep: Sweep,
    /// By lane and slot: since when each awaits what it did when it was looked at last, in milliseconds.
    since_ms: Vec<Vec<u32>>,
    /// Sockets that one table can hold.
    table: u32,
    options: Options,
    signals: Arc<AtomicUsize>,
    drain: Duration,
    drain_until: Option<Instant>,
}

impl Uring {
    fn serve(&mut self) -> io::Result<()> {
        let mut completed = Vec::new();
        let mut turns = 0u32;
        while !self.is_over() {
            let timeout = self.timeout();
            let events = self.complete(timeout, &mut completed)?;
            while let Some((index, slot, generation)) = self.releases.next() {
                let flows = &self.lanes.lane(index).flows;
                if flows.is_open(slot) && flows.generation(slot) == generation {
                    self.turn(index, slot, |turn| turn.release());
                }
            }
            self.look_at_the_clock();
            turns = turns.wrapping_add(1);
            if events == 0 || turns.is_multiple_of(LOOK_EVERY) {
                self.look_after_deadlines();
            }
        }
        // Nobody is left; what was under way when connections were closed is accounted for.
        let until = clock::now().after(LAST_COMPLETIONS_NS);
        while self.lanes.in_flight() > 0 && clock::now() < until {
            self.complete(Duration::from_millis(10), &mut completed)?;
        }
        Ok(())
    }

    fn complete(&mut self, timeout: Duration, completed: &mut Vec<(usize, Completion)>) -> io::Result<usize> {
        self.lanes.turn(&mut self.buffers, timeout, completed)?;
        let events = completed.len();
        self.context.counters.waited(events);
        for (lane, completion) in completed.drain(..) {
            self.dispatch(lane, completion);
        }
        Ok(events)
    }

    /// The kernel may never tell that an accept has ended, where it refuses to be entered.
    fn is_over(&self) -> bool {
        let Some(until) = self.drain_until else { return false };
        let last = self.open() == 0 && self.accepting == Accepting::No;
        last || clock::now() >= until.after(LAST_COMPLETIONS_NS)
    }

    fn open(&self) -> u32 {
        self.lanes.iter().map(|lane| lane.flows.open()).sum()
    }

    fn timeout(&mut self) -> Duration {
        let timed = wait_until([self.acceptor.paused_until, self.lingering.next(), self.drain_until]);
        timed.min(self.sweep.longest_wait()).min(self.releases.timeout())
    }

    fn dispatch(&mut self, index: usize, completion: Completion) {
        let Lane { ring, flows } = self.lanes.lane(index);
        match flows.complete(ring, completion) {
            Event::Received { slot, filled, look } => self.received(index, slot, filled, look),
            Event::Sent { slot, bytes } => {
                self.context.counters.sent_bytes += u64::from(bytes);
                self.turn(index, slot, |turn| turn.sent());
            }
            Event::PartlySent { bytes } => self.context.counters.sent_bytes += u64::from(bytes),
            Event::Ended { slot, error } => self.turn(index, slot, |turn| turn.ended(error)),
            Event::SendFailed { slot, error, .. } => self.turn(index, slot, |turn| turn.send_failed(error)),
            Event::StreamEnded { slot, error } => self.turn(index, slot, |turn| turn.stream_ended(error)),
            Event::Empty { slot } => self.turn(index, slot, |turn| turn.empty()),
            Event::Accepted { slot, last } => self.accepted(index, slot, last),
            Event::AcceptEnded { error } => self.accept_ended(error),
            Event::Stale { filled, taken } => {
                self.context.counters.sent_bytes += u64::from(taken);
                if let Some(filled) = filled {
                    self.buffers[index].give_back(filled);
                }
            }
            Event::Nothing | Event::Connected { .. } | Event::EmptyMessage { .. } | Event::MessageFailed { .. } => {}
        }
    }

    fn received(&mut self, index: usize, slot: u32, filled: Filled, look: bool) {
        // A look that got less than it takes has emptied the socket, unless it got what others had left of a buffer.
        let last = look && !self.options.incremental && filled.len() < self.options.look_bytes() as usize;
        let generation = self.lanes.lane(index).flows.generation(slot);
        let buffers = std::mem::take(&mut self.buffers);
        for piece in buffers[index].pieces(&filled) {
            self.turn(index, slot, |turn| turn.received(piece, last));
            if self.lanes.lane(index).flows.generation(slot) != generation {
                break;
            }
        }
        self.buffers = buffers;
        self.buffers[index].give_back(filled);
    }

    fn turn(&mut self, index: usize, slot: u32, act: impl FnOnce(&mut Turn<'_>) -> After) {
        let lane = self.lanes.lane(index);
        let peer = &mut self.peers[index][slot as usize];
        let generation = lane.flows.generation(slot);
        let after = act(&mut Turn { lane, slot, peer, context: &mut self.context });
        if let Some(release) = peer.next_release() {
            self.releases.push(release, (index, slot, generation));
        }
        match after {
            After::Nothing => {}
            After::Closed(cause) => self.close(index, slot, cause),
            After::Lingers if self.drain_until.is_none() => {
                self.lingering.push(clock::now(), (index, slot, generation));
            }
            After::Lingers if peer.is_quiet() => self.lingering.push_quiet(clock::now(), (index, slot, generation)),
            After::Lingers => {}
        }
    }

    fn close(&mut self, index: usize, slot: u32, cause: Cause) {
        let Lane { ring, flows } = self.lanes.lane(index);
        flows.close(ring, slot);
        self.peers[index][slot as usize].forget(&mut self.context.pool);
        self.context.counters.closed(cause);
    }

    fn add_lane(&mut self) -> io::Result<()> {
        let buffers = self.lanes.add(self.table, &self.options);
        self.take_lane(buffers)
    }

    fn take_lane(&mut self, buffers: Result<Buffers, Refusal>) -> io::Result<()> {
        self.buffers.push(buffers.map_err(|refusal| io::Error::other(refusal.to_string()))?);
        self.peers.push(Vec::with_capacity(self.table as usize));
        self.since_ms.push(Vec::with_capacity(self.table as usize));
        Ok(())
    }

    /// Has connections accepted into this lane's table: as they come while it has room for all that may be accepted
    /// before we can say stop (what does not fit the kernel closes), else one by one.
    fn accept_on(&mut self, index: usize) {
        let once = self.open_to_burst(index) == 0 && !self.options.inline_send;
        self.accepting = Accepting::On(index);
        self.lanes.lane(index).ring.accept(self.acceptor.fd(), once);
    }

    /// Sockets that a lane can take as they come.
    fn open_to_burst(&mut self, index: usize) -> u32 {
        let Lane { ring, flows } = self.lanes.lane(index);
        ring.table().saturating_sub(flows.open() + ring.completions_max() + 1)
    }

    fn has_room(&mut self, index: usize) -> bool {
        let Lane { ring, flows } = self.lanes.lane(index);
        // Ordinary descriptors are in no table.
        flows.open() < ring.table() || self.options.inline_send
    }

    fn accepted(&mut self, index: usize, slot: u32, last: bool) {
        self.context.counters.accepts += 1;
        self.acceptor.succeeded();
        self.lanes.lane(index).flows.admit(slot, false);
        let full = !last && self.open_to_burst(index) == 0 && !self.options.inline_send;
        let peers = &mut self.peers[index];
        while peers.len() <= slot as usize {
            peers.push(Peer::new(None, None));
        }
        let delayed = self.context.injector.as_ref().map(|injector| Box::new(DelayedReplies::new(injector)));
        let tls = self.context.keys.as_ref().and_then(|keys| keys.accept());
        peers[slot as usize] = Peer::new(delayed, tls);
        let since_ms = &mut self.since_ms[index];
        since_ms.resize(since_ms.len().max(slot as usize + 1), 0);
        since_ms[slot as usize] = self.sweep.now_ms();
        self.turn(index, slot, |turn| turn.begin());
        if self.drain_until.is_some() {
            self.turn(index, slot, |turn| turn.drain());
        }
        if full && self.accepting == Accepting::On(index) {
            self.accepting = Accepting::Leaving(index);
            self.lanes.lane(index).ring.stop_accepting();
        }
        if last {
            self.accept_ended(ECANCELED);
        }
    }

    /// The multishot accept is over. Unless we are draining, or something is missing, there is another.
    fn accept_ended(&mut self, error: i32) {
        let before = std::mem::replace(&mut self.accepting, Accepting::No);
        if self.drain_until.is_some() {
            return;
        }
        let error = io::Error::from_raw_os_error(error);
        let name = errno::name(&error);
        if name != "ECANCELED" {
            *self.context.counters.accept_errors.entry(name).or_default() += 1;
        }
        match before {
            Accepting::Leaving(_) => self.accept_somewhere(),
            Accepting::On(index) if name == "ECANCELED" || self.goes_on(&error) => {
                if self.has_room(index) {
                    self.accept_on(index)
                } else {
                    self.accept_somewhere()
                }
            }
            _ => self.pause(&error),
        }
    }

    fn goes_on(&mut self, error: &io::Error) -> bool {
        Trouble::of(error) == Trouble::OfOneConnection && self.acceptor.goes_on()
    }

    /// Into a table with much room, if need be a new one; else into the last slots of any.
    fn accept_somewhere(&mut self) {
        if self.options.inline_send {
            return self.accept_on(0);
        }
        let lanes = self.lanes.len();
        let much = self.table / 8;
        if let Some(index) = (0..lanes).find(|index| self.open_to_burst(*index) > much) {
            return self.accept_on(index);
        }
        let bursts = self.table > 2 * self.lanes.lane(0).ring.completions_max();
        let room = (0..lanes).find(|index| self.has_room(*index));
        match (room, bursts) {
            (Some(index), false) => self.accept_on(index),
            (room, _) => match (self.add_lane(), room) {
                (Ok(()), _) => self.accept_on(lanes),
                (Err(_), Some(index)) => self.accept_on(index),
                (Err(error), None) => self.pause(&error),
            },
        }
    }

    /// The machine lacks what another connection needs.
    fn pause(&mut self, error: &io::Error) {
        let now = clock::now();
        if Trouble::of(error) != Trouble::Descriptors {
            self.acceptor.complain(error, now);
            return self.acceptor.back_off(now);
        }
        // Who makes room is gone by the next attempt.
        if !self.make_room(now) {
            self.acceptor.turn_away(&mut self.context.counters);
            self.acceptor.complain(error, now);
        }
        self.acceptor.pause(now);
    }

    /// Closes those who have been silent for longest, so that others can come in; false: nobody has been for long.
    fn make_room(&mut self, now: Instant) -> bool {
        self.sweep.advance(now);
        let mut due = Vec::new();
        for (index, slot) in self.everybody() {
            let sending = self.lanes.lane(index).flows.is_sending(slot);
            let peer = &self.peers[index][slot as usize];
            let awaits = peer.awaits(&self.context, sending);
            let since_ms = self.since_ms[index][slot as usize];
            due.extend(self.sweep.due_to_go(awaits, peer.signs, since_ms).map(|due| (due, (index, slot))));
        }
        let leaving = most_due(due);
        leaving.iter().for_each(|(index, slot)| self.close(*index, *slot, Cause::MadeRoom));
        !leaving.is_empty()
    }

    /// Closes who has taken too long over what it does.
    fn look_after_deadlines(&mut self) {
        self.sweep.advance(clock::now());
        let mut first = 0;
        let range = self.sweep.slots(self.peers.iter().map(Vec::len).sum());
        for index in 0..self.peers.len() {
            let len = self.peers[index].len();
            let slots = range.start.clamp(first, first + len) - first..range.end.clamp(first, first + len) - first;
            slots.for_each(|slot| self.look_at(index, slot as u32));
            first += len;
        }
    }

    fn look_at(&mut self, index: usize, slot: u32) {
        let flows = &self.lanes.lane(index).flows;
        if !flows.is_open(slot) {
            return;
        }
        let sending = flows.is_sending(slot);
        let peer = &mut self.peers[index][slot as usize];
        let awaits = peer.awaits(&self.context, sending);
        let since_ms = &mut self.since_ms[index][slot as usize];
        if let Some(cause) = self.sweep.look(awaits, &mut peer.signs, since_ms) {
            self.close(index, slot, cause);
        }
    }

    fn look_at_the_clock(&mut self) {
        let signals = self.signals.load(Ordering::Relaxed);
        if signals == 0 && self.acceptor.paused_until.is_none() && self.lingering.is_empty() {
            return;
        }
        let now = clock::now();
        if self.acceptor.paused_until.is_some_and(|then| then <= now) {
            self.acceptor.paused_until = None;
            if self.drain_until.is_none() {
                self.accept_somewhere();
            }
        }
        while let Some(name) = self.lingering.pop(now) {
            self.stop_lingering(name);
        }
        match self.drain_until {
            None if signals > 0 => self.begin_drain(now),
            Some(then) if now >= then => self.cut("drain timeout"),
            Some(_) if signals > 1 => self.cut("second signal"),
            _ => {}
        }
    }

    fn stop_lingering(&mut self, (index, slot, generation): Name) {
        let flows = &self.lanes.lane(index).flows;
        if flows.is_open(slot)
            && flows.generation(slot) == generation
            && let Some(cause) = self.peers[index][slot as usize].lingered()
        {
            self.close(index, slot, cause);
        }
    }

    /// Nobody new; what has been received is answered; then each connection ends its stream and waits for the peer's.
    fn begin_drain(&mut self, now: Instant) {
        if let Accepting::On(index) | Accepting::Leaving(index) = self.accepting {
            self.lanes.lane(index).ring.stop_accepting();
        }
        self.drain_until = Some(now.after(self.drain.as_nanos().try_into().unwrap_or(u64::MAX)));
        for (index, slot) in self.everybody() {
            self.turn(index, slot, |turn| turn.drain());
        }
    }

    fn cut(&mut self, why: &str) {
        // What has been asked for leaves before; a reply that leaves counts.
        let mut completed = Vec::new();
        for _ in 0..2 {
            // What goes wrong here goes wrong again at the next wait, which tells.
            let _ = self.complete(Duration::ZERO, &mut completed);
        }
        let everybody = self.everybody();
        if !everybody.is_empty() {
            tell(format_args!("{why}: {} connections cut", everybody.len()));
        }
        for (index, slot) in everybody {
            self.close(index, slot, Cause::Cut);
        }
    }

    fn everybody(&self) -> Vec<(usize, u32)> {
        let lanes = self.lanes.iter().zip(&self.peers).enumerate();
        let open = |(index, (lane, peers)): (usize, (&Lane, &Vec<Peer>))| {
            let slots = (0..peers.len() as u32).filter(|slot| lane.flows.is_open(*slot));
            slots.map(|slot| (index, slot)).collect::<Vec<_>>()
        };
        lanes.flat_map(open).collect()
    }

    fn into_counters(mut self) -> Counters {
        let counters = &mut self.context.counters;
        let ring = self.lanes.stats();
        for (name, count) in self.lanes.calls() {
            match name {
                "shutdown" => counters.calls.shutdown += count,
                "close" => counters.calls.close += count,
                "send" => counters.calls.send += count,
                "io_uring_enter" => counters.poller.wait += count,
                _ => counters.calls.ppoll += count,
            }
        }
        counters.short_sends += ring.short_sends;
        counters.stale_events += ring.stale;
        counters.ring = Some(ring);
        self.releases.add_to(counters);
        self.context.counters
    }
}
