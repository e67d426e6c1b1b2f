//! A recorded list of requests: one a line, as `METHOD PATH`, out of an access log, or as JSON.

use super::access_log;
use crate::protocol::http::check;
use crate::result::fnv1a_hex;
use crate::secrets;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Methods that differ, at most: each is a kind of the report.
const METHODS_MAX: usize = 64;

/// Requests in the order of the list, in one piece of memory. Nothing in them is a template.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct List {
    entries: Vec<Entry>,
    bytes: Vec<u8>,
    methods: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Entry {
    start: usize,
    path: u32,
    headers: u32,
    body: u32,
    method: u16,
    names_host: bool,
}

/// One request of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed<'a> {
    pub method: &'a str,
    /// A number into [`List::methods`].
    pub kind: u16,
    pub path: &'a [u8],
    /// Whole lines, each with its end.
    pub headers: &'a [u8],
    /// There is a Host among them.
    pub names_host: bool,
    pub body: &'a [u8],
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default = "get")]
    method: String,
    path: String,
    #[serde(default)]
    headers: Headers,
    #[serde(default)]
    body: String,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Headers {
    Lines(Vec<String>),
    Fields(BTreeMap<String, String>),
}

impl Default for Headers {
    fn default() -> Self {
        Self::Lines(Vec::new())
    }
}

fn get() -> String {
    "GET".to_owned()
}

impl List {
    /// Reads a list. Empty lines and those that begin with `#` are left out.
    ///
    /// # Errors
    /// The line, from 1 on, and one clause that says what is wrong with it; line 0: with the whole.
    pub fn parse(text: &[u8]) -> Result<Self, (usize, String)> {
        let mut list = Self::default();
        for (line, number) in text.split(|byte| *byte == b'\n').zip(1..) {
            let line = std::str::from_utf8(line).map_err(|_| (number, "it is not UTF-8".to_owned()))?.trim();
            if !line.is_empty() && !line.starts_with('#') {
                list.add(line).map_err(|why| (number, why))?;
            }
        }
        if list.entries.is_empty() {
            return Err((0, "has no requests".to_owned()));
        }
        list.bytes.shrink_to_fit();
        list.entries.shrink_to_fit();
        Ok(list)
    }

    fn add(&mut self, line: &str) -> Result<(), String> {
        if line.starts_with('{') {
            let read: Line = serde_json::from_str(line).map_err(|error| in_a_line(&error.to_string()))?;
            let headers = match read.headers {
                Headers::Lines(lines) => {
                    lines.iter().map(|line| check::header_line(line)).collect::<Result<Vec<_>, _>>()?
                }
                Headers::Fields(fields) => fields.into_iter().collect(),
            };
            return self.push(&read.method, read.path.as_bytes(), &headers, read.body.as_bytes());
        }
        if let Some((method, path)) = request_line(line) {
            return self.push(method, path.as_bytes(), &[], &[]);
        }
        // An access log has the request in quotes: 127.0.0.1 - - [date] "GET /path HTTP/1.1" 200 …
        let quoted = access_log::quoted(line);
        let requests = || quoted.iter().filter_map(|field| request_line(field));
        // There may be other fields in quotes before it; one that looks most like a request is it.
        match requests().find(|(_, path)| path.starts_with('/')).or_else(|| requests().next()) {
            Some((method, path)) => self.push(method, &access_log::decoded(path), &[], &[]),
            _ => Err("it is neither METHOD PATH, nor a line of an access log, nor a JSON object".to_owned()),
        }
    }

    fn push(&mut self, method: &str, path: &[u8], headers: &[(String, String)], body: &[u8]) -> Result<(), String> {
        check::method(method)?;
        let path = check::path(path)?;
        check::headers(headers)?;
        let kind = match self.methods.iter().position(|known| known == method) {
            Some(known) => known,
            None if self.methods.len() == METHODS_MAX => {
                return Err(format!("its method is the {}th one; {METHODS_MAX} are the limit", METHODS_MAX + 1));
            }
            None => {
                self.methods.push(method.to_owned());
                self.methods.len() - 1
            }
        };
        let start = self.bytes.len();
        self.bytes.extend_from_slice(path.as_bytes());
        for (name, value) in headers {
            self.bytes.extend_from_slice(format!("{name}: {}\r\n", value.trim_matches([' ', '\t'])).as_bytes());
        }
        let headers_len = self.bytes.len() - start - path.len();
        self.bytes.extend_from_slice(body);
        let whole = |length: usize| u32::try_from(length).map_err(|_| "a part of it is longer than 4 GiB".to_owned());
        self.entries.push(Entry {
            start,
            path: whole(path.len())?,
            headers: whole(headers_len)?,
            body: whole(body.len())?,
            method: kind as u16,
            names_host: headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")),
        });
        Ok(())
    }

    /// The same with `***` in the place of each secret.
    pub fn without_secrets(&self) -> Self {
        let mut masked = Self { methods: self.methods.clone(), ..Self::default() };
        for (index, entry) in self.entries.iter().enumerate() {
            let listed = self.get(index);
            let text = String::from_utf8_lossy;
            let lines = text(listed.headers);
            let headers = lines.split_inclusive("\r\n").map(|line| {
                let line = line.trim_end_matches("\r\n");
                secrets::header(line) + "\r\n"
            });
            let (path, headers) = (secrets::url(&text(listed.path)), headers.collect::<String>());
            let body = secrets::body(&text(listed.body));
            let start = masked.bytes.len();
            [&path, &headers, &body].iter().for_each(|part| masked.bytes.extend_from_slice(part.as_bytes()));
            let (path, headers, body) = (path.len() as u32, headers.len() as u32, body.len() as u32);
            masked.entries.push(Entry { start, path, headers, body, ..*entry });
        }
        masked
    }

