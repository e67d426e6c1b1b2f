//! Echo over TCP, as in RFC 862: the server sends back what it receives.
//!
//! TCP has no messages, so a request is a fixed number of bytes that both sides know.

use super::lockstep::Lockstep;
use super::{
    Client, ClientOptions, ClientState, Codec, Consumed, MAX_KEPT, Next, Outcome, Output, Protocol, Reply, ReplyError,
    ReplyErrorKind, Served, Server, ServerOptions, ServerState, Shape,
};
use crate::rng::Rng;
use crate::transport::Transport;

pub const PROTOCOL: Protocol = Protocol {
    name: "echo",
    schemes: &["tcp", "echo"],
    secure_schemes: &[("tls", None)],
    alpn: &[],
    about: "the server sends back every byte (RFC 862); each reply is compared byte for byte",
    default_port: None,
    transport: Transport::Stream,
    shape: Shape::Exchange,
    store: false,
    paths: false,
    headers: false,
    client,
    server,
};

fn client(options: &ClientOptions) -> Result<Box<dyn Client>, String> {
    refuse_zero(options.size)?;
    Ok(Lockstep::boxed(EchoClient { request: pattern(options.size) }))
}

fn server(options: &ServerOptions) -> Result<Box<dyn Server>, String> {
    refuse_zero(options.size)?;
    Ok(Box::new(EchoServer { size: options.size as u64 }))
}

fn refuse_zero(size: usize) -> Result<(), String> {
    if size == 0 { Err("an echo request needs at least one byte: the size is 0".into()) } else { Ok(()) }
}

/// Random bytes, the same in every run: they have no short period, so bytes lost, repeated or shifted are noticed.
pub(super) fn pattern(size: usize) -> Vec<u8> {
    const SEED: u64 = 862;
    let mut rng = Rng::new(SEED);
    let words = std::iter::repeat_with(|| rng.next_u64().to_le_bytes());
    words.flatten().take(size).collect()
}

/// `ClientState::left` is the number of reply bytes received and found right.
#[derive(Debug)]
struct EchoClient {
    request: Vec<u8>,
}

impl Codec for EchoClient {
    fn request(&self) -> &[u8] {
        &self.request
    }

    fn consume(&mut self, state: &mut ClientState, input: &[u8]) -> Result<Consumed, ReplyError> {
        let offset = state.left as usize;
        let expected = &self.request[offset..];
        let bytes = input.len().min(expected.len());
        if input[..bytes] != expected[..bytes] {
            return Err(mismatch(state, &input[..bytes], expected));
        }
        if bytes < expected.len() {
            state.left += bytes as u64;
            return Ok(Consumed { bytes, reply: None });
        }
        state.left = 0;
        Ok(Consumed { bytes, reply: Some(Reply { outcome: Outcome::Ok, last: false }) })
    }

    fn finish(&mut self, state: &mut ClientState, _kept: &[u8]) -> Result<Option<Reply>, ReplyError> {
        if state.left == 0 {
            return Ok(None);
        }
        Err(ReplyError { kind: ReplyErrorKind::Truncated, detail: "the stream ended within an echo" })
    }
}

/// Leaves the offset of the first wrong byte in `state.left`.
#[cold]
fn mismatch(state: &mut ClientState, input: &[u8], expected: &[u8]) -> ReplyError {
    let equal = input.iter().zip(expected).take_while(|(got, want)| got == want).count();
    state.left += equal as u64;
    let detail = match state.left {
        0 => "the first byte of the echo differs from the request",
        _ => "the echo begins like the request, then differs",
    };
    ReplyError { kind: ReplyErrorKind::Mismatch, detail }
}

/// `ServerState::left` is the number of bytes echoed since the last whole request.
#[derive(Debug)]
struct EchoServer {
    size: u64,
}

impl Server for EchoServer {
    fn serve(&mut self, state: &mut ServerState, input: &[u8], eof: bool, out: &mut Output) -> Served {
        let most = if out.is_one_reply() { self.one_reply(state, input, eof, out) } else { Ok(input.len()) };
        let most = match most {
            Ok(most) => most,
            Err(next) => return Served { consumed: 0, requests: 0, replies: 0, next },
        };
        let consumed = out.fill(&input[..most]);
        let echoed = state.left + consumed as u64;
        let whole = echoed / self.size;
        state.left = echoed % self.size;
        let next = if consumed < input.len() {
            Next::Flush
        } else if eof {
            Next::Close
        } else {
            Next::Read
        };
        Served { consumed, requests: whole, replies: whole, next }
    }

    fn is_within_request(&self, state: &ServerState) -> bool {
        state.left > 0
    }
}

impl EchoServer {
    /// How many bytes to echo at most, so that a request goes alone, and whole if it is not too long to be kept; or
    /// what to wait for until it can.
    fn one_reply(&self, state: &ServerState, input: &[u8], eof: bool, out: &Output) -> Result<usize, Next> {
        let rest = (self.size - state.left) as usize;
        let bytes = rest.min(input.len());
        match self.size <= MAX_KEPT as u64 {
            true if bytes < rest && !eof => Err(Next::Read),
            true if bytes > out.room() => Err(Next::Flush),
            _ => Ok(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo_client(size: usize) -> EchoClient {
        EchoClient { request: pattern(size) }
    }

    #[test]
    fn pattern_differs_from_itself_shifted() {
        let bytes = pattern(4096);
        for shift in 1..2048 {
            assert_ne!(bytes[shift..], bytes[..4096 - shift], "shifted by {shift}");
        }
    }

    #[test]
    fn a_wrong_byte_is_found_wherever_it_is() {
        for at in 0..64 {
            let mut client = echo_client(64);
            let mut state = ClientState::default();
            let mut bytes = client.request().to_vec();
            bytes[at] ^= 1;
            let error = client.consume(&mut state, &bytes).unwrap_err();
            assert_eq!(error.kind, ReplyErrorKind::Mismatch);
            assert_eq!(state.left, at as u64);
        }
    }

    #[test]
    fn a_partial_reply_is_consumed_and_remembered() {
        let mut client = echo_client(10);
        let mut state = ClientState::default();
        let bytes = client.request().to_vec();
        let first = client.consume(&mut state, &bytes[..4]).unwrap();
        assert_eq!(first, Consumed { bytes: 4, reply: None });
        assert_eq!(client.finish(&mut state, &[]).unwrap_err().kind, ReplyErrorKind::Truncated);
        let second = client.consume(&mut state, &bytes[4..]).unwrap();
        assert_eq!(second.bytes, 6);
        assert!(second.reply.is_some());
        assert_eq!(client.finish(&mut state, &[]), Ok(None));
    }

    #[test]
    fn server_counts_whole_requests_and_stops_when_out_is_full() {
        let mut server = EchoServer { size: 4 };
        let mut state = ServerState::default();
        let mut out = Output::new(6);
        let served = server.serve(&mut state, b"abcdefghij", false, &mut out);
        assert_eq!(served, Served { consumed: 6, requests: 1, replies: 1, next: Next::Flush });
        out.clear();
        let served = server.serve(&mut state, b"ghij", true, &mut out);
        assert_eq!(served, Served { consumed: 4, requests: 1, replies: 1, next: Next::Close });
        assert_eq!(out.bytes(), b"ghij");
    }

    #[test]
    fn size_zero_is_refused() {
        assert!(server(&ServerOptions::default()).unwrap_err().contains("size is 0"));
    }
}
