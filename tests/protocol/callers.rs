//! Plays the caller of a protocol: keeps the bytes that were not consumed and presents them again.

use loadgen_core::protocol::ask::Asker;
use loadgen_core::protocol::{
    ClientOptions, ClientState, Codec, Next, Output, Reply, ReplyErrorKind, Server, ServerState,
};

pub(crate) fn options(size: usize) -> ClientOptions {
    ClientOptions {
        size,
        authority: "localhost".into(),
        path: "/".into(),
        method: "GET".into(),
        ..ClientOptions::default()
    }
}

/// How a stream ended for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Between,
    WithReply(Reply),
    Truncated,
    AfterError,
}

pub(crate) struct ClientCaller {
    client: Box<dyn Codec>,
    state: ClientState,
    /// Of the requests that its options lead to, in order.
    kinds: Vec<u16>,
    pub(crate) kept: Vec<u8>,
    pub(crate) replies: Vec<Reply>,
    pub(crate) error: Option<ReplyErrorKind>,
}

impl ClientCaller {
    pub(crate) fn new(mut client: Box<dyn Codec>) -> Self {
        let mut asker = Asker::new(1, 0);
        let kinds = (0..512).map(|_| asker.ask(|ask| client.compose(ask, &mut Vec::new()))).collect();
        Self { client, state: ClientState::default(), kinds, kept: vec![], replies: vec![], error: None }
    }

    /// What the client half itself counted.
    pub(crate) fn counts(&self) -> Vec<(&'static str, u64)> {
        self.client.counts()
    }

    /// The reply that is awaited next is of this kind, as all that follow.
    pub(crate) fn awaiting(self, kind: u16) -> Self {
        Self { kinds: vec![kind], ..self }
    }

    /// Presents `piece` behind what was kept. After an error, bytes are dropped: the connection is closed.
    pub(crate) fn feed(&mut self, piece: &[u8]) {
        if self.error.is_some() {
            return;
        }
        self.kept.extend_from_slice(piece);
        let mut at = 0;
        loop {
            self.state.kind = self.kinds[self.replies.len() % self.kinds.len()];
            match self.client.consume(&mut self.state, &self.kept[at..]) {
                Ok(consumed) => {
                    at += consumed.bytes;
                    assert!(at <= self.kept.len(), "consumed more than was given");
                    self.replies.extend(consumed.reply);
                    if consumed.reply.is_none() || at == self.kept.len() {
                        break;
                    }
                    assert!(consumed.bytes > 0, "a reply of no bytes");
                }
                Err(error) => {
                    self.error = Some(error.kind);
                    break;
                }
            }
        }
        self.kept.drain(..at);
    }

    pub(crate) fn finish(&mut self) -> Ended {
        if self.error.is_some() {
            return Ended::AfterError;
        }
        match self.client.finish(&mut self.state, &self.kept) {
            Ok(None) => Ended::Between,
            Ok(Some(reply)) => Ended::WithReply(reply),
            Err(error) => {
                assert_eq!(error.kind, ReplyErrorKind::Truncated);
                Ended::Truncated
            }
        }
    }
}

pub(crate) struct ServerCaller {
    server: Box<dyn Server>,
    state: ServerState,
    out: Output,
    /// Stop flushing when this much was sent.
    limit: usize,
    pub(crate) kept: Vec<u8>,
    pub(crate) sent: Vec<u8>,
    pub(crate) requests: u64,
    pub(crate) replies: u64,
    pub(crate) next: Next,
    /// Bytes of `sent` that the test has seen.
    pub(crate) said: usize,
}

impl ServerCaller {
    pub(crate) fn new(server: Box<dyn Server>, room: usize, limit: usize) -> Self {
        let state = ServerState::default();
        let out = Output::new(room);
        let (kept, sent) = (vec![], vec![]);
        Self { server, state, out, limit, kept, sent, requests: 0, replies: 0, next: Next::Read, said: 0 }
    }

    /// Has it answer one request a call, and checks that it does.
    pub(crate) fn one_reply(self, room: usize) -> Self {
        Self { out: Output::one_reply(room), ..self }
    }

    /// Stops flushing once `limit` bytes were sent.
    pub(crate) fn bounded(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    pub(crate) fn feed(&mut self, piece: &[u8]) {
        if !matches!(self.next, Next::Close | Next::Reject) {
            self.kept.extend_from_slice(piece);
            self.serve(false);
        }
    }

    /// The peer ends its stream.
    pub(crate) fn eof(&mut self) -> Next {
        if !matches!(self.next, Next::Close | Next::Reject) {
            self.serve(true);
        }
        self.next
    }

    fn serve(&mut self, eof: bool) {
        loop {
            let served = self.server.serve(&mut self.state, &self.kept, eof, &mut self.out);
            assert!(served.consumed <= self.kept.len(), "consumed more than was given");
            self.kept.drain(..served.consumed);
            self.requests += served.requests;
            self.replies += served.replies;
            self.sent.extend_from_slice(self.out.bytes());
            if self.out.is_one_reply() {
                assert!(served.requests <= 1 && served.replies <= 1, "{served:?}");
            }
            let progress = !self.out.bytes().is_empty();
            self.out.clear();
            self.next = served.next;
            if self.next != Next::Flush || self.sent.len() >= self.limit {
                return;
            }
            assert!(progress, "asks for room in an empty output");
        }
    }
}
