//! Secrets within XML, and within forms of several parts.

use super::{MASK, is_secret_parameter};

/// Elements whose text is the name of what the element behind them holds: `<name>password</name><value>…</value>`.
const NAMING: &[&str] = &["name", "key", "field", "param"];

/// `<password>…</password>`, also as text within XML. `to_the_end`: also what is never closed.
pub(super) fn elements(text: &str, to_the_end: bool) -> String {
    between(&between(text, ("<", ">"), to_the_end), ("&lt;", "&gt;"), to_the_end)
}

fn between(text: &str, (opens, closes): (&str, &str), to_the_end: bool) -> String {
    let (mut out, mut rest, mut named) = (String::new(), text, false);
    while let Some(open) = rest.find(opens) {
        let (before, behind) = rest.split_at(open + opens.len());
        out.push_str(before);
        rest = behind;
        let in_name = |c: char| c.is_alphanumeric() || "-_.:".contains(c);
        let name = &behind[..behind.find(|c| !in_name(c)).unwrap_or(behind.len())];
        if name.is_empty() {
            continue;
        }
        // Nothing is a tag from here on.
        let Some(end) = behind.find(closes) else { break };
        let attributes = &behind[name.len()..end];
        let (tag, inside) = behind.split_at(end + closes.len());
        out.push_str(tag);
        rest = inside;
        if attributes.ends_with('/') {
            continue;
        }
        let local = name.rsplit(':').next().unwrap_or(name);
        let is_naming = NAMING.contains(&local.to_ascii_lowercase().as_str());
        let is_secret = std::mem::take(&mut named) || is_secret_parameter(local);
        if !is_secret && !is_naming && attributes.is_empty() {
            continue;
        }
        let close = inside.find(&format!("{opens}/{name}"));
        let content = &inside[..close.unwrap_or(inside.len())];
        // `<input name="password">` is closed by nothing, in HTML.
        let is_called = close.is_some() && names_a_secret(attributes);
        if is_naming && is_name(content) {
            named = true;
        } else if (is_secret && (close.is_some() || to_the_end) || is_called) && !content.is_empty() {
            out.push_str(MASK);
        } else {
            continue;
        }
        out.push_str(if named { content } else { "" });
        rest = &inside[content.len()..];
    }
    out + rest
}

/// `name="password"`.
fn names_a_secret(attributes: &str) -> bool {
    let quoted = |text: &str| {
        let quote = text.chars().next().filter(|c| "'\"".contains(*c))?;
        text[1..].split_once(quote).map(|(value, _)| is_name(value))
    };
    NAMING.iter().any(|name| attributes.split(&format!("{name}=")).skip(1).any(|text| quoted(text) == Some(true)))
}

/// The name of something secret, and nothing else.
pub(super) fn is_name(text: &str) -> bool {
    let text = text.trim();
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || "<>*".contains(c)) && is_secret_parameter(text)
}

/// What a part of `multipart/form-data` holds that is called by a secret name (RFC 7578, 4.2).
pub(super) fn parts(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find("form-data;") {
        let (before, behind) = rest.split_at(at);
        out.push_str(before);
        let head = ["\r\n\r\n", "\n\n"].iter().filter_map(|end| Some(behind.find(end)? + end.len())).min();
        let (head, content) = behind.split_at(head.unwrap_or(behind.len()));
        out.push_str(head);
        rest = content;
        if names_a_secret(head.lines().next().unwrap_or_default()) && !content.is_empty() {
            let end = content.find("\r\n--").or_else(|| content.find("\n--")).unwrap_or(content.len());
            out.push_str(MASK);
            rest = &content[end..];
        }
    }
    out + rest
}

/// What stands between the lines around a private key (RFC 7468).
pub(super) fn private_keys(text: &str) -> String {
    const BEGIN: &str = "PRIVATE KEY-----";
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(BEGIN) {
        let (before, key) = rest.split_at(at + BEGIN.len());
        let is_begin = before.rfind("-----BEGIN ").is_some_and(|begin| !before[begin..].contains('\n'));
        let end = if is_begin { key.find("-----END ").unwrap_or(key.len()) } else { 0 };
        out.push_str(before);
        out.push_str(if end > 0 { MASK } else { "" });
        rest = &key[end..];
    }
    out + rest
}
