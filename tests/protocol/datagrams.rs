//! What every protocol over datagrams must hold to: each is a request or a reply of its own, they come in any order,
//! and their tags say which is which.

use super::callers::options;
use super::garbage;
use loadgen_core::protocol::sequence::Tag;
use loadgen_core::protocol::udp::{HEADER, LARGEST};
use loadgen_core::protocol::{
    ClientState, Codec, Consumed, Next, Outcome, Output, PROTOCOLS, Protocol, ReplyError, Served, ServerOptions,
    ServerState,
};
use loadgen_core::rng::Rng;

fn cases() -> impl Iterator<Item = (&'static Protocol, usize)> {
    let protocols = PROTOCOLS.iter().filter(|protocol| protocol.transport.has_messages());
    protocols.flat_map(|protocol| [HEADER, HEADER + 1, 64, 1472, LARGEST].map(|size| (protocol, size)))
}

fn client(protocol: &Protocol, size: usize) -> Box<dyn Codec> {
    protocol.codec(&options(size)).unwrap()
}

fn request(client: &dyn Codec, tag: Tag) -> Vec<u8> {
    let mut datagram = client.request().to_vec();
    client.mark(&mut datagram, tag);
    datagram
}

/// What the server says to one datagram.
fn answer(protocol: &Protocol, datagram: &[u8], out: &mut Output) -> (Served, Vec<u8>) {
    let mut server = (protocol.server)(&ServerOptions::default()).unwrap();
    out.clear();
    let served = server.serve(&mut ServerState::default(), datagram, false, out);
    (served, out.bytes().to_vec())
}

fn consume(client: &mut dyn Codec, datagram: &[u8]) -> Result<Consumed, ReplyError> {
    client.consume(&mut ClientState::default(), datagram)
}

fn tags() -> impl Iterator<Item = Tag> {
    let mut rng = Rng::new(4737);
    let any = std::iter::repeat_with(move || Tag { connection: rng.next_u64(), sequence: rng.next_u64() });
    [Tag::default(), Tag { connection: u64::MAX, sequence: u64::MAX }].into_iter().chain(any)
}

#[test]
fn there_are_some() {
    assert!(cases().count() >= 5);
}

#[test]
fn the_halves_understand_each_other_and_the_reply_has_the_tag_of_its_request() {
    for (protocol, size) in cases() {
        let mut client = client(protocol, size);
        let mut out = Output::new(LARGEST);
        for tag in tags().take(20) {
            let (served, reply) = answer(protocol, &request(&*client, tag), &mut out);
            assert_eq!(served, Served { consumed: size, requests: 1, replies: 1, next: Next::Read });
            assert_eq!(client.tag_of(&reply), Some(tag), "{} {size}", protocol.name);
            let consumed = consume(&mut *client, &reply).unwrap();
            assert_eq!((consumed.bytes, consumed.reply.unwrap().outcome), (reply.len(), Outcome::Ok));
        }
    }
}

#[test]
fn a_truncated_datagram_is_never_taken_for_a_reply() {
    for (protocol, size) in cases().filter(|(_, size)| *size <= 1472) {
        let mut client = client(protocol, size);
        let whole = request(&*client, Tag::default());
        for at in 0..size {
            assert!(consume(&mut *client, &whole[..at]).is_err(), "{} {size} cut at {at}", protocol.name);
        }
        assert!(consume(&mut *client, &[&whole[..], b"x"].concat()).is_err(), "{} {size} and one more", protocol.name);
    }
}

/// A byte that differs makes another tag or no reply: never the same reply.
#[test]
fn no_byte_is_overlooked() {
    for (protocol, size) in cases().filter(|(_, size)| *size <= 1472) {
        let mut client = client(protocol, size);
        let tag = Tag { connection: 4, sequence: 5 };
        let whole = request(&*client, tag);
        for at in 0..size {
            let mut wrong = whole.clone();
            wrong[at] ^= 0x10;
            let taken = client.tag_of(&wrong) == Some(tag) && consume(&mut *client, &wrong).is_ok();
            assert!(!taken, "{} {size} byte {at}", protocol.name);
        }
    }
}

#[test]
fn one_that_finds_no_room_is_neither_consumed_nor_counted() {
    for (protocol, size) in cases() {
        let mut out = Output::new(size - 1);
        let client = client(protocol, size);
        let (served, reply) = answer(protocol, &request(&*client, Tag::default()), &mut out);
        assert_eq!(served, Served { consumed: 0, requests: 0, replies: 0, next: Next::Flush }, "{}", protocol.name);
        assert!(reply.is_empty());
    }
}

#[test]
fn garbage_datagrams_are_survived_and_answered_at_most_once() {
    let mut rng = Rng::new(20_000);
    let cases: Vec<_> = cases().collect();
    let mut out = Output::new(LARGEST);
    for round in 0..10_000 {
        let (protocol, size) = cases[round % cases.len()];
        let mut client = client(protocol, size.min(1472));
        let right = request(&*client, Tag::default());
        let input = garbage(&mut rng, &right);
        let (served, _) = answer(protocol, &input, &mut out);
        assert!(served.requests <= 1 && served.replies <= served.requests && served.consumed == input.len());
        let taken = consume(&mut *client, &input).is_ok();
        assert!(!taken || client.tag_of(&input).is_some());
    }
}
