//! Functions that come and go while others are called: deployed, updated, removed.
//!
//! A version of a function has a place of its own, a slot here and a number on every shard. The next
//! version is started beside the one that serves; once it is warm (its library is loaded, its first
//! worker stands) the shards send new calls there, and the former version ends the calls it has. So no
//! call ever waits for a start, and a version that does not start leaves everything as it was.
//!
//! ```text
//!         deploy           warm              all shards do          update, remove
//!  Free ---------> Candidate ---> Routing -----------------> Serving --------------+
//!    ^                 | fails                                                      v
//!    +--- Removing <---+-------------- Retiring <--------------------------- Unrouting
//!      all shards have      no call        all shards send no call here any more
//!      no call of it
//! ```

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use super::lease::Lease;
use super::slot::{Phase, Slot};
use super::supervisor::Supervisor;
use super::{Breaker, Cause, ContainerSpec};
use crate::core::FunctionId;
use crate::io::Function;
use crate::mailbox::ToShard;

/// From the start of a new version's container until its first worker stands, at most.
const WARM_TIMEOUT: Duration = Duration::from_secs(10);
/// A version that retires is stopped once it had no call for this long.
const RETIRE_QUIET: Duration = Duration::from_millis(20);
/// Until shards that still had a call of a version are asked again.
const REMOVE_AGAIN: Duration = Duration::from_millis(20);

/// A change of what is served.
#[derive(Debug)]
pub struct Change {
    /// What is wanted.
    pub what: Wanted,
    /// Where the outcome goes; an error in one line.
    pub reply: Sender<Result<Changed, String>>,
}

/// See [`Change`].
#[derive(Debug)]
pub enum Wanted {
    /// A new function, or the next version of one.
    Deploy(Box<Deployment>),
    /// The function of this name goes.
    Remove(String),
}

/// A function to be deployed.
#[derive(Debug)]
pub struct Deployment {
    /// How its container is started.
    pub spec: ContainerSpec,
    /// What it is on each shard, in the order of the shards.
    pub functions: Vec<Function>,
}

/// What has become of a [`Change`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Every call that comes from now on goes to the new version.
    Deployed {
        /// Of the new version's container.
        pid: u32,
        /// Whether it replaces an older version, which ends its calls.
        replaces: bool,
    },
    /// The function is gone, after its last call.
    Removed,
}

type Reply = Sender<Result<Changed, String>>;

/// What a slot is used for; the module's description draws it.
#[derive(Debug)]
pub(super) enum Stage {
    Serving,
    /// Its first container starts.
    Candidate {
        until: Instant,
        reply: Reply,
    },
    /// It is warm, and the shards are being told.
    Routing {
        unanswered: usize,
        reply: Reply,
    },
    /// The shards are being told to send no more calls here.
    Unrouting {
        unanswered: usize,
        reply: Reply,
    },
    /// It ends its calls.
    Retiring {
        again_at: Instant,
        reply: Option<Reply>,
    },
    /// The shards are asked whether it has any calls.
    Removing {
        unanswered: usize,
        empty: bool,
        reply: Option<Reply>,
    },
    Free,
}

impl Stage {
    /// Whether calls come here, or soon will.
    fn is_named(&self) -> bool {
        matches!(self, Self::Serving | Self::Routing { .. })
    }
}

impl Supervisor {
    /// Somebody wants a change; a refusal is told at once.
    pub(super) fn change(&mut self, Change { what, reply }: Change) {
        let begun = match what {
            _ if self.is_stopping => Err("the engine is being stopped".to_owned()),
            Wanted::Deploy(deployment) => self.deploy(*deployment, &reply),
            Wanted::Remove(name) => self.undeploy(&name, &reply),
        };
        if let Err(reason) = begun {
            // Whoever asked may have gone.
            let _ = reply.send(Err(reason));
        }
    }

    fn deploy(&mut self, deployment: Deployment, reply: &Reply) -> Result<(), String> {
        let Deployment { spec, functions } = deployment;
        self.may_change(&spec.name)?;
        let place = self.slots.iter().position(|slot| matches!(slot.stage, Stage::Free));
        let index = place.unwrap_or(self.slots.len());
        if index >= self.stats.places() {
            let text = "there is no room for another function or version until one has gone";
            return Err(text.to_owned());
        }
        let function = FunctionId::from_index(index);
        for (shard, deployed) in self.shards.iter().zip(functions) {
            shard.send(ToShard::Deploy { function, deployed: Box::new(deployed) });
        }
        let until = Instant::now() + WARM_TIMEOUT;
        let mut slot = Slot::new(spec);
        slot.stage = Stage::Candidate { until, reply: reply.clone() };
        match self.slots.get_mut(index) {
            Some(place) => {
                // Containers of the former function are told apart from the new one's.
                slot.generation = place.generation;
                *place = slot;
            }
            None => self.slots.push(slot),
        }
        self.stats.containers.reset(index);
        if let Err(cause) = self.start(index) {
            self.candidate_failed(index, &cause);
        }
        Ok(())
    }

