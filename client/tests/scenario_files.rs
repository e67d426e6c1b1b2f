//! Scenario files as files: what goes before what, what is refused, what a dump says, and other commands than `run`.

mod common;

use common::peer::Peer;
use common::scenario::{MIX, dumped, example, in_folder, kinds, with_file};
use common::{LOADGEN, SHORT, Server, agrees_with_embedded, clean, loadgen, loadgen_plain, scratch};
use loadgen_core::protocol::PROTOCOLS;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

#[test]
fn the_example_runs() {
    let ended = loadgen(&[&["--scenario", &example()][..], &SHORT].concat());
    let report = ended.expect(0);
    clean(report);
    agrees_with_embedded(report);
    assert_eq!((report.scenario.protocol.as_str(), report.scenario.connections), ("http", 50));
    assert_eq!(report.scenario.think.as_deref(), Some("exp:5ms"));
    assert!(kinds(report).len() == 5 && kinds(report)["item"] > 0, "{:?}", kinds(report));
    assert!(ended.stdout.contains("item"), "{}", ended.stdout);
}

#[test]
fn what_is_typed_goes_before_the_file() {
    let file = "[defaults]\nconns = 9\nthreads = 2\nrequests_per_conn = 5\nlabel = [\"a=b\", \"c=d\"]\n\
        no_floor = true\n\
        think = \"trace:times\"\nduration = \"150ms\"\nwarmup = \"10ms\"\n\
        [[target]]\nurl = \"http://127.0.0.1:1\"\nweight = 2\n[[target]]\nurl = \"http://127.0.0.1:2\"\n\
        [[request]]\npath = \"/\"\n";
    let folder = with_file("s.toml", file);
    std::fs::write(folder.path().join("times"), "1ms\n2ms\n").unwrap();
    let file = in_folder(&folder, "s.toml");
    let server = Server::start(&["--protocol", "http"]);
    let target = format!("http://{}", server.target());
    let ended = loadgen(&["--scenario", &file, "-T", &target, "-c", "3", "--requests", "60", "--no-floor"]);
    let scenario = &ended.expect(0).scenario;
    assert_eq!((scenario.connections, scenario.threads, scenario.requests), (3, 2, Some(60)));
    assert_eq!((scenario.requests_per_connection, scenario.weights.len()), (Some(5), 0));
    assert!(scenario.think.as_ref().unwrap().starts_with("trace:"));
    assert_eq!(ended.report().labels.len(), 2);
    assert_eq!(kinds(ended.report()), BTreeMap::from([("request1".to_owned(), 60)]));
    // As a target without its flag; and none of the defaults.
    let ended = loadgen(&["--scenario", &file, "--requests", "60", &target, "-c", "3"]);
    assert_eq!(ended.expect(0).scenario.threads, 2);
    let ended = loadgen(&["--scenario", &file, "--no-scenario-defaults", "--requests", "100", &target]);
    assert_eq!((ended.expect(0).scenario.connections, ended.report().scenario.threads), (100, 1));
    // The file's targets are there otherwise.
    let ended = loadgen(&["--scenario", &file, "--duration", "100ms"]);
    assert_eq!(ended.expect(3).scenario.weights, [2, 1]);
}

#[test]
fn different_files_are_different_scenarios() {
    let one = |text: &str| {
        let folder = with_file("s.toml", text);
        loadgen(&["--scenario", &in_folder(&folder, "s.toml"), "--requests", "200"]).expect(0).scenario.clone()
    };
    let text = "[[request]]\nname = \"a\"\npath = \"/\"\nweight = 3\n[[request]]\nname = \"b\"\npath = \"/\"\n";
    let first = one(text);
    assert_eq!(first.hash, one(&format!("# a comment\n{text}")).hash);
    let other = one(&text.replace('3', "4"));
    assert_ne!(first.hash, other.hash);
    let fields: Vec<String> =
        loadgen_core::result::differing_fields(&first, &other).into_iter().map(|(name, ..)| name).collect();
    assert_eq!(fields, ["file"]);
    assert_eq!(loadgen(&["--requests", "200"]).expect(0).scenario.file, None);
}

