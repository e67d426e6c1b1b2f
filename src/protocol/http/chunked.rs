//! The chunked transfer coding, received (RFC 9112, 7.1). Chunk data, extensions and trailers are thrown away.

use super::head::{is_text, is_token};
use crate::protocol::{ReplyError, ReplyErrorKind};

/// The most bytes of a chunk-size line with its extensions.
const MAX_LINE: u32 = 4096;
/// The most bytes of all trailers together.
const MAX_TRAILERS: u32 = 16 * 1024;

/// The steps of a chunked body; larger than any step of the client or server around it.
pub(super) const FIRST: u8 = SIZE_FIRST;
const SIZE_FIRST: u8 = 32;
const SIZE: u8 = 33;
const SIZE_PAD: u8 = 34;
const EXTENSION: u8 = 35;
const SIZE_LF: u8 = 36;
const DATA: u8 = 37;
const DATA_CR: u8 = 38;
const DATA_LF: u8 = 39;
const TRAILER_FIRST: u8 = 40;
const TRAILER_NAME: u8 = 41;
const TRAILER_VALUE: u8 = 42;
const TRAILER_LF: u8 = 43;
const END_LF: u8 = 44;
const DONE: u8 = 45;
/// Behind a trailer, which a line that begins with a blank goes on (RFC 9112, 5.2).
const TRAILER_NEXT: u8 = 46;

/// Where a chunked body stands, borrowed from the state of its connection. It begins with `step` = [`FIRST`] and
/// zeros.
#[derive(Debug)]
pub(super) struct Chunked<'a> {
    pub(super) step: &'a mut u8,
    /// The size of the chunk, as far as read; then the bytes of its data to come.
    pub(super) left: &'a mut u64,
    /// Bytes of this line (of all trailers) seen.
    pub(super) seen: &'a mut u32,
}

impl Chunked<'_> {
    /// Takes bytes of the body: how many, and whether they end it. All of `input` is taken unless the body ends.
    pub(super) fn take(&mut self, input: &[u8]) -> Result<(usize, bool), ReplyError> {
        let mut at = 0;
        while at < input.len() {
            if *self.step == DATA {
                let n = (*self.left).min((input.len() - at) as u64);
                *self.left -= n;
                at += n as usize;
                if *self.left == 0 {
                    *self.step = DATA_CR;
                }
            } else {
                *self.step = self.frame(input[at])?;
                at += 1;
                if *self.step == DONE {
                    return Ok((at, true));
                }
            }
        }
        Ok((at, false))
    }

    /// Takes one byte that is no chunk data; the step behind it.
    fn frame(&mut self, byte: u8) -> Result<u8, ReplyError> {
        *self.seen += 1;
        if *self.seen > if *self.step < TRAILER_FIRST { MAX_LINE } else { MAX_TRAILERS } {
            return Err(ReplyError { kind: ReplyErrorKind::TooLarge, detail: "endless chunk-size line or trailers" });
        }
        Ok(match (*self.step, byte) {
            (SIZE_FIRST | SIZE, byte) if byte.is_ascii_hexdigit() => self.digit(byte)?,
            // Blanks before the end of the line are not in the grammar, but old servers pad with them.
            (SIZE | SIZE_PAD, b' ' | b'\t') => SIZE_PAD,
            (SIZE | SIZE_PAD, b';') => EXTENSION,
            (SIZE | SIZE_PAD | EXTENSION, b'\r') => SIZE_LF,
            (EXTENSION, byte) if is_text(byte) => EXTENSION,
            (SIZE_LF, b'\n') => self.line_end(if *self.left == 0 { TRAILER_FIRST } else { DATA }),
            (DATA_CR, b'\r') => DATA_LF,
            (DATA_LF, b'\n') => self.line_end(SIZE_FIRST),
            (TRAILER_FIRST | TRAILER_NEXT, b'\r') => END_LF,
            (TRAILER_NEXT, b' ' | b'\t') => TRAILER_VALUE,
            (TRAILER_FIRST | TRAILER_NEXT | TRAILER_NAME, byte) if is_token(byte) => TRAILER_NAME,
            (TRAILER_NAME, b':') => TRAILER_VALUE,
            (TRAILER_VALUE, b'\r') => TRAILER_LF,
            (TRAILER_VALUE, byte) if is_text(byte) => TRAILER_VALUE,
            (TRAILER_LF, b'\n') => TRAILER_NEXT,
            (END_LF, b'\n') => DONE,
            (step, _) => return Err(malformed(step)),
        })
    }

    fn digit(&mut self, byte: u8) -> Result<u8, ReplyError> {
        if *self.left >> 60 != 0 {
            return Err(ReplyError { kind: ReplyErrorKind::Malformed, detail: "chunk size exceeds 64 bits" });
        }
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            _ => (byte | 0x20) - b'a' + 10,
        };
        *self.left = *self.left << 4 | u64::from(digit);
        Ok(SIZE)
    }

    fn line_end(&mut self, step: u8) -> u8 {
        *self.seen = 0;
        step
    }
}

#[cold]
fn malformed(step: u8) -> ReplyError {
    let detail = match step {
        SIZE_FIRST | SIZE => "chunk size is not hexadecimal",
        SIZE_PAD | EXTENSION => "bad chunk extension",
        DATA_CR | DATA_LF => "no CR LF behind the data of a chunk",
        TRAILER_FIRST | TRAILER_NEXT | TRAILER_NAME | TRAILER_VALUE => "bad trailer",
        _ => "CR without LF in a chunked body",
    };
    ReplyError { kind: ReplyErrorKind::Malformed, detail }
}
