//! What of a text is secret, by what it means, and how that is written wherever such a text is kept or shown: `***`.
//!
//! One table for all: logins of URLs, headers, parameters of a query, fields of a body, commands, and the words of a
//! command line, also those of a command line within another. What is not secret stays as it is, so that a masked
//! text says the same to who reads it; where it cannot be told how far a secret reaches, more is masked and not less.
//! Masking twice is masking once.

mod fields;
mod markup;
mod names;
mod texts;
mod urls;

use fields::Names;
pub use names::{is_secret_header, is_secret_name, is_secret_parameter};
pub use texts::{command, shell, words};
pub use urls::url;

/// What stands in the place of something secret.
pub const MASK: &str = "***";

/// The value of a header, as it may be shown.
pub fn header_value(name: &str, value: &str) -> String {
    if is_secret_header(name) || is_login(value) { MASK.to_owned() } else { plain(value) }
}

/// `Bearer …`, whatever the header is called.
fn is_login(value: &str) -> bool {
    let scheme = value.trim_start().split_once(' ').map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| ["basic", "bearer"].iter().any(|known| scheme.eq_ignore_ascii_case(known)))
}

/// `Name: value`. What has no name might be anything; `@FILE` names the file that has them.
pub fn header(line: &str) -> String {
    match line.split_once(':') {
        _ if line.starts_with('@') => line.to_owned(),
        None => MASK.to_owned(),
        Some((name, value)) if is_secret_header(name.trim()) || is_login(value) => {
            let blank = &value[..value.len() - value.trim_start().len()];
            format!("{name}:{blank}{MASK}")
        }
        Some((name, value)) => format!("{name}:{}", plain(value)),
    }
}

/// A label of the report.
pub fn label(name: &str, value: &str) -> String {
    if is_secret_name(name) || is_login(value) { MASK.to_owned() } else { plain(value) }
}

/// The value of a header or a label that is harmless by its name: `a; token=x`, `password: x`.
fn plain(value: &str) -> String {
    text(&fields::masked(value, Names::Value))
}

/// A body: fields of a form (also of several parts), of JSON and what resembles it, or of XML; and whatever a text has.
pub fn body(typed: &str) -> String {
    let opens = |text: &str| text.trim_start().starts_with(['{', '[', '<']);
    match typed {
        _ if typed.starts_with('@') => typed.to_owned(),
        _ if typed.contains('=') && !typed.contains(char::is_whitespace) && !opens(typed) => {
            text(&urls::parameters(&format!("?{typed}"))[1..])
        }
        _ => text(&fields::masked(&markup::parts(&markup::elements(typed, true)), Names::Body)),
    }
}

/// Any text: a message, a value. URLs in it, and headers, and fields of JSON and XML.
pub fn text(text: &str) -> String {
    let breaks = |c: char| c.is_whitespace() || "'\"`<>|(),".contains(c);
    let text = markup::private_keys(text);
    let lines = text.split_inclusive('\n').map(headers);
    let piece = |piece: &str| {
        let word = piece.strip_suffix(breaks).unwrap_or(piece);
        url(word) + &piece[word.len()..]
    };
    let lines = lines.map(|line| line.split_inclusive(breaks).map(piece).collect::<String>());
    let lines = schemes(&lines.collect::<String>());
    fields::masked(&markup::elements(&lines, false), Names::Message)
}

/// `Bearer …` and `Basic …` within a text. The second is a word of English, too: what follows must look encoded.
fn schemes(text: &str) -> String {
    let small = text.to_ascii_lowercase();
    let (mut out, mut done) = (String::new(), 0);
    let mut found: Vec<(usize, &str)> = small.match_indices("bearer ").chain(small.match_indices("basic ")).collect();
    found.sort_unstable();
    for (at, word) in found {
        let within = text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '-');
        let behind = &text[at + word.len()..];
        let blank = behind.len() - behind.trim_start_matches(' ').len();
        let token = &behind[blank..];
        let token = &token[..token.find(|c: char| c.is_whitespace() || "'\"`<>,;".contains(c)).unwrap_or(token.len())];
        let encoded = token.len() >= 8 && token.contains(|c: char| c.is_ascii_digit() || c == '=');
        if within || token.is_empty() || at < done || word.starts_with("basic") && !encoded {
            continue;
        }
        let start = at + word.len() + blank;
        out.push_str(&text[done..start]);
        out.push_str(MASK);
        done = start + token.len();
    }
    out + &text[done..]
}

