//! Little's law, held against the books of a run.

use super::{connections, reason, share};
use loadgen_core::result::{Reason, Report};

/// How far, in thousandths, the books may be from it: clocks are read one after the other.
const PERMILLE: u128 = 10;

/// L = X R (Little, "A Proof for the Queuing Formula", 1961): what has been booked as waiting cannot be more than there
/// was time to wait on all connections, nor, in a closed loop, less.
pub(super) fn law(report: &Report) -> Option<Reason> {
    let scenario = &report.scenario;
    let places = u128::from(connections(report) * scenario.pipeline);
    // Idle connections ask once each, within the window if they open that late.
    let most_places = places + u128::from(share(report, scenario.idle_connections));
    let open = scenario.mode == "open";
    let waited = if open { report.latency.service.as_ref()? } else { report.latency.response.as_ref()? };
    let time_ns = u128::from(report.throughput.window_ns);
    // A closed loop that counts requests closes its window with the last one that is settled: what is in flight then
    // waits until the end of the run.
    let waits_on = open || scenario.requests.is_some();
    let drain_ns = u128::from(if waits_on { report.phases.drain_ns } else { 0 });
    // Of a closed loop, what was under way when the window opened is in no histogram: that may be all of a short window
    // in which server or generator stood still.
    let carried_ns = report.latency.carried_ns.filter(|_| !open);
    let booked = u128::from(waited.sum_ns) + u128::from(carried_ns.unwrap_or(0));
    let (room, most_room) = (places * time_ns, most_places * (time_ns + drain_ns));
    let too_much = booked * 1000 > most_room * (1000 + PERMILLE);
    let calm = report.connections.attempts == report.connections.requested && report.ledger.errors.is_empty();
    let closed = !open
        && calm
        && scenario.think.is_none()
        && scenario.in_flight.is_none()
        && scenario.connection_steps.is_none();
    // Threads that close their windows one by one (--until-ci) do so within a request of each other; and where it was
    // not counted, what was carried over took about as long as others.
    let exact = carried_ns.is_some() && scenario.until_ci.is_empty();
    let slack = if exact { 0 } else { places * u128::from(waited.max_ns) };
    let seen = u128::from(report.ledger.in_flight_at_end + report.ledger.unsent);
    let settled = scenario.requests.is_none() && !report.partial && seen >= places;
    let too_little = closed && settled && (booked + slack) * 1000 < room * (1000 - PERMILLE);
    if !too_much && !too_little {
        return None;
    }
    reason(
        "littles_law",
        format!(
            "the latencies add up to {:.3} times the time that there was on all connections: the books of this run \
             contradict each other, and no figure in it can be trusted. Please report this as a bug, with the report",
            booked as f64 / if too_much { most_room } else { room }.max(1) as f64
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use loadgen_core::histogram::Recorder;

    const MS: u64 = 1_000_000;

    /// A closed loop of so many connections for 200 ms, `carried` of which passed on each before its first request of
    /// the window was due; those then took `each`, one after the other.
    fn short(connections: u64, carried_ns: u64, each_ns: u64) -> Report {
        let mut report: Report = serde_json::from_str(include_str!("../../../tests/golden/result-1.json")).unwrap();
        report.scenario.mode = "closed".to_owned();
        (report.scenario.connections, report.scenario.pipeline, report.scenario.requests) = (connections, 1, None);
        report.throughput.window_ns = 200 * MS;
        report.ledger.errors.clear();
        report.ledger.in_flight_at_end = connections;
        (report.connections.requested, report.connections.attempts) = (connections, connections);
        report.partial = false;
        let mut recorder = Recorder::new();
        let mut left_ns = 200 * MS - carried_ns;
        while left_ns > 0 {
            let took_ns = each_ns.min(left_ns);
            (0..connections).for_each(|_| recorder.record(took_ns));
            left_ns -= took_ns;
        }
        report.latency.response = recorder.report();
        report.latency.carried_ns = Some(connections * carried_ns);
        report
    }

    #[test]
    fn a_standstill_as_the_window_opens_is_no_contradiction() {
        for carried_ns in [0, MS, 30 * MS, 120 * MS, 199 * MS] {
            for connections in [1, 20] {
                assert_eq!(law(&short(connections, carried_ns, MS)), None, "{carried_ns}");
            }
        }
        // A request of whose wait nobody knows how much was of the window may have taken as long as the longest.
        let mut old = short(10, 3 * MS, 4 * MS);
        old.latency.carried_ns = None;
        assert_eq!(law(&old), None);
    }

    /// A run of a number of requests: its idle connections ask within it, too, and what is in flight when the last
    /// reply is here waits until the end of the run.
    #[test]
    fn idle_connections_and_the_wait_of_the_last_are_no_contradiction() {
        let mut report = short(4, 0, MS);
        report.scenario.requests = Some(800);
        report.latency.response.as_mut().unwrap().sum_ns += 4 * 200 * MS;
        assert!(law(&report).is_some());
        report.scenario.idle_connections = 4;
        assert_eq!(law(&report), None);
        report.scenario.idle_connections = 0;
        report.phases.drain_ns = 200 * MS;
        assert_eq!(law(&report), None);
    }

    #[test]
    fn books_that_lack_a_fiftieth_or_have_it_twice_are_found() {
        type Plant = fn(&mut Report);
        let plants: &[(&str, Plant)] = &[
            ("response times without their last part", |r| {
                r.latency.response.as_mut().unwrap().sum_ns -= 20 * r.throughput.window_ns / 50;
            }),
            ("requests booked twice", |r| {
                r.latency.response.as_mut().unwrap().sum_ns += 20 * r.throughput.window_ns / 50;
            }),
            ("what was carried over is lost", |r| r.latency.carried_ns = Some(0)),
            ("what was carried over is in the histogram, too", |r| {
                r.latency.response.as_mut().unwrap().sum_ns += r.latency.carried_ns.unwrap();
            }),
        ];
        for (what, plant) in plants {
            let mut report = short(20, 30 * MS, MS);
            assert_eq!(law(&report), None);
            plant(&mut report);
            let found = law(&report).unwrap_or_else(|| panic!("{what}"));
            assert_eq!(found.code, "littles_law");
        }
    }
}
