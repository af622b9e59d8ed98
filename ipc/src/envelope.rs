//! What travels beside a payload, as a list of fields: tag (1 byte), zero (1), length (2, little
//! endian), bytes. An empty field is an absent one.
//!
//! The parser takes anything a stranger may write: it checks every length, refuses unknown,
//! repeated, empty and oversized fields and control characters (a header of a function must not
//! split the gateway's answer), and never panics.

use crate::layout::ENVELOPE_MAX;

/// Fields of an envelope at most, headers included: bounds what a stranger can make us parse.
pub const FIELDS_MAX: usize = 128;
/// Bytes of a header's name at most: its length is one byte.
pub const HEADER_NAME_MAX: usize = 255;

const FIELD_HEAD: usize = 4;

const REQUEST_ID: u8 = 1;
const TRACEPARENT: u8 = 2;
const METHOD: u8 = 3;
const SUFFIX: u8 = 4;
const QUERY: u8 = 5;
const HEADER: u8 = 6;
const FUNCTION: u8 = 7;
const STATUS: u8 = 8;
const CONTENT_TYPE: u8 = 9;

/// What bytes are appended to.
pub trait Sink {
    /// Appends all of them.
    fn append(&mut self, bytes: &[u8]);
}

/// The envelope of a `Dispatch`, parsed. Absent fields are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request<'a> {
    /// Of an external call.
    pub method: &'a [u8],
    /// The path behind the function's name: empty, or begins with "/".
    pub suffix: &'a [u8],
    /// Behind the "?".
    pub query: &'a [u8],
    /// Names the external request that this call serves.
    pub request_id: &'a [u8],
    /// W3C trace context.
    pub traceparent: &'a [u8],
    /// In the order they came.
    pub headers: Headers<'a>,
}

/// The envelope of a `Dispatch`, to be written.
#[derive(Clone, Debug, Default)]
pub struct RequestFields<'a, H> {
    /// As in [`Request`].
    pub method: &'a [u8],
    /// As in [`Request`].
    pub suffix: &'a [u8],
    /// As in [`Request`].
    pub query: &'a [u8],
    /// As in [`Request`].
    pub request_id: &'a [u8],
    /// As in [`Request`].
    pub traceparent: &'a [u8],
    /// Names and values.
    pub headers: H,
}

/// The envelope of a `Complete` or `Answer`, parsed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply<'a> {
    /// HTTP status, 200 to 599, if the function chose one.
    pub status: Option<u16>,
    /// Empty if the function named none.
    pub content_type: &'a [u8],
    /// In the order they came.
    pub headers: Headers<'a>,
}

/// The envelope of a `Complete` or `Answer`, to be written.
#[derive(Clone, Debug, Default)]
pub struct ReplyFields<'a, H> {
    /// As in [`Reply`].
    pub status: Option<u16>,
    /// As in [`Reply`].
    pub content_type: &'a [u8],
    /// Names and values.
    pub headers: H,
}

/// Headers of a parsed envelope: names and values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers<'a> {
    /// Fields of a checked envelope, other ones among them.
    fields: &'a [u8],
}

/// Bytes that are no envelope, or fields that cannot become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// More bytes than an envelope may have.
    #[error("an envelope of {0} bytes where {ENVELOPE_MAX} are allowed")]
    Size(usize),
    /// More fields than an envelope may have.
    #[error("an envelope of more than {FIELDS_MAX} fields")]
    Fields,
    /// No head of a field, or one that claims more bytes than are left.
    #[error("no whole field at byte {0} of the envelope")]
    Malformed(usize),
    /// A field that this kind of envelope does not have.
    #[error("field {0} does not belong in this envelope")]
    Tag(u8),
    /// A field of one value came twice.
    #[error("field {0} came twice")]
    Repeated(u8),
    /// A field's value is empty, too long, or not of its form.
    #[error("field {0} has no valid value")]
    Value(u8),
    /// A call without a function's name.
    #[error("no function is named")]
    NoFunction,
}

impl<'a, H: Iterator<Item = (&'a [u8], &'a [u8])> + Clone> RequestFields<'a, H> {
    /// Bytes that `encode` writes, if a parser would take them.
    pub fn encoded_size(&self) -> Result<usize, EnvelopeError> {
        let mut size = Size::default();
        for (tag, value) in self.fields() {
            size.field(tag, value)?;
        }
        size.headers(self.headers.clone())
    }

    /// Writes it. The caller has checked `encoded_size`.
    pub fn encode(&self, out: &mut impl Sink) {
        for (tag, value) in self.fields() {
            write_field(out, tag, value);
        }
        write_headers(out, self.headers.clone());
    }

