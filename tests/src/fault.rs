//! One fault under load: what the clients of the function that it hits saw of it, and those of others.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::load::{Load, Outcome, Report, Traffic};
use crate::stack::Stack;

/// Until every connection and worker that the load needs is there.
const WARM_UP: Duration = Duration::from_millis(300);
/// Calm that the fault is compared with.
const CALM: Duration = Duration::from_millis(500);
/// What counts as "during the fault" where it takes no time.
const DURING_MIN: Duration = Duration::from_millis(500);
/// By then all is as before.
pub const RECOVERY_MAX: Duration = Duration::from_secs(1);
/// What is looked at behind that.
const AFTER: Duration = Duration::from_millis(200);

/// Latencies up to this one are what a machine that others use as well does by itself.
const NOISE: Duration = Duration::from_millis(20);
/// Runs of a scene: latencies are the machine's as much as ours, so one good run is enough.
const RUNS_MAX: u32 = 3;

/// Functions that have nothing to do with the fault, but for the stack that they run in; examples.
pub const OTHERS: [&str; 2] = ["echo", "chain"];

/// One fault at a time, where the tests of a file run side by side.
static ALONE: Mutex<()> = Mutex::new(());

/// What was seen of a fault.
#[derive(Debug)]
pub struct Seen {
    /// The load on the function that the fault was in.
    victim: Report,
    /// When it ended.
    over: Instant,
    /// The greatest p99 of the others' latencies before the fault.
    calm: Duration,
    /// The same during it.
    during: Duration,
}

/// Lets `fault` happen to a stack in which [`OTHERS`] run, under load on them and on `victim`, and
/// returns what was seen. The fault is over when `fault` returns.
///
/// # Panics
/// If a request for the others failed.
pub fn strike(name: &str, stack: &Stack, victim: &Traffic, fault: impl FnOnce(&Stack)) -> Seen {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let others = [
        Traffic { function: "echo", input: None, per_second: 400, connections: 4 },
        Traffic { function: "chain", input: Some("{\"n\": 4}"), per_second: 200, connections: 4 },
    ];
    let others = others.map(|traffic| Load::start(stack.address(), &traffic));
    let load = Load::start(stack.address(), victim);
    thread::sleep(WARM_UP);
    let calm_from = Instant::now();
    thread::sleep(CALM);

    let struck = Instant::now();
    fault(stack);
    let over = Instant::now();
    let during_to = over.max(struck + DURING_MIN);
    thread::sleep(RECOVERY_MAX + AFTER);

    let victim = load.stop();
    let others = others.map(Load::stop);
    for report in &others {
        assert_eq!(report.failures().count(), 0, "{name}: others saw {:?}", report.outcomes());
    }
    let p99 = |from, to| others.iter().map(|report| report.p99(from, to)).max().unwrap_or_default();
    let (calm, during) = (p99(calm_from, struck), p99(struck, during_to));
    println!(
        "{name}: it took {:?}; p99 of others {calm:?} before, {during:?} meanwhile; the victim's \
         clients saw {:?}, the first success {:?} and the last failure {:?} behind its end",
        over - struck,
        victim.outcomes(),
        victim.first_success(over),
        victim.last_failure(over),
    );
    Seen { victim, over, calm, during }
}

/// Runs a scene until it was within bounds: the others did not feel the fault, which is that their p99
/// was at most twice that before it, and the victim's clients were served again in time.
///
/// # Panics
/// If it never was.
pub fn within_bounds(mut scene: impl FnMut() -> Seen) {
    let mut failed = Vec::new();
    for _ in 0..RUNS_MAX {
        let Seen { victim, over, calm, during } = scene();
        let back = victim.first_success(over).unwrap_or(Duration::MAX);
        let back = back.max(victim.last_failure(over));
        if during <= (2 * calm).max(NOISE) && back <= RECOVERY_MAX {
            return;
        }
        failed.push((calm, during, back));
    }
    panic!("out of bounds each time: p99 before and meanwhile, time to recover: {failed:?}");
}

impl Seen {
    /// Asserts that requests for the victim failed in these ways only, as often at most.
    ///
    /// # Panics
    /// If not.
    pub fn expect_failures(&self, permitted: &[(Outcome, usize)]) {
        for (outcome, count) in self.victim.outcomes() {
            let known = permitted.iter().find(|(known, _)| known == outcome);
            let most = known.map_or(0, |(_, most)| *most);
            let is_permitted = *outcome == Outcome::Ok || count <= most;
            assert!(is_permitted, "{count} times {outcome:?}, at most {most} were to be");
        }
    }
}
