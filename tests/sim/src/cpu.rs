//! The cores of a shard's workers: all threads that can run share them equally.
//!
//! Processor sharing is exact, in virtual time: a clock of work that runs at the speed at which each
//! thread gets on. A thread that joins with some work to do is done when that clock shows its
//! present reading and that work, whoever comes and goes meanwhile; so the threads stand in the
//! order in which they finish, and nothing is recomputed when one joins.
//!
//! A second clock counts the CPU time of each thread, as its kernel would: it shows less than wall
//! time, since others have the core as well, and more than the work done, since turns cost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use engine::core::WorkerId;
use reactor::clock::Nanos;

/// Virtual time is counted in this part of a nanosecond: a thread's speed is a multiple of it. With
/// 2^20 it lasts for 4.8 hours.
const UNIT: u64 = 1 << 20;

/// What it costs that threads take turns on a core.
#[derive(Clone, Copy, Debug)]
pub struct Switching {
    /// How long a thread runs until the next one's turn.
    pub slice: Duration,
    /// What the change costs.
    pub cost: Duration,
    /// How much slower everything is for each thread beside the first on a core, because they share
    /// its caches: 0.02 for 2%, and then a hundred threads take three times as long together as one
    /// after the other.
    pub penalty: f64,
}

impl Switching {
    /// 2 us a turn of 1 ms, and 2% for each further thread. The latter is a guess, for threads with some
    /// data of their own each; it decides how much a pool without bounds loses.
    pub const USUAL: Switching = Switching {
        slice: Duration::from_millis(1),
        cost: Duration::from_micros(2),
        penalty: 0.02,
    };

    /// The share of time that is work when `threads` are on each core.
    fn efficiency(self, threads: f64) -> f64 {
        if threads <= 1.0 {
            return 1.0;
        }
        let turn = self.cost.as_secs_f64() / self.slice.as_secs_f64();
        1.0 / (1.0 + turn + self.penalty * (threads - 1.0))
    }
}

/// See the module's description.
#[derive(Debug)]
pub struct Cpu {
    cores: u16,
    switching: Option<Switching>,
    now: Nanos,
    /// Work done by a thread that was there all the time, in units.
    work: u64,
    /// CPU time of the same, in units.
    time: u64,
    /// By the reading of `work` at which they are done.
    order: BTreeSet<(u64, Key)>,
    jobs: BTreeMap<Key, Job>,
    /// Units a ns, for as many threads as there are now.
    work_rate: u64,
    time_rate: u64,
    busy: Duration,
}

/// A worker in the order of functions and lanes.
type Key = (u32, u16);

#[derive(Clone, Copy, Debug)]
struct Job {
    worker: WorkerId,
    done: u64,
    time: u64,
    since: Nanos,
}

/// Work that is done, or was given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Done {
    /// Whose.
    pub worker: WorkerId,
    /// CPU time that it took.
    pub cpu: Duration,
    /// Time in which the thread could have run and others did.
    pub delay: Duration,
}

impl Cpu {
    /// Cores that nobody uses.
    #[must_use]
    pub fn new(cores: u16, switching: Option<Switching>, now: Nanos) -> Cpu {
        Cpu {
            cores,
            switching,
            now,
            work: 0,
            time: 0,
            order: BTreeSet::new(),
            jobs: BTreeMap::new(),
            work_rate: UNIT,
            time_rate: UNIT,
            busy: Duration::ZERO,
        }
    }

    /// A worker that was not computing has something to compute.
    pub fn join(&mut self, now: Nanos, worker: WorkerId, work: Duration) {
        self.advance(now);
        let done = self.work + ns(work).max(1) * UNIT;
        let job = Job { worker, done, time: self.time, since: now };
        assert!(self.jobs.insert(key(worker), job).is_none(), "{worker:?} computes twice");
        self.order.insert((done, key(worker)));
        self.set_rates();
    }

    /// When the next one is done.
    #[must_use]
    pub fn next(&self) -> Option<Nanos> {
        let (done, _) = self.order.first()?;
        let left = done.saturating_sub(self.work).div_ceil(self.work_rate);
        Some(self.now + Duration::from_nanos(left))
    }

    /// The one that is done at `now`.
    pub fn finish(&mut self, now: Nanos) -> Option<Done> {
        self.advance(now);
        let &(done, key) = self.order.first()?;
        (done <= self.work).then(|| self.take(key)).flatten()
    }

    /// Ends what a worker computes, if it does.
    pub fn leave(&mut self, now: Nanos, worker: WorkerId) -> Option<Done> {
        self.advance(now);
        self.take(key(worker))
    }

    /// The machine stands still until `now`: time passes and nothing gets done.
    pub fn stall(&mut self, from: Nanos, now: Nanos) {
        self.advance(from);
        self.now = now;
        for job in self.jobs.values_mut() {
            job.since = job.since + now.saturating_since(from);
        }
    }

    /// How long all cores together were in use.
    #[must_use]
    pub fn busy(&self) -> Duration {
        self.busy
    }

    fn advance(&mut self, now: Nanos) {
        let passed = now.saturating_since(self.now);
        if self.jobs.is_empty() {
            self.now = now.max(self.now);
            return;
        }
        self.work += ns(passed) * self.work_rate;
        self.time += ns(passed) * self.time_rate;
        self.now = now.max(self.now);
        let used = u32::from(self.cores).min(u32::try_from(self.jobs.len()).unwrap_or(u32::MAX));
        self.busy += passed * used;
    }

