//! memcached in particular: tables of good and bad messages, each cut at every point.

use loadgen_core::protocol::ask::Asker;
use loadgen_core::protocol::keyspace::{Keyspace, Spread};
use loadgen_core::protocol::{
    ClientOptions, Codec, GREETING, MAX_KEPT, MIN_OUTPUT, Next, Outcome, ServerOptions, memcached,
};

use crate::callers::{ClientCaller, Ended, ServerCaller, options};

fn client(options: &ClientOptions) -> Result<Box<dyn Codec>, String> {
    memcached::PROTOCOL.codec(options)
}

/// A load of typed commands.
fn typed(commands: &[&str]) -> ClientOptions {
    let commands = commands.iter().map(|line| ((*line).to_owned(), 1)).collect();
    ClientOptions { commands, ..options(64) }
}

fn mix(dialect: &str, mix: &[(&str, u32)]) -> ClientOptions {
    let mix = mix.iter().map(|(word, weight)| ((*word).to_owned(), *weight)).collect();
    ClientOptions { dialect: Some(dialect.into()), mix, ..options(64) }
}

/// Loads for the tests that walk all protocols: both dialects, few keys so that there are hits, values of any size.
pub(crate) fn variants() -> Vec<ClientOptions> {
    let few = Keyspace { keys: 2, spread: Spread::Sequential, value_size: (0, 9), ..Keyspace::default() };
    let all = [("set", 3), ("get", 3), ("delete", 1), ("touch", 1), ("version", 1)];
    let long = Keyspace { keys: 1, value_size: (700, 700), ..Keyspace::default() };
    vec![
        options(64),
        mix("text", &[("get", 1)]),
        ClientOptions { keyspace: few.clone(), ..mix("text", &all) },
        ClientOptions { keyspace: few.clone(), seed: 7, ..mix("meta", &all) },
        mix("text", &[("incr", 1)]),
        typed(&["stats"]),
        typed(&["mn"]),
        typed(&["flush_all", "verbosity 1", "touch {key} -1"]),
        ClientOptions { keyspace: few, ..typed(&["set {key} 5 0 {value}", "gats 0 {key} other{counter} key:0"]) },
        ClientOptions { keyspace: long, ..typed(&["ms {key} {value} F7 T0 c", "mg {key} v k f c s t O{counter}"]) },
    ]
}

/// What a client makes of the pieces of a stream, in words: replies, then the error or the end; then what it counted.
fn understood(mut client: ClientCaller, pieces: &[&[u8]]) -> String {
    pieces.iter().for_each(|piece| client.feed(piece));
    let word = |outcome: Outcome| match outcome {
        Outcome::Ok => "ok",
        Outcome::Refused(kind) => kind,
        Outcome::TurnedAway => "turned away",
    };
    let mut words: Vec<String> = client.replies.iter().map(|reply| word(reply.outcome).into()).collect();
    assert!(client.replies.iter().all(|reply| !reply.last));
    words.push(match client.finish() {
        Ended::Between => "end".into(),
        Ended::WithReply(reply) => panic!("the end completes no reply, but {reply:?}"),
        Ended::Truncated => "truncated".into(),
        Ended::AfterError => client.error.unwrap().name().into(),
    });
    let counted = client.counts().into_iter().filter(|(_, count)| *count > 0);
    words.extend(counted.map(|(name, count)| format!("{count} {name}")));
    words.join(", ")
}

/// Each stream as replies to a command: whole, cut in two at every place, and byte by byte.
fn check_replies(table: &[(&str, &str, &str)]) {
    for (command, stream, expected) in table {
        let make = || ClientCaller::new(client(&typed(&[command])).unwrap());
        check_stream(&format!("{command}: {:?}", &stream[..stream.len().min(200)]), make, stream.as_bytes(), expected);
    }
}

fn check_stream(what: &str, make: impl Fn() -> ClientCaller, stream: &[u8], expected: &str) {
    assert_eq!(understood(make(), &[stream]), expected, "{what}");
    for at in (0..=stream.len()).step_by(1 + stream.len() / 2000) {
        assert_eq!(understood(make(), &[&stream[..at], &stream[at..]]), expected, "{what} cut at {at}");
    }
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(understood(make(), &bytes), expected, "{what} byte by byte");
}

