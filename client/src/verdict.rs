//! Whether the numbers of a run say something about the target. Each reason says what happened, why it matters, and
//! what to do.

mod little;

use loadgen_core::confidence::ENOUGH_BEYOND;
use loadgen_core::histogram::count_beyond;
use loadgen_core::protocol;
use loadgen_core::result::{Histogram, Reason, Report, Verdict, VerdictState};
use loadgen_core::time::NS_PER_MS;
use loadgen_core::units::{format_duration, format_exact_count};

/// A client thread busier than this was the limit itself, or close to it.
const CLIENT_CPU_MAX_PERCENT: u64 = 95;

/// The kernel repeats an unanswered SYN after 1 s (RFC 6298, 2.1), a little less by its clock's grain.
const RETRY_NS: u64 = 900_000_000;

/// A standstill of the generator that no percentile of a run hides, and the share of the run (in thousandths) that
/// several of them may take: the 99th percentile is theirs beyond it.
const STALL_MAX_NS: u64 = 100 * NS_PER_MS;
const STALLED_MAX_PERMILLE: u64 = 10;

/// A thread that waited for a CPU for longer than this share of the window was not alone on it. (On loopback the
/// kernel's own network threads take up to 9 % from a busy one.)
const RUN_DELAY_MAX_PERCENT: u64 = 10;

/// Requests that leave later than this at the 99th percentile do not follow the schedule, unless the target is so slow
/// that it makes no difference.
const LAG_MAX_NS: u64 = NS_PER_MS;
const LAG_MAX_PERCENT: u64 = 10;
/// Who spins for as long as this does not sleep too long.
const SPIN_ENOUGH_NS: u64 = 100_000;
/// Beyond this, the median says more about the generator's waking up than about the target.
const LAG_MEDIAN_MAX_PERCENT: u64 = 50;

/// Less than this of the asked-for rate is not that rate.
const ACHIEVED_MIN_PERCENT: u64 = 99;

/// Segments that were sent again, in thousandths of the requests, and how many they must be at least.
const RETRANSMITTED_MAX_PERMILLE: i64 = 1;
const RETRANSMITTED_MIN: i64 = 10;

/// Judges a report that is complete but for its verdict. Where the generator was the limit, nothing is said against the
/// target.
pub fn judge(report: &Report) -> Verdict {
    const JUDGES: &[fn(&Report) -> Option<Reason>] = &[
        server_lost,
        connections_short,
        generator_stalled,
        cpu_contention,
        client_saturated,
        generator_lag,
        rate_missed,
        little::law,
        retransmissions,
        listen_overflow,
        ring_overflow,
        buffer_shortage,
        longer_than_window,
        not_steady,
        nothing,
    ];
    let reasons: Vec<Reason> = JUDGES.iter().filter_map(|judge| judge(report)).collect();
    if !reasons.is_empty() {
        return Verdict { state: VerdictState::Invalid, reasons };
    }
    match target_failed(report).or_else(|| overloaded(report)) {
        Some(reason) => Verdict { state: VerdictState::Overloaded, reasons: vec![reason] },
        None => Verdict { state: VerdictState::Valid, reasons },
    }
}

fn reason(code: &str, detail: String) -> Option<Reason> {
    Some(Reason { code: code.to_owned(), detail })
}

fn server_lost(report: &Report) -> Option<Reason> {
    if report.scenario.server_engine.is_none() || report.server.is_some() {
        return None;
    }
    let detail = "the embedded server did not live to the end, so its counters are missing and part of the load met \
         nobody. See its words above; start one by hand (loadgen-server) to find out why";
    reason("server_lost", detail.to_owned())
}

fn generator_stalled(report: &Report) -> Option<Reason> {
    let generator = report.generator.as_ref()?;
    let load_ns = report.phases.warmup_ns + report.phases.measure_ns;
    let often = generator.stalled_ns.saturating_mul(1000) > load_ns.saturating_mul(STALLED_MAX_PERMILLE);
    if generator.longest_stall_ns < STALL_MAX_NS && !often {
        return None;
    }
    let [longest, total, at] =
        [generator.longest_stall_ns, generator.stalled_ns, generator.longest_stall_at_ns].map(format_duration);
    reason(
        "generator_stalled",
        format!(
            "the generator stalled {longest} (at {at}; {} times and {total} in all): it was stopped, or kept off its \
             CPU, and what was due then waited for us, not for the target. Leave the machine to it alone, and pin it \
             (--cpus)",
            generator.stalls
        ),
    )
}

