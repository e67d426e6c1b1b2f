//! Every request and every connection leaves the ledger once; what both ends counted is the same.

use super::super::Outcome;
use super::super::draw::Drawn;
use super::super::truth::Visit;
use super::{has_left, is_ok};
use loadgen_core::load::StopRule;
use loadgen_core::load::request_log::Row;
use loadgen_core::load::tally::Counts;
use loadgen_core::load::users::Lengths;
use loadgen_core::time::{Instant, NS_PER_MS, NS_PER_S};
use std::collections::BTreeMap;

pub(super) fn check(drawn: &Drawn, outcome: &Outcome) {
    ledger(drawn, outcome);
    calm(drawn, outcome);
    rows(drawn, outcome);
    groups(drawn, outcome);
    connections(drawn, outcome);
    attempts(drawn, outcome);
    sessions(drawn, outcome);
}

fn closes(what: &str, counts: &Counts) {
    let errors: u64 = counts.errors.values().sum();
    assert_eq!(counts.scheduled, counts.sent + counts.unsent, "{what}: {counts:?}");
    assert_eq!(counts.sent, counts.ok + errors + counts.in_flight, "{what}: {counts:?}");
}

fn ledger(drawn: &Drawn, Outcome { tally, stopped, .. }: &Outcome) {
    closes("the whole run", &tally.whole);
    closes("the window", &tally.window);
    let (whole, window) = (&tally.whole, &tally.window);
    assert!(window.scheduled <= whole.scheduled && window.ok <= whole.ok && window.sent <= whole.sent);
    for (kind, count) in &window.errors {
        assert!(whole.errors.get(kind).is_some_and(|all| count <= all), "{kind}: more in the window than in all");
    }
    assert_eq!(tally.response.count(), window.ok + tally.censored, "response times beside those of the ledger");
    assert_eq!(tally.service.count(), window.ok, "service times");
    if let StopRule::Requests(requests) = drawn.config.stop_rule
        && stopped.is_none()
    {
        assert_eq!(whole.scheduled, requests, "a number of requests is exact");
    }
    if !matches!(drawn.config.stop_rule, StopRule::After(_)) {
        assert_eq!((&window.errors, window.ok, window.in_flight), (&whole.errors, whole.ok, whole.in_flight));
        assert_eq!((window.scheduled, window.sent), (whole.scheduled, whole.sent), "the window is the whole run");
    }
}

/// Where nothing goes wrong, nothing is reported to.
fn calm(drawn: &Drawn, Outcome { tally, stopped, .. }: &Outcome) {
    if !drawn.faults.is_calm() {
        return;
    }
    assert!(stopped.is_none() || drawn.stops_early, "nothing went wrong, and it did not end by itself");
    // A slow peer may be too slow for a short timeout, and a path may be one that is refused. Behind a reply that was
    // announced to be the last, others wait in vain.
    let is_last = drawn.options.headers.iter().any(|(name, _)| name == "Connection");
    let expected =
        |kind: &&'static str| matches!(*kind, "timeout" | "aborted" | "status_4xx") || is_last && *kind == "closed";
    assert!(tally.whole.errors.keys().all(expected), "nothing went wrong: {:?}", tally.errors);
    assert!(tally.errors.iter().all(|error| expected(&error.kind)), "nothing went wrong: {:?}", tally.errors);
}

