//! HTTP/1.1 as bytes: sends whatever it is told, takes only what is well-formed.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use nix::sys::socket::{setsockopt, sockopt};
use serde::Deserialize;

use crate::tls::Stream;
use crate::watchdog::PATIENCE;

/// A head of this size was not written by us.
const HEAD_SIZE_MAX: usize = 64 << 10;
const CHUNK: usize = 64 << 10;

/// The bytes of `GET path`.
#[must_use]
pub fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").into_bytes()
}

/// The bytes of `POST path`.
#[must_use]
pub fn post(path: &str, body: &[u8]) -> Vec<u8> {
    request("POST", path, "", body)
}

/// The bytes of any request with a length; `headers` are whole lines.
#[must_use]
pub fn request(method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let size = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: test\r\n{headers}Content-Length: {size}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// A connection to the gateway.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    /// Received, but for the first `taken` bytes not looked at yet.
    buffer: Vec<u8>,
    taken: usize,
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Of the status line.
    pub status: u16,
    /// In the order they came.
    pub headers: Vec<(String, String)>,
    /// Without its framing.
    pub body: Vec<u8>,
}

/// The body of a failure.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// The kind, a word for programs.
    pub error: String,
    /// For people.
    pub message: String,
    /// The same as in the header.
    pub request_id: String,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(address: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Connection::over(Stream::Plain(stream)))
    }

    /// One that stands already.
    #[must_use]
    pub fn over(stream: Stream) -> Connection {
        Connection { stream, buffer: Vec::new(), taken: 0 }
    }

    /// What it goes over.
    pub fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// Sends bytes as they are.
    ///
    /// # Panics
    /// If the peer does not take them.
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("the request can be sent");
    }

    /// The same for a peer that may have gone.
    ///
    /// # Errors
    /// What the system says.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Ends the sending half; answers can still be read.
    pub fn end_sending(&mut self) {
        self.stream.end_sending();
    }

    /// Breaks the connection: the peer sees a reset, whatever is under way.
    ///
    /// # Panics
    /// If the system does not know how.
    pub fn reset(self) {
        let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(self.stream.socket(), sockopt::Linger, &at_once).expect("a socket");
    }

    /// Reads the next answer.
    ///
    /// # Panics
    /// If none comes, or a malformed one.
    pub fn read(&mut self) -> Answer {
        self.try_read(Body::Present).expect("a well-formed answer").expect("an answer, not the end")
    }

    /// Reads the answer to `HEAD`.
    ///
    /// # Panics
    /// If none comes, or a malformed one.
    pub fn read_head_only(&mut self) -> Answer {
        self.try_read(Body::Absent).expect("a well-formed answer").expect("an answer, not the end")
    }

    /// Sends a request and reads its answer.
    ///
    /// # Panics
    /// If either fails.
    pub fn exchange(&mut self, request: &[u8]) -> Answer {
        self.send(request);
        self.read()
    }

    /// Reads the next answer, or the end if the peer closes in good order where one could begin.
    ///
    /// # Errors
    /// `InvalidData` for what is malformed, `UnexpectedEof` for an answer that breaks off.
    pub fn try_read(&mut self, body: Body) -> io::Result<Option<Answer>> {
        let Some(head) = self.read_head()? else { return Ok(None) };
        let mut answer = parse_head(&head)?;
        if body == Body::Absent || answer.status / 100 == 1 || matches!(answer.status, 204 | 304) {
            return Ok(Some(answer));
        }
        answer.body = match (answer.header("content-length"), answer.header("transfer-encoding")) {
            (Some(length), None) => {
                let length = length.parse().map_err(|_| malformed("Content-Length"))?;
                self.take(length)?
            }
            (None, Some("chunked")) => self.read_chunks()?,
            _ => return Err(malformed("neither Content-Length nor chunked, or both")),
        };
        Ok(Some(answer))
    }

    /// Reads until the peer closes in good order; gives what had not been read before.
    ///
    /// # Panics
    /// If the connection is reset instead, or stays open.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        while self.fill().expect("the peer closes in good order") {}
        let rest = self.buffer.split_off(self.taken);
        self.buffer.clear();
        self.taken = 0;
        rest
    }

    /// Asserts that the peer closes in good order and says nothing before.
    ///
    /// # Panics
    /// If not.
    pub fn expect_end(&mut self) {
        let rest = self.read_to_end();
        assert!(rest.is_empty(), "more than was asked for: {:?}", String::from_utf8_lossy(&rest));
    }

    /// Whether the peer has closed or broken the connection, without waiting for it.
    pub fn has_ended(&mut self) -> bool {
        let socket = self.stream.socket();
        socket.set_nonblocking(true).expect("a socket");
        let peeked = socket.peek(&mut [0]);
        socket.set_nonblocking(false).expect("a socket");
        match peeked {
            Ok(size) => size == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }

    /// More bytes; `false` at the end.
    fn fill(&mut self) -> io::Result<bool> {
        if self.taken == self.buffer.len() {
            self.buffer.clear();
            self.taken = 0;
        }
        let size = self.buffer.len();
        self.buffer.resize(size + CHUNK, 0);
        let read = self.stream.read(&mut self.buffer[size..]);
        self.buffer.truncate(size + *read.as_ref().unwrap_or(&0));
        read.map(|count| count > 0)
    }

    fn fill_or_fail(&mut self) -> io::Result<()> {
        if self.fill()? { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn unread(&self) -> &[u8] {
        &self.buffer[self.taken..]
    }

    /// Up to and without the empty line; nothing if the connection ends before the first byte.
    fn read_head(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(size) = self.unread().windows(4).position(|window| window == b"\r\n\r\n") {
                let head = self.unread()[..size].to_vec();
                self.taken += size + 4;
                return Ok(Some(head));
            }
            if self.unread().len() > HEAD_SIZE_MAX {
                return Err(malformed("a head without end"));
            }
            if self.unread().is_empty() {
                if !self.fill()? {
                    return Ok(None);
                }
            } else {
                self.fill_or_fail()?;
            }
        }
    }

    fn take(&mut self, size: usize) -> io::Result<Vec<u8>> {
        while self.unread().len() < size {
            self.fill_or_fail()?;
        }
        let bytes = self.unread()[..size].to_vec();
        self.taken += size;
        Ok(bytes)
    }

    fn take_line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(size) = self.unread().windows(2).position(|window| window == b"\r\n") {
                let line = self.take(size)?;
                self.taken += 2;
                return Ok(line);
            }
            self.fill_or_fail()?;
        }
    }

    fn read_chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = String::from_utf8(self.take_line()?).map_err(|_| malformed("chunk size"))?;
            let size = usize::from_str_radix(&line, 16).map_err(|_| malformed("chunk size"))?;
            body.extend(self.take(size)?);
            if !self.take_line()?.is_empty() {
                return Err(malformed("a chunk's end"));
            }
            if size == 0 {
                return Ok(body);
            }
        }
    }
}

