//! What every protocol must hold to. These tests walk `PROTOCOLS`, so that a newcomer is covered at once.

use loadgen_core::protocol::ask::Asker;
use loadgen_core::protocol::{ClientOptions, MAX_KEPT, MIN_OUTPUT, Next, PROTOCOLS, Protocol, ServerOptions, Shape};
use loadgen_core::rng::Rng;

use callers::{ClientCaller, Ended, ServerCaller};

mod callers;
mod datagrams;
mod http;
mod memcached;
mod redis;

const SIZE: usize = 37;
/// Bytes taken of an endless stream.
const DOWNLOAD: usize = 300;

/// Options that lead a protocol to its different answers.
fn variants(protocol: &Protocol) -> Vec<ClientOptions> {
    match protocol.name {
        "memcached" => memcached::variants(),
        "redis" => redis::variants(),
        _ => http_variants(),
    }
}

/// Those of HTTP; other protocols ignore most of them.
fn http_variants() -> Vec<ClientOptions> {
    let plain = callers::options(SIZE);
    let with = |method: &str, path: &str, body: &[u8]| ClientOptions {
        method: method.into(),
        path: path.into(),
        body: body.into(),
        ..plain.clone()
    };
    let mut closing = plain.clone();
    closing.headers.push(("Connection".into(), "keep-alive, x".into()));
    let mut expecting = with("PUT", "/bytes/3", b"expected");
    expecting.headers.push(("Expect".into(), "100-continue".into()));
    vec![
        plain.clone(),
        closing,
        expecting,
        with("HEAD", "/bytes/20", b""),
        with("POST", "/status/404", b"hello"),
        with("GET", "/chunked/21", b""),
        with("GET", "/bytes/0", b""),
        with("DELETE", "/status/204", b""),
        with("TRACE", "/", b""),
    ]
}

fn client(protocol: &Protocol, options: &ClientOptions) -> ClientCaller {
    ClientCaller::new(protocol.codec(options).unwrap())
}

fn server(protocol: &Protocol, room: usize) -> ServerCaller {
    let limit = if protocol.shape == Shape::Download { DOWNLOAD } else { usize::MAX };
    ServerCaller::new(
        (protocol.server)(&ServerOptions { size: SIZE, ..ServerOptions::default() }).unwrap(),
        room,
        limit,
    )
}

/// The stream that `count` requests make.
fn requests(protocol: &Protocol, options: &ClientOptions, count: usize) -> Vec<u8> {
    let mut client = protocol.codec(options).unwrap();
    let (mut stream, mut asker) = (Vec::new(), Asker::new(1, 0));
    (0..count).for_each(|_| _ = asker.ask(|ask| client.compose(ask, &mut stream)));
    stream
}

/// What the server answers to `stream`, presented whole.
fn answer(protocol: &Protocol, stream: &[u8], room: usize) -> Vec<u8> {
    let mut server = server(protocol, room);
    server.feed(stream);
    server.sent
}

/// Of protocols over streams; those over datagrams have tests of their own.
fn cases() -> impl Iterator<Item = (&'static Protocol, ClientOptions)> {
    let streams = PROTOCOLS.iter().filter(|protocol| protocol.transport.has_connections());
    streams.flat_map(|protocol| variants(protocol).into_iter().map(move |options| (protocol, options)))
}

#[test]
fn names_and_schemes_are_unique() {
    let mut names: Vec<_> = PROTOCOLS.iter().map(|p| p.name).collect();
    let mut schemes: Vec<_> = PROTOCOLS.iter().flat_map(|p| p.schemes).collect();
    let before = (names.len(), schemes.len());
    names.sort_unstable();
    names.dedup();
    schemes.sort_unstable();
    schemes.dedup();
    assert_eq!(before, (names.len(), schemes.len()));
    assert!(PROTOCOLS.iter().all(|p| !p.about.contains('\n')));
}

