//! A client that sends exactly the bytes it is told to and reads answers strictly.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// A watchdog, not a bound: no test waits for it unless it fails.
const WATCHDOG: Duration = Duration::from_secs(20);

pub struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} came twice: {:?}", self.headers);
        value
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The value of a string member of a JSON error without escapes.
    pub fn member(&self, name: &str) -> &str {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        let (_, rest) = self.text().split_once(&format!("\"{name}\":\"")).unwrap();
        rest.split_once('"').unwrap().0
    }

    pub fn is_error(&self, status: u16, kind: &str) {
        assert_eq!((self.status, self.member("error")), (status, kind), "{self:?}");
        assert_eq!(Some(self.member("request_id")), self.header("x-request-id"));
    }
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(WATCHDOG)).unwrap();
        stream.set_write_timeout(Some(WATCHDOG)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream, unread: Vec::new() }
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    pub fn finish(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Sends a POST with a body and reads the answer.
    pub fn post(&mut self, path: &str, body: &[u8]) -> Response {
        let size = body.len();
        self.send(format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {size}\r\n\r\n"));
        self.send(body);
        self.response()
    }

    pub fn get(&mut self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
        self.response()
    }

    pub fn response(&mut self) -> Response {
        self.read_response(true)
    }

    /// Of a request with method HEAD.
    pub fn response_without_body(&mut self) -> Response {
        self.read_response(false)
    }

    /// Fails unless the server closes its half in order, without another byte.
    pub fn expect_close(&mut self) {
        assert_eq!(self.unread, b"", "bytes behind the last answer");
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(0) => {}
            other => panic!("expected the end, got {other:?} {byte:?}"),
        }
    }

    /// The bytes up to the end, however it comes.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.unread)
    }

    fn fill(&mut self) -> bool {
        let mut buffer = [0; 64 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(size) => {
                self.unread.extend_from_slice(&buffer[..size]);
                size > 0
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("{error}"),
        }
    }

    fn read_response(&mut self, has_body: bool) -> Response {
        let end = loop {
            if let Some(at) = self.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.fill(), "the connection ended within an answer: {:?}", self.unread);
        };
        let head = String::from_utf8(self.unread.drain(..end).collect()).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status_line = lines.next().unwrap();
        let status = status_line.strip_prefix("HTTP/1.1 ").unwrap()[..3].parse().unwrap();
        let split = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_owned(), value.to_owned())
        };
        let mut response =
            Response { status, headers: lines.map(split).collect(), body: Vec::new() };
        if status != 100 {
            assert_eq!(response.header("date").unwrap().len(), 29);
        }
        if has_body && !matches!(status, 100 | 204 | 304) {
            let size: usize = response.header("content-length").unwrap().parse().unwrap();
            while self.unread.len() < size {
                assert!(self.fill(), "the connection ended within a body");
            }
            response.body = self.unread.drain(..size).collect();
        }
        response
    }
}
