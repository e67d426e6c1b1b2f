//! The other end of a connection: the protocol's own server half, under TLS or not, and what it does where it is not
//! itself.

use super::faults::Fault;
use super::truth::{Seen, Visit};
use loadgen_core::protocol::{MAX_KEPT, Next, Output, Protocol, Server, ServerOptions, ServerState, Shape};
use loadgen_core::rng::Rng;
use loadgen_core::time::Instant;
use loadgen_core::tls::{Secure, server};
use loadgen_core::transport::Transport;

/// Payload bytes of the server's replies where the protocol leaves that to it.
pub(super) const SIZE: usize = 64;

/// Room for what a server half says at once: an echo answers whole requests.
const OUTPUT: usize = MAX_KEPT;

/// Likewise where it never stops.
const OUTPUT_OF_STREAMS: usize = 2_000;

/// What a peer does.
#[derive(Debug)]
pub(super) enum Said {
    /// A whole reply, to which of the requests of its connection.
    Reply(Vec<u8>, usize),
    /// What belongs to the connection: a handshake, the answer to a greeting, an endless stream.
    Word(Vec<u8>),
    /// Bytes that answer nothing.
    Noise(Vec<u8>),
    End,
    Reset,
}

/// What all peers of a run have in common.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) protocol: &'static Protocol,
    pub(super) size: usize,
    /// Of which all requests are copies; empty where they differ.
    pub(super) request: Vec<u8>,
    /// Replies that belong to a greeting.
    pub(super) greetings: u32,
    pub(super) tls: Option<server::Settings>,
}

#[derive(Debug)]
pub(super) struct Peer {
    server: Box<dyn Server>,
    secure: Option<Secure>,
    state: ServerState,
    transport: Transport,
    shape: Shape,
    output: Output,
    kept: Vec<u8>,
    /// Bytes before those that are kept; where the request begins that is being read.
    at: u64,
    start: u64,
    greetings: u32,
    /// Where all requests are alike: what one is, and what it is answered.
    request: Vec<u8>,
    reply: Vec<u8>,
    /// Bytes of a request that has been answered already.
    skip: usize,
    /// It has seen something of so many requests.
    pub(super) requests: u64,
    deaf: bool,
}

impl Peer {
    pub(super) fn new(kind: &Kind) -> Self {
        let options = ServerOptions { size: kind.size, ..ServerOptions::default() };
        let (transport, shape) = (kind.protocol.transport, kind.protocol.shape);
        let mut peer = Self {
            server: (kind.protocol.server)(&options).expect("a server half"),
            secure: None,
            state: ServerState::default(),
            transport,
            shape,
            output: Output::one_reply(if shape.has_replies() { OUTPUT } else { OUTPUT_OF_STREAMS }),
            kept: kind.request.clone(),
            at: 0,
            start: 0,
            greetings: 0,
            request: kind.request.clone(),
            reply: Vec::new(),
            skip: 0,
            requests: 0,
            deaf: false,
        };
        if kind.protocol.converses() && !kind.request.is_empty() {
            if let Served::Reply(reply) = peer.serve() {
                peer.reply = reply;
            }
            peer.state = ServerState::default();
        }
        peer.kept.clear();
        (peer.at, peer.start) = (0, 0);
        peer.greetings = kind.greetings;
        peer.secure = kind.tls.as_ref().map(|settings| settings.accept().expect("a server's connection"));
        peer
    }

    /// Looks at what has arrived, and answers.
    pub(super) fn read(
        &mut self,
        arrived: &[u8],
        fault: Option<Fault>,
        rng: &mut Rng,
        (truth, now): (&mut Visit, Instant),
    ) -> Vec<Said> {
        let mut said = Vec::new();
        truth.read += arrived.len() as u64;
        if self.transport.has_messages() {
            self.message(arrived, fault, rng, &mut said);
            return said;
        }
        let heard = self.hear(arrived, &mut said);
        let plain_from = said.len();
        match self.shape {
            Shape::Upload => self.discards(heard, fault, rng, &mut said),
            Shape::Download => {}
            _ => {
                while !self.deaf {
                    let skipped = self.skip.min(self.kept.len());
                    self.drop_kept(skipped);
                    self.skip -= skipped;
                    if self.kept.is_empty() || !self.next(fault, rng, &mut said, (truth, now)) {
                        break;
                    }
                }
            }
        }
        self.encrypt(&mut said[plain_from..]);
        said
    }

