//! Recognises the end of an HTTP/1.1 response in a stream of bytes, whatever the pieces it comes in.
//!
//! Pure: bytes go in, an [`Answer`] or a reason to give the connection up comes out; no byte of a
//! stranger makes it panic. It keeps no bytes: what it has not consumed is shown to it again, with
//! more behind it. That is the case only for an incomplete head, chunk size or trailer, whose sizes
//! are bounded by the caller's buffer.

use httparse::Status;

/// More than any server sends; a head with more is refused.
const HEADERS_MAX: usize = 64;

/// A complete response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Whether the connection can carry another request.
    pub keep_alive: bool,
}

impl Answer {
    /// Whether the request was served.
    #[must_use]
    pub fn is_success(self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Bytes that are no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Status line, headers or trailer.
    #[error("the response's head is no HTTP: {0}")]
    Head(httparse::Error),
    /// A `Content-Length` that is no number, or two that differ.
    #[error("the response's Content-Length cannot be used")]
    Length,
    /// A chunk without size or without the line end behind it.
    #[error("the response's chunks are malformed")]
    Chunk,
}

/// Where in a response the next byte is.
///
/// ```text
/// Head ──> Counted ──────────────────> (done)
///   │ └──> ChunkSize ─> Trailer ─────> (done)
///   │        │ ^
///   │        v │
///   │      ChunkData
///   └────> UntilClose ──── end() ────> (done)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Counted {
        left: u64,
    },
    ChunkSize,
    /// The line end behind the data is counted with it.
    ChunkData {
        left: u64,
    },
    Trailer,
    UntilClose,
}

/// The parser of one connection's responses, one after the other.
#[derive(Debug)]
pub struct Parser {
    state: State,
    answer: Answer,
    /// Responses to `HEAD` have the headers of a body and no body.
    bodyless: bool,
}

impl Parser {
    /// A parser of responses to `method`.
    #[must_use]
    pub fn new(method: &str) -> Parser {
        let answer = Answer { status: 0, keep_alive: true };
        Parser { state: State::Head, answer, bodyless: method == "HEAD" }
    }

