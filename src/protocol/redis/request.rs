//! A request: bytes to words.

use super::resp::{self, LineError, MAX_BULK, MAX_LENGTH_LINE};
use crate::protocol::MAX_KEPT;
use std::ops::Range;

/// The most words of a request, as in Redis.
const MAX_WORDS: i64 = 1 << 20;
/// The most bytes of a request that is understood: it is kept until it is complete.
pub(super) const MAX_REQUEST: usize = MAX_KEPT;

/// What a client must not say; Redis says the same of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Said(&'static str),
    /// There is this in place of `$`.
    NoBulk(u8),
}

/// What is at the start of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A request of so many bytes. One without words is no request, and is passed over.
    Whole(usize),
    /// There is more of it to come.
    Part,
    /// More than [`MAX_REQUEST`]: so many words behind a head of so many bytes.
    TooLong { head: usize, words: u64 },
}

/// The words of a request, without memory of their own for each.
#[derive(Debug, Default)]
pub(super) struct Words {
    ranges: Vec<Range<usize>>,
    /// What the ranges are of, if not of the input.
    typed: Vec<u8>,
    is_typed: bool,
}

impl Words {
    pub(super) fn len(&self) -> usize {
        self.ranges.len()
    }

    /// The word at `index`, of the request at the start of `input`.
    pub(super) fn get<'a>(&'a self, input: &'a [u8], index: usize) -> &'a [u8] {
        let bytes = if self.is_typed { &self.typed } else { input };
        self.ranges.get(index).map_or(&[], |range| &bytes[range.clone()])
    }

    /// Reads the request at the start of `input`.
    pub(super) fn read(&mut self, input: &[u8]) -> Result<Found, Fault> {
        self.ranges.clear();
        match input.first() {
            None => Ok(Found::Part),
            Some(b'*') => self.read_array(input),
            Some(_) => self.read_line(input),
        }
    }

    fn read_array(&mut self, input: &[u8]) -> Result<Found, Fault> {
        self.is_typed = false;
        let Some((head, words)) = count(input)? else { return Ok(Found::Part) };
        let too_long = Found::TooLong { head, words };
        let mut at = head;
        for _ in 0..words {
            // What is behind the limit is not looked at, so that the answer does not depend on how much has arrived.
            let shown = &input[at.min(MAX_REQUEST)..input.len().min(MAX_REQUEST)];
            let Some((head, length)) = bulk(shown)? else {
                return Ok(if input.len() >= MAX_REQUEST { too_long } else { Found::Part });
            };
            let body = at + head..at + head + length;
            at = body.end + 2;
            if at > MAX_REQUEST {
                return Ok(too_long);
            }
            let Some(end) = input.get(body.end..at) else { return part(&input[body.end.min(input.len())..]) };
            if end != b"\r\n" {
                return Err(NO_END);
            }
            self.ranges.push(body);
        }
        Ok(Found::Whole(at))
    }

    /// A request as typed.
    fn read_line(&mut self, input: &[u8]) -> Result<Found, Fault> {
        let shown = &input[..input.len().min(MAX_REQUEST)];
        let Some(end) = shown.iter().position(|byte| *byte == b'\n') else {
            let too_long = shown.len() == MAX_REQUEST;
            return if too_long { Err(Fault::Said("too big inline request")) } else { Ok(Found::Part) };
        };
        let line = shown[..end].strip_suffix(b"\r").unwrap_or(&shown[..end]);
        let words = resp::words(line).ok_or(Fault::Said("unbalanced quotes in request"))?;
        self.is_typed = true;
        self.typed.clear();
        for word in words {
            let start = self.typed.len();
            self.typed.extend_from_slice(&word);
            self.ranges.push(start..self.typed.len());
        }
        Ok(Found::Whole(end + 1))
    }
}

pub(super) const NO_END: Fault = Fault::Said("expected CR LF behind a bulk string");

/// A body whose end has not arrived: what is there of it must be right.
fn part(end: &[u8]) -> Result<Found, Fault> {
    if b"\r\n".starts_with(end) { Ok(Found::Part) } else { Err(NO_END) }
}

/// The head of an array of bulk strings: its length, and how many.
fn count(input: &[u8]) -> Result<Option<(usize, u64)>, Fault> {
    let line = resp::line(input, MAX_LENGTH_LINE).map_err(|error| match error {
        LineError::TooLong => Fault::Said("too big mbulk count string"),
        LineError::BadEnd => Fault::Said("invalid multibulk length"),
    })?;
    let Some(line) = line else { return Ok(None) };
    match resp::integer(&line[1..]) {
        Some(count) if count <= MAX_WORDS => Ok(Some((line.len() + 2, count.max(0) as u64))),
        _ => Err(Fault::Said("invalid multibulk length")),
    }
}

/// The head of a bulk string: its length, and that of the body.
pub(super) fn bulk(input: &[u8]) -> Result<Option<(usize, usize)>, Fault> {
    match input.first() {
        None => return Ok(None),
        Some(b'$') => {}
        Some(other) => return Err(Fault::NoBulk(*other)),
    }
    let line = resp::line(input, MAX_LENGTH_LINE).map_err(|error| match error {
        LineError::TooLong => Fault::Said("too big bulk count string"),
        LineError::BadEnd => Fault::Said("invalid bulk length"),
    })?;
    let Some(line) = line else { return Ok(None) };
    match resp::integer(&line[1..]) {
        Some(length) if (0..=MAX_BULK).contains(&length) => Ok(Some((line.len() + 2, length as usize))),
        _ => Err(Fault::Said("invalid bulk length")),
    }
}