#[test]
fn protocols_that_cannot_make_the_requests_refuse_them() {
    let http = with_file("s.toml", "[[request]]\npath = \"/\"\n");
    let commands = with_file("s.toml", "[[request]]\ncommand = \"get {key}\"\n");
    for protocol in PROTOCOLS {
        let with = |folder: &TempDir| {
            loadgen_plain(&["--scenario", &in_folder(folder, "s.toml"), "--protocol", protocol.name, "--dump-scenario"])
        };
        let (of_http, of_commands) = (with(&http), with(&commands));
        let takes_http = if protocol.name == "http" { 0 } else { 2 };
        assert_eq!(of_http.code, takes_http, "{}: {}", protocol.name, of_http.stderr);
        assert_eq!(of_commands.code, if protocol.store { 0 } else { 2 }, "{}: {}", protocol.name, of_commands.stderr);
        for refused in [of_http, of_commands].iter().filter(|ended| ended.code == 2) {
            assert!(refused.expect_refusal(2).contains("s.toml asks for"), "{}", refused.stderr);
        }
    }
    let file = in_folder(&http, "s.toml");
    let commands = in_folder(&commands, "s.toml");
    let list = with_file("s.toml", "[recorded]\nfile = \"l\"\n");
    std::fs::write(list.path().join("l"), "GET /\n").unwrap();
    let list = in_folder(&list, "s.toml");
    for (args, words) in [
        (&["--scenario", &file, "--path", "/x"][..], "--path"),
        (&["--scenario", &file, "--body", "x"], "--body"),
        (&["--scenario", &file, "http://127.0.0.1:1/x"], "the path in the target"),
        (&["--scenario", &list, "-X", "PUT"], "--method"),
        (&["--scenario", &commands, "--protocol", "redis", "--mix", "get"], "--mix"),
        (&["--scenario", &commands, "--protocol", "redis", "--command", "PING"], "--command"),
        (&["--no-scenario-defaults"], "--scenario"),
        (&["--scenario"], "--scenario"),
        (&["--scenario", &file, "--scenario", &file], "--scenario"),
        (&["ab", "--scenario", &file, "--dump-scenario"], "--dump-scenario"),
        (&["search", "--slo", "p99<5ms", "--scenario", &file, "--dump-scenario"], "--dump-scenario"),
        (&["--scenario", &example(), "--pipeline", "2"], "--pipeline"),
        (&["--scenario", &example(), "--rate", "100"], "--rate"),
    ] {
        let ended = loadgen_plain(args);
        assert!(ended.expect_refusal(2).contains(words), "{args:?}: {}", ended.stderr);
    }
}

