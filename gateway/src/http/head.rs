//! A request head: `httparse` for the syntax, and on top of it the rules of RFC 9112 that decide
//! where a request ends. Anything that two implementations could read differently is refused, as
//! request smuggling lives on such differences.
//!
//! A head that `httparse` accepts but the rules refuse is still returned, with its `fault`: its
//! request id and method are needed to answer it.

use std::mem::MaybeUninit;

use httparse::Header;
use ipc::envelope::HEADER_NAME_MAX;

use crate::config::{Config, HEADERS_LIMIT};
use crate::reject::Reject;

/// Longest request target. The path of a function needs little; the rest is its query.
const TARGET_MAX: usize = 8 * 1024;
/// Longest method looked for when the request line is not complete yet.
const METHOD_MAX: usize = 32;
/// A longer time than this is no deadline; it also keeps sums of times far from overflow.
const TIMEOUT_MS_MAX: u64 = 7 * 24 * 3600 * 1000;

/// Room for the fields of one head.
pub(crate) type Storage<'b> = [MaybeUninit<Header<'b>>; HEADERS_LIMIT];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Head,
    Post,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Http10,
    Http11,
}

/// What becomes of the connection behind the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Persistence {
    KeepAlive,
    Close,
}

/// How the end of the body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Without a length there is no body in a request.
    Length(u64),
    Chunked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expectation {
    None,
    Continue,
}

/// The value of `X-Nightcore-Timeout-Ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeLeft {
    Unlimited,
    Milliseconds(u64),
}

/// A complete head. All slices point into the bytes it was parsed from.
#[derive(Debug)]
pub(crate) struct Head<'a> {
    /// Bytes of the head, the empty line included.
    pub size: usize,
    pub method: Method,
    pub method_text: &'a [u8],
    pub target: &'a [u8],
    pub version: Version,
    pub headers: &'a [Header<'a>],
    pub framing: Framing,
    pub persistence: Persistence,
    pub expectation: Expectation,
    /// As sent; empty if absent.
    pub request_id: &'a [u8],
    /// Checked against the W3C shape; empty if absent or odd.
    pub traceparent: &'a [u8],
    pub time_left: TimeLeft,
    /// The request must be refused with this.
    pub fault: Option<Reject>,
}

pub(crate) fn storage<'b>() -> Storage<'b> {
    [const { MaybeUninit::uninit() }; HEADERS_LIMIT]
}

/// Parses a head at the beginning of `bytes`. `Ok(None)`: it goes on behind them.
pub(crate) fn parse<'h, 'b: 'h>(
    bytes: &'b [u8],
    storage: &'h mut Storage<'b>,
    config: &Config,
) -> Result<Option<Head<'h>>, Reject> {
    let head_max = config.head_max as usize;
    let mut request = httparse::Request::new(&mut []);
    let fields = &mut storage[..config.headers_max];
    let size = match request.parse_with_uninit_headers(bytes, fields) {
        Ok(httparse::Status::Complete(size)) => size,
        Ok(httparse::Status::Partial) => return partial(bytes, head_max).map(|()| None),
        Err(error) => return Err(refuse(error)),
    };
    let (Some(method), Some(target), Some(version)) =
        (request.method, request.path, request.version)
    else {
        return Err(Reject::Malformed("incomplete request line"));
    };
    if target.len() > TARGET_MAX {
        return Err(Reject::UriTooLong);
    }
    if size > head_max {
        return Err(Reject::HeaderTooLarge);
    }
    require_crlf(&bytes[..size])?;
    let mut head = Head {
        size,
        method: match method {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            _ => Method::Other,
        },
        method_text: method.as_bytes(),
        target: target.as_bytes(),
        version: if version == 0 { Version::Http10 } else { Version::Http11 },
        headers: request.headers,
        framing: Framing::Length(0),
        persistence: Persistence::Close,
        expectation: Expectation::None,
        request_id: &[],
        traceparent: &[],
        time_left: TimeLeft::Unlimited,
        fault: None,
    };
    let fields = Fields::collect(head.headers);
    head.request_id = fields.request_id.first();
    if let Some(value) = fields.traceparent.only().filter(|value| is_traceparent(value)) {
        head.traceparent = value;
    }
    head.persistence = fields.persistence(head.version);
    head.fault = apply(&fields, &mut head).err();
    Ok(Some(head))
}

