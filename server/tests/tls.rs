//! TLS on every engine, against real clients (openssl, curl) and against rustls.

mod common;

use common::{Ended, PATIENCE, Server, eventually, noise, with_every_engine, with_every_variant};
use loadgen_core::result::TlsStats;
use loadgen_core::tls::certificate::certificates;
use loadgen_core::tls::client::{Options, Settings, Trust};
use loadgen_core::tls::{Secure, Versions};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// A server with a certificate of its own making, and the file that it is in.
struct TlsServer {
    server: Server,
    folder: tempfile::TempDir,
}

impl TlsServer {
    fn start(engine: &str, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("cert.pem");
        let server = Server::start(engine, &[&["--tls", "--tls-cert-out", out.to_str().unwrap()], options].concat());
        Self { server, folder }
    }

    fn certificate(&self) -> String {
        self.folder.path().join("cert.pem").to_str().unwrap().into()
    }

    fn settings(&self, versions: Versions, resume: bool) -> Settings {
        let trusted = certificates(&std::fs::read(self.certificate()).unwrap()).unwrap();
        Settings::new(Options {
            server_name: "127.0.0.1".into(),
            trust: Trust::Certificates(trusted),
            identity: None,
            alpn: Vec::new(),
            resume,
            versions,
        })
        .unwrap()
    }

    fn connect(&self) -> Stream {
        Stream::new(self.server.connect(), &self.settings(Versions::Any, true))
    }

    fn stop(self) -> (Ended, TlsStats) {
        let ended = self.server.stop();
        let tls = ended.stats.tls.clone().unwrap_or_default();
        (ended, tls)
    }
}

/// A client's stream under TLS, by blocking calls.
struct Stream {
    socket: TcpStream,
    secure: Secure,
    heard: Vec<u8>,
}

impl Stream {
    fn new(socket: TcpStream, settings: &Settings) -> Self {
        let mut stream = Self { socket, secure: settings.connect().unwrap(), heard: Vec::new() };
        stream.flush();
        while stream.secure.is_handshaking() {
            assert!(stream.receive(), "the server ends within the handshake");
        }
        stream
    }

    fn flush(&mut self) {
        let mut wire = Vec::new();
        self.secure.take_output(&mut wire);
        self.socket.write_all(&wire).unwrap();
    }

    /// Receives once; false: the server's stream has ended.
    fn receive(&mut self) -> bool {
        let mut buffer = [0; 1 << 16];
        let n = self.socket.read(&mut buffer).unwrap();
        self.secure.received(&mut buffer[..n], &mut self.heard).unwrap();
        self.flush();
        n > 0
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut wire = Vec::new();
        self.secure.encrypt(bytes, &mut wire).unwrap();
        self.socket.write_all(&wire).unwrap();
    }

    fn read(&mut self, len: usize) -> Vec<u8> {
        while self.heard.len() < len {
            assert!(self.receive(), "the server's stream ends after {} bytes", self.heard.len());
        }
        self.heard.drain(..len).collect()
    }

    fn read_to_end(&mut self) -> Vec<u8> {
        while self.receive() {}
        std::mem::take(&mut self.heard)
    }

    fn close(&mut self) {
        self.secure.close();
        self.flush();
    }
}

#[test]
fn echoes_are_exact_and_counted() {
    with_every_variant(|engine| {
        let tls_server = TlsServer::start(engine, &["--size", "100"]);
        for versions in [Versions::Only12, Versions::Only13] {
            let settings = tls_server.settings(versions, true);
            for _ in 0..3 {
                let mut stream = Stream::new(tls_server.server.connect(), &settings);
                for len in [100, 300, 20_000] {
                    let bytes = noise(len);
                    stream.write(&bytes);
                    assert!(stream.read(len) == bytes);
                }
                stream.close();
                assert!(stream.read_to_end().is_empty() && stream.secure.peer_closed());
            }
        }
        let (ended, tls) = tls_server.stop();
        assert_eq!((ended.code, ended.stats.requests, ended.stats.replies), (0, 6 * 204, 6 * 204), "{}", ended.stderr);
        assert_eq!(ended.stats.closes.get("peer"), Some(&6), "{:?}", ended.stats);
        assert!(ended.stats.received_bytes > 6 * 20_400 && ended.stats.sent_bytes > ended.stats.received_bytes);
        assert_eq!((tls.handshakes_full, tls.handshakes_resumed, tls.truncated), (2, 4, 0), "{tls:?}");
        assert_eq!(tls.versions.values().collect::<Vec<_>>(), [&3, &3], "{tls:?}");
        assert!(tls.failures.is_empty(), "{tls:?}");
    });
}

