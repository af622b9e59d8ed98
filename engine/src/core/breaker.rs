//! Functions whose containers keep dying: calls are refused at once instead of waiting for a container
//! that would not live, until one is up again. When that is, the supervisor says.

use reactor::clock::Nanos;

use super::core::{Core, Effects};
use super::event::{FunctionId, Refusal};
use super::function::{Container, Function};

impl Function {
    /// Why a call is not taken while no container is started.
    pub(super) fn barred(&self, now: Nanos) -> Option<Refusal> {
        let until = self.barred?;
        Some(Refusal::BREAKER_OPEN.retried_after(until.saturating_since(now)))
    }
}

impl Core {
    /// Whether calls are refused because no container is started.
    #[must_use]
    pub fn is_barred(&self, function: FunctionId) -> bool {
        self.functions[function.index()].barred.is_some()
    }

    /// No container is started until then: whoever waits for one is told so, as is whoever comes.
    pub(super) fn bar(&mut self, function: FunctionId, until: Nanos, effects: &mut Effects) {
        let f = self.function(function);
        // One that is up after all has ended it.
        if f.container == Container::Down {
            f.barred = Some(until);
            self.refuse_barred(function, effects);
        }
    }

    /// Fails what waits for a container that is not started.
    pub(super) fn refuse_barred(&mut self, function: FunctionId, effects: &mut Effects) {
        let Some(refusal) = self.functions[function.index()].barred(self.now) else { return };
        while let Some(id) = self.calls.front(&self.functions[function.index()].queue) {
            self.unqueue(id, effects);
            self.answer(id, refusal.into(), effects);
            self.end(id);
        }
    }
}
