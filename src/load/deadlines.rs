//! What takes too long: connections that do not come, greetings and requests that are not answered, and requests that
//! do not leave. Each has the timeout.

use super::Load;
use super::connections::{Conn, Connections, State, flag};
use crate::engine::Io;
use crate::load::tally::Phase;
use crate::protocol::client::Cancelled;
use crate::protocol::ticket::Stamp;
use crate::time::Instant;
use crate::units::format_duration;
use std::io;

impl Load {
    /// Looks at the connections whose deadline has come. Most have been answered since it was set: they get a new one.
    pub(super) fn fire_timeouts(&mut self, io: &mut impl Io, now: Instant) {
        while let Some(slot) = self.on.timeouts.pop(now) {
            self.on.conns[slot as usize].flags &= !flag::TIMER;
            let Conn { state, ring, .. } = self.on.conns[slot as usize];
            let since = match (state, self.on.tickets.oldest(slot, ring)) {
                (State::Connecting | State::Preparing, _) => self.on.since[slot as usize],
                (State::Open, Some(oldest)) => waits_since(self.on.tickets.stamp(oldest)),
                (State::Open, None) if self.on.awaits_rest(io, slot) || self.on.is_draining(slot) => {
                    self.on.since[slot as usize]
                }
                _ => continue,
            };
            if now < since.after(self.on.config.timeout_ns) {
                self.on.arm_timeout(slot, since);
                continue;
            }
            match state {
                State::Connecting => {
                    io.close(slot);
                    self.connect_failed(slot, &io::ErrorKind::TimedOut.into(), now);
                }
                State::Preparing => {
                    let stage = self.on.clients[self.on.config.target(slot)].stage(slot);
                    self.preparing_failed(io, slot, "timeout", &format!("{stage} was not answered in time"), now);
                }
                _ if self.on.is_draining(slot) && ring.alive == 0 => {
                    let why = "the server was about to close the connection, and did not in time";
                    self.drop_connection(io, slot, ["closed"; 2], now, why.to_owned());
                }
                _ if ring.alive == 0 => self.rest_timed_out(io, slot, now),
                _ => self.requests_timed_out(io, slot, now),
            }
        }
    }

    /// The oldest request of a connection had its time, and perhaps others.
    fn requests_timed_out(&mut self, io: &mut impl Io, slot: u32, now: Instant) {
        while let Some(ticket) = self.on.tickets.oldest(slot, self.on.conns[slot as usize].ring) {
            let stamp = self.on.tickets.stamp(ticket);
            let since = waits_since(stamp);
            if now < since.after(self.on.config.timeout_ns) {
                self.on.arm_timeout(slot, since);
                break;
            }
            let example = self.on.overdue(stamp, now);
            match self.on.ask(slot, now, |client, cx| client.cancel(slot, ticket, cx)) {
                Cancelled::Connection => {
                    self.on.events.clear();
                    return self.drop_connection(io, slot, ["timeout", "aborted"], now, example);
                }
                Cancelled::Alone => {
                    let request = self.on.end(slot, ticket, now);
                    if self.on.fail(slot, request, "timeout", now) {
                        self.on.tally.delivery.lost += u64::from(self.on.config.transport.may_lose());
                        self.on.note("timeout", Phase::Reply, 1, || example);
                    }
                    // What it says of that leaves before anything else does, of this connection or another.
                    self.heard(io, slot, Ok(()), now);
                    if self.on.conns[slot as usize].state != State::Open {
                        return;
                    }
                }
            }
        }
        self.go_on(io, slot, now);
        if self.on.conns[slot as usize].ring.alive == 0 {
            // Nothing is left that could prove it. It had its time, and others have waited for it.
            self.on.passed_gate(slot);
        }
    }
}

impl Connections {
    #[inline]
    pub(super) fn arm_timeout(&mut self, slot: u32, from: Instant) {
        let conn = &mut self.conns[slot as usize];
        if conn.flags & flag::TIMER == 0 {
            conn.flags |= flag::TIMER;
            self.timeouts.push(from.after(self.config.timeout_ns), slot);
        }
    }

    /// What is to be said of a request that had its time: how long that was, and how much longer it has been due.
    pub(super) fn overdue(&self, Stamp { due, sent }: Stamp, now: Instant) -> String {
        let [timeout, waited] = [self.config.timeout_ns, now.since(due)].map(format_duration);
        if sent == Instant(0) {
            return format!("it had not left {timeout} (--timeout) after it was due: its connection takes no more");
        }
        match sent > due {
            false => format!("no reply within {timeout} (--timeout)"),
            true => format!("no reply within {timeout} (--timeout) of its being sent, {waited} after it was due"),
        }
    }
}

/// From when on a request has the timeout.
fn waits_since(stamp: Stamp) -> Instant {
    stamp.sent.max(stamp.due)
}
