//! Headers of requests: as typed, out of a file, or by the environment.

use crate::failure::Failure;
use loadgen_core::secrets;
use std::io::Read;

/// Where headers may be, one a line, so that they are in no list of processes and in no report.
pub const HEADERS_VARIABLE: &str = "LOADGEN_HEADERS";
/// A longer word is no name of a header.
const NAME_MAX: usize = 30;
/// A file of headers, in bytes.
const FILE_MAX: u64 = 1 << 20;

/// What is said in each request.
#[derive(Debug, Default)]
pub struct Headers {
    /// Name and value, in the order of their flags; those of the environment come last.
    pub lines: Vec<(String, String)>,
    /// Names of those that were not typed: whatever they are called, they are kept to themselves.
    pub hidden: Vec<String>,
}

impl Headers {
    /// # Errors
    /// One line, without the text that is wrong: it may be a secret.
    pub fn new(typed: &[String], environment: Option<&str>) -> Result<Self, Failure> {
        let mut headers = Self::default();
        for (line, number) in typed.iter().zip(1..) {
            match line.strip_prefix('@') {
                Some(file) => headers.hide(&read(file)?, file)?,
                None => headers.lines.push(taken_apart(line).ok_or_else(|| {
                    let shown = beginning(line);
                    Failure::usage(format!("header {number}, '{shown}', is not of the form 'Name: value'"))
                        .help("or @FILE, which has such lines")
                })?),
            }
        }
        environment.map_or(Ok(()), |text| headers.hide(text, HEADERS_VARIABLE))?;
        Ok(headers)
    }

    fn hide(&mut self, text: &str, from: &str) -> Result<(), Failure> {
        for (line, number) in text.lines().zip(1..) {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, value) = taken_apart(line)
                .ok_or_else(|| Failure::usage(format!("{from}, line {number}: it is not of the form 'Name: value'")))?;
            self.hidden.push(name.clone());
            self.lines.push((name, value));
        }
        Ok(())
    }
}

/// What can be shown of a line without a name: a first word that could be one.
fn beginning(line: &str) -> String {
    let line = line.trim();
    let (first, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    match first.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-') && first.len() <= NAME_MAX {
        true if rest.is_empty() => first.to_owned(),
        true => format!("{first} {}", secrets::MASK),
        false => secrets::MASK.to_owned(),
    }
}

fn taken_apart(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    Some((name.trim().to_owned(), value.trim().to_owned()))
}

fn read(file: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::fs::File::open(file).and_then(|opened| opened.take(FILE_MAX + 1).read_to_string(&mut text));
    read.map_err(|error| Failure::usage(format!("cannot read headers from '{file}': {error}")))?;
    if text.len() as u64 > FILE_MAX {
        return Err(Failure::usage(format!("the headers in {file} are longer than 1 MiB")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_from_three_places() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("h");
        std::fs::write(&file, "# mine\r\nX-One: 1\r\n\n X-Two:2 \n").unwrap();
        let typed = ["A: b".to_owned(), format!("@{}", file.display()), "C: d".to_owned()];
        let headers = Headers::new(&typed, Some("X-Three: 3:4")).unwrap();
        let told: Vec<String> = headers.lines.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(told, ["A=b", "X-One=1", "X-Two=2", "C=d", "X-Three=3:4"]);
        assert_eq!(headers.hidden, ["X-One", "X-Two", "X-Three"]);
    }

    #[test]
    fn what_is_no_header_is_refused_and_not_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("h");
        std::fs::write(&file, "A: b\nhunter2\n").unwrap();
        let from_file = format!("@{}", file.display());
        for (typed, environment) in
            [("hunter2", None), (&*from_file, None), ("A: b", Some("hunter2")), ("@/hunter3", None)]
        {
            let why = Headers::new(&[typed.to_owned()], environment).unwrap_err();
            assert!(!why.cause().contains("hunter2") && !why.cause().contains('\n'), "{why}");
        }
        assert!(Headers::new(&["@/dev/zero".to_owned()], None).is_err());
    }
}
