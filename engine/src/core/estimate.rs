//! What a function's load has been of late: how many calls come, and what one of them takes.
//!
//! Everything here is a mean over a short window of the past, the present bin and the one before it.
//! Unlike a moving average that is stepped once a sample it is unbiased, says as much after few
//! samples as can be said, and forgets within two bins whatever the rate of samples is.

use std::time::Duration;

use ipc::Usage;
use reactor::clock::Nanos;

/// Bins of arrivals: long enough for some tens of calls at the rates that matter, short against the
/// second in which a pool is to follow its load.
const RATE_BIN: Duration = Duration::from_millis(100);
/// Calls that take longer need longer bins: within fewer than two of them the count of arrivals
/// varies more than the number of calls at once does.
const RATE_BIN_MAX: Duration = Duration::from_secs(2);
/// So many arrivals are enough to tell a rate from (to within a fifth) before their bin is over.
const BURST: u32 = 32;
/// A bin of samples ends when it has both, or when it is old and has a few.
const SAMPLES: u32 = 32;
const SAMPLES_TIME: Duration = Duration::from_millis(100);
const SAMPLES_OLD: (u32, Duration) = (4, Duration::from_secs(1));
/// What a call occupies its place for beside its own time: a wake-up of its worker, one of the
/// engine, in ns.
pub(super) const DISPATCH_NS: u64 = 20_000;
const SECOND: f64 = 1e9;

/// How many events come in a second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    since: Nanos,
    count: u32,
    /// Of the bin before, a second.
    before: f64,
}

/// Means of N quantities that are sampled together.
#[derive(Clone, Copy, Debug)]
struct Means<const N: usize> {
    since: Nanos,
    sums: [u64; N],
    count: u32,
    sums_before: [u64; N],
    count_before: u32,
}

/// One function's load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    rate: Rate,
    /// By call: how long it ran, how much of it while it waited for its own calls, and how much of
    /// that they take without queues.
    calls: Means<3>,
    /// By call as the workers measure: CPU time, idle time.
    usage: Means<2>,
    /// Length of the bins of arrivals.
    bin: Duration,
}

/// What one call was, in ns: `ran >= waited >= service`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// From its beginning to its end.
    pub ran: u64,
    /// Part of that in which calls of its own were unanswered.
    pub waited: u64,
    /// What those take when nothing queues.
    pub service: u64,
}

impl Sample {
    /// How long the call ran, without the time that its own calls waited for workers, in ns.
    pub fn processing_ns(self) -> u64 {
        self.ran - self.waited + self.service
    }
}

impl Rate {
    fn record(&mut self, now: Nanos, bin: Duration) {
        let nanos = u64::try_from(bin.as_nanos()).unwrap_or(u64::MAX);
        let age = now.0.saturating_sub(self.since.0);
        if age >= 2 * nanos {
            *self = Rate { since: now, count: 0, before: 0.0 };
        } else if age >= nanos {
            self.before = a_second(self.count, nanos);
            self.since = Nanos(self.since.0 + nanos);
            self.count = 0;
        }
        self.count = self.count.saturating_add(1);
    }

    /// The present rate and the highest that may be meant, a second: what came in the bin before, or in
    /// the last bin's time, or has come in this bin so far.
    fn a_second(&self, now: Nanos, bin: Duration) -> (f64, f64) {
        let nanos = u64::try_from(bin.as_nanos()).unwrap_or(u64::MAX);
        let age = now.0.saturating_sub(self.since.0);
        if age >= 2 * nanos {
            return (0.0, 0.0);
        }
        let present = a_second(self.count, nanos);
        if age >= nanos {
            let rest = 2.0 - age as f64 / nanos as f64;
            return (present * rest, present);
        }
        let rest = 1.0 - age as f64 / nanos as f64;
        let sliding = self.before * rest + present;
        let burst = if self.count >= BURST { a_second(self.count, age.max(1)) } else { 0.0 };
        (sliding, sliding.max(self.before).max(burst))
    }
}

fn a_second(count: u32, nanos: u64) -> f64 {
    f64::from(count) * SECOND / nanos as f64
}

