//! When calls come from outside: Poisson processes whose rate may change.

use std::time::Duration;

use crate::random::Random;

/// A process of arrivals. Rates are in calls a second; times count from the start of the world.
#[derive(Clone, Debug)]
pub enum Arrivals {
    /// Independent callers, many.
    Poisson {
        /// Calls a second.
        rate: f64,
    },
    /// Poisson, at one rate and then at another, in turns of exponential length.
    Bursty {
        /// In a burst.
        high: f64,
        /// Between bursts; may be 0.
        low: f64,
        /// Mean length of a burst.
        burst: Duration,
        /// Mean length of the time between two.
        pause: Duration,
    },
    /// Poisson, at each rate from its time on; nothing before the first.
    Steps(Vec<(Duration, f64)>),
}

/// One source of calls: a process of arrivals as it goes on.
#[derive(Clone, Debug)]
pub struct Clock {
    arrivals: Arrivals,
    random: Random,
    now: Duration,
    /// Until when the present rate holds, and which it is.
    until: Duration,
    rate: f64,
    is_burst: bool,
}

impl Clock {
    /// From the start of the world on.
    #[must_use]
    pub fn new(arrivals: Arrivals, random: Random) -> Clock {
        Clock {
            arrivals,
            random,
            now: Duration::ZERO,
            until: Duration::ZERO,
            rate: 0.0,
            is_burst: false,
        }
    }

    /// Takes up the rate that holds from now on; false when none ever does.
    fn turn(&mut self) -> bool {
        match &self.arrivals {
            Arrivals::Poisson { rate } => (self.rate, self.until) = (*rate, Duration::MAX),
            &Arrivals::Bursty { high, low, burst, pause } => {
                self.is_burst = !self.is_burst;
                let (rate, mean) = if self.is_burst { (high, burst) } else { (low, pause) };
                self.rate = rate;
                self.until = self.now + self.random.exponential(mean) + Duration::from_nanos(1);
            }
            Arrivals::Steps(steps) => {
                let next = steps.iter().find(|step| step.0 > self.now);
                self.until = next.map_or(Duration::MAX, |step| step.0);
                let present = steps.iter().rfind(|step| step.0 <= self.now);
                self.rate = present.map_or(0.0, |step| step.1);
            }
        }
        self.rate > 0.0 || self.until < Duration::MAX
    }
}

/// The times of the arrivals.
impl Iterator for Clock {
    type Item = Duration;

    /// The next arrival, if there is one.
    fn next(&mut self) -> Option<Duration> {
        // A Poisson process has no memory: at a change of its rate it begins anew.
        loop {
            if self.now >= self.until && !self.turn() {
                return None;
            }
            if self.rate > 0.0 {
                let gap = self.random.exponential(Duration::from_secs_f64(1.0 / self.rate));
                // Rates are below a thousand million a second.
                let at = self.now + gap.max(Duration::from_nanos(1));
                if at < self.until {
                    self.now = at;
                    return Some(at);
                }
            }
            self.now = self.until;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(arrivals: Arrivals, from: u64, to: u64) -> usize {
        let clock = Clock::new(arrivals, Random::new(3, 0));
        let window = Duration::from_secs(from)..Duration::from_secs(to);
        clock.take_while(|at| *at < window.end).filter(|at| window.contains(at)).count()
    }

    #[test]
    fn arrivals_come_at_their_rate() {
        let poisson = count(Arrivals::Poisson { rate: 100.0 }, 0, 100);
        assert!((9_700..10_300).contains(&poisson), "{poisson}");
        let (burst, pause) = (Duration::from_millis(100), Duration::from_millis(300));
        let bursty = count(Arrivals::Bursty { high: 400.0, low: 0.0, burst, pause }, 0, 1_000);
        assert!((95_000..105_000).contains(&bursty), "{bursty}");
    }

    #[test]
    fn a_step_changes_the_rate_from_then_on() {
        let steps = Arrivals::Steps(vec![
            (Duration::from_secs(10), 100.0),
            (Duration::from_secs(20), 0.0),
            (Duration::from_secs(30), 1_000.0),
        ]);
        assert_eq!(count(steps.clone(), 0, 10), 0);
        assert!((850..1_150).contains(&count(steps.clone(), 10, 20)));
        assert_eq!(count(steps.clone(), 20, 30), 0);
        assert!((9_700..10_300).contains(&count(steps, 30, 40)));
    }
}
