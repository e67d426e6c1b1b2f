//! Puts a report together from what was planned and what was counted.

use crate::destination::{Addresses, Destination};
use crate::plan::Plan;
use crate::resolve::ResolvedTarget;
use crate::run::Run;
use crate::time_wait::{self, Rules};
use crate::verdict;
use loadgen_core::confidence::Sample;
use loadgen_core::histogram::Recorder;
use loadgen_core::load::tally::{self, Counts, SERIES_COLUMNS, SERIES_INTERVAL_NS, Second, Tally};
use loadgen_core::machine;
use loadgen_core::machine::warnings::{Use, warnings};
use loadgen_core::protocol::ClientOptions;
use loadgen_core::protocol::ask::Asker;
use loadgen_core::result::{integers, *};
use loadgen_core::secrets;
use loadgen_core::service_time::Distribution;
use loadgen_core::sys::endpoint::Endpoint;
use loadgen_core::sys::ring;
use loadgen_core::time::{Instant, NS_PER_S, NS_PER_US};
use std::collections::BTreeMap;

/// Where requests differ, the digest is of so many: enough to tell mixes and key spaces apart.
const HASHED_REQUESTS: usize = 256;
/// Or of as many as have so many bytes: large requests must not cost seconds.
const HASHED_BYTES: usize = 8 << 20;

/// What is known beside the run itself.
#[derive(Debug)]
pub struct Circumstances {
    pub command: Vec<String>,
    pub started_at: String,
    pub to: Vec<Destination>,
    pub machine: Machine,
    pub server: Option<ServerStats>,
    pub kernel: BTreeMap<String, i64>,
    pub floor: Option<Floor>,
}

pub fn report(plan: &Plan, run: &Run, mut circumstances: Circumstances) -> Report {
    let tally = &run.tally;
    let environment = environment(plan, &circumstances.to, circumstances.machine, circumstances.server.as_mut());
    let mut report = Report {
        schema: SCHEMA.to_owned(),
        tool: Tool::ours(),
        command: circumstances.command,
        started_at: circumstances.started_at,
        partial: run.interrupted.is_some() || run.gave_up.is_some(),
        scenario: scenario(plan, &circumstances.to, circumstances.server.as_ref()),
        environment,
        phases: phases(plan, run),
        throughput: Throughput {
            offered_per_s: plan.pacing.as_ref().map(|_| rate(tally.window.scheduled, window_ns(tally))),
            ..throughput(tally)
        },
        ledger: Ledger { whole_run: Some(Box::new(ledger(&tally.whole))), ..ledger(&tally.window) },
        connections: connections(plan, &circumstances.to, tally),
        errors: errors(tally),
        latency: Latency { carried_ns: plan.pacing.is_none().then_some(tally.carried_ns), ..latency(tally) },
        breakdown: breakdown(plan, tally),
        streams: streams(plan, tally),
        sessions: sessions(plan, tally),
        datagrams: plan.protocol.transport.may_lose().then(|| tally.delivery.clone()),
        counted: owned(&tally.counted),
        confidence: confidence(plan, run),
        series: Series {
            interval_ns: SERIES_INTERVAL_NS,
            columns: SERIES_COLUMNS.map(str::to_owned).to_vec(),
            rows: tally.seconds.iter().map(Second::row).collect(),
        },
        cpu: cpu(run, circumstances.server.as_ref()),
        generator: Some(generator(tally)),
        server: circumstances.server,
        kernel: circumstances.kernel,
        engine: engine(plan, tally),
        floor: circumstances.floor,
        labels: plan.labels.clone(),
        shard: plan.shard.clone().map(|shard| {
            let (machine, network) = machine::identity();
            Shard { machine, network, ..shard }
        }),
        ..Report::default()
    };
    plan.tell_of_layers(&mut report, &tally.handshakes);
    report.verdict = verdict::judge(&report);
    report
}

