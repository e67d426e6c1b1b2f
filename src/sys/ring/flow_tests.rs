//! Completions by hand: each rule of [`super::flow`], once or twice.

use super::buffers::Ledger;
use super::flow::{Completion, Driver, Event, Flows};
use super::token::{Op, Token};

const SLOT: u32 = 5;
const LEASE: u32 = 7;
/// Whether more completions follow.
const MORE: bool = true;
const LAST: bool = false;
const ENOBUFS: i32 = -libc::ENOBUFS;
const ECANCELED: i32 = -libc::ECANCELED;
const EAGAIN: i32 = -libc::EAGAIN;
const NOTHING: [&str; 0] = [];

/// Notes what is asked, in words.
#[derive(Default)]
struct Notes(Vec<String>);

impl Driver for Notes {
    fn receive(&mut self, _: Token) {
        self.0.push("receive".into());
    }
    fn look(&mut self, _: Token) {
        self.0.push("look".into());
    }
    fn send(&mut self, token: Token, from: u32, to: u32) {
        self.0.push(format!("send {from}..{to} of {}", token.lease()));
    }
    fn end_stream(&mut self, _: Token) {
        self.0.push("end stream".into());
    }
    fn end_stream_without(&mut self, _: Token) {
        self.0.push("end stream without".into());
    }
    fn verify(&mut self, _: Token) {
        self.0.push("verify".into());
    }
    fn cancel(&mut self, target: Token) {
        self.0.push(format!("cancel {:?}", target.op().unwrap()));
    }
    fn close(&mut self, _: u32) {
        self.0.push("close".into());
    }
    fn release(&mut self, lease: u32) {
        self.0.push(format!("release {lease}"));
    }
}

/// One slot, and a kernel that says what it is told to say.
struct Desk {
    flows: Flows,
    notes: Notes,
    ledger: Ledger,
    /// Of the socket that completions are about.
    generation: u16,
}

impl Desk {
    fn new() -> Self {
        let (mut flows, mut ledger) = (Flows::default(), Ledger::new(1, 1000));
        ledger.give(0);
        let generation = flows.admit(SLOT, false);
        Self { flows, notes: Notes::default(), ledger, generation }
    }

    fn receiving() -> Self {
        let mut desk = Self::new();
        desk.flows.receive(&mut desk.notes, SLOT);
        assert_eq!(desk.asked(), ["receive"]);
        desk
    }

    fn sending() -> Self {
        let mut desk = Self::new();
        desk.flows.send_owned(&mut desk.notes, SLOT, LEASE, 100);
        assert_eq!(desk.asked(), ["send 0..100 of 7"]);
        desk
    }

    /// What was asked of the kernel since the last time.
    fn asked(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes.0)
    }

    /// A completion, and what came of it in words. Received bytes go back at once.
    fn tell(&mut self, op: Op, result: i32, more: bool) -> String {
        self.tell_all(op, result, more, false)
    }

    fn notice(&mut self) -> String {
        self.tell_all(Op::Send, 0, LAST, true)
    }

    fn tell_all(&mut self, op: Op, result: i32, more: bool, notice: bool) -> String {
        let token = Token::new(op, self.generation, SLOT).with_lease(if op == Op::Send { LEASE } else { 0 });
        let receives = matches!(op, Op::Receive | Op::Look) && result > 0;
        let filled = receives.then(|| self.ledger.take(0, result as u32, false).expect("the kernel has a buffer"));
        let event = self.flows.complete(&mut self.notes, Completion { token, result, more, notice, filled });
        let mut words = format!("{event:?}");
        if let Event::Received { filled, .. } | Event::Stale { filled: Some(filled), .. } = event {
            let stale = if words.starts_with("Stale") { "Stale " } else { "" };
            words = format!("{stale}Received {}", filled.len());
            assert!(self.ledger.part_done(0));
            self.ledger.give(0);
        }
        words
    }

    fn pause(&mut self) {
        self.flows.pause(&mut self.notes, SLOT);
    }

    fn receive(&mut self) {
        self.flows.receive(&mut self.notes, SLOT);
    }

    fn look(&mut self) {
        self.flows.look(&mut self.notes, SLOT);
    }

    fn feed(&mut self) {
        self.flows.feed(&mut self.notes, usize::MAX);
    }

    /// What feeding asks of the kernel; nothing may have been asked before.
    fn fed(&mut self) -> Vec<String> {
        assert_eq!(self.asked(), NOTHING, "before it was fed");
        self.feed();
        self.asked()
    }

    /// Closes the socket, and opens another one in its slot.
    fn close_and_open(&mut self) -> u32 {
        let unsent = self.flows.close(&mut self.notes, SLOT);
        self.flows.admit(SLOT, false);
        unsent
    }
}

