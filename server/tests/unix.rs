//! Unix sockets on every engine, with curl as a client that is not ours.

mod common;

use common::{PATIENCE, noise, with_every_variant};
use loadgen_core::result::ServerStats;
use loadgen_core::sys::process;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use tempfile::TempDir;

/// A server behind a socket in a folder of its own; killed when dropped.
struct Server {
    child: Child,
    folder: TempDir,
}

impl Server {
    fn start(engine: &str, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listen = format!("unix:{}", folder.path().join("socket").display());
        let mut command = common::command(env!("CARGO_BIN_EXE_loadgen-server"));
        command.args(["--listen", &listen, "--engine"]).args(engine.split(' ')).args(options);
        command.arg("--stats").arg(folder.path().join("stats"));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), format!("listening on {listen}"));
        Self { child, folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.path()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// SIGTERM, and what it counted.
    fn stop(&mut self) -> ServerStats {
        process::terminate(&self.child).unwrap();
        self.ended()
    }

    fn ended(&mut self) -> ServerStats {
        assert!(self.child.wait().unwrap().success());
        assert!(!self.path().exists(), "the socket stayed behind");
        serde_json::from_str(&std::fs::read_to_string(self.folder.path().join("stats")).unwrap()).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// With every engine and option but zero-copy, which the kernel has for networks only.
fn with_every_fitting_variant(test: impl Fn(&str)) {
    with_every_variant(|variant| {
        if !variant.contains("zero-copy") {
            test(variant);
        }
    });
}

#[test]
fn bytes_go_there_and_back() {
    with_every_fitting_variant(|engine| {
        let mut server = Server::start(engine, &["--threads", "2"]);
        let mut streams: Vec<UnixStream> = (0..20).map(|_| server.connect()).collect();
        let bytes = noise(64 * 500);
        for stream in &mut streams {
            stream.write_all(&bytes).unwrap();
        }
        for stream in &mut streams {
            let mut back = vec![0; bytes.len()];
            stream.read_exact(&mut back).unwrap();
            assert!(back == bytes);
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(stream.read(&mut back).unwrap(), 0, "its end follows ours");
        }
        let stats = server.stop();
        assert_eq!((stats.accepts, stats.requests, stats.replies), (20, 20 * 500, 20 * 500));
        assert_eq!((stats.received_bytes, stats.closes["peer"]), (20 * bytes.len() as u64, 20));
    });
}

#[test]
fn what_had_arrived_is_answered_at_the_end() {
    with_every_fitting_variant(|engine| {
        let mut server = Server::start(engine, &[]);
        let mut stream = server.connect();
        let mut reply = [0; 640];
        for _ in 0..3 {
            stream.write_all(&[7; 640]).unwrap();
            stream.read_exact(&mut reply).unwrap();
        }
        process::terminate(&server.child).unwrap();
        assert_eq!(stream.read(&mut reply).unwrap(), 0, "the server ends its stream");
        drop(stream);
        let stats = server.ended();
        assert_eq!((stats.replies, stats.closes.get("drained")), (30, Some(&1)), "{stats:?}");
    });
}

#[test]
fn zero_copy_is_not_for_unix_sockets() {
    let arguments = ["--listen", "unix:/nowhere/socket", "--engine", "io_uring", "--ring", "zero-copy=1"];
    let output = common::command(env!("CARGO_BIN_EXE_loadgen-server")).args(arguments).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && told.contains("zero-copy"), "{told}");
}

#[test]
fn curl_is_served() {
    with_every_fitting_variant(|engine| {
        let mut server = Server::start(engine, &["--protocol", "http"]);
        let output = common::command("curl")
            .args(["-sS", "--max-time", "10", "--unix-socket"])
            .arg(server.path())
            .args(["http://any/bytes/300000", "http://any/bytes/7"])
            .output();
        let Ok(output) = output else {
            assert!(std::env::var_os("LOADGEN_REQUIRE_PROGRAMS").is_none(), "curl is not installed");
            return;
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.stdout.len(), 300_007);
        let stats = server.stop();
        assert_eq!((stats.accepts, stats.requests, stats.replies), (1, 2, 2));
    });
}

#[test]
fn a_path_that_is_taken_is_refused_and_nothing_of_others_is_removed() {
    let mut first = Server::start("epoll", &[]);
    let again = |path: &std::path::Path| {
        let listen = format!("unix:{}", path.display());
        let output =
            common::command(env!("CARGO_BIN_EXE_loadgen-server")).args(["--listen", &listen]).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, told) = again(&first.path());
    assert!(code == Some(2) && told.contains("something is there"), "{told}");
    let file = first.folder.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    let (code, told) = again(&file);
    assert!(code == Some(2) && told.lines().count() == 1, "{told}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    let (code, told) = again(&first.folder.path().join("nowhere/socket"));
    assert!(code == Some(2) && told.lines().count() == 1, "{told}");
    first.connect();
    first.stop();
}
