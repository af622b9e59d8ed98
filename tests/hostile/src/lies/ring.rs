//! Cursors that cannot be, slots that hold no message, a ring that nobody reads.

use ipc::{Fault, RING_DEPTH};

use super::{Noise, flood, rest, unknown};
use crate::container::Worker;

pub(super) fn tell(worker: &mut Worker, name: &str) -> Result<(), Fault> {
    match name {
        "ahead" => worker.forger.move_tail(RING_DEPTH + 1),
        "backward" => worker.forger.move_tail(u32::MAX),
        "huge" => worker.forger.move_tail(u32::MAX / 2),
        "empty" => worker.forger.publish([0; 8]),
        "noise" => {
            let mut noise = Noise::new();
            worker.forger.publish([0; 8].map(|_: u64| noise.next()));
        }
        "head" => {
            worker.forger.head().fetch_add(1_000_000, std::sync::atomic::Ordering::Release);
            flood::unread(worker)?;
        }
        "unread" => flood::unread(worker)?,
        _ => unknown(name),
    }
    rest()
}
