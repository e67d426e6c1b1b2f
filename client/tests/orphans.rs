//! kill -9 of a test, of a run, of a comparison: nothing that they started goes on.

mod common;

use common::processes::{Process, descendants};
use common::{
    HARD_LIMIT, LOADGEN, Running, Server, command, engine, eventually, have, namespace, nginx, parent_command, scratch,
    with_every_server_engine,
};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Stdio};

/// Where the test that is to be killed says that it has started all.
const READY: &str = "LOADGEN_TEST_READY";

/// Longer than any test waits.
const LONG: [&str; 4] = ["--duration", "1h", "--warmup", "0s"];

/// All of them end.
fn end(processes: &[Process]) {
    eventually(&format!("all of {processes:?} end"), || !processes.iter().any(Process::is_alive));
}

#[test]
fn a_killed_test_leaves_nothing_behind() {
    let folder = scratch();
    let ready = folder.path().join("ready");
    let mut test = command(std::env::current_exe().unwrap());
    test.args(["--exact", "--include-ignored", "one_of_each_that_tests_start", "--nocapture"]);
    test.env("TMPDIR", folder.path()).env(READY, &ready).stdin(Stdio::null()).stdout(Stdio::null());
    let mut test = test.spawn().unwrap();
    eventually("it has started all, or ended", || ready.exists() || test.try_wait().unwrap().is_some());
    let family = descendants(test.id());
    test.kill().unwrap();
    assert_eq!(test.wait().unwrap().code(), None, "it ended by itself; {family:?}");
    let wanted: Vec<String> = std::fs::read_to_string(&ready).unwrap().lines().map(str::to_owned).collect();
    for name in &wanted {
        assert!(family.iter().any(|one| one.name == *name), "no {name} in {family:?}");
    }
    end(&family);
}

#[test]
#[ignore = "it waits to be killed, by a_killed_test_leaves_nothing_behind"]
fn one_of_each_that_tests_start() {
    let Some(ready) = std::env::var_os(READY) else { return };
    let folder = scratch();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let _server = Server::start(&[]);
    let run = Running::start(&LONG);
    let mut wanted = vec!["loadgen"];
    let mut started: Vec<Child> = Vec::new();
    for (name, args) in [
        ("redis-server", vec!["--port", "0", "--save", "", "--dir", &at(""), "--unixsocket", &at("redis")]),
        ("memcached", vec!["-u", "root", "-s", &at("memcached")]),
        ("openssl", vec!["dgst", "-sha256", "/dev/zero"]),
        ("python3", vec!["-c", "input()"]),
        ("sh", vec!["-c", "ulimit -n 100; exec sleep 3600"]),
    ] {
        if have(name) {
            let mut program = command(name);
            program.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            started.push(program.spawn().unwrap());
            // A shell has become what it was told to.
            wanted.extend(match name {
                "sh" => Some("sleep"),
                // It may be a script in front of the real one.
                "python3" => None,
                name => Some(name),
            });
        }
    }
    let root = scratch();
    let _nginx = have("nginx").then(|| nginx::Process::start(root.path(), "$status", simple));
    started.push(parent_command("timeout").args(["3600", "sleep", "3601"]).spawn().unwrap());
    started.extend(namespace("-rn", "true", "exec sleep 3602", &[]).map(|mut command| command.spawn().unwrap()));
    eventually("the embedded server starts", || !descendants(run.id()).is_empty());
    std::fs::write(&ready, wanted.join("\n") + "\n").unwrap();
    std::thread::sleep(HARD_LIMIT * 2);
    started.iter_mut().for_each(|child| child.kill().unwrap());
}

fn simple(address: std::net::SocketAddr) -> String {
    format!("server {{ listen {address}; location / {{ return 200; }} }}")
}

#[test]
fn a_killed_run_takes_its_server_along_whatever_its_engine() {
    with_every_server_engine(|server_engine| {
        if server_engine == "io_uring" && engine_is_missing() {
            return;
        }
        let run = Running::start(&[&["--server-engine", server_engine, "--conns", "20"], &LONG[..]].concat());
        let family = server_of(&run);
        run.kill();
        end(&family);
    });
}

/// Engine io_uring does not work here.
fn engine_is_missing() -> bool {
    use loadgen_core::sys::ring;
    ring::check(&ring::Options::default()).is_err()
}

/// The embedded server of a run, when it serves.
fn server_of(run: &Running) -> Vec<Process> {
    let mut family = Vec::new();
    eventually("the embedded server works", || {
        family = descendants(run.id());
        let cpu_ns = |one: &Process| loadgen_core::sys::clock::process_cpu_ns(one.id).unwrap_or(0);
        family.iter().any(|one| cpu_ns(one) > 10_000_000)
    });
    family
}

/// A comparison of servers by these commands, each with `{port}`.
fn comparison(server: &str) -> Running {
    let mut ab = command(LOADGEN);
    ab.args(["ab", "--a", server, "--b", server, "--null", "--conns", "2", "--engine", engine(), "--quiet"]);
    ab.args(["--protocol", "http", "--duration", "20s", "--warmup", "0s"]);
    Running::launch(ab, scratch())
}

/// A server behind a shell: the kernel ends the one that we started, and that is the shell.
#[test]
fn a_killed_comparison_takes_its_servers_and_its_run_along() {
    let behind_a_shell = format!("cd / && {LOADGEN} server --protocol http --listen 127.0.0.1:{{port}}; true");
    killed_half_way(&behind_a_shell, &["sh", "sh", "loadgen", "loadgen"]);
}

/// The workers of nginx outlive a master that is killed.
#[test]
fn a_killed_comparison_takes_the_workers_of_its_servers_along() {
    if !have("nginx") {
        return;
    }
    let folder = scratch();
    let config = folder.path().join("nginx.conf");
    let command = format!("sh {}/start {{port}}", folder.path().display());
    std::fs::write(&config, workers(folder.path())).unwrap();
    let start = "PATH=$PATH:/usr/sbin:/sbin; cd \"${0%/*}\"; sed \"s/PORT/$1/\" nginx.conf > \"$1.conf\"\n\
         exec nginx -p . -c \"$1.conf\" -e error.log\n";
    std::fs::write(folder.path().join("start"), start).unwrap();
    killed_half_way(&command, &["nginx", "nginx", "nginx", "loadgen"]);
}

fn workers(root: &Path) -> String {
    let root = root.display();
    // Only root may choose whom the workers run as, and only then is there need: the folder is ours alone.
    let user = if std::fs::metadata(root.to_string()).unwrap().uid() == 0 { "user root root;" } else { "" };
    format!(
        "{user} daemon off; worker_processes 2; pid {root}/nginx.pid;\nevents {{ }}\nhttp {{\n\
         access_log off; client_body_temp_path {root}/body; proxy_temp_path {root}/proxy;\n\
         fastcgi_temp_path {root}/fastcgi; uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;\n\
         server {{ listen 127.0.0.1:PORT; location / {{ return 200; }} }}\n}}\n"
    )
}

/// kill -9 when all those programs run.
fn killed_half_way(server: &str, names: &[&str]) {
    let running = comparison(server);
    let mut family = Vec::new();
    eventually(&format!("{names:?} run"), || {
        family = descendants(running.id());
        let mut left: Vec<&str> = family.iter().map(|one| one.name.as_str()).collect();
        names.iter().all(|name| left.iter().position(|one| one == name).map(|at| left.swap_remove(at)).is_some())
    });
    running.kill();
    end(&family);
}
