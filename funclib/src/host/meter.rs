//! What a worker's calls cost: CPU time as the kernel counts it, and the time they were idle.
//!
//! Measured over several short calls or one long one, for a look at the clocks costs a microsecond.

use std::fs::File;
use std::num::NonZeroU32;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use ipc::Usage;
use nix::time::{ClockId, clock_gettime};

/// Short calls that are measured together.
const CALLS_MAX: u32 = 32;
/// What ran this long, alone or together, is measured at once: the look does not weigh against it. In ns.
const RAN_MAX: u64 = 10_000_000;
/// The first calls are measured one by one: little is known of the function.
const FIRST_CALLS: u32 = 8;

/// The clocks of this thread, and what they said last.
pub(super) struct Meter {
    /// Where the scheduler says for how long the thread waited for its core; none if it cannot be
    /// read, and then that time counts as idle.
    schedstat: Option<File>,
    last: Reading,
    calls: u32,
    ran_ns: u64,
    /// Calls that are still measured one by one.
    first: u32,
}

#[derive(Clone, Copy, Default)]
struct Reading {
    cpu_ns: u64,
    delay_ns: u64,
}

impl Meter {
    /// To be made and used by the worker's thread.
    pub(super) fn new() -> Meter {
        let schedstat = File::open("/proc/thread-self/schedstat").ok();
        let last = Reading::default();
        let mut meter = Meter { schedstat, last, calls: 0, ran_ns: 0, first: FIRST_CALLS };
        meter.last = meter.read();
        meter
    }

    /// A call ran for so long, from its beginning to its end.
    pub(super) fn on_call(&mut self, ran_ns: u64) -> Option<Usage> {
        self.calls += 1;
        self.ran_ns += ran_ns;
        if self.calls < CALLS_MAX && self.ran_ns < RAN_MAX && self.first == 0 {
            return None;
        }
        self.first = self.first.saturating_sub(1);
        let reading = self.read();
        let cpu_ns = reading.cpu_ns.saturating_sub(self.last.cpu_ns);
        let delay_ns = reading.delay_ns.saturating_sub(self.last.delay_ns);
        self.last = reading;
        let calls = NonZeroU32::new(std::mem::take(&mut self.calls))?;
        let ran_ns = std::mem::take(&mut self.ran_ns);
        let a_call = |ns: u64| u32::try_from(ns / u64::from(calls.get())).unwrap_or(u32::MAX);
        let idle_ns = ran_ns.saturating_sub(cpu_ns).saturating_sub(delay_ns);
        Some(Usage { calls, cpu_ns: a_call(cpu_ns), idle_ns: a_call(idle_ns) })
    }

    fn read(&self) -> Reading {
        // The clock first: it brings the scheduler's own figures up to date.
        let cpu = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from);
        let cpu_ns = cpu.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        let mut text = [0; 64];
        let size = self.schedstat.as_ref().and_then(|file| file.read_at(&mut text, 0).ok());
        let delay_ns = size.and_then(|size| delay_ns(text.get(..size)?)).unwrap_or(0);
        Reading { cpu_ns, delay_ns }
    }
}

/// The second number of the file: time on a run queue, in ns.
fn delay_ns(schedstat: &[u8]) -> Option<u64> {
    str::from_utf8(schedstat).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_is_the_second_number() {
        assert_eq!(delay_ns(b"55820684 674792 120\n"), Some(674_792));
        assert_eq!(delay_ns(b"1"), None);
        assert_eq!(delay_ns(b"1 x 3"), None);
        assert_eq!(delay_ns(&[0xff, b' ', b'1']), None);
    }

    #[test]
    fn short_calls_are_measured_together_and_a_long_one_alone() {
        let mut meter = Meter::new();
        for _ in 0..FIRST_CALLS {
            assert_eq!(meter.on_call(1).map(|usage| usage.calls.get()), Some(1));
        }
        for _ in 1..CALLS_MAX {
            assert_eq!(meter.on_call(1), None);
        }
        assert_eq!(meter.on_call(1).map(|usage| usage.calls.get()), Some(CALLS_MAX));
        assert_eq!(meter.on_call(RAN_MAX).map(|usage| usage.calls.get()), Some(1));
    }

    #[test]
    fn a_call_that_sleeps_is_idle_and_one_that_computes_is_not() {
        let mut meter = Meter::new();
        let begin = std::time::Instant::now();
        std::thread::sleep(Duration::from_millis(20));
        let ran_ns = u64::try_from(begin.elapsed().as_nanos()).unwrap();
        let slept = meter.on_call(ran_ns).unwrap();
        assert!(slept.idle_ns > slept.cpu_ns, "{slept:?} in {ran_ns} ns");

        let cpu_ns = |meter: &Meter| meter.read().cpu_ns;
        let (begin, before) = (std::time::Instant::now(), cpu_ns(&meter));
        while cpu_ns(&meter) - before < 20_000_000 {
            std::hint::spin_loop();
        }
        let ran_ns = u64::try_from(begin.elapsed().as_nanos()).unwrap();
        let spun = meter.on_call(ran_ns).unwrap();
        assert!(spun.cpu_ns >= 20_000_000 && spun.idle_ns < spun.cpu_ns, "{spun:?} in {ran_ns} ns");
    }
}
