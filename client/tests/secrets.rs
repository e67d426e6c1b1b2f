//! What is secret is in nothing that we write, and in no list of processes, but it is sent.

mod common;

use common::{Running, eventually, loadgen, loadgen_at, loadgen_plain, scratch};
use loadgen_core::result::Report;
use std::collections::BTreeMap;

/// A secret, as no other test has it.
fn secret(of: &str) -> String {
    format!("hunter2{of}{}", std::process::id())
}

/// Arguments that have it everywhere.
fn arguments(secret: &str) -> Vec<String> {
    vec![
        "--header".into(),
        format!("Authorization: Bearer {secret}"),
        format!("-HCookie:a={secret}"),
        format!("--header=X-Api-Key: {secret}"),
        "-qH".into(),
        format!("proxy-authorization: {secret}"),
        format!("--path=/bytes/5?a=b&token={secret};%73ig={secret}"),
        "--method=POST".into(),
        format!("--body={{\"user\": \"u\", \"password\": \"{secret}\"}}"),
        format!("--label=url=redis://{secret}@h"),
        format!("--label=token={secret}"),
    ]
}

fn words(of: &[String]) -> Vec<&str> {
    of.iter().map(String::as_str).collect()
}

#[test]
fn nothing_that_is_written_has_a_secret_in_it() {
    let secret = secret("written");
    let arguments = arguments(&secret);
    let common = ["--protocol", "http", "--requests", "50", "--conns", "2"];
    let args = [&common[..], &words(&arguments)].concat();
    for format in loadgen_core::report::FORMATS {
        let ended = loadgen(&[&args[..], &["--format", format.name]].concat());
        let text = serde_json::to_string(ended.expect(0)).unwrap();
        for text in [&text, &ended.stdout, &ended.stderr] {
            assert!(!text.contains(&secret), "{}: {text}", format.name);
        }
        assert!(text.contains("Authorization: ***") && text.contains("a=b&token=***"), "{text}");
        assert_eq!(
            ended.report().scenario.secret_headers,
            ["Authorization", "Cookie", "X-Api-Key", "proxy-authorization"]
        );
    }
    let dump = loadgen_plain(&[&args[..], &["--dump-scenario"]].concat());
    assert!(
        dump.code == 0 && !dump.stdout.contains(&secret) && dump.stdout.contains("Authorization: ***"),
        "{}",
        dump.stdout
    );
}

#[test]
fn messages_have_no_secret_in_them() {
    let secret = secret("messages");
    for args in [
        vec!["-H".to_owned(), secret.clone()],
        vec![format!("--headr=Authorization: {secret}")],
        vec![format!("redis://{secret}@h"), format!("redis://:{secret}@h")],
        vec![format!("http://{secret}@127.0.0.1:1")],
        vec!["--label".into(), format!("redis://{secret}@h")],
        vec!["redis://127.0.0.1:1".into(), "--command".into(), format!("AUTH {secret}{{x}}")],
        vec!["redis://127.0.0.1:1".into(), "--command".into(), format!("AUTH '{secret}")],
        vec!["http://127.0.0.1:1".into(), format!("--path=/a b?token={secret}")],
        // What is refused because it is no URL, in every place that takes one, and in those that take none.
        vec![format!("redis://u:{secret}")],
        vec![format!("redis://:{secret}")],
        vec![format!("redis://u:{}/{secret}", &secret[..4])],
        vec![format!("redis://{secret}%")],
        vec![format!("http://u:{secret}")],
        vec![format!("u:{secret}")],
        vec![format!("redis://u:p@h:{secret}")],
        vec![format!("[::1]:{secret}")],
        vec!["--target".into(), format!("tcp://u:{secret}")],
        vec![format!("--targt=redis://u:{secret}")],
        vec!["--rate".into(), format!("redis://u:{secret}@h")],
        vec!["--rate".into(), format!("token={secret}")],
        vec!["--label".into(), format!("Bearer {secret}")],
        vec!["ab".into(), "--a-target".into(), format!("redis://u:{secret}"), "--b-target".into(), "h:1".into()],
        vec!["search".into(), "--slo".into(), "p99<1s".into(), format!("redis://u:{secret}")],
        vec!["doctor".into(), format!("redis://u:{secret}")],
        vec!["report".into(), format!("/no?token={secret}")],
        vec!["--scenario".into(), format!("/no/token={secret}")],
        vec!["server".into(), "--listen".into(), format!("redis://u:{secret}")],
    ] {
        let ended = loadgen_plain(&words(&args));
        assert!(
            ended.code != 0 && !ended.stderr.contains(&secret) && !ended.stdout.contains(&secret),
            "{}",
            ended.stderr
        );
    }
}

