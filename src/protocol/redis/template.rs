//! Requests: the words of a mix and typed commands, made ready to be written quickly.

use super::resp;
use crate::protocol::ClientOptions;
use crate::protocol::keyspace::{Keys, put_number};
use crate::rng::Rng;
use crate::secrets;

/// What a command answers when it is not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    /// Typed: whatever comes.
    Any,
    Pong,
    Ok,
    Integer,
    /// A bulk string or null.
    Bulk,
}

/// A word of `--mix`.
struct Word {
    name: &'static str,
    command: &'static str,
    expect: Expect,
}

const fn word(name: &'static str, command: &'static str, expect: Expect) -> Word {
    Word { name, command, expect }
}

/// The names of lists, sets and hashes are those of redis-benchmark.
const WORDS: &[Word] = &[
    word("get", "GET {key}", Expect::Bulk),
    word("set", "SET {key} {value}", Expect::Ok),
    word("ping", "PING", Expect::Pong),
    word("incr", "INCR counter:{key}", Expect::Integer),
    word("del", "DEL {key}", Expect::Integer),
    word("exists", "EXISTS {key}", Expect::Integer),
    word("lpush", "LPUSH mylist {value}", Expect::Integer),
    word("rpush", "RPUSH mylist {value}", Expect::Integer),
    word("lpop", "LPOP mylist", Expect::Bulk),
    word("rpop", "RPOP mylist", Expect::Bulk),
    word("sadd", "SADD myset {key}", Expect::Integer),
    word("spop", "SPOP myset", Expect::Bulk),
    word("hset", "HSET myhash {key} {value}", Expect::Integer),
    word("hget", "HGET myhash {key}", Expect::Bulk),
    word("mset", "MSET {key} {value} {key} {value} {key} {value} {key} {value} {key} {value}", Expect::Ok),
];

/// Commands whose null replies are misses.
const READS: &[&str] = &["get", "getex", "getdel", "hget", "lpop", "rpop", "spop"];

/// Commands that have no reply, several, or one that comes when others have it; or that end the connection.
const UNFIT: &[&str] = &[
    "subscribe",
    "psubscribe",
    "ssubscribe",
    "unsubscribe",
    "punsubscribe",
    "sunsubscribe",
    "monitor",
    "blpop",
    "brpop",
    "brpoplpush",
    "blmove",
    "blmpop",
    "bzpopmin",
    "bzpopmax",
    "bzmpop",
    "wait",
    "waitaof",
    "quit",
    "hello",
    "shutdown",
    "sync",
    "psync",
    "replconf",
    "reset",
];

/// What is known of the requests of one kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meaning {
    pub(super) expect: Expect,
    /// Null is a miss.
    pub(super) read: bool,
}

/// A part of an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Key,
    Value,
    Counter,
    Random,
}

/// A part of a request.
#[derive(Clone, Debug)]
enum Piece {
    /// As it is sent.
    Wire(Vec<u8>),
    /// A key by itself; its length, which is always the same, has been said.
    Key,
    /// A whole argument that is a value.
    Value,
    /// A whole argument of several parts, or of one whose length varies.
    Argument(Vec<Part>),
}

/// Writes requests, drawn by their weights.
#[derive(Clone, Debug)]
pub(super) struct Composer {
    commands: Vec<(u16, Vec<Piece>)>,
    weights: Vec<u32>,
    total: u64,
    pub(super) kinds: Vec<String>,
    pub(super) meanings: Vec<Meaning>,
    keys: Keys,
    counter: u64,
    step: u64,
    argument: Vec<u8>,
}

impl Composer {
    /// # Errors
    /// One line that says what is wrong with the mix or the commands.
    pub(super) fn new(options: &ClientOptions) -> Result<Self, String> {
        let (least, most) = options.keyspace.value_size;
        if least > most || most as i64 > resp::MAX_BULK {
            return Err(format!("values of {least} to {most} bytes: Redis has none beyond 512 MiB"));
        }
        let mut composer = Self {
            commands: Vec::new(),
            weights: Vec::new(),
            total: 0,
            kinds: Vec::new(),
            meanings: Vec::new(),
            keys: Keys::new(&options.keyspace, options.seed, options.worker),
            counter: options.worker.0,
            step: options.worker.1.max(1),
            argument: Vec::new(),
        };
        match (options.mix.as_slice(), options.commands.as_slice()) {
            ([], []) => composer.add("PING", Some(Expect::Pong), 1)?,
            ([], commands) => commands.iter().try_for_each(|(line, weight)| composer.add(line, None, *weight))?,
            (mix, []) => mix.iter().try_for_each(|(name, weight)| composer.add_word(name, *weight))?,
            _ => return Err("a mix and typed commands at once: give the commands alone, with their weights".into()),
        }
        if composer.total == 0 {
            return Err("all weights are 0, so that nothing would be asked".into());
        }
        Ok(composer)
    }

    /// The one request that is always sent, if it is.
    pub(super) fn fixed(&self) -> Option<&[u8]> {
        match self.commands.as_slice() {
            [(_, pieces)] => match pieces.as_slice() {
                [Piece::Wire(bytes)] => Some(bytes),
                _ => None,
            },
            _ => None,
        }
    }

