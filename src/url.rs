//! Where the parts of a URL end (RFC 3986): the one splitter for every scheme, of targets and of the server's requests.
//!
//! A target is no address of a browser: the `url` crate follows WHATWG, which drops a scheme's usual port, rewrites
//! paths, takes `\` for `/` and knows no zones of IPv6. What is load must go out as it was typed, or be refused.

use core::net::Ipv6Addr;
use percent_encoding::{AsciiSet, percent_decode_str, percent_encode, utf8_percent_encode};

/// The longest name of a host (RFC 1035, 2.3.4).
const NAME_MAX: usize = 253;
const NO_NAME: &str = "its host is no name of a host";

/// A text, taken apart at its delimiters. Nothing is decoded, and nothing was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split<'a> {
    /// Without `://`; `None` where there is none.
    pub scheme: Option<&'a str>,
    pub authority: &'a str,
    /// Empty, or from its `/` on.
    pub path: &'a str,
    /// Without `?`.
    pub query: Option<&'a str>,
    /// Without `#`.
    pub fragment: Option<&'a str>,
}

/// Takes `text` apart (RFC 3986, appendix B). An authority ends where the first of `/`, `?` and `#` stands.
pub fn split(text: &str) -> Split<'_> {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme).filter(|scheme| is_scheme(scheme));
    let rest = scheme.map_or(text, |scheme| &text[scheme.len() + "://".len()..]);
    let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (rest, fragment) = cut(rest, '#');
    let (path, query) = cut(rest, '?');
    Split { scheme, authority, path, query, fragment }
}

fn cut(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at).map_or((text, None), |(before, behind)| (before, Some(behind)))
}

/// RFC 3986, 3.1.
pub fn is_scheme(text: &str) -> bool {
    let rest = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(rest)
}

impl Split<'_> {
    /// Path and query as a request has them (RFC 9112, 3.2.1): the fragment is never sent. Empty: there is neither.
    ///
    /// # Errors
    /// One clause: there is something in it that cannot be sent.
    pub fn origin_form(&self) -> Result<String, String> {
        let path = match (self.path, self.query) {
            (path, None) => path.to_owned(),
            ("", Some(query)) => format!("/?{query}"),
            (path, Some(query)) => format!("{path}?{query}"),
        };
        sendable(&path)
    }
}

/// A path with its query as it can be sent: without its fragment, and letters beyond ASCII as %XX.
///
/// # Errors
/// One clause: it has blanks or control characters, of which nobody can know how they were meant.
pub fn sendable(path: impl AsRef<[u8]>) -> Result<String, String> {
    let path = path.as_ref().split(|byte| *byte == b'#').next().unwrap_or_default();
    if path.iter().any(|byte| *byte <= b' ' || *byte == 0x7f) {
        return Err("it contains blanks or control characters; write them as %20 and the like".to_owned());
    }
    Ok(percent_encode(path, &AsciiSet::EMPTY).to_string())
}

/// Letters beyond ASCII as %XX.
pub fn ascii(text: &str) -> String {
    utf8_percent_encode(text, &AsciiSet::EMPTY).to_string()
}

/// Who is asked, where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// User and password, decoded; one of them alone is a password.
    pub login: Option<(String, String)>,
    /// A name in ASCII, or an address without brackets and zone.
    pub host: String,
    /// Of an IPv6 address: the interface, by name or number.
    pub zone: Option<String>,
    /// `None`: none was given, or an empty one, which is the scheme's usual one (RFC 3986, 3.2.3).
    pub port: Option<u16>,
}

/// Understands an authority: `[user:password@]host[:port]`.
///
/// # Errors
/// One clause, in which nothing of `text` is: what is none may have been meant as a login.
pub fn authority(text: &str) -> Result<Authority, String> {
    let (login, place) = match text.split_once('@') {
        Some((_, rest)) if rest.contains('@') => return Err("it has more than one @: one in a login is %40".to_owned()),
        Some((login, place)) => (Some(understand_login(login)?), place),
        None => (None, text),
    };
    let (host, zone, port) = match place.strip_prefix('[') {
        Some(bracketed) => {
            let (inside, rest) = bracketed.split_once(']').ok_or("a [ has no ] behind it")?;
            let port = rest.strip_prefix(':');
            if port.is_none() && !rest.is_empty() {
                return Err("behind ] comes : and a port, or nothing".to_owned());
            }
            let (host, zone) = address(inside)?;
            (host, zone, port)
        }
        None => match place.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err("an IPv6 address goes in brackets: [::1]:80".to_owned());
            }
            Some((host, port)) => (name(host)?, None, Some(port)),
            None => (name(place)?, None, None),
        },
    };
    let port = port.filter(|port| !port.is_empty()).map(number).transpose()?;
    Ok(Authority { login, host, zone, port })
}

