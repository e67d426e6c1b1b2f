//! What this machine is, and what its kernel counted: read from `/proc` and `/sys`, never an error. What cannot be
//! read is empty or None, so that a container that hides a file does not stop a measurement.

use crate::result::Machine;
use std::collections::BTreeMap;
use std::fs;

/// Kernel settings that can change a result, by their sysctl names.
const SYSCTLS: &[&str] = &[
    "fs.nr_open",
    "kernel.io_uring_disabled",
    "net.core.busy_poll",
    "net.core.default_qdisc",
    "net.core.netdev_max_backlog",
    "net.core.rmem_max",
    "net.core.somaxconn",
    "net.core.wmem_max",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_max_tw_buckets",
    "net.ipv4.tcp_mem",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syn_linear_timeouts",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_wmem",
];

/// Counters whose movement during a run says that the network stack dropped, delayed or repeated something, and the
/// number of connections opened, which puts the rest in proportion.
const COUNTERS: &[&str] = &[
    "Tcp.ActiveOpens",
    "Tcp.AttemptFails",
    "Tcp.EstabResets",
    "Tcp.RetransSegs",
    "TcpExt.ListenDrops",
    "TcpExt.ListenOverflows",
    "TcpExt.SyncookiesSent",
    "TcpExt.TCPAbortOnMemory",
    "TcpExt.TCPBacklogDrop",
    "TcpExt.TCPLossProbes",
    "TcpExt.TCPMemoryPressures",
    "TcpExt.TCPRcvQDrop",
    "TcpExt.TCPReqQFullDoCookies",
    "TcpExt.TCPReqQFullDrop",
    "TcpExt.TCPSpuriousRtxHostQueues",
    "TcpExt.TCPSynRetrans",
    "TcpExt.TCPTimeouts",
];

/// Linux's default range of ephemeral ports.
const DEFAULT_PORT_RANGE: (u16, u16) = (32_768, 60_999);

/// This machine, as the calling thread sees it.
pub fn describe() -> Machine {
    let cpuinfo = read("/proc/cpuinfo");
    Machine {
        kernel: format!("{} {}", sysctl("kernel.osrelease"), sysctl("kernel.version")).trim().to_owned(),
        cpu_model: field(&cpuinfo, "model name").unwrap_or_default().to_owned(),
        cpus: cpus_in_list(&read("/sys/devices/system/cpu/online")),
        cpus_allowed: field(&read("/proc/thread-self/status"), "Cpus_allowed_list").unwrap_or_default().to_owned(),
        memory_bytes: kib_field(&read("/proc/meminfo"), "MemTotal").unwrap_or(0),
        clocksource: read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        congestion_control: sysctl("net.ipv4.tcp_congestion_control"),
        virtualisation: virtualisation(&cpuinfo),
        sysctls: SYSCTLS
            .iter()
            .map(|name| ((*name).to_owned(), sysctl(name)))
            .filter(|(_, value)| !value.is_empty())
            .collect(),
        descriptor_limit: descriptor_limit(&read("/proc/self/limits")).unwrap_or(0),
        load_1m_percent: load_percent(&read("/proc/loadavg")).unwrap_or(0),
    }
}

/// The memory that can be had without swapping, in bytes; None where the kernel does not say.
pub fn available_memory_bytes() -> Option<u64> {
    kib_field(&read("/proc/meminfo"), "MemAvailable")
}

/// The first and the last local port that the kernel gives to connections.
pub fn local_port_range() -> (u16, u16) {
    port_range(&sysctl("net.ipv4.ip_local_port_range")).unwrap_or(DEFAULT_PORT_RANGE)
}

/// The most memory that a process (None: this one) ever had resident, in bytes; None if there is no such process.
pub fn peak_memory_bytes(pid: Option<u32>) -> Option<u64> {
    kib_field(&read(&status_path(pid)), "VmHWM")
}

/// The memory that a process (None: this one) has resident now, in bytes; None if there is no such process.
pub fn resident_bytes(pid: Option<u32>) -> Option<u64> {
    kib_field(&read(&status_path(pid)), "VmRSS")
}