impl<const N: usize> Means<N> {
    fn new() -> Means<N> {
        let (since, sums, count) = (Nanos(0), [0; N], 0);
        Means { since, sums, count, sums_before: sums, count_before: 0 }
    }

    /// `values` are the means of `count` samples.
    fn record(&mut self, now: Nanos, values: [u64; N], count: u32) {
        if self.count == 0 {
            self.since = now;
        }
        let (age, (few, old)) = (now.saturating_since(self.since), SAMPLES_OLD);
        if (self.count >= SAMPLES && age >= SAMPLES_TIME) || (self.count >= few && age >= old) {
            (self.sums_before, self.count_before) = (self.sums, self.count);
            (self.sums, self.count, self.since) = ([0; N], 0, now);
        }
        for (sum, value) in self.sums.iter_mut().zip(values) {
            *sum = sum.saturating_add(value.saturating_mul(count.into()));
        }
        self.count = self.count.saturating_add(count);
    }

    fn get(&self) -> Option<[u64; N]> {
        let count = u64::from(self.count) + u64::from(self.count_before);
        let mean = |n: usize| self.sums[n].saturating_add(self.sums_before[n]) / count;
        (count > 0).then(|| std::array::from_fn(mean))
    }
}

impl Load {
    pub fn new() -> Load {
        let rate = Rate { since: Nanos(0), count: 0, before: 0.0 };
        Load { rate, calls: Means::new(), usage: Means::new(), bin: RATE_BIN }
    }

    /// A call came.
    pub fn arrived(&mut self, now: Nanos) {
        self.rate.record(now, self.bin);
    }

    /// A call ended, and perhaps its worker says what its calls cost.
    pub fn completed(&mut self, now: Nanos, sample: Option<Sample>, usage: Option<Usage>) {
        if let Some(Sample { ran, waited, service }) = sample {
            self.calls.record(now, [ran, waited, service], 1);
        }
        if let Some(Usage { calls, cpu_ns, idle_ns }) = usage {
            self.usage.record(now, [cpu_ns.into(), idle_ns.into()], calls.get().min(SAMPLES));
        }
    }

    /// Calls that came of late, a second.
    pub fn rate(&self, now: Nanos) -> f64 {
        self.rate.a_second(now, self.bin).0
    }

    /// When the rate, and the hint with it, will be 0 if no call comes.
    pub fn silent_at(&self) -> Nanos {
        self.rate.since + 2 * self.bin
    }

    /// How long a call runs from its beginning to its end as things are, in ns.
    pub fn ran_ns(&self) -> Option<u64> {
        self.calls.get().map(|[ran, ..]| ran)
    }

    /// CPU time of a call, in ns; of a function that has not been measured, all of its time.
    pub fn cpu_ns(&self) -> Option<u64> {
        let unmeasured = || self.calls.get().map(|[ran, waited, _]| ran - waited);
        self.usage.get().map(|[cpu, _]| cpu).or_else(unmeasured)
    }

    /// For how long a call runs or is blocked, its own calls aside, in ns.
    fn own_ns(&self) -> Option<u64> {
        let [ran, waited, _] = self.calls.get()?;
        Some(self.usage.get().map_or(ran - waited, |[cpu, idle]| cpu + idle.saturating_sub(waited)))
    }

    /// t of Little's law: for how long a call takes a worker if nothing queues and no core is
    /// contended, in ns. The service of its own calls counts, their queues do not.
    pub fn processing_ns(&self) -> Option<u64> {
        let [_, _, service] = self.calls.get()?;
        Some(self.own_ns()? + service + DISPATCH_NS)
    }

    /// tau of Little's law: calls at once that the present load calls for.
    pub fn hint(&self, now: Nanos) -> Option<f64> {
        let (_, rate) = self.rate.a_second(now, self.bin);
        Some(rate * self.processing_ns()? as f64 / SECOND)
    }

