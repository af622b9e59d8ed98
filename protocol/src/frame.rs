//! Frames: what the bytes between an engine and a gateway are cut into. A message that does not fit
//! one is cut into several of the same stream, and frames of other streams go in between.
//!
//! ```text
//! offset 0   u32 size of the body, at most FRAME_MAX
//!        4   u8  kind
//!        5   u8  flags: bit 0, another DATA frame of this message follows
//!        6   u16 zero
//!        8   u64 stream
//!       16   body
//! ```

use crate::error::ProtocolError;

/// Bytes of a frame's head.
pub const HEAD_SIZE: usize = 16;
/// Bytes of a frame's body at most: what a small message may have to wait for behind a large one.
pub const FRAME_MAX: usize = 16 * 1024;

const MORE: u8 = 1;

/// What a frame is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Goes on with the message that its stream has begun.
    Data = 0,
    /// Engine: who it is. First on every connection.
    Hello = 1,
    /// Gateway: prove it.
    Challenge = 2,
    /// Engine: the proof.
    Proof = 3,
    /// Gateway: its own proof; from now on everything else may follow.
    Welcome = 4,
    /// Engine: all the functions that it has.
    Functions = 5,
    /// Engine: how busy some of them are.
    Load = 6,
    /// Gateway: a call. Its stream names it.
    Call = 7,
    /// Engine: the end of a call.
    Answer = 8,
    /// Gateway: nobody waits for that call any more.
    Cancel = 9,
    /// Either: no new call here, please; or none will come.
    Draining = 10,
    /// Either: are you there? The stream comes back.
    Ping = 11,
    /// Either: yes.
    Pong = 12,
    /// Either: the connection ends, for the reason in the body.
    Bye = 13,
}

/// Whether a message ends with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// More of it follows in a DATA frame.
    More,
    /// It ends here.
    Last,
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the body.
    pub size: usize,
    /// What it is a part of.
    pub kind: Kind,
    /// Whether it is the last part.
    pub part: Part,
    /// Tells messages that are under way at once apart.
    pub stream: u64,
}

impl Head {
    /// Its bytes.
    ///
    /// # Panics
    /// If the body is larger than a frame may be.
    #[must_use]
    pub fn encode(self) -> [u8; HEAD_SIZE] {
        assert!(self.size <= FRAME_MAX, "a frame of {} bytes", self.size);
        let mut bytes = [0; HEAD_SIZE];
        let size = u32::try_from(self.size).unwrap_or(u32::MAX);
        bytes[..4].copy_from_slice(&size.to_le_bytes());
        bytes[4] = self.kind as u8;
        bytes[5] = if self.part == Part::More { MORE } else { 0 };
        bytes[8..].copy_from_slice(&self.stream.to_le_bytes());
        bytes
    }

    /// The inverse.
    ///
    /// # Errors
    /// For anything that `encode` does not write.
    pub fn parse(bytes: &[u8; HEAD_SIZE]) -> Result<Head, ProtocolError> {
        let [a, b, c, d, kind, flags, zero, zero_too, stream @ ..] = *bytes;
        let size = u32::from_le_bytes([a, b, c, d]) as usize;
        if size > FRAME_MAX {
            return Err(ProtocolError::FrameTooLarge(size));
        }
        let part = match flags {
            0 => Part::Last,
            MORE => Part::More,
            _ => return Err(ProtocolError::UnknownFlags(flags)),
        };
        if zero != 0 || zero_too != 0 {
            return Err(ProtocolError::Malformed("a frame's head"));
        }
        let kind = Kind::try_from(kind)?;
        Ok(Head { size, kind, part, stream: u64::from_le_bytes(stream) })
    }
}

impl Kind {
    /// Its name, for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Data => "DATA",
            Kind::Hello => "HELLO",
            Kind::Challenge => "CHALLENGE",
            Kind::Proof => "PROOF",
            Kind::Welcome => "WELCOME",
            Kind::Functions => "FUNCTIONS",
            Kind::Load => "LOAD",
            Kind::Call => "CALL",
            Kind::Answer => "ANSWER",
            Kind::Cancel => "CANCEL",
            Kind::Draining => "DRAINING",
            Kind::Ping => "PING",
            Kind::Pong => "PONG",
            Kind::Bye => "BYE",
        }
    }
}

impl TryFrom<u8> for Kind {
    type Error = ProtocolError;

    fn try_from(byte: u8) -> Result<Kind, ProtocolError> {
        const ALL: [Kind; 14] = [
            Kind::Data,
            Kind::Hello,
            Kind::Challenge,
            Kind::Proof,
            Kind::Welcome,
            Kind::Functions,
            Kind::Load,
            Kind::Call,
            Kind::Answer,
            Kind::Cancel,
            Kind::Draining,
            Kind::Ping,
            Kind::Pong,
            Kind::Bye,
        ];
        ALL.get(usize::from(byte)).copied().ok_or(ProtocolError::UnknownKind(byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_survives_its_bytes() {
        for byte in 0..=u8::MAX {
            let Ok(kind) = Kind::try_from(byte) else {
                assert!(byte > Kind::Bye as u8);
                continue;
            };
            assert_eq!(kind as u8, byte);
            for part in [Part::More, Part::Last] {
                let head = Head { size: FRAME_MAX, kind, part, stream: u64::MAX - 1 };
                assert_eq!(Head::parse(&head.encode()).unwrap(), head);
            }
        }
    }

    #[test]
    fn a_head_with_anything_else_in_it_is_refused() {
        let good = Head { size: 1, kind: Kind::Call, part: Part::Last, stream: 7 }.encode();
        for (at, byte) in [(2, 1), (3, 1), (4, 14), (5, 2), (6, 1), (7, 1)] {
            let mut bad = good;
            bad[at] = byte;
            assert!(Head::parse(&bad).is_err(), "byte {at} is {byte}");
        }
    }
}