    fn undeploy(&mut self, name: &str, reply: &Reply) -> Result<(), String> {
        self.may_change(name)?;
        let index = self.named(name).ok_or_else(|| format!("there is no function \"{name}\""))?;
        let unanswered = self.shards.len();
        self.slots[index].stage = Stage::Unrouting { unanswered, reply: reply.clone() };
        let name: Arc<str> = name.into();
        self.post_all(|| ToShard::Route { name: Arc::clone(&name), to: None });
        Ok(())
    }

    /// Changes of one function come one after the other.
    fn may_change(&self, name: &str) -> Result<(), String> {
        let mut of_name = self.slots.iter().filter(|slot| slot.spec.name == name);
        let changing = of_name.any(|slot| {
            matches!(
                slot.stage,
                Stage::Candidate { .. } | Stage::Routing { .. } | Stage::Unrouting { .. }
            )
        });
        if changing { Err(format!("function \"{name}\" is being changed")) } else { Ok(()) }
    }

    /// The slot to which a name leads.
    fn named(&self, name: &str) -> Option<usize> {
        let leads = |slot: &Slot| slot.stage.is_named() && slot.spec.name == name;
        self.slots.iter().position(leads)
    }

    /// The first worker stands, or none is wanted before the first call.
    pub(super) fn warm(&mut self, function: FunctionId) {
        let unanswered = self.shards.len();
        let Some(slot) = self.slots.get_mut(function.index()) else { return };
        let stage = std::mem::replace(&mut slot.stage, Stage::Free);
        let Stage::Candidate { reply, .. } = stage else {
            slot.stage = stage;
            return;
        };
        slot.stage = Stage::Routing { unanswered, reply };
        let name: Arc<str> = slot.spec.name.as_str().into();
        let to = Some(function);
        self.post_all(|| ToShard::Route { name: Arc::clone(&name), to });
    }

    /// A shard sends calls of a name where it was told.
    pub(super) fn routed(&mut self, name: &str) {
        let waits = |slot: &Slot| {
            let waits = matches!(slot.stage, Stage::Routing { .. } | Stage::Unrouting { .. });
            waits && slot.spec.name == name
        };
        let Some(index) = self.slots.iter().position(waits) else { return };
        let slot = &mut self.slots[index];
        match &mut slot.stage {
            Stage::Routing { unanswered, .. } | Stage::Unrouting { unanswered, .. }
                if *unanswered > 1 =>
            {
                *unanswered -= 1;
            }
            stage => match std::mem::replace(stage, Stage::Serving) {
                Stage::Routing { reply, .. } => self.serve(index, &reply),
                Stage::Unrouting { reply, .. } => slot.retire(Some(reply)),
                _ => unreachable!("one of the two waits"),
            },
        }
    }

    /// All calls go to the new version: the former one may end.
    fn serve(&mut self, index: usize, reply: &Reply) {
        let name = self.slots[index].spec.name.clone();
        let pid = self.slots[index].process().map_or(0, |process| process.pid());
        let mut replaces = false;
        for (other, slot) in self.slots.iter_mut().enumerate() {
            if other != index && slot.stage.is_named() && slot.spec.name == name {
                slot.retire(None);
                replaces = true;
            }
        }
        tracing::info!(function = name, pid, "deployed");
        let _ = reply.send(Ok(Changed::Deployed { pid, replaces }));
    }

    /// A new version did not start. The one that serves goes on.
    pub(super) fn candidate_failed(&mut self, index: usize, cause: &Cause) {
        let slot = &mut self.slots[index];
        let stage = std::mem::replace(&mut slot.stage, Stage::Free);
        let Stage::Candidate { reply, .. } = stage else {
            slot.stage = stage;
            return;
        };
        let reason = cause.of_start();
        tracing::warn!(function = slot.spec.name, "not deployed: {reason}");
        let _ = reply.send(Err(reason));
        slot.phase = Phase::Idle;
        self.ask_to_remove(index, None);
    }

    /// Whether what ended in this slot is a matter of its deployment, and not to be started again.
    pub(super) fn ends_candidate(&mut self, index: usize, cause: &Cause) -> bool {
        let is_candidate = matches!(self.slots[index].stage, Stage::Candidate { .. });
        if is_candidate {
            self.candidate_failed(index, cause);
        }
        is_candidate
    }