#[test]
fn good_replies() {
    check_replies(&[
        ("get {key}", "", "end"),
        ("get {key}", "END\r\n", "ok, end, 1 misses"),
        ("get {key}", "VALUE key:0000 0 5\r\nhello\r\nEND\r\n", "ok, end, 1 hits"),
        ("get {key}", "VALUE k 4294967295 0\r\n\r\nEND\r\nEND\r\n", "ok, ok, end, 1 hits, 1 misses"),
        ("get {key}", "VALUE k 0 7\r\nEND\r\nEN\r\nEND\r\n", "ok, end, 1 hits"),
        ("gets a b c", "VALUE a 0 1 17\r\nx\r\nVALUE c 1 2 18\r\nyz\r\nEND\r\n", "ok, end, 2 hits, 1 misses"),
        ("gat 9 {key}", "VALUE a 0 1\r\nx\r\nEND\r\n", "ok, end, 1 hits"),
        ("set {key} 0 0 {value}", "STORED\r\nSTORED\r\n", "ok, ok, end"),
        ("add {key} 0 0 {value}", "NOT_STORED\r\n", "ok, end, 1 not_stored"),
        ("cas {key} 0 0 {value} 5", "EXISTS\r\nNOT_FOUND\r\n", "ok, ok, end, 1 not_found, 1 not_stored"),
        ("delete {key}", "DELETED\r\nNOT_FOUND\r\n", "ok, ok, end, 1 not_found"),
        ("incr {key} 1", "18446744073709551615\r\nNOT_FOUND\r\n0\r\n", "ok, ok, ok, end, 1 not_found"),
        ("touch {key} 0", "TOUCHED\r\nNOT_FOUND\r\n", "ok, ok, end, 1 not_found"),
        ("version", "VERSION 1.6.18\r\nVERSION\r\n", "ok, ok, end"),
        ("flush_all", "OK\r\n", "ok, end"),
        ("stats", "STAT pid 1\r\nSTAT version 1 2\r\nEND\r\nEND\r\n", "ok, ok, end"),
        ("mn", "MN\r\n", "ok, end"),
        ("mg {key} v", "VA 2\r\nhi\r\nEN\r\nVA 0 f5 k1\r\n\r\n", "ok, ok, ok, end, 2 hits, 1 misses"),
        ("mg {key} s", "HD s5\r\nEN\r\n", "ok, ok, end, 1 hits, 1 misses"),
        ("mg {key} T30", "HD\r\nEN\r\n", "ok, ok, end, 1 not_found"),
        ("ms {key} {value}", "HD\r\nNS\r\nEX\r\nNF\r\n", "ok, ok, ok, ok, end, 1 not_found, 2 not_stored"),
        ("md {key}", "HD\r\nNF Oabc\r\n", "ok, ok, end, 1 not_found"),
        ("ma {key}", "HD\r\nNF\r\n", "ok, ok, end, 1 not_found"),
        ("ma {key} v", "VA 2 t-1\r\n17\r\n", "ok, end"),
        ("me {key}", "ME key exp=-1 la=0\r\nEN\r\n", "ok, ok, end, 1 not_found"),
    ]);
}

#[test]
fn refusals() {
    check_replies(&[
        ("get {key}", "ERROR\r\nEND\r\n", "error, ok, end, 1 misses"),
        ("get {key}", "CLIENT_ERROR line too long\r\n", "client_error, end"),
        ("get {key}", "SERVER_ERROR out of memory writing get response\r\n", "oom, end"),
        ("get a b", "VALUE a 0 1\r\nx\r\nSERVER_ERROR out of memory\r\nEND\r\n", "oom, ok, end, 2 misses"),
        ("set {key} 0 0 {value}", "SERVER_ERROR object too large for cache\r\nSTORED\r\n", "server_error, ok, end"),
        ("set {key} 0 0 {value}", "SERVER_ERROR out of memory storing object\r\n", "oom, end"),
        ("incr {key} 1", "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n", "client_error, end"),
        ("ms {key} {value}", "CLIENT_ERROR bad data chunk\r\nHD\r\n", "client_error, ok, end"),
        ("mn", "SERVER_ERROR\r\n", "server_error, end"),
    ]);
}