const EMPTY: &str = "Empty { slot: 5 }";

// A multishot request is over when a completion says that no more follow, whatever its result.

#[test]
fn a_receive_is_armed_anew_when_it_is_over_and_not_before() {
    let mut desk = Desk::receiving();
    assert_eq!((desk.tell(Op::Receive, 10, MORE).as_str(), desk.fed().len()), ("Received 10", 0));
    assert_eq!((desk.tell(Op::Receive, 20, LAST).as_str(), desk.fed().len()), ("Received 20", 1));
    assert_eq!(desk.flows.counters.rearms, 1);
    desk.tell(Op::Receive, -libc::EINTR, LAST);
    assert_eq!(desk.fed(), ["receive"]);
}

#[test]
fn what_a_receive_brought_may_be_a_reason_to_pause() {
    let mut desk = Desk::receiving();
    desk.tell(Op::Receive, 20, LAST);
    desk.pause();
    assert_eq!(desk.fed(), NOTHING);
    desk.receive();
    assert_eq!((desk.asked(), desk.flows.counters.rearms), (vec!["receive".to_owned()], 1));
}

#[test]
fn a_stream_that_has_ended_is_received_no_more() {
    for (result, error) in [(0, 0), (-libc::ECONNRESET, libc::ECONNRESET)] {
        let mut desk = Desk::receiving();
        assert_eq!(desk.tell(Op::Receive, result, LAST), format!("Ended {{ slot: 5, error: {error} }}"));
        desk.receive();
        assert_eq!(desk.asked(), NOTHING);
    }
}

#[test]
fn an_accept_ends_when_it_says_so_and_not_with_an_error() {
    let mut desk = Desk::new();
    assert_eq!(desk.tell(Op::Accept, -libc::ECONNABORTED, MORE), "Nothing");
    assert_eq!(desk.tell(Op::Accept, 3, MORE), "Accepted { slot: 3, last: false }");
    assert_eq!(desk.tell(Op::Accept, 4, LAST), "Accepted { slot: 4, last: true }");
    assert_eq!(desk.tell(Op::Accept, -libc::ENFILE, LAST), format!("AcceptEnded {{ error: {} }}", libc::ENFILE));
}

// It is armed anew when it is fed: after ENOBUFS it would fail again until buffers have been given back.

#[test]
fn without_buffers_a_receive_waits_to_be_fed() {
    let mut desk = Desk::receiving();
    for shortages in 1..=3 {
        assert_eq!(desk.tell(Op::Receive, ENOBUFS, LAST), "Nothing");
        desk.receive();
        assert_eq!(desk.fed(), ["receive"]);
        assert_eq!((desk.fed().len(), desk.flows.counters.buffer_shortages), (0, shortages));
    }
}

#[test]
fn whoever_does_not_want_to_receive_any_more_is_not_fed() {
    let mut desk = Desk::receiving();
    desk.tell(Op::Receive, ENOBUFS, LAST);
    desk.pause();
    desk.feed();
    assert_eq!(desk.asked(), NOTHING);
    desk.receive();
    assert_eq!(desk.asked(), ["receive"]);
}

