//! Replies that are to break out of a client's answer, or into the container of a caller.

use ipc::Fault;

use super::{Cue, Noise, rest, unknown};
use crate::container::Worker;

const HEADER: u8 = 6;
const FUNCTION: u8 = 7;
const STATUS: u8 = 8;
const CONTENT_TYPE: u8 = 9;

pub(super) fn tell(worker: &mut Worker, name: &str, cue: &Cue) -> Result<(), Fault> {
    let envelope = match name {
        "split" => field(HEADER, b"\x03X-A1\r\nSet-Cookie: a=b"),
        "body" => field(CONTENT_TYPE, b"text/plain\r\n\r\n<script>"),
        "binary" => field(CONTENT_TYPE, &[0, 1, 2, 0xff]),
        "status" => field(STATUS, &999u16.to_le_bytes()),
        "twice" => [field(STATUS, &[200, 0]), field(STATUS, &[201, 0])].concat(),
        "tag" => field(FUNCTION, b"echo"),
        "short" => field(STATUS, &[200, 0])[..5].to_vec(),
        "noise" => Noise::new().bytes(64 * 1024),
        "many" => field(HEADER, b"\x01a1").repeat(129),
        // The largest there is, which is no lie.
        "large" => {
            let payload = vec![b'x'; worker.forger.geometry.payload_max() as usize];
            return worker.answer(cue.call, &[], &payload);
        }
        _ => unknown(name),
    };
    worker.answer(cue.call, &envelope, b"payload")?;
    rest()
}

pub(super) fn field(tag: u8, value: &[u8]) -> Vec<u8> {
    let [low, high] = u16::try_from(value.len()).expect("fields are short").to_le_bytes();
    [&[tag, 0, low, high], value].concat()
}
