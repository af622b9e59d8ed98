//! See Cargo.toml.

pub mod core;