#[test]
fn a_client_may_write_before_it_reads_and_byte_by_byte() {
    with_every_variant(|engine| {
        let tls_server = TlsServer::start(engine, &["--size", "1MiB"]);
        let bytes = noise(4 << 20);
        let mut stream = tls_server.connect();
        let mut wire = Vec::new();
        stream.secure.encrypt(&bytes, &mut wire).unwrap();
        let mut writer = stream.socket.try_clone().unwrap();
        let writing = std::thread::spawn(move || writer.write_all(&wire).unwrap());
        std::thread::sleep(Duration::from_millis(50));
        assert!(stream.read(bytes.len()) == bytes);
        writing.join().unwrap();

        let mut wire = Vec::new();
        stream.secure.encrypt(&bytes[..1 << 20], &mut wire).unwrap();
        wire[..200].iter().for_each(|byte| stream.socket.write_all(&[*byte]).unwrap());
        let mut writer = stream.socket.try_clone().unwrap();
        let writing = std::thread::spawn(move || writer.write_all(&wire[200..]).unwrap());
        assert!(stream.read(1 << 20) == bytes[..1 << 20]);
        writing.join().unwrap();
        stream.close();
        stream.read_to_end();
        let (ended, _) = tls_server.stop();
        assert_eq!((ended.stats.requests, ended.stats.replies), (5, 5));
    });
}

#[test]
fn resumption_can_be_turned_off() {
    with_every_engine(|engine| {
        let tls_server = TlsServer::start(engine, &["--tls-no-resumption", "--size", "5"]);
        for versions in [Versions::Only12, Versions::Only13] {
            let settings = tls_server.settings(versions, true);
            for _ in 0..3 {
                let mut stream = Stream::new(tls_server.server.connect(), &settings);
                stream.write(b"hello");
                assert_eq!(stream.read(5), b"hello");
                stream.close();
                stream.read_to_end();
            }
        }
        let (_, tls) = tls_server.stop();
        assert_eq!((tls.handshakes_full, tls.handshakes_resumed), (6, 0));
    });
}

#[test]
fn service_times_are_injected_under_tls_too() {
    with_every_variant(|engine| {
        let tls_server = TlsServer::start(engine, &["--size", "64", "--service-time", "fixed:10ms"]);
        let mut stream = tls_server.connect();
        let bytes = noise(640);
        let start = std::time::Instant::now();
        stream.write(&bytes);
        assert!(stream.read(640) == bytes);
        assert!(start.elapsed() >= Duration::from_millis(100), "ten requests, one after the other");
        stream.close();
        stream.read_to_end();
        let (ended, tls) = tls_server.stop();
        assert_eq!((ended.stats.requests, ended.stats.replies, tls.handshakes_full), (10, 10, 1), "{:?}", ended.stats);
        assert_eq!(ended.stats.injected.unwrap().overrun.unwrap().count, 10);
    });
}

#[test]
fn one_way_streams_are_encrypted_too() {
    with_every_variant(|engine| {
        let tls_server = TlsServer::start(engine, &["--protocol", "chargen"]);
        let mut stream = tls_server.connect();
        let text = stream.read(1 << 20);
        assert!(text.starts_with(b" !\"#$%&'()*+,-./0123456789"), "{:?}", &text[..100]);
        stream.close();
        stream.read_to_end();
        assert!(stream.secure.peer_closed());
        let (ended, tls) = tls_server.stop();
        assert_eq!((ended.stats.closes.get("peer"), tls.truncated), (Some(&1), 0), "{:?}", ended.stats);

        let tls_server = TlsServer::start(engine, &["--protocol", "discard"]);
        let mut stream = tls_server.connect();
        stream.write(&noise(1 << 20));
        stream.socket.shutdown(Shutdown::Write).unwrap();
        assert!(stream.read_to_end().is_empty());
        let (ended, tls) = tls_server.stop();
        assert_eq!((ended.stats.closes.get("peer"), tls.truncated), (Some(&1), 1), "{:?}", ended.stats);
        assert!(ended.stats.received_bytes > 1 << 20);
    });
}

