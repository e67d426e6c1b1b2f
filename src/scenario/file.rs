//! The scenario file as it is written, and what can be wrong with its form.

use super::nearest;
use serde::Deserialize;
use std::collections::BTreeMap;
use toml::{Spanned, Value};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) name: Option<Spanned<String>>,
    pub(super) defaults: BTreeMap<Spanned<String>, Value>,
    pub(super) target: Vec<Spanned<Target>>,
    pub(super) keys: Option<Spanned<Keys>>,
    pub(super) request: Vec<Spanned<Request>>,
    pub(super) script: Vec<Spanned<Script>>,
    pub(super) recorded: Option<Spanned<Recorded>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Target {
    pub(super) url: String,
    pub(super) weight: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Keys {
    pub(super) count: Option<Value>,
    pub(super) spread: Option<Value>,
    pub(super) prefix: Option<Value>,
    pub(super) value_size: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    pub(super) name: Option<Spanned<String>>,
    pub(super) weight: Option<u32>,
    pub(super) method: Option<Spanned<String>>,
    pub(super) path: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) headers: Vec<Spanned<String>>,
    pub(super) body: Option<Spanned<String>>,
    pub(super) body_file: Option<Spanned<String>>,
    pub(super) command: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Script {
    pub(super) name: Spanned<String>,
    pub(super) weight: Option<u32>,
    pub(super) steps: Vec<Spanned<Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Recorded {
    pub(super) file: Spanned<String>,
    pub(super) order: Option<Spanned<String>>,
}

/// Reads the form of a file. `Err`: where in `text`, and what is wrong, in one line.
pub(super) fn parse(text: &str) -> Result<File, (usize, String)> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let message = error.message().lines().collect::<Vec<_>>().join(" ");
        (at, in_our_words(&message).unwrap_or(message))
    })
}

/// "unknown field `wieght`, expected one of `name`, `weight`" with a guess at what was meant.
fn in_our_words(message: &str) -> Option<String> {
    let rest = message.strip_prefix("unknown field `")?;
    let (key, known) = rest.split_once('`')?;
    let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
    let guess = match nearest(key, known.iter().copied()) {
        Some(meant) => format!("did you mean '{meant}'?"),
        None => format!("there are {}", known.join(", ")),
    };
    Some(format!("key '{key}' is not known here; {guess}"))
}

/// The line of `text`, from 1 on, that has the byte at `at`.
pub(super) fn line(text: &str, at: usize) -> usize {
    1 + text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
}