    /// Appends what has arrived to what is kept, as plaintext; answers how much that was.
    fn hear(&mut self, arrived: &[u8], said: &mut Vec<Said>) -> usize {
        let before = self.kept.len();
        let Some(secure) = &mut self.secure else {
            self.kept.extend_from_slice(arrived);
            return arrived.len();
        };
        let heard = secure.received(&mut arrived.to_vec(), &mut self.kept);
        heard.expect("what the load says is TLS");
        if secure.has_output() {
            let mut word = Vec::new();
            secure.take_output(&mut word);
            said.push(Said::Word(word));
        }
        if secure.peer_closed() {
            self.deaf = true;
        }
        self.kept.len() - before
    }

    /// As it goes over the wire.
    fn encrypt(&mut self, said: &mut [Said]) {
        let Some(secure) = self.secure.as_mut().filter(|secure| !secure.is_handshaking()) else { return };
        for said in said {
            let (Said::Reply(bytes, _) | Said::Noise(bytes) | Said::Word(bytes)) = said else { continue };
            let plain = std::mem::take(bytes);
            secure.encrypt(&plain, bytes).expect("the handshake is over");
        }
    }

    /// We ended our stream, and it has read all of it.
    pub(super) fn reads_end(&mut self) -> Vec<Said> {
        self.deaf = true;
        let mut said = Vec::new();
        if let Some(secure) = self.secure.as_mut() {
            secure.close();
            let mut word = Vec::new();
            secure.take_output(&mut word);
            said.push(Said::Word(word));
        }
        said.push(Said::End);
        said
    }

    /// More of an endless stream, if it may say something already.
    pub(super) fn produces(&mut self) -> Vec<u8> {
        if self.deaf || self.secure.as_ref().is_some_and(Secure::is_handshaking) {
            return Vec::new();
        }
        self.output.clear();
        self.server.serve(&mut self.state, &[], false, &mut self.output);
        let Some(secure) = &mut self.secure else { return self.output.bytes().to_vec() };
        let mut bytes = Vec::new();
        secure.encrypt(self.output.bytes(), &mut bytes).expect("the handshake is over");
        bytes
    }

    /// Every byte of an endless stream is where it belongs, whatever was cut.
    fn discards(&mut self, heard: usize, fault: Option<Fault>, rng: &mut Rng, said: &mut Vec<Said>) {
        self.requests += u64::from(heard > 0);
        let mut rest = &self.kept[..];
        while !rest.is_empty() {
            let expected = &self.request[(self.at % self.request.len() as u64) as usize..];
            let length = rest.len().min(expected.len());
            assert!(rest[..length] == expected[..length], "a byte of an endless stream after {}", self.at);
            self.at += length as u64;
            rest = &rest[length..];
        }
        self.kept.clear();
        match fault.filter(|_| heard > 0 && rng.below(20) == 0) {
            Some(Fault::Noise | Fault::Doubles) => said.push(Said::Noise(b"noise".to_vec())),
            Some(Fault::Ends) => said.push(Said::End),
            Some(Fault::Resets) => said.push(Said::Reset),
            _ => return,
        }
        self.deaf = true;
    }

    fn drop_kept(&mut self, bytes: usize) {
        self.kept.drain(..bytes);
        self.at += bytes as u64;
    }

    /// A request is known, whole or not.
    fn sees(&mut self, (truth, now): (&mut Visit, Instant), whole: bool) -> usize {
        self.requests += 1;
        let from = self.secure.is_none().then_some(self.start);
        truth.seen.push(Seen { from, whole: whole.then_some(now), answered: None });
        truth.seen.len() - 1
    }

