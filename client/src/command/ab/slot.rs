//! One slot: an arm's server, and a run of `loadgen` as a process of its own, so that nothing is carried over from one
//! slot to the next.

use super::server::{Server, free_port};
use crate::failure::{Exit, Failure};
use crate::hidden;
use crate::resolve;
use crate::target::Target;
use loadgen_core::result::{Arm, Report, read};
use loadgen_core::sys::endpoint::Endpoint;
use loadgen_core::sys::process;
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How often somebody looks whether the user wants to stop.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How long a run that was interrupted may take to end: it drains, and stops its server.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// What a slot needs to know.
#[derive(Clone, Debug)]
pub struct Bench {
    pub program: PathBuf,
    /// Flags of `loadgen run` that all arms share.
    pub flags: Vec<String>,
    /// For reports that are on their way.
    pub folder: PathBuf,
    /// How long a server may take until it accepts.
    pub ready: Duration,
    /// What a run is one of, for messages: `arm`, `probe`.
    pub of: &'static str,
}

impl Bench {
    /// Runs `arm` once. `stop` is asked a few times a second; `None` if it said yes.
    pub fn run(&self, arm: &Arm, stop: &mut dyn FnMut() -> bool) -> Result<Option<Report>, Failure> {
        let addressed = AddressedArm::of(arm)?;
        let server = match &addressed.command {
            None => None,
            Some(command) => match Server::start(command, &addressed.addresses, self.ready, stop)? {
                Some(server) => Some(server),
                None => return Ok(None),
            },
        };
        let before_ns = server.as_ref().map(Server::cpu_ns);
        let mut report = self.measure(arm, addressed.target.as_deref(), stop);
        if let (Ok(Some(report)), Some(server), Some(before_ns)) = (&mut report, &server, before_ns) {
            note_cpu(report, server.cpu_ns().saturating_sub(before_ns));
        }
        // A server that died is the cause of whatever the run complains about.
        server.map_or(Ok(()), Server::stop)?;
        report
    }

    fn measure(
        &self,
        arm: &Arm,
        target: Option<&str>,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Report>, Failure> {
        let path = self.folder.join("slot.json");
        // That of the slot before; there is none at the first. One that stays is replaced by the run.
        let _ = std::fs::remove_file(&path);
        let cannot = |error: std::io::Error| Failure::new(Exit::Machine, format!("cannot start a run: {error}"));
        let mut child = self.command(arm, target, &path).spawn().map_err(cannot)?;
        // Its standard error ends when it does. So nobody has to look ten times a second whether it still runs.
        let (sender, ended) = mpsc::channel();
        let mut stderr = child.stderr.take();
        let listen = move || {
            let mut words = String::new();
            // What could be read until then is what it said.
            let _ = stderr.as_mut().map(|stderr| stderr.read_to_string(&mut words));
            // Nobody listens any more to one that had to be killed.
            let _ = sender.send(words);
        };
        std::thread::Builder::new().spawn(listen).map_err(cannot)?;
        let mut stopped = None;
        let words = loop {
            match ended.recv_timeout(LOOK_EVERY) {
                Ok(words) => break words,
                Err(RecvTimeoutError::Disconnected) => break String::new(),
                Err(RecvTimeoutError::Timeout) if stopped.is_none() && stop() => {
                    stopped = Some(Instant::now());
                    // It may have ended meanwhile.
                    let _ = process::signal_group(&child, process::INTERRUPT);
                }
                Err(RecvTimeoutError::Timeout) if stopped.is_some_and(|at| at.elapsed() >= STOP_TIMEOUT) => {
                    // Likewise; what it said is not wanted any more.
                    let _ = process::signal_group(&child, process::KILL);
                    break String::new();
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        };
        let status = child.wait().map_err(cannot)?;
        if stopped.is_some() {
            return Ok(None);
        }
        match read::read(&path) {
            // A target that is not there at all is no slow one, although there is a report of that.
            Ok(report) if status.code() != Some(Exit::Unreachable as i32) => Ok(Some(report)),
            _ => Err(self.failed(arm, status.code(), &words)),
        }
    }

    fn command(&self, arm: &Arm, target: Option<&str>, report: &Path) -> Command {
        let words = ["run".to_owned()].into_iter().chain(self.flags.iter().chain(&arm.flags).cloned());
        let target = target.map(|target| ["--target".to_owned(), target.to_owned()]);
        let quiet = ["--quiet", "--no-floor", "--format", "json", "--output"].map(str::to_owned);
        let words = words.chain(target.into_iter().flatten()).chain(quiet).map(OsString::from);
        let words: Vec<OsString> = words.chain([report.as_os_str().to_owned()]).collect();
        let mut command = hidden::command(&self.program, self.program.as_os_str(), &words);
        // No slot is a part of a load, whatever started us.
        crate::shard::variables().for_each(|name| _ = command.env_remove(name));
        // A group of its own: Ctrl-C at the terminal is for us.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        process::dies_with_us(&mut command);
        command
    }

    /// The run measured nothing, and has said why.
    fn failed(&self, arm: &Arm, code: Option<i32>, words: &str) -> Failure {
        let exit = match code {
            Some(2) => Exit::Usage,
            Some(3) => Exit::Unreachable,
            Some(6) => Exit::NotWritten,
            _ => Exit::Machine,
        };
        let mut lines = words.lines().map(str::trim).filter(|line| !line.is_empty());
        let cause = lines.next().unwrap_or("it ended without a word");
        let cause = cause.strip_prefix("error: ").unwrap_or(cause);
        let failure = Failure::new(exit, format!("{} {}: {cause}", self.of, arm.name));
        match lines.find_map(|line| line.strip_prefix("help: ")) {
            Some(help) => failure.help(help),
            None => failure,
        }
    }
}

/// The run itself knows nothing of the server's processes. Seen from outside the window's edges are not known, either:
/// so this is about the whole run.
fn note_cpu(report: &mut Report, cpu_ns: u64) {
    let replies = report.ledger.whole_run.as_ref().map_or(0, |whole| whole.ok);
    report.cpu.server_ns = Some(cpu_ns);
    report.cpu.server_ns_per_request = cpu_ns.checked_div(replies);
}

/// An arm's server and target in one slot: `{port}` is another port each time.
#[derive(Debug)]
struct AddressedArm {
    command: Option<String>,
    target: Option<String>,
    /// Where the server is to listen.
    addresses: Vec<Endpoint>,
}

impl AddressedArm {
    fn of(arm: &Arm) -> Result<Self, Failure> {
        let Some(command) = &arm.server_command else {
            return Ok(Self { command: None, target: arm.target.clone(), addresses: Vec::new() });
        };
        let port = free_port()?.to_string();
        let target = arm.target.as_deref().unwrap_or("127.0.0.1:{port}").replace("{port}", &port);
        let parsed = Target::parse(&target).map_err(Failure::usage)?;
        Ok(Self {
            command: Some(command.replace("{port}", &port)),
            addresses: resolve::addresses_of(&parsed, parsed.protocol(None).map_err(Failure::usage)?)?,
            target: Some(target),
        })
    }
}