/// A head that is not complete: may it still become one?
fn partial(bytes: &[u8], head_max: usize) -> Result<(), Reject> {
    let line_ended = bytes.iter().take(METHOD_MAX + TARGET_MAX).any(|byte| *byte == b'\n');
    if !line_ended && bytes.len() >= (METHOD_MAX + TARGET_MAX).min(head_max) {
        return Err(Reject::UriTooLong);
    }
    if bytes.len() >= head_max { Err(Reject::HeaderTooLarge) } else { Ok(()) }
}

fn refuse(error: httparse::Error) -> Reject {
    match error {
        httparse::Error::TooManyHeaders => Reject::HeaderTooLarge,
        httparse::Error::Version => Reject::UnknownVersion,
        httparse::Error::HeaderName => Reject::Malformed("malformed header name"),
        httparse::Error::HeaderValue => Reject::Malformed("malformed header value"),
        httparse::Error::NewLine => Reject::Malformed("malformed line end"),
        httparse::Error::Token => Reject::Malformed("malformed request line"),
        httparse::Error::Status => Reject::Malformed("malformed status"),
    }
}

/// `httparse` takes a line feed alone for a line end; proxies differ on it, so it is refused.
fn require_crlf(head: &[u8]) -> Result<(), Reject> {
    let mut previous = 0;
    for byte in head {
        if *byte == b'\n' && previous != b'\r' {
            return Err(Reject::Malformed("a line must end with CR LF"));
        }
        previous = *byte;
    }
    Ok(())
}

/// A field that ought to appear once: its first value and how often it came.
#[derive(Clone, Copy, Default)]
struct Field<'a> {
    value: &'a [u8],
    count: usize,
}

impl<'a> Field<'a> {
    fn add(&mut self, value: &'a [u8]) {
        if self.count == 0 {
            self.value = value;
        }
        self.count += 1;
    }

    fn first(self) -> &'a [u8] {
        self.value
    }

    fn only(self) -> Option<&'a [u8]> {
        (self.count == 1).then_some(self.value)
    }
}

/// The fields the gateway itself reads, found in one pass.
#[derive(Default)]
struct Fields<'a> {
    host: Field<'a>,
    content_length: Field<'a>,
    transfer_encoding: Field<'a>,
    expect: Field<'a>,
    request_id: Field<'a>,
    traceparent: Field<'a>,
    timeout: Field<'a>,
    connection_close: bool,
    connection_keep_alive: bool,
    name_too_long: bool,
}

impl<'a> Fields<'a> {
    fn collect(headers: &'a [Header<'a>]) -> Fields<'a> {
        let mut fields = Fields::default();
        for header in headers {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            match header.name.len() {
                4 if is("host") => fields.host.add(header.value),
                6 if is("expect") => fields.expect.add(header.value),
                10 if is("connection") => fields.add_connection(header.value),
                11 if is("traceparent") => fields.traceparent.add(header.value),
                12 if is("x-request-id") => fields.request_id.add(header.value),
                14 if is("content-length") => fields.content_length.add(header.value),
                17 if is("transfer-encoding") => fields.transfer_encoding.add(header.value),
                22 if is("x-nightcore-timeout-ms") => fields.timeout.add(header.value),
                size => fields.name_too_long |= size > HEADER_NAME_MAX,
            }
        }
        fields
    }

    fn add_connection(&mut self, value: &[u8]) {
        for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            self.connection_close |= option.eq_ignore_ascii_case(b"close");
            self.connection_keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    fn persistence(&self, version: Version) -> Persistence {
        let keep_alive = match version {
            Version::Http11 => !self.connection_close,
            Version::Http10 => self.connection_keep_alive && !self.connection_close,
        };
        if keep_alive { Persistence::KeepAlive } else { Persistence::Close }
    }
}

