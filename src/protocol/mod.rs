//! What is said on a connection. A protocol is one file with two halves, a [`Client`] and a [`Server`], and one word
//! in [`PROTOCOLS`].
//!
//! Protocols do no I/O: bytes are handed in and come out. A stream may be cut anywhere; the outcome must not depend
//! on where. One `Client` or `Server` value serves all connections of a thread.
//!
//! Read [`client`] first: what a load and a protocol say to each other, with [`ticket`] (the names of requests) and
//! [`outbox`] (what is to be sent). Where replies come in the order of requests, a protocol is but a [`Codec`] under
//! [`lockstep`]; where each is a message that travels alone, under [`tagged`]; where there are none, under [`endless`].
//! [`tls`] is a layer below any of them.

pub mod ask;
pub mod chargen;
pub mod client;
pub mod discard;
pub mod echo;
pub mod endless;
#[cfg(test)]
mod halves_tests;
pub mod http;
pub mod keyspace;
pub mod lockstep;
pub mod memcached;
pub mod outbox;
pub mod redis;
pub mod sequence;
pub mod store;
pub mod tagged;
pub mod ticket;
pub mod tls;
pub mod udp;

pub use client::Client;

use crate::scenario::{Scenario, masked_bytes};
use crate::secrets;
use crate::transport::Transport;
use ask::Ask;
use keyspace::Keyspace;
use sequence::Tag;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use store::Store;

/// The table: a newcomer is a file and a line here.
pub static PROTOCOLS: &[Protocol] = &[
    echo::PROTOCOL,
    http::PROTOCOL,
    discard::PROTOCOL,
    chargen::PROTOCOL,
    udp::PROTOCOL,
    memcached::PROTOCOL,
    redis::PROTOCOL,
];

/// One line of the table.
#[derive(Debug)]
pub struct Protocol {
    /// The word of `--protocol` and of `scenario.protocol`.
    pub name: &'static str,
    /// URL schemes that choose this protocol.
    pub schemes: &'static [&'static str],
    /// URL schemes that mean this protocol under TLS, and the usual port of each.
    pub secure_schemes: &'static [(&'static str, Option<u16>)],
    /// What it is called where TLS negotiates the protocol (ALPN, RFC 7301), best first; empty: it is not.
    pub alpn: &'static [&'static str],
    /// One line of help.
    pub about: &'static str,
    /// The port of a URL that names none; `None`: a port must be given.
    pub default_port: Option<u16>,
    pub transport: Transport,
    pub shape: Shape,
    /// A store of keys and values: it knows logins, mixes, commands, keys and dialects.
    pub store: bool,
    /// It knows a path: what is asked for, or a database.
    pub paths: bool,
    /// Its requests have a method, headers and a body: those that scenario files describe.
    pub headers: bool,
    /// Builds the client half, or says in one line why the options make no sense.
    pub client: fn(&ClientOptions) -> Result<Box<dyn Client>, String>,
    /// Builds the server half, likewise.
    pub server: fn(&ServerOptions) -> Result<Box<dyn Server>, String>,
}

impl Protocol {
    /// Whether it asks and is answered on connections.
    pub fn converses(&self) -> bool {
        self.shape == Shape::Exchange && self.transport.has_connections()
    }

    /// How its requests are written and its replies read.
    ///
    /// # Errors
    /// The options make no sense; or its requests and replies cannot be told apart from their connections.
    pub fn codec(&self, options: &ClientOptions) -> Result<Box<dyn Codec>, String> {
        let codec = (self.client)(options)?.into_codec();
        codec.ok_or_else(|| format!("{} has no requests that can be looked at one by one", self.name))
    }
}

/// The protocol that is called `name`.
pub fn by_name(name: &str) -> Option<&'static Protocol> {
    PROTOCOLS.iter().find(|p| p.name == name)
}

/// The protocol that a URL scheme chooses.
pub fn by_scheme(scheme: &str) -> Option<&'static Protocol> {
    PROTOCOLS.iter().find(|p| p.schemes.contains(&scheme))
}

/// The protocol that a URL scheme chooses under TLS, and the usual port.
pub fn by_secure_scheme(scheme: &str) -> Option<(&'static Protocol, Option<u16>)> {
    let of = |protocol: &'static Protocol| {
        let port = protocol.secure_schemes.iter().find(|(secure, _)| *secure == scheme)?.1;
        Some((protocol, port))
    };
    PROTOCOLS.iter().find_map(of)
}

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Request, reply, request, reply; several in flight with `--pipeline`.
    Exchange,
    /// An endless stream from client to server. No replies, hence no latency: throughput only.
    Upload,
    /// An endless stream from server to client.
    Download,
}

