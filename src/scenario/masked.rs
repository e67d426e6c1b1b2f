//! A scenario without what is secret in it: two that differ only in a secret ask for the same, and from the digest of
//! one nobody can guess a secret.

use super::{Body, Names, Scenario, Template, Text, What};
use crate::secrets;

impl Scenario {
    /// The same with `***` in the place of each secret; `None`: there is none.
    pub fn without_secrets(&self) -> Option<Self> {
        if !self.has_secrets() {
            return None;
        }
        let mut masked = self.clone();
        if let Some(recorded) = &mut masked.recorded {
            recorded.list = recorded.list.without_secrets();
        }
        let Self { requests, names, .. } = &mut masked;
        for request in requests {
            match &mut request.what {
                What::Command(command) => *command = secrets::command(command),
                What::Message(message) => {
                    mask(&mut message.path, secrets::url, names);
                    for (name, text) in &mut message.headers {
                        mask(text, |value| secrets::header_value(name, value), names);
                    }
                    match &mut message.body {
                        Some(Body::Text(text)) => mask(text, secrets::body, names),
                        Some(Body::File(_, content)) => {
                            *content = masked_bytes(content).unwrap_or_else(|| std::mem::take(content));
                        }
                        None => {}
                    }
                }
            }
        }
        Some(masked)
    }

    fn has_secrets(&self) -> bool {
        let differs = |text: &Text, masked: String| text.typed != masked;
        let secret = |what: &What| match what {
            What::Command(command) => *command != secrets::command(command),
            What::Message(message) => {
                let header = |(name, text): &(String, Text)| differs(text, secrets::header_value(name, &text.typed));
                let body = match &message.body {
                    Some(Body::Text(text)) => differs(text, secrets::body(&text.typed)),
                    Some(Body::File(_, content)) => masked_bytes(content).is_some_and(|masked| masked != *content),
                    None => false,
                };
                differs(&message.path, secrets::url(&message.path.typed)) || message.headers.iter().any(header) || body
            }
        };
        let listed = self.recorded.as_ref().is_some_and(|recorded| recorded.has_secrets);
        listed || self.requests.iter().any(|request| secret(&request.what))
    }

    /// Names of headers whose values are secret, each once.
    pub fn secret_headers(&self) -> Vec<String> {
        let messages = self.requests.iter().filter_map(|request| match &request.what {
            What::Message(message) => Some(message),
            What::Command(_) => None,
        });
        let names = messages.flat_map(|message| &message.headers).map(|(name, _)| name.clone());
        names.filter(|name| secrets::is_secret_header(name)).collect()
    }
}

/// A body, if it is text.
pub fn masked_bytes(content: &[u8]) -> Option<Vec<u8>> {
    std::str::from_utf8(content).ok().map(|text| secrets::body(text).into_bytes())
}

fn mask(text: &mut Text, masked: impl Fn(&str) -> String, names: &mut Names) {
    let masked = masked(&text.typed);
    if masked == text.typed {
        return;
    }
    let compiled = Template::compile(&masked, names, &mut |name| Err(format!("{name} has been read")));
    // A gap may have been cut in two: then nothing of it is left.
    let template = compiled.unwrap_or_else(|_| Template::constant(secrets::MASK.as_bytes()));
    *text = Text { typed: masked, template };
}
