//! Scenario files: what they mean, what is refused, and which requests come of them.

use loadgen_core::protocol::ask::Asker;
use loadgen_core::protocol::{self, ClientOptions, ClientState, Codec, Outcome};
use loadgen_core::scenario::{Scenario, nearest};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Files that scenarios name.
fn files(name: &str) -> Result<Vec<u8>, String> {
    match name {
        "lines" => Ok(b"alpha\r\n\nbeta\ngamma".to_vec()),
        "body.json" => Ok(b"{\"a\": {b}}".to_vec()),
        "blank" => Ok(b"a b\n".to_vec()),
        "empty" => Ok(b"\n\n".to_vec()),
        "list" => Ok(b"GET /1\nHEAD /2\nGET /3\nPUT /4\nGET /5\n".to_vec()),
        "bad list" => Ok(b"GET /1\nGET\n".to_vec()),
        _ => Err(format!("cannot read {name}")),
    }
}

fn parse(text: &str) -> Result<Scenario, String> {
    Scenario::parse("shop.toml", text, &mut files)
}

fn options(text: &str, seed: u64, worker: (u64, u64)) -> ClientOptions {
    ClientOptions {
        authority: "localhost".into(),
        path: "/".into(),
        method: "GET".into(),
        seed,
        worker,
        scenario: Some(Arc::new(parse(text).unwrap())),
        ..ClientOptions::default()
    }
}

fn client(text: &str, seed: u64, worker: (u64, u64)) -> Box<dyn Codec> {
    protocol::by_name("http").unwrap().codec(&options(text, seed, worker)).unwrap()
}

/// So many requests as one session after the other.
fn composed(client: &mut dyn Codec, count: usize) -> Vec<String> {
    composed_by(Asker::new(1, 0), client, count)
}

fn composed_by(mut asker: Asker, client: &mut dyn Codec, count: usize) -> Vec<String> {
    let mut one = || {
        let mut bytes = Vec::new();
        asker.ask(|ask| client.compose(ask, &mut bytes));
        String::from_utf8(bytes).unwrap()
    };
    (0..count).map(|_| one()).collect()
}

fn paths(requests: &[String]) -> Vec<&str> {
    requests.iter().map(|request| request.split(' ').nth(1).unwrap()).collect()
}

const SHOP: &str = r#"
name = "shop"
[defaults]
conns = 50
duration = "3s"
header = ["A: b", "C: d"]
quiet = true
strict = false
[keys]
count = 100
value_size = "16..32"
[[target]]
url = "http://127.0.0.1:1"
weight = 3
[[target]]
url = "http://127.0.0.1:2"
[[request]]
name = "browse"
path = "/item/{random:1..1000}?k={key}"
headers = ["Accept: text/html"]
[[request]]
name = "cart"
method = "POST"
path = "/cart"
body = '{"id": {counter}, "deep": {"hex": "{hex:5}"}}'
weight = 2
[[request]]
name = "pay"
method = "PUT"
path = "/pay/{uuid}"
body_file = "body.json"
[[script]]
name = "buy"
weight = 3
steps = ["browse", { request = "cart", think = "exp:1s" }, "pay"]
"#;

#[test]
fn a_file_is_understood() {
    let scenario = parse(SHOP).unwrap();
    let flags: Vec<String> = scenario.flags.iter().map(|flag| format!("{}={:?}", flag.name, flag.values)).collect();
    let expected = [
        "conns=[Some(\"50\")]",
        "duration=[Some(\"3s\")]",
        "header=[Some(\"A: b\"), Some(\"C: d\")]",
        "quiet=[None]",
        "strict=[]",
        "keys=[Some(\"100\")]",
        "value-size=[Some(\"16..32\")]",
        "target=[Some(\"http://127.0.0.1:1\"), Some(\"http://127.0.0.1:2\")]",
        "weights=[Some(\"3,1\")]",
    ];
    assert_eq!(flags, expected);
    assert_eq!(scenario.flags[0].line, 4);
    assert_eq!(scenario.summary(), ["buy=3 (browse cart pay)", "cart=2"]);
    assert_eq!(scenario.think(0), None);
    let thinks: Vec<_> = (0..3).map(|step| scenario.think(1 << 16 | step).map(|think| think.describe())).collect();
    assert_eq!(thinks, [None, Some("exp:1s".to_owned()), None]);
    assert_eq!(parse("").unwrap().name, "shop");
    assert!(!parse("[defaults]\nconns = 3").unwrap().has_requests());
}