/// The rules, most dangerous first. Fills in what the accepted fields mean.
fn apply(fields: &Fields<'_>, head: &mut Head<'_>) -> Result<(), Reject> {
    head.framing = framing(fields, head.version)?;
    match (fields.host.count, head.version) {
        (1, _) if !is_host(fields.host.value) => return Err(Reject::Malformed("malformed Host")),
        (1, _) | (0, Version::Http10) => {}
        (0, Version::Http11) => return Err(Reject::Malformed("Host is missing")),
        _ => return Err(Reject::Malformed("more than one Host")),
    }
    if fields.name_too_long {
        return Err(Reject::HeaderTooLarge);
    }
    // HTTP/1.0 knows no expectations: they are ignored (RFC 9110, 10.1.1).
    if fields.expect.count > 0 && head.version == Version::Http11 {
        match fields.expect.only() {
            Some(value) if value.eq_ignore_ascii_case(b"100-continue") => {
                head.expectation = Expectation::Continue;
            }
            _ => return Err(Reject::UnknownExpectation),
        }
    }
    match fields.timeout.count {
        0 => {}
        1 => head.time_left = TimeLeft::Milliseconds(timeout_ms(fields.timeout.value)?),
        _ => return Err(Reject::BadField("more than one X-Nightcore-Timeout-Ms")),
    }
    Ok(())
}

fn framing(fields: &Fields<'_>, version: Version) -> Result<Framing, Reject> {
    match (fields.content_length.count, fields.transfer_encoding.count) {
        (0, 0) => Ok(Framing::Length(0)),
        (1, 0) => content_length(fields.content_length.value).map(Framing::Length),
        (0, 1) if version == Version::Http10 => {
            Err(Reject::Malformed("Transfer-Encoding does not exist in HTTP/1.0"))
        }
        (0, 1) if fields.transfer_encoding.value.eq_ignore_ascii_case(b"chunked") => {
            Ok(Framing::Chunked)
        }
        (0, 1) => Err(Reject::UnknownEncoding),
        (0, _) => Err(Reject::Malformed("more than one Transfer-Encoding")),
        (_, 0) => Err(Reject::Malformed("more than one Content-Length")),
        _ => Err(Reject::Malformed("both Content-Length and Transfer-Encoding")),
    }
}

/// Digits and nothing else: `+5`, `5, 5` and `0x5` have all been used to smuggle requests.
fn content_length(value: &[u8]) -> Result<u64, Reject> {
    number(value).map_err(|fault| match fault {
        NumberFault::NotANumber => Reject::Malformed("Content-Length is not a number"),
        NumberFault::Overflow => Reject::Malformed("Content-Length is out of range"),
    })
}

fn timeout_ms(value: &[u8]) -> Result<u64, Reject> {
    match number(value) {
        Ok(milliseconds) => Ok(milliseconds.min(TIMEOUT_MS_MAX)),
        Err(NumberFault::Overflow) => Ok(TIMEOUT_MS_MAX),
        Err(NumberFault::NotANumber) => {
            Err(Reject::BadField("X-Nightcore-Timeout-Ms is not a number of milliseconds"))
        }
    }
}

enum NumberFault {
    NotANumber,
    Overflow,
}

fn number(value: &[u8]) -> Result<u64, NumberFault> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(NumberFault::NotANumber);
    }
    value
        .iter()
        .try_fold(0_u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
        .ok_or(NumberFault::Overflow)
}

/// No more than what keeps a Host from being read as something else; names are not resolved here.
fn is_host(value: &[u8]) -> bool {
    value.iter().all(|byte| byte.is_ascii_graphic() && !b"/?#@\\,\"<>".contains(byte))
}