    fn fields(&self) -> [(u8, &'a [u8]); 5] {
        [
            (REQUEST_ID, self.request_id),
            (TRACEPARENT, self.traceparent),
            (METHOD, self.method),
            (SUFFIX, self.suffix),
            (QUERY, self.query),
        ]
    }
}

impl<'a, H: Iterator<Item = (&'a [u8], &'a [u8])> + Clone> ReplyFields<'a, H> {
    /// Bytes that `encode` writes, if a parser would take them.
    pub fn encoded_size(&self) -> Result<usize, EnvelopeError> {
        let mut size = Size::default();
        if let Some(status) = self.status {
            size.field(STATUS, &status.to_le_bytes())?;
        }
        size.field(CONTENT_TYPE, self.content_type)?;
        size.headers(self.headers.clone())
    }

    /// Writes it. The caller has checked `encoded_size`.
    pub fn encode(&self, out: &mut impl Sink) {
        if let Some(status) = self.status {
            write_field(out, STATUS, &status.to_le_bytes());
        }
        write_field(out, CONTENT_TYPE, self.content_type);
        write_headers(out, self.headers.clone());
    }
}

/// Bytes of the envelope of a `Call` of `function`, if a parser would take it.
pub fn call_size(function: &[u8]) -> Result<usize, EnvelopeError> {
    if function.is_empty() {
        return Err(EnvelopeError::NoFunction);
    }
    let mut size = Size::default();
    size.field(FUNCTION, function)?;
    size.total()
}

/// Writes the envelope of a `Call`. The caller has checked `call_size`.
pub fn encode_call(function: &[u8], out: &mut impl Sink) {
    write_field(out, FUNCTION, function);
}

/// The function that a `Call`'s envelope names.
pub fn parse_call(envelope: &[u8]) -> Result<&[u8], EnvelopeError> {
    let mut function: &[u8] = &[];
    for field in Fields::new(envelope)? {
        let (tag, value) = field?;
        match tag {
            FUNCTION => set_once(&mut function, tag, value)?,
            _ => return Err(EnvelopeError::Tag(tag)),
        }
    }
    if function.is_empty() { Err(EnvelopeError::NoFunction) } else { Ok(function) }
}

/// Parses the envelope of a `Dispatch`.
pub fn parse_request(envelope: &[u8]) -> Result<Request<'_>, EnvelopeError> {
    let mut request = Request { headers: Headers { fields: envelope }, ..Request::default() };
    for field in Fields::new(envelope)? {
        let (tag, value) = field?;
        match tag {
            REQUEST_ID => set_once(&mut request.request_id, tag, value)?,
            TRACEPARENT => set_once(&mut request.traceparent, tag, value)?,
            METHOD => set_once(&mut request.method, tag, value)?,
            SUFFIX => set_once(&mut request.suffix, tag, value)?,
            QUERY => set_once(&mut request.query, tag, value)?,
            HEADER => {}
            _ => return Err(EnvelopeError::Tag(tag)),
        }
    }
    Ok(request)
}

/// Parses the envelope of a `Complete` or `Answer`.
pub fn parse_reply(envelope: &[u8]) -> Result<Reply<'_>, EnvelopeError> {
    let mut reply = Reply { headers: Headers { fields: envelope }, ..Reply::default() };
    let mut status: &[u8] = &[];
    for field in Fields::new(envelope)? {
        let (tag, value) = field?;
        match tag {
            STATUS => set_once(&mut status, tag, value)?,
            CONTENT_TYPE => set_once(&mut reply.content_type, tag, value)?,
            HEADER => {}
            _ => return Err(EnvelopeError::Tag(tag)),
        }
    }
    if let [low, high] = *status {
        reply.status = Some(u16::from_le_bytes([low, high]));
    }
    Ok(reply)
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            // The envelope was checked when it was parsed: every split is there.
            let (tag, value, rest) = split_field(self.fields)?;
            self.fields = rest;
            if tag == HEADER {
                return split_header(value);
            }
        }
    }
}

