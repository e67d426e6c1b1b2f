//! Connections under TLS: what arrives is decrypted before the rest of the session sees it, and what it says is
//! encrypted on its way into the outbox. Between established and greeting, a connection does its handshake.

use super::{Session, State};
use crate::engine::Io;
use loadgen_core::protocol::Shape;
use loadgen_core::time::Instant;
use loadgen_core::tls::client::Settings;
use loadgen_core::tls::{Secure, TlsError};

/// What the connections of a worker share under TLS.
#[derive(Debug)]
pub(super) struct Keys {
    /// One for each target.
    settings: Vec<Settings>,
    /// By slot; `None`: no connection, or it has yet to be established.
    connections: Vec<Option<Box<Secure>>>,
    /// Received, to be decrypted where it is: the engine's buffers are not ours to write to.
    arrived: Vec<u8>,
    /// What it says; and what is to be encrypted next.
    plaintext: Vec<u8>,
    writing: Vec<u8>,
}

impl Keys {
    /// `None` without settings: nothing is encrypted.
    pub(super) fn new(settings: &[Settings], capacity: usize) -> Option<Box<Self>> {
        (!settings.is_empty()).then(|| {
            Box::new(Self {
                settings: settings.to_vec(),
                connections: std::iter::repeat_with(|| None).take(capacity).collect(),
                arrived: Vec::new(),
                plaintext: Vec::new(),
                writing: Vec::new(),
            })
        })
    }

    /// Encrypts what `write` says, behind what TLS itself has to say, into `out`. Answers where that of `write` begins.
    pub(super) fn seal(&mut self, slot: u32, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        self.writing.clear();
        write(&mut self.writing);
        let Some(secure) = &mut self.connections[slot as usize] else { return out.len() };
        if secure.has_output() {
            secure.take_output(out);
        }
        let from = out.len();
        if !self.writing.is_empty() && secure.encrypt(&self.writing, out).is_err() {
            // The connection failed, which receiving has told or will tell.
            out.truncate(from);
        }
        from
    }
}

impl Session {
    /// Whether TLS itself has something to say on this connection.
    pub(super) fn has_tls_output(&self, slot: u32) -> bool {
        let secure = self.tls.as_ref().and_then(|tls| tls.connections[slot as usize].as_ref());
        secure.is_some_and(|secure| secure.has_output())
    }

    /// The connection is established: begins the handshake.
    pub(super) fn secure(&mut self, io: &mut impl Io, slot: u32, now: Instant) {
        let target = self.config.target(slot);
        let Some(tls) = &mut self.tls else { return };
        // The time for it counts from here.
        self.stamps[slot as usize * self.config.depth].sent = now;
        self.conns[slot as usize].state = State::Securing;
        match tls.settings[target].connect() {
            Ok(secure) => {
                tls.connections[slot as usize] = Some(Box::new(secure));
                self.flush_own(io, slot);
            }
            Err(error) => self.greeting_failed(io, slot, error.kind.name(), &error.detail, now),
        }
    }

    /// Bytes arrived on a connection under TLS.
    pub(super) fn decrypt(&mut self, io: &mut impl Io, slot: u32, bytes: &[u8], now: Instant) {
        let Some(tls) = &mut self.tls else { return };
        let mut plaintext = std::mem::take(&mut tls.plaintext);
        plaintext.clear();
        tls.arrived.clear();
        tls.arrived.extend_from_slice(bytes);
        let Some(secure) = &mut tls.connections[slot as usize] else { return };
        let outcome = secure.received(&mut tls.arrived, &mut plaintext);
        let secured = self.conns[slot as usize].state == State::Securing && !secure.is_handshaking();
        // An error behind what is whole: that comes first.
        if outcome.is_ok() || !plaintext.is_empty() {
            if secured {
                self.secured(io, slot, now);
            }
            if !plaintext.is_empty() {
                self.plain_received(io, slot, &plaintext, now);
            }
        }
        if let Some(tls) = &mut self.tls {
            tls.plaintext = plaintext;
            // The replies may have been the last ones.
            let Some(secure) = &tls.connections[slot as usize] else { return };
            let peer_closed = secure.peer_closed();
            match outcome {
                Err(error) => self.tls_failed(io, slot, &error, now),
                Ok(()) if peer_closed => self.plain_ended(io, slot, None, now),
                Ok(()) if secure.has_output() => _ = self.flush_own(io, slot),
                Ok(()) => {}
            }
        }
    }

    /// The handshake is over.
    fn secured(&mut self, io: &mut impl Io, slot: u32, now: Instant) {
        let started = self.stamps[slot as usize * self.config.depth].sent;
        let session = self.tls.as_ref().and_then(|tls| tls.connections[slot as usize].as_ref()?.session());
        self.tally.tls.handshake.record(now.since(started));
        if let Some(session) = session {
            self.tally.tls.note(session);
        }
        self.greet(io, slot, now);
    }

    fn tls_failed(&mut self, io: &mut impl Io, slot: u32, error: &TlsError, now: Instant) {
        // An alert, so that the server knows why; behind what was not taken it would be no record of its own.
        if !self.has_unsent(slot) {
            self.flush_own(io, slot);
        }
        let kind = error.kind.name();
        match self.conns[slot as usize].state {
            State::Securing | State::Greeting => self.greeting_failed(io, slot, kind, &error.detail, now),
            _ => self.drop_connection(io, slot, kind, "aborted", now, error.detail.clone()),
        }
    }

    /// Whether the end of the server's stream was not announced, so that it may have been cut off by anybody.
    pub(super) fn is_cut_off(&self, slot: u32) -> bool {
        let secure = self.tls.as_ref().and_then(|tls| tls.connections[slot as usize].as_ref());
        secure.is_some_and(|secure| !secure.peer_closed())
    }

    /// We are about to end our stream in good order: says so, if that can be said at once.
    pub(super) fn say_goodbye(&mut self, io: &mut impl Io, slot: u32) {
        if self.config.traffic.reset || self.has_unsent(slot) {
            return;
        }
        let Some(tls) = &mut self.tls else { return };
        let Some(secure) = &mut tls.connections[slot as usize] else { return };
        secure.close();
        self.flush_own(io, slot);
    }

    /// The connection is no more.
    pub(super) fn forget_tls(&mut self, slot: u32) {
        if let Some(tls) = &mut self.tls {
            tls.connections[slot as usize] = None;
        }
    }

    /// Sends blocks of an endless stream until the kernel takes no more, so many at most. Answers whether it would take
    /// more.
    pub(super) fn upload_secured(&mut self, io: &mut impl Io, slot: u32, blocks: usize) -> bool {
        debug_assert_eq!(self.shape, Shape::Upload);
        for _ in 0..blocks {
            if !self.has_unsent(slot) {
                self.conns[slot as usize].unsent = 1;
            }
            self.flush_own(io, slot);
            if self.has_unsent(slot) {
                return false;
            }
        }
        true
    }
}
