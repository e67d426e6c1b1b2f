//! What a target names: `host:port`, or a URL whose scheme chooses the protocol. Parsing only; nothing is looked up.

use loadgen_core::protocol::{self, Protocol};
use loadgen_core::sys::endpoint::Endpoint;
use loadgen_core::{secrets, url};
use std::path::{Path, PathBuf};

/// A target, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Without what is secret.
    pub typed: String,
    /// By the scheme; `None` where there is none (`host:port`).
    pub scheme: Option<String>,
    /// The scheme says that the stream is encrypted.
    pub tls: bool,
    /// A name in ASCII, or an address; without brackets and zone where it is one of IPv6.
    pub host: String,
    /// The interface of an IPv6 address, by name or number: it is this machine's business, and no server is told
    /// (RFC 6874, 1).
    pub zone: Option<String>,
    pub port: Option<u16>,
    /// Where that of the scheme is another than that of the protocol.
    pub usual_port: Option<u16>,
    /// With its query, without its fragment, as it is sent; empty where there is none.
    pub path: String,
    /// `unix:PATH`: the socket, in place of host and port.
    pub socket: Option<PathBuf>,
    /// User and password before the host; the user may be empty.
    pub login: Option<(String, String)>,
}

/// A target, or what is left of one, that cannot be used; `user:password` may have been meant by `host:port`.
fn shown(typed: &str) -> String {
    match url::split(typed).scheme {
        Some(_) => secrets::url(typed),
        None => secrets::url(&format!("//{typed}"))["//".len()..].to_owned(),
    }
}

impl Target {
    /// Takes `typed` apart, or says in one line what is wrong with it.
    pub fn parse(typed: &str) -> Result<Self, String> {
        Self::take_apart(typed).map_err(|why| {
            // What cannot be taken apart may hold a password anywhere before its last @.
            let shown = match typed.rsplit_once('@') {
                None => shown(typed),
                Some((_, host)) => {
                    let scheme = url::split(typed).scheme.map_or(String::new(), |scheme| format!("{scheme}://"));
                    // Behind an @, a number can only be meant for a port.
                    let (_, port) = host.rsplit_once(':').unwrap_or_default();
                    let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
                    let host = if is_number { secrets::url(host) } else { shown(host) };
                    format!("{scheme}{}@{host}", secrets::MASK)
                }
            };
            let login =
                if typed.contains('@') { " (a login goes before the host, @ / : in it as %40 %2F %3A)" } else { "" };
            // What was taken for a host or a port may be the beginning of a login then, and `why` quotes it.
            let cut_short = typed.contains('@') && !url::split(typed).authority.contains('@');
            let why = if cut_short { "what stands before the first / ? or # is no host and port" } else { &why };
            format!("target '{}' is not host:port or a URL: {why}{login}", shown.escape_debug())
        })
    }

    fn take_apart(typed: &str) -> Result<Self, String> {
        if let Some(path) = typed.get(..5).filter(|start| start.eq_ignore_ascii_case("unix:")).map(|_| &typed[5..]) {
            let path = path.strip_prefix("//").filter(|path| path.starts_with('/')).unwrap_or(path);
            return Self::of_socket(typed, path);
        }
        let parts = url::split(typed);
        if parts.scheme.is_none() && parts.authority.len() < typed.len() {
            let guess = format!("; did you mean {}?", shown(&format!("http://{typed}")));
            let guess = if typed.contains('@') { "" } else { &guess };
            return Err(format!("it has a path or a query but no scheme{guess}"));
        }
        let url::Authority { login, host, zone, port } = url::authority(parts.authority)?;
        if parts.scheme.is_none() && parts.authority.ends_with(':') {
            return Err("its port is empty".to_owned());
        }
        let scheme = parts.scheme.map(str::to_ascii_lowercase);
        let secure = scheme.as_deref().and_then(protocol::by_secure_scheme);
        Ok(Self {
            typed: secrets::url(typed),
            scheme: secure.map_or(scheme, |(plain, _)| plain.schemes.first().map(|plain| (*plain).to_owned())),
            tls: secure.is_some(),
            host,
            zone,
            port,
            usual_port: secure.and_then(|(_, usual)| usual),
            path: parts.origin_form()?,
            socket: None,
            login,
        })
    }

    fn of_socket(typed: &str, path: &str) -> Result<Self, String> {
        let path = Path::new(path);
        Endpoint::unix(path)?;
        Ok(Self {
            typed: typed.to_owned(),
            scheme: None,
            tls: false,
            host: "localhost".to_owned(),
            zone: None,
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
            let secure = protocol::PROTOCOLS.iter().flat_map(|p| p.secure_schemes).map(|(secure, _)| *secure);
            let known: Vec<_> = known.chain(secure).collect();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(typed: &str) -> (Option<String>, String, Option<u16>, String) {
        let target = Target::parse(typed).unwrap();
        (target.scheme, target.host, target.port, target.path)
    }

    #[test]
    fn no_message_quotes_a_login_that_was_cut_short() {
        for typed in
            ["redis://u:hunter2/@h:1", "redis://u:hunter2#@h:1", "redis://u:hunter2?@h", "redis://[hunter2]/@h"]
        {
            let why = Target::parse(typed).expect_err(typed);
            assert!(!why.contains("hunter2") && why.contains("first / ? or #"), "{why}");
        }
        assert!(Target::parse("redis://u:p@h:99999").unwrap_err().contains("99999"));
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
        let bad =
            bad.into_iter().chain(["a:1?x", "a:1#x", "http://h/a b", "redis://u@v@h", "http://h/\n", "1http://h"]);
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
        assert_eq!(Target::parse("UNIX:/a?b#c").unwrap().socket.as_deref(), Some(Path::new("/a?b#c")));
    }

    #[test]
    fn a_query_and_a_fragment_end_the_authority() {
        let target = Target::parse("redis://127.0.0.1:1?x=a@127.0.0.1:2").unwrap();
        assert_eq!((target.port, target.login, target.path.as_str()), (Some(1), None, "/?x=a@127.0.0.1:2"));
        assert_eq!(parts("http://h:1?k=v"), (Some("http".into()), "h".into(), Some(1), "/?k=v".into()));
        assert_eq!(parts("http://h#a@b:2"), (Some("http".into()), "h".into(), None, String::new()));
        assert_eq!(parts("http://h:/#x"), (Some("http".into()), "h".into(), None, "/".into()));
        let target = Target::parse("https://[fe80::1%25lo]:8/x?y#z").unwrap();
        assert_eq!((target.authority().as_str(), target.zone.as_deref()), ("[fe80::1]:8", Some("lo")));
        assert_eq!((target.host.as_str(), target.path.as_str()), ("fe80::1", "/x?y"));
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
            "redis://:hunter2%+1@h",
            "redis://hunter2@hunter2@h",
            "http://h:x/?token=hunter2",
            "h:1/?token=hunter2",
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
