//! What the doctor says, for people and for programs.

use super::{Examination, Reading, findings};
use crate::capacity::Bound;
use loadgen_core::machine::CpuTimes;
use loadgen_core::report::text::Page;
use loadgen_core::result::{FLOOR_SAMPLES_LEAST, Machine, Weight};
use loadgen_core::units::{format_count, format_duration, format_exact_count, format_size};
use serde_json::{Value, json};

pub(super) fn text(examination: &Examination) -> String {
    let mut page = Page::default();
    machine(&examination.machine, &mut page);
    connections(examination, &mut page);
    examination.engines.iter().for_each(|reading| engine(reading, &mut page));
    noise(examination, &mut page);
    warnings(examination, &mut page);
    page.0
}

fn machine(machine: &Machine, page: &mut Page) {
    let memory = format_size(machine.memory_bytes);
    let kinds: Vec<String> = [&machine.virtualisation, &machine.container]
        .into_iter()
        .zip(["virtual machine", "container"])
        .filter_map(|(kind, what)| Some(format!("; {what}: {}", kind.as_ref()?)))
        .collect();
    let (cpus, allowed, kinds) = (machine.cpus, &machine.cpus_allowed, kinds.concat());
    let kernel = &machine.kernel;
    let cpu = &machine.cpu_model;
    page.line("machine", &format!("Linux {kernel}; {cpu}, {cpus} CPUs (allowed: {allowed}), {memory}{kinds}"));
    let or = |text: &str| if text.is_empty() { "not shown".to_owned() } else { text.to_owned() };
    let known = |text: &Option<String>| or(text.as_deref().unwrap_or_default());
    let boost = machine.boost.map_or("not shown", |on| if on { "on" } else { "off" });
    let deepest = machine.idle_states.last();
    let deepest = deepest.map_or_else(String::new, |state| {
        format!(", deepest state {} ({} to leave)", state.name, format_duration(state.exit_latency_ns))
    });
    let idle = format!("{}{deepest}", known(&machine.idle_driver));
    let governors = or(&machine.governors.join(", "));
    page.line("CPU", &format!("governor {governors}; boost {boost}; SMT {}; idle driver {idle}", known(&machine.smt)));
    let mitigations: Vec<String> = machine.mitigations.iter().map(|(name, what)| format!("{name}: {what}")).collect();
    let option = machine.mitigations_option.as_ref().map_or_else(String::new, |option| format!("{option}; "));
    page.line("mitigations", &format!("{option}{}", or(&mitigations.join(", "))));
    if let Some(cgroup) = &machine.cgroup {
        let quota = cgroup.cpu_quota_percent.map(|percent| format!("CPU time {percent} % of one CPU"));
        let memory = cgroup.memory_limit_bytes.map(|bytes| format!("memory {}", format_size(bytes)));
        let cpuset = cgroup.cpuset.as_ref().map(|cpus| format!("CPUs {cpus}"));
        let throttled = cgroup.throttled_periods.map(|periods| format!("throttled in {periods} periods"));
        let all: Vec<String> = [quota, memory, cpuset, throttled].into_iter().flatten().collect();
        page.line("cgroup", &all.join(", "));
    }
    let sysctl = |name: &str| or(machine.sysctls.get(name).map_or("", String::as_str));
    let (queue, ports) = (sysctl("net.core.somaxconn"), sysctl("net.ipv4.ip_local_port_range"));
    page.line(
        "network",
        &format!("{}; accept queue {queue} at most; local ports {ports}", or(&machine.congestion_control)),
    );
}

fn connections(examination: &Examination, page: &mut Page) {
    let means = &examination.means;
    let show = |Bound { connections, by }: Bound| format!("{} ({by})", format_exact_count(connections));
    let each = |rings: bool| {
        let (here, there) = (show(means.bound(true, rings)), show(means.bound(false, rings)));
        format!("to a server here {here}, to one elsewhere {there}")
    };
    page.line("connections", &format!("at most, {}", each(false)));
    if examination.engines.iter().any(|engine| engine.name == "io_uring" && engine.refusal.is_none()) {
        page.line("", &format!("with io_uring on both sides, {}", each(true)));
    }
}

