//! Several rings of one thread, with one wait.
//!
//! The table of a ring holds at most as many sockets as a process may have descriptors, but a process may have many
//! rings: so connections are bounded by memory and ports, and not by `ulimit -n`.
//!
//! A single ring is waited for by entering it. Several share a bell (eventfd(2)) that the kernel rings when one of them
//! has work: before sleeping on it, each ring is looked at, so that no ring of the bell is missed. (`epoll` on a ring
//! does not wake up for deferred completions; Linux 6.18.)

use super::buffers::Buffers;
use super::flow::{Completion, Flows};
use super::options::Options;
use super::queues::{Ring, RingCounters};
use super::refusal::Refusal;
use crate::result::RingStats;
use crate::sys::bell::Bell;
use std::io;
use std::time::{Duration, Instant};

/// How long the memory of rings that were closed is waited for.
const MEMORY_COMES_BACK: Duration = Duration::from_millis(1500);

/// A ring and the sockets in its table.
#[derive(Debug)]
pub struct Lane {
    pub ring: Ring,
    pub flows: Flows,
}

/// The rings of one thread. Their buffers are apart, so that received bytes can be read while something is sent.
#[derive(Debug, Default)]
pub struct Lanes {
    lanes: Vec<Lane>,
    bell: Option<Bell>,
}

impl Lanes {
    /// Adds a ring for so many sockets, before there is any load. The kernel gives the memory of rings that were closed
    /// back a moment later, and their limit is one for all processes of a user: a trial must not cost the real ones.
    pub fn add_at_start(&mut self, sockets: u32, options: &Options) -> Result<Buffers, Refusal> {
        let began = Instant::now();
        loop {
            match self.add(sockets, options) {
                Err(refusal) if refusal.memory && began.elapsed() < MEMORY_COMES_BACK => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                outcome => return outcome,
            }
        }
    }

    /// Adds a ring for so many sockets.
    pub fn add(&mut self, sockets: u32, options: &Options) -> Result<Buffers, Refusal> {
        let (ring, buffers) = Ring::new(sockets, options)?;
        let flows = Flows::with_capacity(ring.table());
        let mut lane = Lane { ring, flows };
        if self.lanes.is_empty() {
            self.lanes.push(lane);
            return Ok(buffers);
        }
        let watched = match &self.bell {
            Some(bell) => lane.ring.watch(bell),
            None => Bell::new().and_then(|bell| {
                self.lanes.iter_mut().chain([&mut lane]).try_for_each(|lane| lane.ring.watch(&bell))?;
                self.bell = Some(bell);
                Ok(())
            }),
        };
        watched.map_err(|error| Refusal::of("eventfd", &error))?;
        self.lanes.push(lane);
        Ok(buffers)
    }

    /// From here on, closing a TCP socket that was connected by us sends a reset.
    pub fn reset_on_close(&mut self) {
        self.lanes.iter_mut().for_each(|lane| lane.ring.reset_on_close = true);
    }

    pub fn len(&self) -> usize {
        self.lanes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    #[inline]
    pub fn lane(&mut self, index: usize) -> &mut Lane {
        &mut self.lanes[index]
    }

    /// Whether some of what a connection was given has yet to leave, or never will.
    #[inline]
    pub fn has_left_over(&self, lane: usize, slot: u32) -> bool {
        let flows = &self.lanes[lane].flows;
        flows.is_open(slot) && flows.has_left_over(slot)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.iter()
    }

    /// Calls of io_uring_enter(2) by now, of all of them.
    pub fn enters(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.ring.counters.enters).sum()
    }

    /// What they did, all together.
    pub fn stats(&self) -> RingStats {
        let mut total = RingStats::default();
        for Lane { ring, flows } in &self.lanes {
            total.merge(&RingStats {
                rings: 1,
                enters: ring.counters.enters,
                completions: ring.counters.completions,
                overflows: ring.counters.overflows,
                buffer_shortages: flows.counters.buffer_shortages,
                rearms: flows.counters.rearms,
                short_sends: flows.counters.short_sends,
                stale: flows.counters.stale,
                cancels: flows.counters.cancels,
                setup: ring.setup().to_vec(),
            });
        }
        total
    }

    /// System calls by name, of all of them.
    pub fn calls(&self) -> [(&'static str, u64); 5] {
        let sum = |of: fn(&RingCounters) -> u64| self.lanes.iter().map(|lane| of(&lane.ring.counters)).sum();
        let shutdowns = sum(|c| c.shutdowns);
        [
            ("io_uring_enter", sum(|c| c.enters)),
            ("shutdown", shutdowns),
            // The descriptor that a shutdown needs is closed again.
            ("close", sum(|c| c.closes)),
            ("send", sum(|c| c.inline_sends)),
            ("ppoll", self.bell.as_ref().map_or(0, Bell::waits)),
        ]
    }

    /// Requests whose last completion has not been seen.
    pub fn in_flight(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.ring.in_flight()).sum()
    }

    /// Submits what was asked for, waits until there are completions or the time is over, and takes them all.
    /// `completed` is emptied first; each has the number of its ring.
    pub fn turn(
        &mut self,
        buffers: &mut [Buffers],
        timeout: Duration,
        completed: &mut Vec<(usize, Completion)>,
    ) -> io::Result<()> {
        completed.clear();
        let mut waiting = false;
        for (lane, buffers) in self.lanes.iter_mut().zip(&mut *buffers) {
            buffers.publish();
            waiting |= lane.flows.feed(&mut lane.ring, buffers.given());
        }
        let timeout = if waiting { Duration::ZERO } else { timeout };
        if self.lanes.len() == 1 {
            return Self::visit(0, &mut self.lanes[0], &mut buffers[0], Some(timeout), completed);
        }
        self.visit_all(buffers, completed)?;
        match &self.bell {
            Some(bell) if completed.is_empty() && !timeout.is_zero() => {
                bell.wait(timeout)?;
                self.visit_all(buffers, completed)
            }
            _ => Ok(()),
        }
    }

    fn visit_all(&mut self, buffers: &mut [Buffers], completed: &mut Vec<(usize, Completion)>) -> io::Result<()> {
        for (index, (lane, buffers)) in self.lanes.iter_mut().zip(buffers).enumerate() {
            if lane.ring.has_work() {
                Self::visit(index, lane, buffers, None, completed)?;
            }
        }
        Ok(())
    }

    /// Enters a ring and takes its completions; waits for the first if there is a time for it.
    fn visit(
        index: usize,
        lane: &mut Lane,
        buffers: &mut Buffers,
        timeout: Option<Duration>,
        completed: &mut Vec<(usize, Completion)>,
    ) -> io::Result<()> {
        let want = u32::from(timeout.is_some_and(|time| !time.is_zero()));
        lane.ring.enter(want, timeout.filter(|_| want > 0))?;
        // What had not fitted into the completion queue comes with the next enter, which does not wait then: first
        // those that are here give their buffers back.
        lane.ring.reap(buffers, |completion| completed.push((index, completion)));
        Ok(())
    }
}
