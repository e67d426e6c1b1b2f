//! The other end of a connection: the protocol's own server half, and what it does where it is not itself.

use super::faults::Fault;
use loadgen_core::protocol::{MAX_KEPT, Next, Output, Protocol, Server, ServerOptions, ServerState, Shape};
use loadgen_core::rng::Rng;

/// Payload bytes of the server's replies where the protocol leaves that to it.
pub(super) const SIZE: usize = 64;

/// Room for what a server half says at once: an echo answers whole requests.
const OUTPUT: usize = MAX_KEPT;

/// What a peer does.
#[derive(Debug)]
pub(super) enum Said {
    /// A whole reply.
    Reply(Vec<u8>),
    /// Bytes that are none.
    Noise(Vec<u8>),
    End,
    Reset,
}

#[derive(Debug)]
pub(super) struct Peer {
    server: Box<dyn Server>,
    state: ServerState,
    shape: Shape,
    output: Output,
    kept: Vec<u8>,
    /// Where all requests are alike: how long one is, and what it is answered; else 0.
    request_len: usize,
    reply: Vec<u8>,
    /// Bytes of a request that has been answered already.
    skip: usize,
    /// Requests of which it has seen something.
    pub(super) requests: u64,
    deaf: bool,
}

impl Peer {
    /// `request`: of which all are a copy; empty where they differ.
    pub(super) fn new(protocol: &'static Protocol, request: &[u8], size: usize) -> Self {
        let options = ServerOptions { size, ..ServerOptions::default() };
        let server = (protocol.server)(&options).expect("a server half");
        let mut peer = Self {
            server,
            state: ServerState::default(),
            shape: protocol.shape,
            output: Output::one_reply(OUTPUT),
            kept: request.to_vec(),
            request_len: request.len(),
            reply: Vec::new(),
            skip: 0,
            requests: 0,
            deaf: false,
        };
        if protocol.shape == Shape::Exchange && !request.is_empty() {
            if let Served::Reply(reply) = peer.serve() {
                peer.reply = reply;
            }
            peer.state = ServerState::default();
        }
        peer.kept.clear();
        peer
    }

    /// Looks at what has arrived, and answers.
    pub(super) fn read(&mut self, arrived: &[u8], fault: Option<Fault>, rng: &mut Rng) -> Vec<Said> {
        let mut said = Vec::new();
        if self.shape == Shape::Datagram {
            self.datagram(arrived, fault, rng, &mut said);
            return said;
        }
        self.kept.extend_from_slice(arrived);
        while !self.deaf {
            let skipped = self.skip.min(self.kept.len());
            self.kept.drain(..skipped);
            self.skip -= skipped;
            if self.kept.is_empty() || !self.next(fault, rng, &mut said) {
                break;
            }
        }
        said
    }

    /// Deals with one request, and says whether to go on.
    fn next(&mut self, fault: Option<Fault>, rng: &mut Rng, said: &mut Vec<Said>) -> bool {
        let strikes = rng.below(4) == 0;
        let alike = self.request_len > 0 && self.state == ServerState::default();
        if let Some(fault) = fault.filter(|_| strikes && alike) {
            match fault {
                Fault::EarlyReplies | Fault::EarlyThenDeaf | Fault::EarlyThenEnds => {
                    self.requests += 1;
                    self.skip = self.request_len;
                    said.push(Said::Reply(self.reply.clone()));
                    self.deaf = fault != Fault::EarlyReplies;
                    if fault == Fault::EarlyThenEnds {
                        said.push(Said::End);
                    }
                    return true;
                }
                Fault::Silent if self.kept.len() >= self.request_len => {
                    self.requests += 1;
                    self.skip = self.request_len;
                    return true;
                }
                _ => {}
            }
        }
        match self.serve() {
            Served::Incomplete => false,
            Served::Over => {
                said.push(Said::End);
                self.deaf = true;
                false
            }
            Served::Reply(reply) => {
                self.requests += 1;
                self.answer(reply, fault.filter(|_| strikes), rng, said);
                true
            }
        }
    }

    fn answer(&mut self, mut reply: Vec<u8>, fault: Option<Fault>, rng: &mut Rng, said: &mut Vec<Said>) {
        match fault {
            Some(Fault::Doubles) => said.extend([Said::Reply(reply.clone()), Said::Noise(reply)]),
            Some(Fault::Noise) => said.extend([Said::Reply(reply), Said::Noise(b"\x00noise".to_vec())]),
            Some(Fault::Ends | Fault::Resets) => {
                self.deaf = true;
                let kept = rng.below(reply.len() as u64 + 1) as usize;
                let whole = kept == reply.len();
                reply.truncate(kept);
                said.push(if whole { Said::Reply(reply) } else { Said::Noise(reply) });
                said.push(if fault == Some(Fault::Ends) { Said::End } else { Said::Reset });
            }
            _ => said.push(Said::Reply(reply)),
        }
    }

    /// Datagrams are lost, doubled, spoilt; that they overtake each other is the network's doing.
    fn datagram(&mut self, datagram: &[u8], fault: Option<Fault>, rng: &mut Rng, said: &mut Vec<Said>) {
        self.output.clear();
        self.server.serve(&mut self.state, datagram, false, &mut self.output);
        self.requests += 1;
        let reply = self.output.bytes().to_vec();
        match fault.filter(|_| rng.below(4) == 0) {
            Some(Fault::Silent | Fault::NeverReads) => {}
            Some(Fault::Doubles | Fault::EarlyReplies) => said.extend([Said::Reply(reply.clone()), Said::Noise(reply)]),
            Some(Fault::Noise) => said.extend([Said::Noise(b"noise".to_vec()), Said::Reply(reply)]),
            Some(Fault::Ends | Fault::EarlyThenEnds) => said.push(Said::Noise(reply[..reply.len() / 2].to_vec())),
            Some(Fault::Resets) => said.push(Said::Reset),
            _ => said.push(Said::Reply(reply)),
        }
    }

    fn serve(&mut self) -> Served {
        let mut reply = Vec::new();
        loop {
            self.output.clear();
            let served = self.server.serve(&mut self.state, &self.kept, false, &mut self.output);
            self.kept.drain(..served.consumed);
            reply.extend_from_slice(self.output.bytes());
            match served.next {
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
