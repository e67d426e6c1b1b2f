//! The summary that a person reads on a terminal: what was run, whether to believe it, and what came out.

use super::{breakdown, intervals, traffic};
use crate::confidence::{ENOUGH_BEYOND, goal};
use crate::histogram::{QUANTILES, count_beyond};
use crate::protocol::{self, Shape};
use crate::result::{FLOOR_SAMPLES_LEAST, Floor, Histogram, Ledger, Report, RingStats, Tls, VerdictState, Weight};
use crate::units::{format_count, format_duration, format_exact_count, format_rate, format_size};

const WIDTH: usize = 80;
/// Width of the words in front of each line.
const LABEL: usize = 13;
/// Kinds of errors that are listed; the report has all of them.
const ERRORS_LISTED: usize = 5;
/// Warnings about the machine that are listed.
const WARNINGS_LISTED: usize = 3;
/// A response time below so many percent of the generator's own floor is near it.
const NEAR_FLOOR_PERCENT: u64 = 150;
/// Kernel counters that move in good order, too.
const ORDINARY: &[&str] = &["Tcp.ActiveOpens", "Tcp.OutRsts", "TcpExt.TCPAbortOnClose", "TcpExt.TCPAbortOnData"];
/// Characters of an error's first example: two lines.
const EXAMPLE: usize = 2 * (WIDTH - LABEL) - 10;

/// The summary: about 20 lines, more only where there is something to explain.
pub fn render(report: &Report) -> String {
    let mut page = Page::default();
    what_was_run(report, &mut page);
    verdict(report, &mut page);
    machine(report, &mut page);
    throughput(report, &mut page);
    latency(report, &mut page);
    breakdown(report, &mut page);
    datagrams(report, &mut page);
    floor(report, &mut page);
    connections(report, &mut page);
    ledgers(report, &mut page);
    errors(report, &mut page);
    cost(report, &mut page);
    note(report, &mut page);
    limits(report, &mut page);
    page.0
}

fn what_was_run(report: &Report, page: &mut Page) {
    let scenario = &report.scenario;
    let connections = plural(scenario.connections, "connection");
    let threads = plural(scenario.threads, "thread");
    let part = match (&report.shard, &report.merged) {
        (Some(shard), _) if shard.count > 1 => format!("; of these, shard {} of {}", shard.index, shard.count),
        (_, Some(merged)) => format!(" in each of {}", plural(merged.shards.len() as u64, "shard")),
        _ => String::new(),
    };
    page.line("", &format!("{} on {}: {connections}, {threads}{part}", scenario.protocol, scenario.target));
    let mode = match shape(report) {
        shape if shape.has_replies() => traffic::mode(scenario),
        _ => "one-way stream".to_owned(),
    };
    let server = scenario.server_engine.as_ref().map_or(String::new(), |engine| format!(", server {engine}"));
    let injected = scenario.server_injected.iter().map(|what| format!(", {what}")).collect::<String>();
    let instead = report.engine.instead_of.as_ref().map_or(String::new(), |asked| format!(" instead of {asked}"));
    let fallback = report.engine.fallback.as_ref().map_or(String::new(), |what| format!(" by {what}"));
    let window = format_duration(report.throughput.window_ns);
    let warmup = format_duration(report.phases.warmup_ns);
    let engines = format!("engine {}{instead}{fallback}{server}{injected}", scenario.engine);
    page.line("", &format!("{mode}, {engines}, {window} after {warmup} of warm-up"));
}

/// Reasons come before the figures: nobody reads on to the last line.
fn verdict(report: &Report, page: &mut Page) {
    if report.partial {
        page.line("PARTIAL", "the run ended before its time; what follows is true, but not all that was asked for");
    }
    match report.verdict.state {
        VerdictState::Valid => {}
        VerdictState::Overloaded => page.line("OVERLOADED", "the target could not keep up; the figures are true"),
        VerdictState::Invalid => {
            page.line("INVALID", "these figures do not say what was asked; the reasons:");
        }
    }
    for reason in &report.verdict.reasons {
        page.line("", &format!("! {}: {}", reason.code, reason.detail));
    }
}

