//! `nightcore ls`: lists the functions of a running stack.
