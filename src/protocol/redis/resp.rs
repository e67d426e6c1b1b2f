//! What both halves share: lines, lengths, and the bodies of bulk strings.

/// The most bytes of a line that holds a number, its end included.
pub(super) const MAX_LENGTH_LINE: usize = 64;
/// The most bytes of any other line, its end included.
pub(super) const MAX_LINE: usize = crate::protocol::MAX_KEPT;
/// The most bytes of a bulk string, as in Redis (`proto-max-bulk-len`).
pub(super) const MAX_BULK: i64 = 512 << 20;

/// Why there is no line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineError {
    TooLong,
    /// A CR or an LF by itself.
    BadEnd,
}

/// The line at the start of `input`, without its CR LF; `None` when there is more of it to come.
pub(super) fn line(input: &[u8], limit: usize) -> Result<Option<&[u8]>, LineError> {
    // What is behind the limit is not looked at, so that the outcome does not depend on how much has arrived.
    let shown = &input[..input.len().min(limit)];
    let incomplete = if shown.len() == limit { Err(LineError::TooLong) } else { Ok(None) };
    let Some(at) = shown.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else { return incomplete };
    match (shown[at], shown.get(at + 1)) {
        (b'\r', Some(b'\n')) => Ok(Some(&shown[..at])),
        (b'\r', None) => incomplete,
        _ => Err(LineError::BadEnd),
    }
}

/// A decimal number as Redis writes it: no plus sign, no leading zeros.
pub(super) fn integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let canonical = match digits {
        b"0" => digits.len() == text.len(),
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if !canonical {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Takes bytes of a bulk string of which `left` are still to come, its CR LF included: how many. `None`: it does not
/// end where it should.
pub(super) fn skip(left: &mut u32, input: &[u8]) -> Option<usize> {
    const END: u32 = 2;
    let body = (left.saturating_sub(END) as usize).min(input.len());
    *left -= body as u32;
    let mut taken = body;
    while *left > 0 && *left <= END && taken < input.len() {
        let expected = if *left == END { b'\r' } else { b'\n' };
        if input[taken] != expected {
            return None;
        }
        *left -= 1;
        taken += 1;
    }
    Some(taken)
}

/// Appends a line that begins with `kind` and holds a number: the head of a bulk string or an array, an integer.
pub(super) fn put_head(out: &mut Vec<u8>, kind: u8, number: i64) {
    out.push(kind);
    put_integer(out, number);
    out.extend_from_slice(b"\r\n");
}

pub(super) fn put_bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    put_head(out, b'$', bytes.len() as i64);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Appends a request, or another array of bulk strings.
pub(super) fn put_array(out: &mut Vec<u8>, items: &[&[u8]]) {
    put_head(out, b'*', items.len() as i64);
    items.iter().for_each(|item| put_bulk(out, item));
}

pub(super) fn put_integer(out: &mut Vec<u8>, number: i64) {
    if number < 0 {
        out.push(b'-');
    }
    crate::protocol::keyspace::put_number(out, number.unsigned_abs(), 1);
}

/// Splits a typed line into words, as `redis-cli` and inline requests do: blanks part them, `"..."` and `'...'` hold
/// them together, and within `"..."` a backslash begins `\n`, `\r`, `\t`, `\b`, `\a`, `\xHH` or the character itself.
/// `None`: a quotation that does not end, or not at the end of a word.
pub(super) fn words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            return Some(words);
        }
        let mut word = Vec::new();
        rest = match rest[0] {
            b'"' | b'\'' => quoted(rest, &mut word)?,
            _ => {
                let end = rest.iter().position(|b| b.is_ascii_whitespace()).unwrap_or(rest.len());
                unquoted(&rest[..end], &mut word)?;
                &rest[end..]
            }
        };
        words.push(word);
    }
}

