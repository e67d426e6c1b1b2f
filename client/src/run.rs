//! A run from its first connection to its last reply: starts the workers, tells them when to go and when to stop,
//! and adds up what they counted.

use crate::destination::{self, Destination};
use crate::embedded::Embedded;
use crate::failure::{Exit, Failure};
use crate::plan::Plan;
use crate::progress::{Progress, sum};
use crate::request_log;
use crate::start_at::Clocks;
use crate::until::{Handover, Until};
use crate::worker::{Control, Published, Task};
use loadgen_core::load::request_log::RequestLog;
use loadgen_core::load::tally::CpuTime;
use loadgen_core::load::tally::Tally;
use loadgen_core::load::{Config, StopRule, Usage};
use loadgen_core::machine;
use loadgen_core::sys::{clock, signals};
use loadgen_core::time::{Instant, NS_PER_MS, NS_PER_S};
use loadgen_core::units::format_duration;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// How long replies are waited for after Ctrl-C, at most.
const INTERRUPTED_DRAIN_NS: u64 = 2 * NS_PER_S;

/// A target where nothing listens is given up so long after the first refusal.
const REFUSED_GRACE_NS: u64 = NS_PER_S / 2;

/// Opening the connections may take this long, and twice as long as `--connect-rate` asks for.
const RAMP_MAX_NS: u64 = 120 * NS_PER_S;
/// Or this long for each connection, with very many of them.
const RAMP_A_CONNECTION_NS: u64 = 400_000;

/// Requests that may be lost in a row before no connection is expected to be proved any more.
const PROOFS: u64 = 4;

/// What a run yields.
#[derive(Debug)]
pub struct Run {
    pub tally: Tally,
    pub origin: Instant,
    /// When the load began; `None`: never.
    pub went: Option<Instant>,
    /// How long after `--start-at` that was.
    pub start_late_ns: Option<u64>,
    /// Both clocks when the load was about to begin.
    pub clocks: Clocks,
    pub ended: Instant,
    /// The signal that ended it.
    pub interrupted: Option<i32>,
    /// Why it ended before its time, other than by a signal.
    pub gave_up: Option<String>,
    /// `--until-ci`: when the window closed because the intervals were narrow enough.
    pub confident: Option<Instant>,
    /// CPU time of the embedded server between the window's edges.
    pub server_cpu_ns: Option<u64>,
    /// The most memory that this process ever had, when the last reply was in.
    pub memory_bytes: u64,
    pub notes: Vec<String>,
}

/// Runs the plan against these destinations.
pub fn run(plan: &Plan, to: &[Destination], server: Option<&Embedded>) -> Result<Run, Failure> {
    let origin = clock::now();
    let supervisor = Supervisor::start(plan, to, origin)?;
    let ending = supervisor.watch(plan, server);
    let mut counted = Vec::new();
    for worker in supervisor.workers {
        let outcome =
            worker.join().map_err(|_| Failure::new(Exit::Machine, "a worker thread panicked; please report it"))?;
        counted.push(outcome.map_err(|error| Failure::new(Exit::Machine, format!("a worker failed: {error}")))?);
    }
    // What comes now is none of the run's.
    let memory_bytes = machine::peak_memory_bytes(None).unwrap_or(0);
    let mut tally = Tally::new();
    counted.into_iter().for_each(|of_a_worker| tally.merge(of_a_worker));
    let Ending { went, start_late_ns, clocks, interrupted, gave_up, confident, server_cpu_ns, notes } = ending;
    let (clocks, ended) = (clocks.unwrap_or_else(both_clocks), clock::now());
    Ok(Run {
        tally,
        origin,
        went,
        start_late_ns,
        clocks,
        ended,
        interrupted,
        gave_up,
        confident,
        server_cpu_ns,
        memory_bytes,
        notes,
    })
}

/// Both clocks, read as close together as a few attempts make it: this thread may be stopped in between.
fn both_clocks() -> Clocks {
    let read = |_| {
        let (before, wall_ns, after) = (clock::now(), clock::wall_ns(), clock::now());
        (after.since(before), Clocks { now: before, wall_ns })
    };
    let (_, clocks) = (1..4).map(read).fold(read(0), |best, next| if next.0 < best.0 { next } else { best });
    clocks
}

/// From here on, Ctrl-C ends a run in good order, and with a report. The second one ends the process as if nobody had
/// asked.
pub fn catch_signals() -> Result<(), Failure> {
    signals::watch(2).map(drop).map_err(|error| Failure::new(Exit::Machine, format!("cannot handle signals: {error}")))
}

