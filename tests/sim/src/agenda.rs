//! What will happen when: everything but the ends of computations and the core's own timers.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

use engine::core::{FunctionId, WorkerId};
use ipc::CallId;
use reactor::clock::Nanos;

/// Something that will happen.
#[derive(Clone, Copy, Debug)]
pub enum Due {
    /// A call of this source comes.
    Arrival(usize),
    /// The launcher has started a worker, or could not, or has seen one leave.
    Launcher(WorkerId, Epoch, Report),
    /// The call that a worker is on has slept enough.
    Awake(WorkerId, Epoch, CallId),
    /// The result of a call has been read.
    Released(WorkerId, CallId),
    /// A caller loses patience.
    Leave(CallId),
    /// A container crashes.
    Crash(FunctionId),
    /// A container that did not do what it must is ended.
    Replace(FunctionId, Epoch),
    /// Another shard wants a worker of a function, or has given one up.
    Share(FunctionId),
    /// A container is up.
    Up(FunctionId, Epoch),
    /// The machine stands still for so long.
    Stall(Duration),
    /// Gauges are read.
    Gauge,
}

/// One life of a container: what belongs to an earlier one does not happen any more.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Epoch(pub u32);

/// What a launcher reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Report {
    /// A worker runs.
    Started,
    /// A worker could not be started.
    Failed,
    /// The other shards have all the workers that the container may have.
    NoRoom,
    /// A worker has left.
    Retired,
}

/// See the module's description. What is due at the same time happens in the order in which it was
/// put down.
#[derive(Debug, Default)]
pub struct Agenda {
    heap: BinaryHeap<Entry>,
    count: u64,
}

#[derive(Debug)]
struct Entry {
    at: Nanos,
    order: u64,
    due: Due,
}

impl Agenda {
    /// Puts something down.
    pub fn push(&mut self, at: Nanos, due: Due) {
        self.count += 1;
        self.heap.push(Entry { at, order: self.count, due });
    }

    /// When the next is due.
    #[must_use]
    pub fn next(&self) -> Option<Nanos> {
        self.heap.peek().map(|entry| entry.at)
    }

    /// The next.
    pub fn pop(&mut self) -> Option<Due> {
        self.heap.pop().map(|entry| entry.due)
    }
}

/// The greatest is the next, for the heap.
impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.order == other.order
    }
}

impl Eq for Entry {}
