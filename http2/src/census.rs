//! What a client's frames look like from outside: a reader of frame heads beside the one that
//! understands them. It finds what costs a client nothing and the server something, and what never
//! ends: floods of control frames, and header blocks of which the end does not come.
//!
//! Pure: it is given bytes and the time, and keeps no more than a head of a frame.

use std::time::Instant;

/// What every client sends first (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD_SIZE: usize = 9;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;
const END_STREAM: u8 = 0x1;

/// Frames that carry no request and may come at once. Nginx and nghttp2 allow a thousand too; an
/// eager client sends a ping for each of its requests and resets some of them.
const BURST: u32 = 1_000;
/// And that many a second in the long run.
const RATE: u32 = 100;
/// Window updates and pings that a request of one's own justifies: a large answer is taken in
/// many steps.
const FOR_A_REQUEST: u32 = 4;
/// Bytes of an answer that justify one more frame: the smallest step in which a client gives room
/// back without being wasteful.
const FOR_BYTES: usize = 1_024;

/// Watches one connection.
#[derive(Debug)]
pub struct Census {
    place: Place,
    /// A header block began then and has not ended.
    block_since: Option<Instant>,
    control: Allowance,
    /// Apart: a request does not justify its own reset, or there would be no bound to how many a
    /// client begins for nothing.
    resets: Allowance,
    /// Bytes sent that have not become credit.
    sent: usize,
    /// The client's first SETTINGS have come.
    greeted: bool,
}

#[derive(Debug)]
enum Place {
    /// This many bytes of it have come.
    Preface(usize),
    Head {
        bytes: [u8; HEAD_SIZE],
        size: usize,
    },
    /// This many bytes of it are left.
    Body(usize),
}

/// Frames that may still come, with those of [`RATE`] since `counted_at`.
#[derive(Debug)]
struct Allowance {
    credit: u32,
    counted_at: Instant,
}

/// What a client did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Offence {
    /// It speaks something else.
    #[error("no preface of HTTP/2")]
    Preface,
    /// It sends frames that only cost.
    #[error("a flood of control frames")]
    Flood,
}

impl Census {
    /// Of a connection that begins.
    #[must_use]
    pub fn new(now: Instant) -> Census {
        Census {
            place: Place::Preface(0),
            block_since: Some(now),
            control: Allowance { credit: BURST, counted_at: now },
            resets: Allowance { credit: BURST, counted_at: now },
            sent: 0,
            greeted: false,
        }
    }

    /// Since when the client owes the rest of something without which nothing goes on: its preface
    /// and first settings, or the end of a header block.
    #[must_use]
    pub fn owed_since(&self) -> Option<Instant> {
        self.block_since
    }

    /// So many bytes went to the client, which may answer them with updates of its windows.
    pub fn sent(&mut self, size: usize) {
        self.sent += size;
        let frames = u32::try_from(self.sent / FOR_BYTES).unwrap_or(u32::MAX);
        self.sent %= FOR_BYTES;
        self.control.earn(frames);
    }

