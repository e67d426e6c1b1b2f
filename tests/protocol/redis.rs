//! Redis in particular: every type of reply, hostile ones, and what the server half says; each cut at every point.

use loadgen_core::protocol::ask::Asker;
use loadgen_core::protocol::keyspace::Keyspace;
use loadgen_core::protocol::store::Store;
use loadgen_core::protocol::{
    ClientOptions, ClientState, GREETING, MAX_KEPT, MIN_OUTPUT, Next, Outcome, Output, ServerOptions, ServerState,
    redis,
};
use loadgen_core::rng::Rng;
use std::sync::Arc;

use crate::callers::{ClientCaller, Ended, ServerCaller, options};

fn mixed(mix: &[(&str, u32)]) -> ClientOptions {
    let keyspace = Keyspace { keys: 3, value_size: (0, 40), ..Keyspace::default() };
    ClientOptions { mix: mix.iter().map(|(word, weight)| ((*word).into(), *weight)).collect(), keyspace, ..options(37) }
}

fn typed(commands: &[&str]) -> ClientOptions {
    ClientOptions { commands: commands.iter().map(|line| ((*line).into(), 1)).collect(), ..options(37) }
}

fn resp3(options: ClientOptions) -> ClientOptions {
    ClientOptions { dialect: Some("3".into()), ..options }
}

pub(crate) fn variants() -> Vec<ClientOptions> {
    let all = [
        ("get", 4),
        ("set", 4),
        ("ping", 1),
        ("incr", 1),
        ("del", 1),
        ("exists", 1),
        ("mset", 1),
        // Those that the server half refuses.
        ("lpush", 1),
        ("lpop", 1),
    ];
    vec![
        options(37),
        resp3(options(37)),
        mixed(&[("get", 1)]),
        mixed(&[("get", 1), ("set", 1)]),
        mixed(&all),
        ClientOptions { seed: 2, ..resp3(mixed(&all)) },
        typed(&["SET {key} \"v {value} {counter}\"", "ECHO {random}", "GET nothing", "INFO", "config get save"]),
        typed(&["echo \"\""]),
    ]
}

/// What a client makes of the pieces of a stream, in words: replies, then the error or the end.
fn understood(options: &ClientOptions, pieces: &[&[u8]]) -> String {
    let mut client = ClientCaller::new(redis::PROTOCOL.codec(options).unwrap());
    for piece in pieces {
        client.feed(piece);
        assert!(client.kept.len() < MAX_KEPT || client.error.is_some());
    }
    let mut words: Vec<&str> = client
        .replies
        .iter()
        .map(|reply| match reply.outcome {
            Outcome::Ok => "ok",
            Outcome::Refused(kind) => kind,
            Outcome::TurnedAway => "turned away",
        })
        .collect();
    words.push(match client.finish() {
        Ended::Between => "end",
        Ended::Truncated => "truncated",
        Ended::AfterError => client.error.unwrap().name(),
        Ended::WithReply(_) => panic!("no end makes a reply of Redis"),
    });
    words.join(", ")
}

/// Each stream, whole, cut in two at each place, and byte by byte, is understood as these words.
fn check(options: &ClientOptions, table: &[(&str, &str)]) {
    for (stream, expected) in table {
        let stream = stream.as_bytes();
        let shown = String::from_utf8_lossy(&stream[..stream.len().min(200)]);
        assert_eq!(understood(options, &[stream]), *expected, "{shown:?}");
        for at in (0..=stream.len()).step_by(1 + stream.len() / 2000) {
            assert_eq!(understood(options, &[&stream[..at], &stream[at..]]), *expected, "{shown:?} cut at {at}");
        }
        if stream.len() < 2000 {
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            assert_eq!(understood(options, &bytes), *expected, "{shown:?} byte by byte");
        }
    }
}