/// What about this machine can change the figures; the rest, and what to do, is in the report.
fn machine(report: &Report, page: &mut Page) {
    let heavy: Vec<&str> = report
        .environment
        .warnings
        .iter()
        .filter(|warning| warning.weight == Weight::High)
        .map(|warning| warning.what.as_str())
        .collect();
    for (index, what) in heavy.iter().take(WARNINGS_LISTED).enumerate() {
        let label = if index == 0 { "machine" } else { "" };
        let last = index + 1 == heavy.len().min(WARNINGS_LISTED);
        let more = if last { " (`loadgen doctor` says more)" } else { "" };
        page.line(label, &format!("! {what}{more}"));
    }
}

fn throughput(report: &Report, page: &mut Page) {
    let rates = &report.throughput;
    if rates.window_ns == 0 {
        return page.line("throughput", "unknown: the window never opened, so that no rate is one");
    }
    let (sent, received) = (format_rate(rates.sent_bytes_per_s), format_rate(rates.received_bytes_per_s));
    let text = match shape(report) {
        Shape::Exchange => {
            let rate = match rates.offered_per_s {
                Some(offered) => {
                    let [had, asked] = [rates.requests_per_s, offered].map(format_exact_count);
                    format!("{had} of {asked} requests/s")
                }
                None => {
                    let replies = format_exact_count(rates.replies);
                    format!("{} requests/s ({replies})", format_count(rates.requests_per_s))
                }
            };
            format!("{rate}, {sent} sent, {received} received")
        }
        Shape::Upload => format!("{sent} sent"),
        Shape::Download => format!("{received} received"),
    };
    page.line("throughput", &text);
}

fn latency(report: &Report, page: &mut Page) {
    if let Some(response) = &report.latency.response {
        responses(report, response, page);
        if report.latency.censored > 0 {
            page.line("", &censored(report.latency.censored, response.count));
        }
        confidence(report, page);
    }
    let spread = |histogram: &Histogram| {
        format!("{}  max {}", percentiles(histogram, &["0.5", "0.99"]), format_duration(histogram.max_ns))
    };
    let others = [
        ("service", &report.latency.service),
        ("backlog wait", &report.latency.backlog_wait),
        ("lag", &report.latency.generator_lag),
        ("connect", &report.latency.connect),
        ("handshake", &report.latency.handshake),
    ];
    for (label, histogram) in others {
        if let Some(histogram) = histogram {
            page.line(label, &spread(histogram));
        }
    }
}

/// What had no reply would have taken longer than it is counted with. With a share `c` of such values, a quantile `q`
/// is in truth as high as that at `q + c` at most: those are named for which this makes a difference.
fn censored(censored: u64, count: u64) -> String {
    /// Of the values beyond a percentile, so many percent without a reply make a difference.
    const SHARE_PERCENT: u64 = 10;
    let touches = |q: f64| count_beyond(count, q).saturating_mul(SHARE_PERCENT) <= censored.saturating_mul(100);
    let touched = QUANTILES.iter().find(|(_, q)| touches(*q));
    let touched =
        touched.map_or(String::new(), |(name, _)| format!(": {} and beyond are lower bounds", goal::percentile(name)));
    format!("{} without a reply count with the time they had waited{touched}", format_exact_count(censored))
}

/// The headline: with its intervals, where the report has them.
fn responses(report: &Report, response: &Histogram, page: &mut Page) {
    let Some(confidence) = &report.confidence else {
        page.line("response", &percentiles(response, &["0.5", "0.9", "0.99"]));
        let tail = percentiles(response, &["0.999", "0.9999"]);
        let (max, mean) = (format_duration(response.max_ns), format_duration(response.mean_ns));
        return page.line("", &format!("{tail}  {:<15}  mean {mean}", format!("max {max}")));
    };
    for (index, line) in intervals::percentiles(response, confidence).iter().enumerate() {
        page.line(if index == 0 { "response" } else { "" }, line);
    }
}

