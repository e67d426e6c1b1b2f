//! TLS as a layer: a client half whose bytes are those of another one, encrypted.

use super::Codec;
use super::ask::Ask;
use super::client::{Cancelled, Client, Context, End, Ended, Event};
use super::outbox::Outbox;
use super::ticket::{Order, STREAM, Ticket};
use crate::tls::client::Settings;
use crate::tls::{Secure, TlsError};

/// Another client half under TLS.
#[derive(Debug)]
pub struct Tls {
    inner: Box<dyn Client>,
    settings: Settings,
    /// By slot; `None`: no connection, or its transport is not up yet.
    connections: Vec<Option<Box<Connection>>>,
    scratch: Scratch,
}

/// What all connections use in turn, so that one on which nothing is going on holds no memory.
#[derive(Debug, Default)]
struct Scratch {
    /// Received, to be decrypted where it is: the caller's bytes are not ours to write to.
    arrived: Vec<u8>,
    plaintext: Vec<u8>,
    plain: Option<Box<Outbox>>,
}

#[derive(Debug)]
struct Connection {
    secure: Secure,
    /// Decrypted, and to be shown to the inner half again.
    kept: Vec<u8>,
    /// What the inner half says, to be encrypted in one piece when it can leave.
    plain: Option<Box<Outbox>>,
    is_secured: bool,
}

impl Tls {
    /// As a load has it for a target that is reached under TLS.
    pub fn boxed(inner: Box<dyn Client>, settings: Settings) -> Box<dyn Client> {
        Box::new(Self { inner, settings, connections: Vec::new(), scratch: Scratch::default() })
    }
}

impl Connection {
    /// Encrypts what the inner half has said, behind what TLS itself has to say.
    fn seal(&mut self, scratch: &mut Scratch, out: &mut Outbox) {
        if self.secure.has_output() {
            self.secure.take_output(out.buffer());
        }
        let Some(mut plain) = self.plain.take_if(|_| self.is_secured) else { return };
        let secure = &mut self.secure;
        out.seal(&mut plain, |plain, sealed| {
            let from = sealed.len();
            if secure.encrypt(plain, sealed).is_err() {
                // The connection failed, which receiving has told or will tell.
                sealed.truncate(from);
            }
            from
        });
        // Its memory is anybody's again.
        scratch.plain = Some(plain);
    }

    /// What was said of its own accord leaves in the same call: nobody may have anything else to say soon. Behind what
    /// the kernel has not taken it waits until that has left.
    fn speak(&mut self, scratch: &mut Scratch, out: &mut Outbox) {
        if out.is_empty() {
            self.seal(scratch, out);
        }
    }

    /// Has the inner half do something, with its words kept until they can leave.
    fn lend<R>(
        &mut self,
        scratch: &mut Scratch,
        cx: &mut Context<'_>,
        ask: impl FnOnce(&mut Context<'_>, &[u8]) -> R,
    ) -> R {
        let mut out = self.plain.take().or_else(|| scratch.plain.take()).unwrap_or_default();
        let mut inner = Context { now: cx.now, out: &mut out, events: cx.events, awaited: cx.awaited };
        let answer = ask(&mut inner, &self.kept);
        let place = if out.is_empty() { &mut scratch.plain } else { &mut self.plain };
        *place = Some(out);
        answer
    }

    /// Decrypts what has arrived, and shows it to the inner half.
    fn heard(
        &mut self,
        inner: &mut dyn Client,
        scratch: &mut Scratch,
        slot: u32,
        bytes: &[u8],
        cx: &mut Context<'_>,
    ) -> Result<(), Ended> {
        scratch.arrived.clear();
        scratch.arrived.extend_from_slice(bytes);
        let mut plaintext = std::mem::take(&mut scratch.plaintext);
        plaintext.clear();
        if !self.kept.is_empty() {
            plaintext.append(&mut self.kept);
        }
        let before = plaintext.len();
        let outcome = self.secure.received(&mut scratch.arrived, &mut plaintext);
        let shown = self.show(inner, scratch, slot, &plaintext, before, cx);
        scratch.plaintext = plaintext;
        shown?;
        if let Err(error) = outcome {
            return Err(failed(error));
        }
        if self.secure.has_output() {
            self.seal(scratch, cx.out);
        }
        if self.secure.peer_closed() && cx.events.others.last() != Some(&Event::LastReply) {
            let answered = cx.events.completed.len();
            cx.awaited = cx.awaited.behind(answered);
            self.lend(scratch, cx, |cx, kept| inner.stream_ended(slot, kept, true, cx))?;
            return if cx.events.others.last() == Some(&Event::LastReply) {
                Ok(())
            } else {
                Err(Box::new(End::Farewell))
            };
        }
        Ok(())
    }

    /// What is whole comes before an error behind it. Of `plaintext` so many bytes have been shown `before`.
    fn show(
        &mut self,
        inner: &mut dyn Client,
        scratch: &mut Scratch,
        slot: u32,
        plaintext: &[u8],
        before: usize,
        cx: &mut Context<'_>,
    ) -> Result<(), Ended> {
        if !self.is_secured && !self.secure.is_handshaking() {
            self.is_secured = true;
            if let Some(handshake) = self.secure.negotiated() {
                cx.events.push(Event::Handshake(handshake));
            }
            self.lend(scratch, cx, |cx, _| inner.connected(slot, cx))?;
        }
        let mut used = 0;
        if plaintext.len() > before {
            used = self.lend(scratch, cx, |cx, _| inner.received(slot, plaintext, cx))?;
        }
        if used < plaintext.len() {
            self.kept = plaintext[used..].to_vec();
        }
        Ok(())
    }
}

impl Client for Tls {
    fn make_room(&mut self, slots: usize, depth: usize, worker: (u64, u64), run: u64) {
        self.inner.make_room(slots, depth, worker, run);
        self.connections = std::iter::repeat_with(|| None).take(slots).collect();
    }

