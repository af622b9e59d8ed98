//! One unary call: from the head of its request to the trailers of its answer.

use bytes::Bytes;
use gateway::intake::{Destination, Fault, Head, Parcel};
use gateway::portal::Reply;
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode};
use hyper::body::Incoming;

use super::message::{self, MessageFault};
use super::path::{self, Target};
use super::status::{self, Code, Status};
use super::timeout;
use crate::body::{Body, held};
use crate::desk::Answered;
use crate::exchange::{CallFault, Exchange, target};
use crate::gather::Shape;
use crate::ledger::Hold;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
const GRPC_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// A message up to this size is copied behind its prefix: cheaper than a frame more.
const COPY_MAX: usize = 16 * 1024;

/// Fields of the protocol, which are no metadata.
const OWN_FIELDS: [&str; 4] =
    ["grpc-timeout", "grpc-encoding", "grpc-accept-encoding", "grpc-message-type"];

/// Answers a request of gRPC.
pub async fn answer(
    exchange: Exchange<'_>,
    parts: &Parts,
    headers: &[(&str, &[u8])],
    incoming: &mut Incoming,
) -> Response<Body> {
    let content_type = content_type(&parts.headers);
    if parts.method != Method::POST {
        return refuse_method(exchange, content_type);
    }
    match call(&exchange, parts, headers, incoming).await {
        Ok(Answered { reply: Reply::Told { status, fields, body }, hold, .. }) => {
            tell(exchange, content_type, Told { status, fields, body, hold })
        }
        Ok(Answered { reply: Reply::Failed(failure), .. }) => {
            end(exchange, content_type, &Status::of(failure))
        }
        Err(status) => end(exchange, content_type, &status),
    }
}

struct Told {
    status: u16,
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    body: Vec<u8>,
    hold: Option<Hold>,
}

async fn call(
    exchange: &Exchange<'_>,
    parts: &Parts,
    headers: &[(&str, &[u8])],
    incoming: &mut Incoming,
) -> Result<Answered, Status> {
    let path = parts.uri.path();
    let target =
        path::parse(path).ok_or_else(|| Status::new(Code::Unimplemented, "no such method"))?;
    let parcel = parcel(exchange, parts, headers, &target)?;
    let timeout = match parts.headers.get("grpc-timeout") {
        None => None,
        Some(value) => {
            let timeout = timeout::parse(value.as_bytes());
            let time = timeout.map_err(|fault| Status::new(Code::Internal, fault.to_string()))?;
            if time.is_zero() {
                return Err(Status::of(exchange.refuse(Fault::NoTimeLeft)));
            }
            Some(time)
        }
    };
    if let Some(encoding) = parts.headers.get("grpc-encoding")
        && encoding != "identity"
    {
        return Err(MessageFault::Compressed.into());
    }
    let called = exchange.call(parcel, incoming, Shape::Message, timeout).await;
    called.map_err(|fault| match fault {
        CallFault::Failure(failure) => Status::of(failure),
        // Without the field that says how, nothing may be compressed.
        CallFault::Message(MessageFault::Compressed)
            if !parts.headers.contains_key("grpc-encoding") =>
        {
            Status::new(Code::Internal, "a message is compressed, and no header says how")
        }
        CallFault::Message(fault) => fault.into(),
    })
}

fn parcel(
    exchange: &Exchange<'_>,
    parts: &Parts,
    headers: &[(&str, &[u8])],
    asked: &Target<'_>,
) -> Result<Parcel, Status> {
    let metadata: Vec<(&str, &[u8])> =
        headers.iter().filter(|(name, _)| !OWN_FIELDS.contains(name)).copied().collect();
    let method = parts.method.as_str().as_bytes();
    let head = Head { method, target: target(parts), headers: &metadata };
    let (names, suffix) = (asked.names(), asked.suffix.as_bytes());
    let destination = Destination { names: &names, suffix, query: b"" };
    let mut intake = exchange.room.intake.borrow_mut();
    let sent = exchange.line.fill(|entry| intake.send(&head, &destination, &exchange.id, entry));
    sent.map_err(Status::of)
}

/// The content type of the answer is that of the request, without parameters.
fn content_type(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let kind = given.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    HeaderValue::from_bytes(kind).unwrap_or(HeaderValue::from_static("application/grpc"))
}

fn refuse_method(exchange: Exchange<'_>, content_type: HeaderValue) -> Response<Body> {
    let mut response = exchange.begin(StatusCode::METHOD_NOT_ALLOWED);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    write_status(&Status::new(Code::Internal, "a call is a POST"), response.headers_mut());
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response.map(|()| Body::new(Bytes::new(), exchange.busy))
}

/// Trailers-Only: an answer of headers alone.
fn end(exchange: Exchange<'_>, content_type: HeaderValue, status: &Status) -> Response<Body> {
    let mut response = exchange.begin(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    write_status(status, headers);
    response.map(|()| Body::new(Bytes::new(), exchange.busy))
}

fn tell(exchange: Exchange<'_>, content_type: HeaderValue, told: Told) -> Response<Body> {
    let Told { status, fields, body, hold } = told;
    let mut headers = HeaderMap::new();
    exchange.relay(&mut headers, fields);
    let mut trailers = HeaderMap::new();
    // What a function itself says of gRPC is what it means.
    for name in [GRPC_STATUS, GRPC_MESSAGE, GRPC_DETAILS] {
        if let Some(value) = headers.remove(&name) {
            trailers.insert(name, value);
        }
    }
    let failed = !(200..=299).contains(&status);
    if failed && !trailers.contains_key(GRPC_STATUS) {
        let text = String::from_utf8_lossy(&body).into_owned();
        return end(exchange, content_type, &Status::new(status::of_http(status), text));
    }
    let Some(prefix) = message::prefix(body.len()) else {
        let status = Status::new(Code::ResourceExhausted, "the answer is larger than a message");
        return end(exchange, content_type, &status);
    };
    trailers.entry(GRPC_STATUS).or_insert(HeaderValue::from_static("0"));
    let mut response = exchange.begin(StatusCode::OK);
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.remove(header::CONTENT_LENGTH);
    // Those of every answer stay, and `Vary` may be both ours and the function's.
    for (name, value) in &headers {
        response.headers_mut().append(name, value.clone());
    }
    let parts = if body.len() <= COPY_MAX {
        let mut message = Vec::with_capacity(prefix.len() + body.len());
        message.extend_from_slice(&prefix);
        message.extend_from_slice(&body);
        [held(message, hold), Bytes::new()]
    } else {
        [Bytes::copy_from_slice(&prefix), held(body, hold)]
    };
    response.map(|()| Body::with_trailers(parts, trailers, exchange.busy))
}

fn write_status(status: &Status, headers: &mut HeaderMap) {
    headers.insert(GRPC_STATUS, HeaderValue::from(status.code as u16));
    let message = status::encode_message(&status.message);
    if let (false, Ok(message)) = (message.is_empty(), HeaderValue::from_str(&message)) {
        headers.insert(GRPC_MESSAGE, message);
    }
    if let Some(seconds) = status.retry_after_s {
        headers.insert(GRPC_PUSHBACK, HeaderValue::from(u64::from(seconds) * 1_000));
    }
}
