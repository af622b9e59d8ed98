//! Worlds drawn at random, under every policy: whatever happens, the core keeps its promises.
//!
//! A failure prints its seed; `NIGHTCORE_SEED=n cargo test -p nightcore-sim` replays it.

use engine::core::Policy;
use nightcore_sim::lottery;
use nightcore_sim::world::World;

const SEEDS: u64 = 1_000;
const OTHERS: [Policy; 3] = [Policy::Fixed, Policy::Unlimited, Policy::Paper];

/// Says how to see it again when its world fails.
struct Replay(u64, Policy);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Replay(seed, policy) = self;
            eprintln!("{policy:?}: replay with NIGHTCORE_SEED={seed} cargo test -p nightcore-sim");
        }
    }
}

fn live(seed: u64, policy: Policy) -> World {
    let replay = Replay(seed, policy);
    let (plan, time) = lottery::draw(seed, policy, lottery::CALLS);
    let mut world = World::new(plan);
    world.run(time);
    world.come_to_rest();
    drop(replay);
    world
}

fn seeds() -> impl Iterator<Item = u64> {
    let only = std::env::var("NIGHTCORE_SEED").ok();
    let only = only.map(|seed| seed.parse::<u64>().expect("NIGHTCORE_SEED is a number"));
    only.map_or(0..SEEDS, |seed| seed..seed + 1)
}

#[test]
fn managed_worlds_keep_every_promise_whatever_happens() {
    for seed in seeds() {
        live(seed, Policy::Managed);
    }
}

#[test]
fn worlds_under_other_policies_do_too() {
    for seed in seeds() {
        let other = usize::try_from(seed).expect("small") % OTHERS.len();
        live(seed, OTHERS[other]);
    }
}

#[test]
fn the_same_seed_is_the_same_world() {
    let trace = |seed| {
        let world = live(seed, Policy::Managed);
        let samples = world.tally().samples.iter();
        let samples: Vec<_> = samples.map(|s| (s.at, s.latency, s.outcome)).collect();
        (world.events(), samples)
    };
    assert!(trace(7).1.len() > 100);
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}
