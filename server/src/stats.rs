//! Counters: plain numbers of one thread, added up when the threads have ended.

use crate::cause::Cause;
use crate::injector::Releasing;
use crate::tls_connection::TlsCounters;
use loadgen_core::result::{DatagramStats, RingStats, ServerStats};
use loadgen_core::sys::clock;
use loadgen_core::sys::poller::PollerCalls;
use std::collections::BTreeMap;

/// Classes of `events_per_wait`: 0, 1, 2-3, … 256-511, 512 and more.
const CLASSES: usize = 11;

/// What one thread did.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) accepts: u64,
    pub(crate) accept_errors: BTreeMap<&'static str, u64>,
    pub(crate) rejected: u64,
    pub(crate) closes: [u64; Cause::ALL.len()],
    pub(crate) requests: u64,
    pub(crate) replies: u64,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) short_sends: u64,
    pub(crate) empty_receives: u64,
    pub(crate) stale_events: u64,
    pub(crate) events: u64,
    events_per_wait: [u64; CLASSES],
    pub(crate) poller: PollerCalls,
    pub(crate) calls: Calls,
    pub(crate) ring: Option<RingStats>,
    /// Of a server without connections.
    pub(crate) datagrams: Option<Box<DatagramStats>>,
    /// Of replies that were delayed until their release.
    pub(crate) releasing: Option<Box<Releasing>>,
    pub(crate) tls: Option<Box<TlsCounters>>,
}

/// System calls by kind, counted where they are made; the poller counts its own.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    pub(crate) accept: u64,
    pub(crate) recv: u64,
    pub(crate) send: u64,
    pub(crate) recvmmsg: u64,
    pub(crate) sendmmsg: u64,
    pub(crate) shutdown: u64,
    pub(crate) close: u64,
    /// Waits on several rings.
    pub(crate) ppoll: u64,
}

impl Counters {
    /// Notes a wait that returned `events` events.
    pub(crate) fn waited(&mut self, events: usize) {
        self.events += events as u64;
        self.events_per_wait[class(events)] += 1;
    }

    pub(crate) fn closed(&mut self, cause: Cause) {
        self.closes[cause as usize] += 1;
    }

    /// Adds this thread to `total`. `wait_call` is the name of the call that waits for events.
    pub(crate) fn add_to(&self, total: &mut ServerStats, wait_call: &str) {
        total.accepts += self.accepts;
        add(&mut total.accept_errors, self.accept_errors.iter().map(|(name, count)| (*name, *count)));
        total.rejected += self.rejected;
        add(&mut total.closes, Cause::ALL.iter().map(|cause| (cause.name(), self.closes[*cause as usize])));
        total.requests += self.requests;
        total.replies += self.replies;
        total.received_bytes += self.received_bytes;
        total.sent_bytes += self.sent_bytes;
        let calls = &self.calls;
        add(
            &mut total.syscalls,
            [
                ("accept", calls.accept),
                ("recv", calls.recv),
                ("send", calls.send),
                ("recvmmsg", calls.recvmmsg),
                ("sendmmsg", calls.sendmmsg),
                ("shutdown", calls.shutdown),
                ("close", calls.close),
                ("ppoll", calls.ppoll),
                (wait_call, self.poller.wait),
                ("epoll_ctl", self.poller.control),
                ("timerfd_settime", self.poller.timer),
            ],
        );
        total.short_sends += self.short_sends;
        total.empty_receives += self.empty_receives;
        total.stale_events += self.stale_events;
        if let Some(ring) = &self.ring {
            total.ring.get_or_insert_default().merge(ring);
        }
        if let Some(of) = &self.datagrams {
            let all = total.datagrams.get_or_insert_default();
            add(&mut all.dropped, of.dropped.iter().map(|(why, count)| (why.as_str(), *count)));
            add(&mut all.receive_errors, of.receive_errors.iter().map(|(why, count)| (why.as_str(), *count)));
            all.kernel_dropped += of.kernel_dropped;
            all.unread += of.unread;
            all.receive_buffer_bytes = of.receive_buffer_bytes;
        }
        if let Some(tls) = &self.tls {
            let sum = total.tls.get_or_insert_default();
            sum.handshakes_full += tls.full;
            sum.handshakes_resumed += tls.resumed;
            sum.truncated += tls.truncated;
            add(&mut sum.failures, tls.failures.iter().map(|(name, count)| (*name, *count)));
            add(&mut sum.versions, tls.versions.iter().map(|(name, count)| (*name, *count)));
            add(&mut sum.ciphers, tls.ciphers.iter().map(|(name, count)| (*name, *count)));
        }
        total.waits += self.events_per_wait.iter().sum::<u64>();
        total.events += self.events;
        total.events_per_wait.resize(CLASSES, 0);
        for (sum, count) in total.events_per_wait.iter_mut().zip(self.events_per_wait) {
            *sum += count;
        }
    }
}

/// Fills in what is of the whole process.
pub(crate) fn add_process(total: &mut ServerStats) {
    (total.cpu_user_ns, total.cpu_system_ns) = clock::process_user_system_ns();
    total.memory_peak_bytes = memory_peak_bytes().unwrap_or(0);
}

/// Adds up by name; what never happened has no entry.
fn add<'a>(total: &mut BTreeMap<String, u64>, counts: impl IntoIterator<Item = (&'a str, u64)>) {
    for (name, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        *total.entry(name.into()).or_default() += count;
    }
}

fn class(events: usize) -> usize {
    ((usize::BITS - events.leading_zeros()) as usize).min(CLASSES - 1)
}

fn memory_peak_bytes() -> Option<u64> {
    // Without `/proc` it is not known, and told as 0.
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_fall_into_classes_by_powers_of_two() {
        assert_eq!([0, 1, 2, 3, 4, 7, 8, 256, 511, 512, 9999].map(class), [0, 1, 2, 2, 3, 3, 4, 9, 9, 10, 10]);
    }

    #[test]
    fn memory_of_this_process_is_known() {
        assert!(memory_peak_bytes().unwrap() > 100_000);
    }
}
