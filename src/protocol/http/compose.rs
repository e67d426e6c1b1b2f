//! Requests: one that is the same each time, or those of a scenario.

use super::check;
use crate::protocol::ClientOptions;
use crate::protocol::ask::Ask;
use crate::rng::Rng;
use crate::scenario::{Body, Choice, List, Message, Request, Scenario, Template, Values, What, decimal};
use crate::secrets;
use std::io::Write as _;
use std::sync::Arc;

/// The bytes of the one request that `options` describe.
pub(super) fn single(options: &ClientOptions) -> Result<Vec<u8>, String> {
    check::method(&options.method)?;
    let path = check::path(&options.path)?;
    check::authority(&options.authority)?;
    check::headers(&options.headers)?;
    let mut bytes = format!("{} {path} HTTP/1.1\r\n", options.method).into_bytes();
    let lines = with_host(&options.headers, &options.authority);
    lines.iter().for_each(|(name, value)| put_line(&mut bytes, name, value.as_bytes()));
    if has_length(&options.method, !options.body.is_empty()) {
        put_length(&mut bytes, options.body.len());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&options.body);
    Ok(bytes)
}

/// Nothing else that was not asked for: each line is work for the server, and shows in the figures.
fn with_host(headers: &[(String, String)], authority: &str) -> Vec<(String, String)> {
    let host = (!names_host(headers)).then(|| ("Host".to_owned(), authority.to_owned()));
    host.into_iter().chain(headers.iter().cloned()).collect()
}

fn names_host(headers: &[(String, String)]) -> bool {
    headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host"))
}

/// RFC 9110, 8.6: these methods expect a body, so that its absence is said too.
fn has_length(method: &str, has_body: bool) -> bool {
    has_body || matches!(method, "POST" | "PUT" | "PATCH")
}

fn put_line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.trim_ascii());
    out.extend_from_slice(b"\r\n");
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(b"Content-Length: ");
    decimal(out, length as u64);
    out.extend_from_slice(b"\r\n");
}

/// Writes the requests of a scenario, for one worker.
#[derive(Clone, Debug)]
pub(super) struct Composer {
    scenario: Arc<Scenario>,
    source: Source,
    values: Values,
    choice: Choice,
    /// The body that is being written: its length stands before it.
    body: Vec<u8>,
    /// By the number of a kind.
    pub(super) kinds: Vec<String>,
    pub(super) to_head: Vec<bool>,
}

#[derive(Clone, Debug)]
enum Source {
    Compiled(Vec<Compiled>),
    Recorded(Recorded),
}

/// A request as it goes onto the wire.
#[derive(Clone, Debug)]
struct Compiled {
    /// All of it, or all before the length of `body`.
    head: Template,
    /// A body that is filled in anew each time.
    body: Option<Template>,
}

/// Where a worker is in a recorded list.
#[derive(Clone, Debug)]
struct Recorded {
    /// Drawn by lot, not one after the other.
    random: bool,
    next: u64,
    step: u64,
    /// Lines that each request has: Host, which some have themselves, and the others.
    host: Vec<u8>,
    lines: Vec<u8>,
}

impl Composer {
    /// # Errors
    /// One line that says which request would be broken.
    pub(super) fn new(scenario: &Arc<Scenario>, options: &ClientOptions) -> Result<Self, String> {
        check::authority(&options.authority)?;
        check::headers(&options.headers)?;
        let (source, kinds, to_head) = match &scenario.recorded {
            Some(recorded) => Self::recorded(&recorded.list, recorded.random, options),
            None => Self::compiled(scenario, options)?,
        };
        Ok(Self {
            scenario: Arc::clone(scenario),
            source,
            values: Values::new(&scenario.names, &options.keyspace, options.seed, options.worker),
            choice: scenario.choice(),
            body: Vec::new(),
            kinds,
            to_head,
        })
    }

    fn compiled(scenario: &Scenario, options: &ClientOptions) -> Result<(Source, Vec<String>, Vec<bool>), String> {
        let (mut compiled, mut to_head) = (Vec::new(), Vec::new());
        for request in &scenario.requests {
            let What::Message(message) = &request.what else {
                return Err(refusal_of(scenario, request, "http has no commands; give it a path"));
            };
            let method = message.method.as_ref().unwrap_or(&options.method);
            check_message(scenario, message, method, options).map_err(|why| refusal_of(scenario, request, &why))?;
            compiled.push(compile(message, method, options));
            to_head.push(method == "HEAD");
        }
        let kinds = scenario.requests.iter().map(|request| request.name.clone()).collect();
        Ok((Source::Compiled(compiled), kinds, to_head))
    }

    fn recorded(list: &List, random: bool, options: &ClientOptions) -> (Source, Vec<String>, Vec<bool>) {
        let (mut host, mut lines) = (Vec::new(), Vec::new());
        if !names_host(&options.headers) {
            put_line(&mut host, "Host", options.authority.as_bytes());
        }
        for (name, value) in &options.headers {
            let line = if name.eq_ignore_ascii_case("host") { &mut host } else { &mut lines };
            put_line(line, name, value.as_bytes());
        }
        let recorded = Recorded { random, next: options.worker.0, step: options.worker.1.max(1), host, lines };
        let to_head = list.methods().iter().map(|method| method == "HEAD").collect();
        (Source::Recorded(recorded), list.methods().to_vec(), to_head)
    }

