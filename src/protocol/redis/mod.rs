//! The Redis protocol (RESP2 and RESP3), as far as a load test needs it.
//!
//! The client half sends PING, a mix of usual commands, or commands as typed, and reads every type of reply. The server
//! half knows the commands on strings and those that `redis-cli` and `redis-benchmark` begin with. Values in replies
//! stream and are never kept; a request is kept back (by the caller) until it is complete.

mod client;
mod command;
mod reply;
mod request;
mod resp;
mod server;
mod template;

use super::{Protocol, Shape};
use crate::transport::Transport;

pub const PROTOCOL: Protocol = Protocol {
    name: "redis",
    schemes: &["redis"],
    secure_schemes: &[("rediss", Some(6379))],
    alpn: &[],
    about: "Redis (RESP2, RESP3): PING, a mix such as get=9,set=1, or commands as typed",
    default_port: Some(6379),
    transport: Transport::Stream,
    shape: Shape::Exchange,
    store: true,
    paths: true,
    headers: false,
    client: client::client,
    server: server::server,
};
