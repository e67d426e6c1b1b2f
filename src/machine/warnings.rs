//! What about a machine can spoil a measurement: what was found, why it matters, what to do. Pure.

use crate::result::{Machine, Warning, Weight};
use crate::units::{format_count, format_duration, format_exact_count};

/// How a run uses the machine.
#[derive(Clone, Copy, Debug)]
pub struct Use {
    /// Threads that can be busy at the same time, the embedded server's among them.
    pub threads: u64,
    /// The server runs on this machine too.
    pub server_here: bool,
    /// loadgen was compiled without optimisation.
    pub debug_build: bool,
}

/// Clock sources that the vDSO reads without a system call, on x86, Arm and RISC-V.
const FAST_CLOCKS: &[&str] = &["tsc", "arch_sys_counter", "riscv_clocksource"];
/// Those of hypervisors: without a system call on most hosts, but not on all.
const GUEST_CLOCKS: &[&str] = &["kvm-clock", "hyperv_clocksource_tsc_page", "xen"];

/// Connections that people ask for; with fewer descriptors they do without, or with io_uring.
const DESCRIPTORS: u64 = 10_000;
/// Fewer local ports than this (of Linux's usual 28,232) are soon used up.
const PORTS: u64 = 16_000;
/// Linux's usual accept queue, at most; older kernels have 128.
const ACCEPT_QUEUE: u64 = 4_096;
/// Leaving an idle state that takes longer than this is seen in the latency of a quiet server.
const IDLE_EXIT_NS: u64 = 50_000;

/// Everything that is to be said about `machine`, the weightiest first.
pub fn warnings(machine: &Machine, of: Use) -> Vec<Warning> {
    const CHECKS: &[fn(&Machine, Use) -> Option<Warning>] = &[
        debug_build,
        one_cpu,
        cpu_quota,
        load,
        clock,
        governor,
        descriptors,
        ports,
        time_wait,
        accept_queue,
        idle_states,
        boost,
        threads_of_a_core,
        virtual_machine,
    ];
    let mut found: Vec<Warning> = CHECKS.iter().filter_map(|check| check(machine, of)).collect();
    found.sort_by_key(|warning| warning.weight);
    found
}

fn warning(
    code: &str,
    weight: Weight,
    what: impl Into<String>,
    why: impl Into<String>,
    remedy: impl Into<String>,
) -> Option<Warning> {
    Some(Warning { code: code.to_owned(), weight, what: what.into(), why: why.into(), remedy: remedy.into() })
}

fn debug_build(_: &Machine, of: Use) -> Option<Warning> {
    if !of.debug_build {
        return None;
    }
    warning(
        "debug_build",
        Weight::High,
        "this loadgen was compiled without optimisation",
        "it uses several times the CPU for each request, so that it is the limit before the target is",
        "`cargo build --release`, and run target/release/loadgen",
    )
}

/// CPUs that this process may use.
fn cpus(machine: &Machine) -> u64 {
    match super::cpus_in_list(&machine.cpus_allowed) {
        0 => machine.cpus,
        allowed => allowed,
    }
}

fn one_cpu(machine: &Machine, of: Use) -> Option<Warning> {
    if !of.server_here || cpus(machine) != 1 {
        return None;
    }
    warning(
        "one_cpu",
        Weight::High,
        "client and server share one CPU",
        "each waits for the other to leave the CPU: latency is that of the scheduler, and throughput that of both",
        "run loadgen where it may use two CPUs (`taskset -pc $$` shows which it may use), or aim at another machine",
    )
}

fn cpu_quota(machine: &Machine, of: Use) -> Option<Warning> {
    let quota = machine.cgroup.as_ref()?.cpu_quota_percent?;
    if quota >= of.threads * 100 {
        return None;
    }
    warning(
        "cpu_quota",
        Weight::High,
        format!("the control group allows {}.{:02} CPUs, for {} busy threads", quota / 100, quota % 100, of.threads),
        "when the quota of a period is used up, everything stops until the next: tens of milliseconds in the latency",
        format!("run without a quota, or with one of {} CPUs and more (`docker run --cpus {0}`)", of.threads),
    )
}

fn load(machine: &Machine, _: Use) -> Option<Warning> {
    let (load, cpus) = (machine.load_1m_percent, machine.cpus.max(1));
    if load <= cpus * 50 {
        return None;
    }
    warning(
        "load",
        Weight::High,
        format!("the load average before the run was {}.{:02} on {cpus} CPUs", load / 100, load % 100),
        "what other programs take of the CPUs is missing here, and looks like latency. (Runs within the last minute \
         count too.)",
        "stop them (`top -o %CPU` shows them), or wait a minute and see whether it sinks (`uptime`)",
    )
}