#[test]
fn requests_have_what_the_file_says() {
    let mut client = client(SHOP, 7, (0, 1));
    assert_eq!(client.kinds(), ["browse", "cart", "pay"]);
    let mut asker = Asker::new(7, 0);
    let mut sessions = 0;
    for _ in 0..300 {
        let before = asker.cursor;
        let mut bytes = Vec::new();
        let kind = asker.ask(|ask| client.compose(ask, &mut bytes));
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let lines: Vec<&str> = head.split("\r\n").collect();
        assert_eq!(lines[1], "Host: localhost");
        match kind {
            0 => {
                assert!(lines[0].starts_with("GET /item/") && lines[0].contains("?k=key:"), "{text}");
                assert_eq!((&lines[2..], body), (&["Accept: text/html"][..], ""));
                assert_eq!(before, 0);
            }
            1 => {
                assert_eq!(lines[2], format!("Content-Length: {}", body.len()));
                let json: serde_json::Value = serde_json::from_str(body).unwrap();
                assert_eq!(json["deep"]["hex"].as_str().unwrap().len(), 5);
            }
            _ => {
                assert_eq!((lines[2], body), ("Content-Length: 10", "{\"a\": {b}}"));
                let uuid = lines[0].split(['/', ' ']).nth(3).unwrap();
                assert!(uuid.len() == 36 && uuid.as_bytes()[14] == b'4' && b"89ab".contains(&uuid.as_bytes()[19]));
                assert!(asker.cursor == 0 && before != 0);
            }
        }
        sessions += usize::from(asker.cursor == 0);
    }
    assert!((100..200).contains(&sessions), "{sessions}");
}

#[test]
fn the_same_seed_gives_the_same_requests_and_another_seed_others() {
    let of = |seed, worker| composed_by(Asker::new(seed, 0), &mut *client(SHOP, seed, worker), 200);
    assert_eq!(of(1, (0, 2)), of(1, (0, 2)));
    assert_ne!(of(1, (0, 2)), of(2, (0, 2)));
    assert_ne!(of(1, (0, 2)), of(1, (1, 2)));
}

#[test]
fn counters_are_unique_over_all_workers_and_the_same_within_a_request() {
    let text = "[[request]]\npath = '/{counter}/{counter}/{counter:own}'\n[[request]]\npath = '/b/{counter:own}'\n";
    let (mut numbers, mut own) = (BTreeSet::new(), BTreeSet::new());
    for worker in 0..3 {
        for path in paths(&composed(&mut *client(text, 1, (worker, 3)), 100)) {
            let parts: Vec<&str> = path.split('/').collect();
            if parts[1] != "b" {
                assert_eq!(parts[1], parts[2]);
                assert!(numbers.insert(parts[1].parse::<u64>().unwrap()), "{path}");
            }
            assert!(own.insert(parts.last().unwrap().parse::<u64>().unwrap()), "{path}");
        }
    }
    assert_eq!(own.len(), 300);
    assert!(own.contains(&0) && *own.last().unwrap() == 299, "every worker has every third");
}

#[test]
fn lines_come_in_order_and_are_shared_out() {
    let text = "[[request]]\npath = '/{line:lines}/{line:lines}'\n";
    assert_eq!(
        paths(&composed(&mut *client(text, 1, (0, 1)), 4)),
        ["/alpha/alpha", "/beta/beta", "/gamma/gamma", "/alpha/alpha"]
    );
    assert_eq!(paths(&composed(&mut *client(text, 1, (1, 2)), 2)), ["/beta/beta", "/alpha/alpha"]);
    let random =
        composed(&mut *client("[[request]]\npath = '/{random_line:lines}/{random_line:lines}'", 1, (0, 1)), 50);
    let seen: BTreeSet<&str> = paths(&random).into_iter().collect();
    assert_eq!(seen, BTreeSet::from(["/alpha/alpha", "/beta/beta", "/gamma/gamma"]));
}

#[test]
fn gaps_stay_within_their_bounds() {
    let text =
        "[[request]]\npath = '/{random:9..11}/{pick:x||yy}/{hex:33}/{{a}/{ }/{value}/{random:0..18446744073709551615}'";
    // Blanks are refused in a path, so this one is a body.
    let text = text.replace("path = '", "path = '/'\nmethod = 'POST'\nbody = '");
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for request in composed(&mut *client(&text, 3, (0, 1)), 200) {
        let body = request.split_once("\r\n\r\n").unwrap().1.to_owned();
        let parts: Vec<&str> = body.split('/').collect();
        assert!((9..=11).contains(&parts[1].parse::<u64>().unwrap()));
        assert!(["x", "", "yy"].contains(&parts[2]));
        assert!(parts[3].len() == 33 && parts[3].bytes().all(|b| b.is_ascii_hexdigit()));
        assert_eq!(parts[4..6], ["{a}", "{ }"]);
        parts[7].parse::<u64>().unwrap();
        *seen.entry(format!("{} {}", parts[1], parts[2])).or_default() += 1;
    }
    assert_eq!(seen.len(), 9, "{seen:?}");
}

