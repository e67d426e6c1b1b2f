//! What of a text is secret, by what it means, and how that is written wherever such a text is kept or shown: `***`.
//!
//! One table for all: logins of URLs, headers, parameters of a query, fields of a body, commands, and the words of a
//! command line, also those of a command line within another. What is not secret stays as it is, so that a masked
//! text says the same to who reads it. Masking twice is masking once.

mod names;
mod texts;

pub use names::{is_secret_header, is_secret_name, is_secret_parameter};
pub use texts::{command, shell, words};

use crate::url::{authority, split};
use percent_encoding::percent_decode_str;

/// What stands in the place of something secret.
pub const MASK: &str = "***";

/// The value of a header, as it may be shown.
pub fn header_value(name: &str, value: &str) -> String {
    if is_secret_header(name) || is_login(value) { MASK.to_owned() } else { text(value) }
}

/// `Bearer …`, whatever the header is called.
fn is_login(value: &str) -> bool {
    let scheme = value.trim_start().split_once(' ').map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| ["basic", "bearer"].iter().any(|known| scheme.eq_ignore_ascii_case(known)))
}

/// `Name: value`. What has no name might be anything; `@FILE` names the file that has them.
pub fn header(line: &str) -> String {
    match line.split_once(':') {
        _ if line.starts_with('@') => line.to_owned(),
        None => MASK.to_owned(),
        Some((name, value)) if is_secret_header(name.trim()) || is_login(value) => {
            let blank = &value[..value.len() - value.trim_start().len()];
            format!("{name}:{blank}{MASK}")
        }
        Some((name, value)) => format!("{name}:{}", text(value)),
    }
}

/// A target, or a path with its query.
pub fn url(text: &str) -> String {
    parameters(&logins(text))
}

/// A label of the report.
pub fn label(name: &str, value: &str) -> String {
    if is_secret_name(name) { MASK.to_owned() } else { text(value) }
}

/// A body: fields of a form, or of JSON.
pub fn body(text: &str) -> String {
    match text {
        _ if text.starts_with('@') => text.to_owned(),
        _ if text.contains('"') => fields(text),
        _ if text.contains('=') => parameters(&format!("?{text}"))[1..].to_owned(),
        _ => text.to_owned(),
    }
}

/// Any text: a message, a value. URLs in it, and headers, and fields of JSON.
pub fn text(text: &str) -> String {
    let breaks = |c: char| c.is_whitespace() || "'\"`<>|(),".contains(c);
    let lines = text.split_inclusive('\n').map(headers);
    let piece = |piece: &str| {
        let word = piece.strip_suffix(breaks).unwrap_or(piece);
        url(word) + &piece[word.len()..]
    };
    let lines = lines.map(|line| line.split_inclusive(breaks).map(piece).collect::<String>());
    fields(&lines.collect::<String>())
}

/// `scheme://user:password@host`: wherever one begins in `text`. The user stays, but not of a web server's: there a
/// token may stand in its place.
fn logins(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find("://") {
        let (before, behind) = rest.split_at(at + "://".len());
        out.push_str(before);
        rest = behind;
        let Some(login) = login(behind) else { continue };
        let scheme = before.trim_end_matches("://").to_ascii_lowercase();
        match login.split_once(':') {
            Some((user, password))
                if !password.is_empty() && !scheme.ends_with("http") && !scheme.ends_with("https") =>
            {
                out.push_str(&format!("{user}:{MASK}"));
            }
            _ => out.push_str(MASK),
        }
        rest = &behind[login.len()..];
    }
    out + rest
}

/// What stands before the `@` of an authority. Where there is no good authority without it, a password may have been
/// typed with a `/` in it: then all before the last `@`.
fn login(behind: &str) -> Option<&str> {
    let parts = split(behind);
    if parts.scheme.is_none() && parts.authority.contains('@') {
        return parts.authority.rsplit_once('@').map(|(login, _)| login);
    }
    match authority(&parts.authority.replace("{port}", "1")) {
        Ok(_) => None,
        Err(_) => behind.rsplit_once('@').map(|(login, _)| login),
    }
}

