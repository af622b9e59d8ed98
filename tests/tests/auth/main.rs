//! The door of a real stack: keys, tokens, what becomes of them at a reload, and the log of it.

mod keys;
mod lock;
mod log;
mod tokens;
