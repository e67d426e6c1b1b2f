//! Where connections go: the addresses of all targets, and whose turn it is.

use crate::engine::Remote;
use crate::failure::{Exit, Failure};
use crate::plan::Plan;
use loadgen_core::arrivals::{Schedule, Split};
use loadgen_core::load::turns::Turns;
use loadgen_core::protocol::Protocol;
use loadgen_core::sys::endpoint::Endpoint;
use loadgen_core::sys::socket;
use loadgen_core::time::Instant;
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

/// How long it may take to hear that nobody listens on a UDP port.
const PROBE: Duration = Duration::from_millis(200);

/// One address of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    pub endpoint: Endpoint,
    /// Which target it belongs to.
    pub target: usize,
    /// The target's share of the connections, beside those of the others; its addresses take turns.
    pub weight: u32,
}

/// Which of a name's addresses are used (`--addresses`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Addresses {
    /// The first that answers.
    #[default]
    First,
    /// All, in turn.
    All,
    /// The first of this family that answers.
    V4,
    V6,
}

impl Addresses {
    /// # Errors
    /// One line with the words that there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "first" => Ok(Self::First),
            "all" => Ok(Self::All),
            "ipv4" => Ok(Self::V4),
            "ipv6" => Ok(Self::V6),
            _ => Err("there are first, all, ipv4 and ipv6".into()),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::All => "all",
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }

    fn takes(self, endpoint: &Endpoint) -> bool {
        match (self, endpoint.socket_addr()) {
            (Self::V4, Some(address)) => address.is_ipv4(),
            (Self::V6, Some(address)) => address.is_ipv6(),
            _ => true,
        }
    }
}

/// An address to which a protocol is spoken.
pub fn endpoint(address: SocketAddr, protocol: &Protocol) -> Endpoint {
    if protocol.transport.has_connections() { Endpoint::Tcp(address) } else { Endpoint::Udp(address) }
}

/// One address alone, such as that of the embedded server.
pub fn only(endpoint: impl Into<Endpoint>) -> Vec<Destination> {
    vec![Destination { endpoint: endpoint.into(), target: 0, weight: 1 }]
}

/// The addresses to use. Where one is to be chosen of several, each is tried in order, with one connection, outside the
/// measurement; a single address is left to the run itself.
///
/// # Errors
/// If a target has no address that answers, or none of the family that was asked for.
pub fn choose(plan: &Plan) -> Result<Vec<Destination>, Failure> {
    let mut chosen = Vec::new();
    for (target, resolved) in plan.targets.iter().enumerate() {
        let known: Vec<&Endpoint> = resolved.addresses.iter().filter(|one| plan.addresses.takes(one)).collect();
        let used = match (known[..].as_ref(), plan.addresses) {
            ([], _) => {
                let (name, family) = (&resolved.target.typed, plan.addresses.name());
                let message = format!("target {name} has no address for --addresses {family}");
                return Err(Failure::new(Exit::Unreachable, message).help("see what its name resolves to"));
            }
            (all, Addresses::All) => all.to_vec(),
            ([one], _) => vec![*one],
            (several, _) => vec![first_that_answers(several, plan.timeout_ns)?],
        };
        let destination = |to: &Endpoint| Destination { endpoint: to.clone(), target, weight: resolved.weight };
        chosen.extend(used.into_iter().map(destination));
    }
    Ok(chosen)
}

fn first_that_answers<'a>(endpoints: &[&'a Endpoint], timeout_ns: u64) -> Result<&'a Endpoint, Failure> {
    let timeout = Duration::from_nanos(timeout_ns);
    let mut last = String::new();
    for endpoint in endpoints {
        let outcome = match endpoint {
            Endpoint::Tcp(address) => TcpStream::connect_timeout(address, timeout).map(drop),
            Endpoint::Udp(address) => probe(address),
            Endpoint::Unix(_) => socket::connect(endpoint, None).map(drop),
        };
        match outcome {
            Ok(()) => return Ok(endpoint),
            Err(error) => last = format!("{endpoint}: {error}"),
        }
    }
    Err(Failure::new(Exit::Unreachable, format!("the target could not be reached: {last}")))
}

