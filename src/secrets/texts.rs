//! Texts of words: commands of a store, and command lines.

use super::{MASK, body, header, is_secret_name, label, text, url};
use crate::url::split;
use std::ops::Range;

/// A command of a store as typed, such as `AUTH user password`; a weight may stand before it.
pub fn command(typed: &str) -> String {
    let tokens = tokens(typed);
    let words: Vec<String> = tokens.iter().map(|token| token.text.to_ascii_lowercase()).collect();
    let first = words.first().map_or("", |word| word.rsplit_once('=').map_or(word.as_str(), |(_, name)| name));
    let mut secret = vec![false; words.len()];
    let mut mark = |at: usize| secret.get_mut(at).map_or((), |it| *it = true);
    for (at, word) in words.iter().enumerate() {
        let acl = first == "acl" && words.get(1).is_some_and(|word| word == "setuser");
        match word.as_str() {
            // AUTH [user] password
            _ if at == 0 && first == "auth" && words.len() <= 3 => mark(words.len() - 1),
            // A password with blanks, without its quotes.
            _ if at == 0 && first == "auth" => (1..words.len()).for_each(&mut mark),
            // HELLO 3 AUTH user password
            "auth" if first == "hello" => mark(at + 2),
            "auth2" => mark(at + 2),
            "auth" | "auth-pass" | "sentinel-pass" if at > 0 => mark(at + 1),
            _ if acl && at > 2 && word.starts_with(['>', '<', '#', '!']) => mark(at),
            name if at > 0 && is_secret_name(name) && !name.contains(':') => mark(at + 1),
            _ => {}
        }
    }
    let shown = |at: usize| match (secret[at], at, first, words.len()) {
        (true, 0, ..) => None,
        (true, ..) if words[at].starts_with(['>', '<', '#', '!']) => Some(format!("{}{MASK}", &words[at][..1])),
        (true, ..) => Some(MASK.to_owned()),
        (false, ..) => Some(url(&tokens[at].text)).filter(|shown| *shown != tokens[at].text),
    };
    rebuilt(typed, &tokens, &shown)
}

/// A command line as one text, such as a shell takes it.
pub fn shell(typed: &str) -> String {
    let tokens = tokens(typed);
    let plain: Vec<String> = tokens.iter().map(|token| token.text.clone()).collect();
    let masked = words(&plain);
    rebuilt(typed, &tokens, &|at| Some(masked[at].clone()).filter(|shown| *shown != plain[at]))
}

/// What the value of an option is.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Header,
    Command,
    Body,
    Label,
    Shell,
    Login,
    Secret,
}

impl Kind {
    fn of(option: &str) -> Option<Self> {
        match option {
            "-H" | "--header" => Some(Self::Header),
            "--command" => Some(Self::Command),
            "--body" | "--data" => Some(Self::Body),
            "--label" => Some(Self::Label),
            "--a" | "--b" | "--a-flags" | "--b-flags" | "-c" => Some(Self::Shell),
            "-u" | "--user" | "--proxy-user" => Some(Self::Login),
            name if is_secret_name(name) => Some(Self::Secret),
            _ => None,
        }
    }

    fn shown(self, value: &str) -> String {
        match self {
            Self::Header => header(value),
            Self::Command => command(value),
            Self::Body => body(value),
            Self::Label => match value.split_once('=') {
                Some((name, value)) => format!("{name}={}", label(name, value)),
                None => text(value),
            },
            Self::Shell => shell(value),
            Self::Login => value.split_once(':').map_or_else(|| value.to_owned(), |(user, _)| format!("{user}:{MASK}")),
            Self::Secret => MASK.to_owned(),
        }
    }
}

/// The words of a command line: ours, or that of another program.
pub fn words(words: &[String]) -> Vec<String> {
    let mut next = None;
    let mut shown = |word: &String| {
        let kind: Option<Kind> = next.take();
        match kind {
            // An option that has no value, then.
            Some(Kind::Secret) | None if word.starts_with('-') => {}
            Some(kind) => return kind.shown(word),
            None => {}
        }
        let (shown, of_next) = alone(word);
        next = of_next;
        shown
    };
    words.iter().map(&mut shown).collect()
}

