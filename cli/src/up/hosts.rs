//! What a shard has of other hosts: links to engines there, links to gateways there, and where it tells
//! of both.

use std::sync::Arc;

use engine::uplink::{self, Bounds, Uplinks};
use gateway::remote::{self, Board, Remote};
use reactor::clock;

use super::gateways::Wire;
use crate::config::Config;

/// Shared by all shards.
#[derive(Clone, Debug)]
pub(super) struct Hosts {
    pub(super) board: Arc<Board>,
    pub(super) stats: Arc<uplink::Stats>,
    /// To whoever dials gateways.
    pub(super) wire: Wire,
}

impl Hosts {
    /// For that many shards.
    pub(super) fn new(shards: u16, wire: Wire) -> Hosts {
        let board = Arc::new(Board::new(shards));
        Hosts { board, stats: Arc::new(uplink::Stats::new(shards)), wire }
    }

    /// A shard's links to engines.
    pub(super) fn remote(&self, config: &Config, shard: u16) -> Remote {
        // Different for every shard and start, which is all that is asked of it.
        let seed = clock::now().0 ^ (u64::from(shard) << 48);
        let (queue, payload_max) = (config.gateway.queue, config.gateway.body_max);
        let config = remote::Config { shard, queue, payload_max, seed };
        Remote::new(config, Arc::clone(&self.board))
    }

    /// A shard's links to gateways.
    pub(super) fn uplinks(&self, config: &Config, shard: u16) -> Uplinks {
        let bounds = Bounds::for_payloads(config.gateway.body_max);
        Uplinks::new(shard, bounds, Arc::clone(&self.stats))
    }
}
