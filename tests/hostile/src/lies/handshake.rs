//! Lies told before the container has said hello.

use std::error::Error;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::thread;
use std::time::Duration;

use ipc::control::{ControlSocket, PACKET_MAX};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::unistd::{ForkResult, fork};

use super::control::send;
use super::{Noise, rest, unknown};

/// Whether the lie is told by the container's second start.
pub fn is_of_handshake(lie: &str) -> bool {
    lie.starts_with("hello-")
}

/// Greets the engine with a lie.
pub fn greet(path: &Path, lie: &str) -> Result<(), Box<dyn Error>> {
    match lie {
        "hello-noise" => _ = send(&ControlSocket::connect(path)?, &Noise::new().bytes(64), &[]),
        "hello-version" => {
            // Another protocol's hello.
            let hello = b"NCCS\x01\0\x81\0\xff\0\0\0\0\0\0\0\x02\0";
            send(&ControlSocket::connect(path)?, hello, &[]);
            rest()
        }
        "hello-interface" => {
            let hello = b"NCCS\x01\0\x81\0\x01\0\0\0\0\0\0\0\x09\0";
            send(&ControlSocket::connect(path)?, hello, &[]);
            rest()
        }
        "hello-long" => {
            send(&ControlSocket::connect(path)?, &[0; 64 * PACKET_MAX], &[]);
            rest()
        }
        "hello-rights" => {
            let socket = ControlSocket::connect(path)?;
            let files = [OwnedFd::from(std::fs::File::open("/dev/null")?)];
            send(&socket, b"NCCS\x01\0\x81\0\x01\0\0\0\0\0\0\0\x02\0", &files);
            rest()
        }
        // A thousand of its own: one is taken, the path is gone.
        "hello-thousand" => {
            let sockets: Vec<_> = (0..1000).map(|_| knock(path)).collect();
            let _all_open = sockets;
            thread::sleep(Duration::from_millis(100));
            std::process::exit(1)
        }
        // Others than the process that the engine has started.
        "hello-strangers" => {
            // SAFETY: this process has one thread, so the child may do anything.
            match unsafe { fork() }? {
                ForkResult::Child => {
                    // SAFETY: takes plain numbers.
                    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
                    loop {
                        knock(path);
                    }
                }
                ForkResult::Parent { .. } => rest(),
            }
        }
        _ => unknown(lie),
    }
    rest()
}

/// Connects without waiting; nothing if the engine does not take it.
fn knock(path: &Path) -> Option<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).ok()?;
    connect(fd.as_raw_fd(), &UnixAddr::new(path).ok()?).ok()?;
    Some(fd)
}
