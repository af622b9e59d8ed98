//! An incremental decoder of chunked bodies. It may be fed any split of the bytes; its state is a
//! few words. Extensions and trailers are checked, bounded and dropped.
//!
//! ```text
//!        hex           ';'                CR           LF, size > 0
//!  Size ────► Size ────────► Extension ─────► SizeLf ───────────────► Data ──┐
//!    ▲                                          │ LF, size = 0               │ size bytes
//!    │            LF               CR           ▼                            ▼
//!    └────────────────── DataLf ◄────── DataCr ◄┼────────────────────────────┘
//!                                               ▼        any
//!                               TrailerStart ──────► Trailer ──CR──► TrailerLf ──LF─┐
//!                                    │   ▲────────────────────────────────────────────┘
//!                                    └─CR──► EndLf ──LF──► Done
//! ```

/// Hex digits of a chunk's size. 16 would fill a u64; no chunk under the body limit needs more
/// than 8, and leading zeros are bounded with it.
const DIGITS_MAX: u8 = 16;
/// Bytes of extensions in a whole body: nobody uses them but to burn our time.
const EXTENSIONS_MAX: u32 = 16 * 1024;
/// Bytes of trailers in a whole body.
const TRAILERS_MAX: u32 = 8 * 1024;

/// What is wrong with a chunked body. The blame is the client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChunkFault {
    #[error("malformed chunk size")]
    Size,
    #[error("malformed or oversized chunk extension")]
    Extension,
    #[error("a chunk is not followed by CR LF")]
    LineEnd,
    #[error("malformed or oversized trailer")]
    Trailer,
    #[error("the chunks exceed the limit")]
    TooLarge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Every byte was taken; there are more to come.
    More,
    /// The body is complete; the bytes behind the count belong to the next request.
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size { digits: u8 },
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    Done,
}

#[derive(Clone, Debug)]
pub(crate) struct Decoder {
    state: State,
    /// In `Size`: the size read so far. In `Data`: bytes of the chunk still to come.
    left: u64,
    /// Decoded bytes that may still come; what a chunk announces is taken off at once.
    budget: u64,
    extensions: u32,
    trailers: u32,
}

impl Decoder {
    /// A decoder that refuses bodies of more than `limit` bytes.
    pub(crate) fn new(limit: u64) -> Decoder {
        let state = State::Size { digits: 0 };
        Decoder { state, left: 0, budget: limit, extensions: 0, trailers: 0 }
    }

    /// Takes bytes from the front of `input`, appends what they decode to to `out` and says how
    /// many were taken.
    pub(crate) fn decode(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(usize, Progress), ChunkFault> {
        let mut at = 0;
        while at < input.len() && self.state != State::Done {
            if self.state == State::Data {
                let left = usize::try_from(self.left).unwrap_or(usize::MAX);
                let size = left.min(input.len() - at);
                out.extend_from_slice(&input[at..at + size]);
                at += size;
                self.left -= size as u64;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
            } else {
                self.state = self.step(input[at])?;
                at += 1;
            }
        }
        let done = self.state == State::Done;
        Ok((at, if done { Progress::Done } else { Progress::More }))
    }

    fn step(&mut self, byte: u8) -> Result<State, ChunkFault> {
        match (self.state, byte) {
            (State::Size { digits }, _) => self.size(digits, byte),
            (State::Extension, b'\r') => Ok(State::SizeLf),
            (State::Extension, _) => {
                self.extensions += 1;
                let allowed = is_text(byte) && self.extensions <= EXTENSIONS_MAX;
                if allowed { Ok(State::Extension) } else { Err(ChunkFault::Extension) }
            }
            (State::SizeLf, b'\n') if self.left == 0 => Ok(State::TrailerStart),
            (State::SizeLf, b'\n') => {
                self.budget = self.budget.checked_sub(self.left).ok_or(ChunkFault::TooLarge)?;
                Ok(State::Data)
            }
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size { digits: 0 }),
            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            (State::TrailerStart, b' ' | b'\t' | b':') => Err(ChunkFault::Trailer),
            (State::Trailer, b'\r') => Ok(State::TrailerLf),
            (State::TrailerStart | State::Trailer, _) => {
                self.trailers += 1;
                let allowed = is_text(byte) && self.trailers <= TRAILERS_MAX;
                if allowed { Ok(State::Trailer) } else { Err(ChunkFault::Trailer) }
            }
            (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
            (State::EndLf, b'\n') => Ok(State::Done),
            (State::SizeLf | State::DataCr | State::DataLf, _) => Err(ChunkFault::LineEnd),
            (State::TrailerLf | State::EndLf, _) => Err(ChunkFault::Trailer),
            // `decode` handles both itself and never steps in them.
            (State::Data | State::Done, _) => Ok(self.state),
        }
    }

    fn size(&mut self, digits: u8, byte: u8) -> Result<State, ChunkFault> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b';' if digits > 0 => return Ok(State::Extension),
            b'\r' if digits > 0 => return Ok(State::SizeLf),
            _ => return Err(ChunkFault::Size),
        };
        if digits == 0 {
            self.left = 0;
        }
        if digits == DIGITS_MAX {
            return Err(ChunkFault::Size);
        }
        // 16 digits fit a u64 exactly, so nothing is shifted out.
        self.left = (self.left << 4) | u64::from(digit);
        if self.left > self.budget {
            return Err(ChunkFault::TooLarge);
        }
        Ok(State::Size { digits: digits + 1 })
    }
}

