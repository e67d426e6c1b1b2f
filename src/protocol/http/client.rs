//! The client half of HTTP.

use super::chunked::{self, Chunked};
use super::compose::{self, Composer};
use super::head::Body;
use super::reply::{self, ReplyHead};
use crate::protocol::ask::Ask;
use crate::protocol::lockstep::Lockstep;
use crate::protocol::{
    Client, ClientOptions, ClientState, Codec, Consumed, Outcome, Reply, ReplyError, ReplyErrorKind, Unasked,
};

/// The most 1xx replies before a final one.
const MAX_INTERIM: u32 = 16;

// ClientState::step; from chunked::FIRST on, those of a chunked body.
const HEAD: u8 = 0;
const LENGTH: u8 = 1;
const UNTIL_CLOSE: u8 = 2;

// ClientState::flags
const LAST: u8 = 1;
const STATUS_4XX: u8 = 2;
const STATUS_5XX: u8 = 4;

pub(super) fn client(options: &ClientOptions) -> Result<Box<dyn Client>, String> {
    Ok(Lockstep::boxed(HttpClient::new(options)?))
}

/// `ClientState`: `left` and `seen` belong to the body (see [`Chunked`]); while a head is awaited, `seen` counts
/// the 1xx replies before it. `flags` keep what the head said until its body is over.
#[derive(Debug)]
struct HttpClient {
    /// The only one, or an example.
    request: Vec<u8>,
    /// Where requests differ.
    composer: Option<Composer>,
    kinds: Vec<String>,
    /// The method is HEAD, by the kind of request.
    to_head: Vec<bool>,
    /// The last final head, with its empty line, and its meaning. Servers repeat themselves, and equal bytes have
    /// equal meaning: comparing is many times faster than parsing.
    known: Vec<u8>,
    known_to_head: bool,
    meaning: ReplyHead,
}

impl Codec for HttpClient {
    fn request(&self) -> &[u8] {
        &self.request
    }

    fn composes(&self) -> bool {
        self.composer.is_some()
    }

    fn compose(&mut self, ask: &mut Ask, out: &mut Vec<u8>) -> u16 {
        match &mut self.composer {
            Some(composer) => composer.next(ask, out),
            None => {
                out.extend_from_slice(&self.request);
                0
            }
        }
    }

    fn kinds(&self) -> &[String] {
        &self.kinds
    }

    fn consume(&mut self, state: &mut ClientState, input: &[u8]) -> Result<Consumed, ReplyError> {
        let to_head = self.to_head.get(usize::from(state.kind)).copied().unwrap_or(false);
        let mut bytes = 0;
        loop {
            let (taken, complete) = match state.step {
                HEAD => match self.head(&input[bytes..], to_head)? {
                    Some((length, head)) => (length, begin(state, head)?),
                    None => return Ok(Consumed { bytes, reply: None }),
                },
                _ => body(state, &input[bytes..])?,
            };
            bytes += taken;
            if complete {
                return Ok(Consumed { bytes, reply: Some(complete_reply(state)) });
            }
            if bytes == input.len() {
                return Ok(Consumed { bytes, reply: None });
            }
        }
    }

    /// A server that closes an idle connection may say why: 408 when it has waited long enough (RFC 9110, 15.5.9), 503
    /// and 429 when it has too many. The head is enough: nobody waits for the body.
    fn unasked(&self, input: &[u8]) -> Unasked {
        match reply::parse(input, false) {
            Ok(None) => Unasked::More,
            Ok(Some((_, head))) if head.last && matches!(head.status, 429 | 503) => Unasked::TurnedAway,
            Ok(Some((_, head))) if head.last && !head.is_interim() => Unasked::Farewell,
            Ok(Some(_)) | Err(_) => Unasked::Nothing,
        }
    }

    fn finish(&mut self, state: &mut ClientState, kept: &[u8]) -> Result<Option<Reply>, ReplyError> {
        match state.step {
            UNTIL_CLOSE => Ok(Some(complete_reply(state))),
            HEAD if kept.is_empty() && state.seen == 0 => Ok(None),
            HEAD => Err(truncated("the stream ended within the head of a reply")),
            _ => Err(truncated("the stream ended within the body of a reply")),
        }
    }
}

impl HttpClient {
    fn new(options: &ClientOptions) -> Result<Self, String> {
        let scenario = options.scenario.as_ref().filter(|scenario| scenario.has_requests());
        let mut composer = scenario.map(|scenario| Composer::new(scenario, options)).transpose()?;
        let to_head = composer.as_ref().map_or_else(|| vec![options.method == "HEAD"], |it| it.to_head.clone());
        let request = match &composer {
            None => compose::single(options)?,
            Some(it) => it.constant().map_or_else(|| it.example(), <[u8]>::to_vec),
        };
        let kinds = composer.as_mut().map_or_else(Vec::new, |composer| std::mem::take(&mut composer.kinds));
        // One request that never changes lies ready for all connections, as without a scenario; but who thinks between
        // the steps of a script must know at which one each connection is.
        let steps_matter = scenario.is_some_and(|scenario| scenario.thinks());
        composer = composer.filter(|composer| composer.constant().is_none() || steps_matter);
        Ok(Self {
            request,
            composer,
            kinds,
            to_head,
            known: Vec::new(),
            known_to_head: false,
            meaning: ReplyHead { status: 0, body: Body::None, last: false },
        })
    }

