//! Discard over TCP, as in RFC 863: the server throws away what it receives and never answers.

use super::endless::Endless;
use super::{
    Client, ClientOptions, ClientState, Codec, Consumed, Next, Output, Protocol, Reply, ReplyError, ReplyErrorKind,
    Served, Server, ServerOptions, ServerState, Shape, echo,
};
use crate::transport::Transport;

pub const PROTOCOL: Protocol = Protocol {
    name: "discard",
    schemes: &["discard"],
    secure_schemes: &[],
    alpn: &[],
    about: "an endless stream to a server that throws it away (RFC 863); upload throughput",
    default_port: None,
    transport: Transport::Stream,
    shape: Shape::Upload,
    store: false,
    paths: false,
    headers: false,
    client,
    server,
};

fn client(options: &ClientOptions) -> Result<Box<dyn Client>, String> {
    if options.size == 0 {
        return Err("a block of the discard stream needs at least one byte: the size is 0".into());
    }
    Ok(Endless::boxed(DiscardClient { block: echo::pattern(options.size) }))
}

fn server(_options: &ServerOptions) -> Result<Box<dyn Server>, String> {
    Ok(Box::new(DiscardServer))
}

/// Remembers nothing of a connection.
#[derive(Debug)]
struct DiscardClient {
    block: Vec<u8>,
}

impl Codec for DiscardClient {
    fn request(&self) -> &[u8] {
        &self.block
    }

    fn consume(&mut self, _state: &mut ClientState, input: &[u8]) -> Result<Consumed, ReplyError> {
        if input.is_empty() {
            return Ok(Consumed { bytes: 0, reply: None });
        }
        Err(ReplyError { kind: ReplyErrorKind::Malformed, detail: "a discard server must not answer" })
    }

    fn finish(&mut self, _state: &mut ClientState, _kept: &[u8]) -> Result<Option<Reply>, ReplyError> {
        Ok(None)
    }
}

/// Remembers nothing of a connection; counts no requests, because the stream has none.
#[derive(Debug)]
struct DiscardServer;

impl Server for DiscardServer {
    fn serve(&mut self, _state: &mut ServerState, input: &[u8], eof: bool, _out: &mut Output) -> Served {
        let next = if eof { Next::Close } else { Next::Read };
        Served { consumed: input.len(), requests: 0, replies: 0, next }
    }
}
