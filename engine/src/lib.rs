//! The engine of one host: dispatches every external and internal call.
//!
//! | module      | what, in the order a call meets it                                          |
//! |-------------|------------------------------------------------------------------------------|
//! | `io`        | one shard's half: calls in, effects performed, answers out                  |
//! | `core`      | pure policy: which call goes to which worker, and what everybody is owed    |
//! | `container` | the processes that hold functions: start, handshake, death                  |
//! | `logs`      | what functions print: read, limited, kept, told                             |
//! | `mailbox`   | control messages between the supervisor and the shards                      |
//! | `stats`     | counters, written by shards, read by whoever serves metrics                 |
//! | `uplink`    | links to gateways on other hosts, whose calls come in like any other         |
//! | `quantile`  | what the buckets of those counters tell of percentiles                      |

pub mod container;
pub mod core;
pub mod io;
pub mod logs;
pub mod mailbox;
pub mod quantile;
pub mod stats;
pub mod uplink;
