//! What a report says about encryption (docs/tls.md).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the stream was to be encrypted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ScenarioTls {
    /// Sessions are resumed where the server lets us.
    pub resumption: bool,
    /// The server's certificate is not verified (`--insecure`).
    pub insecure: bool,
    /// Application protocols that are offered, the preferred one first.
    pub alpn: Vec<String>,
    /// We have a certificate of our own.
    pub client_certificate: bool,
}

/// What was agreed on with the server, and how often; over the whole run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tls {
    /// `1.2` or `1.3`; both, with a comma between, where servers differ; empty: no handshake came to its end.
    pub version: String,
    /// As IANA calls it, likewise.
    pub cipher: String,
    /// The application protocol that the server chose, likewise; null: none.
    pub alpn: Option<String>,
    /// As in `scenario.tls`.
    pub insecure: bool,
    pub resumption: bool,
    /// Handshakes that came to their end: with a certificate, and by resuming an earlier session.
    pub handshakes_full: u64,
    pub handshakes_resumed: u64,
}

impl Tls {
    /// That of several shards.
    pub fn merge(parts: impl IntoIterator<Item = Self>) -> Option<Self> {
        parts.into_iter().reduce(|mut sum, other| {
            let join = |known: &mut String, more: &str| {
                if !more.is_empty() && !known.split(", ").any(|word| word == more) {
                    *known = if known.is_empty() { more.to_owned() } else { format!("{known}, {more}") };
                }
            };
            join(&mut sum.version, &other.version);
            join(&mut sum.cipher, &other.cipher);
            sum.alpn = sum.alpn.or(other.alpn);
            sum.insecure |= other.insecure;
            sum.handshakes_full = sum.handshakes_full.saturating_add(other.handshakes_full);
            sum.handshakes_resumed = sum.handshakes_resumed.saturating_add(other.handshakes_resumed);
            sum
        })
    }
}
