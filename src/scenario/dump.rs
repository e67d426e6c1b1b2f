//! A scenario as text again: what would run, for `--dump-scenario`; and its digest.

use super::{Body, Scenario, What};
use crate::result::fnv1a_hex;
use std::cell::RefCell;

impl Scenario {
    /// Its requests as TOML that [`Scenario::parse`] reads as the same. `name_file` says how a file is called there.
    pub fn requests_as_toml(&self, name_file: &dyn Fn(&str) -> String) -> String {
        let mut lines = Vec::new();
        for request in &self.requests {
            lines.push(format!("\n[[request]]\nname = {}", quoted(&request.name)));
            lines.extend(request.weight.map(|weight| format!("weight = {weight}")));
            let message = match &request.what {
                What::Command(command) => {
                    lines.push(format!("command = {}", quoted(command)));
                    continue;
                }
                What::Message(message) => message,
            };
            lines.extend(message.method.as_ref().map(|method| format!("method = {}", quoted(method))));
            lines.push(format!("path = {}", quoted(&with_files(&message.path.typed, name_file))));
            let header = |(name, value): &(String, super::Text)| {
                format!("    {},", quoted(&format!("{name}: {}", with_files(&value.typed, name_file))))
            };
            if !message.headers.is_empty() {
                lines.push("headers = [".to_owned());
                lines.extend(message.headers.iter().map(header));
                lines.push("]".to_owned());
            }
            lines.extend(message.body.as_ref().map(|body| match body {
                Body::Text(text) => format!("body = {}", quoted(&with_files(&text.typed, name_file))),
                Body::File(file, _) => format!("body_file = {}", quoted(&name_file(file))),
            }));
        }
        for script in &self.scripts {
            let Some(name) = &script.name else { continue };
            lines.push(format!("\n[[script]]\nname = {}\nweight = {}\nsteps = [", quoted(name), script.weight));
            for step in &script.steps {
                let request = quoted(&self.requests[usize::from(step.request)].name);
                lines.push(match &step.think {
                    None => format!("    {request},"),
                    Some(think) => {
                        format!("    {{ request = {request}, think = {} }},", quoted(&think.describe()))
                    }
                });
            }
            lines.push("]".to_owned());
        }
        if let Some(recorded) = &self.recorded {
            let order = if recorded.random { "random" } else { "listed" };
            let file = quoted(&name_file(&recorded.file));
            lines.push(format!("\n[recorded]\nfile = {file}\norder = {}", quoted(order)));
        }
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// A digest of what is asked for: requests, weights, order, and the content of all files. Where those lie, comments
    /// and the flags, which the report has by themselves, are no part of it.
    ///
    /// Nothing secret is a part of it: two scenarios that differ in a secret only are the same load, and nobody can try
    /// out which secret it was.
    pub fn digest(&self) -> String {
        let masked = self.without_secrets();
        masked.as_ref().unwrap_or(self).digest_of_all()
    }

    fn digest_of_all(&self) -> String {
        // A file that is named in secrets only is a list of them.
        let named = RefCell::new(Vec::new());
        let name_file = |name: &str| {
            named.borrow_mut().push(name.to_owned());
            String::new()
        };
        let mut bytes = self.requests_as_toml(&name_file).into_bytes();
        let named = named.into_inner();
        for lines in self.names.files.iter().filter(|lines| named.contains(&lines.name)) {
            (0..lines.len()).for_each(|index| add(&mut bytes, lines.get(index)));
        }
        for request in &self.requests {
            if let What::Message(message) = &request.what
                && let Some(Body::File(_, content)) = &message.body
            {
                add(&mut bytes, content);
            }
        }
        if let Some(recorded) = &self.recorded {
            add(&mut bytes, recorded.digest.as_bytes());
        }
        fnv1a_hex(&bytes)
    }
}

/// With its length before it, so that pieces cannot run into each other.
fn add(bytes: &mut Vec<u8>, piece: &[u8]) {
    bytes.extend_from_slice(&(piece.len() as u64).to_le_bytes());
    bytes.extend_from_slice(piece);
}

/// The same template with its files named in another way.
fn with_files(text: &str, name_file: &dyn Fn(&str) -> String) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        let behind = &rest[at + 1..];
        out.push_str(&rest[..=at]);
        rest = behind;
        if let Some(escaped) = behind.strip_prefix('{') {
            out.push('{');
            rest = escaped;
            continue;
        }
        for word in ["line:", "random_line:"] {
            if let (Some(name), Some(end)) = (behind.strip_prefix(word), behind.find('}')) {
                out.push_str(word);
                out.push_str(&name_file(&name[..end - word.len()]));
                rest = &behind[end..];
            }
        }
    }
    out + rest
}

/// A basic string of TOML.
pub fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", c as u32)),
            c => out.push(c),
        }
    }
    out + "\""
}
