//! What performs the effects of `core`: payloads into arenas, descriptors into lanes, doorbells.
//!
//! [`Engine`] is one shard's half of the engine. `link` is one container as this shard sees it,
//! `payload` keeps what a queued call will need once it is dispatched.

mod effects;
mod engine;
mod lanes;
mod link;
mod parting;
mod payload;
mod report;
mod token;

pub use self::engine::{Answer, Engine, Function, NewCall, Order, Parts};
pub use self::token::owns;