    /// Of all requests, as they are sent.
    pub fn digest(&self) -> String {
        let lengths = self
            .entries
            .iter()
            .flat_map(|entry| [u32::from(entry.method), entry.path, entry.headers, entry.body].map(u32::to_le_bytes));
        let mut bytes: Vec<u8> = lengths.flatten().collect();
        bytes.extend_from_slice(self.methods.join(" ").as_bytes());
        bytes.extend_from_slice(&self.bytes);
        fnv1a_hex(&bytes)
    }

    /// Never 0.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn get(&self, index: usize) -> Listed<'_> {
        let entry = &self.entries[index];
        let (path, rest) = self.bytes[entry.start..].split_at(entry.path as usize);
        let (headers, rest) = rest.split_at(entry.headers as usize);
        Listed {
            method: &self.methods[usize::from(entry.method)],
            kind: entry.method,
            path,
            headers,
            names_host: entry.names_host,
            body: &rest[..entry.body as usize],
        }
    }

    /// All methods, in the order of their first request.
    pub fn methods(&self) -> &[String] {
        &self.methods
    }

    /// How many requests have the method of this number.
    pub fn count(&self, kind: u16) -> usize {
        self.entries.iter().filter(|entry| entry.method == kind).count()
    }
}

/// Method and path of `METHOD PATH` and `METHOD PATH HTTP/1.1`.
fn request_line(text: &str) -> Option<(&str, &str)> {
    match text.split_whitespace().collect::<Vec<_>>()[..] {
        [method, path] => Some((method, path)),
        [method, path, version] if version.starts_with("HTTP/") => Some((method, path)),
        _ => None,
    }
}

fn in_a_line(text: &str) -> String {
    format!("it is no request as JSON: {}", text.lines().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_forms_are_read_in_order() {
        let text = "GET /a\r\n\n# a comment\n\
            10.0.0.1 - - [23/Nov/2026:10:00:00 +0000] \"HEAD /b?x=%20 HTTP/1.1\" 200 5 \"-\" \"curl\"\n\
            {\"method\": \"POST\", \"path\": \"/{c}\", \"headers\": {\"A\": \" b \"}, \"body\": \"hé\"}\n\
            {\"path\": \"/d\", \"headers\": [\"Host: x\"]}\n";
        let list = List::parse(text.as_bytes()).unwrap();
        assert_eq!(list.methods(), ["GET", "HEAD", "POST"]);
        let told: Vec<String> = (0..list.len())
            .map(|index| {
                let Listed { method, path, headers, body, .. } = list.get(index);
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                format!("{method} {} {:?} {}", text(path), text(headers), text(body))
            })
            .collect();
        assert_eq!(
            told,
            ["GET /a \"\" ", "HEAD /b?x=%20 \"\" ", "POST /{c} \"A: b\\r\\n\" hé", "GET /d \"Host: x\\r\\n\" "]
        );
        assert!(list.get(3).names_host && !list.get(2).names_host && list.count(0) == 2);
    }

    #[test]
    fn escapes_of_access_logs_are_undone() {
        let text = concat!(
            // nginx, escape=default; and a field in quotes before it
            r#"10.0.0.1 - - [23/Nov/2026:10:00:00 +0000] "GET /a?q=\x22b\x5C\xC3\xA9 HTTP/1.1" 200 5 "-" "x""#,
            "\n",
            r#""a user" "GET /\"c\" HTTP/1.1" 200"#, // Apache
            "\n",
            r#"- "GET /\u0022d\u00e9\/ HTTP/1.1" 200"#, // nginx, escape=json
            "\n",
            r#"GET /as\x20it"is"#, // METHOD PATH has no escapes
        );
        let list = List::parse(text.as_bytes()).unwrap();
        let paths: Vec<String> =
            (0..list.len()).map(|index| String::from_utf8(list.get(index).path.to_vec()).unwrap()).collect();
        // Letters beyond ASCII leave as %XX.
        assert_eq!(paths, ["/a?q=\"b\\%C3%A9", "/\"c\"", "/\"d%C3%A9/", "/as\\x20it\"is"]);
        let (line, why) = List::parse(br#"- "GET /a\x0Ab HTTP/1.1" 400"#).unwrap_err();
        assert!(line == 1 && why.contains("control characters"), "{why}");
    }

    #[test]
    fn what_is_no_request_is_refused_with_its_line() {
        for (text, line) in [
            ("", 0),
            ("# nothing\n\n", 0),
            ("GET /a\nGET", 2),
            ("GET a", 1),
            ("GET /a /b", 1),
            ("CONNECT /a", 1),
            ("\u{7f}\u{1}", 1),
            ("- - \"\\x16\\x03\" 400", 1),
            ("{\"path\": \"/\", \"x\": 1}", 1),
            ("{\"method\": \"GET\"}", 1),
            ("{\"path\": \"/ \"}", 1),
            ("{\"path\": \"/\", \"headers\": [\"no colon\"]}", 1),
            ("{\"path\": \"/\", \"headers\": {\"A\": \"b\\r\\nC: d\"}}", 1),
            ("{\"path\": \"/\", \"headers\": {\"content-length\": \"5\"}}", 1),
        ] {
            let (at, why) = List::parse(text.as_bytes()).unwrap_err();
            assert_eq!(at, line, "{text:?}: {why}");
            assert!(!why.contains(['\n', '\r']), "{why:?}");
        }
        assert_eq!(List::parse(b"GET /\xff").unwrap_err().0, 1);
    }
}
