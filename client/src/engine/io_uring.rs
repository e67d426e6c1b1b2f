//! io_uring: connections in the rings' own tables, receives that are armed once a connection, and sends that leave with
//! the wait. One system call moves what many connections have to say.
//!
//! Sockets are made, bound and connected by chains of requests, so that no connection is a descriptor of this process:
//! memory and ports bound their number, and not `ulimit -n`. A table holds no more than that; further connections have
//! further rings.

use super::waits::{self, Waits};
use super::{Counters, Engine, Entry, Handler, Io, Remote};
use crate::worker::{self, Tally, Task};
use loadgen_core::histogram::Recorder;
use loadgen_core::sys::clock;
use loadgen_core::sys::limits;
use loadgen_core::sys::ring::token::SLOTS_MAX;
use loadgen_core::sys::ring::{Buffers, Completion, Event, Lane, Lanes, Op, Options, Token};
use loadgen_core::time::Instant;
use loadgen_core::transport::MESSAGE_ROOM;
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

/// How long the next of the last completions is waited for when all connections have been closed.
const LAST_COMPLETIONS: Duration = Duration::from_secs(2);

pub static ENTRY: Entry = Entry {
    name: "io_uring",
    about: "completions; connections beyond the descriptor limit",
    run,
    waits,
    needs_ring: true,
    fallback: || None,
};

/// Runs a worker's task on this engine.
pub fn run(task: Task) -> io::Result<Tally> {
    let mut options = task.ring.clone();
    if task.config.transport.has_messages() {
        // Each is received into one buffer, whole.
        options.buffer_bytes = options.buffer_bytes.max(MESSAGE_ROOM as u32);
    }
    let mut engine = Uring::new(task.capacity(), &task.wire(), &options)?;
    engine.io.addresses = task.remotes.clone();
    if task.config.traffic.reset {
        engine.io.lanes.reset_on_close();
    }
    worker::run(engine, task)
}

/// Measures timed waits of this engine, which has one connection to make room for, and none to open.
fn waits(waits: &Waits) -> io::Result<Recorder> {
    waits::measure(Uring::new(1, b"x", &waits.ring)?, waits)
}

#[derive(Debug)]
struct Uring {
    io: UringIo,
    /// By lane. Apart from it, so that received bytes can be read while something is sent.
    buffers: Vec<Buffers>,
    completed: Vec<(usize, Completion)>,
    /// Those that gave others a turn; swapped with `io.resumed`.
    resumed: Vec<(u32, u16)>,
}

#[derive(Debug)]
struct UringIo {
    lanes: Lanes,
    /// Slots `0..a_lane` are in the first lane, and so on.
    a_lane: u32,
    /// By lane: the bytes of the requests, which all connections share.
    wire: Vec<u32>,
    /// What is asked of the ring leaves with the next wait; a kernel thread that polls takes it at once.
    queues: bool,
    /// Calls that submit, when that was last looked at.
    enters: u64,
    /// Slot and generation of those that asked for another turn.
    resumed: Vec<(u32, u16)>,
    /// Bytes that were handed over and not taken.
    not_taken: i64,
    /// Where connections go.
    addresses: Vec<Remote>,
    /// What is sent is messages; how long the last one was, as they all are.
    has_messages: bool,
    message_bytes: usize,
    events: u64,
}

/// Sockets of each ring of a thread with so many connections.
pub fn rings(connections: u64, descriptors: u64) -> Vec<u32> {
    let most = descriptors.clamp(1, SLOTS_MAX.into());
    let full = std::iter::repeat_n(most as u32, (connections / most) as usize);
    let rest = (connections % most) as u32;
    full.chain((rest > 0).then_some(rest)).collect()
}

