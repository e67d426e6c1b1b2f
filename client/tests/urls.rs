//! Where the parts of a URL end: what is connected to, and what is sent.

mod common;

use common::{Server, loadgen, loadgen_at, missing, scratch};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};

/// A server of HTTP that keeps the heads of all requests: its port, and those.
fn listener(address: &str) -> Option<(u16, Receiver<String>)> {
    let listener = TcpListener::bind((address, 0)).ok()?;
    let port = listener.local_addr().unwrap().port();
    let (sender, heads) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, sender) = (stream.unwrap(), sender.clone());
            std::thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().unwrap());
                let mut head = String::new();
                while lines.read_line(&mut head).is_ok_and(|read| read > 0) {
                    if head.ends_with("\r\n\r\n") {
                        // The test may have seen enough, and be over.
                        let _ = sender.send(std::mem::take(&mut head));
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                    }
                }
            });
        }
    });
    Some((port, heads))
}

/// The first line, and the Host line, of the one request of a run.
fn asked(target: &str, heads: &Receiver<String>, args: &[&str]) -> (String, String) {
    loadgen_at(target, &[&["--requests", "1", "--conns", "1"], args].concat()).expect(0);
    let head = heads.recv().unwrap();
    assert_eq!(heads.try_iter().count(), 0);
    let host = head.lines().find(|line| line.starts_with("Host: ")).unwrap().to_owned();
    (head.lines().next().unwrap().to_owned(), host)
}

#[test]
fn queries_are_sent_and_fragments_are_not() {
    let (port, heads) = listener("127.0.0.1").unwrap();
    let host = format!("Host: 127.0.0.1:{port}");
    for (typed, path) in [
        ("?k=v", "/?k=v"),
        ("?k=v#f", "/?k=v"),
        ("#f?x", "/"),
        ("/#f", "/"),
        ("/a?b#c@d:1", "/a?b"),
        ("?x=a@127.0.0.1:1", "/?x=a@127.0.0.1:1"),
        ("/é", "/%C3%A9"),
    ] {
        let told = asked(&format!("HTTP://127.0.0.%31:{port}{typed}"), &heads, &[]);
        assert_eq!(told, (format!("GET {path} HTTP/1.1"), host.clone()), "{typed}");
    }
    let target = format!("http://127.0.0.1:{port}");
    assert_eq!(asked(&target, &heads, &["--path", "/p?q#f"]).0, "GET /p?q HTTP/1.1");
    let folder = scratch();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let mix = file("mix.toml", "[[request]]\npath = '/m/{pick:a}é?q#f{counter}'\n");
    assert_eq!(asked(&target, &heads, &["--scenario", &mix]).0, "GET /m/a%C3%A9?q HTTP/1.1");
    file("list", "GET /l?q#f\n");
    let recorded = file("recorded.toml", "[recorded]\nfile = 'list'\n");
    assert_eq!(asked(&target, &heads, &["--scenario", &recorded]).0, "GET /l?q HTTP/1.1");
    file("lines", "a#f\n");
    let lines = file("lines.toml", "[[request]]\npath = '/{line:lines}'\n");
    loadgen_at(&target, &["--scenario", &lines]).expect_refusal(2);
}

#[test]
fn a_zone_is_for_us_and_not_for_the_server() {
    let Some((port, heads)) = listener("::1") else {
        assert!(missing("there is no IPv6 here"));
        return;
    };
    for zone in ["%25lo", "%lo", "%251"] {
        let told = asked(&format!("http://[::1{zone}]:{port}/x"), &heads, &[]);
        assert_eq!(told, ("GET /x HTTP/1.1".to_owned(), format!("Host: [::1]:{port}")), "{zone}");
    }
    let ended = loadgen(&["--target", &format!("http://[fe80::1%25no-such]:{port}/")]);
    let told = ended.expect_refusal(3);
    assert!(told.contains("no-such"), "{told}");
}

#[test]
fn what_a_protocol_has_no_word_for_is_refused() {
    let server = Server::start(&[]);
    let address = server.address();
    for target in [
        format!("tcp://{address}/x"),
        format!("tcp://{address}?x"),
        format!("discard://{address}/x"),
        format!("udp://{address}/x"),
        format!("memcached://{address}/0"),
        format!("memcached://{address}?x"),
        format!("redis://{address}/x"),
        format!("redis://{address}/0?x"),
        format!("redis://{address}?x=a@{address}"),
        format!("redis://:hunter2%+1@{address}"),
        format!("redis://u@hunter2@{address}"),
        format!("http://u:hunter2@{address}"),
        format!("http://{address}/a b"),
        format!("{address}?x"),
        format!("{address}#x"),
        "tcp://h:0".to_owned(),
        "tcp://h:65536".to_owned(),
        "::1".to_owned(),
        "http://h/\u{7}".to_owned(),
    ] {
        let ended = loadgen_at(&target, &["--requests", "1", "--conns", "1"]);
        let told = ended.expect_refusal(2);
        assert!(!told.contains("hunter2"), "{target}: {told}");
    }
    // Not only that of the first target.
    let others = format!("http://u:hunter2@{address}");
    let ended = loadgen(&["--target", &format!("http://{address}"), "--target", &others]);
    ended.expect_refusal(2);
    assert_eq!(server.stop().accepts, 0);
}
