//! What a completion means for its socket. Pure: a [`Driver`] asks the kernel, or is a script.
//!
//! The rules, each of which somebody learned the hard way (`io_uring_multishot(7)`, `io_uring_cancelation(7)`):
//!
//! - A multishot request is over when a completion says that no more follow, whatever its result; it is armed anew only
//!   then.
//! - It is armed anew not at once but with the next [`Flows::feed`]: what it brought may be a reason to pause, and
//!   after `ENOBUFS` it would fail again until buffers have been given back.
//! - One send is in flight on a socket, so that bytes keep their order; what it does not take is sent by the next.
//! - A cancellation is only a wish. The completion of the request that was to be cancelled is the truth.
//! - A completion for a socket that is gone must not touch the one that has its slot now.

use super::buffers::Filled;
use super::token::{Op, Token};
use std::collections::VecDeque;

/// What is asked of the kernel. Everything is only noted here, and leaves with the next wait.
pub trait Driver {
    fn receive(&mut self, token: Token);
    fn look(&mut self, token: Token);
    /// Sends bytes `from..to` of a lease, which is part of the token.
    fn send(&mut self, token: Token, from: u32, to: u32);
    fn end_stream(&mut self, token: Token);
    /// The same without a descriptor, at a cost.
    fn end_stream_without(&mut self, token: Token);
    /// Finds out once more whether a new connection is what it should be.
    fn verify(&mut self, token: Token);
    fn cancel(&mut self, target: Token);
    fn close(&mut self, slot: u32);
    /// See [`super::Leases::release`].
    fn release(&mut self, lease: u32);
}

/// A completion, as the kernel told it.
#[derive(Debug)]
pub struct Completion {
    pub token: Token,
    /// A count, or a negated errno.
    pub result: i32,
    /// More completions of this request will follow.
    pub more: bool,
    /// The kernel has let go of the bytes of a zero-copy send; its result was told before.
    pub notice: bool,
    /// What was received: there is some exactly when `result` is a count of received bytes.
    pub filled: Option<Filled>,
}

/// What it means. Errors are errno numbers; 0 is none.
#[derive(Debug)]
pub enum Event {
    Nothing,
    /// `last`: no more is accepted until asked for again.
    Accepted {
        slot: u32,
        last: bool,
    },
    /// No more is accepted until asked for again.
    AcceptEnded {
        error: i32,
    },
    Connected {
        slot: u32,
        error: i32,
    },
    /// `look`: by a look, and not by a receive that goes on.
    Received {
        slot: u32,
        filled: Filled,
        look: bool,
    },
    /// The peer ended its stream (0), or the connection broke.
    Ended {
        slot: u32,
        error: i32,
    },
    /// A datagram without content arrived.
    EmptyMessage {
        slot: u32,
    },
    /// A datagram was not sent; `slot`: unless its socket is gone.
    MessageFailed {
        slot: Option<u32>,
        error: i32,
    },
    /// Nothing more has arrived (after [`Flows::look`]).
    Empty {
        slot: u32,
    },
    /// All of it was taken.
    Sent {
        slot: u32,
        bytes: u32,
    },
    /// A part was taken; the rest is on its way.
    PartlySent {
        bytes: u32,
    },
    /// The connection broke: this much was never taken.
    SendFailed {
        slot: u32,
        unsent: u32,
        error: i32,
    },
    StreamEnded {
        slot: u32,
        error: i32,
    },
    /// Of a socket that is gone: what had been received, and what had been taken of its last send.
    Stale {
        filled: Option<Filled>,
        taken: u32,
    },
}

/// What happened, beside the events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounters {
    /// Receives that found no buffer.
    pub buffer_shortages: u64,
    /// Multishot receives that were armed again after they had ended, by themselves or because they were told to.
    pub rearms: u64,
    pub short_sends: u64,
    /// Completions of sockets that were gone.
    pub stale: u64,
    pub cancels: u64,
}

