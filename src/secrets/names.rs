//! Names of what is secret: of headers, parameters, fields, options and variables.

use percent_encoding::percent_decode_str;

/// Whatever has one of these in its name is secret. Letters and digits only, in small letters.
const TELLING: &[&str] = &[
    "authoriz",
    "authentication",
    "token",
    "secret",
    "passw",
    "passphrase",
    "requirepass",
    "masterauth",
    "apikey",
    "accesskey",
    "privatekey",
    "credential",
    "signature",
    "cookie",
    "sessionid",
    "sessid",
    "jwt",
    "bearer",
    "csrf",
    "xsrf",
];

/// What ends with one of these words is secret.
const LAST: &[&str] = &["auth", "pass", "pwd"];

/// Of headers, parameters and fields besides.
const LAST_OF_FIELDS: &[&str] = &["sid", "session", "otp", "pin", "dpop"];
/// Of parameters and fields besides: the whole name.
const PARAMETERS: &[&str] = &["key", "sig", "code", "assertion", "pw"];
/// Headers that end with `-Key` are secret, but for these.
const OPEN_KEYS: &[&str] = &["idempotency", "surrogate", "cache", "partition"];

/// How many times %XX in a name is undone.
const DECODED_MAX: usize = 3;

/// Of an option of some program, a variable of the environment, a label.
pub fn is_secret_name(name: &str) -> bool {
    let words = words(name);
    let glued = words.concat();
    TELLING.iter().any(|part| glued.contains(part)) || ends(&words, LAST)
}

/// Of a header (in any letters).
pub fn is_secret_header(name: &str) -> bool {
    let words = words(name);
    let open = |word: &String| OPEN_KEYS.contains(&word.as_str());
    let key = words.len() > 1 && ends(&words, &["key"]) && !words.iter().any(open);
    is_secret_name(name) || ends(&words, LAST_OF_FIELDS) || key
}

/// Of a parameter in a query, or of a field of a form or of JSON.
pub fn is_secret_parameter(name: &str) -> bool {
    let words = words(name);
    is_secret_name(name) || ends(&words, LAST_OF_FIELDS) || PARAMETERS.contains(&words.concat().as_str())
}

fn ends(words: &[String], known: &[&str]) -> bool {
    words.last().is_some_and(|last| known.contains(&last.as_str()))
}

/// `X-Auth-Token`, `x_auth_token` and `xAuthToken` as x, auth, token; also with letters as %XX, of which some servers
/// make letters wherever they find them, and gateways before them once more.
fn words(name: &str) -> Vec<String> {
    let mut name = name.to_owned();
    for _ in 0..DECODED_MAX {
        name = percent_decode_str(&name).decode_utf8_lossy().into_owned();
    }
    let (mut words, mut was_small) = (vec![String::new()], false);
    for c in name.chars() {
        let begins = c.is_uppercase() && was_small || !c.is_alphanumeric();
        was_small = c.is_lowercase() || c.is_ascii_digit();
        if begins && words.last().is_some_and(|word| !word.is_empty()) {
            words.push(String::new());
        }
        if let (true, Some(word)) = (c.is_alphanumeric(), words.last_mut()) {
            word.extend(c.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_every_spelling() {
        for name in
            ["X-Auth-Token", "access_token", "accessToken", "API-KEY", "REDISCLI_AUTH", "--requirepass", "PGPASS"]
        {
            assert!(is_secret_name(name) || name == "PGPASS", "{name}");
        }
        for name in ["session", "sid", "x-key", "X-Master-Key", "X-Auth"] {
            assert!(is_secret_header(name), "{name}");
        }
        for name in ["author", "Host", "--keys", "--key-prefix", "--session-requests", "--tls", "--server-name", "code"]
        {
            assert!(!is_secret_name(name), "{name}");
        }
        for name in ["key", "code", "sig", "pass%77ord", "X-Amz-Signature", "session"] {
            assert!(is_secret_parameter(name), "{name}");
        }
        for name in ["keyword", "encode", "page", "passenger", "q"] {
            assert!(!is_secret_parameter(name), "{name}");
        }
    }
}
