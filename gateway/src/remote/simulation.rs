//! Engines, calls and time as numbers: what the balance does with them, from a seed.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

use reactor::clock::Nanos;

use super::balance::{Balance, Condition, Ending, FunctionIndex, Load, SeatId};
use super::queue::Queue;

const US: u64 = 1_000;
const MS: u64 = 1_000 * US;
/// One way between a gateway and an engine.
const WIRE: u64 = 50 * US;
const REPORTS_EVERY: u64 = 100 * MS;

/// What an engine of the simulation is.
#[derive(Clone, Copy)]
struct Make {
    workers: u32,
    /// Mean time of a call, on a healthy engine.
    service_ns: u64,
    service: Service,
    window: u32,
}

#[derive(Clone, Copy, Debug)]
enum Service {
    /// Within 10% of the mean.
    Steady,
    Exponential,
}

struct Host {
    seat: SeatId,
    slowness: u64,
    running: u32,
    queue: VecDeque<usize>,
    given: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive,
    Reach { host: usize, call: usize },
    Complete { host: usize, call: usize },
    Answer { host: usize, call: usize },
    Report,
}

#[derive(Clone, Copy)]
struct Call {
    arrived: u64,
    sent: u64,
}

struct World {
    make: Make,
    balance: Balance,
    function: FunctionIndex,
    hosts: Vec<Host>,
    by_seat: HashMap<SeatId, usize>,
    queue: Queue<usize>,
    calls: Vec<Call>,
    /// Calls in the order in which they left the gateway.
    sent: Vec<usize>,
    latencies: Vec<u64>,
    refused: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    scheduled: u64,
    now: u64,
    random: u64,
}

impl World {
    fn new(seed: u64, make: Make, hosts: usize) -> World {
        let mut balance = Balance::new(seed);
        let function = balance.add_function();
        let mut world = World {
            make,
            balance,
            function,
            hosts: Vec::new(),
            by_seat: HashMap::new(),
            queue: Queue::new(1024),
            calls: Vec::new(),
            sent: Vec::new(),
            latencies: Vec::new(),
            refused: 0,
            events: BinaryHeap::new(),
            scheduled: 0,
            now: 0,
            random: seed,
        };
        for _ in 0..hosts {
            world.join();
        }
        world.schedule(REPORTS_EVERY, Event::Report);
        world
    }

    fn join(&mut self) {
        let seat = self.balance.join(self.function, self.make.window);
        let queue = VecDeque::new();
        self.by_seat.insert(seat, self.hosts.len());
        self.hosts.push(Host { seat, slowness: 1, running: 0, queue, given: 0 });
    }

    /// splitmix64 (Steele, Lea and Flood, 2014).
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.random;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// In [0, 1).
    fn fraction(&mut self) -> f64 {
        (self.random() >> 11) as f64 / (1_u64 << 53) as f64
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small, above zero"
    )]
    fn exponential(&mut self, mean_ns: u64) -> u64 {
        (-(1.0 - self.fraction()).ln() * mean_ns as f64) as u64
    }

    fn schedule(&mut self, after: u64, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((self.now + after, self.scheduled, event)));
    }

    /// `count` calls at exponentially distributed gaps, and all answers to them.
    fn run(&mut self, count: u64, gap_ns: u64) {
        let mut owed = count;
        let target = self.latencies.len() as u64 + self.refused + count;
        self.schedule(0, Event::Arrive);
        while self.latencies.len() as u64 + self.refused < target {
            let Reverse((at, _, event)) = self.events.pop().expect("calls are on their way");
            self.now = at;
            if event == Event::Arrive {
                owed -= 1;
                if owed > 0 {
                    let gap = self.exponential(gap_ns);
                    self.schedule(gap, Event::Arrive);
                }
            }
            self.take(event);
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Arrive => {
                let call = self.calls.len();
                self.calls.push(Call { arrived: self.now, sent: 0 });
                if self.queue.is_full() {
                    self.refused += 1;
                } else {
                    self.queue.put(call as u64, call);
                }
            }
            Event::Reach { host, call } => {
                self.hosts[host].queue.push_back(call);
                self.start(host);
            }
            Event::Complete { host, call } => {
                self.hosts[host].running -= 1;
                self.start(host);
                self.schedule(WIRE, Event::Answer { host, call });
            }
            Event::Answer { host, call } => {
                let Call { arrived, sent } = self.calls[call];
                let latency = Duration::from_nanos(self.now - sent);
                let seat = self.hosts[host].seat;
                self.balance.end(seat, Nanos(self.now), Ending::Answered(latency));
                self.latencies.push(self.now - arrived);
            }
            Event::Report => {
                for host in &self.hosts {
                    let calls = u32::try_from(host.queue.len()).unwrap() + host.running;
                    let condition = Condition::Open;
                    let room = self.make.window.saturating_sub(calls);
                    let load = Load { calls, room, condition };
                    self.balance.report(host.seat, &load);
                }
                self.schedule(REPORTS_EVERY, Event::Report);
            }
        }
        self.send();
    }

    fn send(&mut self) {
        while !self.queue.is_empty() {
            let Some(seat) = self.balance.choose(self.function, Nanos(self.now)) else { return };
            let call = self.queue.pop().expect("it is not empty");
            self.balance.begin(seat);
            let host = self.by_seat[&seat];
            self.hosts[host].given += 1;
            self.calls[call].sent = self.now;
            self.sent.push(call);
            self.schedule(WIRE, Event::Reach { host, call });
        }
    }

    fn start(&mut self, host: usize) {
        while self.hosts[host].running < self.make.workers {
            let Some(call) = self.hosts[host].queue.pop_front() else { break };
            self.hosts[host].running += 1;
            let service = match self.make.service {
                Service::Steady => {
                    let tenth = self.make.service_ns / 10;
                    self.make.service_ns - tenth + self.random() % (2 * tenth)
                }
                Service::Exponential => self.exponential(self.make.service_ns),
            };
            let service = service * self.hosts[host].slowness;
            self.schedule(service, Event::Complete { host, call });
        }
    }

    fn forget(&mut self) {
        self.latencies.clear();
        self.hosts.iter_mut().for_each(|host| host.given = 0);
    }

    fn percentile(&self, part: f64) -> u64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
        let index = ((sorted.len() as f64 * part) as usize).min(sorted.len() - 1);
        sorted[index]
    }

    /// The largest distance from an even part, in permille of it.
    fn unevenness(&self) -> u64 {
        let all: u64 = self.hosts.iter().map(|host| host.given).sum();
        let even = all / self.hosts.len() as u64;
        let distances = self.hosts.iter().map(|host| host.given.abs_diff(even) * 1_000 / even);
        distances.max().expect("there are hosts")
    }
}