    /// When something of a deployment is due without news.
    pub(super) fn next_change(&self) -> Option<Instant> {
        let due = self.slots.iter().filter_map(|slot| match &slot.stage {
            Stage::Candidate { until, .. } => Some(*until),
            Stage::Retiring { again_at, .. } if slot.is_down() => Some(*again_at),
            _ => None,
        });
        due.min()
    }

    /// Gives up on new versions that are late, and goes on with those that retire.
    pub(super) fn go_on_with_changes(&mut self) {
        let now = Instant::now();
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            match &mut slot.stage {
                Stage::Candidate { until, .. } if *until <= now => {
                    let reason =
                        format_args!("its first worker did not start within {WARM_TIMEOUT:?}");
                    self.end(index, Cause::failed_start(reason));
                }
                Stage::Retiring { again_at, reply }
                    if *again_at <= now && matches!(slot.phase, Phase::Idle) =>
                {
                    let reply = reply.take();
                    self.ask_to_remove(index, reply);
                }
                _ => {}
            }
        }
    }

    fn ask_to_remove(&mut self, index: usize, reply: Option<Reply>) {
        let unanswered = self.shards.len();
        self.slots[index].stage = Stage::Removing { unanswered, empty: true, reply };
        let function = FunctionId::from_index(index);
        self.post_all(|| ToShard::Remove { function });
    }

    /// A shard says whether it has calls of a version that is to go.
    pub(super) fn left(&mut self, function: FunctionId, shard_is_empty: bool) {
        let Some(slot) = self.slots.get_mut(function.index()) else { return };
        let Stage::Removing { unanswered, empty, reply } = &mut slot.stage else { return };
        *empty &= shard_is_empty;
        *unanswered -= 1;
        if *unanswered > 0 {
            return;
        }
        let (empty, reply) = (*empty, reply.take());
        if !empty || !slot.is_down() {
            let again_at = Instant::now() + REMOVE_AGAIN;
            slot.stage = Stage::Retiring { again_at, reply };
            return;
        }
        slot.phase = Phase::Stopped;
        slot.stage = Stage::Free;
        tracing::debug!(function = slot.spec.name, "a version of it is gone");
        if let Some(reply) = reply {
            tracing::info!(function = slot.spec.name, "removed");
            let _ = reply.send(Ok(Changed::Removed));
        }
        let name = slot.spec.name.clone();
        let is_in_use = |slot: &Slot| !matches!(slot.stage, Stage::Free) && slot.spec.name == name;
        if !self.slots.iter().any(is_in_use) {
            self.stats.logs.forget(&name);
        }
    }
}

impl Slot {
    /// Has it end its calls; it is stopped like a container that nobody calls.
    fn retire(&mut self, reply: Option<Reply>) {
        let now = Instant::now();
        self.stage = Stage::Retiring { again_at: now, reply };
        self.spec.idle_timeout = Some(RETIRE_QUIET);
        if let Phase::Up { lease: lease @ Lease::Held { .. }, .. } = &mut self.phase {
            *lease = Lease::Held { look_at: Some(now) };
        }
        self.give_up();
    }

    /// Starts no container any more where they keep dying: nobody waits for one.
    pub(super) fn give_up(&mut self) {
        let retires = matches!(self.stage, Stage::Retiring { .. });
        let waits = matches!(self.phase, Phase::Waiting { .. });
        if retires && waits && self.restarts.breaker() != Breaker::Closed {
            self.phase = Phase::Idle;
        }
    }

    /// Whether no container of it runs or starts.
    fn is_down(&self) -> bool {
        matches!(self.phase, Phase::Idle | Phase::Stopped)
    }
}

#[cfg(test)]
mod tests {
    use super::super::slot::tests::due;
    use super::*;

    #[test]
    fn a_version_that_retires_is_started_for_its_last_calls_unless_its_containers_keep_dying() {
        let mut slot = due(None);
        slot.back_off(Duration::ZERO);
        slot.retire(None);
        assert!(!slot.is_down(), "calls may wait for it");
        while slot.restarts.breaker() == Breaker::Closed {
            slot.back_off(Duration::ZERO);
        }
        assert!(!slot.is_down());
        slot.give_up();
        assert!(slot.is_down());
        let mut slot = due(None);
        while slot.restarts.breaker() == Breaker::Closed {
            slot.back_off(Duration::ZERO);
        }
        slot.retire(None);
        assert!(slot.is_down());
    }
}
