//! A reply's head: bytes to meaning.

use std::mem::MaybeUninit;

use httparse::{Error, ParserConfig, Response, Status};

use super::head::{Body, Fields, Transfer};
use super::{MAX_HEAD, MAX_HEADERS};
use crate::protocol::{ReplyError, ReplyErrorKind};

/// What the head of a reply means for a client.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReplyHead {
    pub(super) status: u16,
    pub(super) body: Body,
    pub(super) last: bool,
}

impl ReplyHead {
    /// 1xx: not the reply yet (RFC 9110, 15.2).
    pub(super) fn is_interim(&self) -> bool {
        self.status < 200
    }
}

/// Reads a head at the start of `input`: its length and meaning, or `None` when there is more of it to come.
/// `to_head`: the request's method was HEAD.
pub(super) fn parse(input: &[u8], to_head: bool) -> Result<Option<(usize, ReplyHead)>, ReplyError> {
    const START: &[u8] = b"HTTP/1.";
    // The parser would skip empty lines here, which only requests may have before them (RFC 9112, 2.2).
    if !START.starts_with(&input[..input.len().min(START.len())]) {
        return Err(malformed("reply does not begin with HTTP/1."));
    }
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut response = Response::new(&mut []);
    // What is behind the limit is not looked at, so that the outcome does not depend on how much has arrived.
    let bounded = &input[..input.len().min(MAX_HEAD)];
    // A folded line is as good as one with blanks (RFC 9112, 5.2): values are looked at word by word, and the end of a
    // line is a blank there.
    let mut config = ParserConfig::default();
    config.allow_obsolete_multiline_headers_in_responses(true);
    match config.parse_response_with_uninit_headers(&mut response, bounded, &mut headers) {
        Ok(Status::Complete(bytes)) => Ok(Some((bytes, meaning(&response, to_head)?))),
        Ok(Status::Partial) if input.len() >= MAX_HEAD => Err(too_large("head exceeds 64 KiB")),
        Ok(Status::Partial) => Ok(None),
        Err(Error::TooManyHeaders) => Err(too_large("more than 128 header lines")),
        Err(Error::HeaderName) => Err(malformed("bad header name")),
        Err(Error::HeaderValue) => Err(malformed("bad header value")),
        Err(_) => Err(malformed("bad status line")),
    }
}

fn meaning(response: &Response<'_, '_>, to_head: bool) -> Result<ReplyHead, ReplyError> {
    let (Some(status @ 100..), Some(minor)) = (response.code, response.version) else {
        return Err(malformed("status below 100"));
    };
    if status == 101 {
        return Err(malformed("switches protocols, which nobody asked for"));
    }
    let fields = Fields::read(minor, response.headers).map_err(malformed)?;
    let body = body(status, &fields, to_head);
    Ok(ReplyHead { status, body, last: fields.close || body == Body::UntilClose })
}

/// RFC 9112, 6.3.
fn body(status: u16, fields: &Fields, to_head: bool) -> Body {
    if to_head || matches!(status, 100..200 | 204 | 304) {
        return Body::None;
    }
    match (fields.transfer, fields.content_length) {
        (Some(Transfer::Chunked | Transfer::CodedChunked), _) => Body::Chunked,
        (Some(Transfer::Other), _) | (None, None) => Body::UntilClose,
        (None, Some(length)) => Body::Length(length),
    }
}

fn malformed(detail: &'static str) -> ReplyError {
    ReplyError { kind: ReplyErrorKind::Malformed, detail }
}

fn too_large(detail: &'static str) -> ReplyError {
    ReplyError { kind: ReplyErrorKind::TooLarge, detail }
}
