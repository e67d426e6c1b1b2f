//! The client half of Redis.

use super::reply::{self, Head, MAX_ELEMENTS, REFUSALS, TURNED_AWAY, malformed, too_large};
use super::resp;
use super::template::{Composer, Expect, Meaning};
use crate::protocol::ask::Ask;
use crate::protocol::lockstep::Lockstep;
use crate::protocol::{
    Client, ClientOptions, ClientState, Codec, Consumed, GREETING, Outcome, Reply, ReplyError, ReplyErrorKind, Unasked,
};
use crate::secrets;

// ClientState::step
/// Between two replies.
const BETWEEN: u8 = 0;
/// Within a reply.
const WITHIN: u8 = 1;
/// Within what is no reply: an attribute, or what the server pushes.
const ASIDE: u8 = 2;

// ClientState::flags
/// Which refusal, plus one; 0: none.
const REFUSED: u8 = 7;
const HIT: u8 = 8;
const MISS: u8 = 16;
/// An attribute has been said of the reply to come.
const ATTRIBUTED: u8 = 32;

pub(super) fn client(options: &ClientOptions) -> Result<Box<dyn Client>, String> {
    let resp3 = match options.dialect.as_deref() {
        None | Some("2") => false,
        Some("3") => true,
        Some(other) => return Err(format!("'{other}' is no dialect of redis; there are 2 and 3 (RESP2, RESP3)")),
    };
    let composer = Composer::new(options)?;
    let fixed = composer.fixed().is_some();
    let mut request = Vec::new();
    // A copy, so that the example uses up no number.
    composer.clone().compose(options.seed, &mut request);
    let (greeting, replies) = greeting(options, resp3)?;
    Ok(Lockstep::boxed(RedisClient { request, fixed, composer, greeting, replies, resp3, hits: 0, misses: 0 }))
}

/// What is said on a new connection, and how many replies it has.
fn greeting(options: &ClientOptions, resp3: bool) -> Result<(Vec<u8>, u32), String> {
    let (mut bytes, mut replies) = (Vec::new(), 0);
    let mut say = |words: &[&[u8]]| {
        resp::put_array(&mut bytes, words);
        replies += 1;
    };
    match &options.login {
        None if resp3 => say(&[b"HELLO", b"3"]),
        None => {}
        Some((user, password)) if resp3 => {
            let user = if user.is_empty() { "default" } else { user };
            say(&[b"HELLO", b"3", b"AUTH", user.as_bytes(), password.as_bytes()]);
        }
        Some((user, password)) if user.is_empty() => say(&[b"AUTH", password.as_bytes()]),
        Some((user, password)) => say(&[b"AUTH", user.as_bytes(), password.as_bytes()]),
    }
    let path = options.path.strip_prefix('/').unwrap_or(&options.path);
    if !path.is_empty() {
        let number = resp::integer(path.as_bytes()).filter(|number| (0..=i64::from(i32::MAX)).contains(number));
        let shown = secrets::url(&options.path);
        number.ok_or_else(|| format!("path '{shown}' is no number of a database, as in redis://host:6379/1"))?;
        say(&[b"SELECT", path.as_bytes()]);
    }
    Ok((bytes, replies))
}

/// `ClientState`: `seen` is what is to come of the body of a string, with its CR LF; `left` is how many elements are to
/// come behind the one that is being read: an element with n others in it adds n, so that how they are nested needs no
/// memory. `flags` keep what the reply's head said until the reply is over.
#[derive(Debug)]
struct RedisClient {
    request: Vec<u8>,
    /// `request` is the only one.
    fixed: bool,
    composer: Composer,
    greeting: Vec<u8>,
    replies: u32,
    resp3: bool,
    hits: u64,
    misses: u64,
}

impl Codec for RedisClient {
    fn request(&self) -> &[u8] {
        &self.request
    }

    fn composes(&self) -> bool {
        !self.fixed
    }

    fn compose(&mut self, ask: &mut Ask, out: &mut Vec<u8>) -> u16 {
        if self.fixed {
            out.extend_from_slice(&self.request);
            return 0;
        }
        self.composer.compose(ask.draws, out)
    }

    fn kinds(&self) -> &[String] {
        // Where all are alike there is nothing to tell apart.
        if self.composer.kinds.len() > 1 { &self.composer.kinds } else { &[] }
    }

    fn greeting(&self) -> Option<(&[u8], u32)> {
        (self.replies > 0).then_some((self.greeting.as_slice(), self.replies))
    }

