//! Whether the machine is fit to be asked how long something takes. What is counted holds on any machine and is
//! asserted on any; what is timed is asserted where there were CPUs for it, and is "inconclusive" elsewhere. (Shared
//! with the server's tests.)

use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What a wait for anything may take on a machine that starves; whoever needs more hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// A share of the time, in percent, in which something waited for a CPU: beyond it no time says anything.
const WAITED_MAX_PERCENT: u128 = 40;

/// How busy the machine is while something is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch {
    began: Instant,
    waited: Option<Duration>,
    overslept: Duration,
}

impl Watch {
    pub(crate) fn start() -> Self {
        Self { began: Instant::now(), waited: waited(), overslept: overslept() }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Why no time that was taken meanwhile says anything; `None`: the machine was fit.
    pub(crate) fn why_unfit(&self) -> Option<String> {
        let elapsed = self.elapsed();
        let overslept = overslept().saturating_sub(self.overslept);
        if overslept > elapsed / 2 {
            return Some(format!("for {overslept:?} of {elapsed:?} nobody woke who slept for {NAP:?}"));
        }
        let (Some(before), Some(after)) = (self.waited, waited()) else { return overcommitted() };
        let percent = (after.saturating_sub(before).as_nanos() * 100).checked_div(elapsed.as_nanos())?;
        (percent > WAITED_MAX_PERCENT)
            .then(|| format!("for {percent} % of {elapsed:?} something waited for a CPU (/proc/pressure/cpu)"))
    }

    /// What was begun with the watch ended within `limit`, or the machine was too busy to say.
    pub(crate) fn assert_within(&self, limit: Duration, what: &str) {
        assert_within(self.elapsed(), limit, what, self.why_unfit().as_deref());
    }
}

/// `took` is less than `limit`, unless the machine was not fit for that.
pub(crate) fn assert_within(took: Duration, limit: Duration, what: &str, why_unfit: Option<&str>) {
    match why_unfit {
        _ if took < limit => {}
        Some(why) => eprintln!("inconclusive: {what} took {took:?}, where {limit:?} are allowed; {why}"),
        None => panic!("{what} took {took:?}, where {limit:?} are allowed"),
    }
}

/// How long a sleeper sleeps who finds out whether anybody is woken.
const NAP: Duration = Duration::from_millis(5);

/// For how long in all a sleeper of this process was not woken in time. The kernel's figure is blind for a machine on
/// which nothing runs for long: its counters for each CPU are nanoseconds in 32 bits, and the kernel's worker that
/// gathers them every two seconds gets no CPU then either.
fn overslept() -> Duration {
    static SLEEPER: Once = Once::new();
    static TOTAL_NS: AtomicU64 = AtomicU64::new(0);
    SLEEPER.call_once(|| {
        std::thread::spawn(|| {
            loop {
                let asleep = Instant::now();
                std::thread::sleep(NAP);
                TOTAL_NS.fetch_add(asleep.elapsed().saturating_sub(NAP).as_nanos() as u64, Ordering::Relaxed);
            }
        });
    });
    Duration::from_nanos(TOTAL_NS.load(Ordering::Relaxed))
}

/// For how long something has waited for a CPU since the machine started. `None`: this kernel does not say.
fn waited() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/pressure/cpu").ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("some ")?.split_once("total="))?.1;
    Some(Duration::from_micros(total.trim().parse().ok()?))
}

/// The same question where there is no better answer: more than one process ready for each CPU, over the last minute.
fn overcommitted() -> Option<String> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    let load: f64 = text.split_whitespace().next()?.parse().ok()?;
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get());
    (load > cpus as f64).then(|| format!("the load average is {load} on {cpus} CPUs (/proc/loadavg)"))
}
