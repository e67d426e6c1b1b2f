//! JSON as files and standard output have it: indented, with a newline at its end.

use super::integers;
use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde_json::Value;

/// `content` as such a text. For types of ours, which are plain JSON: keys are strings, and no number is NaN.
///
/// # Panics
/// If `content` is no such type.
pub fn pretty(content: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(content).expect("plain JSON");
    text.push('\n');
    text
}

/// The JSON Schema of `T`, as it is committed under `schema/`.
pub fn schema_of<T: JsonSchema>() -> String {
    let mut schema = schemars::schema_for!(T).to_value();
    bound(&mut schema);
    // As a schema again: its keys then stand in the order in which people read them.
    pretty(&Schema::try_from(schema).expect("a schema"))
}

/// No integer is beyond what all readers take for the same.
fn bound(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            let is_integer =
                |kind: &Value| kind == "integer" || kind.as_array().is_some_and(|of| of.contains(&"integer".into()));
            if fields.get("type").is_some_and(is_integer) {
                fields.entry("maximum").or_insert_with(|| integers::MOST.into());
            }
            fields.values_mut().for_each(bound);
        }
        Value::Array(items) => items.iter_mut().for_each(bound),
        _ => {}
    }
}
