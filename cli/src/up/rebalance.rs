//! Looks at the cores while there is work, and says which connections shall move.
//!
//! Whichever shard is busy looks, at the end of a turn: an idle host has no thread that wakes up for it,
//! and a shard that sleeps need not be asked. Once in [`WINDOW`] one of them reads `/proc/stat` for all.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, TryLockError};
use std::time::Duration;

use reactor::clock::Nanos;

use super::balance::Loads;
use super::cores::Cores;
use super::passage::Passage;
use super::policy::{Move, PAUSE, Policy, View};

/// Between two looks: ten of the ticks in which the kernel counts, and a tenth of a second to react.
/// Reading takes some tens of microseconds.
const WINDOW: Duration = Duration::from_millis(100);
/// A longer window says nothing about now.
const WINDOW_MAX: Duration = Duration::from_secs(1);
/// How long connections may take to leave: a decision has taken its effect before the next one.
pub(super) const DEPARTURE_TIME: Duration = Duration::from_millis(200);
const _: () = assert!(DEPARTURE_TIME.as_millis() <= PAUSE as u128 * WINDOW.as_millis());

/// What all shards share to place connections.
#[derive(Debug)]
pub(super) struct Balance {
    pub(super) loads: Loads,
    pub(super) passage: Passage,
    rebalancer: Option<Rebalancer>,
}

#[derive(Debug)]
struct Rebalancer {
    /// When the next look is due.
    due: AtomicU64,
    /// Taken by the one who looks; the others do not wait for it.
    sight: Mutex<Sight>,
}

#[derive(Debug)]
struct Sight {
    cores: Cores,
    policy: Policy,
    views: Vec<View>,
    at: Nanos,
}

impl Balance {
    /// `cores` has the core of each shard. No shard is moved more than `connections_max`
    /// connections.
    pub(super) fn new(cores: &[u16], connections_max: u32) -> Self {
        let shards = u16::try_from(cores.len()).unwrap_or(u16::MAX);
        let rebalancer = match Cores::open(cores) {
            _ if shards < 2 => None,
            Ok(cores) => Some(Rebalancer::new(cores, Policy::new(shards, connections_max), shards)),
            Err(error) => {
                tracing::warn!("connections stay where they are: /proc/stat: {error}");
                None
            }
        };
        Self { loads: Loads::new(shards), passage: Passage::default(), rebalancer }
    }

    /// Looks if it is time. To be called by a shard that has measured itself.
    pub(super) fn look(&self, shard: u16, now: Nanos) -> Option<Move> {
        let rebalancer = self.rebalancer.as_ref()?;
        if now.0 < rebalancer.due.load(Ordering::Relaxed) || !self.loads.is_busy(shard) {
            return None;
        }
        let mut sight = match rebalancer.sight.try_lock() {
            Ok(sight) => sight,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        // Somebody may have looked since: a window is not cut in two.
        if now.0 < rebalancer.due.load(Ordering::Relaxed) {
            return None;
        }
        rebalancer.due.store((now + WINDOW).0, Ordering::Relaxed);
        sight.look(&self.loads, now)
    }
}

impl Rebalancer {
    fn new(cores: Cores, policy: Policy, shards: u16) -> Self {
        let views = vec![View::default(); shards.into()];
        let sight = Mutex::new(Sight { cores, policy, views, at: Nanos(0) });
        Self { due: AtomicU64::new(0), sight }
    }
}

impl Sight {
    fn look(&mut self, loads: &Loads, now: Nanos) -> Option<Move> {
        if let Err(error) = self.cores.sample() {
            tracing::warn!("/proc/stat: {error}");
            return None;
        }
        let window = now.saturating_since(self.at);
        self.at = now;
        if window > WINDOW_MAX {
            self.policy.forget();
            return None;
        }
        for ((shard, view), core) in (0..).zip(&mut self.views).zip(self.cores.busy()) {
            loads.set_core(shard, core, now);
            *view = loads.view(shard, now);
        }
        let step = self.policy.decide(&self.views);
        tracing::trace!("cores {:?}: {step:?}", self.views);
        step
    }
}