#[test]
fn replies_of_resp2() {
    let deep = "*1\r\n".repeat(100_000) + ":1\r\n+OK\r\n";
    let long = format!("+{}\r\n", "x".repeat(MAX_KEPT - 3));
    check(
        &typed(&["anything"]),
        &[
            ("", "end"),
            ("+OK\r\n", "ok, end"),
            ("+\r\n:1\r\n:+1\r\n:-9223372036854775808\r\n", "ok, ok, ok, ok, end"),
            ("$0\r\n\r\n$5\r\nhello\r\n$2\r\n\r\n\r\n$-1\r\n*-1\r\n", "ok, ok, ok, ok, ok, end"),
            ("*0\r\n*2\r\n$1\r\na\r\n$-1\r\n*1\r\n*2\r\n*0\r\n:1\r\n+x\r\n", "ok, ok, ok, ok, end"),
            ("*1\r\n-ERR within\r\n", "ok, end"),
            (&deep, "ok, ok, end"),
            (&long, "ok, end"),
            ("-ERR x\r\n-\r\n-MOVED 1 a:1\r\n-ASK 1 a:1\r\n", "error_reply, error_reply, moved, moved, end"),
            ("-BUSY x\r\n-LOADING x\r\n-BUSYKEY x\r\n-OOM x\r\n", "busy, busy, error_reply, oom, end"),
            ("-NOAUTH x\r\n-WRONGPASS x\r\n-NOPERM x\r\n-WRONGTYPE x\r\n", "noauth, noauth, noauth, wrongtype, end"),
            ("-ERR max number of clients reached\r\n", "turned away, end"),
            ("-ERR max number of clients + cluster connections reached\r\n", "turned away, end"),
            ("-DENIED Redis is running in protected mode because\r\n", "turned away, end"),
            ("-ERR max number\r\n-DENIEDx\r\n", "error_reply, error_reply, end"),
            // A type of RESP3 that nobody asked for
            ("_\r\n", "malformed"),
            (">1\r\n+x\r\n", "malformed"),
        ],
    );
}

#[test]
fn replies_of_resp3() {
    check(
        &resp3(typed(&["anything"])),
        &[
            ("_\r\n#t\r\n#f\r\n,1.5\r\n,-1e300\r\n,inf\r\n,-inf\r\n,nan\r\n", "ok, ok, ok, ok, ok, ok, ok, ok, end"),
            ("(3492890328409238509324850943850943825024385\r\n(-1\r\n", "ok, ok, end"),
            ("!9\r\nOOM at it\r\n!3\r\nERR\r\n!0\r\n\r\n", "oom, error_reply, error_reply, end"),
            ("!40\r\nMOVED and a text that is longer than it \r\n", "moved, end"),
            ("=7\r\ntxt:abc\r\n=4\r\ntxt:\r\n", "ok, ok, end"),
            ("%0\r\n%2\r\n+a\r\n:1\r\n+b\r\n*2\r\n:1\r\n:2\r\n~1\r\n#t\r\n", "ok, ok, ok, end"),
            ("|1\r\n+ttl\r\n:3\r\n*2\r\n:1\r\n|1\r\n+a\r\n*1\r\n+b\r\n:2\r\n+x\r\n", "ok, ok, end"),
            ("|0\r\n-OOM x\r\n", "oom, end"),
            (">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n+OK\r\n>0\r\n", "ok, end"),
            (">1\r\n|1\r\n+a\r\n+b\r\n+x\r\n", "end"),
            // Truncated: an attribute belongs to what follows it
            ("|1\r\n+a\r\n+b\r\n", "truncated"),
            (">1\r\n", "truncated"),
            ("*1\r\n>1\r\n+x\r\n", "malformed"),
            ("|1\r\n>1\r\n+x\r\n", "malformed"),
            ("_x\r\n", "malformed"),
            ("#x\r\n", "malformed"),
            ("#\r\n", "malformed"),
            (",\r\n", "malformed"),
            (",infinity\r\n", "malformed"),
            (",1.5.\r\n", "malformed"),
            ("(1x\r\n", "malformed"),
            ("(\r\n", "malformed"),
            ("=3\r\ntxt\r\n", "malformed"),
            ("=-1\r\n", "malformed"),
            ("%-1\r\n", "malformed"),
            ("~-1\r\n", "malformed"),
            (">-1\r\n", "malformed"),
            ("$?\r\n;0\r\n", "malformed"),
            ("*?\r\n.\r\n", "malformed"),
            (".\r\n", "malformed"),
            ("%2147483649\r\n", "too_large"),
            ("|2147483648\r\n|1\r\n", "too_large"),
        ],
    );
}

