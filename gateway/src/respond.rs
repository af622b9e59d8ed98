//! Answers as bytes: status lines, heads, JSON errors. Nothing here formats or allocates but into
//! the vector it is given.

use std::io::Write;
use std::sync::Arc;

use crate::cors::{self, Cors, Origin};
use crate::date::DateText;
use crate::http::head::{Head, Method, Persistence, Version};
use crate::pool::Pool;
use crate::reject::Reject;
use crate::request_id::{RequestId, RequestIds};

/// What an answer must know of its request.
#[derive(Clone, Copy)]
pub(crate) struct Exchange {
    pub request_id: RequestId,
    pub method: Method,
    pub version: Version,
    pub persistence: Persistence,
    /// The page that asks.
    pub origin: Origin,
}

impl Exchange {
    pub(crate) fn of(head: &Head<'_>, ids: &mut RequestIds, cors: Option<&Cors>) -> Exchange {
        Exchange {
            request_id: RequestId::accept(head.request_id).unwrap_or_else(|| ids.make()),
            method: head.method,
            version: head.version,
            persistence: head.persistence,
            origin: cors.map_or(Origin::Other, |cors| cors.origin_of(head.fields())),
        }
    }

    /// Of a request whose head could not be read: the connection cannot go on.
    pub(crate) fn unknown(ids: &mut RequestIds) -> Exchange {
        Exchange {
            request_id: ids.make(),
            method: Method::Other,
            version: Version::Http11,
            persistence: Persistence::Close,
            origin: Origin::Other,
        }
    }
}

/// What every head carries.
pub(crate) struct Frame<'a> {
    pub exchange: &'a Exchange,
    pub date: DateText,
    /// Where web pages are told about.
    pub cors: Option<Arc<Cors>>,
}

/// An error of the contract.
pub(crate) struct Failure<'a> {
    pub status: u16,
    pub kind: &'static str,
    pub message: &'a str,
    pub retry_after_s: Option<u32>,
    pub allow: Option<&'static str>,
    /// The value of `WWW-Authenticate`.
    pub challenge: Option<&'static str>,
}

impl Failure<'static> {
    /// `text` keeps the message of the reject.
    pub(crate) fn of(reject: Reject, text: &mut Vec<u8>) -> Failure<'_> {
        text.clear();
        // Writing to a Vec cannot fail.
        let _ = write!(text, "{reject}");
        Failure {
            status: reject.status(),
            kind: reject.kind(),
            message: std::str::from_utf8(text).unwrap_or_default(),
            retry_after_s: reject.retry_after_s(),
            allow: reject.allow(),
            challenge: reject.challenge(),
        }
    }
}

/// The interim answer to `Expect: 100-continue`.
pub(crate) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Status line and the fields that every answer has.
pub(crate) fn begin(out: &mut Vec<u8>, status: u16, frame: &Frame<'_>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    decimal(out, u64::from(status));
    out.push(b' ');
    out.extend_from_slice(reason(status));
    out.extend_from_slice(b"\r\nDate: ");
    out.extend_from_slice(&frame.date);
    out.extend_from_slice(b"\r\nX-Request-Id: ");
    out.extend_from_slice(frame.exchange.request_id.as_bytes());
    out.extend_from_slice(match (frame.exchange.persistence, frame.exchange.version) {
        (Persistence::Close, _) => b"\r\nConnection: close\r\n",
        (Persistence::KeepAlive, Version::Http10) => b"\r\nConnection: keep-alive\r\n",
        (Persistence::KeepAlive, Version::Http11) => b"\r\n",
    });
    if let Some(cors) = &frame.cors {
        cors.write(frame.exchange.origin, |name, value| field(out, name, value));
    }
}

/// One field. The caller vouches for name and value.
pub(crate) fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The field whose value is a number.
pub(crate) fn number_field(out: &mut Vec<u8>, name: &[u8], value: u64) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    decimal(out, value);
    out.extend_from_slice(b"\r\n");
}

/// A whole answer with a body of ours.
pub(crate) fn document(
    out: &mut Vec<u8>,
    status: u16,
    frame: &Frame<'_>,
    content_type: &[u8],
    body: &[u8],
) {
    begin(out, status, frame);
    end_with_body(out, frame, content_type, body);
}

