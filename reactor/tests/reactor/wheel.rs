//! The timer wheel against a sorted map.

use proptest::prelude::*;
use reactor::clock::Nanos;
use reactor::wheel::{Timer, Wheel};
use std::collections::BTreeMap;
use std::time::Duration;

const TICK_NS: u64 = 1_000_000;

#[derive(Clone, Debug)]
enum Step {
    Insert {
        after_ns: u64,
    },
    Cancel {
        which: prop::sample::Index,
    },
    Advance {
        by_ns: u64,
    },
    /// To where the wheel itself says there is something to do.
    AdvanceToNext,
}

/// Spans from below a tick to days, as likely each.
fn spans() -> impl Strategy<Value = u64> {
    (0u32..48).prop_flat_map(|bits| 0..(1u64 << bits).max(2))
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => spans().prop_map(|after_ns| Step::Insert { after_ns }),
        1 => any::<prop::sample::Index>().prop_map(|which| Step::Cancel { which }),
        2 => spans().prop_map(|by_ns| Step::Advance { by_ns }),
        2 => Just(Step::AdvanceToNext),
    ]
}

/// The model: values by the first tick at which they are not early.
struct Model {
    wheel: Wheel<u64>,
    due: BTreeMap<(u64, u64), Timer>,
    now: u64,
    inserted: u64,
}

impl Model {
    fn advance(&mut self) {
        let mut fired = Vec::new();
        self.wheel.expire(Nanos(self.now), |value| fired.push(value));
        let later = self.due.split_off(&(self.now / TICK_NS + 1, 0));
        let due = std::mem::replace(&mut self.due, later);
        let ticks: BTreeMap<u64, u64> = due.keys().map(|&(tick, value)| (value, tick)).collect();
        assert!(fired.is_sorted_by_key(|value| ticks[value]), "out of order: {fired:?}");
        fired.sort_unstable();
        assert_eq!(fired, ticks.into_keys().collect::<Vec<_>>(), "at {}", self.now);
        for timer in due.into_values() {
            assert!(!self.wheel.cancel(timer), "an expired timer was cancelled");
        }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Insert { after_ns } => {
                let at = self.now + after_ns;
                let timer = self.wheel.insert(Nanos(at), self.inserted);
                // One due within the present tick expires with it, not before its time.
                let tick = at.div_ceil(TICK_NS);
                self.due.insert((tick, self.inserted), timer);
                self.inserted += 1;
            }
            Step::Cancel { which } => {
                if self.due.is_empty() {
                    return;
                }
                let key = *self.due.keys().nth(which.index(self.due.len())).unwrap();
                let timer = self.due.remove(&key).unwrap();
                assert!(self.wheel.cancel(timer));
                assert!(!self.wheel.cancel(timer));
            }
            Step::Advance { by_ns } => {
                self.now += by_ns;
                self.advance();
            }
            Step::AdvanceToNext => {
                if let Some(next) = self.wheel.next() {
                    self.now = self.now.max(next.0);
                    self.advance();
                }
            }
        }
        let first = self.due.first_key_value().map(|((tick, _), _)| tick * TICK_NS);
        assert_eq!(self.wheel.is_empty(), first.is_none());
        assert_eq!(self.wheel.next().is_some(), first.is_some());
        assert!(self.wheel.next().map(|next| next.0) <= first, "the next wake-up is too late");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_wheel_expires_what_a_sorted_map_would(
        start in prop_oneof![Just(0), spans()],
        steps in prop::collection::vec(steps(), 1..200),
    ) {
        let wheel = Wheel::new(Duration::from_nanos(TICK_NS));
        let mut model = Model { wheel, due: BTreeMap::new(), now: start, inserted: 0 };
        for step in steps {
            model.apply(step);
        }
        // Whatever is left is found within a bounded number of wake-ups: one a level.
        let (mut wakeups, wakeups_max) = (0, 11 * model.due.len());
        while let Some(next) = model.wheel.next() {
            wakeups += 1;
            assert!(wakeups <= wakeups_max, "next() goes in circles");
            model.now = model.now.max(next.0);
            model.advance();
        }
        prop_assert!(model.wheel.is_empty());
    }
}

#[test]
fn a_timer_in_the_past_expires_at_once() {
    let mut wheel = Wheel::new(Duration::from_millis(1));
    wheel.expire(Nanos(5_000_000_000), |_: u8| panic!("nothing to expire"));
    wheel.insert(Nanos(1), 7);
    assert!(wheel.next().unwrap() <= Nanos(5_000_000_000));
    let mut fired = Vec::new();
    wheel.expire(Nanos(5_000_000_000), |value| fired.push(value));
    assert_eq!(fired, [7]);
    assert!(wheel.is_empty());
}

#[test]
fn the_end_of_time_is_a_deadline_like_any_other() {
    let mut wheel = Wheel::new(Duration::from_nanos(1));
    wheel.insert(Nanos(u64::MAX), 1);
    wheel.insert(Nanos(3), 2);
    let mut fired = Vec::new();
    wheel.expire(Nanos(u64::MAX - 1), |value| fired.push(value));
    assert_eq!(fired, [2]);
    wheel.expire(Nanos(u64::MAX), |value| fired.push(value));
    assert_eq!(fired, [2, 1]);
}

#[test]
fn a_handle_to_a_timer_that_is_over_does_not_stop_its_successor() {
    let mut wheel = Wheel::new(Duration::from_millis(1));
    let first = wheel.insert(Nanos(1), 1);
    assert!(wheel.cancel(first));
    let second = wheel.insert(Nanos(1), 2);
    assert!(!wheel.cancel(first));
    assert!(wheel.cancel(second));
    assert!(wheel.is_empty());
    assert_eq!(wheel.next(), None);
}