#[test]
fn hostile_replies() {
    let endless = format!("+{}", "x".repeat(MAX_KEPT));
    let behind_the_limit = format!("+{}\r\n", "x".repeat(MAX_KEPT - 2));
    let digits = format!("${}\r\n", "1".repeat(64));
    let nested = "*2147483647\r\n".repeat(3);
    check(
        &typed(&["anything"]),
        &[
            ("garbage", "malformed"),
            ("HTTP/1.1 400 Bad Request\r\n", "malformed"),
            ("\0", "malformed"),
            ("\r\n", "malformed"),
            ("+OK\n", "malformed"),
            ("+O\rK\r\n", "malformed"),
            ("+OK\r\n\r\n", "ok, malformed"),
            ("+OK\r", "truncated"),
            (":\r\n", "malformed"),
            (":1x\r\n", "malformed"),
            (":--1\r\n", "malformed"),
            (":9223372036854775808\r\n", "malformed"),
            (":-9223372036854775809\r\n", "malformed"),
            ("$\r\n", "malformed"),
            ("$-2\r\n", "malformed"),
            ("$+5\r\nhello\r\n", "malformed"),
            ("$05\r\nhello\r\n", "malformed"),
            ("$-0\r\n\r\n", "malformed"),
            ("$ 5\r\nhello\r\n", "malformed"),
            ("$5\nhello\r\n", "malformed"),
            ("$5\r\nhello!\r\n", "malformed"),
            ("$5\r\nhello\rx", "malformed"),
            ("$5\r\nhello\n", "malformed"),
            ("$5\r\nhell", "truncated"),
            ("$5\r\nhello\r", "truncated"),
            ("$536870913\r\n", "too_large"),
            ("$536870912\r\n", "truncated"),
            ("$9223372036854775807\r\n", "too_large"),
            ("$9223372036854775808\r\n", "malformed"),
            ("$18446744073709551621\r\nhello\r\n", "malformed"),
            (&digits, "too_large"),
            ("*-2\r\n", "malformed"),
            ("*1\r\n$-2\r\n", "malformed"),
            ("*2\r\n:1\r\n", "truncated"),
            ("*1\r\n", "truncated"),
            ("*2147483649\r\n", "too_large"),
            ("*9223372036854775807\r\n", "too_large"),
            (&nested, "too_large"),
            (&endless, "too_large"),
            (&behind_the_limit, "too_large"),
        ],
    );
}

#[test]
fn replies_that_a_command_does_not_have_are_a_mismatch() {
    let right = ["$1\r\nx\r\n", "+OK\r\n", "+PONG\r\n", ":1\r\n"];
    let others = ["*0\r\n", "+NO\r\n"];
    for (word, expected) in [("get", 0), ("set", 1), ("ping", 2), ("incr", 3), ("lpop", 0), ("sadd", 3), ("mset", 1)] {
        for (index, reply) in right.iter().chain(&others).enumerate() {
            let words = if index == expected { "ok, end" } else { "mismatch" };
            check(&mixed(&[(word, 1)]), &[(reply, words)]);
        }
        check(&mixed(&[(word, 1)]), &[("-WRONGTYPE x\r\n", "wrongtype, end")]);
    }
    check(&mixed(&[("get", 1)]), &[("$-1\r\n", "ok, end")]);
    check(&resp3(mixed(&[("get", 1)])), &[("_\r\n", "ok, end")]);
    check(&mixed(&[("set", 1)]), &[("$-1\r\n", "mismatch")]);
    // By itself, PING is answered by nothing else.
    check(&options(1), &[("+PONG\r\n+OK\r\n", "ok, mismatch")]);
}

