//! Datagrams in place of connections: a thread has one socket, and answers whoever sends. What the two kinds of engines
//! have in common: a datagram becomes a reply, which leaves at once, or (where service times are injected) when it is
//! released.

pub(super) mod readiness;
pub(super) mod ring;

use super::releases::Releases;
use crate::injector::{Injector, Ticket};
use crate::serve::tell;
use crate::stats::Counters;
use loadgen_core::protocol::{Output, Server, ServerState};
use loadgen_core::result::DatagramStats;
use loadgen_core::sys::datagram::{self, Incoming, Peer};
use loadgen_core::sys::{clock, errno};
use loadgen_core::time::{Instant, NS_PER_S};
use loadgen_core::transport::MESSAGE_ROOM;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// What the kernel is asked to keep of datagrams that arrive faster than they are answered. Most systems allow far less
/// (`net.core.rmem_max`); what it gave is in the statistics.
const RECEIVE_BUFFER: i32 = 8 << 20;
/// Replies that one thread holds until their release, and their bytes. Beyond that nothing more is received.
const DELAYED_MOST: usize = 1 << 16;
const DELAYED_BYTES: usize = 64 << 20;
/// What a datagram takes of the kernel's buffer at least (its own bookkeeping, `sizeof(struct sk_buff)`).
const LEAST_COST: u64 = 128;

/// The answering half of a thread.
#[derive(Debug)]
struct Answers {
    protocol: Box<dyn Server>,
    counters: Counters,
    stats: DatagramStats,
    injector: Option<Arc<Injector>>,
    /// For the log of requests: the number of this socket, and of its last request.
    socket: u32,
    requests: u32,
    /// Replies until their release, by index; the free indices; bytes that are delayed.
    delayed: Vec<Option<DelayedReply>>,
    free: Vec<u32>,
    bytes: usize,
    releases: Releases<u32>,
    quiet_until: Instant,
}

#[derive(Debug)]
struct DelayedReply {
    peer: Peer,
    reply: Vec<u8>,
    ticket: Ticket,
}

impl Answers {
    /// Makes the socket ready for a flood, too.
    fn new(socket: &OwnedFd, protocol: Box<dyn Server>, injector: Option<Arc<Injector>>) -> io::Result<Self> {
        let given = datagram::enlarge_receive_buffer(std::os::fd::AsFd::as_fd(socket), RECEIVE_BUFFER)?;
        Ok(Self {
            protocol,
            counters: Counters::default(),
            stats: DatagramStats { receive_buffer_bytes: given, ..DatagramStats::default() },
            socket: injector.as_ref().map_or(0, |injector| injector.number_connection()),
            injector,
            requests: 0,
            delayed: Vec::new(),
            free: Vec::new(),
            bytes: 0,
            releases: Releases::new(),
            quiet_until: Instant(0),
        })
    }

    /// Has the protocol answer a datagram behind what is in `out`. True: the reply is to leave at once.
    fn answer(&mut self, datagram: &[u8], peer: &Peer, truncated: bool, out: &mut Output) -> bool {
        self.counters.received_bytes += datagram.len() as u64;
        let start = out.bytes().len();
        let served = self.protocol.serve(&mut ServerState::default(), datagram, false, out);
        self.counters.requests += served.requests;
        if served.replies == 0 {
            return false;
        }
        if truncated {
            // It would be the reply to another request.
            self.dropped("truncated", 1);
            out.shorten(start);
            return false;
        }
        let Some(injector) = &self.injector else { return true };
        self.requests = self.requests.wrapping_add(1);
        let ticket = injector.admit(self.socket, self.requests, clock::now());
        let delayed = DelayedReply { peer: *peer, reply: out.bytes()[start..].to_vec(), ticket };
        out.shorten(start);
        self.bytes += delayed.reply.len();
        let index = self.free.pop().unwrap_or(self.delayed.len() as u32);
        self.releases.push(ticket.release, index);
        match self.delayed.get_mut(index as usize) {
            Some(free) => *free = Some(delayed),
            None => self.delayed.push(Some(delayed)),
        }
        false
    }

