//! What a function answers, with any bytes for envelope and payload. The client gets one answer for
//! each of its requests, well formed, and the payload as it was; the connection goes on behind it.

use gateway::{Answer, Config};
use ipc::Outcome;
use ipc::engine_side::SharedBlock;
use ipc::envelope::parse_reply;

use crate::front::{Functions, Piece, converse};
use crate::input::Input;
use crate::reading::read_all;

/// Above what the gateway copies behind the head.
const PAYLOAD_MAX: usize = 40_000;
/// What of a failed call's payload reaches the client, in bytes.
const MESSAGE_MAX: usize = 4 * 1024;

/// Outcome, method, sizes, and then the block.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let outcome = Outcome::ALL[usize::from(input.u8()) % Outcome::ALL.len()];
    let choices = input.u8();
    let envelope_size = usize::from(input.u16());
    let repeated = 1 + usize::from(input.u8()) * usize::from(choices & 1);
    let envelope = input.bytes(envelope_size);
    let payload = input.rest().repeat(repeated);
    let payload = &payload[..payload.len().min(PAYLOAD_MAX)];

    let is_head = choices & 2 != 0;
    let retry_after_s = (choices & 4 != 0).then_some(7);
    let method = if is_head { "HEAD" } else { "GET" };
    let requests = format!("{method} /function/f HTTP/1.1\r\nHost: h\r\n\r\n").repeat(2);
    let mut functions = Functions::new(|| {
        let block = SharedBlock::from_bytes([envelope, payload].concat(), envelope.len());
        Answer { outcome, message: "", retry_after_s, block: Some(block), times: None }
    });
    let pieces = [Piece { bytes: requests.as_bytes(), moves: choices & 8 != 0 }];
    let seen = converse(&Config::default(), &mut functions, &pieces);
    let answers = read_all(&seen, |_| !is_head);

    let [first, second] = &answers[..] else { panic!("two requests, {} answers", answers.len()) };
    assert_eq!(functions.calls.len(), 2);
    assert_eq!(first.status, second.status);
    assert!(!first.closes && !second.closes, "a function ends the connection");
    match (outcome, parse_reply(envelope)) {
        (Outcome::Ok, Ok(reply)) => {
            assert_eq!(first.status, reply.status.unwrap_or(200));
            let bodiless = is_head || matches!(first.status, 204 | 205 | 304);
            let expected = if bodiless { &[] } else { payload };
            assert_eq!((&first.body[..], &second.body[..]), (expected, expected));
        }
        (outcome, _) if !is_head => {
            let failed = if outcome == Outcome::Ok { Outcome::FunctionError } else { outcome };
            assert!((400..=599).contains(&first.status), "status {}", first.status);
            assert_eq!(first.error().as_deref(), Some(failed.as_str()));
            assert!(first.body.len() <= 6 * MESSAGE_MAX + 256, "{} bytes", first.body.len());
        }
        _ => assert!(first.body.is_empty()),
    }
}