#[test]
fn files_that_are_wrong_are_refused_with_their_place() {
    let mix = "[[request]]\nname = \"a\"\npath = \"/\"\n";
    let cases = [
        ("x = [", "line 1"),
        (
            "\n\n[[request]]\npath = \"/\"\nwieght = 3\n",
            "line 5: key 'wieght' is not known here; did you mean 'weight'?",
        ),
        ("[[request]]\npath = \"/{randm:1..2}\"\n", "line 2: {randm:1..2} is no template; did you mean 'random'?"),
        ("[[request]]\npath = \"/{line:none}\"\n", "line 2: cannot read"),
        ("[[request]]\npath = \"/{line:empty}\"\n", "line 2: empty has no lines"),
        ("[[request]]\npath = \"/\"\nbody_file = \"folder\"\n", "line 3: cannot read"),
        ("[[request]]\npath = \"/\"\nbody_file = \"pipe\"\n", "no regular file"),
        ("[[request]]\npath = \"/\"\nbody_file = \"huge\"\n", "is longer than 256 MiB"),
        ("[recorded]\nfile = \"empty\"\n", "line 2: empty has no requests"),
        ("[recorded]\nfile = \"lines\"\n", "line 2: line 1 of lines: path \"b\" does not start"),
        ("[[request]]\npath = \"/\"\nweight = 0\n", "line 1: request 'request1' is never made"),
        ("[[request]]\npath = \"/\"\nweight = -1\n", "line 3"),
        (
            "[[request]]\npath = \"/\"\nheaders = [\"A: b\\r\\nC: d\"]\n",
            "line 1: request 'request1': the value of header A",
        ),
        ("[[request]]\npath = \"/\"\nheaders = [\"Content-Length: 3\"]\n", "Content-Length"),
        ("[[request]]\npath = \"/{line:lines}\"\n", "can have blanks"),
        ("[[request]]\npath = \"/{pick:a|b c}\"\n", "can have blanks"),
        ("[[request]]\nmethod = \"G T\"\npath = \"/\"\n", "is no HTTP method"),
        ("[[request]]\nname = \"a\"\n", "line 1: the request lacks its path"),
        ("[defaults]\nconn = 3\n", "line 2: 'conn' is no flag of `run`, without dashes; did you mean 'conns'?"),
        ("[defaults]\nconns = \"many\"\n", "line 2: invalid value 'many' for '--conns <N>'"),
        ("[defaults]\nconns = true\n", "line 2"),
        ("[defaults]\nconns = [1, 2]\n", "line 2"),
        ("[defaults]\nquiet = 3\n", "line 2"),
        ("[defaults]\nscenario = \"x\"\n", "line 2: 'scenario' is no flag"),
        ("[defaults]\nsession_requests = 5\n", "--rate <R>"),
        ("[defaults]\nthink = \"trace:none\"\n", "cannot read"),
        ("[defaults]\ncpus = \"\"\n", "line 2"),
        ("name = \"\"\n", "line 1"),
    ];
    let scripted = [
        ("[[script]]\nname = \"s\"\nsteps = []\n", "line 4: a script has 1 to"),
        ("[[script]]\nname = \"s\"\nsteps = [\"b\"]\n", "line 6: there is no request 'b'"),
        ("[[script]]\nname = \"s\"\nsteps = [{ request = \"a\", think = \"exp:1s\" }]\n", "line 6: the first step"),
        ("[[script]]\nname = \"s\"\nweight = 0\nsteps = [\"a\"]\n", "line 4: all weights are 0"),
        ("[[request]]\ncommand = \"GET {key}\"\n", "line 4: some requests have a path"),
        ("[recorded]\nfile = \"lines\"\n", "line 4: [recorded] does not go with"),
    ];
    let all = cases.map(|(text, words)| (text.to_owned(), words)).into_iter();
    for (text, words) in all.chain(scripted.map(|(text, words)| (format!("{mix}{text}"), words))) {
        let folder = with_file("bad.toml", &text);
        let put = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
        put("empty", b"\n\n");
        put("lines", b"a b\n");
        std::fs::create_dir(folder.path().join("folder")).unwrap();
        File::create(folder.path().join("huge")).unwrap().set_len(1 << 40).unwrap();
        let pipe = common::command("mkfifo").arg(folder.path().join("pipe")).status().unwrap();
        assert!(pipe.success());
        let ended = loadgen_plain(&["--scenario", &in_folder(&folder, "bad.toml"), "--protocol", "http"]);
        let said = ended.expect_refusal(2);
        let named = said.contains("bad.toml") || words == "cannot read";
        assert!(said.contains(words) && named, "{text:?}: {said}");
        let lines = said.lines().filter(|line| !line.starts_with("  help: ")).count();
        assert_eq!(lines, 1, "{text:?}: {said}");
    }
}

#[test]
fn a_path_that_is_no_scenario_file_is_refused() {
    let folder = with_file("binary", "x = 1\n");
    std::fs::write(folder.path().join("binary"), b"a = 1\n\xff\xfe").unwrap();
    File::create(folder.path().join("huge")).unwrap().set_len(1 << 40).unwrap();
    for (name, words) in [
        ("none.toml", "No such file"),
        ("", "no regular file"),
        ("binary", "line 2: the text is not UTF-8"),
        ("huge", "longer than 4 MiB"),
    ] {
        let file = in_folder(&folder, name);
        for command in [&["run"][..], &["ab"], &["search", "--slo", "p99<5ms"]] {
            let ended = loadgen_plain(&[command, &["--scenario", &file]].concat());
            let said = ended.expect_refusal(2);
            assert!(said.contains(words) && said.contains(&file) && said.lines().count() == 1, "{name}: {said}");
        }
    }
}

