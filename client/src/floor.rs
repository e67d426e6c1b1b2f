//! What the generator itself adds: the very code of a run, against a server that does nothing but echo. A figure of a
//! run that is near these says something about the generator and the kernel's loopback, and nothing about the target.

use crate::cli::{Cli, Command};
use crate::destination::{self, Destination};
use crate::engine::Entry;
use crate::engine::waits::Waits;
use crate::plan::Plan;
use crate::run;
use crate::worker::{Control, Published, Tally, Task};
use loadgen_core::histogram::Recorder;
use loadgen_core::load::request_log::RequestLog;
use loadgen_core::machine;
use loadgen_core::result::{FLOOR_SAMPLES_LEAST, Floor};
use loadgen_core::sys::{affinity, clock, memory, process, ring, socket};
use loadgen_core::time::{NS_PER_MS, NS_PER_US};
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How much time is spent.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub warmup_ns: u64,
    pub latency_ns: u64,
    pub waits: u32,
}

/// Before a run: about an eighth of a second, for about a thousand round trips.
pub const BRIEF: Effort = Effort { warmup_ns: 10 * NS_PER_MS, latency_ns: 80 * NS_PER_MS, waits: 50 };

/// On a machine where others have the CPUs, fewer than this come back in that time; it is then tried for longer.
const ENOUGH: u64 = FLOOR_SAMPLES_LEAST;
const LONGER: [u64; 3] = [1, 2, 4];

const WAIT_NS: u64 = 500 * NS_PER_US;
/// Longer than a client of ours is ever silent.
const PATIENCE: Duration = Duration::from_secs(1);
const CLOCK_READS: u64 = 1_000;
/// How often the null server looks for its client.
const ACCEPT_EVERY: Duration = Duration::from_millis(2);

/// Which CPUs client and null server are pinned to; `None`: to none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pinning {
    pub client: Option<usize>,
    pub server: Option<usize>,
}

/// A floor, and what it was made of.
#[derive(Debug)]
pub struct Measured {
    pub floor: Floor,
    pub tally: Tally,
}

/// What one worker did, and how long it had to wait for its CPU.
#[derive(Debug)]
pub struct Driven {
    pub tally: Tally,
    pub run_delay_ns: u64,
}

impl Pinning {
    /// Where the run's first thread will be, and a CPU beside it for the null server.
    pub fn of(plan: &Plan) -> Self {
        let allowed = affinity::allowed().unwrap_or_default();
        // With a server of our own, nothing is pinned only where that cannot be, or is not wanted.
        let free = plan.is_embedded() && plan.client_cpus.is_empty();
        if allowed.len() < 2 || free {
            return Self::default();
        }
        let client = plan.client_cpus.first().or_else(|| allowed.last()).copied();
        let beside = || allowed.iter().copied().find(|cpu| Some(*cpu) != client);
        Self { client, server: plan.server_cpus.first().copied().or_else(beside) }
    }
}

/// The floor of an engine. All that it needs has been joined and closed when this returns.
pub fn measure(engine: &Entry, ring: &ring::Options, pinning: Pinning, effort: Effort) -> Result<Measured, String> {
    // Or its histograms would be in the peak memory of the run that follows.
    memory::give_large_blocks_back();
    let began = clock::now();
    let server = NullServer::start(pinning.server).map_err(|error| format!("the null server: {error}"))?;
    let tally = round_trips(engine, ring, pinning, effort, server.address);
    server.stop();
    let tally = tally?;
    if tally.response.count() == 0 {
        let why = tally.errors.first().map_or("no reply came", |error| &error.first);
        return Err(format!("nothing came back over loopback: {why}"));
    }
    let waits = Waits { count: effort.waits, length_ns: WAIT_NS, ring: ring.clone() };
    let (late, clock_read_ns) = wait(engine, waits, pinning.client)?;
    // What so few values do not tell is not told.
    let quantile = |values: &Recorder, q: f64| Floor::tells(values.count(), q).then(|| values.quantile(q));
    let floor = Floor {
        engine: engine.name.to_owned(),
        samples: tally.response.count(),
        response_p50_ns: quantile(&tally.response, 0.5),
        response_p99_ns: quantile(&tally.response, 0.99),
        timer_samples: late.count(),
        timer_late_p50_ns: quantile(&late, 0.5),
        timer_late_p99_ns: quantile(&late, 0.99),
        timer_late_max_ns: late.max_ns().unwrap_or(0),
        clock_read_ns,
        client_cpu: pinning.client.map(|cpu| cpu as u64),
        server_cpu: pinning.server.map(|cpu| cpu as u64),
        took_ns: clock::now().since(began),
    };
    Ok(Measured { floor, tally })
}

