//! JSON as files and standard output have it: indented, with a newline at its end.

use schemars::JsonSchema;
use serde::Serialize;

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
    pretty(&schemars::schema_for!(T))
}