fn clock(machine: &Machine, _: Use) -> Option<Warning> {
    let source = machine.clocksource.as_str();
    if source.is_empty() || FAST_CLOCKS.contains(&source) {
        return None;
    }
    let guest = GUEST_CLOCKS.contains(&source);
    let (weight, may_be) = if guest { (Weight::Low, "may be") } else { (Weight::High, "is") };
    warning(
        "clocksource",
        weight,
        format!("the kernel reads the time from {source}"),
        format!("each time stamp {may_be} a system call then, and there are two for each request"),
        "`echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource` as root, where \
         available_clocksource beside it lists tsc",
    )
}

fn governor(machine: &Machine, _: Use) -> Option<Warning> {
    if machine.governors.iter().all(|governor| governor == "performance") {
        return None;
    }
    warning(
        "governor",
        Weight::High,
        format!("the CPU frequency governor is {}", machine.governors.join(" and ")),
        "the frequency follows the load: a quiet run is slower for each request, and two runs differ by themselves",
        "`cpupower frequency-set -g performance` as root",
    )
}

fn descriptors(machine: &Machine, _: Use) -> Option<Warning> {
    let limit = machine.descriptor_hard_limit.unwrap_or(machine.descriptor_limit);
    if limit == 0 || limit >= DESCRIPTORS {
        return None;
    }
    warning(
        "descriptors",
        Weight::Low,
        format!("a process may have {} descriptors", format_exact_count(limit)),
        "every connection is one, unless the engine is io_uring: there can be no more connections than that",
        "`ulimit -n 65536` as root before starting loadgen, or `--engine io_uring --server-engine io_uring`",
    )
}

fn ports(machine: &Machine, _: Use) -> Option<Warning> {
    let (first, last) = super::port_range(machine.sysctls.get("net.ipv4.ip_local_port_range")?)?;
    let ports = u64::from(last.saturating_sub(first)) + 1;
    if ports >= PORTS {
        return None;
    }
    warning(
        "ports",
        Weight::Low,
        format!("connections have {} local ports ({first} to {last})", format_exact_count(ports)),
        "each connection to one address and port takes one of them, and a closed one keeps it for a minute",
        "`sysctl -w net.ipv4.ip_local_port_range='16384 65000'`, or more source addresses (--source)",
    )
}

fn time_wait(machine: &Machine, _: Use) -> Option<Warning> {
    if machine.sysctls.get("net.ipv4.tcp_tw_reuse")? != "0" {
        return None;
    }
    warning(
        "tcp_tw_reuse",
        Weight::Low,
        "net.ipv4.tcp_tw_reuse is 0",
        "the port of a closed connection cannot be used again for a minute: churn (--requests-per-conn) runs out of \
         ports",
        "`sysctl -w net.ipv4.tcp_tw_reuse=1`",
    )
}

fn accept_queue(machine: &Machine, of: Use) -> Option<Warning> {
    let longest: u64 = machine.sysctls.get("net.core.somaxconn")?.parse().ok()?;
    if !of.server_here || longest >= ACCEPT_QUEUE {
        return None;
    }
    warning(
        "somaxconn",
        Weight::Low,
        format!("an accept queue holds {} connections at most", format_count(longest)),
        "when many connections are opened at once, handshakes that do not fit are dropped, and repeated after a second",
        format!("`sysctl -w net.core.somaxconn={ACCEPT_QUEUE}`, before the server starts"),
    )
}

fn idle_states(machine: &Machine, _: Use) -> Option<Warning> {
    let deepest = machine.idle_states.last().filter(|state| state.exit_latency_ns > IDLE_EXIT_NS)?;
    let latency = format_duration(deepest.exit_latency_ns);
    warning(
        "idle_states",
        Weight::Low,
        format!("an idle CPU may sleep as deep as {}, which takes {latency} to leave", deepest.name),
        "a request that finds its CPU asleep waits for that: at low load, latency is higher than at high load",
        format!("`cpupower idle-set -D {}` as root, for the time of the measurement", IDLE_EXIT_NS / 1_000),
    )
}

fn boost(machine: &Machine, _: Use) -> Option<Warning> {
    if machine.boost != Some(true) {
        return None;
    }
    warning(
        "boost",
        Weight::Low,
        "the CPUs may exceed their nominal frequency (boost)",
        "how long they can depends on heat and on the other cores: two runs differ by themselves",
        "as root: `echo 0 > /sys/devices/system/cpu/cpufreq/boost`, or with intel_pstate `echo 1 > \
         /sys/devices/system/cpu/intel_pstate/no_turbo`",
    )
}

fn threads_of_a_core(machine: &Machine, of: Use) -> Option<Warning> {
    if machine.smt.as_deref() != Some("on") || of.threads < 2 {
        return None;
    }
    warning(
        "smt",
        Weight::Low,
        "two CPUs may be two threads of one core (SMT)",
        "what one of them does slows the other down, by up to a half",
        "`lscpu -e` shows which belong together; give CPUs of different cores with --cpus",
    )
}

