//! A request's head: bytes to meaning.

use std::mem::MaybeUninit;

use httparse::{Error, ParserConfig, Request, Status};

use super::head::{Body, Fields, Transfer, decimal};
use super::target::{is_absolute, is_misdirected, is_target};
use super::{MAX_HEAD, MAX_HEADERS};
use crate::url;

/// What the head of a request means for the server.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestHead {
    pub(super) answer: Answer,
    /// The method is HEAD: the answer's length, and no body.
    pub(super) to_head: bool,
    pub(super) body: Body,
    pub(super) expects_continue: bool,
    pub(super) close: bool,
    /// HTTP/1.0 that goes on, which must be said.
    pub(super) say_keep_alive: bool,
}

/// What to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// 200 with a body of this many bytes.
    Bytes(u64),
    /// Likewise, chunked.
    Chunked(u64),
    /// This status with a small body.
    Status(u16),
}

/// What a server has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site {
    /// The body's bytes for paths without a meaning of their own.
    pub(super) size: u64,
    /// The URL scheme under which it is reached.
    pub(super) scheme: &'static str,
}

/// Reads a head at the start of `input`: its length and meaning, or `None` when there is more of it to come.
/// `Err`: the status to refuse it with.
pub(super) fn parse(input: &[u8], site: Site) -> Result<Option<(usize, RequestHead)>, u16> {
    // What is behind the limit is not looked at, so that the outcome does not depend on how much has arrived.
    let bounded = &input[..input.len().min(MAX_HEAD)];
    let parsed = match parse_head(bounded, site) {
        Err(Error::Version) => as_version_1_1(bounded).map_or(Err(Error::Version), |head| parse_head(&head, site)),
        parsed => parsed,
    };
    match parsed {
        Ok(Status::Complete((bytes, head))) => Ok(Some((bytes, head?))),
        Ok(Status::Partial) if input.len() >= MAX_HEAD => Err(431),
        Ok(Status::Partial) => Ok(None),
        Err(Error::TooManyHeaders) => Err(431),
        Err(_) => Err(400),
    }
}

/// The length of the head, and its meaning or the status to refuse it with.
type Parsed = (usize, Result<RequestHead, u16>);

fn parse_head(input: &[u8], site: Site) -> httparse::Result<Parsed> {
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut request = Request::new(&mut []);
    let parsed = ParserConfig::default().parse_request_with_uninit_headers(&mut request, input, &mut headers)?;
    Ok(match parsed {
        Status::Complete(bytes) => Status::Complete((bytes, meaning(&request, site))),
        Status::Partial => Status::Partial,
    })
}

/// A head of a later minor version, with 1.1 in its place: whoever speaks HTTP/1 understands that (RFC 9110, 2.5), but
/// httparse knows two versions. `None`: it is of none.
fn as_version_1_1(head: &[u8]) -> Option<Vec<u8>> {
    const VERSION: &[u8] = b"HTTP/1.";
    let begin = head.iter().position(|byte| !b"\r\n".contains(byte))?;
    let mut spaces = head[begin..].iter().enumerate().filter(|(_, byte)| **byte == b' ');
    let version = begin + spaces.nth(1)?.0 + 1;
    let minor = version + VERSION.len();
    let later =
        head[version..].starts_with(VERSION) && head.get(minor).is_some_and(|minor| (b'2'..=b'9').contains(minor));
    later.then(|| {
        let mut head = head.to_vec();
        head[minor] = b'1';
        head
    })
}

