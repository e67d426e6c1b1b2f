//! Does it work? What a kernel says of itself is not enough: a connection is made, accepted and answered.

use super::flow::{Completion, Event};
use super::lanes::Lanes;
use super::options::Options;
use super::refusal::Refusal;
use super::token::{Op, Token};
use crate::sys::socket;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

const SOCKETS: u32 = 4;
/// The client's slot: the kernel hands out the lowest free ones to accepted sockets, after this has been taken.
const CLIENT: u32 = 3;
const PATIENCE: Duration = Duration::from_secs(1);

/// Makes a ring with these options and has one byte travel through it. `Err`: why io_uring cannot be used.
pub fn check(options: &Options) -> Result<(), Refusal> {
    // Accepting and connecting in one ring needs direct descriptors; the option changes nothing else that matters here.
    let options = Options { inline_send: false, ..options.clone() };
    let mut lanes = Lanes::default();
    let mut buffers = vec![lanes.add_at_start(SOCKETS, &options)?];
    let failed = |what: &str, error: io::Error| Refusal::of(what, &error);
    let listener = listener().map_err(|error| failed("a loopback listener", error))?;
    let remote = socket::local_address(listener.as_fd()).map_err(|error| failed("getsockname", error))?;
    let lane = lanes.lane(0);
    let generation = lane.flows.admit(CLIENT, true);
    let connected = lane.ring.connect(Token::new(Op::Connect, generation, CLIENT), &remote.into(), None);
    connected.map_err(|error| failed("connect", error))?;
    lane.ring.accept(listener.as_fd(), false);
    let mut smoke = Smoke { step: "connection", ..Smoke::default() };
    let until = Instant::now() + PATIENCE;
    let mut completed = Vec::new();
    while !smoke.done {
        if Instant::now() > until {
            return Err(Refusal::too_old(&format!("working {} (a trial of one byte stopped there)", smoke.step)));
        }
        let turn = lanes.turn(&mut buffers, Duration::from_millis(20), &mut completed);
        turn.map_err(|error| failed("io_uring_enter", error))?;
        for (_, completion) in completed.drain(..) {
            smoke.advance(&mut lanes, &mut buffers[0], completion)?;
        }
    }
    Ok(())
}

/// Makes all rings that a run needs, each for so many sockets, and lets them go again. One that works is no proof:
/// limits of memory and descriptors are those of all together. `Err`: why they cannot all be had.
pub fn room(rings: &[u32], options: &Options) -> Result<(), Refusal> {
    let mut held = Lanes::default();
    for (made, sockets) in rings.iter().enumerate() {
        held.add_at_start(*sockets, options).map_err(|refusal| refusal.among(made, rings.len()))?;
    }
    Ok(())
}

fn listener() -> io::Result<OwnedFd> {
    socket::listen(SocketAddr::from(([127, 0, 0, 1], 0)), false, 1)
}

#[derive(Debug, Default)]
struct Smoke {
    step: &'static str,
    accepted: Option<u32>,
    done: bool,
}

impl Smoke {
    fn advance(
        &mut self,
        lanes: &mut Lanes,
        buffers: &mut super::Buffers,
        completion: Completion,
    ) -> Result<(), Refusal> {
        let lane = lanes.lane(0);
        let more = completion.more;
        let refused = |what: &str, error: i32| Err(Refusal::of(what, &io::Error::from_raw_os_error(error)));
        match lane.flows.complete(&mut lane.ring, completion) {
            Event::Connected { error: 0, slot } => {
                self.step = "multishot accept";
                let lease = lane.ring.lend(b"!".to_vec()).map_err(|error| Refusal::of("a lease", &error))?;
                lane.flows.send_owned(&mut lane.ring, slot, lease, 1);
            }
            Event::Accepted { slot, .. } => {
                self.step = "multishot receive";
                self.accepted = Some(slot);
                lane.flows.admit(slot, false);
                lane.flows.receive(&mut lane.ring, slot);
            }
            Event::Received { slot, filled, .. } => {
                self.done = Some(slot) == self.accepted && more && buffers.pieces(&filled).eq([b"!"]);
                buffers.give_back(filled);
            }
            Event::Connected { error, .. } => return refused("connect", error),
            Event::AcceptEnded { error } => return refused("multishot accept", error),
            Event::SendFailed { error, .. } | Event::Ended { error, .. } => return refused(self.step, error),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the tests of rings can run here; says why not.
    pub(crate) fn available() -> bool {
        match check(&Options::default()) {
            Ok(()) => true,
            Err(refusal) => {
                println!("skipped: {refusal}");
                false
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "makes system calls")]
    fn a_byte_travels_with_every_option() {
        if !available() {
            return;
        }
        for words in [
            "",
            "sq=8",
            "cq=8",
            "bundles",
            "incremental",
            "zero-copy=1",
            "min-wait=50us",
            "sqpoll=20ms",
            "cq=16,buffers=1x16",
        ] {
            let options = Options::parse(words).unwrap();
            assert_eq!(check(&options), Ok(()), "{words}");
        }
    }
}
