//! One worker thread: an engine, a load, and the loop that gives each its turn.

use crate::engine::{Engine, Remote};
use crate::until::Handover;
use loadgen_core::load::request_log::RequestLog;
use loadgen_core::load::{self, Config, Load};
use loadgen_core::protocol::Client;
use loadgen_core::sys::{affinity, clock, process, ring};
use loadgen_core::time::{Instant, NS_PER_MS};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use loadgen_core::load::tally::Tally;

/// The longest wait. A word from the main thread ([`Control`]) is heard within it.
const WAIT_MAX_NS: u64 = 50 * NS_PER_MS;

/// Likewise while connections are being opened and everybody waits for the word to go.
const WAIT_MAX_RAMP_NS: u64 = 2 * NS_PER_MS;

/// A thread that is so late, and was not at work, stood still.
const STANDSTILL_NS: u64 = 5 * NS_PER_MS;
/// What one look for a deadline takes at most.
const SPIN_TURN_MAX_NS: u64 = 10_000;

/// How often its CPU time is looked at, to know the one from the other.
const CPU_LOOK_NS: u64 = 20 * NS_PER_MS;

/// What a worker is to do.
#[derive(Debug)]
pub struct Task {
    pub config: Config,
    /// Where connections go: the addresses of `config`.
    pub remotes: Vec<Remote>,
    /// One for each target.
    pub clients: Vec<Box<dyn Client>>,
    pub cpu: Option<usize>,
    /// With room for this worker's share, or for nothing.
    pub log: RequestLog,
    /// How long before a request is due it is waited for without sleeping.
    pub spin_ns: u64,
    /// Options of engine `io_uring`.
    pub ring: ring::Options,
    pub control: Arc<Control>,
    pub published: Arc<Published>,
    /// `--until-ci` only.
    pub handover: Option<Arc<Handover>>,
}

impl Task {
    /// Connections that the engine must make room for.
    pub fn capacity(&self) -> usize {
        self.config.active + self.config.idle
    }

    /// Where all requests are alike: as many back to back as may be in flight on one connection, so that several leave
    /// at once.
    pub fn wire(&self) -> Vec<u8> {
        let shares = load::shares(&self.clients);
        if shares { self.clients[0].request().repeat(self.config.depth.max(1)) } else { Vec::new() }
    }
}

/// What the main thread tells all workers. Words of their own: no order between them matters.
#[derive(Debug, Default)]
pub struct Control {
    /// When the load begins (an [`Instant`]); 0: not yet.
    go: AtomicU64,
    /// When to stop early, and how long to wait for the last replies: an [`Instant`]; 0: no need.
    stop: AtomicU64,
    /// When the window closes, if before its time: an [`Instant`]; 0: no need.
    finish: AtomicU64,
}

impl Control {
    pub fn go(&self, at: Instant) {
        self.go.store(at.0, Ordering::Relaxed);
    }

    /// Stops sending now; what is unanswered at `until` is in flight.
    pub fn stop(&self, until: Instant) {
        self.stop.store(until.0, Ordering::Relaxed);
    }

    /// Closes the window at `at`; the last replies are waited for as ever.
    pub fn finish(&self, at: Instant) {
        self.finish.store(at.0, Ordering::Relaxed);
    }

    fn read(word: &AtomicU64) -> Option<Instant> {
        match word.load(Ordering::Relaxed) {
            0 => None,
            at => Some(Instant(at)),
        }
    }
}

/// What a worker lets the main thread see: plain stores into a cache line of its own, once a turn. The values are
/// independent of each other, so relaxed ordering suffices; the final figures are in the tally.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Published {
    pub established: AtomicU64,
    pub served: AtomicU64,
    /// Connections that need not be waited for any longer before the load begins.
    pub ready: AtomicU64,
    pub connect_failures: AtomicU64,
    pub ok: AtomicU64,
    pub errors: AtomicU64,
    pub received_bytes: AtomicU64,
    pub sent_bytes: AtomicU64,
    pub alive: AtomicU64,
}