impl Uring {
    fn new(capacity: usize, wire: &[u8], options: &Options) -> io::Result<Self> {
        let capacity = u32::try_from(capacity).map_err(|_| io::Error::other("too many connections"))?;
        let limit = limits::descriptors()?.0.min(SLOTS_MAX.into()) as u32;
        let a_lane = capacity.clamp(1, limit);
        let mut lanes = Lanes::default();
        let (mut buffers, mut leases) = (Vec::new(), Vec::new());
        for lane in 0..capacity.div_ceil(a_lane) as usize {
            buffers.push(lanes.add_at_start(a_lane, options).map_err(|refusal| io::Error::other(refusal.to_string()))?);
            leases.push(lanes.lane(lane).ring.lend(wire.to_vec())?);
        }
        let io = UringIo {
            lanes,
            a_lane,
            wire: leases,
            queues: options.sqpoll_idle_ms.is_none(),
            enters: 0,
            resumed: Vec::new(),
            not_taken: 0,
            addresses: Vec::new(),
            has_messages: false,
            message_bytes: 0,
            events: 0,
        };
        Ok(Self { io, buffers, completed: Vec::new(), resumed: Vec::new() })
    }

    fn dispatch(&mut self, index: usize, completion: Completion, handler: &mut impl Handler<UringIo>) {
        self.io.events += 1;
        let first = index as u32 * self.io.a_lane;
        let Lane { ring, flows } = self.io.lanes.lane(index);
        match flows.complete(ring, completion) {
            Event::Received { slot, filled, .. } => {
                let generation = flows.generation(slot);
                for piece in self.buffers[index].pieces(&filled) {
                    handler.received(&mut self.io, first + slot, piece);
                    if self.io.lanes.lane(index).flows.generation(slot) != generation {
                        break;
                    }
                }
                self.buffers[index].give_back(filled);
            }
            Event::Sent { slot, .. } => handler.writable(&mut self.io, first + slot),
            Event::Ended { slot, error } => {
                let cause = (error != 0).then(|| io::Error::from_raw_os_error(error));
                handler.ended(&mut self.io, first + slot, cause);
            }
            Event::Connected { slot, error: 0 } => {
                flows.receive(ring, slot);
                handler.connected(&mut self.io, first + slot, Ok(()));
            }
            Event::Connected { slot, error } => {
                handler.connected(&mut self.io, first + slot, Err(io::Error::from_raw_os_error(error)));
            }
            // The connection broke. The receive will tell, after what had arrived before.
            Event::SendFailed { unsent, .. } => self.io.not_taken += i64::from(unsent),
            Event::EmptyMessage { slot } => handler.received(&mut self.io, first + slot, &[]),
            // It may be told of what became of an earlier one: nobody listens there.
            Event::MessageFailed { slot, error } => {
                self.io.not_taken += self.io.message_bytes as i64;
                if let Some(slot) = slot {
                    let cause = io::Error::from_raw_os_error(error);
                    handler.ended(&mut self.io, first + slot, Some(cause));
                }
            }
            Event::Stale { filled, taken } => {
                self.io.not_taken -= i64::from(taken);
                if let Some(filled) = filled {
                    self.buffers[index].give_back(filled);
                }
            }
            Event::Nothing
            | Event::PartlySent { .. }
            | Event::StreamEnded { .. }
            | Event::Empty { .. }
            | Event::Accepted { .. }
            | Event::AcceptEnded { .. } => {}
        }
    }
}

impl Engine for Uring {
    type Io = UringIo;

    fn io(&mut self) -> &mut UringIo {
        &mut self.io
    }

    fn turn(&mut self, timeout: Duration, handler: &mut impl Handler<UringIo>) -> io::Result<()> {
        std::mem::swap(&mut self.resumed, &mut self.io.resumed);
        let timeout = if self.resumed.is_empty() { timeout } else { Duration::ZERO };
        let mut completed = std::mem::take(&mut self.completed);
        let early = self.io.handed_early();
        handler.handed(|| if early { Instant(0) } else { clock::now() });
        self.io.lanes.turn(&mut self.buffers, timeout, &mut completed)?;
        self.io.enters = self.io.lanes.enters();
        for (index, completion) in completed.drain(..) {
            self.dispatch(index, completion, handler);
        }
        self.completed = completed;
        let mut resumed = std::mem::take(&mut self.resumed);
        for (slot, generation) in resumed.drain(..) {
            let (lane, local) = self.io.lane(slot);
            if lane.flows.is_open(local) && lane.flows.generation(local) == generation {
                handler.writable(&mut self.io, slot);
            }
        }
        self.resumed = resumed;
        if self.io.not_taken != 0 {
            handler.not_taken(std::mem::take(&mut self.io.not_taken));
        }
        Ok(())
    }

