//! What counts for the measured window, computed anew from the log of requests; and the series of seconds.

use super::super::Outcome;
use super::super::draw::Drawn;
use super::{AT_ONCE_NS, has_left, is_ok};
use loadgen_core::histogram::Recorder;
use loadgen_core::load::StopRule;
use loadgen_core::load::request_log::Row;
use loadgen_core::time::Instant;

/// Of one turn: what it sends may leave a little later than it began.
const TURN_NS: u64 = 300_000;

pub(super) fn check(drawn: &Drawn, outcome: &Outcome) {
    seconds(outcome);
    waiting(drawn, outcome);
    let Some((opens, closes)) = outcome.window(drawn) else { return };
    if outcome.stopped.is_some_and(|at| at < opens) || outcome.tally.window_from.is_none() {
        assert_eq!(outcome.tally.window.scheduled, 0, "there was no window");
        assert_eq!(outcome.tally.window_from, None, "and there is none");
        return;
    }
    assert_eq!(outcome.tally.window_from, Some(opens), "when the window opened");
    if drawn.rate.is_some() {
        open_loop(outcome, opens);
    } else {
        closed_loop(outcome, opens, closes);
    }
    let settles = outcome.settles(closes);
    let within = |row: &&Row| outcome.knows(row) && is_ok(row) && row.ended >= opens && row.ended < settles;
    assert_eq!(outcome.tally.window_replies, outcome.rows().iter().filter(within).count() as u64, "replies in it");
    bytes(outcome, opens.max(outcome.going_from), closes);
}

/// Little's law, closed loop: no more can be booked as waiting than there was time to wait on all connections.
fn waiting(drawn: &Drawn, outcome: &Outcome) {
    let (config, tally) = (&drawn.config, &outcome.tally);
    let (Some(from), Some(to), None) = (tally.window_from, tally.window_to, &drawn.rate) else { return };
    let counts = !matches!(config.stop_rule, StopRule::After(_));
    let time_ns = if counts { outcome.ended } else { to }.since(from);
    let room = (config.active * config.depth + config.idle) as u64 * time_ns;
    let booked = tally.response.mean_ns().unwrap_or(0) * tally.response.count() + tally.carried_ns;
    assert!(booked <= room, "{booked} ns are said to have been waited, and there were {room}");
}

/// The series has everything once.
fn seconds(outcome: &Outcome) {
    let tally = &outcome.tally;
    let sum = |of: fn(&loadgen_core::load::tally::Second) -> u64| tally.seconds.iter().map(of).sum::<u64>();
    assert_eq!(sum(|second| second.ok), tally.whole.ok, "answers of all seconds");
    assert_eq!(sum(|second| second.errors), tally.whole.errors.values().sum::<u64>(), "errors of all seconds");
    assert_eq!(sum(|second| second.sent), tally.whole.sent, "requests sent of all seconds");
    assert_eq!(sum(|second| second.sent_bytes), tally.bytes.sent, "bytes sent of all seconds");
    assert_eq!(sum(|second| second.received_bytes), tally.bytes.received, "bytes received of all seconds");
    let origin_s = |at: Instant| at.0 / 1_000_000_000 - 1;
    for (number, second) in tally.seconds.iter().enumerate() {
        let of_second = |row: &&Row| is_ok(row) && origin_s(row.ended) == number as u64;
        let ok = outcome.rows().iter().filter(of_second).count() as u64;
        assert_eq!(second.ok, ok, "answers of second {number}");
    }
}

/// What was due within it counts, whenever its fate is known.
fn open_loop(outcome: &Outcome, opens: Instant) {
    let window = &outcome.tally.window;
    let rows: Vec<&Row> = outcome.rows().iter().filter(|row| outcome.covers(row, opens)).collect();
    let count = |of: fn(&Row) -> bool| rows.iter().filter(|row| of(row)).count() as u64;
    assert_eq!(window.sent, count(has_left), "sent");
    assert_eq!(window.ok, count(is_ok), "answered");
    assert_eq!(window.in_flight, count(|row| row.outcome == "in_flight"), "in flight");
    service(outcome, rows.iter().copied().filter(|row| is_ok(row)));
    if window.unsent == 0 {
        let waited = |row: &&&Row| is_ok(row) || matches!(row.outcome, "timeout" | "in_flight");
        let waits = rows.iter().filter(waited).map(|row| row.ended.since(row.due));
        same("response times", &outcome.tally.response, waits);
    }
}