/// The machines. That of an embedded server is ours, as the server sees it.
fn environment(plan: &Plan, to: &[Destination], machine: Machine, server: Option<&mut ServerStats>) -> Environment {
    let embedded = plan.is_embedded();
    let ours = Use {
        threads: plan.threads + if embedded { plan.server_threads } else { 0 },
        server_here: embedded || to.iter().any(|one| one.endpoint.is_local()),
        debug_build: cfg!(debug_assertions),
    };
    let warnings = warnings(&machine, ours);
    let seen = server.and_then(|stats| stats.machine.take()).or_else(|| embedded.then(|| machine.clone()));
    let cpus_pinned = plan.client_cpus.iter().map(|cpu| *cpu as u64).collect();
    Environment { server: seen.filter(|_| embedded), client: Machine { cpus_pinned, ..machine }, warnings }
}

/// What is run. `server`: the counters of the embedded one, once it has ended.
pub fn scenario(plan: &Plan, to: &[Destination], server: Option<&ServerStats>) -> Scenario {
    let typed: Vec<&str> = plan.targets.iter().map(|resolved| resolved.target.typed.as_str()).collect();
    let used = || to.iter().map(|one| one.endpoint.to_string()).collect::<Vec<_>>().join(" ");
    let target = if plan.is_embedded() { used() } else { typed.join(" ") };
    let mut scenario = Scenario {
        protocol: plan.protocol.name.to_owned(),
        target,
        resolved: plan.targets.iter().flat_map(|resolved| &resolved.addresses).map(Endpoint::to_string).collect(),
        engine: plan.engine.name.to_owned(),
        // `auto` was an order; what it came to is what ran.
        server_engine: plan.is_embedded().then(|| server.map_or(&plan.server_engine, |s| &s.engine).clone()),
        connections: plan.connections,
        idle_connections: plan.idle,
        threads: plan.threads,
        mode: if plan.pacing.is_some() { "open" } else { "closed" }.to_owned(),
        rate_per_s: plan.pacing.as_ref().and_then(|pacing| pacing.rate.steady()),
        arrival: plan.pacing.as_ref().map(|pacing| pacing.arrival.name().to_owned()),
        pipeline: plan.pipeline,
        size_bytes: plan.size,
        request_hash: request_hash(plan),
        requests_per_connection: plan.requests_per_connection.map(u64::from),
        timeout_ns: plan.timeout_ns,
        seed: plan.seed,
        warmup_ns: if plan.requests().is_some() { 0 } else { plan.warmup_ns },
        duration_ns: plan.duration_ns(),
        requests: plan.requests(),
        in_flight: plan.in_flight_max,
        rate_steps: plan.pacing.as_ref().filter(|p| p.rate.steady().is_none()).map(|p| p.rate.to_string()),
        connection_steps: plan.connections_over_time.as_ref().map(ToString::to_string),
        spin_ns: plan.spin_ns,
        engine_options: if plan.engine.needs_ring { plan.ring.describe() } else { Vec::new() },
        server_injected: plan.server_injected.words.clone(),
        until_ci: plan.until_ci.iter().map(ToString::to_string).collect(),
        weights: if plan.targets.len() > 1 {
            plan.targets.iter().map(|resolved| resolved.weight.into()).collect()
        } else {
            vec![]
        },
        think: think(plan),
        session_requests: plan.traffic.sessions.as_ref().map(|sessions| sessions.lengths.describe()),
        session_connection: plan.traffic.sessions.as_ref().filter(|s| s.fresh).map(|_| "new".to_owned()),
        close: plan.traffic.reset.then(|| "rst".to_owned()),
        addresses: (plan.addresses != Addresses::First).then(|| plan.addresses.name().to_owned()),
        file: plan.client_options.scenario.as_deref().map(scenario_file),
        server_engine_options: plan.server_ring.as_ref().map_or_else(Vec::new, ring::Options::describe),
        secret_headers: plan.client_options.secret_headers(),
        ..Scenario::default()
    };
    plan.ask_of_layers(&mut scenario);
    scenario.hash = scenario.digest();
    scenario
}

fn think(plan: &Plan) -> Option<String> {
    let usual = plan.traffic.think.as_ref().map(Distribution::describe);
    usual.or_else(|| plan.traffic.scripts.as_ref().map(|_| "script".to_owned()))
}

