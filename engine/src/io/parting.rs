//! This shard's say in the stop of a container that nobody calls, its wish for one when a call comes,
//! and what it does when one is up, is gone, or must go.

use std::sync::Arc;

use reactor::Reactor;
use reactor::clock::Nanos;

use super::engine::Engine;
use super::link::Link;
use crate::container::{Cause, Container};
use crate::core::{Event, FunctionId};
use crate::mailbox::ToSupervisor;

impl Engine {
    /// The supervisor found a container idle: parts with it, or keeps it because something needs it.
    pub(super) fn part(&mut self, function: FunctionId, generation: u32) {
        let Some(state) = self.functions.get(function.index()) else { return };
        let parts = match &state.link {
            Some(link) if link.container.generation == generation => {
                // What changed since this turn began is not yet published: the supervisor did not know.
                !state.changed && !link.has_readers() && self.core.part(function)
            }
            // Closed here already, and not without word to the supervisor.
            _ => true,
        };
        self.supervisor.send(if parts {
            ToSupervisor::Parted { function, generation }
        } else {
            ToSupervisor::Kept { function, generation }
        });
    }

    /// A call came: if it has to wait for a container, tells the supervisor, once for all that do.
    pub(super) fn want(&mut self, function: FunctionId) {
        if self.core.is_away(function)
            && let Some(state) = self.functions.get_mut(function.index())
            && !std::mem::replace(&mut state.wanted, true)
        {
            self.supervisor.send(ToSupervisor::Wanted { function });
        }
    }

    /// The same where no call has come, but one may be waiting.
    pub(super) fn want_if_queued(&mut self, function: FunctionId) {
        if self.core.is_away(function) && self.core.snapshot(function).queued > 0 {
            self.want(function);
        }
    }

    /// A container is up, or given back by the supervisor who had asked for it.
    pub(super) fn container_up(
        &mut self,
        reactor: &mut Reactor,
        now: Nanos,
        function: FunctionId,
        container: Arc<Container>,
    ) {
        let Some(state) = self.functions.get_mut(function.index()) else { return };
        state.wanted = false;
        let has = |link: &Link| link.container.generation == container.generation;
        if !state.link.as_ref().is_some_and(has) {
            state.links_made = state.links_made.wrapping_add(1);
            state.link = Some(Link::new(container, state.links_made, state.function.geometry));
        }
        self.tell_core(reactor, now, function, Event::ContainerUp { function });
    }

    /// A container is gone, stopped or by its own fault.
    pub(super) fn container_down(
        &mut self,
        reactor: &mut Reactor,
        now: Nanos,
        function: FunctionId,
        generation: u32,
        cause: &Cause,
    ) {
        if self.link(function).is_none_or(|link| link.container.generation != generation) {
            return;
        }
        let Some(state) = self.functions.get_mut(function.index()) else { return };
        state.wanted = false;
        state.death = Some(format!("the function's container {cause}").into());
        let link = state.link.take();
        // The core first: it drops the payloads that live in the channel.
        self.tell_core(reactor, now, function, Event::ContainerDown { function });
        if let Some(link) = link {
            link.close(reactor);
        }
        self.want_if_queued(function);
    }

    /// Ends a container that broke the protocol.
    pub(super) fn condemn(
        &mut self,
        reactor: &mut Reactor,
        now: Nanos,
        function: FunctionId,
        reason: String,
    ) {
        self.close_container(reactor, now, function, Cause::Protocol { reason });
    }

    /// Ends a container: here at once, everywhere through the supervisor.
    pub(super) fn close_container(
        &mut self,
        reactor: &mut Reactor,
        now: Nanos,
        function: FunctionId,
        cause: Cause,
    ) {
        let Some(generation) = self.link(function).map(|link| link.container.generation) else {
            return;
        };
        let name = &self.functions[function.index()].function.name;
        tracing::error!(function = name, "container is closed: it {cause}");
        let cause = Arc::new(cause);
        let condemned = Arc::clone(&cause);
        self.supervisor.send(ToSupervisor::Condemn { function, generation, cause: condemned });
        self.container_down(reactor, now, function, generation, &cause);
    }
}
