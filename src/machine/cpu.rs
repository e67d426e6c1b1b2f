//! What the CPUs do when they are fast, idle, or protected: frequencies, idle states, mitigations.

use super::{Root, field};
use crate::result::IdleState;
use std::collections::{BTreeMap, BTreeSet};

const CPU: &str = "sys/devices/system/cpu";

/// The governors of all frequency domains, each once.
pub(super) fn governors(root: Root<'_>) -> Vec<String> {
    let folder = format!("{CPU}/cpufreq");
    let policies = root.list(&folder).into_iter().filter(|name| name.starts_with("policy"));
    let governors = policies.filter_map(|policy| root.known(format!("{folder}/{policy}/scaling_governor")));
    governors.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Whether CPUs may exceed their nominal frequency; intel_pstate says it the other way round.
pub(super) fn boost(root: Root<'_>) -> Option<bool> {
    let flag = |path: &str, on: &str| root.known(format!("{CPU}/{path}")).map(|value| value == on);
    flag("cpufreq/boost", "1").or_else(|| flag("intel_pstate/no_turbo", "0"))
}

pub(super) fn smt(root: Root<'_>) -> Option<String> {
    root.known(format!("{CPU}/smt/control"))
}

pub(super) fn isolated(root: Root<'_>) -> Option<String> {
    root.known(format!("{CPU}/isolated"))
}

/// Driver and governor of idle states; without a driver the kernel says `none`.
pub(super) fn idle(root: Root<'_>) -> (Option<String>, Option<String>) {
    let of = |name: &str| root.known(format!("{CPU}/cpuidle/{name}")).filter(|value| value != "none");
    (of("current_driver"), of("current_governor_ro").or_else(|| of("current_governor")))
}

/// The states of the first CPU that are not switched off.
pub(super) fn idle_states(root: Root<'_>) -> Vec<IdleState> {
    let folder = format!("{CPU}/cpu0/cpuidle");
    let state = |name: &String| {
        let of = |file: &str| root.known(format!("{folder}/{name}/{file}"));
        let exit_latency_us: u64 = of("latency")?.parse().ok()?;
        let off = of("disable").is_some_and(|value| value != "0");
        (!off).then(|| IdleState { name: of("name").unwrap_or_default(), exit_latency_ns: exit_latency_us * 1_000 })
    };
    let mut states: Vec<IdleState> = root.list(&folder).iter().filter_map(state).collect();
    states.sort_by_key(|state| state.exit_latency_ns);
    states
}

/// Vulnerabilities that concern this CPU, each with the first clause of what is done about it.
pub(super) fn mitigations(root: Root<'_>) -> BTreeMap<String, String> {
    let folder = format!("{CPU}/vulnerabilities");
    let of = |name: String| {
        let text = root.known(format!("{folder}/{name}"))?;
        let first = text.split(';').next().unwrap_or_default().trim().to_owned();
        (first != "Not affected").then_some((name, first))
    };
    root.list(&folder).into_iter().filter_map(of).collect()
}

/// `mitigations=` on the kernel's command line. The rest of that line is nobody's business.
pub(super) fn mitigations_option(root: Root<'_>) -> Option<String> {
    let line = root.read("proc/cmdline");
    line.split_whitespace().find_map(|word| word.strip_prefix("mitigations=")).map(str::to_owned)
}

pub(super) fn numa_nodes(root: Root<'_>) -> Option<u64> {
    root.known("sys/devices/system/node/online").map(|list| super::cpus_in_list(&list))
}

/// The chosen word of `always [madvise] never`.
pub(super) fn transparent_hugepages(root: Root<'_>) -> Option<String> {
    let text = root.read("sys/kernel/mm/transparent_hugepage/enabled");
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

/// The name of the virtual machine's maker or kind; None on bare metal.
pub(super) fn virtualisation(root: Root<'_>, cpuinfo: &str) -> Option<String> {
    let hypervisor = root.known("sys/hypervisor/type");
    let guest = field(cpuinfo, "flags").is_some_and(|flags| flags.split_whitespace().any(|flag| flag == "hypervisor"));
    if !guest {
        return hypervisor;
    }
    let dmi = |name: &str| root.read(format!("sys/class/dmi/id/{name}"));
    let product = || Some(format!("{} {}", dmi("sys_vendor"), dmi("product_name")).trim().to_owned());
    hypervisor.or_else(|| product().filter(|name| !name.is_empty())).or_else(|| Some("unknown hypervisor".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    #[test]
    fn a_laptop_is_read() {
        let cpu = |path: &str| format!("sys/devices/system/cpu/{path}");
        let files = [
            (cpu("cpufreq/policy0/scaling_governor"), "powersave\n"),
            (cpu("cpufreq/policy1/scaling_governor"), "performance\n"),
            (cpu("cpufreq/policy2/scaling_governor"), "powersave\n"),
            (cpu("intel_pstate/no_turbo"), "0\n"),
            (cpu("smt/control"), "on\n"),
            (cpu("isolated"), "\n"),
            (cpu("cpuidle/current_driver"), "intel_idle\n"),
            (cpu("cpuidle/current_governor_ro"), "menu\n"),
            (cpu("cpu0/cpuidle/state1/name"), "C6\n"),
            (cpu("cpu0/cpuidle/state1/latency"), "133\n"),
            (cpu("cpu0/cpuidle/state1/disable"), "0\n"),
            (cpu("cpu0/cpuidle/state0/name"), "POLL\n"),
            (cpu("cpu0/cpuidle/state0/latency"), "0\n"),
            (cpu("cpu0/cpuidle/state2/name"), "C10\n"),
            (cpu("cpu0/cpuidle/state2/latency"), "890\n"),
            (cpu("cpu0/cpuidle/state2/disable"), "1\n"),
            (cpu("vulnerabilities/meltdown"), "Not affected\n"),
            (cpu("vulnerabilities/spectre_v2"), "Mitigation: Retpolines; STIBP: disabled; RSB filling\n"),
            ("proc/cmdline".to_owned(), "root=/dev/sda1 mitigations=auto,nosmt quiet\n"),
            ("sys/devices/system/node/online".to_owned(), "0-1\n"),
            ("sys/kernel/mm/transparent_hugepage/enabled".to_owned(), "always [madvise] never\n"),
        ];
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
        let fixture = Fixture::new(&files);
        let root = fixture.root();
        assert_eq!(governors(root), ["performance", "powersave"]);
        assert_eq!((boost(root), smt(root).as_deref(), isolated(root)), (Some(true), Some("on"), None));
        assert_eq!(idle(root), (Some("intel_idle".to_owned()), Some("menu".to_owned())));
        let states: Vec<_> = idle_states(root).into_iter().map(|state| (state.name, state.exit_latency_ns)).collect();
        assert_eq!(states, [("POLL".to_owned(), 0), ("C6".to_owned(), 133_000)]);
        let mitigation = ("spectre_v2".to_owned(), "Mitigation: Retpolines".to_owned());
        assert_eq!(mitigations(root), BTreeMap::from([mitigation]));
        assert_eq!(mitigations_option(root).as_deref(), Some("auto,nosmt"));
        assert_eq!((numa_nodes(root), transparent_hugepages(root).as_deref()), (Some(2), Some("madvise")));
    }

    #[test]
    fn what_is_not_there_is_absent() {
        let fixture = Fixture::new(&[("sys/devices/system/cpu/cpuidle/current_driver", "none\n")]);
        let root = fixture.root();
        assert!(governors(root).is_empty() && idle_states(root).is_empty() && mitigations(root).is_empty());
        assert_eq!((boost(root), smt(root), idle(root)), (None, None, (None, None)));
        assert_eq!((numa_nodes(root), transparent_hugepages(root), mitigations_option(root)), (None, None, None));
        assert_eq!(virtualisation(root, ""), None);
        assert_eq!(virtualisation(root, "flags : fpu hypervisor").as_deref(), Some("unknown hypervisor"));
    }

    #[test]
    fn amd_says_boost_by_its_name() {
        let fixture = Fixture::new(&[("sys/devices/system/cpu/cpufreq/boost", "0\n")]);
        assert_eq!(boost(fixture.root()), Some(false));
    }
}