/// `Authorization: …` in a line, up to its end or the quote that closes it. `session-store:6379` is a host and a port,
/// `token:7` a key, and `/run/api-token: no such file` a message.
fn headers(line: &str) -> String {
    let (mut out, mut rest) = (String::new(), line);
    while let Some(colon) = rest.find(':') {
        let (before, behind) = rest.split_at(colon + 1);
        out.push_str(before);
        rest = behind;
        let before = &before[..colon];
        let in_name = |c: char| c.is_ascii_alphanumeric() || "-_%".contains(c);
        let name = &before[before.trim_end_matches(in_name).len()..];
        let is_file = before[..before.len() - name.len()].ends_with(['/', '.']);
        let alone = ["authorization", "cookie"].iter().any(|known| name.eq_ignore_ascii_case(known));
        let value = behind.trim_start();
        let is_header = (alone || name.contains('-')) && is_secret_header(name) && !value.starts_with("//");
        if is_file || !is_header {
            continue;
        }
        let end = value.find(['\'', '"', '`', '\n']).unwrap_or(value.len());
        let is_port = value[..end].trim_end().bytes().all(|byte| byte.is_ascii_digit());
        if is_port {
            continue;
        }
        out.push_str(&behind[..behind.len() - value.len()]);
        out.push_str(MASK);
        rest = &value[end..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(mask: fn(&str) -> String, table: &[(&str, &str)]) {
        for (typed, shown) in table {
            assert_eq!(mask(typed), *shown, "{typed}");
            assert_eq!(mask(shown), *shown, "once more");
        }
    }

    #[test]
    fn logins_and_parameters_of_urls() {
        holds(
            url,
            &[
                ("redis://hunter2@h", "redis://***@h"),
                ("redis://:hunter2@h:1/2", "redis://:***@h:1/2"),
                ("redis://u:hunter2@h", "redis://u:***@h"),
                ("REDISS://u:a:b@[::1]:1", "REDISS://u:***@[::1]:1"),
                ("redis://a@b@h", "redis://***@h"),
                ("redis://:a/b@h:1", "redis://:***@h:1"),
                ("http://token:@h/x", "http://***@h/x"),
                ("https://token:x-oauth-basic@h", "https://***@h"),
                ("http://h/a@b:c", "http://h/a@b:c"),
                ("http://h:{port}/a@b", "http://h:{port}/a@b"),
                ("redis://h:1?x=a@g:2", "redis://h:1?x=a@g:2"),
                ("http://h?token=x&a=b", "http://h?token=***&a=b"),
                ("/p?a=b;access_token=x;c", "/p?a=b;access_token=***;c"),
                ("/p?api%5Fkey=x&%74oken=y", "/p?api%5Fkey=***&%74oken=***"),
                ("/p?key=x&sig=y&code=z&pwd=w#access_token=v", "/p?key=***&sig=***&code=***&pwd=***#access_token=***"),
                ("/p?monkey=x&keyword=y&q=token", "/p?monkey=x&keyword=y&q=token"),
                ("/p?next=%2F%3Ftoken%3Dx&a=%2F%3Fb%3Dc", "/p?next=***&a=%2F%3Fb%3Dc"),
                ("/p?u=redis%3A%2F%2F%3Apw%40h&v=http%3A%2F%2Fh", "/p?u=***&v=http%3A%2F%2Fh"),
                ("/p?PHPSESSID=x&pw=y", "/p?PHPSESSID=***&pw=***"),
                ("token.example.org:80", "token.example.org:80"),
                ("http://p/?u=redis://:pw@h", "http://p/?u=redis://:***@h"),
                ("unix:/run/a@b", "unix:/run/a@b"),
                ("redis://u:x", "redis://u:***"),
                ("redis://u:x/y?z", "redis://u:***"),
                ("redis://:x", "redis://***"),
                ("redis://u:a:b", "redis://u:***"),
                ("redis://x%", "redis://***"),
                ("http://t:x", "http://***"),
                ("redis://h:65536", "redis://h:***"),
                ("//u:x", "//u:***"),
                ("//u:x@h", "//u:***@h"),
                ("http://h:{port}/", "http://h:{port}/"),
                ("http://127.0.0.1:$PORT/", "http://127.0.0.1:$PORT/"),
                ("/p?to%6ben=x&to%256ben=y", "/p?to%6ben=***&to%256ben=***"),
                ("/p?token%3Dx&a%26token%3Dx", "/p?***&***"),
                ("/p;a=1/token=x", "/p;a=1/token=***"),
                ("/token=x/y?a", "/token=***?a"),
                ("/p?user[password]=x", "/p?user[password]=***"),
            ],
        );
    }

    #[test]
    fn headers_by_their_names() {
        holds(
            header,
            &[
                ("Authorization: Bearer x", "Authorization: ***"),
                ("proxy-authorization:x", "proxy-authorization:***"),
                ("Cookie: a=b; c=d", "Cookie: ***"),
                ("X-Api-Key: x", "X-Api-Key: ***"),
                ("X-Vault-Token: x", "X-Vault-Token: ***"),
                ("Ocp-Apim-Subscription-Key: x", "Ocp-Apim-Subscription-Key: ***"),
                ("X-SessionId: x", "X-SessionId: ***"),
                ("Authentication: x", "Authentication: ***"),
                ("X-Upstream: Bearer x", "X-Upstream: ***"),
                ("X-Upstream:basic x", "X-Upstream:***"),
                ("X-Level: Basic", "X-Level: Basic"),
                ("Accept: text/html", "Accept: text/html"),
                ("Idempotency-Key: x", "Idempotency-Key: x"),
                ("X-Author: x", "X-Author: x"),
                ("Referer: http://u:p@h/?token=x", "Referer: http://***@h/?token=***"),
                ("Bearer x", "***"),
                ("%41uthorization: x", "%41uthorization: ***"),
                ("X-Forwarded: token=x", "X-Forwarded: token=***"),
                ("X-Forwarded: for=h;token=x;by=i", "X-Forwarded: for=h;token=***;by=i"),
                ("X-Forwarded: a, password: x", "X-Forwarded: a, password: ***"),
                ("X-Note: t=\"1\", token=\"x y\"", "X-Note: t=\"1\", token=\"***\""),
                ("X-Note: see Bearer x, b", "X-Note: see Bearer ***, b"),
                ("X-Note: basic settings", "X-Note: ***"),
                ("X-Note: a basic setting of YTpiYzE=", "X-Note: a basic setting of YTpiYzE="),
                ("X-Note: a Basic YTpiYzE=", "X-Note: a Basic ***"),
                ("Accept: text/html;q=0.9", "Accept: text/html;q=0.9"),
                ("Content-Type: multipart/form-data; boundary=x", "Content-Type: multipart/form-data; boundary=x"),
                ("X-Key-Of: token:7", "X-Key-Of: token:7"),
                ("@file", "@file"),
            ],
        );
    }

    #[test]
    fn bodies_by_their_fields() {
        holds(
            body,
            &[
                (r#"{"user": "u", "password": "a\"b"}"#, r#"{"user": "u", "password": "***"}"#),
                (r#"{"pin":1234,"a":[{"apiKey":null}]}"#, r#"{"pin":***,"a":[{"apiKey":***}]}"#),
                (r#"{"token": {"a": "b"}, "q": "token"}"#, r#"{"token": ***, "q": "token"}"#),
                ("user=u&password=p", "user=u&password=***"),
                ("a=b c&password=x y&d=e", "a=b c&password=***&d=e"),
                ("to%6ben=x&a%26token%3Dx&b", "to%6ben=***&***&b"),
                (r#"{"passwords":["a", {"b": "]"}], "q": [1]}"#, r#"{"passwords":***, "q": [1]}"#),
                (r#"{"pass\u0077ord": "x"}"#, r#"{"pass\u0077ord": "***"}"#),
                (r#"{"a": "{\"password\":\"x\",\"b\":1}"}"#, r#"{"a": "{\"password\":\"***\",\"b\":1}"}"#),
                (r#"{"u": "redis://u:x@h", "v": "Bearer x"}"#, r#"{"u": "redis://u:***@h", "v": "Bearer ***"}"#),
                (r#"{"name": "password", "value": "x"}"#, r#"{"name": "password", "value": "***"}"#),
                (r#"{"name": "n", "value": "x"}"#, r#"{"name": "n", "value": "x"}"#),
                ("{'user': 'u', 'password': 'it''s x', 'b': 1}", "{'user': 'u', 'password': '***', 'b': 1}"),
                ("{user: u, password: x, b: 1}", "{user: u, password: ***, b: 1}"),
                (
                    "mutation { login(user: \"u\", password: \"x\") }",
                    "mutation { login(user: \"u\", password: \"***\") }",
                ),
                ("a: b\npassword: x, y: z\nc: d\n", "a: b\npassword: ***\nc: d\n"),
                ("passwords:\n  - x\n  - y\nc: d\n", "passwords:\n  ***\nc: d\n"),
                ("a = b\npassword = x\n", "a = b\npassword = ***\n"),
                ("<a><password>x</password><b>c</b></a>", "<a><password>***</password><b>c</b></a>"),
                ("<s:Passwords t=\"1\"><i>x</i></s:Passwords>", "<s:Passwords t=\"1\">***</s:Passwords>"),
                ("<login user='u' password='x'/>", "<login user='u' password='***'/>"),
                ("<property name=\"password\">x</property>", "<property name=\"password\">***</property>"),
                ("<name>password</name><value><s>x</s></value>", "<name>password</name><value>***</value>"),
                ("<token>x", "<token>***"),
                ("<a>&lt;password&gt;x&lt;/password&gt;</a>", "<a>&lt;password&gt;***&lt;/password&gt;</a>"),
                (
                    "<input value='x' name='csrf'><input value='y' name='n'>",
                    "<input value='***' name='csrf'><input value='y' name='n'>",
                ),
                (
                    r#"[{"value": "x", "name": "password"}, {"value": "y", "name": "n"}]"#,
                    r#"[{"value": "***", "name": "password"}, {"value": "y", "name": "n"}]"#,
                ),
                (r#"[{"value": "y"}, {"name": "password"}]"#, r#"[{"value": "y"}, {"name": "password"}]"#),
                (
                    r#"[{"op": "add", "path": "/password", "value": "x"}]"#,
                    r#"[{"op": "add", "path": "/password", "value": "***"}]"#,
                ),
                ("j=%7B%22password%22%3A%22x%22%7D&k=%7B%22a%22%3A1%7D", "j=***&k=%7B%22a%22%3A1%7D"),
                (
                    "-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----\ny",
                    "-----BEGIN PRIVATE KEY-----***-----END PRIVATE KEY-----\ny",
                ),
                (
                    "--b\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\nx\r\n--b--\r\n",
                    "--b\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\n***\r\n--b--\r\n",
                ),
                ("@file", "@file"),
                ("x", "x"),
            ],
        );
    }

    #[test]
    fn messages() {
        holds(
            text,
            &[
                ("no 'redis://:pw@h' here", "no 'redis://:***@h' here"),
                ("unexpected '--headr=Authorization: Bearer x' found", "unexpected '--headr=Authorization: ***' found"),
                ("path \"/?token=x\" is bad", "path \"/?token=***\" is bad"),
                ("session-store:6379 is away", "session-store:6379 is away"),
                ("a: b", "a: b"),
                (
                    "redis://h:1: away, http://h:80. Or http://h:PORT/",
                    "redis://h:1: away, http://h:80. Or http://h:PORT/",
                ),
                ("no 'redis://u:pw' here", "no 'redis://u:***' here"),
                ("time `//u:pw` is", "time `//u:***` is"),
                ("no '--lable=token=x' here", "no '--lable=token=***' here"),
                ("--auth <TOKEN> is <b>token</b>", "--auth <TOKEN> is <b>token</b>"),
                ("got <password>x</password>", "got <password>***</password>"),
                ("is 'password': 'x'", "is 'password': '***'"),
                ("'--token': not known; exit code=5", "'--token': not known; exit code=5"),
                ("cannot read /run/api-token: No such file", "cannot read /run/api-token: No such file"),
                ("command \"AUTH ***\": 'x' is not closed", "command \"AUTH ***\": 'x' is not closed"),
                ("is X-Api-Key: x", "is X-Api-Key: ***"),
            ],
        );
    }
}
