//! Digests: short names for things that must be the same before two runs may be compared.

use super::schema::Scenario;

/// FNV-1a, 64 bit (Fowler, Noll and Vo; RFC 9923), as 16 hexadecimal digits. Tells accidents, not adversaries.
pub fn fnv1a_hex(bytes: &[u8]) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    format!("{hash:016x}")
}

impl Scenario {
    /// The value of `hash`: over every field but the hash itself and where the target happened to be.
    pub fn digest(&self) -> String {
        let bare = Self { hash: String::new(), target: String::new(), resolved: Vec::new(), ..self.clone() };
        // Plain structs of numbers and strings always serialise.
        fnv1a_hex(&serde_json::to_vec(&bare).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_published_test_vectors() {
        assert_eq!(fnv1a_hex(b""), "cbf29ce484222325");
        assert_eq!(fnv1a_hex(b"a"), "af63dc4c8601ec8c");
        assert_eq!(fnv1a_hex(b"foobar"), "85944171f73967e8");
    }
}
