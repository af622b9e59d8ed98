//! Two processes on two cores that look at shared memory all the time: what a message costs where
//! nobody sleeps, at the price of both cores.

use std::hint::spin_loop;
use std::sync::atomic::Ordering;

use super::line::{self, Line};
use super::words::SharedWords;
use crate::case::{Case, Error};
use crate::process::Placement;

/// Rounds to a value: a look at the clock costs as much as one.
const BATCH: u32 = 16;

struct Spinner {
    words: SharedWords,
    /// Messages said, or heard, by this process.
    passed: u32,
}

pub(super) fn cases() -> Vec<Case> {
    // On one core, each would spin until its time is up.
    let placement = Placement::AcrossCores;
    let name = format!("limits/spin_{}", placement.name());
    let title = format!("shared memory, both spinning, {}", placement.title());
    vec![Case::timed(name, title, move |rounds| {
        line::round_trips::<Spinner>(placement, rounds, BATCH)
    })]
}

impl Line for Spinner {
    fn new() -> Result<Spinner, Error> {
        Ok(Spinner { words: SharedWords::new()?, passed: 0 })
    }

    fn say(&mut self) -> Result<(), Error> {
        self.passed = self.passed.wrapping_add(1);
        // SYNC(word): release, pairs with the acquire in `hear`.
        self.words.word(0).store(self.passed, Ordering::Release);
        Ok(())
    }

    fn hear(&mut self) -> Result<(), Error> {
        // SYNC(word): acquire, pairs with the release in `say`.
        while self.words.word(0).load(Ordering::Acquire) == self.passed {
            spin_loop();
        }
        self.passed = self.passed.wrapping_add(1);
        Ok(())
    }
}
