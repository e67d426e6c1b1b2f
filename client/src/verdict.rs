//! Whether the numbers of a run say something about the target. Each reason says what happened, why it matters, and
//! what to do.

use loadgen_core::protocol::{self, Shape};
use loadgen_core::result::{Reason, Report, Verdict, VerdictState};

/// A client thread busier than this was the limit itself, or close to it.
const CLIENT_CPU_MAX_PERCENT: u64 = 95;

/// The kernel repeats an unanswered SYN after 1 s (RFC 6298, 2.1), a little less by its clock's grain.
const RETRY_NS: u64 = 900_000_000;

/// Judges a report that is complete but for its verdict.
pub fn judge(report: &Report) -> Verdict {
    const JUDGES: &[fn(&Report) -> Option<Reason>] = &[
        connections_short,
        client_saturated,
        listen_overflow,
        ring_overflow,
        buffer_shortage,
        longer_than_window,
        nothing,
    ];
    let reasons: Vec<Reason> = JUDGES.iter().filter_map(|judge| judge(report)).collect();
    let state = if reasons.is_empty() { VerdictState::Valid } else { VerdictState::Invalid };
    Verdict { state, reasons }
}

fn connections_short(report: &Report) -> Option<Reason> {
    let connections = &report.connections;
    (connections.served < connections.requested).then(|| Reason {
        code: "connections_short".to_owned(),
        detail: format!(
            "{} connections were asked for, {} established and {} served: the load was not the one that was asked for. \
             Raise the server's limit of connections or its accept queue, or ask for fewer",
            connections.requested, connections.established, connections.served
        ),
    })
}

fn client_saturated(report: &Report) -> Option<Reason> {
    let percent = report.cpu.client_thread_max_percent;
    (percent >= CLIENT_CPU_MAX_PERCENT).then(|| Reason {
        code: "client_saturated".to_owned(),
        detail: format!(
            "a client thread used {percent} % of its CPU: the generator was the limit, and the server may be able to \
             take more. Use more --threads, or a machine with more CPUs"
        ),
    })
}

fn listen_overflow(report: &Report) -> Option<Reason> {
    let dropped = report.kernel.get("TcpExt.ListenDrops").copied().unwrap_or(0);
    // The counter is the whole machine's. Of ours, one that was dropped shows as a connect time of a retry or more.
    let retried = report.latency.connect.as_ref().is_some_and(|connect| connect.max_ns >= RETRY_NS);
    (dropped > 0 && retried).then(|| Reason {
        code: "listen_overflow".to_owned(),
        detail: format!(
            "this machine's accept queues dropped {dropped} handshakes during the run: connect times contain the \
             kernel's retries (1 s and more). Raise net.core.somaxconn and the server's backlog, or lower \
             --max-unproven"
        ),
    })
}

fn ring_overflow(report: &Report) -> Option<Reason> {
    let of = |side: &str| report.rings().filter(|(who, _)| *who == side).map(|(_, ring)| ring.overflows).sum::<u64>();
    let (client, server) = (of("client"), of("server"));
    (client + server > 0).then(|| Reason {
        code: "ring_overflow".to_owned(),
        detail: format!(
            "an io_uring completion queue overflowed {client} times in the client and {server} times in the server: \
             nothing is lost, but the kernel's detour is what was measured. Give a larger queue (--ring cq=N, \
             --server-ring cq=N)"
        ),
    })
}

fn buffer_shortage(report: &Report) -> Option<Reason> {
    let (who, ring) = report.rings().find(|(_, ring)| 2 * ring.buffer_shortages > ring.completions)?;
    Some(Reason {
        code: "buffer_shortage".to_owned(),
        detail: format!(
            "{} of {} completions of the {who}'s io_uring said that no buffer was left to receive into: some \
             connections may have waited for ever while others were served. Give more buffers (--ring, --server-ring \
             buffers=NxBYTES)",
            ring.buffer_shortages, ring.completions
        ),
    })
}

/// In a closed loop every connection has a request on its way when the window closes, and where that was not due within
/// the window, it has been waiting for longer than the window lasted.
fn longer_than_window(report: &Report) -> Option<Reason> {
    let scenario = &report.scenario;
    let exchange = protocol::by_name(&scenario.protocol).is_some_and(|p| p.shape == Shape::Exchange);
    let settled = scenario.requests.is_some() || scenario.requests_per_connection.is_some() || report.partial;
    if scenario.mode != "closed" || !exchange || settled || scenario.in_flight.is_some() {
        return None;
    }
    let alive = report.connections.alive_at_end.min(scenario.connections);
    let expected = alive * scenario.pipeline;
    let seen = report.ledger.in_flight_at_end + report.ledger.unsent;
    let missing = expected.saturating_sub(seen);
    // A few connections may be between a loss and their next request.
    (missing * 100 > expected).then(|| Reason {
        code: "longer_than_window".to_owned(),
        detail: format!(
            "{missing} of {expected} requests had been waiting since before the window opened: they are in no \
             percentile, which are too low by them. Give a longer --duration and --warmup, or fewer connections"
        ),
    })
}

fn nothing(report: &Report) -> Option<Reason> {
    let rates = &report.throughput;
    let stream = protocol::by_name(&report.scenario.protocol).is_some_and(|p| p.shape != Shape::Exchange);
    let carried = if stream { rates.sent_bytes_per_s + rates.received_bytes_per_s } else { rates.replies };
    (rates.window_ns == 0 || carried == 0).then(|| Reason {
        code: "nothing_measured".to_owned(),
        detail:
            "no reply (of a stream: no byte) came within the window, so there is nothing to report. See the errors, \
             or run for longer"
                .to_owned(),
    })
}