/// How long the calling thread could run and had to wait for a CPU, since it began; 0 where the kernel does not say
/// (the second figure of `schedstat`, Documentation/scheduler/sched-stats.rst).
pub fn thread_run_delay_ns() -> u64 {
    let words = read("/proc/thread-self/schedstat");
    words.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// The TCP counters of this network namespace at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelCounters(BTreeMap<String, i64>);

impl KernelCounters {
    /// The counters now; empty where they cannot be read.
    pub fn read() -> Self {
        let mut counters = parse_counters(&read("/proc/net/snmp"));
        counters.append(&mut parse_counters(&read("/proc/net/netstat")));
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

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// A setting by its dotted name, words separated by one space; empty where it does not exist.
fn sysctl(name: &str) -> String {
    let text = read(&format!("/proc/sys/{}", name.replace('.', "/")));
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn status_path(pid: Option<u32>) -> String {
    pid.map_or_else(|| "/proc/self/status".to_owned(), |pid| format!("/proc/{pid}/status"))
}

/// The name of the virtual machine's maker or kind; None on bare metal.
fn virtualisation(cpuinfo: &str) -> Option<String> {
    let known = |text: String| (!text.is_empty()).then_some(text);
    let hypervisor = known(read("/sys/hypervisor/type"));
    let guest = field(cpuinfo, "flags").is_some_and(|flags| flags.split_whitespace().any(|flag| flag == "hypervisor"));
    if !guest {
        return hypervisor;
    }
    let product = || {
        known(
            format!("{} {}", read("/sys/class/dmi/id/sys_vendor"), read("/sys/class/dmi/id/product_name"))
                .trim()
                .into(),
        )
    };
    hypervisor.or_else(product).or_else(|| Some("unknown hypervisor".to_owned()))
}

/// The value of the first line `name: value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

/// The value of a line `name: 123 kB`, in bytes.
fn kib_field(text: &str, name: &str) -> Option<u64> {
    field(text, name)?.strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// How many CPUs a list like `0-3,7` names.
fn cpus_in_list(list: &str) -> u64 {
    let length = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (last + 1).checked_sub(first)
    };
    list.split(',').filter_map(length).sum()
}

fn descriptor_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        soft => soft.parse().ok(),
    }
}

/// The 1-minute load average times 100.
fn load_percent(loadavg: &str) -> Option<u64> {
    let (whole, hundredths) = loadavg.split_whitespace().next()?.split_once('.')?;
    Some(whole.parse::<u64>().ok()? * 100 + hundredths.parse::<u64>().ok()?)
}

fn port_range(setting: &str) -> Option<(u16, u16)> {
    let (first, last) = setting.split_once(' ')?;
    Some((first.parse().ok()?, last.parse().ok()?))
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
    fn fields_of_proc_are_read() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 1024 kB\nCpus_allowed_list:\t0-1\n";
        assert_eq!(kib_field(status, "VmHWM"), Some(2_097_152));
        assert_eq!(field(status, "Cpus_allowed_list"), Some("0-1"));
        assert_eq!(kib_field(status, "VmSwap"), None);
        assert_eq!(load_percent("1.07 0.50 0.25 2/345 678"), Some(107));
        assert_eq!(load_percent(""), None);
        assert_eq!(port_range("32768 60999"), Some((32_768, 60_999)));
        assert_eq!(port_range("99999 1"), None);
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
            Max open files            1024                 524288               files     \n";
        assert_eq!(descriptor_limit(limits), Some(1024));
    }

    #[test]
    fn cpu_lists_are_counted() {
        for (list, count) in [("0-3,7", 5), ("0", 1), ("", 0), ("3-1", 0), ("x", 0)] {
            assert_eq!(cpus_in_list(list), count, "{list}");
        }
    }

    #[test]
    fn this_machine_is_described() {
        let machine = describe();
        assert!(machine.cpus > 0 && machine.memory_bytes > 0 && !machine.kernel.is_empty());
        assert!(peak_memory_bytes(None) >= resident_bytes(None));
        assert_eq!(resident_bytes(Some(u32::MAX)), None);
        let (first, last) = local_port_range();
        assert!(first < last);
    }
}