fn cpu_contention(report: &Report) -> Option<Reason> {
    // What the host took from a virtual machine shows as steal, of all CPUs together.
    let stolen_ns = report.kernel.get("Cpu.steal_ms").map_or(0, |ms| ms.unsigned_abs() * NS_PER_MS);
    let stolen_ns = stolen_ns / report.environment.client.cpus.max(1);
    let waited_ns = report.generator.as_ref()?.run_delay_ns.max(stolen_ns);
    let percent = waited_ns.saturating_mul(100).checked_div(report.throughput.window_ns)?;
    if percent < RUN_DELAY_MAX_PERCENT {
        return None;
    }
    let waited = format_duration(waited_ns);
    reason(
        "cpu_contention",
        format!(
            "a client thread waited {waited} ({percent} % of the window) for a CPU that others had, or that the host \
             had taken: its times contain theirs. Stop what else runs, give it a CPU of its own (--cpus), or use \
             fewer --threads"
        ),
    )
}

/// Connections that carry load, of this process.
fn connections(report: &Report) -> u64 {
    share(report, report.scenario.connections)
}

/// Of so many in all, those of this process.
fn share(report: &Report, all: u64) -> u64 {
    report.shard.as_ref().map_or(all, |shard| shard.share(all))
}

/// The value at a quantile, by the name that it has in reports.
fn quantile(histogram: &Histogram, name: &str) -> u64 {
    histogram.quantiles_ns.get(name).copied().unwrap_or(0)
}

fn generator_lag(report: &Report) -> Option<Reason> {
    let (lag, response) = (report.latency.generator_lag.as_ref()?, report.latency.response.as_ref()?);
    let [p50, p99] = ["0.5", "0.99"].map(|name| (quantile(lag, name), quantile(response, name)));
    // A percentile with fewer values than this beyond it is chance.
    let known = |q: f64| count_beyond(lag.count, q) >= ENOUGH_BEYOND;
    let late = known(0.99) && p99.0 > LAG_MAX_NS && p99.0 * 100 > p99.1 * LAG_MAX_PERCENT;
    let mostly_ours = known(0.5) && p50.0 * 100 > p50.1 * LAG_MEDIAN_MAX_PERCENT;
    if !late && !mostly_ours {
        return None;
    }
    let [lag50, response50, lag99, response99] = [p50.0, p50.1, p99.0, p99.1].map(format_duration);
    let remedy = if mostly_ours && report.scenario.spin_ns < SPIN_ENOUGH_NS {
        "Wait for due times without sleeping (--spin 100us), or use more --threads"
    } else {
        "Leave the machine to it alone, pin it (--cpus), or use more --threads"
    };
    reason(
        "generator_lag",
        format!(
            "requests left late although connections were free: {lag50} at the median and {lag99} at the 99th \
             percentile, of responses of {response50} and {response99}, which contain it. {remedy}"
        ),
    )
}

/// Offered and achieved rate, if they differ.
fn behind(report: &Report) -> Option<(u64, u64)> {
    let (offered, achieved) = (report.throughput.offered_per_s?, report.throughput.requests_per_s);
    let ledger = &report.ledger;
    let unsent = ledger.unsent * 100 > ledger.scheduled;
    let waited = report.latency.backlog_wait.as_ref().map_or(0, |wait| quantile(wait, "0.5"))
        + report.latency.generator_lag.as_ref().map_or(0, |lag| quantile(lag, "0.5").saturating_sub(LAG_MAX_NS));
    let fewer = achieved * 100 < offered * ACHIEVED_MIN_PERCENT && waited > 0;
    (unsent || fewer).then_some((offered, achieved))
}

/// Whether what requests waited for before they left was mostly us.
fn ours(report: &Report) -> bool {
    let sum = |histogram: &Option<Histogram>| histogram.as_ref().map_or(0, |h| h.sum_ns);
    sum(&report.latency.generator_lag) > sum(&report.latency.backlog_wait)
}

fn rate_missed(report: &Report) -> Option<Reason> {
    let (offered, achieved) = behind(report).filter(|_| ours(report))?;
    let [offered, achieved] = [offered, achieved].map(format_exact_count);
    reason(
        "rate_missed",
        format!(
            "{offered} requests/s were due and {achieved} were answered, and it was the generator that was late: this \
             is not the load that was asked for. Use more --threads, a faster machine, or a lower --rate"
        ),
    )
}

