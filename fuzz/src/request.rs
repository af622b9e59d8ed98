//! What a client sends, whole and in pieces: the same requests reach the functions, and the same
//! answers come back. Every request is answered, whatever it is.

use gateway::{Answer, Config};
use ipc::Outcome;
use ipc::engine_side::SharedBlock;

use crate::front::{Functions, Piece, converse};
use crate::input::Input;
use crate::reading::{Read, read_all};

/// Pieces at most, so that many small ones do not make a try slow; the last one is the rest.
const PIECES_MAX: usize = 48;
const ANSWER: &[u8] = b"answer";
/// Ends whatever line is open, so that what the client sent is understood as far as it goes.
const END: &[u8] = b"\r\n\r\n";

/// The first bytes say how the rest, which the client sends, is cut.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let sizes: [u8; 4] = input.array();
    let moves = input.u8();
    let stream = [input.rest(), END].concat();
    let config = Config { body_max: 2000, head_max: 1024, headers_max: 16, ..Config::default() };

    let mut whole = Functions::new(answer);
    let one = [Piece { bytes: &stream, moves: false }];
    let whole_seen = read_all(&converse(&config, &mut whole, &one), has_body);
    let mut cut = Functions::new(answer);
    let cut_seen = read_all(&converse(&config, &mut cut, &pieces(&stream, sizes, moves)), has_body);

    check(&whole_seen, &cut_seen);
    assert!(whole.calls.len() >= cut.calls.len());
    assert_eq!(whole.calls[..cut.calls.len()], cut.calls);
    if whole_seen.len() == cut_seen.len() {
        assert_eq!(whole.calls.len(), cut.calls.len());
    }
    let answered = whole_seen.iter().filter(|answer| answer.body == ANSWER).count();
    assert!(answered <= whole.calls.len(), "an answer that no function gave");
    let says_something = stream.iter().any(|byte| !b"\r\n".contains(byte));
    assert!(!says_something || !whole_seen.is_empty(), "no answer");
}

/// The same answers. But a request for what is not there is turned away before its body has come, for
/// the price of the connection, and what is wrong with that body is never seen.
fn check(whole: &[Read], cut: &[Read]) {
    for (index, (whole, piecewise)) in whole.iter().zip(cut).enumerate() {
        let told = |answer: &Read| (answer.status, answer.error(), answer.closes);
        let (whole, piecewise) = (told(whole), told(piecewise));
        if whole != piecewise {
            let early = piecewise.2 && matches!(piecewise.0, 400 | 404 | 405);
            let late = whole.0 == piecewise.0 || whole.2 && matches!(whole.0, 400 | 413);
            assert!(early && late, "answer {index}: {whole:?} or {piecewise:?}");
            assert_eq!(cut.len(), index + 1);
            return;
        }
    }
    assert_eq!(whole.len(), cut.len(), "{whole:?} {cut:?}");
}

fn pieces(stream: &[u8], sizes: [u8; 4], moves: u8) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = stream;
    while !rest.is_empty() {
        let index = pieces.len();
        let size = match index < PIECES_MAX {
            true => (usize::from(sizes[index % 4]) + 1).min(rest.len()),
            false => rest.len(),
        };
        let bytes;
        (bytes, rest) = rest.split_at(size);
        pieces.push(Piece { bytes, moves: moves & 1 << (index % 8) != 0 });
    }
    pieces
}

/// Bodies of the gateway and of the function begin otherwise than an answer does.
fn has_body(rest: &[u8]) -> bool {
    !rest.is_empty() && !rest.starts_with(b"HTTP/1.1 ")
}

fn answer() -> Answer {
    let block = Some(SharedBlock::from_bytes(ANSWER.to_vec(), 0));
    Answer { outcome: Outcome::Ok, message: "", retry_after_s: None, block, times: None }
}