    fn take(&mut self, key: Key) -> Option<Done> {
        let job = self.jobs.remove(&key)?;
        self.order.remove(&(job.done, key));
        self.set_rates();
        let cpu = Duration::from_nanos((self.time - job.time) / UNIT);
        let delay = self.now.saturating_since(job.since).saturating_sub(cpu);
        Some(Done { worker: job.worker, cpu, delay })
    }

    fn set_rates(&mut self) {
        let (cores, threads) = (f64::from(self.cores), self.jobs.len() as f64);
        let share = (cores / threads).min(1.0);
        let efficiency = self.switching.map_or(1.0, |s| s.efficiency(threads / cores));
        self.time_rate = units(share);
        self.work_rate = units(share * efficiency);
    }
}

fn key(worker: WorkerId) -> Key {
    (worker.function.0, worker.lane.0)
}

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of the unit, from 0 to 1"
)]
fn units(share: f64) -> u64 {
    ((share * UNIT as f64) as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::core::FunctionId;
    use ipc::LaneIndex;

    fn worker(lane: u16) -> WorkerId {
        WorkerId { function: FunctionId(0), lane: LaneIndex(lane) }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// When each of these, that join at a time with some work, is done: its lane and the time, in ms.
    fn run(mut cpu: Cpu, jobs: &[(u64, u64)]) -> Vec<(u16, u64, Done)> {
        let mut joins = jobs.iter().zip(0..).peekable();
        let mut done = Vec::new();
        while done.len() < jobs.len() {
            let next = cpu.next();
            match joins.peek() {
                Some(((at, work), lane))
                    if next.is_none_or(|next| Nanos(at * 1_000_000) < next) =>
                {
                    cpu.join(Nanos(at * 1_000_000), worker(*lane), ms(*work));
                    joins.next();
                }
                _ => {
                    let now = next.unwrap();
                    let one = cpu.finish(now).unwrap();
                    done.push((one.worker.lane.0, (now.0 + 500_000) / 1_000_000, one));
                }
            }
        }
        done
    }

    fn ends(cpu: Cpu, jobs: &[(u64, u64)]) -> Vec<(u16, u64)> {
        run(cpu, jobs).into_iter().map(|(lane, at, _)| (lane, at)).collect()
    }

    #[test]
    fn threads_share_a_core_and_the_least_work_is_done_first() {
        let cpu = || Cpu::new(1, None, Nanos(0));
        assert_eq!(ends(cpu(), &[(0, 10)]), [(0, 10)]);
        assert_eq!(ends(cpu(), &[(0, 10), (0, 10)]), [(0, 20), (1, 20)]);
        // Alone for 5 ms, then in halves: lane 1 is done at 9, and lane 0 has 3 ms left.
        assert_eq!(ends(cpu(), &[(0, 10), (5, 2)]), [(1, 9), (0, 12)]);
        assert_eq!(ends(Cpu::new(2, None, Nanos(0)), &[(0, 10), (0, 10)]), [(0, 10), (1, 10)]);
        let three = [(0, 10), (0, 10), (0, 10)];
        assert_eq!(ends(Cpu::new(2, None, Nanos(0)), &three), [(0, 15), (1, 15), (2, 15)]);
    }

    #[test]
    fn cpu_time_and_the_wait_for_a_core_are_told_apart() {
        let done = run(Cpu::new(1, None, Nanos(0)), &[(0, 10), (0, 10)]);
        for (_, _, Done { cpu, delay, .. }) in done {
            assert!(
                cpu.abs_diff(ms(10)) < ms(1) && delay.abs_diff(ms(10)) < ms(1),
                "{cpu:?} {delay:?}"
            );
        }
    }

    #[test]
    fn turns_cost_the_more_the_more_threads_there_are() {
        let jobs = |threads| vec![(0, 10); threads];
        let end = |threads: usize| {
            let cpu = Cpu::new(1, Some(Switching::USUAL), Nanos(0));
            ends(cpu, &jobs(threads)).last().unwrap().1 / u64::try_from(threads).unwrap()
        };
        assert_eq!([end(1), end(2), end(51), end(101)], [10, 10, 20, 30]);
    }

    #[test]
    fn a_machine_that_stands_still_does_nothing_and_charges_nobody() {
        let mut cpu = Cpu::new(1, None, Nanos(0));
        cpu.join(Nanos(0), worker(0), ms(10));
        cpu.stall(Nanos(4_000_000), Nanos(104_000_000));
        assert_eq!(cpu.next(), Some(Nanos(110_000_000)));
        let done = cpu.finish(Nanos(110_000_000)).unwrap();
        assert_eq!((done.cpu, done.delay), (ms(10), Duration::ZERO));
        assert_eq!(cpu.busy(), ms(10));
    }

    #[test]
    fn one_that_leaves_leaves_the_core_to_the_others() {
        let mut cpu = Cpu::new(1, None, Nanos(0));
        cpu.join(Nanos(0), worker(0), ms(10));
        cpu.join(Nanos(0), worker(1), ms(10));
        assert!(cpu.leave(Nanos(10_000_000), worker(1)).is_some());
        assert!(cpu.leave(Nanos(10_000_000), worker(1)).is_none());
        assert_eq!(cpu.next(), Some(Nanos(15_000_000)));
    }
}