/// What was due and could not leave because the target was not there, or silent: that is no question of capacity.
/// In a closed loop nothing is due any more, so the connections say it.
fn target_failed(report: &Report) -> Option<Reason> {
    let connections = &report.connections;
    // Where they come and go by plan, there may be none for a moment.
    let stay = report.scenario.requests_per_connection.is_none() && report.scenario.requests.is_none();
    let none = connections.established > 0 && connections.alive_at_end == 0;
    let gone = stay && none && !connections.failed.is_empty();
    if behind(report).is_none() && (!gone || report.partial) {
        return None;
    }
    let (refused, lost): (u64, u64) = (connections.failed.values().sum(), connections.lost);
    let timeouts = report.ledger.whole_run.as_ref().and_then(|whole| whole.errors.get("timeout")).copied().unwrap_or(0);
    if refused + lost + timeouts == 0 {
        return None;
    }
    let [refused, lost, timeouts, unsent] = [refused, lost, timeouts, report.ledger.unsent].map(format_exact_count);
    reason(
        "target_failed",
        format!(
            "{lost} connections were lost, {refused} attempts to connect failed and {timeouts} requests timed out; \
             {unsent} that were due never left, for want of a connection. The figures are those of the failure: they \
             do not say what the target can take. See the errors, and mend the target first"
        ),
    )
}

fn overloaded(report: &Report) -> Option<Reason> {
    let (offered, achieved) = behind(report)?;
    let scenario = &report.scenario;
    let [offered, achieved, unsent] = [offered, achieved, report.ledger.unsent].map(format_exact_count);
    let service_ns = report.latency.service.as_ref().map_or(0, |service| service.mean_ns);
    let connections = connections(report);
    let most = (connections * scenario.pipeline).saturating_mul(1_000_000_000).checked_div(service_ns);
    let most = most.map_or(String::new(), |most| {
        let (each, most) = (format_duration(service_ns), format_exact_count(most));
        format!(" (at {each} of service a request, {connections} connections carry {most}/s)")
    });
    reason(
        "overloaded",
        format!(
            "{offered} requests/s were due and {achieved} were answered; {unsent} never left, because every connection \
             was busy. The queue grew for as long as the run lasted, and so did the latencies: they are true, and they \
             depend on how long it was. Lower --rate to find what the target can take; more --conns, if they were too \
             few{most}"
        ),
    )
}

fn retransmissions(report: &Report) -> Option<Reason> {
    // What may be lost is never sent again, whatever else this machine does.
    if protocol::by_name(&report.scenario.protocol).is_some_and(|known| known.transport.may_lose()) {
        return None;
    }
    let again = report.kernel.get("Tcp.RetransSegs").copied().unwrap_or(0);
    let sent = report.ledger.whole_run.as_ref().map_or(0, |whole| whole.sent) as i64;
    if again < RETRANSMITTED_MIN || again * 1000 <= sent * RETRANSMITTED_MAX_PERMILLE {
        return None;
    }
    reason(
        "retransmissions",
        format!(
            "this machine's network stack sent {again} segments again: each costs its request the time until the \
             kernel noticed (200 ms and more), which is the network's and not the server's. Mend the path (drops, \
             queue limits), or lower the load"
        ),
    )
}

/// Whether there were fewer connections than asked for. Where their number changes over time, one may come and go in an
/// open loop before any request is due.
pub fn is_short(report: &Report) -> bool {
    let connections = &report.connections;
    match report.scenario.connection_steps {
        None => connections.served < connections.requested,
        Some(_) => connections.established < connections.requested && !connections.failed.is_empty(),
    }
}

