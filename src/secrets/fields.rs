//! Secrets within fields: `"password": "…"` of JSON, and of whatever resembles it (single quotes, names without quotes,
//! YAML, `name = value`).

use super::markup::is_name;
use super::{MASK, is_secret_name, is_secret_parameter};

/// Characters of a longer name are not looked at.
const NAME_MAX: usize = 200;
/// Fields that say what the field behind them is called: `{"name": "password", "value": "…"}`.
const NAMING: &[&str] = &["name", "key", "field", "param", "id"];
const NAMED: &[&str] = &["value", "val", "content", "data"];

/// Which names begin a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// In quotes; without, where a quote begins the value.
    OfMessages,
    /// Also without quotes, where the name leaves no doubt.
    OfValues,
    /// Also without quotes.
    OfBodies,
}

/// A name before a `:` or `=`.
struct Name {
    text: String,
    in_quotes: Option<char>,
    /// Where it begins, quotes included.
    start: usize,
}

/// `text` with `***` in the place of what stands under a secret name, with all that belongs to it.
pub(super) fn masked(text: &str, names: Names) -> String {
    let first_bracket = text.find(['{', '[', '(']).unwrap_or(text.len());
    let (mut out, mut done, mut from, mut named) = (String::new(), 0, 0, false);
    while let Some(at) = text[from..].find([':', '=']).map(|at| from + at) {
        from = at + 1;
        let Some(name) = name_before(text, done, at) else { continue };
        let rest = text[from..].strip_prefix('>').unwrap_or(&text[from..]);
        let value = rest.trim_start();
        let start = text.len() - value.len();
        let plain = name.text.to_ascii_lowercase();
        if NAMING.contains(&plain.as_str()) && quoted(value).is_some_and(|(open, end)| is_name(&value[open..end])) {
            named = true;
        }
        let is_named = named && NAMED.contains(&plain.as_str()) && names == Names::OfBodies;
        if !is_named && !is_secret(&name, value, rest, names) || value.is_empty() {
            continue;
        }
        named &= !is_named;
        let (skipped, end) = if let Some((open, end)) = quoted(value) {
            (open, end)
        } else if value.starts_with(['{', '[']) {
            (0, balanced(value))
        } else if let Some(end) = block(text, &name, from).filter(|_| names == Names::OfBodies) {
            (0, end.saturating_sub(start))
        } else {
            (0, bare(value, name.in_quotes.is_some(), first_bracket < at, text[at..].starts_with('=')))
        };
        if end > skipped {
            out.push_str(&text[done..start + skipped]);
            out.push_str(MASK);
            done = start + end;
        }
        from = from.max(start + end);
    }
    out + &text[done..]
}

fn is_secret(name: &Name, value: &str, behind: &str, names: Names) -> bool {
    let in_message = names == Names::OfMessages;
    let is_text = quoted(value).is_some();
    match name.in_quotes {
        // A sentence with a quotation in it.
        Some(_) if names != Names::OfBodies && name.text.contains(' ') => false,
        Some('\'') if in_message => is_text && is_secret_parameter(&name.text),
        Some(_) => is_secret_parameter(&name.text),
        None if in_message => is_text && is_secret_name(&name.text),
        None if behind.starts_with("//") => false,
        None if names == Names::OfBodies && behind.len() > value.len() => is_secret_parameter(&name.text),
        // `token:7` is a key, and `token: 7` a field.
        None if names == Names::OfBodies || behind.len() > value.len() || !is_number(behind) => {
            is_secret_name(&name.text)
        }
        None => false,
    }
}

fn is_number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
}

/// The name that ends before `at`, behind `done`.
fn name_before(text: &str, done: usize, at: usize) -> Option<Name> {
    let before = text[done..at].trim_end();
    let before = before.strip_suffix(':').unwrap_or(before);
    let last = before.chars().next_back()?;
    if !"'\"".contains(last) {
        let in_name = |c: &char| c.is_alphanumeric() || "-_.%$".contains(*c);
        let bytes: usize = before.chars().rev().take(NAME_MAX).take_while(in_name).map(char::len_utf8).sum();
        let start = before.len() - bytes;
        // A file, and not a name.
        let is_file = before[..start].ends_with('/');
        let name = before[start..].to_owned();
        return (!name.is_empty() && !is_file).then_some(Name { text: name, in_quotes: None, start: done + start });
    }
    let inside = &before[..before.len() - 1];
    let (start, _) = inside.char_indices().rev().take(NAME_MAX).find(|(_, c)| *c == last)?;
    let name = inside[start + 1..].trim_end_matches('\\');
    // `pass\u0077ord`.
    let decoded = serde_json::from_str(&format!("\"{name}\"")).unwrap_or_else(|_| name.to_owned());
    Some(Name { text: decoded, in_quotes: Some(last), start: done + start })
}

/// Where the text of a quoted value begins and ends. Within JSON within JSON, its quotes have backslashes before them.
fn quoted(value: &str) -> Option<(usize, usize)> {
    let depth = value.len() - value.trim_start_matches('\\').len();
    let quote = value[depth..].chars().next().filter(|c| "'\"".contains(*c))?;
    let open = depth + 1;
    let mut slashes = 0;
    let mut doubled = false;
    for (at, c) in value[open..].char_indices() {
        let closes = c == quote && if depth == 0 { slashes % 2 == 0 } else { slashes <= depth };
        slashes = if c == '\\' { slashes + 1 } else { 0 };
        if !closes || std::mem::take(&mut doubled) {
            continue;
        }
        // Twice the quote is one of the text, in YAML and SQL.
        doubled = depth == 0 && at > 0 && value[open + at + 1..].starts_with(quote);
        if !doubled {
            return Some((open, open + at - depth.min(at)));
        }
    }
    Some((open, value.len()))
}

/// The end of a list or an object.
fn balanced(value: &str) -> usize {
    let (mut depth, mut quote, mut escaped) = (0, None, false);
    for (at, c) in value.char_indices() {
        match (c, quote) {
            _ if std::mem::take(&mut escaped) => {}
            ('\\', _) => escaped = true,
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => quote = Some(c),
            ('{' | '[', None) => depth += 1,
            ('}' | ']', None) => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    value.len()
}

/// The end of the lines that belong to a name at the beginning of its own (YAML), where they begin behind it.
fn block(text: &str, name: &Name, from: usize) -> Option<usize> {
    let line = text[..name.start].rfind('\n').map_or(0, |at| at + 1);
    let own = text[line..name.start].chars().count();
    let (first, _) = text[from..].split_once('\n')?;
    let is_lead = text[line..name.start].chars().all(|c| c == ' ' || c == '-');
    if !is_lead || !(first.trim().is_empty() || first.trim_start().starts_with(['|', '>'])) {
        return None;
    }
    let mut end = from + first.len() + 1;
    for line in text[end..].split_inclusive('\n') {
        let indent = line.len() - line.trim_start_matches(' ').len();
        let belongs = line.trim().is_empty() || indent > own || indent == own && line.trim_start().starts_with("- ");
        if !belongs {
            break;
        }
        end += line.len();
    }
    Some(text[..end].trim_end().len())
}

/// The end of a value without quotes.
fn bare(value: &str, is_json: bool, in_brackets: bool, is_form: bool) -> usize {
    let ends: &[char] = match () {
        () if is_json => &[',', '}', ']', '\n', ' '],
        () if in_brackets => &[',', '}', ']', ')', '\n', '"'],
        () if is_form => &['&', ';', '\n', '\r', ','],
        () => &['\n', '\r'],
    };
    value.find(ends).unwrap_or(value.len())
}
