//! The lies, by name. Each is told by a worker that was given a call with the input "lie", or, those
//! of the handshake, by a container that has said nothing yet.

mod block;
mod call;
mod control;
mod doorbell;
mod flood;
mod handshake;
mod memory;
mod race;
mod reply;
mod ring;

use std::thread;
use std::time::Duration;

use ipc::{CallId, Fault};

use crate::container::Worker;

pub use handshake::{greet, is_of_handshake};

/// What a worker knows when it is to lie.
struct Cue {
    /// The call that it was given.
    call: CallId,
    /// Of that call, on `CLOCK_MONOTONIC`.
    deadline_ns: u64,
}

/// Tells the lie that the container was started for.
pub fn tell(worker: &mut Worker, call: CallId, deadline_ns: u64) -> Result<(), Fault> {
    let lie = worker.container.lie.clone();
    let cue = Cue { call, deadline_ns };
    let (family, name) = lie.split_once('-').unwrap_or((&lie, ""));
    match family {
        "ring" => ring::tell(worker, name),
        "block" => block::tell(worker, name, &cue),
        "call" => call::tell(worker, name, &cue),
        "reply" => reply::tell(worker, name, &cue),
        "race" => race::tell(worker, name, &cue),
        "doorbell" => doorbell::tell(worker, name, &cue),
        "memory" => memory::tell(worker, name, &cue),
        "control" => control::tell(worker, name),
        "flood" => flood::tell(worker, name, &cue),
        // The honest part of a container whose lie comes with its next start.
        "hello" => std::process::exit(1),
        _ => unknown(&lie),
    }
}

/// Says nothing more, for as long as the engine lets it live.
fn rest() -> ! {
    loop {
        thread::sleep(Duration::from_secs(60));
    }
}

fn unknown(lie: &str) -> ! {
    eprintln!("hostile-worker: there is no lie {lie}");
    std::process::abort()
}

/// Numbers that look random: xorshift64*.
struct Noise(u64);

impl Noise {
    fn new() -> Noise {
        Noise(0x9e37_79b9_7f4a_7c15)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn bytes(&mut self, size: usize) -> Vec<u8> {
        let words = (0..size.div_ceil(8)).flat_map(|_| self.next().to_le_bytes());
        let mut bytes: Vec<u8> = words.collect();
        bytes.truncate(size);
        bytes
    }
}