/// Who speaks no TLS is told so with an alert; who says nothing, or half of it, costs nothing and hinders nobody.
#[test]
fn strangers_are_turned_away_and_the_others_served() {
    with_every_variant(|engine| {
        let tls_server = TlsServer::start(engine, &["--size", "5"]);
        let mut plain = tls_server.server.connect();
        plain.write_all(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        plain.read_to_end(&mut answer).unwrap();
        assert_eq!((answer.len(), answer[0]), (7, 21), "an alert: {answer:?}");

        let silent = tls_server.server.connect();
        let mut hello = Vec::new();
        tls_server.settings(Versions::Any, true).connect().unwrap().take_output(&mut hello);
        let mut half = tls_server.server.connect();
        half.write_all(&hello[..hello.len() / 2]).unwrap();
        let mut whole = tls_server.server.connect();
        whole.write_all(&hello).unwrap();
        whole.read_exact(&mut [0; 100]).unwrap();
        let mut cut = tls_server.server.connect();
        cut.write_all(&hello[..50]).unwrap();
        cut.shutdown(Shutdown::Write).unwrap();
        assert_eq!(cut.read(&mut [0; 10]).unwrap(), 0);

        let mut stream = tls_server.connect();
        stream.write(b"still");
        assert_eq!(stream.read(5), b"still");
        let mut wire = Vec::new();
        stream.secure.encrypt(b"wrong", &mut wire).unwrap();
        *wire.last_mut().unwrap() ^= 1;
        stream.socket.write_all(&wire).unwrap();
        let mut alert = Vec::new();
        stream.socket.read_to_end(&mut alert).unwrap();
        assert!(!alert.is_empty());
        drop((plain, stream, cut));
        tls_server.server.terminate();
        // All that was open ends, mid-handshake or not.
        for mut open in [silent, half, whole] {
            let mut rest = Vec::new();
            open.read_to_end(&mut rest).unwrap();
        }
        let ended = tls_server.server.wait();
        let tls = ended.stats.tls.clone().unwrap();
        assert_eq!((ended.code, tls.handshakes_full), (0, 1), "{}", ended.stderr);
        assert_eq!(tls.failures.get("tls_protocol"), Some(&2), "{tls:?}");
        assert_eq!(tls.failures.get("tls_truncated"), Some(&1), "{tls:?}");
        let closes = &ended.stats.closes;
        let expected = [("drained", 3), ("peer", 1), ("protocol_error", 2)];
        assert_eq!(closes.iter().map(|(k, v)| (k.as_str(), *v)).collect::<Vec<_>>(), expected, "{:?}", ended.stats);
    });
}

#[test]
fn at_the_end_what_had_arrived_is_answered_and_the_stream_is_closed_properly() {
    with_every_variant(|engine| {
        let tls_server = TlsServer::start(engine, &["--size", "5", "--drain", "5s"]);
        let mut idle = tls_server.connect();
        idle.write(b"hello");
        assert_eq!(idle.read(5), b"hello");
        let mut busy = tls_server.server.unseen(|| {
            idle.write(b"still");
            tls_server.server.terminate();
            idle
        });
        assert_eq!(busy.read_to_end(), b"still");
        assert!(busy.secure.peer_closed(), "close_notify was sent");
        busy.close();
        drop(busy);
        let ended = tls_server.server.wait();
        assert_eq!((ended.code, ended.stats.closes.get("drained")), (0, Some(&1)), "{:?}", ended.stats);
        assert_eq!((ended.stats.requests, ended.stats.replies), (2, 2));
    });
}

/// A peer that never reads costs what it does without TLS, and a little.
#[test]
fn a_client_that_never_reads_is_waited_for() {
    with_every_engine(|engine| {
        let tls_server = TlsServer::start(engine, &["--protocol", "http", "--drain", "200ms"]);
        let mut streams: Vec<Stream> = (0..50).map(|_| tls_server.connect()).collect();
        let before = tls_server.server.resident_bytes();
        for stream in &mut streams {
            stream.write(b"GET /bytes/100000000 HTTP/1.1\r\nHost: here\r\n\r\n");
        }
        std::thread::sleep(Duration::from_millis(500));
        let each = tls_server.server.resident_bytes().saturating_sub(before) / streams.len();
        assert!(each < 300 << 10, "{each} bytes a connection");
        assert_eq!(tls_server.stop().0.stats.closes.get("cut"), Some(&50));
    });
}

#[test]
fn idle_connections_cost_little_memory() {
    with_every_engine(|engine| {
        let tls_server = TlsServer::start(engine, &["--size", "5"]);
        let settings = tls_server.settings(Versions::Only13, true);
        let mut open = Vec::new();
        let mut connect = |n: usize| {
            for _ in 0..n {
                let mut stream = Stream::new(tls_server.server.connect(), &settings);
                stream.write(b"hello");
                assert_eq!(stream.read(5), b"hello");
                open.push(stream);
            }
        };
        connect(50);
        let before = tls_server.server.resident_bytes();
        connect(300);
        let each = (tls_server.server.resident_bytes() - before) / 300;
        eprintln!("{each} bytes a connection");
        assert!(each < 16 << 10, "{each} bytes a connection");
    });
}

fn has(program: &str) -> bool {
    let there = common::command(program).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    assert!(there || std::env::var_os("LOADGEN_REQUIRE_PROGRAMS").is_none(), "{program} is not installed");
    if !there {
        eprintln!("skipped: {program} is not installed");
    }
    there
}

/// A request says the scheme of what it wants, and is told where that is not served.
#[test]
fn schemes_are_those_of_the_server() {
    with_every_engine(|engine| {
        let tls_server = TlsServer::start(engine, &["--protocol", "http", "--size", "1"]);
        let mut stream = tls_server.connect();
        for (target, status) in [("https://h/", "200"), ("/", "200"), ("http://h/", "421"), ("HTTPS://h/", "200")] {
            stream.write(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.extend(stream.read(1));
            }
            let head = String::from_utf8(head).unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{target}: {head}");
            stream.read(if status == "200" { 1 } else { 4 });
        }
        stream.close();
        tls_server.stop();
    });
}

#[test]
fn curl_is_content() {
    if !has("curl") {
        return;
    }
    with_every_engine(|engine| {
        let tls_server = TlsServer::start(engine, &["--protocol", "http", "--size", "100KiB"]);
        let port = tls_server.server.address.port();
        let (url, ca) = (format!("https://localhost:{port}"), tls_server.certificate());
        let curl = |extra: &[&str]| {
            let output = common::command("curl").args(["-sS", "--max-time", "20"]).args(extra).output().unwrap();
            assert!(output.status.success(), "{extra:?}: {}", String::from_utf8_lossy(&output.stderr));
            output.stdout
        };
        let bytes = |n: usize| format!("{url}/bytes/{n}");
        assert_eq!(curl(&["--cacert", &ca, &url]).len(), 100 << 10);
        assert_eq!(curl(&["--cacert", &ca, "--tls-max", "1.2", &bytes(1_000_000)]).len(), 1_000_000);
        assert_eq!(curl(&["--cacert", &ca, "--tlsv1.3", &bytes(20_000_000)]).len(), 20_000_000);
        assert_eq!(curl(&["--cacert", &ca, &bytes(1), &bytes(2), &bytes(3)]).len(), 6);
        assert_eq!(curl(&["-k", &format!("https://127.0.0.1:{port}/chunked/70000")]).len(), 70_000);
        assert_eq!(curl(&["--cacert", &ca, "-d", &"x".repeat(100_000), &bytes(10)]).len(), 10);
        let verbose = common::command("curl").args(["-sSv", "--max-time", "20", "-k", &bytes(1)]).output().unwrap();
        let verbose = String::from_utf8_lossy(&verbose.stderr).into_owned();
        assert!(verbose.contains("server accepted http/1.1"), "{verbose}");
        // Who does not know the certificate refuses it, and says so.
        let refused = common::command("curl").args(["-sS", "--max-time", "20", &url]).output().unwrap();
        assert!(!refused.status.success());
        let (ended, tls) = tls_server.stop();
        assert_eq!((ended.stats.requests, ended.stats.replies), (9, 9));
        assert_eq!((tls.handshakes_full, tls.failures.get("tls_alert")), (7, Some(&1)), "{tls:?}");
        assert_eq!(tls.versions.get("1.2"), Some(&1), "{tls:?}");
    });
}

/// What `openssl s_client` says of a connection, after one line was echoed.
fn s_client(tls_server: &TlsServer, extra: &[&str]) -> String {
    let address = tls_server.server.address.to_string();
    let (ca, pause) = (tls_server.certificate(), Duration::from_millis(5));
    let mut child = common::command("openssl")
        .args(["s_client", "-connect", &address, "-CAfile", &ca, "-verify_return_error", "-ign_eof"])
        .args(extra)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"from openssl\n").unwrap();
    let start = std::time::Instant::now();
    // It writes its ticket (TLS 1.3: as it arrives) and then the echo; closing its input ends it.
    let mut output = child.stdout.take().unwrap();
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&text).contains("from openssl") {
        match output.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => text.extend_from_slice(&buffer[..n]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Interrupted),
        }
        assert!(start.elapsed() < PATIENCE);
        std::thread::sleep(pause);
    }
    child.kill().unwrap();
    let mut rest = String::new();
    child.stderr.take().unwrap().read_to_string(&mut rest).unwrap();
    child.wait().unwrap();
    String::from_utf8_lossy(&text).into_owned() + &rest
}