    /// The bytes of the request, if there is one only and it never changes.
    pub(super) fn constant(&self) -> Option<&[u8]> {
        match &self.source {
            Source::Compiled(compiled) => match &compiled[..] {
                [Compiled { head, body: None }] => head.as_constant(),
                _ => None,
            },
            Source::Recorded(_) => None,
        }
    }

    /// The longest request of the first ones, or of each kind, as an example.
    pub(super) fn example(&self) -> Vec<u8> {
        let mut copy = self.clone();
        let mut longest = Vec::new();
        let count = match &self.source {
            Source::Compiled(compiled) => compiled.len(),
            Source::Recorded(_) => 1,
        };
        for index in 0..count {
            let mut bytes = Vec::new();
            copy.render(index as u16, 1, &mut bytes);
            if bytes.len() > longest.len() {
                longest = bytes;
            }
        }
        longest
    }

    /// Appends the request that is asked for, and says its kind.
    pub(super) fn next(&mut self, ask: &mut Ask, out: &mut Vec<u8>) -> u16 {
        let index = match self.source {
            Source::Compiled(_) => self.choice.next(ask),
            Source::Recorded(_) => 0,
        };
        self.render(index, ask.draws, out)
    }

    fn render(&mut self, index: u16, draws: u64, out: &mut Vec<u8>) -> u16 {
        self.values.begin(draws);
        let names = &self.scenario.names;
        match (&mut self.source, &self.scenario.recorded) {
            (Source::Compiled(compiled), _) => {
                let Compiled { head, body } = &compiled[usize::from(index)];
                self.values.render(head, names, out);
                if let Some(body) = body {
                    self.body.clear();
                    self.values.render(body, names, &mut self.body);
                    put_length(out, self.body.len());
                    out.extend_from_slice(b"\r\n");
                    out.extend_from_slice(&self.body);
                }
                index
            }
            (Source::Recorded(position), Some(recorded)) => position.next(&recorded.list, draws, out),
            // A list without a list: there is none such.
            (Source::Recorded(_), None) => 0,
        }
    }
}

impl Recorded {
    fn next(&mut self, list: &List, draws: u64, out: &mut Vec<u8>) -> u16 {
        let count = list.len() as u64;
        let index = if self.random { Rng::new(draws).below(count) } else { self.next % count };
        self.next = self.next.wrapping_add(self.step);
        let listed = list.get(index as usize);
        for piece in [listed.method.as_bytes(), b" ", listed.path, b" HTTP/1.1\r\n"] {
            out.extend_from_slice(piece);
        }
        if !listed.names_host {
            out.extend_from_slice(&self.host);
        }
        out.extend_from_slice(&self.lines);
        out.extend_from_slice(listed.headers);
        if has_length(listed.method, !listed.body.is_empty()) {
            put_length(out, listed.body.len());
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(listed.body);
        listed.kind
    }
}

fn refusal_of(scenario: &Scenario, request: &Request, why: &str) -> String {
    format!("{}, line {}: request '{}': {why}", scenario.file, request.line, request.name)
}

fn check_message(scenario: &Scenario, message: &Message, method: &str, options: &ClientOptions) -> Result<(), String> {
    let (names, prefix) = (&scenario.names, options.keyspace.prefix.as_str());
    check::method(method)?;
    let path = &message.path;
    if !path.template.always_begins_with(names, prefix, b'/') {
        return Err(format!("path {:?} does not start with '/', each time", secrets::url(&path.typed)));
    }
    if !path.template.all_bytes(names, prefix, check::in_path) {
        let why = "can have blanks, control characters, '#' or letters beyond ASCII; write them as %20 and the like";
        return Err(format!("path {:?} {why}", secrets::url(&path.typed)));
    }
    check::names(message.headers.iter().map(|(name, _)| name.as_str()))?;
    match message.headers.iter().find(|(_, text)| !text.template.all_bytes(names, prefix, check::in_value)) {
        Some((name, _)) => Err(format!("the value of header {name} can have control characters")),
        None => Ok(()),
    }
}

/// Headers of the options that the request does not have itself come first.
fn compile(message: &Message, method: &str, options: &ClientOptions) -> Compiled {
    let own = |name: &str| message.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
    let mut bytes = Vec::new();
    // Writing into a vector does not fail.
    let _ = write!(bytes, "{method} ");
    let mut head = Template::constant(&bytes);
    head.append(&message.path.template);
    head.literal(b" HTTP/1.1\r\n");
    let mut line = |name: &str, value: &Template| {
        head.literal(format!("{name}: ").as_bytes());
        head.append(value);
        head.literal(b"\r\n");
    };
    for (name, value) in with_host(&options.headers, &options.authority).iter().filter(|(name, _)| !own(name)) {
        line(name, &Template::constant(value.trim_matches([' ', '\t']).as_bytes()));
    }
    message.headers.iter().for_each(|(name, text)| line(name, &text.template));
    let (fixed, varying) = match &message.body {
        None => (Some(&[][..]), None),
        Some(Body::File(_, content)) => (Some(&content[..]), None),
        Some(Body::Text(text)) => (text.template.as_constant(), Some(&text.template)),
    };
    let Some(fixed) = fixed else {
        return Compiled { head, body: varying.cloned() };
    };
    let mut rest = Vec::new();
    if has_length(method, !fixed.is_empty()) {
        put_length(&mut rest, fixed.len());
    }
    rest.extend_from_slice(b"\r\n");
    rest.extend_from_slice(fixed);
    head.literal(&rest);
    Compiled { head, body: None }
}
