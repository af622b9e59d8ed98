//! What a link asks of its socket. With `gather`, one of the two files of this crate with unsafe code.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, OwnedFd};

/// Bytes that the kernel keeps beyond what is under way: what is queued there, nothing overtakes.
const UNSENT_MAX: libc::c_int = 128 * 1024;

/// No waiting for more to send, and no more waiting in the kernel than `UNSENT_MAX`.
///
/// A unix socket has neither option: it waits for nothing, and its send buffer holds just what the other
/// side has not read. The kernel doubles what is asked for, as overhead counts too.
pub(crate) fn prepare(socket: &OwnedFd) {
    set(socket, (libc::IPPROTO_TCP, libc::TCP_NODELAY), 1);
    let unsent = set(socket, (libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT), UNSENT_MAX);
    if unsent == Answer::Refused {
        set(socket, (libc::SOL_SOCKET, libc::SO_SNDBUF), UNSENT_MAX / 2);
    }
}

/// What a socket says to an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Taken,
    Refused,
}

fn set(socket: &OwnedFd, (level, name): (libc::c_int, libc::c_int), value: libc::c_int) -> Answer {
    let size = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(0);
    // SAFETY: reads `size` bytes of `value`. A socket that is not TCP refuses, and goes without.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), size)
    };
    if result == 0 { Answer::Taken } else { Answer::Refused }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_a_neighbour_does_not_read_is_kept_in_the_kernel_within_the_bound() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let ours = OwnedFd::from(ours);
        prepare(&ours);
        let mut ours = UnixStream::from(ours);
        ours.set_nonblocking(true).unwrap();
        let mut kept = 0;
        let error = loop {
            match ours.write(&[0; 4096]) {
                Ok(count) => kept += count,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert!((4096..=UNSENT_MAX as usize).contains(&kept), "{kept} bytes");
    }
}
