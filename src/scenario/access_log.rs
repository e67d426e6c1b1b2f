//! Fields of an access log in quotes, and the escapes in them: of Apache (mod_log_config) and of nginx
//! (`escape=default` and `escape=json` of log_format).

/// What stands between quotes in a line, field by field, escapes as they are. A quote behind a backslash ends nothing.
pub(super) fn quoted(line: &str) -> Vec<&str> {
    let (mut fields, mut began, mut escaped) = (Vec::new(), None, false);
    for (at, byte) in line.bytes().enumerate() {
        match (byte, began) {
            _ if escaped => escaped = false,
            (b'\\', Some(_)) => escaped = true,
            (b'"', None) => began = Some(at + 1),
            (b'"', Some(start)) => {
                fields.push(&line[start..at]);
                began = None;
            }
            _ => {}
        }
    }
    fields
}

/// The bytes that a field was written for. What is no escape stays as it is.
pub(super) fn decoded(field: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::with_capacity(field.len()), field);
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at..];
        let length = escape(rest, &mut bytes).unwrap_or_else(|| {
            bytes.push(b'\\');
            1
        });
        rest = &rest[length..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// Appends what the escape at the beginning of `text` means, and gives its length.
fn escape(text: &str, bytes: &mut Vec<u8>) -> Option<usize> {
    let letter = *text.as_bytes().get(1)?;
    let simple = match letter {
        b'"' | b'\\' | b'/' => letter,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0b,
        b'x' => u8::try_from(hex(text.get(2..4)?)?).ok()?,
        b'u' => {
            // Beyond the first 65,536 characters, JSON has two of them for one.
            let first = hex(text.get(2..6)?)? as u16;
            let second = text.get(6..12).filter(|next| next.starts_with("\\u")).and_then(|next| hex(&next[2..]));
            let units = [first, second.unwrap_or_default() as u16];
            let one = char::decode_utf16(units[..1].iter().copied()).next()?;
            // Halves that do not belong together are no character, and the text stays as it is.
            let two = || char::decode_utf16(units).next()?.ok();
            let (character, length) = match one {
                Ok(character) => (character, 6),
                Err(_) => (two()?, 12),
            };
            bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(length);
        }
        _ => return None,
    };
    bytes.push(simple);
    Some(if letter == b'x' { 4 } else { 2 })
}

fn hex(digits: &str) -> Option<u32> {
    if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) { u32::from_str_radix(digits, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_end_with_a_quote_that_is_none_of_theirs() {
        assert_eq!(quoted(r#"- "a" b "c\"d\\" "e"#), ["a", r#"c\"d\\"#]);
        assert!(quoted("no quotes").is_empty());
        assert_eq!(quoted(r#"\"a" "b""#), ["a", "b"], "outside of quotes there are no escapes");
    }

    #[test]
    fn each_escape_has_its_bytes() {
        for (field, meant) in [
            (r#"\"\\\/"#, &b"\"\\/"[..]),
            (r"\b\f\n\r\t\v", b"\x08\x0c\n\r\t\x0b"),
            (r"\x00\xFF\xff\x7", b"\x00\xff\xff\\x7"),
            (r"\u0041\u00e9\ud83d\ude00", "Aé😀".as_bytes()),
            (r"\ud83d\u0041 \u12 \q \", br"\ud83dA \u12 \q \"),
            ("/é%20", "/é%20".as_bytes()),
        ] {
            assert_eq!(decoded(field), meant, "{field}");
        }
    }
}
