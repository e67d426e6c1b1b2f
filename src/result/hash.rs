//! Digests: short names for things that must be the same before two runs may be compared.

use super::schema::Scenario;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeSet;

/// FNV-1a, 64 bit (Fowler, Noll and Vo; RFC 9923), of bytes that come in pieces. Tells accidents, not adversaries.
#[derive(Clone, Copy, Debug)]
pub struct Fnv1a(u64);

impl Default for Fnv1a {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv1a {
    pub fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// As 16 hexadecimal digits.
    pub fn hex(self) -> String {
        format!("{:016x}", self.0)
    }
}

/// That of bytes that are all there.
pub fn fnv1a_hex(bytes: &[u8]) -> String {
    let mut hash = Fnv1a::default();
    hash.add(bytes);
    hash.hex()
}

impl Scenario {
    /// The value of `hash`: over every field but the hash itself and where the target happened to be.
    pub fn digest(&self) -> String {
        let bare = Self { hash: String::new(), target: String::new(), resolved: Vec::new(), ..self.clone() };
        // Plain structs of numbers and strings always serialise.
        fnv1a_hex(&serde_json::to_vec(&bare).unwrap_or_default())
    }
}

impl Scenario {
    /// The names of the fields in which two scenarios can differ.
    pub fn fields() -> Vec<String> {
        let schema = schemars::schema_for!(Self).to_value();
        let properties = schema.get("properties").and_then(Value::as_object);
        let names = properties.into_iter().flat_map(|fields| fields.keys().cloned());
        names.filter(|name| !["hash", "target", "resolved"].contains(&name.as_str())).collect()
    }
}

/// The fields that make two scenarios different ones, of those that `hash` covers: name, and both values as text.
/// Empty: the same scenario.
pub fn differing_fields(a: &Scenario, b: &Scenario) -> Vec<(String, String, String)> {
    let mut fields = differences(a, b);
    fields.retain(|(name, ..)| !["hash", "target", "resolved"].contains(&name.as_str()));
    if fields.is_empty() && a.hash != b.hash {
        // A newer version knows of something more.
        fields.push(("hash".to_owned(), a.hash.clone(), b.hash.clone()));
    }
    fields
}

/// Fields of two structs that differ: name, and both values as text. A field that is left out is like null.
pub fn differences<T: Serialize>(a: &T, b: &T) -> Vec<(String, String, String)> {
    let values = |value: &T| match serde_json::to_value(value) {
        Ok(Value::Object(values)) => values,
        _ => serde_json::Map::new(),
    };
    let (left, right) = (values(a), values(b));
    let names: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let text = |value: Option<&Value>| in_words(value.unwrap_or(&Value::Null));
    let each = names.into_iter().map(|name| (name.clone(), text(left.get(name)), text(right.get(name))));
    each.filter(|(_, left, right)| left != right).collect()
}

fn in_words(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(in_words).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named_with_both_values() {
        let report: crate::result::Report =
            serde_json::from_str(include_str!("../../tests/golden/result-1.json")).unwrap();
        let scenario = report.scenario;
        let other = Scenario {
            connections: 7,
            in_flight: Some(3),
            target: "elsewhere:1".to_owned(),
            hash: "1".to_owned(),
            ..scenario.clone()
        };
        let differing = differing_fields(&scenario, &other);
        let told: Vec<String> = differing.iter().map(|(name, a, b)| format!("{name} {a} {b}")).collect();
        assert_eq!(told, [&format!("connections {} 7", scenario.connections), "in_flight none 3"]);
        assert!(differing_fields(&scenario, &scenario).is_empty());
        let newer = Scenario { hash: "1".to_owned(), ..scenario.clone() };
        assert_eq!(differing_fields(&scenario, &newer)[0].0, "hash");
    }

    #[test]
    fn digests_are_those_of_the_published_test_vectors() {
        assert_eq!(fnv1a_hex(b""), "cbf29ce484222325");
        assert_eq!(fnv1a_hex(b"a"), "af63dc4c8601ec8c");
        assert_eq!(fnv1a_hex(b"foobar"), "85944171f73967e8");
        let mut in_pieces = Fnv1a::default();
        ["fo", "", "obar"].iter().for_each(|piece| in_pieces.add(piece.as_bytes()));
        assert_eq!(in_pieces.hex(), "85944171f73967e8");
    }
}
