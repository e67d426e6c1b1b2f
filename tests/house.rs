//! House rules as tests. What ARCHITECTURE.md promises about the source is checked here on the source itself.

use std::fs;
use std::path::PathBuf;

const LONGEST_FUNCTION: usize = 70;
const LONGEST_FILE: usize = 600;
const LONGEST_LINE: usize = 120;

/// Modules that get time and bytes as arguments. Reading and writing reports touches files and is left out.
const PURE: &[&str] = &[
    "src/units.rs",
    "src/url.rs",
    "src/secrets",
    "src/time.rs",
    "src/rng.rs",
    "src/arrivals.rs",
    "src/service_time.rs",
    "src/histogram.rs",
    "src/handshake.rs",
    "src/confidence",
    "src/protocol",
    "src/engine",
    "src/load",
    "src/scenario",
    "src/tls",
    "src/result",
    "src/compare",
    "src/machine/warnings.rs",
    "src/metric.rs",
    "src/limit",
    "src/search",
    "src/report",
];
const NOT_PURE: &[&str] = &["src/result/pipe.rs", "src/result/read.rs", "src/result/write.rs"];

#[test]
fn unsafe_code_lives_under_sys_only() {
    for file in rust_files() {
        if !file.name.starts_with("src/sys/") {
            file.forbid_word("unsafe");
        }
    }
    for root in ["client/src/main.rs", "client/src/lib.rs", "server/src/main.rs", "server/src/lib.rs"] {
        if let Ok(text) = fs::read_to_string(repository().join(root)) {
            assert!(text.contains("#![forbid(unsafe_code)]"), "{root} does not forbid unsafe code");
        }
    }
}

#[test]
fn every_unsafe_block_says_why_it_is_sound() {
    for file in rust_files().iter().filter(|file| file.name.starts_with("src/sys/")) {
        let lines: Vec<&str> = file.text.lines().collect();
        for (number, code) in file.code.lines().enumerate() {
            let opens = code.contains("unsafe {") || code.contains("unsafe impl");
            assert!(
                !opens || has_safety_comment(&lines[..number]),
                "{}:{} has no SAFETY comment",
                file.name,
                number + 1
            );
        }
    }
}

/// Whether the comment above the statement that the next line belongs to says SAFETY.
fn has_safety_comment(above: &[&str]) -> bool {
    let is_comment = |line: &&&str| line.trim_start().starts_with("//");
    let within_statement = |line: &&&str| !is_comment(line) && !line.trim_end().ends_with([';', '{', '}', ',']);
    let statement = above.iter().rev().take_while(within_statement).count();
    above[..above.len() - statement].iter().rev().take_while(is_comment).any(|line| line.contains("SAFETY:"))
}

#[test]
fn pure_modules_touch_nothing() {
    let forbidden =
        ["SystemTime", "std::time::Instant", "Instant::now", "std::net", "std::thread", "std::fs", "libc", "sys"];
    for file in rust_files() {
        let pure = PURE.iter().any(|start| file.name.starts_with(start)) && !NOT_PURE.contains(&file.name.as_str());
        if pure {
            forbidden.iter().for_each(|name| file.forbid_word(name));
            for line in file.code.lines().filter(|line| line.contains("std::{")) {
                let groups = ["fs", "net", "thread"].iter().any(|name| has_word(line, name));
                assert!(!groups, "{} must be pure, but has: {line}", file.name);
            }
        }
    }
}

/// What is true of a protocol stands in its line of the table, and is asked there: a newcomer is then asked, too.
#[test]
fn nobody_compares_a_protocol_s_name() {
    let outside = ["client/src", "server/src", "src/load", "src/engine"];
    for file in rust_files().iter().filter(|file| outside.iter().any(|start| file.name.starts_with(start))) {
        let compares = |line: &&str| line.contains("PROTOCOL.name") && (line.contains("==") || line.contains("!="));
        assert_eq!(file.code.lines().find(compares), None, "{}", file.name);
    }
}

