//! What this machine is, and what its kernel counted: read from `/proc` and `/sys`, never an error. What cannot be
//! read is empty or None, so that a container that hides a file does not stop a measurement.

mod cgroup;
mod counters;
mod cpu;
pub mod warnings;

use crate::result::{Machine, fnv1a_hex, integers};
use crate::sys::{affinity, limits, memory};
use std::fs;
use std::path::{Path, PathBuf};

pub use counters::{CpuTimes, KernelCounters, thread_run_delay_ns};

/// Kernel settings that can change a result, by their sysctl names.
const SYSCTLS: &[&str] = &[
    "fs.nr_open",
    "kernel.numa_balancing",
    "kernel.io_uring_disabled",
    "net.core.busy_poll",
    "net.core.default_qdisc",
    "net.core.netdev_max_backlog",
    "net.core.rmem_max",
    "net.core.somaxconn",
    "net.core.wmem_max",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_available_congestion_control",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_max_tw_buckets",
    "net.ipv4.tcp_mem",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syn_linear_timeouts",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_wmem",
    "net.netfilter.nf_conntrack_max",
];

/// Linux's default range of ephemeral ports.
const DEFAULT_PORT_RANGE: (u16, u16) = (32_768, 60_999);

/// Digests of what processes may share without knowing: the running kernel, and the network namespace of this process.
pub fn identity() -> (Option<String>, Option<String>) {
    let boot = Root::system().read("proc/sys/kernel/random/boot_id");
    if boot.is_empty() {
        return (None, None);
    }
    // Without `/proc`, or where a sandbox hides it, the network is not known, and nothing else depends on it.
    let namespace = fs::read_link("/proc/self/ns/net").ok();
    let network = namespace.map(|name| fnv1a_hex(format!("{boot} {}", name.display()).as_bytes()));
    (Some(fnv1a_hex(boot.as_bytes())), network)
}

/// This machine, as the calling thread sees it.
pub fn describe() -> Machine {
    let described = describe_at(Root::system());
    let (soft, hard) = limits::descriptors().map_or((0, None), |(soft, hard)| (soft, Some(hard)));
    // Where /sys or /proc is hidden, system calls know some of it: 0 CPUs would be a lie.
    let or = |known: u64, otherwise: u64| if known == 0 { otherwise } else { known };
    Machine {
        cpus: or(described.cpus, affinity::allowed().map_or(0, |cpus| cpus.len() as u64)),
        memory_bytes: or(described.memory_bytes, memory::total_bytes()),
        descriptor_limit: or(described.descriptor_limit, soft),
        descriptor_hard_limit: described.descriptor_hard_limit.or(hard),
        ..described
    }
}

fn describe_at(root: Root<'_>) -> Machine {
    let cpuinfo = root.read("proc/cpuinfo");
    let limits = root.read("proc/self/limits");
    let online = root.read("sys/devices/system/cpu/online");
    let (idle_driver, idle_governor) = cpu::idle(root);
    Machine {
        kernel: format!("{} {}", root.sysctl("kernel.osrelease"), root.sysctl("kernel.version")).trim().to_owned(),
        cpu_model: field(&cpuinfo, "model name").unwrap_or_default().to_owned(),
        cpus: cpus_in_list(&online),
        cpus_allowed: field(&root.read("proc/thread-self/status"), "Cpus_allowed_list").unwrap_or_default().to_owned(),
        memory_bytes: kib_field(&root.read("proc/meminfo"), "MemTotal").unwrap_or(0),
        clocksource: root.read("sys/devices/system/clocksource/clocksource0/current_clocksource"),
        congestion_control: root.sysctl("net.ipv4.tcp_congestion_control"),
        virtualisation: cpu::virtualisation(root, &cpuinfo),
        sysctls: SYSCTLS
            .iter()
            .map(|name| ((*name).to_owned(), root.sysctl(name)))
            .filter(|(_, value)| !value.is_empty())
            .collect(),
        descriptor_limit: descriptor_limit(&limits, 0).unwrap_or(0),
        load_1m_percent: load_percent(&root.read("proc/loadavg")).unwrap_or(0),
        cpus_pinned: Vec::new(),
        descriptor_hard_limit: descriptor_limit(&limits, 1),
        governors: cpu::governors(root),
        boost: cpu::boost(root),
        smt: cpu::smt(root),
        idle_driver,
        idle_governor,
        idle_states: cpu::idle_states(root),
        cpus_isolated: cpu::isolated(root),
        numa_nodes: cpu::numa_nodes(root),
        mitigations: cpu::mitigations(root),
        mitigations_option: cpu::mitigations_option(root),
        transparent_hugepages: cpu::transparent_hugepages(root),
        container: cgroup::container(root),
        cgroup: cgroup::read(root, &online),
    }
}

