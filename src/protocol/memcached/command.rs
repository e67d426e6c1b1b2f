//! A request as typed, and as it is written again and again with other keys and values.

use super::reply::Expects;
use super::{KEY_MAX, LINE_MAX};
use crate::protocol::keyspace::{Keys, put_number};
use crate::secrets;

/// The most bytes of a counter.
const COUNTER_MAX: usize = 20;

/// A request with gaps.
#[derive(Clone, Debug)]
pub(super) struct Command {
    pieces: Vec<Piece>,
    /// A value follows the line.
    block: bool,
    pub(super) expects: Expects,
    /// How many keys it asks for.
    pub(super) keys: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Key,
    Counter,
    /// The size of the value that follows.
    Size,
}

/// What fills the gaps.
#[derive(Clone, Debug)]
pub(super) struct Filler {
    pub(super) keys: Keys,
    /// The next number, and how far apart they are: workers share them out.
    pub(super) counter: (u64, u64),
    pub(super) value: Vec<u8>,
}

/// How a command is built: where its keys stand, how many words it has, and what answers it.
struct Form {
    words: std::ops::RangeInclusive<usize>,
    keys: std::ops::Range<usize>,
    /// Where the size of the value stands, which is typed as `{value}`.
    value: Option<usize>,
    expects: Expects,
}

impl Command {
    /// Reads a line such as `get {key}` or `set {key} 0 60 {value}`; `{value}` stands where the protocol has the number
    /// of bytes. `key_len`: bytes of what `{key}` stands for.
    ///
    /// # Errors
    /// One line that says what is wrong with it.
    pub(super) fn parse(line: &str, key_len: usize) -> Result<Self, String> {
        let wrong = |why: &str| format!("memcached command {:?}: {why}", secrets::command(line));
        if line.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
            return Err(wrong("it contains control characters; a command is one line"));
        }
        let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
        let form = form(&words).map_err(|why| wrong(&why))?;
        if words.contains(&"noreply") {
            return Err(wrong("noreply has no reply, and there would be nothing to measure"));
        }
        if !form.words.contains(&words.len()) {
            return Err(wrong("it has too few or too many words"));
        }
        let mut pieces = Vec::new();
        let mut longest = 2;
        for (at, word) in words.iter().enumerate() {
            if (*word == "{value}") != (form.value == Some(at)) {
                return Err(wrong(match form.value {
                    Some(_) => "{value} is to stand where memcached has the number of bytes, and only there",
                    None => "it takes no {value}",
                }));
            }
            let start = pieces.len();
            gaps(word, &mut pieces).map_err(|why| wrong(&why))?;
            let len: usize = pieces[start..].iter().map(|piece| piece.most(key_len)).sum();
            if form.keys.contains(&at) && len > KEY_MAX {
                return Err(wrong(&format!("its key has up to {len} bytes; memcached takes {KEY_MAX}")));
            }
            longest += len + 1;
            let end = if at + 1 == words.len() { "\r\n" } else { " " };
            pieces.push(Piece::Text(end.into()));
        }
        if longest > LINE_MAX {
            return Err(wrong(&format!("it is longer than {LINE_MAX} bytes")));
        }
        let keys = form.keys.end.min(words.len()).saturating_sub(form.keys.start) as u32;
        Ok(Self { pieces: joined(pieces), block: form.value.is_some(), expects: form.expects, keys })
    }

    /// Whether no two of them differ.
    pub(super) fn is_fixed(&self) -> bool {
        !self.block && self.pieces.iter().all(|piece| matches!(piece, Piece::Text(_)))
    }

    pub(super) fn asks_for_keys(&self) -> bool {
        self.pieces.contains(&Piece::Key)
    }

    /// Appends the request.
    pub(super) fn write(&self, filler: &mut Filler, out: &mut Vec<u8>) {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text),
                Piece::Key => filler.keys.key(out),
                Piece::Counter => {
                    put_number(out, filler.counter.0, 1);
                    filler.counter.0 = filler.counter.0.wrapping_add(filler.counter.1);
                }
                Piece::Size => {
                    filler.value.clear();
                    filler.value.extend_from_slice(filler.keys.value());
                    put_number(out, filler.value.len() as u64, 1);
                }
            }
        }
        if self.block {
            out.extend_from_slice(&filler.value);
            out.extend_from_slice(b"\r\n");
        }
    }
}

