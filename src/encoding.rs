//! Text files as editors, spreadsheets and other systems leave them: with a byte order mark, or not in UTF-8 at all.

/// What Windows puts before UTF-8 (a byte order mark, U+FEFF). It is no part of what the file says.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// The content of a text file, without the mark at its beginning.
///
/// # Errors
/// One clause, where the content is UTF-16 or UTF-32: none of its bytes would mean what they seem to.
pub fn without_mark(content: &[u8]) -> Result<&[u8], String> {
    // The mark of UTF-16, or ASCII in it, one byte of which is always 0.
    let wide = match content {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => true,
        [0, second, ..] => *second != 0 || content.starts_with(&[0, 0, 0xfe, 0xff]),
        [first, 0, ..] => *first != 0,
        _ => false,
    };
    if wide {
        return Err("it is UTF-16 or UTF-32, and not UTF-8; save it as UTF-8 (`iconv -f UTF-16 -t UTF-8`)".to_owned());
    }
    Ok(content.strip_prefix(MARK).unwrap_or(content))
}

/// Likewise for content that has to be UTF-8 throughout.
///
/// # Errors
/// One clause, with the line where it is none.
pub fn text(content: &[u8]) -> Result<&str, String> {
    let content = without_mark(content)?;
    std::str::from_utf8(content).map_err(|error| {
        let line = 1 + content[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        format!("line {line}: the text is not UTF-8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_no_part_of_the_text() {
        assert_eq!(without_mark(b"\xef\xbb\xbfa").unwrap(), b"a");
        assert_eq!(without_mark(b"a\xef\xbb\xbf").unwrap(), b"a\xef\xbb\xbf", "within a text it is a character");
        assert_eq!(text(b"\xef\xbb\xbf").unwrap(), "");
        assert_eq!(text("grün".as_bytes()).unwrap(), "grün");
    }

    #[test]
    fn what_is_not_utf_8_is_told() {
        let utf_16 = |text: &str, bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
        for wide in [
            utf_16("\u{feff}GET /", u16::to_le_bytes),
            utf_16("\u{feff}GET /", u16::to_be_bytes),
            utf_16("GET /", u16::to_le_bytes),
            utf_16("GET /", u16::to_be_bytes),
            b"\0\0\xfe\xff\0\0\0G".to_vec(),
        ] {
            assert!(text(&wide).unwrap_err().contains("UTF-16"), "{wide:?}");
        }
        assert_eq!(text(b"a\nb\xff").unwrap_err(), "line 2: the text is not UTF-8");
        // Two zeros are no text, and no UTF-16 either.
        assert!(without_mark(&[0, 0]).is_ok());
    }
}
