//! What the connections of a shard share, and what a step of one of them needs at hand.

use std::time::Duration;

use reactor::Reactor;
use reactor::clock::Nanos;
use reactor::wheel::Wheel;

use crate::access_log::{AccessLog, Feed, Record};
use crate::auth::Doorkeeper;
use crate::config::Config;
use crate::date::Date;
use crate::key::Key;
use crate::metrics::Metrics;
use crate::pool::Pool;
use crate::request_id::RequestIds;
use crate::respond::{Exchange, Frame};

/// How exact timeouts are: the shortest is 50 ms.
const TICK: Duration = Duration::from_millis(10);
/// How long an idle connection may still send a request after the drain began.
const DRAIN_GRACE: Duration = Duration::from_millis(500);

pub(crate) struct Shared {
    pub config: Config,
    pub shard: u16,
    pub wheel: Wheel<Key>,
    pub pool: Pool,
    pub ids: RequestIds,
    pub metrics: Metrics,
    pub stage: Stage,
    /// Where requests show who they are; `None`: it stands open.
    pub doorkeeper: Option<Doorkeeper>,
    /// Where answers are logged.
    pub access_log: Option<Feed>,
    /// Connections that are served, that is without those that are being refused.
    pub served: u32,
    /// Connections that wait for a call.
    pub calling: u32,
    /// For what is assembled within one step. Empty or stale in between.
    pub scratch: Vec<u8>,
    pub text: String,
    date: Date,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Serving,
    Draining,
}

/// At hand during one step.
pub(crate) struct Io<'a> {
    pub shared: &'a mut Shared,
    pub reactor: &'a mut Reactor,
    pub now: Nanos,
}

impl Shared {
    pub(crate) fn new(config: Config, shard: u16) -> Shared {
        let doorkeeper = config.auth.clone().map(Doorkeeper::new);
        let access_log = config.access_log.as_ref().map(AccessLog::feed);
        Shared {
            config: config.bounded(),
            doorkeeper,
            access_log,
            shard,
            wheel: Wheel::new(TICK),
            pool: Pool::default(),
            ids: RequestIds::new(shard),
            metrics: Metrics::new(),
            stage: Stage::Serving,
            served: 0,
            calling: 0,
            scratch: Vec::new(),
            text: String::new(),
            date: Date::new(),
        }
    }

    pub(crate) fn frame<'e>(&mut self, exchange: &'e Exchange, now: Nanos) -> Frame<'e> {
        Frame { exchange, date: *self.date.text(now), cors: self.config.cors.clone() }
    }

    /// Has a line written, if there is a log.
    pub(crate) fn log(&mut self, record: Record) {
        if let Some(feed) = &mut self.access_log {
            feed.push(record);
            self.metrics.access_log_dropped = feed.dropped();
        }
    }

    /// How long a connection may stay idle.
    pub(crate) fn idle_timeout(&self) -> Duration {
        match self.stage {
            Stage::Serving => self.config.idle_timeout,
            Stage::Draining => DRAIN_GRACE.min(self.config.idle_timeout),
        }
    }
}
