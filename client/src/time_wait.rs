//! What closing leaves behind. Who closes first keeps the connection in TIME_WAIT, and in churn that is us: for a
//! minute its source address and port cannot be used for the same destination again, and there are only so many.

use crate::destination::Destination;
use crate::plan::Plan;
use loadgen_core::machine;
use loadgen_core::result::TimeWait;
use loadgen_core::sys::endpoint::Endpoint;
use loadgen_core::time::{NS_PER_MS, NS_PER_S};
use loadgen_core::units::{format_duration, format_exact_count};

/// TCP_TIMEWAIT_LEN of Linux, a constant of the kernel: `net.ipv4.tcp_fin_timeout` is about another state (FIN_WAIT_2).
const TIME_WAIT_NS: u64 = 60 * NS_PER_S;

/// What the kernel does with ports in TIME_WAIT.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// `net.ipv4.tcp_tw_reuse`: 0 never; 1 always, 2 on loopback, once the connection's last word is old enough.
    pub reuse: u64,
    /// `net.ipv4.tcp_tw_reuse_delay`: how old; on kernels without it, one second.
    pub reuse_delay_ns: u64,
    pub max_tw_buckets: u64,
    /// Local ports of one source address.
    pub ports: u64,
}

impl Rules {
    /// Those of this machine, in this network namespace.
    pub fn read() -> Self {
        let (first, last) = machine::local_port_range();
        let number = |name: &str, default: u64| machine::sysctl(name).trim().parse().unwrap_or(default);
        Self {
            reuse: number("net.ipv4.tcp_tw_reuse", 2),
            reuse_delay_ns: number("net.ipv4.tcp_tw_reuse_delay", 1_000) * NS_PER_MS,
            max_tw_buckets: number("net.ipv4.tcp_max_tw_buckets", u64::MAX),
            ports: u64::from(last.saturating_sub(first)) + 1,
        }
    }

    fn held_ns(&self, loopback: bool) -> u64 {
        match self.reuse {
            0 => TIME_WAIT_NS,
            2 if !loopback => TIME_WAIT_NS,
            _ => self.reuse_delay_ns.min(TIME_WAIT_NS),
        }
    }
}

/// Where the load goes, as far as ports are concerned.
#[derive(Clone, Copy, Debug)]
pub struct Ways {
    /// Pairs of a source address and a destination: each has all local ports.
    pub pairs: u64,
    pub loopback: bool,
}

/// What so many closes a second come to if they go on for `length_ns`.
pub fn forecast(closes_per_s: u64, length_ns: u64, ways: Ways, rules: Rules) -> TimeWait {
    let held_ns = rules.held_ns(ways.loopback);
    let within = |ns: u64| (u128::from(closes_per_s) * u128::from(ns) / u128::from(NS_PER_S)) as u64;
    let (steady, held) = (within(TIME_WAIT_NS), within(held_ns.min(length_ns)));
    let ports = rules.ports * ways.pairs;
    // What is beyond the table is out of TIME_WAIT at once, and its port is free.
    let note = if held.min(rules.max_tw_buckets) > ports {
        Some(too_few(closes_per_s, held_ns, held, ports))
    } else if within(TIME_WAIT_NS.min(length_ns)) > rules.max_tw_buckets {
        Some(overflows(closes_per_s, steady, rules.max_tw_buckets))
    } else {
        None
    };
    TimeWait { closes_per_s, held_ns, steady, ports, max_tw_buckets: rules.max_tw_buckets, note }
}

fn too_few(closes_per_s: u64, held_ns: u64, held: u64, ports: u64) -> String {
    let after_ns = u128::from(ports) * u128::from(NS_PER_S) / u128::from(closes_per_s.max(1));
    let reuse = if held_ns == TIME_WAIT_NS { "; or set net.ipv4.tcp_tw_reuse=1" } else { "" };
    let [rate, held, ports] = [closes_per_s, held, ports].map(format_exact_count);
    let [each, after] = [held_ns, after_ns as u64].map(format_duration);
    format!(
        "at {rate} closes/s, with a port held for {each} after each (TIME_WAIT, which is ours because we close first), \
         {held} ports are needed and there are {ports}: after about {after} connections fail (no_port). Add addresses \
         with --source, or give --close rst, which leaves none behind{reuse}"
    )
}

