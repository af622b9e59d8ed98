//! Entry of the `nightcore` command.

fn main() {}
