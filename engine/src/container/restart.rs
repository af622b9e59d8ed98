//! When a function's next container is started after one that died: at once, after a growing pause, or
//! not before its breaker closes. Pure: told the time, and what became of each container.
//!
//! ```text
//!                deaths in a row                    its time is over
//!   Closed ------------------------------> Open -----------------------> HalfOpen
//!     ^  deaths apart: a pause each         ^                               |  |
//!     |                                     +--- it dies: longer than before+  |
//!     +------------------------ the one container that is tried lives on ------+
//! ```
//!
//! While a breaker is open, calls are refused at once instead of waiting for a container that would
//! not live.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// A container that lived this long was healthy: its end does not count towards the pauses.
const HEALTHY_AFTER: Duration = Duration::from_secs(1);
/// Pause after the second early death in a row, doubled each time up to the maximum.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long a breaker is open at first, and at most.
const OPEN_FIRST: Duration = Duration::from_secs(1);
const OPEN_MAX: Duration = Duration::from_secs(30);
/// A container that is tried has proved itself after this, however long its function's window is.
const TRIAL_MAX: Duration = Duration::from_secs(10);

/// How often a function's containers must die to be taken for a crash loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrashLoop {
    /// Deaths in a row, at least one.
    pub deaths: u32,
    /// Time that the containers ran between the first of these and the last. What starts and pauses take
    /// does not count, or a function that is slow to start could not loop.
    pub window: Duration,
}

/// Whether containers of a function are started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Breaker {
    /// They are.
    Closed,
    /// They keep dying, and none is started for a while.
    Open,
    /// One is tried.
    HalfOpen,
}

impl Breaker {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// As it is listed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Restarts {
    is_loop: CrashLoop,
    breaker: Breaker,
    /// Times that it opened since it was last closed.
    opened: u32,
    /// Deaths in a row that came soon after a start.
    early_deaths: u32,
    /// How long those containers lived that died last, one for each of `is_loop.deaths` at most.
    lives: VecDeque<Duration>,
    random: Random,
}

impl Restarts {
    pub(super) fn new(is_loop: CrashLoop) -> Self {
        let (lives, random) = (VecDeque::new(), Random::new());
        Self { is_loop, breaker: Breaker::Closed, opened: 0, early_deaths: 0, lives, random }
    }

    pub(super) fn breaker(&self) -> Breaker {
        self.breaker
    }

    /// A container died that was up for so long, not at all if its start failed. When the next one may be
    /// started.
    pub(super) fn died(&mut self, now: Instant, lived: Duration) -> Instant {
        self.early_deaths = if lived < HEALTHY_AFTER { self.early_deaths + 1 } else { 0 };
        self.lives.push_back(lived);
        if self.lives.len() > self.is_loop.deaths as usize {
            self.lives.pop_front();
        }
        let pause = if self.breaker != Breaker::Closed || self.loops() {
            self.breaker = Breaker::Open;
            self.opened += 1;
            self.lives.clear();
            doubled(OPEN_FIRST, self.opened - 1, OPEN_MAX)
        } else {
            pause(self.early_deaths)
        };
        now + spread(pause, self.random.next())
    }

    /// The next container is being started.
    pub(super) fn starts(&mut self) {
        if self.breaker == Breaker::Open {
            self.breaker = Breaker::HalfOpen;
        }
    }

    /// When a container that is up since then has proved itself, if it has to.
    pub(super) fn proven_at(&self, since: Instant) -> Option<Instant> {
        (self.breaker == Breaker::HalfOpen).then(|| since + self.is_loop.window.min(TRIAL_MAX))
    }

    /// The function's container does as it should: earlier deaths are forgotten.
    pub(super) fn forget(&mut self) {
        (self.breaker, self.opened, self.early_deaths) = (Breaker::Closed, 0, 0);
        self.lives.clear();
    }

    /// The first of the deaths has no part in the time between the first and the last.
    fn loops(&self) -> bool {
        let between: Duration = self.lives.iter().skip(1).sum();
        self.lives.len() == self.is_loop.deaths as usize && between <= self.is_loop.window
    }
}

/// The first early death costs no pause, later ones twice as much each.
fn pause(early_deaths: u32) -> Duration {
    match early_deaths {
        0 | 1 => Duration::ZERO,
        n => doubled(PAUSE_FIRST, n - 2, PAUSE_MAX),
    }
}

fn doubled(first: Duration, times: u32, max: Duration) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(max)
}

/// Three quarters of a pause and a random part of the last: functions that died together, of a common
/// cause, are not started together again and again.
fn spread(pause: Duration, random: u64) -> Duration {
    let quarter = u64::try_from(pause.as_nanos() / 4).unwrap_or(u64::MAX);
    pause - Duration::from_nanos(random.checked_rem(quarter).unwrap_or(0))
}

