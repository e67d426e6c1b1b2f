//! What takes too long: connections that do not come, greetings and requests that are not answered, and requests that
//! do not leave. Each has the timeout.

use super::Load;
use super::connections::{Connections, State, flag};
use crate::engine::Io;
use crate::load::tally::Phase;
use crate::protocol::client::Cancelled;
use crate::protocol::ticket::{Stamp, Ticket};
use crate::time::Instant;
use crate::units::format_duration;
use std::io;
use std::ops::ControlFlow;

impl Load {
    /// Looks at the connections whose deadline has come. Most have been answered since it was set: they get a new one.
    pub(super) fn fire_timeouts(&mut self, io: &mut impl Io, now: Instant) {
        while let Some(slot) = self.on.timeouts.pop(now) {
            self.on.conns[slot as usize].flags &= !flag::TIMER;
            let state = self.on.conns[slot as usize].state;
            let oldest = self.on.oldest_on_wire(slot);
            let since = match (state, oldest) {
                (State::Connecting | State::Preparing, _) => self.on.since[slot as usize],
                (State::Open, Some(oldest)) => self.on.waits_since(oldest),
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
                _ if self.on.is_draining(slot) && oldest.is_none() => {
                    let why = "the server was about to close the connection, and did not in time";
                    self.drop_connection(io, slot, ["closed"; 2], now, why.to_owned());
                }
                _ if oldest.is_none() => self.rest_timed_out(io, slot, now),
                _ => self.requests_timed_out(io, slot, now),
            }
        }
    }

    /// The oldest request of a connection had its time, and perhaps others.
    fn requests_timed_out(&mut self, io: &mut impl Io, slot: u32, now: Instant) {
        while let Some(ticket) = self.on.oldest_on_wire(slot) {
            let since = self.on.waits_since(ticket);
            if now < since.after(self.on.config.timeout_ns) {
                self.on.arm_timeout(slot, since);
                break;
            }
            if self.request_timed_out(io, slot, ticket, now).is_break() {
                return;
            }
        }
        self.go_on(io, slot, now);
        if self.on.on_wire(slot) == 0 {
            // Nothing is left that could prove it. It had its time, and others have waited for it.
            self.on.passed_gate(slot);
        }
    }

    /// A request had its time. Says whether its connection goes on.
    pub(super) fn request_timed_out(
        &mut self,
        io: &mut impl Io,
        slot: u32,
        ticket: Ticket,
        now: Instant,
    ) -> ControlFlow<()> {
        let example = self.on.overdue(ticket, now);
        let is_unprocessed = self.on.is_unprocessed(ticket);
        let cancelled = match is_unprocessed {
            true => Cancelled::Alone,
            false => self.on.ask(slot, now, |client, cx| client.cancel(slot, ticket, cx)),
        };
        if cancelled == Cancelled::Connection {
            self.on.events.clear();
            self.drop_connection(io, slot, ["timeout", "aborted"], now, example);
            return ControlFlow::Break(());
        }
        let request = self.on.end(slot, ticket, now);
        if self.on.fail(slot, request, "timeout", now) {
            self.on.tally.delivery.lost += u64::from(self.on.config.transport.may_lose());
            self.on.note("timeout", Phase::Reply, 1, || example);
        }
        // What it says of that leaves before anything else does, of this connection or another.
        self.heard(io, slot, Ok(()), now);
        if self.on.conns[slot as usize].state == State::Open {
            return ControlFlow::Continue(());
        }
        if is_unprocessed {
            self.demand.lost(&mut self.on, slot);
        }
        ControlFlow::Break(())
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
    fn overdue(&self, ticket: Ticket, now: Instant) -> String {
        let Stamp { due, sent } = self.tickets.stamp(ticket);
        let [timeout, waited] = [self.config.timeout_ns, now.since(due)].map(format_duration);
        if self.is_unprocessed(ticket) {
            return format!("not processed within {timeout} (--timeout), however often it was asked for");
        }
        if sent == Instant(0) {
            return format!("it had not left {timeout} (--timeout) after it was due: its connection takes no more");
        }
        match sent > due {
            false => format!("no reply within {timeout} (--timeout)"),
            true => format!("no reply within {timeout} (--timeout) of its being sent, {waited} after it was due"),
        }
    }
}