/// A word without blanks; a quotation within it is more than anybody needs.
fn unquoted(text: &[u8], word: &mut Vec<u8>) -> Option<()> {
    word.extend_from_slice(text);
    (!text.contains(&b'"') && !text.contains(&b'\'')).then_some(())
}

/// Answers what is behind the quotation.
fn quoted<'a>(text: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    let quote = text[0];
    let mut at = 1;
    loop {
        match *text.get(at)? {
            byte if byte == quote => break,
            b'\\' if quote == b'"' => {
                let (byte, length) = escaped(&text[at + 1..])?;
                word.push(byte);
                at += 1 + length;
            }
            b'\\' if text.get(at + 1) == Some(&b'\'') => {
                word.push(b'\'');
                at += 2;
            }
            byte => {
                word.push(byte);
                at += 1;
            }
        }
    }
    let rest = &text[at + 1..];
    rest.first().is_none_or(u8::is_ascii_whitespace).then_some(rest)
}

/// What stands for what is behind a backslash, and how long that is.
fn escaped(text: &[u8]) -> Option<(u8, usize)> {
    if let [b'x', high, low, ..] = text
        && let (Some(high), Some(low)) = (char::from(*high).to_digit(16), char::from(*low).to_digit(16))
    {
        return Some(((high * 16 + low) as u8, 3));
    }
    let byte = match *text.first()? {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        other => other,
    };
    Some((byte, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_strictly() {
        for (text, number) in [("0", 0), ("-1", -1), ("10", 10), ("9223372036854775807", i64::MAX)] {
            assert_eq!(integer(text.as_bytes()), Some(number));
            let mut out = Vec::new();
            put_integer(&mut out, number);
            assert_eq!(out, text.as_bytes());
        }
        assert_eq!(integer(b"-9223372036854775808"), Some(i64::MIN));
        for text in ["", "-", "+1", "01", "-0", "1 ", " 1", "0x1", "9223372036854775808", "1\0", "1e3"] {
            assert_eq!(integer(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn lines_end_with_cr_lf_within_their_limit() {
        assert_eq!(line(b"ab\r\ncd", 64), Ok(Some(&b"ab"[..])));
        assert_eq!(line(b"ab\r", 64), Ok(None));
        assert_eq!(line(b"ab\r\n", 4), Ok(Some(&b"ab"[..])));
        assert_eq!(line(b"ab\r\n", 3), Err(LineError::TooLong));
        assert_eq!(line(b"ab\r", 3), Err(LineError::TooLong));
        assert_eq!(line(b"abcd", 4), Err(LineError::TooLong));
        assert_eq!(line(b"ab\n", 64), Err(LineError::BadEnd));
        assert_eq!(line(b"ab\rc", 64), Err(LineError::BadEnd));
    }

    #[test]
    fn bodies_are_skipped_to_their_end() {
        for at in 0..=7 {
            let mut left = 7;
            let taken = skip(&mut left, &b"hello\r\n+"[..at]).unwrap();
            assert_eq!((taken, left), (at, 7 - at as u32));
        }
        assert_eq!(skip(&mut 2, b"\r\n+"), Some(2));
        assert_eq!((skip(&mut 7, b"hello!!"), skip(&mut 1, b"\r")), (None, None));
    }

    #[test]
    fn typed_lines_are_split_into_words() {
        let split = |line: &str| words(line.as_bytes()).map(|words| words.join(&b'|'));
        for (line, expected) in [
            ("", ""),
            ("  set  a b ", "set|a|b"),
            (r#"set "a b" 'c "d'"#, "set|a b|c \"d"),
            (r#""\x41\n\"\\" '\''"#, "A\n\"\\|'"),
            (r#"a "" b"#, "a||b"),
        ] {
            assert_eq!(split(line).as_deref(), Some(expected.as_bytes()), "{line}");
        }
        for line in ["\"a", "'a", "\"a\"b", "a\"b\"", "\"\\"] {
            assert_eq!(split(line), None, "{line}");
        }
    }
}
