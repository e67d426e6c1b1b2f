//! What a load asks for, from a scenario file: a mix of requests, scripts, or a recorded list (docs/scenarios.md).
//!
//! Pure: the text of files is handed in. What the requests look like on the wire is the protocol's.

mod access_log;
mod choice;
mod dump;
mod file;
mod masked;
mod recorded;
mod template;
mod values;

pub use choice::{Choice, taken_apart};
pub use dump::quoted;
pub use masked::masked_bytes;
pub use recorded::{List, Listed};
pub use template::{Names, ReadFile, Template};
pub use values::{Values, decimal};

use crate::encoding;
use crate::service_time::Distribution;
use choice::STEPS_MAX;
use file::File;
use std::collections::BTreeMap;
use toml::{Spanned, Value};

/// Requests, and scripts, of one file: each request is a kind of the report.
pub const REQUESTS_MAX: usize = 256;

/// A scenario file, understood.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scenario {
    /// As in the file, else the file's own.
    pub name: String,
    /// The file as it was named, for messages.
    pub file: String,
    /// Flags of the run, out of `[defaults]`, `[[target]]` and `[keys]`.
    pub flags: Vec<Flag>,
    pub requests: Vec<Request>,
    /// In the order of the file, and behind them the requests that are drawn by themselves.
    pub scripts: Vec<Script>,
    pub recorded: Option<Recorded>,
    pub names: Names,
}

/// A flag of the run, by its long name without dashes.
#[derive(Clone, Debug, PartialEq)]
pub struct Flag {
    pub name: String,
    /// Several where it is given several times; `None`: a flag without a value.
    pub values: Vec<Option<String>>,
    /// Where in the file.
    pub line: usize,
}

/// One `[[request]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub name: String,
    pub line: usize,
    /// As in the file.
    pub weight: Option<u32>,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// For HTTP.
    Message(Message),
    /// For protocols of commands, in the protocol's own words.
    Command(String),
}

/// A request of HTTP.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub method: Option<String>,
    pub path: Text,
    pub headers: Vec<(String, Text)>,
    pub body: Option<Body>,
}

/// A template, with the text that it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Text {
    pub typed: String,
    pub template: Template,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    Text(Text),
    /// The content of a file, sent as it is.
    File(String, Vec<u8>),
}

/// One `[[script]]`, or a request that is drawn by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    /// None: a request by itself.
    pub name: Option<String>,
    pub weight: u32,
    /// Never empty.
    pub steps: Vec<Step>,
}

/// A request, and how long to wait before it.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub request: u16,
    pub think: Option<Distribution>,
}

/// `[recorded]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    pub file: String,
    /// Drawn by lot, not one after the other.
    pub random: bool,
    pub list: List,
    /// Of the file's content; where there are secrets in it, of the list without them.
    pub digest: String,
    pub has_secrets: bool,
}

impl Scenario {
    /// Understands the `text` of a file that is called `file`. `read` gives the content of files that it names.
    ///
    /// # Errors
    /// One line: the file, the line in it, and what is wrong there.
    pub fn parse(file: &str, text: &str, read: ReadFile<'_>) -> Result<Self, String> {
        let text = text.trim_start_matches('\u{feff}');
        let mut reading = Reading { text, read, known: BTreeMap::new(), scenario: Self::default() };
        let outcome = file::parse(text).and_then(|parsed| reading.file(file, parsed));
        outcome.map_err(|(at, why)| format!("{file}, line {}: {why}", file::line(text, at)))?;
        Ok(reading.scenario)
    }

    /// Whether it says which requests are made, and not only how.
    pub fn has_requests(&self) -> bool {
        !self.requests.is_empty() || self.recorded.is_some()
    }

    /// How long to wait before the request that comes next at a [`Choice`]'s `cursor`, where its script says so.
    pub fn think(&self, cursor: u32) -> Option<&Distribution> {
        let (script, step) = taken_apart(cursor)?;
        self.scripts.get(script)?.steps.get(step)?.think.as_ref()
    }

    /// Whether a step of a script has a think time of its own.
    pub fn thinks(&self) -> bool {
        self.scripts.iter().any(|script| script.steps.iter().any(|step| step.think.is_some()))
    }

    /// The chooser among its requests.
    pub fn choice(&self) -> Choice {
        let steps = |script: &Script| script.steps.iter().map(|step| step.request).collect();
        Choice::new(self.scripts.iter().map(|script| (steps(script), script.weight)))
    }