/// Each request is in the log once, in an order of times that can be.
fn rows(drawn: &Drawn, outcome: &Outcome) {
    let tally = &outcome.tally;
    assert_eq!(tally.log.left_out, 0, "the log has room for all");
    let rows = tally.log.rows();
    let count = |of: fn(&Row) -> bool| rows.iter().filter(|row| of(row)).count() as u64;
    assert_eq!(count(has_left), tally.whole.sent, "requests that left, in the log");
    assert_eq!(count(is_ok), tally.whole.ok, "requests that were answered, in the log");
    assert_eq!(count(|row| row.outcome == "in_flight"), tally.whole.in_flight, "in flight, in the log");
    let mut errors: BTreeMap<&str, u64> = BTreeMap::new();
    for row in rows.iter().filter(|row| !is_ok(row) && !matches!(row.outcome, "in_flight" | "unsent")) {
        *errors.entry(row.outcome).or_default() += 1;
    }
    assert_eq!(errors, tally.whole.errors, "errors in the log");
    assert!(count(|row| row.outcome == "unsent") <= tally.whole.unsent, "requests that never left, in the log");
    for row in rows {
        assert!(!has_left(row) || row.due <= row.sent, "sent before it was due: {row:?}");
        assert!(row.sent <= row.ended, "ended before it was sent: {row:?}");
        assert!((row.slot as usize) < drawn.config.active + drawn.config.idle, "of no connection: {row:?}");
        if row.outcome == "timeout" {
            // One that came back has the timeout from when it left first, and the log knows when it did last.
            let left = if tally.unprocessed == 0 { row.sent } else { row.due };
            let waited_ns = row.ended.since(row.due.max(left));
            assert!(waited_ns >= drawn.config.timeout_ns, "gave up before its time: {row:?}");
        }
    }
}

/// Kinds of requests, and targets, add up.
fn groups(drawn: &Drawn, outcome: &Outcome) {
    let tally = &outcome.tally;
    if tally.groups.is_empty() {
        return;
    }
    let (whole, window) = (&tally.whole, &tally.window);
    let errors = |counts: &Counts| counts.errors.values().sum::<u64>();
    for (part, all) in [
        (tally.groups.iter().map(|group| group.whole.ok).sum::<u64>(), whole.ok),
        (tally.groups.iter().map(|group| group.whole.sent).sum(), whole.sent),
        (tally.groups.iter().map(|group| errors(&group.whole)).sum(), errors(whole)),
        (tally.groups.iter().map(|group| group.window.ok).sum(), window.ok),
        (tally.groups.iter().map(|group| group.window.sent).sum(), window.sent),
        (tally.groups.iter().map(|group| errors(&group.window)).sum(), errors(window)),
    ] {
        assert_eq!(part, all, "kinds of requests add up");
    }
    let kinds = tally.groups.len() / drawn.weights.len();
    for (target, groups) in tally.groups.chunks(kinds).enumerate() {
        let of_target = |row: &&Row| is_ok(row) && target_of(outcome, row.slot) == Some(target);
        let ok = outcome.rows().iter().filter(of_target).count() as u64;
        assert_eq!(groups.iter().map(|group| group.whole.ok).sum::<u64>(), ok, "answers of target {target}");
    }
}

/// Which target a connection went to, as the network saw it.
fn target_of(outcome: &Outcome, slot: u32) -> Option<usize> {
    outcome.network.truth.visits.iter().find(|visit| visit.slot == slot).map(|visit| target_at(outcome, visit))
}

/// Of three targets the first has two addresses.
fn target_at(outcome: &Outcome, visit: &Visit) -> usize {
    let address = visit.address;
    if outcome.network.addresses == 4 { address.saturating_sub(1) } else { address }
}

