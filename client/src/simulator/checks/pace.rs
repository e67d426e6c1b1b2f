//! Time: nobody waits longer than he may, whose fault a wait is, how many are in flight, how many connections are in
//! use.

use super::super::Outcome;
use super::super::draw::Drawn;
use super::schedule::is_of_load;
use super::{has_left, is_answered, is_ok};
use loadgen_core::arrivals::Profile;
use loadgen_core::histogram::Recorder;
use loadgen_core::load::request_log::Row;
use loadgen_core::time::{Instant, NS_PER_MS};

/// What a turn may take that sends all that is due.
const TURN_NS: u64 = 300_000;

/// A worker looks at a profile at least so often.
const LOOKS_NS: u64 = 55 * NS_PER_MS;

pub(super) fn check(drawn: &Drawn, outcome: &Outcome) {
    patience(drawn, outcome);
    waits(drawn, outcome);
    turns(drawn, outcome);
    steps(drawn, outcome);
}

/// Nothing is waited for beyond the timeout.
fn patience(drawn: &Drawn, outcome: &Outcome) {
    for row in outcome.rows().iter().filter(|row| has_left(row)) {
        if is_answered(row) || matches!(row.outcome, "timeout" | "in_flight") {
            let waited_ns = row.ended.since(row.sent.max(row.due));
            assert!(waited_ns <= drawn.patience_ns(), "waited {waited_ns} ns: {row:?}");
        }
    }
}

/// Where a request left late: backlog is the server's part in it, generator lag ours. Both are all of it.
fn waits(drawn: &Drawn, outcome: &Outcome) {
    let Some((opens, _)) = outcome.window(drawn) else { return };
    let tally = &outcome.tally;
    if drawn.rate.is_none() || tally.window_from.is_none() {
        return;
    }
    let counts = |row: &&Row| has_left(row) && outcome.covers(row, opens) && is_of_load(drawn, outcome, row);
    let left: Vec<&Row> = outcome.rows().iter().filter(counts).collect();
    let late_ns: u64 = left.iter().map(|row| row.sent.since(row.due)).sum();
    assert_eq!(tally.generator_lag.count(), left.len() as u64, "lags of requests that left");
    let ([lag_least, lag_most], [backlog_least, backlog_most]) = (sum(&tally.generator_lag), sum(&tally.backlog_wait));
    if tally.window.unsent == 0 {
        assert_eq!(tally.backlog_wait.count(), left.len() as u64, "backlog waits of requests that left");
        let both = lag_least + backlog_least..=lag_most + backlog_most;
        // One that came back leaves again, and what is told is of the first time.
        let later = tally.unprocessed > 0 && late_ns > *both.end();
        assert!(later || both.contains(&late_ns), "{late_ns} ns late in all, of which {both:?} are told");
    }
    let stood_still: u64 = left.iter().map(|row| stood_still_ns(outcome, row.due, row.sent)).sum();
    let allowed = stood_still + left.len() as u64 * TURN_NS;
    assert!(lag_least <= allowed, "our part is {lag_least} ns, and we stood still for {stood_still} of these");
    // Whose fault it is that we heard late of the beginning is nobody's question.
    let from_the_beginning = opens < outcome.going_from;
    if outcome.stalls.is_empty() && !from_the_beginning {
        let longest = tally.generator_lag.max_ns().unwrap_or(0);
        assert!(longest <= TURN_NS, "we never stood still, and {longest} ns are said to be ours");
    }
    if !has_all_connections(drawn, outcome) {
        return;
    }
    let longest = tally.backlog_wait.max_ns().unwrap_or(0);
    // Where we were late and it then waited for another to leave, the load says that all of it was backlog.
    let late = from_the_beginning || !outcome.stalls.is_empty();
    // A place may be free on a connection that does not take what it has: the rest of that is before it.
    let blocked = outcome.network.truth.visits.iter().any(|visit| visit.was_full);
    let busy = late || tally.window.unsent > 0 || blocked || is_ever_full(drawn, outcome);
    assert!(busy || longest <= TURN_NS, "one was always free, and {longest} ns are said to be the server's");
    // Of several such at least one left at once.
    let ours = left.iter().filter(|row| row.due >= outcome.going_from && had_room(drawn, outcome, row));
    let stood: Vec<u64> = ours.map(|row| stood_still_ns(outcome, row.due, row.sent)).filter(|ns| *ns > 0).collect();
    let least = stood.iter().min().filter(|_| stood.len() > 2).copied().unwrap_or(0);
    assert!(lag_most >= least, "there was room when we stood still, for {stood:?} ns, and {lag_most} are ours");
}