#[test]
fn bad_replies() {
    let long = |start: &str| format!("{start}{}", "x".repeat(5000));
    let too_long = long("VERSION ");
    let endless = long("");
    let stats = "STAT a b\r\n".repeat(10_001);
    let exact = format!("VERSION {}\r\n", "x".repeat(2048 - 10));
    let beyond = format!("VERSION {}\r\n", "x".repeat(2048 - 9));
    check_replies(&[
        ("get {key}", "E", "truncated"),
        ("get {key}", "END\r", "truncated"),
        ("get {key}", "VALUE k 0 5\r\n", "truncated"),
        ("get {key}", "VALUE k 0 5\r\nhello\r\n", "truncated"),
        ("get {key}", "VALUE k 0 0\r\n", "truncated"),
        ("stats", "STAT a b\r\n", "truncated"),
        ("get {key}", "garbage\r\n", "malformed"),
        ("get {key}", "\r\n", "malformed"),
        ("get {key}", "end\r\n", "malformed"),
        ("get {key}", "END\n", "malformed"),
        ("get {key}", "END \r\n", "malformed"),
        ("get {key}", "HTTP/1.1 200 OK\r\n", "malformed"),
        ("get {key}", "\x00\u{80}\r\n", "malformed"),
        ("get {key}", "VALUE\r\n", "malformed"),
        ("get {key}", "VALUE k\r\n", "malformed"),
        ("get {key}", "VALUE k 0\r\n", "malformed"),
        ("get {key}", "VALUE  0 5\r\nhello\r\nEND\r\n", "malformed"),
        ("get {key}", "VALUE k x 5\r\nhello\r\nEND\r\n", "malformed"),
        ("get {key}", "VALUE k 4294967296 5\r\nhello\r\nEND\r\n", "malformed"),
        ("get {key}", "VALUE k 0 -5\r\n", "malformed"),
        ("get {key}", "VALUE k 0 5x\r\nhello\r\n", "malformed"),
        ("get {key}", "VALUE k 0 5 x\r\nhello\r\n", "malformed"),
        ("get {key}", "VALUE k 0 5 1 2\r\nhello\r\n", "malformed"),
        ("get {key}", "VALUE k 0 5\r\nhello!\r\nEND\r\n", "malformed"),
        ("get {key}", "VALUE k 0 5\r\nhello?\nEND\r\n", "malformed"),
        ("get {key}", "VALUE k 0 5\r\nhell\r\nEND\r\n", "malformed"),
        ("get {key}", "VALUE k 0 5\r\nhello\nEND\r\n", "malformed"),
        ("get {key}", "VALUE k 0 5\r\nhello\rEND\r\n", "malformed"),
        ("mg {key} v", "VA\r\n", "malformed"),
        ("mg {key} v", "VA x\r\n", "malformed"),
        ("mg {key} v", "VA 2\r\nhi!\r\n", "malformed"),
        ("set {key} 0 0 {value}", "STORED STORED\r\n", "malformed"),
        ("incr {key} 1", "-1\r\n", "malformed"),
        ("incr {key} 1", "18446744073709551616\r\n", "malformed"),
        // Well formed, but of another request
        ("get {key}", "STORED\r\n", "mismatch"),
        ("get {key}", "VA 2\r\nhi\r\n", "mismatch"),
        ("get {key}", "17\r\n", "mismatch"),
        ("get {key}", "HD\r\n", "mismatch"),
        ("get a", "VALUE a 0 1\r\nx\r\nVALUE a 0 1\r\nx\r\nEND\r\n", "mismatch"),
        ("set {key} 0 0 {value}", "END\r\n", "mismatch"),
        ("set {key} 0 0 {value}", "VALUE k 0 1\r\nx\r\nEND\r\n", "mismatch"),
        ("set {key} 0 0 {value}", "STORED\r\nDELETED\r\n", "ok, mismatch"),
        ("delete {key}", "TOUCHED\r\n", "mismatch"),
        ("version", "OK\r\n", "mismatch"),
        ("mn", "HD\r\n", "mismatch"),
        ("mg {key}", "VA 2\r\nhi\r\n", "mismatch"),
        ("mg {key} v", "HD\r\n", "mismatch"),
        ("md {key}", "EN\r\n", "mismatch"),
        // Beyond limits of ours
        ("get {key}", "VALUE k 0 1073741824\r\n", "truncated"),
        ("get {key}", "VALUE k 0 1073741825\r\n", "too_large"),
        ("get {key}", "VALUE k 0 99999999999999999999999\r\n", "too_large"),
        ("mg {key} v", "VA 18446744073709551615\r\n", "too_large"),
        ("version", &exact, "ok, end"),
        ("version", &beyond, "too_large"),
        ("version", &too_long, "too_large"),
        ("get {key}", &endless, "too_large"),
        ("stats", &stats, "too_large"),
    ]);
}