impl Sink for Vec<u8> {
    fn append(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Fills a buffer from its front, as `std::io::Write` does. Panics if it is too small.
impl Sink for &mut [u8] {
    fn append(&mut self, bytes: &[u8]) {
        let (front, rest) = core::mem::take(self).split_at_mut(bytes.len());
        front.copy_from_slice(bytes);
        *self = rest;
    }
}

/// Checked fields of an envelope.
struct Fields<'a> {
    all: usize,
    rest: &'a [u8],
    count: usize,
}

impl<'a> Fields<'a> {
    fn new(envelope: &'a [u8]) -> Result<Self, EnvelopeError> {
        if envelope.len() > ENVELOPE_MAX {
            return Err(EnvelopeError::Size(envelope.len()));
        }
        Ok(Fields { all: envelope.len(), rest: envelope, count: 0 })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u8, &'a [u8]), EnvelopeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        self.count += 1;
        if self.count > FIELDS_MAX {
            return Some(Err(EnvelopeError::Fields));
        }
        let Some((tag, value, rest)) = split_field(self.rest) else {
            return Some(Err(EnvelopeError::Malformed(self.all - self.rest.len())));
        };
        self.rest = rest;
        Some(check_value(tag, value).map(|()| (tag, value)))
    }
}

/// Sums up what an encoder will write, and refuses what a parser would.
#[derive(Default)]
struct Size {
    bytes: usize,
    count: usize,
}

impl Size {
    fn field(&mut self, tag: u8, value: &[u8]) -> Result<(), EnvelopeError> {
        if value.is_empty() {
            return Ok(());
        }
        check_value(tag, value)?;
        self.add(tag, value.len())
    }

    fn headers<'a>(
        mut self,
        headers: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<usize, EnvelopeError> {
        for (name, value) in headers {
            check_header(name, value)?;
            self.add(HEADER, 1 + name.len() + value.len())?;
        }
        self.total()
    }

    fn add(&mut self, tag: u8, size: usize) -> Result<(), EnvelopeError> {
        if size > usize::from(u16::MAX) {
            return Err(EnvelopeError::Value(tag));
        }
        self.bytes += FIELD_HEAD + size;
        self.count += 1;
        if self.count > FIELDS_MAX { Err(EnvelopeError::Fields) } else { Ok(()) }
    }

    fn total(&self) -> Result<usize, EnvelopeError> {
        if self.bytes > ENVELOPE_MAX {
            return Err(EnvelopeError::Size(self.bytes));
        }
        Ok(self.bytes)
    }
}

fn split_field(fields: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let ([tag, zero, low, high], rest) = fields.split_first_chunk::<FIELD_HEAD>()?;
    if *zero != 0 {
        return None;
    }
    let (value, rest) = rest.split_at_checked(u16::from_le_bytes([*low, *high]).into())?;
    Some((*tag, value, rest))
}

fn split_header(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let (size, rest) = value.split_first()?;
    rest.split_at_checked(usize::from(*size))
}

fn set_once<'a>(place: &mut &'a [u8], tag: u8, value: &'a [u8]) -> Result<(), EnvelopeError> {
    if !place.is_empty() {
        return Err(EnvelopeError::Repeated(tag));
    }
    *place = value;
    Ok(())
}

fn check_value(tag: u8, value: &[u8]) -> Result<(), EnvelopeError> {
    let valid = match tag {
        HEADER => {
            let (name, value) = split_header(value).ok_or(EnvelopeError::Value(tag))?;
            return check_header(name, value);
        }
        STATUS => match *value {
            [low, high] => (200..600).contains(&u16::from_le_bytes([low, high])),
            _ => false,
        },
        METHOD => is_token(value),
        SUFFIX => value.first() == Some(&b'/') && is_text(value),
        _ => !value.is_empty() && is_text(value),
    };
    if valid { Ok(()) } else { Err(EnvelopeError::Value(tag)) }
}

fn check_header(name: &[u8], value: &[u8]) -> Result<(), EnvelopeError> {
    let valid = name.len() <= HEADER_NAME_MAX && is_token(name) && is_text(value);
    if valid { Ok(()) } else { Err(EnvelopeError::Value(HEADER)) }
}

/// No control character but the tab: nothing that ends a header or a log line.
fn is_text(value: &[u8]) -> bool {
    value.iter().all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f))
}

/// A token of RFC 9110.
fn is_token(value: &[u8]) -> bool {
    !value.is_empty()
        && value
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

fn write_field(out: &mut impl Sink, tag: u8, value: &[u8]) {
    if value.is_empty() {
        return;
    }
    write_head(out, tag, value.len());
    out.append(value);
}

fn write_headers<'a>(out: &mut impl Sink, headers: impl Iterator<Item = (&'a [u8], &'a [u8])>) {
    for (name, value) in headers {
        write_head(out, HEADER, 1 + name.len() + value.len());
        out.append(&[u8::try_from(name.len()).expect("encoded_size was checked")]);
        out.append(name);
        out.append(value);
    }
}

fn write_head(out: &mut impl Sink, tag: u8, size: usize) {
    let [low, high] = u16::try_from(size).expect("encoded_size was checked").to_le_bytes();
    out.append(&[tag, 0, low, high]);
}
