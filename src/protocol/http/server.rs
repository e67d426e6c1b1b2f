//! The server half of HTTP.
//!
//! `/bytes/N` answers N bytes, `/chunked/N` likewise in chunks, `/status/NNN` that status; any other path answers
//! `ServerOptions::size` bytes. Request bodies are read and thrown away.

use std::io::Write as _;

use super::chunked::{self, Chunked};
use super::head::Body;
use super::request::{self, Answer, RequestHead, Site};
use crate::protocol::{Next, Output, Served, Server, ServerOptions, ServerState};

// ServerState::step; from chunked::FIRST on, those of a chunked request body.
const HEAD: u8 = 0;
const CONTINUE_LENGTH: u8 = 1;
const CONTINUE_CHUNKED: u8 = 2;
const LENGTH: u8 = 3;
const REPLY: u8 = 4;
const REPLY_BODY: u8 = 5;
const REPLY_CHUNK: u8 = 6;
const REPLY_CHUNK_DATA: u8 = 7;
const REPLY_CHUNK_END: u8 = 8;
const CLOSED: u8 = 9;
const REJECTED: u8 = 10;

// ServerState::flags: the answer to give.
const CLOSE: u8 = 1;
const SAY_KEEP_ALIVE: u8 = 2;
const TO_HEAD: u8 = 4;
const CHUNKED: u8 = 8;
/// `out_left` is a status, not a size.
const STATUS: u8 = 16;
/// The request was refused: it counts neither as a request nor as a reply.
const REJECT: u8 = 32;

const CHUNK: u64 = 16 * 1024;
/// What bodies are made of.
static FILLER: [u8; CHUNK as usize] = [b'x'; CHUNK as usize];

pub(super) fn server(options: &ServerOptions) -> Result<Box<dyn Server>, String> {
    let site = Site { size: options.size as u64, scheme: options.scheme.unwrap_or(super::PROTOCOL.schemes[0]) };
    Ok(Box::new(HttpServer { site, known: Vec::new(), meaning: None, reply: Prepared::default() }))
}

/// `ServerState`: `left` and `seen` belong to the request's body (see [`Chunked`]); `flags` and `out_left` are the
/// answer: a status, or the bytes of its body to come.
#[derive(Debug)]
struct HttpServer {
    /// Bytes of the body of paths without a meaning of their own.
    site: Site,
    /// The last request head, with its empty line, and its meaning: clients repeat themselves.
    known: Vec<u8>,
    meaning: Option<RequestHead>,
    reply: Prepared,
}

impl Server for HttpServer {
    fn serve(&mut self, state: &mut ServerState, input: &[u8], eof: bool, out: &mut Output) -> Served {
        let mut served = Served { consumed: 0, requests: 0, replies: 0, next: Next::Read };
        loop {
            let rest = &input[served.consumed..];
            let wait = match state.step {
                HEAD if out.is_one_reply() && served.replies > 0 => Some(Next::Flush),
                HEAD => self.head(state, rest, &mut served),
                CONTINUE_LENGTH | CONTINUE_CHUNKED => say_continue(state, out),
                REPLY => self.begin_reply(state, out, &mut served),
                REPLY_BODY => reply_body(state, out, &mut served),
                REPLY_CHUNK | REPLY_CHUNK_DATA | REPLY_CHUNK_END => reply_chunk(state, out, &mut served),
                CLOSED => Some(Next::Close),
                REJECTED => Some(Next::Reject),
                _ => request_body(state, rest, &mut served),
            };
            if let Some(next) = wait {
                served.next = if next == Next::Read && eof { Next::Close } else { next };
                return served;
            }
        }
    }

    fn is_within_request(&self, state: &ServerState) -> bool {
        matches!(state.step, CONTINUE_LENGTH | CONTINUE_CHUNKED | LENGTH) || state.step >= chunked::FIRST
    }
}

// The steps below answer what to wait for, or `None` to go on with the next step.