/// The memory that can be had without swapping, in bytes, within what a control group allows; None where the kernel
/// does not say.
pub fn available_memory_bytes() -> Option<u64> {
    let root = Root::system();
    let machine = kib_field(&root.read("proc/meminfo"), "MemAvailable")?;
    Some(cgroup::memory_left_bytes(root).map_or(machine, |left| left.min(machine)))
}

/// The first and the last local port that the kernel gives to connections.
pub fn local_port_range() -> (u16, u16) {
    port_range(&Root::system().sysctl("net.ipv4.ip_local_port_range")).unwrap_or(DEFAULT_PORT_RANGE)
}

/// A kernel setting, such as `net.ipv4.tcp_tw_reuse`; empty where this kernel has none of that name.
pub fn sysctl(name: &str) -> String {
    Root::system().sysctl(name)
}

/// The most memory that a process (None: this one) ever had resident, in bytes; None if there is no such process.
pub fn peak_memory_bytes(pid: Option<u32>) -> Option<u64> {
    kib_field(&status(pid), "VmHWM")
}

/// The memory that a process (None: this one) has resident now, in bytes; None if there is no such process.
pub fn resident_bytes(pid: Option<u32>) -> Option<u64> {
    kib_field(&status(pid), "VmRSS")
}

fn status(pid: Option<u32>) -> String {
    let process = pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    Root::system().read(format!("proc/{process}/status"))
}

/// The folder that holds `proc` and `sys`: `/`, or in tests one that stands for it.
#[derive(Clone, Copy, Debug)]
struct Root<'a>(&'a Path);

impl Root<'static> {
    fn system() -> Self {
        Self(Path::new("/"))
    }
}

impl Root<'_> {
    /// A file without white space around its text; empty where it cannot be read.
    fn read(self, path: impl AsRef<Path>) -> String {
        fs::read_to_string(self.0.join(path)).unwrap_or_default().trim().to_owned()
    }

    /// Likewise; None where there is nothing.
    fn known(self, path: impl AsRef<Path>) -> Option<String> {
        Some(self.read(path)).filter(|text| !text.is_empty())
    }

    fn exists(self, path: &str) -> bool {
        self.0.join(path).exists()
    }

    /// The names in a folder, in order; none where it cannot be read.
    fn list(self, folder: &str) -> Vec<String> {
        // What cannot be read is not there, as far as a description of the machine goes.
        let entries = fs::read_dir(self.0.join(folder)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// A setting by its dotted name, words separated by one space; empty where it does not exist.
    fn sysctl(self, name: &str) -> String {
        let path: PathBuf = ["proc", "sys"].into_iter().chain(name.split('.')).collect();
        self.read(path).split_whitespace().collect::<Vec<_>>().join(" ")
    }
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

/// The soft (0) or the hard (1) limit of descriptors.
fn descriptor_limit(limits: &str, column: usize) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().nth(column)? {
        "unlimited" => Some(integers::MOST),
        limit => limit.parse().ok(),
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

/// A folder that stands for `/`, with real files in it.
#[cfg(test)]
mod fixture {
    use super::{Root, fs};
    use tempfile::TempDir;

    pub(super) struct Fixture(TempDir);

    impl Fixture {
        pub(super) fn new(files: &[(&str, &str)]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            for (path, text) in files {
                let path = folder.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self(folder)
        }

        pub(super) fn root(&self) -> Root<'_> {
            Root(self.0.path())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!([0, 1, 5].map(|column| descriptor_limit(limits, column)), [Some(1024), Some(524_288), None]);
        assert_eq!(descriptor_limit("Max open files  unlimited unlimited files", 1), Some(integers::MOST));
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
        assert!(available_memory_bytes() <= Some(machine.memory_bytes) && thread_run_delay_ns() < u64::MAX);
        assert!(CpuTimes::read().is_some_and(|times| times.busy_ms > 0 && times.idle_ms > 0));
    }

    #[test]
    fn a_machine_that_says_nothing_is_no_error() {
        assert_eq!(describe_at(fixture::Fixture::new(&[]).root()), Machine::default());
    }
}
