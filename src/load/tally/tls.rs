//! What was agreed on with servers under TLS, and how often.

use crate::histogram::Recorder;
use crate::tls::Negotiated;
use std::collections::BTreeSet;

/// Handshakes that came to their end.
#[derive(Debug, Default)]
pub struct TlsTally {
    pub full: u64,
    pub resumed: u64,
    pub versions: BTreeSet<&'static str>,
    pub ciphers: BTreeSet<&'static str>,
    /// Application protocols that servers chose.
    pub alpn: BTreeSet<String>,
    /// From the end of TCP's handshake to that of TLS.
    pub handshake: Recorder,
}

impl TlsTally {
    pub fn note(&mut self, session: Negotiated) {
        *(if session.resumed { &mut self.resumed } else { &mut self.full }) += 1;
        self.versions.insert(session.version);
        self.ciphers.insert(session.cipher);
        self.alpn.extend(session.alpn);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.full += other.full;
        self.resumed += other.resumed;
        self.versions.extend(&other.versions);
        self.ciphers.extend(&other.ciphers);
        self.alpn.extend(other.alpn.iter().cloned());
        self.handshake.merge(&other.handshake);
    }
}
