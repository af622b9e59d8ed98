//! Calls: one record each from admission to the end of the work, in one bounded table.
//!
//! A call may sit in two lists, its function's queue and its parent's unanswered children. Both run
//! through the table's own slots, so that joining, leaving from the middle and walking allocate
//! nothing. The lists' ends live with their owners: a function, a parent call.
//!
//! Invariants: at most `calls_max` live calls. A slot's generation grows when its call ends, so an id
//! names one call only; whoever holds an older id finds nothing. A call is in its parent's list
//! exactly while its answer is owed.

use ipc::{CallId, LaneIndex};
use reactor::clock::Nanos;
use reactor::wheel::Timer;

use super::event::{FunctionId, Origin};

/// One invocation of a function.
#[derive(Debug)]
pub struct Call {
    /// Who is owed the answer.
    pub origin: Origin,
    /// What is called.
    pub function: FunctionId,
    /// When the answer becomes `DeadlineExceeded`.
    pub deadline: Nanos,
    /// How many calls are above this one.
    pub depth: u16,
    /// What it is expected to cost on this core, in ns; 0 while it is away.
    pub cost_ns: u64,
    /// How many calls of the same function are above this one.
    pub(super) nest: u16,
    pub(super) state: CallState,
    /// Fires at `deadline`; cancelled once the answer is not owed any more.
    pub(super) timer: Timer,
    /// When it came to its queue, and once it is on a worker when it was begun.
    pub(super) since: Nanos,
    /// Since when its own calls are unanswered, if some are.
    pub(super) waits_since: Nanos,
    /// For how long they were before, in ns.
    pub(super) waited_ns: u64,
    /// How long they take when nothing queues, in ns.
    pub(super) service_ns: u64,
    /// Internal calls made for this one whose answers are owed.
    pub(super) children: List,
    /// It came from another shard, or went to one and came back: it does not move again.
    pub(super) stays: bool,
    links: [Links; 2],
}

/// Where a call is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CallState {
    /// In its function's queue.
    Queued,
    /// In a lane, behind the call that its worker runs; its answer is owed.
    Pipelined(LaneIndex),
    /// On a worker; its answer is owed.
    Running(LaneIndex),
    /// On a worker or behind another call in a lane, but nobody waits for its answer any more.
    Orphaned(LaneIndex),
    /// On another shard; its answer is owed.
    Away(u16),
}

/// The lists that a call may be in, and the index of its links.
#[derive(Clone, Copy, Debug)]
pub(super) enum Chain {
    Queue = 0,
    Siblings = 1,
}

/// The ends of a doubly linked list of slots.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct List {
    head: Option<u32>,
    tail: Option<u32>,
    size: u32,
}

#[derive(Clone, Copy, Default, Debug)]
struct Links {
    previous: Option<u32>,
    next: Option<u32>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Free { next: Option<u32> },
    Live(Call),
}

/// All calls of one core.
#[derive(Debug)]
pub(super) struct Calls {
    slots: Vec<Slot>,
    free: Option<u32>,
    live: u32,
    max: u32,
    /// The sum of all costs, in ns.
    work_ns: u64,
}

impl Call {
    pub(super) fn new(
        origin: Origin,
        function: FunctionId,
        deadline: Nanos,
        depth: u16,
        cost_ns: u64,
        timer: Timer,
        now: Nanos,
    ) -> Call {
        Call {
            origin,
            function,
            deadline,
            depth,
            cost_ns,
            nest: 0,
            state: CallState::Queued,
            timer,
            since: now,
            waits_since: now,
            waited_ns: 0,
            service_ns: 0,
            children: List::default(),
            stays: false,
            links: [Links::default(); 2],
        }
    }
}

impl List {
    pub(super) fn size(&self) -> u32 {
        self.size
    }

    pub(super) fn is_empty(&self) -> bool {
        self.size == 0
    }
}

impl Calls {
    /// A table of `max` calls. Its address space is reserved here, its memory taken as it is used.
    pub(super) fn new(max: u32) -> Calls {
        // One slot more than calls, so that a refused call can have an id of its own at any time.
        let slots = Vec::with_capacity(max as usize + 1);
        Calls { slots, free: None, live: 0, max, work_ns: 0 }
    }

    pub(super) fn live(&self) -> u32 {
        self.live
    }

    pub(super) fn is_full(&self) -> bool {
        self.live >= self.max
    }

    /// The id that the next `insert` will give.
    pub(super) fn next_id(&mut self) -> CallId {
        let slot = match self.free {
            Some(slot) => slot,
            None => {
                let slot = u32::try_from(self.slots.len()).expect("the table is bounded by a u32");
                self.slots.push(Slot { generation: 1, content: Content::Free { next: None } });
                self.free = Some(slot);
                slot
            }
        };
        CallId::new(slot, self.slots[slot as usize].generation)
    }

    /// An id for a call that is refused: it was never used before and will never be live.
    pub(super) fn refused_id(&mut self) -> CallId {
        let id = self.next_id();
        let slot = &mut self.slots[id.slot() as usize];
        slot.generation = slot.generation.wrapping_add(1);
        id
    }

