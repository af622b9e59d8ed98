//! The time at which the ring wakes its thread: one timeout in the kernel, set anew only for an
//! earlier time. A thread that always waits for "some seconds from now" then arms no timer at all
//! in most turns, where a timeout given with each wait costs one each.

use crate::clock::Nanos;
use crate::reactor::{IGNORED, Reactor};
use io_uring::types::{TimeoutFlags, Timespec};
use io_uring::{opcode, squeue};

/// `user_data` of the timeout.
pub(crate) const ALARM: u64 = u32::MAX as u64 - 2;
/// The kernel wants seconds to be a positive i64; nobody waits until then.
const LATEST: Nanos = Nanos(u64::MAX / 2);

/// What the kernel was told.
#[derive(Default)]
pub(crate) struct Alarm {
    /// When the kernel's timeout fires, until its completion has been seen.
    set: Option<Nanos>,
    /// Read by the kernel when it takes the entry.
    time: Box<Timespec>,
}

impl Reactor {
    /// Makes sure that the ring wakes its thread at `at` or before.
    pub(crate) fn wake_at(&mut self, at: Nanos) {
        let at = at.min(LATEST);
        let earlier = self.alarm.set;
        if earlier.is_some_and(|set| set <= at) {
            return;
        }
        self.alarm.set = Some(at);
        let nanos = u32::try_from(at.0 % 1_000_000_000).unwrap_or(0);
        *self.alarm.time = Timespec::new().sec(at.0 / 1_000_000_000).nsec(nanos);
        let time: *const Timespec = &raw const *self.alarm.time;
        let flags = TimeoutFlags::ABS;
        let entry = match earlier {
            None => opcode::Timeout::new(time).flags(flags).build().user_data(ALARM),
            // If it has fired meanwhile there is nothing to move, and its completion ends the wait.
            Some(_) => opcode::TimeoutUpdate::new(ALARM, time)
                .flags(flags)
                .build()
                .flags(squeue::Flags::SKIP_SUCCESS)
                .user_data(IGNORED),
        };
        self.push(entry);
    }

    /// The kernel's timeout has fired or was cancelled: a later wait sets it again.
    pub(crate) fn alarm_rang(&mut self) {
        self.alarm.set = None;
    }
}