#[derive(Debug)]
struct Supervisor {
    workers: Vec<JoinHandle<io::Result<Tally>>>,
    published: Vec<Arc<Published>>,
    handovers: Vec<Arc<Handover>>,
    control: Arc<Control>,
    origin: Instant,
}

#[derive(Debug, Default)]
struct Ending {
    went: Option<Instant>,
    start_late_ns: Option<u64>,
    /// `None`: as good as any other time.
    clocks: Option<Clocks>,
    interrupted: Option<i32>,
    gave_up: Option<String>,
    confident: Option<Instant>,
    server_cpu_ns: Option<u64>,
    notes: Vec<String>,
}

impl Supervisor {
    fn start(plan: &Plan, to: &[Destination], origin: Instant) -> Result<Self, Failure> {
        let control = Arc::new(Control::default());
        if plan.requests().is_some() {
            // The whole run is measured: there is nothing to wait for.
            control.go(origin);
        }
        let (workers, published, handovers) = (Vec::new(), Vec::new(), Vec::new());
        let layers = plan.layers()?;
        let mut supervisor = Self { workers, published, handovers, control, origin };
        let mut logs = request_logs(plan)?;
        for index in 0..plan.threads {
            let published = Arc::new(Published::default());
            let handover = (!plan.until_ci.is_empty()).then(|| Arc::new(Handover::new()));
            supervisor.handovers.extend(handover.clone());
            let task = Task {
                log: logs.pop().unwrap_or_default(),
                remotes: destination::remotes(plan, to, index),
                config: config(plan, to, index, origin),
                clients: layers.over(plan.clients(index)?),
                cpu: pick(&plan.client_cpus, index),
                spin_ns: plan.spin_ns,
                ring: plan.ring.clone(),
                control: Arc::clone(&supervisor.control),
                published: Arc::clone(&published),
                handover,
            };
            let run = plan.engine.run;
            let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || run(task));
            let thread =
                thread.map_err(|error| Failure::new(Exit::Machine, format!("cannot start a thread: {error}")))?;
            supervisor.workers.push(thread);
            supervisor.published.push(published);
        }
        Ok(supervisor)
    }

    /// Waits for the run's end, and brings it about where that is for us to decide.
    fn watch(&self, plan: &Plan, server: Option<&Embedded>) -> Ending {
        let went = plan.requests().map(|_| self.origin);
        let mut ending = Ending { went, clocks: went.map(|_| both_clocks()), ..Ending::default() };
        let mut progress = Progress::new(plan.quiet, self.origin);
        let mut watch = Watch::new(plan, self.origin);
        let mut until = Until::new(plan, &self.handovers);
        let mut server_cpu = ServerCpu::default();
        while !self.workers.iter().all(JoinHandle::is_finished) {
            let now = clock::now();
            if ending.interrupted.is_none() && signals::count() > 0 {
                ending.interrupted = signals::first();
                self.control.stop(now.after(INTERRUPTED_DRAIN_NS.min(plan.timeout_ns)));
            }
            let phase = match ending.went {
                None => {
                    self.watch_ramp(plan, &mut watch, &mut ending, now);
                    "connecting"
                }
                Some(went) => {
                    if ending.gave_up.is_none() {
                        ending.gave_up = watch.stalled(&self.published, now);
                        if ending.gave_up.is_some() {
                            self.control.stop(now.after(NS_PER_MS));
                        }
                    }
                    if ending.confident.is_none() {
                        ending.confident = until.reached(now);
                        ending.confident.iter().for_each(|at| self.control.finish(*at));
                    }
                    server_cpu.sample(plan, server, went, ending.confident, now);
                    if now < went.after(plan.warmup_ns) { "warm-up" } else { "measuring" }
                }
            };
            progress.update(now, &self.published, plan.total_connections(), phase);
            std::thread::sleep(self.nap(plan, &ending, now));
        }
        progress.clear();
        ending.server_cpu_ns = server_cpu.total(server, plan.requests().is_some());
        ending
    }

    fn watch_ramp(&self, plan: &Plan, watch: &mut Watch, ending: &mut Ending, now: Instant) {
        if ending.gave_up.is_some() || ending.interrupted.is_some() {
            return;
        }
        let ramp = watch.ramp(&self.published, now);
        if let Ramp::Hopeless(why) = ramp {
            self.control.stop(now.after(NS_PER_MS));
            ending.gave_up = Some(why);
            return;
        }
        let clocks = both_clocks();
        let Some((at, late_ns)) = clocks.begin(plan.start_at) else { return };
        match ramp {
            Ramp::Opening | Ramp::Hopeless(_) => return,
            Ramp::Complete => {}
            Ramp::Short { served } => ending.notes.push(format!(
                "only {served} of {} connections were answered, and no more are coming: going on with those. A server \
                 that accepts fewer than asked for, or a full accept queue, looks like this; see `errors`",
                plan.total_connections()
            )),
        }
        if let Some(late_ns) = late_ns.filter(|late_ns| *late_ns > 0) {
            let late = format_duration(late_ns);
            ending.notes.push(format!("the load began {late} after --start-at: connections were not open before"));
        }
        self.control.go(at);
        (ending.went, ending.start_late_ns, ending.clocks) = (Some(at), late_ns, Some(clocks));
    }

    /// Sleeps until something may have changed, and exactly until the window opens or closes.
    fn nap(&self, plan: &Plan, ending: &Ending, now: Instant) -> Duration {
        let Some(went) = ending.went else { return Duration::from_millis(2) };
        let opens = went.after(plan.warmup_ns);
        let closes = closes(plan, opens, ending.confident);
        let boundary = [opens, closes].into_iter().filter(|at| *at > now).min().unwrap_or(Instant::NEVER);
        Duration::from_nanos(boundary.since(now).min(20 * NS_PER_MS))
    }
}

