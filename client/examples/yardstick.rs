//! The yardstick: the least that a load generator can do. It connects, sends one request on each connection, and, once
//! all have been answered, sends the next for each reply: no clock a request, no histogram, no ledger, no check of what
//! came back. How far loadgen is from it is the price of everything else that loadgen does (bench/rivals).
//!
//! `yardstick ADDRESS CONNECTIONS SECONDS [PATH]`: HTTP GET; all replies must have the length of the first.

use loadgen_core::sys::poller::epoll::EpollEdge;
use loadgen_core::sys::poller::{Interest, Poller};
use loadgen_core::sys::{limits, socket};
use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Connections that may be open without having been answered: fewer than fit into nginx's accept queue.
const UNPROVEN_MAX: usize = 256;

fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().collect();
    let usage = || Error::new(ErrorKind::InvalidInput, "usage: yardstick ADDRESS CONNECTIONS SECONDS [PATH]");
    let [_, address, connections, seconds, path @ ..] = &args[..] else { return Err(usage()) };
    let target: SocketAddr = address.parse().map_err(|_| usage())?;
    let connections: usize = connections.parse().map_err(|_| usage())?;
    let length = Duration::from_secs(seconds.parse().map_err(|_| usage())?);
    let path = path.first().map_or("/", String::as_str);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").into_bytes();
    limits::raise_descriptors()?;

    let sources: Vec<SocketAddr> =
        (0..connections.div_ceil(8000)).map(|n| SocketAddr::from(([127, 0, 0, n as u8 + 1], 0))).collect();
    let mut poller = EpollEdge::new()?;
    let mut sockets: Vec<OwnedFd> = Vec::with_capacity(connections);
    let (mut events, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    let (mut reply_len, mut received, mut proven) = (0, 0u64, 0);
    let mut answered = vec![false; connections];
    let mut going = false;
    let began = Instant::now();
    while began.elapsed() < length {
        while sockets.len() < connections && sockets.len() - proven < UNPROVEN_MAX {
            let socket = socket::connect(&target.into(), Some(&sources[sockets.len() % sources.len()]))?;
            poller.add(socket.as_fd(), sockets.len() as u64, Interest::BOTH)?;
            sockets.push(socket);
        }
        poller.wait(&mut events, Some(Duration::from_millis(100)))?;
        for event in &events {
            let slot = event.token as usize;
            let socket = sockets[slot].as_fd();
            if !event.readable {
                socket::send(socket, &request)?;
                continue;
            }
            let n = match socket::receive(socket, &mut buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                n => n?,
            };
            if !answered[slot] {
                answered[slot] = true;
                proven += 1;
                reply_len = reply_len.max(n);
            }
            received += n as u64;
            if going {
                socket::send(socket, &request)?;
            }
        }
        if !going && proven == connections {
            going = true;
            for socket in &sockets {
                socket::send(socket.as_fd(), &request)?;
            }
        }
    }
    println!("{} replies of {reply_len} bytes on {proven} connections", received / reply_len.max(1) as u64);
    Ok(())
}
