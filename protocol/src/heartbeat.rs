//! Whether the other side is still there, by the monotonic clock.

use std::time::Duration;

use reactor::clock::Nanos;

/// Silence after which we ask.
pub const QUIET: Duration = Duration::from_millis(250);
/// Silence after the question that ends a link.
pub const PATIENCE: Duration = Duration::from_millis(500);
/// A gap between two looks that says we ourselves were held up: what the other side said meanwhile
/// may not have been read yet.
const HELD_UP: Duration = Duration::from_millis(150);
/// Questions in a row before it does not matter any more how late we are: between two of them there
/// was time to read an answer.
const QUESTIONS_MAX: u32 = 4;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Beat {
    Nothing,
    Ask,
    Dead,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Heartbeat {
    heard: Nanos,
    asked: Option<Nanos>,
    /// Since it was heard.
    questions: u32,
}

impl Heartbeat {
    pub(crate) fn new(now: Nanos) -> Heartbeat {
        Heartbeat { heard: now, asked: None, questions: 0 }
    }

    pub(crate) fn heard(&mut self, now: Nanos) {
        *self = Heartbeat::new(now);
    }

    /// To be called when [`Heartbeat::next`] has come, or at any time.
    pub(crate) fn look(&mut self, now: Nanos) -> Beat {
        let due = self.next();
        if now < due {
            return Beat::Nothing;
        }
        let in_time = now < due + HELD_UP;
        if self.asked.is_some() && (in_time || self.questions >= QUESTIONS_MAX) {
            return Beat::Dead;
        }
        self.questions += 1;
        self.asked = Some(now);
        Beat::Ask
    }

    pub(crate) fn next(&self) -> Nanos {
        match self.asked {
            None => self.heard + QUIET,
            Some(asked) => asked + PATIENCE,
        }
    }

    /// How long nothing was heard.
    pub(crate) fn silence(&self, now: Nanos) -> Duration {
        now.saturating_since(self.heard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn silence_is_asked_about_and_then_ends_it() {
        let mut heart = Heartbeat::new(Nanos(0));
        assert_eq!(heart.look(Nanos(249 * MS)), Beat::Nothing);
        assert_eq!(heart.look(Nanos(250 * MS)), Beat::Ask);
        assert_eq!(heart.look(Nanos(749 * MS)), Beat::Nothing);
        assert_eq!(heart.look(Nanos(750 * MS)), Beat::Dead);
        assert_eq!(heart.silence(Nanos(750 * MS)), Duration::from_millis(750));
    }

    #[test]
    fn a_word_in_time_keeps_it() {
        let mut heart = Heartbeat::new(Nanos(0));
        assert_eq!(heart.look(Nanos(250 * MS)), Beat::Ask);
        heart.heard(Nanos(600 * MS));
        assert_eq!(heart.look(Nanos(750 * MS)), Beat::Nothing);
        assert_eq!(heart.next(), Nanos(850 * MS));
    }

    #[test]
    fn who_was_held_up_asks_again_before_he_blames() {
        let mut heart = Heartbeat::new(Nanos(0));
        assert_eq!(heart.look(Nanos(250 * MS)), Beat::Ask);
        assert_eq!(heart.look(Nanos(5_000 * MS)), Beat::Ask);
        assert_eq!(heart.look(Nanos(5_500 * MS)), Beat::Dead);
    }

    #[test]
    fn who_is_always_late_blames_in_the_end() {
        let mut heart = Heartbeat::new(Nanos(0));
        for question in 1..=4 {
            assert_eq!(heart.look(Nanos(question * 1_000 * MS)), Beat::Ask);
        }
        assert_eq!(heart.look(Nanos(5_000 * MS)), Beat::Dead);
    }
}
