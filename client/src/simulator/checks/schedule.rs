//! When requests are due: by the schedule of an open loop, which waits for nobody; the moment the reply before came; or
//! when their user has thought.

use super::super::Outcome;
use super::super::draw::{Drawn, asks_for_paths};
use super::super::users::{STEP_THINKS_NS, number_of_thought};
use super::{has_left, is_answered};
use loadgen_core::load::StopRule;
use loadgen_core::load::request_log::Row;
use loadgen_core::protocol::Shape;
use loadgen_core::service_time::Distribution;
use loadgen_core::time::{Instant, NS_PER_MS};
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn check(drawn: &Drawn, outcome: &Outcome) {
    if drawn.config.traffic.sessions.is_some() {
        arrivals_of_sessions(drawn, outcome);
    } else {
        every_due_time(drawn, outcome);
    }
    at_once(drawn, outcome);
    thoughts(drawn, outcome);
    scripts(drawn, outcome);
}

/// What is due for each target until the window closes, by the schedule; none in a closed loop.
fn dues(drawn: &Drawn, outcome: &Outcome) -> Vec<Vec<Instant>> {
    let Some((_, closes)) = outcome.window(drawn) else { return Vec::new() };
    if drawn.rate.is_none() {
        return Vec::new();
    }
    let mut dues = drawn.dues(outcome.began, outcome.settles(closes));
    // What is due at the very moment at which the run is stopped may be sent still.
    for (dues, used) in dues.iter_mut().zip(used(drawn, outcome)) {
        dues.pop_if(|last| *last >= closes && used.last().is_none_or(|used| *used < closes));
    }
    dues
}

/// Of the load itself: neither an idle connection's request, nor one that proved a connection before.
pub(super) fn is_of_load(drawn: &Drawn, outcome: &Outcome, row: &Row) -> bool {
    outcome.knows(row) && row.due >= outcome.began && !drawn.is_idle(row.slot)
}

/// By target, what the load's requests were due at, in order.
fn used(drawn: &Drawn, outcome: &Outcome) -> Vec<Vec<Instant>> {
    let mut used = vec![Vec::new(); drawn.weights.len()];
    for row in outcome.rows().iter().filter(|row| is_of_load(drawn, outcome, row)) {
        used[drawn.config.target(row.slot)].push(row.due);
    }
    used.iter_mut().for_each(|of_target| of_target.sort_unstable());
    used
}

/// Every due time of the schedule is of one request, whether it left or not, and no request is due at another.
fn every_due_time(drawn: &Drawn, outcome: &Outcome) {
    let dues = dues(drawn, outcome);
    if dues.is_empty() {
        return;
    }
    let (mut all, mut taken) = (0, 0);
    for (target, (dues, used)) in dues.iter().zip(used(drawn, outcome)).enumerate() {
        all += dues.len() as u64;
        taken += used.len() as u64;
        assert!(used.len() <= dues.len(), "{} requests of {} due to target {target}", used.len(), dues.len());
        for (number, (due, used)) in dues.iter().zip(&used).enumerate() {
            assert_eq!(due, used, "request {number} to target {target} is due, and was sent as if it were");
        }
    }
    let whole = &outcome.tally.whole;
    let rows = outcome.rows();
    let others = rows.len() as u64 - taken;
    let unsent = rows.iter().filter(|row| row.outcome == "unsent").count() as u64;
    assert_eq!(whole.scheduled, others + all, "every due time is of a request");
    assert_eq!(whole.unsent, unsent + all - taken, "what was due and never left");
    if let Some((opens, _)) = outcome.window(drawn) {
        let of_schedule = dues.iter().flatten().filter(|due| **due >= opens).count();
        let others = rows.iter().filter(|row| outcome.covers(row, opens) && !is_of_load(drawn, outcome, row)).count();
        let known = outcome.tally.window_from.is_some();
        assert!(!known || outcome.tally.window.scheduled == (of_schedule + others) as u64, "due within the window");
    }
}

