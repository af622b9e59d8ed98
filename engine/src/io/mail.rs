//! What the supervisor and the other shards tell this one.

use reactor::Reactor;
use reactor::clock::Nanos;

use super::engine::{Engine, Order};
use crate::core::{Event, FunctionId, WorkerId};
use crate::mailbox::ToShard;

impl Engine {
    pub(super) fn read_mail(&mut self, reactor: &mut Reactor, now: Nanos) {
        while let Some(message) = self.mailbox.take() {
            match message {
                ToShard::ContainerUp { function, container } => {
                    self.container_up(reactor, now, function, container);
                }
                ToShard::Part { function, generation } => self.part(function, generation),
                ToShard::Deploy { function, deployed } => self.deploy(function, *deployed),
                ToShard::Route { name, to } => self.route(name, to),
                ToShard::Remove { function } => self.remove(function),
                ToShard::ContainerDown { function, generation, cause } => {
                    self.container_down(reactor, now, function, generation, &cause);
                }
                ToShard::Barred { function, until } => {
                    self.tell_core(reactor, now, function, Event::Barred { function, until });
                }
                ToShard::WorkerFailed { function, generation, lane, message } => {
                    let worker = WorkerId { function, lane };
                    self.worker_failed(reactor, now, generation, worker, &message);
                }
                ToShard::YieldWorker { function, has } => {
                    self.tell_core(reactor, now, function, Event::YieldWorker { function, has });
                }
                ToShard::WorkerFreed { function } => {
                    self.tell_core(reactor, now, function, Event::WorkerFreed { function });
                }
                ToShard::Drain => self.orders.push_back(Order::Drain),
                ToShard::Stop => self.orders.push_back(Order::Stop),
            }
        }
    }

    fn has_container(&mut self, function: FunctionId, generation: u32) -> bool {
        self.link(function).is_some_and(|link| link.container.generation == generation)
    }

    /// A launcher says that it could not start a worker. If it was not to start one, its container is
    /// closed for that, and what it says is not logged.
    fn worker_failed(
        &mut self,
        reactor: &mut Reactor,
        now: Nanos,
        generation: u32,
        worker: WorkerId,
        message: &str,
    ) {
        let WorkerId { function, lane } = worker;
        if !self.has_container(function, generation) {
            return;
        }
        if let Some(link) = self.link(function) {
            link.close_lane(lane);
        }
        self.tell_core(reactor, now, function, Event::WorkerFailed { worker });
        if self.has_container(function, generation) {
            let name = &self.functions[function.index()].function.name;
            let lane = lane.0;
            tracing::warn!(function = name, lane, "a worker could not be started: {message}");
        }
    }
}