fn number(text: &str) -> Result<u16, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok().filter(|port| digits && *port > 0);
    // It is not quoted, here as little as a host below: `user:password` may have been meant.
    port.ok_or_else(|| "what stands behind its : is not a port (1 to 65535)".to_owned())
}

fn understand_login(text: &str) -> Result<(String, String), String> {
    if text.contains(|c: char| c.is_control() || c == ' ' || c == '\\') {
        return Err("a blank, a \\ or a control character in a login is written as %20, %5C and the like".to_owned());
    }
    let (user, password) = text.split_once(':').unwrap_or(("", text));
    Ok((decoded(user, "login")?, decoded(password, "login")?))
}

/// `%40` as `@`. Anything else behind a `%` is a mistake: what it was to mean nobody knows.
fn decoded(text: &str, of: &str) -> Result<String, String> {
    let hex = |digits: Option<&str>| digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if text.split('%').skip(1).any(|behind| !hex(behind.get(..2))) {
        return Err(format!("in its {of}, a % without two hexadecimal digits behind it; write %25 for a %"));
    }
    let text = percent_decode_str(text).decode_utf8();
    text.map(|text| text.into_owned()).map_err(|_| format!("its {of} is no UTF-8"))
}

/// A name, or an IPv4 address. Names beyond ASCII are asked for as the domain name system knows them (RFC 5891).
fn name(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("it names no host".to_owned());
    }
    let host = decoded(text, "host")?;
    let host = match host.is_ascii() {
        true => host,
        false => idna::domain_to_ascii(&host).map_err(|_| NO_NAME.to_owned())?,
    };
    // What else is no name of the domain name system is for whoever looks names up to say.
    let fine = |byte: u8| !byte.is_ascii_control() && !br"/?#@:[]\%".contains(&byte);
    match host.bytes().all(fine) && host.len() <= NAME_MAX {
        true => Ok(host),
        false => Err(NO_NAME.to_owned()),
    }
}