/// What may stand in an extension or a trailer: visible bytes, space and tab.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The body, and how many bytes of the input it took; `None` if it goes on.
    type Decoded = Result<Option<(Vec<u8>, usize)>, ChunkFault>;

    fn decode(pieces: &[&[u8]], limit: u64) -> Decoded {
        let mut decoder = Decoder::new(limit);
        let (mut out, mut used) = (Vec::new(), 0);
        for piece in pieces {
            let (taken, progress) = decoder.decode(piece, &mut out)?;
            used += taken;
            if progress == Progress::Done {
                return Ok(Some((out, used)));
            }
            assert_eq!(taken, piece.len());
        }
        Ok(None)
    }

    #[test]
    fn chunks_extensions_and_trailers_decode_to_the_body() {
        let whole = b"5;a=\"b c\"\r\nhello\r\n00A\r\n, decoders\r\n0\r\nX: y\r\nZ: \r\n\r\nGET";
        let (body, used) = decode(&[whole], 15).unwrap().unwrap();
        assert_eq!(body, b"hello, decoders");
        assert_eq!(&whole[used..], b"GET");
        assert_eq!(decode(&[b"0\r\n\r\n"], 0), Ok(Some((vec![], 5))));
    }

    #[test]
    fn what_is_not_exactly_a_chunked_body_is_a_fault() {
        let long = |byte: &str| byte.repeat(20_000);
        for (bytes, fault) in [
            ("\r\n".into(), ChunkFault::Size),
            (";a\r\n".into(), ChunkFault::Size),
            ("g\r\n".into(), ChunkFault::Size),
            ("-1\r\n".into(), ChunkFault::Size),
            ("0x5\r\n".into(), ChunkFault::Size),
            ("5 \r\nhello".into(), ChunkFault::Size),
            (" 5\r\nhello".into(), ChunkFault::Size),
            ("5\nhello".into(), ChunkFault::Size),
            ("00000000000000001\r\n".into(), ChunkFault::Size),
            ("5\rhello".into(), ChunkFault::LineEnd),
            ("5\r\nhello0\r\n".into(), ChunkFault::LineEnd),
            ("5\r\nhello\n0\r\n".into(), ChunkFault::LineEnd),
            ("5\r\nhello\r0\r\n".into(), ChunkFault::LineEnd),
            ("5;a\0\r\n".into(), ChunkFault::Extension),
            ("5;a\nb\r\n".into(), ChunkFault::Extension),
            (format!("5;{}", long("a")), ChunkFault::Extension),
            ("0\r\nX: y\n\r\n".into(), ChunkFault::Trailer),
            ("0\r\n folded\r\n".into(), ChunkFault::Trailer),
            ("0\r\n\rX".into(), ChunkFault::Trailer),
            (format!("0\r\n{}", long("X")), ChunkFault::Trailer),
            (format!("0\r\n{}", long("X:\r\n")), ChunkFault::Trailer),
            ("fffffffffffffffff\r\n".into(), ChunkFault::TooLarge),
            ("ffffffffffffffff\r\n".into(), ChunkFault::TooLarge),
            ("11\r\n".into(), ChunkFault::TooLarge),
            ("a\r\n0123456789\r\n7\r\n".into(), ChunkFault::TooLarge),
        ] {
            let bytes: String = bytes;
            assert_eq!(decode(&[bytes.as_bytes()], 16), Err(fault), "{bytes:?}");
        }
    }

    /// Bytes that often are nearly a chunked body.
    fn nearly_chunked() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => proptest::collection::vec(any::<u8>(), 1..20)
                .prop_map(|data| [format!("{:x}\r\n", data.len()).as_bytes(), &data, b"\r\n"].concat()),
            1 => Just(b"0\r\n\r\n".to_vec()),
            1 => Just(b"0\r\nX: y\r\n\r\n".to_vec()),
            1 => Just(b"3;ext=1\r\nabc\r\n".to_vec()),
            1 => proptest::collection::vec(any::<u8>(), 0..4),
            1 => proptest::collection::vec(
                prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b';'), Just(b'f')], 0..4),
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_split_of_the_bytes_gives_the_same_result(
            bytes in nearly_chunked(),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            let whole = decode(&[&bytes], 100);
            prop_assert_eq!(&decode(&pieces, 100), &whole);
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            prop_assert_eq!(&decode(&single, 100), &whole);
        }

        #[test]
        fn what_a_client_sends_in_chunks_arrives(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..10),
        ) {
            let mut bytes = Vec::new();
            for chunk in &chunks {
                bytes.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
            let body = chunks.concat();
            let size = bytes.len();
            prop_assert_eq!(decode(&[&bytes], body.len() as u64), Ok(Some((body, size))));
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&[&bytes], 1 << 20);
        }
    }
}
