//! Answers nothing: what a call costs.

#[nightcore::function]
fn nop() {}
