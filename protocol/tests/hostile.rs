//! What a peer can do to the memory of its reader: nothing beyond the limits, and no more than a few
//! times what it has sent, whatever it announces.
#![allow(missing_docs, clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use proptest::prelude::*;
use protocol::frame::{FRAME_MAX, HEAD_SIZE, Head, Kind, Part};
use protocol::hello::{Challenge, Hello};
use protocol::{Limits, LinkError, Message, ProtocolError, Reader, Side};

/// Bytes that a reader may take whatever comes: its buffer, and a table of what has begun.
const FIXED: usize = 512 * 1024;
/// Bytes of memory for one that was sent: a vector that grows is there twice for a moment.
const FACTOR: usize = 6;
/// Most of what a push brings here, as a receive does.
const PIECE: usize = 16 * 1024;

struct Counting;

thread_local! {
    static NOW: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // Nothing is counted while a thread ends.
    let _ = NOW.try_with(|now| {
        now.set(now.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now.get())));
    });
}

fn size(layout: Layout) -> isize {
    isize::try_from(layout.size()).unwrap_or(isize::MAX)
}

// SAFETY: every call is passed on unchanged to the system's allocator. `realloc` is the default one,
// which calls these.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(size(layout));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-size(layout));
        // SAFETY: as in `alloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The most bytes that were allocated at once while it ran, beyond those before.
fn peak(run: impl FnOnce()) -> usize {
    let before = NOW.get();
    PEAK.set(before);
    run();
    usize::try_from(PEAK.get() - before).unwrap()
}

fn reader(side: Side) -> Reader {
    Reader::new(side, Limits::for_payloads(1 << 20))
}

fn frame(kind: Kind, part: Part, stream: u64, body: &[u8]) -> Vec<u8> {
    let head = Head { size: body.len(), kind, part, stream };
    [&head.encode()[..], body].concat()
}

/// The first frame of a call with a payload of that size.
fn first_frame(stream: u64, payload_size: u32) -> Vec<u8> {
    let mut body = vec![0; FRAME_MAX];
    body[20..24].copy_from_slice(&payload_size.to_le_bytes());
    frame(Kind::Call, Part::More, stream, &body)
}

/// Pushes as a connection does, until an error: bytes that were taken.
fn feed(reader: &mut Reader, bytes: &[u8]) -> (usize, Option<LinkError>) {
    let mut taken = 0;
    for piece in bytes.chunks(PIECE) {
        reader.push(piece);
        taken += piece.len();
        loop {
            match reader.next_message() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => return (taken, Some(error)),
            }
        }
    }
    (taken, None)
}