#[test]
fn of_many_that_are_over_the_oldest_go_on_first() {
    let mut notes = Notes::default();
    let mut flows = Flows::default();
    for slot in 0..3 {
        let generation = flows.admit(slot, false);
        flows.receive(&mut notes, slot);
        let token = Token::new(Op::Receive, generation, slot);
        flows.complete(&mut notes, Completion { token, result: -105, more: false, notice: false, filled: None });
    }
    assert!(flows.feed(&mut notes, 2), "one has to wait");
    assert_eq!(flows.counters.rearms, 2);
    assert!(!flows.feed(&mut notes, 2));
    assert_eq!(flows.counters.rearms, 3);
}

#[test]
fn a_starved_socket_that_was_closed_does_not_feed_its_successor() {
    let mut desk = Desk::receiving();
    desk.tell(Op::Receive, ENOBUFS, LAST);
    desk.close_and_open();
    desk.receive();
    assert_eq!(desk.asked(), ["close", "receive"]);
    desk.feed();
    assert_eq!((desk.asked().len(), desk.flows.counters.rearms), (0, 0));
}

#[test]
fn without_buffers_a_look_waits_to_be_fed() {
    let mut desk = Desk::new();
    desk.look();
    assert_eq!((desk.asked(), desk.tell(Op::Look, ENOBUFS, LAST)), (vec!["look".to_owned()], "Nothing".to_owned()));
    assert_eq!(desk.asked(), NOTHING);
    desk.feed();
    assert_eq!((desk.asked(), desk.tell(Op::Look, EAGAIN, LAST)), (vec!["look".to_owned()], EMPTY.to_owned()));
}

// One send is in flight on a socket.

#[test]
fn what_a_send_did_not_take_is_sent_by_the_next() {
    let mut desk = Desk::sending();
    assert_eq!(desk.tell(Op::Send, 30, LAST), "PartlySent { bytes: 30 }");
    assert_eq!(desk.asked(), ["send 30..100 of 7"]);
    assert_eq!(desk.tell(Op::Send, -libc::EINTR, LAST), "PartlySent { bytes: 0 }");
    assert_eq!(desk.asked(), ["send 30..100 of 7"]);
    assert_eq!(desk.tell(Op::Send, 70, LAST), "Sent { slot: 5, bytes: 70 }");
    assert_eq!((desk.asked(), desk.flows.is_sending(SLOT)), (vec!["release 7".to_owned()], false));
}

#[test]
fn a_send_that_fails_says_what_was_never_taken() {
    let mut desk = Desk::sending();
    desk.tell(Op::Send, 30, LAST);
    let failed = format!("SendFailed {{ slot: 5, unsent: 70, error: {} }}", libc::EPIPE);
    assert_eq!(desk.tell(Op::Send, -libc::EPIPE, LAST), failed);
    assert_eq!(desk.asked(), ["send 30..100 of 7", "release 7"]);
    assert!(Desk::sending().tell(Op::Send, 0, LAST).starts_with("SendFailed"), "nothing taken is no progress");
}

#[test]
fn a_lease_that_others_use_is_not_released() {
    let mut desk = Desk::new();
    desk.flows.send_shared(&mut desk.notes, SLOT, LEASE, 10, 20);
    assert_eq!(desk.tell(Op::Send, 10, LAST), "Sent { slot: 5, bytes: 10 }");
    desk.flows.send_shared(&mut desk.notes, SLOT, LEASE, 0, 5);
    assert_eq!(desk.flows.close(&mut desk.notes, SLOT), 5);
    assert_eq!(desk.asked(), ["send 10..20 of 7", "send 0..5 of 7", "cancel Send", "close"]);
}

#[test]
fn without_a_copy_the_result_comes_before_the_notice_and_counts_once() {
    let mut desk = Desk::sending();
    assert_eq!(desk.tell(Op::Send, 100, MORE), "Sent { slot: 5, bytes: 100 }");
    desk.flows.send_shared(&mut desk.notes, SLOT, LEASE, 0, 9);
    assert_eq!((desk.notice().as_str(), desk.flows.is_sending(SLOT)), ("Nothing", true));
}

