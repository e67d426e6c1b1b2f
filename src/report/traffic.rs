//! What the summary says of users: how they think, come and go.

use super::breakdown::known;
use crate::result::{Connections, Report, Scenario, Sessions, Stream};
use crate::units::{format_count, format_duration, format_exact_count};

/// `open loop at 5k requests/s (poisson)`, `partly open: …`, `closed loop`.
pub(super) fn mode(scenario: &Scenario) -> String {
    let arrival = scenario.arrival.as_deref().unwrap_or("constant");
    let think = scenario.think.as_ref().map_or(String::new(), |think| format!(", think time {think}"));
    if let Some(length) = &scenario.session_requests {
        let rate = scenario.rate_per_s.map_or_else(
            || format!("sessions in steps ({arrival})"),
            |rate| format!("{} sessions/s ({arrival})", format_count(rate)),
        );
        let own = if scenario.session_connection.is_some() { " on a connection of its own" } else { "" };
        return format!("partly open: {rate}, each of {length} requests{own}{think}");
    }
    match (scenario.rate_per_s, &scenario.rate_steps) {
        (Some(rate), _) => format!("open loop at {} requests/s ({arrival})", format_count(rate)),
        (None, Some(_)) => format!("open loop in steps ({arrival})"),
        _ => format!("{} loop{think}", scenario.mode),
    }
}

/// What became of sessions.
pub(super) fn sessions(sessions: &Sessions) -> String {
    let mut text = format!("{} arrived: {} completed", exact(sessions.arrived), exact(sessions.completed));
    for (count, what) in [
        (sessions.broken, "broken"),
        (sessions.in_progress_at_end, "in progress at the end"),
        (sessions.unstarted, "unstarted"),
    ] {
        if count > 0 {
            text.push_str(&format!(", {} {what}", exact(count)));
        }
    }
    if let Some(histogram) = &sessions.duration {
        let p50 = known(histogram, "0.5").map_or_else(|| "-".to_owned(), format_duration);
        let max = format_duration(histogram.max_ns);
        text.push_str(&format!("; they lasted p50 {p50}, max {max}"));
    }
    text
}

/// What was due for each target.
pub(super) fn streams(streams: &[Stream]) -> Vec<String> {
    let line = |stream: &Stream| {
        let unsent = if stream.unsent > 0 { format!(", {} unsent", exact(stream.unsent)) } else { String::new() };
        format!("{}: {} due{unsent}", stream.target, exact(stream.scheduled))
    };
    streams.iter().map(line).collect()
}

/// How connections come and go, where they do.
pub(super) fn churn(report: &Report) -> Vec<String> {
    let scenario = &report.scenario;
    let churns = scenario.requests_per_connection.is_some() || scenario.session_connection.is_some();
    let Connections { opened_per_s, closed_by_reset, time_wait, .. } = &report.connections;
    let Some(opened_per_s) = opened_per_s.filter(|_| churns) else { return Vec::new() };
    let left = match (time_wait, closed_by_reset) {
        (Some(of), _) => {
            let [steady, ports] = [of.steady, of.ports].map(exact);
            format!(
                "; within a minute {steady} in TIME_WAIT, of {ports} ports held {} each",
                format_duration(of.held_ns)
            )
        }
        (None, 1..) => format!("; {} closed by a reset", exact(*closed_by_reset)),
        (None, 0) => String::new(),
    };
    let rate = format!("{} connections/s opened within the window{left}", exact(opened_per_s));
    let note = time_wait.as_ref().and_then(|of| of.note.as_ref()).map(|note| format!("! {note}"));
    std::iter::once(rate).chain(note).collect()
}

fn exact(count: u64) -> String {
    format_exact_count(count)
}