#[test]
fn a_login_is_said_first_and_wants_stored() {
    let login =
        |user: &str, password: &str| ClientOptions { login: Some((user.into(), password.into())), ..options(64) };
    let half = client(&login("me", "secret")).unwrap();
    assert_eq!(half.greeting(), Some((&b"set auth 0 0 9\r\nme secret\r\n"[..], 1)));
    assert!(client(&options(64)).unwrap().greeting().is_none());
    for (user, password) in [("", "secret"), ("me", ""), ("m e", "x"), ("me", "x\r\nflush_all")] {
        assert!(client(&login(user, password)).unwrap_err().contains("user"), "{user} {password}");
    }
    for (stream, expected) in [
        ("STORED\r\n", "ok, end"),
        ("CLIENT_ERROR authentication failure\r\n", "client_error, end"),
        ("NOT_STORED\r\n", "mismatch"),
        ("END\r\n", "mismatch"),
        ("VERSION 1\r\n", "mismatch"),
    ] {
        let make = || ClientCaller::new(client(&login("me", "secret")).unwrap()).awaiting(GREETING);
        check_stream(&format!("{stream:?}"), make, stream.as_bytes(), expected);
    }
}

#[test]
fn what_is_asked() {
    let composed = |options: &ClientOptions, count: usize| {
        let mut half = client(options).unwrap();
        let (mut stream, mut asker) = (Vec::new(), Asker::new(1, 0));
        let kinds: Vec<u16> = (0..count).map(|_| asker.ask(|ask| half.compose(ask, &mut stream))).collect();
        (String::from_utf8(stream).unwrap(), kinds, half)
    };
    let one = Keyspace { keys: 1, value_size: (3, 3), prefix: "k".into(), spread: Spread::Uniform };
    let one = |options: ClientOptions| ClientOptions { keyspace: one.clone(), ..options };
    for (dialect, word, expected) in [
        ("text", "get", "get k0\r\n"),
        ("meta", "get", "mg k0 v\r\n"),
        ("text", "set", "set k0 0 0 3\r\n???\r\n"),
        ("meta", "set", "ms k0 3\r\n???\r\n"),
        ("text", "delete", "delete k0\r\n"),
        ("meta", "delete", "md k0\r\n"),
        ("text", "incr", "incr k0 1\r\n"),
        ("meta", "incr", "ma k0\r\n"),
        ("text", "touch", "touch k0 0\r\n"),
        ("meta", "touch", "mg k0 T0\r\n"),
        ("text", "version", "version\r\n"),
        ("meta", "version", "version\r\n"),
    ] {
        let (stream, kinds, half) = composed(&one(mix(dialect, &[(word, 1)])), 1);
        let hidden: String = stream.lines().map(|l| format!("{}\r\n", if l.len() == 3 { "???" } else { l })).collect();
        assert_eq!((hidden.as_str(), &kinds[..]), (expected, &[0][..]));
        assert_eq!((half.kinds(), half.composes()), (&[word.to_owned()][..], word != "version"));
        assert_eq!(half.request().len(), stream.len());
    }
    // By default as memtier_benchmark: ten gets for a set.
    let (stream, kinds, half) = composed(&options(64), 11_000);
    assert_eq!(half.kinds(), ["set", "get"]);
    let sets = kinds.iter().filter(|kind| **kind == 0).count();
    assert!((850..1150).contains(&sets), "{sets} of 11000");
    assert_eq!(stream.matches("set key:").count(), sets);
    assert_eq!(stream.matches("get key:").count(), 11_000 - sets);

    let counting = ClientOptions { worker: (1, 3), ..typed(&["get a{counter}", "get {key}"]) };
    let (stream, kinds, half) = composed(&one(counting), 100);
    let numbers: Vec<u64> = stream.lines().filter_map(|line| line.strip_prefix("get a")?.parse().ok()).collect();
    assert_eq!(numbers, (0..numbers.len() as u64).map(|n| 1 + 3 * n).collect::<Vec<_>>());
    assert_eq!(kinds.iter().filter(|kind| **kind == 0).count(), numbers.len());
    assert_eq!(half.kinds(), ["get a{counter}", "get {key}"]);
    let (stream, _, half) = composed(&one(typed(&["  set   {key} 7 60  {value} "])), 1);
    assert!(stream.starts_with("set k0 7 60 3\r\n") && stream.len() == 20, "{stream:?}");
    assert_eq!(half.kinds(), ["set"]);
}