// A cancellation is only a wish.

#[test]
fn a_paused_receive_goes_on_when_it_is_over_and_not_before() {
    for (result, words) in [(ECANCELED, "Nothing"), (10, "Received 10")] {
        let mut desk = Desk::receiving();
        desk.pause();
        desk.pause();
        desk.receive();
        assert_eq!(desk.asked(), ["cancel Receive"]);
        assert_eq!(desk.tell(Op::Cancel, 0, LAST), "Nothing");
        assert_eq!((desk.tell(Op::Receive, 5, MORE).as_str(), desk.fed().len()), ("Received 5", 0));
        assert_eq!((desk.tell(Op::Receive, result, LAST).as_str(), desk.fed()), (words, vec!["receive".to_owned()]));
    }
}

#[test]
fn a_paused_receive_stays_so() {
    for result in [ECANCELED, 10, ENOBUFS] {
        let mut desk = Desk::receiving();
        desk.pause();
        desk.tell(Op::Receive, result, LAST);
        desk.feed();
        assert_eq!(desk.asked(), ["cancel Receive"]);
    }
}

#[test]
fn a_look_waits_until_no_receive_is_armed() {
    let mut desk = Desk::receiving();
    desk.look();
    assert_eq!(desk.asked(), ["cancel Receive"]);
    desk.tell(Op::Receive, 10, MORE);
    assert_eq!(desk.fed(), NOTHING);
    desk.tell(Op::Receive, ECANCELED, LAST);
    assert_eq!((desk.fed(), desk.tell(Op::Look, 20, LAST)), (vec!["look".to_owned()], "Received 20".to_owned()));
    desk.look();
    assert_eq!((desk.asked(), desk.tell(Op::Look, EAGAIN, LAST)), (vec!["look".to_owned()], EMPTY.to_owned()));
    assert_eq!(desk.asked(), NOTHING);
}

#[test]
fn a_receive_that_is_wanted_during_a_look_is_armed_behind_it() {
    for (result, words) in [(20, "Received 20"), (EAGAIN, EMPTY)] {
        let mut desk = Desk::receiving();
        desk.look();
        desk.receive();
        assert_eq!(desk.asked(), ["cancel Receive"]);
        desk.tell(Op::Receive, ECANCELED, LAST);
        desk.receive();
        assert_eq!(desk.fed(), ["look"]);
        desk.receive();
        assert_eq!((desk.tell(Op::Look, result, LAST).as_str(), desk.fed()), (words, vec!["receive".to_owned()]));
    }
}

#[test]
fn a_look_during_a_look_is_another_one() {
    let mut desk = Desk::new();
    desk.look();
    desk.look();
    assert_eq!((desk.asked(), desk.tell(Op::Look, EAGAIN, LAST)), (vec!["look".to_owned()], "Nothing".to_owned()));
    assert_eq!((desk.fed(), desk.tell(Op::Look, 20, LAST)), (vec!["look".to_owned()], "Received 20".to_owned()));
    desk.receive();
    assert_eq!(desk.asked(), ["receive"]);
    desk.tell(Op::Receive, 30, LAST);
    assert_eq!(desk.fed(), ["receive"]);
}

#[test]
fn a_starved_socket_looks_when_it_is_fed() {
    let mut desk = Desk::receiving();
    desk.tell(Op::Receive, ENOBUFS, LAST);
    desk.look();
    assert_eq!(desk.asked(), NOTHING);
    desk.feed();
    assert_eq!(desk.asked(), ["look"]);
}

// A completion for a socket that is gone must not touch the one that has its slot now.

#[test]
fn closing_ends_what_is_under_way() {
    let mut desk = Desk::receiving();
    desk.flows.send_owned(&mut desk.notes, SLOT, LEASE, 100);
    desk.tell(Op::Send, 30, LAST);
    desk.asked();
    assert_eq!(desk.flows.close(&mut desk.notes, SLOT), 70);
    assert_eq!(desk.asked(), ["cancel Receive", "cancel Send", "release 7", "close"]);
    assert!(!desk.flows.is_open(SLOT) && desk.flows.open() == 0);
}

