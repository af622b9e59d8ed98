//! What a connection is doing: how many requests are under way, since when there is none, and when
//! the client last took something.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// One connection's. Belongs to its thread.
#[derive(Debug)]
pub struct Activity {
    streams: Cell<usize>,
    /// Those of them whose answers are being taken.
    answers: Cell<usize>,
    idle_since: Cell<Instant>,
    progressed: Cell<Instant>,
}

/// A request under way.
#[derive(Debug)]
pub struct Busy(Rc<Activity>);

/// An answer under way, until it is taken.
#[derive(Debug)]
pub struct Answering(Busy);

/// Limits of time of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Without a request.
    pub idle: Duration,
    /// Without a step, while an answer waits to be taken.
    pub stalled: Duration,
}

/// What is to become of a connection now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prospect {
    /// Look again then.
    Until(Instant),
    /// It has been idle for too long.
    Idle,
    /// Its client has taken nothing for too long.
    Stalled,
}

impl Activity {
    /// Of a connection that begins.
    #[must_use]
    pub fn new(now: Instant) -> Activity {
        Activity {
            streams: Cell::new(0),
            answers: Cell::new(0),
            idle_since: Cell::new(now),
            progressed: Cell::new(now),
        }
    }

    /// A request begins.
    #[must_use]
    pub fn begin(self: &Rc<Self>) -> Busy {
        self.streams.set(self.streams.get() + 1);
        Busy(Rc::clone(self))
    }

    /// Whether no request is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.streams.get() == 0
    }

    /// Judges by the time. `owed` are the bytes of answers that wait to be taken, of those also whose
    /// stream has nothing else to do.
    #[must_use]
    pub fn judge(&self, now: Instant, owed: usize, patience: Patience) -> Prospect {
        if self.answers.get() > 0 || owed > 0 {
            let end = self.progressed.get() + patience.stalled;
            return if now >= end { Prospect::Stalled } else { Prospect::Until(end) };
        }
        if !self.is_idle() {
            // Functions compute, or bodies come, which is watched elsewhere.
            return Prospect::Until(now + patience.stalled.min(patience.idle));
        }
        let end = self.idle_since.get() + patience.idle;
        if now >= end { Prospect::Idle } else { Prospect::Until(end) }
    }

    fn progress(&self) {
        self.progressed.set(Instant::now());
    }
}

impl Busy {
    /// The answer begins.
    #[must_use]
    pub fn answer(self) -> Answering {
        self.0.progress();
        self.0.answers.set(self.0.answers.get() + 1);
        Answering(self)
    }
}

impl Answering {
    /// The client has taken something.
    pub fn progress(&self) {
        self.0.0.progress();
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let answers = &self.0.0.answers;
        answers.set(answers.get() - 1);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let left = self.0.streams.get() - 1;
        self.0.streams.set(left);
        if left == 0 {
            self.0.idle_since.set(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience =
        Patience { idle: Duration::from_secs(10), stalled: Duration::from_secs(3) };

    #[test]
    fn an_idle_connection_has_its_time_and_no_more() {
        let now = Instant::now();
        let activity = Rc::new(Activity::new(now));
        let end = now + PATIENCE.idle;
        assert_eq!(activity.judge(now, 0, PATIENCE), Prospect::Until(end));
        assert_eq!(activity.judge(end, 0, PATIENCE), Prospect::Idle);
        let busy = activity.begin();
        assert!(matches!(activity.judge(end, 0, PATIENCE), Prospect::Until(_)));
        drop(busy);
        assert_ne!(activity.judge(now, 0, PATIENCE), Prospect::Idle, "it was busy until now");
    }

    #[test]
    fn a_client_that_takes_nothing_is_found_whatever_else_it_does() {
        let now = Instant::now();
        let activity = Rc::new(Activity::new(now));
        let (busy, _other) = (activity.begin(), activity.begin());
        let answering = busy.answer();
        assert!(matches!(activity.judge(now, 0, PATIENCE), Prospect::Until(_)));
        let late = Instant::now() + PATIENCE.stalled;
        assert_eq!(activity.judge(late, 0, PATIENCE), Prospect::Stalled);
        answering.progress();
        assert!(matches!(activity.judge(Instant::now(), 0, PATIENCE), Prospect::Until(_)));
        drop(answering);
        let much_later = Instant::now() + PATIENCE.stalled;
        assert_eq!(activity.judge(much_later, 1, PATIENCE), Prospect::Stalled);
        assert!(matches!(activity.judge(much_later, 0, PATIENCE), Prospect::Until(_)));
    }
}