    /// How many calls keep one core busy: more than one where calls block on something else than
    /// calls of their own.
    pub fn calls_a_core(&self) -> Option<f64> {
        let [cpu, _] = self.usage.get()?;
        Some(self.own_ns()? as f64 / cpu.max(1) as f64)
    }

    /// Fits the bins of arrivals to how long calls take.
    pub fn adjust(&mut self) {
        let ns = self.processing_ns().unwrap_or(0);
        self.bin = Duration::from_nanos(ns.saturating_mul(2)).clamp(RATE_BIN, RATE_BIN_MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    const MS: u64 = 1_000_000;

    fn usage(calls: u32, cpu_ns: u32, idle_ns: u32) -> Option<Usage> {
        Some(Usage { calls: NonZeroU32::new(calls).unwrap(), cpu_ns, idle_ns })
    }

    fn plain(ran: u64) -> Sample {
        Sample { ran, waited: 0, service: 0 }
    }

    #[test]
    fn the_rate_of_poisson_arrivals_is_not_overrated() {
        let mut load = Load::new();
        let (mut now, mut random, mut sum, mut looks) = (Nanos(1_000 * MS), 1_u64, 0.0, 0);
        for n in 0..50_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let uniform = ((random >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
            now = now + Duration::from_secs_f64(-uniform.ln() / 1e3);
            load.arrived(now);
            if n > 1_000 && n % 100 == 0 {
                (sum, looks) = (sum + load.rate(now), looks + 1);
            }
        }
        let mean = sum / f64::from(looks);
        assert!((970.0..1_030.0).contains(&mean), "{mean} of 1000 a second");
    }

    #[test]
    fn a_burst_tells_before_its_bin_is_over_and_silence_after_two() {
        let mut load = Load::new();
        let at = |us: u64| Nanos(1_000 * MS + us * 1_000);
        load.completed(at(0), Some(plain(10 * MS)), usage(1, 100_000, 9_900_000));
        for n in 0..64 {
            load.arrived(at(n * 20));
        }
        assert!(load.hint(at(1_280)).unwrap() > 64.0);
        assert!(load.hint(at(250_000)).unwrap() == 0.0);
        let silent_at = load.silent_at();
        assert!(load.rate(Nanos(silent_at.0 - 1_000)) > 0.0);
        assert!(load.rate(silent_at) == 0.0);
    }

    #[test]
    fn a_change_of_service_time_is_known_within_two_bins() {
        let mut load = Load::new();
        let mut now = 1_000 * MS;
        for _ in 0..1_000 {
            now += MS;
            load.completed(Nanos(now), Some(plain(MS)), usage(1, 1_000_000, 0));
        }
        for _ in 0..220 {
            now += MS;
            load.completed(Nanos(now), Some(plain(10 * MS)), usage(1, 10_000_000, 0));
        }
        assert_eq!(load.processing_ns(), Some(10 * MS + DISPATCH_NS));
    }

    #[test]
    fn queues_of_ones_own_calls_do_not_count_and_their_service_does() {
        let mut load = Load::new();
        let sample = Sample { ran: 10 * MS, waited: 9 * MS, service: 2 * MS };
        load.completed(Nanos(MS), Some(sample), usage(1, 1_000_000, 9_000_000));
        assert_eq!(load.processing_ns(), Some(3 * MS + DISPATCH_NS));
        assert_eq!(load.calls_a_core(), Some(1.0));
    }

    #[test]
    fn blocked_calls_leave_their_core_to_others() {
        let mut load = Load::new();
        load.completed(Nanos(MS), Some(plain(10 * MS)), usage(1, 100_000, 9_900_000));
        assert_eq!(load.calls_a_core(), Some(100.0));
        assert_eq!(load.cpu_ns(), Some(100_000));
    }

    #[test]
    fn an_unmeasured_function_is_taken_to_compute() {
        let mut load = Load::new();
        assert_eq!((load.cpu_ns(), load.hint(Nanos(MS))), (None, None));
        load.completed(Nanos(MS), Some(plain(5 * MS)), None);
        assert_eq!((load.cpu_ns(), load.calls_a_core()), (Some(5 * MS), None));
    }
}
