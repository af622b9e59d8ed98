//! Functions that come and go on this shard, as the supervisor says.

use std::sync::Arc;

use super::engine::{Engine, Function, FunctionState};
use crate::core::FunctionId;
use crate::mailbox::ToSupervisor;

/// What a function's place is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// By a function that no name leads to yet; its first worker is to be announced.
    Candidate,
    /// By the function of its name.
    Serving,
    /// By a version that ends its last calls.
    Retired,
    /// Not at all.
    Free,
}

impl FunctionState {
    pub(super) fn new(function: Function, stage: Stage) -> Self {
        let (link, death) = (None, None);
        let (changed, stirred, wanted) = (false, false, false);
        Self { function, link, links_made: 0, changed, stirred, wanted, death, stage }
    }
}

impl Engine {
    /// A function gets a place: the next one, or one that is free.
    pub(super) fn deploy(&mut self, id: FunctionId, function: Function) {
        let spec = function.spec;
        match self.functions.get_mut(id.index()) {
            None => {
                self.core.add_function(spec);
                self.functions.push(FunctionState::new(function, Stage::Candidate));
            }
            Some(state) => {
                debug_assert!(state.stage == Stage::Free, "its former function has left");
                self.core.replace_function(id, spec);
                // What is still said to the former function's links reaches none of the new ones.
                let FunctionState { links_made, changed, stirred, .. } = *state;
                let next = FunctionState::new(function, Stage::Candidate);
                *state = FunctionState { links_made, changed, stirred, ..next };
            }
        }
        self.core.set_quota(id, self.functions[id.index()].function.quota.clone());
        self.touch(id);
    }

    /// A worker of the function has started.
    pub(super) fn announce(&mut self, function: FunctionId) {
        if self.functions[function.index()].stage == Stage::Candidate {
            self.supervisor.send(ToSupervisor::Warm { function });
        }
    }

    /// Calls of this name go elsewhere from now on.
    pub(super) fn route(&mut self, name: Arc<str>, to: Option<FunctionId>) {
        let former = match to {
            Some(to) => {
                self.functions[to.index()].stage = Stage::Serving;
                self.names.insert(name.as_bytes().into(), to)
            }
            None => self.names.remove(name.as_bytes()),
        };
        if let Some(former) = former {
            self.functions[former.index()].stage = Stage::Retired;
            if let Some(to) = to {
                self.core.inherit(former, to);
                self.touch(to);
            }
            self.touch(former);
        }
        self.offers.reroute();
        self.supervisor.send(ToSupervisor::Routed { name });
    }

    /// A function leaves, unless one of its calls is still here.
    pub(super) fn remove(&mut self, function: FunctionId) {
        let state = &mut self.functions[function.index()];
        let empty = state.link.is_none() && self.core.may_leave(function);
        if empty {
            state.stage = Stage::Free;
            let newer = self.names.get(state.function.name.as_bytes()).copied();
            if let Some(newer) = newer {
                self.core.inherit(function, newer);
                self.touch(newer);
            }
            self.touch(function);
        }
        self.supervisor.send(ToSupervisor::Left { function, empty });
    }
}
