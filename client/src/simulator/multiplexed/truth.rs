//! What the two halves of the scratch protocol saw.

use loadgen_core::protocol::ask::Ask;
use loadgen_core::rng::Rng;
use loadgen_core::sys::clock;
use loadgen_core::time::Instant;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

/// What peer and client half saw, to be held against the tally and each other.
#[derive(Debug, Default)]
pub(super) struct Truth {
    /// Virtual time; 0: the machine's.
    pub(super) now_ns: u64,
    pub(super) rng: Option<Rng>,
    pub(super) depth: u64,
    pub(super) pong_by_ns: u64,
    /// Our thread stands still now and then, so that nothing is ever too late.
    pub(super) stalls: bool,
    /// Peers reset streams, go away, and stop answering pings.
    pub(super) mischief: bool,
    /// So many requests are never answered, from the first one on.
    pub(super) unanswered: u64,
    /// A planted mistake: replies are credited to another request.
    pub(super) credits_others: bool,
    pub(super) last_id: u32,
    pub(super) started: BTreeMap<u32, Instant>,
    /// What each stream was asked by; all that was ever asked by, and that of requests that came back.
    pub(super) asks: BTreeMap<u32, Ask>,
    pub(super) asked: BTreeSet<u64>,
    pub(super) came_back: BTreeSet<u64>,
    pub(super) read: BTreeMap<u32, Instant>,
    pub(super) said: BTreeMap<u32, Instant>,
    /// Slot, stream, and when.
    pub(super) completed: Vec<(u32, u32, Instant)>,
    pub(super) counts: BTreeMap<&'static str, u64>,
    pub(super) wrong: Vec<String>,
}

pub(super) type Shared = Arc<Mutex<Truth>>;

thread_local! {
    /// Of the run on this thread, for halves that are made by [`MULTIPLEXED`].
    pub(super) static TRUTH: RefCell<Shared> = RefCell::default();
}

pub(super) fn truth() -> Shared {
    TRUTH.with_borrow(Arc::clone)
}

pub(super) fn look(truth: &Shared) -> MutexGuard<'_, Truth> {
    truth.lock().expect("nobody panicked with it")
}

impl Truth {
    pub(super) fn now(&self) -> Instant {
        if self.now_ns == 0 { clock::now() } else { Instant(self.now_ns) }
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// A request is asked by its own word, each time; another by another.
    pub(super) fn asks(&mut self, id: u32, ask: Ask) {
        self.asks.insert(id, ask);
        if !self.asked.insert(ask.draws) {
            let came_back = self.came_back.remove(&ask.draws);
            self.check(came_back, || format!("stream {id} asks for what has been asked for: {ask:?}"));
            self.count("asked again");
        }
    }

    pub(super) fn came_back(&mut self, id: u32, how: &'static str) {
        self.came_back.insert(self.asks[&id].draws);
        self.count(how);
    }

    pub(super) fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.wrong.push(what());
        }
    }
}
