//! What a request must not have, whoever wrote it: bytes that would break it, or turn it into another.

use super::head::{is_text, is_token};
use crate::{secrets, url};

/// A byte that a path may have: no blank, no control character, nothing beyond ASCII, and no `#`, behind which stands
/// what is never sent.
pub(crate) fn in_path(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'#'
}

/// A byte that the value of a header may have.
pub(crate) fn in_value(byte: u8) -> bool {
    is_text(byte)
}

pub(crate) fn method(method: &str) -> Result<(), String> {
    if !is_name(method) {
        return Err(format!("method {method:?} is no HTTP method"));
    }
    if method == "CONNECT" {
        return Err("method CONNECT opens a tunnel, which is no request to measure".into());
    }
    Ok(())
}

/// A path with its query, as it can be sent.
pub(crate) fn path(path: impl AsRef<[u8]>) -> Result<String, String> {
    let path = path.as_ref();
    let shown = || secrets::url(&String::from_utf8_lossy(path));
    if !path.starts_with(b"/") {
        return Err(format!("path {:?} does not start with '/'", shown()));
    }
    url::sendable(path).map_err(|why| format!("path {:?}: {why}", shown()))
}

pub(crate) fn authority(authority: &str) -> Result<(), String> {
    if !authority.bytes().all(in_path) {
        return Err(format!("host {authority:?} contains blanks or control characters"));
    }
    Ok(())
}

pub(crate) fn headers(headers: &[(String, String)]) -> Result<(), String> {
    names(headers.iter().map(|(name, _)| name.as_str()))?;
    match headers.iter().find(|(_, value)| !value.bytes().all(in_value)) {
        Some((name, _)) => Err(format!("the value of header {name} contains control characters")),
        None => Ok(()),
    }
}

/// The names of all headers of a request.
pub(crate) fn names<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut hosts = 0;
    for name in names {
        if !is_name(name) {
            return Err(format!("header name {name:?} is not allowed in HTTP"));
        }
        if ["content-length", "transfer-encoding"].iter().any(|framing| name.eq_ignore_ascii_case(framing)) {
            return Err(format!("header {name} follows from the body and cannot be set"));
        }
        hosts += usize::from(name.eq_ignore_ascii_case("host"));
    }
    if hosts > 1 { Err("header Host is given twice".into()) } else { Ok(()) }
}

/// Name and value of `Name: value`.
pub(crate) fn header_line(line: &str) -> Result<(String, String), String> {
    match line.split_once(':') {
        Some((name, value)) => Ok((name.trim().to_owned(), value.trim().to_owned())),
        None => Err("a header is not of the form 'Name: value'".to_owned()),
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(is_token)
}