fn confidence(report: &Report, page: &mut Page) {
    let (Some(response), Some(confidence)) = (&report.latency.response, &report.confidence) else { return };
    page.line("confidence", &intervals::explained(response, confidence));
    if !confidence.until_ci.is_empty() {
        page.line("", &intervals::until(&confidence.until_ci, report.partial));
    }
}

/// What became of datagrams besides; that nothing did is worth knowing, too.
fn datagrams(report: &Report, page: &mut Page) {
    let Some(of) = &report.datagrams else { return };
    let mut line = String::new();
    let always = [(of.lost, "lost"), (of.duplicated, "duplicated"), (of.reordered, "reordered"), (of.late, "late")];
    let seldom = [(of.old, "late or duplicated"), (of.foreign, "of somebody else")];
    for (count, what) in always.into_iter().chain(seldom.into_iter().filter(|(count, _)| *count > 0)) {
        let comma = if line.is_empty() { "" } else { ", " };
        line.push_str(&format!("{comma}{} {what}", format_exact_count(count)));
    }
    page.line("datagrams", &line);
}

/// By kind and target, where there are several.
fn breakdown(report: &Report, page: &mut Page) {
    let lines = breakdown::lines(report).into_iter().chain(breakdown::counted(report));
    let lines = lines.chain(traffic::streams(&report.streams));
    for (index, line) in lines.enumerate() {
        page.line(if index == 0 { "of these" } else { "" }, &line);
    }
}

/// What the generator itself adds, and a word where the figures are hardly more than that.
fn floor(report: &Report, page: &mut Page) {
    let Some(floor) = &report.floor else { return };
    let shown = |ns: Option<u64>| ns.map_or_else(|| "-".to_owned(), format_duration);
    let [p99, late] = [floor.response_p99(), floor.timer_late_p50()].map(shown);
    let timers = format!("timers {late} late, at most {}", format_duration(floor.timer_late_max_ns));
    let Some(p50) = floor.response_p50() else {
        let (samples, needed) = (plural(floor.samples, "round trip"), FLOOR_SAMPLES_LEAST);
        return page.line("floor", &format!("unknown: {samples} with a null server, of {needed} it takes; {timers}"));
    };
    let line = format!("p50 {}, p99 {p99} with a null server; {timers}", format_duration(p50));
    page.line("floor", &line);
    // Of the run, too, a few responses have no median.
    let response = report.latency.response.as_ref().filter(|response| Floor::tells(response.count, 0.5));
    let median = response.and_then(|response| response.quantiles_ns.get("0.5"));
    if median.is_some_and(|median| median.saturating_mul(100) < p50.saturating_mul(NEAR_FLOOR_PERCENT)) {
        page.line(
            "",
            "! close to the floor: a response takes hardly longer than with a server that does nothing, so this says \
             more about generator and kernel than about the target",
        );
    }
}

/// `p50 68.2 us  p99 120 us`, with `-` for what rests on too few values.
fn percentiles(histogram: &Histogram, names: &[&str]) -> String {
    let text = |(name, q): &(&str, f64)| {
        let known = histogram.quantiles_ns.get(*name).filter(|_| count_beyond(histogram.count, *q) >= ENOUGH_BEYOND);
        let value = known.map_or_else(|| "-".to_owned(), |ns| format_duration(*ns));
        format!("{:<15}", format!("{} {value}", goal::percentile(name)))
    };
    let chosen = QUANTILES.iter().filter(|(name, _)| names.contains(name));
    chosen.map(text).collect::<Vec<_>>().join("  ")
}

