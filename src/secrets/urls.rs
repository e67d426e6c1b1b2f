//! Secrets within URLs: logins, and parameters.

use super::fields::{self, Names};
use super::{MASK, is_secret_name, is_secret_parameter, markup};
use crate::url::{authority, split};
use percent_encoding::percent_decode_str;

/// How many times a value is taken for a %XX text once more: a URL in a URL in a URL.
const NESTED_MAX: usize = 4;

/// A target, or a path with its query.
pub fn url(text: &str) -> String {
    parameters(&logins(text))
}

/// `scheme://user:password@host`: wherever one begins in `text`, also without its scheme. The user stays, but not of a
/// web server's: there a token may stand in its place.
fn logins(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = next_authority(rest, out.is_empty()) {
        let (before, behind) = rest.split_at(at);
        out.push_str(before);
        rest = behind;
        let scheme = before.trim_end_matches("://").to_ascii_lowercase();
        let is_web = scheme.ends_with("http") || scheme.ends_with("https");
        let Some(login) = login(behind) else {
            if let Some(shown) = unparsed(behind, is_web) {
                return out + &shown;
            }
            continue;
        };
        match login.split_once(':') {
            Some((user, password)) if !password.is_empty() && !is_web => out.push_str(&format!("{user}:{MASK}")),
            _ => out.push_str(MASK),
        }
        rest = &behind[login.len()..];
    }
    out + rest
}

/// Where an authority begins in `text`: behind `://`, or behind the `//` that it begins with.
fn next_authority(text: &str, is_first: bool) -> Option<usize> {
    match is_first && text.starts_with("//") {
        true => Some("//".len()),
        false => text.find("://").map(|at| at + "://".len()),
    }
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

/// What of an authority without `@` may be shown, where it is none: `user:password` may have been meant by it, and the
/// password may have any `/` in it. `None`: it is one, or has a place for one.
fn unparsed(behind: &str, is_web: bool) -> Option<String> {
    let ends = split(behind).authority.len();
    // A sentence may end behind it.
    let text = behind[..ends].trim_end_matches([':', '.', ';', '!', ']', '}', '\u{2026}']);
    if text.is_empty() || authority(&behind[..ends]).is_ok() || authority(text).is_ok() {
        return None;
    }
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    if is_gap(port) || is_gap(&behind[host.len()..ends].replace(':', "")) || text.parse::<core::net::Ipv6Addr>().is_ok()
    {
        return None;
    }
    let user = behind[..ends].split_once(':').map_or("", |(user, _)| user);
    match !user.is_empty() && !is_web && authority(user).is_ok() {
        true => Some(format!("{user}:{MASK}")),
        false => Some(MASK.to_owned()),
    }
}

/// A place where a port goes: `{port}`, `$PORT`, `PORT`.
fn is_gap(port: &str) -> bool {
    let variable = port.strip_prefix('$').map(|name| name.trim_start_matches('{').trim_end_matches('}'));
    let is_variable = |name: &str| name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    port == "{port}" || port.eq_ignore_ascii_case("port") || variable.is_some_and(is_variable)
}

/// `?token=…`, and likewise behind `&`, `;` and `#`; and before those, where the name leaves no doubt.
pub(super) fn parameters(text: &str) -> String {
    pairs(text, NESTED_MAX)
}

fn pairs(text: &str, nested: usize) -> String {
    const BETWEEN: [char; 4] = ['?', '&', ';', '#'];
    let one = |(number, piece): (usize, &str)| {
        let pair = piece.strip_suffix(BETWEEN).unwrap_or(piece);
        let is_secret = if number == 0 { is_secret_name } else { is_secret_parameter };
        match secret_value(pair, is_secret) {
            Some(at) => format!("{}{MASK}{}", &pair[..at], &piece[pair.len()..]),
            None => match pair.split_once('=') {
                Some((name, value)) if hides(value, nested) => format!("{name}={MASK}{}", &piece[pair.len()..]),
                None if hides(pair, nested) => format!("{MASK}{}", &piece[pair.len()..]),
                _ => piece.to_owned(),
            },
        }
    };
    text.split_inclusive(BETWEEN).enumerate().map(one).collect()
}

/// Where the secret begins in `name=secret`, or in `a=name=secret`.
fn secret_value(pair: &str, is_secret: fn(&str) -> bool) -> Option<usize> {
    let in_name = |c: char| c.is_alphanumeric() || "-_.%[]+$".contains(c);
    let mut equals = pair.match_indices('=').map(|(at, _)| at);
    let at = equals.find(|at| {
        let before = &pair[..*at];
        is_secret(&before[before.trim_end_matches(in_name).len()..])
    })?;
    (at + 1 < pair.len()).then_some(at + 1)
}

/// A text as %XX with a secret in it: a URL in its turn, `=` written as %3D, JSON, XML.
fn hides(value: &str, nested: usize) -> bool {
    if nested == 0 || !value.contains('%') {
        return false;
    }
    let plain = percent_decode_str(value).decode_utf8_lossy();
    let hides = |mask: fn(&str) -> String| mask(&plain) != plain;
    let content = |text: &str| fields::masked(&markup::elements(text, false), Names::Value);
    plain != value && (hides(logins) || hides(content) || pairs(&plain, nested - 1) != plain)
}
