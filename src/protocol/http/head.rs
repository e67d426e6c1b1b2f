//! What requests and replies share: the headers that frame a message, and which characters are allowed where.

use super::target::is_host;
use httparse::Header;

/// How the body of a message ends (RFC 9112, 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    None,
    Length(u64),
    Chunked,
    /// Only for replies.
    UntilClose,
}

/// What the `Transfer-Encoding` lines say (RFC 9112, 6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transfer {
    Chunked,
    /// Other codings, then chunked.
    CodedChunked,
    /// The last coding is not chunked.
    Other,
}

/// The headers that decide how a message is framed and whether the connection goes on.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub(super) content_length: Option<u64>,
    pub(super) transfer: Option<Transfer>,
    /// The connection ends after this message: `Connection: close`, or HTTP/1.0 without `keep-alive`.
    pub(super) close: bool,
    pub(super) hosts: usize,
    /// All of them are what a Host may be.
    pub(super) hosts_valid: bool,
    pub(super) expects_continue: bool,
}

impl Fields {
    /// Reads all header lines of a message of version 1.`minor`. `Err`: why its framing cannot be trusted.
    pub(super) fn read(minor: u8, headers: &[Header<'_>]) -> Result<Self, &'static str> {
        let mut fields = Self { hosts_valid: true, ..Self::default() };
        let mut keep_alive = minor > 0;
        for header in headers {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            match header.name.len() {
                4 if is("host") => {
                    fields.hosts += 1;
                    fields.hosts_valid &= is_host(header.value);
                }
                6 if is("expect") => fields.expects_continue |= header.value.eq_ignore_ascii_case(b"100-continue"),
                10 if is("connection") => {
                    fields.close |= has_token(header.value, b"close");
                    keep_alive |= has_token(header.value, b"keep-alive");
                }
                14 if is("content-length") => {
                    fields.content_length = Some(length(fields.content_length, header.value)?)
                }
                17 if is("transfer-encoding") => fields.transfer = Some(transfer(fields.transfer, header.value)?),
                _ => {}
            }
        }
        fields.close |= !keep_alive;
        if fields.transfer.is_some() && fields.content_length.is_some() {
            return Err("both Content-Length and Transfer-Encoding");
        }
        if fields.transfer.is_some() && minor == 0 {
            return Err("Transfer-Encoding in an HTTP/1.0 message");
        }
        Ok(fields)
    }
}

fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii)
}

fn has_token(value: &[u8], token: &[u8]) -> bool {
    members(value).any(|member| member.eq_ignore_ascii_case(token))
}

/// Equal values may be repeated (RFC 9112, 6.3, rule 5). `before` is what earlier lines said.
fn length(before: Option<u64>, value: &[u8]) -> Result<u64, &'static str> {
    let mut known = before;
    for member in members(value) {
        let number = decimal(member).ok_or("Content-Length is no number of bytes")?;
        if known.is_some_and(|known| known != number) {
            return Err("Content-Length values differ");
        }
        known = Some(number);
    }
    known.ok_or("Content-Length is empty")
}

/// Digits only: no sign, no blank, no overflow.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

fn transfer(before: Option<Transfer>, value: &[u8]) -> Result<Transfer, &'static str> {
    let mut transfer = before;
    for coding in members(value).filter(|coding| !coding.is_empty()) {
        transfer = Some(match transfer {
            None if coding.eq_ignore_ascii_case(b"chunked") => Transfer::Chunked,
            Some(Transfer::Other) if coding.eq_ignore_ascii_case(b"chunked") => Transfer::CodedChunked,
            Some(_) if coding.eq_ignore_ascii_case(b"chunked") => return Err("chunked is applied twice"),
            _ => Transfer::Other,
        });
    }
    transfer.ok_or("Transfer-Encoding is empty")
}

/// A character of a method or a header name (RFC 9110, 5.6.2).
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A character of a header value (RFC 9110, 5.5): no control character but the tab.
pub(super) fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"0018446744073709551615"), Some(u64::MAX));
        for bad in ["", "+5", "-5", "0x5", "5 5", "18446744073709551616", "99999999999999999999", "\u{665}"] {
            assert_eq!(decimal(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn lengths_may_repeat_but_not_differ() {
        assert_eq!(length(None, b"5, 5"), Ok(5));
        assert_eq!(length(Some(5), b"5"), Ok(5));
        assert!(length(Some(5), b"6").is_err());
        assert!(length(None, b"5, 6").is_err());
        assert!(length(None, b"5,").is_err());
        assert!(length(None, b"").is_err());
    }

    #[test]
    fn codings_add_up_over_lines() {
        assert_eq!(transfer(None, b"gzip , CHUNKED"), Ok(Transfer::CodedChunked));
        assert_eq!(transfer(Some(Transfer::Other), b"chunked"), Ok(Transfer::CodedChunked));
        assert_eq!(transfer(Some(Transfer::Chunked), b"gzip"), Ok(Transfer::Other));
        assert!(transfer(Some(Transfer::Chunked), b"chunked").is_err());
        assert!(transfer(None, b" ,").is_err());
    }
}