#[test]
fn kinds_are_told_apart_by_their_replies_and_reads_are_counted() {
    let options = mixed(&[("get", 2), ("set", 1)]);
    let mut asking = redis::PROTOCOL.codec(&options).unwrap();
    assert_eq!(asking.kinds(), ["get", "set"]);
    assert!(asking.composes());
    let mut replies = Vec::new();
    let (mut hits, mut misses, mut asker) = (0, 0, Asker::new(1, 0));
    for round in 0..300 {
        let mut request = Vec::new();
        let get = asker.ask(|ask| asking.compose(ask, &mut request)) == 0;
        assert!(request.starts_with(if get { b"*2\r\n$3\r\nGET\r\n" } else { b"*3\r\n$3\r\nSET\r\n" }));
        hits += u64::from(get && round % 3 > 0);
        misses += u64::from(get && round % 3 == 0);
        replies.extend_from_slice(match (get, round % 3) {
            (true, 0) => b"$-1\r\n",
            (true, _) => b"$2\r\nhi\r\n",
            (false, _) => b"+OK\r\n",
        });
    }
    let mut client = ClientCaller::new(redis::PROTOCOL.codec(&options).unwrap());
    client.feed(&replies);
    assert_eq!((client.error, client.replies.len()), (None, 300));
    assert_eq!(client.counts(), [("hits", hits), ("misses", misses)]);
    assert!((150..250).contains(&(hits + misses)), "{hits} {misses}");
}

fn wire(options: &ClientOptions, count: usize) -> String {
    let mut client = redis::PROTOCOL.codec(options).unwrap();
    let (mut out, mut asker) = (Vec::new(), Asker::new(options.seed, 0));
    (0..count).for_each(|_| _ = asker.ask(|ask| client.compose(ask, &mut out)));
    String::from_utf8(out).unwrap()
}

#[test]
fn requests_as_they_are_sent() {
    assert_eq!(wire(&options(1), 2), "*1\r\n$4\r\nPING\r\n".repeat(2));
    let fixed = typed(&["set  \"a b\" {{x}}"]);
    assert_eq!(wire(&fixed, 1), "*3\r\n$3\r\nset\r\n$3\r\na b\r\n$3\r\n{x}\r\n");
    let client = redis::PROTOCOL.codec(&fixed).unwrap();
    assert!(!client.composes() && client.kinds().is_empty());

    let counting = ClientOptions { worker: (9, 2), ..typed(&["SET k:{counter} {counter}"]) };
    let expected = "*3\r\n$3\r\nSET\r\n$3\r\nk:9\r\n$2\r\n11\r\n*3\r\n$3\r\nSET\r\n$4\r\nk:13\r\n$2\r\n15\r\n";
    assert_eq!(wire(&counting, 2), expected);

    let keys = wire(&typed(&["GET {key}"]), 100);
    let keys: Vec<&str> = keys.split("*2\r\n$3\r\nGET\r\n$8\r\nkey:").skip(1).collect();
    assert_eq!(keys.len(), 100);
    assert!(keys.iter().all(|key| key.len() == 6 && key.ends_with("\r\n")), "{keys:?}");
    let set = wire(&mixed(&[("set", 1)]), 1);
    assert!(set.starts_with("*3\r\n$3\r\nSET\r\n$5\r\nkey:"), "{set:?}");
    assert_ne!(wire(&typed(&["x {random}"]), 1), wire(&ClientOptions { seed: 1, ..typed(&["x {random}"]) }, 1));

    let two = redis::PROTOCOL.codec(&typed(&["GET a", "SET a 1", "get {key}"])).unwrap();
    assert_eq!(two.kinds(), ["get", "set"]);
}

