//! Envelopes: what is written is read, and a stranger's bytes never panic.
#![cfg(not(loom))]
#![allow(missing_docs, clippy::unwrap_used, clippy::cast_possible_truncation)]

use ipc::ENVELOPE_MAX;
use ipc::envelope::{
    EnvelopeError, FIELDS_MAX, ReplyFields, RequestFields, call_size, encode_call, parse_call,
    parse_reply, parse_request,
};
use proptest::prelude::*;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn text(max: usize) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(b'\t'), b' '..0x7f, 0x80u8..=0xff];
    prop::collection::vec(byte, 0..max)
}

fn suffix() -> impl Strategy<Value = Vec<u8>> {
    prop::option::of(text(40)).prop_map(|suffix| match suffix {
        Some(rest) => [b"/", &rest[..]].concat(),
        None => Vec::new(),
    })
}

fn headers() -> impl Strategy<Value = Pairs> {
    let name = "[a-zA-Z0-9!#$%&'*+.^_`|~-]{1,40}".prop_map(String::into_bytes);
    prop::collection::vec((name, text(80)), 0..20)
}

fn iterate(headers: &Pairs) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
    headers.iter().map(|(name, value)| (&name[..], &value[..]))
}

proptest! {
    #[test]
    fn a_request_is_read_as_it_was_written(
        method in "[A-Z]{0,7}", suffix in suffix(), query in text(40), request_id in text(40),
        traceparent in text(60), headers in headers()
    ) {
        let fields = RequestFields {
            method: method.as_bytes(), suffix: &suffix, query: &query, request_id: &request_id,
            traceparent: &traceparent, headers: iterate(&headers),
        };
        let mut bytes = Vec::new();
        fields.encode(&mut bytes);
        prop_assert_eq!(fields.encoded_size(), Ok(bytes.len()));
        let request = parse_request(&bytes).unwrap();
        prop_assert_eq!(request.method, method.as_bytes());
        prop_assert_eq!(request.suffix, &suffix[..]);
        prop_assert_eq!(request.query, &query[..]);
        prop_assert_eq!(request.request_id, &request_id[..]);
        prop_assert_eq!(request.traceparent, &traceparent[..]);
        prop_assert!(request.headers.eq(iterate(&headers)));
        for end in 0..bytes.len() {
            let _ = parse_request(&bytes[..end]);
        }
    }

    #[test]
    fn a_reply_is_read_as_it_was_written(
        status in prop::option::of(200u16..600), content_type in text(40), headers in headers()
    ) {
        let fields =
            ReplyFields { status, content_type: &content_type, headers: iterate(&headers) };
        let mut bytes = Vec::new();
        fields.encode(&mut bytes);
        prop_assert_eq!(fields.encoded_size(), Ok(bytes.len()));
        let reply = parse_reply(&bytes).unwrap();
        prop_assert_eq!(reply.status, status);
        prop_assert_eq!(reply.content_type, &content_type[..]);
        prop_assert!(reply.headers.eq(iterate(&headers)));
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        parse_all(&bytes);
    }

    #[test]
    fn random_fields_never_panic(
        fields in prop::collection::vec(
            (0u8..12, prop::collection::vec(any::<u8>(), 0..12), -1i16..2), 0..140)
    ) {
        let mut bytes = Vec::new();
        for (tag, value, error) in fields {
            let size = u16::try_from(value.len()).unwrap().saturating_add_signed(error);
            bytes.extend([tag, 0]);
            bytes.extend(size.to_le_bytes());
            bytes.extend(value);
        }
        parse_all(&bytes);
    }
}

fn parse_all(bytes: &[u8]) {
    let _ = parse_call(bytes);
    if let Ok(request) = parse_request(bytes) {
        assert!(request.headers.count() <= FIELDS_MAX);
    }
    if let Ok(reply) = parse_reply(bytes) {
        assert!(reply.headers.count() <= FIELDS_MAX);
    }
}

fn field(tag: u8, value: &[u8]) -> Vec<u8> {
    let size = u16::try_from(value.len()).unwrap().to_le_bytes();
    [&[tag, 0, size[0], size[1]], value].concat()
}