#[test]
fn loads_that_make_no_sense_are_refused() {
    let long = Keyspace { prefix: "p".repeat(250), ..Keyspace::default() };
    let blank = Keyspace { prefix: "a b".into(), ..Keyspace::default() };
    let huge = Keyspace { value_size: (0, (1 << 30) + 1), ..Keyspace::default() };
    let key = "k".repeat(251);
    let table = [
        (ClientOptions { keyspace: long, ..options(64) }, "250"),
        (ClientOptions { keyspace: blank, ..options(64) }, "blanks"),
        (ClientOptions { path: "/0".into(), ..options(64) }, "no paths"),
        (ClientOptions { keyspace: huge, ..options(64) }, "1073741824"),
        (ClientOptions { dialect: Some("binary".into()), ..options(64) }, "text and meta"),
        (mix("text", &[("fetch", 1)]), "there are get, set"),
        (mix("text", &[("get", 0)]), "weights"),
        (mix("text", &[("get", 1), ("get", 2)]), "twice"),
        (mix("text", &[("set", 1), ("incr", 2)]), "digits"),
        (typed(&[""]), "empty"),
        (typed(&["quit"]), "ends the connection"),
        (typed(&["watch fetchers"]), "no replies"),
        (typed(&["lru_crawler enable"]), "cannot judge"),
        (typed(&["GET {key}"]), "cannot judge"),
        (typed(&["get"]), "too few"),
        (typed(&["version 1"]), "too many"),
        (typed(&["get {key}\r\nget {key}"]), "one line"),
        (typed(&["get {keys}"]), "no placeholder"),
        (typed(&["get {value}"]), "takes no {value}"),
        (typed(&["set {key} 0 0 5"]), "{value} is to stand"),
        (typed(&["set {key} 0 {value} 5"]), "{value} is to stand"),
        (typed(&["set {key} 0 0 {value} noreply"]), "noreply"),
        (typed(&["delete {key} noreply"]), "noreply"),
        (typed(&["ms {key}"]), "too few"),
        (typed(&["ms {key} 5"]), "{value} is to stand"),
        (typed(&["ms {key} {value} q"]), "hides replies"),
        (typed(&["mg {key} v q"]), "hides replies"),
        (typed(&[&format!("get {key}")]), "251 bytes"),
        (typed(&[&format!("get{}", " kkkkkkkk".repeat(300))]), "longer than"),
    ];
    for (options, expected) in table {
        let message = client(&options).map(|_| ()).unwrap_err();
        assert!(message.contains(expected) && !message.contains(['\n', '\r']), "{message:?} is not about {expected}");
    }
}

/// What a server answers to the pieces of a stream, and what it waits for.
fn answered(pieces: &[&[u8]], room: usize, one_reply: bool) -> (String, ServerCaller) {
    let server = (memcached::PROTOCOL.server)(&ServerOptions::default()).unwrap();
    let server = ServerCaller::new(server, room, usize::MAX);
    let mut server = if one_reply { server.one_reply(room) } else { server };
    for piece in pieces {
        server.feed(piece);
        assert!(server.next != Next::Read || server.kept.len() < MAX_KEPT);
    }
    (String::from_utf8_lossy(&server.sent).into_owned(), server)
}

/// Each dialogue: what is asked, what is answered, how many requests and replies there were, and the state afterwards.
/// Whole, cut everywhere, through a narrow output, and one reply at a time.
fn check(table: &[(&str, &str, (u64, u64), Next)]) {
    for (asked, expected, counts, next) in table {
        let shown = &asked[..asked.len().min(200)];
        let stream = asked.as_bytes();
        let same = |pieces: &[&[u8]], room: usize, one_reply: bool, how: &str| {
            let (said, server) = answered(pieces, room, one_reply);
            assert_eq!(said, *expected, "{shown:?} {how}");
            assert_eq!((server.requests, server.replies), *counts, "{shown:?} {how}");
            assert_eq!(server.next, *next, "{shown:?} {how}");
        };
        same(&[stream], 4096, false, "whole");
        for at in (0..=stream.len()).step_by(1 + stream.len() / 300) {
            same(&[&stream[..at], &stream[at..]], MIN_OUTPUT, false, &format!("cut at {at}"));
        }
        same(&stream.chunks(1 + stream.len() / 3000).collect::<Vec<_>>(), 1 << 20, false, "byte by byte");
        if counts.0 == counts.1 {
            same(&[stream], MIN_OUTPUT, true, "one at a time");
        }
    }
}

