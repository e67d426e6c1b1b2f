//! Secrets within fields: `"password": "…"` of JSON, and of whatever resembles it (single quotes, names without quotes,
//! YAML, `name = value`).

use super::markup::is_name;
use super::{MASK, is_secret_name, is_secret_parameter};
use std::ops::Range;

/// Characters of a longer name are not looked at.
const NAME_MAX: usize = 200;
/// Fields that say what the field behind them is called: `{"name": "password", "value": "…"}`.
const NAMING: &[&str] = &["name", "key", "field", "param", "id", "path"];
const NAMED: &[&str] = &["value", "val", "content", "data"];

/// Which names begin a field, by what the text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// In quotes; without, where a quote begins the value.
    Message,
    /// Also without quotes, where the name leaves no doubt.
    Value,
    /// Also without quotes.
    Body,
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
    let mut secrets: Vec<Range<usize>> = Vec::new();
    let (mut done, mut from, mut pair) = (0, 0, Pair::default());
    while let Some(at) = text[from..].find([':', '=']).map(|at| from + at) {
        from = at + 1;
        let Some(name) = name_before(text, done, at) else { continue };
        let rest = text[from..].strip_prefix('>').unwrap_or_else(|| &text[from..]);
        let value = rest.trim_start();
        let start = text.len() - value.len();
        let is_named = names == Names::Body && pair.names(text, &name.text, value, start, &mut secrets);
        if !is_named && !is_secret(&name, value, rest, names) || value.is_empty() {
            continue;
        }
        let (skipped, end) = if let Some((open, end)) = quoted(value) {
            (open, end)
        } else if value.starts_with(['{', '[']) {
            (0, balanced(value))
        } else if let Some(end) = block(text, &name, from).filter(|_| names == Names::Body) {
            (0, end.saturating_sub(start))
        } else {
            (0, bare(value, name.in_quotes.is_some(), first_bracket < at, text[at..].starts_with('=')))
        };
        if end > skipped {
            done = start + end;
            secrets.push(start + skipped..done);
        }
        from = from.max(start + end);
    }
    secrets.sort_unstable_by_key(|secret| secret.start);
    let (mut out, mut done) = (String::new(), 0);
    for secret in secrets {
        out.push_str(&text[done..secret.start]);
        out.push_str(MASK);
        done = secret.end;
    }
    out + &text[done..]
}

/// A field that says what the one beside it is called: `{"name": "password", "value": "…"}`, in any order.
#[derive(Default)]
struct Pair {
    /// The next value is that of a secret.
    is_secret: bool,
    /// A value before its name.
    early: Option<Range<usize>>,
}

impl Pair {
    /// Whether the field `name` is the value of something secret; where it is the name of something, its value may
    /// have come before it.
    fn names(&mut self, text: &str, name: &str, value: &str, start: usize, secrets: &mut Vec<Range<usize>>) -> bool {
        let name = name.to_ascii_lowercase();
        let quoted = quoted(value).map(|(open, end)| start + open..start + end);
        if NAMED.contains(&name.as_str()) {
            self.early = quoted.filter(|value| !value.is_empty());
            return std::mem::take(&mut self.is_secret);
        }
        let Some(quoted) = quoted.filter(|quoted| NAMING.contains(&name.as_str()) && is_name(&text[quoted.clone()]))
        else {
            return false;
        };
        let beside = |early: &Range<usize>| !text[early.end..quoted.start].contains(['{', '}', '<', '>']);
        let early =
            self.early.take().filter(beside).filter(|early| secrets.last().is_none_or(|it| it.end <= early.start));
        self.is_secret = early.is_none();
        secrets.extend(early);
        false
    }
}

fn is_secret(name: &Name, value: &str, behind: &str, names: Names) -> bool {
    let in_message = names == Names::Message;
    let is_text = quoted(value).is_some();
    match name.in_quotes {
        // A sentence with a quotation in it.
        Some(_) if names != Names::Body && name.text.contains(' ') => false,
        Some('\'') if in_message => is_text && is_secret_parameter(&name.text),
        Some(_) => is_secret_parameter(&name.text),
        None if in_message => is_text && is_secret_name(&name.text),
        None if behind.starts_with("//") => false,
        None if names == Names::Body && behind.len() > value.len() => is_secret_parameter(&name.text),
        // `token:7` is a key, and `token: 7` a field.
        None if names == Names::Body || behind.len() > value.len() || !is_number(behind) => is_secret_name(&name.text),
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