/// When the window closes that opens at `opens`.
fn closes(plan: &Plan, opens: Instant, confident: Option<Instant>) -> Instant {
    let planned = plan.duration_ns().map_or(Instant::NEVER, |ns| opens.after(ns));
    confident.map_or(planned, |at| at.min(planned))
}

/// One worker's share of the plan: that of thread `thread` of this process.
pub fn config(plan: &Plan, to: &[Destination], thread: u64, origin: Instant) -> Config {
    let (index, workers) = plan.part().worker(thread, plan.threads);
    let share = |total: u64| total / workers + u64::from(index < total % workers);
    let stop_rule = match plan.stop_rule {
        StopRule::After(ns) => StopRule::After(ns),
        StopRule::Requests(n) => StopRule::Requests(share(n)),
        StopRule::RequestsOrAfter(n, ns) => StopRule::RequestsOrAfter(share(n), ns),
    };
    let turns = destination::turns(to);
    let schedules = destination::schedules(plan, &turns, (index, workers));
    Config {
        transport: plan.protocol.transport,
        shape: plan.protocol.shape,
        addresses: to.iter().map(|to| to.endpoint.to_string()).collect(),
        turns,
        all_active: plan.connections,
        active: share(plan.connections) as usize,
        idle: share(plan.idle) as usize,
        schedules,
        traffic: plan.traffic.clone(),
        connections_over_time: plan.connections_over_time.as_ref().map(|profile| profile.after(plan.warmup_ns)),
        worker: (index, workers),
        depth: plan.pipeline as usize,
        in_flight_max: plan.in_flight_max.map(|most| share(most).max(1)),
        requests_per_connection: plan.requests_per_connection,
        stop_rule,
        warmup_ns: plan.warmup_ns,
        timeout_ns: plan.timeout_ns,
        connect_rate: plan.connect_rate.map(|rate| share(rate).max(1)),
        unproven_max: share(plan.max_unproven).max(1) as usize,
        seed: plan.seed.wrapping_add(index),
        run_seed: plan.seed,
        origin,
        usage,
    }
}

fn usage() -> Usage {
    let (user_ns, system_ns) = clock::thread_user_system_ns();
    let cpu = CpuTime { total_ns: clock::thread_cpu_ns(), user_ns, system_ns };
    Usage { cpu, run_delay_ns: machine::thread_run_delay_ns() }
}

/// One for each worker, all before the first connection: where there is no memory for them, there is no run.
fn request_logs(plan: &Plan) -> Result<Vec<RequestLog>, Failure> {
    if plan.request_log.is_none() {
        return Ok(Vec::new());
    }
    let room = (request_log::ROWS_MAX / plan.threads) as usize;
    let logs = (0..plan.threads).map(|_| request_log::with_room(room)).collect::<io::Result<_>>();
    logs.map_err(|error| {
        Failure::new(Exit::Machine, error.to_string()).help("raise the limit of memory (`ulimit -v`), or leave it out")
    })
}

fn pick(cpus: &[usize], index: u64) -> Option<usize> {
    (!cpus.is_empty()).then(|| cpus[index as usize % cpus.len()])
}

/// CPU time of the embedded server at the window's edges.
#[derive(Debug, Default)]
struct ServerCpu {
    at_open: Option<u64>,
    at_close: Option<u64>,
}

