//! One line of a reply, and what it means where a certain reply is awaited.

use super::number;
use crate::protocol::{ReplyError, ReplyErrorKind, Unasked};

/// The most bytes of a value: memcached takes no larger ones, however it is set up (`-I`).
const VALUE_MAX: u64 = 1 << 30;

/// What a request may be answered with, besides errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expects {
    Values,
    Stored,
    Deleted,
    Touched,
    /// The new value of a counter.
    Count,
    Ok,
    Version,
    Stats,
    MetaGet {
        value: bool,
    },
    MetaTouch,
    MetaStored,
    MetaDeleted,
    MetaCount {
        value: bool,
    },
    MetaDebug,
    MetaNoop,
}

/// What a line means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// So many bytes of a value follow, and a line end.
    Value(u64),
    /// Another line follows.
    More,
    /// The last line of those values that were found.
    EndOfValues,
    Whole(Answer),
}

/// What a reply says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    Hit,
    Miss,
    NotFound,
    NotStored,
    Refused(&'static str),
    /// It is the connection that is refused, and not the command.
    TurnedAway,
}

/// Said to connections beyond `-c`, as they are accepted (`-o maxconns_fast`, the default since 1.4.32).
const TOO_MANY: &[u8] = b"ERROR Too many open connections";

/// What bytes mean that answer no command.
pub(super) fn unasked(input: &[u8]) -> Unasked {
    match input.strip_prefix(TOO_MANY) {
        Some(b"" | b"\r") => Unasked::More,
        Some(rest) if rest.starts_with(b"\r\n") => Unasked::TurnedAway,
        None if TOO_MANY.starts_with(input) => Unasked::More,
        _ => Unasked::Nothing,
    }
}

/// Every word that a reply may begin with; numbers aside.
const WORDS: &[&[u8]] = &[
    b"VALUE",
    b"END",
    b"STORED",
    b"NOT_STORED",
    b"EXISTS",
    b"NOT_FOUND",
    b"DELETED",
    b"TOUCHED",
    b"OK",
    b"VERSION",
    b"STAT",
    b"RESET",
    b"VA",
    b"HD",
    b"EN",
    b"NS",
    b"EX",
    b"NF",
    b"ME",
    b"MN",
];

/// What `line`, without its end, means as a reply to what `expects` it.
///
/// # Errors
/// It is no line of the protocol, or none that answers this request.
pub(super) fn judge(line: &[u8], expects: Expects) -> Result<Line, ReplyError> {
    let end = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
    let (word, rest) = line.split_at(end);
    if line == TOO_MANY {
        return Ok(Line::Whole(Answer::TurnedAway));
    }
    if let Some(kind) = refusal(word, rest) {
        return Ok(Line::Whole(Answer::Refused(kind)));
    }
    let answer = match (expects, word) {
        (Expects::Values, b"VALUE") => return value(rest),
        (Expects::Values, b"END") => return bare(rest, Line::EndOfValues),
        (Expects::Stats, b"STAT") => return Ok(Line::More),
        (Expects::MetaGet { value: true } | Expects::MetaCount { value: true }, b"VA") => return meta_value(rest),
        (Expects::Version, b"VERSION") => return Ok(Line::Whole(Answer::Done)),
        (Expects::Stats, b"END")
        | (Expects::Stored, b"STORED")
        | (Expects::Deleted, b"DELETED")
        | (Expects::Touched, b"TOUCHED")
        | (Expects::Ok, b"OK")
        | (Expects::MetaNoop, b"MN") => Answer::Done,
        (Expects::Count, digits) if number::<u64>(digits).is_some() => Answer::Done,
        (Expects::Stored, b"NOT_STORED" | b"EXISTS") => Answer::NotStored,
        (Expects::Stored | Expects::Deleted | Expects::Touched | Expects::Count, b"NOT_FOUND") => Answer::NotFound,
        _ => return meta(word, expects).map(Line::Whole),
    };
    bare(rest, Line::Whole(answer))
}

/// The replies to meta commands that have flags behind them. What they say does not change what happened.
fn meta(word: &[u8], expects: Expects) -> Result<Answer, ReplyError> {
    use Expects::{MetaCount, MetaDebug, MetaDeleted, MetaGet, MetaStored, MetaTouch};
    match (expects, word) {
        (MetaGet { value: false }, b"HD") => Ok(Answer::Hit),
        (MetaGet { .. }, b"EN") => Ok(Answer::Miss),
        (MetaTouch | MetaStored | MetaDeleted | MetaCount { value: false }, b"HD") => Ok(Answer::Done),
        (MetaDebug, b"ME") => Ok(Answer::Done),
        (MetaTouch | MetaDebug, b"EN") => Ok(Answer::NotFound),
        (MetaStored | MetaDeleted | MetaCount { .. }, b"NF") => Ok(Answer::NotFound),
        (MetaStored | MetaDeleted | MetaCount { .. }, b"NS" | b"EX") => Ok(Answer::NotStored),
        _ if WORDS.contains(&word) || number::<u64>(word).is_some() => {
            Err(ReplyError { kind: ReplyErrorKind::Mismatch, detail: "the reply answers another kind of request" })
        }
        _ => Err(malformed("the reply begins with a word that memcached does not know")),
    }
}

/// The error of the ledger, if the line says that the server refused.
fn refusal(word: &[u8], rest: &[u8]) -> Option<&'static str> {
    match word {
        b"ERROR" => Some("error"),
        b"CLIENT_ERROR" => Some("client_error"),
        b"SERVER_ERROR" if rest.starts_with(b" out of memory") => Some("oom"),
        b"SERVER_ERROR" => Some("server_error"),
        _ => None,
    }
}

/// `<key> <flags> <bytes> [<cas unique>]`
fn value(rest: &[u8]) -> Result<Line, ReplyError> {
    let mut fields = rest.split(|byte| *byte == b' ').skip(1);
    let (key, flags, bytes) = (fields.next(), fields.next(), fields.next());
    let (cas, more) = (fields.next(), fields.next());
    let well = key.is_some_and(|key| !key.is_empty())
        && flags.and_then(number::<u32>).is_some()
        && cas.is_none_or(|cas| number::<u64>(cas).is_some())
        && more.is_none();
    if !well {
        return Err(malformed("a VALUE line is not of key, flags, bytes"));
    }
    size(bytes.unwrap_or_default())
}

/// `<bytes> <flags>*`
fn meta_value(rest: &[u8]) -> Result<Line, ReplyError> {
    size(rest.split(|byte| *byte == b' ').nth(1).unwrap_or_default())
}

fn size(digits: &[u8]) -> Result<Line, ReplyError> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(malformed("the size of a value is no number"));
    }
    // More digits than 64 bits hold are too many, not malformed.
    match number::<u64>(digits) {
        Some(bytes) if bytes <= VALUE_MAX => Ok(Line::Value(bytes)),
        _ => Err(ReplyError { kind: ReplyErrorKind::TooLarge, detail: "the reply announces a value beyond 1 GiB" }),
    }
}

fn bare(rest: &[u8], line: Line) -> Result<Line, ReplyError> {
    if rest.is_empty() { Ok(line) } else { Err(malformed("there is more on a line than its word")) }
}

pub(super) fn malformed(detail: &'static str) -> ReplyError {
    ReplyError { kind: ReplyErrorKind::Malformed, detail }
}
