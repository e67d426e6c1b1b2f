//! The shards of one run as one report. Histograms and counts are added exactly; what cannot be added is left out, and
//! docs/shards.md says for each field which it is.

mod check;
mod notes;
mod windows;

pub use check::MergeError;

use super::{
    Connections, Cpu, EngineStats, Environment, ErrorRow, Floor, Generator, Histogram, Latency, Ledger, Merged, Phases,
    Report, RingStats, Scenario,
};
use super::{Tls, breakdown, datagrams, traffic};
use crate::histogram::Recorder;
use std::collections::{BTreeMap, BTreeSet};
use windows::{Windows, add_all};

/// One report of all shards of a run, given in any order. What is no sum, like the environment or the command line, is
/// that of shard 0.
///
/// # Errors
/// If they are not all shards of one run, each once, that counted in the same way.
pub fn merge(reports: &[Report]) -> Result<Report, MergeError> {
    let order = check::order(reports)?;
    check::compatible(reports, &order)?;
    let shards: Vec<&Report> = order.iter().map(|at| &reports[*at]).collect();
    let windows = Windows::new(&shards);
    let (throughput, clipped) = windows.throughput(&shards);
    let ledger = ledger(&shards);
    let first = shards[0];
    Ok(Report {
        schema: first.schema.clone(),
        tool: first.tool.clone(),
        command: first.command.clone(),
        // All in one spelling, so that their order is that of time.
        started_at: shards.iter().map(|shard| &shard.started_at).min().cloned().unwrap_or_default(),
        partial: shards.iter().any(|shard| shard.partial),
        scenario: scenario(&shards),
        environment: environment(&shards),
        phases: phases(&shards, throughput.window_ns),
        throughput,
        connections: connections(&shards),
        errors: errors(&shards, &windows.offsets()),
        latency: latency(&shards),
        breakdown: breakdown::merge(&shards),
        streams: traffic::merge_streams(&shards),
        sessions: traffic::merge_sessions(&shards),
        datagrams: datagrams::merge(&shards),
        tls: Tls::merge(shards.iter().filter_map(|shard| shard.tls.clone())),
        counted: sum_by_key(shards.iter().map(|shard| &shard.counted)),
        confidence: None,
        series: windows.series(&shards),
        cpu: cpu(&shards),
        generator: generator(&shards, &windows.offsets()),
        server: shards.iter().find_map(|shard| shard.server.clone()).filter(|_| shards.len() == 1),
        kernel: kernel(&shards),
        engine: engine(&shards, ledger.whole_run.as_ref().map_or(0, |whole| whole.ok)),
        ledger,
        floor: floor(&shards),
        verdict: notes::verdict(&shards, &windows),
        // They were about the parts: `loadgen report --fail-if` judges the whole.
        limits: Vec::new(),
        labels: labels(&shards),
        shard: None,
        merged: Some(Merged {
            shards: shards.iter().filter_map(|shard| notes::summary(shard)).collect(),
            windows_apart_ns: windows.apart_ns,
            throughput_of: if clipped { "series" } else { "windows" }.to_owned(),
            notes: notes::notes(&shards, &windows, clipped),
        }),
        ab: None,
        checksum: None,
    })
}

fn sum(shards: &[&Report], of: impl Fn(&Report) -> u64) -> u64 {
    add_all(shards.iter().map(|shard| of(shard)))
}

fn most(shards: &[&Report], of: impl Fn(&Report) -> u64) -> u64 {
    shards.iter().map(|shard| of(shard)).max().unwrap_or(0)
}

/// The sum of those that are known.
fn sum_known(shards: &[&Report], of: impl Fn(&Report) -> Option<u64>) -> Option<u64> {
    shards.iter().filter_map(|shard| of(shard)).reduce(u64::saturating_add)
}

fn sum_by_key<'a>(counts: impl Iterator<Item = &'a BTreeMap<String, u64>>) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::<String, u64>::new();
    for (key, count) in counts.flatten() {
        let sum = all.entry(key.clone()).or_default();
        *sum = sum.saturating_add(*count);
    }
    all
}

/// That of all: each shard may have resolved the target's name in its own way.
fn scenario(shards: &[&Report]) -> Scenario {
    let mut scenario = shards[0].scenario.clone();
    for address in shards.iter().flat_map(|shard| &shard.scenario.resolved) {
        if !scenario.resolved.contains(address) {
            scenario.resolved.push(address.clone());
        }
    }
    scenario
}

/// The first shard's machine stands for all; what may have spoilt any of them is kept.
fn environment(shards: &[&Report]) -> Environment {
    let mut environment = shards[0].environment.clone();
    for warning in shards.iter().flat_map(|shard| &shard.environment.warnings) {
        if !environment.warnings.iter().any(|known| (&known.code, &known.what) == (&warning.code, &warning.what)) {
            environment.warnings.push(warning.clone());
        }
    }
    environment.warnings.sort_by_key(|warning| warning.weight);
    environment
}

