//! Character generator over TCP, as in RFC 864: the server sends lines of 72 printable characters, each line starting
//! one character later, until the client closes. What the client sends is thrown away.

use super::endless::Endless;
use super::{
    Client, ClientOptions, ClientState, Codec, Consumed, Next, Output, Protocol, Reply, ReplyError, ReplyErrorKind,
    Served, Server, ServerOptions, ServerState, Shape,
};
use crate::transport::Transport;

pub const PROTOCOL: Protocol = Protocol {
    name: "chargen",
    schemes: &["chargen"],
    secure_schemes: &[],
    alpn: &[],
    about: "an endless stream of characters from the server (RFC 864), every byte verified; download throughput",
    default_port: None,
    transport: Transport::Stream,
    shape: Shape::Download,
    store: false,
    paths: false,
    headers: false,
    client,
    server,
};

fn client(_options: &ClientOptions) -> Result<Box<dyn Client>, String> {
    Ok(Endless::boxed(ChargenClient))
}

fn server(_options: &ServerOptions) -> Result<Box<dyn Server>, String> {
    Ok(Box::new(ChargenServer))
}

/// The printable ASCII characters, space to tilde.
const PRINTABLES: usize = 95;
const LINE_CHARACTERS: usize = 72;
const LINE: usize = LINE_CHARACTERS + 2;
const PERIOD: usize = PRINTABLES * LINE;

/// One period of the stream, which then starts over.
static PATTERN: [u8; PERIOD] = pattern();

const fn pattern() -> [u8; PERIOD] {
    let mut bytes = [0; PERIOD];
    let mut at = 0;
    while at < PERIOD {
        let (line, column) = (at / LINE, at % LINE);
        bytes[at] = match column {
            LINE_CHARACTERS => b'\r',
            c if c > LINE_CHARACTERS => b'\n',
            _ => b' ' + ((line + column) % PRINTABLES) as u8,
        };
        at += 1;
    }
    bytes
}

/// `ClientState::left` is the offset in the pattern of the next byte.
#[derive(Debug)]
struct ChargenClient;

impl Codec for ChargenClient {
    fn request(&self) -> &[u8] {
        &[]
    }

    fn consume(&mut self, state: &mut ClientState, input: &[u8]) -> Result<Consumed, ReplyError> {
        let mut rest = input;
        while !rest.is_empty() {
            let expected = &PATTERN[state.left as usize..];
            let n = rest.len().min(expected.len());
            if rest[..n] != expected[..n] {
                return Err(ReplyError {
                    kind: ReplyErrorKind::Mismatch,
                    detail: "the stream differs from the RFC 864 pattern",
                });
            }
            state.left = (state.left + n as u64) % PERIOD as u64;
            rest = &rest[n..];
        }
        Ok(Consumed { bytes: input.len(), reply: None })
    }

    /// The stream has no end of its own, so any end will do.
    fn finish(&mut self, _state: &mut ClientState, _kept: &[u8]) -> Result<Option<Reply>, ReplyError> {
        Ok(None)
    }
}

/// `ServerState::out_left` is the offset in the pattern of the next byte. Counts no requests and no replies.
#[derive(Debug)]
struct ChargenServer;

impl Server for ChargenServer {
    fn serve(&mut self, state: &mut ServerState, input: &[u8], eof: bool, out: &mut Output) -> Served {
        let next = if eof { Next::Close } else { Next::Flush };
        while !eof && out.room() > 0 {
            let n = out.fill(&PATTERN[state.out_left as usize..]);
            state.out_left = (state.out_left + n as u64) % PERIOD as u64;
        }
        Served { consumed: input.len(), requests: 0, replies: 0, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_the_rfc() {
        let lines: Vec<&[u8]> = PATTERN.chunks(LINE).collect();
        assert_eq!(lines.len(), 95);
        let first = br##" !"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\]^_`abcdefg"##;
        assert_eq!(lines[0], [&first[..], b"\r\n"].concat());
        assert!(lines[1].starts_with(b"!\"#") && lines[1].ends_with(b"fgh\r\n"));
        assert!(lines[94].starts_with(b"~ !") && lines[94].ends_with(b"ef\r\n"));
    }

    #[test]
    fn stream_goes_on_across_periods_and_a_wrong_byte_is_found() {
        let mut out = Output::new(1000);
        let (mut sent, mut seen) = (ServerState::default(), ClientState::default());
        for _ in 0..100 {
            let served = ChargenServer.serve(&mut sent, b"ignored", false, &mut out);
            assert_eq!((served.consumed, served.next), (7, Next::Flush));
            let consumed = ChargenClient.consume(&mut seen, out.bytes()).unwrap();
            assert_eq!(consumed.bytes, 1000);
            out.clear();
        }
        let next = PATTERN[seen.left as usize];
        let error = ChargenClient.consume(&mut seen, &[next ^ 1]).unwrap_err();
        assert_eq!(error.kind, ReplyErrorKind::Mismatch);
    }
}
