//! The policy against a model of cores: what runs on a core is the share of its shard's connections and
//! whatever else there is; what is seen of it is coarse and noisy.

use super::{AGREEING, Move, Policy, QUIET, STEP_MAX, View};

const CONNECTIONS_MAX: u32 = 10_000;

/// Thousandths of a core.
struct Core {
    connections: u32,
    /// Of something else on this core, say of the client.
    foreign: u64,
}

struct Machine {
    cores: Vec<Core>,
    /// What one connection asks of a core.
    demand: u64,
    /// What a shard costs that has anything to do.
    overhead: u64,
    policy: Policy,
    random: u64,
}

impl Machine {
    fn new(connections: &[u32], demand: u64, seed: u64) -> Machine {
        let shards = u16::try_from(connections.len()).unwrap();
        let core = |connections: &u32| Core { connections: *connections, foreign: 0 };
        Machine {
            cores: connections.iter().map(core).collect(),
            demand,
            overhead: 20,
            policy: Policy::new(shards, CONNECTIONS_MAX),
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }

    /// A window of ten ticks, each of which is busy or idle.
    fn view(&mut self, index: usize) -> View {
        let noise = self.below(80);
        let core = &self.cores[index];
        let own = u64::from(core.connections) * self.demand;
        let own = if own > 0 { own + self.overhead } else { 0 };
        let seen = (own + core.foreign + noise).saturating_sub(40).min(1000);
        View {
            core: (seen + 50) / 100 * 100,
            busy: own.min(1000) / 2,
            connections: core.connections,
            calling: if own > 0 { core.connections } else { 0 },
        }
    }

    fn run(&mut self, windows: u32) -> Vec<Move> {
        let mut moves = Vec::new();
        for _ in 0..windows {
            let views: Vec<View> = (0..self.cores.len()).map(|index| self.view(index)).collect();
            let Some(step) = self.policy.decide(&views) else { continue };
            assert!((1..=STEP_MAX).contains(&step.count) && step.from != step.to, "{step:?}");
            let from = &mut self.cores[usize::from(step.from)].connections;
            *from = from.checked_sub(step.count).expect("it has that many");
            self.cores[usize::from(step.to)].connections += step.count;
            moves.push(step);
        }
        moves
    }

    fn connections(&self) -> Vec<u32> {
        self.cores.iter().map(|core| core.connections).collect()
    }
}

#[test]
fn half_of_a_full_core_goes_to_an_idle_one_and_stays_there() {
    let mut machine = Machine::new(&[64, 0], 100, 1);
    assert_eq!(machine.run(AGREEING), [Move { from: 0, to: 1, count: 32 }]);
    assert_eq!(machine.run(10_000), []);
}

#[test]
fn nothing_goes_to_a_core_that_the_client_needs() {
    let mut machine = Machine::new(&[64, 0], 100, 2);
    machine.cores[1].foreign = 650;
    assert_eq!(machine.run(10_000), []);
}

#[test]
fn a_core_that_only_others_keep_busy_gives_nothing_away() {
    let mut machine = Machine::new(&[64, 0], 0, 3);
    machine.cores[0].foreign = 1000;
    assert_eq!(machine.run(10_000), []);
}

#[test]
fn one_connection_alone_stays_where_it_is() {
    let mut machine = Machine::new(&[1, 0], 1000, 4);
    assert_eq!(machine.run(10_000), []);
}

#[test]
fn two_shards_with_little_to_do_become_one_after_a_while() {
    let mut machine = Machine::new(&[32, 32], 5, 5);
    assert_eq!(machine.run(QUIET - 1), []);
    assert_eq!(machine.run(1), [Move { from: 1, to: 0, count: 32 }]);
    assert_eq!(machine.run(10_000), []);
}

#[test]
fn a_short_burst_moves_nothing() {
    let mut policy = Policy::new(2, CONNECTIONS_MAX);
    let view = |core| View { core, busy: 400, connections: 64, calling: 64 };
    for _ in 0..100 {
        for _ in 1..AGREEING {
            assert_eq!(policy.decide(&[view(1000), View::default()]), None);
        }
        assert_eq!(policy.decide(&[view(800), View::default()]), None);
    }
}

#[test]
fn a_consolidation_respects_the_limit_of_connections_and_goes_in_steps() {
    let mut machine = Machine::new(&[6_000, 6_000], 0, 6);
    let quiet = View { core: 100, busy: 50, connections: 6_000, calling: 1 };
    for _ in 0..100 {
        assert_eq!(machine.policy.decide(&[quiet, quiet]), None);
    }
    let quiet = View { connections: 1_000, ..quiet };
    let steps = (0..100).filter_map(|_| machine.policy.decide(&[quiet, quiet])).count();
    assert!((10..=40).contains(&steps), "{steps}");
}

#[test]
fn idle_connections_do_not_keep_busy_ones_from_spreading() {
    let mut policy = Policy::new(2, CONNECTIONS_MAX);
    let busy = View { core: 1000, busy: 400, connections: 64, calling: 64 };
    let idle = View { core: 0, busy: 0, connections: 500, calling: 0 };
    let step = (0..AGREEING).find_map(|_| policy.decide(&[busy, idle]));
    assert_eq!(step, Some(Move { from: 0, to: 1, count: 32 }));
}

/// Whatever the load is, it finds its place in a few steps: a policy that swings would take a step every
/// few windows. What others fill up is left in ever smaller steps, and at a threshold noise may put off a
/// step for long, so no time is demanded.
#[test]
fn every_steady_load_comes_to_rest() {
    for seed in 1..=200 {
        let mut machine = Machine::new(&[0; 8], 0, seed);
        let shards = 2 + usize::try_from(machine.below(7)).unwrap();
        machine.cores.truncate(shards);
        machine.policy = Policy::new(u16::try_from(shards).unwrap(), CONNECTIONS_MAX);
        machine.cores[0].connections = 1 + u32::try_from(machine.below(500)).unwrap();
        for _phase in 0..4 {
            machine.demand = machine.below(60);
            for index in 0..shards {
                machine.cores[index].foreign = machine.below(3) * machine.below(600);
            }
            let before = machine.connections();
            let moves = machine.run(1_000);
            let demand = machine.demand;
            assert!(
                moves.len() <= 12 * shards,
                "seed {seed}: {before:?}, {demand} each: {} moves, {moves:?}",
                moves.len()
            );
        }
    }
}