/// Where sessions arrive, each due time is of one that started or never did.
fn arrivals_of_sessions(drawn: &Drawn, outcome: &Outcome) {
    let dues = dues(drawn, outcome);
    let visits = &outcome.tally.sessions;
    let all: u64 = dues.iter().map(|dues| dues.len() as u64).sum();
    if outcome.window(drawn).is_some() {
        assert_eq!(visits.started + visits.unstarted, all, "sessions that arrived");
    }
    let mut first_requests = Vec::new();
    for (dues, used) in dues.iter().zip(used(drawn, outcome)) {
        // Arrivals may be due within the same nanosecond.
        let mut arrivals: BTreeMap<Instant, u64> = BTreeMap::new();
        dues.iter().for_each(|due| *arrivals.entry(*due).or_default() += 1);
        let mut firsts = used;
        firsts.retain(|due| match arrivals.get_mut(due) {
            None => false,
            Some(0) => {
                assert!(goes_on_at(drawn, outcome, *due), "one due time, two sessions");
                false
            }
            Some(left) => {
                *left -= 1;
                true
            }
        });
        // They start in order; whose connection never came is not in the log.
        let missing = |last: Option<&Instant>| {
            let reached = last.map_or(0, |last| dues.partition_point(|due| due <= last));
            reached.saturating_sub(firsts.len())
        };
        let mut passed_over = missing(firsts.last());
        if passed_over > drawn.config.active {
            // The last of them may be of a session that went on at the moment of an arrival.
            passed_over = missing(firsts.iter().rev().find(|due| !goes_on_at(drawn, outcome, **due)));
        }
        assert!(passed_over <= drawn.config.active, "{passed_over} arrivals were passed over");
        first_requests.extend(firsts);
    }
    let lost = |row: &&Row| has_left(row) && !is_answered(row) && row.outcome != "in_flight";
    let lost = outcome.rows().iter().filter(|row| is_of_load(drawn, outcome, row)).filter(lost).count() as u64;
    assert!(
        visits.broken >= lost || drawn.is_multiplexed(),
        "{lost} requests were lost, and {} sessions with them",
        visits.broken
    );
    if first_requests.len() as u64 > visits.started {
        first_requests.retain(|due| !goes_on_at(drawn, outcome, *due));
    }
    let first_requests = first_requests.len() as u64;
    assert!(first_requests <= visits.started, "{first_requests} first requests of {} sessions", visits.started);
}

/// A session went on then, behind a reply or a thought, which may be the very moment at which another arrived.
fn goes_on_at(drawn: &Drawn, outcome: &Outcome, due: Instant) -> bool {
    let is_thought = |ns: u64| match &drawn.config.traffic.think {
        Some(Distribution::Fixed(fixed)) => ns == *fixed,
        Some(Distribution::Exponential(_)) => true,
        Some(_) => number_of_thought(ns).is_some(),
        None => false,
    };
    outcome.rows_by_slot(drawn).iter().flat_map(|rows| rows.windows(2)).any(|pair| {
        let [before, next] = pair else { return false };
        let ns = due.since(before.ended);
        // Where a request is given up alone, its session goes on, too.
        let ends = is_answered(before) || before.outcome == "timeout";
        let follows = next.due == due && ends && before.ended <= due;
        follows && (ns == 0 || ns == STEP_THINKS_NS || is_thought(ns))
    })
}

/// In a closed loop the next request is due the moment the reply before it came, also where a connection has to be
/// opened for it first.
fn at_once(drawn: &Drawn, outcome: &Outcome) {
    let config = &drawn.config;
    let no_time = config.traffic.thinks() || config.in_flight_max.is_some() || config.connections_over_time.is_some();
    let refused_only = outcome.tally.whole.errors.keys().all(|kind| kind.starts_with("status_"));
    if drawn.rate.is_some() || no_time || drawn.is_multiplexed() || !drawn.faults.is_calm() || !refused_only {
        return;
    }
    let Some((_, closes)) = outcome.window(drawn) else { return };
    let one_by_one = config.requests_per_connection.is_some() || !drawn.options.headers.is_empty();
    if one_by_one && config.depth > 1 {
        return;
    }
    for rows in &outcome.rows_by_slot(drawn)[..config.active] {
        let mut due: BTreeMap<Instant, u64> = BTreeMap::new();
        rows.iter().for_each(|row| *due.entry(row.due).or_default() += 1);
        let mut ended: BTreeMap<Instant, u64> = BTreeMap::new();
        let answers = rows.iter().filter(|row| row.ended > outcome.going_from && row.ended < closes);
        answers.for_each(|row| *ended.entry(row.ended).or_default() += 1);
        for (at, answers) in ended {
            // Whose connection never came before the end is not in the log.
            let last = one_by_one && rows.last().is_some_and(|row| row.ended == at);
            let next = due.get(&at).copied().unwrap_or(0);
            assert!(next == answers || last && next == 0, "{answers} replies at {at:?}, and {next} requests due then");
        }
    }
}

