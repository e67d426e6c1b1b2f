//! Client halves by themselves: one connection with its tickets, and no load.

use super::ask::Ask;
use super::client::{Cancelled, Client, Context, End, Event, Events};
use super::outbox::{Front, Outbox};
use super::sequence::Unawaited;
use super::ticket::{Ring, Ticket, Tickets};
use super::{ClientOptions, Protocol, redis, udp};
use crate::time::Instant;

const DEPTH: usize = 4;

struct One {
    client: Box<dyn Client>,
    tickets: Tickets,
    ring: Ring,
    out: Outbox,
    events: Events,
}

impl One {
    /// A connection that is ready.
    fn of(protocol: &Protocol) -> Self {
        let mut client = (protocol.client)(&ClientOptions { size: 32, ..ClientOptions::default() }).unwrap();
        client.make_room(1, DEPTH, (0, 1), 7);
        let tickets = Tickets::new(1, DEPTH, client.order(), false);
        let mut one =
            Self { client, tickets, ring: Ring::default(), out: Outbox::default(), events: Events::default() };
        one.call(|client, cx| client.connected(0, cx)).unwrap();
        assert_eq!(std::mem::take(&mut one.events.others), [Event::Ready]);
        one
    }

    fn call<R>(&mut self, ask: impl FnOnce(&mut dyn Client, &mut Context<'_>) -> R) -> R {
        let awaited = self.tickets.awaited(0, self.ring);
        ask(&mut *self.client, &mut Context { now: Instant(1), out: &mut self.out, events: &mut self.events, awaited })
    }

    /// Takes up a request, and answers what is to be sent of it.
    fn asks(&mut self) -> (Ticket, Vec<u8>) {
        let ticket = self.tickets.take(0, &mut self.ring, Instant(1));
        if self.client.shares() {
            return (ticket, self.client.request().to_vec());
        }
        self.call(|client, cx| client.start(0, ticket, &mut Ask::default(), cx));
        let Front::Own(bytes) = self.out.front() else { panic!("nothing is said") };
        (ticket, bytes.to_vec())
    }

    /// All that was said has left.
    fn sends(&mut self, tickets: &[Ticket]) {
        self.out.clear();
        tickets.iter().for_each(|ticket| self.tickets.stamp_mut(*ticket).sent = Instant(2));
    }

    /// Bytes of the peer: how many are used, which requests that ends, and what else is told.
    fn hears(&mut self, bytes: &[u8]) -> Result<(usize, Vec<Ticket>, Vec<Event>), End> {
        let used = self.call(|client, cx| client.received(0, bytes, cx)).map_err(|end| *end)?;
        let events = std::mem::take(&mut self.events);
        let ended: Vec<Ticket> = events.completed.iter().map(|(ticket, _)| *ticket).collect();
        for ticket in &ended {
            self.tickets.end(*ticket, &mut self.ring);
        }
        Ok((used, ended, events.others))
    }
}

#[test]
fn in_lockstep_the_oldest_request_is_answered_and_what_is_incomplete_is_shown_again() {
    let mut one = One::of(&redis::PROTOCOL);
    let tickets = [one.asks().0, one.asks().0, one.asks().0];
    one.sends(&tickets);
    assert_eq!(one.hears(b"+PONG\r\n+PONG\r\n+PO"), Ok((14, tickets[..2].to_vec(), vec![])));
    assert_eq!(one.hears(b"+PONG\r\n"), Ok((7, vec![tickets[2]], vec![])));
}

#[test]
fn in_lockstep_nothing_is_credited_to_a_request_that_has_not_left() {
    for asked in [false, true] {
        let mut one = One::of(&redis::PROTOCOL);
        if asked {
            one.asks();
        }
        let Err(End::Broken(kinds, why)) = one.hears(b"+PONG\r\n") else { panic!("it was taken") };
        assert_eq!(kinds, ["unexpected", "aborted"], "{why}");
    }
}

#[test]
fn in_lockstep_the_end_of_the_stream_breaks_off_what_is_awaited_and_nothing_else() {
    let mut one = One::of(&redis::PROTOCOL);
    assert_eq!(one.call(|client, cx| client.stream_ended(0, b"", true, cx)), Ok(()));
    let ticket = one.asks().0;
    one.sends(&[ticket]);
    let ended = one.call(|client, cx| client.stream_ended(0, b"", true, cx));
    assert!(matches!(ended.map_err(|end| *end), Err(End::Broken(["closed", "closed"], _))));
    assert_eq!(one.call(|client, cx| client.cancel(0, ticket, cx)), Cancelled::Connection);
}

#[test]
fn tagged_replies_find_their_requests_in_any_order_and_once() {
    let mut one = One::of(&udp::PROTOCOL);
    let (first, first_bytes) = one.asks();
    one.sends(&[first]);
    let (second, second_bytes) = one.asks();
    one.sends(&[second]);
    let len = first_bytes.len();
    assert_eq!(one.hears(&second_bytes), Ok((len, vec![second], vec![])));
    assert_eq!(one.hears(&second_bytes), Ok((len, vec![], vec![Event::Stray(Unawaited::Duplicate)])));
    assert_eq!(one.hears(&first_bytes), Ok((len, vec![first], vec![Event::Overtaken])));
    assert_eq!(one.hears(b"who is there?"), Ok((13, vec![], vec![Event::Stray(Unawaited::Unasked)])));
}

#[test]
fn a_tagged_request_is_given_up_alone_and_its_reply_comes_late() {
    let mut one = One::of(&udp::PROTOCOL);
    let (first, bytes) = one.asks();
    let second = one.asks().0;
    assert_eq!(one.call(|client, cx| client.cancel(0, first, cx)), Cancelled::Alone);
    // It had not left, and does not any more.
    assert_eq!(one.out.message().map(|(_, ticket)| ticket), Some(second));
    one.tickets.end(first, &mut one.ring);
    one.sends(&[second]);
    assert_eq!(one.hears(&bytes), Ok((bytes.len(), vec![], vec![Event::Stray(Unawaited::Late)])));
}

#[test]
fn a_tagged_reply_that_differs_fails_its_request_alone() {
    let mut one = One::of(&udp::PROTOCOL);
    let (ticket, mut bytes) = one.asks();
    one.sends(&[ticket]);
    *bytes.last_mut().unwrap() ^= 1;
    let (_, ended, events) = one.hears(&bytes).unwrap();
    assert!(ended.is_empty());
    assert!(matches!(&events[..], [Event::Failed(failed, "mismatch", _)] if *failed == ticket), "{events:?}");
}