/// `?token=…`, and likewise behind `&`, `;` and `#`.
fn parameters(text: &str) -> String {
    const BETWEEN: [char; 4] = ['?', '&', ';', '#'];
    let Some(start) = text.find(BETWEEN) else { return text.to_owned() };
    let (path, query) = text.split_at(start + 1);
    let one = |piece: &str| {
        let (pair, end) = match piece.strip_suffix(BETWEEN) {
            Some(pair) => (pair, &piece[pair.len()..]),
            None => (piece, ""),
        };
        match pair.split_once('=') {
            Some((name, value)) if !value.is_empty() && is_secret_parameter(name) => format!("{name}={MASK}{end}"),
            Some((name, value)) if hides(value) => format!("{name}={MASK}{end}"),
            _ => piece.to_owned(),
        }
    };
    path.to_owned() + &query.split_inclusive(BETWEEN).map(one).collect::<String>()
}

/// A value that is a URL in its turn, as %XX, with a secret in it.
fn hides(value: &str) -> bool {
    let plain = percent_decode_str(value).decode_utf8_lossy();
    plain != value && url(&plain) != plain
}

/// `"password": "…"`, wherever it stands.
fn fields(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(open) = rest.find('"') {
        let (before, behind) = rest.split_at(open + 1);
        out.push_str(before);
        let end = quoted_end(behind);
        out.push_str(&behind[..end]);
        rest = &behind[end..];
        let value = rest.strip_prefix('"').map(str::trim_start).and_then(|rest| rest.strip_prefix(':'));
        let Some(value) = value.map(str::trim_start) else {
            // The closing quote of this one must not open another.
            out.push_str(rest.get(..1).unwrap_or(""));
            rest = rest.get(1..).unwrap_or("");
            continue;
        };
        out.push_str(&rest[..rest.len() - value.len()]);
        rest = value;
        let name = &behind[..end];
        if name.contains(' ') || !is_secret_parameter(name) || value.starts_with(['{', '[']) {
            continue;
        }
        match value.strip_prefix('"') {
            Some(inside) => {
                out.push_str(&format!("\"{MASK}"));
                rest = &inside[quoted_end(inside)..];
                out.push_str(rest.get(..1).unwrap_or(""));
                rest = rest.get(1..).unwrap_or("");
            }
            None => {
                out.push_str(MASK);
                rest = &value[value.find([',', '}', ']', '\n', ' ']).unwrap_or(value.len())..];
            }
        }
    }
    out + rest
}

/// Where a string of JSON ends, behind its opening quote.
fn quoted_end(text: &str) -> usize {
    let mut escaped = false;
    let closes = |(_, c): &(usize, char)| {
        let closes = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        closes
    };
    text.char_indices().find(closes).map_or(text.len(), |(at, _)| at)
}

