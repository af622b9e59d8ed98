//! What a client gets, read as strictly as a client can: one answer after the other, each with one
//! length, and nothing that is not an answer.

use serde_json::Value;

/// Header fields of an answer at most: those of a full envelope, and the gateway's.
const HEADERS_MAX: usize = 160;

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    pub status: u16,
    pub body: Vec<u8>,
    /// Whether it says that it is the connection's last.
    pub closes: bool,
}

impl Read {
    /// The `error` of the JSON body that every failure of the runtime's own has.
    pub fn error(&self) -> Option<String> {
        if self.status < 400 {
            return None;
        }
        let json: Value = serde_json::from_slice(&self.body).ok()?;
        json["message"].as_str().expect("a failure has a message");
        json["request_id"].as_str().expect("a failure has a request id");
        Some(json["error"].as_str().expect("a failure has a kind").to_owned())
    }
}

/// Takes all answers apart but the interim ones; `has_body` is asked with what is behind a head whose
/// length is not zero. Panics where a client would be misled.
pub fn read_all(mut bytes: &[u8], has_body: impl Fn(&[u8]) -> bool) -> Vec<Read> {
    let mut answers: Vec<Read> = Vec::new();
    while !bytes.is_empty() {
        assert!(answers.last().is_none_or(|last| !last.closes), "an answer behind the last one");
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let parsed = response.parse(bytes).expect("an answer's head");
        let httparse::Status::Complete(head_size) = parsed else {
            panic!("half a head: {:?}", String::from_utf8_lossy(bytes));
        };
        let head = &bytes[..head_size];
        assert!(head.windows(2).all(|pair| (pair[1] == b'\n') == (pair[0] == b'\r')), "line ends");
        bytes = &bytes[head_size..];
        let status = response.code.expect("a complete head has a status");
        if status == 100 {
            continue;
        }
        assert!((200..=599).contains(&status), "status {status}");
        let values = |name: &str| -> Vec<&[u8]> {
            let named = response.headers.iter().filter(|h| h.name.eq_ignore_ascii_case(name));
            named.map(|header| header.value).collect()
        };
        assert_eq!(values("date").len(), 1);
        assert_eq!(values("x-request-id").len(), 1);
        assert!(values("content-type").len() <= 1 && values("transfer-encoding").is_empty());
        let connection = values("connection");
        assert!(connection.len() <= 1, "{connection:?}");
        let length = values("content-length");
        assert_eq!(length.len(), usize::from(!matches!(status, 204 | 304)), "status {status}");
        let length = length.first().map_or("0", |value| str::from_utf8(value).expect("digits"));
        let mut length: usize = length.parse().expect("a number");
        if length > 0 && !has_body(bytes) {
            length = 0;
        }
        assert!(length <= bytes.len(), "{length} bytes announced, {} sent", bytes.len());
        let (body, rest) = bytes.split_at(length);
        bytes = rest;
        let closes = connection.first().is_some_and(|value| *value == b"close");
        answers.push(Read { status, body: body.to_vec(), closes });
    }
    answers
}
