//! What the machine allows: round trips of each way that one process can wake another, and copies.
//!
//! In the order of the table:
//! - `eventfd`, `pipe`, `futex`, `unix_socket`: two processes that wake each other;
//! - `relay`: a call through an engine process that waits on an io_uring;
//! - `spin`: two processes that never sleep;
//! - `memcpy`: bytes.
//!
//! `line` is what the pairs have in common; `words` the memory that some of them share.

mod eventfd;
mod futex;
mod line;
mod memcpy;
mod pipe;
mod relay;
mod spin;
mod unix_socket;
mod words;

use crate::case::{self, Case, Error, Selection};

/// Measures and prints what `selection` names, or everything.
///
/// # Errors
/// When nothing has a selected name, or a measurement fails.
pub fn run(selection: &Selection) -> Result<(), Error> {
    let cases: Vec<Case> = [
        eventfd::cases(),
        pipe::cases(),
        futex::cases(),
        unix_socket::cases(),
        relay::cases(),
        spin::cases(),
        memcpy::cases(),
    ]
    .into_iter()
    .flatten()
    .collect();
    case::run(&cases, selection).map(|_| ())
}
