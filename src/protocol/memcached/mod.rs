//! memcached: the text protocol and its meta commands (protocol.txt of memcached 1.6), as clients use them.
//!
//! Replies are judged line by line; values stream and are never kept. The server half keeps what it is told in the
//! store that all threads share. Nothing expires there: protocols read no clock.

mod client;
mod command;
mod meta;
mod reply;
mod server;
mod stats;
mod text;

use super::{MAX_KEPT, Protocol, Shape};
use crate::transport::Transport;

pub const PROTOCOL: Protocol = Protocol {
    name: "memcached",
    schemes: &["memcached"],
    secure_schemes: &[("memcacheds", Some(11211))],
    alpn: &[],
    about: "memcached, text or meta commands; misses are valid replies, and are counted",
    default_port: Some(11211),
    transport: Transport::Stream,
    shape: Shape::Exchange,
    store: true,
    paths: false,
    headers: false,
    client: client::client,
    server: server::server,
};

/// The most bytes of a key (protocol.txt, "Keys").
const KEY_MAX: usize = 250;
/// The most bytes of a line, its end included, of a request (but for its keys, where there may be many) and of a reply.
const LINE_MAX: usize = 2048;
/// Likewise of a request with many keys, which is kept until all have been answered.
const KEYS_LINE_MAX: usize = 60 << 10;
/// The most bytes of a value that the server half takes: with its line it must be shown at once.
const VALUE_MAX: usize = 60 << 10;

const _: () = assert!(LINE_MAX + VALUE_MAX + 2 < MAX_KEPT && KEYS_LINE_MAX < MAX_KEPT);

/// The words of a line; blanks divide them.
fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    line.split(|byte| *byte == b' ').filter(|word| !word.is_empty())
}

/// A whole number without a sign.
fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}