/// What a scenario file asks for.
fn scenario_file(file: &loadgen_core::scenario::Scenario) -> ScenarioFile {
    let weighted = |name: &str, weight: u64| Weighted { name: name.to_owned(), weight, steps: Vec::new() };
    let by_itself = |index: usize| {
        let mut alone = file.scripts.iter().filter(|script| script.name.is_none());
        alone.find(|script| usize::from(script.steps[0].request) == index).map_or(0, |script| script.weight.into())
    };
    let mut requests: Vec<Weighted> =
        file.requests.iter().enumerate().map(|(at, request)| weighted(&request.name, by_itself(at))).collect();
    if let Some(recorded) = &file.recorded {
        let methods = recorded.list.methods().iter().zip(0..);
        requests.extend(methods.map(|(method, kind)| weighted(method, recorded.list.count(kind) as u64)));
    }
    let script = |script: &loadgen_core::scenario::Script| {
        let name = |step: &loadgen_core::scenario::Step| file.requests[usize::from(step.request)].name.clone();
        let steps = script.steps.iter().map(name).collect();
        Some(Weighted { name: script.name.clone()?, weight: script.weight.into(), steps })
    };
    let scripts = file.scripts.iter().filter_map(script).collect();
    ScenarioFile { name: file.name.clone(), hash: file.digest(), requests, scripts }
}

/// A digest of the request as it would be sent to a host called `localhost`, without its secrets: what they are could
/// be tried out until the digest is the same.
fn request_hash(plan: &Plan) -> String {
    let options = ClientOptions { authority: "localhost".to_owned(), ..plan.client_options.without_secrets() };
    let Ok(client) = (plan.protocol.client)(&ClientOptions { seed: 1, ..options }) else { return String::new() };
    let mut hash = Fnv1a::default();
    hash.add(client.request());
    let Some(mut codec) = client.into_codec().filter(|codec| codec.composes()) else { return hash.hex() };
    let (mut request, mut bytes, mut asker) = (Vec::new(), 0, Asker::new(1, 0));
    for hashed in 1..=HASHED_REQUESTS {
        request.clear();
        asker.ask(|ask| codec.compose(ask, &mut request));
        hash.add(&request);
        bytes += request.len();
        // A digest of fewer says so: it is none of 256.
        if bytes >= HASHED_BYTES && hashed < HASHED_REQUESTS {
            return format!("{}-{hashed}", hash.hex());
        }
    }
    hash.hex()
}

fn phases(plan: &Plan, run: &Run) -> Phases {
    let tally = &run.tally;
    let from = tally.window_from;
    let to = tally.window_to.or(from);
    let counted = plan.requests().is_some();
    let ramp_end = if counted { Some(run.origin) } else { run.went };
    let length = |from: Option<Instant>, to: Option<Instant>| match (from, to) {
        (Some(from), Some(to)) => to.since(from),
        _ => 0,
    };
    Phases {
        ramp_ns: ramp_end.unwrap_or(run.ended).since(run.origin),
        // A run that ended within its warm-up has no more than that, with its last replies.
        warmup_ns: length(ramp_end, from.or(Some(run.ended))),
        measure_ns: length(from, to),
        drain_ns: length(to, Some(run.ended)),
        window_started_unix_us: from.map(|from| run.clocks.wall_at(from) / NS_PER_US),
        start_late_ns: run.start_late_ns,
    }
}

fn window_ns(tally: &Tally) -> u64 {
    match (tally.window_from, tally.window_to) {
        (Some(from), Some(to)) => to.since(from),
        _ => 0,
    }
}

/// So many in a window, a second; rounded.
fn rate(count: u64, window_ns: u64) -> u64 {
    let (count, window) = (u128::from(count), u128::from(window_ns));
    (count * u128::from(NS_PER_S) + window / 2).checked_div(window).unwrap_or(0) as u64
}

fn throughput(tally: &Tally) -> Throughput {
    let window_ns = window_ns(tally);
    let rate = |count: u64| rate(count, window_ns);
    Throughput {
        requests_per_s: rate(tally.window_replies),
        replies: tally.window_replies,
        sent_bytes_per_s: rate(tally.window_bytes.sent),
        received_bytes_per_s: rate(tally.window_bytes.received),
        window_ns,
        offered_per_s: None,
        whole_run_sent_bytes: tally.bytes.sent,
        whole_run_received_bytes: tally.bytes.received,
    }
}