/// Runs a task to its end on a given engine.
pub fn run<E: Engine>(mut engine: E, task: Task) -> io::Result<Tally> {
    if let Some(cpu) = task.cpu {
        affinity::pin(&[cpu])?;
    }
    let Task { config, clients, log, control, published, handover, spin_ns, .. } = task;
    if !config.schedules.is_empty() || config.traffic.thinks() {
        process::precise_timers()?;
    }
    let mut standstill = Standstill::new(clock::now());
    let mut load = Load::new(config, clients);
    load.log_to(log);
    let mut going = false;
    loop {
        let now = clock::now();
        if let Some(from) = standstill.check(now)
            && going
        {
            load.stood_still(from, now);
        }
        if !going && let Some(at) = Control::read(&control.go) {
            going = true;
            load.go(engine.io(), at, now);
        }
        if let Some(until) = Control::read(&control.stop) {
            load.stop(engine.io(), now, until);
        }
        if let Some(at) = Control::read(&control.finish) {
            load.finish_at(at, now);
        }
        load.tick(engine.io(), now);
        if let Some(handover) = &handover {
            handover.offer(load.tally(), now);
        }
        publish(&published, &load);
        if load.finished() {
            break;
        }
        let longest = if going { WAIT_MAX_NS } else { WAIT_MAX_RAMP_NS };
        // Requests may have been sent meanwhile, and the next one should not be late by the time that took.
        let now = clock::now();
        let wait_ns = load.next_deadline().since(now).min(longest);
        let asleep_ns = wait_ns.min(load.next_issue().since(now).saturating_sub(spin_ns));
        let expected = now.after(asleep_ns);
        standstill.expected = expected;
        load.waits_until(expected);
        let received = load.tally().bytes.received;
        engine.turn(Duration::from_nanos(asleep_ns), &mut load)?;
        if asleep_ns < wait_ns && load.tally().bytes.received == received {
            // Not what it lasted while others had the CPU.
            load.spun(clock::now().since(expected).min(SPIN_TURN_MAX_NS));
        }
    }
    engine.finish(&mut load)?;
    let mut tally = load.into_tally(clock::now());
    tally.engine = engine.counters();
    Ok(tally)
}

/// Finds out when this thread was stopped, or kept from running: it was to be back at a certain time, and is late by
/// more than it has worked.
#[derive(Debug)]
struct Standstill {
    expected: Instant,
    looked: Instant,
    cpu_ns: u64,
}

impl Standstill {
    fn new(now: Instant) -> Self {
        Self { expected: now, looked: now, cpu_ns: clock::thread_cpu_ns() }
    }

    /// Since when it stood still until `now`, if it did.
    #[inline]
    fn check(&mut self, now: Instant) -> Option<Instant> {
        let late_ns = now.since(self.expected);
        if late_ns < STANDSTILL_NS && now.since(self.looked) < CPU_LOOK_NS {
            return None;
        }
        let before = std::mem::replace(&mut self.cpu_ns, clock::thread_cpu_ns());
        self.looked = now;
        let idle_ns = late_ns.saturating_sub(self.cpu_ns - before);
        (idle_ns >= STANDSTILL_NS).then(|| Instant(now.0 - idle_ns))
    }
}

fn publish(published: &Published, load: &Load) {
    let tally = load.tally();
    let store = |word: &AtomicU64, value: u64| word.store(value, Ordering::Relaxed);
    store(&published.established, tally.connections.established);
    store(&published.served, tally.connections.served);
    store(&published.ready, load.ready());
    store(&published.connect_failures, load.connect_failures());
    store(&published.ok, tally.whole.ok);
    store(&published.errors, load.request_failures());
    store(&published.received_bytes, tally.bytes.received);
    store(&published.sent_bytes, tally.bytes.sent);
    store(&published.alive, load.alive());
}
