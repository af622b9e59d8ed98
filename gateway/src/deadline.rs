//! The one deadline of a connection. It moves with every request, the timer in the wheel only
//! when it would be late: an early timer finds that the deadline moved and goes back to sleep.
//! So in steady state a request touches no timer.

use reactor::clock::Nanos;
use reactor::wheel::{Timer, Wheel};

use crate::key::Key;

#[derive(Default)]
pub(crate) struct Deadline {
    at: Option<Nanos>,
    /// The timer in the wheel, if there is one, and when it fires. Never later than `at`.
    armed: Option<(Timer, Nanos)>,
}

impl Deadline {
    pub(crate) fn set(&mut self, at: Nanos, key: Key, wheel: &mut Wheel<Key>) {
        self.at = Some(at);
        if let Some((timer, armed_at)) = self.armed {
            if armed_at <= at {
                return;
            }
            wheel.cancel(timer);
        }
        self.armed = Some((wheel.insert(at, key), at));
    }

    /// No deadline. The timer stays: it is harmless, and likely to be early enough for the next.
    pub(crate) fn clear(&mut self) {
        self.at = None;
    }

    /// The timer fired: is the deadline over?
    pub(crate) fn fired(&mut self, now: Nanos, key: Key, wheel: &mut Wheel<Key>) -> bool {
        self.armed = None;
        match self.at {
            Some(at) if at <= now => {
                self.at = None;
                true
            }
            Some(at) => {
                self.set(at, key, wheel);
                false
            }
            None => false,
        }
    }

    /// Takes the timer out of the wheel, for good.
    pub(crate) fn disarm(&mut self, wheel: &mut Wheel<Key>) {
        self.at = None;
        if let Some((timer, _)) = self.armed.take() {
            wheel.cancel(timer);
        }
    }
}