#[test]
fn a_recorded_list_is_played_in_order_and_shared_out() {
    let text = "[recorded]\nfile = 'list'\n";
    let mut one = client(text, 1, (0, 1));
    assert_eq!(one.kinds(), ["GET", "HEAD", "PUT"]);
    let requests = composed(&mut *one, 6);
    assert_eq!(paths(&requests), ["/1", "/2", "/3", "/4", "/5", "/1"]);
    assert_eq!(requests[3], "PUT /4 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    let of = |worker| composed(&mut *client(text, 1, (worker, 3)), 5);
    let all: Vec<Vec<String>> = (0..3).map(of).collect();
    let mut played: Vec<&str> = all.iter().flat_map(|requests| paths(requests)).collect();
    played.sort_unstable();
    assert_eq!(played, ["/1", "/1", "/1", "/2", "/2", "/2", "/3", "/3", "/3", "/4", "/4", "/4", "/5", "/5", "/5"]);
    let random = composed(&mut *client("[recorded]\nfile = 'list'\norder = 'random'", 1, (0, 1)), 50);
    assert!(
        paths(&random).iter().collect::<BTreeSet<_>>().len() == 5
            && paths(&random)[..5] != ["/1", "/2", "/3", "/4", "/5"]
    );
}

/// The reply to HEAD has a length and no body, and a client must know which reply that is.
#[test]
fn replies_to_head_are_told_apart() {
    let text = "[[request]]\nmethod = 'HEAD'\npath = '/a'\n[[request]]\npath = '/b'\n";
    let mut client = client(text, 1, (0, 1));
    let reply = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
    let body = [&reply[..], b"abc"].concat();
    for _ in 0..3 {
        for (kind, bytes) in [(0, &reply[..]), (1, &body[..]), (1, &body[..]), (0, &reply[..]), (0, &reply[..])] {
            let mut state = ClientState { kind, ..ClientState::default() };
            let consumed = client.consume(&mut state, bytes).unwrap();
            assert_eq!(consumed.bytes, bytes.len());
            assert_eq!(consumed.reply.unwrap().outcome, Outcome::Ok);
        }
    }
}

#[test]
fn a_single_request_that_never_changes_takes_the_fast_path() {
    let text = "[[request]]\nmethod = 'POST'\npath = '/a'\nbody = 'x{{y}'\n";
    let one = client(text, 1, (0, 1));
    assert!(!one.composes() && one.kinds() == ["request1"]);
    assert_eq!(one.request(), b"POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nx{y}");
    assert!(client("[[request]]\npath = '/{counter}'", 1, (0, 1)).composes());
}

#[test]
fn a_buffer_that_is_large_enough_is_kept() {
    let mut client = client(SHOP, 7, (0, 1));
    let (mut out, mut asker) = (Vec::with_capacity(4096), Asker::new(7, 0));
    for _ in 0..1_000 {
        out.clear();
        asker.ask(|ask| client.compose(ask, &mut out));
        assert_eq!(out.capacity(), 4096);
    }
}

#[test]
fn flags_give_headers_to_all_requests_that_have_none_of_their_own() {
    let mut options = options("[[request]]\npath = '/'\nheaders = ['accept: b', 'X: {counter}']", 1, (0, 1));
    options.headers = vec![("Accept".into(), "a".into()), ("Y".into(), " z ".into())];
    let mut client = protocol::by_name("http").unwrap().codec(&options).unwrap();
    let request = composed(&mut *client, 1).remove(0);
    assert_eq!(request, "GET / HTTP/1.1\r\nHost: localhost\r\nY: z\r\naccept: b\r\nX: 0\r\n\r\n");
}

#[test]
fn what_is_dumped_is_read_as_the_same() {
    for text in [
        SHOP,
        "[recorded]\nfile = 'list'\norder = 'random'",
        "[[request]]\ncommand = 'GET {key}'\n",
        "[[request]]\npath = '/{line:lines}{{line:x}{random_line:lines}'\n\
            headers = ['X: \"\\']\nbody = \"a\\r\\n\\u0001\"\n",
    ] {
        let scenario = parse(text).unwrap();
        let dumped = scenario.requests_as_toml(&|file| file.to_owned());
        let again = parse(&dumped).unwrap_or_else(|why| panic!("{why}: {dumped}"));
        assert_eq!(again.requests_as_toml(&|file| file.to_owned()), dumped);
        assert_eq!((again.digest(), again.summary()), (scenario.digest(), scenario.summary()));
        let moved = scenario.requests_as_toml(&|file| format!("/far/{file}"));
        let moved = Scenario::parse("x", &moved, &mut |name: &str| files(name.strip_prefix("/far/").unwrap())).unwrap();
        assert_eq!(moved.digest(), scenario.digest());
    }
}

#[test]
fn whatever_changes_the_requests_changes_the_digest() {
    let mut digests = BTreeSet::new();
    for text in [
        "[[request]]\npath = '/a'",
        "[[request]]\npath = '/b'",
        "[[request]]\npath = '/a'\nweight = 2",
        "[[request]]\npath = '/a'\nmethod = 'PUT'",
        "[[request]]\npath = '/a'\nheaders = ['A: b']",
        "[[request]]\npath = '/a'\nbody = 'b'",
        "[[request]]\npath = '/a'\nbody_file = 'lines'",
        "[[request]]\npath = '/a'\nbody_file = 'blank'",
        "[[request]]\npath = '/{line:lines}'",
        "[[request]]\npath = '/{line:list}'",
        "[recorded]\nfile = 'list'",
        "[recorded]\nfile = 'list'\norder = 'random'",
    ] {
        assert!(digests.insert(parse(text).unwrap().digest()), "{text}");
    }
    assert_eq!(
        parse("# a\n[[request]]\npath='/a'").unwrap().digest(),
        parse("[[request]]\npath = \"/a\"").unwrap().digest()
    );
}

/// Files that are refused, where, and a word of the message.
const BAD: &[(&str, usize, &str)] = &[
    ("a = [", 1, "unclosed array"),
    ("\n[requests]\n", 2, "did you mean 'request'?"),
    ("[[request]]\npath = '/'\nwieght = 3", 3, "did you mean 'weight'?"),
    ("[[request]]\npath = '/'\nzzzzz = 3", 3, "there are name, weight"),
    ("[[request]]\npath = 3", 2, "expected a string"),
    ("[[request]]\nweight = 1", 1, "lacks its path"),
    ("[[request]]\npath = '/'\nweight = -1", 3, "invalid value"),
    ("[[request]]\npath = '/{cuonter}'", 2, "did you mean 'counter'?"),
    ("[[request]]\npath = '/{random:9..1}'", 2, "least first"),
    ("[[request]]\npath = '/{hex:0}'", 2, "1 to 65536"),
    ("[[request]]\npath = '/{hex'", 2, "no closing brace"),
    ("[[request]]\npath = '/{line:nowhere}'", 2, "cannot read nowhere"),
    ("[[request]]\npath = '/{line:empty}'", 2, "no lines"),
    ("[[request]]\npath = '/'\nbody = 'a'\nbody_file = 'lines'", 4, "does not go with body"),
    ("[[request]]\npath = '/'\nheaders = ['no colon']", 3, "Name: value"),
    ("[[request]]\nname = 'a'\npath = '/'\n[[request]]\nname = 'a'\npath = '/'", 5, "twice"),
    ("[[request]]\nname = 'a'\npath = '/'\n[[script]]\nname = 's'\nsteps = ['b']", 6, "no request 'b'"),
    ("[[request]]\nname = 'a'\npath = '/'\n[[script]]\nname = 's'\nsteps = []", 4, "steps"),
    ("[[request]]\nname = 'a'\npath = '/'\n[[script]]\nname = 's'\nsteps = [{request='a', think='x'}]", 6, "x"),
    ("[[request]]\npath = '/'\nweight = 0", 1, "never made"),
    ("[[request]]\nname = 'a'\npath = '/'\n[[script]]\nname = 's'\nweight = 0\nsteps = ['a']", 4, "weights are 0"),
    ("[[request]]\npath = '/'\n[[request]]\ncommand = 'GET a'", 3, "two protocols"),
    ("[[request]]\npath = '/'\ncommand = 'GET a'", 3, "whole request"),
    ("[recorded]\nfile = 'list'\norder = 'backwards'", 3, "listed, random"),
    ("[recorded]\nfile = 'bad list'", 2, "line 2 of bad list"),
    ("[[request]]\npath = '/'\n[recorded]\nfile = 'list'", 3, "does not go with"),
    ("name = ''", 1, "name"),
    ("[defaults]\nconns = { a = 1 }", 2, "a number or a text"),
    ("[defaults]\nkeys = 3\n[keys]\ncount = 4", 3, "said twice"),
];

#[test]
fn bad_files_are_refused_in_one_line() {
    for (text, line, word) in BAD {
        let error = parse(text).unwrap_err();
        assert!(error.starts_with(&format!("shop.toml, line {line}: ")), "{text}: {error}");
        assert!(error.contains(word) && !error.contains(['\n', '\r']), "{text}: {error}");
    }
}

#[test]
fn requests_that_would_be_broken_are_refused() {
    for (text, word) in [
        ("[[request]]\npath = 'a'", "does not start"),
        ("[[request]]\npath = '{random:1..2}'", "does not start"),
        ("[[request]]\npath = '{pick:/a|b}'", "does not start"),
        ("[[request]]\npath = '{line:lines}'", "does not start"),
        ("[[request]]\npath = '/{pick:a|b c}'", "blanks"),
        ("[[request]]\npath = '/{line:blank}'", "blanks"),
        ("[[request]]\npath = \"/\\r\\nX: y\"", "blanks"),
        ("[[request]]\npath = '/'\nmethod = 'GE T'", "no HTTP method"),
        ("[[request]]\npath = '/'\nmethod = 'CONNECT'", "tunnel"),
        ("[[request]]\npath = '/'\nheaders = [\"A: {pick:a|\\r\\nB: c}\"]", "control characters"),
        ("[[request]]\npath = '/'\nheaders = [\"A: b\\r\\nB: c\"]", "control characters"),
        ("[[request]]\npath = '/'\nheaders = ['{key}: c']", "not allowed"),
        ("[[request]]\npath = '/'\nheaders = ['Content-Length: 5']", "follows from the body"),
        ("[[request]]\npath = '/'\nheaders = ['Host: a', 'host: b']", "twice"),
        ("[[request]]\ncommand = 'GET a'", "no commands"),
    ] {
        let error = protocol::by_name("http").unwrap().codec(&options(text, 1, (0, 1))).map(|_| ()).unwrap_err();
        assert!(error.starts_with("shop.toml, line 1: request 'request1': "), "{text}: {error}");
        assert!(error.contains(word) && !error.contains(['\n', '\r']), "{text}: {error}");
    }
    let mut options = options("[[request]]\npath = '/{key}'", 1, (0, 1));
    options.keyspace.prefix = "a b".into();
    assert!(protocol::by_name("http").unwrap().codec(&options).is_err());
}

#[test]
fn slips_of_the_keyboard_are_guessed() {
    let known = ["weight", "path", "method", "name"];
    for (typed, meant) in [("wieght", "weight"), ("pth", "path"), ("Path", "path"), ("methods", "method")] {
        assert_eq!(nearest(typed, known.into_iter()), Some(meant), "{typed}");
    }
    assert_eq!(nearest("zebra", known.into_iter()), None);
}

#[test]
fn the_documentation_is_right() {
    let page = include_str!("../docs/scenarios.md");
    let mut read = |_: &str| Ok(b"GET /1\n".to_vec());
    let blocks: Vec<&str> = page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 2);
    for block in blocks {
        assert!(Scenario::parse("docs", block, &mut read).unwrap().has_requests(), "{block}");
    }
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `{")).collect();
    assert_eq!(rows.len(), 10);
    for row in rows {
        let example = row.replace("\\|", "\u{1}").split('|').nth(3).unwrap().trim().replace('\u{1}', "|");
        let text = format!("[[request]]\npath = '/'\nbody = '{}'\n", example.trim_matches('`'));
        let scenario = Arc::new(Scenario::parse("docs", &text, &mut read).unwrap());
        let options = ClientOptions {
            authority: "localhost".into(),
            path: "/".into(),
            method: "GET".into(),
            scenario: Some(scenario),
            ..ClientOptions::default()
        };
        let client = protocol::by_name("http").unwrap().codec(&options).unwrap();
        let request = String::from_utf8_lossy(client.request()).into_owned();
        assert!(client.composes() && !request.contains('{'), "{row}: {request}");
    }
}

#[test]
fn a_first_step_cannot_think() {
    let text = "[[request]]\nname = 'a'\npath = '/'\n[[script]]\nname = 's'\nsteps = ['a', STEP]\n";
    let step = "{ request = 'a', think = 'fixed:1s' }";
    assert!(parse(&text.replace("STEP", step)).unwrap().thinks());
    assert!(!parse(&text.replace("STEP", "'a'")).unwrap().thinks());
    let why = parse(&text.replace("'a', STEP", step)).unwrap_err();
    assert!(why.starts_with("shop.toml, line 6: the first step"), "{why}");
}