/// Whether somebody listens on a UDP port, as far as can be told: an empty message is not refused. (No answer is none
/// either.)
pub fn probe(address: &SocketAddr) -> io::Result<()> {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(PROBE))?;
    socket.send(&[])?;
    match socket.recv(&mut [0; 64]) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Err(error),
        _ => Ok(()),
    }
}

/// The same for the engine of a thread, with the local addresses that connections to each come from.
pub fn remotes(plan: &Plan, destinations: &[Destination], thread: u64) -> Vec<Remote> {
    let (index, _) = plan.part().worker(thread, plan.threads);
    let remote = |to: &Destination| {
        let mut sources: Vec<SocketAddr> = plan.sources_for(&to.endpoint);
        let turn = index as usize % sources.len().max(1);
        sources.rotate_left(turn);
        Remote { endpoint: to.endpoint.clone(), sources }
    };
    destinations.iter().map(remote).collect()
}

/// Which of the destinations a connection goes to.
pub fn turns(destinations: &[Destination]) -> Turns {
    let mut weights = vec![0; destinations.iter().map(|one| one.target + 1).max().unwrap_or(1)];
    destinations.iter().for_each(|one| weights[one.target] = one.weight);
    Turns::new(destinations.iter().map(|one| one.target), &weights)
}

/// When requests to each target are due that this worker sends, counted from the beginning of the load, which nobody
/// knows yet. A target's requests are shared among those workers that have connections to it.
pub fn schedules(plan: &Plan, turns: &Turns, (index, workers): (u64, u64)) -> Vec<Option<Schedule>> {
    let Some(pacing) = &plan.pacing else { return Vec::new() };
    let (arrival, profile) = (pacing.arrival, pacing.rate.after(plan.warmup_ns));
    if plan.targets.len() < 2 {
        return vec![Some(Schedule::new(arrival, profile, plan.seed, index, workers, Instant(0)))];
    }
    let turns = turns.order();
    let of = |target: usize| {
        let carriers = carriers(turns, target as u16, plan.connections, workers);
        let place = carriers.iter().position(|worker| *worker == index)?;
        let split = Split::new(Arc::clone(turns), target as u16, plan.seed);
        let count = carriers.len() as u64;
        Some(Schedule::of_target(arrival, profile.clone(), plan.seed, split, place as u64, count))
    };
    (0..plan.targets.len()).map(of).collect()
}

/// The workers that have connections to a target, of those that carry load: connection n is of worker n % workers.
fn carriers(turns: &[u16], target: u16, connections: u64, workers: u64) -> Vec<u64> {
    let span = connections.min(turns.len() as u64 * workers);
    let known = (0..span).filter(|n| turns[(n % turns.len() as u64) as usize] == target).map(|n| n % workers);
    known.collect::<BTreeSet<u64>>().into_iter().collect()
}

/// In an open loop each target has its share of the rate, and so needs a connection.
///
/// # Errors
/// If there are too few.
pub fn check_shares(plan: &Plan, destinations: &[Destination]) -> Result<(), Failure> {
    if plan.pacing.is_none() || plan.targets.len() < 2 {
        return Ok(());
    }
    let turns = turns(destinations);
    let targets = || turns.order().iter().map(|target| usize::from(*target));
    let reached: BTreeSet<usize> = targets().take(plan.connections as usize).collect();
    let Some(missed) = (0..plan.targets.len()).find(|target| !reached.contains(target)) else { return Ok(()) };
    let need = targets().position(|target| target == missed).map_or(0, |at| at + 1);
    let (name, conns) = (&plan.targets[missed].target.typed, plan.connections);
    let message = format!("--conns {conns} leaves no connection for {name}, which has a share of --rate");
    Err(Failure::usage(message).help(format!("use --conns {need} or more, or other --weights")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_s_requests_are_shared_among_the_workers_that_reach_it() {
        let turns = [0, 1];
        // Two workers: all even connections are of the first, and go to the first target.
        assert_eq!([0, 1].map(|target| carriers(&turns, target, 10, 2)), [vec![0], vec![1]]);
        assert_eq!([0, 1].map(|target| carriers(&turns, target, 10, 3)), [vec![0, 1, 2], vec![0, 1, 2]]);
        assert_eq!([0, 1].map(|target| carriers(&turns, target, 3, 3)), [vec![0, 2], vec![1]]);
        assert_eq!([0, 1].map(|target| carriers(&turns, target, 1, 1)), [vec![0], vec![]]);
    }
}