    /// These bytes came.
    ///
    /// # Errors
    /// The client is to be closed.
    pub fn received(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), Offence> {
        while let Some(first) = bytes.first() {
            match &mut self.place {
                Place::Preface(seen) => {
                    if PREFACE.get(*seen) != Some(first) {
                        return Err(Offence::Preface);
                    }
                    *seen += 1;
                    bytes = &bytes[1..];
                    if *seen == PREFACE.len() {
                        self.place = Place::head();
                    }
                }
                Place::Head { bytes: head, size } => {
                    let taken = bytes.len().min(HEAD_SIZE - *size);
                    head[*size..*size + taken].copy_from_slice(&bytes[..taken]);
                    *size += taken;
                    bytes = &bytes[taken..];
                    if *size == HEAD_SIZE {
                        let head = *head;
                        self.begin(&head, now)?;
                    }
                }
                Place::Body(left) => {
                    let taken = bytes.len().min(*left);
                    *left -= taken;
                    bytes = &bytes[taken..];
                    if *left == 0 {
                        self.place = Place::head();
                    }
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, head: &[u8; HEAD_SIZE], now: Instant) -> Result<(), Offence> {
        let [high, middle, low, kind, flags, ..] = *head;
        let size = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.place = if size == 0 { Place::head() } else { Place::Body(size) };
        if !self.greeted {
            // Whatever it is, it is judged by who understands it.
            self.greeted = true;
            self.block_since = None;
        }
        match kind {
            HEADERS | CONTINUATION => {
                let ends = flags & END_HEADERS != 0;
                self.block_since = if ends { None } else { self.block_since.or(Some(now)) };
                if kind == HEADERS {
                    self.control.earn(FOR_A_REQUEST);
                }
                Ok(())
            }
            DATA if size > 0 || flags & END_STREAM != 0 => Ok(()),
            RST_STREAM => self.resets.spend(now),
            // Pings, settings, priorities, window updates, empty data; also what is unknown, which
            // is to be ignored and so costs the client alone nothing.
            _ => self.control.spend(now),
        }
    }
}

impl Allowance {
    fn earn(&mut self, frames: u32) {
        self.credit = self.credit.saturating_add(frames).min(BURST.saturating_mul(4));
    }

    fn spend(&mut self, now: Instant) -> Result<(), Offence> {
        if self.credit == 0 {
            let passed = now.saturating_duration_since(self.counted_at);
            let earned = passed.as_millis() * u128::from(RATE) / 1_000;
            self.credit = u32::try_from(earned).unwrap_or(u32::MAX).min(BURST);
            self.counted_at = now;
        }
        self.credit = self.credit.checked_sub(1).ok_or(Offence::Flood)?;
        Ok(())
    }
}

impl Place {
    fn head() -> Place {
        Place::Head { bytes: [0; HEAD_SIZE], size: 0 }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const SETTINGS: u8 = 0x4;
    const PING: u8 = 0x6;
    const WINDOW_UPDATE: u8 = 0x8;

    fn frame(kind: u8, flags: u8, size: usize) -> Vec<u8> {
        let mut bytes = u32::try_from(size).unwrap().to_be_bytes()[1..].to_vec();
        bytes.extend_from_slice(&[kind, flags, 0, 0, 0, 1]);
        bytes.resize(HEAD_SIZE + size, 0);
        bytes
    }

    fn greeted(now: Instant) -> Census {
        let mut census = Census::new(now);
        census.received(PREFACE, now).unwrap();
        census.received(&frame(SETTINGS, 0, 0), now).unwrap();
        census
    }

    #[test]
    fn what_is_no_preface_is_refused_at_its_first_byte() {
        let now = Instant::now();
        assert_eq!(Census::new(now).received(b"GET / HTTP/1.1\r\n", now), Err(Offence::Preface));
        let mut census = Census::new(now);
        census.received(&PREFACE[..20], now).unwrap();
        assert_eq!(census.received(b"x", now), Err(Offence::Preface));
    }

    #[test]
    fn preface_and_header_blocks_are_owed_until_they_end() {
        let now = Instant::now();
        let mut census = Census::new(now);
        assert_eq!(census.owed_since(), Some(now));
        census.received(PREFACE, now).unwrap();
        assert_eq!(census.owed_since(), Some(now));
        census.received(&frame(SETTINGS, 0, 6), now).unwrap();
        assert_eq!(census.owed_since(), None);
        let later = now + Duration::from_secs(1);
        census.received(&frame(HEADERS, 0, 10), later).unwrap();
        census.received(&frame(CONTINUATION, 0, 10), later + Duration::from_secs(1)).unwrap();
        assert_eq!(census.owed_since(), Some(later));
        census.received(&frame(CONTINUATION, END_HEADERS, 10), later).unwrap();
        assert_eq!(census.owed_since(), None);
    }

    #[test]
    fn floods_of_whatever_costs_nothing_are_found() {
        for kind in [PING, SETTINGS, RST_STREAM, WINDOW_UPDATE, 0x2, 0x77, DATA] {
            let now = Instant::now();
            let mut census = greeted(now);
            let flood = frame(kind, 0, 0);
            let found = (0..=BURST).find_map(|_| census.received(&flood, now).err());
            assert_eq!(found, Some(Offence::Flood), "{kind}");
        }
    }

    #[test]
    fn frames_that_requests_and_answers_justify_are_no_flood() {
        let now = Instant::now();
        let mut census = greeted(now);
        for _ in 0..10 * BURST {
            census.received(&frame(HEADERS, END_HEADERS, 10), now).unwrap();
            census.received(&frame(DATA, END_STREAM, 10), now).unwrap();
            census.received(&frame(PING, 0, 8), now).unwrap();
            census.sent(16 * FOR_BYTES);
            for _ in 0..16 {
                census.received(&frame(WINDOW_UPDATE, 0, 4), now).unwrap();
            }
        }
    }

    #[test]
    fn requests_do_not_justify_their_resets() {
        let now = Instant::now();
        let mut census = greeted(now);
        let found = (0..=BURST).find_map(|_| {
            census.received(&frame(HEADERS, END_HEADERS, 10), now).unwrap();
            census.received(&frame(RST_STREAM, 0, 4), now).err()
        });
        assert_eq!(found, Some(Offence::Flood));
    }

    #[test]
    fn a_quiet_client_may_speak_again() {
        let now = Instant::now();
        let mut census = greeted(now);
        while census.received(&frame(SETTINGS, 0, 0), now).is_ok() {}
        let later = now + Duration::from_secs(5);
        for _ in 0..5 * RATE {
            census.received(&frame(SETTINGS, 0, 0), later).unwrap();
        }
        assert_eq!(census.received(&frame(SETTINGS, 0, 0), later), Err(Offence::Flood));
    }

    proptest! {
        #[test]
        fn it_says_the_same_however_bytes_are_split(
            frames in proptest::collection::vec((0_u8..12, 0_u8..16, 0_usize..40), 0..50),
            cut in 1_usize..50,
        ) {
            let now = Instant::now();
            let mut bytes = PREFACE.to_vec();
            for (kind, flags, size) in frames {
                bytes.extend(frame(kind, flags, size));
            }
            let (mut whole, mut parts) = (Census::new(now), Census::new(now));
            whole.received(&bytes, now).unwrap();
            for part in bytes.chunks(cut) {
                parts.received(part, now).unwrap();
            }
            prop_assert_eq!(whole.owed_since(), parts.owed_since());
            prop_assert_eq!(whole.control.credit, parts.control.credit);
            prop_assert_eq!(whole.resets.credit, parts.resets.credit);
        }
    }
}
