//! Bytes that change while the engine reads them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ipc::{CallId, Fault, ToEngine, ToWorker};

use super::reply::field;
use super::{Cue, unknown};
use crate::container::Worker;

/// Calls that are served while the bytes change.
const ROUNDS: u32 = 200;
const CONTENT_TYPE: u8 = 9;

pub(super) fn tell(worker: &mut Worker, name: &str, cue: &Cue) -> Result<(), Fault> {
    match name {
        // A message changes into others from the moment it is published.
        "message" => {
            let forger = worker.forger.clone();
            thread::spawn(move || {
                loop {
                    let tail = forger.tail().load(Ordering::Relaxed).wrapping_sub(1);
                    for value in [0x83, u64::MAX, 0, 0x02_0083] {
                        forger.store(tail, 0, value);
                        forger.store(tail, 3, value << 32);
                    }
                }
            });
            honest_calls(worker, cue.call)
        }
        // An envelope is now fit and now ends its header, a payload is never twice the same.
        "reply" => {
            let fit = field(CONTENT_TYPE, b"text/plain; a=b");
            let unfit = field(CONTENT_TYPE, b"text/plain\r\na: b");
            worker.forger.write_outbound(0, &fit);
            let forger = worker.forger.clone();
            let size = fit.len();
            thread::spawn(move || {
                for number in 0_u64.. {
                    forger.write_outbound(0, if number % 2 == 0 { &unfit } else { &fit });
                    forger.write_outbound(size as u64, &number.to_le_bytes());
                }
            });
            replies(worker, cue.call, size)
        }
        "sleep" => {
            let forger = worker.forger.clone();
            thread::spawn(move || {
                let asleep = AtomicBool::new(false);
                loop {
                    let value = asleep.fetch_xor(true, Ordering::Relaxed);
                    forger.sleeping().store(value.into(), Ordering::Relaxed);
                }
            });
            honest_calls(worker, cue.call)
        }
        _ => unknown(name),
    }
}

/// Serves calls as if nothing were, beginning with this one.
fn honest_calls(worker: &mut Worker, first: CallId) -> Result<(), Fault> {
    worker.answer(first, &[], b"flipping")?;
    for _ in 0..ROUNDS {
        if let ToWorker::Dispatch { call, .. } = worker.hear()? {
            worker.answer(call, &[], b"flipping")?;
        }
    }
    Ok(())
}

/// The same with an envelope of that size and some payload, which somebody else writes.
fn replies(worker: &mut Worker, first: CallId, envelope_size: usize) -> Result<(), Fault> {
    let mut block = worker.write(0, &[], &[]);
    block.envelope_size = u32::try_from(envelope_size).expect("it is short");
    block.payload_size = 8;
    let mut call = first;
    loop {
        worker.say(&crate::container::complete(call, block))?;
        call = loop {
            match worker.hear()? {
                ToWorker::Dispatch { call, .. } => break call,
                ToWorker::Retire => return worker.say(&ToEngine::Retired),
                _ => {}
            }
        };
    }
}