/// The gap between calls that keeps three healthy engines busy to `percent`.
fn gap(make: &Make, percent: u64) -> u64 {
    make.service_ns * 100 / (u64::from(make.workers) * 3 * percent)
}

const MAKES: [Make; 4] = [
    // A function that computes, one shard.
    Make { workers: 1, service_ns: MS, service: Service::Steady, window: 32 },
    Make { workers: 1, service_ns: MS, service: Service::Exponential, window: 32 },
    // A function that waits, and has workers enough.
    Make { workers: 64, service_ns: 5 * MS, service: Service::Steady, window: 128 },
    Make { workers: 16, service_ns: 5 * MS, service: Service::Exponential, window: 64 },
];

#[test]
fn three_equal_engines_get_equal_parts() {
    for (index, make) in MAKES.into_iter().enumerate() {
        for percent in [5, 30, 60, 90] {
            for seed in 1..4 {
                let mut world = World::new(seed, make, 3);
                world.run(20_000, gap(&make, percent));
                let uneven = world.unevenness();
                assert!(uneven <= 50, "make {index}, {percent}%, seed {seed}: {uneven} permille");
                assert_eq!(world.refused, 0);
            }
        }
    }
}

#[test]
fn one_engine_three_times_slower_does_not_show_in_p99() {
    for (index, make) in MAKES.into_iter().enumerate() {
        for percent in [5, 20, 35] {
            for seed in 1..3 {
                let p99 = |slowness| {
                    let mut world = World::new(seed, make, 3);
                    world.run(5_000, gap(&make, percent));
                    world.hosts[2].slowness = slowness;
                    // Until it has been noticed.
                    world.run(1_500, gap(&make, percent));
                    world.forget();
                    world.run(10_000, gap(&make, percent));
                    (world.percentile(0.99), world.hosts[2].given)
                };
                let ((healthy, _), (slowed, given)) = (p99(1), p99(3));
                let case = format!("make {index}, {percent}%, seed {seed}");
                assert!(
                    slowed * 2 <= healthy * 3,
                    "{case}: {healthy} and {slowed} ns, {given} calls there"
                );
            }
        }
    }
}

#[test]
fn an_engine_that_is_fast_again_gets_its_share_again() {
    for (index, make) in MAKES.into_iter().enumerate() {
        let mut world = World::new(7, make, 3);
        world.hosts[2].slowness = 3;
        world.run(5_000, gap(&make, 30));
        world.hosts[2].slowness = 1;
        // Seconds, not calls: a trial a second, and then one behind the other.
        world.run(60_000, gap(&make, 30));
        world.forget();
        world.run(20_000, gap(&make, 30));
        let uneven = world.unevenness();
        assert!(uneven <= 50, "make {index}: {uneven} permille");
    }
}

#[test]
fn an_engine_that_joins_late_gets_its_share_and_no_more() {
    for (index, make) in MAKES.into_iter().enumerate() {
        let mut world = World::new(11, make, 2);
        world.run(10_000, gap(&make, 30));
        world.join();
        world.forget();
        world.run(10_000, gap(&make, 30));
        let uneven = world.unevenness();
        assert!(uneven <= 50, "make {index}: {uneven} permille");
    }
}

#[test]
fn a_burst_waits_while_all_are_full_and_leaves_in_order() {
    let make = Make { workers: 1, service_ns: MS, service: Service::Exponential, window: 2 };
    let mut world = World::new(3, make, 3);
    world.run(500, 1);
    assert_eq!(world.refused, 0);
    assert_eq!(world.sent, (0..500).collect::<Vec<usize>>());
    assert_eq!(world.latencies.len(), 500);
    // No engine ever had more than its window, or the last ones would not have waited this long.
    assert!(world.percentile(0.99) > 50 * MS);
}

#[test]
fn a_burst_beyond_the_queue_is_refused() {
    let make = Make { workers: 1, service_ns: MS, service: Service::Steady, window: 2 };
    let mut world = World::new(5, make, 3);
    world.run(2_000, 1);
    assert!((900..=980).contains(&world.refused), "{} refused", world.refused);
}

#[test]
fn a_thousand_engines_share_and_a_hundred_slow_ones_do_not_show() {
    let make = Make { workers: 1, service_ns: MS, service: Service::Steady, window: 8 };
    let mut world = World::new(13, make, 1_000);
    for host in world.hosts.iter_mut().take(100) {
        host.slowness = 10;
    }
    world.run(200_000, MS / 300);
    world.forget();
    world.run(50_000, MS / 300);
    assert!(world.percentile(0.98) < 3 * MS, "p98 {} ns", world.percentile(0.98));
}
