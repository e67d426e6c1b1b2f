//! The head of one element of a reply: bytes to meaning.

use super::resp::{self, LineError, MAX_BULK, MAX_LENGTH_LINE, MAX_LINE};
use crate::protocol::{ReplyError, ReplyErrorKind, Unasked};

/// The most elements of a reply that may be outstanding at once.
pub(super) const MAX_ELEMENTS: u64 = 1 << 32;
/// So much of an error is looked at: how it begins says what it is.
const ERROR_START: usize = 32;

/// What an element begins with. The types that have a length are followed by bytes, or by so many elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head<'a> {
    Simple(&'a [u8]),
    Error(&'a [u8]),
    Integer,
    Null,
    /// A boolean, a double, a big number: complete, and nothing that a command of the mix answers.
    Scalar,
    /// Bytes of the body.
    Bulk(u32),
    Verbatim(u32),
    /// Bytes of the body, and its first.
    BulkError(u32, &'a [u8]),
    /// Elements that follow: of an array or set, or twice the pairs of a map.
    Aggregate(u64),
    /// What is said about the reply behind it, and no part of that.
    Attribute(u64),
    /// What nobody asked for, between two replies.
    Push(u64),
}

/// Reads a head at the start of `input`: its length and meaning, or `None` when there is more of it to come.
pub(super) fn head(input: &[u8], resp3: bool) -> Result<Option<(usize, Head<'_>)>, ReplyError> {
    let Some(&kind) = input.first() else { return Ok(None) };
    let limit = match kind {
        b'+' | b'-' => MAX_LINE,
        b':' | b'$' | b'*' => MAX_LENGTH_LINE,
        b'_' | b'#' | b',' | b'(' | b'!' | b'=' | b'%' | b'~' | b'|' | b'>' if !resp3 => {
            return Err(malformed("a type of RESP3, which was not asked for"));
        }
        b'(' => MAX_LINE,
        b'_' | b'#' | b',' | b'!' | b'=' | b'%' | b'~' | b'|' | b'>' => MAX_LENGTH_LINE,
        _ => return Err(malformed("begins like no type of RESP")),
    };
    let line = resp::line(input, limit).map_err(|error| match error {
        LineError::TooLong if limit == MAX_LINE => too_large("line exceeds 64 KiB"),
        LineError::TooLong => too_large("the line of a number exceeds 64 bytes"),
        LineError::BadEnd => malformed("CR or LF by itself"),
    })?;
    let Some(line) = line else { return Ok(None) };
    let behind = line.len() + 2;
    let text = &line[1..];
    let head = match kind {
        b'+' => Head::Simple(text),
        b'-' => Head::Error(text),
        b':' => check(resp::integer(text.strip_prefix(b"+").unwrap_or(text)).is_some(), Head::Integer)?,
        b'_' => check(text.is_empty(), Head::Null)?,
        b'#' => check(matches!(text, b"t" | b"f"), Head::Scalar)?,
        b',' => check(is_double(text), Head::Scalar)?,
        b'(' => check(is_big_number(text), Head::Scalar)?,
        b'$' | b'*' if text == b"-1" => Head::Null,
        b'$' | b'=' | b'!' => return bulk(kind, text, &input[behind..]).map(|head| head.map(|head| (behind, head))),
        _ => aggregate(kind, text)?,
    };
    Ok(Some((behind, head)))
}

fn check<'a>(valid: bool, head: Head<'a>) -> Result<Head<'a>, ReplyError> {
    if valid { Ok(head) } else { Err(malformed("a value that its type does not allow")) }
}

fn bulk<'a>(kind: u8, text: &[u8], body: &'a [u8]) -> Result<Option<Head<'a>>, ReplyError> {
    let length = length(text)?;
    if length > MAX_BULK {
        return Err(too_large("string longer than 512 MiB"));
    }
    match kind {
        b'$' => Ok(Some(Head::Bulk(length as u32))),
        // Three letters of a format and a colon.
        b'=' if length < 4 => Err(malformed("verbatim string without a format")),
        b'=' => Ok(Some(Head::Verbatim(length as u32))),
        _ => Ok(body.get(..(length as usize).min(ERROR_START)).map(|start| Head::BulkError(length as u32, start))),
    }
}

fn aggregate(kind: u8, text: &[u8]) -> Result<Head<'static>, ReplyError> {
    let count = length(text)? as u64;
    if count > MAX_ELEMENTS / 2 {
        return Err(too_large("more elements than 2^31"));
    }
    Ok(match kind {
        b'*' | b'~' => Head::Aggregate(count),
        b'%' => Head::Aggregate(2 * count),
        b'|' => Head::Attribute(2 * count),
        _ => Head::Push(count),
    })
}

fn length(text: &[u8]) -> Result<i64, ReplyError> {
    match resp::integer(text) {
        Some(length) if length >= 0 => Ok(length),
        Some(_) => Err(malformed("negative length")),
        None if text == b"?" => Err(malformed("a length that is not said (a streamed type), which nobody asked for")),
        None => Err(malformed("length is not a number")),
    }
}

fn is_double(text: &[u8]) -> bool {
    let plain = text.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E'));
    let number = || std::str::from_utf8(text).is_ok_and(|text| text.parse::<f64>().is_ok());
    matches!(text, b"inf" | b"-inf" | b"nan") || plain && number()
}

fn is_big_number(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").or_else(|| text.strip_prefix(b"+")).unwrap_or(text);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

/// What a server refuses with; the first is none of the others.
pub(super) const REFUSALS: &[&str] = &["error_reply", "moved", "busy", "oom", "noauth", "wrongtype", TURNED_AWAY];
/// It is the connection that is refused, and not the command.
pub(super) const TURNED_AWAY: &str = "turned_away";
/// How errors begin that are said to connections as they are accepted: at `maxclients`, and in protected mode.
const OF_CONNECTIONS: &[&[u8]] = &[b"ERR max number of clients", b"DENIED "];

/// Which of [`REFUSALS`] an error is, by how it begins.
pub(super) fn refusal(error: &[u8]) -> u8 {
    if OF_CONNECTIONS.iter().any(|start| error.starts_with(start)) {
        return 6;
    }
    match error.split(|byte| *byte == b' ').next() {
        Some(b"MOVED" | b"ASK") => 1,
        Some(b"BUSY" | b"LOADING") => 2,
        Some(b"OOM") => 3,
        Some(b"NOAUTH" | b"WRONGPASS" | b"NOPERM") => 4,
        Some(b"WRONGTYPE") => 5,
        _ => 0,
    }
}

/// What bytes mean that answer no command.
pub(super) fn unasked(input: &[u8]) -> Unasked {
    let Some(error) = input.strip_prefix(b"-") else { return Unasked::Nothing };
    let known = OF_CONNECTIONS.iter().any(|start| error.iter().zip(*start).all(|(said, word)| said == word));
    match resp::line(input, MAX_LINE) {
        Ok(line) if known => line.map_or(Unasked::More, |_| Unasked::TurnedAway),
        _ => Unasked::Nothing,
    }
}

pub(super) fn malformed(detail: &'static str) -> ReplyError {
    ReplyError { kind: ReplyErrorKind::Malformed, detail }
}

pub(super) fn too_large(detail: &'static str) -> ReplyError {
    ReplyError { kind: ReplyErrorKind::TooLarge, detail }
}