    /// Appends a request, and answers its kind.
    pub(super) fn compose(&mut self, draws: u64, out: &mut Vec<u8>) -> u16 {
        let Self { commands, weights, total, keys, counter, step, argument, .. } = self;
        keys.begin(draws);
        let mut rng = Rng::new(!draws);
        let drawn = if weights.len() == 1 { 0 } else { keys.pick(weights, *total) };
        let (kind, pieces) = &commands[drawn];
        for piece in pieces {
            match piece {
                Piece::Wire(bytes) => out.extend_from_slice(bytes),
                Piece::Key => keys.key(out),
                Piece::Value => resp::put_bulk(out, keys.value()),
                Piece::Argument(parts) => {
                    argument.clear();
                    for part in parts {
                        match part {
                            Part::Text(text) => argument.extend_from_slice(text),
                            Part::Key => keys.key(argument),
                            Part::Value => argument.extend_from_slice(keys.value()),
                            Part::Counter => {
                                put_number(argument, *counter, 1);
                                *counter += *step;
                            }
                            // What a double holds exactly, for scores.
                            Part::Random => put_number(argument, rng.below(1 << 53), 1),
                        }
                    }
                    resp::put_bulk(out, argument);
                }
            }
        }
        *kind
    }

    fn add_word(&mut self, name: &str, weight: u32) -> Result<(), String> {
        let Some(word) = WORDS.iter().find(|word| word.name == name) else {
            let known: Vec<&str> = WORDS.iter().map(|word| word.name).collect();
            return Err(format!("'{name}' is no word of a redis mix; there are {}", known.join(", ")));
        };
        if self.kinds.iter().any(|kind| kind == name) {
            return Err(format!("'{name}' is in the mix twice"));
        }
        self.add(word.command, Some(word.expect), weight)
    }

    fn add(&mut self, line: &str, expect: Option<Expect>, weight: u32) -> Result<(), String> {
        let shown = secrets::command(line);
        let words = resp::words(line.as_bytes());
        let words = words.ok_or_else(|| format!("command {shown:?}: a quotation does not end where a word does"))?;
        let Some(first) = words.first().filter(|word| !word.is_empty()) else {
            return Err("a command is empty".into());
        };
        let name = String::from_utf8_lossy(first).to_lowercase();
        refuse_unfit(&name, &words)?;
        let arguments = words.iter().map(|word| parts(word)).collect::<Result<Vec<_>, _>>();
        let arguments = arguments.map_err(|problem| format!("command {shown:?}: {problem}"))?;
        if !matches!(arguments[0].as_slice(), [Part::Text(_)]) {
            return Err(format!("command {shown:?}: its name cannot be drawn"));
        }
        let pieces = self.pieces(&arguments);
        let known = self.kinds.iter().position(|kind| *kind == name);
        let kind = known.unwrap_or(self.kinds.len());
        // The last is what answers to a greeting have.
        let kind =
            u16::try_from(kind).ok().filter(|kind| *kind < u16::MAX).ok_or("more than 65534 kinds of commands")?;
        if known.is_none() {
            let read = READS.contains(&name.as_str());
            self.meanings.push(Meaning { expect: expect.unwrap_or(Expect::Any), read });
            self.kinds.push(name);
        }
        self.commands.push((kind, pieces));
        self.weights.push(weight);
        self.total += u64::from(weight);
        Ok(())
    }

    fn pieces(&self, arguments: &[Vec<Part>]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut wire = Vec::new();
        resp::put_head(&mut wire, b'*', arguments.len() as i64);
        for parts in arguments {
            let whole = match parts.as_slice() {
                [] => {
                    resp::put_bulk(&mut wire, b"");
                    continue;
                }
                [Part::Text(text)] => {
                    resp::put_bulk(&mut wire, text);
                    continue;
                }
                [Part::Key] => {
                    resp::put_head(&mut wire, b'$', self.keys.key_len() as i64);
                    pieces.extend([Piece::Wire(std::mem::take(&mut wire)), Piece::Key]);
                    wire.extend_from_slice(b"\r\n");
                    continue;
                }
                [Part::Value] => Piece::Value,
                parts => Piece::Argument(parts.to_vec()),
            };
            if !wire.is_empty() {
                pieces.push(Piece::Wire(std::mem::take(&mut wire)));
            }
            pieces.push(whole);
        }
        if !wire.is_empty() {
            pieces.push(Piece::Wire(wire));
        }
        pieces
    }
}

fn refuse_unfit(name: &str, words: &[Vec<u8>]) -> Result<(), String> {
    let has = |at: usize, word: &str| words.get(at).is_some_and(|given| given.eq_ignore_ascii_case(word.as_bytes()));
    let blocks = name.starts_with("xread") && (1..words.len()).any(|at| has(at, "block"));
    let unfit = UNFIT.contains(&name) || name == "client" && has(1, "reply") || blocks;
    if unfit {
        let name = name.to_uppercase();
        return Err(format!("command {name} is not answered by one reply at once, so that it cannot be measured"));
    }
    Ok(())
}

/// Finds the placeholders of an argument; `{{` and `}}` stand for one brace.
fn parts(word: &[u8]) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut text = Vec::new();
    let mut rest = word;
    while let Some((&byte, behind)) = rest.split_first() {
        if rest.starts_with(b"{{") || rest.starts_with(b"}}") {
            text.push(byte);
            rest = &rest[2..];
        } else if byte == b'{' {
            let end = behind.iter().position(|byte| *byte == b'}').ok_or("'{' without '}'; write {{ for a brace")?;
            let part = match &behind[..end] {
                b"key" => Part::Key,
                b"value" => Part::Value,
                b"counter" => Part::Counter,
                b"random" => Part::Random,
                other => {
                    let other = String::from_utf8_lossy(other);
                    let known = "there are {key}, {value}, {counter}, {random}; write {{ for a brace";
                    return Err(format!("'{{{other}}}' stands for nothing; {known}"));
                }
            };
            if !text.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut text)));
            }
            parts.push(part);
            rest = &behind[end + 1..];
        } else {
            text.push(byte);
            rest = behind;
        }
    }
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
    Ok(parts)
}