#[test]
fn text_commands() {
    let set = "set a 5 0 2\r\nhi\r\n";
    let with_set = |rest: &str| format!("{set}{rest}");
    let table: Vec<(String, &str, (u64, u64))> = vec![
        ("get a\r\n".into(), "END\r\n", (1, 1)),
        (with_set("get a\r\n"), "STORED\r\nVALUE a 5 2\r\nhi\r\nEND\r\n", (2, 2)),
        (with_set("get a\n"), "STORED\r\nVALUE a 5 2\r\nhi\r\nEND\r\n", (2, 2)),
        (with_set("gets b a a\r\n"), "STORED\r\nVALUE a 5 2 1\r\nhi\r\nVALUE a 5 2 1\r\nhi\r\nEND\r\n", (2, 2)),
        (
            with_set("gat 10 a b\r\ngats 0 a\r\n"),
            "STORED\r\nVALUE a 5 2\r\nhi\r\nEND\r\nVALUE a 5 2 1\r\nhi\r\nEND\r\n",
            (3, 3),
        ),
        (with_set("add a 0 0 1\r\nx\r\nadd b 0 0 0\r\n\r\n"), "STORED\r\nNOT_STORED\r\nSTORED\r\n", (3, 3)),
        (with_set("replace a 0 0 1\r\nx\r\nreplace b 0 0 1\r\nx\r\n"), "STORED\r\nSTORED\r\nNOT_STORED\r\n", (3, 3)),
        (
            with_set("append a 9 9 1\r\n!\r\nprepend a 0 0 1\r\n<\r\nget a\r\n"),
            "STORED\r\nSTORED\r\nSTORED\r\nVALUE a 5 4\r\n<hi!\r\nEND\r\n",
            (4, 4),
        ),
        ("append a 0 0 1\r\nx\r\n".into(), "NOT_STORED\r\n", (1, 1)),
        (
            with_set("cas a 0 0 1 1\r\nx\r\ncas a 0 0 1 1\r\ny\r\ncas b 0 0 1 1\r\nz\r\nget a\r\n"),
            "STORED\r\nSTORED\r\nEXISTS\r\nNOT_FOUND\r\nVALUE a 0 1\r\nx\r\nEND\r\n",
            (5, 5),
        ),
        (with_set("delete a\r\ndelete a\r\n"), "STORED\r\nDELETED\r\nNOT_FOUND\r\n", (3, 3)),
        (
            "set n 0 0 2\r\n10\r\nincr n 5\r\ndecr n 6\r\nget n\r\ndecr n 99\r\n".into(),
            "STORED\r\n15\r\n9\r\nVALUE n 0 2\r\n9 \r\nEND\r\n0\r\n",
            (5, 5),
        ),
        (
            "set n 0 0 20\r\n18446744073709551615\r\nincr n 2\r\nincr m 1\r\n".into(),
            "STORED\r\n1\r\nNOT_FOUND\r\n",
            (3, 3),
        ),
        (
            with_set("incr a 1\r\nincr a x\r\n"),
            "STORED\r\nCLIENT_ERROR cannot increment or decrement non-numeric value\r\n\
             CLIENT_ERROR invalid numeric delta argument\r\n",
            (3, 3),
        ),
        (
            with_set("touch a 5\r\ntouch b 5\r\ntouch a x\r\n"),
            "STORED\r\nTOUCHED\r\nNOT_FOUND\r\nCLIENT_ERROR invalid exptime argument\r\n",
            (4, 4),
        ),
        (
            with_set("flush_all\r\nget a\r\nflush_all 0\r\nflush_all 5\r\n"),
            "STORED\r\nOK\r\nEND\r\nOK\r\nCLIENT_ERROR this server flushes at once only\r\n",
            (5, 5),
        ),
        ("set a 0 -1 1\r\nx\r\nget a\r\n".into(), "STORED\r\nEND\r\n", (2, 2)),
        ("version\r\nverbosity 1\r\n".into(), "VERSION 1.6.0-loadgen\r\nOK\r\n", (2, 2)),
        ("stats items\r\nstats reset\r\n".into(), "END\r\nRESET\r\n", (2, 2)),
        // Nothing is said where nothing is wanted.
        (
            "set a 0 0 1 noreply\r\nx\r\nincr b 1 noreply\r\ndelete a noreply\r\nflush_all noreply\r\nversion\r\n"
                .into(),
            "VERSION 1.6.0-loadgen\r\n",
            (5, 1),
        ),
    ];
    check(&table.iter().map(|(asked, said, counts)| (asked.as_str(), *said, *counts, Next::Read)).collect::<Vec<_>>());
}