/// `Authorization: …` in a line, up to its end or the quote that closes it. `session-store:6379` is a host and a port,
/// `token:7` a key, and `/run/api-token: no such file` a message.
fn headers(line: &str) -> String {
    let (mut out, mut rest) = (String::new(), line);
    while let Some(colon) = rest.find(':') {
        let (before, behind) = rest.split_at(colon + 1);
        out.push_str(before);
        rest = behind;
        let before = &before[..colon];
        let in_name = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        let name = &before[before.trim_end_matches(in_name).len()..];
        let is_file = before[..before.len() - name.len()].ends_with(['/', '.']);
        let alone = ["authorization", "cookie"].iter().any(|known| name.eq_ignore_ascii_case(known));
        let value = behind.trim_start();
        let end = value.find(['\'', '"', '`', '\n']).unwrap_or(value.len());
        let is_port = value[..end].trim_end().bytes().all(|byte| byte.is_ascii_digit());
        let is_header = (alone || name.contains('-')) && is_secret_header(name) && !value.starts_with("//");
        if is_file || is_port || !is_header {
            continue;
        }
        out.push_str(&behind[..behind.len() - value.len()]);
        out.push_str(MASK);
        rest = &value[end..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(mask: fn(&str) -> String, table: &[(&str, &str)]) {
        for (typed, shown) in table {
            assert_eq!(mask(typed), *shown, "{typed}");
            assert_eq!(mask(shown), *shown, "once more");
        }
    }

    #[test]
    fn logins_and_parameters_of_urls() {
        holds(
            url,
            &[
                ("redis://hunter2@h", "redis://***@h"),
                ("redis://:hunter2@h:1/2", "redis://:***@h:1/2"),
                ("redis://u:hunter2@h", "redis://u:***@h"),
                ("REDISS://u:a:b@[::1]:1", "REDISS://u:***@[::1]:1"),
                ("redis://a@b@h", "redis://***@h"),
                ("redis://:a/b@h:1", "redis://:***@h:1"),
                ("http://token:@h/x", "http://***@h/x"),
                ("https://token:x-oauth-basic@h", "https://***@h"),
                ("http://h/a@b:c", "http://h/a@b:c"),
                ("http://h:{port}/a@b", "http://h:{port}/a@b"),
                ("redis://h:1?x=a@g:2", "redis://h:1?x=a@g:2"),
                ("http://h?token=x&a=b", "http://h?token=***&a=b"),
                ("/p?a=b;access_token=x;c", "/p?a=b;access_token=***;c"),
                ("/p?api%5Fkey=x&%74oken=y", "/p?api%5Fkey=***&%74oken=***"),
                ("/p?key=x&sig=y&code=z&pwd=w#access_token=v", "/p?key=***&sig=***&code=***&pwd=***#access_token=***"),
                ("/p?monkey=x&keyword=y&q=token", "/p?monkey=x&keyword=y&q=token"),
                ("/p?next=%2F%3Ftoken%3Dx&a=%2F%3Fb%3Dc", "/p?next=***&a=%2F%3Fb%3Dc"),
                ("/p?u=redis%3A%2F%2F%3Apw%40h&v=http%3A%2F%2Fh", "/p?u=***&v=http%3A%2F%2Fh"),
                ("/p?PHPSESSID=x&pw=y", "/p?PHPSESSID=***&pw=***"),
                ("token.example.org:80", "token.example.org:80"),
                ("http://p/?u=redis://:pw@h", "http://p/?u=redis://:***@h"),
                ("unix:/run/a@b", "unix:/run/a@b"),
            ],
        );
    }

    #[test]
    fn headers_by_their_names() {
        holds(
            header,
            &[
                ("Authorization: Bearer x", "Authorization: ***"),
                ("proxy-authorization:x", "proxy-authorization:***"),
                ("Cookie: a=b; c=d", "Cookie: ***"),
                ("X-Api-Key: x", "X-Api-Key: ***"),
                ("X-Vault-Token: x", "X-Vault-Token: ***"),
                ("Ocp-Apim-Subscription-Key: x", "Ocp-Apim-Subscription-Key: ***"),
                ("X-SessionId: x", "X-SessionId: ***"),
                ("Authentication: x", "Authentication: ***"),
                ("X-Upstream: Bearer x", "X-Upstream: ***"),
                ("X-Upstream:basic x", "X-Upstream:***"),
                ("X-Level: Basic", "X-Level: Basic"),
                ("Accept: text/html", "Accept: text/html"),
                ("Idempotency-Key: x", "Idempotency-Key: x"),
                ("X-Author: x", "X-Author: x"),
                ("Referer: http://u:p@h/?token=x", "Referer: http://***@h/?token=***"),
                ("Bearer x", "***"),
                ("@file", "@file"),
            ],
        );
    }

    #[test]
    fn bodies_by_their_fields() {
        holds(
            body,
            &[
                (r#"{"user": "u", "password": "a\"b"}"#, r#"{"user": "u", "password": "***"}"#),
                (r#"{"pin":1234,"a":[{"apiKey":null}]}"#, r#"{"pin":***,"a":[{"apiKey":***}]}"#),
                (r#"{"token": {"a": "b"}, "q": "token"}"#, r#"{"token": {"a": "b"}, "q": "token"}"#),
                ("user=u&password=p", "user=u&password=***"),
                ("@file", "@file"),
                ("x", "x"),
            ],
        );
    }

    #[test]
    fn messages() {
        holds(
            text,
            &[
                ("no 'redis://:pw@h' here", "no 'redis://:***@h' here"),
                ("unexpected '--headr=Authorization: Bearer x' found", "unexpected '--headr=Authorization: ***' found"),
                ("path \"/?token=x\" is bad", "path \"/?token=***\" is bad"),
                ("session-store:6379 is away", "session-store:6379 is away"),
                ("a: b", "a: b"),
                ("cannot read /run/api-token: No such file", "cannot read /run/api-token: No such file"),
                ("command \"AUTH ***\": 'x' is not closed", "command \"AUTH ***\": 'x' is not closed"),
                ("is X-Api-Key: x", "is X-Api-Key: ***"),
            ],
        );
    }
}
