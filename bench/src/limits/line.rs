//! One direction between two processes, and the round trip over two of them.

use hdrhistogram::Histogram;

use crate::case::{Case, Error, Rounds};
use crate::process::{Peer, Placement};

/// What one process says and another hears. Both have it from before they were two.
pub(super) trait Line: Sized + 'static {
    fn new() -> Result<Self, Error>;
    fn say(&mut self) -> Result<(), Error>;
    /// Waits until something was said.
    fn hear(&mut self) -> Result<(), Error>;
}

/// Round trips over two lines of a kind, in each placement.
pub(super) fn cases<L: Line>(name: &str, title: &str) -> Vec<Case> {
    let case = |placement: Placement| {
        Case::timed(
            format!("limits/{name}_{}", placement.name()),
            format!("{title}, {}", placement.title()),
            move |rounds| round_trips::<L>(placement, rounds, 1),
        )
    };
    Placement::ALL.map(case).into()
}

/// Says there, hears back; each value is the mean of `batch`.
pub(super) fn round_trips<L: Line>(
    placement: Placement,
    rounds: Rounds,
    batch: u32,
) -> Result<Histogram<u64>, Error> {
    let [here, there] = placement.seats()?;
    let (mut forth, mut back) = (L::new()?, L::new()?);
    let _peer = Peer::fork(|| {
        let _seated = there.take()?;
        loop {
            forth.hear()?;
            back.say()?;
        }
    })?;
    let _seated = here.take()?;
    rounds.time_batches(batch, || {
        forth.say()?;
        back.hear()
    })
}
