//! What the measurements say about the machine, beside what it says about itself. Pure.

use super::{Examination, Reading};
use loadgen_core::machine::CpuTimes;
use loadgen_core::result::{Warning, Weight};
use loadgen_core::time::{NS_PER_MS, NS_PER_US};
use loadgen_core::units::format_duration;

/// Others may use so much of the CPUs at rest: a daemon or two.
const BUSY_AT_REST_PERCENT: u64 = 10;
const STEAL_PERCENT: u64 = 1;
pub(super) const RUN_DELAY_PERCENT: u64 = 5;
/// Rounds of the same thing that differ by more cannot tell a difference of a tenth.
const SPREAD_PERCENT: u64 = 10;
/// With the vDSO it is 20 to 60 ns.
const CLOCK_READ_NS: u64 = 200;
const TIMER_LATE_NS: u64 = NS_PER_MS;

/// What was measured and should be mended. What is of the machine, and would be found with each engine, is told once.
pub(super) fn findings(examination: &Examination) -> Vec<Warning> {
    let engines = &examination.engines;
    let worst = |figure: fn(&Reading) -> Option<u64>| engines.iter().max_by_key(|engine| figure(engine));
    let of_machine = [
        busy_at_rest(examination),
        steal(examination),
        throttled(examination),
        worst(Reading::spread_percent).and_then(spread),
        worst(Reading::run_delay_percent).and_then(run_delay),
        worst(timer_late_ns).and_then(timers),
        worst(clock_read_ns).and_then(|engine| slow_clock(engine, &examination.machine.clocksource)),
    ];
    of_machine.into_iter().chain(engines.iter().map(refused)).flatten().collect()
}

fn timer_late_ns(engine: &Reading) -> Option<u64> {
    engine.floor.as_ref()?.timer_late_p99()
}

fn clock_read_ns(engine: &Reading) -> Option<u64> {
    Some(engine.floor.as_ref()?.clock_read_ns)
}

fn warning(code: &str, weight: Weight, what: String, why: &str, remedy: &str) -> Option<Warning> {
    Some(Warning { code: code.to_owned(), weight, what, why: why.to_owned(), remedy: remedy.to_owned() })
}

fn busy_at_rest(examination: &Examination) -> Option<Warning> {
    let percent = examination.rest.map(|times| times.busy_percent()).filter(|busy| *busy >= BUSY_AT_REST_PERCENT)?;
    warning(
        "busy_at_rest",
        Weight::High,
        format!("{percent} % of the CPUs were busy while this program did nothing"),
        "what others take is missing in every measurement, and not equally in each",
        "`top -o %CPU` shows who it is; stop it, or measure elsewhere",
    )
}

fn steal(examination: &Examination) -> Option<Warning> {
    let CpuTimes { busy_ms, idle_ms, steal_ms } = examination.load?;
    let percent = (steal_ms * 100).checked_div(busy_ms + idle_ms + steal_ms)?;
    if percent < STEAL_PERCENT {
        return None;
    }
    warning(
        "steal",
        Weight::High,
        format!("the host gave {percent} % of the CPU time to others ({steal_ms} ms, steal)"),
        "while it does, nothing moves here: the wait is in the latency, and nobody here caused it",
        "`vmstat 1` (column st) shows it; take a machine with CPUs of its own, or measure when the host is quiet",
    )
}

fn throttled(examination: &Examination) -> Option<Warning> {
    let periods = examination.kernel.get("Cgroup.throttled_periods").filter(|periods| **periods > 0)?;
    warning(
        "throttled",
        Weight::High,
        format!("the control group's CPU quota was used up in {periods} periods of the measurement"),
        "until the next period begins everything stops, for tens of milliseconds",
        "give the container more CPUs or no quota (`docker run --cpus N`)",
    )
}

fn refused(engine: &Reading) -> Option<Warning> {
    let (cause, remedy) = engine.refusal.as_ref()?;
    let why = "this engine cannot be used here, or only in part";
    warning("engine", Weight::Low, format!("engine {}: {cause}", engine.name), why, remedy)
}

fn spread(engine: &Reading) -> Option<Warning> {
    let percent = engine.spread_percent().filter(|percent| *percent > SPREAD_PERCENT)?;
    warning(
        "spread",
        Weight::High,
        format!("{} short runs of engine {} differed by {percent} %", engine.rounds.len(), engine.name),
        "two measurements of the same thing differ by as much: a smaller difference between two is no finding",
        "run what is compared in turns and several times (`--duration 10s` and longer), and compare medians",
    )
}

