//! What the server half does when it is asked to.

use super::request::Words;
use super::resp::{self, put_bulk, put_head};
use crate::protocol::store::{Inner, Store};
use std::fmt::Write as _;

/// A command that is known.
#[derive(Debug)]
struct Command {
    /// In lower case, as in `INFO commandstats`.
    name: &'static str,
    /// Words of a request, the name included; where negative: at least so many.
    arity: i32,
    act: fn(&Request<'_>, &mut Inner, &mut ConnectionState, &mut Vec<u8>),
}

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    pub(super) words: &'a Words,
    pub(super) input: &'a [u8],
    pub(super) store: &'a Store,
}

impl<'a> Request<'a> {
    fn word(&self, index: usize) -> &'a [u8] {
        self.words.get(self.input, index)
    }

    fn is(&self, index: usize, word: &str) -> bool {
        self.word(index).eq_ignore_ascii_case(word.as_bytes())
    }
}

/// What is remembered of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionState {
    pub(super) resp3: bool,
    /// This reply is the last.
    pub(super) closes: bool,
}

const fn known(
    name: &'static str,
    arity: i32,
    act: fn(&Request<'_>, &mut Inner, &mut ConnectionState, &mut Vec<u8>),
) -> Command {
    Command { name, arity, act }
}

/// Those of a load first.
const COMMANDS: &[Command] = &[
    known("get", 2, get),
    known("set", -3, set),
    known("ping", -1, ping),
    known("incr", 2, |request, entries, _, out| add(request, entries, Some(1), out)),
    known("mset", -3, mset),
    known("del", -2, del),
    known("unlink", -2, del),
    known("exists", -2, exists),
    known("decr", 2, |request, entries, _, out| add(request, entries, Some(-1), out)),
    known("incrby", 3, |request, entries, _, out| add(request, entries, resp::integer(request.word(2)), out)),
    known("strlen", 2, |request, entries, _, out| {
        put_head(out, b':', entries.get(request.word(1)).map_or(0, |entry| entry.value.len() as i64));
    }),
    known("type", 2, |request, entries, _, out| {
        let there = entries.get(request.word(1)).is_some();
        out.extend_from_slice(if there { b"+string\r\n" } else { b"+none\r\n" });
    }),
    known("echo", 2, |request, _, _, out| put_bulk(out, request.word(1))),
    known("select", 2, select),
    // There is no password here, so that any will do.
    known("auth", -2, |_, _, _, out| out.extend_from_slice(OK)),
    known("hello", -1, hello),
    known("client", -2, client),
    known("config", -2, config),
    known("command", -1, |request, _, connection, out| {
        out.extend_from_slice(match (request.is(1, "count"), connection.resp3 && request.is(1, "docs")) {
            (true, _) => b":0\r\n",
            (_, true) => b"%0\r\n",
            _ => b"*0\r\n",
        });
    }),
    known("info", -1, info),
    known("dbsize", 1, |_, entries, _, out| put_head(out, b':', entries.len() as i64)),
    known("flushall", -1, clear),
    known("flushdb", -1, clear),
    known("quit", -1, |_, _, connection, out| {
        connection.closes = true;
        out.extend_from_slice(OK);
    }),
];

/// The index in the counts of what is no command that is known.
pub(super) const UNKNOWN: usize = COMMANDS.len();
/// How many counts there are.
pub(super) const COUNTS: usize = COMMANDS.len() + 1;

const OK: &[u8] = b"+OK\r\n";
const NOT_AN_INTEGER: &[u8] = b"-ERR value is not an integer or out of range\r\n";
const NO_ROOM: &[u8] = b"-OOM command not allowed when used memory > 'maxmemory'.\r\n";
const SYNTAX: &[u8] = b"-ERR syntax error\r\n";
/// The most bytes of an unknown name that are said again.
const NAME_SHOWN: usize = 32;

/// The index of a command in the counts: behind all that are known, where it is none of them.
pub(super) fn find(name: &[u8]) -> usize {
    let index = COMMANDS.iter().position(|command| command.name.as_bytes().eq_ignore_ascii_case(name));
    index.unwrap_or(UNKNOWN)
}

/// Carries out the command at that index, and appends the reply.
pub(super) fn answer(
    command: usize,
    request: &Request<'_>,
    entries: &mut Inner,
    connection: &mut ConnectionState,
    out: &mut Vec<u8>,
) {
    let Some(command) = COMMANDS.get(command) else {
        let name = shown(request.word(0));
        out.extend_from_slice(format!("-ERR unknown command '{name}'\r\n").as_bytes());
        return;
    };
    let words = request.words.len() as i32;
    if words == command.arity || command.arity < 0 && words >= -command.arity {
        (command.act)(request, entries, connection, out);
    } else {
        out.extend_from_slice(wrong_number(command.name).as_bytes());
    }
}

fn wrong_number(name: &str) -> String {
    format!("-ERR wrong number of arguments for '{name}' command\r\n")
}

/// The start of a word, for an error.
fn shown(word: &[u8]) -> String {
    let printable = |byte: &u8| if (b' '..0x7f).contains(byte) { char::from(*byte) } else { '.' };
    word.iter().take(NAME_SHOWN).map(printable).collect()
}

fn get(request: &Request<'_>, entries: &mut Inner, connection: &mut ConnectionState, out: &mut Vec<u8>) {
    match entries.get(request.word(1)) {
        Some(entry) => put_bulk(out, &entry.value),
        None if connection.resp3 => out.extend_from_slice(b"_\r\n"),
        None => out.extend_from_slice(b"$-1\r\n"),
    }
}

fn set(request: &Request<'_>, entries: &mut Inner, _: &mut ConnectionState, out: &mut Vec<u8>) {
    if request.words.len() > 3 {
        out.extend_from_slice(b"-ERR syntax error: loadgen-server knows no options of SET\r\n");
        return;
    }
    let stored = entries.set(request.word(1), request.word(2), 0);
    out.extend_from_slice(if stored.is_ok() { OK } else { NO_ROOM });
}

fn mset(request: &Request<'_>, entries: &mut Inner, _: &mut ConnectionState, out: &mut Vec<u8>) {
    if request.words.len().is_multiple_of(2) {
        out.extend_from_slice(wrong_number("mset").as_bytes());
        return;
    }
    // All of them, or none.
    let pairs = || (1..request.words.len()).step_by(2).map(|key| (request.word(key), request.word(key + 1)));
    let stored = entries.has_room_for(pairs()) && pairs().all(|(key, value)| entries.set(key, value, 0).is_ok());
    out.extend_from_slice(if stored { OK } else { NO_ROOM });
}

fn ping(request: &Request<'_>, _: &mut Inner, _: &mut ConnectionState, out: &mut Vec<u8>) {
    match request.words.len() {
        1 => out.extend_from_slice(b"+PONG\r\n"),
        2 => put_bulk(out, request.word(1)),
        _ => out.extend_from_slice(wrong_number("ping").as_bytes()),
    }
}

fn add(request: &Request<'_>, entries: &mut Inner, by: Option<i64>, out: &mut Vec<u8>) {
    let key = request.word(1);
    let before = entries.get(key).map_or(Some(0), |entry| resp::integer(&entry.value));
    let (Some(before), Some(by)) = (before, by) else {
        out.extend_from_slice(NOT_AN_INTEGER);
        return;
    };
    let Some(sum) = before.checked_add(by) else {
        out.extend_from_slice(b"-ERR increment or decrement would overflow\r\n");
        return;
    };
    put_head(out, b':', sum);
    // Without the colon and the end of the line.
    if entries.set(key, &out[1..out.len() - 2], 0).is_err() {
        out.clear();
        out.extend_from_slice(NO_ROOM);
    }
}

fn del(request: &Request<'_>, entries: &mut Inner, _: &mut ConnectionState, out: &mut Vec<u8>) {
    let removed = (1..request.words.len()).filter(|key| entries.remove(request.word(*key))).count();
    put_head(out, b':', removed as i64);
}

fn exists(request: &Request<'_>, entries: &mut Inner, _: &mut ConnectionState, out: &mut Vec<u8>) {
    let there = (1..request.words.len()).filter(|key| entries.get(request.word(*key)).is_some()).count();
    put_head(out, b':', there as i64);
}

fn clear(_: &Request<'_>, entries: &mut Inner, _: &mut ConnectionState, out: &mut Vec<u8>) {
    entries.clear();
    out.extend_from_slice(OK);
}

/// As many numbers as Redis has by default, and one set of keys behind all of them.
fn select(request: &Request<'_>, _: &mut Inner, _: &mut ConnectionState, out: &mut Vec<u8>) {
    out.extend_from_slice(match resp::integer(request.word(1)) {
        Some(0..16) => OK,
        Some(_) => b"-ERR DB index is out of range\r\n",
        None => NOT_AN_INTEGER,
    });
}

fn hello(request: &Request<'_>, _: &mut Inner, connection: &mut ConnectionState, out: &mut Vec<u8>) {
    match (request.words.len(), request.word(1)) {
        (1, _) => {}
        (_, b"2") => connection.resp3 = false,
        (_, b"3") => connection.resp3 = true,
        _ => {
            out.extend_from_slice(b"-NOPROTO unsupported protocol version\r\n");
            return;
        }
    }
    put_map(out, connection, 4);
    for (name, value) in [("server", "loadgen-server"), ("version", env!("CARGO_PKG_VERSION")), ("mode", "standalone")]
    {
        put_bulk(out, name.as_bytes());
        put_bulk(out, value.as_bytes());
    }
    put_bulk(out, b"proto");
    put_head(out, b':', if connection.resp3 { 3 } else { 2 });
}

fn put_map(out: &mut Vec<u8>, connection: &ConnectionState, pairs: i64) {
    if connection.resp3 { put_head(out, b'%', pairs) } else { put_head(out, b'*', 2 * pairs) }
}

fn client(request: &Request<'_>, _: &mut Inner, connection: &mut ConnectionState, out: &mut Vec<u8>) {
    if request.is(1, "setinfo") || request.is(1, "setname") {
        out.extend_from_slice(OK);
    } else if request.is(1, "getname") {
        out.extend_from_slice(if connection.resp3 { b"_\r\n" } else { b"$-1\r\n" });
    } else if request.is(1, "id") {
        out.extend_from_slice(b":1\r\n");
    } else {
        out.extend_from_slice(SYNTAX);
    }
}

/// What redis-benchmark asks for: nothing is written to disk.
fn config(request: &Request<'_>, _: &mut Inner, connection: &mut ConnectionState, out: &mut Vec<u8>) {
    if request.is(1, "resetstat") {
        request.store.reset_tallies();
        out.extend_from_slice(OK);
        return;
    }
    if !request.is(1, "get") || request.words.len() < 3 {
        out.extend_from_slice(SYNTAX);
        return;
    }
    let settings: [(&str, &str); 2] = [("save", ""), ("appendonly", "no")];
    let asked = |name: &str| (2..request.words.len()).any(|index| request.is(index, name));
    let found = || settings.iter().filter(|(name, _)| asked(name));
    put_map(out, connection, found().count() as i64);
    for (name, value) in found() {
        put_bulk(out, name.as_bytes());
        put_bulk(out, value.as_bytes());
    }
}

fn info(request: &Request<'_>, entries: &mut Inner, connection: &mut ConnectionState, out: &mut Vec<u8>) {
    let last = request.words.len() - 1;
    let wants = |section: &str, usual: bool| match last {
        0 => usual,
        _ => (1..=last).any(|index| request.is(index, section) || request.is(index, "all")),
    };
    let mut text = String::new();
    let mut line = |line: std::fmt::Arguments<'_>| write!(text, "{line}\r\n").expect("writing to a string");
    let counts = request.store.tallied(COUNTS);
    if wants("server", true) {
        line(format_args!("# Server\r\nloadgen_server_version:{}\r\nredis_mode:standalone", env!("CARGO_PKG_VERSION")));
    }
    if wants("stats", true) {
        line(format_args!("# Stats\r\ntotal_commands_processed:{}", counts.iter().sum::<u64>()));
    }
    if wants("commandstats", false) {
        line(format_args!("# Commandstats"));
        let names = COMMANDS.iter().map(|command| command.name).chain(["unknown"]);
        for (name, calls) in names.zip(&counts).filter(|(_, calls)| **calls > 0) {
            line(format_args!("cmdstat_{name}:calls={calls}"));
        }
    }
    if wants("keyspace", true) {
        line(format_args!("# Keyspace"));
        if !entries.is_empty() {
            line(format_args!("db0:keys={},expires=0,avg_ttl=0", entries.len()));
        }
    }
    if connection.resp3 {
        put_head(out, b'=', text.len() as i64 + 4);
        out.extend_from_slice(b"txt:");
        out.extend_from_slice(text.as_bytes());
        out.extend_from_slice(b"\r\n");
    } else {
        put_bulk(out, text.as_bytes());
    }
}