    /// What it asks for, with the weights: for the report. Scripts name their steps.
    pub fn summary(&self) -> Vec<String> {
        if let Some(recorded) = &self.recorded {
            let methods = recorded.list.methods().iter().zip(0..);
            return methods.map(|(method, kind)| format!("{method}={}", recorded.list.count(kind))).collect();
        }
        let name = |step: &Step| self.requests[usize::from(step.request)].name.as_str();
        let script = |script: &Script| {
            let steps: Vec<&str> = script.steps.iter().map(name).collect();
            match &script.name {
                Some(name) => format!("{name}={} ({})", script.weight, steps.join(" ")),
                None => format!("{}={}", steps.join(" "), script.weight),
            }
        };
        self.scripts.iter().map(script).collect()
    }
}

/// What is wrong, and at which byte of the file.
type Wrong = (usize, String);

/// A file that is being understood.
struct Reading<'a> {
    text: &'a str,
    read: ReadFile<'a>,
    /// Names of requests.
    known: BTreeMap<String, u16>,
    scenario: Scenario,
}

impl Reading<'_> {
    fn file(&mut self, file: &str, parsed: File) -> Result<(), Wrong> {
        self.scenario.file = file.to_owned();
        let stem = file.rsplit('/').next().unwrap_or(file);
        self.scenario.name = match &parsed.name {
            Some(name) if name.get_ref().trim().is_empty() || name.get_ref().contains(char::is_control) => {
                return Err((name.span().start, "a name must not be empty, nor have control characters".into()));
            }
            Some(name) => name.get_ref().clone(),
            None => stem.strip_suffix(".toml").unwrap_or(stem).to_owned(),
        };
        self.flags(&parsed)?;
        if let Some(recorded) = &parsed.recorded {
            if !parsed.request.is_empty() || !parsed.script.is_empty() {
                let why = "[recorded] does not go with [[request]] and [[script]]: all of them say what is asked for";
                return Err((recorded.span().start, why.into()));
            }
            self.recorded(recorded)?;
        }
        for request in parsed.request {
            self.request(&request)?;
        }
        self.scripts(&parsed.script)?;
        self.drawn_by_themselves(&parsed.script)
    }

    fn line(&self, at: usize) -> usize {
        file::line(self.text, at)
    }

    /// `[defaults]`, and the tables that are other words for flags.
    fn flags(&mut self, parsed: &File) -> Result<(), Wrong> {
        for (key, value) in &parsed.defaults {
            self.flag(&key.get_ref().replace('_', "-"), value, key.span().start)?;
        }
        if let Some(keys) = &parsed.keys {
            let at = keys.span().start;
            let keys = keys.get_ref();
            for (name, value) in [
                ("keys", &keys.count),
                ("key-spread", &keys.spread),
                ("key-prefix", &keys.prefix),
                ("value-size", &keys.value_size),
            ] {
                value.as_ref().map_or(Ok(()), |value| self.flag(name, value, at))?;
            }
        }
        let Some(first) = parsed.target.first() else { return Ok(()) };
        let (at, line) = (first.span().start, self.line(first.span().start));
        let urls = parsed.target.iter().map(|target| Some(target.get_ref().url.clone())).collect();
        self.new_flag(Flag { name: "target".into(), values: urls, line }, at)?;
        if parsed.target.len() > 1 {
            let weights = parsed.target.iter().map(|target| target.get_ref().weight.unwrap_or(1).to_string());
            let values = vec![Some(weights.collect::<Vec<_>>().join(","))];
            self.new_flag(Flag { name: "weights".into(), values, line }, at)?;
        }
        Ok(())
    }

    fn flag(&mut self, name: &str, value: &Value, at: usize) -> Result<(), Wrong> {
        let values: Result<Vec<_>, String> = match value {
            Value::Boolean(true) => Ok(vec![None]),
            Value::Boolean(false) => Ok(Vec::new()),
            Value::Array(items) => items.iter().map(|item| word(name, item).map(Some)).collect(),
            other => word(name, other).map(|word| vec![Some(word)]),
        };
        let values = values.map_err(|why| (at, why))?;
        self.new_flag(Flag { name: name.to_owned(), values, line: self.line(at) }, at)
    }

    fn new_flag(&mut self, flag: Flag, at: usize) -> Result<(), Wrong> {
        if self.scenario.flags.iter().any(|known| known.name == flag.name) {
            return Err((at, format!("'{}' is said twice: in [defaults], and in a table of its own", flag.name)));
        }
        self.scenario.flags.push(flag);
        Ok(())
    }

    fn recorded(&mut self, recorded: &Spanned<file::Recorded>) -> Result<(), Wrong> {
        let file::Recorded { file, order } = recorded.get_ref();
        let random = match order.as_ref().map(|order| order.get_ref().as_str()) {
            None | Some("listed") => false,
            Some("random") => true,
            Some(other) => {
                let at = order.as_ref().map_or(0, |order| order.span().start);
                return Err((at, format!("order '{other}' is not known; there are listed, random")));
            }
        };
        let at = file.span().start;
        let content = (self.read)(file.get_ref()).map_err(|why| (at, why))?;
        let content = encoding::without_mark(&content).map_err(|why| (at, format!("{}: {why}", file.get_ref())))?;
        let list = List::parse(content).map_err(|(line, why)| match line {
            0 => (at, format!("{} {why}", file.get_ref())),
            line => (at, format!("line {line} of {}: {why}", file.get_ref())),
        })?;
        let masked = list.without_secrets();
        let has_secrets = masked != list;
        let digest = if has_secrets { masked.digest() } else { crate::result::fnv1a_hex(content) };
        self.scenario.recorded = Some(Recorded { file: file.get_ref().clone(), random, list, digest, has_secrets });
        Ok(())
    }

    fn request(&mut self, request: &Spanned<file::Request>) -> Result<(), Wrong> {
        let at = request.span().start;
        let written = request.get_ref();
        let name = match &written.name {
            Some(name) => name.get_ref().clone(),
            None => format!("request{}", self.scenario.requests.len() + 1),
        };
        let at_name = written.name.as_ref().map_or(at, |name| name.span().start);
        if name.is_empty() || name.contains(|c: char| c.is_control() || c == '=') {
            return Err((at_name, "a name must not be empty, nor have '=' or control characters".into()));
        }
        if self.scenario.requests.len() == REQUESTS_MAX {
            return Err((at, format!("more than {REQUESTS_MAX} requests")));
        }
        if self.known.insert(name.clone(), self.scenario.requests.len() as u16).is_some() {
            return Err((at_name, format!("request '{name}' is there twice")));
        }
        let what = self.what(written, at)?;
        let commands = self.scenario.requests.iter().filter(|request| matches!(request.what, What::Command(_)));
        if commands.count() != if matches!(what, What::Command(_)) { self.scenario.requests.len() } else { 0 } {
            return Err((at, "some requests have a path and others a command: they are of two protocols".into()));
        }
        self.scenario.requests.push(Request { name, line: self.line(at), weight: written.weight, what });
        Ok(())
    }

    fn what(&mut self, written: &file::Request, at: usize) -> Result<What, Wrong> {
        if let Some(command) = &written.command {
            let others = [&written.method, &written.path, &written.body, &written.body_file];
            if others.iter().any(|other| other.is_some()) || !written.headers.is_empty() {
                let why = "a command is a whole request: it does not go with method, path, headers or a body";
                return Err((command.span().start, why.into()));
            }
            if command.get_ref().trim().is_empty() {
                return Err((command.span().start, "the command is empty".into()));
            }
            return Ok(What::Command(command.get_ref().clone()));
        }
        let Some(path) = &written.path else {
            return Err((at, "the request lacks its path (HTTP) or command (redis, memcached)".into()));
        };
        let mut headers = Vec::new();
        for line in &written.headers {
            let at = line.span().start;
            let (name, value) = crate::protocol::http::check::header_line(line.get_ref()).map_err(|why| (at, why))?;
            headers.push((name, self.template(&value, at)?));
        }
        let body = match (&written.body, &written.body_file) {
            (None, None) => None,
            (Some(text), None) => Some(Body::Text(self.template(text.get_ref(), text.span().start)?)),
            (None, Some(file)) => {
                let content = (self.read)(file.get_ref()).map_err(|why| (file.span().start, why))?;
                Some(Body::File(file.get_ref().clone(), content))
            }
            (Some(_), Some(file)) => return Err((file.span().start, "body_file does not go with body".into())),
        };
        let path = self.template(&template::sendable(path.get_ref()), path.span().start)?;
        let method = written.method.as_ref().map(|method| method.get_ref().clone());
        Ok(What::Message(Message { method, path, headers, body }))
    }

    fn template(&mut self, text: &str, at: usize) -> Result<Text, Wrong> {
        let template = Template::compile(text, &mut self.scenario.names, self.read).map_err(|why| (at, why))?;
        Ok(Text { typed: text.to_owned(), template })
    }

    fn scripts(&mut self, scripts: &[Spanned<file::Script>]) -> Result<(), Wrong> {
        if scripts.len() > REQUESTS_MAX {
            return Err((scripts[REQUESTS_MAX].span().start, format!("more than {REQUESTS_MAX} scripts")));
        }
        for script in scripts {
            let file::Script { name, weight, steps } = script.get_ref();
            let twice = self.scenario.scripts.iter().any(|known| known.name.as_ref() == Some(name.get_ref()));
            if twice || name.get_ref().is_empty() || name.get_ref().contains(char::is_control) {
                let why = format!("script {:?} is there twice, or that is no name", name.get_ref());
                return Err((name.span().start, why));
            }
            if steps.is_empty() || steps.len() > STEPS_MAX {
                return Err((script.span().start, format!("a script has 1 to {STEPS_MAX} steps")));
            }
            let at_first = steps[0].span().start;
            let steps = steps.iter().map(|step| self.step(step)).collect::<Result<Vec<Step>, _>>()?;
            if steps[0].think.is_some() {
                // The script is drawn when the request leaves, and by then the time is over.
                let why = "the first step of a script has no think time of its own; 'think' in [defaults] is before it";
                return Err((at_first, why.into()));
            }
            let name = Some(name.get_ref().clone());
            self.scenario.scripts.push(Script { name, weight: weight.unwrap_or(1), steps });
        }
        Ok(())
    }

    /// `"browse"`, or `{ request = "cart", think = "exp:1s" }`.
    fn step(&mut self, step: &Spanned<Value>) -> Result<Step, Wrong> {
        let wrong = |why: String| (step.span().start, why);
        let (name, think) = match step.get_ref() {
            Value::String(name) => (Some(name.as_str()), None),
            Value::Table(table) => {
                if let Some(key) = table.keys().find(|key| !["request", "think"].contains(&key.as_str())) {
                    return Err(wrong(format!("key '{key}' is not known here; a step has request, think")));
                }
                (table.get("request").and_then(Value::as_str), table.get("think"))
            }
            _ => (None, None),
        };
        let Some(name) = name else {
            return Err(wrong("a step is the name of a request, or { request = NAME, think = DIST }".into()));
        };
        let Some(request) = self.known.get(name) else {
            let meant = nearest(name, self.known.keys().map(String::as_str));
            let guess = meant.map_or_else(String::new, |meant| format!("; did you mean '{meant}'?"));
            return Err(wrong(format!("there is no request '{name}'{guess}")));
        };
        let think = match think {
            None => None,
            Some(Value::String(text)) => {
                let no_files = |file: &str| Err(format!("a think time cannot come from a file ({file})"));
                Some(Distribution::parse(text, no_files).map_err(wrong)?)
            }
            Some(_) => return Err(wrong("a think time is text, such as \"fixed:100ms\" or \"exp:1s\"".into())),
        };
        Ok(Step { request: *request, think })
    }

    /// Requests with a weight are scripts of one step. Where there are no scripts, the weight is 1 unless given.
    fn drawn_by_themselves(&mut self, scripts: &[Spanned<file::Script>]) -> Result<(), Wrong> {
        let scenario = &mut self.scenario;
        let in_a_script: Vec<u16> =
            scenario.scripts.iter().flat_map(|script| script.steps.iter().map(|step| step.request)).collect();
        for (request, index) in scenario.requests.iter().zip(0_u16..) {
            let unless_given = u32::from(scripts.is_empty());
            let weight = request.weight.unwrap_or(unless_given);
            if weight > 0 {
                let steps = vec![Step { request: index, think: None }];
                scenario.scripts.push(Script { name: None, weight, steps });
            } else if !in_a_script.contains(&index) {
                let why = format!("request '{}' is never made: it has no weight and is in no script", request.name);
                return Err((line_start(self.text, request.line), why));
            }
        }
        let nothing_drawn = scenario.scripts.iter().all(|script| script.weight == 0);
        match scripts.first() {
            Some(first) if nothing_drawn => Err((first.span().start, "all weights are 0".into())),
            _ => Ok(()),
        }
    }
}

fn line_start(text: &str, line: usize) -> usize {
    text.split_inclusive('\n').take(line - 1).map(str::len).sum()
}

fn word(name: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        Value::Datetime(time) => Ok(time.to_string()),
        _ => Err(format!("'{name}' takes a number or a text")),
    }
}

/// The word of `known` that is spelled most like `typed`, if any is alike.
pub fn nearest<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let far = typed.chars().count().max(3) / 3;
    known.map(|word| (distance(typed, word), word)).filter(|(d, _)| *d <= far.min(2)).min().map(|(_, word)| word)
}

/// Letters that must be put in, left out, changed or swapped with their neighbour (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let above: &[usize] = &rows[i - 1];
            let mut least = (above[j] + 1).min(row[j - 1] + 1).min(above[j - 1] + usize::from(a[i - 1] != b[j - 1]));
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}