#[test]
fn what_makes_no_sense_is_refused_in_one_line() {
    let path = |path: &str| ClientOptions { path: path.into(), ..options(1) };
    let unfit = ["SUBSCRIBE a", "psubscribe a", "MONITOR", "BLPOP a 0", "client REPLY off", "QUIT", "HELLO 3"];
    let odd = ["", "  ", "\"\"", "GET \"a", "GET {what}", "GET {key", "{key} a", "xread count 1 block 0 streams a 0"];
    let bad = [
        ClientOptions { dialect: Some("4".into()), ..options(1) },
        path("/x"),
        path("/-1"),
        path("/1/2"),
        path("/99999999999"),
        mixed(&[("gett", 1)]),
        mixed(&[("get", 1), ("get", 2)]),
        mixed(&[("get", 0)]),
        ClientOptions { mix: vec![("get".into(), 1)], ..typed(&["GET a"]) },
        ClientOptions { keyspace: Keyspace { value_size: (2, 1), ..Keyspace::default() }, ..options(1) },
    ];
    let lines = unfit.iter().chain(&odd).map(|line| typed(&[line]));
    for options in bad.into_iter().chain(lines) {
        let message = redis::PROTOCOL.codec(&options).map(|_| ()).unwrap_err();
        assert!(!message.is_empty() && !message.contains('\n'), "{message}");
    }
}

#[test]
fn what_is_said_before_the_first_request() {
    let login = |user: &str| ClientOptions { login: Some((user.into(), "p w".into())), ..options(1) };
    let at = |path: &str, options: ClientOptions| ClientOptions { path: path.into(), ..options };
    let table = [
        (at("/", options(1)), ""),
        (at("", options(1)), ""),
        (at("/3", options(1)), "SELECT 3"),
        (login(""), "AUTH p_w"),
        (login("me"), "AUTH me p_w"),
        (at("/0", login("me")), "AUTH me p_w, SELECT 0"),
        (resp3(options(1)), "HELLO 3"),
        (at("/5", resp3(login(""))), "HELLO 3 AUTH default p_w, SELECT 5"),
    ];
    for (options, expected) in table {
        let mut client = redis::PROTOCOL.codec(&options).unwrap();
        let commands: Vec<&str> = expected.split(", ").filter(|command| !command.is_empty()).collect();
        let mut bytes = Vec::new();
        for command in &commands {
            let words: Vec<String> = command.split(' ').map(|word| word.replace('_', " ")).collect();
            bytes.extend(format!("*{}\r\n", words.len()).bytes());
            words.iter().for_each(|word| bytes.extend(format!("${}\r\n{word}\r\n", word.len()).bytes()));
        }
        let greeting = client.greeting().map(|(greeting, replies)| (greeting.to_vec(), replies as usize));
        assert_eq!(greeting, (!commands.is_empty()).then_some((bytes.clone(), commands.len())), "{expected}");

        // The server half accepts it, and the client half what that says.
        let (_, server) = answered(&[&bytes], 4096);
        let mut state = ClientState::default();
        let mut at = 0;
        for _ in &commands {
            state.kind = GREETING;
            let consumed = client.consume(&mut state, &server.sent[at..]).unwrap();
            assert_eq!(consumed.reply.unwrap().outcome, Outcome::Ok, "{expected}");
            at += consumed.bytes;
        }
        assert_eq!(at, server.sent.len());
    }
}

fn server(store: &Arc<Store>, room: usize) -> ServerCaller {
    let options = ServerOptions { size: 10, store: Arc::clone(store), ..ServerOptions::default() };
    ServerCaller::new((redis::PROTOCOL.server)(&options).unwrap(), room, usize::MAX)
}

/// What a server says to the pieces of a stream.
fn answered(pieces: &[&[u8]], room: usize) -> (String, ServerCaller) {
    let mut server = server(&Arc::default(), room);
    for piece in pieces {
        server.feed(piece);
        // Of a peer that is turned away the rest is never looked at.
        assert!(server.kept.len() < MAX_KEPT || server.next == Next::Reject, "{:?}", server.next);
    }
    let end = match server.next {
        Next::Read => "",
        Next::Close => "(close)",
        Next::Reject => "(reject)",
        Next::Flush => panic!("there was room"),
    };
    (String::from_utf8_lossy(&server.sent).into_owned() + end, server)
}