/// Xorshift, seeded by the system.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn new() -> Self {
        Self(RandomState::new().hash_one(()) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(1);

    fn restarts(deaths: u32) -> Restarts {
        Restarts::new(CrashLoop { deaths, window: WINDOW })
    }

    /// How long is waited after so many deaths of containers that lived for so long.
    fn pauses(restarts: &mut Restarts, deaths: u32, lived: Duration) -> Vec<Duration> {
        let now = Instant::now();
        (0..deaths).map(|_| restarts.died(now, lived) - now).collect()
    }

    #[test]
    fn a_pause_is_spread_over_its_last_quarter() {
        let pause = Duration::from_millis(400);
        assert_eq!(spread(pause, 0), pause);
        assert_eq!(spread(Duration::ZERO, 7), Duration::ZERO);
        let mut random = Random::new();
        let spreads: Vec<_> = (0..1_000).map(|_| spread(pause, random.next())).collect();
        let (min, max) = (spreads.iter().min().unwrap(), spreads.iter().max().unwrap());
        assert!(Duration::from_millis(300) < *min && *max <= pause, "{min:?} to {max:?}");
        assert!(*max - *min > Duration::from_millis(90), "{min:?} to {max:?}");
    }

    #[test]
    fn the_first_early_death_costs_no_pause_and_later_ones_twice_as_much_each() {
        let within = |pause: Duration, most: Duration| pause <= most && pause >= most * 3 / 4;
        let pauses = pauses(&mut restarts(1_000), 40, Duration::ZERO);
        assert_eq!(pauses[0], Duration::ZERO);
        for (place, most) in [(1, PAUSE_FIRST), (2, PAUSE_FIRST * 2), (3, PAUSE_FIRST * 4)] {
            assert!(within(pauses[place], most), "{pauses:?}");
        }
        assert!(pauses[20..].iter().all(|&pause| within(pause, PAUSE_MAX)), "{pauses:?}");
    }

    #[test]
    fn deaths_of_healthy_containers_cost_no_pause_and_open_nothing() {
        let mut restarts = restarts(2);
        let lived = WINDOW + Duration::from_millis(1);
        assert_eq!(pauses(&mut restarts, 100, lived), [Duration::ZERO; 100]);
        assert_eq!(restarts.breaker(), Breaker::Closed);
    }

    #[test]
    fn a_breaker_opens_with_the_last_of_the_deaths_that_make_a_loop() {
        for (deaths, lived) in [(1, Duration::from_secs(60)), (5, WINDOW / 4), (5, Duration::ZERO)]
        {
            let mut restarts = restarts(deaths);
            pauses(&mut restarts, deaths - 1, lived);
            assert_eq!(restarts.breaker(), Breaker::Closed, "{deaths} of {lived:?}");
            pauses(&mut restarts, 1, lived);
            assert_eq!(restarts.breaker(), Breaker::Open, "{deaths} of {lived:?}");
        }
    }

    #[test]
    fn deaths_further_apart_are_no_loop_until_they_come_closer() {
        let mut restarts = restarts(5);
        pauses(&mut restarts, 50, WINDOW / 4 + Duration::from_millis(1));
        assert_eq!(restarts.breaker(), Breaker::Closed);
        // What the first one lived does not count, so four short lives are enough.
        pauses(&mut restarts, 3, Duration::ZERO);
        assert_eq!(restarts.breaker(), Breaker::Open);
    }

    #[test]
    fn what_dies_when_it_is_tried_is_tried_later_and_later_up_to_a_limit() {
        let mut restarts = restarts(1);
        let mut expected = OPEN_FIRST;
        for _ in 0..20 {
            let pause = pauses(&mut restarts, 1, Duration::ZERO)[0];
            assert_eq!(restarts.breaker(), Breaker::Open);
            assert!(pause <= expected && pause >= expected * 3 / 4, "{pause:?}");
            restarts.starts();
            assert_eq!(restarts.breaker(), Breaker::HalfOpen);
            expected = (expected * 2).min(OPEN_MAX);
        }
    }

    #[test]
    fn what_lives_when_it_is_tried_closes_the_breaker_and_the_next_loop_begins_anew() {
        let (mut restarts, since) = (restarts(3), Instant::now());
        assert_eq!(restarts.proven_at(since), None);
        pauses(&mut restarts, 3, Duration::ZERO);
        assert_eq!(restarts.proven_at(since), None, "nothing is tried yet");
        restarts.starts();
        pauses(&mut restarts, 1, Duration::ZERO);
        restarts.starts();
        assert_eq!(restarts.proven_at(since), Some(since + WINDOW));
        restarts.forget();
        assert_eq!((restarts.breaker(), restarts.proven_at(since)), (Breaker::Closed, None));
        restarts.starts();
        assert_eq!(restarts.breaker(), Breaker::Closed);
        assert_eq!(pauses(&mut restarts, 2, Duration::ZERO)[0], Duration::ZERO);
        assert_eq!(restarts.breaker(), Breaker::Closed);
        assert!(pauses(&mut restarts, 1, Duration::ZERO)[0] <= OPEN_FIRST);
        assert_eq!(restarts.breaker(), Breaker::Open);
    }

    #[test]
    fn a_long_window_does_not_keep_a_breaker_half_open_for_long() {
        let window = Duration::from_secs(3600);
        let (mut restarts, since) =
            (Restarts::new(CrashLoop { deaths: 1, window }), Instant::now());
        restarts.died(since, window * 2);
        restarts.starts();
        assert_eq!(restarts.proven_at(since), Some(since + TRIAL_MAX));
    }
}
