//! Files and standard streams of `loadgen` where they are odd: full, closed, limited, endless, touched by others. And
//! what a run costs after its last reply.

mod common;

use common::{LOADGEN, Running, loadgen, loadgen_plain, read_report, scratch};
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Some requests to an embedded server.
const FEW: [&str; 8] = ["-n", "20", "-c", "1", "--protocol", "http", "--no-floor", "--quiet"];

/// Runs a shell script, in which loadgen is `$0` and the arguments `$@`.
fn shell(script: &str, args: &[&str]) -> common::Ended {
    let mut command = common::command("sh");
    command.args(["-c", script, LOADGEN]).args(args);
    Running::launch(command, scratch()).wait()
}

fn few(more: &[&str]) -> Vec<String> {
    FEW.iter().chain(more).map(|word| (*word).to_owned()).collect()
}

/// Likewise, with some requests and these flags.
fn few_in_shell(script: &str, more: &[&str]) -> common::Ended {
    let args = few(more);
    shell(script, &args.iter().map(String::as_str).collect::<Vec<_>>())
}

/// What lies in a folder.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// 256 such requests, which the digest used to keep, are a gigabyte.
#[test]
fn large_requests_that_differ_cost_no_memory_after_the_run() {
    let folder = scratch();
    let scenario = folder.path().join("large.toml");
    fs::write(folder.path().join("body"), vec![b'x'; 4 << 20]).unwrap();
    let text = "[[request]]\nname = 'large'\nmethod = 'POST'\npath = '/{counter}'\nbody_file = 'body'\n";
    fs::write(&scenario, text).unwrap();
    let scenario = scenario.to_str().unwrap();
    let args = ["-n", "2", "-c", "1", "--protocol", "http", "--scenario", scenario];
    let ended = loadgen(&args);
    let report = ended.expect(0);
    assert!(report.cpu.client_memory_bytes < 100 << 20, "{} bytes", report.cpu.client_memory_bytes);
    // Of as many as make up 8 MiB.
    assert!(report.scenario.request_hash.ends_with("-2"), "{}", report.scenario.request_hash);
    assert_eq!(loadgen(&args).expect(0).scenario.request_hash, report.scenario.request_hash);
    // Little room, and the run is not lost.
    let report = folder.path().join("limited.json");
    let args = [&args[..], &["--no-floor", "--quiet", "--output", report.to_str().unwrap()]].concat();
    let ended = shell("ulimit -v 600000; exec \"$0\" \"$@\"", &args);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(read_report(&report).ledger.ok, 2);
}

#[test]
fn what_cannot_be_printed_is_exit_6() {
    let report = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/result-1.json");
    let bundle = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/bundle-1.json");
    let commands: [&[&str]; 9] = [
        &["--help"],
        &["-h"],
        &["--version"],
        &["help", "run"],
        &["run", "--help"],
        &["server", "--help"],
        &["report", report],
        &["compare", bundle],
        &["run", "--dump-scenario"],
    ];
    for args in commands {
        assert_eq!(shell("exec \"$0\" \"$@\"", args).code, 0, "{args:?}");
        for stdout in [">/dev/full", ">&-", "1</dev/null"] {
            let ended = shell(&format!("exec \"$0\" \"$@\" {stdout}"), args);
            assert_eq!(ended.code, 6, "{args:?} {stdout}: {:?}", ended.stderr);
            assert!(ended.stderr.contains("cannot write to standard output"), "{args:?} {stdout}: {:?}", ended.stderr);
        }
        // Whoever pages through it may stop reading.
        let ended = shell("(trap '' PIPE; \"$0\" \"$@\"; echo $? >&2) | true", args);
        assert!(ended.stderr.ends_with("0\n"), "{args:?}: {:?}", ended.stderr);
    }
}

#[test]
fn a_run_whose_output_goes_nowhere_is_exit_6_and_keeps_its_report() {
    for stdout in [">/dev/full", ">&-", "1</dev/null"] {
        let ended = few_in_shell(&format!("exec \"$0\" \"$@\" {stdout}"), &["--output", "-"]);
        assert_eq!(ended.code, 6, "{stdout}: {:?}", ended.stderr);
        let folder = scratch();
        let report = folder.path().join("r.json");
        let ended = few_in_shell(&format!("exec \"$0\" \"$@\" {stdout}"), &["--output", report.to_str().unwrap()]);
        assert_eq!(ended.code, 6, "{stdout}: {:?}", ended.stderr);
        assert_eq!(read_report(&report).ledger.ok, 20);
    }
}

#[test]
fn a_limit_of_file_sizes_is_exit_6_and_leaves_nothing_behind() {
    for flag in ["--output", "--request-log"] {
        let folder = scratch();
        let path = folder.path().join("kept");
        fs::write(&path, "old").unwrap();
        // One block of 512 bytes. The summary goes to a pipe, which has no limit.
        let script = "(ulimit -f 1; \"$0\" \"$@\"; echo status $? >&2) 2>&1 | cat";
        let all = ["--output", "/dev/null", flag, path.to_str().unwrap()];
        let ended = few_in_shell(script, if flag == "--output" { &all[2..] } else { &all });
        assert!(
            ended.stdout.contains("status 6") && ended.stdout.contains("File too large"),
            "{flag}: {}",
            ended.stdout
        );
        assert_eq!((names(folder.path()), fs::read_to_string(&path).unwrap()), (vec!["kept".into()], "old".into()));
    }
}

