//! What a request is addressed to: the forms that its target may have (RFC 9112, 3.2), and its Host (RFC 9110, 7.2).

use crate::url;
use core::net::Ipv6Addr; // a value: no socket

/// Whether `target` has one of the forms that `method` allows. What is in the path is no concern of ours, but that it
/// is written in ASCII: a URI has nothing else (RFC 3986, 2), and what a byte beyond it was to mean nobody knows. Other
/// characters that a URI has no place for (`|`, `{`) are harmless, and there are clients that send them.
pub(super) fn is_target(method: &str, target: &str) -> bool {
    if target.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'#') {
        return false;
    }
    match method {
        "CONNECT" => is_authority(target),
        "OPTIONS" if target == "*" => true,
        _ => target.starts_with('/') || is_absolute(target),
    }
}

/// `host:port`, both of them.
fn is_authority(target: &str) -> bool {
    let port = target.rsplit_once(':').map_or("", |(_, port)| port);
    !port.is_empty() && is_host(target.as_bytes())
}

/// `scheme://authority` and what follows; without an authority there is no server that could be meant. It is judged as
/// the value of a Host line is, in whose place it stands (RFC 9112, 3.2.2); so it has no login (RFC 9110, 4.2.4).
pub(super) fn is_absolute(target: &str) -> bool {
    let parts = url::split(target);
    parts.scheme.is_some() && !parts.authority.is_empty() && is_host(parts.authority.as_bytes())
}

/// Whether `target` asks for what is served elsewhere: under another scheme than ours. Such a request must be rejected
/// (RFC 9110, 7.4: `https` where nothing is encrypted), and 421 is the status that says why (15.5.20); it is well
/// formed, so 400 would be wrong, and the connection can go on.
pub(super) fn is_misdirected(target: &str, ours: &str) -> bool {
    !target.starts_with('/') && url::split(target).scheme.is_some_and(|scheme| !scheme.eq_ignore_ascii_case(ours))
}

/// The value of a Host line: `uri-host [":" port]`. It may be empty, but a port alone belongs to nobody (RFC 9110,
/// 4.2.1: an empty host is invalid).
pub(super) fn is_host(value: &[u8]) -> bool {
    let Ok(value) = std::str::from_utf8(value) else { return false };
    let (host, port) = match value.strip_prefix('[') {
        Some(literal) => match literal.split_once(']') {
            Some((address, rest)) if is_address(address) => ("", rest),
            _ => return false,
        },
        None => value.split_at(value.find(':').unwrap_or(value.len())),
    };
    is_name(host) && is_port(port) && !value.starts_with(':')
}

/// What is within the brackets. A zone has no meaning for others, but there are clients that send theirs.
fn is_address(text: &str) -> bool {
    let (address, zone) = text.split_once('%').unwrap_or((text, "lo"));
    let future = || {
        let (version, rest) = text.strip_prefix(['v', 'V']).and_then(|text| text.split_once('.'))?;
        let known = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_hexdigit());
        (known && !rest.is_empty() && rest.bytes().all(|byte| is_plain(byte) || byte == b':')).then_some(())
    };
    address.parse::<Ipv6Addr>().is_ok() && !zone.is_empty() && zone.bytes().all(is_plain) || future().is_some()
}

/// A name or an IPv4 address (RFC 3986, 3.2.2).
fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let escape = byte == b'%'
            && bytes.next().is_some_and(|byte| byte.is_ascii_hexdigit())
            && bytes.next().is_some_and(|byte| byte.is_ascii_hexdigit());
        if !escape && !is_plain(byte) {
            return false;
        }
    }
    true
}

/// Unreserved characters and those that divide nothing.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}

/// Nothing, or a colon and a port, which may be left out. RFC 3986 (3.2.3) takes any digits; but neither 65536 nor 0
/// (RFC 6335, 6: reserved) is a port of TCP that anybody can have connected to, so who says so is mistaken.
fn is_port(text: &str) -> bool {
    let Some(port) = text.strip_prefix(':') else { return text.is_empty() };
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    digits && (port.is_empty() || port.parse::<u16>().is_ok_and(|port| port > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for good in [
            "",
            "a",
            "a:80",
            "a:",
            "127.0.0.1:65535",
            "[::1]",
            "[::1]:8080",
            "[fe80::1%25lo]:1",
            "[v1.x:y]",
            "x_y.%7Ez",
        ] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in [
            "a b",
            "a b/c@d",
            "a/c",
            "u@a",
            "a,b c",
            "a:b",
            "a:80:80",
            "a:65536",
            "a:0",
            "a:00",
            "[::1]:0",
            ":80",
            ":",
            "a:+1",
            "a:-1",
            "[::1",
            "::1",
            "[::1]x",
            "[]",
            "[1.2.3.4]",
            "a%",
            "a%4",
            "a%zz",
            "a?b",
            "a#b",
            "a\\b",
            "<a>",
            "\"a\"",
            "a\tb",
            "h\u{f6}st",
            "[::1%]",
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
        assert!(!is_host(b"\xff"));
    }

    #[test]
    fn targets() {
        for (method, target) in [
            ("GET", "/"),
            ("GET", "//"),
            ("GET", "/a?b=http://c"),
            ("GET", "/a|{b}%zz"),
            ("GET", "http://[v1.x:y]:80"),
            ("GET", "http://h"),
            ("PUT", "HTTP://h:1/x?y"),
            ("OPTIONS", "*"),
            ("OPTIONS", "/"),
            ("CONNECT", "h:1"),
            ("CONNECT", "[::1]:443"),
        ] {
            assert!(is_target(method, target), "{method} {target}");
        }
        for (method, target) in [
            ("GET", "foo"),
            ("GET", "foo/bar"),
            ("GET", "*"),
            ("POST", "*"),
            ("GET", "h:80"),
            ("GET", "?x"),
            ("GET", "http:/x"),
            ("GET", "://x"),
            ("GET", "http://"),
            ("GET", "http:///x"),
            ("GET", "1a://h"),
            ("GET", "/a#b"),
            ("GET", "/\u{f6}"),
            ("GET", "/?\u{f6}"),
            ("GET", "http://h/\u{f6}"),
            ("GET", "http://h\u{f6}/"),
            ("GET", "http://h:0/"),
            ("BREW", "http://h:0/"),
            ("GET", "ftp://h:0/"),
            ("GET", "http://u@h/"),
            ("GET", "http://<h>/"),
            ("GET", "http://:80/"),
            ("CONNECT", "h:0"),
            ("GET", "/a\u{1}"),
            ("GET", "/a\u{7f}"),
            ("OPTIONS", "**"),
            ("OPTIONS", "x"),
            ("CONNECT", "/"),
            ("CONNECT", "h"),
            ("CONNECT", "h:"),
            ("CONNECT", ":1"),
            ("CONNECT", "http://h:1"),
            ("BREW", "foo"),
        ] {
            assert!(!is_target(method, target), "{method} {target}");
        }
    }
}