#[test]
fn a_connection_that_takes_too_long_is_closed() {
    let (mut flows, mut notes) = (Flows::default(), Notes::default());
    flows.admit(SLOT, true);
    flows.close(&mut notes, SLOT);
    assert_eq!(notes.0, ["cancel Connect", "close"]);
    let mut desk = Desk::new();
    assert_eq!(desk.tell(Op::Connect, -libc::ECONNREFUSED, LAST), "Connected { slot: 5, error: 111 }");
}

#[test]
fn what_needs_a_descriptor_goes_on_when_there_is_none() {
    let mut desk = Desk::new();
    assert_eq!(desk.tell(Op::Connect, -libc::EMFILE, LAST), "Nothing");
    assert_eq!(desk.tell(Op::Connect, 0, LAST), "Connected { slot: 5, error: 0 }");
    assert_eq!(desk.tell(Op::EndStream, -libc::EMFILE, LAST), "Nothing");
    assert_eq!(desk.tell(Op::Shutdown, 0, LAST), "StreamEnded { slot: 5, error: 0 }");
    assert_eq!(desk.asked(), ["verify", "end stream without"]);
}

#[test]
fn what_comes_late_is_stale() {
    let mut desk = Desk::receiving();
    desk.flows.send_owned(&mut desk.notes, SLOT, LEASE, 100);
    assert_eq!(desk.close_and_open(), 100);
    desk.receive();
    desk.flows.send_shared(&mut desk.notes, SLOT, LEASE, 0, 9);
    desk.asked();
    assert_eq!(desk.tell(Op::Receive, 10, LAST), "Stale Received 10");
    assert_eq!(desk.tell(Op::Receive, ENOBUFS, LAST), "Stale { filled: None, taken: 0 }");
    assert_eq!(desk.tell(Op::Send, 40, MORE), "Stale { filled: None, taken: 40 }");
    assert_eq!((desk.notice().as_str(), desk.tell(Op::Cancel, -libc::ENOENT, LAST).as_str()), ("Nothing", "Nothing"));
    assert_eq!((desk.asked().len(), desk.flows.is_sending(SLOT), desk.flows.counters.stale), (0, true, 3));
}

#[test]
fn an_empty_datagram_is_no_end_and_the_receive_goes_on_after_it() {
    let mut desk = Desk::receiving();
    desk.flows.has_messages = true;
    assert_eq!(desk.tell(Op::Receive, 100, MORE), "Received 100");
    assert_eq!(desk.tell(Op::Receive, 0, LAST), "EmptyMessage { slot: 5 }");
    assert_eq!(desk.asked(), NOTHING);
    desk.flows.feed(&mut desk.notes, 1);
    assert_eq!(desk.asked(), ["receive"]);
    assert_eq!(desk.tell(Op::Receive, -libc::ECONNREFUSED, LAST), "Ended { slot: 5, error: 111 }");
    desk.flows.feed(&mut desk.notes, 1);
    assert_eq!(desk.asked(), NOTHING);
}

#[test]
fn datagrams_that_are_not_sent_are_told_also_of_a_socket_that_is_gone() {
    let mut desk = Desk::receiving();
    assert_eq!(desk.tell(Op::SendTo, 64, LAST), "Nothing");
    assert_eq!(desk.tell(Op::SendTo, -libc::ECONNREFUSED, LAST), "MessageFailed { slot: Some(5), error: 111 }");
    desk.flows.close(&mut desk.notes, SLOT);
    assert_eq!(desk.tell(Op::SendTo, 64, LAST), "Nothing");
    assert_eq!(desk.tell(Op::SendTo, -libc::EPERM, LAST), "MessageFailed { slot: None, error: 1 }");
}