/// In bodies, headers, queries and labels of every kind.
#[test]
fn a_secret_is_known_in_every_notation() {
    let secret = secret("notation");
    let bodies = [
        "<a><password>S!</password></a>",
        "{'user': 'u', 'password': 'S!'}",
        "{\"passwords\": [\"S!\", \"S!\"]}",
        "{\"credentials\": {\"a\": \"S!\"}}",
        "{\"a\": \"{\\\"password\\\": \\\"S!\\\"}\"}",
        "{\"u\": \"redis://u:S!@h\"}",
        "{user: u, password: S!}",
        "a: b\npasswords:\n  - S!\n  - S!\n",
        "<member><name>password</name><value>S!</value></member>",
        "--b\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\nS!\r\n--b--",
        "a=b c&to%6ben=S!",
    ];
    let more = ["--header=%41uthorization: S!", "--path=/p?to%6ben=S!&a%26token%3DS!", "--label=n=Bearer S!"];
    let more =
        [&more[..], &["--label=k=token=S!", "--header=X-Forwarded: token=S!", "--header=X-On: password: S!"]].concat();
    for body in bodies {
        let body = format!("--body={body}");
        let typed = [&["--method=POST"], &more[..], &[&*body]].concat();
        let typed: Vec<String> = typed.iter().map(|word| word.replace("S!", &secret)).collect();
        let args = [&["--protocol", "http", "--requests", "5", "--conns", "1"], &words(&typed)[..]].concat();
        let ended = loadgen(&args);
        let text = serde_json::to_string(ended.expect(0)).unwrap();
        let dump = loadgen_plain(&[&args[..], &["--dump-scenario"]].concat());
        assert_eq!(dump.code, 0, "{}", dump.stderr);
        for text in [&text, &ended.stdout, &ended.stderr, &dump.stdout] {
            assert!(!text.contains(&secret), "{body}: {text}");
        }
        assert!(ended.report().scenario.secret_headers.contains(&"%41uthorization".to_owned()));
    }
}

/// What the documents recommend where a path has a token: without it, it is kept.
#[test]
fn a_path_is_kept_and_a_line_of_a_file_is_not() {
    let secret = secret("path");
    let folder = scratch();
    let file = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
    file("tokens.txt", format!("{secret}\n"));
    file("bot.toml", "[[request]]\npath = '/{line:tokens.txt}/send'\n".to_owned());
    let scenario = folder.path().join("bot.toml").display().to_string();
    for (typed, is_kept) in [(["--path", &*format!("/{secret}/send")], true), (["--scenario", &scenario], false)] {
        let ended = loadgen(&[&["--protocol", "http", "--requests", "5", "--conns", "1"], &typed[..]].concat());
        let text = serde_json::to_string(ended.expect(0)).unwrap() + &ended.stdout + &ended.stderr;
        assert_eq!(text.contains(&secret), is_kept, "{text}");
    }
}

#[test]
fn two_runs_that_differ_in_a_secret_only_are_the_same_load() {
    let folder = scratch();
    let mut scenarios = Vec::new();
    for secret in ["hunter1", "hunter22"] {
        let arguments = arguments(secret);
        let common = ["--protocol", "http", "--requests", "20", "--conns", "1"];
        let typed = loadgen(&[&common[..], &words(&arguments)].concat()).expect(0).scenario.clone();
        let file = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
        file("token", secret.to_owned());
        file("list", format!("GET /?a=b&token={secret}\n"));
        let path = format!("path = '/{{counter}}?token={secret}'");
        let message = format!("{path}\nheaders = ['Cookie: {{line:token}}']\nbody = '{{\"pin\": \"{secret}\"}}'");
        file("mix.toml", format!("[[request]]\n{message}\n"));
        file("list.toml", "[recorded]\nfile = 'list'\n".to_owned());
        let mut told = vec![typed];
        for name in ["mix.toml", "list.toml"] {
            let path = folder.path().join(name).display().to_string();
            let ended = loadgen(&[&common[..], &["--scenario", &path]].concat());
            told.push(ended.expect(0).scenario.clone());
            let dump = loadgen_plain(&[&common[..], &["--scenario", &path, "--dump-scenario"]].concat());
            assert!(dump.code == 0 && !dump.stdout.contains(secret), "{}", dump.stdout);
        }
        scenarios.push(told);
    }
    for (one, other) in scenarios[0].iter().zip(&scenarios[1]) {
        assert_eq!((&one.hash, &one.request_hash, &one.file), (&other.hash, &other.request_hash, &other.file));
    }
}

#[test]
fn headers_come_out_of_a_file_and_the_environment() {
    let folder = scratch();
    let file = folder.path().join("headers");
    std::fs::write(&file, "# of the staging system\nX-Plain: hunter2file\n").unwrap();
    let mut hashes = Vec::new();
    for value in ["hunter2env", "other"] {
        let mut command = common::command(env!("CARGO_BIN_EXE_loadgen"));
        command.env("LOADGEN_HEADERS", format!("X-Tenant: {value}\nX-More: {value}"));
        command.args(["--protocol", "http", "-n", "5", "-c", "1", "--output", "report.json", "--header"]);
        command.arg(format!("@{}", file.display()));
        let ended = Running::launch(command, scratch()).wait();
        let report: &Report = ended.expect(0);
        assert_eq!(report.scenario.secret_headers, ["X-Plain", "X-Tenant", "X-More"]);
        let text = serde_json::to_string(report).unwrap();
        assert!(!text.contains("hunter2") && text.contains("X-Plain"), "{text}");
        hashes.push(report.scenario.hash.clone());
    }
    assert_eq!(hashes[0], hashes[1]);
}

