//! The targets of a run: what was typed, taken apart and looked up.

use crate::cli::RunArgs;
use crate::destination;
use crate::failure::{Exit, Failure};
use crate::plan::unknown;
use crate::scenario;
use crate::target::Target;
use loadgen_core::protocol::{self, Protocol, http};
use loadgen_core::sys::endpoint::Endpoint;
use loadgen_core::sys::interface;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs};

/// A target whose name has been looked up.
#[derive(Debug)]
pub struct ResolvedTarget {
    pub target: Target,
    /// What its name resolved to.
    pub addresses: Vec<Endpoint>,
    /// Its share of the connections, beside those of the others.
    pub weight: u32,
}

/// The targets that were typed, taken apart.
pub fn parse_targets(args: &RunArgs) -> Result<Vec<Target>, Failure> {
    let typed = args.target.iter().chain(&args.positional_target);
    typed.map(|typed| Target::parse(typed).map_err(Failure::usage)).collect()
}

/// The targets with their addresses and weights.
pub fn resolve_targets(
    args: &RunArgs,
    targets: Vec<Target>,
    protocol: &Protocol,
) -> Result<Vec<ResolvedTarget>, Failure> {
    if !args.weights.is_empty() && args.weights.len() != targets.len() {
        let (weights, targets) = (args.weights.len(), targets.len());
        return Err(Failure::usage(format!("--weights has {weights} numbers for {targets} targets")));
    }
    if let Some(weight) = args.weights.iter().find(|weight| !(1..=1000).contains(*weight)) {
        return Err(Failure::usage(format!("--weights {weight} is out of range; a weight is 1 to 1000")));
    }
    if targets.len() > 1 && !protocol.shape.has_replies() {
        return Err(Failure::usage(format!(
            "{} takes one target: its streams have no end to take turns at",
            protocol.name
        )));
    }
    let resolve = |(at, target): (usize, Target)| {
        let addresses = addresses_of(&target, protocol)?;
        Ok(ResolvedTarget { target, addresses, weight: args.weights.get(at).copied().unwrap_or(1) })
    };
    targets.into_iter().enumerate().map(resolve).collect()
}

pub fn choose_protocol(args: &RunArgs, targets: &[Target]) -> Result<&'static Protocol, Failure> {
    let chosen = match &args.protocol {
        None => None,
        Some(name) => Some(
            protocol::by_name(name)
                .ok_or_else(|| unknown("protocol", name, protocol::PROTOCOLS.iter().map(|p| p.name)))?,
        ),
    };
    let Some(first) = targets.first() else {
        let asked = if scenario::is_of_http(args) { &http::PROTOCOL } else { &protocol::PROTOCOLS[0] };
        return Ok(chosen.unwrap_or(asked));
    };
    let protocol = first.protocol(chosen).map_err(Failure::usage)?;
    for other in &targets[1..] {
        let theirs = other.protocol(chosen).map_err(Failure::usage)?;
        if theirs.name != protocol.name {
            let message =
                format!("targets of one run speak one protocol: these are {} and {}", protocol.name, theirs.name);
            return Err(Failure::usage(message).help("give --protocol, or run twice at once with --start-at"));
        }
    }
    Ok(protocol)
}

/// Every address of a target's name.
pub fn addresses_of(target: &Target, protocol: &Protocol) -> Result<Vec<Endpoint>, Failure> {
    if let Some(path) = &target.socket {
        if !protocol.transport.has_connections() {
            let message = format!("target '{}' is a unix socket, and {} goes over IP", target.typed, protocol.name);
            return Err(Failure::usage(message));
        }
        return Ok(vec![Endpoint::unix(path).map_err(Failure::usage)?]);
    }
    let port = target.port.or(target.usual_port).or(protocol.default_port).ok_or_else(|| {
        Failure::usage(format!("target '{}' names no port, and {} has no usual one", target.typed, protocol.name))
    })?;
    let addresses: Vec<SocketAddr> = match &target.zone {
        Some(zone) => vec![zoned(target, zone, port)?],
        None => (target.host.as_str(), port).to_socket_addrs().map_err(|error| unresolved(target, &error))?.collect(),
    };
    let mut unique = Vec::new();
    for address in addresses.into_iter().map(|address| destination::endpoint(address, protocol)) {
        if !unique.contains(&address) {
            unique.push(address);
        }
    }
    Ok(unique)
}

fn unresolved(target: &Target, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Exit::Unreachable, format!("cannot resolve '{}': {error}", target.host))
        .help("check the name, or give an address")
}

/// An address that is told apart by the interface behind which it is (RFC 4007).
fn zoned(target: &Target, zone: &str, port: u16) -> Result<SocketAddr, Failure> {
    let address: Ipv6Addr = target.host.parse().map_err(|error| unresolved(target, &error))?;
    let index = interface::index(zone).map_err(|error| {
        Failure::new(Exit::Unreachable, format!("target '{}': no interface {zone:?}: {error}", target.typed))
            .help("/sys/class/net has the names of those that there are")
    })?;
    // Others are the same behind every interface, and would not be known again by what answers from them.
    let needs_scope = address.is_unicast_link_local() || address.is_multicast();
    Ok(SocketAddrV6::new(address, port, 0, if needs_scope { index } else { 0 }).into())
}