impl Shape {
    /// Whether requests are answered, so that there is a latency.
    pub fn has_replies(self) -> bool {
        self == Self::Exchange
    }
}

/// The room that every server half is content with: an [`Output`] (once emptied) must hold at least this many bytes.
/// HTTP puts a reply's head into it in one piece. A larger one only means fewer calls.
pub const MIN_OUTPUT: usize = 256;

/// The most bytes that a client or server half leaves unconsumed while it waits for more behind them (an HTTP head).
/// A caller must be able to show this many at once.
pub const MAX_KEPT: usize = 64 * 1024;

/// What a client half may need to know. Each protocol takes what it knows, and says what makes no sense.
#[derive(Clone, Debug, Default)]
pub struct ClientOptions {
    /// Payload bytes of a request (echo), of one block (discard), of a value (redis, memcached).
    pub size: usize,
    /// `host:port` as typed, for protocols that name it (the Host header).
    pub authority: String,
    /// Path and query of the target URL; `/` when it has none.
    pub path: String,
    pub method: String,
    /// Extra header lines, in order.
    pub headers: Vec<(String, String)>,
    /// Names of headers that are secret whatever they are called: nobody typed them.
    pub hidden_headers: Vec<String>,
    pub body: Vec<u8>,
    /// User and password of the target URL or of the environment; the user may be empty.
    pub login: Option<(String, String)>,
    /// Which dialect of the protocol (redis: `2` or `3`; memcached: `text` or `meta`); none: the usual one.
    pub dialect: Option<String>,
    /// What is asked and how often, as `get=9,set=1`; empty: what the protocol does by default.
    pub mix: Vec<(String, u32)>,
    /// Commands as typed, with their weights; in place of `mix`.
    pub commands: Vec<(String, u32)>,
    pub keyspace: Keyspace,
    /// From it follows what values consist of. It is another for each worker.
    pub seed: u64,
    /// Which worker this is, of how many: what is counted up is shared out among them.
    pub worker: (u64, u64),
    /// What a scenario file says about requests, in place of the fields above where it says something.
    pub scenario: Option<Arc<Scenario>>,
}

impl ClientOptions {
    /// The same requests with `***` in the place of each secret, for what is shown or digested.
    pub fn without_secrets(&self) -> Self {
        let header = |(name, value): &(String, String)| {
            let shown =
                if self.is_secret(name) { secrets::MASK.to_owned() } else { secrets::header_value(name, value) };
            (name.clone(), shown)
        };
        let scenario = self.scenario.as_ref();
        Self {
            path: secrets::url(&self.path),
            headers: self.headers.iter().map(header).collect(),
            body: masked_bytes(&self.body).unwrap_or_else(|| self.body.clone()),
            login: None,
            commands: self.commands.iter().map(|(text, weight)| (secrets::command(text), *weight)).collect(),
            scenario: scenario.map(|it| it.without_secrets().map_or_else(|| Arc::clone(it), Arc::new)),
            ..self.clone()
        }
    }

    /// Names of headers whose values are secret, each once.
    pub fn secret_headers(&self) -> Vec<String> {
        let own = self.headers.iter().map(|(name, _)| name).filter(|name| self.is_secret(name));
        let mut names: Vec<String> = own.cloned().collect();
        names.extend(self.scenario.iter().flat_map(|scenario| scenario.secret_headers()));
        let mut known = BTreeSet::new();
        names.retain(|name| known.insert(name.to_ascii_lowercase()));
        names
    }

    fn is_secret(&self, header: &str) -> bool {
        let hidden = || self.hidden_headers.iter().any(|name| name.eq_ignore_ascii_case(header));
        secrets::is_secret_header(header) || hidden()
    }
}

/// What a server half may need to know.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// Payload bytes: the size of one echo request (so that requests can be counted), of an HTTP body.
    pub size: usize,
    /// The URL scheme under which it is reached; `None`: the protocol's first.
    pub scheme: Option<&'static str>,
    /// What all threads remember (redis, memcached).
    pub store: Arc<Store>,
}

/// How requests are written and replies are read, one at a time.
///
/// One value serves all connections of a thread; what a single connection must remember is in its [`ClientState`].
pub trait Codec: Debug + Send {
    /// The bytes of one request (`Exchange`), of one block of the stream (`Upload`); empty for `Download`.
    /// They are the same for every request, so that all connections share them. Where requests differ, an example.
    fn request(&self) -> &[u8];