fn connections(report: &Report, page: &mut Page) {
    let counts = &report.connections;
    let [requested, established, served, alive] =
        [counts.requested, counts.established, counts.served, counts.alive_at_end].map(format_exact_count);
    let failed = counts.failed.values().fold(0_u64, |sum, count| sum.saturating_add(*count));
    let failed = if failed > 0 { format!("; {} attempts failed", format_exact_count(failed)) } else { String::new() };
    let turned_away = match counts.turned_away {
        0 => String::new(),
        turned_away => format!(" ({} turned away by the server)", format_exact_count(turned_away)),
    };
    let cut_off = match counts.requests_cut_off {
        0 => String::new(),
        cut_off => format!("; {} requests cut off behind their replies", format_exact_count(cut_off)),
    };
    let lost = if counts.lost > 0 { format!("; {} lost", format_exact_count(counts.lost)) } else { String::new() };
    let text = format!(
        "{requested} requested, {established} established, {served} served, {alive} alive at the \
         end{failed}{lost}{turned_away}{cut_off}"
    );
    page.line("connections", &text);
    traffic::churn(report).iter().for_each(|line| page.line("", line));
    report.tls.iter().for_each(|tls| page.line("tls", &agreed(tls)));
    report.sessions.iter().for_each(|sessions| page.line("sessions", &traffic::sessions(sessions)));
}

/// What was agreed on under TLS, and how often.
fn agreed(tls: &Tls) -> String {
    let [full, resumed] = [tls.handshakes_full, tls.handshakes_resumed].map(format_exact_count);
    let alpn = tls.alpn.as_ref().map_or(String::new(), |name| format!(", {name}"));
    let known = if tls.version.is_empty() { String::new() } else { format!("{} {}{alpn}; ", tls.version, tls.cipher) };
    let trust = if tls.insecure { "; ! --insecure: the certificate was NOT verified" } else { "" };
    format!("{known}{full} full handshakes, {resumed} resumed{trust}")
}

fn ledgers(report: &Report, page: &mut Page) {
    if !shape(report).has_replies() {
        return;
    }
    page.line("window", &ledger(&report.ledger));
    if let Some(whole) = &report.ledger.whole_run {
        page.line("whole run", &ledger(whole));
    }
    if !report.ledger.closes() {
        page.line("", "! the ledger does NOT close: requests were lost from sight; please report this as a bug");
    }
}

fn ledger(ledger: &Ledger) -> String {
    let errors = ledger.errors.values().fold(0_u64, |sum, count| sum.saturating_add(*count));
    let [scheduled, ok, errors, in_flight] =
        [ledger.scheduled, ledger.ok, errors, ledger.in_flight_at_end].map(format_exact_count);
    let unsent =
        if ledger.unsent > 0 { format!("{} unsent, ", format_exact_count(ledger.unsent)) } else { String::new() };
    let closes = if ledger.closes() { "closes" } else { "does NOT close" };
    format!("{scheduled} due: {unsent}{ok} ok, {errors} errors, {in_flight} in flight; {closes}")
}

fn errors(report: &Report, page: &mut Page) {
    let mut rows: Vec<_> = report.errors.iter().collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.count));
    for (index, row) in rows.iter().take(ERRORS_LISTED).enumerate() {
        let label = if index == 0 { "errors" } else { "" };
        let (count, at) = (format_exact_count(row.count), format_duration(row.first_at_ns));
        let text = format!("{count} {} ({}), first at {at}: {}", row.kind, row.phase, row.first);
        page.line(label, &shortened(&text));
    }
    if let Some(more) = rows.len().checked_sub(ERRORS_LISTED).filter(|more| *more > 0) {
        page.line("", &format!("and {more} more kinds, in the JSON report"));
    }
}

