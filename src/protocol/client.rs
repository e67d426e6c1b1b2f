//! The seam between a load and a protocol: what a load may ask of the client half, and what that tells it.
//!
//! A [`Client`] does no I/O and reads no clock. It owns what is to be remembered of each connection, by slot. A call
//! hands it bytes or a moment; it answers by writing to the connection's [`Outbox`] and by [`Event`]s. A request is
//! called by its [`Ticket`] from the moment that the load takes it up until its end, so replies may come in any order.

use super::ask::Ask;
use super::outbox::Outbox;
use super::sequence::Unawaited;
use super::ticket::{Awaited, Order, Ticket};
use super::{Codec, Outcome, ReplyError};
use crate::handshake::Handshake;
use crate::time::Instant;
use std::fmt::Debug;

/// What a call is made with.
#[derive(Debug)]
pub struct Context<'a> {
    pub now: Instant,
    pub out: &'a mut Outbox,
    pub events: &'a mut Events,
    /// The requests of this connection that have no reply yet.
    pub awaited: Awaited<'a>,
}

/// What a client half tells the load in one call. Replies come first: there are thousands of them for each of the rest.
#[derive(Debug, Default)]
pub struct Events {
    /// Replies that are complete, in their order.
    pub completed: Vec<(Ticket, Outcome)>,
    /// What else happened, in its order, behind those replies.
    pub others: Vec<Event>,
}

impl Events {
    /// A reply is complete.
    #[inline]
    pub fn complete(&mut self, ticket: Ticket, outcome: Outcome) {
        self.completed.push((ticket, outcome));
    }

    pub fn push(&mut self, event: Event) {
        self.others.push(event);
    }

    pub fn clear(&mut self) {
        self.completed.clear();
        self.others.clear();
    }

    pub fn are_none(&self) -> bool {
        self.completed.is_empty() && self.others.is_empty()
    }
}

/// What happens besides complete replies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A layer below has done its handshake.
    Handshake(Handshake),
    /// The connection can carry requests: at least one, which is asked at once to prove it.
    Ready,
    /// The peer takes so many requests at a time, from now on.
    Capacity(u32),
    /// [`Client::timed_out`] is to be called then; an earlier wish is forgotten.
    Wake(Instant),
    /// The peer has taken this connection in, on a connection that never completes a request.
    Served,
    /// A request failed, and its connection goes on: the word in the ledger, and what happened.
    Failed(Ticket, &'static str, String),
    /// The peer promises not to have acted on a request, which is asked for again later, by the same ticket. Of its
    /// bytes, none is left in the outbox.
    Unprocessed(Ticket),
    /// A reply that nobody waits for. It answers nothing, and is no error.
    Stray(Unawaited),
    /// A reply that is complete was overtaken by one to a later request.
    Overtaken,
    /// The peer is about to close: nothing more is to be asked on this connection, as if it took none at a time.
    Draining,
    /// The peer closes behind what has been told, as it had announced.
    LastReply,
}

