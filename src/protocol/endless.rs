//! Streams without requests and replies: throughput only. A [`Codec`] says which block the client repeats, and whether
//! what the server says is right.

use super::ask::Ask;
use super::client::{Client, Context, End, Ended, Event};
use super::ticket::Ticket;
use super::{ClientState, Codec};

/// A client half of an endless stream, in one of the two directions.
#[derive(Debug)]
pub struct Endless<C> {
    codec: C,
    states: Vec<ClientState>,
    /// Whose stream may flow.
    flowing: Vec<bool>,
}

impl<C: Codec + 'static> Endless<C> {
    /// As an entry of the table has it.
    pub fn boxed(codec: C) -> Box<dyn Client> {
        Box::new(Self { codec, states: Vec::new(), flowing: Vec::new() })
    }
}

impl<C: Codec + 'static> Client for Endless<C> {
    fn make_room(&mut self, slots: usize, _depth: usize, _worker: (u64, u64), _run: u64) {
        self.states = vec![ClientState::default(); slots];
        self.flowing = vec![false; slots];
    }

    fn request(&self) -> &[u8] {
        self.codec.request()
    }

    fn shares(&self) -> bool {
        true
    }

    fn kinds(&self) -> &[String] {
        &[]
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    fn fills(&self) -> bool {
        !self.codec.request().is_empty()
    }

    /// Nothing ever comes back from who only listens.
    fn is_answered(&self) -> bool {
        self.codec.request().is_empty()
    }

    fn connected(&mut self, slot: u32, cx: &mut Context<'_>) -> Result<(), Ended> {
        self.states[slot as usize] = ClientState::default();
        cx.events.push(Event::Ready);
        Ok(())
    }

    fn start(&mut self, slot: u32, _ticket: Ticket, _ask: &mut Ask, _cx: &mut Context<'_>) -> u16 {
        self.flowing[slot as usize] = true;
        0
    }

    fn received(&mut self, slot: u32, bytes: &[u8], cx: &mut Context<'_>) -> Result<usize, Ended> {
        match self.codec.consume(&mut self.states[slot as usize], bytes) {
            Ok(_) => {
                cx.events.push(Event::Served);
                Ok(bytes.len())
            }
            Err(error) => Err(End::by_reply(error, bytes)),
        }
    }

    fn writable(&mut self, slot: u32, cx: &mut Context<'_>) {
        if self.flowing[slot as usize] {
            cx.out.share(self.codec.request().len());
        }
    }

    /// The stream has no end of its own, so any end will do.
    fn stream_ended(&mut self, _slot: u32, _kept: &[u8], _whole: bool, _cx: &mut Context<'_>) -> Result<(), Ended> {
        Ok(())
    }

    fn close(&mut self, slot: u32, _cx: &mut Context<'_>) {
        self.flowing[slot as usize] = false;
    }

    fn disconnected(&mut self, slot: u32) {
        self.flowing[slot as usize] = false;
    }

    fn into_codec(self: Box<Self>) -> Option<Box<dyn Codec>> {
        Some(Box::new(self.codec))
    }
}