#[test]
fn a_link_to_nowhere_is_followed() {
    let folder = scratch();
    let (link, file) = (folder.path().join("link.json"), folder.path().join("file.json"));
    for flag in ["--output", "--request-log"] {
        symlink("file.json", &link).unwrap();
        let all = ["--output", "/dev/null", flag, link.to_str().unwrap()];
        let ended = few_in_shell("exec \"$0\" \"$@\"", if flag == "--output" { &all[2..] } else { &all });
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink() && fs::symlink_metadata(&file).unwrap().is_file());
        fs::remove_file(&link).unwrap();
        fs::remove_file(&file).unwrap();
    }
}

#[test]
fn what_killed_runs_left_behind_is_swept() {
    let folder = scratch();
    let old = SystemTime::now() - Duration::from_secs(86_400);
    let make = |name: &str| {
        let file = File::create(folder.path().join(name)).unwrap();
        file.set_modified(old).unwrap();
        file
    };
    drop(make(".loadgen-Ab3xYz.tmp"));
    drop(make(".loadgen-4000000-Ab3xYz.tmp"));
    let held = make(".loadgen-4000001-Ab3xYz.tmp");
    held.lock().unwrap();
    let report = folder.path().join("r.json");
    let ended = few_in_shell("exec \"$0\" \"$@\"", &["--output", report.to_str().unwrap()]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(names(folder.path()), [".loadgen-4000001-Ab3xYz.tmp", "r.json"]);
}

#[test]
fn a_refused_fsync_loses_no_report() {
    if !common::have("strace") {
        return;
    }
    for (error, code) in [("EPERM", 0), ("ENOSYS", 0), ("EINVAL", 0), ("EROFS", 0), ("EIO", 6), ("ENOSPC", 6)] {
        let folder = scratch();
        let report = folder.path().join("r.json");
        let script =
            format!("exec strace -f -qq -o /dev/null -e trace=fsync -e inject=fsync:error={error} \"$0\" \"$@\"");
        let ended = few_in_shell(&script, &["--output", report.to_str().unwrap()]);
        assert_eq!(ended.code, code, "{error}: {}", ended.stderr);
        assert_eq!(report.exists(), code == 0, "{error}");
        let told = if code == 0 { "is written, but not synchronised" } else { "cannot write the report" };
        assert!(ended.stderr.contains(told), "{error}: {}", ended.stderr);
    }
}

#[test]
fn no_memory_is_exit_7_and_one_line() {
    for (limit, flags) in [
        (150_000, &["--request-log", "log.csv"][..]),
        (400_000, &["--conns", "10000000", "--engine", "epoll"]),
        (150_000, &["--protocol", "echo", "--size", "1GiB"]),
    ] {
        let script = format!("ulimit -v {limit}; exec \"$0\" \"$@\"");
        let common = ["--no-floor", "--quiet", "--duration", "100ms", "--output", "/dev/null"];
        let ended = shell(&script, &[&common[..], flags].concat());
        assert_eq!(ended.code, 7, "{flags:?}: {:?}", ended.stderr);
        let lines = ended.stderr.lines().filter(|line| line.starts_with("error: ")).count();
        assert!(lines == 1 && !ended.stderr.contains("panicked"), "{flags:?}: {:?}", ended.stderr);
    }
}

#[test]
fn the_machine_s_failures_are_exit_7() {
    if !common::have("strace") {
        return;
    }
    let target = ["--target", "127.0.0.1:1", "--no-floor", "--quiet", "-n", "1", "-c", "1", "--engine", "epoll"];
    let socket = ["ENOMEM", "ENFILE", "EMFILE", "ENOBUFS"].map(|error| ("socket", error));
    let epoll = ["ENOMEM", "ENFILE", "EMFILE", "EPERM"].map(|error| ("epoll_create1", error));
    for (call, error) in socket.into_iter().chain(epoll) {
        let inject = format!("-e trace={call} -e inject={call}:error={error}");
        let script = format!("exec strace -f -qq -o /dev/null {inject} \"$0\" \"$@\"");
        let ended = shell(&script, &[&target[..], &["--output", "/dev/null"]].concat());
        assert_eq!(ended.code, 7, "{call} {error}: {:?}", ended.stderr);
        assert!(ended.stderr.contains("error: ") && !ended.stderr.contains("panicked"), "{call}: {:?}", ended.stderr);
    }
}

#[test]
fn endless_files_are_refused_with_the_limit() {
    let folder = scratch();
    let pipe = folder.path().join("pipe");
    assert!(common::command("mkfifo").arg(&pipe).status().unwrap().success());
    let pipe = pipe.to_str().unwrap();
    let https = ["--target", "https://127.0.0.1:1"];
    let key = ["--tls-cert", "/dev/zero", "--tls-key", "/dev/zero"];
    let of_pipe = format!("@{pipe}");
    let large = folder.path().join("large.toml").to_str().unwrap().to_owned();
    File::create(&large).unwrap().set_len(5 << 20).unwrap();
    for (flags, limit) in [
        (&["--protocol", "http", "--body", "@/dev/zero"][..], "64 MiB"),
        (&["--protocol", "http", "--body", &of_pipe], "64 MiB"),
        (&["--think", "trace:/dev/zero"], "64 MiB"),
        (&["--server-service-time", "trace:/dev/zero"], "64 MiB"),
        (&["--scenario", &large], "4 MiB"),
        (&[&https[..], &["--ca", "/dev/zero"]].concat(), "16 MiB"),
        (&[&https[..], &key].concat(), "16 MiB"),
    ] {
        // `yes` is ended by the pipe whose reader is gone; where nobody reads, by its limit.
        let script = format!("timeout 20 yes >{pipe} 2>/dev/null & \"$0\" \"$@\"; status=$?; kill $!; exit $status");
        let ended = shell(&script, flags);
        assert_eq!(ended.code, 2, "{flags:?}: {:?}", ended.stderr);
        assert!(ended.stderr.contains("longer than") && ended.stderr.contains(limit), "{flags:?}: {:?}", ended.stderr);
    }
    let ended = loadgen_plain(&["report", "/dev/zero"]);
    assert!(ended.code == 2 && ended.stderr.contains("it is a device"), "{}", ended.stderr);
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_value() {
    let folder = scratch();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), format!("\u{feff}{text}")).unwrap();
    write("lines", "one\r\ntwo\r\n");
    write("list", "GET /a\r\nGET /b\r\n");
    write("times", "1us\r\n2us\r\n");
    write("lines.toml", "[[request]]\r\nname = 'a'\r\npath = '/{line:lines}'\r\n");
    write("list.toml", "[recorded]\r\nfile = 'list'\r\n");
    for file in ["lines.toml", "list.toml"] {
        let scenario = folder.path().join(file);
        loadgen(&["-n", "4", "-c", "1", "--protocol", "http", "--scenario", scenario.to_str().unwrap()]).expect(0);
    }
    let times = format!("trace:{}", folder.path().join("times").display());
    loadgen(&["-n", "4", "-c", "1", "--think", &times, "--server-delay", &times]).expect(0);
    // UTF-16 is told and not sent.
    let wide: Vec<u8> = "\u{feff}GET /a\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (file, scenario) in [("list", "list.toml"), ("lines", "lines.toml"), ("list.toml", "list.toml")] {
        fs::write(folder.path().join(file), &wide).unwrap();
        let scenario = folder.path().join(scenario);
        let ended = loadgen_plain(&["--protocol", "http", "--scenario", scenario.to_str().unwrap(), "--dump-scenario"]);
        assert!(ended.code == 2 && ended.stderr.contains("UTF-16"), "{file}: {:?}", ended.stderr);
    }
}

