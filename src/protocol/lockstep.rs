//! Protocols whose replies come in the order of requests: what they say of single requests and replies, their
//! [`Codec`] knows; here is which reply answers which request, and what comes before the first and between them.

use super::ask::Ask;
use super::client::{Client, Context, End, Ended, Event};
use super::ticket::Ticket;
use super::{ClientState, Codec, GREETING, Outcome, Unasked, quote};
use std::collections::HashMap;

/// A client half whose replies come in order.
#[derive(Debug)]
pub struct Lockstep<C> {
    codec: C,
    states: Vec<ClientState>,
    /// Replies to the greeting that are awaited; empty where nothing is said first.
    greetings: Vec<u32>,
    /// Bytes that answer no request and are not whole yet, of the few connections that have such.
    strays: HashMap<u32, Vec<u8>>,
}

impl<C: Codec + 'static> Lockstep<C> {
    /// As an entry of the table has it.
    pub fn boxed(codec: C) -> Box<dyn Client> {
        Box::new(Self { codec, states: Vec::new(), greetings: Vec::new(), strays: HashMap::new() })
    }

    /// Bytes arrived for which no request has left: they must never be credited to one that comes later. But a server
    /// may say by them why it closes a connection, and that is not always an error: who waited for a request for long
    /// enough says 408 (RFC 9110, 15.5.9), who has too many connections says so as it accepts one.
    #[cold]
    fn unasked(&mut self, slot: u32, input: &[u8], cx: &mut Context<'_>) -> Result<(), Ended> {
        match self.codec.unasked(input) {
            Unasked::Nothing => {
                let why = format!("bytes that answer no request: {}", quote(input));
                Err(End::broken(["unexpected", "aborted"], why))
            }
            Unasked::More => {
                self.strays.insert(slot, input.to_vec());
                cx.events.push(Event::Draining);
                Ok(())
            }
            Unasked::TurnedAway => Err(Box::new(End::TurnedAway(quote(input)))),
            Unasked::Farewell => Err(Box::new(End::Farewell)),
        }
    }

    /// More bytes of that kind: they may be cut anywhere, and a request may have left since the first of them.
    #[cold]
    fn strayed(&mut self, slot: u32, input: &[u8], cx: &mut Context<'_>) -> Result<usize, Ended> {
        let mut stray = self.strays.remove(&slot).unwrap_or_default();
        stray.extend_from_slice(input);
        self.unasked(slot, &stray, cx).map(|()| input.len())
    }

    /// Bytes arrived in answer to the greeting.
    #[cold]
    fn greeted(&mut self, slot: u32, input: &[u8], cx: &mut Context<'_>) -> Result<usize, Ended> {
        let (state, left) = (&mut self.states[slot as usize], &mut self.greetings[slot as usize]);
        let mut used = 0;
        while *left > 0 && used < input.len() {
            state.kind = GREETING;
            let rest = &input[used..];
            let consumed = self.codec.consume(state, rest).map_err(|error| End::by_reply(error, rest))?;
            let reply = &rest[..consumed.bytes];
            used += consumed.bytes;
            match consumed.reply.map(|reply| reply.outcome) {
                None => return Ok(used),
                Some(Outcome::Ok) => *left -= 1,
                Some(Outcome::TurnedAway) => return Err(Box::new(End::TurnedAway(quote(reply)))),
                Some(Outcome::Refused(kind)) => {
                    return Err(End::broken(
                        [kind, "aborted"],
                        format!("the server refused the login: {}", quote(reply)),
                    ));
                }
            }
        }
        if *left == 0 {
            if used < input.len() {
                let why = "bytes behind the answer to the greeting, which answer nothing";
                return Err(End::broken(["unexpected", "aborted"], why.to_owned()));
            }
            cx.events.push(Event::Ready);
        }
        Ok(used)
    }
}

impl<C: Codec + 'static> Client for Lockstep<C> {
    fn make_room(&mut self, slots: usize, _depth: usize, _worker: (u64, u64), _run: u64) {
        self.states = vec![ClientState::default(); slots];
        if self.codec.greeting().is_some() {
            self.greetings = vec![0; slots];
        }
    }

    fn request(&self) -> &[u8] {
        self.codec.request()
    }

    fn shares(&self) -> bool {
        !self.codec.composes()
    }

    fn kinds(&self) -> &[String] {
        self.codec.kinds()
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        self.codec.counts()
    }

    fn connected(&mut self, slot: u32, cx: &mut Context<'_>) -> Result<(), Ended> {
        self.states[slot as usize] = ClientState::default();
        match self.codec.greeting() {
            None => cx.events.push(Event::Ready),
            Some((bytes, replies)) => {
                cx.out.say(bytes);
                self.greetings[slot as usize] = replies;
            }
        }
        Ok(())
    }

    fn start(&mut self, _slot: u32, ticket: Ticket, ask: &mut Ask, cx: &mut Context<'_>) -> u16 {
        cx.out.begin(ticket);
        self.codec.compose(ask, cx.out.buffer())
    }

    fn received(&mut self, slot: u32, input: &[u8], cx: &mut Context<'_>) -> Result<usize, Ended> {
        if !self.greetings.is_empty() && self.greetings[slot as usize] > 0 {
            return self.greeted(slot, input, cx);
        }
        if !self.strays.is_empty() && self.strays.contains_key(&slot) {
            return self.strayed(slot, input, cx);
        }
        let state = &mut self.states[slot as usize];
        let (mut used, mut answered) = (0, 0);
        while used < input.len() {
            let rest = &input[used..];
            let Some((ticket, kind)) = cx.awaited.sent(answered) else {
                return self.unasked(slot, rest, cx).map(|()| input.len());
            };
            state.kind = kind;
            let consumed = self.codec.consume(state, rest).map_err(|error| End::by_reply(error, rest))?;
            used += consumed.bytes;
            let Some(reply) = consumed.reply else { break };
            if reply.outcome == Outcome::TurnedAway {
                return Err(Box::new(End::TurnedAway(quote(&rest[..consumed.bytes]))));
            }
            cx.events.complete(ticket, reply.outcome);
            answered += 1;
            if reply.last {
                cx.events.push(Event::LastReply);
                break;
            }
        }
        Ok(used)
    }

    fn stream_ended(&mut self, slot: u32, kept: &[u8], whole: bool, cx: &mut Context<'_>) -> Result<(), Ended> {
        let awaited = cx.awaited.sent(0);
        let state = &mut self.states[slot as usize];
        state.kind = awaited.map_or(0, |(_, kind)| kind);
        match (self.codec.finish(state, kept), awaited) {
            (Ok(Some(reply)), Some((ticket, _))) if whole => {
                cx.events.complete(ticket, reply.outcome);
                cx.events.push(Event::LastReply);
                Ok(())
            }
            (Ok(_), _) if cx.awaited.count() == 0 => Ok(()),
            (Ok(_), _) => {
                let why = "the server ended the stream before the reply".to_owned();
                Err(End::broken(["closed"; 2], why))
            }
            (Err(error), _) => Err(End::broken([error.kind.name(), "closed"], error.detail.to_owned())),
        }
    }

    fn disconnected(&mut self, slot: u32) {
        if let Some(left) = self.greetings.get_mut(slot as usize) {
            *left = 0;
        }
        if !self.strays.is_empty() {
            self.strays.remove(&slot);
        }
    }

    fn into_codec(self: Box<Self>) -> Option<Box<dyn Codec>> {
        Some(Box::new(self.codec))
    }
}