fn ledger(counts: &Counts) -> Ledger {
    Ledger {
        scheduled: counts.scheduled,
        unsent: counts.unsent,
        sent: counts.sent,
        ok: counts.ok,
        errors: owned(&counts.errors),
        in_flight_at_end: counts.in_flight,
        whole_run: None,
    }
}

fn owned(counts: &BTreeMap<&'static str, u64>) -> BTreeMap<String, u64> {
    counts.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect()
}

fn connections(plan: &Plan, to: &[Destination], tally: &Tally) -> Connections {
    let counts = &tally.connections;
    let opened_per_s = Some(rate(tally.window_opened, window_ns(tally))).filter(|_| tally.window_opened > 0);
    Connections {
        requested: plan.total_connections(),
        established: counts.established,
        served: counts.served,
        alive_at_end: counts.alive_at_end,
        attempts: counts.attempts,
        opened: counts.opened,
        failed: owned(&counts.failed),
        unfinished: counts.unfinished,
        closed: counts.closed,
        closed_by_server: counts.closed_by_server,
        lost: counts.lost,
        turned_away: counts.turned_away,
        requests_cut_off: counts.cut_off,
        closed_by_reset: if plan.traffic.reset { counts.closed } else { 0 },
        opened_per_s,
        time_wait: opened_per_s.and_then(|rate| time_wait::after(plan, to, rate, Rules::read())),
    }
}

fn errors(tally: &Tally) -> Vec<ErrorRow> {
    let mut rows: Vec<ErrorRow> = tally
        .errors
        .iter()
        .map(|error| ErrorRow {
            kind: error.kind.to_owned(),
            phase: error.phase.name().to_owned(),
            count: error.count,
            first_at_ns: error.first_at_ns,
            // What a server says may repeat what it was told.
            first: secrets::text(&error.first),
        })
        .collect();
    rows.sort_by_key(|row| (row.first_at_ns, row.kind.clone()));
    rows
}

fn latency(tally: &Tally) -> Latency {
    Latency {
        response: tally.response.report(),
        service: tally.service.report(),
        connect: Recorder::report(&tally.connect),
        handshake: None,
        backlog_wait: tally.backlog_wait.report(),
        generator_lag: tally.generator_lag.report(),
        censored: tally.censored,
        carried_ns: None,
    }
}

/// By target, and for each by kind.
fn breakdown(plan: &Plan, tally: &Tally) -> Vec<Group> {
    // It was planned with these.
    let clients = plan.clients(0).unwrap_or_default();
    let kinds = clients.first().map_or(&[][..], |client| client.kinds());
    // Requests of a scenario file that are commands have names, too.
    let requests = plan.client_options.scenario.iter().flat_map(|scenario| &scenario.requests);
    let named: Vec<Option<&String>> = requests.map(|request| Some(&request.name)).collect();
    let names: Vec<Option<&String>> = if !kinds.is_empty() && named.len() == kinds.len() {
        named
    } else if kinds.is_empty() {
        vec![None]
    } else {
        kinds.iter().map(Some).collect()
    };
    let several = plan.targets.len() > 1;
    let targets = clients.iter().enumerate().map(|(at, _)| several.then(|| plan.targets[at].target.typed.clone()));
    let places = targets.flat_map(|target| names.iter().map(move |kind| (target.clone(), *kind)));
    let row = |((target, kind), group): ((Option<String>, Option<&String>), &tally::Group)| Group {
        target,
        kind: kind.cloned(),
        sent: group.window.sent,
        ok: group.window.ok,
        errors: owned(&group.window.errors),
        in_flight_at_end: group.window.in_flight,
        response: group.response.report(),
        whole_run: GroupCounts {
            sent: group.whole.sent,
            ok: group.whole.ok,
            errors: owned(&group.whole.errors),
            in_flight_at_end: group.whole.in_flight,
        },
    };
    places.zip(&tally.groups).map(row).collect()
}