/// `00-<32 hex>-<16 hex>-<2 hex>` in lower case, ids not all zero: version 00 of the W3C header,
/// which later versions must be readable as.
fn is_traceparent(value: &[u8]) -> bool {
    let hex =
        |part: &[u8]| part.iter().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte));
    let zero = |part: &[u8]| part.iter().all(|byte| *byte == b'0');
    value.len() == 55
        && [value[2], value[35], value[52]] == *b"---"
        && hex(&value[..2])
        && &value[..2] != b"ff"
        && hex(&value[3..35])
        && !zero(&value[3..35])
        && hex(&value[36..52])
        && !zero(&value[36..52])
        && hex(&value[53..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(head: &str) -> Reject {
        let mut storage = storage();
        match parse(head.as_bytes(), &mut storage, &Config::default().bounded()) {
            Ok(Some(head)) => head.fault.unwrap_or_else(|| panic!("accepted: {head:?}")),
            Ok(None) => panic!("incomplete: {head:?}"),
            Err(reject) => reject,
        }
    }

    fn accept(head: &str, check: impl FnOnce(&Head<'_>)) {
        let mut storage = storage();
        let parsed = parse(head.as_bytes(), &mut storage, &Config::default().bounded());
        let parsed = parsed.unwrap().unwrap();
        assert_eq!(parsed.fault, None, "{head:?}");
        assert_eq!(parsed.size, head.len());
        check(&parsed);
    }

    /// A head with these lines behind the request line and Host.
    fn with(lines: &str) -> String {
        format!("POST /function/f HTTP/1.1\r\nHost: h\r\n{lines}\r\n")
    }

    #[test]
    fn ambiguous_or_malformed_heads_are_refused_with_400() {
        for head in [
            with("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
            with("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
            with("Content-Length: 5\r\nContent-Length: 5\r\n"),
            with("Content-Length: 5\r\ncontent-length: 6\r\n"),
            with("Content-Length: 5, 5\r\n"),
            with("Content-Length: +5\r\n"),
            with("Content-Length: -5\r\n"),
            with("Content-Length: 0x5\r\n"),
            with("Content-Length: 5 5\r\n"),
            with("Content-Length:\r\n"),
            with("Content-Length: 18446744073709551616\r\n"),
            with("Content-Length: 99999999999999999999999\r\n"),
            with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
            with("Content-Length : 5\r\n"),
            with("Bad Name: 5\r\n"),
            with(" leading: space\r\n"),
            with("X: folded\r\n value\r\n"),
            with("X: folded\r\n\tvalue\r\n"),
            with("X: a\rb\r\n"),
            with("X: a\0b\r\n"),
            with("X: a\u{7f}b\r\n"),
            with("X: a\nY: b\r\n"),
            with("no colon\r\n"),
            with(": no name\r\n"),
            with("Host: h\r\n"),
            "GET / HTTP/1.1\r\n\r\n".into(),
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n".into(),
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".into(),
            "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n".into(),
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
            "GET / HTTP/1.1\nHost: h\n\n".into(),
            "GET  / HTTP/1.1\r\nHost: h\r\n\r\n".into(),
            "GE(T / HTTP/1.1\r\nHost: h\r\n\r\n".into(),
            "GET /\0 HTTP/1.1\r\nHost: h\r\n\r\n".into(),
            "\u{16}\u{3}\u{1}\u{2}".into(),
        ] {
            let reject = fault(&head);
            assert_eq!(reject.status(), 400, "{head:?}: {reject:?}");
            assert!(matches!(reject, Reject::Malformed(_)), "{head:?}: {reject:?}");
        }
    }

    #[test]
    fn what_is_well_formed_but_not_served_has_a_status_of_its_own() {
        for (head, reject) in [
            (with("Transfer-Encoding: gzip, chunked\r\n"), Reject::UnknownEncoding),
            (with("Transfer-Encoding: identity\r\n"), Reject::UnknownEncoding),
            (with("Expect: 200-ok\r\n"), Reject::UnknownExpectation),
            (with(&"X: y\r\n".repeat(64)), Reject::HeaderTooLarge),
            (with(&format!("{}: y\r\n", "X".repeat(256))), Reject::HeaderTooLarge),
            (with(&format!("X: {}\r\n", "y".repeat(17_000))), Reject::HeaderTooLarge),
            ("GET / HTTP/2.0\r\nHost: h\r\n\r\n".into(), Reject::UnknownVersion),
            ("GET / HTTP/1.2\r\nHost: h\r\n\r\n".into(), Reject::UnknownVersion),
            (format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(9_000)), Reject::UriTooLong),
        ] {
            assert_eq!(fault(&head), reject, "{head:?}");
        }
        assert!(matches!(fault(&with("X-Nightcore-Timeout-Ms: soon\r\n")), Reject::BadField(_)));
        assert!(matches!(fault(&with("X-Nightcore-Timeout-Ms: -1\r\n")), Reject::BadField(_)));
    }

    #[test]
    fn an_endless_head_is_refused_before_it_ends() {
        let config = Config::default().bounded();
        let refused = |bytes: &str| parse(bytes.as_bytes(), &mut storage(), &config).unwrap_err();
        assert_eq!(refused(&format!("GET /{}", "x".repeat(9_000))), Reject::UriTooLong);
        let fields = "X: y\r\nY: ".to_owned() + &"z".repeat(17_000);
        assert_eq!(refused(&format!("GET / HTTP/1.1\r\n{fields}")), Reject::HeaderTooLarge);
    }

    #[test]
    fn every_prefix_of_a_head_is_incomplete() {
        let head = with("Content-Length: 5\r\nX-Request-Id: a\r\n");
        for size in 0..head.len() {
            let mut storage = storage();
            let config = Config::default().bounded();
            assert!(parse(&head.as_bytes()[..size], &mut storage, &config).unwrap().is_none());
        }
        accept(&head, |head| assert_eq!(head.framing, Framing::Length(5)));
    }

    #[test]
    fn fields_mean_what_they_say() {
        accept(&with("Transfer-Encoding: Chunked\r\nExpect: 100-Continue\r\n"), |head| {
            assert_eq!(head.framing, Framing::Chunked);
            assert_eq!(head.expectation, Expectation::Continue);
            assert_eq!(head.persistence, Persistence::KeepAlive);
        });
        accept(&with("X-Nightcore-Timeout-Ms: 250\r\n"), |head| {
            assert_eq!(head.time_left, TimeLeft::Milliseconds(250));
            assert_eq!(head.framing, Framing::Length(0));
        });
        accept(&with("X-Nightcore-Timeout-Ms: 99999999999999999999\r\n"), |head| {
            assert_eq!(head.time_left, TimeLeft::Milliseconds(TIMEOUT_MS_MAX));
        });
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        accept(&with(&format!("traceparent: {trace}\r\n")), |head| {
            assert_eq!(head.traceparent, trace.as_bytes());
        });
        for odd in [&trace.replace('4', "G"), &trace.replacen("00", "ff", 1), &trace[1..]] {
            accept(&with(&format!("traceparent: {odd}\r\n")), |head| {
                assert!(head.traceparent.is_empty(), "{odd}");
            });
        }
    }

    #[test]
    fn persistence_follows_version_and_connection() {
        use Persistence::{Close, KeepAlive};
        for (version, connection, persistence) in [
            ("1.1", "", KeepAlive),
            ("1.1", "close", Close),
            ("1.1", "X-Other, Close", Close),
            ("1.1", "keep-alive", KeepAlive),
            ("1.0", "", Close),
            ("1.0", "Keep-Alive", KeepAlive),
            ("1.0", "keep-alive, close", Close),
        ] {
            let head = format!("GET / HTTP/{version}\r\nHost:\r\nConnection: {connection}\r\n\r\n");
            accept(&head, |head| assert_eq!(head.persistence, persistence));
        }
    }
}
