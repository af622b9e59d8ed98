//! Functions that come and go. A function that is updated is two for a while: the new version gets a
//! place of its own, and the old one keeps its place until its last call has ended.

use super::core::Core;
use super::event::FunctionId;
use super::function::{Container, Function};
use super::spec::FunctionSpec;

impl Core {
    /// Adds a function; its container is down. Panics when the spec contradicts itself.
    pub fn add_function(&mut self, spec: FunctionSpec) -> FunctionId {
        let id = FunctionId::from_index(self.functions.len());
        self.functions.push(Function::new(id, spec));
        id
    }

    /// Puts a new function in the place of one that [`Self::may_leave`]. Panics when the spec contradicts
    /// itself.
    pub fn replace_function(&mut self, id: FunctionId, spec: FunctionSpec) {
        debug_assert!(self.may_leave(id));
        let old = std::mem::replace(self.function(id), Function::new(id, spec));
        if let Some((timer, _)) = old.stall {
            self.timers.cancel(timer);
        }
    }

    /// Whether a function's container is down, and no call names it: queued, on a worker or on another
    /// shard.
    pub fn may_leave(&self, id: FunctionId) -> bool {
        self.functions[id.index()].container == Container::Down
            && !self.calls.all().any(|call| call.function == id)
    }

    /// Has a function's newer version go on with what it has counted, and with what is known of its
    /// load if it is the first time.
    pub fn inherit(&mut self, older: FunctionId, newer: FunctionId) {
        let old = self.function(older);
        let (counters, times) = (std::mem::take(&mut old.counters), std::mem::take(&mut old.times));
        let (load, figures) = (old.load, old.figures);
        let new = self.function(newer);
        if new.counters.arrivals == 0 {
            (new.load, new.figures) = (load, figures);
        }
        new.counters.add(&counters);
        new.times.add(&times);
    }
}
