//! A server process for a test, and clients for it.

#![allow(dead_code, unused_imports)] // each test file uses its own part

use loadgen_core::result::ServerStats;
use loadgen_core::sys::{clock, process};
use loadgen_server::engine::ENGINES;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

#[path = "../../../client/tests/common/busy.rs"]
pub(crate) mod busy;
#[path = "../../../client/tests/common/program.rs"]
pub(crate) mod program;

pub(crate) use busy::PATIENCE;
use busy::Watch;
pub(crate) use program::{command, parent_command};

/// What engine io_uring may be told, each on its own: as tests name it, an engine and its arguments in one word.
const VARIANTS: &[&str] = &[
    "io_uring --ring cq=16,buffers=8x64",
    "io_uring --ring inline-send",
    "io_uring --ring bundles",
    "io_uring --ring incremental",
    "io_uring --ring zero-copy=1",
    "io_uring --ring min-wait=50us",
    "io_uring --ring sqpoll=20ms",
];

/// Runs `test` with every engine of the table.
pub(crate) fn with_every_engine(test: impl Fn(&str)) {
    for engine in ENGINES {
        eprintln!("engine {}", engine.name);
        test(engine.name);
    }
}

/// Likewise, and with every option of io_uring.
pub(crate) fn with_every_variant(test: impl Fn(&str)) {
    with_every_engine(&test);
    for variant in VARIANTS {
        eprintln!("engine {variant}");
        test(variant);
    }
}

/// A server on a free port; killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    stats: tempfile::NamedTempFile,
}

/// What a server left behind.
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stats: ServerStats,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
    /// Why the machine was not fit to be asked for times meanwhile.
    unfit: Option<String>,
}

impl Ended {
    /// Whether the machine was fit to be asked for times while the server ended. If not, it says so.
    pub(crate) fn is_conclusive(&self) -> bool {
        self.unfit.iter().for_each(|why| eprintln!("inconclusive: {why}"));
        self.unfit.is_none()
    }

    /// It took less than `limit`, or the machine was too busy to say.
    pub(crate) fn assert_within(&self, limit: Duration) {
        busy::assert_within(self.took, limit, "the server's end", self.unfit.as_deref());
    }
}

impl Server {
    pub(crate) fn start(engine: &str, options: &[&str]) -> Self {
        Self::launch(command(env!("CARGO_BIN_EXE_loadgen-server")), engine, options)
    }

    /// With at most that many descriptors.
    pub(crate) fn start_with_descriptors(limit: usize, engine: &str, options: &[&str]) -> Self {
        let mut command = command("sh");
        command.args(["-c", &format!("ulimit -n {limit}; exec \"$0\" \"$@\"")]);
        command.arg(env!("CARGO_BIN_EXE_loadgen-server"));
        Self::launch(command, engine, options)
    }

    /// Under strace, which has a system call fail. It is no parent of the server: that is our child as ever.
    pub(crate) fn start_with_fault(fault: &str, engine: &str, options: &[&str]) -> Self {
        let mut command = command("strace");
        command.args(["-D", "-f", "-qqq", "-o", "/dev/null", "-e", "signal=none", "-e", fault]);
        command.arg(env!("CARGO_BIN_EXE_loadgen-server"));
        Self::launch(command, engine, options)
    }

    fn launch(mut command: Command, engine: &str, options: &[&str]) -> Self {
        let stats = tempfile::NamedTempFile::new().unwrap();
        if !options.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        command.arg("--engine").args(engine.split(' ')).args(options);
        command.arg("--stats").arg(stats.path());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("{}", rest(child.stderr.take())));
        Self { address: address.trim_end().parse().unwrap(), child, stats }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub(crate) fn cpu(&self) -> Duration {
        Duration::from_nanos(clock::process_cpu_ns(self.child.id()).unwrap())
    }

    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    pub(crate) fn resident_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches("kB").trim().parse::<usize>().unwrap() * 1024
    }

    pub(crate) fn terminate(&self) {
        process::terminate(&self.child).unwrap();
    }

    /// Stops the server (SIGSTOP) while `act` runs, so that it sees all of it at once.
    pub(crate) fn unseen<T>(&self, act: impl FnOnce() -> T) -> T {
        let signal = |name: &str| command("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        signal("-STOP");
        let result = act();
        signal("-CONT");
        result
    }

    /// SIGTERM, and what it left behind.
    pub(crate) fn stop(self) -> Ended {
        self.terminate();
        self.wait()
    }

    pub(crate) fn wait(mut self) -> Ended {
        let start = Watch::start();
        let code = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status.code().unwrap_or(-1);
            }
            assert!(start.elapsed() < PATIENCE, "the server does not end");
            std::thread::sleep(Duration::from_millis(2));
        };
        let unfit = start.why_unfit();
        let stderr = rest(self.child.stderr.take());
        let text = std::fs::read_to_string(self.stats.path()).unwrap();
        let stats: ServerStats = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text:?}; {stderr}"));
        let closed: u64 = stats.closes.values().sum();
        assert_eq!(stats.accepts, closed, "{stats:?}");
        Ended { code, stats, stderr, took: start.elapsed(), unfit }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn rest(stderr: Option<ChildStderr>) -> String {
    let mut text = String::new();
    if let Some(mut stderr) = stderr {
        let _ = stderr.read_to_string(&mut text);
    }
    text
}

/// One request and its echo.
pub(crate) fn echo(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
    let mut reply = vec![0; bytes.len()];
    stream.read_exact(&mut reply).unwrap();
    assert!(reply == bytes, "the echo differs");
}

/// Bytes without a short period.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut rng = loadgen_core::rng::Rng::new(len as u64);
    (0..len).map(|_| rng.next_u64() as u8).collect()
}

/// Waits until `is` holds.
pub(crate) fn eventually(what: &str, is: impl Fn() -> bool) {
    let start = Watch::start();
    while !is() {
        assert!(start.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
