//! The client half of memcached.

use super::command::{Command, Filler};
use super::reply::{self, Answer, Expects, Line};
use super::{KEY_MAX, LINE_MAX};
use crate::protocol::ask::Ask;
use crate::protocol::keyspace::Keys;
use crate::protocol::lockstep::Lockstep;
use crate::protocol::{
    Client, ClientOptions, ClientState, Codec, Consumed, GREETING, Outcome, Reply, ReplyError, ReplyErrorKind, Unasked,
};
use crate::secrets;

/// What is asked without a mix: ten gets for a set, as memtier_benchmark has it.
const USUAL_MIX: &[(&str, u32)] = &[("set", 1), ("get", 10)];
/// The most bytes of a value that memcached can be told to take.
const VALUE_MAX: usize = 1 << 30;
/// The most lines of a reply to `stats`.
const STATS_MAX: u32 = 10_000;

// ClientState::step
const LINE: u8 = 0;
const DATA: u8 = 1;
const DATA_CR: u8 = 2;
const DATA_LF: u8 = 3;

/// The words of a mix: as text commands and as meta commands.
const WORDS: &[(&str, &str, &str)] = &[
    ("get", "get {key}", "mg {key} v"),
    ("set", "set {key} 0 0 {value}", "ms {key} {value}"),
    ("delete", "delete {key}", "md {key}"),
    ("incr", "incr {key} 1", "ma {key}"),
    ("touch", "touch {key} 0", "mg {key} T0"),
    ("version", "version", "version"),
];

pub(super) fn client(options: &ClientOptions) -> Result<Box<dyn Client>, String> {
    if !matches!(options.path.as_str(), "" | "/") {
        return Err(format!("memcached has no paths, and the target has {:?}", secrets::url(&options.path)));
    }
    let largest = options.keyspace.value_size.1;
    if largest > VALUE_MAX {
        return Err(format!("values of {largest} bytes: memcached takes up to {VALUE_MAX} (with -I 1g)"));
    }
    let keys = Keys::new(&options.keyspace, options.seed, options.worker);
    let asked = asked(options, keys.key_len())?;
    let weights: Vec<u32> = asked.iter().map(|(_, _, weight)| *weight).collect();
    let total = weights.iter().map(|weight| u64::from(*weight)).sum();
    if total == 0 {
        return Err("the weights of all memcached requests are 0: there is nothing to ask".into());
    }
    let (names, commands): (Vec<String>, Vec<Command>) =
        asked.into_iter().map(|(name, command, _)| (name, command)).unzip();
    check(options, &keys, &commands)?;
    let (first, step) = options.worker;
    let value = Vec::with_capacity(options.keyspace.value_size.1);
    let filler = Filler { keys, counter: (first, step.max(1)), value };
    let mut example = Vec::new();
    commands[0].write(&mut filler.clone(), &mut example);
    Ok(Lockstep::boxed(MemcachedClient {
        greeting: greeting(options)?,
        example,
        composes: commands.len() > 1 || !commands[0].is_fixed(),
        commands,
        names,
        weights,
        total,
        filler,
        counts: Counts::default(),
    }))
}

/// Names, commands and weights.
fn asked(options: &ClientOptions, key_len: usize) -> Result<Vec<(String, Command, u32)>, String> {
    let meta = match options.dialect.as_deref() {
        None | Some("text") => false,
        Some("meta") => true,
        Some(other) => return Err(format!("'{other}' is no dialect of memcached; there are text and meta")),
    };
    if !options.commands.is_empty() {
        return typed(&options.commands, key_len);
    }
    let usual = || USUAL_MIX.iter().map(|(word, weight)| ((*word).to_owned(), *weight)).collect();
    let mix: Vec<(String, u32)> = if options.mix.is_empty() { usual() } else { options.mix.clone() };
    let has = |wanted: &str| mix.iter().any(|(word, weight)| word == wanted && *weight > 0);
    if has("incr") && has("set") {
        return Err(
            "incr beside set in one mix: set writes letters to the keys, and memcached counts up digits only; \
             measure them apart, or type --command 'incr count:{key} 1' with a set of such keys before"
                .into(),
        );
    }
    let mut asked: Vec<(String, Command, u32)> = Vec::new();
    for (word, weight) in mix {
        let Some((_, text, in_meta)) = WORDS.iter().find(|(known, ..)| *known == word) else {
            let known: Vec<&str> = WORDS.iter().map(|(word, ..)| *word).collect();
            return Err(format!("'{word}' is nothing that a mix for memcached has; there are {}", known.join(", ")));
        };
        if asked.iter().any(|(name, ..)| *name == word) {
            return Err(format!("'{word}' is twice in the mix"));
        }
        asked.push((word, Command::parse(if meta { in_meta } else { text }, key_len)?, weight));
    }
    Ok(asked)
}