    /// Deals with one request, and says whether to go on.
    fn next(
        &mut self,
        fault: Option<Fault>,
        rng: &mut Rng,
        said: &mut Vec<Said>,
        (truth, now): (&mut Visit, Instant),
    ) -> bool {
        let strikes = rng.below(4) == 0;
        let alike = !self.request.is_empty() && self.greetings == 0 && self.state == ServerState::default();
        if let Some(fault) = fault.filter(|_| strikes && alike) {
            match fault {
                Fault::EarlyReplies | Fault::EarlyThenDeaf | Fault::EarlyThenEnds => {
                    let number = self.sees((truth, now), false);
                    self.begins_another(self.request.len());
                    said.push(Said::Reply(self.reply.clone(), number));
                    self.deaf = fault != Fault::EarlyReplies;
                    if fault == Fault::EarlyThenEnds {
                        said.push(Said::End);
                    }
                    return true;
                }
                Fault::Silent if self.kept.len() >= self.request.len() => {
                    self.sees((truth, now), true);
                    self.begins_another(self.request.len());
                    // What comes back for the next one is taken for its reply.
                    truth.misled = true;
                    return true;
                }
                _ => {}
            }
        }
        if self.at == self.start
            && truth.steps.len() == truth.seen.len()
            && let Some(step) = step_of(&self.kept)
        {
            truth.steps.push(step);
        }
        match self.serve() {
            Served::Incomplete => false,
            Served::Over => {
                said.push(Said::End);
                self.deaf = true;
                false
            }
            Served::Reply(reply) if self.greetings > 0 => {
                self.greetings -= 1;
                self.start = self.at;
                said.push(Said::Word(reply));
                true
            }
            Served::Reply(reply) => {
                let number = self.sees((truth, now), true);
                self.start = self.at;
                self.answer((reply, number), fault.filter(|_| strikes), rng, said);
                true
            }
        }
    }

    fn begins_another(&mut self, length: usize) {
        self.skip = length;
        self.start = self.at + length as u64;
    }

    fn answer(
        &mut self,
        (mut reply, number): (Vec<u8>, usize),
        fault: Option<Fault>,
        rng: &mut Rng,
        said: &mut Vec<Said>,
    ) {
        match fault {
            Some(Fault::Doubles) => said.extend([Said::Reply(reply.clone(), number), Said::Noise(reply)]),
            Some(Fault::Noise) => said.extend([Said::Reply(reply, number), Said::Noise(b"\x00noise".to_vec())]),
            Some(Fault::Ends | Fault::Resets) => {
                self.deaf = true;
                let kept = rng.below(reply.len() as u64 + 1) as usize;
                let whole = kept == reply.len();
                reply.truncate(kept);
                said.push(if whole { Said::Reply(reply, number) } else { Said::Noise(reply) });
                said.push(if fault == Some(Fault::Ends) { Said::End } else { Said::Reset });
            }
            _ => said.push(Said::Reply(reply, number)),
        }
    }

    /// Messages are lost, doubled, spoilt; that they overtake each other is the network's doing.
    fn message(&mut self, message: &[u8], fault: Option<Fault>, rng: &mut Rng, said: &mut Vec<Said>) {
        self.output.clear();
        self.server.serve(&mut self.state, message, false, &mut self.output);
        self.requests += 1;
        let reply = Said::Reply(self.output.bytes().to_vec(), 0);
        let bytes = self.output.bytes();
        match fault.filter(|_| rng.below(4) == 0) {
            Some(Fault::Silent | Fault::NeverReads) => {}
            Some(Fault::Doubles | Fault::EarlyReplies) => said.extend([reply, Said::Noise(bytes.to_vec())]),
            Some(Fault::Noise) => said.extend([Said::Noise(b"noise".to_vec()), reply]),
            Some(Fault::Ends | Fault::EarlyThenEnds) => said.push(Said::Noise(bytes[..bytes.len() / 2].to_vec())),
            Some(Fault::Resets) => said.push(Said::Reset),
            _ => said.push(reply),
        }
    }

    fn serve(&mut self) -> Served {
        let mut reply = Vec::new();
        loop {
            self.output.clear();
            let served = self.server.serve(&mut self.state, &self.kept, false, &mut self.output);
            self.drop_kept(served.consumed);
            reply.extend_from_slice(self.output.bytes());
            match served.next {
                // What it is to close behind its reply, it says anew.
                _ if served.replies > 0 => return Served::Reply(reply),
                Next::Flush => {}
                Next::Read => return Served::Incomplete,
                Next::Close | Next::Reject => return Served::Over,
            }
        }
    }
}

enum Served {
    Reply(Vec<u8>),
    Incomplete,
    Over,
}

/// The letter behind `?` of a request of a script (see [`super::users`]).
fn step_of(request: &[u8]) -> Option<u8> {
    let line = &request[..request.iter().position(|byte| *byte == b'\r')?];
    let mark = line.iter().position(|byte| *byte == b'?')?;
    line.get(mark + 1).copied()
}
