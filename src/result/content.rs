//! JSON text into values and types, with errors that name field and place.

use super::integers;
use serde::de::{DeserializeOwned, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use std::fmt;

/// Why a text is not what it should be. One line each, without the name of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Empty,
    /// It ends before it is complete; the place.
    CutOff(String),
    /// So many texts, each complete, one behind the other.
    Several(usize),
    /// The field (where there is one), the cause, the place.
    Wrong(String),
}

/// The text as it is, before it is known what it should be.
///
/// # Errors
/// If it is not JSON, or names a field twice.
pub(super) fn value(text: &[u8]) -> Result<Value, Fault> {
    if text.iter().all(u8::is_ascii_whitespace) {
        return Err(Fault::Empty);
    }
    // Keeping track of the path takes longer than all the rest, so only where there is a fault to be found.
    match serde_json::from_slice(text) {
        Ok(Strict(value)) => return Ok(value),
        Err(end) if end.is_eof() => return Err(Fault::CutOff(format!("line {} column {}", end.line(), end.column()))),
        Err(_) => {}
    }
    let mut parser = serde_json::Deserializer::from_slice(text);
    let Strict(value) = serde_path_to_error::deserialize(&mut parser).map_err(|error| Fault::Wrong(located(&error)))?;
    parser.end().map_err(|error| several(text).map_or_else(|| Fault::Wrong(error.to_string()), Fault::Several))?;
    Ok(value)
}

/// How many texts there are. `None`: it is not JSON all through.
fn several(text: &[u8]) -> Option<usize> {
    let texts = serde_json::Deserializer::from_slice(text).into_iter::<IgnoredAny>();
    // Why it is none has been said.
    texts.map(Result::ok).collect::<Option<Vec<_>>>().map(|texts| texts.len()).filter(|texts| *texts > 1)
}

/// The text, whose `content` this is, as a `T`.
///
/// # Errors
/// If a field is missing, or is of another type: the field, the cause, the place.
pub(super) fn typed<T: DeserializeOwned>(text: &[u8], content: &Value) -> Result<T, String> {
    if let Ok(typed) = serde_json::from_slice(text).or_else(|_| T::deserialize(content)) {
        return Ok(typed);
    }
    serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(text)).map_err(|error| located(&error))
}

fn located(error: &serde_path_to_error::Error<serde_json::Error>) -> String {
    let (path, cause) = (error.path(), error.inner());
    if path.iter().len() == 0 { cause.to_string() } else { format!("`{path}`: {cause}") }
}

/// A value in which no field is named twice; of two, serde_json's own would take the last in silence.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    /// Other programs write a whole number as `1.0` or `1e3`, too: it is the same.
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        let whole = value.fract() == 0.0 && value.abs() <= integers::MOST as f64;
        Ok(if whole { (value as i64).into() } else { value.into() })
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            if fields.contains_key(&name) {
                return Err(A::Error::custom(format_args!("duplicate field `{name}`")));
            }
            let Strict(value) = entries.next_value()?;
            fields.insert(name, value);
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_serde_json() {
        let text = br#" {"a": [1, -1, 1.5, "x\n\u00fc", true, null, {}], "b": {"c": []}, "d": 18446744073709551615} "#;
        assert_eq!(value(text).unwrap(), serde_json::from_slice::<Value>(text).unwrap());
        let spelled = value(b"[1.0, 1e3, -2.5E1, -0.0, 0.5, 9007199254740992.0]").unwrap();
        assert_eq!(spelled.to_string(), "[1,1000,-25,0,0.5,9007199254740992.0]");
    }

    #[test]
    fn faults_name_field_and_place() {
        let wrong = |text: &str| match value(text.as_bytes()) {
            Err(Fault::Wrong(what)) => what,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(
            wrong(r#"{"a": {"b": [{}, {"c": 1, "c": 1}]}}"#),
            "`a.b[1]`: duplicate field `c` at line 1 column 29"
        );
        assert_eq!(value(b"{}\n{} []"), Err(Fault::Several(3)));
        assert_eq!(wrong("{} {"), "trailing characters at line 1 column 4");
        assert!(wrong("{\"a\":\n 1e999}").starts_with("`a`: number out of range at line 2"));
        assert!(wrong(&"[".repeat(100_000)).contains("recursion limit"));
        assert_eq!(value(b" \n"), Err(Fault::Empty));
        assert_eq!(value(b"{\"a\": {\"b\":\n[1,"), Err(Fault::CutOff("line 2 column 3".to_owned())));
    }
}
