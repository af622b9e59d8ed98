//! What came in: the input of a call, as bytes, as text, or with all that HTTP said around it.

use core::str;

use crate::abi::{Field, Raw};
use crate::context::text;
use crate::error::Error;

/// The whole request. Of an internal call only the body is there; the rest is empty.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    raw: Raw<'a>,
    body: &'a [u8],
}

impl<'a> Request<'a> {
    pub(crate) fn new(raw: Raw<'a>, body: &'a [u8]) -> Request<'a> {
        Request { raw, body }
    }

    /// The HTTP method, such as `POST`.
    #[must_use]
    pub fn method(&self) -> &'a str {
        text(self.raw.get(Field::Method))
    }

    /// What followed the function's name in the path: empty, or beginning with a slash.
    #[must_use]
    pub fn suffix(&self) -> &'a str {
        text(self.raw.get(Field::Suffix))
    }

    /// The query string, without the question mark and not decoded.
    #[must_use]
    pub fn query(&self) -> &'a str {
        text(self.raw.get(Field::Query))
    }

    /// All headers in the order they came, names as the client wrote them.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        let raw = self.raw;
        (0..raw.header_count())
            .filter_map(move |index| raw.header_at(index))
            .map(|(name, value)| (text(name), value))
    }

    /// The first header of this name, in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        let mut headers = self.headers();
        headers.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The body, straight in shared memory.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        self.body
    }
}

impl core::fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method())
            .field("suffix", &self.suffix())
            .field("query", &self.query())
            .field("body_size", &self.body.len())
            .finish()
    }
}

/// What a function can take as its input. Implement it for a type of your own to keep decoding out
/// of the function; an error is answered without running it.
pub trait FromRequest<'a>: Sized {
    /// Makes the input out of the request.
    fn from_request(request: Request<'a>) -> Result<Self, Error>;
}

impl<'a> FromRequest<'a> for Request<'a> {
    fn from_request(request: Request<'a>) -> Result<Self, Error> {
        Ok(request)
    }
}

impl<'a> FromRequest<'a> for &'a [u8] {
    fn from_request(request: Request<'a>) -> Result<Self, Error> {
        Ok(request.body)
    }
}

impl<'a> FromRequest<'a> for &'a str {
    fn from_request(request: Request<'a>) -> Result<Self, Error> {
        let text = str::from_utf8(request.body);
        text.map_err(|error| Error::bad_request(format!("the input is not text: {error}")))
    }
}

impl<'a> FromRequest<'a> for Vec<u8> {
    fn from_request(request: Request<'a>) -> Result<Self, Error> {
        Ok(request.body.to_vec())
    }
}

impl<'a> FromRequest<'a> for String {
    fn from_request(request: Request<'a>) -> Result<Self, Error> {
        <&str>::from_request(request).map(str::to_owned)
    }
}