fn run_delay(engine: &Reading) -> Option<Warning> {
    let percent = engine.run_delay_percent().filter(|percent| *percent >= RUN_DELAY_PERCENT)?;
    warning(
        "run_delay",
        Weight::High,
        format!("the client's thread (engine {}) waited for its CPU for {percent} % of a short run", engine.name),
        "something else ran on that CPU; a reply that arrives meanwhile is seen late, and looks slow",
        "stop what else runs (`top -o %CPU`), or give loadgen a CPU where nothing does (`--cpus N`)",
    )
}

fn timers(engine: &Reading) -> Option<Warning> {
    let late = timer_late_ns(engine).filter(|late| *late >= TIMER_LATE_NS).map(format_duration)?;
    warning(
        "timers",
        Weight::High,
        format!("engine {} wakes {late} late from one timed wait in a hundred", engine.name),
        "requests that are due at a time leave late by as much",
        "keep the CPUs awake (`cpupower idle-set -D 50` as root), and stop what else runs on them",
    )
}

fn slow_clock(engine: &Reading, source: &str) -> Option<Warning> {
    let each_ns = clock_read_ns(engine).filter(|each| *each >= CLOCK_READ_NS)?;
    let each = format_duration(each_ns);
    warning(
        "slow_clock",
        if each_ns < NS_PER_US { Weight::Low } else { Weight::High },
        format!("a look at the clock ({source}) takes {each}"),
        "there are two for each request, so this is part of what the generator costs",
        "as root: `echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource`, where \
         available_clocksource beside it lists tsc",
    )
}

#[cfg(test)]
mod tests {
    use super::super::Round;
    use super::*;
    use crate::capacity::Means;
    use loadgen_core::result::{Floor, Machine};
    use std::collections::BTreeMap;

    fn engine(rates: &[u64]) -> Reading {
        let round = |rate: &u64| Round {
            requests_per_s: *rate,
            client_ns_per_request: 6_000,
            busy_percent: 96,
            run_delay_percent: 1,
        };
        let floor =
            Floor { timer_samples: 1_000, timer_late_p99_ns: Some(60_000), clock_read_ns: 25, ..Floor::default() };
        Reading { name: "epoll", floor: Some(floor), rounds: rates.iter().map(round).collect(), ..Reading::default() }
    }

    fn calm() -> Examination {
        Examination {
            machine: Machine::default(),
            means: Means { descriptors: 1, ports: 1, memory_bytes: 1 },
            rest: Some(CpuTimes { busy_ms: 20, idle_ms: 1_980, steal_ms: 0 }),
            load: Some(CpuTimes { busy_ms: 4_000, idle_ms: 1_000, steal_ms: 10 }),
            kernel: BTreeMap::new(),
            engines: vec![engine(&[100, 105, 101]), engine(&[])],
            warnings: Vec::new(),
        }
    }

    fn codes(examination: &Examination) -> Vec<String> {
        findings(examination).into_iter().map(|warning| warning.code).collect()
    }

    #[test]
    fn a_calm_machine_is_not_complained_about() {
        assert_eq!(codes(&calm()), [""; 0]);
        let silent = Examination { rest: None, load: None, engines: Vec::new(), ..calm() };
        assert_eq!(codes(&silent), [""; 0]);
    }

    #[test]
    fn each_trouble_is_told() {
        let rest = Some(CpuTimes { busy_ms: 100, idle_ms: 900, steal_ms: 50 });
        assert_eq!(codes(&Examination { rest, ..calm() }), ["busy_at_rest"]);
        let load = Some(CpuTimes { busy_ms: 900, idle_ms: 80, steal_ms: 20 });
        assert_eq!(codes(&Examination { load, ..calm() }), ["steal"]);
        let kernel = BTreeMap::from([("Cgroup.throttled_periods".to_owned(), 3)]);
        assert_eq!(codes(&Examination { kernel, ..calm() }), ["throttled"]);
        let of = |engine: Reading| codes(&Examination { engines: vec![engine], ..calm() });
        assert_eq!(of(engine(&[100, 90, 102])), ["spread"]);
        let mut late = engine(&[100]);
        late.rounds[0].run_delay_percent = 5;
        late.floor.as_mut().unwrap().timer_late_p99_ns = Some(1_000_000);
        late.refusal = Some(("no".to_owned(), "yes".to_owned()));
        assert_eq!(of(late), ["run_delay", "timers", "engine"]);
        let mut slow = [engine(&[]), engine(&[])];
        slow.iter_mut().for_each(|engine| engine.floor.as_mut().unwrap().clock_read_ns = 900);
        assert_eq!(codes(&Examination { engines: slow.into(), ..calm() }), ["slow_clock"]);
    }
}