#[test]
fn meta_commands() {
    let table = [
        ("mn\r\n", "MN\r\n", (1, 1)),
        ("mg a v\r\nmg a v k O12\r\n", "EN\r\nEN ka O12\r\n", (2, 2)),
        (
            "ms a 2\r\nhi\r\nmg a\r\nmg a v\r\nmg a s v f c t k Oxy\r\n",
            "HD\r\nHD\r\nVA 2\r\nhi\r\nVA 2 s2 f0 c1 t-1 ka Oxy\r\nhi\r\n",
            (4, 4),
        ),
        ("ms a 2 F7 T60 c k O1\r\nhi\r\nget a\r\n", "HD c1 ka O1\r\nVALUE a 7 2\r\nhi\r\nEND\r\n", (2, 2)),
        (
            "ms a 1 ME\r\nx\r\nms a 1 ME\r\ny\r\nms b 1 MR\r\nx\r\nms a 1 MA\r\n>\r\nms a 1 MP\r\n<\r\nmg a v\r\n",
            "HD\r\nNS\r\nNS\r\nHD\r\nHD\r\nVA 3\r\n<x>\r\n",
            (6, 6),
        ),
        ("ms a 1 C1\r\nx\r\nms a 1\r\nx\r\nms a 1 C9\r\ny\r\nms a 1 C1\r\nz\r\n", "NF\r\nHD\r\nEX\r\nHD\r\n", (4, 4)),
        ("ms a 1\r\nx\r\nmd a C9\r\nmd a O5 k\r\nmd a\r\n", "HD\r\nEX\r\nHD O5 ka\r\nNF\r\n", (4, 4)),
        (
            "ma n\r\nma n N0 J5\r\nma n v\r\nma n D10 v t\r\nma n MD D99 v\r\n",
            "NF\r\nHD\r\nVA 1\r\n6\r\nVA 2 t-1\r\n16\r\nVA 1\r\n0\r\n",
            (5, 5),
        ),
        ("ms a 1\r\nx\r\nma a\r\n", "HD\r\nCLIENT_ERROR cannot increment or decrement non-numeric value\r\n", (2, 2)),
        // Quiet ones say only what is not expected.
        (
            "mg a v q\r\nms a 1 q\r\nx\r\nmg a v q\r\nmd a q\r\nmd a q\r\nms a 1 q C5\r\nx\r\nmn\r\n",
            "VA 1\r\nx\r\nNF\r\nNF\r\nMN\r\n",
            (7, 4),
        ),
        (
            "mg a b\r\nmg\r\nms a 1 I\r\nx\r\nms a 1 MX\r\nx\r\nmd a Cx\r\nms a\r\n",
            "CLIENT_ERROR invalid flag\r\nERROR\r\nCLIENT_ERROR invalid flag\r\n\
             CLIENT_ERROR invalid mode for ms\r\nCLIENT_ERROR bad token in command line format\r\n\
             CLIENT_ERROR bad command line format\r\n",
            (6, 6),
        ),
    ];
    check(&table.map(|(asked, said, counts)| (asked, said, counts, Next::Read)));
}

#[test]
fn requests_that_the_server_refuses() {
    let long_key = format!("get {}\r\n", "k".repeat(251));
    let block = |verb: &str, size: usize| format!("{verb} {size}\r\n{}\r\nmn\r\n", "x".repeat(size));
    let largest = block("set a 0 0", 60 << 10);
    let too_large = block("set a 0 0", (60 << 10) + 1);
    let meta_too_large = block("ms a", 200_000);
    let quietly = block("set a 0 0", 70_000).replacen("70000", "70000 noreply", 1);
    let endless = "x".repeat(2048);
    let many_keys = format!("get{}\r\n", " k".repeat(20_000));
    let too_many_keys = format!("get{}", " k".repeat(40_000));
    let bad = "CLIENT_ERROR bad command line format\r\n";
    let too_large_said = "SERVER_ERROR object too large for cache\r\nMN\r\n";
    check(&[
        ("\r\n", "ERROR\r\n", (1, 1), Next::Read),
        (" noreply\r\n", "ERROR\r\n", (1, 1), Next::Read),
        ("GET a\r\nbrew\r\nget\r\nset a\r\nset a 0 0\r\n", &"ERROR\r\n".repeat(5), (5, 5), Next::Read),
        ("a b c d e f g h i j k\r\n", "ERROR\r\n", (1, 1), Next::Read),
        (&long_key, bad, (1, 1), Next::Read),
        ("set a x 0 1\r\nx\r\nmn\r\n", &format!("{bad}MN\r\n"), (2, 2), Next::Read),
        ("set a 0 0 x\r\nmn\r\n", &format!("{bad}MN\r\n"), (2, 2), Next::Read),
        ("set a 0 0 2147483647\r\nmn\r\n", &format!("{bad}MN\r\n"), (2, 2), Next::Read),
        ("set a 0 0 1\r\nxyzmn\r\n", "CLIENT_ERROR bad data chunk\r\nMN\r\n", (2, 2), Next::Read),
        (&largest, "STORED\r\nMN\r\n", (2, 2), Next::Read),
        (&too_large, too_large_said, (2, 2), Next::Read),
        (&meta_too_large, too_large_said, (2, 2), Next::Read),
        (&quietly, "MN\r\n", (2, 1), Next::Read),
        (&many_keys, "END\r\n", (1, 1), Next::Read),
        ("quit\r\nget a\r\n", "", (0, 0), Next::Close),
        (&endless, "CLIENT_ERROR line too long\r\n", (0, 0), Next::Reject),
        (&too_many_keys, "CLIENT_ERROR line too long\r\n", (0, 0), Next::Reject),
    ]);
    let (said, server) = answered(&[b"\x80\x0a\0\0"], 4096, false);
    assert_eq!((said.as_str(), server.next), ("", Next::Reject));
    // Where a stored value grows too large, it stays as it was.
    let grows = format!("set a 0 0 61440\r\n{}\r\nappend a 0 0 1\r\nx\r\n", "x".repeat(60 << 10));
    check(&[(&grows, "STORED\r\nSERVER_ERROR object too large for cache\r\n", (2, 2), Next::Read)]);
}