fn connections(drawn: &Drawn, Outcome { tally, network, .. }: &Outcome) {
    let counts = &tally.connections;
    let visits = &network.truth.visits;
    let of = |what: fn(&Visit) -> bool| visits.iter().filter(|visit| what(visit)).count() as u64;
    let failed: u64 = counts.failed.values().sum();
    assert_eq!(counts.attempts, visits.len() as u64, "attempts");
    assert_eq!(counts.attempts, counts.opened + failed + counts.unfinished, "{counts:?}");
    assert_eq!(counts.opened, counts.closed + counts.closed_by_server + counts.lost, "{counts:?}");
    assert_eq!(counts.opened, of(|visit| visit.established.is_some()), "established, as the network saw it");
    assert_eq!((network.left_open(), of(|visit| visit.gone.is_none())), (0, 0), "connections that nobody closed");
    assert_eq!(tally.connect.count(), counts.opened, "connect times");
    assert!(counts.served <= counts.opened && counts.established <= counts.opened, "{counts:?}");
    let slots = (drawn.config.active + drawn.config.idle) as u64;
    assert!(counts.alive_at_end <= slots && counts.served <= slots && counts.established <= slots, "{counts:?}");
    let closes_by_reply = drawn.options.headers.iter().any(|(name, _)| name == "Connection");
    if !closes_by_reply && drawn.protocol.transport.has_connections() && !drawn.is_multiplexed() && !network.misled {
        let ended = of(|visit| visit.ended);
        assert!(counts.closed_by_server <= ended, "the server closed {ended}: {counts:?}");
    }
    assert_eq!(tally.bytes.sent, network.truth.taken_bytes, "bytes sent");
    assert_eq!(tally.bytes.received, network.truth.delivered_bytes, "bytes received");
    for visit in visits {
        let taken = visit.taken_bytes();
        assert!(visit.read <= taken, "the peer read more than was sent: {visit:?}");
        assert!(!visit.read_to_end || visit.read == taken, "the peer read to the end, and not all: {visit:?}");
        let until = visit.established.unwrap_or_else(|| visit.gone.unwrap_or(visit.attempted));
        let waited_ns = until.since(visit.attempted);
        assert!(waited_ns <= drawn.patience_ns(), "waited {waited_ns} ns for a connection");
    }
}

/// Attempts keep their rate, but for what 100 ms of a pause let pass at once.
fn attempts(drawn: &Drawn, Outcome { network, .. }: &Outcome) {
    let Some(rate) = drawn.config.connect_rate else { return };
    let mut next = drawn.config.origin;
    for (number, attempted) in network.truth.visits.iter().map(|visit| visit.attempted).enumerate() {
        assert!(attempted.after(NS_PER_MS) >= next, "attempt {number} at {attempted:?}, not before {next:?}");
        let earliest = Instant(attempted.0.saturating_sub(100 * NS_PER_MS));
        next = next.max(earliest).after(NS_PER_S / rate);
    }
}

/// Sessions that arrived are over, broken or there, and ask as often as was drawn.
fn sessions(drawn: &Drawn, Outcome { tally, all_ready, .. }: &Outcome) {
    let Some(sessions) = &drawn.config.traffic.sessions else { return };
    let visits = &tally.sessions;
    let completed: u64 = visits.lengths.iter().sum();
    assert_eq!(visits.started, completed + visits.broken + visits.in_progress, "{visits:?}");
    // A connection that is opened anew, or comes after the load began, is proved by a request of no session.
    if let Lengths::Fixed(length) = sessions.lengths
        && drawn.faults.is_calm()
        && *all_ready
        && drawn.options.headers.is_empty()
        && tally.whole.errors.is_empty()
    {
        let proofs = (drawn.config.active + drawn.config.idle) as u64;
        let asked = tally.whole.scheduled - proofs - visits.unstarted;
        let least = completed * u64::from(length) + visits.in_progress;
        let most = (completed + visits.in_progress + visits.broken) * u64::from(length);
        assert!((least..=most).contains(&asked), "{asked} requests of {visits:?}, {length} each");
    }
}

/// Connections are shared out among targets by weight.
pub(super) fn targets(parts: &[(Drawn, Outcome)]) {
    let weights = &parts[0].0.weights;
    let total: u32 = weights.iter().sum();
    let mut shares = vec![0_u32; weights.len()];
    let mut connections = 0;
    for (drawn, outcome) in parts {
        let visits = &outcome.network.truth.visits;
        for slot in 0..drawn.config.active as u32 {
            let mut of_slot = visits.iter().filter(|visit| visit.slot == slot);
            let Some(first) = of_slot.next() else { return };
            assert!(of_slot.all(|visit| visit.address == first.address), "slot {slot} went elsewhere");
            shares[target_at(outcome, first)] += 1;
            connections += 1;
        }
    }
    for (share, weight) in shares.iter().zip(weights) {
        let exact = f64::from(connections * weight) / f64::from(total);
        assert!((f64::from(*share) - exact).abs() <= 1.0, "{connections} connections: {shares:?} of {weights:?}");
    }
}
