//! The embedded server: `loadgen-server` as a process of its own, so that its CPU time, memory and descriptors are its
//! own too. It is this very program, started again with the `server` command.

use crate::cli::RunArgs;
use crate::failure::{Exit, Failure};
use crate::hidden;
use crate::plan::{self, Plan};
use loadgen_core::protocol::Protocol;
use loadgen_core::result::ServerStats;
use loadgen_core::service_time::{Injection, Stall};
use loadgen_core::sys::ring::Options;
use loadgen_core::sys::{clock, inherited, process};
use loadgen_server::cli::distribution;
use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long it may take to say where it listens: it makes rings and certificates, perhaps on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the server may take to end: its own drain lasts 2 s.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Service times and the like that it is to inject.
#[derive(Debug, Default)]
pub struct Injected {
    /// Its arguments.
    arguments: Vec<String>,
    /// What they mean, as a scenario tells it.
    pub words: Vec<String>,
}

impl Injected {
    pub fn new(args: &RunArgs, protocol: &Protocol) -> Result<Self, Failure> {
        let RunArgs { server_service_time, server_delay, server_stall, seed, .. } = args;
        let given = [("service-time", server_service_time), ("delay", server_delay), ("stall", server_stall)];
        let Some((first, _)) = given.iter().find(|(_, text)| text.is_some()) else { return Ok(Self::default()) };
        if !args.target.is_empty() || args.positional_target.is_some() {
            let message = format!("--server-{first} is for the embedded server, and this run has a target");
            return Err(Failure::usage(message).help(format!("a loadgen-server of its own takes --{first}")));
        }
        plan::about_requests(&format!("--server-{first}"), protocol)?;
        let wrong = |name: &str, error: String| Failure::usage(format!("--server-{name}: {error}"));
        let times = |name: &str, text: &Option<String>| {
            text.as_deref().map(distribution).transpose().map_err(|error| wrong(name, error))
        };
        let stall = server_stall.as_deref().map(Stall::parse).transpose().map_err(|error| wrong("stall", error))?;
        let (service_time, delay) = (times("service-time", server_service_time)?, times("delay", server_delay)?);
        let words = Injection { service_time, delay, stall, seed: *seed }.describe();
        let flags = given.into_iter().filter_map(|(name, text)| Some([format!("--{name}"), text.clone()?]));
        let arguments = flags.chain([["--seed".to_owned(), seed.to_string()]]).flatten().collect();
        Ok(Self { arguments, words })
    }
}

/// A running server. It is stopped and waited for when this is dropped.
#[derive(Debug)]
pub struct Embedded {
    child: Child,
    output: Option<BufReader<ChildStdout>>,
    pub address: SocketAddr,
}

