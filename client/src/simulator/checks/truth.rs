//! Each request of the log against what the network and the peer saw of it: when its first byte left, when the peer had
//! it, when the last byte of its reply was there.

use super::super::Outcome;
use super::super::draw::Drawn;
use super::super::network::ONE_WAY_MIN_NS;
use super::super::truth::{Message, Visit};
use super::{AT_ONCE_NS, has_left, is_answered, is_ok};
use loadgen_core::load::request_log::Row;
use loadgen_core::load::tally::Phase;
use loadgen_core::protocol::Shape;
use loadgen_core::time::Instant;

pub(super) fn check(drawn: &Drawn, outcome: &Outcome) {
    shortest(drawn, outcome);
    match drawn.protocol.shape {
        Shape::Exchange if drawn.is_multiplexed() => {}
        Shape::Exchange if drawn.may_lose() => messages(drawn, outcome),
        Shape::Exchange => exchanges(drawn, outcome),
        Shape::Upload | Shape::Download => streams(drawn, outcome),
    }
}

/// Nothing is faster than the network.
fn shortest(drawn: &Drawn, Outcome { tally, network, .. }: &Outcome) {
    let least = 2 * ONE_WAY_MIN_NS;
    let misled = network.misled && !drawn.may_lose();
    for (what, histogram) in [("response", &tally.response), ("service", &tally.service), ("connect", &tally.connect)] {
        let bound = if misled || what == "response" && tally.censored > 0 { 0 } else { least };
        assert!(histogram.min_ns().is_none_or(|min| min >= bound), "{what} time below the truth");
    }
    if drawn.protocol.converses() && !misled {
        assert!(tally.whole.ok <= network.answered, "more replies than the peers gave");
    }
}

/// The load looked at the clock just before this happened, not after.
fn just_before(stamp: Instant, truth: Instant) -> bool {
    stamp <= truth && truth.since(stamp) <= AT_ONCE_NS
}

/// Likewise, where an engine hands it over later: unless the request had ended by then, and its stamp was nobody's.
fn left_at(row: &Row, truth: Instant) -> bool {
    just_before(row.sent, truth) || row.sent <= truth && row.ended <= truth
}

/// On each connection replies come in the order of requests, so the n-th of the one is of the n-th of the other.
fn exchanges(drawn: &Drawn, outcome: &Outcome) {
    let alike = if drawn.tls.is_some() || drawn.greeting_replies() > 0 { 0 } else { drawn.alike().len() as u64 };
    let mut slots = outcome.rows_by_slot(drawn);
    slots.iter_mut().for_each(|rows| rows.retain(has_left));
    let mut at = vec![0; slots.len()];
    for visit in &outcome.network.truth.visits {
        let rows = &slots[visit.slot as usize][at[visit.slot as usize]..];
        let gone = visit.gone.unwrap_or(outcome.ended);
        let of_visit = rows.iter().take_while(|row| row.sent <= gone).count();
        at[visit.slot as usize] += of_visit;
        let rows = &rows[..of_visit];
        assert!(rows.first().is_none_or(|row| row.sent >= visit.established.unwrap_or(Instant::NEVER)), "{visit:?}");
        if alike > 0 && !visit.misled {
            let begun = visit.taken_bytes().div_ceil(alike);
            assert_eq!(rows.len() as u64, begun, "requests of which a byte left on slot {}", visit.slot);
        }
        if !visit.misled {
            one_connection(visit, rows);
        }
    }
    for (slot, rows) in slots.iter().enumerate() {
        assert_eq!(rows.len(), at[slot], "requests that left without a connection, slot {slot}");
    }
}

fn one_connection(visit: &Visit, rows: &[Row]) {
    assert!(visit.seen.len() <= rows.len(), "the peer saw {} requests of {}", visit.seen.len(), rows.len());
    for (number, row) in rows.iter().enumerate() {
        let Some(seen) = visit.seen.get(number) else {
            assert!(!is_answered(row), "answered, and the peer never saw it: {row:?}");
            continue;
        };
        if let Some(left) = seen.from.and_then(|from| visit.left_at(from)) {
            assert!(left_at(row, left), "sent at {left:?} in truth: {row:?}");
        }
        if let Some(whole) = seen.whole {
            assert!(whole.since(row.sent) >= ONE_WAY_MIN_NS, "with the peer at {whole:?}: {row:?}");
        }
        match seen.answered {
            None => assert!(!is_answered(row), "its reply never came: {row:?}"),
            Some(told) => {
                assert!(is_answered(row), "its reply came at {told:?}: {row:?}");
                assert!(just_before(told, row.ended), "its reply came at {told:?}: {row:?}");
            }
        }
    }
}