fn meaning(request: &Request<'_, '_>, site: Site) -> Result<RequestHead, u16> {
    let (Some(method), Some(path), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(400);
    };
    let fields = Fields::read(minor, request.headers).map_err(|_| 400u16)?;
    // RFC 9112, 3.2: exactly one Host, which 1.0 may lack.
    if fields.hosts > 1 || (fields.hosts == 0 && minor > 0) || !fields.hosts_valid || !is_target(method, path) {
        return Err(400);
    }
    let body = match (fields.transfer, fields.content_length) {
        (None, None | Some(0)) => Body::None,
        (None, Some(length)) => Body::Length(length),
        (Some(Transfer::Chunked), _) => Body::Chunked,
        (Some(Transfer::CodedChunked), _) => return Err(501), // RFC 9112, 6.1
        (Some(Transfer::Other), _) => return Err(400),        // RFC 9112, 6.3, rule 4
    };
    let answer = match method {
        _ if is_misdirected(path, site.scheme) => Answer::Status(421),
        "GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "OPTIONS" | "PATCH" => {
            answer(origin_form(path).ok_or(400_u16)?, minor, site.size)
        }
        _ => Answer::Status(501),
    };
    Ok(RequestHead {
        answer,
        to_head: method == "HEAD",
        body,
        expects_continue: fields.expects_continue && minor > 0,
        close: fields.close,
        say_keep_alive: minor == 0 && !fields.close,
    })
}

/// What is asked for by a path with its query.
fn answer(path: &str, minor: u8, size: u64) -> Answer {
    let path = path.split('?').next().unwrap_or_default();
    let number = |digits: &str| decimal(digits.as_bytes());
    let answer = if let Some(digits) = path.strip_prefix("/bytes/") {
        number(digits).map(Answer::Bytes)
    } else if let Some(digits) = path.strip_prefix("/chunked/") {
        // HTTP/1.0 knows no chunks.
        number(digits).map(if minor == 0 { Answer::Bytes } else { Answer::Chunked })
    } else if let Some(digits) = path.strip_prefix("/status/") {
        let status = number(digits).filter(|status| (200..600).contains(status));
        status.map(|status| Answer::Status(status as u16))
    } else {
        Some(Answer::Bytes(size))
    };
    answer.unwrap_or(Answer::Status(404))
}

/// Path and query of a request's target; of `http://host/path` too, which a server must accept (RFC 9112, 3.2.2).
/// `None`: it has what no target has: a fragment, a login, or no host.
fn origin_form(target: &str) -> Option<&str> {
    if target.contains('#') {
        return None;
    }
    if target.starts_with('/') {
        return Some(target);
    }
    if !is_absolute(target) {
        return (target == "*").then_some("/");
    }
    let parts = url::split(target);
    let scheme = parts.scheme.map_or(0, |scheme| scheme.len() + "://".len());
    let behind = &target[scheme + parts.authority.len()..];
    // A query without a path: the path is `/`, and nothing here depends on the query.
    Some(if behind.starts_with('/') { behind } else { "/" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let table = [
            ("/", Answer::Bytes(7)),
            ("*", Answer::Bytes(7)),
            ("/anything?x=/bytes/3", Answer::Bytes(7)),
            ("/bytes/0", Answer::Bytes(0)),
            ("/bytes/12?x=y", Answer::Bytes(12)),
            ("http://host:80/bytes/12", Answer::Bytes(12)),
            ("http://host", Answer::Bytes(7)),
            ("http://host?/bytes/12", Answer::Bytes(7)),
            ("HTTP://[::1]:80/bytes/12?/", Answer::Bytes(12)),
            ("http://host:/bytes/12", Answer::Bytes(12)),
            ("/chunked/5", Answer::Chunked(5)),
            ("/status/503", Answer::Status(503)),
            ("/bytes/18446744073709551615", Answer::Bytes(u64::MAX)),
            ("/bytes/18446744073709551616", Answer::Status(404)),
            ("/bytes/", Answer::Status(404)),
            ("/bytes/-1", Answer::Status(404)),
            ("/status/101", Answer::Status(404)),
            ("/status/600", Answer::Status(404)),
        ];
        for (path, expected) in table {
            assert_eq!(answer(origin_form(path).unwrap(), 1, 7), expected, "{path}");
        }
        assert_eq!(answer("/chunked/5", 0, 7), Answer::Bytes(5));
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for target in [
            "/#",
            "/a#b?c",
            "http://h/#",
            "http://h#f",
            "http://user@h/",
            "http://u:p@h",
            "http:///x",
            "http://?x",
            "http://h:0/",
            "http://h:x/",
            "http://h:65536",
            "http://[::1/x",
            "http://a@b@c/",
        ] {
            assert_eq!(origin_form(target), None, "{target}");
        }
    }
}
