//! The simulator: the core of the engine, as it is, in a world with a virtual clock.
//!
//! Thousands of seconds of load, of faults and of functions that call each other pass in seconds, the
//! same ones whenever the seed is the same. Its tests check that the core keeps its promises in worlds
//! drawn at random, and how well each policy does; `nightcore-sim plot` draws the latter.
//!
//! - [`plan`]: what a world is made of.
//! - [`random`]: numbers from a seed.
//! - [`arrivals`]: when calls come.
//! - [`program`]: what functions do.
//! - [`world`]: the world and what happens in it: callers, launchers, accidents.
//! - [`agenda`]: what will happen when.
//! - [`cpu`]: cores that threads share.
//! - [`pool`]: the workers of a function.
//! - `work`: workers run programs.
//! - `effects`: what the core asks for is done.
//! - `check`: what must hold after everything that happens.
//! - [`tally`]: what came of it.
//! - [`lottery`]: worlds drawn at random.
//! - [`sweep`]: loads under each policy.
//! - [`plot`]: lines over the load, as SVG.

pub mod agenda;
pub mod arrivals;
mod check;
pub mod cpu;
mod effects;
pub mod lottery;
pub mod plan;
pub mod plot;
pub mod pool;
pub mod program;
pub mod random;
pub mod sweep;
pub mod tally;
mod work;
pub mod world;
