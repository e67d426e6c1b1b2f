//! The server half of memcached: from bytes to requests, and from replies to bytes. What is answered is in `text.rs`
//! and `meta.rs`.

use super::text::{self, Said, is_key};
use super::{KEYS_LINE_MAX, LINE_MAX, VALUE_MAX, meta, number, words};
use crate::protocol::store::{Inner, Store};
use crate::protocol::{MIN_OUTPUT, Next, Output, Served, Server, ServerOptions, ServerState};
use std::collections::VecDeque;
use std::sync::Arc;

// ServerState::step
const LINE: u8 = 0;
/// A block that is not stored is read and thrown away.
const SKIP: u8 = 1;
/// The line at the front of the input asks for several values, and is being answered.
const VALUES: u8 = 2;
/// What did not fit at once is being said; then the reply is over.
const REST: u8 = 3;
/// Likewise; then the next value follows.
const REST_OF_VALUE: u8 = 4;
const REJECTED: u8 = 5;
const CLOSED: u8 = 6;

// ServerState::flags
const SILENT: u8 = 1;
/// Why a block is thrown away: it is too large, or (without this) its line is wrong.
const TOO_LARGE: u8 = 2;

/// The first byte of a request of the binary protocol.
const BINARY: u8 = 0x80;
/// Bytes of replies that did not fit an output, of all connections of a thread.
const LONG_MAX: usize = 64 << 20;

pub(super) fn server(options: &ServerOptions) -> Result<Box<dyn Server>, String> {
    Ok(Box::new(MemcachedServer {
        store: Arc::clone(&options.store),
        work: Work { reply: Vec::new(), long: Long::default() },
    }))
}

/// `ServerState`: `left` is what is left of a block to throw away, or the number of a reply in [`Long`], of which
/// `out_left` bytes have been said; `seen` counts the values of a reply that have been answered.
#[derive(Debug)]
struct MemcachedServer {
    store: Arc<Store>,
    work: Work,
}

#[derive(Debug)]
struct Work {
    /// The reply that is being made.
    reply: Vec<u8>,
    long: Long,
}

/// Replies that are longer than an output. They are kept whole, so that a value that is overwritten meanwhile is not
/// said in half.
#[derive(Debug, Default)]
struct Long {
    replies: VecDeque<(u64, Vec<u8>)>,
    bytes: usize,
    last: u64,
}

impl Long {
    /// Keeps a reply and answers its number. The oldest go when there is no room; some may be of connections that
    /// have ended.
    fn keep(&mut self, reply: &[u8]) -> u64 {
        self.last += 1;
        self.bytes += reply.len();
        self.replies.push_back((self.last, reply.to_vec()));
        while self.bytes > LONG_MAX && self.replies.len() > 1 {
            self.bytes -= self.replies.pop_front().map_or(0, |(_, reply)| reply.len());
        }
        self.last
    }

    fn position(&self, number: u64) -> Option<usize> {
        self.replies.iter().position(|(known, _)| *known == number)
    }
}