/// There was a place for it when it was due, with all that had been due before, and its connection took it at once.
fn had_room(drawn: &Drawn, outcome: &Outcome, row: &Row) -> bool {
    let before = |other: &&Row| !drawn.is_idle(other.slot) && other.due <= row.due && row.due < other.ended;
    let places = drawn.config.active * drawn.config.depth;
    !outcome.network.truth.was_full(row.slot) && outcome.rows().iter().filter(before).count() <= places
}

/// Of what was recorded, in all: at least and at most.
fn sum(recorder: &Recorder) -> [u64; 2] {
    let count = recorder.count();
    let least = recorder.mean_ns().unwrap_or(0) * count;
    [least, least + count.saturating_sub(1)]
}

fn stood_still_ns(outcome: &Outcome, from: Instant, to: Instant) -> u64 {
    outcome.absences().map(|(began, ended)| to.min(ended).since(from.max(began))).sum()
}

/// All connections were open from the beginning on, to one target, and stayed; and took what they were asked.
fn has_all_connections(drawn: &Drawn, outcome: &Outcome) -> bool {
    let config = &drawn.config;
    let stays = config.requests_per_connection.is_none() && drawn.options.headers.is_empty();
    let simple = config.traffic.sessions.is_none() && config.connections_over_time.is_none();
    let one = drawn.weights.len() == 1 && outcome.all_ready && outcome.tally.whole.errors.is_empty();
    drawn.faults.is_calm() && stays && simple && one && !drawn.is_multiplexed()
}

/// There was once a request on each place.
fn is_ever_full(drawn: &Drawn, outcome: &Outcome) -> bool {
    let rows = outcome.rows().iter().filter(|row| !drawn.is_idle(row.slot));
    most_in_flight(rows) >= drawn.config.active * drawn.config.depth
}

/// How many of these were in flight at the same time, at most.
fn most_in_flight<'a>(rows: impl Iterator<Item = &'a Row>) -> usize {
    let mut changes: Vec<(Instant, i64)> =
        rows.filter(|row| has_left(row)).flat_map(|row| [(row.sent, 1), (row.ended, -1)]).collect();
    changes.sort_unstable();
    let mut now = 0;
    let most = changes.iter().map(|(_, change)| {
        now += change;
        now
    });
    most.max().unwrap_or(0) as usize
}

/// Where connections take turns, no more requests are in flight than were asked for.
fn turns(drawn: &Drawn, outcome: &Outcome) {
    let Some(most) = drawn.config.in_flight_max else { return };
    let refused_only = outcome.tally.whole.errors.keys().all(|kind| kind.starts_with("status_"));
    if !drawn.faults.is_calm() || !outcome.all_ready || !refused_only || !drawn.options.headers.is_empty() {
        return;
    }
    let rows = || outcome.rows().iter().filter(|row| is_of_load(drawn, outcome, row));
    let seen = most_in_flight(rows());
    assert!(seen as u64 <= most, "{seen} requests in flight, and at most {most} were to be");
    let busy = rows().filter(|row| is_ok(row)).count();
    assert!(busy == 0 || outcome.stopped.is_some() || seen as u64 >= most.min(busy as u64 / 8), "{seen} of {most}");
}

/// Connections that are not in use yet, or any more, ask nothing.
fn steps(drawn: &Drawn, outcome: &Outcome) {
    let Some(profile) = &drawn.config.connections_over_time else { return };
    if outcome.began == Instant::NEVER || !drawn.protocol.shape.has_replies() {
        return;
    }
    for row in outcome.rows().iter().filter(|row| is_of_load(drawn, outcome, row) && has_left(row)) {
        let at = if drawn.rate.is_some() { row.sent } else { row.due };
        let until_ns = at.since(outcome.began);
        let from_ns = until_ns.saturating_sub(LOOKS_NS + if drawn.stalls { 160 * NS_PER_MS } else { 0 });
        let wanted = most_wanted(drawn, profile, from_ns, until_ns);
        assert!(u64::from(row.slot) < wanted, "at most {wanted} connections were to be in use: {row:?}");
    }
    let least = (0..70).map(|ms| drawn.config.share(profile.at(ms * NS_PER_MS))).min().unwrap_or(0);
    if drawn.is_calm() && drawn.rate.is_none() && outcome.all_ready && drawn.protocol.converses() {
        for slot in 0..least as u32 {
            let busy = outcome.rows().iter().any(|row| row.slot == slot && is_answered(row));
            assert!(busy || outcome.stopped.is_some() || !outcome.tally.whole.errors.is_empty(), "slot {slot} is idle");
        }
    }
}

fn most_wanted(drawn: &Drawn, profile: &Profile, from_ns: u64, until_ns: u64) -> u64 {
    let steps = (from_ns / NS_PER_MS..=until_ns / NS_PER_MS).map(|ms| ms * NS_PER_MS).chain([from_ns, until_ns]);
    let most = steps.map(|ns| drawn.config.share(profile.at(ns))).max().unwrap_or(0);
    most.min(drawn.config.active as u64)
}