/// The breach in which these bytes end.
fn breach(side: Side, bytes: &[u8]) -> ProtocolError {
    match feed(&mut reader(side), bytes).1 {
        Some(LinkError::Protocol(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_begins_everything_and_ends_nothing_takes_memory_for_what_he_sent() {
    for payload_max in [64 * 1024, 1 << 20, 16 << 20] {
        let mut sent = 0;
        let used = peak(|| {
            let mut reader = Reader::new(Side::Engine, Limits::for_payloads(payload_max));
            let error = (0..10_000).find_map(|stream| {
                let (taken, error) = feed(&mut reader, &first_frame(stream, payload_max));
                sent += taken;
                error
            });
            let error = error.expect("ten thousand calls at once are too many");
            let is_limit = matches!(error, LinkError::Protocol(ProtocolError::OverLimit { .. }));
            assert!(is_limit, "{error}");
        });
        assert!(used <= FACTOR * sent + FIXED, "{used} bytes of memory for {sent}");
    }
}

#[test]
fn a_message_takes_memory_as_it_comes() {
    let size = 8 << 20;
    let mut reader = Reader::new(Side::Engine, Limits::for_payloads(16 << 20));
    let mut sent = 0;
    let mut bytes = first_frame(1, size);
    while sent < size as usize / 2 {
        let used = peak(|| assert!(feed(&mut reader, &bytes).1.is_none()));
        sent += FRAME_MAX;
        assert!(used <= FACTOR * sent + FIXED, "{used} bytes of memory for {sent}");
        bytes = frame(Kind::Data, Part::More, 1, &vec![0; FRAME_MAX]);
    }
}

#[test]
fn floods_of_small_frames_take_no_memory() {
    let empty = |kind, stream| frame(kind, Part::Last, stream, &[]);
    let floods = [
        (Side::Engine, empty(Kind::Ping, 1)),
        (Side::Engine, empty(Kind::Pong, 1)),
        (Side::Engine, empty(Kind::Cancel, 9)),
        (Side::Gateway, empty(Kind::Cancel, 9)),
        (Side::Gateway, empty(Kind::Draining, 0)),
        (Side::Gateway, empty(Kind::Functions, u64::MAX)),
        (Side::Gateway, empty(Kind::Load, u64::MAX)),
        (Side::Engine, frame(Kind::Call, Part::Last, 1, &[0; 24])),
    ];
    for (side, frame) in floods {
        let flood = frame.repeat(1_000);
        let used = peak(|| {
            let mut reader = reader(side);
            for _ in 0..200 {
                let (_, error) = feed(&mut reader, &flood);
                assert!(error.is_none(), "{error:?}");
            }
            assert_eq!(reader.take_ping().is_some(), frame[4] == Kind::Ping as u8);
            assert!(reader.take_ping().is_none(), "one answer is owed for all of them");
        });
        assert!(used <= FIXED, "{used} bytes for frames of {}", frame.len());
    }
}

#[test]
fn a_message_in_pieces_that_are_no_full_frames_is_refused_with_the_first() {
    let short = frame(Kind::Data, Part::More, 1, &[0]);
    let error = breach(Side::Engine, &[first_frame(1, 100_000), short].concat());
    assert!(matches!(error, ProtocolError::Malformed(_)), "{error:?}");
}

#[test]
fn what_a_side_never_takes_is_refused_by_its_head_alone() {
    let of_handshakes = [Kind::Hello, Kind::Challenge, Kind::Proof, Kind::Welcome];
    let to_engines = [Kind::Functions, Kind::Load, Kind::Answer].into_iter().chain(of_handshakes);
    let to_gateways = [Kind::Call].into_iter().chain(of_handshakes);
    let refused = to_engines.map(|kind| (Side::Engine, kind));
    for (side, kind) in refused.chain(to_gateways.map(|kind| (Side::Gateway, kind))) {
        let head = Head { size: FRAME_MAX, kind, part: Part::More, stream: 1 };
        assert_eq!(breach(side, &head.encode()), ProtocolError::Unexpected(kind.name()));
    }
}

#[test]
fn streams_are_not_mixed_up() {
    let data = frame(Kind::Data, Part::Last, 5, &[0; 10]);
    assert_eq!(breach(Side::Engine, &data), ProtocolError::UnknownStream(5));
    let twice = first_frame(5, 100_000).repeat(2);
    assert_eq!(breach(Side::Engine, &twice), ProtocolError::StreamBusy(5));
    let cancel = frame(Kind::Cancel, Part::Last, 5, &[]);
    let cancelled = [first_frame(5, 100_000), cancel, data].concat();
    assert_eq!(breach(Side::Engine, &cancelled), ProtocolError::UnknownStream(5));
}

#[test]
fn a_message_is_as_long_as_it_said() {
    let data = |part, size| frame(Kind::Data, part, 1, &vec![0; size]);
    let first = || first_frame(1, u32::try_from(FRAME_MAX).unwrap());
    let early = [first(), data(Part::Last, 23)].concat();
    assert_eq!(breach(Side::Engine, &early), ProtocolError::Malformed("a message that ends early"));
    for late in [data(Part::Last, 25), data(Part::More, FRAME_MAX)] {
        let error = breach(Side::Engine, &[first(), late].concat());
        assert!(matches!(error, ProtocolError::OverLimit { .. }), "{error:?}");
    }
    let (_, error) = feed(&mut reader(Side::Engine), &[first(), data(Part::Last, 24)].concat());
    assert!(error.is_none(), "{error:?}");
}

#[test]
fn a_reason_cannot_write_into_the_log() {
    let bye = |reason: &[u8]| frame(Kind::Bye, Part::Last, 0, reason);
    let (_, error) = feed(&mut reader(Side::Engine), &bye(b"\x1b[2J\r\nforged\xff"));
    let Some(LinkError::Bye(reason)) = error else { panic!("{error:?}") };
    assert!(reason.contains("forged") && !reason.chars().any(char::is_control), "{reason:?}");
    let error = breach(Side::Engine, &bye(&[1; 257]));
    assert!(matches!(error, ProtocolError::OverLimit { .. }), "{error:?}");
}

/// Mostly frames, so that more than heads is reached.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let kind = (0..14_u8).prop_map(|byte| Kind::try_from(byte).unwrap());
    let body = prop_oneof![
        Just(Vec::new()),
        prop::collection::vec(any::<u8>(), 0..100),
        (any::<u8>(), 0..=FRAME_MAX).prop_map(|(byte, size)| vec![byte; size]),
        Just(vec![0; FRAME_MAX]),
    ];
    let part = prop::sample::select(&[Part::More, Part::Last][..]);
    let stream = prop_oneof![0..4_u64, any::<u64>()];
    let framed = (kind, part, stream, body)
        .prop_map(|(kind, part, stream, body)| frame(kind, part, stream, &body));
    let call = (0..4_u64, 0..100_000_u32).prop_map(|(stream, size)| first_frame(stream, size));
    let piece = prop_oneof![
        6 => framed,
        2 => call,
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ];
    prop::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_bytes_panic_or_take_more_memory_than_they_are(
        side in prop::sample::select(&[Side::Gateway, Side::Engine][..]),
        bytes in bytes(),
    ) {
        let used = peak(|| {
            let _ = feed(&mut reader(side), &bytes);
        });
        prop_assert!(used <= FACTOR * bytes.len() + FIXED, "{} bytes for {}", used, bytes.len());
    }

    #[test]
    fn what_is_parsed_of_a_handshake_is_what_was_said(
        bytes in prop::collection::vec(any::<u8>(), 42..200),
        name in "[a-z.-]{0,70}",
    ) {
        let hello = [&b"NCLK\x01\0\x01\0"[..], &bytes[..16], &[1, 0, 1, 0, 1, 0], &bytes[..32]];
        let hello = [hello.concat(), name.clone().into_bytes()].concat();
        let parsed = Hello::parse(&hello);
        prop_assert_eq!(parsed.is_ok(), (1..=64).contains(&name.len()));
        if let Ok(parsed) = parsed {
            prop_assert_eq!(parsed.encode(), hello);
        }
        let challenge = [&b"\x01\0\x02\0"[..], &bytes[..40]].concat();
        prop_assert_eq!(Challenge::parse(&challenge).unwrap().encode(), &challenge[..]);
        prop_assert!(Challenge::parse(&challenge[1..]).is_err());
        prop_assert!(Challenge::parse(&[challenge, vec![0]].concat()).is_err());
        let _ = Hello::parse(&bytes);
    }

    #[test]
    fn a_whole_frame_is_read_the_same_in_pieces(size in 0..2_000_usize, cut in 1..HEAD_SIZE + 4) {
        let mut body = vec![7; 24 + size];
        body[..24].fill(0);
        body[20..24].copy_from_slice(&u32::try_from(size).unwrap().to_le_bytes());
        let bytes = frame(Kind::Call, Part::Last, 3, &body);
        let mut reader = reader(Side::Engine);
        let mut calls = 0;
        for piece in bytes.chunks(cut) {
            reader.push(piece);
            while let Some(message) = reader.next_message().unwrap() {
                let Message::Call { block, .. } = message else { panic!("{message:?}") };
                prop_assert_eq!(block.bytes(), &body[24..]);
                calls += 1;
            }
        }
        prop_assert_eq!(calls, 1);
    }
}
