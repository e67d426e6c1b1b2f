//! One connection under TLS, of either side.

use super::{TlsError, TlsErrorKind};
use crate::handshake::Handshake;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, Error, HandshakeKind, ProtocolVersion, ServerConfig};
use std::fmt;
use std::sync::Arc;

/// What encryption adds to a record at most (RFC 5246 with an explicit nonce, and RFC 8446), and the longest record.
const RECORD_OVERHEAD: usize = 32;
const LONGEST_RECORD: usize = 16 << 10;
const HEADER: usize = 5;

/// One connection. What comes from the network goes into [`Secure::received`]; what is to be sent comes out of
/// [`Secure::take_output`] and [`Secure::encrypt`]. While nothing is going on it holds no buffers.
pub struct Secure {
    half: Half,
    /// Received, and to be shown to rustls again: less than one record, or messages of a handshake.
    partial: Vec<u8>,
    /// To be sent before anything that is encrypted from here on.
    output: Vec<u8>,
    /// The peer said that nothing follows.
    peer_closed: bool,
    closed: bool,
    failed: bool,
    /// Any certificate is accepted: what goes wrong is not for want of that.
    insecure: bool,
}

enum Half {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

impl fmt::Debug for Secure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secure")
            .field("handshaking", &self.is_handshaking())
            .field("partial", &self.partial.len())
            .field("output", &self.output.len())
            .field("peer_closed", &self.peer_closed)
            .finish_non_exhaustive()
    }
}

impl Secure {
    pub(super) fn client(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        insecure: bool,
    ) -> Result<Self, TlsError> {
        let mut new = Self::new(Half::Client(UnbufferedClientConnection::new(config, name)?));
        new.insecure = insecure;
        // Its first words are made without hearing any.
        new.received(&mut [], &mut Vec::new())?;
        Ok(new)
    }

    pub(super) fn server(config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        Ok(Self::new(Half::Server(UnbufferedServerConnection::new(config)?)))
    }

    fn new(half: Half) -> Self {
        Self {
            half,
            partial: Vec::new(),
            output: Vec::new(),
            peer_closed: false,
            closed: false,
            failed: false,
            insecure: false,
        }
    }

    /// Takes bytes of the peer, which it decrypts where they are, and appends what they say to `plaintext`.
    /// At most as many bytes as went in come out, and one record more.
    ///
    /// # Errors
    /// The connection cannot be used any further; what is to be said about that is in the output.
    pub fn received(&mut self, mut bytes: &mut [u8], plaintext: &mut Vec<u8>) -> Result<(), TlsError> {
        if self.failed || self.peer_closed {
            return Ok(());
        }
        let result = self.receive(&mut bytes, plaintext);
        if result.is_err() {
            self.failed = true;
            self.partial = Vec::new();
        }
        result.map_err(|error| TlsError::explained(error, self.insecure))
    }

    fn receive(&mut self, bytes: &mut &mut [u8], plaintext: &mut Vec<u8>) -> Result<(), Error> {
        while !self.partial.is_empty() && !bytes.is_empty() {
            let missing = self.missing().clamp(1, bytes.len());
            let (now, rest) = std::mem::take(bytes).split_at_mut(missing);
            self.partial.extend_from_slice(now);
            *bytes = rest;
            let mut partial = std::mem::take(&mut self.partial);
            let used = self.process(&mut partial, plaintext)?;
            if used < partial.len() {
                partial.drain(..used);
                self.partial = partial;
            }
            if self.peer_closed {
                return Ok(());
            }
        }
        let used = self.process_rest(bytes, plaintext)?;
        if !self.peer_closed && used < bytes.len() {
            self.partial.extend_from_slice(&bytes[used..]);
        }
        Ok(())
    }

    /// Where nothing is kept.
    fn process_rest(&mut self, bytes: &mut [u8], plaintext: &mut Vec<u8>) -> Result<usize, Error> {
        if self.partial.is_empty() { self.process(bytes, plaintext) } else { Ok(bytes.len()) }
    }