/// Whether an answer's head is followed by its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// As usual.
    Present,
    /// In the answer to `HEAD`.
    Absent,
}

impl Answer {
    /// The value of a header that came once; names in lower case.
    ///
    /// # Panics
    /// If it came more often.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} came more than once: {self:?}");
        value
    }

    /// The body, which is text.
    ///
    /// # Panics
    /// If it is not.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    /// The body, which is JSON.
    ///
    /// # Panics
    /// If it is not.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let parsed = serde_json::from_slice(&self.body);
        parsed.unwrap_or_else(|error| panic!("not JSON: {error}: {:?}", self.show()))
    }

    /// Whether the connection ends behind this answer.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    /// The body, if the answer is a success.
    ///
    /// # Panics
    /// If it is not.
    pub fn ok(&self) -> &[u8] {
        assert_eq!(self.status, 200, "{}", self.show());
        &self.body
    }

    /// The failure, if the answer is one in every respect the contract names.
    ///
    /// # Panics
    /// If it is not.
    pub fn failure(&self, status: u16, kind: &str) -> Failure {
        assert_eq!(self.status, status, "{}", self.show());
        assert_eq!(self.header("content-type"), Some("application/json"), "{}", self.show());
        let failure: Failure = serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not the JSON of a failure: {error}: {}", self.show()));
        assert_eq!(failure.error, kind, "{}", self.show());
        assert!(!failure.message.is_empty(), "{}", self.show());
        assert!(!failure.request_id.is_empty(), "{}", self.show());
        let id = self.header("x-request-id");
        assert_eq!(id, Some(failure.request_id.as_str()), "{}", self.show());
        failure
    }

    /// For the messages of failed assertions.
    #[must_use]
    pub fn show(&self) -> String {
        let start = &self.body[..self.body.len().min(400)];
        let size = self.body.len();
        format!(
            "{} {:?} {size} bytes: {:?}",
            self.status,
            self.headers,
            String::from_utf8_lossy(start)
        )
    }
}

fn parse_head(head: &[u8]) -> io::Result<Answer> {
    let text = std::str::from_utf8(head).map_err(|_| malformed("a head that is no text"))?;
    let mut lines = text.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = status_line.strip_prefix("HTTP/1.1 ").and_then(|rest| {
        let (digits, _reason) = rest.split_once(' ')?;
        (digits.len() == 3).then(|| digits.parse::<u16>().ok())?
    });
    let status = status.ok_or_else(|| malformed(&format!("status line {status_line:?}")))?;
    let headers = lines.map(|line| {
        let parts = line.split_once(": ").filter(|(name, value)| {
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && value.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        });
        let (name, value) = parts.ok_or_else(|| malformed(&format!("header line {line:?}")))?;
        Ok((name.to_owned(), value.to_owned()))
    });
    let headers = headers.collect::<io::Result<Vec<_>>>()?;
    Ok(Answer { status, headers, body: Vec::new() })
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed answer: {what}"))
}
