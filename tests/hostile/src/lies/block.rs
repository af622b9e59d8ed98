//! Blocks that are not where or not as large as they may be, and calls that name no function.

use ipc::{Block, Fault, Region, ToEngine};

use super::{Cue, Noise, rest, unknown};
use crate::container::{Worker, complete};

pub(super) fn tell(worker: &mut Worker, name: &str, cue: &Cue) -> Result<(), Fault> {
    let extent = worker.forger.geometry.extent_size() as u64;
    let payload_max = worker.forger.geometry.payload_max();
    let block = |offset, envelope_size, payload_size| Block {
        region: Region::Outbound,
        offset,
        envelope_size,
        payload_size,
    };
    let result = match name {
        "behind" => block(extent, 0, 1),
        "across" => block(extent - 1, 0, 2),
        "wrap" => block(u64::MAX, 0, 1),
        "sizes" => block(0, u32::MAX, u32::MAX),
        "envelope" => block(0, 64 * 1024 + 1, 0),
        "payload" => block(0, 0, payload_max + 1),
        // The engine's own region, which the message has no way to name but by its bits.
        "region" => {
            let mut words = complete(cue.call, block(0, 0, 1)).encode().0;
            words[0] &= !(0xff << 16);
            worker.forger.publish(words);
            rest()
        }
        "nameless" => return call(worker, &[]),
        "noise" => return call(worker, &Noise::new().bytes(200)),
        "control" => return call(worker, b"\x07\0\x04\0a\r\nb"),
        _ => unknown(name),
    };
    worker.say(&complete(cue.call, result))?;
    rest()
}

/// A call with this envelope.
fn call(worker: &mut Worker, envelope: &[u8]) -> Result<(), Fault> {
    let block = worker.write(0, envelope, b"input");
    worker.say(&ToEngine::Call { token: 0, deadline_ns: u64::MAX, released: None, block })?;
    rest()
}