fn engine(reading: &Reading, page: &mut Page) {
    if let Some((cause, remedy)) = &reading.refusal {
        page.line(reading.name, &format!("cannot be measured: {cause}"));
        page.0.push_str(&format!("             do:  {remedy}\n"));
    }
    if let Some(floor) = &reading.floor {
        let label = if reading.refusal.is_none() { reading.name } else { "" };
        // `-`: it would rest on too few values, and be chance.
        let shown = |ns: Option<u64>| ns.map_or_else(|| "-".to_owned(), format_duration);
        let [p50, p90, p99, p999] =
            [floor.response_p50(), reading.response_p90_ns, floor.response_p99(), reading.response_p999_ns].map(shown);
        page.line(label, &format!("floor    p50 {p50}  p90 {p90}  p99 {p99}  p99.9 {p999}"));
        if floor.response_p50().is_none() {
            let few = format_exact_count(floor.samples);
            page.line("", &format!("         unknown: {few} round trips came back, of {FLOOR_SAMPLES_LEAST} it takes"));
        }
        let [p50, p99] = [floor.timer_late_p50(), floor.timer_late_p99()].map(shown);
        let max = format_duration(floor.timer_late_max_ns);
        let clock = format_duration(floor.clock_read_ns);
        page.line("", &format!("timers   late by p50 {p50}  p99 {p99}  max {max}; clock {clock} a look"));
    }
    if let (Some(rate), Some(cost), Some(busy), Some(spread)) = (
        reading.median(|round| round.requests_per_s),
        reading.median(|round| round.client_ns_per_request),
        reading.median(|round| round.busy_percent),
        reading.spread_percent(),
    ) {
        let limit = match reading.run_delay_percent() {
            _ if busy >= 90 => "the client was the limit",
            Some(percent) if percent >= findings::RUN_DELAY_PERCENT => "others had its CPU",
            _ => "the server was the limit",
        };
        let cost = format_duration(cost);
        page.line("", &format!("ceiling  {} requests/s at {cost} of client CPU each;", format_count(rate)));
        page.line("", &format!("         its thread {busy} % busy ({limit}); {spread} % from worst to best run"));
    } else if reading.floor.is_some() {
        let (well, few) = (reading.rounds.len(), super::ROUNDS_LEAST);
        page.line("", &format!("ceiling  unknown: {well} of {} short runs ended well, it takes {few}", super::ROUNDS));
    }
    if let Some(fallback) = &reading.fallback {
        page.line("", &format!("waits    by {fallback}"));
    }
    if !reading.ring_setup.is_empty() {
        page.line("", &format!("granted  {}", reading.ring_setup.join(", ")));
        let options = if reading.ring_options.is_empty() { "none".into() } else { reading.ring_options.join(", ") };
        page.line("", &format!("options  that work here: {options}"));
    }
}

fn noise(examination: &Examination, page: &mut Page) {
    let busy = |times: Option<CpuTimes>| times.map_or_else(|| "-".to_owned(), |times| times.busy_percent().to_string());
    let steal = examination.load.map_or_else(|| "-".to_owned(), |times| times.steal_ms.to_string());
    let waited = examination.engines.iter().filter_map(Reading::run_delay_percent).max();
    let waited = waited.map_or_else(|| "-".to_owned(), |percent| percent.to_string());
    let (rest, load) = (busy(examination.rest), busy(examination.load));
    let text = format!(
        "CPUs {rest} % busy at rest, {load} % under load; steal {steal} ms; the client waited for its CPU {waited} % \
         of the time"
    );
    page.line("noise", &text);
}

/// The remedy stands on a line of its own that is not wrapped: it is there to be copied.
fn warnings(examination: &Examination, page: &mut Page) {
    if examination.warnings.is_empty() {
        page.line("warnings", "none");
    }
    for warning in &examination.warnings {
        let label = if warning.weight == Weight::High { "WARNING" } else { "note" };
        page.line(label, &format!("{}: {}", warning.code, warning.what));
        page.line("", &format!("why: {}", warning.why));
        page.0.push_str(&format!("             do:  {}\n", warning.remedy));
    }
}

pub(super) fn json(examination: &Examination) -> String {
    let means = &examination.means;
    let bound = |loopback: bool, rings: bool| {
        let Bound { connections, by } = means.bound(loopback, rings);
        json!({"connections": connections, "bound_by": by})
    };
    let times = |times: Option<CpuTimes>| {
        let times = times?;
        let CpuTimes { busy_ms, idle_ms, steal_ms } = times;
        let busy_percent = times.busy_percent();
        Some(json!({"busy_ms": busy_ms, "idle_ms": idle_ms, "steal_ms": steal_ms, "busy_percent": busy_percent}))
    };
    let value = json!({
        "schema": "loadgen.doctor/1",
        "tool": {"name": "loadgen", "version": env!("CARGO_PKG_VERSION")},
        "machine": examination.machine,
        "means": {
            "descriptors": means.descriptors,
            "ports_per_source": means.ports,
            "available_memory_bytes": means.memory_bytes,
        },
        "connections": {
            "loopback": bound(true, false),
            "foreign": bound(false, false),
            "loopback_io_uring": bound(true, true),
            "foreign_io_uring": bound(false, true),
        },
        "engines": examination.engines.iter().map(engine_json).collect::<Vec<Value>>(),
        "rest": times(examination.rest),
        "load": times(examination.load),
        "kernel": examination.kernel,
        "warnings": examination.warnings,
    });
    format!("{value:#}\n")
}

fn engine_json(reading: &Reading) -> Value {
    let refusal = reading.refusal.as_ref().map(|(cause, remedy)| json!({"cause": cause, "remedy": remedy}));
    let round = |round: &super::Round| {
        json!({
            "requests_per_s": round.requests_per_s,
            "client_ns_per_request": round.client_ns_per_request,
            "busy_percent": round.busy_percent,
            "run_delay_percent": round.run_delay_percent,
        })
    };
    json!({
        "name": reading.name,
        "refusal": refusal,
        "fallback": reading.fallback,
        "floor": reading.floor,
        "response_p90_ns": reading.response_p90_ns,
        "response_p999_ns": reading.response_p999_ns,
        "ceiling_requests_per_s": reading.median(|round| round.requests_per_s),
        "client_ns_per_request": reading.median(|round| round.client_ns_per_request),
        "spread_percent": reading.spread_percent(),
        "rounds": reading.rounds.iter().map(round).collect::<Vec<Value>>(),
        "ring_setup": reading.ring_setup,
        "ring_options": reading.ring_options,
    })
}
