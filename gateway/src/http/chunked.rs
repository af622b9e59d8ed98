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