impl Embedded {
    /// Starts a server on a free loopback port, and waits until it listens.
    pub fn start(plan: &Plan) -> Result<Self, Failure> {
        let failed = |what: String| Failure::new(Exit::Machine, format!("the embedded server did not start: {what}"));
        let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
        let mut child = command(plan, program).spawn().map_err(|error| failed(error.to_string()))?;
        let output = child.stdout.take().ok_or_else(|| failed("it has no standard output".to_owned()))?;
        let mut output = BufReader::new(output);
        let mut embedded = Self { child, output: None, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        // By a thread of its own, which ends with the server: a read has no deadline.
        let (sender, said) = mpsc::channel();
        let listen = move || {
            let mut line = String::new();
            let read = output.read_line(&mut line);
            // Nobody listens any more when it took too long.
            let _ = sender.send(read.map(|_| (line, output)));
        };
        let thread = std::thread::Builder::new().name("listening".to_owned()).spawn(listen);
        thread.map_err(|error| failed(format!("cannot start a thread: {error}")))?;
        let said = said.recv_timeout(START_TIMEOUT);
        let said = said.map_err(|_| failed(format!("it has not said where it listens within {START_TIMEOUT:?}")))?;
        let (line, output) = said.map_err(|error| failed(error.to_string()))?;
        embedded.output = Some(output);
        match line.trim_end().strip_prefix("listening on ").and_then(|address| address.parse().ok()) {
            Some(address) => embedded.address = address,
            None => return Err(embedded.refused()),
        }
        Ok(embedded)
    }

    /// It has said why on standard error, and its exit status is of the same table as ours.
    fn refused(&mut self) -> Failure {
        // Where its status cannot be had, it is the machine's failure.
        let code = self.ended_within(STOP_TIMEOUT).ok().flatten().and_then(|status| status.code());
        let exit = if code == Some(Exit::Usage as i32) { Exit::Usage } else { Exit::Machine };
        Failure::new(exit, "the embedded server did not start")
    }

    /// Its exit status; `None`: it goes on after that time.
    fn ended_within(&mut self, patience: Duration) -> io::Result<Option<ExitStatus>> {
        let began = Instant::now();
        loop {
            let status = self.child.try_wait()?;
            if status.is_some() || began.elapsed() >= patience {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// CPU time that it has used so far, in nanoseconds.
    pub fn cpu_ns(&self) -> Option<u64> {
        // It has ended, and the report then leaves the figure out.
        clock::process_cpu_ns(self.child.id()).ok()
    }

    /// Stops it and takes its counters. One that does not end in time is killed, and its counters are lost.
    pub fn stop(mut self) -> Result<ServerStats, String> {
        process::terminate(&self.child).map_err(|error| format!("the embedded server cannot be stopped: {error}"))?;
        let mut output = self.output.take().ok_or("the embedded server has no output")?;
        // Its counters may be more than a pipe holds, so they are read while it ends.
        let read = move || {
            let mut text = String::new();
            output.read_to_string(&mut text).map(|_| text)
        };
        let reader = std::thread::Builder::new().name("counters".to_owned()).spawn(read);
        let reader = reader.map_err(|error| format!("cannot start a thread: {error}"))?;
        let Some(status) = self.ended_within(STOP_TIMEOUT).map_err(|error| error.to_string())? else {
            // Dropping it kills it.
            return Err(format!("the embedded server did not end within {STOP_TIMEOUT:?} and was killed"));
        };
        let text = reader.join().map_err(|_| "a thread panicked")?.map_err(|error| error.to_string())?;
        if !status.success() {
            return Err(format!("the embedded server ended with {status}"));
        }
        serde_json::from_str(&text).map_err(|error| format!("the embedded server's counters are not readable: {error}"))
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // It may have ended meanwhile, which is what is wanted.
            let _ = self.child.kill();
            // A zombie at the worst, which ends with us; so does one that could not be killed.
            let _ = self.ended_within(STOP_TIMEOUT);
        }
    }
}

fn command(plan: &Plan, program: std::path::PathBuf) -> Command {
    let mut command = Command::new(program);
    hidden::forget(&mut command);
    command.args(["server", "--listen", "127.0.0.1:0", "--stats", "-"]);
    command.args(["--protocol", plan.protocol.name, "--engine", &plan.server_engine]);
    command.args(["--size", &plan.size.to_string(), "--threads", &plan.server_threads.to_string()]);
    command.args(["--expect", &plan.total_connections().to_string()]);
    let ring = plan.server_ring.as_ref().map_or_else(Vec::new, Options::describe);
    if !ring.is_empty() {
        command.args(["--ring", &ring.join(",")]);
    }
    command.args(&plan.server_injected.arguments);
    command.args(plan.layers_of_server());
    command.args(["--parent", &std::process::id().to_string()]);
    if !plan.server_cpus.is_empty() {
        let list: Vec<String> = plan.server_cpus.iter().map(usize::to_string).collect();
        command.args(["--cpus", &list.join(",")]);
    }
    // A process group of its own: Ctrl-C at the terminal is for us, and we stop the server when we have drained.
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped());
    inherited::hand_down(&mut command);
    command
}