#[test]
fn a_call_names_one_function() {
    let mut bytes = Vec::new();
    encode_call(b"echo", &mut bytes);
    assert_eq!(call_size(b"echo"), Ok(bytes.len()));
    assert_eq!(parse_call(&bytes), Ok(&b"echo"[..]));
    assert_eq!(parse_call(b""), Err(EnvelopeError::NoFunction));
    assert_eq!(call_size(b""), Err(EnvelopeError::NoFunction));
    assert_eq!(parse_call(&[&bytes[..], &bytes].concat()), Err(EnvelopeError::Repeated(7)));
    assert_eq!(parse_call(&field(3, b"GET")), Err(EnvelopeError::Tag(3)));
    assert_eq!(parse_request(&bytes), Err(EnvelopeError::Tag(7)));
    assert_eq!(call_size(&[b'a'; ENVELOPE_MAX]), Err(EnvelopeError::Value(7)));
}

#[test]
fn what_is_odd_is_refused() {
    assert_eq!(parse_request(&[3, 0, 4, 0, b'G']), Err(EnvelopeError::Malformed(0)));
    assert_eq!(parse_request(&[3, 1, 1, 0, b'G']), Err(EnvelopeError::Malformed(0)));
    assert_eq!(parse_request(&[3]), Err(EnvelopeError::Malformed(0)));
    assert_eq!(parse_request(&field(3, b"")), Err(EnvelopeError::Value(3)));
    assert_eq!(parse_request(&field(3, b"G T")), Err(EnvelopeError::Value(3)));
    assert_eq!(parse_request(&field(4, b"no-slash")), Err(EnvelopeError::Value(4)));
    assert_eq!(parse_request(&field(5, b"a\r\nb")), Err(EnvelopeError::Value(5)));
    assert_eq!(parse_request(&field(6, b"")), Err(EnvelopeError::Value(6)));
    assert_eq!(parse_request(&field(6, b"\x05a")), Err(EnvelopeError::Value(6)));
    assert_eq!(parse_request(&field(6, b"\x00a")), Err(EnvelopeError::Value(6)));
    assert_eq!(parse_reply(&field(6, b"\x01aevil\r\nSet-Cookie: a")), Err(EnvelopeError::Value(6)));
    assert_eq!(parse_reply(&field(8, &[200])), Err(EnvelopeError::Value(8)));
    assert_eq!(parse_reply(&field(8, &199u16.to_le_bytes())), Err(EnvelopeError::Value(8)));
    assert_eq!(parse_reply(&field(8, &600u16.to_le_bytes())), Err(EnvelopeError::Value(8)));
    let many = field(6, b"\x01a").repeat(FIELDS_MAX + 1);
    assert_eq!(parse_reply(&many), Err(EnvelopeError::Fields));
    assert_eq!(parse_reply(&many[6..]).unwrap().headers.count(), FIELDS_MAX);
    let long = vec![0; ENVELOPE_MAX + 1];
    assert_eq!(parse_reply(&long), Err(EnvelopeError::Size(long.len())));
}

#[test]
fn an_encoder_refuses_what_a_parser_would() {
    fn reply<'a>(
        name: &'a [u8],
        value: &'a [u8],
    ) -> ReplyFields<'a, std::iter::Once<(&'a [u8], &'a [u8])>> {
        ReplyFields { status: None, content_type: b"", headers: std::iter::once((name, value)) }
    }
    assert_eq!(reply(b"a", b"b").encoded_size(), Ok(7));
    assert!(reply(&[b'a'; 256], b"b").encoded_size().is_err());
    assert!(reply(b"a", &[b'b'; 70_000]).encoded_size().is_err());
    assert!(reply(b"", b"b").encoded_size().is_err());
    assert!(reply(b"a", b"\n").encoded_size().is_err());
    let headers = std::iter::repeat_n((&b"a"[..], &b"b"[..]), FIELDS_MAX + 1);
    let many = ReplyFields { status: Some(200), content_type: b"text/html", headers };
    assert_eq!(many.encoded_size(), Err(EnvelopeError::Fields));
}