#[test]
fn a_dump_is_a_scenario_file_that_asks_for_the_same() {
    let folder = with_file(
        "s.toml",
        "name = \"all \\\"of\\\" it\"\n[defaults]\nthink = \"trace:times\"\nmix = []\nlabel = [\"a=1\", \"b=x y\"]\n\
         no_pin = true\nheader = \"A: \\\"b\\\"\"\n[keys]\ncount = \"2k\"\n\
         [[request]]\nname = \"lined\"\nweight = 2\n\
         path = \"/{line:folder/words}/{random_line:folder/words}/{counter:x}\"\n\
         body = \"{{not {value} \\u0001 \"\n\
         [[request]]\nname = \"filed\"\nmethod = \"PUT\"\npath = \"/\"\nbody_file = \"folder/words\"\n\
         [[script]]\nname = \"s\"\nsteps = [\"lined\", { request = \"filed\", think = \"bimodal:0.1,1ms,2ms\" }]\n",
    );
    std::fs::create_dir(folder.path().join("folder")).unwrap();
    std::fs::write(folder.path().join("folder/words"), "one\ntwo\n").unwrap();
    std::fs::write(folder.path().join("times"), "1ms\n").unwrap();
    let list = with_file("s.toml", "[recorded]\nfile = \"l\"\norder = \"random\"\n");
    std::fs::write(list.path().join("l"), "GET /1\nHEAD /2\n").unwrap();
    let (file, list) = (in_folder(&folder, "s.toml"), in_folder(&list, "s.toml"));
    for args in [
        &["--scenario", &file, "--conns", "3"][..],
        &["--scenario", &file, "--requests", "100"],
        &["--scenario", &list, "--rate", "1k", "--arrival", "poisson", "--until-ci", "p99=2%"],
        &["--scenario", &example(), "http://127.0.0.1:1", "--cpus", "0"],
        &["--scenario", &example(), "-T", "http://127.0.0.1:1", "-T", "http://127.0.0.1:2", "--weights", "3,1"],
        &["--protocol", "memcached", "--mix", "get=3,set=1", "--fail-if", "p99>5ms", "errors>0"],
        &["--rate", "1k:1s,1k..2k:2s", "--conns", "10:1s,20:2s", "--size", "3KiB"],
        &["--protocol", "chargen"],
        &["http://127.0.0.1:1/x", "-X", "POST", "--body", "x", "-H", "A: b", "-H", "C: d"],
    ] {
        let (first, kept) = dumped(args);
        let (again, _folder) = dumped(&["--scenario", &in_folder(&kept, "dump.toml")]);
        assert_eq!(first, again, "{args:?}");
        assert!(first.contains("\nduration = \"") != args.contains(&"--requests"), "{first}");
        assert!(first.contains("\ntimeout = \"5s\"\n") && first.contains("\npipeline = 1\n"), "{first}");
        let shown = first.lines().filter(|line| line.starts_with("# 1")).count();
        assert_eq!(shown, if args.contains(&"chargen") { 0 } else { 2 }, "requests 1 and 10: {first}");
    }
    // Both ask for the same, also where it is kept elsewhere.
    let (_, kept) = dumped(&["--scenario", &example()]);
    let scenario = |file: &str| {
        let ended = loadgen(&[&["--scenario", file, "--requests", "200"][..]].concat());
        ended.expect(0).scenario.clone()
    };
    assert_eq!(scenario(&example()).hash, scenario(&in_folder(&kept, "dump.toml")).hash);
}