/// Why a connection cannot be used any further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The word in the ledger for the oldest request, that for those behind it, and what happened.
    Broken([&'static str; 2], String),
    /// The peer accepted the connection only to refuse it; what it said. Of one that has been served, a farewell.
    TurnedAway(String),
    /// The peer closes an idle connection, and said so.
    Farewell,
}

/// The end of a connection, in a box: a result of every call is cheap to look at thereby.
pub type Ended = Box<End>;

impl End {
    pub fn broken(kinds: [&'static str; 2], why: impl Into<String>) -> Ended {
        Box::new(Self::Broken(kinds, why.into()))
    }

    /// By bytes that are no reply, the first of them in `input`.
    #[cold]
    pub fn by_reply(error: ReplyError, input: &[u8]) -> Ended {
        Self::broken([error.kind.name(), "aborted"], error.describe(input))
    }
}

/// What became of a request that the load gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// It alone: its connection goes on.
    Alone,
    /// Its reply would be taken for that to another one, or it would leave yet: the connection has to be closed.
    Connection,
}

/// The client half of a protocol: one value for all connections of a thread.
///
/// For each connection a load calls, in this order: [`Client::connected`]; once it is [`Event::Ready`],
/// [`Client::start`] for each request; [`Client::received`] for what arrives; and [`Client::disconnected`] last.
pub trait Client: Debug + Send {
    /// Takes memory for connections in slots `0..slots`, each with at most `depth` requests under way. Called once,
    /// before all else. `worker`: which worker this is, of how many; `run`: a number unlike that of other runs.
    fn make_room(&mut self, slots: usize, depth: usize, worker: (u64, u64), run: u64);

    /// An example of a request, or of a block of a stream; the bytes of every one where [`Client::shares`].
    fn request(&self) -> &[u8];

    /// Whether all requests are the same bytes. Then the load puts them into the outbox itself ([`Outbox::share`]), and
    /// does not call [`Client::start`].
    fn shares(&self) -> bool;

    /// The kinds of requests that the report tells apart; none where all are alike.
    fn kinds(&self) -> &[String];

    /// What the client half itself counted, such as `hits`.
    fn counts(&self) -> Vec<(&'static str, u64)>;

    /// Whether replies come in the order of requests.
    fn order(&self) -> Order {
        Order::OfRequests
    }

    /// Whether [`Client::writable`] may have something to say whenever an outbox is empty, as an endless stream has.
    fn fills(&self) -> bool {
        false
    }

    /// Whether what [`Client::start`] says is put into the outbox by [`Client::writable`] only, so that several
    /// requests leave in one piece.
    fn gathers(&self) -> bool {
        false
    }

    /// Whether a peer may give requests back that it has not acted on ([`Event::Unprocessed`]).
    fn gives_back(&self) -> bool {
        false
    }

    /// Whether peers ever say anything by which they show that they have taken a connection in.
    fn is_answered(&self) -> bool {
        true
    }

    /// For how long connections stay open behind their last reply when a run ends, because more may be on its way.
    fn lingers_ns(&self) -> u64 {
        0
    }

    /// The transport is up: says what comes first (a login), or is [`Event::Ready`] at once.
    fn connected(&mut self, slot: u32, cx: &mut Context<'_>) -> Result<(), Ended>;

    /// What a connection that is not ready yet is waiting for, as in `the login`.
    fn stage(&self, _slot: u32) -> &'static str {
        "the greeting"
    }

    /// Asks for one thing, and answers its kind: an index into [`Client::kinds`]. `ask` says for which; the protocol
    /// moves its cursor on. One that came back ([`Event::Unprocessed`]) is asked for again by the same ticket.
    ///
    /// Where there are no requests, it is called once, with [`super::ticket::STREAM`]: the stream may flow.
    /// No request ends meanwhile: what events tell is of the connection (a wish, a capacity).
    fn start(&mut self, slot: u32, ticket: Ticket, ask: &mut Ask, cx: &mut Context<'_>) -> u16;

    /// Bytes of the peer, or one whole message. Answers how many of them need not be shown again, with more behind
    /// them; what is kept back is bounded by [`super::MAX_KEPT`].
    ///
    /// # Errors
    /// The connection cannot be used any further. What events tell happened before.
    fn received(&mut self, slot: u32, bytes: &[u8], cx: &mut Context<'_>) -> Result<usize, Ended>;

    /// The outbox is empty, and there is room for more.
    fn writable(&mut self, _slot: u32, _cx: &mut Context<'_>) {}

    /// The peer ended its stream, with `kept` bytes that had not been used. `whole`: nobody can have cut it short.
    ///
    /// # Errors
    /// It ended where it must not.
    fn stream_ended(&mut self, slot: u32, kept: &[u8], whole: bool, cx: &mut Context<'_>) -> Result<(), Ended>;

    /// It is the time of the last [`Event::Wake`].
    ///
    /// # Errors
    /// The connection cannot be used any further.
    fn timed_out(&mut self, _slot: u32, _cx: &mut Context<'_>) -> Result<(), Ended> {
        Ok(())
    }

    /// The load does not wait for a request any longer. Where [`Outbox::withdraw`] says that it had not begun to leave,
    /// the peer need not hear of it.
    fn cancel(&mut self, _slot: u32, _ticket: Ticket, _cx: &mut Context<'_>) -> Cancelled {
        Cancelled::Connection
    }

    /// We close in good order: says what is said last.
    fn close(&mut self, _slot: u32, _cx: &mut Context<'_>) {}

    /// The connection is no more.
    fn disconnected(&mut self, slot: u32);

    /// How requests are written and replies read, where that can be told apart from connections.
    fn into_codec(self: Box<Self>) -> Option<Box<dyn Codec>> {
        None
    }
}
