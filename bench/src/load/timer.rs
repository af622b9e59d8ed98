//! A timer of the kernel's precision on tokio's reactor, whose own timers count milliseconds.
//!
//! One timerfd a thread: high-resolution, without the 50 us slack of `epoll_wait` and `nanosleep`,
//! one system call to set, and no CPU while it waits. Setting it again discards an expiry that
//! nobody has read, so it is never read.
//!
//! A sleeping core takes tens of microseconds to wake up, far more than the timer is off. So the
//! timer is set earlier by what wake-ups have lately taken, and the few microseconds that are left
//! then are spun away, while nothing else on the thread runs. That is bounded: by [`SPIN_MAX`] each
//! time, and to a tenth of the time, since whoever waits more often than that does not spin.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The longest spin before a moment.
const SPIN_MAX: Duration = Duration::from_micros(10);
/// The share of time that may be spent spinning, as a divisor.
const SPIN_SHARE: u32 = 10;
/// Wake-ups slower than this are not of the machine's own making.
const LEAD_MAX: Duration = Duration::from_micros(200);
/// Weight of the last wake-up in the moving average, as a divisor.
const LEAD_WEIGHT: u32 = 16;

/// Waits for moments of the monotonic clock, one after the other.
pub(super) struct Timer {
    fd: AsyncFd<Descriptor>,
    /// How long wake-ups take, on average.
    lead: Cell<Duration>,
    spins: bool,
}

/// What `AsyncFd` wants to see of a timerfd.
struct Descriptor(TimerFd);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Timer {
    /// A timer for moments that are `interval` apart. Fails when descriptors run out. Called within
    /// a runtime.
    pub(super) fn new(interval: Duration) -> io::Result<Timer> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        // SAFETY: the descriptor is open, was made here, and belongs to the TimerFd that AsyncFd
        // owns from now on: nobody else can close or replace it, and `as_raw_fd` always returns it.
        let fd = unsafe { AsyncFd::register_with_interest(Descriptor(timer), Interest::READABLE) };
        let spins = interval >= SPIN_MAX * SPIN_SHARE;
        Ok(Timer { fd: fd?, lead: Cell::new(Duration::ZERO), spins })
    }

    /// Returns once `moment` has passed: whether that had to be waited for.
    pub(super) async fn until(&self, moment: Instant) -> io::Result<bool> {
        let mut waited = false;
        loop {
            let now = Instant::now();
            let left = moment.saturating_duration_since(now);
            if left.is_zero() {
                return Ok(waited);
            }
            waited = true;
            if self.spins && left <= SPIN_MAX {
                std::hint::spin_loop();
                continue;
            }
            let lead = if self.spins {
                (self.lead.get() + SPIN_MAX / 2).min(left / 2)
            } else {
                Duration::ZERO
            };
            let sleep = left - lead;
            self.sleep(sleep).await?;
            let slept = now.elapsed();
            if slept >= sleep {
                let took = (slept - sleep).min(LEAD_MAX);
                let before = self.lead.get();
                self.lead.set(before - before / LEAD_WEIGHT + took / LEAD_WEIGHT);
            }
        }
    }

    /// Lets the thread come to rest for an instant. The ring takes new operations only then, which
    /// merely yielding would put off.
    pub(super) async fn park(&self) -> io::Result<()> {
        self.sleep(Duration::from_nanos(1)).await
    }

    /// For as long, above zero; or for less, after an expiry that nobody had waited for.
    async fn sleep(&self, time: Duration) -> io::Result<()> {
        let once = Expiration::OneShot(TimeSpec::from_duration(time));
        self.fd.get_ref().0.set(once, TimerSetTimeFlags::empty())?;
        self.fd.readable().await?.clear_ready();
        Ok(())
    }
}
