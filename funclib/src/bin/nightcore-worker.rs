//! The process of a container.
fn main() {}