    pub(super) fn insert(&mut self, call: Call) -> CallId {
        assert!(!self.is_full(), "admission is checked before");
        let id = self.next_id();
        let slot = &mut self.slots[id.slot() as usize];
        let Content::Free { next } = slot.content else { unreachable!("the free list holds it") };
        self.work_ns += call.cost_ns;
        slot.content = Content::Live(call);
        self.free = next;
        self.live += 1;
        id
    }

    /// Ends a call that is in no list and has no children.
    pub(super) fn remove(&mut self, id: CallId) {
        debug_assert!(self[id].children.is_empty());
        self.set_cost(id, 0);
        let free = self.free;
        let slot = &mut self.slots[id.slot() as usize];
        slot.content = Content::Free { next: free };
        slot.generation = slot.generation.wrapping_add(1);
        self.free = Some(id.slot());
        self.live -= 1;
    }

    /// What all calls are expected to cost, in ns.
    pub(super) fn work_ns(&self) -> u64 {
        self.work_ns
    }

    /// Replaces what a call is expected to cost, in ns.
    pub(super) fn set_cost(&mut self, id: CallId, cost_ns: u64) {
        let before = std::mem::replace(&mut self[id].cost_ns, cost_ns);
        self.work_ns = self.work_ns - before + cost_ns;
    }

    /// Every call that has not ended.
    pub(super) fn all(&self) -> impl Iterator<Item = &Call> {
        self.slots.iter().filter_map(|slot| match &slot.content {
            Content::Live(call) => Some(call),
            Content::Free { .. } => None,
        })
    }

    /// The call, unless it has ended.
    pub(super) fn get(&self, id: CallId) -> Option<&Call> {
        match self.slots.get(id.slot() as usize)? {
            Slot { generation, content: Content::Live(call) } if *generation == id.generation() => {
                Some(call)
            }
            _ => None,
        }
    }

    pub(super) fn push_back(&mut self, list: &mut List, chain: Chain, id: CallId) {
        let slot = id.slot();
        *self.links(slot, chain) = Links { previous: list.tail, next: None };
        match list.tail {
            Some(tail) => self.links(tail, chain).next = Some(slot),
            None => list.head = Some(slot),
        }
        list.tail = Some(slot);
        list.size += 1;
    }

    pub(super) fn push_front(&mut self, list: &mut List, chain: Chain, id: CallId) {
        let slot = id.slot();
        *self.links(slot, chain) = Links { previous: None, next: list.head };
        match list.head {
            Some(head) => self.links(head, chain).previous = Some(slot),
            None => list.tail = Some(slot),
        }
        list.head = Some(slot);
        list.size += 1;
    }

    /// The first call of a list.
    pub(super) fn front(&self, list: &List) -> Option<CallId> {
        list.head.map(|slot| self.id_at(slot))
    }

    /// The last call of a list.
    pub(super) fn back(&self, list: &List) -> Option<CallId> {
        list.tail.map(|slot| self.id_at(slot))
    }

    /// Takes a call out of a list that it is in.
    pub(super) fn unlink(&mut self, list: &mut List, chain: Chain, id: CallId) {
        let Links { previous, next } = std::mem::take(self.links(id.slot(), chain));
        match previous {
            Some(previous) => self.links(previous, chain).next = next,
            None => list.head = next,
        }
        match next {
            Some(next) => self.links(next, chain).previous = previous,
            None => list.tail = previous,
        }
        list.size -= 1;
    }

    pub(super) fn iter(&self, list: &List, chain: Chain) -> impl Iterator<Item = &Call> {
        self.ids(list, chain).map(|id| &self[id])
    }

    pub(super) fn ids(&self, list: &List, chain: Chain) -> impl Iterator<Item = CallId> {
        let mut next = list.head;
        std::iter::from_fn(move || {
            let id = self.id_at(next?);
            next = self[id].links[chain as usize].next;
            Some(id)
        })
    }

    fn id_at(&self, slot: u32) -> CallId {
        CallId::new(slot, self.slots[slot as usize].generation)
    }

    fn links(&mut self, slot: u32, chain: Chain) -> &mut Links {
        match &mut self.slots[slot as usize].content {
            Content::Live(call) => &mut call.links[chain as usize],
            Content::Free { .. } => unreachable!("lists hold live calls only"),
        }
    }
}

/// For ids that the core itself keeps in its own state, which are live by its invariants.
impl std::ops::Index<CallId> for Calls {
    type Output = Call;

    fn index(&self, id: CallId) -> &Call {
        self.get(id).expect("the core keeps ids of live calls only")
    }
}

impl std::ops::IndexMut<CallId> for Calls {
    fn index_mut(&mut self, id: CallId) -> &mut Call {
        match &mut self.slots[id.slot() as usize] {
            Slot { generation, content: Content::Live(call) } if *generation == id.generation() => {
                call
            }
            _ => unreachable!("the core keeps ids of live calls only"),
        }
    }
}