impl ServerCpu {
    fn sample(
        &mut self,
        plan: &Plan,
        server: Option<&Embedded>,
        went: Instant,
        confident: Option<Instant>,
        now: Instant,
    ) {
        let Some(server) = server else { return };
        let opens = if plan.requests().is_some() { went } else { went.after(plan.warmup_ns) };
        if self.at_open.is_none() && now >= opens {
            self.at_open = server.cpu_ns();
        }
        let closes = closes(plan, opens, confident);
        if self.at_close.is_none() && now >= closes {
            self.at_close = server.cpu_ns();
        }
    }

    fn total(&self, server: Option<&Embedded>, whole_run: bool) -> Option<u64> {
        let at_end = server.and_then(Embedded::cpu_ns);
        let at_close = if whole_run { at_end } else { self.at_close.or(at_end) };
        Some(at_close?.saturating_sub(self.at_open?))
    }
}

/// Watches for a target that cannot be reached, and for a run that cannot end by itself.
#[derive(Debug)]
struct Watch {
    origin: Instant,
    total: u64,
    timeout_ns: u64,
    ramp_max_ns: u64,
    connect_interval_ns: u64,
    counts_requests: bool,
    /// Requests by which a connection may have to be proved.
    proofs: u64,
    first_failure: Option<Instant>,
    moved_at: Instant,
    progress: u64,
}

enum Ramp {
    Opening,
    Complete,
    /// Some connections will not come, or not in time.
    Short {
        served: u64,
    },
    Hopeless(String),
}

impl Watch {
    fn new(plan: &Plan, origin: Instant) -> Self {
        let connect_interval_ns = plan.connect_rate.map_or(0, |rate| NS_PER_S / plan.part().share(rate).max(1));
        let asked_ramp_ns = plan.total_connections().saturating_mul(connect_interval_ns);
        Self {
            origin,
            total: plan.connections_at_first(),
            timeout_ns: plan.timeout_ns,
            ramp_max_ns: RAMP_MAX_NS
                .max(asked_ramp_ns.saturating_mul(2))
                .max(plan.total_connections().saturating_mul(RAMP_A_CONNECTION_NS)),
            connect_interval_ns,
            counts_requests: plan.requests().is_some(),
            proofs: if plan.protocol.transport.may_lose() { PROOFS } else { 1 },
            first_failure: None,
            moved_at: origin,
            progress: 0,
        }
    }

    fn ramp(&mut self, workers: &[Arc<Published>], now: Instant) -> Ramp {
        let established = sum(workers, |p| &p.established);
        let served = sum(workers, |p| &p.served);
        let ready = sum(workers, |p| &p.ready);
        if ready >= self.total {
            return Ramp::Complete;
        }
        if self.first_failure.is_none() && sum(workers, |p| &p.connect_failures) > 0 {
            self.first_failure = Some(now);
        }
        if self.progress != established + ready {
            self.progress = established + ready;
            self.moved_at = now;
        }
        let waits = NS_PER_S / 2 + self.connect_interval_ns;
        // Several may be lost in a row, each with its timeout.
        let patience = self.timeout_ns.saturating_mul(self.proofs) + waits;
        if established == 0 {
            let patience = self.timeout_ns + waits;
            let refused = self.first_failure.is_some_and(|at| now.since(at) >= REFUSED_GRACE_NS);
            if refused || now.since(self.origin) >= patience {
                return Ramp::Hopeless("no connection could be established".to_owned());
            }
        } else if ready == 0 && now.since(self.origin) >= patience {
            return Ramp::Hopeless("connections were established, and none was ever answered".to_owned());
        } else if now.since(self.moved_at) >= patience || now.since(self.origin) >= self.ramp_max_ns {
            return Ramp::Short { served: served.max(ready) };
        }
        Ramp::Opening
    }

    /// A run that counts requests ends when all are answered. A target that is gone for good must not make it endless.
    fn stalled(&mut self, workers: &[Arc<Published>], now: Instant) -> Option<String> {
        if !self.counts_requests {
            return None;
        }
        let established = sum(workers, |p| &p.established);
        if self.first_failure.is_none() && sum(workers, |p| &p.connect_failures) > 0 {
            self.first_failure = Some(now);
        }
        let refused = self.first_failure.is_some_and(|at| now.since(at) >= REFUSED_GRACE_NS);
        if established == 0 && refused {
            return Some("no connection could be established".to_owned());
        }
        let progress = sum(workers, |p| &p.ok);
        if progress != self.progress {
            self.progress = progress;
            self.moved_at = now;
        }
        let patience = self.timeout_ns + NS_PER_S;
        (now.since(self.moved_at) >= patience).then(|| "no reply came any more".to_owned())
    }
}
