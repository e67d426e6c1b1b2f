//! TLS under every protocol: the ledger closes as without it, handshakes are told by kind, and nobody is believed who
//! cannot show a certificate.

mod common;

use common::nginx::Process;
use common::peer::Peer;
use common::{
    Ended, SHORT, Server, agrees_with_embedded, brief, clean, error_kinds, error_rows, eventually, have, loadgen,
    loadgen_at, missing, scratch, whole, with_every_server_engine,
};
use loadgen_core::protocol::PROTOCOLS;
use loadgen_core::result::{Report, Tls};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tempfile::TempDir;

/// Bytes of a record that says that nothing follows, under TLS 1.3 with AES-GCM.
const CLOSE_NOTIFY: u64 = 24;

/// Certificates and keys, made by openssl in a folder of its own.
struct Certificates(TempDir);

impl Certificates {
    /// `None`: there is no openssl.
    fn new() -> Option<Self> {
        have("openssl").then(|| Self(scratch()))
    }

    fn path(&self, file: &str) -> String {
        self.0.path().join(file).to_str().unwrap().to_owned()
    }

    fn openssl(&self, args: &[&str]) {
        let out = common::command("openssl").args(args).current_dir(self.0.path()).output().unwrap();
        assert!(out.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    }

    /// Makes NAME.pem and NAME.key, for a host, self-signed and valid for so many days from now.
    fn make(&self, name: &str, host: &str, days: i32) {
        let (key, request, certificate) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.pem"));
        let names = format!("subjectAltName={host}");
        let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let asked = ["-keyout", &key, "-out", &request, "-subj", "/CN=loadgen test", "-addext", &names];
        self.openssl(&[&["req", "-new"], &curve[..], &asked[..]].concat());
        let days = days.to_string();
        let signed = ["-key", &key, "-days", &days, "-copy_extensions", "copy", "-out", &certificate];
        self.openssl(&[&["x509", "-req", "-in", &request], &signed[..]].concat());
    }
}

fn tls(report: &Report) -> &Tls {
    report.tls.as_ref().unwrap_or_else(|| panic!("no TLS: {}", brief(report)))
}

/// Every connection had one handshake, of one kind or the other, and its time is known.
fn hold_handshakes(report: &Report) {
    let tls = tls(report);
    assert_eq!(tls.handshakes_full + tls.handshakes_resumed, report.connections.opened, "{}", brief(report));
    let times = report.latency.handshake.as_ref().expect("handshakes have times");
    assert_eq!(times.count, report.connections.opened);
    assert!(times.min_ns > 0 && times.max_ns < 20_000_000_000, "{times:?}");
}

/// The books of both sides. Our last record is read by the server, whose answer to it meets a closed socket.
fn hold_both_sides(report: &Report) {
    let server = report.server.as_ref().expect("an embedded server has counters");
    let whole = whole(report);
    let bytes = (report.throughput.whole_run_sent_bytes, report.throughput.whole_run_received_bytes);
    assert_eq!((whole.sent, whole.ok), (server.requests, server.replies), "{}", brief(report));
    assert_eq!(bytes.0, server.received_bytes, "{}", brief(report));
    let farewells = server.sent_bytes - bytes.1;
    assert!(farewells <= CLOSE_NOTIFY * report.connections.opened, "{farewells}: {}", brief(report));
    assert_eq!(farewells % CLOSE_NOTIFY, 0, "{}", brief(report));
    let (ours, theirs) = (tls(report), server.tls.as_ref().expect("the server counted handshakes"));
    assert_eq!(
        (ours.handshakes_full, ours.handshakes_resumed),
        (theirs.handshakes_full, theirs.handshakes_resumed),
        "{}",
        brief(report)
    );
    assert!(theirs.failures.is_empty(), "{theirs:?}");
}

#[test]
fn every_protocol_closes_its_books_under_tls_with_every_server_engine() {
    with_every_server_engine(|engine| {
        for protocol in PROTOCOLS.iter().filter(|protocol| protocol.transport.has_connections()) {
            let times = ["--duration", "150ms", "--warmup", "50ms"];
            let args = ["--protocol", protocol.name, "--server-tls", "--server-engine", engine, "--conns", "5"];
            let ended = loadgen(&[&args[..], &["--threads", "2"], &times].concat());
            let report = ended.expect(0);
            clean(report);
            hold_handshakes(report);
            hold_both_sides(report);
            assert_eq!(tls(report).version, "1.3");
            assert_eq!(tls(report).alpn.as_deref(), (protocol.name == "http").then_some("http/1.1"));
            assert!(ended.stdout.contains("full handshakes"), "{}", ended.stdout);
            assert!(report.scenario.tls.as_ref().is_some_and(|tls| tls.resumption && !tls.insecure));
        }
    });
}

#[test]
fn what_is_no_stream_is_refused() {
    let ended = loadgen(&["--protocol", "udp", "--server-tls"]);
    assert!(ended.code == 2 && ended.stderr.contains("TLS is for streams"), "{}", ended.stderr);
}

#[test]
fn without_tls_a_report_has_nothing_of_it() {
    let ended = loadgen(&[&["--conns", "2"], &SHORT[..]].concat());
    let report = ended.expect(0);
    agrees_with_embedded(report);
    assert!(report.tls.is_none() && report.scenario.tls.is_none() && report.latency.handshake.is_none());
}

/// Records of 16 KiB, replies that come in many pieces, and more than the kernel takes at once.
#[test]
fn large_requests_and_replies_and_deep_pipelines() {
    for (protocol, size, pipeline) in [
        ("echo", "64", "16"),
        ("echo", "300KiB", "4"),
        ("http", "1MiB", "1"),
        ("http", "1MiB", "3"),
        ("echo", "1", "1"),
    ] {
        let args = ["--protocol", protocol, "--size", size, "--pipeline", pipeline, "--server-tls", "--requests", "60"];
        let ended = loadgen(&[&args[..], &["--conns", "3"]].concat());
        let report = ended.expect(0);
        clean(report);
        hold_both_sides(report);
        assert_eq!(whole(report).ok, 60, "{protocol} {size} {pipeline}: {}", brief(report));
    }
}

#[test]
fn an_open_loop_and_think_times_are_kept_under_tls() {
    for args in [&["--rate", "2k"][..], &["--think", "fixed:2ms"], &["--rate", "500", "--session-requests", "3"]] {
        let ended = loadgen(&[&["--conns", "8", "--server-tls"], args, &SHORT[..]].concat());
        let report = ended.expect(0);
        hold_handshakes(report);
        hold_both_sides(report);
        ended.assert_if_fit(whole(report).ok > 50);
    }
}

#[test]
fn sessions_are_resumed_unless_that_is_switched_off() {
    let churn = ["--conns", "4", "--requests", "200", "--requests-per-conn", "1", "--server-tls"];
    let ended = loadgen(&churn);
    let report = ended.expect(0);
    clean(report);
    hold_handshakes(report);
    hold_both_sides(report);
    // The first ones have no ticket; each handshake brings two tickets, and costs one.
    assert!((1..=4).contains(&tls(report).handshakes_full), "{:?}", tls(report));
    assert_eq!(report.connections.opened, 200);

    let ended = loadgen(&[&churn[..], &["--no-resumption"]].concat());
    let report = ended.expect(0);
    clean(report);
    hold_both_sides(report);
    assert_eq!((tls(report).handshakes_full, tls(report).handshakes_resumed), (200, 0));
    assert!(!tls(report).resumption);
}

#[test]
fn a_connection_closed_by_reset_says_no_farewell() {
    let args = ["--conns", "4", "--requests", "100", "--requests-per-conn", "2", "--server-tls", "--close", "rst"];
    let ended = loadgen(&args);
    let report = ended.expect(0);
    hold_handshakes(report);
    assert_eq!(whole(report).ok, 100, "{}", brief(report));
}

/// A loadgen-server with a certificate that is trusted by `--ca`.
fn encrypted(certificates: &Certificates, args: &[&str]) -> (Server, String) {
    let ca = certificates.path("server.pem");
    (Server::start(&[&["--tls", "--tls-cert-out", &ca], args].concat()), ca)
}

/// The one line that says why the run came to nothing.
fn error(ended: &Ended) -> &str {
    assert_eq!(ended.code, 3, "{}", ended.stderr);
    let errors: Vec<&str> = ended.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{}", ended.stderr);
    errors[0]
}

#[test]
fn nobody_is_believed_without_a_certificate() {
    let Some(certificates) = Certificates::new() else { return };
    let (server, ca) = encrypted(&certificates, &[]);
    certificates.make("other", "DNS:localhost,IP:127.0.0.1", 10);
    let target = format!("tls://{}", server.target());
    let at = |args: &[&str]| loadgen_at(&target, &[&["--conns", "2"], args, &SHORT[..]].concat());

    let unknown = at(&["--ca", &certificates.path("other.pem")]);
    let why = error(&unknown);
    assert!(why.contains("no issuer that is trusted") && why.contains("--ca FILE") && why.contains("--insecure"));
    assert!(error_rows(unknown.report(), "tls_certificate") > 0 && whole(unknown.report()).sent == 0);
    // Nor does the system know it.
    assert!(error(&at(&[])).contains("no issuer that is trusted"));
    let name = at(&["--ca", &ca, "--server-name", "example.org"]);
    assert!(error(&name).contains("not for example.org") && error(&name).contains("--server-name"), "{}", name.stderr);

    let good = at(&["--ca", &ca, "--server-name", "localhost"]);
    clean(good.expect(0));
    clean(at(&["--ca", &ca]).expect(0));
    assert!(!good.stderr.contains("warning"), "{}", good.stderr);

    let insecure = at(&["--insecure"]);
    clean(insecure.expect(0));
    assert!(insecure.stderr.contains("warning: --insecure"), "{}", insecure.stderr);
    assert!(insecure.stdout.contains("certificate was NOT"), "{}", insecure.stdout);
    assert!(tls(insecure.report()).insecure);
    assert_ne!(insecure.report().scenario.hash, good.report().scenario.hash);
}

#[test]
fn an_expired_certificate_is_refused() {
    let Some(certificates) = Certificates::new() else { return };
    certificates.make("old", "DNS:localhost,IP:127.0.0.1", -1);
    let (certificate, key) = (certificates.path("old.pem"), certificates.path("old.key"));
    let server = Server::start(&["--tls-cert", &certificate, "--tls-key", &key]);
    let target = format!("tls://{}", server.target());
    let ended = loadgen_at(&target, &[&["--conns", "1", "--ca", &certificate], &SHORT[..]].concat());
    assert!(error(&ended).contains("expired"), "{}", ended.stderr);
    clean(loadgen_at(&target, &[&["--conns", "1", "--insecure"], &SHORT[..]].concat()).expect(0));
}

#[test]
fn a_server_may_ask_for_our_certificate() {
    let Some(certificates) = Certificates::new() else { return };
    certificates.make("me", "DNS:me", 10);
    let (certificate, key) = (certificates.path("me.pem"), certificates.path("me.key"));
    let (server, ca) = encrypted(&certificates, &["--tls-client-ca", &certificate]);
    let target = format!("tls://{}", server.target());
    let at = |args: &[&str]| loadgen_at(&target, &[&["--conns", "2", "--ca", &ca], args, &SHORT[..]].concat());
    clean(at(&["--tls-cert", &certificate, "--tls-key", &key]).expect(0));
    let ended = at(&["--timeout", "500ms"]);
    assert_ne!(ended.code, 0);
    // Under TLS 1.3 the handshake is over for us when the server looks at what we (did not) show.
    assert!(error_rows(ended.report(), "tls_alert") > 0, "{}", brief(ended.report()));
    assert_eq!(whole(ended.report()).ok, 0);
}

#[test]
fn a_server_that_does_not_speak_tls_fails_the_attempt() {
    let said = |kind: &str, ended: &Ended| {
        let report = ended.expect(3);
        assert!(error_rows(report, kind) > 0, "{kind}: {}", brief(report));
        assert_eq!((whole(report).sent, error_kinds(report).len()), (0, 0), "{}", brief(report));
    };
    let args = [&["--conns", "3", "--insecure", "--timeout", "300ms"], &SHORT[..]].concat();
    let at = |peer: &Peer| loadgen_at(&format!("tls://{}", peer.target()), &args);
    said("closed", &at(&Peer::start(|talk| talk.finish())));
    said("tls_protocol", &at(&Peer::start(|talk| _ = talk.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"))));
    said("timeout", &at(&Peer::start(|talk| talk.ignore())));
    said("reset", &at(&Peer::start(|talk| talk.reset())));
    // The beginning of a record that never comes to its end.
    said(
        "timeout",
        &at(&Peer::start(|talk| {
            talk.send(&[22, 3, 3, 64, 0, 2]);
            talk.ignore();
        })),
    );
    let plain = Server::start(&[]);
    said("tls_protocol", &loadgen_at(&format!("tls://{}", plain.target()), &args));
}

#[test]
fn a_unix_socket_may_be_encrypted() {
    let folder = scratch();
    let socket = folder.path().join("socket");
    let (target, ca) = (format!("unix:{}", socket.display()), folder.path().join("ca.pem"));
    let server = Server::start_at(&target, &["--tls", "--tls-cert-out", ca.to_str().unwrap()]);
    let ended = loadgen_at(&target, &[&["--tls", "--ca", ca.to_str().unwrap(), "--conns", "2"], &SHORT[..]].concat());
    clean(ended.expect(0));
    hold_handshakes(ended.report());
    drop(server);
}

#[test]
fn flags_that_do_not_fit_are_refused() {
    for (args, says) in [
        (&["--ca", "x.pem"][..], "--ca is about TLS"),
        (&["--no-resumption"], "--no-resumption is about TLS"),
        (&["--tls"], "--tls is about a target"),
        (&["--target", "https://127.0.0.1:1", "--server-tls"], "--server-tls is for the embedded server"),
        (&["--target", "https://127.0.0.1:1", "--ca", "/nowhere.pem"], "cannot read /nowhere.pem"),
        (&["--target", "https://127.0.0.1:1", "--insecure", "--alpn", ""], "--alpn"),
        (&["--target", "https://127.0.0.1:1", "--insecure", "--server-name", "a b"], "no host name"),
        (&["--target", "https://127.0.0.1:1", "--target", "http://127.0.0.1:2"], "some targets are encrypted"),
        (&["--target", "gopherss://127.0.0.1:1"], "https"),
    ] {
        let ended = loadgen(args);
        assert!(ended.expect_refusal(2).contains(says), "{args:?}: {}", ended.stderr);
    }
}

/// An nginx that speaks TLS.
struct Nginx {
    process: Process,
    certificates: Certificates,
}

impl Nginx {
    fn start(extra: &str) -> Option<Self> {
        let certificates = Certificates::new().filter(|_| have("nginx"))?;
        certificates.make("nginx", "DNS:localhost,IP:127.0.0.1", 10);
        let root = certificates.0.path().to_owned();
        std::fs::write(root.join("large"), vec![b'x'; 1 << 20]).unwrap();
        let log = "$status $body_bytes_sent $ssl_session_reused $ssl_protocol";
        Some(Self { process: Process::start(&root, log, |address| site(&root, address, extra)), certificates })
    }

    /// Runs loadgen, and answers with the lines that the access log has grown by: `status bytes reused version`.
    fn judge(&self, path: &str, args: &[&str]) -> (Ended, Vec<String>) {
        let log = || self.process.log();
        let known = log().lines().count();
        let ca = self.certificates.path("nginx.pem");
        let ended = loadgen_at(&format!("https://{}{path}", self.process.address), &[&["--ca", &ca], args].concat());
        let sent = whole(ended.expect(0)).sent as usize;
        // The log is written when a reply is done, which may be a moment after we have it.
        eventually("the access log", || log().lines().count() - known >= sent);
        (ended, log().lines().skip(known).map(str::to_owned).collect())
    }
}

fn site(root: &Path, address: SocketAddr, extra: &str) -> String {
    let root = root.display();
    format!(
        r#"    server {{
        listen {address} ssl;
        root {root};
        ssl_certificate {root}/nginx.pem;
        ssl_certificate_key {root}/nginx.key;
        ssl_session_cache shared:all:4m;
        {extra}
        location = /small {{ return 200 "small"; }}
    }}"#
    )
}

#[test]
fn nginx_logs_every_request_that_was_answered() {
    let Some(nginx) = Nginx::start("") else { return };
    for (path, pipeline, bytes) in [("/small", "1", 5), ("/small", "16", 5), ("/large", "1", 1 << 20)] {
        let args = ["--conns", "6", "--threads", "2", "--pipeline", pipeline];
        let (ended, lines) = nginx.judge(path, &[&args[..], &SHORT].concat());
        let report = ended.report();
        clean(report);
        hold_handshakes(report);
        assert_eq!((whole(report).ok, whole(report).sent), (lines.len() as u64, lines.len() as u64));
        let wanted = format!("200 {bytes} ");
        let other = lines.iter().find(|line| !line.starts_with(&wanted));
        assert_eq!(other, None, "{}", brief(report));
        assert!(lines.len() > 20, "{}", brief(report));
    }
}

#[test]
fn nginx_tells_resumed_sessions_from_new_ones_as_we_do() {
    for (versions, version) in [("TLSv1.3", "1.3"), ("TLSv1.2", "1.2")] {
        let Some(nginx) = Nginx::start(&format!("ssl_protocols {versions};")) else { return };
        for (flag, resumes) in [(&[][..], true), (&["--no-resumption"], false)] {
            let churn = ["--conns", "3", "--requests", "150", "--requests-per-conn", "1"];
            let (ended, lines) = nginx.judge("/small", &[&churn[..], flag].concat());
            let report = ended.report();
            hold_handshakes(report);
            // One request a connection.
            let reused = lines.iter().filter(|line| line.split(' ').nth(2) == Some("r")).count() as u64;
            assert_eq!((tls(report).handshakes_resumed, lines.len()), (reused, 150), "{:?}", tls(report));
            assert_eq!((tls(report).version.as_str(), reused > 100), (version, resumes), "{:?}", tls(report));
        }
    }
}

/// A reply that ends with its stream is whole only where TLS says so.
#[test]
fn replies_that_end_with_the_stream() {
    let Some(nginx) = Nginx::start("keepalive_timeout 0;") else { return };
    let (ended, lines) = nginx.judge("/large", &["--conns", "3", "--requests", "30"]);
    assert_eq!((whole(ended.report()).ok, lines.len()), (30, 30), "{}", brief(ended.report()));
    assert_eq!(ended.report().connections.lost, 0, "{}", brief(ended.report()));
}

#[test]
fn the_real_redis_under_tls() {
    let Some(certificates) = Certificates::new().filter(|_| have("redis-server")) else { return };
    certificates.make("redis", "DNS:localhost,IP:127.0.0.1", 10);
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (certificate, key) = (certificates.path("redis.pem"), certificates.path("redis.key"));
    let folder: PathBuf = certificates.0.path().to_owned();
    let mut command = common::command("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", "0", "--save", "", "--appendonly", "no"]).arg("--dir").arg(&folder);
    command.args(["--tls-port", &address.port().to_string(), "--tls-cert-file", &certificate]);
    command.args(["--tls-key-file", &key, "--tls-ca-cert-file", &certificate, "--tls-auth-clients", "no"]);
    let mut redis = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut ended_at_once = false;
    eventually("redis answers, or ends", || {
        ended_at_once = redis.try_wait().unwrap().is_some();
        ended_at_once || TcpStream::connect(address).is_ok()
    });
    if ended_at_once {
        missing("redis-server was built without TLS");
        return;
    }
    let run = std::panic::catch_unwind(|| {
        let target = format!("rediss://{address}");
        for pipeline in ["1", "16"] {
            let args = ["--ca", &certificate, "--conns", "5", "--mix", "get=1,set=1", "--pipeline", pipeline];
            let ended = loadgen_at(&target, &[&args[..], &SHORT[..]].concat());
            let report = ended.expect(0);
            clean(report);
            hold_handshakes(report);
            ended.assert_if_fit(whole(report).ok > 100);
        }
    });
    let _ = redis.kill();
    let _ = redis.wait();
    run.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// An upload ends with our word that it does, behind the rest of the record that was being sent.
#[test]
fn streams_end_in_good_order() {
    for engine in ["epoll", "auto"] {
        for protocol in ["discard", "chargen"] {
            let args = ["--protocol", protocol, "--server-tls", "--conns", "5", "--engine", engine, "--no-floor"];
            let ended = loadgen(&[&args[..], &SHORT].concat());
            let report = ended.expect(0);
            let server = report.server.as_ref().expect("the server's counters");
            let tls = server.tls.as_ref().expect("the server counted handshakes");
            assert_eq!((tls.truncated, report.connections.lost), (0, 0), "{engine} {protocol}: {}", brief(report));
            let ours = report.throughput.whole_run_sent_bytes;
            assert_eq!(ours, server.received_bytes, "{engine} {protocol}");
        }
    }
}