mod flag {
    pub(super) const OPEN: u16 = 1;
    pub(super) const CONNECTING: u16 = 2;
    /// A multishot receive is armed.
    pub(super) const RECEIVING: u16 = 4;
    /// Whatever arrives is welcome.
    pub(super) const WANTED: u16 = 8;
    /// A receive is over, and the next [`Flows::feed`] goes on with it.
    pub(super) const OVER: u16 = 16;
    /// The armed receive has been told to end.
    pub(super) const CANCELLED: u16 = 32;
    /// A look is wanted once nothing is under way; a look is under way.
    pub(super) const LOOK: u16 = 64;
    pub(super) const LOOKING: u16 = 128;
    pub(super) const SENDING: u16 = 256;
    /// The lease of the send belongs to this connection, and is released with it.
    pub(super) const OWNED: u16 = 512;
    /// The peer's stream has ended: nothing more is received.
    pub(super) const ENDED: u16 = 1024;
    /// A receive has been armed before.
    pub(super) const ARMED: u16 = 2048;
    /// A send failed: what it had left will never leave.
    pub(super) const CUT: u16 = 4096;
}

/// One socket.
#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    generation: u16,
    flags: u16,
    /// What is being sent: bytes `from..to` of a lease.
    lease: u32,
    from: u32,
    to: u32,
}

const _: () = assert!(size_of::<Flow>() == 16);

impl Flow {
    fn is(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    fn set(&mut self, flag: u16, on: bool) {
        self.flags = if on { self.flags | flag } else { self.flags & !flag };
    }
}

/// All sockets of one ring, by slot.
#[derive(Debug, Default)]
pub struct Flows {
    flows: Vec<Flow>,
    /// Slot and generation of those with the flag OVER.
    over: VecDeque<(u32, u16)>,
    open: u32,
    /// What arrives are datagrams: an empty one is no end.
    pub has_messages: bool,
    pub counters: FlowCounters,
}

const ECANCELED: i32 = 125;
const ENOBUFS: i32 = 105;
const EAGAIN: i32 = 11;
const EINTR: i32 = 4;
const EMFILE: i32 = 24;
const EPIPE: i32 = 32;

impl Flows {
    /// With room for so many sockets: memory is taken as they come, and never moved.
    pub fn with_capacity(sockets: u32) -> Self {
        Self { flows: Vec::with_capacity(sockets as usize), ..Self::default() }
    }

    /// Sockets that are open.
    pub fn open(&self) -> u32 {
        self.open
    }

    #[inline]
    fn token(&self, op: Op, slot: u32) -> Token {
        Token::new(op, self.flows[slot as usize].generation, slot)
    }

    /// The slot has a socket from here on; `connecting`: once its connection attempt succeeds.
    pub fn admit(&mut self, slot: u32, connecting: bool) -> u16 {
        let needed = slot as usize + 1;
        if self.flows.len() < needed {
            self.flows.resize(needed, Flow::default());
        }
        self.open += 1;
        let flow = &mut self.flows[slot as usize];
        debug_assert!(!flow.is(flag::OPEN), "a slot has one socket");
        flow.flags = if connecting { flag::OPEN | flag::CONNECTING } else { flag::OPEN };
        flow.generation
    }

    pub fn is_open(&self, slot: u32) -> bool {
        self.flows.get(slot as usize).is_some_and(|flow| flow.is(flag::OPEN))
    }

    #[inline]
    pub fn is_sending(&self, slot: u32) -> bool {
        self.flows[slot as usize].is(flag::SENDING)
    }

    /// Whether some of what it was given has yet to leave, or never will.
    #[inline]
    pub fn has_left_over(&self, slot: u32) -> bool {
        let flow = self.flows[slot as usize];
        flow.is(flag::SENDING) || flow.is(flag::CUT)
    }