    /// Looks at `input`, which starts where the last call stopped consuming. Returns how many bytes
    /// it consumed, and the answer once it is complete; what is left then belongs to the next one.
    pub fn advance(&mut self, input: &[u8]) -> Result<(usize, Option<Answer>), Malformed> {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            let step = match self.state {
                State::Head => self.head(rest)?,
                State::Counted { left: 0 } => {
                    self.state = State::Head;
                    return Ok((at, Some(self.answer)));
                }
                State::Counted { left } => {
                    skip(left, rest, |left| self.state = State::Counted { left })
                }
                State::ChunkSize => self.chunk_size(rest)?,
                State::ChunkData { left: 0 } => {
                    self.state = State::ChunkSize;
                    continue;
                }
                State::ChunkData { left } => self.chunk_data(left, rest)?,
                State::Trailer => self.trailer(rest)?,
                State::UntilClose => Some(rest.len()).filter(|&size| size > 0),
            };
            let Some(consumed) = step else { return Ok((at, None)) };
            at += consumed;
        }
    }

    /// The peer has closed: a complete answer, if that is how this one ends.
    pub fn end(&mut self) -> Option<Answer> {
        let ends_here = self.state == State::UntilClose;
        self.state = State::Head;
        ends_here.then_some(self.answer)
    }

    fn head(&mut self, input: &[u8]) -> Result<Option<usize>, Malformed> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let size = match response.parse(input).map_err(Malformed::Head)? {
            Status::Complete(size) => size,
            Status::Partial => return Ok(None),
        };
        let status = response.code.unwrap_or(0);
        let mut keep_alive = response.version == Some(1);
        let mut length = None;
        let mut chunked = false;
        for header in response.headers.iter() {
            if header.name.eq_ignore_ascii_case("content-length") {
                let given = parse_length(header.value)?;
                if length.replace(given).is_some_and(|before| before != given) {
                    return Err(Malformed::Length);
                }
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                chunked |= has_token(header.value, "chunked");
            } else if header.name.eq_ignore_ascii_case("connection") {
                keep_alive = !has_token(header.value, "close")
                    && (keep_alive || has_token(header.value, "keep-alive"));
            }
        }
        let interim = (100..200).contains(&status) && status != 101;
        let bodyless = self.bodyless || matches!(status, 101 | 204 | 304);
        self.state = match (interim, bodyless, chunked, length) {
            (true, ..) => State::Head,
            (_, true, ..) => State::Counted { left: 0 },
            (_, _, true, _) => State::ChunkSize,
            (_, _, _, Some(left)) => State::Counted { left },
            _ => State::UntilClose,
        };
        // After 101 the connection speaks another protocol.
        keep_alive &= status != 101 && self.state != State::UntilClose;
        self.answer = Answer { status, keep_alive };
        Ok(Some(size))
    }

    fn chunk_size(&mut self, input: &[u8]) -> Result<Option<usize>, Malformed> {
        match httparse::parse_chunk_size(input).map_err(|_| Malformed::Chunk)? {
            Status::Partial => Ok(None),
            Status::Complete((consumed, 0)) => {
                self.state = State::Trailer;
                Ok(Some(consumed))
            }
            Status::Complete((consumed, size)) => {
                let left = size.checked_add(2).ok_or(Malformed::Chunk)?;
                self.state = State::ChunkData { left };
                Ok(Some(consumed))
            }
        }
    }

    fn chunk_data(&mut self, left: u64, input: &[u8]) -> Result<Option<usize>, Malformed> {
        if left > 2 {
            return Ok(skip(left - 2, input, |rest| {
                self.state = State::ChunkData { left: rest + 2 };
            }));
        }
        let expected = if left == 2 { b'\r' } else { b'\n' };
        match input.first() {
            None => Ok(None),
            Some(&byte) if byte == expected => {
                self.state = State::ChunkData { left: left - 1 };
                Ok(Some(1))
            }
            Some(_) => Err(Malformed::Chunk),
        }
    }

    fn trailer(&mut self, input: &[u8]) -> Result<Option<usize>, Malformed> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        match httparse::parse_headers(input, &mut headers).map_err(Malformed::Head)? {
            Status::Partial => Ok(None),
            Status::Complete((consumed, _)) => {
                self.state = State::Counted { left: 0 };
                Ok(Some(consumed))
            }
        }
    }
}

/// Consumes as much of `left` bytes as there is, and says what is left then.
fn skip(left: u64, input: &[u8], mut set_left: impl FnMut(u64)) -> Option<usize> {
    let size = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
    set_left(left - size as u64);
    (size > 0).then_some(size)
}

fn parse_length(value: &[u8]) -> Result<u64, Malformed> {
    let digits = value.trim_ascii();
    let all_digits = digits.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(digits).ok().filter(|_| all_digits);
    text.and_then(|text| text.parse().ok()).ok_or(Malformed::Length)
}