fn overflows(closes_per_s: u64, steady: u64, buckets: u64) -> String {
    let [rate, steady, buckets] = [closes_per_s, steady, buckets].map(format_exact_count);
    format!(
        "at {rate} closes/s, {steady} connections would be in TIME_WAIT, and the kernel keeps {buckets} \
         (net.ipv4.tcp_max_tw_buckets): it drops those beyond, and a late segment of one may then meet its successor. \
         Raise that limit, or give --close rst, which leaves none behind"
    )
}

/// What can be told beforehand, of a plan that bounds how often connections are closed.
pub fn before(plan: &Plan, to: &[Destination], rules: Rules) -> Option<TimeWait> {
    let ways = ways(plan, to)?;
    let requests = plan.requests_per_connection.map_or(1, u64::from);
    let by_rate = plan.pacing.as_ref().map(|pacing| pacing.rate.highest() / requests);
    let closes_per_s = [plan.connect_rate, by_rate].into_iter().flatten().min()?;
    let length_ns = plan.duration_ns().map_or(u64::MAX, |ns| ns.saturating_add(plan.warmup_ns));
    Some(forecast(plan.part().share(closes_per_s), length_ns, ways, rules))
}

/// What will come of it if the load goes on as the run saw it.
pub fn after(plan: &Plan, to: &[Destination], closes_per_s: u64, rules: Rules) -> Option<TimeWait> {
    Some(forecast(closes_per_s, u64::MAX, ways(plan, to)?, rules))
}

/// `None`: nothing is left behind.
fn ways(plan: &Plan, to: &[Destination]) -> Option<Ways> {
    if !plan.churns() || plan.traffic.reset {
        return None;
    }
    let tcp: Vec<&Endpoint> = to.iter().map(|one| &one.endpoint).filter(|one| one.ip().is_some()).collect();
    let pairs = tcp.iter().map(|endpoint| plan.sources_for(endpoint).len().max(1) as u64).sum();
    let loopback = tcp.iter().all(|endpoint| endpoint.ip().is_some_and(|ip| ip.is_loopback()));
    (!tcp.is_empty()).then_some(Ways { pairs, loopback })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { reuse: 2, reuse_delay_ns: NS_PER_S, max_tw_buckets: 100_000, ports: 28_232 };

    fn note(closes_per_s: u64, pairs: u64, loopback: bool, rules: Rules) -> String {
        forecast(closes_per_s, u64::MAX, Ways { pairs, loopback }, rules).note.unwrap_or_default()
    }

    #[test]
    fn ports_run_out_where_they_are_held_for_a_minute() {
        // 28,232 ports / 60 s = 470 a second.
        assert_eq!(note(470, 1, false, RULES), "");
        let short = note(1_000, 1, false, RULES);
        for part in ["60,000 ports", "28,232", "28.2 s", "--source", "--close rst", "tcp_tw_reuse=1", "1,000 closes/s"]
        {
            assert!(short.contains(part), "{part}: {short}");
        }
        assert_eq!(note(1_000, 3, false, RULES), "");
        // On loopback a port is taken again after a second.
        assert_eq!(note(1_000, 1, true, RULES), "");
        let fast = note(30_000, 1, true, RULES);
        assert!(fast.contains("30,000 ports") && !fast.contains("tcp_tw_reuse"), "{fast}");
        assert!(note(1_000, 1, true, Rules { reuse: 0, ..RULES }).contains("60,000 ports"));
        assert_eq!(note(1_000, 1, false, Rules { reuse: 1, ..RULES }), "");
        // A short run is over before.
        let brief = forecast(1_000, 10 * NS_PER_S, Ways { pairs: 1, loopback: false }, RULES);
        assert_eq!((brief.note, brief.steady), (None, 60_000));
    }

    #[test]
    fn a_full_table_frees_ports_and_is_told() {
        let full = note(2_000, 1, true, RULES);
        assert!(full.contains("120,000") && full.contains("tcp_max_tw_buckets"), "{full}");
        let small = Rules { max_tw_buckets: 5_000, ..RULES };
        assert!(note(1_000, 1, false, small).contains("tcp_max_tw_buckets"), "fewer are kept than there are ports");
    }
}
