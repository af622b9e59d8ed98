//! Measurements of the machine, of this runtime and of what a user would run instead.
//!
//! - [`sample`]: one measured distribution, as every tool here prints and keeps it.

pub mod sample;
