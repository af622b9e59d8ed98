//! What travels beside a payload. What is parsed can be written again, in as many bytes, and then says
//! the same; what an encoder accepts, a parser does.

use ipc::ENVELOPE_MAX;
use ipc::envelope::{
    FIELDS_MAX, HEADER_NAME_MAX, ReplyFields, RequestFields, call_size, encode_call, parse_call,
    parse_reply, parse_request,
};

use crate::input::Input;

/// Takes the bytes for an envelope of each kind, and for the fields of one.
pub fn run(data: &[u8]) {
    call(data);
    request(data);
    reply(data);
    fields(data);
}

fn call(data: &[u8]) {
    let Ok(function) = parse_call(data) else { return };
    assert_eq!(call_size(function), Ok(data.len()));
    let mut bytes = Vec::new();
    encode_call(function, &mut bytes);
    assert_eq!(bytes, data, "a call's envelope has one form");
}

fn request(data: &[u8]) {
    let Ok(request) = parse_request(data) else { return };
    check_headers(data, request.headers.clone());
    let fields = RequestFields {
        method: request.method,
        suffix: request.suffix,
        query: request.query,
        request_id: request.request_id,
        traceparent: request.traceparent,
        headers: request.headers.clone(),
    };
    assert!(request.suffix.is_empty() || request.suffix.starts_with(b"/"));
    assert_eq!(fields.encoded_size(), Ok(data.len()));
    let mut bytes = Vec::new();
    fields.encode(&mut bytes);
    assert_eq!(bytes.len(), data.len());
    let again = parse_request(&bytes).expect("what was written is read");
    assert!(again.headers.clone().eq(request.headers), "{:?}", again.headers);
    let single = |r: &ipc::envelope::Request<'_>| {
        [r.method, r.suffix, r.query, r.request_id, r.traceparent].map(<[u8]>::to_vec)
    };
    let first = parse_request(data).expect("parsed before");
    assert_eq!(single(&again), single(&first));
}

fn reply(data: &[u8]) {
    let Ok(reply) = parse_reply(data) else { return };
    check_headers(data, reply.headers.clone());
    assert!(reply.status.is_none_or(|status| (200..600).contains(&status)));
    let fields = ReplyFields {
        status: reply.status,
        content_type: reply.content_type,
        headers: reply.headers.clone(),
    };
    assert_eq!(fields.encoded_size(), Ok(data.len()));
    let mut bytes = Vec::new();
    fields.encode(&mut bytes);
    let again = parse_reply(&bytes).expect("what was written is read");
    assert_eq!((again.status, again.content_type), (reply.status, reply.content_type));
    assert!(again.headers.clone().eq(reply.headers), "{:?}", again.headers);
}

/// Nothing in a header can end it, and there are no more than bytes and limit allow.
fn check_headers<'a>(data: &[u8], headers: impl Iterator<Item = (&'a [u8], &'a [u8])>) {
    let (mut count, mut size) = (0, 0);
    for (name, value) in headers {
        count += 1;
        size += name.len() + value.len();
        assert!((1..=HEADER_NAME_MAX).contains(&name.len()));
        assert!(name.iter().all(|byte| byte.is_ascii_graphic() && *byte != b':'));
        assert!(!value.iter().any(|byte| b"\r\n\0".contains(byte)));
    }
    assert!(data.len() <= ENVELOPE_MAX && count <= FIELDS_MAX && size <= data.len());
}

/// Any fields: they are refused, or read as they were written.
fn fields(data: &[u8]) {
    let mut input = Input::new(data);
    let status = Some(input.u16()).filter(|status| status & 1 == 0);
    let mut text = || {
        let size = usize::from(input.u8());
        input.bytes(size)
    };
    let (content_type, query, suffix) = (text(), text(), text());
    let mut headers = Vec::new();
    loop {
        let (name, value) = (text(), text());
        if name.is_empty() {
            break;
        }
        headers.push((name, value));
    }
    let fields = ReplyFields { status, content_type, headers: headers.iter().copied() };
    if let Ok(size) = fields.encoded_size() {
        let mut bytes = Vec::new();
        fields.encode(&mut bytes);
        assert_eq!(bytes.len(), size);
        let reply = parse_reply(&bytes).expect("an encoder refuses what a parser would");
        assert_eq!((reply.status, reply.content_type), (status, content_type));
        assert!(reply.headers.eq(headers.iter().copied()));
    }
    let fields = RequestFields {
        query,
        suffix,
        request_id: content_type,
        headers: headers.iter().copied(),
        ..RequestFields::default()
    };
    if let Ok(size) = fields.encoded_size() {
        let mut bytes = Vec::new();
        fields.encode(&mut bytes);
        assert_eq!(bytes.len(), size);
        let request = parse_request(&bytes).expect("an encoder refuses what a parser would");
        assert_eq!((request.query, request.suffix), (query, suffix));
        assert_eq!(request.request_id, content_type);
        assert!(request.headers.eq(headers.iter().copied()));
    }
}
