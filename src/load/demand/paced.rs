//! The open loop: requests are due by a schedule that waits for nobody, and any connection with room carries them.
//!
//! Why a request left late is told apart, because the two have different culprits. *Backlog wait*: every connection
//! was busy, which is the server's doing. *Generator lag*: the rest, which is ours.

use super::super::config::Config;
use super::super::connections::Connections;
use super::sessions::Sessions;
use crate::arrivals::Schedule;
use crate::engine::Io;
use crate::time::Instant;
use std::collections::VecDeque;

/// Requests that are issued in one go: after a pause thousands may be due at once, and replies must not wait for all.
const ISSUES_A_TURN: usize = 256;

/// Bits of `Conn::queued`.
const IN_IDLE: u8 = 1;
const IN_PARTLY: u8 = 2;

/// One pacer for all connections, or for those to each target.
#[derive(Debug)]
pub(in crate::load) struct Paced {
    pacers: Vec<Pacer>,
    /// The engine's wait was to end here: what comes later is our lateness.
    expected: Instant,
    /// The last time that this thread stood still.
    stall: (Instant, Instant),
}

#[derive(Debug)]
struct Pacer {
    schedule: Option<Schedule>,
    /// The request that is due next and has not been issued; never, unless the load has begun. How many were before it.
    next: Instant,
    before: u64,
    /// Connections with no request on them, and with some and room for more; who has waited longest is first. An entry
    /// is not taken back when a connection is lost: it is looked at when its turn comes.
    idle: VecDeque<u32>,
    partly: VecDeque<u32>,
}

impl Pacer {
    fn new(schedule: Option<Schedule>, connections: usize) -> Self {
        Self {
            schedule,
            next: Instant::NEVER,
            before: 0,
            idle: VecDeque::with_capacity(connections),
            partly: VecDeque::new(),
        }
    }

    /// Looks for what is due first, before the schedule `ends`.
    fn begin(&mut self, ends: Instant) {
        let first = self.schedule.as_mut().map_or(Instant::NEVER, Schedule::next_due);
        self.next = if first < ends { first } else { Instant::NEVER };
    }

    /// Answers what is due next, and looks for what comes behind it.
    fn advance(&mut self, ends: Instant) -> Instant {
        let due = self.next;
        self.begin(ends);
        self.before += 1;
        due
    }
}

impl Paced {
    pub(super) fn new(config: &Config) -> Self {
        let pacer = |schedule: &Option<Schedule>| Pacer::new(schedule.clone(), config.active);
        let pacers = config.schedules.iter().map(pacer).collect();
        Self { pacers, expected: Instant(0), stall: (Instant(0), Instant(0)) }
    }

    /// The schedule counts from `at`.
    pub(super) fn begin(&mut self, on: &mut Connections, at: Instant, ends: Instant) {
        on.schedule_ends = ends;
        for pacer in &mut self.pacers {
            if let Some(schedule) = &mut pacer.schedule {
                schedule.begin(at);
            }
            pacer.begin(ends);
        }
    }

    /// It ends at `now`, if not before.
    pub(super) fn end(&mut self, on: &mut Connections, now: Instant) {
        on.schedule_ends = on.schedule_ends.min(now);
        for pacer in self.pacers.iter_mut().filter(|pacer| pacer.next >= on.schedule_ends) {
            pacer.next = Instant::NEVER;
        }
    }

    /// When the next request is due that a connection could carry.
    pub(super) fn next(&self) -> Instant {
        let able = self.pacers.iter().filter(|pacer| !(pacer.idle.is_empty() && pacer.partly.is_empty()));
        able.map(|pacer| pacer.next).fold(Instant::NEVER, Instant::min)
    }

    pub(super) fn waits_until(&mut self, expected: Instant) {
        self.expected = expected;
    }

    pub(super) fn stood_still(&mut self, from: Instant, to: Instant) {
        self.stall = (from, to);
    }

    /// Of the time from `due` on, until a connection became free at `freed`, what was the server's.
    fn backlog_ns(&self, due: Instant, freed: Instant) -> u64 {
        let until = freed.min(self.expected.max(due));
        let stalled = until.min(self.stall.1).since(due.max(self.stall.0));
        until.since(due).saturating_sub(stalled)
    }

    /// A connection may carry (more) requests.
    pub(super) fn offer(&mut self, on: &mut Connections, slot: u32) {
        let stream = on.stream(slot);
        let conn = &mut on.conns[slot as usize];
        let Some(pacer) = self.pacers.get_mut(stream) else { return };
        let (bit, queue) =
            if conn.ring.alive == 0 { (IN_IDLE, &mut pacer.idle) } else { (IN_PARTLY, &mut pacer.partly) };
        if conn.queued & bit == 0 {
            conn.queued |= bit;
            queue.push_back(slot);
        }
    }

    /// All tickets of a connection that has just been opened, or is let in, are free from now on.
    pub(super) fn offer_fresh(&mut self, on: &mut Connections, slot: u32, now: Instant) {
        on.free_from(slot, now);
        self.offer(on, slot);
    }

