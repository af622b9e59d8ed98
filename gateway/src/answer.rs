//! From what became of a call to the bytes of its answer. What a function says about its answer
//! is checked field by field: it may shape the answer, not the framing of the connection. What is
//! decided here holds for every protocol at the door; `compose` writes it for HTTP/1.1.

use std::borrow::Cow;

use ipc::Outcome;
use ipc::engine_side::{SharedBlock, SharedSlice};
use ipc::envelope::{self, Reply};

use crate::body::Body;
use crate::cors;
use crate::http::head::Method;
use crate::pool::Pool;
use crate::respond::{self, Failure, Frame};
use crate::upstream::{Answer, Refusal, is_hop_by_hop};

/// Up to here a body is copied behind its head: cheaper than a second buffer in the send, and the
/// worker has its memory back at once.
const COPY_MAX: usize = 16 * 1024;
/// Bytes of a function's error message that reach the client.
const MESSAGE_MAX: usize = 4 * 1024;
const DEFAULT_CONTENT_TYPE: &[u8] = b"application/octet-stream";

/// An answer ready to be sent.
pub(crate) enum Outgoing {
    Bytes(Vec<u8>),
    WithBody(Vec<u8>, Body),
}

/// What an answer comes to, before it is written in the words of a protocol.
pub(crate) enum Verdict<'s> {
    /// The function's own answer, with a status that can be told. Without a block it is empty.
    Told {
        status: u16,
        reply: Reply<'s>,
        block: Option<SharedBlock>,
    },
    Failed(Failed<'s>),
}

/// A call that did not succeed, or whose success cannot be told to a client.
pub(crate) struct Failed<'s> {
    pub outcome: Outcome,
    pub status: u16,
    pub message: Cow<'s, str>,
    pub retry_after_s: Option<u32>,
}

/// Decides what a client is told. `scratch` keeps what the verdict borrows.
pub(crate) fn judge(answer: Answer, scratch: &mut Vec<u8>) -> Verdict<'_> {
    scratch.clear();
    match (answer.outcome, answer.block) {
        (Outcome::Ok, None) => Verdict::Told { status: 200, reply: Reply::default(), block: None },
        (Outcome::Ok, Some(block)) => {
            block.copy_envelope(scratch);
            let Ok(reply) = envelope::parse_reply(scratch) else {
                return Failed::unusable("the answer's envelope is malformed");
            };
            let status = reply.status.unwrap_or(200);
            if !(200..=599).contains(&status) {
                return Failed::unusable("the answer's status is not one of 200 to 599");
            }
            Verdict::Told { status, reply, block: Some(block) }
        }
        (outcome, block) => {
            let status = block.as_ref().and_then(|block| error_status(outcome, block, scratch));
            let status = status.unwrap_or_else(|| outcome.http_status());
            scratch.clear();
            if let Some(block) = &block {
                let payload = block.payload();
                let size = payload.len().min(MESSAGE_MAX);
                payload.slice(0..size).append_to(scratch);
            }
            let message = match (answer.message, String::from_utf8_lossy(scratch)) {
                ("", text) if text.is_empty() => Cow::Borrowed(outcome.as_str()),
                ("", text) => text,
                (message, _) => Cow::Borrowed(message),
            };
            let retry_after_s = retry_after_s(status, answer.retry_after_s);
            Verdict::Failed(Failed { outcome, status, message, retry_after_s })
        }
    }
}

/// The answer to a call, and its status.
pub(crate) fn compose(
    answer: Answer,
    frame: &Frame<'_>,
    scratch: &mut Vec<u8>,
    pool: &mut Pool,
) -> (u16, Outgoing) {
    let mut out = pool.take();
    match judge(answer, scratch) {
        Verdict::Told { status, reply, block } => {
            match tell(status, &reply, block, frame, &mut out) {
                None => (status, Outgoing::Bytes(out)),
                Some(body) => (status, Outgoing::WithBody(out, body)),
            }
        }
        Verdict::Failed(failed) => {
            respond::failure(&mut out, frame, &failed.as_failure(), pool);
            (failed.status, Outgoing::Bytes(out))
        }
    }
}

/// The answer to a call that was not taken, and its status.
pub(crate) fn refuse(refusal: Refusal, frame: &Frame<'_>, pool: &mut Pool) -> (u16, Vec<u8>) {
    let mut out = pool.take();
    let failed = Failed::of(refusal);
    respond::failure(&mut out, frame, &failed.as_failure(), pool);
    (failed.status, out)
}