fn virtual_machine(machine: &Machine, _: Use) -> Option<Warning> {
    let kind = machine.virtualisation.as_ref()?;
    warning(
        "virtual_machine",
        Weight::Low,
        format!("this is a virtual machine ({kind})"),
        "the host may give its CPUs to others for a while (steal), and wake-ups take longer than on hardware",
        "look at steal (`vmstat 1`, column st), repeat runs interleaved, and compare ratios only",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{Cgroup, IdleState};
    use std::collections::BTreeMap;

    const CALM: Use = Use { threads: 2, server_here: true, debug_build: false };

    /// A machine that nobody need complain about.
    fn calm() -> Machine {
        let sysctls = [
            ("net.ipv4.ip_local_port_range", "32768 60999"),
            ("net.ipv4.tcp_tw_reuse", "2"),
            ("net.core.somaxconn", "4096"),
        ];
        Machine {
            cpus: 4,
            cpus_allowed: "0-3".to_owned(),
            clocksource: "tsc".to_owned(),
            sysctls: sysctls.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            descriptor_limit: 1_024,
            descriptor_hard_limit: Some(1_048_576),
            load_1m_percent: 200,
            governors: vec!["performance".to_owned()],
            boost: Some(false),
            smt: Some("off".to_owned()),
            idle_states: vec![IdleState { name: "C1".to_owned(), exit_latency_ns: 2_000 }],
            cgroup: Some(Cgroup { cpu_quota_percent: Some(200), ..Cgroup::default() }),
            ..Machine::default()
        }
    }

    fn codes(machine: &Machine, of: Use) -> Vec<String> {
        warnings(machine, of).into_iter().map(|warning| warning.code).collect()
    }

    #[test]
    fn a_calm_machine_and_one_that_says_nothing_are_not_complained_about() {
        assert_eq!(codes(&calm(), CALM), [""; 0]);
        assert_eq!(codes(&Machine::default(), CALM), [""; 0]);
    }

    #[test]
    fn each_trouble_is_told_by_its_own_word() {
        let sysctl = |name: &str, value: &str| {
            let mut machine = calm();
            machine.sysctls.insert(name.to_owned(), value.to_owned());
            machine
        };
        let deep = vec![IdleState { name: "C6".to_owned(), exit_latency_ns: 133_000 }];
        let cgroup = Some(Cgroup { cpu_quota_percent: Some(150), ..Cgroup::default() });
        let cases = [
            ("one_cpu", Machine { cpus_allowed: "3".to_owned(), ..calm() }),
            ("cpu_quota", Machine { cgroup, ..calm() }),
            ("load", Machine { load_1m_percent: 201, ..calm() }),
            ("clocksource", Machine { clocksource: "hpet".to_owned(), ..calm() }),
            ("clocksource", Machine { clocksource: "kvm-clock".to_owned(), ..calm() }),
            ("governor", Machine { governors: vec!["performance".to_owned(), "powersave".to_owned()], ..calm() }),
            ("descriptors", Machine { descriptor_hard_limit: Some(256), ..calm() }),
            ("ports", sysctl("net.ipv4.ip_local_port_range", "50000 50999")),
            ("tcp_tw_reuse", sysctl("net.ipv4.tcp_tw_reuse", "0")),
            ("somaxconn", sysctl("net.core.somaxconn", "128")),
            ("idle_states", Machine { idle_states: deep, ..calm() }),
            ("boost", Machine { boost: Some(true), ..calm() }),
            ("smt", Machine { smt: Some("on".to_owned()), ..calm() }),
            ("virtual_machine", Machine { virtualisation: Some("kvm".to_owned()), ..calm() }),
        ];
        for (code, machine) in cases {
            assert_eq!(codes(&machine, CALM), [code]);
            let warning = &warnings(&machine, CALM)[0];
            for text in [&warning.what, &warning.why, &warning.remedy] {
                assert!(text.len() > 15 && !text.contains('\n') && !text.contains("  "), "{text}");
            }
        }
        assert_eq!(codes(&calm(), Use { debug_build: true, ..CALM }), ["debug_build"]);
    }

    #[test]
    fn a_server_elsewhere_needs_neither_our_cpu_nor_our_accept_queue() {
        let elsewhere = Use { threads: 1, server_here: false, debug_build: false };
        let sysctls = BTreeMap::from([("net.core.somaxconn".to_owned(), "128".to_owned())]);
        let machine = Machine { cpus_allowed: "3".to_owned(), sysctls, smt: Some("on".to_owned()), ..calm() };
        assert_eq!(codes(&machine, elsewhere), [""; 0]);
    }

    #[test]
    fn the_weightiest_comes_first() {
        let machine = Machine {
            virtualisation: Some("kvm".to_owned()),
            descriptor_hard_limit: Some(256),
            load_1m_percent: 400,
            ..calm()
        };
        assert_eq!(codes(&machine, CALM), ["load", "descriptors", "virtual_machine"]);
    }
}
