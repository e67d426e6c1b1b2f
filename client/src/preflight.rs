//! What cannot work is refused before the first connection, with the numbers and the remedy.

use crate::destination::{self, Destination};
use crate::failure::{Exit, Failure};
use crate::plan::Plan;
use crate::request_log::ROWS_MAX;
use loadgen_core::load::request_log::ROW_BYTES;
use loadgen_core::machine;
use loadgen_core::sys::endpoint::Endpoint;
use loadgen_core::sys::{limits, ring};
use loadgen_core::units::format_size;
use std::net::{IpAddr, UdpSocket};

/// Descriptors beside the connections': standard streams, epoll, files of a moment.
pub const DESCRIPTORS_BESIDE: u64 = 64;

/// Beside the rings: those, and as many as connections are opened at once, which may need one for a moment.
pub const DESCRIPTORS_BESIDE_RINGS: u64 = 32;

/// Kernel memory of one end of an idle TCP connection, measured on Linux 6.18 (slab sizes of the socket, its inode,
/// dentry, file and epoll item; with io_uring the armed receive is larger than that item).
pub const KERNEL_BYTES_AN_END: u64 = 4_700;

/// User memory of a connection on either side (client 64 bytes, server at most 128), rounded up.
pub const USER_BYTES_A_CONNECTION: u64 = 256;

/// `select` can watch descriptors below FD_SETSIZE only.
const SELECT_CONNECTIONS_MAX: u64 = 1_000;

/// Raises the descriptor limit and checks that this machine can carry the plan towards these destinations.
pub fn check(plan: &Plan, to: &[Destination]) -> Result<(), Failure> {
    descriptors(plan)?;
    destination::check_shares(plan, to)?;
    if plan.ring.zero_copy.is_some() && to.iter().any(|one| one.endpoint.ip().is_none()) {
        let message = "--ring zero-copy is for networks: the kernel refuses it for unix sockets (EOPNOTSUPP)";
        return Err(Failure::usage(message));
    }
    if plan.traffic.reset && to.iter().any(|one| one.endpoint.ip().is_none()) {
        return Err(Failure::usage("--close rst is for TCP: a unix socket knows no reset"));
    }
    let turns = destination::turns(to);
    for (number, one) in to.iter().enumerate() {
        sources(plan, &one.endpoint)?;
        ports(plan, &one.endpoint, turns.share(number, plan.total_connections()))?;
    }
    memory(plan, to.iter().any(|one| one.endpoint.ip().is_none_or(is_this_machine)))
}

fn descriptors(plan: &Plan) -> Result<(), Failure> {
    let limit = limits::raise_descriptors()
        .map_err(|error| Failure::new(Exit::Machine, format!("cannot raise the descriptor limit: {error}")))?;
    let connections = plan.total_connections();
    let need = connections + DESCRIPTORS_BESIDE;
    let who = match (plan.engine.needs_ring, plan.is_embedded() && !plan.server_needs_ring()) {
        (false, _) => Some("this process"),
        (true, true) => Some("the embedded server"),
        (true, false) => None,
    };
    if let Some(who) = who
        && need > limit
    {
        let message =
            format!("{connections} connections need {need} descriptors, and {who} may have {limit} (the hard limit)");
        let fit = limit.saturating_sub(DESCRIPTORS_BESIDE);
        let fewer = if fit > 0 { format!(", or use --conns {} or fewer", plan.conns_for(fit)) } else { String::new() };
        let help = format!("{}raise the limit (`ulimit -Hn {need}` as root, then run again){fewer}", without(plan));
        return Err(Failure::new(Exit::Machine, message).help(help));
    }
    // A ring's table is no larger than the limit, and each ring is a descriptor itself.
    let rings = connections.div_ceil(limit.max(1));
    if plan.engine.needs_ring && rings + DESCRIPTORS_BESIDE_RINGS > limit {
        let need = rings + DESCRIPTORS_BESIDE_RINGS;
        let message = format!(
            "{connections} connections need {rings} rings and so {need} descriptors, and this process may have {limit} \
             (the hard limit)"
        );
        let help = "raise the limit: the number of connections grows with its square (`ulimit -Hn` as root)";
        return Err(Failure::new(Exit::Machine, message).help(help));
    }
    if plan.is_embedded() && plan.server_engine == "select" && connections > SELECT_CONNECTIONS_MAX {
        let message = format!("{connections} connections are beyond select(2), which watches descriptors below 1024");
        let help = format!("use --server-engine poll or epoll, or --conns {SELECT_CONNECTIONS_MAX} or fewer");
        return Err(Failure::new(Exit::Machine, message).help(help));
    }
    Ok(())
}

