//! The server half of Redis.

use super::command::{self, ConnectionState};
use super::request::{self, Fault, Found, NO_END, Words};
use super::resp;
use crate::protocol::store::{Inner, Store, Tally};
use crate::protocol::{Next, Output, Served, Server, ServerOptions, ServerState};
use std::sync::{Arc, MutexGuard};

// ServerState::step
const REQUEST: u8 = 0;
/// A reply of `left` bytes, of which `out_left` have been put; the request is still shown.
const REPLY: u8 = 1;
/// A request that is too long: `left` words are to come, behind `seen` bytes of one.
const SKIP: u8 = 2;
const CLOSED: u8 = 3;
const REJECTED: u8 = 4;

// ServerState::flags
const RESP3: u8 = 1;

/// What commands that change something answer at most. There must be room for it before one is carried out: what is
/// put in pieces is asked for again with each.
const SHORT: usize = 128;

pub(super) fn server(options: &ServerOptions) -> Result<Box<dyn Server>, String> {
    let store = Arc::clone(&options.store);
    let tally = store.tally(command::COUNTS);
    Ok(Box::new(RedisServer { store, tally, words: Words::default(), reply: Vec::new() }))
}

#[derive(Debug)]
struct RedisServer {
    store: Arc<Store>,
    /// How often each command was carried out by this thread.
    tally: Tally,
    words: Words,
    /// The reply to one request.
    reply: Vec<u8>,
}

impl Server for RedisServer {
    fn serve(&mut self, state: &mut ServerState, input: &[u8], eof: bool, out: &mut Output) -> Served {
        let mut served = Served { consumed: 0, requests: 0, replies: 0, next: Next::Read };
        // Taken once, for all requests that have arrived.
        let store = Arc::clone(&self.store);
        let mut entries = None;
        loop {
            let rest = &input[served.consumed..];
            let wait = match state.step {
                REQUEST if out.is_one_reply() && served.replies > 0 => Some(Next::Flush),
                REQUEST | REPLY => self.request(state, rest, out, &mut served, &mut entries, &store),
                SKIP => self.skip(state, rest, out, &mut served),
                CLOSED => Some(Next::Close),
                _ => Some(Next::Reject),
            };
            if let Some(next) = wait {
                served.next = if next == Next::Read && eof { Next::Close } else { next };
                return served;
            }
        }
    }

    fn is_within_request(&self, state: &ServerState) -> bool {
        state.step == SKIP
    }
}

// The steps below answer what to wait for, or `None` to go on with the next step.

impl RedisServer {
    fn request<'a>(
        &mut self,
        state: &mut ServerState,
        input: &[u8],
        out: &mut Output,
        served: &mut Served,
        entries: &mut Option<MutexGuard<'a, Inner>>,
        store: &'a Store,
    ) -> Option<Next> {
        if state.step == REQUEST && out.room() < SHORT {
            return Some(Next::Flush);
        }
        let length = match self.words.read(input) {
            Ok(Found::Whole(length)) => length,
            Ok(Found::Part) => return Some(Next::Read),
            Ok(Found::TooLong { head, words }) => {
                served.consumed += head;
                *state = ServerState { step: SKIP, left: words, flags: state.flags, ..ServerState::default() };
                return None;
            }
            Err(fault) => return reject(state, fault, out),
        };
        if self.words.len() == 0 {
            served.consumed += length;
            return None;
        }
        let command = command::find(self.words.get(input, 0));
        let connection = ConnectionState { resp3: state.flags & RESP3 != 0, closes: false };
        let connection = self.answer(command, input, connection, entries.get_or_insert_with(|| store.lock()), store);
        if !self.put_reply(state, out) {
            return Some(Next::Flush);
        }
        self.tally.add(command);
        served.consumed += length;
        served.requests += 1;
        served.replies += 1;
        state.flags = if connection.resp3 { RESP3 } else { 0 };
        state.step = if connection.closes { CLOSED } else { REQUEST };
        None
    }

    fn answer(
        &mut self,
        command: usize,
        input: &[u8],
        mut connection: ConnectionState,
        entries: &mut Inner,
        store: &Store,
    ) -> ConnectionState {
        self.reply.clear();
        let request = command::Request { words: &self.words, input, store };
        command::answer(command, &request, entries, &mut connection, &mut self.reply);
        connection
    }

    /// Puts as much of the reply as there is room for; true: all of it has been.
    ///
    /// A reply that is put in pieces is asked for again with each, as no connection may keep it. A value that was
    /// overwritten meanwhile goes on as the new one, within the length that was said.
    fn put_reply(&mut self, state: &mut ServerState, out: &mut Output) -> bool {
        if state.step == REQUEST && out.put(&self.reply) {
            return true;
        }
        if state.step == REQUEST {
            if !out.bytes().is_empty() {
                return false;
            }
            (state.step, state.left, state.out_left) = (REPLY, self.reply.len() as u64, 0);
        }
        if self.reply.len() as u64 != state.left {
            self.reply.resize(state.left as usize, b' ');
            let end = self.reply.len() - 2;
            self.reply[end..].copy_from_slice(b"\r\n");
        }
        state.out_left += out.fill(&self.reply[state.out_left as usize..]) as u64;
        let done = state.out_left == state.left;
        if done {
            *state = ServerState { flags: state.flags, ..ServerState::default() };
        }
        done
    }

    fn skip(&mut self, state: &mut ServerState, input: &[u8], out: &mut Output, served: &mut Served) -> Option<Next> {
        if state.seen > 0 {
            let Some(taken) = resp::skip(&mut state.seen, input) else { return reject(state, NO_END, out) };
            served.consumed += taken;
            return if state.seen > 0 { Some(Next::Read) } else { None };
        }
        if state.left > 0 {
            match request::bulk(input) {
                Ok(Some((head, length))) => {
                    served.consumed += head;
                    state.left -= 1;
                    state.seen = length as u32 + 2;
                    return None;
                }
                Ok(None) => return Some(Next::Read),
                Err(fault) => return reject(state, fault, out),
            }
        }
        if !out.put(b"-ERR request longer than 64 KiB: loadgen-server takes none\r\n") {
            return Some(Next::Flush);
        }
        self.tally.add(command::UNKNOWN);
        served.requests += 1;
        served.replies += 1;
        state.step = REQUEST;
        None
    }
}

fn reject(state: &mut ServerState, fault: Fault, out: &mut Output) -> Option<Next> {
    let mut text = b"-ERR Protocol error: ".to_vec();
    match fault {
        Fault::Said(what) => text.extend_from_slice(what.as_bytes()),
        Fault::NoBulk(byte) => {
            text.extend_from_slice(b"expected '$', got '");
            text.push(if byte.is_ascii_graphic() { byte } else { b' ' });
            text.push(b'\'');
        }
    }
    text.extend_from_slice(b"\r\n");
    if !out.put(&text) {
        return Some(Next::Flush);
    }
    state.step = REJECTED;
    None
}
