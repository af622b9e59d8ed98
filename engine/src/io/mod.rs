//! What performs the effects of `core`: payloads into arenas, descriptors into lanes, doorbells.
//!
//! [`Engine`] is one shard's half of the engine. `link` is one container as this shard sees it,
//! `attention` bounds what it may ask of the loop, `payload` keeps what a queued call will need once it
//! is dispatched, `mail` is what the supervisor says. `moves` carries calls to other shards and back, by
//! the parcels and the board of `exchange`. `offer` is what gateways elsewhere are told of its functions.

mod attention;
mod board;
mod deploy;
mod effects;
mod engine;
mod exchange;
mod lanes;
mod link;
mod mail;
mod moves;
mod offer;
mod parting;
mod payload;
mod report;
mod token;

pub use self::engine::{Answer, Engine, Function, NewCall, Order, Parts};
pub use self::exchange::{Exchange, Rings, exchanges};
pub use self::offer::Offer;
pub use self::token::owns;