/// Each stream, whole and cut at each place, through outputs of any size, is answered by this text.
fn check_server(table: &[(&str, &str)]) {
    for (stream, expected) in table {
        let stream = stream.as_bytes();
        let shown = String::from_utf8_lossy(&stream[..stream.len().min(200)]);
        let (said, whole) = answered(&[stream], 1 << 20);
        assert_eq!(said, *expected, "{shown:?}");
        for at in (0..=stream.len()).step_by(1 + stream.len() / 500) {
            let (said, cut) = answered(&[&stream[..at], &stream[at..]], MIN_OUTPUT);
            assert_eq!(said, *expected, "{shown:?} cut at {at}");
            assert_eq!((cut.requests, cut.replies), (whole.requests, whole.replies), "{shown:?} cut at {at}");
        }
        assert_eq!(whole.requests, whole.replies, "{shown:?}");
    }
}

#[test]
fn what_the_server_answers() {
    check_server(&[
        ("PING\r\n", "+PONG\r\n"),
        ("ping\n", "+PONG\r\n"),
        ("\r\n\r\nPING hello\r\n", "$5\r\nhello\r\n"),
        ("ECHO \"a b\\x41\"\r\n", "$4\r\na bA\r\n"),
        ("*1\r\n$4\r\nPING\r\n*0\r\n*-10\r\n*1\r\n$4\r\nPiNg\r\n", "+PONG\r\n+PONG\r\n"),
        ("*2\r\n$4\r\nECHO\r\n$0\r\n\r\n", "$0\r\n\r\n"),
        ("GET a\r\nSET a xyz\r\nGET a\r\nSTRLEN a\r\nTYPE a\r\n", "$-1\r\n+OK\r\n$3\r\nxyz\r\n:3\r\n+string\r\n"),
        (
            "MSET a 1 b 2\r\nGET b\r\nDBSIZE\r\nEXISTS a b c\r\nDEL a c\r\nDBSIZE\r\n",
            "+OK\r\n$1\r\n2\r\n:2\r\n:2\r\n:1\r\n:1\r\n",
        ),
        ("INCR n\r\nINCR n\r\nDECR n\r\nINCRBY n 40\r\nGET n\r\n", ":1\r\n:2\r\n:1\r\n:41\r\n$2\r\n41\r\n"),
        ("SET n x\r\nINCR n\r\n", "+OK\r\n-ERR value is not an integer or out of range\r\n"),
        ("SET n 9223372036854775807\r\nINCR n\r\n", "+OK\r\n-ERR increment or decrement would overflow\r\n"),
        ("SET a 1\r\nFLUSHALL\r\nGET a\r\n", "+OK\r\n+OK\r\n$-1\r\n"),
        ("SELECT 15\r\nSELECT 16\r\nAUTH x\r\n", "+OK\r\n-ERR DB index is out of range\r\n+OK\r\n"),
        ("GET\r\n", "-ERR wrong number of arguments for 'get' command\r\n"),
        ("MSET a 1 b\r\n", "-ERR wrong number of arguments for 'mset' command\r\n"),
        ("LPUSH a\u{1} 1\r\nL\u{1} x\r\n", "-ERR unknown command 'LPUSH'\r\n-ERR unknown command 'L.'\r\n"),
        ("COMMAND DOCS\r\nCLIENT SETINFO LIB-NAME x\r\n", "*0\r\n+OK\r\n"),
        ("CONFIG GET save\r\n", "*2\r\n$4\r\nsave\r\n$0\r\n\r\n"),
        ("CONFIG GET appendonly\r\n", "*2\r\n$10\r\nappendonly\r\n$2\r\nno\r\n"),
        ("QUIT\r\nPING\r\n", "+OK\r\n(close)"),
        ("HELLO 4\r\n", "-NOPROTO unsupported protocol version\r\n"),
    ]);
    let (said, _) = answered(&[b"HELLO 3\r\nGET a\r\nHELLO 2\r\nGET a\r\n"], 4096);
    assert!(said.starts_with("%4\r\n") && said.contains("$5\r\nproto\r\n:3\r\n_\r\n*8\r\n"), "{said}");
    assert!(said.ends_with(":2\r\n$-1\r\n"), "{said}");
}

