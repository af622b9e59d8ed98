//! The `nightcore` command: configuration, the start of the stack, and the clients.

pub mod admin;
pub mod client;
pub mod config;
pub mod deploy;
pub mod invoke;
pub mod key;
pub mod logs;
pub mod ls;
pub mod top;
pub mod up;

mod engines;
mod listing;
mod table;