/// What was due within it, and its fate when it closed.
fn closed_loop(outcome: &Outcome, opens: Instant, closes: Instant) {
    let closes = outcome.settles(closes);
    let window = &outcome.tally.window;
    let rows: Vec<&Row> = outcome.rows().iter().filter(|row| outcome.covers(row, opens) && row.due < closes).collect();
    let settled = |row: &&&Row| row.ended < closes;
    let ok = || rows.iter().filter(settled).filter(|row| is_ok(row));
    assert_eq!(window.ok, ok().count() as u64, "answered");
    let sent_by = |at: Instant| rows.iter().filter(|row| has_left(row) && row.sent < at).count() as u64;
    // One that came back may have left before, and again since.
    let (least, most) = (sent_by(closes), sent_by(closes.after(TURN_NS)) + outcome.tally.unprocessed);
    assert!((least..=most).contains(&window.sent), "sent {} of {least} to {most}", window.sent);
    // What never left and was given up before the end may not be in the log.
    assert!(window.scheduled >= rows.len() as u64, "{} of {} due", window.scheduled, rows.len());
    service(outcome, ok().copied());
    if window.in_flight == 0 && window.unsent == 0 {
        let waited = rows.iter().filter(settled).filter(|row| is_ok(row) || row.outcome == "timeout");
        same("response times", &outcome.tally.response, waited.map(|row| row.ended.since(row.due)));
    }
}

fn service<'a>(outcome: &Outcome, answered: impl Iterator<Item = &'a Row>) {
    same("service times", &outcome.tally.service, answered.map(|row| row.ended.since(row.sent)));
}

/// The histogram is of these times.
fn same(what: &str, histogram: &Recorder, times_ns: impl Iterator<Item = u64>) {
    let mut expected = (0, 0_u64, u64::MAX, 0);
    for ns in times_ns {
        expected = (expected.0 + 1, expected.1 + ns, expected.2.min(ns), expected.3.max(ns));
    }
    let (count, sum, min, max) = expected;
    assert_eq!(histogram.count(), count, "{what}: how many");
    if let Some(mean) = sum.checked_div(count) {
        let known = (histogram.mean_ns(), histogram.min_ns(), histogram.max_ns());
        assert_eq!(known, (Some(mean), Some(min), Some(max)), "{what}: mean, least, most");
    }
}

fn bytes(outcome: &Outcome, opens: Instant, closes: Instant) {
    let known = &outcome.network.truth.bytes_over_time;
    let until = |at: Instant| {
        let number = known.partition_point(|(told, ..)| *told < at);
        number.checked_sub(1).map_or((0, 0), |last| (known[last].1, known[last].2))
    };
    let before = |at: Instant, ns: u64| Instant(at.0 - ns);
    let received = |ns: u64| until(before(opens, ns)).1..=until(opens.after(ns)).1;
    let (from, to) = (received(AT_ONCE_NS), until(before(closes, AT_ONCE_NS)).1..=until(closes.after(AT_ONCE_NS)).1);
    let counted = outcome.tally.window_bytes.received;
    let (least, most) = (to.start().saturating_sub(*from.end()), to.end() - from.start());
    assert!((least..=most).contains(&counted), "received {counted} bytes within the window, {least} to {most}");
    if outcome.network.engine_holds {
        // What was taken may be taken back.
        return;
    }
    let counted = outcome.tally.window_bytes.sent;
    let least = until(before(closes, TURN_NS)).0.saturating_sub(until(opens.after(TURN_NS)).0);
    let most = until(closes.after(TURN_NS)).0 - until(before(opens, TURN_NS)).0;
    assert!((least..=most).contains(&counted), "sent {counted} bytes within the window, {least} to {most}");
}
