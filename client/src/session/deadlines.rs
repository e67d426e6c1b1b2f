//! What takes too long: connections that do not come, greetings and requests that are not answered, and requests that
//! do not leave. Each has the timeout.

use super::{Session, Stamp, State, flag};
use crate::engine::Io;
use loadgen_core::time::Instant;
use loadgen_core::units::format_duration;
use std::io;

impl Session {
    pub(super) fn arm_timeout(&mut self, slot: u32, from: Instant) {
        let conn = &mut self.conns[slot as usize];
        if conn.flags & flag::TIMER == 0 {
            conn.flags |= flag::TIMER;
            self.timeouts.push(from.after(self.config.timeout_ns), slot);
        }
    }

    /// Looks at the connections whose deadline has come. Most have been answered since it was set: they get a new one.
    pub(super) fn fire_timeouts(&mut self, io: &mut impl Io, now: Instant) {
        while let Some(slot) = self.timeouts.pop(now) {
            self.conns[slot as usize].flags &= !flag::TIMER;
            let conn = self.conns[slot as usize];
            let oldest = *self.stamp(slot, 0);
            let since = match conn.state {
                State::Connecting | State::Securing | State::Greeting => oldest.sent,
                State::Open if conn.outstanding > 0 => oldest.sent.max(oldest.due),
                State::Open if self.has_rest(io, slot) => self.answered_at(slot),
                _ => continue,
            };
            if now < since.after(self.config.timeout_ns) {
                self.arm_timeout(slot, since);
            } else if self.datagrams.is_some() && conn.state == State::Open {
                self.datagrams_timed_out(io, slot, now);
            } else if conn.state == State::Connecting {
                io.close(slot);
                self.connect_failed(slot, &io::ErrorKind::TimedOut.into(), now);
            } else if matches!(conn.state, State::Securing | State::Greeting) {
                let what = if conn.state == State::Securing { "TLS handshake" } else { "greeting" };
                self.greeting_failed(io, slot, "timeout", &format!("the {what} was not answered in time"), now);
            } else if conn.outstanding == 0 {
                self.rest_timed_out(io, slot, now);
            } else {
                let example = self.overdue(oldest, now);
                self.drop_connection(io, slot, ["timeout", "aborted"], now, example);
            }
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
