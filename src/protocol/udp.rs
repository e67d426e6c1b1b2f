//! Echo over UDP, as in RFC 862: each datagram is a request, and its reply the same datagram.
//!
//! Datagrams may be lost, doubled and overtaken, so each of ours says which request it is. After [`HEADER`] bytes, all
//! numbers in network order, comes a pattern that is compared like that of an echo over TCP:
//!
//! | bytes | 0..4 | 4..12 | 12..20 |
//! |---|---|---|---|
//! | | `LGU1`, format and version | connection | sequence number |
//!
//! The server does not look at any of that: it echoes what it gets, empty datagrams too.

use super::sequence::Tag;
use super::tagged::Tagged;
use super::{
    Client, ClientOptions, ClientState, Codec, Consumed, MAX_KEPT, Next, Outcome, Output, Protocol, Reply, ReplyError,
    ReplyErrorKind, Served, Server, ServerOptions, ServerState, Shape, echo,
};
use crate::transport::Transport;

pub const PROTOCOL: Protocol = Protocol {
    name: "udp",
    schemes: &["udp"],
    secure_schemes: &[],
    alpn: &[],
    about: "the server sends back every datagram (RFC 862 over UDP); loss, doubles and reordering are counted",
    default_port: None,
    transport: Transport::Datagrams,
    shape: Shape::Exchange,
    store: false,
    paths: false,
    headers: false,
    client,
    server,
};

/// Bytes that say which request a datagram is; the smallest `--size`.
pub const HEADER: usize = 20;

/// The largest payload of a datagram over IPv4: 65,535 bytes less 20 of IP's header and 8 of UDP's (RFC 768, RFC 791).
pub const LARGEST: usize = 65_507;

const _: () = assert!(LARGEST <= MAX_KEPT);

/// "loadgen, UDP, version 1".
const MAGIC: [u8; 4] = *b"LGU1";

fn client(options: &ClientOptions) -> Result<Box<dyn Client>, String> {
    let size = options.size;
    if size < HEADER {
        return Err(format!("a datagram says in {HEADER} bytes which request it is: the size is {size}; give more"));
    }
    if size > LARGEST {
        return Err(format!("a datagram has at most {LARGEST} bytes of payload: the size is {size}; give less"));
    }
    let mut request = echo::pattern(size);
    mark(&mut request, Tag::default());
    Ok(Tagged::boxed(UdpClient { request }))
}

/// It echoes datagrams of every size, so there is nothing to choose.
fn server(_options: &ServerOptions) -> Result<Box<dyn Server>, String> {
    Ok(Box::new(UdpServer))
}

fn mark(datagram: &mut [u8], tag: Tag) {
    datagram[..4].copy_from_slice(&MAGIC);
    datagram[4..12].copy_from_slice(&tag.connection.to_be_bytes());
    datagram[12..HEADER].copy_from_slice(&tag.sequence.to_be_bytes());
}

fn tag_of(datagram: &[u8]) -> Option<Tag> {
    let header: &[u8; HEADER] = datagram.first_chunk()?;
    let u64_at = |at: usize| header[at..].first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
    (header[..4] == MAGIC).then_some(Tag { connection: u64_at(4)?, sequence: u64_at(12)? })
}

/// Remembers nothing of a connection.
#[derive(Debug)]
struct UdpClient {
    request: Vec<u8>,
}

impl Codec for UdpClient {
    fn request(&self) -> &[u8] {
        &self.request
    }

    fn composes(&self) -> bool {
        true
    }

    fn mark(&self, datagram: &mut [u8], tag: Tag) {
        mark(datagram, tag);
    }

    fn tag_of(&self, datagram: &[u8]) -> Option<Tag> {
        tag_of(datagram)
    }

