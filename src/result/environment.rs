//! The part of a report that is about the machines, and about the generator itself.

use crate::confidence::ENOUGH_BEYOND;
use crate::histogram::count_beyond;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Environment {
    pub client: Machine,
    /// The machine of an embedded server, as that sees it; null where it is not known.
    pub server: Option<Machine>,
    /// What about the client's machine can spoil the figures, the weightiest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
}

/// A machine, as far as it matters to a measurement. What the system does not say is empty, 0 or absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Machine {
    /// `uname`: release and version.
    pub kernel: String,
    pub cpu_model: String,
    /// CPUs that are online; where `/sys` is hidden, those that the program may run on.
    pub cpus: u64,
    /// CPUs that this process may use, as the kernel lists them (`0-3,7`).
    pub cpus_allowed: String,
    pub memory_bytes: u64,
    pub clocksource: String,
    pub congestion_control: String,
    pub virtualisation: Option<String>,
    /// Kernel settings that matter here, by name (`net.core.somaxconn`).
    pub sysctls: BTreeMap<String, String>,
    pub descriptor_limit: u64,
    /// 1-minute load average before the run, times 100.
    pub load_1m_percent: u64,
    /// CPUs that the working threads were pinned to; absent: the kernel moved them as it liked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cpus_pinned: Vec<u64>,
    /// What a process may raise `descriptor_limit` to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub descriptor_hard_limit: Option<u64>,
    /// Frequency governors (cpufreq) of all CPUs; several where they differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub governors: Vec<String>,
    /// Whether CPUs may exceed their nominal frequency (turbo).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boost: Option<bool>,
    /// Simultaneous multithreading, as the kernel says it: `on`, `off`, `notsupported` and so on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smt: Option<String>,
    /// Driver and governor of idle states (cpuidle).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_driver: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_governor: Option<String>,
    /// The first CPU's idle states in use, from light to deep.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub idle_states: Vec<IdleState>,
    /// CPUs that the scheduler leaves alone (`isolcpus`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus_isolated: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numa_nodes: Option<u64>,
    /// CPU vulnerabilities that concern this machine, and what the kernel does about each, shortened.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub mitigations: BTreeMap<String, String>,
    /// `mitigations=` on the kernel's command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mitigations_option: Option<String>,
    /// `always`, `madvise` or `never`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transparent_hugepages: Option<String>,
    /// The kind of container that this looks like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// What the control group allows, where it allows less than everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Cgroup>,
}

/// An idle state of a CPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IdleState {
    pub name: String,
    /// How long a CPU takes to leave it, as the driver says.
    pub exit_latency_ns: u64,
}

/// Bounds of a control group, of version 1 or 2; the tightest of those on the way to the root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cgroup {
    /// CPU time that may be used, as percent of one CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_quota_percent: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpuset: Option<String>,
    /// Periods in which the quota was used up, since the group exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled_periods: Option<u64>,
}

/// Something about a machine that can spoil a measurement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Warning {
    /// A word for programs.
    pub code: String,
    pub weight: Weight,
    /// What was found.
    pub what: String,
    /// Why it matters.
    pub why: String,
    /// What to do about it, with a command where there is one.
    pub remedy: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// It can change the figures of a run; the summary names it.
    High,
    /// Good to know.
    Low,
}

/// What the generator itself adds, measured against a null server (a thread that echoes 64 bytes) just before the run,
/// on its own engine: figures near these are about the generator and the kernel's loopback, not about the target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Floor {
    pub engine: String,
    /// Round trips, one at a time on one connection.
    pub samples: u64,
    /// Their response times; null: so few round trips do not tell ([`Floor::tells`]).
    pub response_p50_ns: Option<u64>,
    pub response_p99_ns: Option<u64>,
    /// Timed waits of the engine, 500 us each; `timer_late_…`: how late it woke from them; null likewise.
    pub timer_samples: u64,
    pub timer_late_p50_ns: Option<u64>,
    pub timer_late_p99_ns: Option<u64>,
    pub timer_late_max_ns: u64,
    /// What reading the clock costs.
    pub clock_read_ns: u64,
    /// CPUs that client and null server were pinned to; null: to none.
    pub client_cpu: Option<u64>,
    pub server_cpu: Option<u64>,
    /// How long all this took.
    pub took_ns: u64,
}

/// Fewer values than these have no median that could be held against another: of 50, the median of all that there
/// could have been lies between the 16th and the 35th in 99 of 100 cases, whatever they are like (order statistics,
/// binomial; David and Nagaraja, *Order Statistics*, 7.1); of 10, between the first and the last.
pub const FLOOR_SAMPLES_LEAST: u64 = 50;

impl Floor {
    /// Whether so many values tell a quantile: [`FLOOR_SAMPLES_LEAST`] in all, and as many beyond it as for a figure
    /// of a run (a 99th percentile: 1,000 values).
    pub fn tells(samples: u64, q: f64) -> bool {
        samples >= FLOOR_SAMPLES_LEAST && count_beyond(samples, q) >= ENOUGH_BEYOND
    }

    /// The median of the round trips; None: it is not known. Files of earlier versions have one in any case.
    pub fn response_p50(&self) -> Option<u64> {
        self.response_p50_ns.filter(|_| Self::tells(self.samples, 0.5))
    }

    pub fn response_p99(&self) -> Option<u64> {
        self.response_p99_ns.filter(|_| Self::tells(self.samples, 0.99))
    }

    pub fn timer_late_p50(&self) -> Option<u64> {
        self.timer_late_p50_ns.filter(|_| Self::tells(self.timer_samples, 0.5))
    }

    pub fn timer_late_p99(&self) -> Option<u64> {
        self.timer_late_p99_ns.filter(|_| Self::tells(self.timer_samples, 0.99))
    }
}