    /// Whether requests differ from each other: then each is written by [`Codec::compose`].
    fn composes(&self) -> bool {
        false
    }

    /// Appends the request that is asked for to `out`, moves the cursor on, and answers its kind: an index into
    /// [`Codec::kinds`]. Requests of one connection must be composed in the order in which they leave.
    fn compose(&mut self, _ask: &mut Ask, out: &mut Vec<u8>) -> u16 {
        out.extend_from_slice(self.request());
        0
    }

    /// The kinds of requests that the report tells apart, such as `get` and `set`; none where all are alike.
    fn kinds(&self) -> &[String] {
        &[]
    }

    /// What is said on a new connection before the first request (a login), and how many replies that has. They are
    /// shown to [`Codec::consume`] like others, with [`ClientState::kind`] at [`GREETING`]; one that refuses is a
    /// failed attempt to connect.
    fn greeting(&self) -> Option<(&[u8], u32)> {
        None
    }

    /// Takes bytes of the server's stream, and stops behind the first complete reply.
    ///
    /// Consuming less than `input` without a reply means: show me these bytes again when there are more behind them.
    /// What may be kept back that way is bounded by the protocol (`TooLarge` beyond it).
    ///
    /// Where there are [`Codec::kinds`], `state.kind` says which the awaited reply is to; it is set before each call.
    fn consume(&mut self, state: &mut ClientState, input: &[u8]) -> Result<Consumed, ReplyError>;

    /// What bytes mean that arrived on a connection where nothing was asked, from the first of them on. They answer no
    /// request, but the server may say why it is about to close.
    fn unasked(&self, _input: &[u8]) -> Unasked {
        Unasked::Nothing
    }

    /// The server ended its stream with `kept` bytes not consumed. `Ok(Some)`: that end completes a reply.
    /// `Ok(None)`: it came between two replies. `Err`: it cut a reply short.
    fn finish(&mut self, state: &mut ClientState, kept: &[u8]) -> Result<Option<Reply>, ReplyError>;

    /// Writes into a copy of [`Codec::request`] which one it is ([`tagged`]).
    fn mark(&self, _message: &mut [u8], _tag: Tag) {}

    /// Which request a message answers; `None`: it is none of ours ([`tagged`]). The rest of it [`Codec::consume`]
    /// looks at.
    fn tag_of(&self, _message: &[u8]) -> Option<Tag> {
        None
    }

    /// What the client half itself counted, such as `hits`; none where there is nothing to count.
    fn counts(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// Bytes that are quoted of what a peer said.
const QUOTED: usize = 64;

/// The first bytes of what was received, printable.
pub fn quote(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(QUOTED)];
    let more = if bytes.len() > QUOTED { "…" } else { "" };
    format!("\"{}\"{more}", shown.escape_ascii())
}

/// The kind of what answers a greeting.
pub const GREETING: u16 = u16::MAX;

/// What a client half remembers of one connection. 16 bytes: thousands of these are walked in random order.
/// All zero is the start of a connection. The names are hints; each protocol says what it keeps where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientState {
    pub left: u64,
    pub seen: u32,
    pub step: u8,
    pub flags: u8,
    /// Of the request whose reply is awaited. The caller sets it before each call; what is written to it is lost.
    pub kind: u16,
}

const _: () = assert!(size_of::<ClientState>() == 16);

/// What [`Codec::consume`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consumed {
    pub bytes: usize,
    pub reply: Option<Reply>,
}

/// A complete reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    pub outcome: Outcome,
    /// The server will close the connection after this reply, and that is no error.
    pub last: bool,
}

/// What a complete reply means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    /// The server understood and refused; the kind, such as `status_4xx`, goes into the ledger.
    Refused(&'static str),
    /// The server refused the connection, whatever was asked on it, and closes it: it has too many, or takes none from
    /// here.
    TurnedAway,
}

/// What bytes mean that answer no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unasked {
    /// Nothing that a server may say there.
    Nothing,
    /// Something, if more comes behind it.
    More,
    /// The server closes an idle connection, and that is no error.
    Farewell,
    /// See [`Outcome::TurnedAway`]; of a connection that has been served before, a farewell.
    TurnedAway,
}

/// Why bytes are no valid reply. The connection cannot be used any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyError {
    pub kind: ReplyErrorKind,
    /// One clause for the report, such as `chunk size is not hexadecimal`.
    pub detail: &'static str,
}

