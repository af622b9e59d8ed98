//! What a link asks of its socket. With `gather`, one of the two files of this crate with unsafe code.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, OwnedFd};

/// Bytes that the kernel keeps beyond what is under way: what is queued there, nothing overtakes.
const UNSENT_MAX: libc::c_int = 128 * 1024;

/// No waiting for more to send, and no more waiting in the kernel than `UNSENT_MAX`.
pub(crate) fn prepare(socket: &OwnedFd) {
    set(socket, libc::TCP_NODELAY, 1);
    set(socket, libc::TCP_NOTSENT_LOWAT, UNSENT_MAX);
}

fn set(socket: &OwnedFd, name: libc::c_int, value: libc::c_int) {
    let size = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(0);
    // SAFETY: reads `size` bytes of `value`. A socket that is not TCP refuses, and goes without.
    let _ = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            name,
            (&raw const value).cast(),
            size,
        )
    };
}
