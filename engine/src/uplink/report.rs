//! How busy the functions are, as gateways are told: what they cannot know from the calls that they
//! sent themselves. A change is told when it may change where the next call goes, and all changes of
//! a moment are told together.

use std::collections::HashMap;
use std::time::Duration;

use protocol::message::Load;
use reactor::clock::Nanos;

use super::numbers::Numbers;
use crate::io::Engine;

/// Time between two reports at least: 50 a second cost next to nothing, and a gateway that decides by a
/// figure of 20 ms ago has its own count of calls under way for what happened since.
pub const REPORT_EVERY: Duration = Duration::from_millis(20);

/// A figure that differs by less than one part in so many from what was told is not told again.
const DIFFERENCE: u32 = 4;
/// Nor is one that differs by fewer than this: a worker that begins or ends a call is no news.
const DIFFERENCE_MIN: u32 = 2;

/// What was told, by function's number.
#[derive(Debug, Default)]
pub(super) struct Reports {
    told: HashMap<u32, Load>,
    /// When the next report may be made.
    due: Option<Nanos>,
}

impl Reports {
    /// When there is something to look at, if there is.
    pub(super) fn next(&self, engine: &Engine, now: Nanos) -> Option<Nanos> {
        engine.is_stirred().then(|| self.due.unwrap_or(now))
    }

    /// The loads that are to be told now; none before it is time.
    pub(super) fn take(&mut self, engine: &mut Engine, numbers: &Numbers, now: Nanos) -> Vec<Load> {
        let mut loads = Vec::new();
        if !engine.is_stirred() || self.due.is_some_and(|due| now < due) {
            return loads;
        }
        self.due = Some(now + REPORT_EVERY);
        while let Some(function) = engine.next_stirred() {
            let Some(number) = numbers.of(function) else { continue };
            let load = engine.load(function, number);
            if self.told.get(&number).is_none_or(|told| matters(told, &load)) {
                self.told.insert(number, load);
                loads.push(load);
            }
        }
        loads
    }

    /// The loads of all functions, for a link that is new or whose list is: told to all links, so that
    /// what was told stays the same on all of them.
    pub(super) fn take_all(&mut self, engine: &Engine, numbers: &Numbers) -> Vec<Load> {
        self.told.clear();
        for (function, number) in numbers.all() {
            self.told.insert(number, engine.load(function, number));
        }
        self.told()
    }

    /// What all links were told.
    pub(super) fn told(&self) -> Vec<Load> {
        self.told.values().copied().collect()
    }
}

/// Whether a gateway would decide otherwise.
fn matters(told: &Load, now: &Load) -> bool {
    let edges = |load: &Load| (load.state, load.room == 0, load.queued == 0);
    edges(told) != edges(now)
        || differ(told.queued, now.queued)
        || differ(told.running + told.waiting, now.running + now.waiting)
        || differ(told.waiting, now.waiting)
        || differ(told.room, now.room)
}

fn differ(told: u32, now: u32) -> bool {
    told.abs_diff(now) >= DIFFERENCE_MIN.max(told / DIFFERENCE)
}

#[cfg(test)]
mod tests {
    use protocol::message::LoadState;

    use super::*;

    const IDLE: Load = Load {
        number: 0,
        state: LoadState::Serving,
        queued: 0,
        running: 0,
        waiting: 0,
        room: 1024,
    };

    #[test]
    fn one_call_more_or_less_is_no_news_and_edges_are() {
        assert!(!matters(&IDLE, &IDLE));
        assert!(!matters(&IDLE, &Load { running: 1, ..IDLE }));
        assert!(matters(&IDLE, &Load { running: 2, ..IDLE }));
        assert!(matters(&IDLE, &Load { queued: 1, ..IDLE }));
        assert!(matters(&IDLE, &Load { state: LoadState::Broken, ..IDLE }));
        assert!(!matters(&IDLE, &Load { room: 1000, ..IDLE }));
        assert!(matters(&IDLE, &Load { room: 700, ..IDLE }));
        let last = Load { room: 1, ..IDLE };
        assert!(matters(&last, &Load { room: 0, ..IDLE }));
        let busy = Load { queued: 100, running: 16, room: 924, ..IDLE };
        assert!(!matters(&busy, &Load { queued: 110, running: 17, room: 914, ..IDLE }));
        assert!(matters(&busy, &Load { queued: 140, ..busy }));
    }
}