    /// Which socket of this slot it is, so that one that is gone is known.
    #[inline]
    pub fn generation(&self, slot: u32) -> u16 {
        self.flows[slot as usize].generation
    }

    /// Receives from here on.
    pub fn receive(&mut self, driver: &mut impl Driver, slot: u32) {
        self.flows[slot as usize].set(flag::WANTED, true);
        self.go_on(driver, slot);
    }

    /// Asks for what is wanted, unless something is under way or waits to be fed: first a look, then receives.
    fn go_on(&mut self, driver: &mut impl Driver, slot: u32) {
        let flow = &mut self.flows[slot as usize];
        if flow.is(flag::RECEIVING | flag::LOOKING | flag::OVER) {
            return;
        }
        if flow.is(flag::LOOK) {
            flow.set(flag::LOOK, false);
            flow.set(flag::LOOKING, true);
            driver.look(self.token(Op::Look, slot));
        } else if flow.is(flag::WANTED) && !flow.is(flag::ENDED) {
            self.counters.rearms += u64::from(flow.is(flag::ARMED));
            flow.set(flag::RECEIVING | flag::ARMED, true);
            driver.receive(self.token(Op::Receive, slot));
        }
    }

    /// Receives no more for now. What the kernel has taken from the socket already will still be told.
    pub fn pause(&mut self, driver: &mut impl Driver, slot: u32) {
        let target = self.token(Op::Receive, slot);
        let flow = &mut self.flows[slot as usize];
        flow.set(flag::WANTED, false);
        if flow.is(flag::RECEIVING) && !flow.is(flag::CANCELLED) {
            flow.set(flag::CANCELLED, true);
            self.counters.cancels += 1;
            driver.cancel(target);
        }
    }

    /// Pauses, and takes what has arrived until now: [`Event::Received`], then [`Event::Empty`] when that was all
    /// (or [`Event::Ended`]). Another call is needed after each `Received`.
    pub fn look(&mut self, driver: &mut impl Driver, slot: u32) {
        self.pause(driver, slot);
        self.flows[slot as usize].set(flag::LOOK, true);
        self.go_on(driver, slot);
    }

    /// Sends bytes of a lease that several connections use.
    #[inline]
    pub fn send_shared(&mut self, driver: &mut impl Driver, slot: u32, lease: u32, from: u32, to: u32) {
        self.send(driver, slot, lease, from, to, false);
    }

    /// Sends all of a lease, and releases it when that is done or the socket closed.
    #[inline]
    pub fn send_owned(&mut self, driver: &mut impl Driver, slot: u32, lease: u32, len: u32) {
        self.send(driver, slot, lease, 0, len, true);
    }

    fn send(&mut self, driver: &mut impl Driver, slot: u32, lease: u32, from: u32, to: u32, owned: bool) {
        let token = self.token(Op::Send, slot).with_lease(lease);
        let flow = &mut self.flows[slot as usize];
        debug_assert!(flow.is(flag::OPEN) && !flow.is(flag::SENDING), "one send at a time");
        (flow.lease, flow.from, flow.to) = (lease, from, to);
        flow.set(flag::SENDING, true);
        flow.set(flag::OWNED, owned);
        driver.send(token, from, to);
    }

    /// Ends our stream; [`Event::StreamEnded`] tells when.
    pub fn end_stream(&mut self, driver: &mut impl Driver, slot: u32) {
        driver.end_stream(self.token(Op::EndStream, slot));
    }