fn has_token(value: &[u8], token: &str) -> bool {
    value
        .split(|&byte| byte == b',')
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: Answer = Answer { status: 200, keep_alive: true };
    const OK_CLOSE: Answer = Answer { status: 200, keep_alive: false };

    /// Feeds `pieces` as a connection would: what is not consumed comes again with the next piece.
    fn feed(parser: &mut Parser, pieces: &[&[u8]]) -> Result<Option<(Answer, usize)>, Malformed> {
        let mut buffer = Vec::new();
        for piece in pieces {
            buffer.extend_from_slice(piece);
            let (consumed, answer) = parser.advance(&buffer)?;
            buffer.drain(..consumed);
            if let Some(answer) = answer {
                return Ok(Some((answer, buffer.len())));
            }
        }
        Ok(None)
    }

    fn whole(response: &str) -> Result<Option<(Answer, usize)>, Malformed> {
        feed(&mut Parser::new("GET"), &[response.as_bytes()])
    }

    const COMPLETE: &[&str] = &[
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n5\r\nhello\r\na;x=y\r\n0123456789\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\nA: b\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
        "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok",
    ];

    #[test]
    fn a_response_split_at_every_byte_is_the_same_response() {
        for response in COMPLETE {
            let bytes = response.as_bytes();
            for split in 0..=bytes.len() {
                let pieces = [&bytes[..split], &bytes[split..]];
                let answer = feed(&mut Parser::new("GET"), &pieces);
                assert_eq!(answer, Ok(Some((OK, 0))), "{response:?} split at {split}");
            }
            let bytewise: Vec<&[u8]> = bytes.chunks(1).collect();
            let answer = feed(&mut Parser::new("GET"), &bytewise);
            assert_eq!(answer, Ok(Some((OK, 0))), "{response:?}");
        }
    }

    #[test]
    fn a_prefix_of_a_response_is_no_response() {
        for response in COMPLETE {
            for size in 0..response.len() {
                assert_eq!(whole(&response[..size]), Ok(None), "{response:?} up to {size}");
            }
        }
    }

    #[test]
    fn responses_follow_each_other_in_one_parser() {
        let mut parser = Parser::new("GET");
        for response in COMPLETE.iter().chain(COMPLETE) {
            assert_eq!(feed(&mut parser, &[response.as_bytes()]), Ok(Some((OK, 0))));
        }
    }

    #[test]
    fn a_connection_that_ends_is_not_kept() {
        let close = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(whole(close), Ok(Some((OK_CLOSE, 0))));
        let old = "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(whole(old), Ok(Some((OK_CLOSE, 0))));
    }

    #[test]
    fn without_a_length_the_end_of_the_stream_is_the_end() {
        let mut parser = Parser::new("GET");
        assert_eq!(feed(&mut parser, &[b"HTTP/1.1 200 OK\r\n\r\n", b"some", b"more"]), Ok(None));
        assert_eq!(parser.end(), Some(OK_CLOSE));
        assert_eq!(
            feed(&mut parser, &[b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfew"]),
            Ok(None)
        );
        assert_eq!(parser.end(), None);
    }

    #[test]
    fn some_responses_have_no_body() {
        let headers = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n";
        let answer = feed(&mut Parser::new("HEAD"), &[headers.as_bytes()]);
        assert_eq!(answer, Ok(Some((OK, 0))));
        for status in [204, 304] {
            let answer = whole(&format!("HTTP/1.1 {status} X\r\n\r\n"));
            assert_eq!(answer, Ok(Some((Answer { status, keep_alive: true }, 0))));
        }
    }

    #[test]
    fn what_follows_an_answer_is_left() {
        let answer = whole("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP");
        assert_eq!(answer, Ok(Some((OK, 4))));
    }

    #[test]
    fn malformed_responses_are_named() {
        assert!(matches!(whole("SSH-2.0-OpenSSH\r\n"), Err(Malformed::Head(_))));
        let length =
            |value: &str| whole(&format!("HTTP/1.1 200 OK\r\nContent-Length: {value}\r\n\r\n"));
        assert_eq!(length("-1"), Err(Malformed::Length));
        assert_eq!(length("99999999999999999999"), Err(Malformed::Length));
        assert_eq!(length("1\r\nContent-Length: 2"), Err(Malformed::Length));
        let chunk = |body: &str| {
            whole(&format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}"))
        };
        assert_eq!(chunk("zz\r\n"), Err(Malformed::Chunk));
        assert_eq!(chunk("1\r\nabc"), Err(Malformed::Chunk));
        assert_eq!(chunk("ffffffffffffffff\r\n"), Err(Malformed::Chunk));
    }
}
