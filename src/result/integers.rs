//! Integers that every reader of JSON takes for the same: up to 2^53 - 1 (RFC 8259, section 6). jq 1.6, JavaScript and
//! whatever else keeps numbers as doubles round what is larger, and then a file is not what was written.

/// The largest one.
pub const MOST: u64 = (1 << 53) - 1;

/// # Errors
/// One line with the first number in this JSON of ours which is beyond. Takes no memory: reports are long.
pub fn check(json: &str) -> Result<(), String> {
    let bytes = json.as_bytes();
    let (mut at, mut quoted) = (0, false);
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            b'0'..=b'9' if !quoted => {
                let within = |byte: &&u8| byte.is_ascii_digit() || b".eE+-".contains(*byte);
                let length = bytes[at..].iter().take_while(within).count();
                let number = &json[at..at + length];
                let fraction = number.contains(['.', 'e', 'E']);
                if fraction || number.parse().is_ok_and(|number: u64| number <= MOST) {
                    at += length;
                    continue;
                }
                let line = json[..at].rsplit('\n').next().unwrap_or_default().trim();
                let line: String = line.chars().take(80).collect();
                return Err(format!("`{line} {number}` is more than 2^53 - 1, which is as far as JSON is exact"));
            }
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_one_beyond_is_named() {
        assert_eq!(check("[0.00013247665099026297, 9007199254740993.5, 1e99, 1E+99]"), Ok(()));
        let told = |text: &str| check(text).err();
        assert_eq!(told("{\"a\": [9007199254740991, -9007199254740991]}"), None);
        assert_eq!(told("{\"a\": \"9007199254740992\"}"), None, "a text may have any digits");
        assert_eq!(told(r#"{"a\"1": "\\"}"#), None);
        let beyond = told("{\"a\": {\"b\": [1,\n\"c\": 9007199254740992]}}").unwrap();
        assert!(beyond.starts_with("`\"c\": 9007199254740992` is more"), "{beyond}");
        assert!(told("[-9007199254740992]").is_some() && told("[99999999999999999999]").is_some());
    }
}
