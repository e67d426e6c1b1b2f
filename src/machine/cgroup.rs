//! What a container or a control group leaves us of the machine. Version 2 (one tree) or 1 (one tree a controller).

use super::Root;
use crate::result::{Cgroup, integers};
use std::path::{Component, Path, PathBuf};

/// Version 1 says so, in bytes, where there is no limit: the largest number of pages.
const UNLIMITED_BYTES: u64 = integers::MOST;

/// The bounds of our control group; None where there are none. `online` is the list of the machine's CPUs.
pub(super) fn read(root: Root<'_>, online: &str) -> Option<Cgroup> {
    let groups = Groups::new(root);
    let cpuset = groups
        .nearest("cpuset", "cpuset.cpus.effective")
        .or_else(|| groups.nearest("cpuset", "cpuset.effective_cpus"))
        .or_else(|| groups.nearest("cpuset", "cpuset.cpus"))
        .filter(|cpus| !cpus.is_empty() && cpus != online);
    let quota = groups.each("cpu", "cpu.max").filter_map(|text| quota_percent(&text)).min();
    let memory = groups.each("memory", "memory.max").filter_map(|text| text.parse().ok()).min();
    let found = Cgroup {
        cpu_quota_percent: quota.or_else(|| old_quota_percent(&groups)),
        memory_limit_bytes: memory.or_else(|| old_memory_limit(&groups)),
        cpuset,
        throttled_periods: throttled(&groups).filter(|periods| *periods > 0),
    };
    (found != Cgroup::default()).then_some(found)
}

/// Periods in which our CPU quota was used up; None without a quota.
pub(super) fn throttled_periods(root: Root<'_>) -> Option<u64> {
    throttled(&Groups::new(root))
}

/// The memory that the group may still take; None without a limit.
pub(super) fn memory_left_bytes(root: Root<'_>) -> Option<u64> {
    let limit = read(root, "")?.memory_limit_bytes?;
    let groups = Groups::new(root);
    let used = groups
        .nearest("memory", "memory.current")
        .or_else(|| groups.nearest("memory", "memory.usage_in_bytes"))
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    Some(limit.saturating_sub(used))
}

/// The kind of container that this looks like; None: none that we know.
pub(super) fn container(root: Root<'_>) -> Option<String> {
    let groups = root.read("proc/self/cgroup");
    let kind = if groups.contains("kubepods") {
        "kubernetes"
    } else if root.exists("run/.containerenv") {
        "podman"
    } else if root.exists(".dockerenv") || groups.contains("/docker/") {
        "docker"
    } else if groups.contains("/lxc") {
        "lxc"
    } else {
        return root.known("run/systemd/container");
    };
    Some(kind.to_owned())
}

/// Our groups: for each tree the folder in which it is mounted, and our place in it.
struct Groups<'a> {
    root: Root<'a>,
    /// Controllers (empty: version 2, all of them) and the path below the mount point.
    memberships: Vec<(String, PathBuf)>,
}

impl<'a> Groups<'a> {
    fn new(root: Root<'a>) -> Self {
        let membership = |line: &str| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?.to_owned(), parts.next()?);
            // A group outside of our namespace is shown as `/../..`; of it we see the root.
            let inside = Path::new(path).components().filter(|part| matches!(part, Component::Normal(_)));
            Some((controllers, inside.collect()))
        };
        let memberships = root.read("proc/self/cgroup").lines().filter_map(membership).collect();
        Self { root, memberships }
    }

    /// The contents of `file` in our group of `controller` and in those above it, ours first.
    fn each<'b>(&'b self, controller: &'b str, file: &'b str) -> impl Iterator<Item = String> + 'b {
        let mount = move |controllers: &str| -> Vec<PathBuf> {
            if controllers.is_empty() {
                return vec!["sys/fs/cgroup".into(), "sys/fs/cgroup/unified".into()];
            }
            let ours = controllers.split(',').any(|name| name == controller);
            // Several controllers may share a tree; it is mounted by all their names, with links from each.
            let names = if ours { vec![controller, controllers] } else { Vec::new() };
            names.into_iter().map(|name| Path::new("sys/fs/cgroup").join(name)).collect()
        };
        let folders = self.memberships.iter().flat_map(move |(controllers, path)| {
            let folders = mount(controllers);
            path.ancestors().flat_map(move |part| folders.clone().into_iter().map(move |mount| mount.join(part)))
        });
        folders.filter_map(move |folder| self.root.known(folder.join(file)))
    }

    fn nearest(&self, controller: &str, file: &str) -> Option<String> {
        self.each(controller, file).next()
    }
}

