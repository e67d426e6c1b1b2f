//! What a connection has to say and the kernel has not taken yet.
//!
//! It holds bytes of this connection's own, with marks where requests begin; and behind them requests of which all
//! connections share the bytes, so that those are never copied. On a transport of messages each mark begins one.

use super::ticket::{STREAM, Ticket};

/// In the place of a ticket: what begins there is no request.
const NONE: Ticket = STREAM;

/// What one connection has to say.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    /// Of these, the kernel has taken so many.
    taken: usize,
    /// Where requests begin of which it has not taken a byte, in order.
    starts: Vec<(usize, Ticket)>,
    /// Bytes of shared requests, behind those above.
    shared: usize,
}

/// What is to be handed to the kernel next.
#[derive(Debug, PartialEq, Eq)]
pub enum Front<'a> {
    Nothing,
    /// Bytes of this connection alone.
    Own(&'a [u8]),
    /// So many bytes of shared requests; the last of them is whole.
    Shared(usize),
}

impl Outbox {
    /// Says something that is no request.
    pub fn say(&mut self, bytes: &[u8]) {
        if self.starts.last().is_some_and(|(_, ticket)| *ticket != NONE) {
            // So much ends the request before it: that can be withdrawn, and this stays.
            self.starts.push((self.bytes.len(), NONE));
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Where to write a request that has been marked by [`Outbox::begin`], or what no request that is withdrawn takes
    /// along with it.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// A request begins behind what has been said.
    pub fn begin(&mut self, ticket: Ticket) {
        self.starts.push((self.bytes.len(), ticket));
    }

    /// Likewise, one that all connections share, of so many bytes.
    #[inline]
    pub fn share(&mut self, len: usize) {
        self.shared += len;
    }

    pub fn is_empty(&self) -> bool {
        self.taken == self.bytes.len() && self.shared == 0
    }

    #[inline]
    pub fn front(&self) -> Front<'_> {
        if self.taken < self.bytes.len() {
            return Front::Own(&self.bytes[self.taken..]);
        }
        if self.shared > 0 { Front::Shared(self.shared) } else { Front::Nothing }
    }

    /// The first message, and the request that it is.
    pub fn message(&self) -> Option<(&[u8], Ticket)> {
        let (start, ticket) = *self.starts.first()?;
        let end = self.starts.get(1).map_or(self.bytes.len(), |(next, _)| *next);
        Some((&self.bytes[start..end], ticket))
    }

    /// The kernel took so many of this connection's own bytes; tells the requests of which that was the first byte.
    pub fn took(&mut self, bytes: usize, mut sent: impl FnMut(Ticket)) {
        self.taken += bytes;
        // Nearly always it is all of them.
        let is_all = self.taken == self.bytes.len();
        let begun =
            if is_all { self.starts.len() } else { self.starts.partition_point(|(start, _)| *start < self.taken) };
        self.starts[..begun].iter().filter(|(_, ticket)| *ticket != NONE).for_each(|(_, ticket)| sent(*ticket));
        if is_all {
            self.starts.clear();
            self.bytes.clear();
            self.taken = 0;
        } else {
            self.starts.drain(..begun);
        }
    }

    /// The kernel took so many bytes of shared requests.
    #[inline]
    pub fn took_shared(&mut self, bytes: usize) {
        self.shared -= bytes;
    }

    /// Bytes of shared requests that are left.
    #[inline]
    pub fn shared(&self) -> usize {
        self.shared
    }

    /// Whether bytes have yet to leave from before the requests of which none has; shared ones have `shared_len` bytes.
    pub fn has_begun(&self, shared_len: usize) -> bool {
        let first = self.starts.iter().find(|(_, ticket)| *ticket != NONE);
        let own_end = first.map_or(self.bytes.len(), |(start, _)| *start);
        let in_shared = self.bytes.is_empty() && shared_len > 0 && !self.shared.is_multiple_of(shared_len);
        self.taken < own_end || in_shared
    }

    /// Whether it holds nothing but one shared request of so many bytes.
    #[inline]
    pub fn is_one_shared(&self, len: usize) -> bool {
        self.shared == len && self.bytes.is_empty()
    }

    /// Says what was shared in bytes of its own: copies of `request`.
    pub fn unshare(&mut self, request: &[u8]) {
        let shared = std::mem::take(&mut self.shared);
        for _ in 0..shared.checked_div(request.len()).unwrap_or(0) {
            self.bytes.extend_from_slice(request);
        }
    }

    /// Whether there is a request that has not begun to leave.
    pub fn holds(&self, ticket: Ticket) -> bool {
        self.starts.iter().any(|(_, other)| *other == ticket)
    }

    /// A request that has not begun to leave is not sent at all. Answers whether it was one.
    pub fn withdraw(&mut self, ticket: Ticket) -> bool {
        let Some(at) = self.starts.iter().position(|(_, other)| *other == ticket) else { return false };
        let start = self.starts[at].0;
        let end = self.starts.get(at + 1).map_or(self.bytes.len(), |(next, _)| *next);
        self.bytes.drain(start..end);
        self.starts.remove(at);
        self.starts[at..].iter_mut().for_each(|(start_behind, _)| *start_behind -= end - start);
        true
    }

    /// A request that has not begun to leave is given up. Its bytes are of no request from now on.
    pub fn forget(&mut self, ticket: Ticket) {
        if let Some((_, known)) = self.starts.iter_mut().find(|(_, other)| *other == ticket) {
            *known = NONE;
        }
    }

    /// Takes all out of `plain`, and says it as `seal` writes it, which answers where the first of it lies. Its
    /// requests leave together, when the first of those bytes does.
    pub fn seal(&mut self, plain: &mut Self, seal: impl FnOnce(&[u8], &mut Vec<u8>) -> usize) {
        debug_assert_eq!(plain.shared, 0, "what is shared cannot be encrypted");
        let from = seal(&plain.bytes, &mut self.bytes);
        for (_, ticket) in &plain.starts {
            self.starts.push((from, *ticket));
        }
        plain.clear();
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.starts.clear();
        (self.taken, self.shared) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_sent_when_their_first_byte_is_taken() {
        let mut out = Outbox::default();
        out.say(b"login");
        for (ticket, bytes) in [(7, &b"one"[..]), (8, b"two")] {
            out.begin(ticket);
            out.buffer().extend_from_slice(bytes);
        }
        out.share(10);
        out.share(10);
        assert!(out.has_begun(10));
        let took = |out: &mut Outbox, bytes| {
            let mut sent = Vec::new();
            out.took(bytes, |ticket| sent.push(ticket));
            sent
        };
        assert_eq!(out.front(), Front::Own(b"loginonetwo"));
        assert!(took(&mut out, 5).is_empty());
        assert!(!out.has_begun(10));
        assert_eq!(took(&mut out, 1), [7]);
        assert!(out.has_begun(10));
        assert_eq!((took(&mut out, 2), out.has_begun(10)), (vec![], false));
        assert_eq!((took(&mut out, 3), out.front() == Front::Shared(20)), (vec![8], true));
        out.took_shared(1);
        assert!(out.has_begun(10) && !out.is_empty());
        out.took_shared(19);
        assert!(out.is_empty());
    }

    /// On a stream that multiplexes, what is no request stands between them, and stays.
    #[test]
    fn a_request_is_withdrawn_without_what_was_said_behind_it() {
        let mut out = Outbox::default();
        out.say(b"hello");
        for (ticket, bytes, said) in [(1, &b"one"[..], &b"ping"[..]), (2, b"two", b"reset"), (3, b"three", b"")] {
            out.begin(ticket);
            out.buffer().extend_from_slice(bytes);
            out.say(said);
            out.say(said);
        }
        assert_eq!((out.holds(2), out.withdraw(2)), (true, true));
        assert_eq!((out.holds(2), out.withdraw(2)), (false, false));
        assert_eq!(out.front(), Front::Own(b"helloonepingpingresetresetthree"));
        // Of one that has begun to leave all leaves; the last one's end nobody waits for any more.
        out.took(6, |ticket| assert_eq!(ticket, 1));
        assert!(!out.withdraw(1) && out.has_begun(0));
        out.forget(3);
        out.took(25, |ticket| panic!("{ticket} was given up"));
        assert!(out.is_empty());
    }

    #[test]
    fn a_message_can_be_withdrawn_from_between_others() {
        let mut out = Outbox::default();
        for (ticket, bytes) in [(1, &b"a"[..]), (2, b"bb"), (3, b"ccc")] {
            out.begin(ticket);
            out.buffer().extend_from_slice(bytes);
        }
        assert!(out.withdraw(2) && !out.withdraw(9));
        assert_eq!(out.message(), Some((&b"a"[..], 1)));
        out.took(1, |_| {});
        assert_eq!(out.message(), Some((&b"ccc"[..], 3)));
        out.took(3, |ticket| assert_eq!(ticket, 3));
        assert!(out.is_empty() && out.message().is_none());
    }
}