    /// Closes; nothing but [`Event::Stale`] comes of this socket any more. Says how much of its send has not been
    /// seen to be taken.
    pub fn close(&mut self, driver: &mut impl Driver, slot: u32) -> u32 {
        let flow = self.flows[slot as usize];
        debug_assert!(flow.is(flag::OPEN));
        // Closing does not end what is under way: it would keep the socket alive, and the peer would never see its end.
        for (under_way, op) in [(flag::RECEIVING, Op::Receive), (flag::CONNECTING, Op::Connect)] {
            if flow.is(under_way) && !flow.is(flag::CANCELLED) {
                self.counters.cancels += 1;
                driver.cancel(self.token(op, slot));
            }
        }
        let mut unsent = 0;
        if flow.is(flag::SENDING) {
            self.counters.cancels += 1;
            driver.cancel(self.token(Op::Send, slot).with_lease(flow.lease));
            unsent = flow.to - flow.from;
            if flow.is(flag::OWNED) {
                driver.release(flow.lease);
            }
        }
        driver.close(slot);
        self.open -= 1;
        self.flows[slot as usize] = Flow { generation: flow.generation.wrapping_add(1), ..Flow::default() };
        unsent
    }

    /// Receives that are over are armed anew where they are still wanted: the oldest `most` of them, since more than
    /// there are buffers would fail again, and always the same ones. To be called when buffers have been given back,
    /// before the next wait. Says whether others have still to wait.
    pub fn feed(&mut self, driver: &mut impl Driver, most: usize) -> bool {
        for _ in 0..most.min(self.over.len()) {
            let Some((slot, generation)) = self.over.pop_front() else { break };
            let flow = &mut self.flows[slot as usize];
            if flow.generation != generation || !flow.is(flag::OVER) {
                continue;
            }
            flow.set(flag::OVER, false);
            self.go_on(driver, slot);
        }
        !self.over.is_empty()
    }

    /// What a completion means. Unless it is `AcceptEnded`, an accept goes on.
    #[inline]
    pub fn complete(&mut self, driver: &mut impl Driver, completion: Completion) -> Event {
        let Completion { token, result, more, notice, filled } = completion;
        let Some(op) = token.op() else { return Event::Nothing };
        if op == Op::Accept {
            return accepted(result, more);
        }
        let slot = token.slot();
        let current = self
            .flows
            .get(slot as usize)
            .is_some_and(|flow| flow.is(flag::OPEN) && flow.generation == token.generation());
        if notice {
            return Event::Nothing;
        }
        if op == Op::SendTo {
            let slot = current.then_some(slot);
            return if result < 0 { Event::MessageFailed { slot, error: -result } } else { Event::Nothing };
        }
        if !current {
            if matches!(op, Op::Cancel | Op::Close) {
                return Event::Nothing;
            }
            self.counters.stale += 1;
            let taken = if op == Op::Send { result.max(0) as u32 } else { 0 };
            return Event::Stale { filled, taken };
        }
        match op {
            Op::Receive => self.received(slot, result, more, filled),
            Op::Send => self.sent(driver, slot, result),
            Op::Look => self.looked(slot, result, filled),
            // Descriptors are needed for moments only, so the next one may be had.
            Op::Connect if result == -EMFILE => {
                driver.verify(self.token(Op::Verify, slot));
                Event::Nothing
            }
            Op::Connect => {
                self.flows[slot as usize].set(flag::CONNECTING, false);
                Event::Connected { slot, error: errno(result) }
            }
            Op::EndStream if result == -EMFILE => {
                driver.end_stream_without(self.token(Op::Shutdown, slot));
                Event::Nothing
            }
            Op::EndStream | Op::Shutdown => Event::StreamEnded { slot, error: errno(result) },
            Op::Accept | Op::Verify | Op::Close | Op::Cancel | Op::ReceiveFrom | Op::SendTo => Event::Nothing,
        }
    }

    #[inline]
    fn received(&mut self, slot: u32, result: i32, more: bool, filled: Option<Filled>) -> Event {
        if !more {
            self.receive_ended(slot, result);
        }
        match (result, filled) {
            (1.., Some(filled)) => Event::Received { slot, filled, look: false },
            (1.., None) => Event::Nothing,
            (0, _) if self.has_messages => Event::EmptyMessage { slot },
            (0, _) => Event::Ended { slot, error: 0 },
            _ if matches!(-result, ENOBUFS | ECANCELED | EAGAIN | EINTR) => Event::Nothing,
            _ => Event::Ended { slot, error: -result },
        }
    }

