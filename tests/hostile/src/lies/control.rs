//! Lies of the control socket, told while the container is up.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use ipc::Fault;
use ipc::control::{FromLauncher, PACKET_MAX, PROTOCOL_VERSION};
use nix::sys::signal::{Signal, raise};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::{Noise, rest, unknown};
use crate::container::Worker;

pub(super) fn tell(worker: &mut Worker, name: &str) -> Result<(), Fault> {
    let shard = worker.shard;
    match name {
        "noise" => _ = send(&worker.control(), &Noise::new().bytes(100), &[]),
        "version" => _ = send(&worker.control(), b"NCCS\xff\xff\x81\0", &[]),
        "long" => _ = send(&worker.control(), &[b'x'; 4 * PACKET_MAX], &[]),
        "empty" => _ = send(&worker.control(), &[], &[]),
        "rights" => send_descriptors(worker),
        "hello" => {
            let pid = std::process::id();
            say(worker, &FromLauncher::Hello { version: PROTOCOL_VERSION, pid, interface: 2 });
        }
        "refused" => {
            let message = "\x1b[2Jno\nERROR nightcore: all is lost".to_owned();
            say(worker, &FromLauncher::Refused { message });
        }
        "shard" => spawn_failed(worker, u16::MAX, 0),
        "lane" => spawn_failed(worker, shard, u16::MAX),
        "worker" => spawn_failed(worker, shard, worker.forger.lane.0),
        "flood" => {
            for lane in (0..=u16::MAX).cycle() {
                spawn_failed(worker, shard, lane);
            }
        }
        "stop" => {
            let stopped = raise(Signal::SIGSTOP);
            assert!(stopped.is_ok(), "it is this process");
        }
        // Everything is closed, and the process stays.
        "closed" => {
            // SAFETY: takes plain numbers; nothing here uses a descriptor any more.
            unsafe { libc::close_range(0, u32::MAX, 0) };
        }
        _ => unknown(name),
    }
    rest()
}

fn spawn_failed(worker: &Worker, shard: u16, lane: u16) {
    say(worker, &FromLauncher::SpawnFailed { shard, lane, message: "so it says".to_owned() });
}

fn say(worker: &Worker, message: &FromLauncher) {
    // An engine that has closed the socket has understood.
    let _ = worker.container.control.send_to_engine(message);
}

/// Messages with descriptors beside them, until the engine has had enough.
fn send_descriptors(worker: &Worker) {
    let files: Vec<OwnedFd> = (0..100)
        .map(|_| worker.forger.b.try_clone().expect("there is room for descriptors"))
        .collect();
    while send(&worker.control(), b"NCCS\x01\0\x82\0so", &files) {}
}

/// Whether the packet was taken.
pub(super) fn send(socket: &impl AsFd, packet: &[u8], files: &[OwnedFd]) -> bool {
    let fds: Vec<_> = files.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let control = if fds.is_empty() { &[][..] } else { &rights[..] };
    let socket = socket.as_fd().as_raw_fd();
    sendmsg::<()>(socket, &[IoSlice::new(packet)], control, MsgFlags::MSG_NOSIGNAL, None).is_ok()
}