    /// The load begins on a connection that was opened before. Where nothing is on it, it has been free since the load
    /// began, and not since we heard of that.
    pub(super) fn start(&mut self, on: &mut Connections, slot: u32) {
        if !on.conns[slot as usize].is_busy() {
            self.offer_fresh(on, slot, on.began);
        }
    }

    /// A scheduled request will prove it.
    pub(super) fn opened(&mut self, on: &mut Connections, io: &mut impl Io, slot: u32, now: Instant) {
        on.is_proved_by_and_by(slot, now);
        self.offer_fresh(on, slot, now);
        self.issue_due(on, io, now);
    }

    pub(super) fn ended(&mut self, on: &mut Connections, io: &mut impl Io, slot: u32, now: Instant) {
        if !on.awaits_rest(io, slot) {
            self.offer(on, slot);
        }
        self.issue_due(on, io, now);
    }

    /// Issues what is due, as long as there are connections for it.
    pub(super) fn issue_due(&mut self, on: &mut Connections, io: &mut impl Io, now: Instant) {
        for stream in 0..self.pacers.len() {
            for _ in 0..ISSUES_A_TURN {
                let Some((slot, due, nth)) = self.pair(on, io, stream, None, now) else { break };
                if on.cursor(slot) == 0 {
                    on.arrives(slot, nth);
                }
                self.issue(on, io, slot, due, None);
            }
        }
    }

    /// Likewise, where each is the first request of somebody's session.
    pub(super) fn begin_sessions(
        &mut self,
        sessions: &mut Sessions,
        on: &mut Connections,
        io: &mut impl Io,
        now: Instant,
    ) {
        for stream in 0..self.pacers.len() {
            for _ in 0..ISSUES_A_TURN {
                let Some((slot, due, nth)) = self.pair(on, io, stream, Some(sessions), now) else { break };
                sessions.arrive(on, slot, due, nth);
                if sessions.are_fresh() {
                    let (now, freed) = (io.now(), sessions.freed(slot));
                    let late_ns = now.since(due);
                    let backlog_ns = self.backlog_ns(due, freed).min(late_ns);
                    on.wait_for_connection(slot, due, late_ns - backlog_ns);
                } else {
                    self.issue(on, io, slot, due, Some(sessions));
                }
            }
        }
    }

    /// What is due next of a stream, and the connection that is to carry it, if there are both; and how many were due
    /// before.
    fn pair(
        &mut self,
        on: &mut Connections,
        io: &impl Io,
        stream: usize,
        sessions: Option<&Sessions>,
        now: Instant,
    ) -> Option<(u32, Instant, u64)> {
        if self.pacers[stream].next > now {
            return None;
        }
        let slot = self.take_free(on, io, stream, sessions)?;
        let pacer = &mut self.pacers[stream];
        let nth = pacer.before;
        Some((slot, pacer.advance(on.schedule_ends), nth))
    }

    fn take_free(
        &mut self,
        on: &mut Connections,
        io: &impl Io,
        stream: usize,
        sessions: Option<&Sessions>,
    ) -> Option<u32> {
        let pacer = &mut self.pacers[stream];
        for (queue, bit) in [(&mut pacer.idle, IN_IDLE), (&mut pacer.partly, IN_PARTLY)] {
            while let Some(slot) = queue.pop_front() {
                on.conns[slot as usize].queued &= !bit;
                if has_room(on, io, slot, sessions) {
                    return Some(slot);
                }
            }
        }
        None
    }

    fn issue(&mut self, on: &mut Connections, io: &mut impl Io, slot: u32, due: Instant, sessions: Option<&Sessions>) {
        on.schedule(1, due);
        on.offered(slot, due);
        let ticket = on.take_up(slot, due);
        let freed = on.freed[ticket as usize];
        on.issuing = Some(ticket);
        let now = on.flush(io, slot);
        on.issuing = None;
        on.arm_timeout(slot, now);
        if has_room(on, io, slot, sessions) {
            self.offer(on, slot);
        } else {
            // The rest of a handshake may be before it. When that has left, the connection may carry more.
            on.awaits_rest(io, slot);
        }
        // It may stand behind another on its connection: then it leaves later.
        if on.tickets.stamp(ticket).sent != now {
            return;
        }
        let late = now.since(due);
        let backlog_ns = self.backlog_ns(due, freed).min(late);
        let wait = on.wait(slot, ticket, due, now, backlog_ns);
        on.leaves_late(io.queues(), wait);
    }

    /// It counts with the time it had waited by the end: to leave it out would be to leave out the worst.
    pub(super) fn book_unsent(&mut self, on: &mut Connections, has_sessions: bool) {
        for stream in 0..self.pacers.len() {
            while self.pacers[stream].next < on.schedule_ends {
                let due = self.pacers[stream].advance(on.schedule_ends);
                on.tally.sessions.unstarted += u64::from(has_sessions);
                on.never_issued(stream, due);
            }
        }
    }
}

/// Whether a connection can carry the request that is due, or be opened for it.
fn has_room(on: &Connections, io: &impl Io, slot: u32, sessions: Option<&Sessions>) -> bool {
    match sessions {
        Some(sessions) if sessions.are_fresh() => on.is_vacant(slot) && !sessions.is_there(slot),
        Some(sessions) if sessions.is_there(slot) => false,
        _ => on.has_room(io, slot),
    }
}