#[test]
fn functions_files_and_lines_are_short() {
    let mut problems = Vec::new();
    for file in rust_files() {
        let lines: Vec<&str> = file.text.lines().collect();
        if lines.len() > LONGEST_FILE {
            problems.push(format!("{} has {} lines; at most {LONGEST_FILE}", file.name, lines.len()));
        }
        for (number, line) in lines.iter().enumerate() {
            if line.chars().count() > LONGEST_LINE {
                problems.push(format!("{}:{} is longer than {LONGEST_LINE} columns", file.name, number + 1));
            }
        }
        let code: Vec<&str> = file.code.lines().collect();
        for (number, _) in code.iter().enumerate().filter(|(_, line)| begins_function(line)) {
            let length = function_length(&code[number..]);
            if length > LONGEST_FUNCTION {
                problems.push(format!("{}:{} is a function of {length} lines", file.name, number + 1));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

fn begins_function(line: &str) -> bool {
    line.split_once("fn ").is_some_and(|(before, name)| {
        let words = before.split_whitespace().all(|word| {
            word.starts_with("pub") || ["const", "async", "unsafe", "extern", "default", "in", "super)"].contains(&word)
        });
        words && name.starts_with(|c: char| c.is_alphabetic() || c == '_')
    })
}

/// Lines up to the brace that closes the function, which rustfmt puts below its first letter.
fn function_length(lines: &[&str]) -> usize {
    let indent = lines[0].len() - lines[0].trim_start().len();
    let body = lines.iter().position(|line| line.trim_end().ends_with(['{', '}', ';'])).unwrap_or(0);
    if !lines[body].trim_end().ends_with('{') {
        return body + 1; // a declaration without a body, or all on one line
    }
    let closes = |line: &&str| line.trim_end() == format!("{}}}", " ".repeat(indent));
    lines.iter().position(closes).map_or(lines.len(), |end| end + 1)
}

#[test]
fn nothing_is_left_half_done() {
    for file in rust_files() {
        for word in [concat!("FIX", "ME"), concat!("todo", "!("), concat!("dbg", "!(")] {
            assert!(!file.text.contains(word), "{} contains {word}", file.name);
        }
    }
}

/// Every dependency has to be worth its cost; the comment says what it is for.
#[test]
fn every_dependency_says_what_it_is_for() {
    for file in files_ending(".toml").iter().filter(|file| file.name.ends_with("Cargo.toml")) {
        let (mut in_dependencies, mut line_above) = (false, "");
        for line in file.text.lines() {
            if line.starts_with('[') {
                in_dependencies = line.contains("dependencies]");
            }
            let starts_entry = line.starts_with(|c: char| c.is_ascii_alphanumeric()) && line.contains('=');
            let ours = line.contains("path =");
            let explained = line.contains('#') || line_above.starts_with('#');
            assert!(!in_dependencies || !starts_entry || ours || explained, "{}: why `{line}`?", file.name);
            line_above = line;
        }
    }
}

#[test]
fn the_changelog_mentions_this_version() {
    let manifest = fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    let package = manifest.split("[workspace.package]").nth(1).unwrap();
    let version = package.lines().find_map(|line| line.strip_prefix("version = ")).unwrap().trim_matches('"');
    let changelog = fs::read_to_string(repository().join("CHANGELOG.md")).expect("CHANGELOG.md");
    assert!(changelog.contains(version), "CHANGELOG.md does not mention {version}");
}

/// An error that is dropped has a reason, in a comment on the line itself or right above its statement.
#[test]
fn no_error_is_dropped_without_a_word() {
    let of_the_product = |name: &str| ["src/", "client/src/", "server/src/"].iter().any(|root| name.starts_with(root));
    let mut found = Vec::new();
    for file in rust_files().iter().filter(|file| of_the_product(&file.name) && !file.name.ends_with("tests.rs")) {
        let lines: Vec<&str> = file.text.lines().collect();
        let code: Vec<&str> = file.code.lines().take_while(|line| *line != "mod tests {").collect();
        for number in (0..code.len()).filter(|number| drops_an_error(code[*number])) {
            let explained = if writes_text(&code[number..]) {
                says_that_writing_does_not_fail(&lines[..=number])
            } else {
                lines[number].contains("//") || has_comment_above(&lines[..number])
            };
            if !explained {
                found.push(format!("{}:{}", file.name, number + 1));
            }
        }
    }
    assert!(found.is_empty(), "errors dropped without a comment that says why: {}", found.join(", "));
}

/// Text cannot tell a `Result` from an `Option`: of `flatten` only what goes through results by its looks is meant, and
/// of `ok` whatever is no conversion, which has one way to fail that `None` tells as well.
fn drops_an_error(line: &str) -> bool {
    const RESULTS: &[&str] = &["read_dir(", "incoming()", ".lines()", ".flatten().flatten()", ".ok().flatten()"];
    const CONVERSIONS: &[&str] = &["parse", "try_from", "try_into", "from_utf8", "from_str", "into_string", "env::var"];
    let any_of = |words: &[&str]| words.iter().any(|words| line.contains(words));
    let converts = any_of(CONVERSIONS) && !line.trim_end().ends_with(".ok();");
    any_of(&["let _ =", "Result::ok"])
        || line.contains(".ok()") && !converts
        || line.contains(".flatten()") && any_of(RESULTS)
}

/// Whether what is dropped is the result of writing to something that is not plainly a file or a stream.
fn writes_text(code: &[&str]) -> bool {
    let statement: String = code[..code.len().min(2)].concat();
    let writes = ["write!(", "writeln!("].iter().any(|words| statement.contains(words));
    writes && code[0].contains("let _ =") && !["io::", "std"].iter().any(|words| statement.contains(words))
}

/// A page has many lines: one comment in a function speaks for those below it.
fn says_that_writing_does_not_fail(lines: &[&str]) -> bool {
    let of_function = lines.iter().rev().take_while(|line| !begins_function(line));
    of_function.into_iter().any(|line| line.contains("//") && line.contains("does not fail"))
}

/// Whether there is a comment above the statement that the next line belongs to.
fn has_comment_above(above: &[&str]) -> bool {
    let is_comment = |line: &&&str| line.trim_start().starts_with("//");
    let within_statement = |line: &&&str| !is_comment(line) && !line.trim_end().ends_with([';', '{', '}', ',']);
    let statement = above.iter().rev().take_while(within_statement).count();
    above[..above.len() - statement].last().is_some_and(|line| is_comment(&line))
}

/// It names few files, so that those are easily forgotten when one moves: each must be there, and be the only one that
/// may be meant.
#[test]
fn the_architecture_names_no_file_that_is_gone() {
    let map = fs::read_to_string(repository().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let files: Vec<String> = rust_files().into_iter().map(|file| file.name).collect();
    let is_one_file = |name: &str| {
        let is_below = |file: &&String| file.strip_suffix(name).is_some_and(|folder| folder.ends_with('/'));
        files.iter().any(|file| file == name) || files.iter().filter(is_below).count() == 1
    };
    let is_wrong = |name: &&str| match name.strip_suffix('/') {
        Some(folder) => !repository().join(folder).is_dir(),
        None => name.ends_with(".rs") && !is_one_file(name),
    };
    let wrong: Vec<&str> = map.split('`').skip(1).step_by(2).filter(is_wrong).collect();
    assert!(wrong.is_empty(), "ARCHITECTURE.md names what is not there, or not there alone: {}", wrong.join(", "));
}

/// What a test started goes on when the test is killed, unless the kernel was told otherwise.
#[test]
fn programs_do_not_outlive_the_tests_that_start_them() {
    let in_tests =
        |file: &SourceFile| ["client/tests/", "server/tests/"].iter().any(|root| file.name.starts_with(root));
    for file in rust_files().iter().filter(|file| in_tests(file) && !file.name.ends_with("/common/program.rs")) {
        let at = file.code.lines().position(|line| line.contains("Command::new("));
        assert_eq!(at, None, "{}: `common::command(...)` in place of `Command::new(...)`", file.name);
    }
}

/// A path of the machine that something was made on helps nobody else.
#[test]
fn no_text_names_a_folder_of_ours() {
    for file in files_ending("") {
        // Spelled in parts, so that this file passes.
        for (folder, whole_word) in
            [(concat!("/", "work"), true), (concat!("/", "root"), true), (concat!("/tmp/", "wt-"), false)]
        {
            for (at, _) in file.text.match_indices(folder) {
                let rooted = !file.text[..at].ends_with(|c: char| c.is_alphanumeric() || "._-~/$}*)".contains(c));
                let after = &file.text[at + folder.len()..];
                let ends = !whole_word || !after.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '-');
                assert!(!(rooted && ends), "{} names {folder}", file.name);
            }
        }
    }
}

#[test]
fn the_lexer_of_these_tests_works() {
    let code = code_of(
        "let a = \"unsafe \\\" {\"; // unsafe\n/* unsafe /* */ */ let b: &'static str = r#\"un\"safe\"#; \
         '\\''; '\"'; br#\"unsafe\"\"#; end",
    );
    assert!(!code.contains("unsafe") && code.contains("end") && code.contains("'static") && code.lines().count() == 2);
    assert!(has_word("use crate::sys::x", "sys") && !has_word("sysctl my_sys", "sys"));
    assert!(begins_function("    pub(crate) unsafe fn x() {") && !begins_function("let fn_name = 1;"));
    assert_eq!(function_length(&["fn a(", ") {", "    b", "}", "fn c() {"]), 4);
    assert!(
        has_safety_comment(&["// SAFETY: x", "// more", "let a ="]) && !has_safety_comment(&["// SAFETY: x", "a();"])
    );
    assert!(has_comment_above(&["a();", "// why", "let a = b"]) && !has_comment_above(&["// why", "a();"]));
}

#[test]
fn a_dropped_error_is_told_from_an_absent_value() {
    for line in
        ["let _ = f();", "f().ok();", "let a = read(x).ok();", "dir.filter_map(Result::ok)", "text.parse().ok();"]
    {
        assert!(drops_an_error(line), "{line}");
    }
    for line in ["fs::read_dir(x).into_iter().flatten().flatten()", "listener.incoming().flatten()"] {
        assert!(drops_an_error(line), "{line}");
    }
    for line in ["some.into_iter().flatten()", "text.parse().ok()?", "u16::try_from(n).ok().filter(f)", "x.ok_or(y)"] {
        assert!(!drops_an_error(line), "{line}");
    }
    assert!(writes_text(&["let _ =", "    writeln!(page, x);"]) && !writes_text(&["let _ = writeln!(io::stderr());"]));
    assert!(says_that_writing_does_not_fail(&["fn a() {", "b(); // writing to a String does not fail", "c();"]));
    assert!(!says_that_writing_does_not_fail(&["b(); // does not fail", "fn a() {", "c();"]));
}

struct SourceFile {
    /// Relative to the repository, with `/`.
    name: String,
    text: String,
    /// The text with comments and the contents of literals blanked out; the same lines.
    code: String,
}

impl SourceFile {
    fn forbid_word(&self, word: &str) {
        let found = self.code.lines().position(|line| has_word(line, word));
        assert!(found.is_none(), "{}:{} must not name {word}", self.name, found.unwrap_or(0) + 1);
    }
}

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files() -> Vec<SourceFile> {
    let files = files_ending(".rs");
    assert!(files.len() > 20, "the walk found too little");
    files
}

/// All text files of the repository whose names end so, in order. Build output and local runs are no part of it.
fn files_ending(ending: &str) -> Vec<SourceFile> {
    let mut files = Vec::new();
    let mut folders = vec![repository()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let name = path.strip_prefix(repository()).unwrap().to_str().unwrap().to_owned();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() && !["target", ".git"].iter().any(|skipped| entry.file_name() == *skipped) {
                folders.push(path);
            } else if kind.is_file() && name.ends_with(ending) && name != ".git" && !is_local_run(&name) {
                let Ok(text) = fs::read_to_string(&path) else { continue };
                let code = if name.ends_with(".rs") { code_of(&text) } else { String::new() };
                files.push(SourceFile { name, text, code });
            }
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files
}

fn is_local_run(name: &str) -> bool {
    name.strip_prefix("results/").is_some_and(|rest| !rest.contains('/') && rest.ends_with(".json"))
}

fn has_word(text: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(part_of_name) && !text[at + word.len()..].starts_with(part_of_name))
}

/// Rust source with comments and the contents of strings and characters replaced by nothing; line ends stay.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let name_before = code.strip_suffix('b').unwrap_or(&code).ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if first == '"' {
            literal(rest, '"')
        } else if first == 'r' && !name_before {
            raw_string(rest)
        } else if first == '\'' {
            character(rest)
        } else {
            0
        };
        if skipped == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            code.extend(rest[..skipped].chars().filter(|c| *c == '\n'));
            rest = &rest[skipped..];
        }
    }
    code
}

/// The length of a block comment; they nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let step = if text[at..].starts_with("/*") {
            depth += 1;
            2
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            2
        } else {
            text[at..].chars().next().map_or(1, char::len_utf8)
        };
        at += step;
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of a literal between two `quote`s.
fn literal(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if c == quote && !escaped {
            return at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    text.len()
}

/// The length of `r"…"` or `r#"…"#`; 0 if this is no raw string.
fn raw_string(text: &str) -> usize {
    let hashes = text[1..].bytes().take_while(|b| *b == b'#').count();
    if !text[1 + hashes..].starts_with('"') {
        return 0;
    }
    let start = hashes + 2;
    let end = format!("\"{}", "#".repeat(hashes));
    text[start..].find(&end).map_or(text.len(), |at| start + at + end.len())
}

/// The length of a character literal; 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut inside = text[1..].chars();
    match (inside.next(), inside.next()) {
        (Some('\\'), _) => literal(text, '\''),
        (Some(c), Some('\'')) => c.len_utf8() + 2,
        _ => 0,
    }
}
