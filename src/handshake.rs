//! What a layer below a protocol agrees on with a server before the protocol has its turn, and how often.

use crate::histogram::Recorder;
use std::collections::BTreeSet;

/// What a handshake agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// `1.2` or `1.3`.
    pub version: &'static str,
    /// As IANA calls it, `TLS13_AES_256_GCM_SHA384`.
    pub cipher: &'static str,
    /// The application protocol that the server chose.
    pub alpn: Option<String>,
    /// A ticket of an earlier connection was taken: no certificate was shown, and less was computed.
    pub resumed: bool,
}

/// Handshakes that came to their end.
#[derive(Debug, Default)]
pub struct Handshakes {
    pub full: u64,
    pub resumed: u64,
    pub versions: BTreeSet<&'static str>,
    pub ciphers: BTreeSet<&'static str>,
    pub alpn: BTreeSet<String>,
    /// From when the transport was up.
    pub time: Recorder,
}

impl Handshakes {
    pub fn note(&mut self, handshake: Handshake, ns: u64) {
        *(if handshake.resumed { &mut self.resumed } else { &mut self.full }) += 1;
        self.versions.insert(handshake.version);
        self.ciphers.insert(handshake.cipher);
        self.alpn.extend(handshake.alpn);
        self.time.record(ns);
    }

    pub fn merge(&mut self, other: &Self) {
        self.full += other.full;
        self.resumed += other.resumed;
        self.versions.extend(&other.versions);
        self.ciphers.extend(&other.ciphers);
        self.alpn.extend(other.alpn.iter().cloned());
        self.time.merge(&other.time);
    }
}
