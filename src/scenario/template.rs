//! Text with gaps, such as `/item/{random:1..1000}`: compiled once, filled in for each request.

use super::nearest;
use crate::encoding;
use crate::url;

/// Random hexadecimal digits of one gap, at most.
const HEX_MAX: usize = 65_536;

/// What can stand between braces, for messages.
const KNOWN: &[&str] = &["counter", "random", "key", "value", "hex", "uuid", "pick", "line", "random_line"];

/// A compiled text. Its counters and files are numbers into the [`Names`] that it was compiled with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Template {
    pub(super) parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Part {
    Literal(Vec<u8>),
    /// The number of the request, or of this counter.
    Counter(usize),
    /// A number between the two, both included.
    Random(u64, u64),
    Key,
    Value,
    /// So many hexadecimal digits.
    Hex(usize),
    /// Version 4 (RFC 9562, 5.4).
    Uuid,
    /// One of these.
    Pick(Vec<Vec<u8>>),
    /// A line of a file: the next one, or any.
    Line {
        file: usize,
        any: bool,
    },
}

/// Counters and files that templates name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Names {
    pub(super) counters: Vec<String>,
    pub(super) files: Vec<Lines>,
}

/// The lines of a file, without their ends; empty ones are left out. Never empty.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Lines {
    pub(super) name: String,
    bytes: Vec<u8>,
    /// Where each line begins and ends.
    lines: Vec<(usize, usize)>,
}

impl Lines {
    fn new(name: &str, bytes: Vec<u8>) -> Result<Self, String> {
        let mut lines = Vec::new();
        let mut start = 0;
        while start < bytes.len() {
            let end = bytes[start..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |n| start + n);
            let text_end = if bytes[start..end].ends_with(b"\r") { end - 1 } else { end };
            if text_end > start {
                lines.push((start, text_end));
            }
            start = end + 1;
        }
        if lines.is_empty() {
            return Err(format!("{name} has no lines"));
        }
        Ok(Self { name: name.to_owned(), bytes, lines })
    }

    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    pub(super) fn get(&self, index: usize) -> &[u8] {
        let (start, end) = self.lines[index];
        &self.bytes[start..end]
    }
}

/// Gives the content of a file, or says in one line why it cannot.
pub type ReadFile<'a> = &'a mut dyn FnMut(&str) -> Result<Vec<u8>, String>;

impl Names {
    fn counter(&mut self, name: &str) -> usize {
        self.counters.iter().position(|known| known == name).unwrap_or_else(|| {
            self.counters.push(name.to_owned());
            self.counters.len() - 1
        })
    }

    fn file(&mut self, name: &str, read: ReadFile<'_>) -> Result<usize, String> {
        if let Some(known) = self.files.iter().position(|lines| lines.name == name) {
            return Ok(known);
        }
        let content = read(name)?;
        let lines = encoding::without_mark(&content).map_err(|why| format!("{name}: {why}"))?;
        self.files.push(Lines::new(name, lines.to_vec())?);
        Ok(self.files.len() - 1)
    }
}

impl Template {
    /// Compiles `text`. `{{` is a brace, and so is one that no letter follows (JSON); `}` alone is one, too.
    ///
    /// # Errors
    /// One line that names the gap which cannot be filled.
    pub fn compile(text: &str, names: &mut Names, read: ReadFile<'_>) -> Result<Self, String> {
        let mut template = Self::default();
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            let behind = &rest[at + 1..];
            if behind.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
                template.literal(&rest.as_bytes()[..at]);
                let end = behind.find('}').ok_or_else(|| {
                    format!(
                        "'{{{}' has no closing brace; a brace that is meant as such is written {{{{",
                        head_of(behind)
                    )
                })?;
                template.parts.push(gap(&behind[..end], names, read)?);
                rest = &behind[end + 1..];
            } else {
                template.literal(&rest.as_bytes()[..=at]);
                rest = behind.strip_prefix('{').unwrap_or(behind);
            }
        }
        template.literal(rest.as_bytes());
        Ok(template)
    }

    /// A text that is the same each time.
    pub fn constant(bytes: &[u8]) -> Self {
        let mut template = Self::default();
        template.literal(bytes);
        template
    }

    /// Puts `bytes` behind it.
    pub fn literal(&mut self, bytes: &[u8]) {
        match self.parts.last_mut() {
            _ if bytes.is_empty() => {}
            Some(Part::Literal(last)) => last.extend_from_slice(bytes),
            _ => self.parts.push(Part::Literal(bytes.to_vec())),
        }
    }

    /// Puts another one, of the same [`Names`], behind it.
    pub fn append(&mut self, other: &Self) {
        for part in &other.parts {
            match part {
                Part::Literal(bytes) => self.literal(bytes),
                part => self.parts.push(part.clone()),
            }
        }
    }

    /// Its bytes, if they are the same each time.
    pub fn as_constant(&self) -> Option<&[u8]> {
        match &self.parts[..] {
            [] => Some(&[]),
            [Part::Literal(bytes)] => Some(bytes),
            _ => None,
        }
    }

    /// Whether each byte that it may ever render is `allowed`. The prefix of keys is `prefix`; numbers and values are
    /// letters and digits.
    pub fn all_bytes(&self, names: &Names, prefix: &str, allowed: impl Fn(u8) -> bool) -> bool {
        let fine = |bytes: &[u8]| bytes.iter().all(|byte| allowed(*byte));
        self.parts.iter().all(|part| match part {
            Part::Literal(bytes) => fine(bytes),
            Part::Pick(words) => words.iter().all(|word| fine(word)),
            Part::Line { file, .. } => {
                let lines = &names.files[*file];
                (0..lines.len()).all(|index| fine(lines.get(index)))
            }
            Part::Key => fine(prefix.as_bytes()),
            Part::Counter(_) | Part::Random(..) | Part::Value | Part::Hex(_) | Part::Uuid => true,
        })
    }

    /// Whether each text that it may render begins with `byte`.
    pub fn always_begins_with(&self, names: &Names, prefix: &str, byte: u8) -> bool {
        let begins = |bytes: &[u8]| bytes.first() == Some(&byte);
        match self.parts.first() {
            Some(Part::Literal(bytes)) => begins(bytes),
            Some(Part::Pick(words)) => words.iter().all(|word| begins(word)),
            Some(Part::Line { file, .. }) => {
                let lines = &names.files[*file];
                (0..lines.len()).all(|index| begins(lines.get(index)))
            }
            Some(Part::Key) => begins(prefix.as_bytes()),
            _ => false,
        }
    }
}

