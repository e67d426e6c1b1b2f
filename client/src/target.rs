//! What a target names: `host:port`, or a URL whose scheme chooses the protocol. Parsing only; nothing is looked up.

use crate::workload::without_password;
use loadgen_core::protocol::{self, Protocol};
use loadgen_core::sys::endpoint::Endpoint;
use std::path::{Path, PathBuf};

/// Schemes that mean TLS under another scheme's protocol, and the usual port of that.
const SECURE: &[(&str, &str, Option<u16>)] = &[
    ("https", "http", Some(443)),
    ("rediss", "redis", Some(6379)),
    ("memcacheds", "memcached", Some(11211)),
    ("tls", "tcp", None),
];

/// A target as typed, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub typed: String,
    /// By the scheme; `None` where there is none (`host:port`).
    pub scheme: Option<String>,
    /// The scheme says that the stream is encrypted.
    pub tls: bool,
    /// Without brackets where it is an IPv6 address.
    pub host: String,
    pub port: Option<u16>,
    /// Where that of the scheme is another than that of the protocol.
    pub usual_port: Option<u16>,
    /// With its query; empty where there is none.
    pub path: String,
    /// `unix:PATH`: the socket, in place of host and port.
    pub socket: Option<PathBuf>,
    /// User and password before the host; the user may be empty.
    pub login: Option<(String, String)>,
}

impl Target {
    /// Takes `typed` apart, or says in one line what is wrong with it.
    pub fn parse(typed: &str) -> Result<Self, String> {
        // What cannot be taken apart may hold a password anywhere before its last @.
        Self::take_apart(typed).map_err(|why| match typed.rsplit_once('@') {
            None => why,
            Some((_, host)) => {
                let scheme = typed.split_once("://").map_or(String::new(), |(scheme, _)| format!("{scheme}://"));
                let shown = format!("target '{scheme}***@{host}' is not host:port or a URL");
                format!("{shown} (a login goes before the host, with @ / : in it as %40 %2F %3A)")
            }
        })
    }

    fn take_apart(typed: &str) -> Result<Self, String> {
        if let Some(path) = typed.strip_prefix("unix:") {
            return Self::of_socket(
                typed,
                path.strip_prefix("//").filter(|path| path.starts_with('/')).unwrap_or(path),
            );
        }
        let (scheme, rest) = match typed.split_once("://") {
            Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
            None => (None, typed),
        };
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (login, authority) = match authority.rsplit_once('@') {
            Some((login, authority)) => (Some(parse_login(login)?), authority),
            None => (None, authority),
        };
        if scheme.is_none() && !path.is_empty() {
            return Err(format!("target '{typed}' has a path but no scheme; did you mean http://{typed}?"));
        }
        let (host, port) = split_port(authority).ok_or_else(|| {
            format!("target '{typed}' is not host:port or a URL (an IPv6 address goes in brackets: [::1]:80)")
        })?;
        let port = match port {
            None => None,
            Some(text) => Some(
                parse_port(text).ok_or_else(|| format!("'{text}' in target '{typed}' is not a port (1 to 65535)"))?,
            ),
        };
        if host.is_empty() {
            return Err(format!("target '{typed}' names no host"));
        }
        let secure = SECURE.iter().find(|(secure, ..)| scheme.as_deref() == Some(secure));
        let scheme = secure.map_or(scheme, |(_, plain, _)| Some((*plain).to_owned()));
        let usual_port = secure.and_then(|(_, _, usual)| *usual);
        let (host, path) = (host.to_owned(), path.to_owned());
        let (typed, tls) = (without_password(typed), secure.is_some());
        Ok(Self { typed, scheme, tls, host, port, usual_port, path, socket: None, login })
    }

    fn of_socket(typed: &str, path: &str) -> Result<Self, String> {
        let path = Path::new(path);
        Endpoint::unix(path).map_err(|why| format!("target '{typed}': {why}"))?;
        Ok(Self {
            typed: typed.to_owned(),
            scheme: None,
            tls: false,
            host: "localhost".to_owned(),
            port: None,
            usual_port: None,
            path: String::new(),
            socket: Some(path.to_owned()),
            login: None,
        })
    }

