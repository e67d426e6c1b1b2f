//! What the kernel counted: before a run and after it, so that the difference is known.

use super::{Root, cgroup};
use std::collections::BTreeMap;

/// Counters whose movement during a run says that the network stack dropped, delayed or repeated something, and the
/// number of connections opened, which puts the rest in proportion. Below them: CPU time that others took from us.
const COUNTERS: &[&str] = &[
    "Tcp.ActiveOpens",
    "Tcp.AttemptFails",
    "Tcp.EstabResets",
    "Tcp.OutRsts",
    "Tcp.RetransSegs",
    "TcpExt.ListenDrops",
    "TcpExt.ListenOverflows",
    "TcpExt.SyncookiesSent",
    "TcpExt.TCPAbortOnClose",
    "TcpExt.TCPAbortOnData",
    "TcpExt.TCPAbortOnMemory",
    "TcpExt.TCPBacklogDrop",
    "TcpExt.TCPLossProbes",
    "TcpExt.TCPMemoryPressures",
    "TcpExt.TCPRcvQDrop",
    "TcpExt.TCPReqQFullDoCookies",
    "TcpExt.TCPReqQFullDrop",
    "TcpExt.TCPSpuriousRtxHostQueues",
    "TcpExt.TCPSynRetrans",
    "TcpExt.TCPTimeWaitOverflow",
    "TcpExt.TCPTimeouts",
    "Udp.RcvbufErrors",
    "Udp.SndbufErrors",
    THROTTLED,
    STEAL,
];

/// Periods in which the control group's CPU quota was used up.
const THROTTLED: &str = "Cgroup.throttled_periods";
/// CPU time that a hypervisor gave to others while we wanted it, all CPUs together.
const STEAL: &str = "Cpu.steal_ms";

/// The unit of `/proc/stat` (USER_HZ, 100 a second on every Linux that we run on).
const TICK_MS: u64 = 10;

/// The counters of this network namespace, and of this machine's CPUs, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelCounters(BTreeMap<String, i64>);

impl KernelCounters {
    /// The counters now; empty where they cannot be read.
    pub fn read() -> Self {
        let root = Root::system();
        let mut counters = parse_counters(&root.read("proc/net/snmp"));
        counters.append(&mut parse_counters(&root.read("proc/net/netstat")));
        let steal = CpuTimes::read().map(|times| times.steal_ms as i64);
        let throttled = cgroup::throttled_periods(root).map(|periods| periods as i64);
        for (name, value) in [(STEAL, steal), (THROTTLED, throttled)] {
            if let Some(value) = value {
                counters.insert(name.to_owned(), value);
            }
        }
        Self(counters)
    }

    /// What moved since `earlier`, by name (`TcpExt.ListenOverflows`).
    pub fn since(&self, earlier: &Self) -> BTreeMap<String, i64> {
        let difference = |name: &str| Some(self.0.get(name)?.wrapping_sub(*earlier.0.get(name)?));
        COUNTERS
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), difference(name)?)))
            .filter(|(_, moved)| *moved != 0)
            .collect()
    }
}

/// Pairs of lines, names and values: `TcpExt: SyncookiesSent …` and `TcpExt: 0 …`. Columns differ between kernels, so
/// they are taken by name.
fn parse_counters(text: &str) -> BTreeMap<String, i64> {
    let mut counters = BTreeMap::new();
    let lines: Vec<&str> = text.lines().collect();
    for pair in lines.chunks_exact(2) {
        let (Some((group, names)), Some((same, values))) = (pair[0].split_once(':'), pair[1].split_once(':')) else {
            continue;
        };
        if group != same {
            continue;
        }
        for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
            if let Ok(value) = value.parse() {
                counters.insert(format!("{group}.{name}"), value);
            }
        }
    }
    counters
}

/// What all CPUs of this machine did since it started, in milliseconds (in steps of ten).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTimes {
    pub busy_ms: u64,
    pub idle_ms: u64,
    /// Part of neither: a hypervisor ran somebody else.
    pub steal_ms: u64,
}

impl CpuTimes {
    /// Now; None where the kernel does not say.
    pub fn read() -> Option<Self> {
        parse_cpu_times(&Root::system().read("proc/stat"))
    }

    /// What passed since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            busy_ms: self.busy_ms.saturating_sub(earlier.busy_ms),
            idle_ms: self.idle_ms.saturating_sub(earlier.idle_ms),
            steal_ms: self.steal_ms.saturating_sub(earlier.steal_ms),
        }
    }

    /// How busy the CPUs were, steal included: nobody else could have had that time.
    pub fn busy_percent(&self) -> u64 {
        let busy = self.busy_ms + self.steal_ms;
        (busy * 100).checked_div(busy + self.idle_ms).unwrap_or(0)
    }
}

/// The line `cpu  user nice system idle iowait irq softirq steal …`. Guests are part of user already.
fn parse_cpu_times(stat: &str) -> Option<CpuTimes> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
    let at = |index: usize| ticks.get(index).copied().unwrap_or(0) * TICK_MS;
    (ticks.len() >= 4).then(|| CpuTimes {
        busy_ms: at(0) + at(1) + at(2) + at(5) + at(6),
        idle_ms: at(3) + at(4),
        steal_ms: at(7),
    })
}

/// How long the calling thread could run and had to wait for a CPU, since it began; 0 where the kernel does not say
/// (the second figure of `schedstat`, Documentation/scheduler/sched-stats.rst).
pub fn thread_run_delay_ns() -> u64 {
    let words = Root::system().read("proc/thread-self/schedstat");
    words.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SNMP: &str = "Ip: Forwarding DefaultTTL\nIp: 1 64\n\
        Tcp: RtoAlgorithm MaxConn ActiveOpens RetransSegs\nTcp: 1 -1 120 7\n";

    #[test]
    fn counters_are_taken_by_name() {
        let counters = parse_counters(SNMP);
        assert_eq!(counters.get("Tcp.RetransSegs"), Some(&7));
        assert_eq!(counters.get("Tcp.MaxConn"), Some(&-1));
        assert!(parse_counters("Tcp: A B\nIp: 1 2\nnonsense").is_empty());
    }

    #[test]
    fn only_relevant_counters_that_moved_are_told() {
        let earlier = KernelCounters(parse_counters(SNMP));
        let later = KernelCounters(parse_counters(&SNMP.replace("120 7", "125 7").replace("1 64", "1 65")));
        assert_eq!(later.since(&earlier), BTreeMap::from([("Tcp.ActiveOpens".to_owned(), 5)]));
        assert!(later.since(&KernelCounters::default()).is_empty());
    }

    #[test]
    fn cpu_times_are_those_of_all_cpus() {
        let earlier = parse_cpu_times("cpu  100 0 50 1000 10 0 5 2 0 0\ncpu0 50 0 25 500 5 0 2 1 0 0\n").unwrap();
        assert_eq!(earlier, CpuTimes { busy_ms: 1_550, idle_ms: 10_100, steal_ms: 20 });
        let later = parse_cpu_times("cpu  130 0 60 1050 10 0 5 12 0 0").unwrap().since(&earlier);
        assert_eq!((later.busy_ms, later.idle_ms, later.steal_ms, later.busy_percent()), (400, 500, 100, 50));
        assert_eq!(parse_cpu_times("cpu  1 2 3 4"), Some(CpuTimes { busy_ms: 60, idle_ms: 40, steal_ms: 0 }));
        assert_eq!(parse_cpu_times("intr 1 2 3 4\n"), None);
        assert_eq!(CpuTimes::default().busy_percent(), 0);
    }
}