/// The longest of each; the window is that of `throughput`.
fn phases(shards: &[&Report], window_ns: u64) -> Phases {
    Phases {
        ramp_ns: most(shards, |shard| shard.phases.ramp_ns),
        warmup_ns: most(shards, |shard| shard.phases.warmup_ns),
        measure_ns: window_ns,
        drain_ns: most(shards, |shard| shard.phases.drain_ns),
        window_started_unix_us: shards.iter().filter_map(|shard| shard.phases.window_started_unix_us).max(),
        start_late_ns: shards.iter().filter_map(|shard| shard.phases.start_late_ns).max(),
    }
}

fn ledger(shards: &[&Report]) -> Ledger {
    let whole: Option<Vec<&Ledger>> = shards.iter().map(|shard| shard.ledger.whole_run.as_deref()).collect();
    let window: Vec<&Ledger> = shards.iter().map(|shard| &shard.ledger).collect();
    Ledger { whole_run: whole.map(|whole| Box::new(ledger_sum(&whole))), ..ledger_sum(&window) }
}

fn ledger_sum(ledgers: &[&Ledger]) -> Ledger {
    let sum = |of: fn(&Ledger) -> u64| add_all(ledgers.iter().map(|ledger| of(ledger)));
    Ledger {
        scheduled: sum(|l| l.scheduled),
        unsent: sum(|l| l.unsent),
        sent: sum(|l| l.sent),
        ok: sum(|l| l.ok),
        errors: sum_by_key(ledgers.iter().map(|ledger| &ledger.errors)),
        in_flight_at_end: sum(|l| l.in_flight_at_end),
        whole_run: None,
    }
}

fn connections(shards: &[&Report]) -> Connections {
    let sum = |of: fn(&Connections) -> u64| add_all(shards.iter().map(|shard| of(&shard.connections)));
    Connections {
        requested: sum(|c| c.requested),
        established: sum(|c| c.established),
        served: sum(|c| c.served),
        alive_at_end: sum(|c| c.alive_at_end),
        attempts: sum(|c| c.attempts),
        opened: sum(|c| c.opened),
        failed: sum_by_key(shards.iter().map(|shard| &shard.connections.failed)),
        unfinished: sum(|c| c.unfinished),
        closed: sum(|c| c.closed),
        closed_by_server: sum(|c| c.closed_by_server),
        lost: sum(|c| c.lost),
        turned_away: sum(|c| c.turned_away),
        requests_cut_off: sum(|c| c.requests_cut_off),
        closed_by_reset: sum(|c| c.closed_by_reset),
        opened_per_s: sum_known(shards, |shard| shard.connections.opened_per_s),
        // Each machine has ports of its own: the worst of them.
        time_wait: shards.iter().filter_map(|s| s.connections.time_wait.clone()).max_by_key(|of| of.closes_per_s),
    }
}

/// Counts by kind and phase. The example is the earliest; times count from the beginning of the first shard.
fn errors(shards: &[&Report], offsets: &[u64]) -> Vec<ErrorRow> {
    let mut rows: Vec<ErrorRow> = Vec::new();
    for (shard, offset_ns) in shards.iter().zip(offsets) {
        for row in &shard.errors {
            let row = ErrorRow { first_at_ns: row.first_at_ns.saturating_add(*offset_ns), ..row.clone() };
            match rows.iter_mut().find(|known| (&known.kind, &known.phase) == (&row.kind, &row.phase)) {
                None => rows.push(row),
                Some(known) => {
                    let count = known.count.saturating_add(row.count);
                    if row.first_at_ns < known.first_at_ns {
                        *known = row;
                    }
                    known.count = count;
                }
            }
        }
    }
    rows.sort_by_key(|row| (row.first_at_ns, row.kind.clone()));
    rows
}

fn latency(shards: &[&Report]) -> Latency {
    let all = |of: fn(&Latency) -> &Option<Histogram>| {
        let mut sum = Recorder::new();
        // Those that cannot be read were refused before.
        shards
            .iter()
            .filter_map(|shard| Recorder::from_report(of(&shard.latency).as_ref()?).ok())
            .for_each(|recorder| sum.merge(&recorder));
        sum.report()
    };
    Latency {
        response: all(|l| &l.response),
        service: all(|l| &l.service),
        connect: all(|l| &l.connect),
        handshake: all(|l| &l.handshake),
        backlog_wait: all(|l| &l.backlog_wait),
        generator_lag: all(|l| &l.generator_lag),
        censored: sum(shards, |shard| shard.latency.censored),
        carried_ns: shards.iter().map(|shard| shard.latency.carried_ns).sum(),
    }
}

