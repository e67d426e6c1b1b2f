//! What is injected, for the whole process: the one virtual resource that all threads share, and the log of requests.

use crate::request_log::RequestLog;
use loadgen_core::histogram::Recorder;
use loadgen_core::result::InjectedStats;
use loadgen_core::service_time::{Injection, Resource};
use loadgen_core::time::Instant;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Shared by all threads.
#[derive(Debug)]
pub(crate) struct Injector {
    shared: Mutex<Shared>,
    connections: AtomicU32,
}

#[derive(Debug)]
struct Shared {
    resource: Resource,
    log: Option<RequestLog>,
    stalled: u64,
}

/// What a request got when it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// When its reply may leave.
    pub(crate) release: Instant,
    /// Its row in the log, if it has one.
    pub(crate) row: Option<u32>,
}

/// What one thread did with it.
#[derive(Debug, Default)]
pub(crate) struct Releasing {
    /// From the intended release of a reply to the send of its last byte.
    pub(crate) overrun: Recorder,
    /// Time without sleep, because a release was near.
    pub(crate) spin_ns: u64,
}

impl Injector {
    pub(crate) fn new(injection: &Injection, log: Option<RequestLog>) -> Self {
        let shared = Shared { resource: Resource::new(injection), log, stalled: 0 };
        Self { shared: Mutex::new(shared), connections: AtomicU32::new(0) }
    }

    /// The number of the next connection, from 1.
    pub(crate) fn number_connection(&self) -> u32 {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A request has arrived: it queues for the resource.
    pub(crate) fn admit(&self, connection: u32, request: u32, now: Instant) -> Ticket {
        let mut shared = self.shared();
        let passage = shared.resource.admit(now);
        shared.stalled += u64::from(passage.stalled);
        let row = shared.log.as_mut().and_then(|log| log.add(connection, request, now, &passage));
        Ticket { release: passage.done, row }
    }

    /// The last byte of a logged request's reply was handed to the kernel, `at` being right before.
    pub(crate) fn sent(&self, row: u32, at: Instant) {
        if let Some(log) = &mut self.shared().log {
            log.sent(row, at);
        }
    }

    /// The log, once all threads have ended.
    pub(crate) fn take_log(&self) -> Option<RequestLog> {
        self.shared().log.take()
    }

    /// What was injected; `releasing` is of all threads.
    pub(crate) fn stats(&self, injection: &Injection, releasing: &Releasing) -> InjectedStats {
        let shared = self.shared();
        InjectedStats {
            service_time: injection.service_time.as_ref().map(|of| of.describe()),
            delay: injection.delay.as_ref().map(|of| of.describe()),
            stall: injection.stall.map(|of| of.describe()),
            seed: injection.seed,
            stalled: shared.stalled,
            overrun: releasing.overrun.report(),
            spin_ns: releasing.spin_ns,
            logged: shared.log.as_ref().map_or(0, RequestLog::rows),
            log_dropped: shared.log.as_ref().map_or(0, RequestLog::dropped),
        }
    }

    /// Nothing panics while it is locked; and what a thread that did has left is still true.
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Releasing {
    /// Adds those of another thread.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.overrun.merge(&other.overrun);
        self.spin_ns += other.spin_ns;
    }
}
