//! The `nightcore` command: configuration, the start of the stack, and the two clients.

pub mod config;

pub mod client;
pub mod invoke;
pub mod ls;
pub mod up;