    fn request(&self) -> &[u8] {
        self.inner.request()
    }

    fn shares(&self) -> bool {
        false
    }

    fn kinds(&self) -> &[String] {
        self.inner.kinds()
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        self.inner.counts()
    }

    fn order(&self) -> Order {
        self.inner.order()
    }

    fn fills(&self) -> bool {
        self.inner.fills()
    }

    fn gathers(&self) -> bool {
        true
    }

    fn is_answered(&self) -> bool {
        self.inner.is_answered()
    }

    fn gives_back(&self) -> bool {
        self.inner.gives_back()
    }

    fn lingers_ns(&self) -> u64 {
        self.inner.lingers_ns()
    }

    fn connected(&mut self, slot: u32, cx: &mut Context<'_>) -> Result<(), Ended> {
        let secure = self.settings.connect().map_err(failed)?;
        let connection = Connection { secure, kept: Vec::new(), plain: None, is_secured: false };
        self.connections[slot as usize].insert(Box::new(connection)).seal(&mut self.scratch, cx.out);
        Ok(())
    }

    fn stage(&self, slot: u32) -> &'static str {
        match &self.connections[slot as usize] {
            Some(connection) if connection.is_secured => self.inner.stage(slot),
            _ => "the TLS handshake",
        }
    }

    fn start(&mut self, slot: u32, ticket: Ticket, ask: &mut Ask, cx: &mut Context<'_>) -> u16 {
        let Some(connection) = &mut self.connections[slot as usize] else { return 0 };
        let inner = &mut self.inner;
        connection.lend(&mut self.scratch, cx, |cx, _| {
            if inner.shares() && ticket != STREAM {
                cx.out.begin(ticket);
                cx.out.buffer().extend_from_slice(inner.request());
                return 0;
            }
            inner.start(slot, ticket, ask, cx)
        })
    }

    fn received(&mut self, slot: u32, bytes: &[u8], cx: &mut Context<'_>) -> Result<usize, Ended> {
        let Some(connection) = &mut self.connections[slot as usize] else { return Ok(bytes.len()) };
        let heard = connection.heard(&mut *self.inner, &mut self.scratch, slot, bytes, cx);
        // Of an error, too: the alert says to the server why.
        connection.speak(&mut self.scratch, cx.out);
        heard.map(|()| bytes.len())
    }

    fn writable(&mut self, slot: u32, cx: &mut Context<'_>) {
        let Some(connection) = &mut self.connections[slot as usize] else { return };
        let inner = &mut self.inner;
        if connection.plain.is_none() && connection.is_secured && inner.fills() {
            connection.lend(&mut self.scratch, cx, |cx, _| {
                inner.writable(slot, cx);
                cx.out.unshare(inner.request());
            });
        }
        connection.seal(&mut self.scratch, cx.out);
    }

    fn stream_ended(&mut self, slot: u32, _kept: &[u8], _whole: bool, cx: &mut Context<'_>) -> Result<(), Ended> {
        let Some(connection) = &mut self.connections[slot as usize] else { return Ok(()) };
        let inner = &mut self.inner;
        let whole = connection.secure.peer_closed();
        connection.lend(&mut self.scratch, cx, |cx, kept| inner.stream_ended(slot, kept, whole, cx))
    }

