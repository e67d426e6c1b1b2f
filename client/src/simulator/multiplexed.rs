//! A scratch protocol, to hold the seam of protocols to its word: what multiplexes needs this file and no other. Each
//! request has a stream of its own, replies come in any order and in pieces between each other, the peer says how many
//! it takes at a time, either side may give a stream up, and a ping that is not answered in time ends the connection.
//!
//! It runs whole loads in virtual time and over real sockets (`loads`). Its peer writes down the truth as it sees it.

mod loads;
mod truth;

use loadgen_core::protocol::ask::Ask;
use loadgen_core::protocol::client::{Cancelled, Client, Context, End, Ended, Event};
use loadgen_core::protocol::sequence::Unawaited;
use loadgen_core::protocol::ticket::{Order, Ticket};
use loadgen_core::protocol::{Next, Outcome, Output, Protocol, Served, Server, ServerState, Shape};
use loadgen_core::rng::Rng;
use loadgen_core::time::{Instant, NS_PER_MS};
use loadgen_core::transport::Transport;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use truth::{Shared, look, truth};

static MULTIPLEXED: Protocol = Protocol {
    name: "multiplexed",
    schemes: &[],
    secure_schemes: &[],
    alpn: &[],
    about: "scratch",
    default_port: None,
    transport: Transport::Stream,
    shape: Shape::Exchange,
    store: false,
    paths: false,
    headers: false,
    client: |_| Ok(Box::new(Multiplexed::new(truth()))),
    server: |_| Ok(Box::new(Half::new(truth()))),
};

/// How long after the last pong, or the first request on an idle connection, the client half pings.
const PING_AFTER_NS: u64 = 5 * NS_PER_MS;
/// How late a call is that was asked for: deadlines are of whole milliseconds.
const SLACK_NS: u64 = 2 * NS_PER_MS;
/// Type, stream, length.
const HEAD: usize = 7;
const BODY_MAX: usize = 1_000;

/// Types of frames. A stream's number is of the whole run. `LIMIT` and `ACK` have the limit's number in its place,
/// `PING` and `PONG` the ping's, `GOAWAY` that of the last request that was read.
const HELLO: u8 = 1;
const REQUEST: u8 = 2;
const REPLY: u8 = 3;
const LIMIT: u8 = 4;
const ACK: u8 = 5;
const PING: u8 = 6;
const PONG: u8 = 7;
const RESET: u8 = 8;
const GOAWAY: u8 = 9;
const REFUSED: u8 = 10;

/// What a piece of a reply says of itself.
const GOES_ON: u8 = 0;
const LAST: u8 = 1;
const LAST_REFUSED: u8 = 2;

struct Frame<'a> {
    kind: u8,
    id: u32,
    body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The first one, and how long it is; `None`: not all of it is there yet.
    fn read(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, &'static str> {
        let Some(kind) = bytes.first() else { return Ok(None) };
        if !(HELLO..=REFUSED).contains(kind) {
            return Err("there is no such frame");
        }
        let Some((head, rest)) = bytes.split_at_checked(HEAD) else { return Ok(None) };
        let len = usize::from(u16::from_be_bytes([head[5], head[6]]));
        if len > BODY_MAX {
            return Err("a frame is too long");
        }
        let frame = |body| (Self { kind: *kind, id: word(&head[1..]), body }, HEAD + len);
        Ok(rest.get(..len).map(frame))
    }

    fn write(kind: u8, id: u32, body: &[u8], out: &mut Vec<u8>) {
        out.push(kind);
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&(body.len() as u16).to_be_bytes());
        out.extend_from_slice(body);
    }
}