/// A path without its fragment, and with letters beyond ASCII as %XX; what stands in its gaps is left as it is.
pub(super) fn sendable(path: &str) -> String {
    let (mut out, mut rest) = (String::new(), path);
    while !rest.is_empty() {
        let gap = rest.starts_with('{') && rest[1..].starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let escape = if rest.starts_with("{{") { 2 } else { 1 };
        let end = match gap {
            true => rest.find('}').map_or(rest.len(), |at| at + 1),
            false if rest.starts_with('{') => escape,
            false => rest.find('{').unwrap_or(rest.len()),
        };
        let (piece, behind) = rest.split_at(end);
        match piece.split_once('#').filter(|_| !gap) {
            Some((before, _)) => return out + &url::ascii(before),
            None if gap => out.push_str(piece),
            None => out.push_str(&url::ascii(piece)),
        }
        rest = behind;
    }
    out
}

fn head_of(text: &str) -> String {
    text.chars().take(20).collect()
}

fn gap(text: &str, names: &mut Names, read: ReadFile<'_>) -> Result<Part, String> {
    let (word, argument) = match text.split_once(':') {
        Some((word, argument)) => (word, Some(argument)),
        None => (text, None),
    };
    Ok(match (word, argument) {
        ("counter", None) => Part::Counter(names.counter("")),
        ("counter", Some(name)) if is_name(name) => Part::Counter(names.counter(name)),
        ("random", Some(range)) => {
            let bounds = range.split_once("..").and_then(|(a, b)| Some((number(a)?, number(b)?)));
            match bounds {
                Some((least, most)) if least <= most => Part::Random(least, most),
                _ => return Err(format!("{{{text}}} is no range of numbers; write {{random:1..1000}}, least first")),
            }
        }
        ("key", None) => Part::Key,
        ("value", None) => Part::Value,
        ("uuid", None) => Part::Uuid,
        ("hex", Some(digits)) => match number(digits) {
            Some(digits) if (1..=HEX_MAX as u64).contains(&digits) => Part::Hex(digits as usize),
            _ => return Err(format!("{{{text}}} needs a number of digits, 1 to {HEX_MAX}: {{hex:16}}")),
        },
        ("pick", Some(words)) => Part::Pick(words.split('|').map(|word| word.as_bytes().to_vec()).collect()),
        ("line" | "random_line", Some(file)) if !file.is_empty() => {
            Part::Line { file: names.file(file, read)?, any: word == "random_line" }
        }
        _ => return Err(refusal(text, word)),
    })
}

fn refusal(text: &str, word: &str) -> String {
    match word {
        "counter" => format!("{{{text}}}: a counter's name is letters, digits, '_' and '-'"),
        "random" | "hex" | "pick" | "line" | "random_line" => {
            format!("{{{text}}} lacks what follows the colon: {{random:1..9}} {{hex:16}} {{pick:a|b}} {{line:FILE}}")
        }
        "key" | "value" | "uuid" => format!("{{{text}}}: {word} takes nothing behind a colon"),
        _ => {
            let meant = nearest(word, KNOWN.iter().copied())
                .map_or_else(String::new, |known| format!("; did you mean '{known}'?"));
            format!("{{{text}}} is no template{meant} (a brace that is meant as such is written {{{{)")
        }
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
}