/// As Redis has it (its tests/unit/protocol.tcl).
#[test]
fn requests_that_the_server_refuses() {
    let refused = |what: &str| format!("-ERR Protocol error: {what}\r\n(reject)");
    let endless = "x".repeat(MAX_KEPT);
    let long = format!("*{}", "1".repeat(64));
    let long_bulk = format!("*1\r\n${}", "1".repeat(64));
    let set = |length: &str| format!("*3\r\n$3\r\nSET\r\n$1\r\nx\r\n{length}\r\n");
    let table = [
        ("*3000000000\r\n".to_owned(), "invalid multibulk length"),
        ("*1048577\r\n".into(), "invalid multibulk length"),
        ("*x\r\n".into(), "invalid multibulk length"),
        ("*1\n".into(), "invalid multibulk length"),
        (set("fooz"), "expected '$', got 'f'"),
        (set("$-10"), "invalid bulk length"),
        (set("$2000000000"), "invalid bulk length"),
        (set("$blabla"), "invalid bulk length"),
        ("*1\r\nfoo\r\n".into(), "expected '$', got 'f'"),
        ("*1\r\n\0".into(), "expected '$', got ' '"),
        ("*1\r\n$4\r\nPINGxx".into(), "expected CR LF behind a bulk string"),
        ("set \"\"\"test-key\"\"\" test-value\r\n".into(), "unbalanced quotes in request"),
        (endless, "too big inline request"),
        (long, "too big mbulk count string"),
        (long_bulk, "too big bulk count string"),
    ];
    for (stream, what) in &table {
        check_server(&[(stream, &refused(what))]);
    }
    check_server(&[("PING\r\n*1\r\nfoo\r\n", &("+PONG\r\n".to_owned() + &refused("expected '$', got 'f'")))]);
}

fn set(key: &str, value: &str) -> String {
    format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n{value}\r\n", key.len(), value.len())
}

#[test]
fn values_up_to_a_request_are_kept_and_longer_requests_are_skipped() {
    let overhead = set("a", &"x".repeat(10_000)).len() - 10_000;
    let longest = "x".repeat(MAX_KEPT - overhead);
    let refused = "-ERR request longer than 64 KiB: loadgen-server takes none\r\n";
    let get = format!("${}\r\n{longest}\r\n", longest.len());
    let many = format!("*30000\r\n{}", "$1\r\na\r\n".repeat(30_000));
    check_server(&[
        (&(set("a", &longest) + "GET a\r\nPING\r\n"), &format!("+OK\r\n{get}+PONG\r\n")),
        (&(set("a", &(longest.clone() + "x")) + "GET a\r\n"), &format!("{refused}$-1\r\n")),
        (&(set("a", &"x".repeat(300_000)) + "PING\r\n"), &format!("{refused}+PONG\r\n")),
        (&(many + "PING\r\n"), &format!("{refused}+PONG\r\n")),
        (
            &(set("a", &"x".repeat(100_000)).trim_end().to_owned() + "xx"),
            "-ERR Protocol error: expected CR LF behind a bulk string\r\n(reject)",
        ),
    ]);
}

/// A reply that goes out in pieces keeps the length that it began with, whatever becomes of the value.
#[test]
fn a_value_that_changes_while_it_is_sent_breaks_nothing() {
    for after in ["", "y", &"y".repeat(5000)] {
        let store = Arc::<Store>::default();
        store.lock().set(b"a", &[b'x'; 1000], 0).unwrap();
        let mut server =
            (redis::PROTOCOL.server)(&ServerOptions { size: 1, store: Arc::clone(&store), ..ServerOptions::default() })
                .unwrap();
        let mut state = ServerState::default();
        let mut out = Output::new(MIN_OUTPUT);
        let first = server.serve(&mut state, b"GET a\r\n", false, &mut out);
        assert_eq!((first.next, first.consumed, first.requests), (Next::Flush, 0, 0));
        if after.is_empty() {
            _ = store.lock().remove(b"a")
        } else {
            store.lock().set(b"a", after.as_bytes(), 0).unwrap()
        }
        let mut sent = out.bytes().to_vec();
        let mut replies = 0;
        while replies == 0 {
            out.clear();
            replies = server.serve(&mut state, b"GET a\r\n", false, &mut out).replies;
            sent.extend_from_slice(out.bytes());
        }
        assert!(sent.starts_with(b"$1000\r\n") && sent.ends_with(b"\r\n") && sent.len() == 1009);
    }
}

