//! From what became of a call to the bytes of its answer. What a function says about its answer
//! is checked field by field: it may shape the answer, not the framing of the connection.

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

/// The answer to a call, and its status.
pub(crate) fn compose(
    answer: Answer,
    frame: &Frame<'_>,
    scratch: &mut Vec<u8>,
    pool: &mut Pool,
) -> (u16, Outgoing) {
    scratch.clear();
    let mut out = pool.take();
    let composed = match (answer.outcome, answer.block) {
        (Outcome::Ok, None) => {
            respond::document(&mut out, 200, frame, DEFAULT_CONTENT_TYPE, &[]);
            return (200, Outgoing::Bytes(out));
        }
        (Outcome::Ok, Some(block)) => {
            block.copy_envelope(scratch);
            success(scratch, block, frame, &mut out)
        }
        (outcome, block) => {
            let status = block.as_ref().and_then(|block| error_status(outcome, block, scratch));
            scratch.clear();
            if let Some(block) = &block {
                let payload = block.payload();
                let size = payload.len().min(MESSAGE_MAX);
                payload.slice(0..size).append_to(scratch);
            }
            Err(Failed { outcome, status, message: answer.message })
        }
    };
    match composed {
        Ok((status, None)) => (status, Outgoing::Bytes(out)),
        Ok((status, Some(body))) => (status, Outgoing::WithBody(out, body)),
        Err(failed) => {
            let text = String::from_utf8_lossy(scratch);
            let status = failed.status.unwrap_or_else(|| failed.outcome.http_status());
            let failure = Failure {
                status,
                kind: failed.outcome.as_str(),
                message: match (failed.message, text.as_ref()) {
                    ("", "") => failed.outcome.as_str(),
                    ("", text) => text,
                    (message, _) => message,
                },
                retry_after_s: retry_after_s(status, answer.retry_after_s),
                allow: None,
                challenge: None,
            };
            respond::failure(&mut out, frame, &failure, pool);
            (status, Outgoing::Bytes(out))
        }
    }
}

/// The answer to a call that was not taken, and its status.
pub(crate) fn refuse(refusal: Refusal, frame: &Frame<'_>, pool: &mut Pool) -> (u16, Vec<u8>) {
    let mut out = pool.take();
    let status = refusal.outcome.http_status();
    let failure = Failure {
        status,
        kind: refusal.outcome.as_str(),
        message: refusal.message,
        retry_after_s: retry_after_s(status, refusal.retry_after_s),
        allow: None,
        challenge: None,
    };
    respond::failure(&mut out, frame, &failure, pool);
    (status, out)
}

/// A call that did not succeed, or whose success cannot be told to a client.
struct Failed {
    outcome: Outcome,
    status: Option<u16>,
    message: &'static str,
}

impl Failed {
    fn unusable(message: &'static str) -> Failed {
        Failed { outcome: Outcome::FunctionError, status: None, message }
    }
}

fn success(
    envelope: &[u8],
    block: SharedBlock,
    frame: &Frame<'_>,
    out: &mut Vec<u8>,
) -> Result<(u16, Option<Body>), Failed> {
    let reply = envelope::parse_reply(envelope)
        .map_err(|_| Failed::unusable("the answer's envelope is malformed"))?;
    let status = reply.status.unwrap_or(200);
    if !(200..=599).contains(&status) {
        return Err(Failed::unusable("the answer's status is not one of 200 to 599"));
    }
    let payload = block.payload();
    respond::begin(out, status, frame);
    write_fields(out, status, frame, &reply);
    match status {
        // Without a body by definition (RFC 9112, 6.3); a length would only confuse.
        204 | 304 => {}
        205 => respond::number_field(out, b"Content-Length", 0),
        _ => respond::number_field(out, b"Content-Length", payload.len() as u64),
    }
    out.extend_from_slice(b"\r\n");
    let bodiless = matches!(status, 204 | 205 | 304) || frame.exchange.method == Method::Head;
    if bodiless || payload.is_empty() {
        return Ok((status, None));
    }
    if payload.len() <= COPY_MAX {
        append(&payload, out);
        return Ok((status, None));
    }
    Ok((status, Some(Body::new(block))))
}

fn append(payload: &SharedSlice, out: &mut Vec<u8>) {
    out.reserve(payload.len());
    payload.append_to(out);
}

fn write_fields(out: &mut Vec<u8>, status: u16, frame: &Frame<'_>, reply: &Reply<'_>) {
    let of_pages = |name: &[u8]| frame.cors.is_some() && cors::is_ours(name);
    let is_content_type = |name: &[u8]| name.eq_ignore_ascii_case(b"content-type");
    let mut content_type = is_value(reply.content_type).then_some(reply.content_type);
    content_type = content_type.filter(|value| !value.is_empty());
    for (name, value) in reply.headers.clone() {
        if is_content_type(name) {
            content_type = content_type.or_else(|| is_value(value).then_some(value));
        } else if is_token(name) && is_value(value) && !is_reserved(name) && !of_pages(name) {
            respond::field(out, name, value);
        }
    }
    match (content_type, status) {
        (Some(value), _) => respond::field(out, b"Content-Type", value),
        (None, 204 | 205 | 304) => {}
        (None, _) => respond::field(out, b"Content-Type", DEFAULT_CONTENT_TYPE),
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