/// An IPv6 address, and the zone behind it: `%25lo` (RFC 6874), or as everybody else writes it, `%lo`.
fn address(text: &str) -> Result<(String, Option<String>), String> {
    let (ip, zone) = cut(text, '%');
    if ip.parse::<Ipv6Addr>().is_err() {
        return Err("what stands in its brackets is no IPv6 address".to_owned());
    }
    let zone = zone.map(|zone| zone.strip_prefix("25").filter(|rest| !rest.is_empty()).unwrap_or(zone));
    let zone = zone.map(|zone| decoded(zone, "zone")).transpose()?;
    match &zone {
        Some(zone) if zone.is_empty() || zone.contains(|c: char| c.is_control() || c == ' ') => {
            Err("behind the % of an IPv6 address comes the interface: [fe80::1%25eth0]".to_owned())
        }
        _ => Ok((ip.to_owned(), zone)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_end_where_the_standard_says() {
        type Parts = (Option<&'static str>, &'static str, &'static str, Option<&'static str>, Option<&'static str>);
        let table: &[(&str, Parts)] = &[
            ("h:1", (None, "h:1", "", None, None)),
            ("h:1?x", (None, "h:1", "", Some("x"), None)),
            ("redis://h:1?x=a@g:2", (Some("redis"), "h:1", "", Some("x=a@g:2"), None)),
            ("redis://h:1#x=a@g:2", (Some("redis"), "h:1", "", None, Some("x=a@g:2"))),
            ("redis://h:1/x=a@g:2", (Some("redis"), "h:1", "/x=a@g:2", None, None)),
            ("http://h?k=v", (Some("http"), "h", "", Some("k=v"), None)),
            ("http://h/p?q?r#f#g?", (Some("http"), "h", "/p", Some("q?r"), Some("f#g?"))),
            ("http://h/#?x", (Some("http"), "h", "/", None, Some("?x"))),
            ("HTTP+x://h", (Some("HTTP+x"), "h", "", None, None)),
            ("http:///x", (Some("http"), "", "/x", None, None)),
            ("1http://h", (None, "1http:", "//h", None, None)),
            ("h:1/?u=http://g", (None, "h:1", "/", Some("u=http://g"), None)),
            ("http://[::1%25lo]:1?", (Some("http"), "[::1%25lo]:1", "", Some(""), None)),
        ];
        for (text, (scheme, authority, path, query, fragment)) in table {
            let (scheme, authority, path) = (*scheme, *authority, *path);
            assert_eq!(split(text), Split { scheme, authority, path, query: *query, fragment: *fragment }, "{text}");
        }
    }

    #[test]
    fn authorities_are_understood() {
        let table = [
            ("h", None, "h", None, None),
            ("h:", None, "h", None, None),
            ("H_x.y-z:65535", None, "H_x.y-z", None, Some(65535)),
            ("u:p%40s:s@h:1", Some(("u", "p@s:s")), "h", None, Some(1)),
            ("hunter2@h", Some(("", "hunter2")), "h", None, None),
            ("%C3%A9:@h", Some(("é", "")), "h", None, None),
            ("127.0.0.%31:8", None, "127.0.0.1", None, Some(8)),
            ("bücher.example", None, "xn--bcher-kva.example", None, None),
            ("b%C3%BCcher.example:1", None, "xn--bcher-kva.example", None, Some(1)),
            ("[::1]", None, "::1", None, None),
            ("[::1]:", None, "::1", None, None),
            ("[fe80::1%25lo]:8", None, "fe80::1", Some("lo"), Some(8)),
            ("[fe80::1%lo]:8", None, "fe80::1", Some("lo"), Some(8)),
            ("[fe80::1%251]", None, "fe80::1", Some("1"), None),
            ("[fe80::1%3]", None, "fe80::1", Some("3"), None),
            ("[fe80::1%25eth%2e7]", None, "fe80::1", Some("eth.7"), None),
        ];
        for (text, login, host, zone, port) in table {
            let login = login.map(|(user, password)| (user.to_owned(), password.to_owned()));
            let (host, zone) = (host.to_owned(), zone.map(str::to_owned));
            assert_eq!(authority(text), Ok(Authority { login, host, zone, port }), "{text}");
        }
    }

    #[test]
    fn what_is_no_authority_is_refused_without_its_login() {
        let hosts =
            ["", ":1", "h:0", "h:65536", "h:+1", "h:1:2", "::1", "[::1", "[::1]x", "[h]", "[::1%]", "a\tb", "h%"];
        let more = ["h%zz", "h%00", "h%2fx", "h%40x", "a\\b", "[v1.x]", "ex\u{ad}%ff", "h:1x", "h: 1"];
        let logins = ["hunter2%+1@h", "u:hunter2%@h", "u:hunter2%4@h", "u:%ffhunter2@h", "u@hunter2@h", "hunter2 x@h"];
        for text in hosts.iter().chain(&more).chain(&logins) {
            let why = authority(text).expect_err(text);
            assert!(!why.contains("hunter2") && !why.contains('\n'), "{text}: {why}");
        }
    }

    #[test]
    fn requests_have_no_fragment_and_ascii_only() {
        let table = [
            ("http://h", Ok("")),
            ("http://h?k=v", Ok("/?k=v")),
            ("http://h#f", Ok("")),
            ("http://h/#f", Ok("/")),
            ("http://h/é?ü=1#ß", Ok("/%C3%A9?%C3%BC=1")),
            ("http://h/a%20b%zz", Ok("/a%20b%zz")),
            ("http://h/a b", Err(())),
            ("http://h/a\tb", Err(())),
            ("http://h?a\u{7f}", Err(())),
        ];
        for (text, expected) in table {
            assert_eq!(split(text).origin_form().map_err(|_| ()), expected.map(str::to_owned), "{text}");
        }
    }
}