impl Server for MemcachedServer {
    fn serve(&mut self, state: &mut ServerState, input: &[u8], eof: bool, out: &mut Output) -> Served {
        let mut served = Served { consumed: 0, requests: 0, replies: 0, next: Next::Read };
        let mut store = self.store.lock();
        loop {
            let rest = &input[served.consumed..];
            let wait = match state.step {
                LINE => self.work.line(state, rest, &mut store, out, &mut served),
                SKIP => self.work.skip(state, rest, out, &mut served),
                VALUES => self.work.values(state, rest, &mut store, out, &mut served),
                REST | REST_OF_VALUE => self.work.rest(state, out, &mut served),
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

impl Work {
    fn line(
        &mut self,
        state: &mut ServerState,
        input: &[u8],
        store: &mut Inner,
        out: &mut Output,
        served: &mut Served,
    ) -> Option<Next> {
        if out.is_one_reply() && served.replies > 0 {
            return Some(Next::Flush);
        }
        if input.is_empty() {
            return Some(Next::Read);
        }
        // A request without a reply: the next one belongs to the next call.
        if out.is_one_reply() && served.requests > 0 || is_short_of_room(out, MIN_OUTPUT) {
            return Some(Next::Flush);
        }
        if input[0] == BINARY {
            state.step = REJECTED;
            return None;
        }
        let most = if asks_for_values(input) { KEYS_LINE_MAX } else { LINE_MAX };
        let within = &input[..input.len().min(most)];
        let Some(end) = within.iter().position(|byte| *byte == b'\n') else {
            return if within.len() == most { reject(state, out) } else { Some(Next::Read) };
        };
        let line = within[..end].strip_suffix(b"\r").unwrap_or(&within[..end]);
        if line == b"quit" {
            served.consumed += end + 1;
            state.step = CLOSED;
            return None;
        }
        if asks_for_values(line) {
            served.requests += 1;
            state.step = VALUES;
            return None;
        }
        match block(line) {
            Block::None => {
                if is_short_of_room(out, meta_room(line, store)) {
                    return Some(Next::Flush);
                }
                served.consumed += end + 1;
                self.execute(state, line, b"", store, out, served)
            }
            Block::Bytes(bytes) if bytes <= VALUE_MAX as u64 => {
                let (start, len) = (end + 1, bytes as usize);
                let Some(data) = input.get(start..start + len + 2) else { return Some(Next::Read) };
                served.consumed += start + len + 2;
                let (data, ends) = data.split_at(len);
                if ends != b"\r\n" {
                    served.requests += 1;
                    return self.say(state, text::BAD_BLOCK, out, served);
                }
                self.execute(state, line, data, store, out, served)
            }
            Block::Bytes(bytes) => {
                served.consumed += end + 1;
                let silent = if !meta::is_meta(line) && text::is_silent(line) { SILENT } else { 0 };
                (state.step, state.left, state.flags) = (SKIP, bytes + 2, silent | TOO_LARGE);
                None
            }
            Block::Wrong(error) => {
                served.consumed += end + 1;
                served.requests += 1;
                self.say(state, error, out, served)
            }
        }
    }

    fn execute(
        &mut self,
        state: &mut ServerState,
        line: &[u8],
        data: &[u8],
        store: &mut Inner,
        out: &mut Output,
        served: &mut Served,
    ) -> Option<Next> {
        served.requests += 1;
        self.reply.clear();
        let execute = if meta::is_meta(line) { meta::execute } else { text::execute };
        let said = execute(line, data, store, &mut self.reply).expect("writing to a vector does not fail");
        match said {
            Said::Reply => self.send(state, REST, out, served),
            Said::Nothing => None,
        }
    }

    /// Says a reply that is always the same.
    fn say(&mut self, state: &mut ServerState, reply: &[u8], out: &mut Output, served: &mut Served) -> Option<Next> {
        self.reply.clear();
        self.reply.extend_from_slice(reply);
        self.send(state, REST, out, served)
    }

    /// Puts what was made into the output, or keeps it to be said bit by bit in the step `rest`.
    fn send(&mut self, state: &mut ServerState, rest: u8, out: &mut Output, served: &mut Served) -> Option<Next> {
        if out.put(&self.reply) {
            served.replies += u64::from(rest == REST);
            return None;
        }
        (state.left, state.out_left, state.step) = (self.long.keep(&self.reply), 0, rest);
        None
    }

    fn rest(&mut self, state: &mut ServerState, out: &mut Output, served: &mut Served) -> Option<Next> {
        let Some(index) = self.long.position(state.left) else {
            // It had to go, for others: what was said of it cannot be taken back.
            state.step = CLOSED;
            return None;
        };
        let reply = &self.long.replies[index].1;
        state.out_left += out.fill(&reply[state.out_left as usize..]) as u64;
        if state.out_left < reply.len() as u64 {
            return Some(Next::Flush);
        }
        self.long.bytes -= reply.len();
        self.long.replies.remove(index);
        (state.left, state.out_left) = (0, 0);
        if state.step == REST_OF_VALUE {
            state.step = VALUES;
        } else {
            state.step = LINE;
            served.replies += 1;
        }
        None
    }

    /// Answers the keys of a line one by one; the line stays in the input until the last.
    fn values(
        &mut self,
        state: &mut ServerState,
        input: &[u8],
        store: &mut Inner,
        out: &mut Output,
        served: &mut Served,
    ) -> Option<Next> {
        let Some(end) = input.iter().position(|byte| *byte == b'\n') else { return Some(Next::Read) };
        let line = input[..end].strip_suffix(b"\r").unwrap_or(&input[..end]);
        let mut fields = words(line);
        let verb = fields.next().unwrap_or_default();
        let touches = verb.starts_with(b"gat");
        let exptime = if touches { Some(text::seconds(fields.next().unwrap_or_default())) } else { None };
        let well = !matches!(exptime, Some(None)) && fields.clone().all(is_key) && fields.clone().next().is_some();
        if !well {
            served.consumed += end + 1;
            state.step = LINE;
            let error = match exptime {
                Some(None) => text::BAD_TIME,
                _ if line.contains(&b' ') => text::BAD_LINE,
                _ => b"ERROR\r\n",
            };
            return self.say(state, error, out, served);
        }
        for key in fields.skip(state.seen as usize) {
            let needed = store.get(key).map_or(0, |entry| entry.value.len() + MIN_OUTPUT + key.len());
            if is_short_of_room(out, needed) {
                return Some(Next::Flush);
            }
            self.reply.clear();
            let with_unique = verb.ends_with(b"s");
            text::value(key, with_unique, store, &mut self.reply).expect("writing to a vector does not fail");
            text::counted(key, exptime.flatten(), store);
            state.seen += 1;
            self.send(state, REST_OF_VALUE, out, served);
            if state.step == REST_OF_VALUE {
                return None;
            }
        }
        if !out.put(b"END\r\n") {
            return Some(Next::Flush);
        }
        served.consumed += end + 1;
        served.replies += 1;
        (state.step, state.seen) = (LINE, 0);
        None
    }

    fn skip(&mut self, state: &mut ServerState, input: &[u8], out: &mut Output, served: &mut Served) -> Option<Next> {
        let taken = state.left.min(input.len() as u64);
        state.left -= taken;
        served.consumed += taken as usize;
        if state.left > 0 {
            return Some(Next::Read);
        }
        if is_short_of_room(out, MIN_OUTPUT) {
            return Some(Next::Flush);
        }
        served.requests += 1;
        let silent = state.flags & SILENT != 0;
        let error = if state.flags & TOO_LARGE != 0 { text::TOO_LARGE } else { text::BAD_LINE };
        (state.step, state.flags) = (LINE, 0);
        if silent { None } else { self.say(state, error, out, served) }
    }
}

/// Whether there is less room than that, and an emptied output would have more.
fn is_short_of_room(out: &Output, needed: usize) -> bool {
    out.room() < needed && !out.bytes().is_empty()
}

fn asks_for_values(line: &[u8]) -> bool {
    let word = line.split(|byte| matches!(byte, b' ' | b'\r' | b'\n')).next();
    matches!(word, Some(b"get" | b"gets" | b"gat" | b"gats"))
}

/// Room for the reply to a meta command, should it show a value.
fn meta_room(line: &[u8], store: &Inner) -> usize {
    if !meta::is_meta(line) {
        return MIN_OUTPUT;
    }
    let entry = words(line).nth(1).and_then(|key| store.get(key));
    entry.map_or(0, |entry| entry.value.len()) + line.len() + MIN_OUTPUT
}

/// What follows a line.
enum Block {
    None,
    Bytes(u64),
    /// What it says of that makes no sense; this is the answer.
    Wrong(&'static [u8]),
}

fn block(line: &[u8]) -> Block {
    let mut fields = words(line);
    let size = match fields.next() {
        Some(b"set" | b"add" | b"replace" | b"append" | b"prepend" | b"cas") => fields.nth(3),
        Some(b"ms") => Some(fields.nth(1).unwrap_or_default()),
        _ => return Block::None,
    };
    match size {
        // Too few words, which is said where it is carried out.
        None => Block::None,
        Some(digits) => match number::<u64>(digits) {
            Some(bytes) if bytes <= i32::MAX as u64 - 2 => Block::Bytes(bytes),
            _ => Block::Wrong(text::BAD_LINE),
        },
    }
}

/// The answer to a line that has no end.
fn reject(state: &mut ServerState, out: &mut Output) -> Option<Next> {
    // Where there is no room for it, the end of the connection has to say it.
    let _ = out.put(b"CLIENT_ERROR line too long\r\n");
    state.step = REJECTED;
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::MAX_KEPT;

    fn half() -> MemcachedServer {
        let work = Work { reply: Vec::new(), long: Long::default() };
        let server = MemcachedServer { store: Arc::default(), work };
        server.store.lock().set(b"a", &[b'x'; 1000], 0).unwrap();
        server
    }

    #[test]
    fn a_reply_that_was_said_bit_by_bit_is_not_kept() {
        let (mut server, mut state) = (half(), ServerState::default());
        let mut out = Output::new(MIN_OUTPUT);
        let mut said = 0;
        let mut input = &b"get a a\r\nmg a v\r\nstats\r\n"[..];
        while !input.is_empty() || state.step != LINE {
            out.clear();
            let served = server.serve(&mut state, input, false, &mut out);
            input = &input[served.consumed..];
            said += out.bytes().len();
            assert!(server.work.long.replies.len() <= 1 && !out.bytes().is_empty());
        }
        assert!(said > 3000 && server.work.long.replies.is_empty());
        assert_eq!(server.work.long.bytes, 0);
    }

    #[test]
    fn replies_to_peers_that_are_gone_are_bounded() {
        let mut server = half();
        server.store.lock().set(b"a", &[b'x'; VALUE_MAX], 0).unwrap();
        let mut out = Output::new(MIN_OUTPUT);
        let mut first = ServerState::default();
        server.serve(&mut first, b"get a\r\n", false, &mut out);
        for _ in 0..LONG_MAX / VALUE_MAX + 10 {
            out.clear();
            server.serve(&mut ServerState::default(), b"get a\r\n", false, &mut out);
        }
        let kept: usize = server.work.long.replies.iter().map(|(_, reply)| reply.len()).sum();
        assert_eq!(kept, server.work.long.bytes);
        assert!((LONG_MAX - MAX_KEPT..=LONG_MAX).contains(&kept), "{kept}");
        // What the first one has heard cannot be gone on with.
        out.clear();
        assert_eq!(server.serve(&mut first, b"get a\r\n", false, &mut out).next, Next::Close);
    }
}
