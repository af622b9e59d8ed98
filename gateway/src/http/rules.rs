//! The rules of RFC 9112 and 9110 on the fields of a head: where the request ends, whether the
//! connection goes on, what the client expects. Anything that two implementations could read
//! differently is refused, as request smuggling lives on such differences.

use httparse::Header;
use ipc::envelope::HEADER_NAME_MAX;

use crate::http::head::{Expectation, Framing, Head, Persistence, TimeLeft, Version};
use crate::reject::Reject;

/// A longer time than this is no deadline; it also keeps sums of times far from overflow.
pub(crate) const TIMEOUT_MS_MAX: u64 = 7 * 24 * 3600 * 1000;

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

    fn only(self) -> Option<&'a [u8]> {
        (self.count == 1).then_some(self.value)
    }
}

/// The fields the gateway itself reads, found in one pass.
#[derive(Default)]
pub(crate) struct Fields<'a> {
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
    pub(crate) fn collect(headers: &'a [Header<'a>]) -> Fields<'a> {
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

    /// The first one: it is checked where it is taken.
    pub(crate) fn request_id(&self) -> &'a [u8] {
        self.request_id.value
    }

    /// Empty unless there is one of the W3C shape.
    pub(crate) fn traceparent(&self) -> &'a [u8] {
        self.traceparent.only().filter(|value| is_traceparent(value)).unwrap_or_default()
    }

    pub(crate) fn expectation(&self) -> Result<Expectation, Reject> {
        match (self.expect.count, self.expect.only()) {
            (0, _) => Ok(Expectation::None),
            (_, Some(value)) if value.eq_ignore_ascii_case(b"100-continue") => {
                Ok(Expectation::Continue)
            }
            _ => Err(Reject::UnknownExpectation),
        }
    }

    pub(crate) fn time_left(&self) -> Result<TimeLeft, Reject> {
        match self.timeout.count {
            0 => Ok(TimeLeft::Unlimited),
            1 => timeout_ms(self.timeout.value).map(TimeLeft::Milliseconds),
            _ => Err(Reject::BadField("more than one X-Nightcore-Timeout-Ms")),
        }
    }

    /// Whether a field's name is longer than a function can be told.
    pub(crate) fn has_oversized_name(&self) -> bool {
        self.name_too_long
    }

    pub(crate) fn persistence(&self, version: Version) -> Persistence {
        let keep_alive = match version {
            Version::Http11 => !self.connection_close,
            Version::Http10 => self.connection_keep_alive && !self.connection_close,
        };
        if keep_alive { Persistence::KeepAlive } else { Persistence::Close }
    }
}

/// The rules, most dangerous first. Fills in what the accepted fields mean.
pub(crate) fn apply(fields: &Fields<'_>, head: &mut Head<'_>) -> Result<(), Reject> {
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
    if head.version == Version::Http11 {
        head.expectation = fields.expectation()?;
    }
    head.time_left = fields.time_left()?;
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
