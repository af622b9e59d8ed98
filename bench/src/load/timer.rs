//! A timer of the kernel's precision on tokio's reactor, whose own timers count milliseconds.
//!
//! One timerfd a thread: high-resolution, without the 50 us slack of `epoll_wait` and `nanosleep`,
//! one system call to set, and no CPU while it waits. Setting it again discards an expiry that
//! nobody has read, so it is never read.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Instant;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Waits for moments of the monotonic clock.
pub(super) struct Timer {
    fd: AsyncFd<Descriptor>,
}

/// What `AsyncFd` wants to see of a timerfd.
struct Descriptor(TimerFd);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Timer {
    /// Fails when descriptors run out. Called within a runtime.
    pub(super) fn new() -> io::Result<Timer> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        // SAFETY: the descriptor is open, was made here, and belongs to the TimerFd that AsyncFd owns
        // from now on: nobody else can close or replace it, and `as_raw_fd` always returns it.
        let fd = unsafe { AsyncFd::register_with_interest(Descriptor(timer), Interest::READABLE) };
        Ok(Timer { fd: fd? })
    }

    /// Returns once `moment` has passed.
    pub(super) async fn until(&self, moment: Instant) -> io::Result<()> {
        loop {
            let left = moment.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let once = Expiration::OneShot(TimeSpec::from_duration(left));
            self.fd.get_ref().0.set(once, TimerSetTimeFlags::empty())?;
            self.fd.readable().await?.clear_ready();
        }
    }
}