    /// No more may be received for now: too much is delayed.
    fn is_full(&self) -> bool {
        self.holds() >= DELAYED_MOST || self.bytes + MESSAGE_ROOM > DELAYED_BYTES
    }

    fn holds(&self) -> usize {
        self.delayed.len() - self.free.len()
    }

    /// A reply whose time has come.
    fn due(&mut self) -> Option<(Peer, Vec<u8>)> {
        let index = self.releases.next()?;
        let DelayedReply { peer, reply, ticket } = self.delayed[index as usize].take()?;
        self.free.push(index);
        self.bytes -= reply.len();
        let now = clock::now();
        self.counters.releasing.get_or_insert_default().overrun.record(now.since(ticket.release));
        if let (Some(row), Some(injector)) = (ticket.row, &self.injector) {
            injector.sent(row, now);
        }
        Some((peer, reply))
    }

    fn sent(&mut self, replies: u64, bytes: u64) {
        self.counters.replies += replies;
        self.counters.sent_bytes += bytes;
    }

    fn dropped(&mut self, why: &str, replies: u64) {
        if replies > 0 {
            *self.stats.dropped.entry(why.to_owned()).or_default() += replies;
        }
    }

    /// A reply that the kernel refused to send.
    fn refused(&mut self, error: &io::Error) {
        self.dropped(errno::name(error), 1);
        let now = clock::now();
        if now >= self.quiet_until {
            self.quiet_until = now.after(NS_PER_S);
            tell(format_args!("a reply could not be sent: {error} (such replies are counted as dropped)"));
        }
    }

    /// A receive failed. Most often it tells of an earlier reply that reached nobody (ICMP), and the next one works.
    ///
    /// # Errors
    /// Where no other would.
    fn receive_failed(&mut self, error: io::Error) -> io::Result<()> {
        let name = errno::name(&error);
        if matches!(name, "EBADF" | "EINVAL" | "EOPNOTSUPP") {
            return Err(error);
        }
        *self.stats.receive_errors.entry(name.to_owned()).or_default() += 1;
        Ok(())
    }

    /// Whatever arrives from here on is not for us any more.
    fn begin_drain(&mut self, socket: BorrowedFd<'_>) {
        // Now, since what is turned away counts there, too.
        self.stats.kernel_dropped = datagram::kernel_drops(socket).unwrap_or(0);
        if let Err(error) = datagram::close_to_newcomers(socket) {
            tell(format_args!("datagrams that come while the last are answered are answered too: {error}"));
        }
    }

    /// What is still delayed, and `more` on their way, will not be sent.
    fn cut(&mut self, why: &str, more: usize) {
        let cut = self.holds() + more;
        if cut > 0 {
            tell(format_args!("{why}: {cut} replies cut"));
        }
        self.dropped("cut", cut as u64);
    }

    /// Counts what lies in the socket still, which nobody will answer. Of a socket that is closed to newcomers that is
    /// no more than its buffer holds; of one that could not be closed, no more is counted.
    fn count_unread(&mut self, socket: BorrowedFd<'_>, incoming: &mut Incoming) {
        let most = self.stats.receive_buffer_bytes / LEAST_COST;
        while self.stats.unread < most {
            self.counters.calls.recvmmsg += 1;
            // It is empty, or tells of an earlier reply; of those there are few.
            let Ok(received) = incoming.receive(socket) else { break };
            self.stats.unread += received as u64;
        }
        if self.stats.unread > 0 {
            tell(format_args!("{} datagrams were left unread", self.stats.unread));
        }
    }

    fn into_counters(mut self) -> Counters {
        self.releases.add_to(&mut self.counters);
        self.counters.datagrams = Some(Box::new(self.stats));
        self.counters
    }
}

/// How long after the signal the last replies may leave.
fn drain_end(drain: Duration) -> Instant {
    clock::now().after(drain.as_nanos().try_into().unwrap_or(u64::MAX))
}