impl HttpServer {
    fn head(&mut self, state: &mut ServerState, input: &[u8], served: &mut Served) -> Option<Next> {
        let head = match self.meaning {
            Some(head) if input.starts_with(&self.known) => {
                served.consumed += self.known.len();
                head
            }
            _ => match request::parse(input, self.site) {
                Ok(Some((length, head))) => {
                    self.known.clear();
                    self.known.extend_from_slice(&input[..length]);
                    self.meaning = Some(head);
                    served.consumed += length;
                    head
                }
                Ok(None) => return Some(Next::Read),
                Err(status) => return reject(state, status),
            },
        };
        accept(state, head, served)
    }

    fn begin_reply(&mut self, state: &mut ServerState, out: &mut Output, served: &mut Served) -> Option<Next> {
        if !out.put(self.reply.prepare(state.flags, state.out_left)) {
            debug_assert!(!out.bytes().is_empty(), "Output below MIN_OUTPUT");
            return Some(Next::Flush);
        }
        if state.flags & (STATUS | TO_HEAD) != 0 {
            return end_reply(state, served);
        }
        state.step = if state.flags & CHUNKED != 0 { REPLY_CHUNK } else { REPLY_BODY };
        None
    }
}

fn accept(state: &mut ServerState, head: RequestHead, served: &mut Served) -> Option<Next> {
    let (kind, out_left) = match head.answer {
        Answer::Bytes(size) => (0, size),
        Answer::Chunked(size) => (CHUNKED, size),
        Answer::Status(status) => (STATUS, u64::from(status)),
    };
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    let flags =
        kind | flag(head.close, CLOSE) | flag(head.say_keep_alive, SAY_KEEP_ALIVE) | flag(head.to_head, TO_HEAD);
    // Even when the body has arrived already, so that the answer does not depend on how the stream was cut.
    let (step, left) = match head.body {
        Body::Length(left) => (if head.expects_continue { CONTINUE_LENGTH } else { LENGTH }, left),
        Body::Chunked => (if head.expects_continue { CONTINUE_CHUNKED } else { chunked::FIRST }, 0),
        Body::None | Body::UntilClose => (REPLY, 0),
    };
    served.requests += u64::from(step == REPLY);
    *state = ServerState { left, out_left, seen: 0, step, flags };
    None
}

fn reject(state: &mut ServerState, status: u16) -> Option<Next> {
    let flags = STATUS | CLOSE | REJECT;
    *state = ServerState { left: 0, out_left: u64::from(status), seen: 0, step: REPLY, flags };
    None
}

fn say_continue(state: &mut ServerState, out: &mut Output) -> Option<Next> {
    if !out.put(b"HTTP/1.1 100 Continue\r\n\r\n") {
        return Some(Next::Flush);
    }
    state.step = if state.step == CONTINUE_LENGTH { LENGTH } else { chunked::FIRST };
    None
}

fn request_body(state: &mut ServerState, input: &[u8], served: &mut Served) -> Option<Next> {
    let (taken, complete) = if state.step == LENGTH {
        let taken = state.left.min(input.len() as u64);
        state.left -= taken;
        (taken as usize, state.left == 0)
    } else {
        let mut body = Chunked { step: &mut state.step, left: &mut state.left, seen: &mut state.seen };
        match body.take(input) {
            Ok(taken) => taken,
            Err(_) => return reject(state, 400),
        }
    };
    served.consumed += taken;
    if !complete {
        return Some(Next::Read);
    }
    served.requests += 1;
    state.step = REPLY;
    None
}

fn reply_body(state: &mut ServerState, out: &mut Output, served: &mut Served) -> Option<Next> {
    while state.out_left > 0 {
        if out.room() == 0 {
            return Some(Next::Flush);
        }
        let piece = state.out_left.min(CHUNK) as usize;
        state.out_left -= out.fill(&FILLER[..piece]) as u64;
    }
    end_reply(state, served)
}