/// A command is called by its first word, or by its whole line where another begins alike.
fn typed(commands: &[(String, u32)], key_len: usize) -> Result<Vec<(String, Command, u32)>, String> {
    let first = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
    let name = |line: &String| {
        let alike = commands.iter().filter(|(other, _)| first(other) == first(line)).count();
        if alike > 1 { line.clone() } else { first(line) }
    };
    commands.iter().map(|(line, weight)| Ok((name(line), Command::parse(line, key_len)?, *weight))).collect()
}

fn check(options: &ClientOptions, keys: &Keys, commands: &[Command]) -> Result<(), String> {
    if commands.iter().any(Command::asks_for_keys) {
        let len = keys.key_len();
        if len > KEY_MAX {
            return Err(format!("keys of {len} bytes: memcached takes up to {KEY_MAX}; give a shorter prefix"));
        }
        if options.keyspace.prefix.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return Err("the prefix of keys contains blanks or control characters, which memcached forbids".into());
        }
    }
    Ok(())
}

/// The login of memcached -Y (protocol.txt, "Authentication"): a set whose value is user and password.
fn greeting(options: &ClientOptions) -> Result<Option<Vec<u8>>, String> {
    let Some((user, password)) = &options.login else { return Ok(None) };
    let forbidden = |byte: u8| byte <= b' ' || byte == 0x7f;
    if user.is_empty() || password.is_empty() || user.bytes().chain(password.bytes()).any(forbidden) {
        return Err("memcached wants a user and a password, both without blanks: user:password@ in the target".into());
    }
    let len = user.len() + 1 + password.len();
    Ok(Some(format!("set auth 0 0 {len}\r\n{user} {password}\r\n").into_bytes()))
}

/// `ClientState`: `step` is the place in the reply, `left` the bytes of the value still to come, `seen` the values or
/// lines before. `flags` is not used.
#[derive(Debug)]
struct MemcachedClient {
    greeting: Option<Vec<u8>>,
    example: Vec<u8>,
    composes: bool,
    /// Commands, their names and their weights; the number of a command is the kind of its requests.
    commands: Vec<Command>,
    names: Vec<String>,
    weights: Vec<u32>,
    total: u64,
    filler: Filler,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    hits: u64,
    misses: u64,
    not_found: u64,
    not_stored: u64,
}

impl Codec for MemcachedClient {
    fn request(&self) -> &[u8] {
        &self.example
    }

    fn composes(&self) -> bool {
        self.composes
    }

    fn compose(&mut self, ask: &mut Ask, out: &mut Vec<u8>) -> u16 {
        self.filler.keys.begin(ask.draws);
        let kind = match self.commands.len() {
            1 => 0,
            _ => self.filler.keys.pick(&self.weights, self.total),
        };
        self.commands[kind].write(&mut self.filler, out);
        kind as u16
    }

    fn kinds(&self) -> &[String] {
        &self.names
    }

    fn greeting(&self) -> Option<(&[u8], u32)> {
        self.greeting.as_ref().map(|bytes| (bytes.as_slice(), 1))
    }

    fn consume(&mut self, state: &mut ClientState, input: &[u8]) -> Result<Consumed, ReplyError> {
        let mut bytes = 0;
        while bytes < input.len() {
            let rest = &input[bytes..];
            match state.step {
                LINE => {
                    let Some(line) = line(rest)? else { break };
                    bytes += line.len() + 2;
                    if let Some(answer) = self.line(state, line)? {
                        return Ok(self.complete(state, answer, bytes));
                    }
                }
                DATA => {
                    let taken = state.left.min(rest.len() as u64);
                    state.left -= taken;
                    bytes += taken as usize;
                    state.step = if state.left == 0 { DATA_CR } else { DATA };
                }
                DATA_CR if rest[0] == b'\r' => (bytes, state.step) = (bytes + 1, DATA_LF),
                DATA_LF if rest[0] == b'\n' => {
                    (bytes, state.step) = (bytes + 1, LINE);
                    if let Some(answer) = self.end_of_value(state) {
                        return Ok(self.complete(state, answer, bytes));
                    }
                }
                _ => return Err(reply::malformed("a value does not end where its size says")),
            }
        }
        Ok(Consumed { bytes, reply: None })
    }

    fn unasked(&self, input: &[u8]) -> Unasked {
        reply::unasked(input)
    }