    fn consume(&mut self, state: &mut ClientState, input: &[u8]) -> Result<Consumed, ReplyError> {
        let mut bytes = 0;
        loop {
            if state.seen > 0 {
                let taken = resp::skip(&mut state.seen, &input[bytes..]);
                bytes += taken.ok_or_else(|| malformed("string does not end with CR LF"))?;
                if state.seen > 0 {
                    return Ok(Consumed { bytes, reply: None });
                }
            } else {
                match reply::head(&input[bytes..], self.resp3)? {
                    Some((length, head)) => {
                        self.begin(state, head)?;
                        bytes += length;
                    }
                    None => return Ok(Consumed { bytes, reply: None }),
                }
            }
            if state.seen == 0 && state.left == 0 {
                match state.step {
                    WITHIN => return Ok(Consumed { bytes, reply: Some(self.complete(state)) }),
                    _ => state.step = BETWEEN,
                }
            }
        }
    }

    fn unasked(&self, input: &[u8]) -> Unasked {
        reply::unasked(input)
    }

    fn finish(&mut self, state: &mut ClientState, kept: &[u8]) -> Result<Option<Reply>, ReplyError> {
        if state.step == BETWEEN && state.flags == 0 && kept.is_empty() {
            return Ok(None);
        }
        Err(ReplyError { kind: ReplyErrorKind::Truncated, detail: "the stream ended within a reply" })
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        if self.composer.meanings.iter().any(|meaning| meaning.read) {
            vec![("hits", self.hits), ("misses", self.misses)]
        } else {
            Vec::new()
        }
    }
}

impl RedisClient {
    /// An element begins.
    fn begin(&self, state: &mut ClientState, head: Head<'_>) -> Result<(), ReplyError> {
        match head {
            Head::Push(_) if state.step != BETWEEN => return Err(malformed("a push within a reply")),
            Head::Push(elements) => {
                state.step = ASIDE;
                state.left = elements;
                return Ok(());
            }
            Head::Attribute(elements) => {
                if state.step == BETWEEN {
                    state.step = ASIDE;
                    state.flags |= ATTRIBUTED;
                }
                return more(state, elements);
            }
            _ if state.step == BETWEEN => {
                state.flags = flags(self.meaning(state.kind), head)?;
                state.step = WITHIN;
            }
            // One of those that were to come.
            _ => state.left -= 1,
        }
        match head {
            Head::Bulk(length) | Head::Verbatim(length) | Head::BulkError(length, _) => state.seen = length + 2,
            Head::Aggregate(elements) => more(state, elements)?,
            _ => {}
        }
        Ok(())
    }

    fn meaning(&self, kind: u16) -> Meaning {
        match kind {
            GREETING => Meaning { expect: Expect::Any, read: false },
            // Where there is one kind, nobody says which.
            kind => *self.composer.meanings.get(usize::from(kind)).unwrap_or(&self.composer.meanings[0]),
        }
    }

    /// The reply that the flags remember; the state is ready for the next one.
    fn complete(&mut self, state: &mut ClientState) -> Reply {
        let flags = std::mem::take(state).flags;
        self.hits += u64::from(flags & HIT != 0);
        self.misses += u64::from(flags & MISS != 0);
        let outcome = match flags & REFUSED {
            0 => Outcome::Ok,
            refused => match REFUSALS[usize::from(refused - 1)] {
                TURNED_AWAY => Outcome::TurnedAway,
                kind => Outcome::Refused(kind),
            },
        };
        Reply { outcome, last: false }
    }
}

fn more(state: &mut ClientState, elements: u64) -> Result<(), ReplyError> {
    state.left += elements;
    if state.left > MAX_ELEMENTS { Err(too_large("more elements than 2^32")) } else { Ok(()) }
}

/// What the head of a reply says about it.
fn flags(meaning: Meaning, head: Head<'_>) -> Result<u8, ReplyError> {
    let expected = match (meaning.expect, head) {
        (_, Head::Error(error) | Head::BulkError(_, error)) => return Ok(1 + reply::refusal(error)),
        (Expect::Any, _) => true,
        (Expect::Pong, head) => head == Head::Simple(b"PONG"),
        (Expect::Ok, head) => head == Head::Simple(b"OK"),
        (Expect::Integer, head) => head == Head::Integer,
        (Expect::Bulk, head) => matches!(head, Head::Bulk(_) | Head::Null),
    };
    if !expected {
        let detail = "the command does not answer like that";
        return Err(ReplyError { kind: ReplyErrorKind::Mismatch, detail });
    }
    Ok(match (meaning.read, head) {
        (false, _) => 0,
        (true, Head::Null) => MISS,
        (true, _) => HIT,
    })
}