/// `max 100000` (no quota) or `150000 100000` (of each period, in microseconds).
fn quota_percent(cpu_max: &str) -> Option<u64> {
    let (quota, period) = cpu_max.split_once(' ')?;
    percent(quota.parse().ok()?, period.trim().parse().ok()?)
}

fn percent(quota_us: u64, period_us: u64) -> Option<u64> {
    quota_us.checked_mul(100)?.checked_div(period_us)
}

fn old_quota_percent(groups: &Groups<'_>) -> Option<u64> {
    let quotas = groups.each("cpu", "cpu.cfs_quota_us");
    let periods = groups.each("cpu", "cpu.cfs_period_us");
    // -1, no quota, is no u64.
    quotas.zip(periods).filter_map(|(quota, period)| percent(quota.parse().ok()?, period.parse().ok()?)).min()
}

fn old_memory_limit(groups: &Groups<'_>) -> Option<u64> {
    let limits = groups.each("memory", "memory.limit_in_bytes").filter_map(|text| text.parse().ok());
    limits.filter(|bytes| *bytes < UNLIMITED_BYTES).min()
}

fn throttled(groups: &Groups<'_>) -> Option<u64> {
    let stat = groups.nearest("cpu", "cpu.stat")?;
    stat.lines().find_map(|line| line.strip_prefix("nr_throttled "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    #[test]
    fn version_two_takes_the_tightest_on_the_way_to_the_root() {
        let fixture = Fixture::new(&[
            ("proc/self/cgroup", "0::/outer/inner\n"),
            ("sys/fs/cgroup/outer/inner/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/outer/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/outer/inner/memory.max", "1073741824\n"),
            ("sys/fs/cgroup/outer/memory.max", "max\n"),
            ("sys/fs/cgroup/outer/inner/memory.current", "73741824\n"),
            ("sys/fs/cgroup/outer/inner/cpuset.cpus.effective", "0-1\n"),
            ("sys/fs/cgroup/outer/inner/cpu.stat", "usage_usec 5\nnr_periods 9\nnr_throttled 4\nthrottled_usec 70\n"),
        ]);
        let found = read(fixture.root(), "0-7").unwrap();
        assert_eq!((found.cpu_quota_percent, found.memory_limit_bytes), (Some(150), Some(1_073_741_824)));
        assert_eq!((found.cpuset.as_deref(), found.throttled_periods), (Some("0-1"), Some(4)));
        assert_eq!(memory_left_bytes(fixture.root()), Some(1_000_000_000));
        assert_eq!(throttled_periods(fixture.root()), Some(4));
    }

    #[test]
    fn version_one_is_read_too_and_a_group_outside_of_our_namespace_is_the_root() {
        let fixture = Fixture::new(&[
            ("proc/self/cgroup", "4:memory:/../..\n3:cpuset:/\n2:cpu,cpuacct:/box\n0::/\n"),
            ("sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us", "50000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912\n"),
            ("sys/fs/cgroup/cpuset/cpuset.cpus", "2\n"),
        ]);
        let found = read(fixture.root(), "0-3").unwrap();
        let limits = (found.cpu_quota_percent, found.memory_limit_bytes, found.cpuset.as_deref());
        assert_eq!(limits, (Some(50), Some(536_870_912), Some("2")));
    }

    #[test]
    fn no_bound_is_no_entry() {
        let fixture = Fixture::new(&[
            ("proc/self/cgroup", "4:memory:/\n2:cpu:/\n0::/\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/cpu/cpu.stat", "nr_periods 0\nnr_throttled 0\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/cpuset.cpus.effective", "0-3\n"),
        ]);
        assert_eq!(read(fixture.root(), "0-3"), None);
        assert_eq!(read(Fixture::new(&[]).root(), "0-3"), None);
        assert_eq!(quota_percent("max 100000"), None);
        assert_eq!(quota_percent("1 0"), None);
    }

    #[test]
    fn containers_are_known_by_what_they_leave_lying_about() {
        let kind = |files: &[(&str, &str)]| container(Fixture::new(files).root());
        assert_eq!(kind(&[]), None);
        assert_eq!(kind(&[(".dockerenv", "")]).as_deref(), Some("docker"));
        assert_eq!(kind(&[("run/.containerenv", "")]).as_deref(), Some("podman"));
        assert_eq!(kind(&[("proc/self/cgroup", "0::/kubepods/pod1")]).as_deref(), Some("kubernetes"));
        assert_eq!(kind(&[("run/systemd/container", "systemd-nspawn\n")]).as_deref(), Some("systemd-nspawn"));
    }
}
