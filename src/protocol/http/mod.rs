//! HTTP/1.1 with keep-alive and pipelining (RFC 9110, RFC 9112), as far as a load test needs it.
//!
//! Heads are parsed by `httparse`; framing is decided here, strictly: what two parsers could read in two ways is
//! refused. Bodies stream and are never kept. A head is kept back (by the caller) until it is complete.

pub(crate) mod check;
mod chunked;
mod client;
mod compose;
mod head;
mod reply;
mod request;
mod server;
mod target;

use super::{Protocol, Shape};
use crate::transport::Transport;

pub const PROTOCOL: Protocol = Protocol {
    name: "http",
    schemes: &["http"],
    secure_schemes: &[("https", Some(443))],
    alpn: &["http/1.1"],
    about: "HTTP/1.1 with keep-alive; replies of 4xx and 5xx count as refused",
    default_port: Some(80),
    transport: Transport::Stream,
    shape: Shape::Exchange,
    store: false,
    paths: true,
    headers: true,
    client: client::client,
    server: server::server,
};

/// The most bytes of a head, line ends included.
const MAX_HEAD: usize = super::MAX_KEPT;
/// The most header lines of a head.
const MAX_HEADERS: usize = 128;