#[test]
fn the_halves_understand_each_other() {
    for (protocol, options) in cases() {
        for count in 1..=5 {
            let stream = requests(protocol, &options, count);
            let mut server = server(protocol, 4096);
            server.feed(&stream);
            let mut client = client(protocol, &options);
            client.feed(&server.sent);
            assert_eq!(client.error, None, "{} {options:?}", protocol.name);
            let replies = if protocol.shape == Shape::Exchange { count } else { 0 };
            assert_eq!(client.replies.len(), replies, "{} {options:?}", protocol.name);
            assert_eq!((server.requests, server.replies), (replies as u64, replies as u64), "{}", protocol.name);
            assert_eq!(client.finish(), Ended::Between);
            let next = if protocol.shape == Shape::Download { Next::Flush } else { Next::Read };
            assert_eq!(server.next, next, "{}", protocol.name);
            assert_eq!(server.eof(), Next::Close, "{}", protocol.name);
            match protocol.shape {
                Shape::Upload => assert!(server.sent.is_empty()),
                Shape::Download => assert!(stream.is_empty()),
                Shape::Exchange => {}
            }
        }
    }
}

#[test]
fn cuts_do_not_change_what_the_server_says() {
    for (protocol, options) in cases() {
        for count in [1, 3] {
            let stream = requests(protocol, &options, count);
            let whole = answer(protocol, &stream, 4096);
            let cut = |pieces: &[&[u8]]| {
                let mut server = server(protocol, 4096);
                pieces.iter().for_each(|piece| server.feed(piece));
                server
            };
            let expected = cut(&[&stream]);
            let same = |server: &ServerCaller| {
                // An endless stream is looked at now and then; how often depends on the cuts.
                let n = if protocol.shape == Shape::Download { DOWNLOAD.min(server.sent.len()) } else { whole.len() };
                let counts = (server.requests, server.replies) == (expected.requests, expected.replies);
                counts && server.sent.get(..n) == whole.get(..n)
            };
            for at in 0..=stream.len() {
                let server = cut(&[&stream[..at], &stream[at..]]);
                assert!(same(&server), "{} {options:?} cut at {at}", protocol.name);
            }
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            assert!(same(&cut(&bytes)), "{} {options:?} byte by byte", protocol.name);
        }
    }
}

#[test]
fn cuts_do_not_change_what_the_client_understands() {
    for (protocol, options) in cases() {
        for count in [1, 2, 5] {
            let stream = answer(protocol, &requests(protocol, &options, count), 4096);
            let understood = |pieces: &[&[u8]]| {
                let mut client = client(protocol, &options);
                pieces.iter().for_each(|piece| client.feed(piece));
                (client.replies.clone(), client.error, client.finish())
            };
            let whole = understood(&[&stream]);
            for at in 0..=stream.len() {
                assert_eq!(understood(&[&stream[..at], &stream[at..]]), whole, "{} cut at {at}", protocol.name);
            }
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            assert_eq!(understood(&bytes), whole, "{} byte by byte", protocol.name);
        }
    }
}

#[test]
fn a_truncated_stream_is_never_taken_for_a_reply() {
    for (protocol, options) in cases() {
        let stream = answer(protocol, &requests(protocol, &options, 3), 4096);
        let mut slow = client(protocol, &options);
        let mut complete = 0;
        for at in 0..stream.len() {
            let mut fast = client(protocol, &options);
            fast.feed(&stream[..at]);
            assert_eq!(fast.replies, slow.replies, "{} cut at {at}", protocol.name);
            let between = protocol.shape != Shape::Exchange || at == complete;
            let expected = if between { Ended::Between } else { Ended::Truncated };
            assert_eq!(fast.finish(), expected, "{} {options:?} cut at {at}", protocol.name);
            let before = slow.replies.len();
            slow.feed(&stream[at..=at]);
            if slow.replies.len() > before {
                complete = at + 1;
            }
        }
    }
}

#[test]
fn a_truncated_request_closes_and_does_not_count() {
    for (protocol, options) in cases().filter(|(protocol, _)| protocol.shape == Shape::Exchange) {
        let request = requests(protocol, &options, 1);
        for at in 0..request.len() {
            let mut server = server(protocol, 4096);
            server.feed(&request);
            server.feed(&request[..at]);
            assert_eq!(server.eof(), Next::Close, "{} cut at {at}", protocol.name);
            assert_eq!((server.requests, server.replies), (1, 1), "{} cut at {at}", protocol.name);
        }
    }
}

#[test]
fn the_smallest_output_is_enough() {
    for (protocol, options) in cases() {
        let stream = requests(protocol, &options, 5);
        let wide = answer(protocol, &stream, 1 << 20);
        for room in MIN_OUTPUT..MIN_OUTPUT + 40 {
            let narrow = answer(protocol, &stream, room);
            let common = wide.len().min(narrow.len());
            assert!(common >= wide.len().min(DOWNLOAD), "{} with {room} bytes", protocol.name);
            assert!(narrow[..common] == wide[..common], "{} with {room} bytes", protocol.name);
        }
    }
}

