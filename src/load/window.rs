//! The measured window and the one-second series.
//!
//! A request belongs to the window when it was *due* within it. What has become of it is settled when the window
//! closes: answered, failed, or in flight (and then it counts with the time it has waited).

use super::Load;
use super::config::{StopRule, Usage};
use super::connections::{Connections, State};
use crate::load::tally::{Bytes, SERIES_INTERVAL_NS, Second};
use crate::protocol::ticket::Ticket;
use crate::time::Instant;

/// A bit of `Conn::queued`: the load has begun in this slot.
const BEGUN: u8 = 16;

#[derive(Debug)]
pub(super) struct Window {
    /// The earliest of the instants below: one comparison on the way of every reply.
    boundary: Instant,
    second_end: Instant,
    opens: Instant,
    closes: Instant,
    /// When the run stops by the clock.
    deadline: Instant,
    /// Requests due from here on are of the window; never, unless it is open.
    from: Instant,
    is_open: bool,
    /// When the last request was answered, or failed.
    last_settled: Instant,
    replies: u64,
    second: Second,
    second_bytes: Bytes,
    second_sent: u64,
    opened_bytes: Bytes,
    opened_before: u64,
    opened_usage: Usage,
}

impl Window {
    pub(super) fn new(origin: Instant) -> Self {
        let second_end = origin.after(SERIES_INTERVAL_NS);
        Self {
            boundary: second_end,
            second_end,
            opens: Instant::NEVER,
            closes: Instant::NEVER,
            deadline: Instant::NEVER,
            from: Instant::NEVER,
            is_open: false,
            last_settled: origin,
            replies: 0,
            second: Second::default(),
            second_bytes: Bytes::default(),
            second_sent: 0,
            opened_bytes: Bytes::default(),
            opened_before: 0,
            opened_usage: Usage::default(),
        }
    }

    /// Sets when the window opens, and by the stop rule when it closes.
    pub(super) fn open_at(&mut self, at: Instant, rule: StopRule) {
        self.opens = at;
        match rule {
            StopRule::After(ns) => {
                self.closes = at.after(ns);
                self.deadline = self.closes;
            }
            // The window closes when the last request is answered or has failed.
            StopRule::Requests(_) => {}
            StopRule::RequestsOrAfter(_, ns) => self.deadline = at.after(ns),
        }
        self.set_boundary();
    }

    #[inline]
    pub(super) fn covers(&self, due: Instant) -> bool {
        due >= self.from
    }

    /// How long after the window opened something was that it covers.
    #[inline]
    pub(super) fn age_ns(&self, at: Instant) -> u64 {
        at.since(self.from)
    }

    #[inline]
    pub(super) fn replied(&mut self, now: Instant, response_ns: u64) {
        self.last_settled = now;
        self.replies += u64::from(self.is_open);
        self.second.ok += 1;
        self.second.response_max_ns = self.second.response_max_ns.max(response_ns);
    }

    /// A request of the open loop left.
    pub(super) fn issued(&mut self, lag_ns: u64, backlog_ns: u64) {
        self.second.lag_max_ns = self.second.lag_max_ns.max(lag_ns);
        self.second.backlog_max_ns = self.second.backlog_max_ns.max(backlog_ns);
    }

    pub(super) fn failed(&mut self, now: Instant) {
        self.last_settled = now;
        self.second.errors += 1;
    }

