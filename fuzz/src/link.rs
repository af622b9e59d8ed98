//! What comes on a link from its other end, to both sides, and on a connection that is to become one.
//! Whole and in pieces it is the same messages and the same end; what is parsed keeps its limits; a
//! handshake succeeds with nobody who does not have the key.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use protocol::frame::{FRAME_MAX, Head, Kind, Part};
use protocol::hello::{Challenge, Hello, Key};
use protocol::message::{
    AnswerHead, CallHead, FUNCTIONS_MAX, LOADS_MAX, NAME_MAX, REASON_MAX, encode_functions,
};
use protocol::{Limits, LinkError, Message, Reader, Side, handshake};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::input::Input;

/// Payloads that the readers take.
const PAYLOAD_MAX: u32 = 1 << 20;
/// Bytes that one input becomes at most, and of one filling.
const STREAM_MAX: usize = 1 << 20;
const FILLING_MAX: usize = 40_000;

/// The first byte says who reads.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.u8() % 4 {
        0 => read(Side::Gateway, &mut input),
        1 => read(Side::Engine, &mut input),
        2 => parse(input.rest()),
        _ => shake_hands(&mut input),
    }
}

/// The next two bytes say how it is cut; the rest becomes what is read.
fn read(side: Side, input: &mut Input<'_>) {
    let cut = usize::from(input.u16()).max(1);
    let bytes = expand(input);
    let whole = messages(side, &bytes, bytes.len().max(1));
    let pieces = messages(side, &bytes, cut);
    assert_eq!(whole, pieces, "cut after every {cut}");
}

/// Mostly as it stands: but a few bytes must be able to become full frames.
fn expand(input: &mut Input<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    while !input.is_empty() && out.len() < STREAM_MAX {
        match input.u8() {
            size @ 0..128 => out.extend_from_slice(input.bytes(usize::from(size))),
            128..192 => {
                let size = input.below(FILLING_MAX);
                out.resize(out.len() + size, 0);
            }
            size => {
                let part = if size % 2 == 0 { Part::Last } else { Part::More };
                let kind = Kind::try_from(input.u8() % 14).expect("there are fourteen");
                let stream = u64::from(input.u8());
                let head = Head { size: FRAME_MAX, kind, part, stream };
                out.extend_from_slice(&head.encode());
                let from = out.len();
                out.extend_from_slice(input.bytes(usize::from(size - 192)));
                out.resize(from + FRAME_MAX, 0);
            }
        }
    }
    out
}

/// What is read of the bytes, as text, and how it ends.
fn messages(side: Side, bytes: &[u8], cut: usize) -> (Vec<String>, Option<u64>) {
    let mut reader = Reader::new(side, Limits::for_payloads(PAYLOAD_MAX));
    let mut seen = Vec::new();
    'all: for piece in bytes.chunks(cut) {
        reader.push(piece);
        loop {
            match reader.next_message() {
                Ok(Some(message)) => seen.push(check(side, &message)),
                Ok(None) => break,
                Err(error) => {
                    seen.push(check_end(&error));
                    break 'all;
                }
            }
        }
    }
    (seen, reader.take_ping())
}

/// Asserts a message's limits.
fn check(side: Side, message: &Message<'_>) -> String {
    match message {
        Message::Call { head, block, .. } => {
            assert_eq!(side, Side::Engine);
            let CallHead { envelope_size, payload_size, .. } = *head;
            check_block(envelope_size, payload_size, block.bytes());
        }
        Message::Answer { head, block, .. } => {
            assert_eq!(side, Side::Gateway);
            let AnswerHead { envelope_size, payload_size, .. } = *head;
            check_block(envelope_size, payload_size, block.bytes());
        }
        Message::Functions(functions) => {
            assert_eq!(side, Side::Gateway);
            assert!(functions.len() <= FUNCTIONS_MAX);
            for function in functions {
                let name = function.name.as_bytes();
                let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.-".contains(byte);
                assert!((1..=NAME_MAX).contains(&name.len()) && name.iter().all(is_part));
            }
            let count = |by: fn(&protocol::message::Function) -> String| {
                functions.iter().map(by).collect::<std::collections::HashSet<_>>().len()
            };
            assert_eq!(count(|function| function.name.clone()), functions.len());
            assert_eq!(count(|function| function.number.to_string()), functions.len());
            encode_functions(functions, &mut Vec::new()).expect("what was parsed encodes");
        }
        Message::Load(loads) => {
            assert!(side == Side::Gateway && loads.len() <= LOADS_MAX);
        }
        Message::Cancel { .. } => assert_eq!(side, Side::Engine),
        Message::Draining => {}
    }
    format!("{message:?}").replace("Borrowed", "").replace("Owned", "")
}

fn check_block(envelope_size: u32, payload_size: u32, bytes: &[u8]) {
    assert!(envelope_size as usize <= ipc::ENVELOPE_MAX && payload_size <= PAYLOAD_MAX);
    assert_eq!(bytes.len(), envelope_size as usize + payload_size as usize);
}

fn check_end(error: &LinkError) -> String {
    let text = error.to_string();
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert!(text.chars().count() < REASON_MAX + 100, "{text:?}");
    text
}

/// Bodies of HELLO and CHALLENGE have one form each.
fn parse(bytes: &[u8]) {
    if let Ok(hello) = Hello::parse(bytes) {
        assert_eq!(hello.encode(), bytes);
    }
    if let Ok(challenge) = Challenge::parse(bytes) {
        assert_eq!(challenge.encode(), bytes);
    }
}

/// The next byte says who is here, and whether with a key; the rest is what the other side says,
/// whatever it hears.
fn shake_hands(input: &mut Input<'_>) {
    let mode = input.u8();
    let key = Key::new(vec![7; 32]).expect("it is long enough");
    let key = (mode & 2 == 0).then_some(&key);
    let mut stranger = Stranger { says: input.rest(), heard: 0 };
    let challenge = Challenge { version: 1, shards: 2, instance: 3, nonce: [4; 32] };
    let hello = Hello {
        version_min: 1,
        version_max: 1,
        node: "host-1".into(),
        instance: 5,
        epoch: 6,
        connection: 1,
        shards: 2,
        cores: 2,
        nonce: [8; 32],
    };
    let result = if mode & 1 == 0 {
        finish(pin!(handshake::answer(&mut stranger, &challenge, key))).map(|_| ())
    } else {
        finish(pin!(handshake::dial(&mut stranger, &hello, key))).map(|_| ())
    };
    assert!(stranger.heard < 1024, "a stranger hears {} bytes", stranger.heard);
    match result {
        Ok(()) => assert!(key.is_none(), "a stranger got in"),
        Err(error) => {
            check_end(&error);
        }
    }
}

/// A future over a [`Stranger`], which never waits.
fn finish<T>(future: Pin<&mut impl Future<Output = T>>) -> T {
    let mut context = Context::from_waker(Waker::noop());
    match future.poll(&mut context) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("nothing is waited for"),
    }
}

/// Says what it was made to say, then nothing more.
struct Stranger<'a> {
    says: &'a [u8],
    /// Bytes.
    heard: usize,
}

impl AsyncRead for Stranger<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (said, rest) = self.says.split_at(buffer.remaining().min(self.says.len()));
        buffer.put_slice(said);
        self.says = rest;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stranger<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.heard += bytes.len();
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