fn connections_short(report: &Report) -> Option<Reason> {
    let connections = &report.connections;
    let turned_away = match connections.turned_away {
        0 => String::new(),
        times => format!(" ({times} times the server turned one away)"),
    };
    is_short(report).then(|| Reason {
        code: "connections_short".to_owned(),
        detail: format!(
            "{} connections were asked for, {} established and {} served{turned_away}: the load was not the one that \
             was asked for. Raise the server's limit of connections or its accept queue, or ask for fewer",
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
    let exchange = protocol::by_name(&scenario.protocol).is_some_and(|p| p.shape.has_replies());
    let settled = scenario.requests.is_some() || scenario.requests_per_connection.is_some() || report.partial;
    let idle = scenario.in_flight.is_some() || scenario.think.is_some();
    if scenario.mode != "closed" || !exchange || settled || idle {
        return None;
    }
    let alive = report.connections.alive_at_end.min(connections(report));
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

/// What grows because the target cannot keep up is overload, and true.
fn not_steady(report: &Report) -> Option<Reason> {
    let drift = report.confidence.as_ref()?.drift.as_ref()?;
    if drift.steady || overloaded(report).is_some() {
        return None;
    }
    let [first, last] = [drift.response_first_ns, drift.response_last_ns].map(format_duration);
    let [rate_first, rate_last] = [drift.rate_first_per_s, drift.rate_last_per_s].map(format_exact_count);
    reason(
        "not_steady",
        format!(
            "from the first third of the window to the last, the median response time went from {first} to {last}, and \
             the rate from {rate_first} to {rate_last} requests/s: the run had not settled, or something changed under \
             it, and its figures are of no one state. Give a longer --warmup; see `series` for when it happened, and \
             what else ran on both machines then"
        ),
    )
}

fn nothing(report: &Report) -> Option<Reason> {
    let rates = &report.throughput;
    let stream = protocol::by_name(&report.scenario.protocol).is_some_and(|p| !p.shape.has_replies());
    // A refusal is an answer, too.
    let refused = report.ledger.errors.iter().filter(|(kind, _)| kind.starts_with("status_")).map(|(_, count)| count);
    let answered = rates.replies + report.ledger.ok + refused.sum::<u64>();
    let carried = if stream { rates.sent_bytes_per_s + rates.received_bytes_per_s } else { answered };
    (rates.window_ns == 0 || carried == 0).then(|| Reason {
        code: "nothing_measured".to_owned(),
        detail:
            "no reply (of a stream: no byte) came within the window, so there is nothing to report. See the errors, \
             or run for longer"
                .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use loadgen_core::histogram::Recorder;
    use loadgen_core::result::{Confidence, Drift, Generator};

    fn histogram(count: u64, ns: u64) -> Option<Histogram> {
        let mut recorder = Recorder::new();
        (0..count).for_each(|n| recorder.record(ns + n % 7));
        recorder.report()
    }

    /// 10,000 requests/s on 100 connections for two seconds, and nothing to complain about.
    fn calm(mode: &str) -> Report {
        let mut report: Report = serde_json::from_str(include_str!("../../tests/golden/result-1.json")).unwrap();
        let open = mode == "open";
        mode.clone_into(&mut report.scenario.mode);
        let response_ns = if open { 150_000 } else { 9_995_000 };
        report.latency.response = histogram(20_000, response_ns);
        report.latency.service = histogram(20_000, response_ns - 20_000);
        report.latency.backlog_wait = histogram(20_000, 0).filter(|_| open);
        report.latency.generator_lag = histogram(20_000, 20_000).filter(|_| open);
        report.throughput.offered_per_s = open.then_some(10_000);
        report.ledger.errors.clear();
        report.ledger.in_flight_at_end = if open { 0 } else { 100 };
        (report.connections.attempts, report.connections.lost) = (100, 0);
        report.connections.failed.clear();
        report.ledger.whole_run.as_mut().unwrap().errors.clear();
        report.connections.alive_at_end = 100;
        report.kernel.clear();
        report.generator = Some(Generator::default());
        report
    }

    /// The one reason of a report, if it has one.
    fn only(report: &Report) -> Option<String> {
        let verdict = judge(report);
        assert!(verdict.reasons.len() <= 1, "{:?}", verdict.reasons);
        let code = verdict.reasons.first().map(|reason| reason.code.clone());
        let expected = match code.as_deref() {
            None => VerdictState::Valid,
            Some("overloaded" | "target_failed") => VerdictState::Overloaded,
            Some(_) => VerdictState::Invalid,
        };
        assert_eq!(verdict.state, expected);
        code
    }

    /// Service time grows from 1 to 3 ms, or so little that it is steady.
    fn drifting(steady: bool) -> Option<Confidence> {
        let drift = Drift {
            steady,
            response_first_ns: 1_300_000,
            response_last_ns: if steady { 1_310_000 } else { 2_700_000 },
            response_sigmas: 20,
            rate_first_per_s: 10_000,
            rate_last_per_s: 10_000,
            rate_sigmas: 0,
        };
        Some(Confidence { drift: Some(drift), ..Confidence::default() })
    }

    #[test]
    fn a_run_that_is_steady_or_overloaded_may_change() {
        for mode in ["open", "closed"] {
            let mut report = calm(mode);
            report.confidence = drifting(true);
            assert_eq!(only(&report), None);
            report.confidence = Some(Confidence::default());
            assert_eq!(only(&report), None);
        }
        let mut report = calm("open");
        report.ledger.unsent = 10_000;
        report.latency.backlog_wait = histogram(20_000, 1_000_000_000);
        report.confidence = drifting(false);
        assert_eq!(only(&report).as_deref(), Some("overloaded"));
    }

    #[test]
    fn a_calm_run_is_valid() {
        for mode in ["open", "closed"] {
            assert_eq!(only(&calm(mode)), None, "{mode}");
        }
    }

    /// Each reason has something that brings it about, and only that reason comes of it.
    #[test]
    fn every_reason_is_brought_about() {
        type Change = fn(&mut Report);
        let cases: &[(&str, &str, Change)] = &[
            ("server_lost", "closed", |r| r.server = None),
            ("connections_short", "open", |r| r.connections.served = 99),
            ("generator_stalled", "open", |r| r.generator.as_mut().unwrap().longest_stall_ns = 1_000_000_000),
            ("generator_stalled", "closed", |r| r.generator.as_mut().unwrap().stalled_ns = 40_000_000),
            ("cpu_contention", "closed", |r| r.generator.as_mut().unwrap().run_delay_ns = 240_000_000),
            ("cpu_contention", "open", |r| _ = r.kernel.insert("Cpu.steal_ms".to_owned(), 600)),
            ("client_saturated", "closed", |r| r.cpu.client_thread_max_percent = 96),
            ("generator_lag", "open", |r| r.latency.generator_lag = histogram(20_000, 80_000)),
            ("generator_lag", "open", |r| {
                r.latency.generator_lag = histogram(20_000, 2_000_000);
                r.latency.response = histogram(20_000, 9_000_000);
            }),
            ("rate_missed", "open", |r| {
                r.ledger.unsent = 300;
                r.latency.response = histogram(20_000, 150_000);
            }),
            ("littles_law", "closed", |r| r.latency.response = histogram(20_000, 10_200_000)),
            ("littles_law", "closed", |r| r.latency.response = histogram(20_000, 5_000_000)),
            ("littles_law", "open", |r| r.latency.service = histogram(20_000, 10_200_000)),
            ("retransmissions", "open", |r| _ = r.kernel.insert("Tcp.RetransSegs".to_owned(), 100)),
            ("listen_overflow", "open", |r| {
                r.kernel.insert("TcpExt.ListenDrops".to_owned(), 1);
                r.latency.connect = histogram(100, 1_010_000_000);
            }),
            ("longer_than_window", "closed", |r| {
                r.ledger.in_flight_at_end = 10;
                r.latency.response = histogram(20_000, 9_995_000);
            }),
            ("not_steady", "closed", |r| r.confidence = drifting(false)),
            ("nothing_measured", "open", |r| {
                r.throughput.replies = 0;
                r.ledger.ok = 0;
            }),
            ("target_failed", "open", |r| {
                r.ledger.unsent = 10_000;
                r.connections.lost = 7;
                r.latency.backlog_wait = histogram(20_000, 1_000_000_000);
            }),
            ("overloaded", "open", |r| {
                r.ledger.unsent = 10_000;
                r.latency.backlog_wait = histogram(20_000, 1_000_000_000);
            }),
            ("overloaded", "open", |r| {
                r.throughput.requests_per_s = 9_800;
                r.latency.backlog_wait = histogram(20_000, 1_000_000_000);
            }),
        ];
        for (code, mode, change) in cases {
            let mut report = calm(mode);
            change(&mut report);
            assert_eq!(only(&report).as_deref(), Some(*code));
            let detail = &judge(&report).reasons[0].detail;
            // What happened, why it matters, what to do.
            assert!(detail.len() > 80 && !detail.contains('\n'), "{detail}");
        }
    }

    #[test]
    fn rings_that_overflow_or_starve_spoil_a_run() {
        for (code, overflows, shortages) in [("ring_overflow", 1, 0), ("buffer_shortage", 0, 60)] {
            let mut report = calm("open");
            let ring = loadgen_core::result::RingStats {
                completions: 100,
                overflows,
                buffer_shortages: shortages,
                ..Default::default()
            };
            report.engine.ring = Some(ring);
            assert_eq!(only(&report).as_deref(), Some(code));
        }
    }

    #[test]
    fn a_generator_that_stalled_does_not_blame_the_target() {
        let mut report = calm("open");
        report.ledger.unsent = 10_000;
        report.latency.backlog_wait = histogram(20_000, 1_000_000_000);
        report.generator.as_mut().unwrap().longest_stall_ns = 1_000_000_000;
        assert_eq!(only(&report).as_deref(), Some("generator_stalled"));
        assert!(judge(&report).reasons[0].detail.starts_with("the generator stalled 1.00 s"));
    }
}