fn messages(drawn: &Drawn, outcome: &Outcome) {
    let truth = &outcome.network.truth;
    let (counts, whole) = (&outcome.tally.delivery, &outcome.tally.whole);
    let spoilt: u64 = ["malformed", "mismatch", "truncated", "too_large"]
        .iter()
        .map(|kind| whole.errors.get(kind).copied().unwrap_or(0))
        .sum();
    let known = whole.ok + spoilt + counts.duplicated + counts.late + counts.old + counts.foreign;
    assert_eq!(counts.received, known, "each message is of one kind: {counts:?}");
    assert_eq!((counts.received, counts.foreign), (truth.messages_told, truth.foreign_told), "{counts:?}");
    assert_eq!(counts.lost, whole.errors.get("timeout").copied().unwrap_or(0), "lost");
    for (slot, mut rows) in outcome.rows_by_slot(drawn).into_iter().enumerate() {
        rows.retain(has_left);
        rows.sort_by_key(|row| row.sent);
        let slot = slot as u32;
        let left: Vec<&Message> = truth.messages.range((slot, 0)..(slot + 1, 0)).map(|(_, of)| of).collect();
        assert_eq!(rows.len(), left.len(), "messages that left on slot {slot}");
        for (row, message) in rows.iter().zip(&left) {
            assert!(left_at(row, message.taken), "sent at {:?} in truth: {row:?}", message.taken);
        }
        // Those that left at once are told apart by their replies alone.
        let mut from = 0;
        while from < rows.len() {
            let together = rows[from..].iter().take_while(|row| row.sent == rows[from].sent).count();
            replies_of(&rows[from..from + together], &left[from..from + together]);
            from += together;
        }
    }
}

fn replies_of(rows: &[Row], left: &[&Message]) {
    let mut ended: Vec<Instant> = rows.iter().filter(|row| is_ok(row)).map(|row| row.ended).collect();
    ended.sort_unstable();
    let mut first: Vec<Instant> = left.iter().filter_map(|of| of.answered.first().copied()).collect();
    first.sort_unstable();
    let mut truths = first.into_iter();
    for ended in ended {
        let fits = truths.any(|told| just_before(told, ended));
        assert!(fits, "no first reply to it came just before {ended:?}: {rows:?}");
    }
}

/// Endless streams: what was sent is what the peer read, and nothing is lost that nobody lost.
fn streams(drawn: &Drawn, outcome: &Outcome) {
    let (tally, visits) = (&outcome.tally, &outcome.network.truth.visits);
    assert_eq!((tally.whole.scheduled, tally.response.count()), (0, 0), "a stream has no requests");
    if !drawn.is_calm() || outcome.stopped.is_some() {
        return;
    }
    let counts = &tally.connections;
    // A handshake takes several round trips, and may take longer than the timeout.
    let timeouts = tally.errors.iter().filter(|error| (error.kind, error.phase) == ("timeout", Phase::Connect));
    let too_slow: u64 = if drawn.tls.is_some() { timeouts.map(|error| error.count).sum() } else { 0 };
    let lasted = |visit: &&Visit| {
        let gone = visit.gone.unwrap_or(Instant(0));
        visit.established.is_some_and(|from| gone.since(from) >= drawn.config.timeout_ns)
    };
    assert_eq!((counts.lost, counts.closed_by_server), (too_slow, 0), "{counts:?}");
    assert!(too_slow <= visits.iter().filter(lasted).count() as u64, "{too_slow} handshakes took too long");
    if drawn.protocol.shape == Shape::Upload {
        let unread = visits.iter().filter(|visit| visit.established.is_some() && !visit.read_to_end).count() as u64;
        let stays = drawn.config.connections_over_time.is_none();
        assert!(unread <= too_slow || !stays, "{unread} streams that were not read to their end");
        assert!(tally.bytes.sent > 0 || !outcome.all_ready, "nothing was sent");
    } else {
        assert!(tally.bytes.received > 0 || !outcome.all_ready, "nothing was received");
    }
}