/// The first chunk is the odd one, so that each further chunk begins and ends where `out_left` is a multiple of
/// [`CHUNK`]: no other memory of the place in a chunk is needed.
fn reply_chunk(state: &mut ServerState, out: &mut Output, served: &mut Served) -> Option<Next> {
    let in_chunk = match state.out_left % CHUNK {
        0 => state.out_left.min(CHUNK),
        odd => odd,
    };
    match state.step {
        REPLY_CHUNK if state.out_left == 0 => {
            if !out.put(b"0\r\n\r\n") {
                return Some(Next::Flush);
            }
            return end_reply(state, served);
        }
        REPLY_CHUNK => {
            if !out.put(chunk_size_line(in_chunk, &mut [0; 8])) {
                return Some(Next::Flush);
            }
            state.step = REPLY_CHUNK_DATA;
        }
        REPLY_CHUNK_DATA => {
            let put = out.fill(&FILLER[..in_chunk as usize]) as u64;
            state.out_left -= put;
            if put < in_chunk {
                return Some(Next::Flush);
            }
            state.step = REPLY_CHUNK_END;
        }
        _ => {
            if !out.put(b"\r\n") {
                return Some(Next::Flush);
            }
            state.step = REPLY_CHUNK;
        }
    }
    None
}

fn chunk_size_line(size: u64, line: &mut [u8; 8]) -> &[u8] {
    let mut room = &mut line[..];
    write!(room, "{size:x}\r\n").expect("at most 4000 in hexadecimal and a line end");
    let unused = room.len();
    &line[..8 - unused]
}

fn end_reply(state: &mut ServerState, served: &mut Served) -> Option<Next> {
    let rejected = state.flags & REJECT != 0;
    served.replies += u64::from(!rejected);
    let step = if rejected {
        REJECTED
    } else if state.flags & CLOSE != 0 {
        CLOSED
    } else {
        HEAD
    };
    *state = ServerState { step, ..ServerState::default() };
    None
}

/// The head of the last reply (with its body, where that is small): most replies have the same.
#[derive(Debug, Default)]
struct Prepared {
    flags: u8,
    /// Status or size.
    answer: u64,
    bytes: Vec<u8>,
}

impl Prepared {
    fn prepare(&mut self, flags: u8, answer: u64) -> &[u8] {
        if self.bytes.is_empty() || (flags, answer) != (self.flags, self.answer) {
            (self.flags, self.answer) = (flags, answer);
            self.bytes.clear();
            self.write().expect("writing to a vector does not fail");
        }
        &self.bytes
    }

    fn write(&mut self) -> std::io::Result<()> {
        let (flags, out) = (self.flags, &mut self.bytes);
        let status = if flags & STATUS != 0 { self.answer as u16 } else { 200 };
        write!(out, "HTTP/1.1 {status} {}\r\nServer: loadgen-server\r\nContent-Type: text/plain\r\n", reason(status))?;
        if flags & CLOSE != 0 {
            out.extend_from_slice(b"Connection: close\r\n");
        } else if flags & SAY_KEEP_ALIVE != 0 {
            out.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        match status {
            204 | 304 => return write!(out, "\r\n"), // RFC 9110, 15.3.5 and 15.4.5: no body
            205 => return write!(out, "Content-Length: 0\r\n\r\n"), // RFC 9110, 15.3.6: no content
            _ => {}
        }
        if flags & STATUS != 0 {
            write!(out, "Content-Length: 4\r\n\r\n")?;
            if flags & TO_HEAD == 0 {
                writeln!(out, "{status}")?;
            }
        } else if flags & CHUNKED != 0 {
            write!(out, "Transfer-Encoding: chunked\r\n\r\n")?;
        } else {
            write!(out, "Content-Length: {}\r\n\r\n", self.answer)?;
        }
        Ok(())
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        // A client must not rely on it (RFC 9112, 4).
        _ => "Other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::MIN_OUTPUT;

    #[test]
    fn every_head_fits_the_smallest_output() {
        for flags in 0..64 {
            let answers = if flags & STATUS != 0 { 200..600 } else { u64::MAX - 1..u64::MAX };
            for answer in answers {
                let bytes = Prepared::default().prepare(flags, answer).len();
                assert!(bytes <= MIN_OUTPUT, "{bytes} bytes for flags {flags}, answer {answer}");
            }
        }
    }

    #[test]
    fn chunk_sizes() {
        assert_eq!(chunk_size_line(1, &mut [0; 8]), b"1\r\n");
        assert_eq!(chunk_size_line(CHUNK, &mut [0; 8]), b"4000\r\n");
    }
}