    /// Compares all but the tag, of which only the caller knows whether it is right.
    fn consume(&mut self, _state: &mut ClientState, input: &[u8]) -> Result<Consumed, ReplyError> {
        let refuse = |kind, detail| Err(ReplyError { kind, detail });
        if tag_of(input).is_none() {
            return refuse(ReplyErrorKind::Malformed, "the datagram does not begin like one of ours");
        }
        let (got, expected) = (&input[HEADER..], &self.request[HEADER..]);
        if got.len() < expected.len() && got == &expected[..got.len()] {
            return refuse(ReplyErrorKind::Truncated, "the datagram is shorter than the request");
        }
        if got.len() > expected.len() && got.starts_with(expected) {
            return refuse(ReplyErrorKind::TooLarge, "the datagram is longer than the request");
        }
        if got != expected {
            return refuse(ReplyErrorKind::Mismatch, "the datagram begins like the request, then differs");
        }
        Ok(Consumed { bytes: input.len(), reply: Some(Reply { outcome: Outcome::Ok, last: false }) })
    }

    fn finish(&mut self, _state: &mut ClientState, _kept: &[u8]) -> Result<Option<Reply>, ReplyError> {
        Ok(None)
    }
}

/// Remembers nothing of anybody.
#[derive(Debug)]
struct UdpServer;

impl Server for UdpServer {
    fn serve(&mut self, _state: &mut ServerState, input: &[u8], eof: bool, out: &mut Output) -> Served {
        if eof {
            return Served { consumed: 0, requests: 0, replies: 0, next: Next::Close };
        }
        if !out.put(input) {
            return Served { consumed: 0, requests: 0, replies: 0, next: Next::Flush };
        }
        Served { consumed: input.len(), requests: 1, replies: 1, next: Next::Read }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp_client(size: usize) -> Result<Box<dyn Codec>, String> {
        PROTOCOL.codec(&ClientOptions { size, ..ClientOptions::default() })
    }

    const TAG: Tag = Tag { connection: 0x0102_0304_0506_0708, sequence: u64::MAX - 1 };

    #[test]
    fn the_header_is_laid_out_as_documented() {
        let mut datagram = udp_client(HEADER + 1).unwrap().request().to_vec();
        mark(&mut datagram, TAG);
        let tail = datagram[HEADER];
        let expected = [b"LGU1" as &[u8], &[1, 2, 3, 4, 5, 6, 7, 8], &[255; 7], &[254, tail]];
        assert_eq!(datagram, expected.concat());
        assert_eq!(tag_of(&datagram), Some(TAG));
    }

    #[test]
    fn sizes_that_make_no_datagram_are_refused() {
        assert!(udp_client(HEADER - 1).unwrap_err().contains("20 bytes"));
        assert!(udp_client(LARGEST + 1).unwrap_err().contains("at most 65507"));
        for size in [HEADER, LARGEST] {
            assert_eq!(udp_client(size).unwrap().request().len(), size);
        }
    }

    #[test]
    fn a_reply_is_right_whatever_its_tag_and_wrong_by_any_other_byte() {
        let mut client = udp_client(64).unwrap();
        let mut right = client.request().to_vec();
        mark(&mut right, TAG);
        let mut state = ClientState::default();
        assert_eq!(client.consume(&mut state, &right).map(|consumed| consumed.bytes), Ok(64));
        for at in (0..4).chain(HEADER..64) {
            let mut wrong = right.clone();
            wrong[at] ^= 1;
            let kind = client.consume(&mut state, &wrong).unwrap_err().kind;
            let expected = if at < 4 { ReplyErrorKind::Malformed } else { ReplyErrorKind::Mismatch };
            assert_eq!(kind, expected, "byte {at}");
        }
        assert_eq!(client.consume(&mut state, &right[..63]).unwrap_err().kind, ReplyErrorKind::Truncated);
        assert_eq!(client.consume(&mut state, &right[..19]).unwrap_err().kind, ReplyErrorKind::Malformed);
        right.push(0);
        assert_eq!(client.consume(&mut state, &right).unwrap_err().kind, ReplyErrorKind::TooLarge);
    }

    #[test]
    fn the_server_echoes_whatever_comes_and_waits_for_room() {
        let mut out = Output::new(10);
        let serve = |input: &[u8], out: &mut Output| UdpServer.serve(&mut ServerState::default(), input, false, out);
        assert_eq!(serve(b"", &mut out), Served { consumed: 0, requests: 1, replies: 1, next: Next::Read });
        assert_eq!(serve(b"123456", &mut out).consumed, 6);
        assert_eq!(serve(b"12345", &mut out), Served { consumed: 0, requests: 0, replies: 0, next: Next::Flush });
        assert_eq!(out.bytes(), b"123456");
    }
}