impl ReplyError {
    /// The same beside the first bytes of what it is about.
    pub fn describe(&self, input: &[u8]) -> String {
        format!("{}: {}", self.detail, quote(input))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyErrorKind {
    /// Bytes that the protocol forbids.
    Malformed,
    /// Well formed, but not what was asked for (an echo that differs).
    Mismatch,
    /// Beyond a limit of ours (endless headers).
    TooLarge,
    /// The stream ended within a reply.
    Truncated,
}

impl ReplyErrorKind {
    /// The word in the ledger.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Mismatch => "mismatch",
            Self::TooLarge => "too_large",
            Self::Truncated => "truncated",
        }
    }
}

/// The server half.
pub trait Server: Debug + Send {
    /// Reads `input`, writes replies to `out`.
    ///
    /// Called again with the bytes it did not consume and more behind them; called with `eof` once the peer has ended
    /// its stream. It must stop (with [`Next::Flush`]) when `out` is full, and is then called again, with the rest of
    /// the input, once `out` has been emptied. What it refuses to consume is bounded (it answers and closes instead).
    ///
    /// Where `out` wants one reply ([`Output::is_one_reply`]), it stops (with [`Next::Flush`]) behind each complete
    /// reply too, and puts nothing of a reply before its request is complete, unless the request is longer than
    /// [`MAX_KEPT`]. Then a call has at most one request and one reply, and its bytes belong to no other.
    ///
    /// Where the transport has messages, it is shown one whole message, with room in `out` for the largest, and
    /// answers with one or none.
    fn serve(&mut self, state: &mut ServerState, input: &[u8], eof: bool, out: &mut Output) -> Served;

    /// Whether the rest of a request is awaited of which nothing is shown again (a body). Where bytes are not consumed,
    /// a request has begun anyway.
    fn is_within_request(&self, _state: &ServerState) -> bool {
        false
    }
}

/// What a server half remembers of one connection. All zero is the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerState {
    pub left: u64,
    pub out_left: u64,
    pub seen: u32,
    pub step: u8,
    pub flags: u8,
}

/// What [`Server::serve`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// Bytes of `input` that need not be shown again.
    pub consumed: usize,
    /// Requests that became complete (were received whole) in this call.
    pub requests: u64,
    /// Replies whose last byte was put into `out` in this call.
    pub replies: u64,
    pub next: Next,
}

/// What a server half waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// More input.
    Read,
    /// Room in `out`: there is more to say.
    Flush,
    /// Nothing: send what is in `out`, then close.
    Close,
    /// Likewise, because the peer broke the protocol; counted as such.
    Reject,
}

/// A bounded output buffer, one a thread, lent to [`Server::serve`].
#[derive(Debug)]
pub struct Output {
    bytes: Vec<u8>,
    limit: usize,
    one_reply: bool,
}

impl Output {
    /// An empty buffer that holds at most `limit` bytes. Its memory is taken here, once.
    pub fn new(limit: usize) -> Self {
        Self { bytes: Vec::with_capacity(limit), limit, one_reply: false }
    }

    /// Likewise, for a caller who has to tell replies apart: see [`Server::serve`].
    pub fn one_reply(limit: usize) -> Self {
        Self { one_reply: true, ..Self::new(limit) }
    }

    /// Whether a server half is to stop behind each reply.
    pub fn is_one_reply(&self) -> bool {
        self.one_reply
    }

    /// Empties it, and has it hold at most `room` bytes from here on: no more than it was made for, and (as for every
    /// output) at least [`MIN_OUTPUT`].
    pub fn start(&mut self, room: usize) {
        debug_assert!(room >= MIN_OUTPUT, "Output below MIN_OUTPUT");
        self.bytes.clear();
        self.limit = room.min(self.bytes.capacity());
    }

    /// Bytes that still fit.
    pub fn room(&self) -> usize {
        self.limit - self.bytes.len()
    }

    /// Puts all of `bytes`, or nothing and answers false where they do not fit.
    #[must_use]
    pub fn put(&mut self, bytes: &[u8]) -> bool {
        let fits = bytes.len() <= self.room();
        if fits {
            self.bytes.extend_from_slice(bytes);
        }
        fits
    }

    /// Puts as many of `bytes` as fit and says how many.
    pub fn fill(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.room());
        self.bytes.extend_from_slice(&bytes[..n]);
        n
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Takes back all but the first `len` bytes.
    pub fn shorten(&mut self, len: usize) {
        self.bytes.truncate(len);
    }

    /// Takes the bytes out, and goes on with another buffer, which is emptied.
    pub fn take(&mut self, mut other: Vec<u8>) -> Vec<u8> {
        other.clear();
        std::mem::replace(&mut self.bytes, other)
    }
}