impl Piece {
    /// The most bytes of it.
    fn most(&self, key_len: usize) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Key => key_len,
            Self::Counter | Self::Size => COUNTER_MAX,
        }
    }
}

fn form(words: &[&str]) -> Result<Form, String> {
    let many = LINE_MAX;
    let of = |words, keys, value, expects| Ok(Form { words, keys, value, expects });
    let meta = |keys, value: Option<usize>, expects| {
        if let Some(flag) = words.iter().skip(2).find(|flag| flag.starts_with('q')) {
            return Err(format!("flag {flag} hides replies, and there would be nothing to measure"));
        }
        of(value.map_or(2, |at| at + 1)..=many, keys, value, expects)
    };
    let has = |flag: char| words.iter().skip(2).any(|word| word.starts_with(flag));
    match *words.first().unwrap_or(&"") {
        "get" | "gets" => of(2..=many, 1..many, None, Expects::Values),
        "gat" | "gats" => of(3..=many, 2..many, None, Expects::Values),
        "set" | "add" | "replace" | "append" | "prepend" => of(5..=5, 1..2, Some(4), Expects::Stored),
        "cas" => of(6..=6, 1..2, Some(4), Expects::Stored),
        "delete" => of(2..=2, 1..2, None, Expects::Deleted),
        "incr" | "decr" => of(3..=3, 1..2, None, Expects::Count),
        "touch" => of(3..=3, 1..2, None, Expects::Touched),
        "version" => of(1..=1, 0..0, None, Expects::Version),
        "stats" => of(1..=1, 0..0, None, Expects::Stats),
        "flush_all" => of(1..=2, 0..0, None, Expects::Ok),
        "verbosity" => of(2..=2, 0..0, None, Expects::Ok),
        "mg" if has('T') && !has('v') => meta(1..2, None, Expects::MetaTouch),
        "mg" => meta(1..2, None, Expects::MetaGet { value: has('v') }),
        "ms" => meta(1..2, Some(2), Expects::MetaStored),
        "md" => meta(1..2, None, Expects::MetaDeleted),
        "ma" => meta(1..2, None, Expects::MetaCount { value: has('v') }),
        "me" => meta(1..2, None, Expects::MetaDebug),
        "mn" => of(1..=1, 0..0, None, Expects::MetaNoop),
        "" => Err("it is empty".into()),
        "quit" | "shutdown" => Err("it ends the connection without a reply; --requests-per-conn closes them".into()),
        "watch" => Err("what it brings are no replies to requests".into()),
        word => Err(format!(
            "loadgen cannot judge replies to '{word}'; it knows get, gets, gat, gats, set, add, replace, append, \
             prepend, cas, delete, incr, decr, touch, version, stats, flush_all, verbosity, mg, ms, md, ma, me, mn"
        )),
    }
}

/// A word as text and gaps.
fn gaps(word: &str, pieces: &mut Vec<Piece>) -> Result<(), String> {
    let mut rest = word;
    while let Some(open) = rest.find('{') {
        let (before, gap) = rest.split_at(open);
        pieces.push(Piece::Text(before.into()));
        let (piece, len) = if gap.starts_with("{key}") {
            (Piece::Key, "{key}".len())
        } else if gap.starts_with("{counter}") {
            (Piece::Counter, "{counter}".len())
        } else if gap.starts_with("{value}") && word == "{value}" {
            (Piece::Size, "{value}".len())
        } else {
            return Err(format!("'{gap}' is no placeholder; there are {{key}}, {{counter}} and, alone, {{value}}"));
        };
        pieces.push(piece);
        rest = &gap[len..];
    }
    pieces.push(Piece::Text(rest.into()));
    Ok(())
}

/// Texts that follow each other as one.
fn joined(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut all: Vec<Piece> = Vec::new();
    for piece in pieces {
        match (all.last_mut(), &piece) {
            (Some(Piece::Text(before)), Piece::Text(text)) => before.extend_from_slice(text),
            _ => all.push(piece),
        }
    }
    all
}
