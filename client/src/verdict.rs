//! Whether the numbers of a run say something about the target. Each reason says what happened, why it matters, and
//! what to do.

use loadgen_core::protocol::{self, Shape};
use loadgen_core::result::{Reason, Report, RingStats, Verdict, VerdictState};

/// A client thread busier than this was the limit itself, or close to it.
const CLIENT_CPU_MAX_PERCENT: u64 = 95;

/// The kernel repeats an unanswered SYN after 1 s (RFC 6298, 2.1), a little less by its clock's grain.
const RETRY_NS: u64 = 900_000_000;

/// Judges a report that is complete but for its verdict.
pub fn judge(report: &Report) -> Verdict {
    let reasons: Vec<Reason> = [
        connections_short(report),
        client_saturated(report),
        listen_overflow(report),
        ring_overflow(report),
        nothing(report),
    ]
    .into_iter()
    .flatten()
    .collect();
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
    let overflows = |ring: Option<&RingStats>| ring.map_or(0, |ring| ring.overflows);
    let client = overflows(report.engine.ring.as_ref());
    let server = overflows(report.server.as_ref().and_then(|server| server.ring.as_ref()));
    (client + server > 0).then(|| Reason {
        code: "ring_overflow".to_owned(),
        detail: format!(
            "an io_uring completion queue overflowed {client} times in the client and {server} times in the server: \
             nothing is lost, but the kernel's detour is what was measured. Give a larger queue (--ring cq=N, \
             --server-ring cq=N)"
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