#[test]
fn all_threads_are_in_the_statistics() {
    let store = Arc::<Store>::default();
    let mut first = server(&store, 4096);
    let mut second = server(&store, 4096);
    first.feed(b"SET a 1\r\nGET a\r\nGET b\r\n");
    second.feed(b"GET a\r\nnonsense\r\nINFO commandstats\r\n");
    let said = String::from_utf8_lossy(&second.sent);
    for line in ["cmdstat_get:calls=3\r\n", "cmdstat_set:calls=1\r\n", "cmdstat_unknown:calls=1\r\n"] {
        assert!(said.contains(line), "{said}");
    }
    assert!(said.starts_with("$1\r\n1\r\n"), "{said}");
}

#[test]
fn garbage_of_redis_is_survived_and_bounded() {
    const WORDS: &[&str] = &[
        "\r\n",
        "*1\r\n",
        "*3\r\n",
        "$3\r\n",
        "$-1\r\n",
        "GET",
        "SET",
        "a\r\n",
        "$1\r\n",
        "+OK",
        "-ERR ",
        ":1",
        "_\r\n",
        "#t\r\n",
        "%1\r\n",
        "~2\r\n",
        "|1\r\n",
        ">1\r\n",
        "=7\r\n",
        "txt:abc\r\n",
        "!3\r\n",
        ",1.5\r\n",
        "(1",
        "*-1\r\n",
        "$4294967296\r\n",
        "*9223372036854775807\r\n",
        "$100000\r\n",
        "*1048576\r\n",
        "\0",
        "\"",
        "PING\r\n",
    ];
    let mut rng = Rng::new(6379);
    let variants: Vec<_> = variants().into_iter().chain([resp3(typed(&["anything"]))]).collect();
    for round in 0..20_000 {
        let words = (0..rng.below(40)).flat_map(|_| WORDS[rng.below(WORDS.len() as u64) as usize].bytes());
        let input: Vec<u8> = words.collect();
        let mut client = ClientCaller::new(redis::PROTOCOL.codec(&variants[round % variants.len()]).unwrap());
        let mut server = server(&Arc::default(), MIN_OUTPUT);
        let size = 1 + rng.below(20) as usize;
        for piece in input.chunks(size) {
            client.feed(piece);
            server.feed(piece);
        }
        assert!(client.error.is_some() || client.kept.len() < 100 + input.len().min(64));
        assert!(server.kept.len() <= input.len());
        client.finish();
        server.eof();
    }
}

/// What is said on a connection where nothing was asked, cut anywhere.
#[test]
fn a_server_may_say_that_it_turns_a_connection_away() {
    use loadgen_core::protocol::Unasked::{More, Nothing, TurnedAway};
    let client = redis::PROTOCOL.codec(&options(64)).unwrap();
    for said in ["-ERR max number of clients reached\r\n", "-DENIED Redis is running in protected mode\r\n"] {
        for end in 1..said.len() {
            assert_eq!(client.unasked(&said.as_bytes()[..end]), More, "{:?}", &said[..end]);
        }
        assert_eq!(client.unasked(said.as_bytes()), TurnedAway);
    }
    for said in ["+PONG\r\n", "-ERR other\r\n", "-LOADING\r\n", "-ERR max number of clients\rx", ":1"] {
        assert_eq!(client.unasked(said.as_bytes()), Nothing, "{said:?}");
    }
}