    /// Has it not opened by now, it never will: nothing is asked any more.
    pub(super) fn call_off(&mut self) {
        if self.opens != Instant::NEVER {
            (self.opens, self.closes) = (Instant::NEVER, Instant::NEVER);
            self.set_boundary();
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    pub(super) fn next_boundary(&self) -> Instant {
        self.boundary
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        now >= self.deadline
    }

    fn set_boundary(&mut self) {
        self.boundary = self.second_end.min(self.opens).min(self.closes).min(self.deadline);
    }
}

impl Load {
    /// Closes seconds, opens and closes the window, as `now` says. What is booked after this call happened at `now`.
    #[inline]
    pub(super) fn cross_boundaries(&mut self, now: Instant) {
        self.on.latest = now;
        if now >= self.on.window.boundary {
            self.cross(now);
        }
    }

    #[cold]
    fn cross(&mut self, now: Instant) {
        while now >= self.on.window.second_end {
            self.on.close_second();
        }
        if now >= self.on.window.opens {
            let at = self.on.window.opens;
            self.on.window.opens = Instant::NEVER;
            self.on.window.from = at;
            self.on.window.is_open = true;
            self.on.window.opened_bytes = self.on.tally.bytes;
            self.on.window.opened_before = self.on.tally.connections.opened;
            self.on.window.opened_usage = (self.on.config.usage)();
            self.on.tally.window_from = Some(at);
        }
        if now >= self.on.window.closes {
            let closes = self.on.window.closes;
            self.close_window(closes);
        }
        self.on.window.set_boundary();
        if now >= self.on.window.deadline {
            // `tick` stops the run; until then the deadline must not be crossed with every reply.
            self.on.window.boundary = self.on.window.second_end;
        }
    }

    /// Settles what the window covers: what is unanswered at `at` is in flight, and has waited so long.
    pub(super) fn close_window(&mut self, at: Instant) {
        let on = &mut self.on;
        if on.window.is_open && !on.counts_requests() {
            self.demand.owe_until(on, at);
            on.settle_window(at);
        }
    }

    /// The window closes at `at` instead of later, as planned: the run has shown what it was to show.
    pub fn finish_at(&mut self, at: Instant, now: Instant) {
        let at = at.max(now).min(self.on.window.deadline);
        if self.on.window.is_open && at < self.on.window.deadline {
            (self.on.window.closes, self.on.window.deadline) = (at, at);
            self.on.window.set_boundary();
            self.demand.end(&mut self.on, at);
        }
    }
}

impl Connections {
    fn close_second(&mut self) {
        let bytes = self.tally.bytes.since(&self.window.second_bytes);
        self.window.second_bytes = self.tally.bytes;
        let second = Second {
            sent_bytes: bytes.sent,
            received_bytes: bytes.received,
            connections: self.alive,
            sent: self.tally.whole.sent - self.window.second_sent,
            ..std::mem::take(&mut self.window.second)
        };
        self.window.second_sent = self.tally.whole.sent;
        self.tally.seconds.push(second);
        self.window.second_end = self.window.second_end.after(SERIES_INTERVAL_NS);
    }

    /// A request ended that had been due before the window opened, and had its ticket until now.
    #[cold]
    pub(super) fn carried_over(&mut self, now: Instant) {
        if self.window.is_open {
            self.tally.carried_ns += self.window.age_ns(now);
        }
    }

    /// A connection that carries load begins with it now, if it has not before: within a closed loop, nothing was due
    /// on it until then.
    pub(super) fn begins_late(&mut self, slot: u32, now: Instant) {
        if self.begins(slot) && self.window.is_open {
            let conn = &self.conns[slot as usize];
            let free = self.config.depth.saturating_sub(conn.ring.alive.into()) as u64;
            let due = self.owing.get(&slot).map_or(now, |due| now.min(*due));
            self.tally.carried_ns += free * self.window.age_ns(due);
        }
    }

    /// The load begins on a connection that carries it. Answers whether it had not begun before.
    pub(super) fn begins(&mut self, slot: u32) -> bool {
        let is_idle = self.is_idle(slot);
        let conn = &mut self.conns[slot as usize];
        let begins = !is_idle && conn.queued & BEGUN == 0;
        conn.queued |= BEGUN;
        begins
    }

    /// So many bytes that were booked as sent were not (negative: were after all). They may have been booked in a
    /// second that is over.
    pub(super) fn take_back(&mut self, bytes: i64) {
        self.tally.bytes.sent = self.tally.bytes.sent.saturating_add_signed(-bytes);
        let sent = self.tally.bytes.sent;
        let mut too_many = self.window.second_bytes.sent.saturating_sub(sent);
        for second in self.tally.seconds.iter_mut().rev() {
            let booked = too_many.min(second.sent_bytes);
            second.sent_bytes -= booked;
            too_many -= booked;
        }
        self.window.second_bytes.sent = sent.min(self.window.second_bytes.sent);
        self.window.opened_bytes.sent = sent.min(self.window.opened_bytes.sent);
    }

    fn settle_window(&mut self, at: Instant) {
        // In an open loop no request is due after the window, and those within it keep until their reply is here or
        // the time for it is over. In a closed loop each reply would bring another.
        if !self.is_paced() {
            self.settle_requests(at);
            self.window.from = Instant::NEVER;
        }
        let (opened, usage) = (self.window.opened_usage, (self.config.usage)());
        let cpu = usage.cpu.since(&opened.cpu);
        self.tally.window_cpu = cpu;
        // The busiest is judged by what it did besides waiting for deadlines.
        self.tally.window_cpu_max_ns = cpu.total_ns.saturating_sub(self.tally.spin_ns);
        self.tally.run_delay_ns = usage.run_delay_ns.saturating_sub(opened.run_delay_ns);
        self.tally.window_bytes = self.tally.bytes.since(&self.window.opened_bytes);
        self.tally.window_opened = self.tally.connections.opened - self.window.opened_before;
        self.tally.window_replies = self.window.replies;
        self.tally.window_to = Some(at);
        self.window.is_open = false;
        self.window.closes = Instant::NEVER;
    }

    fn settle_requests(&mut self, at: Instant) {
        for slot in 0..self.conns.len() as u32 {
            let ring = self.conns[slot as usize].ring;
            if let Some(due) = self.owing.get(&slot) {
                self.tally.window.unsent += u64::from(self.window.covers(*due));
            }
            if ring.alive > 0 {
                let tickets: Vec<Ticket> = self.tickets.of(slot, ring).collect();
                tickets.into_iter().for_each(|ticket| self.settle_request(slot, ticket, at));
            }
        }
    }

    fn settle_request(&mut self, slot: u32, ticket: Ticket, at: Instant) {
        let stamp = self.tickets.stamp(ticket);
        if !self.window.covers(stamp.due) {
        } else if self.was_sent(ticket) {
            self.tally.window.in_flight += 1;
            let group = self.group(slot, ticket);
            if let Some(group) = self.tally.groups.get_mut(group) {
                group.waiting(at.since(stamp.due));
            }
            self.tally.responded(self.window.age_ns(stamp.due), at.since(stamp.due));
            self.tally.censored += 1;
        } else {
            self.tally.window.unsent += 1;
        }
    }

    /// The run is over: books the last, incomplete second, and the window where it lasts as long as the run.
    pub(super) fn close_series(&mut self, now: Instant) {
        debug_assert!(self.conns.iter().all(|conn| conn.state == State::Closed));
        debug_assert_eq!((self.in_flight, self.open, self.alive), (0, 0, 0), "in flight, sockets, connections");
        if self.window.is_open {
            self.settle_window(self.window.last_settled.max(self.window.from));
        }
        while now >= self.window.second_end {
            self.close_second();
        }
        self.close_second();
    }
}
