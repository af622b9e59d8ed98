//! A request head: `httparse` for the syntax, and on top of it the limits here and the `rules`.
//!
//! A head that `httparse` accepts but the rules refuse is still returned, with its `fault`: its
//! request id and method are needed to answer it.

use std::mem::MaybeUninit;

use httparse::Header;

use crate::config::{Config, HEADERS_LIMIT};
use crate::http::rules::{self, Fields};
use crate::reject::Reject;

/// Longest request target. The path of a function needs little; the rest is its query.
pub(crate) const TARGET_MAX: usize = 8 * 1024;
/// Longest method looked for when the request line is not complete yet.
const METHOD_MAX: usize = 32;

/// Room for the fields of one head.
pub(crate) type Storage<'b> = [MaybeUninit<Header<'b>>; HEADERS_LIMIT];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Head,
    Post,
    Other,
}

impl Method {
    pub(crate) fn of(text: &[u8]) -> Method {
        match text {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            _ => Method::Other,
        }
    }
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

impl<'a> Head<'a> {
    /// Names and values of its fields.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        self.headers.iter().map(|header| (header.name.as_bytes(), header.value))
    }
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
    let limit = Limit::of(bytes, config.head_max as usize);
    let window = &bytes[..bytes.len().min(limit.size)];
    let mut request = httparse::Request::new(&mut []);
    let fields = &mut storage[..config.headers_max];
    let size = match request.parse_with_uninit_headers(window, fields) {
        Ok(httparse::Status::Complete(size)) => size,
        Ok(httparse::Status::Partial) if bytes.len() < limit.size => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(limit.reject),
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
    require_crlf(&bytes[..size])?;
    let mut head = Head {
        size,
        method: Method::of(method.as_bytes()),
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
    head.request_id = fields.request_id();
    head.traceparent = fields.traceparent();
    head.persistence = fields.persistence(head.version);
    head.fault = rules::apply(&fields, &mut head).err();
    Ok(Some(head))
}

/// How many bytes may be looked at for the end of a head, and why there are no more. Nothing behind
/// them is read, so a head that comes at once is refused as one that comes in pieces.
struct Limit {
    size: usize,
    reject: Reject,
}

impl Limit {
    fn of(bytes: &[u8], head_max: usize) -> Limit {
        let line_max = (METHOD_MAX + TARGET_MAX).min(head_max);
        let line = bytes.get(..line_max);
        if line.is_some_and(|line| !line.contains(&b'\n')) {
            return Limit { size: line_max, reject: Reject::UriTooLong };
        }
        Limit { size: head_max, reject: Reject::HeaderTooLarge }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::rules::TIMEOUT_MS_MAX;

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
    fn a_head_over_a_limit_is_refused_alike_whole_and_in_pieces() {
        let config = Config { head_max: 1024, ..Config::default() }.bounded();
        let long = |size: usize| "x".repeat(size);
        for head in [
            format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", long(1100)),
            format!("GET /{}( HTTP/1.1\r\nHost: h\r\n\r\n", long(1019)),
            format!("{}( / HTTP/1.1\r\nHost: h\r\n\r\n", long(1024)),
            with(&format!("X: {}\r\n", long(1100))),
            with(&format!("X: {}\0\r\n", long(1100))),
        ] {
            let parse = |size: usize| {
                let mut storage = storage();
                let parsed = parse(&head.as_bytes()[..size], &mut storage, &config);
                parsed.map(|head| head.is_some())
            };
            let whole = parse(head.len());
            let pieces = (1..=head.len()).map(parse).find(|parsed| *parsed != Ok(false));
            assert!(whole.is_err(), "{head:?}");
            assert_eq!(Some(whole), pieces, "{head:?}");
        }
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
