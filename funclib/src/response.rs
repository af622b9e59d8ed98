//! What goes out: bytes, or bytes with status, content type and headers.

use std::borrow::Cow;

use core::ffi::c_int;

use crate::abi::{INVALID, OK, Raw};
use crate::context::Answer;
use crate::error::{Error, ErrorKind};

/// Where a result goes: straight into the shared memory from which it is sent.
pub struct Output<'c> {
    raw: Raw<'c>,
}

impl<'c> Output<'c> {
    pub(crate) fn new(raw: Raw<'c>) -> Output<'c> {
        Output { raw }
    }

    /// Appends to the body.
    pub fn append(&mut self, data: &[u8]) -> Result<(), Error> {
        accepted(self.raw.output_append(data), || {
            format!("no room for {} more bytes of the answer", data.len())
        })
    }

    fn begin(&mut self, response: &Response) -> Result<(), Error> {
        if let Some(status) = response.status {
            accepted(self.raw.set_status(status), || format!("{status} is no final HTTP status"))?;
        }
        if let Some(value) = &response.content_type {
            let code = self.raw.set_content_type(value);
            accepted(code, || format!("{value:?} is no content type"))?;
        }
        for (name, value) in &response.headers {
            let code = self.raw.add_header(name, value);
            accepted(code, || format!("{name:?}: {value:?} is no header, or one too many"))?;
        }
        Ok(())
    }
}

/// A result with what HTTP wants to know about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    status: Option<u16>,
    content_type: Option<Cow<'static, str>>,
    headers: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    body: Vec<u8>,
}

impl Response {
    /// A response with this body, status 200, no content type.
    pub fn new(body: impl Into<Vec<u8>>) -> Response {
        Response { body: body.into(), ..Response::default() }
    }

    /// Plain text in UTF-8.
    pub fn text(body: impl Into<String>) -> Response {
        Response::new(body.into()).content_type("text/plain; charset=utf-8")
    }

    /// HTML in UTF-8.
    pub fn html(body: impl Into<String>) -> Response {
        Response::new(body.into()).content_type("text/html; charset=utf-8")
    }

    /// JSON, already serialised.
    pub fn json(body: impl Into<Vec<u8>>) -> Response {
        Response::new(body).content_type("application/json")
    }

    /// Sets the HTTP status, 200 to 599.
    #[must_use]
    pub fn status(mut self, status: u16) -> Response {
        self.status = Some(status);
        self
    }

    /// Sets the content type.
    #[must_use]
    pub fn content_type(mut self, value: impl Into<Cow<'static, str>>) -> Response {
        self.content_type = Some(value.into());
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<Cow<'static, str>>,
    ) -> Response {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// What a function can return.
pub trait Reply {
    /// Writes the result to `output`.
    fn reply(self, output: Output<'_>) -> Result<(), Error>;
}

impl Reply for () {
    fn reply(self, _output: Output<'_>) -> Result<(), Error> {
        Ok(())
    }
}

impl Reply for &[u8] {
    fn reply(self, mut output: Output<'_>) -> Result<(), Error> {
        output.append(self)
    }
}

impl Reply for Vec<u8> {
    fn reply(self, mut output: Output<'_>) -> Result<(), Error> {
        output.append(&self)
    }
}

impl Reply for &str {
    fn reply(self, mut output: Output<'_>) -> Result<(), Error> {
        output.append(self.as_bytes())
    }
}

impl Reply for String {
    fn reply(self, mut output: Output<'_>) -> Result<(), Error> {
        output.append(self.as_bytes())
    }
}

impl Reply for Response {
    fn reply(self, mut output: Output<'_>) -> Result<(), Error> {
        output.begin(&self)?;
        output.append(&self.body)
    }
}

/// Passes the body of another function's answer on.
impl Reply for Answer<'_> {
    fn reply(self, mut output: Output<'_>) -> Result<(), Error> {
        output.append(&self)
    }
}

impl<T: Reply, E: Into<Error>> Reply for Result<T, E> {
    fn reply(self, output: Output<'_>) -> Result<(), Error> {
        self.map_err(Into::into)?.reply(output)
    }
}

/// Success, or the error with this message.
fn accepted(code: c_int, message: impl FnOnce() -> String) -> Result<(), Error> {
    match code {
        OK => Ok(()),
        INVALID => Err(Error::failed(message())),
        code => Err(Error::new(ErrorKind::from_code(code), message())),
    }
}