/// What was due for each target.
fn streams(plan: &Plan, tally: &Tally) -> Vec<Stream> {
    let stream = |(resolved, of): (&ResolvedTarget, &tally::StreamTally)| Stream {
        target: resolved.target.typed.clone(),
        scheduled: of.scheduled[0],
        unsent: of.unsent[0],
        backlog_wait: of.backlog_wait.report(),
        generator_lag: of.generator_lag.report(),
        whole_run_scheduled: of.scheduled[1],
        whole_run_unsent: of.unsent[1],
    };
    plan.targets.iter().zip(&tally.streams).map(stream).collect()
}

fn sessions(plan: &Plan, tally: &Tally) -> Option<Sessions> {
    plan.traffic.sessions.as_ref()?;
    let sessions = &tally.sessions;
    let lengths = sessions.lengths.iter().enumerate().filter(|(_, count)| **count > 0);
    Some(Sessions {
        arrived: sessions.started + sessions.unstarted,
        completed: sessions.lengths.iter().sum(),
        broken: sessions.broken,
        in_progress_at_end: sessions.in_progress,
        unstarted: sessions.unstarted,
        lengths: lengths.map(|(exponent, count)| ((1_u64 << exponent).to_string(), *count)).collect(),
        duration: sessions.duration.report(),
        censored: sessions.censored,
    })
}

fn confidence(plan: &Plan, run: &Run) -> Option<Confidence> {
    let tally = &run.tally;
    let profile = plan.pacing.as_ref().is_some_and(|pacing| pacing.rate.steady().is_none());
    let sample = Sample {
        batches: &tally.batches,
        response: &tally.response,
        window_ns: window_ns(tally),
        replies: tally.window_replies,
        uneven: profile || plan.connections_over_time.is_some() || plan.requests().is_some(),
    };
    let mut confidence = sample.confidence(&plan.until_ci)?;
    // The last moments, after the end had been decided on, may have widened an interval by a hair.
    confidence.until_ci.iter_mut().for_each(|goal| goal.reached |= run.confident.is_some());
    Some(confidence)
}

fn cpu(run: &Run, server: Option<&ServerStats>) -> Cpu {
    let tally = &run.tally;
    let window_ns = window_ns(tally);
    let per_request = |ns: u64| ns.checked_div(tally.window_replies);
    let used = &tally.window_cpu;
    Cpu {
        client_ns_per_request: per_request(used.total_ns.saturating_sub(tally.spin_ns)),
        server_ns_per_request: run.server_cpu_ns.and_then(per_request),
        // A thousand threads for a day could be more than a file can say.
        client_ns: used.total_ns.min(integers::MOST),
        client_user_ns: used.user_ns.min(integers::MOST),
        client_system_ns: used.system_ns.min(integers::MOST),
        server_ns: run.server_cpu_ns,
        client_thread_max_percent: (tally.window_cpu_max_ns * 100).checked_div(window_ns).unwrap_or(0).min(100),
        client_memory_bytes: run.memory_bytes,
        server_memory_bytes: server.map(|stats| stats.memory_peak_bytes),
    }
}

/// What the generator did to itself.
fn generator(tally: &Tally) -> Generator {
    Generator {
        stalls: tally.stalls.count,
        stalled_ns: tally.stalls.total_ns,
        longest_stall_ns: tally.stalls.longest_ns,
        longest_stall_at_ns: tally.stalls.longest_at_ns,
        run_delay_ns: tally.run_delay_ns,
        spin_ns: tally.spin_ns,
    }
}

fn engine(plan: &Plan, tally: &Tally) -> EngineStats {
    let counters = &tally.engine;
    let calls: u64 = counters.syscalls.values().sum();
    let replies = if plan.protocol.shape.has_replies() { tally.whole.ok } else { 0 };
    EngineStats {
        name: plan.engine.name.to_owned(),
        instead_of: plan.instead_of.clone(),
        fallback: (plan.engine.fallback)(),
        syscalls: owned(&counters.syscalls),
        syscalls_per_1000_requests: (calls * 1000).checked_div(replies),
        events: counters.events,
        waits: counters.waits,
        ring: counters.ring.clone(),
    }
}
