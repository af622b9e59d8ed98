//! Measurements of the machine, of this runtime and of what a user would run instead.
//!
//! - [`sample`]: one measured distribution, as every tool here prints and keeps it.
//! - [`handoff`]: calls that a caller hands to a callee directly, a prototype.

pub mod handoff;
pub mod sample;