/// A word that is no option's value, and what the word behind it is.
fn alone(word: &str) -> (String, Option<Kind>) {
    if !word.starts_with('-') {
        return match word.split_once('=') {
            // VARIABLE=value, and a label.
            Some((name, value)) if !value.is_empty() && is_variable(name) && is_secret_name(name) => {
                (format!("{name}={MASK}"), None)
            }
            _ if split(word).scheme.is_some() => (url(word), None),
            _ => (text(word), None),
        };
    }
    // -H, with flags that have no value before it, and its value perhaps behind it.
    let cluster = word.strip_prefix('-').map(|flags| flags.trim_start_matches(['q', 'h', 'V']));
    if let Some(value) = cluster.and_then(|flags| flags.strip_prefix('H')) {
        let flag = &word[..word.len() - value.len()];
        let (equals, value) = value.strip_prefix('=').map_or(("", value), |value| ("=", value));
        return match value {
            "" => (word.to_owned(), Some(Kind::Header)),
            value => (format!("{flag}{equals}{}", header(value)), None),
        };
    }
    match word.split_once('=') {
        None => (text(word), Kind::of(word)),
        Some((name, value)) => {
            let shown = match Kind::of(name) {
                Some(kind) => kind.shown(value),
                None if split(value).scheme.is_some() => url(value),
                None => alone(value).0,
            };
            (format!("{name}={shown}"), None)
        }
    }
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

/// A word, where it stands, and what it says without its quotes.
#[derive(Debug)]
struct Token {
    range: Range<usize>,
    text: String,
}

/// The words of a text, by the quotes of a shell. What is not closed goes on to the end.
fn tokens(typed: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut open: Option<(usize, String)> = None;
    let (mut quote, mut escaped) = (None, false);
    for (at, c) in typed.char_indices() {
        if quote.is_none() && !escaped && c.is_whitespace() {
            tokens.extend(open.take().map(|(start, text)| Token { range: start..at, text }));
            continue;
        }
        let (_, text) = open.get_or_insert_with(|| (at, String::new()));
        match (c, quote) {
            _ if escaped => (text.push(c), escaped = false).1,
            ('\\', None | Some('"')) => escaped = true,
            (_, Some(closing)) if c == closing => quote = None,
            ('"' | '\'', None) => quote = Some(c),
            _ => text.push(c),
        }
    }
    tokens.extend(open.map(|(start, text)| Token { range: start..typed.len(), text }));
    tokens
}

/// The text with some words replaced.
fn rebuilt(typed: &str, tokens: &[Token], shown: &dyn Fn(usize) -> Option<String>) -> String {
    let (mut out, mut done) = (String::new(), 0);
    for (at, token) in tokens.iter().enumerate() {
        let Some(shown) = shown(at) else { continue };
        out.push_str(&typed[done..token.range.start]);
        match typed[token.range.clone()].contains(['"', '\'', '\\']) {
            true if shown.contains('\'') => out.push_str(&format!("{shown:?}")),
            true => out.push_str(&format!("'{shown}'")),
            false => out.push_str(&shown),
        }
        done = token.range.end;
    }
    out + &typed[done..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_stores() {
        for (typed, shown) in [
            ("AUTH hunter2", "AUTH ***"),
            ("3=auth me  'hunter2 x'", "3=auth me  '***'"),
            ("AUTH", "AUTH"),
            ("AUTH correct horse battery", "AUTH *** *** ***"),
            ("HELLO 3 AUTH u hunter2 SETNAME x", "HELLO 3 AUTH u *** SETNAME x"),
            ("CONFIG SET requirepass hunter2 maxmemory 1", "CONFIG SET requirepass *** maxmemory 1"),
            ("ACL SETUSER u on >hunter2 +@all", "ACL SETUSER u on >*** +@all"),
            ("MIGRATE h 1 k 0 9 AUTH hunter2", "MIGRATE h 1 k 0 9 AUTH ***"),
            ("MIGRATE h 1 k 0 9 AUTH2 u hunter2", "MIGRATE h 1 k 0 9 AUTH2 u ***"),
            ("SENTINEL SET m auth-pass hunter2", "SENTINEL SET m auth-pass ***"),
            ("SET {key} 'a b'", "SET {key} 'a b'"),
            ("GET session:1", "GET session:1"),
            ("SET token:{key} {value}", "SET token:{key} {value}"),
        ] {
            assert_eq!(command(typed), shown);
            assert_eq!(command(shown), shown);
        }
    }

    #[test]
    fn command_lines() {
        for (typed, shown) in [
            ("loadgen -H 'Authorization: Bearer x' h:1", "loadgen -H 'Authorization: ***' h:1"),
            ("loadgen -HCookie:x -qHX-Api-Key:y", "loadgen -HCookie:*** -qHX-Api-Key:***"),
            ("loadgen -H=Cookie:x --header=Cookie:y", "loadgen -H=Cookie:*** --header=Cookie:***"),
            ("loadgen -qH 'Cookie: x' -H @f", "loadgen -qH 'Cookie: ***' -H @f"),
            ("loadgen --command 'AUTH x' --command='AUTH y'", "loadgen --command 'AUTH ***' '--command=AUTH ***'"),
            ("loadgen --path /?token=x --path=/?token=x", "loadgen --path /?token=*** --path=/?token=***"),
            ("loadgen --target=redis://p@h -T redis://p@h", "loadgen --target=redis://***@h -T redis://***@h"),
            ("ab --a-flags '--path /?sig=x -c 1'", "ab --a-flags '--path /?sig=*** -c 1'"),
            (
                "ab --a 'redis-server --requirepass x --port {port}'",
                "ab --a 'redis-server --requirepass *** --port {port}'",
            ),
            ("ab --a='TOKEN=x ./s; ./t --api-key=y'", "ab '--a=TOKEN=*** ./s; ./t --api-key=***'"),
            ("curl -u me:x http://h", "curl -u me:*** http://h"),
            (
                "loadgen --label url=redis://:p@h --label token=x",
                "loadgen --label url=redis://:***@h --label token=***",
            ),
            ("loadgen --label 'note=Bearer x'", "loadgen --label 'note=***'"),
            ("loadgen --label=k=token=x --label k=token=x", "loadgen --label=k=token=*** --label k=token=***"),
            ("loadgen --label 'k=a, password: x'", "loadgen --label 'k=a, password: ***'"),
            ("loadgen --label commit=abc:7", "loadgen --label commit=abc:7"),
            ("loadgen -H '%41uthorization: x'", "loadgen -H '%41uthorization: ***'"),
            ("loadgen redis://u:x --target=redis://u:x", "loadgen redis://u:*** --target=redis://u:***"),
            ("loadgen --body '<password>x</password>'", "loadgen --body '<password>***</password>'"),
            ("loadgen --keys 10 --session-requests 5", "loadgen --keys 10 --session-requests 5"),
            ("loadgen token.example.org:80 --body a=b", "loadgen token.example.org:80 --body a=b"),
            ("loadgen --body '{\"pin\": 12}'", "loadgen --body '{\"pin\": ***}'"),
        ] {
            assert_eq!(shell(typed), shown);
            assert_eq!(shell(shown), shown);
        }
    }
}