    /// A multishot receive is over; where that was not the end of the stream, it may go on.
    fn receive_ended(&mut self, slot: u32, result: i32) {
        let goes_on = result > 0 || result == 0 && self.has_messages;
        let flow = &mut self.flows[slot as usize];
        flow.set(flag::RECEIVING | flag::CANCELLED, false);
        let transient = goes_on || matches!(-result, ENOBUFS | ECANCELED | EAGAIN | EINTR);
        if transient {
            flow.set(flag::OVER, true);
            self.over.push_back((slot, flow.generation));
        } else {
            flow.set(flag::ENDED, true);
            flow.set(flag::LOOK, false); // that is its answer too
        }
        self.counters.buffer_shortages += u64::from(result == -ENOBUFS);
    }

    /// A look is over. One that was asked for meanwhile follows it, unless there is an answer that another call
    /// follows anyway; then come receives, if they are wanted again.
    fn looked(&mut self, slot: u32, result: i32, filled: Option<Filled>) -> Event {
        let flow = &mut self.flows[slot as usize];
        // Without a buffer, or cut short by a signal, it has told nothing.
        let told_nothing = matches!(-result, ENOBUFS | EINTR) || result > 0 && filled.is_none();
        let again = told_nothing || result == -EAGAIN && flow.is(flag::LOOK);
        flow.set(flag::LOOKING, false);
        flow.set(flag::LOOK, again);
        if again || flow.is(flag::WANTED) {
            flow.set(flag::OVER, true);
            self.over.push_back((slot, flow.generation));
        }
        self.counters.buffer_shortages += u64::from(result == -ENOBUFS);
        match (result, filled) {
            (1.., Some(filled)) => Event::Received { slot, filled, look: true },
            _ if again => Event::Nothing,
            _ if result == -EAGAIN => Event::Empty { slot },
            _ => {
                flow.set(flag::ENDED, true);
                Event::Ended { slot, error: errno(result) }
            }
        }
    }

    #[inline]
    fn sent(&mut self, driver: &mut impl Driver, slot: u32, result: i32) -> Event {
        let token = self.token(Op::Send, slot);
        let flow = &mut self.flows[slot as usize];
        if !flow.is(flag::SENDING) {
            return Event::Nothing;
        }
        let left = flow.to - flow.from;
        let taken = (result.max(0) as u32).min(left);
        flow.from += taken;
        if taken == left {
            self.send_done(driver, slot);
            return Event::Sent { slot, bytes: taken };
        }
        if taken > 0 || matches!(-result, EINTR | EAGAIN) {
            self.counters.short_sends += 1;
            driver.send(token.with_lease(flow.lease), flow.from, flow.to);
            return Event::PartlySent { bytes: taken };
        }
        self.send_done(driver, slot);
        self.flows[slot as usize].set(flag::CUT, true);
        // A send of something that takes nothing will never take anything.
        let error = if result == 0 { EPIPE } else { -result };
        Event::SendFailed { slot, unsent: left, error }
    }

    #[inline]
    fn send_done(&mut self, driver: &mut impl Driver, slot: u32) {
        let flow = &mut self.flows[slot as usize];
        let (owned, lease) = (flow.is(flag::OWNED), flow.lease);
        flow.set(flag::SENDING | flag::OWNED, false);
        if owned {
            driver.release(lease);
        }
    }
}

fn accepted(result: i32, more: bool) -> Event {
    // An error of one connection does not end the request; it is armed anew only when it says that it is over.
    match (u32::try_from(result), more) {
        (Ok(slot), more) => Event::Accepted { slot, last: !more },
        (Err(_), true) => Event::Nothing,
        (Err(_), false) => Event::AcceptEnded { error: -result },
    }
}

fn errno(result: i32) -> i32 {
    if result < 0 { -result } else { 0 }
}