/// As many as there is time for, and more time where that were too few.
fn round_trips(
    engine: &Entry,
    ring: &ring::Options,
    pinning: Pinning,
    effort: Effort,
    remote: SocketAddr,
) -> Result<Tally, String> {
    let mut tally = Tally::new();
    for factor in LONGER {
        let effort = Effort { latency_ns: effort.latency_ns * factor, ..effort };
        tally = drive(&plan(engine, ring, remote, effort)?, &destination::only(remote), pinning)?.tally;
        if tally.response.count() >= ENOUGH {
            break;
        }
    }
    Ok(tally)
}

/// One connection, one request at a time, planned as if it had been typed, so that it runs as a run does.
fn plan(engine: &Entry, ring: &ring::Options, remote: SocketAddr, effort: Effort) -> Result<Plan, String> {
    let mut words =
        vec!["--target".to_owned(), remote.to_string(), "--conns=1".to_owned(), "--timeout=200ms".to_owned()];
    words.extend([format!("--warmup={}ns", effort.warmup_ns), format!("--duration={}ns", effort.latency_ns)]);
    let options = ring.describe().join(",");
    if engine.needs_ring && !options.is_empty() {
        words.push(format!("--ring={options}"));
    }
    words.push(format!("--engine={}", engine.name));
    planned(&words)
}

/// The plan of a run that was typed so.
pub fn planned(words: &[String]) -> Result<Plan, String> {
    let typed = ["loadgen", "run"].map(OsString::from).into_iter().chain(words.iter().map(OsString::from));
    match Cli::parse_args(typed.collect()).map_err(|error| error.to_string())?.command {
        Command::Run(args) => Plan::new(&args).map_err(|failure| failure.cause().to_owned()),
        other => Err(format!("{other:?} is no run")),
    }
}

/// Runs the first worker of a plan to its end, as `run` does, but with nobody watching: the load begins at once.
pub fn drive(plan: &Plan, to: &[Destination], pinning: Pinning) -> Result<Driven, String> {
    let origin = clock::now();
    let control = Arc::new(Control::default());
    control.go(origin);
    let task = Task {
        log: RequestLog::default(),
        config: run::config(plan, to, 0, origin),
        remotes: destination::remotes(plan, to, 0),
        clients: plan.clients(0).map_err(|failure| failure.cause().to_owned())?,
        cpu: pinning.client,
        spin_ns: plan.spin_ns,
        ring: plan.ring.clone(),
        control,
        published: Arc::new(Published::default()),
        handover: None,
    };
    let run = plan.engine.run;
    on_a_thread(move || {
        let tally = run(task)?;
        // Of a thread that has done nothing else.
        Ok(Driven { tally, run_delay_ns: machine::thread_run_delay_ns() })
    })
}

/// How late the engine wakes, and what a look at the clock costs, on the client's CPU.
fn wait(engine: &Entry, waits: Waits, cpu: Option<usize>) -> Result<(Recorder, u64), String> {
    let measure = engine.waits;
    on_a_thread(move || {
        if let Some(cpu) = cpu {
            affinity::pin(&[cpu])?;
        }
        // As a worker of an open loop has them.
        process::precise_timers()?;
        let before = clock::now();
        let mut last = before;
        for _ in 0..CLOCK_READS {
            last = clock::now();
        }
        Ok((measure(&waits)?, last.since(before) / CLOCK_READS))
    })
}

/// Pinning is a thread's, and must not outlive this.
fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, String> {
    let thread = std::thread::Builder::new().name("floor".to_owned()).spawn(work);
    let thread = thread.map_err(|error| format!("cannot start a thread: {error}"))?;
    thread.join().map_err(|_| "a thread panicked; please report it")?.map_err(|error| error.to_string())
}

/// The least that a server can do: one thread that blocks in read(2), and writes what it got.
struct NullServer {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl NullServer {
    fn start(cpu: Option<usize>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        let serve = move || {
            if let Some(cpu) = cpu {
                // A CPU that was taken from us meanwhile: the figures are then those of what is left.
                let _ = affinity::pin(&[cpu]);
            }
            while !is_over.load(Ordering::Relaxed) {
                match socket::accept(listener.as_fd()) {
                    // A connection that breaks is the client's to tell.
                    Ok(stream) => _ = echo(stream.into()),
                    // Nobody is there yet, or nobody can be let in: the client tells of that, too, by its timeouts.
                    Err(_) => std::thread::sleep(ACCEPT_EVERY),
                }
            }
        };
        let thread = std::thread::Builder::new().name("null-server".to_owned()).spawn(serve)?;
        Ok(Self { address, over, thread })
    }

    fn stop(self) {
        self.over.store(true, Ordering::Relaxed);
        // It looks every few milliseconds, or its connection ends soon. That it panicked is in the figures.
        let _ = self.thread.join();
    }
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    // Should somebody else have come along, he is not waited for.
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            n => stream.write_all(&buffer[..n])?,
        }
    }
}
