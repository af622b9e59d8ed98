//! How a shard's thread stands to the functions on its core, and when that changes.
//!
//! Above them it answers one lone call at once, and nothing that computes can keep it waiting. But when
//! many calls are in flight, each message then interrupts the worker that wrote it, and nothing
//! batches: as an equal it is woken just as well, and finds what several workers have said. So it steps
//! down while many are in flight, unless it has to wait too long for its turn: then functions that
//! compute share the core.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use reactor::clock::Nanos;

use crate::config::Priority as Setting;

/// Shards run at this niceness where the system permits it: well above the functions' 0.
const HIGH: i32 = -10;
/// Calls in flight on average from which on the thread steps down, and up to which it steps up again.
const MANY: u32 = 10;
const FEW: u32 = 6;
/// The longest wait for a turn, on average, that workers of short calls account for; a function that
/// computes uses up a time slice of 3 ms.
const DELAY_MAX: Duration = Duration::from_millis(2);
/// How long the thread then stays up before it tries again.
const UP_FOR: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Level {
    /// Above functions.
    High,
    /// As their equal.
    Equal,
}

/// The priority of the calling thread.
pub(super) struct Priority {
    level: Level,
    /// Counted since the last decision: turns, and the calls in flight in each.
    turns: u32,
    calls: u64,
    up_until: Nanos,
    /// The thread's account of its waits for the core; none where the priority stays as it is.
    waits: Option<Waits>,
}

struct Waits {
    schedstat: File,
    waited_ns: u64,
    slices: u64,
}

impl Priority {
    /// Sets the calling thread's. The second is false if the system does not let it rise.
    pub(super) fn new(shard: u16, setting: Setting) -> (Self, bool) {
        let fixed = |level| Self { level, turns: 0, calls: 0, up_until: Nanos(0), waits: None };
        if matches!(setting, Setting::Normal | Setting::Groups) {
            return (fixed(Level::Equal), true);
        }
        if let Err(error) = set(HIGH) {
            tracing::info!(
                "shard {shard} keeps its priority ({error}); containers are lowered instead"
            );
            return (fixed(Level::Equal), false);
        }
        let waits = match setting {
            Setting::Adaptive => Waits::open().ok(),
            Setting::High | Setting::Groups | Setting::Normal => None,
        };
        (Self { waits, ..fixed(Level::High) }, true)
    }

    /// Notes how many calls are in flight in this turn.
    pub(super) fn count(&mut self, calls: u32) {
        self.turns += 1;
        self.calls += u64::from(calls);
    }

    /// Decides anew. Called every few milliseconds while the shard has work.
    pub(super) fn adapt(&mut self, now: Nanos) {
        let Some(waits) = &mut self.waits else { return };
        let calls = self.calls / u64::from(self.turns.max(1));
        (self.turns, self.calls) = (0, 0);
        if self.level == Level::Equal && waits.mean() > DELAY_MAX {
            self.up_until = now + UP_FOR;
        }
        let level = next(self.level, u32::try_from(calls).unwrap_or(u32::MAX), now < self.up_until);
        if level == self.level {
            return;
        }
        self.level = level;
        let niceness = match level {
            Level::High => HIGH,
            Level::Equal => 0,
        };
        if let Err(error) = set(niceness) {
            tracing::warn!("the shard's priority stays as it is from now on: {error}");
            self.waits = None;
        } else if level == Level::Equal {
            // What it waited above counts for nothing below.
            let _ = waits.mean();
        }
    }
}

fn next(level: Level, calls: u32, must_be_high: bool) -> Level {
    match level {
        _ if must_be_high => Level::High,
        Level::High if calls >= MANY => Level::Equal,
        Level::Equal if calls <= FEW => Level::High,
        level => level,
    }
}

impl Waits {
    fn open() -> io::Result<Self> {
        let schedstat = File::open("/proc/thread-self/schedstat")?;
        Ok(Self { schedstat, waited_ns: 0, slices: 0 })
    }

    /// How long the thread waited for its core each time since this was last asked, on average.
    fn mean(&mut self) -> Duration {
        let mut text = [0; 96];
        let size = self.schedstat.read_at(&mut text, 0).unwrap_or(0);
        let Some((waited_ns, slices)) = parse(&text[..size]) else { return Duration::ZERO };
        let waited = waited_ns.saturating_sub(self.waited_ns);
        let times = slices.saturating_sub(self.slices).max(1);
        (self.waited_ns, self.slices) = (waited_ns, slices);
        Duration::from_nanos(waited / times)
    }
}

/// Second and third of "ran waited slices": nanoseconds, and how often the thread ran.
fn parse(schedstat: &[u8]) -> Option<(u64, u64)> {
    let mut fields = std::str::from_utf8(schedstat).ok()?.split_ascii_whitespace().skip(1);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Sets the calling thread's niceness.
fn set(niceness: i32) -> io::Result<()> {
    // SAFETY: setpriority takes plain numbers; 0 means the calling thread on Linux.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, niceness) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_steps_down_for_many_calls_and_up_for_few_and_stays_in_between() {
        assert_eq!(next(Level::High, MANY - 1, false), Level::High);
        assert_eq!(next(Level::High, MANY, false), Level::Equal);
        assert_eq!(next(Level::Equal, FEW + 1, false), Level::Equal);
        assert_eq!(next(Level::Equal, FEW, false), Level::High);
    }

    #[test]
    fn a_shard_that_waits_too_long_stays_up_whatever_the_load() {
        assert_eq!(next(Level::Equal, 1000, true), Level::High);
        assert_eq!(next(Level::High, 1000, true), Level::High);
    }

    #[test]
    fn waits_are_read_from_the_kernels_account() {
        assert_eq!(parse(b"1701338655 2293591588 10880\n"), Some((2_293_591_588, 10_880)));
        assert_eq!(parse(b"1701338655 x"), None);
        let mut waits = Waits::open().unwrap();
        let _ = waits.mean();
        assert!(waits.slices > 0);
    }
}
