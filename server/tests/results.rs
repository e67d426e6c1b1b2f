//! What the server leaves behind, whole or not at all; and which failures are the machine's.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};

const SERVER: &str = env!("CARGO_BIN_EXE_loadgen-server");

/// A server in a shell script, in which it is `$0` and the arguments `$@`; its output and errors are pipes.
fn shell(script: &str, args: &[&str]) -> Child {
    let mut command = common::command("sh");
    command.args(["-c", script, SERVER, "--listen", "127.0.0.1:0"]).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Its exit status, and what it said.
fn ended(child: Child) -> (i32, String) {
    let output = child.wait_with_output().unwrap();
    (output.status.code().unwrap_or(-1), String::from_utf8(output.stderr).unwrap())
}

/// Lets it serve one request, and ends it.
fn serve_once(mut child: Child) -> (i32, String) {
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    let address = line.trim_end().strip_prefix("listening on ").unwrap_or_else(|| panic!("{line:?}")).to_owned();
    let mut stream = TcpStream::connect(address).unwrap();
    std::io::Write::write_all(&mut stream, &[b'x'; 64]).unwrap();
    stream.read_exact(&mut [0; 64]).unwrap();
    drop(stream);
    loadgen_core::sys::process::terminate(&child).unwrap();
    std::io::copy(&mut stdout, &mut std::io::sink()).unwrap();
    ended(child)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_full_disk_takes_no_old_file_away() {
    for flag in ["--stats", "--request-log"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kept");
        fs::write(&path, "old").unwrap();
        // Files of at most one block of 512 bytes, which counters and the log of one request pass; 64 bytes of echo.
        let limit = if flag == "--stats" { 1 } else { 0 };
        let script = format!("ulimit -f {limit}; exec \"$0\" \"$@\"");
        let (code, told) = serve_once(shell(&script, &[flag, path.to_str().unwrap()]));
        assert!(code == 6 && told.contains("File too large"), "{flag}: {code} {told}");
        assert_eq!((names(folder.path()), fs::read_to_string(&path).unwrap()), (vec!["kept".into()], "old".into()));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kept");
    fs::write(&path, "old").unwrap();
    let child = shell("ulimit -f 0; exec \"$0\" \"$@\"", &["--tls", "--tls-cert-out", path.to_str().unwrap()]);
    let (code, told) = ended(child);
    assert!(code == 6 && told.contains("File too large"), "{code} {told}");
    assert_eq!((names(folder.path()), fs::read_to_string(&path).unwrap()), (vec!["kept".into()], "old".into()));
}

#[test]
fn results_are_there_at_the_end_through_links_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::os::unix::fs::symlink("stats.json", path("link")).unwrap();
    let flags = ["--stats", &path("link"), "--request-log", &path("log.csv")];
    let (code, told) = serve_once(shell("exec \"$0\" \"$@\"", &flags));
    assert_eq!(code, 0, "{told}");
    assert_eq!(names(folder.path()), ["link", "log.csv", "stats.json"]);
    assert!(fs::read_to_string(path("stats.json")).unwrap().contains("\"requests\": 1"));
    assert_eq!(fs::read_to_string(path("log.csv")).unwrap().lines().count(), 2);
}

#[test]
fn statistics_that_cannot_be_printed_are_exit_6() {
    for stdout in [">/dev/full", ">&-", "1</dev/null"] {
        for flag in ["--help", "--version"] {
            let (code, told) = ended(shell(&format!("exec \"$0\" {flag} {stdout}"), &[]));
            assert!(code == 6 && told.contains("cannot write to standard output"), "{flag} {stdout}: {code} {told}");
        }
    }
}

#[test]
fn no_memory_for_the_log_is_known_before_the_load() {
    let (code, told) = ended(shell("ulimit -v 200000; exec \"$0\" \"$@\"", &["--request-log", "/dev/null"]));
    assert!(code == 7 && told.contains("no memory for --request-log") && told.lines().count() == 1, "{code} {told}");
}

#[test]
fn endless_files_are_refused_with_the_limit() {
    let key: &[&str] = &["--tls-cert", "/dev/zero", "--tls-key", "/dev/zero"];
    for flags in [key, &["--tls", "--tls-client-ca", "/dev/zero"], &["--service-time", "trace:/dev/zero"]] {
        let (code, told) = ended(shell("exec \"$0\" \"$@\"", flags));
        assert!(code == 2 && told.contains("longer than"), "{flags:?}: {code} {told}");
    }
}

/// Calls that fail before anybody is served, and whose failure that is.
#[test]
fn the_machine_s_failures_are_exit_7() {
    if common::command("strace").arg("-V").output().is_err() {
        assert!(std::env::var_os("LOADGEN_REQUIRE_PROGRAMS").is_none(), "strace is missing");
        return eprintln!("skipped: strace is not here");
    }
    let machine = ["ENOMEM", "ENFILE", "EMFILE", "ENOBUFS", "EPERM"];
    let mut cases: Vec<(&str, &str, i32)> = Vec::new();
    for call in ["socket", "bind", "listen", "epoll_create1"] {
        cases.extend(machine.map(|error| (call, error, 7)));
    }
    cases.extend([("setsockopt", "ENOMEM", 7), ("setsockopt", "ENOBUFS", 7), ("eventfd2", "EMFILE", 7)]);
    cases.extend([("bind", "EADDRINUSE", 2), ("bind", "EACCES", 2), ("bind", "EADDRNOTAVAIL", 2)]);
    for (call, error, wanted) in cases {
        let inject = format!(
            "exec timeout -s KILL 20 strace -f -qq -o /dev/null -e trace={call} -e inject={call}:error={error}"
        );
        let child = shell(&format!("{inject} timeout 3 \"$0\" \"$@\""), &["--engine", "epoll"]);
        let (code, told) = ended(child);
        // A call that is not made cannot fail; then it serves until it is ended.
        let unused = call == "eventfd2" && told.is_empty();
        assert!(code == wanted || unused, "{call} {error}: {code} {told}");
        assert!(!told.contains("panicked") && told.lines().count() <= 1, "{call} {error}: {told}");
    }
}