    fn timed_out(&mut self, slot: u32, cx: &mut Context<'_>) -> Result<(), Ended> {
        let Some(connection) = &mut self.connections[slot as usize] else { return Ok(()) };
        let inner = &mut self.inner;
        let outcome = connection.lend(&mut self.scratch, cx, |cx, _| inner.timed_out(slot, cx));
        connection.speak(&mut self.scratch, cx.out);
        outcome
    }

    fn cancel(&mut self, slot: u32, ticket: Ticket, cx: &mut Context<'_>) -> Cancelled {
        let Some(connection) = &mut self.connections[slot as usize] else { return Cancelled::Connection };
        if cx.out.holds(ticket) {
            // It is encrypted, and would leave yet: records have numbers, so none is taken out.
            return Cancelled::Connection;
        }
        let inner = &mut self.inner;
        let cancelled = connection.lend(&mut self.scratch, cx, |cx, _| inner.cancel(slot, ticket, cx));
        connection.speak(&mut self.scratch, cx.out);
        cancelled
    }

    fn close(&mut self, slot: u32, cx: &mut Context<'_>) {
        let Some(connection) = &mut self.connections[slot as usize] else { return };
        let inner = &mut self.inner;
        connection.lend(&mut self.scratch, cx, |cx, _| inner.close(slot, cx));
        connection.seal(&mut self.scratch, cx.out);
        connection.secure.close();
        connection.seal(&mut self.scratch, cx.out);
    }

    fn disconnected(&mut self, slot: u32) {
        self.connections[slot as usize] = None;
        self.inner.disconnected(slot);
    }

    fn into_codec(self: Box<Self>) -> Option<Box<dyn Codec>> {
        self.inner.into_codec()
    }
}

fn failed(error: TlsError) -> Ended {
    End::broken([error.kind.name(), "aborted"], error.detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::client::Events;
    use crate::protocol::outbox::Front;
    use crate::protocol::ticket::{Ring, Tickets};
    use crate::protocol::{ClientOptions, redis};
    use crate::time::Instant;
    use crate::tls::certificate::Identity;
    use crate::tls::{Versions, client, server};

    /// What the server reads, in plain, where every piece that arrives has `cut` bytes.
    fn greeting(versions: Versions, cut: usize) -> String {
        let identity = Identity::self_signed(&["a.test".to_owned()]).unwrap();
        let of_server =
            server::Options { identity, client_issuers: Vec::new(), resume: false, alpn: Vec::new(), versions };
        let (trust, alpn) = (client::Trust::Anybody, Vec::new());
        let options =
            client::Options { server_name: "a.test".into(), trust, identity: None, alpn, resume: false, versions };
        let login = Some(("a".to_owned(), "secret".to_owned()));
        let inner = (redis::PROTOCOL.client)(&ClientOptions { login, ..ClientOptions::default() }).unwrap();
        let mut tls = Tls::boxed(inner, Settings::new(options).unwrap());
        tls.make_room(1, 1, (0, 1), 1);
        let mut peer = server::Settings::new(of_server).unwrap().accept().unwrap();
        let tickets = Tickets::new(1, 1, Order::OfRequests, false);
        let (mut out, mut events, mut read) = (Outbox::default(), Events::default(), Vec::new());
        let mut ask = |bytes: Option<&[u8]>| {
            let awaited = tickets.awaited(0, Ring::default());
            let mut cx = Context { now: Instant(1), out: &mut out, events: &mut events, awaited };
            match bytes {
                None => tls.connected(0, &mut cx).unwrap(),
                Some(bytes) => assert_eq!(tls.received(0, bytes, &mut cx).unwrap(), bytes.len()),
            }
            let mut said = if let Front::Own(bytes) = out.front() { bytes.to_vec() } else { Vec::new() };
            out.clear();
            let mut answer = Vec::new();
            peer.received(&mut said, &mut read).unwrap();
            peer.take_output(&mut answer);
            answer
        };
        let mut answer = ask(None);
        while !answer.is_empty() {
            let pieces: Vec<Vec<u8>> = answer.chunks(cut).map(|piece| ask(Some(piece))).collect();
            answer = pieces.concat();
        }
        String::from_utf8(read).unwrap()
    }

    #[test]
    fn a_greeting_leaves_behind_the_handshake_whoever_has_its_last_word() {
        for versions in [Versions::Only12, Versions::Any] {
            for cut in [1, 7, 100, 1 << 20] {
                let said = greeting(versions, cut);
                assert!(said.contains("AUTH") && said.contains("secret"), "{versions:?}, cut {cut}: {said}");
            }
        }
    }
}