/// Cut anywhere, the same is said, and a reply never begins before its request is complete.
#[test]
fn replies_can_be_had_one_at_a_time() {
    for (protocol, options) in cases().filter(|(protocol, _)| protocol.shape == Shape::Exchange) {
        let stream = requests(protocol, &options, 3);
        let expected = answer(protocol, &stream, 4096);
        for room in [MIN_OUTPUT, 4096] {
            for at in 0..=stream.len() {
                let mut server = server(protocol, room).one_reply(room);
                let mut complete = 0;
                for piece in stream[..at].chunks(1).chain([&stream[at..]]) {
                    server.feed(piece);
                    // HTTP asks for the rest of a request; nothing else is said before that is there.
                    let interim = server.sent.ends_with(b"100 Continue\r\n\r\n");
                    assert!(interim || server.requests > complete || server.sent.len() == server.said, "{options:?}");
                    (complete, server.said) = (server.requests, server.sent.len());
                }
                assert!(server.sent == expected, "{} {options:?} cut at {at}", protocol.name);
                assert_eq!((server.requests, server.replies), (3, 3), "{} {options:?}", protocol.name);
            }
        }
    }
}

#[test]
fn garbage_is_survived_and_bounded() {
    let mut rng = Rng::new(20_000);
    let cases: Vec<_> = cases().collect();
    for round in 0..10_000 {
        let (protocol, options) = &cases[round % cases.len()];
        let stream = requests(protocol, options, 2);
        let input = garbage(&mut rng, &stream);
        let mut server = server(protocol, MIN_OUTPUT).bounded(DOWNLOAD);
        feed_in_pieces(&mut rng, &input, |piece| server.feed(piece));
        assert!(server.kept.len() < MAX_KEPT);
        server.eof();

        let stream = answer(protocol, &stream, 4096);
        let input = garbage(&mut rng, &stream);
        let mut client = client(protocol, options);
        feed_in_pieces(&mut rng, &input, |piece| client.feed(piece));
        assert!(client.kept.len() < MAX_KEPT || client.error.is_some());
        client.finish();
    }
}

/// Random bytes; or random words of the protocols; or a valid stream with a few bytes changed.
fn garbage(rng: &mut Rng, valid: &[u8]) -> Vec<u8> {
    const WORDS: &[&str] = &[
        "\r\n",
        "\n",
        "\r",
        " ",
        ":",
        "HTTP/1.1",
        "HTTP/1.0 ",
        "200",
        "GET ",
        "/",
        "Host: a\r\n",
        "Content-Length: ",
        "5",
        "-1",
        "Transfer-Encoding: chunked\r\n",
        "ffffffffffffffff",
        "0\r\n\r\n",
        "\0",
        ";",
        "Connection: close\r\n",
        "*2\r\n",
        "$5\r\n",
        "%1\r\n",
        "GET\r\n",
        "+OK\r\n",
        "-ERR\r\n",
        ":7\r\n",
        "|1\r\n",
        ">1\r\n",
        "get a b\r\n",
        "set a 0 0 5\r\n",
        "ms a 2 q\r\nhi\r\n",
        "VALUE a 0 1\r\n",
        "END\r\n",
        "VA 2 f0\r\n",
    ];
    let length = rng.below(300) as usize;
    match rng.below(3) {
        0 => (0..length).map(|_| rng.next_u64() as u8).collect(),
        1 => {
            let words = (0..length / 8).flat_map(|_| WORDS[rng.below(WORDS.len() as u64) as usize].bytes());
            words.collect()
        }
        _ => {
            let mut bytes = valid.to_vec();
            for _ in 0..rng.below(4).min(bytes.len() as u64) {
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] = rng.next_u64() as u8;
            }
            bytes
        }
    }
}

fn feed_in_pieces(rng: &mut Rng, mut input: &[u8], mut feed: impl FnMut(&[u8])) {
    while !input.is_empty() {
        let (piece, rest) = input.split_at(1 + rng.below(input.len() as u64) as usize);
        feed(piece);
        input = rest;
    }
}
