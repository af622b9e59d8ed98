//! When each request is due, by arithmetic alone: the pacer waits for these moments, and latency
//! counts from them whether or not they were met.

use std::time::Duration;

/// A constant rate, spread over connections in turns: turn `n` of connection `c` is request
/// `n * connections + c` of the whole schedule. The assignment is fixed, so a connection that waits
/// for a slow answer finds its later requests overdue, as users who queue behind it would.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    per_second: f64,
    connections: u32,
    step: Option<Step>,
}

/// Another rate from a moment on.
#[derive(Clone, Copy, Debug)]
struct Step {
    at: Duration,
    per_second: f64,
    /// The first request of the new rate, due at that moment; a whole number.
    request: f64,
}

impl Schedule {
    /// `per_second` requests in total, above zero, over `connections`, above zero.
    #[must_use]
    pub fn new(per_second: f64, connections: u32) -> Schedule {
        Schedule { per_second, connections, step: None }
    }

    /// The same until `at`, then `per_second` requests, above zero.
    #[must_use]
    pub fn with_step(self, at: Duration, per_second: f64) -> Schedule {
        let request = (at.as_secs_f64() * self.per_second).ceil();
        Schedule { step: Some(Step { at, per_second, request }), ..self }
    }

    /// The time from the start of the schedule to the `turn`th request (from 0) of `connection`.
    #[must_use]
    pub fn due(&self, connection: u32, turn: u64) -> Duration {
        let request = turn as f64 * f64::from(self.connections) + f64::from(connection);
        // Exact to the nanosecond for 100 days: an f64 holds integers up to 2^53. A request beyond
        // the range of a Duration is never sent.
        let since = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        match self.step {
            Some(step) if request >= step.request => {
                step.at.saturating_add(since((request - step.request) / step.per_second))
            }
            _ => since(request / self.per_second),
        }
    }

    /// The time from one request to the next, on whichever connections, where they come fastest.
    #[must_use]
    pub fn interval(&self) -> Duration {
        let after = self.step.map_or(0.0, |step| step.per_second);
        Duration::try_from_secs_f64(1.0 / self.per_second.max(after)).unwrap_or(Duration::MAX)
    }

    /// How many turns of `connection` are due before `until`.
    #[must_use]
    pub fn turns_before(&self, connection: u32, until: Duration) -> u64 {
        let requests = match self.step {
            Some(step) if until > step.at => {
                step.request + (until - step.at).as_secs_f64() * step.per_second
            }
            _ => until.as_secs_f64() * self.per_second,
        };
        let estimate =
            ((requests - f64::from(connection)) / f64::from(self.connections)).ceil().max(0.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative")]
        let mut turns = estimate as u64;
        // Rounding in the two directions may disagree by one: the moments decide.
        while turns > 0 && self.due(connection, turns - 1) >= until {
            turns -= 1;
        }
        while self.due(connection, turns) < until {
            turns += 1;
        }
        turns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn requests_are_evenly_spread_over_time_and_connections() {
        let schedule = Schedule::new(1000.0, 4);
        let mut all: Vec<Duration> =
            (0..10).flat_map(|turn| (0..4).map(move |c| schedule.due(c, turn))).collect();
        all.sort_unstable();
        let expected: Vec<Duration> = (0..40).map(|request| request * MS).collect();
        assert_eq!(all, expected);
    }

    #[test]
    fn a_schedule_does_not_drift() {
        let schedule = Schedule::new(30_000.0, 64);
        let per_connection = 30_000 * 3600 / 64;
        let hour = schedule.due(0, per_connection);
        assert!(hour.abs_diff(Duration::from_secs(3600)) < Duration::from_nanos(2), "{hour:?}");
    }

    #[test]
    fn as_many_turns_are_due_as_moments_have_passed() {
        for per_second in [0.1, 1.0, 3.0, 999.7, 30_000.0] {
            let constant = Schedule::new(per_second, 7);
            for schedule in [constant, constant.with_step(300 * MS, 1234.5)] {
                for connection in 0..7 {
                    for until in [Duration::ZERO, MS, 250 * MS, 300 * MS, 2 * MS * 1000] {
                        let turns = schedule.turns_before(connection, until);
                        let is_due = |turn: &u64| schedule.due(connection, *turn) < until;
                        let counted = (0..).take_while(is_due).count();
                        assert_eq!(turns, counted as u64, "{schedule:?}, {connection}, {until:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_step_changes_the_distance_of_requests_at_its_moment() {
        let schedule = Schedule::new(100.0, 1).with_step(25 * MS, 1000.0);
        let due: Vec<Duration> = (0..6).map(|turn| schedule.due(0, turn)).collect();
        assert_eq!(due, [0, 10, 20, 25, 26, 27].map(|ms| ms * MS));
        assert_eq!(schedule.interval(), MS);
    }

    #[test]
    fn a_rate_below_what_time_can_hold_never_comes() {
        assert_eq!(Schedule::new(1e-300, 1).due(0, 1), Duration::MAX);
    }

    /// A server that answers in 1 ms and stalls once for a second, with one connection: latencies
    /// in virtual time, from the moment due and from the moment sent.
    fn stalled_server(schedule: Schedule) -> (Vec<Duration>, Vec<Duration>) {
        let (stall, length) = (5000 * MS, 1000 * MS);
        let mut free = Duration::ZERO;
        let mut from_due = Vec::new();
        let mut from_sent = Vec::new();
        for turn in 0..schedule.turns_before(0, 10_000 * MS) {
            let due = schedule.due(0, turn);
            let sent = due.max(free);
            let stalls = sent <= stall && sent + 10 * MS > stall;
            free = sent + MS + if stalls { length } else { Duration::ZERO };
            from_due.push(free - due);
            from_sent.push(free - sent);
        }
        from_due.sort_unstable();
        from_sent.sort_unstable();
        (from_due, from_sent)
    }

    #[test]
    fn a_stall_counts_for_all_who_would_have_waited() {
        let (from_due, from_sent) = stalled_server(Schedule::new(100.0, 1));
        let p99 = |times: &[Duration]| times[times.len() * 99 / 100];
        // One of 1,000 requests was slow as the server saw it; a tenth of them as users would.
        assert!(p99(&from_sent) <= MS, "{:?}", p99(&from_sent));
        assert!(p99(&from_due) >= 850 * MS, "{:?}", p99(&from_due));
        let waited = from_due.iter().filter(|&&time| time > 5 * MS).count();
        assert!((100..=112).contains(&waited), "{waited}");
    }
}
