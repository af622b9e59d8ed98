//! What is said of handshakes that fail: who wants to fill a log needs only to connect, so one in a while
//! is told, with the number of those that are not.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::stranger::Origin;

/// One line in this time, for each port.
const EVERY: Duration = Duration::from_secs(1);

/// See the module's description.
pub(super) struct Complaints {
    who: &'static str,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    told_at: Option<Instant>,
    untold: u64,
}

impl Complaints {
    /// Of such peers.
    pub(super) fn of(who: &'static str) -> Complaints {
        Complaints { who, state: Mutex::default() }
    }

    /// Tells it, or counts it. What a peer made us say is escaped.
    pub(super) fn tell(&self, origin: Origin, reason: &str) {
        let Some(untold) = self.due(Instant::now()) else { return };
        let (who, reason) = (self.who, reason.escape_debug());
        match untold {
            0 => tracing::warn!("{who} {origin} was not let in: {reason}"),
            _ => tracing::warn!("{who} {origin} was not let in: {reason} (and {untold} others)"),
        }
    }

    /// How many were not told since the last one, if it is time to tell one.
    fn due(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.told_at.is_some_and(|at| now.duration_since(at) < EVERY) {
            state.untold += 1;
            return None;
        }
        state.told_at = Some(now);
        Some(std::mem::take(&mut state.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_a_second_is_told_and_the_others_are_counted() {
        let complaints = Complaints::of("a client");
        let start = Instant::now();
        assert_eq!(complaints.due(start), Some(0));
        assert_eq!(complaints.due(start), None);
        assert_eq!(complaints.due(start + EVERY / 2), None);
        assert_eq!(complaints.due(start + EVERY), Some(2));
        assert_eq!(complaints.due(start + EVERY * 3), Some(0));
    }
}