fn cost(report: &Report, page: &mut Page) {
    let cpu = &report.cpu;
    let each = |ns: Option<u64>| ns.map_or_else(|| "-".to_owned(), format_duration);
    let server = cpu.server_ns_per_request.map_or(String::new(), |ns| format!(", server {}", format_duration(ns)));
    // A window that never opened has no shares and no rates.
    let opened = report.throughput.window_ns > 0;
    let busiest = if opened { cpu.client_thread_max_percent.to_string() } else { "-".to_owned() };
    let each_client = if shape(report).has_replies() {
        format!("client {} a request{server}", each(cpu.client_ns_per_request))
    } else {
        let server = cpu.server_ns.map_or(String::new(), |ns| format!(", server {}", format_duration(ns)));
        format!("client {}{server}", format_duration(cpu.client_ns))
    };
    let spin_ns = report.generator.as_ref().map_or(0, |generator| generator.spin_ns);
    let spin = if spin_ns > 0 { format!(" and {} of spinning", format_duration(spin_ns)) } else { String::new() };
    page.line("CPU", &format!("{each_client}; busiest thread {busiest} %{spin}"));
    let server = cpu.server_memory_bytes.map_or(String::new(), |bytes| format!(", server {}", format_size(bytes)));
    let calls = report
        .engine
        .syscalls_per_1000_requests
        .filter(|_| shape(report).has_replies())
        .map_or(String::new(), |calls| format!("; {}.{:02} system calls a request", calls / 1000, calls % 1000 / 10));
    page.line("memory", &format!("client {}{server}{calls}", format_size(cpu.client_memory_bytes)));
    let rings: Vec<String> = report.rings().map(|(who, ring)| ring_line(who, ring)).collect();
    if !rings.is_empty() {
        page.line("io_uring", &rings.join("; "));
    }
    let kernel: Vec<String> = report
        .kernel
        .iter()
        .filter(|(name, _)| !ORDINARY.contains(&name.as_str()))
        .map(|(name, moved)| format!("{name} {moved}"))
        .collect();
    if !kernel.is_empty() {
        page.line("kernel", &kernel.join(", "));
    }
}

/// What the rings of one side did, as far as it can tell good from bad.
fn ring_line(who: &str, ring: &RingStats) -> String {
    let each = ring.completions.saturating_mul(10).checked_div(ring.enters).unwrap_or(0);
    let mut line = format!("{who} {}, {}.{} completions an enter", plural(ring.rings, "ring"), each / 10, each % 10);
    for (count, what) in [
        (ring.overflows, "queue overflows"),
        (ring.buffer_shortages, "buffer shortages"),
        (ring.short_sends, "short sends"),
    ] {
        if count > 0 {
            line.push_str(&format!(", {} {what}", format_exact_count(count)));
        }
    }
    line
}

fn note(report: &Report, page: &mut Page) {
    if report.scenario.mode == "closed" && shape(report).has_replies() {
        page.line(
            "note",
            "closed loop: each connection waits for its reply; latency at a fixed rate is another question",
        );
    }
}

/// One line each, however long, for people who search for it.
fn limits(report: &Report, page: &mut Page) {
    for limit in &report.limits {
        page.0.push_str(&clean(&format!("limit {limit}")));
        page.0.push('\n');
    }
}

/// A protocol that this version does not know is taken for requests and replies, the usual case.
fn shape(report: &Report) -> Shape {
    protocol::by_name(&report.scenario.protocol).map_or(Shape::Exchange, |protocol| protocol.shape)
}

fn plural(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", format_exact_count(count), if count == 1 { "" } else { "s" })
}

/// Lines of at most `WIDTH` columns, each with a label or indented below one.
#[derive(Debug, Default)]
pub struct Page(pub String);

impl Page {
    /// Wraps at spaces, and within words that are longer than a line.
    pub fn line(&mut self, label: &str, text: &str) {
        let mut line = self.start(label);
        let mut width = line.len();
        let mut fresh = true;
        for word in clean(text).split(' ') {
            let mut wrap = !fresh && width + word.chars().count() > WIDTH;
            for letter in word.chars() {
                if wrap || width == WIDTH {
                    self.end(&line);
                    (line, width, wrap) = (" ".repeat(LABEL), LABEL, false);
                }
                line.push(letter);
                width += 1;
            }
            line.push(' ');
            (width, fresh) = (width + 1, false);
        }
        self.end(&line);
    }

    /// The first two lines of the page have no column of labels.
    fn start(&self, label: &str) -> String {
        let heading = label.is_empty() && self.0.lines().count() < 2;
        if heading { String::new() } else { format!("{label:<LABEL$}") }
    }

    fn end(&mut self, line: &str) {
        self.0.push_str(line.trim_end());
        self.0.push('\n');
    }
}

/// At most `EXAMPLE` characters.
fn shortened(text: &str) -> String {
    if text.chars().count() <= EXAMPLE {
        return text.to_owned();
    }
    text.chars().take(EXAMPLE - 3).collect::<String>() + "..."
}

/// A target or an error may hold control characters; a terminal must not obey them.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
