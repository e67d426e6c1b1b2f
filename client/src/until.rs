//! `--until-ci`: the run goes on until its intervals are narrow enough, or its time is over.
//!
//! Workers know nothing of intervals. Once a second each copies what it has counted into a place of its own
//! ([`Handover`]), unless the main thread is reading there, and goes on; the main thread does the sums ([`Until`]). A
//! run without `--until-ci` has neither.

use crate::plan::Plan;
use loadgen_core::confidence::{Batches, Sample};
use loadgen_core::histogram::Recorder;
use loadgen_core::load::tally::Tally;
use loadgen_core::time::{Instant, NS_PER_MS, NS_PER_S};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// How often workers hand over, and so how often the end is asked for.
const EVERY_NS: u64 = NS_PER_S;
/// A shorter window is not looked at: intervals need some batches, and a lucky first second must not end a run.
const WINDOW_LEAST_NS: u64 = 2 * NS_PER_S;
/// The window's end is announced so long before, that every worker has heard of it: they look every 50 ms.
const NOTICE_NS: u64 = 100 * NS_PER_MS;

/// What one worker has counted so far.
#[derive(Debug)]
pub struct Handover {
    /// When the worker copies next.
    next: AtomicU64,
    copy: Mutex<Copy>,
}

#[derive(Debug)]
struct Copy {
    batches: Batches,
    response: Recorder,
    /// When it was made, since the window opened; 0: never.
    at_ns: u64,
}

impl Handover {
    pub fn new() -> Self {
        let copy = Copy { batches: Batches::new(), response: Recorder::new(), at_ns: 0 };
        Self { next: AtomicU64::new(0), copy: Mutex::new(copy) }
    }

    /// Called by the worker once a turn; waits for nobody, and allocates nothing.
    #[inline]
    pub fn offer(&self, tally: &Tally, now: Instant) {
        if now.0 >= self.next.load(Ordering::Relaxed) {
            self.copy(tally, now);
        }
    }

    #[cold]
    fn copy(&self, tally: &Tally, now: Instant) {
        let (Some(opened), None) = (tally.window_from, tally.window_to) else { return };
        let Ok(mut copy) = self.copy.try_lock() else { return };
        copy.batches.copy_from(&tally.batches);
        copy.response.clear();
        copy.response.merge(&tally.response);
        copy.at_ns = now.since(opened);
        // At whole seconds of the window, so that the copies of all workers are of about the same time.
        self.next.store(opened.after((copy.at_ns / EVERY_NS + 1) * EVERY_NS).0, Ordering::Relaxed);
    }
}

/// The main thread's half.
#[derive(Debug)]
pub struct Until<'a> {
    plan: &'a Plan,
    workers: &'a [Arc<Handover>],
    batches: Batches,
    response: Recorder,
    looked_ns: u64,
}

impl<'a> Until<'a> {
    pub fn new(plan: &'a Plan, workers: &'a [Arc<Handover>]) -> Self {
        Self { plan, workers, batches: Batches::new(), response: Recorder::new(), looked_ns: 0 }
    }

    /// When the window is to close, if all intervals are narrow enough. Looks at each second's copies once.
    pub fn reached(&mut self, now: Instant) -> Option<Instant> {
        let second = |at_ns: u64| at_ns / EVERY_NS;
        let made = |worker: &Arc<Handover>| worker.copy.lock().map_or(0, |copy| copy.at_ns);
        let at_ns = self.workers.iter().map(made).min()?;
        if at_ns < WINDOW_LEAST_NS || second(at_ns) == second(self.looked_ns) {
            return None;
        }
        self.looked_ns = at_ns;
        self.collect();
        let sample = Sample {
            batches: &self.batches,
            response: &self.response,
            window_ns: at_ns,
            replies: self.batches.replies(),
            uneven: false,
        };
        let confidence = sample.confidence(&self.plan.until_ci)?;
        confidence.until_ci.iter().all(|goal| goal.reached).then(|| now.after(NOTICE_NS))
    }

    fn collect(&mut self) {
        self.response.clear();
        for (index, worker) in self.workers.iter().enumerate() {
            let Ok(copy) = worker.copy.lock() else { continue };
            if index == 0 {
                self.batches.copy_from(&copy.batches);
            } else {
                self.batches.merge(&copy.batches);
            }
            self.response.merge(&copy.response);
        }
    }
}
