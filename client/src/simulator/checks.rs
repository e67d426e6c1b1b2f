//! What must hold of a run, whatever went wrong in it.

use super::Outcome;
use super::draw::Drawn;
use super::network::ONE_WAY_MIN_NS;
use loadgen_core::arrivals::Schedule;
use loadgen_core::load::StopRule;
use loadgen_core::load::request_log::Row;
use loadgen_core::load::tally::Counts;
use loadgen_core::load::users::Lengths;
use loadgen_core::protocol::Shape;
use loadgen_core::time::Instant;
use std::collections::BTreeSet;

pub(super) fn check(drawn: &Drawn, outcome: &Outcome) {
    ledger(drawn, outcome);
    connections(outcome);
    rows(drawn, outcome);
    schedule(drawn, outcome);
    sessions(drawn, outcome);
    truth(drawn, outcome);
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
    assert_eq!(tally.response.count(), window.ok + tally.censored, "response times beside those of the ledger");
    assert_eq!(tally.service.count(), window.ok, "service times");
    if !tally.groups.is_empty() {
        for (part, all) in [
            (tally.groups.iter().map(|group| group.whole.ok).sum::<u64>(), whole.ok),
            (tally.groups.iter().map(|group| group.whole.sent).sum(), whole.sent),
            (tally.groups.iter().map(|group| group.window.ok).sum(), window.ok),
        ] {
            assert_eq!(part, all, "kinds of requests add up");
        }
    }
    if let StopRule::Requests(requests) = drawn.config.stop_rule
        && !stopped
    {
        assert_eq!(whole.scheduled, requests, "a number of requests is exact");
    }
    if drawn.faults.is_calm() {
        assert!(!stopped || drawn.stops_early, "nothing went wrong, and it did not end by itself");
        // A slow peer may be too slow for a short timeout, and a path may be one that is refused.
        let expected = |kind: &&'static str| matches!(*kind, "timeout" | "aborted" | "status_4xx");
        assert!(whole.errors.keys().all(expected), "nothing went wrong: {:?}", tally.errors);
    }
}

fn connections(Outcome { tally, network, .. }: &Outcome) {
    let counts = &tally.connections;
    let failed: u64 = counts.failed.values().sum();
    assert_eq!(counts.attempts, network.connects, "attempts");
    assert_eq!(counts.attempts, counts.opened + failed + counts.unfinished, "{counts:?}");
    assert_eq!(counts.opened, counts.closed + counts.closed_by_server + counts.lost, "{counts:?}");
    assert_eq!(tally.bytes.sent, network.taken_bytes, "bytes sent");
    assert_eq!(tally.bytes.received, network.delivered_bytes, "bytes received");
}

/// Each request is in the log once, in an order of times that can be.
fn rows(drawn: &Drawn, Outcome { tally, network, .. }: &Outcome) {
    let misled = network.misled && drawn.protocol.shape != Shape::Datagram;
    assert_eq!(tally.log.left_out, 0, "the log has room for all");
    let rows = tally.log.rows();
    let sent = rows.iter().filter(|row| row.sent != Instant(0)).count() as u64;
    let ok = rows.iter().filter(|row| matches!(row.outcome, "ok" | "proof")).count() as u64;
    assert_eq!(sent, tally.whole.sent, "requests that left, in the log");
    assert_eq!(ok, tally.whole.ok, "requests that were answered, in the log");
    let error = |row: &&Row| !matches!(row.outcome, "ok" | "proof" | "in_flight" | "unsent");
    assert_eq!(rows.iter().filter(error).count() as u64, tally.whole.errors.values().sum::<u64>(), "errors in the log");
    for row in rows {
        assert!(row.sent == Instant(0) || row.due <= row.sent, "sent before it was due: {row:?}");
        assert!(row.sent <= row.ended, "ended before it was sent: {row:?}");
        if matches!(row.outcome, "ok" | "proof") && !misled {
            assert!(row.ended.since(row.sent) >= 2 * ONE_WAY_MIN_NS, "faster than the network: {row:?}");
        }
        let least = drawn.config.timeout_ns;
        if row.outcome == "timeout" {
            assert!(row.ended.since(row.due) >= least, "gave up before its time: {row:?}");
        }
    }
}

/// Every due time of an open loop is that of its schedule, and each is used once.
fn schedule(drawn: &Drawn, Outcome { tally, began, stopped, .. }: &Outcome) {
    let Some((process, profile)) = &drawn.rate else { return };
    let StopRule::After(window_ns) = drawn.config.stop_rule else { return };
    if *began == Instant::NEVER {
        return;
    }
    let ends = began.after(drawn.config.warmup_ns + window_ns);
    let schedule = Schedule::new(*process, profile.after(drawn.config.warmup_ns), drawn.seed, 0, 1, *began);
    let mut schedule = schedule;
    let dues: Vec<Instant> = std::iter::repeat_with(|| schedule.next_due()).take_while(|due| *due < ends).collect();
    if drawn.config.traffic.sessions.is_some() {
        let visits = &tally.visits;
        assert!(*stopped || visits.started + visits.unstarted == dues.len() as u64, "{visits:?} of {}", dues.len());
        return;
    }
    let known: BTreeSet<Instant> = dues.iter().copied().collect();
    let active = |row: &&Row| row.due >= *began && (row.slot as usize) < drawn.config.active;
    let mut used = BTreeSet::new();
    for row in tally.log.rows().iter().filter(active) {
        // What proves a connection of the load is due when that is open.
        if known.contains(&row.due) {
            assert!(used.insert(row.due), "one due time, two requests: {row:?}");
        }
    }
    if !stopped {
        let strangers = tally.log.rows().len() as u64 - used.len() as u64;
        let booked = tally.whole.scheduled - strangers;
        assert_eq!(booked, dues.len() as u64, "every due time is of a request");
    }
}

/// Sessions that arrived are over, broken or there, and ask as often as was drawn.
fn sessions(drawn: &Drawn, Outcome { tally, all_ready, .. }: &Outcome) {
    let Some(sessions) = &drawn.config.traffic.sessions else { return };
    let visits = &tally.visits;
    let completed: u64 = visits.lengths.iter().sum();
    assert_eq!(visits.started, completed + visits.broken + visits.in_progress, "{visits:?}");
    // A connection that is opened anew, or comes after the load began, is proved by a request of no session.
    if let Lengths::Fixed(length) = sessions.lengths
        && drawn.faults.is_calm()
        && *all_ready
        && tally.whole.errors.is_empty()
    {
        let proofs = (drawn.config.active + drawn.config.idle) as u64;
        let asked = tally.whole.scheduled - proofs - visits.unstarted;
        let least = completed * u64::from(length) + visits.in_progress;
        let most = (completed + visits.in_progress + visits.broken) * u64::from(length);
        assert!((least..=most).contains(&asked), "{asked} requests of {visits:?}, {length} each");
    }
}

fn truth(drawn: &Drawn, Outcome { tally, network, .. }: &Outcome) {
    let least = 2 * ONE_WAY_MIN_NS;
    let misled = network.misled && drawn.protocol.shape != Shape::Datagram;
    for (what, histogram) in [("response", &tally.response), ("service", &tally.service), ("connect", &tally.connect)] {
        let bound = if misled || what == "response" && tally.censored > 0 { 0 } else { least };
        assert!(histogram.min_ns().is_none_or(|min| min >= bound), "{what} time below the truth");
    }
    if drawn.protocol.shape == Shape::Exchange && !misled {
        assert!(tally.whole.ok <= network.answered, "more replies than the peers gave");
    }
}
