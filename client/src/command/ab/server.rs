//! A server that somebody gave the command for: started afresh for each slot, and gone behind it.

use crate::destination;
use crate::failure::{Exit, Failure};
use crate::hidden;
use loadgen_core::secrets;
use loadgen_core::sys::endpoint::Endpoint;
use loadgen_core::sys::{clock, inherited, process, socket};
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

/// How long it may take to end before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// What it said last, in bytes, for the case that it fails.
const LAST_WORDS: usize = 400;

/// A running server. Dropping it kills it, with all that it started.
#[derive(Debug)]
pub struct Server {
    /// Its command, without what is secret.
    shown: String,
    child: Child,
    guard: Guard,
    ended: Option<ExitStatus>,
    errors: Receiver<String>,
}

impl Server {
    /// Starts `command` by `sh -c`, and waits until something listens at one of `addresses`.
    /// `None` if `stop` said so meanwhile.
    pub fn start(
        command: &str,
        addresses: &[Endpoint],
        patience: Duration,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Self>, Failure> {
        let shown = secrets::shell(command);
        let failed = |what: String| Failure::new(Exit::Unreachable, format!("the server '{shown}' {what}"));
        if let Some(taken) = addresses.iter().find(|address| accepts(address)) {
            let message = format!("something listens at {taken} already, so '{shown}' cannot be measured there");
            return Err(Failure::new(Exit::Machine, message).help("stop it, or write {port} for a free one"));
        }
        let mut shell = Command::new("sh");
        hidden::forget(&mut shell);
        // Signals are for the server, not for a shell in front of it.
        let exec = if is_plain(command) { "exec " } else { "" };
        shell.arg("-c").arg(format!("{exec}{command}"));
        shell.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        inherited::hand_down(&mut shell);
        process::dies_with_us(&mut shell);
        let mut child = shell.spawn().map_err(|error| failed(format!("cannot be started: {error}")))?;
        let errors = last_words(child.stderr.take());
        let guard = match Guard::over(&child) {
            Ok(guard) => guard,
            Err(error) => {
                kill(&mut child);
                return Err(failed(format!("cannot be guarded by a shell: {error}")));
            }
        };
        let mut server = Self { shown: shown.clone(), child, guard, ended: None, errors };
        let began = Instant::now();
        loop {
            if let Some(status) = server.status() {
                let help = "it must stay in the foreground, and not go on as a daemon";
                return Err(failed(format!("ended at once ({status}){}", server.said())).help(help));
            }
            if addresses.iter().any(accepts) {
                return Ok(Some(server));
            }
            if stop() {
                return Ok(None);
            }
            if began.elapsed() >= patience {
                let help = "does it listen there? {port} stands for a free port; --ready gives it longer";
                return Err(failed(format!("does not accept at {addresses:?} within {patience:?}")).help(help));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Ends it. How it takes that is its own business; that it ended before it was asked to is not.
    pub fn stop(mut self) -> Result<(), Failure> {
        if let Some(status) = self.status() {
            let message = format!("the server '{}' ended during its slot ({status}){}", self.shown, self.said());
            return Err(Failure::new(Exit::Unreachable, message));
        }
        // It may have ended this very moment, which is what is wanted.
        let _ = process::signal_group(&self.child, process::TERMINATE);
        let began = Instant::now();
        while self.status().is_none() && began.elapsed() < STOP_TIMEOUT {
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// CPU time of its process group so far, in nanoseconds; that of processes which have ended is not in it.
    pub fn cpu_ns(&self) -> u64 {
        let group = self.child.id();
        // A process may end while the list is read; what it used is not in the sum, as said above.
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        // Likewise.
        ids.filter(|id| group_of(*id) == Some(group)).filter_map(|id| clock::process_cpu_ns(id).ok()).sum()
    }

    fn status(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().unwrap_or_else(|_| Some(ExitStatus::from_raw(0)));
        }
        self.ended
    }

    fn said(&self) -> String {
        let words = self.errors.recv_timeout(Duration::from_millis(200)).unwrap_or_default();
        let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
        if words.is_empty() { String::new() } else { format!(": {words}") }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // First the guard, while the group is still the server's: its id may be another's soon.
        self.guard.dismiss();
        kill(&mut self.child);
    }
}

/// What it left behind in its group goes, too, or it would keep the port and the CPU of the next slot.
fn kill(child: &mut Child) {
    // It fails if none of the group is left.
    let _ = process::signal_group(child, process::KILL);
    // A zombie at the worst, which ends with us.
    let _ = child.wait();
}

/// Kills a server's process group when we are killed: the kernel does that for the one process that we started, and not
/// for a server behind a shell, or for the workers of nginx.
#[derive(Debug)]
struct Guard(Child);

impl Guard {
    /// A shell that waits for the end of its input, which is our end, however it comes.
    fn over(server: &Child) -> std::io::Result<Self> {
        let mut shell = Command::new("sh");
        shell.args(["-c", "read -r _; kill -s KILL -- \"-$0\"", &server.id().to_string()]);
        shell.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(shell.spawn()?))
    }

    fn dismiss(&mut self) {
        // It can have ended only by somebody else's hand, and then there is nothing to dismiss.
        let _ = self.0.kill();
        // Likewise.
        let _ = self.0.wait();
    }
}

/// Whether a command is one program with its arguments, so that no shell need stay in front of it.
fn is_plain(command: &str) -> bool {
    let first = command.split_whitespace().next().unwrap_or("");
    !command.contains([';', '&', '|', '\n', '(']) && !first.contains('=') && first != "exec"
}

/// The process group of a process: the third field behind its name in `/proc/PID/stat` (proc(5)).
fn group_of(id: u32) -> Option<u32> {
    // It may have ended meanwhile, and then it is of no group.
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(2)?.parse().ok()
}

/// A loopback port that is free now.
pub fn free_port() -> Result<u16, Failure> {
    let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).map(|a| a.port());
    port.map_err(|error| Failure::new(Exit::Machine, format!("no free port for a server: {error}")))
}

fn accepts(endpoint: &Endpoint) -> bool {
    let address = match endpoint {
        Endpoint::Tcp(address) => address,
        Endpoint::Udp(address) => return destination::probe(address).is_ok(),
        Endpoint::Unix(_) => return socket::connect(endpoint, None).is_ok(),
    };
    let stream = TcpStream::connect_timeout(address, Duration::from_secs(1));
    // A socket can be connected to itself where nobody listens, if the kernel gives it that very port.
    stream.is_ok_and(|stream| stream.local_addr().ok() != stream.peer_addr().ok())
}

/// Reads what it says until its end, so that it never waits for us, and keeps the end of it.
fn last_words(stderr: Option<std::process::ChildStderr>) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    let listen = move || {
        let Some(mut stderr) = stderr else { return };
        let (mut kept, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(count @ 1..) = stderr.read(&mut buffer) {
            kept.extend_from_slice(&buffer[..count]);
            let surplus = kept.len().saturating_sub(LAST_WORDS);
            kept.drain(..surplus);
        }
        // Nobody listens any more when it is not asked what it said.
        let _ = sender.send(String::from_utf8_lossy(&kept).into_owned());
    };
    // Without a thread its last words are lost, and nothing else.
    let _ = std::thread::Builder::new().spawn(listen);
    receiver
}