/// Processes that have `secret` in their command lines, by number, with these.
fn seen(secret: &str) -> BTreeMap<u32, String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let lines = ids.filter_map(|id| Some((id, std::fs::read(format!("/proc/{id}/cmdline")).ok()?)));
    let lines = lines.map(|(id, line)| (id, String::from_utf8_lossy(&line).into_owned()));
    lines.filter(|(_, line)| line.contains(secret)).collect()
}

#[test]
fn no_process_has_a_secret_in_its_title() {
    let secret = secret("title");
    let arguments = arguments(&secret);
    let mut run = Running::start(&[&["--protocol", "http", "--duration", "60s"][..], &words(&arguments)].concat());
    let title = format!("/proc/{}/cmdline", run.id());
    // At first it is as it was typed: nobody can prevent that.
    eventually("the run hides its secrets", || std::fs::read_to_string(&title).is_ok_and(|line| line.contains("***")));
    // Until its server runs, and then some.
    for _ in 0..20 {
        assert_eq!(seen(&secret), BTreeMap::new());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(!run.has_ended());
    run.signal("INT");
    assert_eq!(run.wait().code, 130);
}

#[test]
fn comparisons_and_searches_keep_secrets_to_themselves() {
    let secret = secret("slots");
    let arguments = arguments(&secret);
    let flags = format!("--path '/bytes/1?sig={secret}'");
    let ab =
        ["ab", "--blocks", "10", "--duration", "100ms", "--warmup", "0s", "--a-flags", &flags, "--b-flags", &flags];
    let search = ["search", "--slo", "p99<1s", "--probes", "2", "--duration", "100ms", "--warmup", "0s"];
    for command in [&ab[..], &search] {
        let own: Vec<&str> =
            words(&arguments).into_iter().filter(|word| !word.starts_with("--path") || command[0] != "ab").collect();
        let args = [command, &["--protocol", "http", "--conns", "2"], &own].concat();
        let mut started = common::command(env!("CARGO_BIN_EXE_loadgen"));
        let folder = scratch();
        let file = folder.path().join("kept.json");
        started.args(&args).arg("--output").arg(&file);
        let mut running = Running::launch(started, scratch());
        let title = format!("/proc/{}/cmdline", running.id());
        eventually("it hides its secrets", || std::fs::read_to_string(&title).is_ok_and(|line| line.contains("***")));
        while !running.has_ended() {
            assert_eq!(seen(&secret), BTreeMap::new());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let ended = running.wait();
        let kept = std::fs::read_to_string(&file).unwrap_or_else(|_| panic!("{}", ended.stderr));
        for text in [&kept, &ended.stdout, &ended.stderr] {
            assert!(!text.contains(&secret), "{text}");
        }
        assert!(kept.contains("Authorization: ***") && kept.contains("\"runs\""), "{kept}");
    }
}

#[test]
fn a_login_is_sent_to_its_own_target_only() {
    let (mut first, mut second) = (Greeted::start(), Greeted::start());
    let targets = [format!("redis://:hunter2@127.0.0.1:{}", first.port), format!("redis://127.0.0.1:{}", second.port)];
    let ended =
        loadgen_at(&targets[0], &["--target", &targets[1], "--requests", "10", "--conns", "2", "--timeout", "1s"]);
    let text = serde_json::to_string(ended.report()).unwrap();
    assert!(!text.contains("hunter2"), "{text}");
    assert!(first.heard().contains("hunter2") && !second.heard().contains("hunter2"));
}

/// A peer that says +OK to whatever it is told.
struct Greeted {
    port: u16,
    said: std::sync::mpsc::Receiver<Vec<u8>>,
    heard: Vec<u8>,
}

impl Greeted {
    fn start() -> Self {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, said) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, sender) = (stream.unwrap(), sender.clone());
                std::thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    while let Ok(read @ 1..) = stream.read(&mut buffer) {
                        // The test may be over.
                        let _ = sender.send(buffer[..read].to_vec());
                        let asked = buffer[..read].iter().filter(|byte| **byte == b'*').count();
                        let _ = stream.write_all("+PONG\r\n".repeat(asked).as_bytes());
                    }
                });
            }
        });
        Self { port, said, heard: Vec::new() }
    }

    fn heard(&mut self) -> String {
        self.said.try_iter().for_each(|said| self.heard.extend(said));
        String::from_utf8_lossy(&self.heard).into_owned()
    }
}