#[test]
fn openssl_is_content_and_resumes() {
    if !has("openssl") {
        return;
    }
    with_every_engine(|engine| {
        let tls_server = TlsServer::start(engine, &["--size", "13"]);
        for version in ["-tls1_2", "-tls1_3"] {
            let ticket = tls_server.folder.path().join(version);
            let ticket = ticket.to_str().unwrap();
            let first = s_client(&tls_server, &[version, "-sess_out", ticket]);
            assert!(first.contains("from openssl") && first.contains("Verify return code: 0 (ok)"), "{first}");
            eventually("the session is written", || Path::new(ticket).exists());
            let second = s_client(&tls_server, &[version, "-sess_in", ticket]);
            assert!(second.contains("Reused, TLSv1."), "{version}: {second}");
        }
        let (ended, tls) = tls_server.stop();
        assert_eq!((ended.stats.requests, ended.stats.replies), (4, 4), "{:?}", ended.stats);
        assert_eq!((tls.handshakes_full, tls.handshakes_resumed), (2, 2), "{tls:?}");
    });
}

#[test]
fn openssl_reconnects_by_resuming() {
    if !has("openssl") {
        return;
    }
    let tls_server = TlsServer::start("epoll", &[]);
    let address = tls_server.server.address.to_string();
    let output = common::command("openssl")
        .args(["s_client", "-connect", &address, "-tls1_2", "-reconnect"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text.matches("Reused, TLSv1.2").count(), 5, "{text}");
    let (_, tls) = tls_server.stop();
    assert_eq!((tls.handshakes_full, tls.handshakes_resumed), (1, 5), "{tls:?}");
}

/// Certificates of `openssl`, for a server and for a client, and a server that asks for the latter.
#[test]
fn certificates_of_openssl_serve_for_both_sides() {
    if !has("openssl") || !has("curl") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for (name, kind) in [("server", "rsa:2048"), ("client", "rsa:2048")] {
        let made = common::command("openssl")
            .args(["req", "-x509", "-newkey", kind, "-nodes", "-days", "2", "-subj", &format!("/CN={name}")])
            .args(["-addext", "subjectAltName=DNS:localhost"])
            // A client's must be no issuer.
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .args(["-keyout", &path(&format!("{name}.key")), "-out", &path(&format!("{name}.pem"))])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
    let [chain, key, issuer] = ["server.pem", "server.key", "client.pem"].map(path);
    let options = ["--protocol", "http", "--tls-cert", &chain, "--tls-key", &key, "--tls-client-ca", &issuer];
    let server = Server::start("epoll", &options);
    let curl = |extra: &[&str]| {
        let url = format!("https://localhost:{}/bytes/7", server.address.port());
        let mut command = common::command("curl");
        command.args(["-sS", "--max-time", "20", "--cacert", &path("server.pem")]).args(extra).arg(url);
        command.output().unwrap()
    };
    let known = curl(&["--cert", &path("client.pem"), "--key", &path("client.key")]);
    assert_eq!(known.stdout.len(), 7, "{}", String::from_utf8_lossy(&known.stderr));
    assert!(!curl(&[]).status.success());
    let tls = server.stop().stats.tls.unwrap();
    assert_eq!((tls.handshakes_full, tls.failures.get("tls_certificate")), (1, Some(&1)), "{tls:?}");
}

#[test]
fn what_makes_no_sense_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let empty = empty.to_str().unwrap();
    for (arguments, said) in [
        (&["--tls-no-resumption"][..], "--tls-no-resumption is about TLS, which is off; add --tls"),
        (&["--alpn", "h2"], "--alpn is about TLS"),
        (&["--tls-cert", empty, "--tls-key", empty], "private key"),
        (&["--tls-cert", "/nowhere", "--tls-key", empty], "cannot read /nowhere"),
        (&["--tls", "--tls-client-ca", empty], "BEGIN CERTIFICATE"),
    ] {
        let output = common::command(env!("CARGO_BIN_EXE_loadgen-server"))
            .args(["--listen", "127.0.0.1:0"])
            .args(arguments)
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(2), 1), "{stderr}");
        assert!(stderr.contains(said), "{stderr}");
    }
}