/// A whole answer to a page's preflight.
pub(crate) fn preflight(out: &mut Vec<u8>, frame: &Frame<'_>, head: &Head<'_>) {
    begin(out, 204, frame);
    cors::write_preflight(head.fields(), |name, value| field(out, name, value));
    out.extend_from_slice(b"\r\n");
}

/// A whole error answer.
pub(crate) fn failure(
    out: &mut Vec<u8>,
    frame: &Frame<'_>,
    failure: &Failure<'_>,
    pool: &mut Pool,
) {
    let mut body = pool.take();
    failure_body(&mut body, failure.kind, failure.message, &frame.exchange.request_id);
    begin(out, failure.status, frame);
    if let Some(seconds) = failure.retry_after_s {
        number_field(out, b"Retry-After", u64::from(seconds));
    }
    if let Some(allow) = failure.allow {
        field(out, b"Allow", allow.as_bytes());
    }
    if let Some(challenge) = failure.challenge {
        field(out, b"WWW-Authenticate", challenge.as_bytes());
    }
    end_with_body(out, frame, b"application/json", &body);
    pool.put(body);
}

/// The body of every error, whatever protocol carries it.
pub(crate) fn failure_body(out: &mut Vec<u8>, kind: &str, message: &str, request_id: &RequestId) {
    out.extend_from_slice(b"{\"error\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"message\":\"");
    escape(out, message);
    out.extend_from_slice(b"\",\"request_id\":\"");
    out.extend_from_slice(request_id.as_bytes());
    out.extend_from_slice(b"\"}\n");
}

fn end_with_body(out: &mut Vec<u8>, frame: &Frame<'_>, content_type: &[u8], body: &[u8]) {
    field(out, b"Content-Type", content_type);
    number_field(out, b"Content-Length", body.len() as u64);
    out.extend_from_slice(b"\r\n");
    if frame.exchange.method != Method::Head {
        out.extend_from_slice(body);
    }
}

fn decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Escapes what JSON strings must not contain (RFC 8259, 7).
fn escape(out: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => {
                let hex = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.push(hex[usize::from(byte >> 4)]);
                out.push(hex[usize::from(byte & 0xf)]);
            }
            _ => out.push(byte),
        }
    }
}

fn reason(status: u16) -> &'static [u8] {
    match status {
        200 => b"OK",
        201 => b"Created",
        202 => b"Accepted",
        204 => b"No Content",
        206 => b"Partial Content",
        301 => b"Moved Permanently",
        302 => b"Found",
        303 => b"See Other",
        304 => b"Not Modified",
        307 => b"Temporary Redirect",
        308 => b"Permanent Redirect",
        400 => b"Bad Request",
        401 => b"Unauthorized",
        403 => b"Forbidden",
        404 => b"Not Found",
        405 => b"Method Not Allowed",
        408 => b"Request Timeout",
        409 => b"Conflict",
        413 => b"Content Too Large",
        414 => b"URI Too Long",
        415 => b"Unsupported Media Type",
        417 => b"Expectation Failed",
        422 => b"Unprocessable Content",
        429 => b"Too Many Requests",
        431 => b"Request Header Fields Too Large",
        500 => b"Internal Server Error",
        501 => b"Not Implemented",
        502 => b"Bad Gateway",
        503 => b"Service Unavailable",
        504 => b"Gateway Timeout",
        505 => b"HTTP Version Not Supported",
        508 => b"Loop Detected",
        _ => b"",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_numbers() {
        for number in [0, 7, 10, 4_096, u64::MAX] {
            let mut out = Vec::new();
            decimal(&mut out, number);
            assert_eq!(out, number.to_string().into_bytes());
        }
    }

    #[test]
    fn messages_cannot_break_out_of_their_json_string() {
        let mut out = Vec::new();
        escape(&mut out, "a\"b\\c\n\r\t\u{1}é");
        assert_eq!(out, "a\\\"b\\\\c\\n\\r\\t\\u0001é".as_bytes());
    }
}