/// Of the client half: a frame that is no request.
fn say(kind: u8, id: u32, cx: &mut Context<'_>) {
    let mut frame = Vec::new();
    Frame::write(kind, id, b"", &mut frame);
    cx.out.say(&frame);
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn reply_len(id: u32) -> usize {
    1 + id as usize * 37 % 200
}

/// What a reply has at a place: no other stream has the same.
fn reply_byte(id: u32, at: usize) -> u8 {
    (id as usize + at * 7) as u8
}

/// The client half.
#[derive(Debug)]
struct Multiplexed {
    truth: Shared,
    pong_by_ns: u64,
    kinds: [String; 2],
    lines: Vec<Line>,
    long: Vec<u8>,
}

/// A connection of it.
#[derive(Debug, Default)]
struct Line {
    is_ready: bool,
    is_draining: bool,
    /// Stream, ticket, and how much of the reply is here.
    open: Vec<(u32, Ticket, usize)>,
    asked: BTreeSet<u32>,
    given_up: BTreeSet<u32>,
    /// The number of the last limit, and what it is.
    limit: (u32, usize),
    /// Since when a pong is awaited, or when the next ping is due.
    awaits_pong: Option<Instant>,
    pings_at: Option<Instant>,
    pings: u32,
}

impl Multiplexed {
    fn new(truth: Shared) -> Self {
        let pong_by_ns = look(&truth).pong_by_ns;
        let kinds = ["short".to_owned(), "long".to_owned()];
        Self { truth, pong_by_ns, kinds, lines: Vec::new(), long: vec![b'q'; 300] }
    }

    /// Whoever is called finds no deadline missed.
    fn is_in_time(&self, slot: u32, now: Instant) {
        let line = &self.lines[slot as usize];
        let by = line.awaits_pong.map(|since| since.after(self.pong_by_ns)).or(line.pings_at);
        let mut truth = look(&self.truth);
        let in_time = truth.stalls || truth.now_ns == 0 || by.is_none_or(|by| now <= by.after(SLACK_NS));
        truth.check(in_time, || format!("slot {slot} at {now:?}: that was to be by {by:?}: {line:?}"));
    }

    fn pings_later(&mut self, slot: u32, cx: &mut Context<'_>) {
        let at = cx.now.after(PING_AFTER_NS);
        self.lines[slot as usize].pings_at = Some(at);
        cx.events.push(Event::Wake(at));
    }

    fn heard(&mut self, slot: u32, frame: &Frame<'_>, cx: &mut Context<'_>) -> Result<(), Ended> {
        let line = &mut self.lines[slot as usize];
        match frame.kind {
            REPLY => return self.replied(slot, frame, cx),
            LIMIT if frame.id > line.limit.0 => {
                let most = word(frame.body);
                line.limit = (frame.id, most as usize);
                say(ACK, frame.id, cx);
                if !line.is_draining {
                    cx.events.push(Event::Capacity(most));
                }
                if most > 0 && !std::mem::replace(&mut line.is_ready, true) {
                    cx.events.push(Event::Ready);
                    self.pings_later(slot, cx);
                }
            }
            PONG if line.awaits_pong.is_some() && frame.id == line.pings => {
                line.awaits_pong = None;
                look(&self.truth).count("pongs heard");
                self.pings_later(slot, cx);
            }
            RESET => match line.open.iter().position(|(id, ..)| *id == frame.id) {
                Some(at) => {
                    let (id, ticket, _) = line.open.remove(at);
                    cx.events.push(Event::Failed(ticket, "reset_stream", format!("the peer gave stream {id} up")));
                }
                None => cx.events.push(Event::Stray(Unawaited::Late)),
            },
            GOAWAY => {
                line.is_draining = true;
                cx.events.push(Event::Draining);
                let (read, unread) = line.open.iter().partition(|(id, ..)| *id <= frame.id);
                line.open = read;
                for (id, ticket, _) in unread {
                    cx.out.withdraw(ticket);
                    line.asked.remove(&id);
                    look(&self.truth).came_back(id, "left behind");
                    cx.events.push(Event::Unprocessed(ticket));
                }
            }
            REFUSED => match line.open.iter().position(|(id, ..)| *id == frame.id) {
                Some(at) => {
                    let (id, ticket, _) = line.open.remove(at);
                    look(&self.truth).came_back(id, "refused");
                    cx.events.push(Event::Unprocessed(ticket));
                }
                None => cx.events.push(Event::Stray(Unawaited::Late)),
            },
            LIMIT | PONG => {}
            _ => return Err(broken("that is no frame of a peer")),
        }
        Ok(())
    }

    fn replied(&mut self, slot: u32, frame: &Frame<'_>, cx: &mut Context<'_>) -> Result<(), Ended> {
        let line = &mut self.lines[slot as usize];
        let Some(at) = line.open.iter().position(|(id, ..)| *id == frame.id) else {
            let what = match line.given_up.contains(&frame.id) {
                true => Unawaited::Late,
                false if line.asked.contains(&frame.id) => Unawaited::Duplicate,
                false => return Err(broken("a reply to what was not asked here")),
            };
            look(&self.truth).count("strays");
            cx.events.push(Event::Stray(what));
            return Ok(());
        };
        let (id, mut ticket, got) = line.open[at];
        let Some(([high, low, how], piece)) = frame.body.split_first_chunk() else {
            return Err(broken("a piece without a head"));
        };
        if usize::from(u16::from_be_bytes([*high, *low])) != got {
            return Err(broken("a piece is missing, or came twice"));
        }
        if piece.iter().zip(got..).any(|(byte, at)| *byte != reply_byte(id, at)) {
            return Err(End::broken(["mismatch", "aborted"], format!("another reply than that of stream {id}")));
        }
        line.open[at].2 += piece.len();
        if *how == GOES_ON {
            return Ok(());
        }
        if line.open[at].2 != reply_len(id) {
            return Err(broken("a reply is too short"));
        }
        let mut truth = look(&self.truth);
        let other = (at + 1) % line.open.len();
        if truth.credits_others && other != at {
            (ticket, line.open[other].1) = (line.open[other].1, ticket);
        }
        line.open.remove(at);
        truth.completed.push((slot, id, cx.now));
        if at > 0 {
            truth.count("out of order");
        }
        let outcome = if *how == LAST { Outcome::Ok } else { Outcome::Refused("status_4xx") };
        cx.events.complete(ticket, outcome);
        Ok(())
    }
}

fn broken(why: &str) -> Ended {
    End::broken(["malformed", "aborted"], why)
}

impl Client for Multiplexed {
    fn make_room(&mut self, slots: usize, _depth: usize, _worker: (u64, u64), _run: u64) {
        self.lines = std::iter::repeat_with(Line::default).take(slots).collect();
    }

    fn request(&self) -> &[u8] {
        b"an example"
    }

    fn shares(&self) -> bool {
        false
    }

    fn kinds(&self) -> &[String] {
        &self.kinds
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    fn order(&self) -> Order {
        Order::Any
    }

    fn gives_back(&self) -> bool {
        true
    }

    fn connected(&mut self, _slot: u32, cx: &mut Context<'_>) -> Result<(), Ended> {
        say(HELLO, 0, cx);
        Ok(())
    }

    fn start(&mut self, slot: u32, ticket: Ticket, ask: &mut Ask, cx: &mut Context<'_>) -> u16 {
        self.is_in_time(slot, cx.now);
        let mut truth = look(&self.truth);
        truth.last_id += 1;
        let id = truth.last_id;
        truth.started.insert(id, cx.now);
        truth.asks(id, *ask);
        let line = &mut self.lines[slot as usize];
        let may = line.is_ready && !line.is_draining && line.open.len() < line.limit.1;
        truth.check(may, || format!("slot {slot} must not ask: {line:?}"));
        drop(truth);
        let was_idle = line.open.is_empty() && line.awaits_pong.is_none();
        line.open.push((id, ticket, 0));
        line.asked.insert(id);
        let kind = u16::from(ask.draws.is_multiple_of(3));
        let body = if kind == 0 { &self.long[..9] } else { &self.long };
        cx.out.begin(ticket);
        Frame::write(REQUEST, id, body, cx.out.buffer());
        if was_idle {
            self.pings_later(slot, cx);
        }
        kind
    }

    fn received(&mut self, slot: u32, bytes: &[u8], cx: &mut Context<'_>) -> Result<usize, Ended> {
        self.is_in_time(slot, cx.now);
        let mut used = 0;
        while let Some((frame, len)) = Frame::read(&bytes[used..]).map_err(broken)? {
            used += len;
            self.heard(slot, &frame, cx)?;
            let line = &self.lines[slot as usize];
            if line.is_draining && line.open.is_empty() {
                look(&self.truth).count("went away");
                cx.events.push(Event::LastReply);
                break;
            }
        }
        Ok(used)
    }

    fn stream_ended(&mut self, slot: u32, _kept: &[u8], _whole: bool, _cx: &mut Context<'_>) -> Result<(), Ended> {
        let why = "the peer ended the stream";
        if self.lines[slot as usize].open.is_empty() { Ok(()) } else { Err(End::broken(["closed"; 2], why.to_owned())) }
    }

    fn timed_out(&mut self, slot: u32, cx: &mut Context<'_>) -> Result<(), Ended> {
        self.is_in_time(slot, cx.now);
        let line = &mut self.lines[slot as usize];
        let mut truth = look(&self.truth);
        let early = line.awaits_pong.map(|since| since.after(self.pong_by_ns)).or(line.pings_at);
        truth.check(early.is_some_and(|at| cx.now >= at), || format!("slot {slot} is woken too early: {line:?}"));
        if line.awaits_pong.is_some() {
            truth.count("without a pong");
            return Err(End::broken(["no_pong", "aborted"], "a ping was not answered in time".to_owned()));
        }
        truth.count("pings sent");
        line.pings += 1;
        (line.awaits_pong, line.pings_at) = (Some(cx.now), None);
        say(PING, line.pings, cx);
        cx.events.push(Event::Wake(cx.now.after(self.pong_by_ns)));
        Ok(())
    }

    fn cancel(&mut self, slot: u32, ticket: Ticket, cx: &mut Context<'_>) -> Cancelled {
        let line = &mut self.lines[slot as usize];
        let at = line.open.iter().position(|(_, other, _)| *other == ticket).expect("a request that is under way");
        let (id, ..) = line.open.remove(at);
        let mut truth = look(&self.truth);
        if cx.out.withdraw(ticket) {
            truth.count("withdrawn");
            line.asked.remove(&id);
        } else {
            truth.count("given up");
            line.given_up.insert(id);
            say(RESET, id, cx);
        }
        Cancelled::Alone
    }

    fn close(&mut self, slot: u32, cx: &mut Context<'_>) {
        let open = &self.lines[slot as usize].open;
        look(&self.truth).check(open.is_empty(), || format!("slot {slot} is closed with {open:?}"));
        say(GOAWAY, 0, cx);
    }

    fn disconnected(&mut self, slot: u32) {
        self.lines[slot as usize] = Line::default();
    }
}

/// The server half, of one connection. It acts on what it reads only; that is at least a ping now and then.
#[derive(Debug)]
struct Half {
    truth: Shared,
    rng: Rng,
    /// Stream, and how much of its reply has been said.
    open: Vec<(u32, usize)>,
    /// Limits by number: those that may be in force, and the last that was said.
    limits: VecDeque<(u32, usize)>,
    last_read: u32,
    is_draining: bool,
    is_mute: bool,
    /// The first frame that has not been consumed was dealt with; so many pieces follow it.
    has_acted: bool,
    pieces: u64,
    control: Vec<u8>,
}

impl Half {
    fn new(truth: Shared) -> Self {
        let rng = Rng::new(look(&truth).rng.get_or_insert_with(|| Rng::new(1)).next_u64());
        Self {
            truth,
            rng,
            open: Vec::new(),
            limits: VecDeque::new(),
            last_read: 0,
            is_draining: false,
            is_mute: false,
            has_acted: false,
            pieces: 0,
            control: Vec::new(),
        }
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.rng.below(n) == 0
    }

    fn act(&mut self, frame: &Frame<'_>) {
        let shared = Arc::clone(&self.truth);
        let mut truth = look(&shared);
        let mischief = truth.mischief;
        self.pieces = self.rng.below(5);
        let least = match frame.kind {
            HELLO => Some(0),
            // Who takes none cannot hear of more but by a ping, or by our limit's being known.
            PING | ACK if self.limits.back().is_some_and(|(_, most)| *most == 0) => Some(1),
            _ => (!self.limits.is_empty() && self.one_in(16)).then_some(0),
        };
        match frame.kind {
            REQUEST if self.is_draining => truth.count("came too late"),
            REQUEST => {
                let most = self.limits.iter().map(|(_, most)| *most).max().unwrap_or(0);
                let open = self.open.len() + 1;
                truth.check(open <= most, || format!("stream {} is {open} of {:?}", frame.id, self.limits));
                let now = truth.now();
                let is_first = truth.read.insert(frame.id, now).is_none();
                truth.check(is_first, || format!("stream {} comes twice", frame.id));
                self.last_read = frame.id;
                if truth.unanswered > 0 {
                    truth.unanswered -= 1;
                } else if mischief && self.one_in(20) {
                    Frame::write(RESET, frame.id, b"", &mut self.control);
                } else if mischief && self.one_in(8) {
                    Frame::write(REFUSED, frame.id, b"", &mut self.control);
                } else {
                    self.open.push((frame.id, 0));
                }
                if mischief && self.one_in(60) {
                    self.is_draining = true;
                    Frame::write(GOAWAY, self.last_read, b"", &mut self.control);
                }
            }
            ACK => self.limits.retain(|(number, _)| *number >= frame.id),
            PING => {
                self.pieces = 1_000;
                self.is_mute |= mischief && self.one_in(10);
                if !self.is_mute {
                    truth.count("pongs said");
                    Frame::write(PONG, frame.id, b"", &mut self.control);
                }
            }
            RESET => self.open.retain(|(id, _)| *id != frame.id),
            _ => {}
        }
        if let Some(least) = least {
            truth.count("limits");
            let number = self.limits.back().map_or(1, |(number, _)| number + 1);
            let most = (least + self.rng.below(truth.depth + 2 - least)) as u32;
            self.limits.push_back((number, most as usize));
            Frame::write(LIMIT, number, &most.to_be_bytes(), &mut self.control);
        }
    }

    /// A piece of some reply; answers whether that reply is complete now.
    fn piece(&mut self, out: &mut Output) -> bool {
        let at = self.rng.below(self.open.len() as u64) as usize;
        let (id, said) = self.open[at];
        let left = reply_len(id) - said;
        let len = left.min(1 + self.rng.below(90) as usize);
        let how = match len == left {
            true if id.is_multiple_of(19) => LAST_REFUSED,
            true => LAST,
            false => GOES_ON,
        };
        let [high, low] = (said as u16).to_be_bytes();
        let body: Vec<u8> =
            [high, low, how].into_iter().chain((said..said + len).map(|at| reply_byte(id, at))).collect();
        let mut frame = Vec::new();
        Frame::write(REPLY, id, &body, &mut frame);
        assert!(out.put(&frame), "no room for {} bytes", frame.len());
        self.open[at].1 += len;
        if how != GOES_ON {
            self.open.swap_remove(at);
            let mut truth = look(&self.truth);
            let now = truth.now();
            truth.said.insert(id, now);
        }
        how != GOES_ON
    }
}

impl Server for Half {
    /// Whatever it says counts as a reply: the simulator then delivers it.
    fn serve(&mut self, _state: &mut ServerState, input: &[u8], _eof: bool, out: &mut Output) -> Served {
        let mut consumed = 0;
        let served = |consumed, replies, next| Served { consumed, requests: 0, replies, next };
        loop {
            let (frame, len) = match Frame::read(&input[consumed..]) {
                Ok(Some(read)) => read,
                Ok(None) => return served(consumed, 0, Next::Read),
                Err(_) => return served(consumed, 0, Next::Reject),
            };
            if !std::mem::replace(&mut self.has_acted, true) {
                self.act(&frame);
            }
            if !self.control.is_empty() {
                assert!(out.put(&self.control), "no room for {} bytes", self.control.len());
                self.control.clear();
                return served(consumed, 1, Next::Flush);
            }
            while self.pieces > 0 && !self.open.is_empty() && out.room() > 150 {
                self.pieces -= 1;
                if self.piece(out) {
                    break;
                }
            }
            if !out.bytes().is_empty() {
                return served(consumed, 1, Next::Flush);
            }
            self.has_acted = false;
            consumed += len;
        }
    }
}