impl<'s> Failed<'s> {
    pub(crate) fn of(refusal: Refusal) -> Failed<'static> {
        let Refusal { outcome, message, retry_after_s: given } = refusal;
        let status = outcome.http_status();
        let retry_after_s = retry_after_s(status, given);
        Failed { outcome, status, message: Cow::Borrowed(message), retry_after_s }
    }

    fn unusable(message: &'static str) -> Verdict<'s> {
        let outcome = Outcome::FunctionError;
        let (status, message) = (outcome.http_status(), Cow::Borrowed(message));
        Verdict::Failed(Failed { outcome, status, message, retry_after_s: None })
    }

    fn as_failure(&self) -> Failure<'_> {
        Failure {
            status: self.status,
            kind: self.outcome.as_str(),
            message: &self.message,
            retry_after_s: self.retry_after_s,
            allow: None,
            challenge: None,
        }
    }
}

/// Whether an answer of this status has no body by definition (RFC 9110, 15).
pub(crate) fn is_bodiless(status: u16) -> bool {
    matches!(status, 204 | 205 | 304)
}

/// Writes the answer of a function; what is returned is to be sent behind it.
fn tell(
    status: u16,
    reply: &Reply<'_>,
    block: Option<SharedBlock>,
    frame: &Frame<'_>,
    out: &mut Vec<u8>,
) -> Option<Body> {
    let size = block.as_ref().map_or(0, SharedBlock::payload_size);
    respond::begin(out, status, frame);
    let ours = |name: &[u8]| frame.cors.is_some() && cors::is_ours(name);
    for_each_field(status, reply, |name, value| {
        if !ours(name) {
            respond::field(out, name, value);
        }
    });
    match status {
        // Without a body by definition (RFC 9112, 6.3); a length would only confuse.
        204 | 304 => {}
        205 => respond::number_field(out, b"Content-Length", 0),
        _ => respond::number_field(out, b"Content-Length", size as u64),
    }
    out.extend_from_slice(b"\r\n");
    let block = block?;
    if is_bodiless(status) || frame.exchange.method == Method::Head || size == 0 {
        return None;
    }
    if size <= COPY_MAX {
        append(&block.payload(), out);
        return None;
    }
    Some(Body::new(block))
}

fn append(payload: &SharedSlice, out: &mut Vec<u8>) {
    out.reserve(payload.len());
    payload.append_to(out);
}

/// The fields of a function's answer that may be told, `Content-Type` among them.
pub(crate) fn for_each_field(status: u16, reply: &Reply<'_>, mut field: impl FnMut(&[u8], &[u8])) {
    let is_content_type = |name: &[u8]| name.eq_ignore_ascii_case(b"content-type");
    let mut content_type = is_value(reply.content_type).then_some(reply.content_type);
    content_type = content_type.filter(|value| !value.is_empty());
    for (name, value) in reply.headers.clone() {
        if is_content_type(name) {
            content_type = content_type.or_else(|| is_value(value).then_some(value));
        } else if is_token(name) && is_value(value) && !is_reserved(name) {
            field(name, value);
        }
    }
    match (content_type, status) {
        (Some(value), _) => field(b"Content-Type", value),
        (None, status) if is_bodiless(status) => {}
        (None, _) => field(b"Content-Type", DEFAULT_CONTENT_TYPE),
    }
}

/// The status a function gave its own error.
fn error_status(outcome: Outcome, block: &SharedBlock, scratch: &mut Vec<u8>) -> Option<u16> {
    if outcome != Outcome::FunctionError {
        return None;
    }
    block.copy_envelope(scratch);
    let status = envelope::parse_reply(scratch).ok()?.status?;
    (400..=599).contains(&status).then_some(status)
}

/// The contract promises a hint with both.
fn retry_after_s(status: u16, given: Option<u32>) -> Option<u32> {
    given.or_else(|| matches!(status, 429 | 503).then_some(1))
}

/// The fields which the gateway writes itself.
fn is_reserved(name: &[u8]) -> bool {
    let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
    is_hop_by_hop(name) || is(b"content-length") || is(b"date") || is(b"x-request-id")
}

fn is_token(name: &[u8]) -> bool {
    !name.is_empty()
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// No control bytes: CR and LF would end the field, NUL ends it for some readers.
fn is_value(value: &[u8]) -> bool {
    value.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f))
}
