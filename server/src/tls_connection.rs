//! A connection under TLS: what arrives is decrypted before the protocol sees it, what it says is encrypted before it
//! is sent. `connection` and `peer` do the rest, as without TLS.

use crate::stats::Counters;
use loadgen_core::tls::server::Settings;
use loadgen_core::tls::{Secure, TlsError};
use std::collections::BTreeMap;

/// What the connections of a thread share.
#[derive(Debug)]
pub(crate) struct Keys {
    settings: Settings,
    /// Decrypted by the last [`TlsConnection::received`].
    pub(crate) plaintext: Vec<u8>,
    /// Made by the last [`TlsConnection::seal`]; for `peer`, what that was made of.
    pub(crate) ciphertext: Vec<u8>,
    /// Received, where the engine's buffers are not ours to write to.
    pub(crate) arrived: Vec<u8>,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct TlsConnection {
    secure: Secure,
    /// It is known how the handshake ended.
    noted: bool,
}

/// What was counted about TLS.
#[derive(Debug, Default)]
pub(crate) struct TlsCounters {
    pub(crate) full: u64,
    pub(crate) resumed: u64,
    /// By what went wrong.
    pub(crate) failures: BTreeMap<&'static str, u64>,
    pub(crate) versions: BTreeMap<&'static str, u64>,
    pub(crate) ciphers: BTreeMap<&'static str, u64>,
    /// Streams that ended without saying that they would.
    pub(crate) truncated: u64,
}

/// How what arrived was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    /// The handshake goes on.
    Handshaking,
    /// The plaintext is in [`Keys::plaintext`]. `ended`: the peer says that nothing follows.
    Plaintext { ended: bool },
    /// The connection cannot be used any further.
    Failed,
}

impl Keys {
    pub(crate) fn new(settings: Settings) -> Self {
        Self { settings, plaintext: Vec::new(), ciphertext: Vec::new(), arrived: Vec::new() }
    }

    /// For a connection that was accepted; `None` only if the settings are not sound, and they have been checked.
    pub(crate) fn accept(&self) -> Option<Box<TlsConnection>> {
        // The settings were checked at the start.
        let secure = self.settings.accept().ok()?;
        Some(Box::new(TlsConnection { secure, noted: false }))
    }
}

impl TlsConnection {
    pub(crate) fn is_handshaking(&self) -> bool {
        self.secure.is_handshaking()
    }

    /// A part of a record is kept until the rest of it is there.
    pub(crate) fn is_within_record(&self) -> bool {
        self.secure.is_within_record()
    }

    /// Something is to be sent that the protocol did not say.
    pub(crate) fn has_output(&self) -> bool {
        self.secure.has_output()
    }

    /// Decrypts what arrived into `plaintext`, which is emptied before.
    pub(crate) fn received(&mut self, bytes: &mut [u8], plaintext: &mut Vec<u8>, counters: &mut Counters) -> Opened {
        plaintext.clear();
        if let Err(error) = self.secure.received(bytes, plaintext) {
            self.fail(&error, counters);
            return Opened::Failed;
        }
        if !self.noted
            && let Some(agreed) = self.secure.negotiated()
        {
            self.noted = true;
            let tls = counters.tls.get_or_insert_default();
            *(if agreed.resumed { &mut tls.resumed } else { &mut tls.full }) += 1;
            *tls.versions.entry(agreed.version).or_default() += 1;
            *tls.ciphers.entry(agreed.cipher).or_default() += 1;
        }
        if self.is_handshaking() { Opened::Handshaking } else { Opened::Plaintext { ended: self.secure.peer_closed() } }
    }

    /// The peer's stream has ended below TLS. Within the handshake that is a failure.
    pub(crate) fn ended(&mut self, counters: &mut Counters) {
        if self.is_handshaking() {
            self.fail(&TlsError::truncated(), counters);
        } else if !self.secure.peer_closed() {
            counters.tls.get_or_insert_default().truncated += 1;
        }
    }

    fn fail(&mut self, error: &TlsError, counters: &mut Counters) {
        *counters.tls.get_or_insert_default().failures.entry(error.kind.name()).or_default() += 1;
    }

    /// Encrypts `plaintext` into `ciphertext`, which is emptied before, behind what is to be sent anyway; false: it
    /// cannot.
    #[must_use]
    pub(crate) fn seal(&mut self, plaintext: &[u8], ciphertext: &mut Vec<u8>) -> bool {
        ciphertext.clear();
        self.secure.take_output(ciphertext);
        plaintext.is_empty() || self.secure.encrypt(plaintext, ciphertext).is_ok()
    }

    /// Our stream is about to end: whether that has been said, or is not to be.
    pub(crate) fn close(&mut self) -> bool {
        self.secure.close();
        !self.secure.has_output()
    }
}
