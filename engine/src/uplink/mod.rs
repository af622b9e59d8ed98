//! Links to gateways on other hosts: their calls come into this shard's engine like those of a
//! gateway that is embedded, and its answers go back. The links are dialled and proved elsewhere; a
//! live one is this engine's registration at the gateway.
//!
//! In the order a call meets them:
//! - [`Uplinks`] (`uplinks`): all links of a shard, their events and their end
//! - `key`: what tokens and callers stand for
//! - `peer`: one link; `end`: why it is over
//! - `call`: from a message to the engine and back
//! - `calls`: who waits for which answer
//! - `numbers`: the numbers by which a link's calls name functions
//! - `report`: how busy the functions are, told when it matters
//! - [`Stats`] (`stats`): counters
//!
//! A gateway is a stranger with a key: whatever it sends is checked, what breaks the protocol ends that
//! link and nothing else, and all that it can make a shard keep has a bound. When all links are gone the
//! engine goes on: containers stay warm until somebody calls again.

mod call;
mod calls;
mod end;
mod key;
mod numbers;
mod peer;
mod report;
mod stats;
#[cfg(test)]
mod tests;
mod uplinks;

pub use key::{owns, owns_caller};
pub use peer::{Identity, Notice};
pub use report::REPORT_EVERY;
pub use stats::Stats;
pub use uplinks::{Bounds, Uplinks};