#[test]
fn statistics_are_those_of_memcached() {
    let stream = "set a 0 0 2\r\nhi\r\nget a b\r\nmg a v\r\nmg b\r\nms c 1\r\nx\r\ntouch a 0\r\ndelete c\r\n\
                  delete c\r\nincr n 1\r\ncas a 0 0 1 9\r\nx\r\ngat 0 a\r\nstats\r\n";
    let (said, server) = answered(&[stream.as_bytes()], 4096, false);
    let said = &said[said.find("STAT").unwrap()..];
    let stat = |name: &str| -> u64 {
        let line = said.lines().find_map(|line| line.strip_prefix("STAT ")?.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {said}")).parse().unwrap()
    };
    let table = [
        ("cmd_get", 4),
        ("get_hits", 2),
        ("get_misses", 2),
        ("cmd_set", 3),
        ("cmd_touch", 2),
        ("touch_hits", 2),
        ("touch_misses", 0),
        ("delete_hits", 1),
        ("delete_misses", 1),
        ("incr_misses", 1),
        ("cas_badval", 1),
        ("cmd_meta", 3),
        ("total_items", 2),
        ("curr_items", 1),
        // What it costs: four places of the table at 57 bytes, and 32 each for key and value.
        ("bytes", 4 * 57 + 2 * 32),
    ];
    for (name, expected) in table {
        assert_eq!(stat(name), expected, "{name}");
    }
    assert!(said.ends_with("END\r\n"));
    assert_eq!((server.requests, server.replies), (12, 12));
}

#[test]
fn a_value_that_is_overwritten_while_it_is_said_is_said_whole() {
    let options = ServerOptions::default();
    let half = || (memcached::PROTOCOL.server)(&options).unwrap();
    let mut slow = ServerCaller::new(half(), MIN_OUTPUT, 300);
    slow.feed(format!("set a 0 0 1000\r\n{}\r\n", "x".repeat(1000)).as_bytes());
    slow.feed(b"get a a\r\n");
    assert_eq!(slow.next, Next::Flush);
    let mut other = ServerCaller::new(half(), 4096, usize::MAX);
    other.feed(b"set a 0 0 3\r\nnew\r\n");
    let mut slow = slow.bounded(usize::MAX);
    slow.feed(b"mn\r\n");
    let expected = format!("STORED\r\nVALUE a 0 1000\r\n{}\r\nVALUE a 0 3\r\nnew\r\nEND\r\nMN\r\n", "x".repeat(1000));
    assert_eq!(String::from_utf8_lossy(&slow.sent), expected);
}

/// What is said on a connection where nothing was asked, cut anywhere; and the same in answer to something.
#[test]
fn a_server_may_say_that_it_turns_a_connection_away() {
    use loadgen_core::protocol::Unasked::{More, Nothing, TurnedAway};
    let said = "ERROR Too many open connections\r\n";
    let build = || memcached::PROTOCOL.codec(&options(64)).unwrap();
    let client = build();
    for end in 1..said.len() {
        assert_eq!(client.unasked(&said.as_bytes()[..end]), More, "{:?}", &said[..end]);
    }
    assert_eq!(client.unasked(said.as_bytes()), TurnedAway);
    for said in ["ERROR\r\n", "END\r\n", "ERROR Too many open connections!\r\n"] {
        assert_eq!(client.unasked(said.as_bytes()), Nothing, "{said:?}");
    }
    assert!(understood(ClientCaller::new(build()), &[said.as_bytes()]).starts_with("turned away"));
}
