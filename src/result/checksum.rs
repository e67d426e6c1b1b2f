//! The checksum of a report and of a bundle: a file in which one digit has changed is still good JSON.

use super::bundle::Bundle;
use super::hash::fnv1a_hex;
use super::pretty;
use super::schema::Report;
use serde::Serialize;
use serde_json::Value;

/// The field that holds it, at the top level of a file.
const KEY: &str = "checksum";

/// The value of `checksum` for a file with this content: FNV-1a over the compact JSON of all other fields, the keys
/// sorted. So neither layout nor the order of keys matters, and fields of newer versions are covered.
///
/// `content` loses the field. Tells accidents, not adversaries.
pub fn take(content: &mut Value) -> (Option<Value>, String) {
    let stored = content.as_object_mut().and_then(|fields| fields.remove(KEY));
    content.sort_all_objects(); // sorted anyhow, unless some dependency has serde_json keep the order
    (stored, fnv1a_hex(content.to_string().as_bytes()))
}

/// The checksum of a file with this content, which has none yet.
pub(crate) fn of(content: &impl Serialize) -> String {
    take(&mut serde_json::to_value(content).expect("report types are plain JSON")).1
}

impl Report {
    /// The content of its file: indented JSON with the checksum, and a newline at the end.
    pub fn to_json(&self) -> String {
        pretty(&self.sealed())
    }

    /// With its checksum.
    pub(crate) fn sealed(&self) -> Self {
        Self { checksum: Some(of(self)), ..self.clone() }
    }
}

impl Bundle {
    /// As a report's; each run has its own checksum besides.
    pub fn to_json(&self) -> String {
        let runs = self.runs.iter().map(Report::sealed).collect();
        let sealed = Self { runs, checksum: None, ..self.clone() };
        pretty(&Self { checksum: Some(of(&sealed)), ..sealed })
    }
}
