//! The embedded server: `loadgen-server` as a process of its own, so that its CPU time, memory and descriptors are its
//! own too. It is this very program, started again with the `server` command.

use crate::failure::{Exit, Failure};
use crate::plan::Plan;
use loadgen_core::result::ServerStats;
use loadgen_core::sys::{clock, process};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};

/// A running server. It is stopped and waited for when this is dropped.
#[derive(Debug)]
pub struct Embedded {
    child: Child,
    output: BufReader<ChildStdout>,
    pub address: SocketAddr,
}

impl Embedded {
    /// Starts a server on a free loopback port, and waits until it listens.
    pub fn start(plan: &Plan) -> Result<Self, Failure> {
        let failed = |what: String| Failure::new(Exit::Machine, format!("the embedded server did not start: {what}"));
        let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
        let mut child = command(plan, program).spawn().map_err(|error| failed(error.to_string()))?;
        let output = child.stdout.take().ok_or_else(|| failed("it has no standard output".to_owned()))?;
        let mut embedded =
            Self { child, output: BufReader::new(output), address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let mut line = String::new();
        embedded.output.read_line(&mut line).map_err(|error| failed(error.to_string()))?;
        match line.trim_end().strip_prefix("listening on ").and_then(|address| address.parse().ok()) {
            Some(address) => embedded.address = address,
            None => return Err(embedded.refused()),
        }
        Ok(embedded)
    }

    /// It has said why on standard error, and its exit status is of the same table as ours.
    fn refused(&mut self) -> Failure {
        let code = self.child.wait().ok().and_then(|status| status.code());
        let exit = if code == Some(Exit::Usage as i32) { Exit::Usage } else { Exit::Machine };
        Failure::new(exit, "the embedded server did not start")
    }

    /// CPU time that it has used so far, in nanoseconds.
    pub fn cpu_ns(&self) -> Option<u64> {
        clock::process_cpu_ns(self.child.id()).ok()
    }

    /// Stops it and takes its counters.
    pub fn stop(mut self) -> Result<ServerStats, String> {
        process::terminate(&self.child).map_err(|error| format!("the embedded server had ended already: {error}"))?;
        let mut text = String::new();
        self.output.read_to_string(&mut text).map_err(|error| error.to_string())?;
        let status = self.child.wait().map_err(|error| error.to_string())?;
        if !status.success() {
            return Err(format!("the embedded server ended with {status}"));
        }
        serde_json::from_str(&text).map_err(|error| format!("the embedded server's counters are not readable: {error}"))
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = process::terminate(&self.child);
            let _ = self.child.wait();
        }
    }
}

fn command(plan: &Plan, program: std::path::PathBuf) -> Command {
    let mut command = Command::new(program);
    command.args(["server", "--listen", "127.0.0.1:0", "--stats", "-"]);
    command.args(["--protocol", plan.protocol.name, "--engine", &plan.server_engine]);
    command.args(["--size", &plan.size.to_string(), "--threads", &plan.server_threads.to_string()]);
    command.args(["--parent", &std::process::id().to_string()]);
    if !plan.server_cpus.is_empty() {
        let list: Vec<String> = plan.server_cpus.iter().map(usize::to_string).collect();
        command.args(["--cpus", &list.join(",")]);
    }
    // A process group of its own: Ctrl-C at the terminal is for us, and we stop the server when we have drained.
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}