/// What is drawn follows from the seed and from who asks: not from threads, nor from which reply comes first.
#[test]
fn the_same_is_asked_whatever_the_threads_and_the_order_of_replies() {
    let folder = with_file("s.toml", "[[request]]\npath = \"/{random:1..18446744073709551615}\"\n");
    let asked = |args: &[&str]| {
        let paths = Arc::new(Mutex::new(BTreeSet::new()));
        let seen = Arc::clone(&paths);
        let peer = Peer::start(move |talk| {
            while let Some(head) = talk.head() {
                let line = String::from_utf8_lossy(&head).lines().next().unwrap().to_owned();
                assert!(seen.lock().unwrap().insert(line), "nobody draws the same number twice");
                if !talk.good(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") {
                    return;
                }
            }
        });
        let file = in_folder(&folder, "s.toml");
        loadgen(&[&["--scenario", &file, "-T", &peer.url(), "--seed", "7", "--no-floor"][..], args].concat()).report();
        drop(peer);
        std::mem::take(&mut *paths.lock().unwrap())
    };
    // Each of the connections asks once.
    let one = asked(&["-c", "9", "-n", "9"]);
    assert_eq!((one.len(), &one), (9, &asked(&["-c", "9", "-n", "9", "--threads", "3"])));
    // Those who arrive ask, whichever connection takes them; besides, each connection proves itself.
    let pace = ["--rate", "500", "--duration", "100ms", "--warmup", "0ms"];
    let by_one = asked(&[&pace[..], &["-c", "1"]].concat());
    let by_many = asked(&[&pace[..], &["-c", "8", "--threads", "2"]].concat());
    let both = by_one.intersection(&by_many).count();
    assert!(both + 1 >= by_one.len().min(by_many.len() - 7), "{both} of {} and {}", by_one.len(), by_many.len());
}

#[test]
fn a_dump_connects_to_nobody_and_writes_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let target = format!("http://{}", listener.local_addr().unwrap());
    let folder = scratch();
    let mut command = common::command(LOADGEN);
    let out = command.current_dir(folder.path()).args(["--scenario", &example(), &target, "--dump-scenario"]).output();
    let out = out.unwrap();
    assert!(out.status.success() && String::from_utf8_lossy(&out.stdout).contains(&target), "{out:?}");
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "no report");
    let (text, _folder) = dumped(&["redis://u:secret@127.0.0.1:1/2"]);
    let bare = text.contains("\"redis://127.0.0.1:1/2\"") && text.contains("LOADGEN_LOGIN");
    assert!(bare && !text.contains("secret"), "{text}");
}

#[test]
fn ab_takes_a_scenario_file() {
    let folder = with_file(
        "s.toml",
        &format!("{MIX}\n").replace("threads = 3", "threads = 1\nno_floor = true\nwarmup = \"0ms\""),
    );
    let bundle: PathBuf = folder.path().join("bundle.json");
    let file = in_folder(&folder, "s.toml");
    let args = ["ab", "--scenario", &file, "--conns", "2", "--duration", "50ms", "--blocks", "10", "--quiet"];
    let ended = loadgen_plain(&[&args[..], &["--output", bundle.to_str().unwrap()]].concat());
    // Whatever it finds: the arms are the same, and what else runs here may part them.
    assert!(ended.code >= 0 && ended.code != 2, "{} {}", ended.code, ended.stderr);
    let text = std::fs::read_to_string(&bundle).unwrap();
    let bundle: loadgen_core::result::Bundle = serde_json::from_str(&text).unwrap();
    assert!(bundle.runs.len() >= 40, "{} runs", bundle.runs.len());
    for run in &bundle.runs {
        let scenario = &run.scenario;
        let name = scenario.file.as_ref().map(|file| file.name.as_str());
        assert_eq!((name, scenario.connections, scenario.warmup_ns), (Some("mix"), 2, 0));
    }
}

#[test]
fn search_takes_a_scenario_file() {
    let folder = with_file("s.toml", &MIX.replace("threads = 3", "no_floor = true\nwarmup = \"0ms\""));
    let file = in_folder(&folder, "s.toml");
    let server = Server::start(&["--protocol", "http"]);
    let target = format!("http://{}", server.target());
    let path = in_folder(&folder, "search.json");
    let args = ["search", "--slo", "p99<1s", "--scenario", &file, "--target", &target, "--from", "100"];
    let bounds = ["--probes", "2", "--duration", "100ms", "--output", &path, "--quiet"];
    let ended = loadgen_plain(&[&args[..], &bounds].concat());
    assert!(ended.code != 2 && Path::new(&path).exists(), "{} {}", ended.code, ended.stderr);
    assert!(std::fs::read_to_string(&path).unwrap().contains("\"name\": \"mix\""));
    assert!(server.stop().requests > 0);
}