#[test]
fn runs_of_a_bundle_are_named_without_another_tool() {
    let bundle = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/bundle-1.json");
    let run = |number: &str| format!("{bundle}#{number}");
    let ended = loadgen_plain(&["report", &run("3")]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(!ended.stdout.is_empty());
    let ended = loadgen_plain(&["compare", &run("1"), &run("2")]);
    assert!(
        [0, 1].contains(&ended.code) && ended.stdout.contains("bundle-1.json#1"),
        "{} {}",
        ended.code,
        ended.stderr
    );
    let ended = loadgen_plain(&["compare", &run("A"), &run("B")]);
    assert!([0, 1].contains(&ended.code), "{} {}", ended.code, ended.stderr);
    for args in [&["report", &run("9")][..], &["compare", &run("0"), &run("1")], &["compare", &run("1"), &run("99")]] {
        let ended = loadgen_plain(args);
        assert!(ended.code == 2 && ended.stderr.contains("its runs are #1 to #8"), "{args:?}: {}", ended.stderr);
    }
    let ended = loadgen_plain(&["report", bundle]);
    assert!(ended.code == 2 && ended.stderr.contains("FILE#1") && !ended.stderr.contains("jq"), "{}", ended.stderr);
}

/// `cat one.json other.json` is no bundle, and neither is a list of reports.
#[test]
fn several_reports_in_one_file_are_told_by_their_number() {
    let golden = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/result-1.json")).unwrap();
    let folder = scratch();
    let (behind, list) = (format!("{golden}{golden}"), format!("[{golden},{golden},{golden}]"));
    for (name, text, told) in
        [("cat", behind, "2 texts of JSON, one behind"), ("list", list, "3 texts of JSON, as a list")]
    {
        let file = folder.path().join(name).display().to_string();
        fs::write(&file, text).unwrap();
        for command in ["report", "compare", "merge"] {
            for file in [file.clone(), format!("{file}#1"), format!("{file}#9")] {
                let ended = loadgen_plain(&[command, &file, &file]);
                assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{command} {file}: {}", ended.stderr);
                assert!(ended.stderr.contains(told) && ended.stderr.lines().count() == 1, "{}", ended.stderr);
            }
        }
    }
}