    fn finish(&mut self, state: &mut ClientState, kept: &[u8]) -> Result<Option<Reply>, ReplyError> {
        if kept.is_empty() && state.step == LINE && state.seen == 0 {
            return Ok(None);
        }
        Err(ReplyError { kind: ReplyErrorKind::Truncated, detail: "the stream ended within a reply" })
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        let asks_for_values = |command: &Command| matches!(command.expects, Expects::Values | Expects::MetaGet { .. });
        let asks = self.commands.iter().any(asks_for_values);
        let Counts { hits, misses, not_found, not_stored } = self.counts;
        let all = [("hits", hits), ("misses", misses), ("not_found", not_found), ("not_stored", not_stored)];
        // Hits of none are worth saying; what few loads can bring is said where it came.
        let counted = all.into_iter().enumerate().filter(|(at, (_, count))| *count > 0 || asks && *at < 2);
        counted.map(|(_, count)| count).collect()
    }
}

impl MemcachedClient {
    /// What is awaited, and for how many keys was asked.
    fn awaited(&self, kind: u16) -> (Expects, u32) {
        match self.commands.get(usize::from(kind)) {
            Some(command) => (command.expects, command.keys),
            None => (Expects::Stored, 0), // the greeting
        }
    }

    /// What the reply says, if it ends with this line.
    fn line(&self, state: &mut ClientState, line: &[u8]) -> Result<Option<Answer>, ReplyError> {
        let (expects, keys) = self.awaited(state.kind);
        match reply::judge(line, expects)? {
            Line::Whole(answer)
                if state.kind == GREETING
                    && !matches!(answer, Answer::Done | Answer::Refused(_) | Answer::TurnedAway) =>
            {
                Err(ReplyError { kind: ReplyErrorKind::Mismatch, detail: "the login was not answered with STORED" })
            }
            Line::Whole(answer) => Ok(Some(answer)),
            Line::EndOfValues => Ok(Some(Answer::Done)),
            Line::Value(_) if state.seen >= keys => {
                Err(ReplyError { kind: ReplyErrorKind::Mismatch, detail: "there are more values than were asked for" })
            }
            Line::Value(size) => {
                state.seen += 1;
                (state.left, state.step) = (size, if size == 0 { DATA_CR } else { DATA });
                Ok(None)
            }
            Line::More if state.seen >= STATS_MAX => {
                Err(ReplyError { kind: ReplyErrorKind::TooLarge, detail: "more than 10000 lines of statistics" })
            }
            Line::More => {
                state.seen += 1;
                Ok(None)
            }
        }
    }

    /// What the reply says, if it ends with this value.
    fn end_of_value(&self, state: &ClientState) -> Option<Answer> {
        match self.awaited(state.kind).0 {
            Expects::MetaGet { .. } => Some(Answer::Hit),
            Expects::MetaCount { .. } => Some(Answer::Done),
            _ => None,
        }
    }

    fn complete(&mut self, state: &mut ClientState, answer: Answer, bytes: usize) -> Consumed {
        let (expects, keys) = self.awaited(state.kind);
        let found = u64::from(state.seen);
        *state = ClientState { kind: state.kind, ..ClientState::default() };
        let counts = &mut self.counts;
        let outcome = match answer {
            Answer::Refused(kind) => Outcome::Refused(kind),
            Answer::TurnedAway => Outcome::TurnedAway,
            _ => Outcome::Ok,
        };
        match answer {
            Answer::Done if expects == Expects::Values => {
                counts.hits += found;
                counts.misses += u64::from(keys) - found;
            }
            Answer::Hit => counts.hits += 1,
            Answer::Miss => counts.misses += 1,
            Answer::NotFound => counts.not_found += 1,
            Answer::NotStored => counts.not_stored += 1,
            Answer::Done | Answer::Refused(_) | Answer::TurnedAway => {}
        }
        Consumed { bytes, reply: Some(Reply { outcome, last: false }) }
    }
}

/// The line that `input` begins with, without its end, if all of it is there.
fn line(input: &[u8]) -> Result<Option<&[u8]>, ReplyError> {
    let within = &input[..input.len().min(LINE_MAX)];
    match within.iter().position(|byte| *byte == b'\n') {
        Some(end) => match within[..end].strip_suffix(b"\r") {
            Some(line) => Ok(Some(line)),
            None => Err(reply::malformed("a line ends with LF alone")),
        },
        None if within.len() == LINE_MAX => {
            Err(ReplyError { kind: ReplyErrorKind::TooLarge, detail: "a line of a reply is longer than 2048 bytes" })
        }
        None => Ok(None),
    }
}
