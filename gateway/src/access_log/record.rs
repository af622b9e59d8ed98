//! What the log tells of one request. Plain values of a fixed size, so that a shard allocates nothing
//! for it; the thread of the log makes text of them.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipc::Times;
use serde::{Serialize, Serializer};

use crate::auth::{Client, Identity};

/// A short text within a record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Label<const SIZE: usize> {
    bytes: [u8; SIZE],
    size: u8,
}

/// One request and what became of it.
#[derive(Clone, Debug)]
pub struct Record {
    /// When it was answered.
    pub time: SystemTime,
    /// As in `X-Request-Id`.
    pub request_id: Label<64>,
    /// As sent; empty where no head could be read.
    pub method: Label<16>,
    /// The name in the path; `None` for the gateway's own resources and for what is no path.
    pub function: Option<Label<64>>,
    /// `None`: the client left before.
    pub status: Option<u16>,
    /// As gRPC says it, where that was spoken.
    pub grpc_status: Option<u16>,
    /// Of the request: head, and body without its framing.
    pub bytes_in: u64,
    /// Of the answer, with its head.
    pub bytes_out: u64,
    /// Of a call that ran.
    pub times: Option<Times>,
    /// Who connected.
    pub peer: Option<SocketAddr>,
    /// Whose key or token it was.
    pub client: Option<Client>,
}

impl<const SIZE: usize> Label<SIZE> {
    /// Of nothing.
    pub const EMPTY: Label<SIZE> = Label { bytes: [0; SIZE], size: 0 };
    const FITS: () = assert!(SIZE <= u8::MAX as usize);

    /// The text, as far as it fits.
    #[must_use]
    pub fn new(text: &[u8]) -> Label<SIZE> {
        let () = Self::FITS;
        let size = text.len().min(SIZE);
        let mut bytes = [0; SIZE];
        bytes[..size].copy_from_slice(&text[..size]);
        Label { bytes, size: u8::try_from(size).unwrap_or(0) }
    }

    fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes[..usize::from(self.size)])
    }
}

impl<const SIZE: usize> std::fmt::Debug for Label<SIZE> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.text())
    }
}

impl<const SIZE: usize> Serialize for Label<SIZE> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

/// The members of a line, in their order.
#[derive(Serialize)]
struct Line<'a> {
    time: &'a str,
    request_id: Label<64>,
    method: Option<Label<16>>,
    function: Option<Label<64>>,
    status: Option<u16>,
    grpc_status: Option<u16>,
    bytes_in: u64,
    bytes_out: u64,
    queued_us: Option<u64>,
    ran_us: Option<u64>,
    peer: Option<SocketAddr>,
    client: Option<&'a str>,
    key: Option<&'a str>,
    subject: Option<&'a str>,
}

impl Record {
    /// Appends its line.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let time = rfc3339(self.time);
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let (client, key, subject) = match self.client.as_ref().map(Client::identity) {
            Some(Identity::Key { id, client }) => (Some(&**client), Some(&**id), None),
            Some(Identity::Token { subject }) => (None, None, subject.as_deref()),
            None => (None, None, None),
        };
        let line = Line {
            time: &time,
            request_id: self.request_id,
            method: (self.method != Label::EMPTY).then_some(self.method),
            function: self.function,
            status: self.status,
            grpc_status: self.grpc_status,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            queued_us: self.times.map(|times| micros(times.queued)),
            ran_us: self.times.map(|times| micros(times.ran)),
            peer: self.peer,
            client,
            key,
            subject,
        };
        // Text and numbers into a vector: nothing can fail.
        let _ = serde_json::to_writer(&mut *out, &line);
        out.push(b'\n');
    }
}

/// UTC in microseconds, as `2026-11-27T22:15:56.123456Z`.
fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, micros) = (since.as_secs(), since.subsec_micros());
    let (year, month, day) = crate::date::civil(seconds / 86_400);
    let second = seconds % 86_400;
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            time: UNIX_EPOCH + Duration::from_micros(1_709_210_096_000_123),
            request_id: Label::new(b"r-1"),
            method: Label::new(b"POST"),
            function: Some(Label::new(b"f")),
            status: Some(200),
            grpc_status: None,
            bytes_in: 10,
            bytes_out: 20,
            times: Some(Times { queued: Duration::from_micros(3), ran: Duration::from_millis(4) }),
            peer: Some("127.0.0.1:9".parse().unwrap()),
            client: None,
        }
    }

    fn line(record: &Record) -> String {
        let mut out = Vec::new();
        record.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_has_all_members_in_their_order() {
        let expected = "{\"time\":\"2024-02-29T12:34:56.000123Z\",\"request_id\":\"r-1\",\
            \"method\":\"POST\",\"function\":\"f\",\"status\":200,\"grpc_status\":null,\
            \"bytes_in\":10,\"bytes_out\":20,\"queued_us\":3,\"ran_us\":4000,\"peer\":\"127.0.0.1:9\",\
            \"client\":null,\"key\":null,\"subject\":null}\n";
        assert_eq!(line(&record()), expected);
    }

    #[test]
    fn what_is_not_known_is_null_and_nothing_breaks_out_of_its_line() {
        let record = Record {
            request_id: Label::new(b"a\"\n\xff"),
            method: Label::EMPTY,
            function: None,
            status: None,
            times: None,
            peer: None,
            ..record()
        };
        let line = line(&record);
        assert_eq!(line.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["request_id"], "a\"\n\u{fffd}");
        for member in ["method", "function", "status", "queued_us", "ran_us", "peer", "key"] {
            assert!(value[member].is_null(), "{member}");
        }
    }

    #[test]
    fn a_label_is_cut_to_its_size() {
        assert_eq!(Label::<16>::new(&[b'x'; 40]), Label::<16>::new(&[b'x'; 16]));
    }
}