    /// How many bytes complete the first record that is kept. Where it is complete, it belongs to a message that is
    /// not, and all there is may be needed.
    fn missing(&self) -> usize {
        let kept = self.partial.len();
        if kept < HEADER {
            return HEADER - kept;
        }
        let record = HEADER + usize::from(u16::from_be_bytes([self.partial[3], self.partial[4]]));
        if kept < record { record - kept } else { usize::MAX }
    }

    /// Has rustls look at `buffer`, and answers how many of its bytes need not be shown again.
    fn process(&mut self, buffer: &mut [u8], plaintext: &mut Vec<u8>) -> Result<usize, Error> {
        let mut used = 0;
        loop {
            let (discard, step) = self.half.step(&mut buffer[used..], &mut self.output, plaintext);
            used += discard;
            match step {
                Ok(Step::Again) => {}
                Ok(Step::Done) => return Ok(used),
                Ok(Step::PeerClosed) => self.peer_closed = true,
                Err(error) => {
                    // An alert may say why. Only what is ready is asked for: what is wrong must not be read again.
                    while self.half.common().wants_write() {
                        self.half.step(&mut buffer[used..], &mut self.output, plaintext).1?;
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Encrypts `plaintext` behind what is to be sent before it, and appends both to `out`. To be called when the
    /// handshake is over.
    ///
    /// # Errors
    /// The handshake is not over, or the keys are used up (rustls renews them under TLS 1.3).
    pub fn encrypt(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), TlsError> {
        self.write(|half, partial, out, from| half.encrypt(partial, plaintext, out, from), plaintext.len(), out)
    }

    /// Says that nothing follows (close_notify), once; not within the handshake, and not after a failure.
    pub fn close(&mut self) {
        if self.closed || self.failed || self.is_handshaking() {
            return;
        }
        self.closed = true;
        let mut out = std::mem::take(&mut self.output);
        let closed = self.write(|half, partial, out, from| half.close(partial, out, from), 0, &mut out);
        debug_assert!(closed.is_ok(), "an alert can always be sent");
        self.output = out;
    }

    fn write(
        &mut self,
        mut act: impl FnMut(&mut Half, &mut [u8], &mut Vec<u8>, usize) -> Result<usize, Option<EncryptError>>,
        bytes: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), TlsError> {
        let fail = |detail: &str| TlsError { kind: TlsErrorKind::Protocol, detail: format!("TLS: {detail}") };
        // What rustls has to say goes first, so that it is ready for more.
        let mut partial = std::mem::take(&mut self.partial);
        let is_ready = partial.is_empty() && !self.half.common().wants_write();
        let used = if is_ready { 0 } else { self.process(&mut partial, &mut Vec::new())? };
        out.append(&mut self.output);
        let from = out.len();
        out.resize(from + bytes + (bytes / LONGEST_RECORD + 2) * RECORD_OVERHEAD, 0);
        let mut written = act(&mut self.half, &mut partial, out, from);
        if let Err(Some(EncryptError::InsufficientSize(size))) = written {
            out.resize(from + size.required_size, 0);
            written = act(&mut self.half, &mut partial, out, from);
        }
        if used > 0 {
            partial.drain(..used);
        }
        self.partial = partial;
        out.truncate(from + *written.as_ref().unwrap_or(&0));
        match written {
            Ok(_) => Ok(()),
            Err(None) => Err(fail("nothing can be sent within the handshake")),
            Err(Some(error)) => Err(fail(&error.to_string())),
        }
    }

    /// What is to be sent, appended to `out`.
    pub fn take_output(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.output);
        // The handshake is over, or on its way: the buffer would wait for nothing.
        self.output = Vec::new();
    }

    /// Whether something is to be sent.
    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// A record has begun to arrive, and its end is awaited.
    pub fn is_within_record(&self) -> bool {
        !self.partial.is_empty()
    }

    pub fn is_handshaking(&self) -> bool {
        self.half.common().is_handshaking()
    }

    /// The peer said that nothing follows. Without this, the end of its stream may have been cut off.
    pub fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// What was agreed on; `None` while the handshake lasts.
    pub fn negotiated(&self) -> Option<Handshake> {
        let common = self.half.common();
        if common.is_handshaking() {
            return None;
        }
        let version = match common.protocol_version()? {
            ProtocolVersion::TLSv1_2 => "1.2",
            _ => "1.3",
        };
        let cipher = common.negotiated_cipher_suite()?.suite().as_str()?;
        let alpn = common.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
        Some(Handshake { version, cipher, alpn, resumed: common.handshake_kind() == Some(HandshakeKind::Resumed) })
    }
}

/// What rustls wants next.
enum Step {
    Again,
    /// More bytes, or to be asked to send some.
    Done,
    PeerClosed,
}

impl Half {
    fn common(&self) -> &CommonState {
        match self {
            Self::Client(client) => client,
            Self::Server(server) => server,
        }
    }

    /// One step: how many bytes of `buffer` are used up after it, and what is next.
    fn step(
        &mut self,
        buffer: &mut [u8],
        output: &mut Vec<u8>,
        plaintext: &mut Vec<u8>,
    ) -> (usize, Result<Step, Error>) {
        match self {
            Self::Client(client) => step(client.process_tls_records(buffer), output, plaintext),
            Self::Server(server) => step(server.process_tls_records(buffer), output, plaintext),
        }
    }

    fn encrypt(
        &mut self,
        partial: &mut [u8],
        plaintext: &[u8],
        out: &mut [u8],
        from: usize,
    ) -> Result<usize, Option<EncryptError>> {
        match self {
            Self::Client(client) => encrypt(client.process_tls_records(partial), plaintext, &mut out[from..]),
            Self::Server(server) => encrypt(server.process_tls_records(partial), plaintext, &mut out[from..]),
        }
    }

    fn close(&mut self, partial: &mut [u8], out: &mut [u8], from: usize) -> Result<usize, Option<EncryptError>> {
        match self {
            Self::Client(client) => close(client.process_tls_records(partial), &mut out[from..]),
            Self::Server(server) => close(server.process_tls_records(partial), &mut out[from..]),
        }
    }
}

fn step<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    output: &mut Vec<u8>,
    plaintext: &mut Vec<u8>,
) -> (usize, Result<Step, Error>) {
    let UnbufferedStatus { mut discard, state } = status;
    let step = match state {
        Err(error) => Err(error),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                None => break Ok(Step::Again),
                Some(Err(error)) => break Err(error),
                Some(Ok(record)) => {
                    discard += record.discard;
                    plaintext.extend_from_slice(record.payload);
                }
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            let from = output.len();
            // It says how long it is.
            if let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut []) {
                output.resize(from + size.required_size, 0);
                let written = data.encode(&mut output[from..]);
                output.truncate(from + written.unwrap_or(0));
            }
            Ok(Step::Again)
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Step::Again)
        }
        Ok(ConnectionState::PeerClosed) => Ok(Step::PeerClosed),
        // Early data is not offered and not accepted.
        Ok(_) => Ok(Step::Done),
    };
    (discard, step)
}

fn encrypt<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    plaintext: &[u8],
    out: &mut [u8],
) -> Result<usize, Option<EncryptError>> {
    match status.state {
        Ok(ConnectionState::WriteTraffic(mut traffic)) => traffic.encrypt(plaintext, out).map_err(Some),
        _ => Err(None),
    }
}

fn close<Data>(status: UnbufferedStatus<'_, '_, Data>, out: &mut [u8]) -> Result<usize, Option<EncryptError>> {
    match status.state {
        Ok(ConnectionState::WriteTraffic(mut traffic)) => traffic.queue_close_notify(out).map_err(Some),
        _ => Err(None),
    }
}