/// A user's next request is due when he has thought as long as was drawn, and each think time is of one request.
fn thoughts(drawn: &Drawn, outcome: &Outcome) {
    let Some(think) = &drawn.config.traffic.think else { return };
    if !drawn.faults.is_calm() || matches!(think, Distribution::Exponential(_)) {
        return;
    }
    let firsts: BTreeSet<Instant> = dues(drawn, outcome).into_iter().flatten().collect();
    let mut numbers = BTreeSet::new();
    let mut skips = 0;
    for rows in &outcome.rows_by_slot(drawn)[..drawn.config.active] {
        for pair in rows.windows(2) {
            let [before, next] = pair else { continue };
            let follows = is_answered(before) && before.outcome != "proof" && before.ended > outcome.going_from;
            if !follows || firsts.contains(&next.due) {
                skips += 1;
                continue;
            }
            let gap_ns = next.due.since(before.ended);
            let of_step = drawn.config.traffic.scripts.is_some() && gap_ns == STEP_THINKS_NS;
            // A session goes on with its script where the server has closed.
            let stays = drawn.config.traffic.sessions.is_some();
            let within = stays || !of_step || !has_left(next) || is_one_connection(outcome, before, next);
            assert!(within, "a script went on across connections: {before:?}, {next:?}");
            match (think, number_of_thought(gap_ns)) {
                (Distribution::Fixed(ns), _) => assert!(of_step || gap_ns == *ns, "thought {gap_ns} ns: {next:?}"),
                _ if of_step => {}
                (_, None) => panic!("nobody thinks {gap_ns} ns: {before:?}, {next:?}"),
                (_, Some(number)) => assert!(numbers.insert(number), "think time {number} was used twice"),
            }
        }
    }
    // Those of users who think when it ends, or whose connection does not come; and at the beginning a part of one.
    let visits = &outcome.tally.sessions;
    let ends = visits.broken + visits.in_progress + 2 * drawn.config.active as u64;
    let least = numbers.last().map_or(0, |last| last + 1);
    let missing = least - numbers.len() as u64;
    assert!(missing <= ends + skips, "{missing} of {least} think times are nobody's");
}

/// Two requests of one slot left on the same connection.
fn is_one_connection(outcome: &Outcome, one: &Row, other: &Row) -> bool {
    let visits = outcome.network.truth.visits.iter().filter(|visit| visit.slot == one.slot);
    let number = |row: &Row| visits.clone().take_while(|visit| visit.attempted <= row.sent).count();
    number(one) == number(other)
}

/// On each connection one script follows the other, from its first step on.
fn scripts(drawn: &Drawn, outcome: &Outcome) {
    let has_steps = asks_for_paths(drawn.protocol) && drawn.options.scenario.is_some();
    if !has_steps || drawn.config.traffic.sessions.is_some() {
        return;
    }
    for visit in &outcome.network.truth.visits {
        let mut next = None;
        for step in &visit.steps {
            let allowed = match next {
                None => matches!(step, b'a' | b'd'),
                Some(expected) => *step == expected,
            };
            assert!(allowed, "steps {:?}", String::from_utf8_lossy(&visit.steps));
            next = match step {
                b'a' => Some(b'b'),
                b'b' => Some(b'c'),
                _ => None,
            };
        }
    }
}

/// The workers share out one schedule: no due time is of two of them, and none of nobody.
pub(super) fn shares(parts: &[(Drawn, Outcome)]) {
    let (first, _) = &parts[0];
    let StopRule::After(window_ns) = first.config.stop_rule else { return };
    let sessions = first.config.traffic.sessions.is_some();
    if first.rate.is_none() || sessions || first.protocol.shape == Shape::Upload {
        return;
    }
    let length_ns = first.config.warmup_ns + window_ns;
    let start = Instant(NS_PER_MS);
    let all: Vec<u64> = first.all_dues(start, start.after(length_ns)).iter().map(|due| due.since(start)).collect();
    let mut together = Vec::new();
    for (drawn, outcome) in parts {
        let of_load = outcome.rows().iter().filter(|row| is_of_load(drawn, outcome, row));
        together.extend(of_load.map(|row| row.due.since(outcome.began)));
    }
    together.sort_unstable();
    let complete = parts.iter().all(|(_, outcome)| outcome.stopped.is_none()) && together.len() == all.len();
    if complete {
        assert_eq!(together, all, "together they keep the schedule");
    }
    // Arrivals may be due within the same nanosecond.
    let mut rest = all.iter();
    for due in &together {
        assert!(rest.any(|scheduled| scheduled == due), "{due} ns is of two workers, or of no schedule");
    }
}