    /// Connections have been closed; what they were doing comes to its end, so that every byte is accounted for.
    fn finish(&mut self, handler: &mut impl Handler<UringIo>) -> io::Result<()> {
        let mut moved = clock::now();
        let mut left = self.io.lanes.in_flight();
        // A million of them take their time: what counts is whether they still come.
        while left > 0 && Duration::from_nanos(clock::now().since(moved)) < LAST_COMPLETIONS {
            self.turn(Duration::from_millis(10), handler)?;
            if self.io.lanes.in_flight() != left {
                (left, moved) = (self.io.lanes.in_flight(), clock::now());
            }
        }
        Ok(())
    }

    fn counters(&self) -> Counters {
        let lanes = &self.io.lanes;
        let ring = lanes.stats();
        let syscalls = BTreeMap::from_iter(lanes.calls().into_iter().filter(|(_, calls)| *calls > 0));
        Counters { syscalls, waits: ring.enters, events: self.io.events, ring: Some(ring) }
    }
}

impl UringIo {
    /// The lane of a connection, and its slot there.
    #[inline]
    fn lane(&mut self, slot: u32) -> (&mut Lane, u32) {
        (self.lanes.lane((slot / self.a_lane) as usize), slot % self.a_lane)
    }
}

impl Io for UringIo {
    #[inline]
    fn now(&self) -> Instant {
        clock::now()
    }

    fn connect(&mut self, slot: u32, address: usize, attempt: usize) -> io::Result<()> {
        let remote = &self.addresses[address];
        self.has_messages = remote.endpoint.has_messages();
        let local = slot % self.a_lane;
        let Lane { ring, flows } = self.lanes.lane((slot / self.a_lane) as usize);
        flows.has_messages = self.has_messages;
        let generation = flows.admit(local, true);
        ring.connect(Token::new(Op::Connect, generation, local), &remote.endpoint, remote.source(attempt))
    }

    /// One send is in flight on a connection; until it is done, no more is taken.
    #[inline]
    fn send(&mut self, slot: u32, wire: std::ops::Range<usize>) -> io::Result<usize> {
        let lease = self.wire[(slot / self.a_lane) as usize];
        let (Lane { ring, flows }, local) = self.lane(slot);
        if flows.is_sending(local) {
            return Ok(0);
        }
        flows.send_shared(ring, local, lease, wire.start as u32, wire.end as u32);
        Ok(wire.len())
    }

    /// They are copied: the kernel may look at them long after this returns.
    fn send_own(&mut self, slot: u32, bytes: &[u8]) -> io::Result<usize> {
        let has_messages = self.has_messages;
        self.message_bytes = bytes.len();
        let (Lane { ring, flows }, local) = self.lane(slot);
        if !flows.is_open(local) || flows.is_sending(local) || bytes.is_empty() {
            return Ok(0);
        }
        let mut own = ring.spare();
        own.clear();
        own.extend_from_slice(bytes);
        let lease = ring.lend(own)?;
        if has_messages {
            ring.send_connected(Token::new(Op::SendTo, flows.generation(local), local).with_lease(lease));
            return Ok(bytes.len());
        }
        flows.send_owned(ring, local, lease, bytes.len() as u32);
        Ok(bytes.len())
    }

    #[inline]
    fn queues(&self) -> bool {
        self.queues
    }

    /// A queue that is full is submitted to make room.
    #[inline]
    fn handed_early(&mut self) -> bool {
        let enters = self.lanes.enters();
        std::mem::replace(&mut self.enters, enters) != enters
    }

    #[inline]
    fn has_left_over(&self, slot: u32) -> bool {
        self.lanes.has_left_over((slot / self.a_lane) as usize, slot % self.a_lane)
    }

    fn end_stream(&mut self, slot: u32) {
        let (Lane { ring, flows }, local) = self.lane(slot);
        flows.end_stream(ring, local);
    }

    fn close(&mut self, slot: u32) {
        let (Lane { ring, flows }, local) = self.lane(slot);
        if flows.is_open(local) {
            self.not_taken += i64::from(flows.close(ring, local));
        }
    }

    fn resume(&mut self, slot: u32) {
        let (lane, local) = self.lane(slot);
        let generation = lane.flows.generation(local);
        self.resumed.push((slot, generation));
    }
}