/// CPU time and memory of all processes together; per request of their own windows.
fn cpu(shards: &[&Report]) -> Cpu {
    let replies = sum(shards, |shard| shard.throughput.replies);
    let per_request = |ns: u64| ns.checked_div(replies);
    let client_ns = sum(shards, |shard| shard.cpu.client_ns);
    let spin_ns = sum(shards, |shard| shard.generator.as_ref().map_or(0, |generator| generator.spin_ns));
    let server_ns = sum_known(shards, |shard| shard.cpu.server_ns);
    Cpu {
        client_ns_per_request: per_request(client_ns.saturating_sub(spin_ns)),
        server_ns_per_request: server_ns.and_then(per_request),
        client_ns,
        client_user_ns: sum(shards, |shard| shard.cpu.client_user_ns),
        client_system_ns: sum(shards, |shard| shard.cpu.client_system_ns),
        server_ns,
        client_thread_max_percent: most(shards, |shard| shard.cpu.client_thread_max_percent),
        client_memory_bytes: sum(shards, |shard| shard.cpu.client_memory_bytes),
        server_memory_bytes: sum_known(shards, |shard| shard.cpu.server_memory_bytes),
    }
}

fn generator(shards: &[&Report], offsets: &[u64]) -> Option<Generator> {
    let known =
        || shards.iter().zip(offsets).filter_map(|(shard, offset_ns)| Some((shard.generator.as_ref()?, offset_ns)));
    let sum = |of: fn(&Generator) -> u64| add_all(known().map(|(generator, _)| of(generator)));
    // The first of the longest.
    let (longest, offset_ns) = known().rev().max_by_key(|(generator, _)| generator.longest_stall_ns)?;
    Some(Generator {
        stalls: sum(|g| g.stalls),
        stalled_ns: sum(|g| g.stalled_ns),
        longest_stall_ns: longest.longest_stall_ns,
        longest_stall_at_ns: longest.longest_stall_at_ns.saturating_add(*offset_ns),
        run_delay_ns: known().map(|(generator, _)| generator.run_delay_ns).max()?,
        spin_ns: sum(|g| g.spin_ns),
    })
}

/// The counters of a kernel are all its processes': shards on one have all counted the same, each while it ran. So of
/// those the largest figure counts, which is at most too small; those of different kernels add up.
fn kernel(shards: &[&Report]) -> BTreeMap<String, i64> {
    let mut by_kernel = BTreeMap::<(&str, Option<&String>), i64>::new();
    for shard in shards {
        let whose = shard.shard.as_ref();
        for (name, value) in &shard.kernel {
            // CPUs are the machine's; all else a container has of its own.
            let machine = name.starts_with("Cpu.");
            let kernel_of = whose.and_then(|s| if machine { s.machine.as_ref() } else { s.network.as_ref() });
            let known = by_kernel.entry((name, kernel_of)).or_default();
            if value.unsigned_abs() > known.unsigned_abs() {
                *known = *value;
            }
        }
    }
    let mut kernel = BTreeMap::<String, i64>::new();
    for ((name, _), value) in by_kernel {
        let sum = kernel.entry(name.to_owned()).or_default();
        *sum = sum.saturating_add(value);
    }
    kernel
}

fn engine(shards: &[&Report], replies: u64) -> EngineStats {
    let syscalls = sum_by_key(shards.iter().map(|shard| &shard.engine.syscalls));
    let calls = add_all(syscalls.values().copied());
    let counted = shards.iter().any(|shard| shard.engine.syscalls_per_1000_requests.is_some());
    let mut ring: Option<RingStats> = None;
    for other in shards.iter().filter_map(|shard| shard.engine.ring.as_ref()) {
        ring.get_or_insert_default().merge(other);
    }
    EngineStats {
        name: shards[0].engine.name.clone(),
        instead_of: shards.iter().find_map(|shard| shard.engine.instead_of.clone()),
        fallback: shards.iter().find_map(|shard| shard.engine.fallback.clone()),
        syscalls_per_1000_requests: calls.saturating_mul(1000).checked_div(replies).filter(|_| counted),
        syscalls,
        events: sum(shards, |shard| shard.engine.events),
        waits: sum(shards, |shard| shard.engine.waits),
        ring,
    }
}

/// The worst: that of the generator with the slowest round trips, as far as they are known.
fn floor(shards: &[&Report]) -> Option<Floor> {
    let floors = shards.iter().rev().filter_map(|shard| shard.floor.as_ref());
    floors.max_by_key(|floor| (floor.response_p50(), floor.response_p99())).cloned()
}

/// Those that all shards have.
fn labels(shards: &[&Report]) -> BTreeMap<String, String> {
    let mut labels = shards[0].labels.clone();
    labels.retain(|key, value| shards.iter().all(|shard| shard.labels.get(key) == Some(value)));
    labels
}

/// Machines that took part, as far as they are known.
fn machines<'a>(shards: &[&'a Report]) -> BTreeSet<Option<&'a String>> {
    shards.iter().map(|shard| shard.shard.as_ref().and_then(|shard| shard.machine.as_ref())).collect()
}