    fn head(&mut self, input: &[u8], to_head: bool) -> Result<Option<(usize, ReplyHead)>, ReplyError> {
        if !self.known.is_empty() && self.known_to_head == to_head && input.starts_with(&self.known) {
            return Ok(Some((self.known.len(), self.meaning)));
        }
        let parsed = reply::parse(input, to_head)?;
        if let Some((length, head)) = parsed
            && !head.is_interim()
        {
            self.known.clear();
            self.known.extend_from_slice(&input[..length]);
            self.known_to_head = to_head;
            self.meaning = head;
        }
        Ok(parsed)
    }
}

/// Prepares for the body behind `head`; true when there is none, so that the reply is complete.
fn begin(state: &mut ClientState, head: ReplyHead) -> Result<bool, ReplyError> {
    if head.is_interim() {
        state.seen += 1;
        if state.seen > MAX_INTERIM {
            return Err(ReplyError { kind: ReplyErrorKind::TooLarge, detail: "more than 16 interim replies" });
        }
        return Ok(false);
    }
    let status = match head.status {
        ..400 => 0,
        400..500 => STATUS_4XX,
        500.. => STATUS_5XX,
    };
    let (step, left) = match head.body {
        Body::None => (HEAD, 0),
        Body::Length(length) => (if length == 0 { HEAD } else { LENGTH }, length),
        Body::Chunked => (chunked::FIRST, 0),
        Body::UntilClose => (UNTIL_CLOSE, 0),
    };
    *state = ClientState { left, seen: 0, step, flags: status | if head.last { LAST } else { 0 }, kind: 0 };
    Ok(step == HEAD)
}

/// Takes bytes of the body: how many, and whether they end it.
fn body(state: &mut ClientState, input: &[u8]) -> Result<(usize, bool), ReplyError> {
    match state.step {
        LENGTH => {
            let taken = state.left.min(input.len() as u64);
            state.left -= taken;
            Ok((taken as usize, state.left == 0))
        }
        UNTIL_CLOSE => Ok((input.len(), false)),
        _ => Chunked { step: &mut state.step, left: &mut state.left, seen: &mut state.seen }.take(input),
    }
}

/// The reply that the flags remember; the state is ready for the next one.
fn complete_reply(state: &mut ClientState) -> Reply {
    let flags = std::mem::take(state).flags;
    let outcome = if flags & STATUS_4XX != 0 {
        Outcome::Refused("status_4xx")
    } else if flags & STATUS_5XX != 0 {
        Outcome::Refused("status_5xx")
    } else {
        Outcome::Ok
    };
    Reply { outcome, last: flags & LAST != 0 }
}

fn truncated(detail: &'static str) -> ReplyError {
    ReplyError { kind: ReplyErrorKind::Truncated, detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(method: &str) -> ClientOptions {
        ClientOptions {
            size: 64,
            authority: "example.org:81".into(),
            path: "/a?b=c".into(),
            method: method.into(),
            ..ClientOptions::default()
        }
    }

    #[test]
    fn request_bytes() {
        let get = String::from_utf8(compose::single(&options("GET")).unwrap()).unwrap();
        assert_eq!(get, "GET /a?b=c HTTP/1.1\r\nHost: example.org:81\r\n\r\n");
        let post = String::from_utf8(compose::single(&options("POST")).unwrap()).unwrap();
        assert!(post.ends_with("Content-Length: 0\r\n\r\n"));

        let headers = vec![("host".into(), "other".into()), ("X".into(), " y ".into())];
        let put = compose::single(&ClientOptions { headers, body: b"hello".into(), ..options("PUT") }).unwrap();
        let put = String::from_utf8(put).unwrap();
        assert!(put.ends_with("host: other\r\nX: y\r\nContent-Length: 5\r\n\r\nhello"), "{put}");
        assert!(!put.contains("example.org"));
    }

    #[test]
    fn options_that_would_break_the_request_are_refused() {
        let header = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        let bad = [
            options(""),
            options("GE T"),
            options("GET\r\nX: y"),
            options("CONNECT"),
            ClientOptions { path: "a".into(), ..options("GET") },
            ClientOptions { path: "/a b".into(), ..options("GET") },
            ClientOptions { path: "/\r\n".into(), ..options("GET") },
            ClientOptions { authority: "a\r\nb".into(), ..options("GET") },
            ClientOptions { headers: header("X ", "y"), ..options("GET") },
            ClientOptions { headers: header("", "y"), ..options("GET") },
            ClientOptions { headers: header("X", "y\r\nZ: 1"), ..options("GET") },
            ClientOptions { headers: header("X", "y\0"), ..options("GET") },
            ClientOptions { headers: header("content-length", "5"), ..options("GET") },
            ClientOptions { headers: [header("Host", "a"), header("host", "b")].concat(), ..options("GET") },
        ];
        for options in bad {
            let message = client(&options).map(|_| ()).unwrap_err();
            assert!(!message.contains('\n') && !message.contains('\r'), "{message}");
        }
    }

    #[test]
    fn a_head_seen_before_is_not_parsed_and_its_memory_is_reused() {
        let reply = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
        let mut client = HttpClient::new(&options("GET")).unwrap();
        let mut state = ClientState::default();
        client.consume(&mut state, reply).unwrap();
        let memory = (client.known.as_ptr(), client.known.capacity());
        client.meaning.status = 500; // shows that the copy is used
        let consumed = client.consume(&mut state, reply).unwrap();
        assert_eq!(consumed.reply, Some(Reply { outcome: Outcome::Refused("status_5xx"), last: false }));
        client.consume(&mut state, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi!").unwrap();
        assert_eq!(memory, (client.known.as_ptr(), client.known.capacity()));
    }
}