    /// The protocol: `chosen` (`--protocol`) before the scheme before echo.
    pub fn protocol(&self, chosen: Option<&'static Protocol>) -> Result<&'static Protocol, String> {
        if let Some(protocol) = chosen {
            return Ok(protocol);
        }
        let Some(scheme) = &self.scheme else { return Ok(&protocol::PROTOCOLS[0]) };
        protocol::by_scheme(scheme).ok_or_else(|| {
            let known = protocol::PROTOCOLS.iter().flat_map(|p| p.schemes).copied();
            let known: Vec<_> = known.chain(SECURE.iter().map(|(secure, ..)| *secure)).collect();
            format!("scheme '{scheme}' of target '{}' is not known; there are {}", self.typed, known.join(", "))
        })
    }

    /// `host:port` as typed, for a Host header: the port only where it was typed.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match self.port {
            Some(port) => format!("{host}:{port}"),
            None => host,
        }
    }
}

/// `user:password`, with what a URL may not contain written as %XX (RFC 3986, 2.1).
fn parse_login(text: &str) -> Result<(String, String), String> {
    let (user, password) = text.split_once(':').unwrap_or(("", text));
    let plain = |part: &str| {
        let mut bytes = Vec::with_capacity(part.len());
        let mut rest = part.as_bytes();
        while let Some((first, behind)) = rest.split_first() {
            let hex = behind.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
            match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                Some(byte) => (bytes.push(byte), rest = &behind[2..]),
                None => (bytes.push(*first), rest = behind),
            };
        }
        String::from_utf8(bytes).map_err(|_| "user and password of the target are no UTF-8".to_owned())
    };
    Ok((plain(user)?, plain(password)?))
}

fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    if let Some(bracketed) = authority.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None => rest.is_empty().then_some((host, None)),
        };
    }
    match authority.split_once(':') {
        None => Some((authority, None)),
        Some((_, port)) if port.contains(':') => None,
        Some((host, port)) => Some((host, Some(port))),
    }
}

fn parse_port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(typed: &str) -> (Option<String>, String, Option<u16>, String) {
        let target = Target::parse(typed).unwrap();
        (target.scheme, target.host, target.port, target.path)
    }

    #[test]
    fn targets_are_taken_apart() {
        assert_eq!(parts("localhost:80"), (None, "localhost".into(), Some(80), String::new()));
        assert_eq!(parts("[::1]:80"), (None, "::1".into(), Some(80), String::new()));
        assert_eq!(parts("HTTP://a.b/c?d=e:f"), (Some("http".into()), "a.b".into(), None, "/c?d=e:f".into()));
        assert_eq!(parts("tcp://[fe80::1]:9"), (Some("tcp".into()), "fe80::1".into(), Some(9), String::new()));
    }

    #[test]
    fn nonsense_is_refused_in_one_line() {
        let bad = ["", ":80", "a:", "a:0", "a:65536", "a:+1", "::1", "[::1", "a/b", "http://", "a:b:c", "[::1]x"];
        for typed in bad {
            let error = Target::parse(typed).unwrap_err();
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn sockets_and_logins() {
        let target = Target::parse("unix:/run/a.sock").unwrap();
        assert_eq!(target.socket.as_deref(), Some(Path::new("/run/a.sock")));
        assert_eq!(Target::parse("unix:///run/a.sock").unwrap().socket, target.socket);
        assert!(Target::parse("unix:").is_err() && Target::parse(&format!("unix:{}", "x".repeat(200))).is_err());
        let target = Target::parse("redis://me:p%40ss@h:1/2").unwrap();
        assert_eq!(target.login, Some(("me".into(), "p@ss".into())));
        assert_eq!((target.typed.as_str(), target.host.as_str()), ("redis://me:***@h:1/2", "h"));
        assert_eq!(Target::parse("redis://:pw@h").unwrap().login, Some((String::new(), "pw".into())));
    }

    #[test]
    fn passwords_are_in_no_error() {
        for typed in [
            "redis://:hunter2@127.0.0.1:99999",
            "redis://:hunter2@",
            "redis://:hunter2/secret@h:7602",
            "redis//:hunter2@h:1",
            "redis://u:hunter2@[::1",
            "http://h:hunter2@x:y:z",
        ] {
            let why = Target::parse(typed).unwrap_err();
            assert!(!why.contains("hunter2") && !why.contains('\n'), "{why}");
        }
    }

    #[test]
    fn the_host_header_names_what_was_typed() {
        assert_eq!(Target::parse("http://[::1]:8080/").unwrap().authority(), "[::1]:8080");
        assert_eq!(Target::parse("http://example.org/").unwrap().authority(), "example.org");
    }
}