/// The way that needs no descriptors, where this machine has it.
fn without(plan: &Plan) -> &'static str {
    match (ring::check(&plan.ring).is_ok(), plan.is_embedded()) {
        (false, _) => "",
        (true, false) => "use --engine io_uring, whose connections are no descriptors; or ",
        (true, true) => "use --engine io_uring --server-engine io_uring, whose connections are no descriptors; or ",
    }
}

/// An address to connect from must be one of ours, and of the target's family.
fn sources(plan: &Plan, remote: &Endpoint) -> Result<(), Failure> {
    let Some(ip) = remote.ip() else {
        return match plan.sources.first() {
            Some(source) => {
                Err(Failure::usage(format!("--source {} is an address, and {remote} has none", source.ip())))
            }
            None => Ok(()),
        };
    };
    for source in &plan.sources {
        if source.is_ipv4() != ip.is_ipv4() {
            let message = format!("--source {} and the target {remote} are of different families", source.ip());
            return Err(Failure::usage(message).help("give addresses of the target's family"));
        }
        UdpSocket::bind(source).map_err(|error| {
            Failure::new(Exit::Machine, format!("--source {} cannot be used here: {error}", source.ip()))
                .help("give addresses of this machine (`ip address` lists them)")
        })?;
    }
    Ok(())
}

/// Of a unix socket there are none to run out of.
fn ports(plan: &Plan, remote: &Endpoint, connections: u64) -> Result<(), Failure> {
    if remote.ip().is_none() {
        return Ok(());
    }
    let (low, high) = machine::local_port_range();
    let ports = u64::from(high.saturating_sub(low)) + 1;
    let sources = plan.sources_for(remote).len().max(1) as u64;
    if connections <= ports * sources {
        return Ok(());
    }
    let message = format!(
        "{connections} connections to {remote} need as many local ports; there are {ports} ({low}-{high}) for each of \
         {sources} source address(es)"
    );
    let help = format!(
        "widen net.ipv4.ip_local_port_range, add addresses with --source, or use --conns {} or fewer",
        plan.conns_for(ports * sources)
    );
    Err(Failure::new(Exit::Machine, message).help(help))
}

/// `here`: both ends of the connections are on this machine.
fn memory(plan: &Plan, here: bool) -> Result<(), Failure> {
    let Some(available) = machine::available_memory_bytes() else { return Ok(()) };
    let ends = if here { 2 } else { 1 };
    let stamps = 16 * (plan.pipeline - 1);
    let connections = plan.total_connections() * (ends * KERNEL_BYTES_AN_END + USER_BYTES_A_CONNECTION + stamps);
    // Each thread keeps its requests twice: one, and as many back to back as may be in flight.
    let log = if plan.request_log.is_some() { ROWS_MAX * ROW_BYTES } else { 0 };
    let need =
        log + connections + plan.threads * (plan.size + plan.client_options.body.len() as u64) * (plan.pipeline + 1);
    if need <= available {
        return Ok(());
    }
    let message = format!(
        "{} connections need about {} of memory on this machine, and {} are available",
        plan.total_connections(),
        format_size(need),
        format_size(available)
    );
    let fit = plan.conns_for(plan.total_connections() * (available / 1024) / (need / 1024).max(1));
    Err(Failure::new(Exit::Machine, message).help(format!("free memory, or use --conns {fit} or fewer")))
}

fn is_this_machine(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified()
}
