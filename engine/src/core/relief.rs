//! Calls that move to another shard: when that pays off, and how they go, end and come back.
//!
//! Workers of one core run in turns, so what a call waits for here is the work of the shard: the sum
//! over the calls that are queued or on workers of what each costs. Where another shard has so much
//! less of it that the way there and back is worth it, the last call of the queue goes there, and so
//! do those before it until it is not. Also where an idle worker could take it at once, on a core that
//! has other work already.
//!
//! At home a call that moved is [`CallState::Away`]: its record, timer and family stay, and it ends as
//! any other. On the other shard it is a call of its own, with [`Origin::Shard`]. That shard answers it
//! or sends it back, and then it stays.

use std::time::Duration;

use ipc::{CallId, Usage};
use reactor::clock::Nanos;

use super::call::{Call, CallState, Chain};
use super::core::{Alarm, Core, Effects};
use super::event::{Effect, FunctionId, Leaver, Origin, Reply};
use super::function::{Container, Function};
use super::spec::FunctionSpec;

/// A call moves only where that is to save it more than this, in ns: a wake-up across cores each way,
/// 30 us or more, and two turns of a loop that may be busy.
const PRICE_NS: u64 = 150_000;
/// A call that costs less stays, in ns: it would take longer to go than to run.
const COST_MIN_NS: u64 = 100_000;
/// Calls that could move but wait here are looked at again after this time: another shard may have come
/// to its end, and says nothing of it.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// So many ends of calls are each worth a look at what they cost.
const ENDED_FEW: u64 = 16;
/// After a call came back, so many that would move stay: the other shard has no worker for them yet.
const STAYS_AFTER_BOUNCE: u16 = 16;

/// Another shard, the one with the least work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Relief {
    /// Which.
    pub shard: u16,
    /// What it has to do, in ns.
    pub work_ns: u64,
}

/// A call that comes from another shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ForeignCall {
    /// Where it comes from.
    pub shard: u16,
    /// Its id there.
    pub call: CallId,
    /// What is called.
    pub function: FunctionId,
    /// The deadline that it has there.
    pub deadline: Nanos,
    /// How many calls are above it.
    pub depth: u16,
    /// Their functions, as far as they wait for it, and not its own.
    pub above: Box<[FunctionId]>,
    /// What it is expected to cost, in ns.
    pub cost_ns: u64,
}

/// What a foreign call is here, and the functions above it there.
#[derive(Debug)]
pub(super) struct Foreign {
    call: CallId,
    above: Box<[FunctionId]>,
}

/// May calls of such a function move at all? Where its workers have cores of their own, another shard
/// is no faster; a single worker would have to move along; and a function that refuses what cannot
/// start at once has nowhere to keep a call that comes back.
pub(super) fn can_move(spec: &FunctionSpec) -> bool {
    spec.cores == 1 && spec.pipeline_max > 0 && spec.max_workers > 1 && spec.queue_max > 0
}

impl Function {
    /// Notes what a call takes of its shard's core: nothing where workers have others. That is looked at
    /// now and then, for it takes divisions: as often as workers tell, and at the beginning.
    pub(super) fn weigh(&mut self, usage: Option<Usage>) {
        if self.spec.cores == 1 && (usage.is_some() || self.ended <= ENDED_FEW) {
            self.work_ns = self.cost_ns();
        }
    }

    /// Is a call of this function worth a move?
    fn is_movable(&self) -> bool {
        self.work_ns >= COST_MIN_NS && self.can_move && self.container != Container::Down
    }
}

impl Call {
    /// It has not moved before, and is not below one of its function that keeps a worker for it here.
    fn may_move(&self) -> bool {
        !self.stays && self.nest == 0
    }
}

impl Core {
    /// Tells where calls could go from here on. The core adds to it what it moves there.
    pub fn set_relief(&mut self, relief: Option<Relief>) {
        self.relief = relief;
    }

    /// Whether the next step of this function may move a call, so that it needs to know where to.
    pub fn may_move(&self, function: FunctionId) -> bool {
        self.functions[function.index()].is_movable() && self.work_ns() > PRICE_NS
    }

    /// What is queued here or on workers of this core, in ns.
    pub fn work_ns(&self) -> u64 {
        self.calls.work_ns()
    }

    /// Calls from other shards whose answers are owed.
    pub fn calls_foreign(&self) -> usize {
        self.foreign.len()
    }

    /// Calls that are on other shards and whose answers are owed here.
    pub fn calls_away(&self) -> u32 {
        self.away
    }

    /// The function of a call that is on another shard.
    pub fn away(&self, call: CallId) -> Option<FunctionId> {
        let call = self.calls.get(call)?;
        matches!(call.state, CallState::Away(_)).then_some(call.function)
    }

    /// What another shard needs to know of a call that moves there.
    pub fn to_foreign(&self, shard: u16, id: CallId, cost_ns: u64) -> Option<ForeignCall> {
        let &Call { origin, function, deadline, depth, .. } = self.calls.get(id)?;
        let mut above = Vec::new();
        let rest = self.climb(origin, |call| above.push(call.function));
        above.extend(rest);
        let above = above.into_boxed_slice();
        Some(ForeignCall { shard, call: id, function, deadline, depth, above, cost_ns })
    }

    /// How many calls of `function` are above. A call whose parent has ended is the top of its tree.
    pub(super) fn nest(&self, origin: Origin, function: FunctionId) -> u16 {
        let mut nest = 0;
        let rest = self.climb(origin, |call| nest += u16::from(call.function == function));
        rest.iter().fold(nest, |nest, above| nest + u16::from(*above == function))
    }

    /// Visits the calls above one that was asked for by `origin`; gives the functions of those above
    /// them that are on another shard.
    pub(super) fn climb(&self, mut origin: Origin, mut visit: impl FnMut(&Call)) -> &[FunctionId] {
        while let Origin::Internal { parent, .. } = origin {
            let Some(parent) = self.calls.get(parent) else { return &[] };
            visit(parent);
            origin = parent.origin;
        }
        let Origin::Shard { shard, call } = origin else { return &[] };
        self.foreign.get(&(shard, call)).map_or(&[], |foreign| &foreign.above)
    }

    /// A call that another shard sends here; it stays here. `None`: it goes back.
    pub fn foreign_call(
        &mut self,
        now: Nanos,
        foreign: ForeignCall,
        effects: &mut Effects,
    ) -> Option<CallId> {
        let ForeignCall { shard, call, function, deadline, depth, above, cost_ns } = foreign;
        self.now = now;
        if deadline <= now || self.is_draining() || self.calls.is_full() {
            return None;
        }
        // A function that is new here may be known to another shard first.
        let f = self.functions.get_mut(function.index())?;
        let hopeless = f.staying() == 0 && f.container != Container::Up;
        if matches!(f.container, Container::Down | Container::Parted) || hopeless {
            return None;
        }
        // First, as that may change whether there is a place for it.
        f.came(now);
        if f.is_full(0) {
            return None;
        }
        let id = self.admit(Origin::Shard { shard, call }, function, deadline, depth, 0);
        self.calls[id].stays = true;
        self.calls.set_cost(id, cost_ns);
        self.foreign.insert((shard, call), Foreign { call: id, above });
        self.advance(function, effects);
        Some(id)
    }

    /// Sends the last calls of a queue away while they would wait longer here.
    #[inline]
    pub(super) fn relieve(&mut self, function: FunctionId, effects: &mut Effects) {
        if self.functions[function.index()].is_movable() {
            self.move_queued(function, effects);
        }
    }

    fn move_queued(&mut self, function: FunctionId, effects: &mut Effects) {
        let Some(Relief { shard, mut work_ns }) = self.relief else { return };
        while let Some(id) = self.calls.back(&self.functions[function.index()].queue) {
            let call = &self.calls[id];
            let bearable = work_ns + PRICE_NS;
            if !call.may_move() || self.ahead_of(call, bearable) <= bearable {
                break;
            }
            let f = &mut self.functions[function.index()];
            if f.stays_owed > 0 {
                f.stays_owed -= 1;
                break;
            }
            let cost_ns = f.work_ns;
            self.calls.unlink(&mut f.queue, Chain::Queue, id);
            self.calls.set_cost(id, 0);
            self.calls[id].state = CallState::Away(shard);
            self.away += 1;
            work_ns += cost_ns;
            effects.push(Effect::Move { call: id, shard, cost_ns });
        }
        self.relief = Some(Relief { shard, work_ns });
    }

    /// Has a queue that could move looked at again. Called whenever calls were dispatched or not.
    #[inline]
    pub(super) fn watch_relief(&mut self, function: FunctionId) {
        let f = &mut self.functions[function.index()];
        let Some(last) = self.calls.back(&f.queue) else { return };
        if self.relief.is_some() && f.is_movable() && !f.looks && self.calls[last].may_move() {
            f.looks = true;
            self.timers.insert(self.now + LOOK_AGAIN, Alarm::LookAround(function));
        }
    }

    /// The time of `watch_relief` is over.
    pub(super) fn look_around(&mut self, function: FunctionId, effects: &mut Effects) {
        self.function(function).looks = false;
        self.advance(function, effects);
    }

    /// The work that the last call of a queue waits for, in ns: all but its own and that of the calls
    /// which wait for it. Those are left in where the whole is bearable.
    fn ahead_of(&self, call: &Call, bearable: u64) -> u64 {
        let mut ahead = self.work_ns() - call.cost_ns;
        let mut above = call;
        while ahead > bearable
            && let Origin::Internal { parent, .. } = above.origin
            // One that nobody waits for any more may outlive whoever asked for it.
            && let Some(parent) = self.calls.get(parent)
        {
            above = parent;
            ahead -= above.cost_ns;
        }
        ahead
    }

    /// The other shard has answered.
    pub(super) fn returned(&mut self, id: CallId, reply: Reply, effects: &mut Effects) {
        if self.away(id).is_some() {
            self.answer(id, reply, effects);
            self.forget_away(id);
        }
    }

    /// The other shard would not have it: it comes first here.
    pub(super) fn bounced(&mut self, id: CallId, effects: &mut Effects) {
        let Some(function) = self.away(id) else { return };
        self.away -= 1;
        let f = &mut self.functions[function.index()];
        f.stays_owed = STAYS_AFTER_BOUNCE;
        let cost_ns = f.work_ns;
        self.calls.push_front(&mut f.queue, Chain::Queue, id);
        self.calls.set_cost(id, cost_ns);
        let call = &mut self.calls[id];
        call.state = CallState::Queued;
        call.stays = true;
        self.refuse_barred(function, effects);
        self.advance(function, effects);
    }

    /// Ends a call that is away; what comes back for it finds nothing.
    pub(super) fn forget_away(&mut self, id: CallId) {
        self.away -= 1;
        self.end(id);
    }

    /// At its home nobody waits for a foreign call any more.
    pub(super) fn recalled(
        &mut self,
        shard: u16,
        call: CallId,
        leaver: Leaver,
        effects: &mut Effects,
    ) {
        let Some(&Foreign { call: id, .. }) = self.foreign.get(&(shard, call)) else { return };
        match leaver {
            Leaver::Caller => self.leave(id, effects),
            Leaver::Parent => self.abandon(id, effects),
        }
    }

    /// Sends the foreign calls of a queue back once there is no worker for them, nor one to come soon.
    pub(super) fn bounce_stranded(&mut self, function: FunctionId, effects: &mut Effects) {
        if self.foreign.is_empty() || self.function(function).staying() > 0 {
            return;
        }
        let mut kept = super::call::List::default();
        let mut queue = std::mem::take(&mut self.function(function).queue);
        while let Some(id) = self.calls.front(&queue) {
            self.calls.unlink(&mut queue, Chain::Queue, id);
            let origin = self.calls[id].origin;
            if let Origin::Shard { .. } = origin {
                self.settle(id);
                self.end(id);
                effects.push(Effect::Bounce { call: id, origin });
            } else {
                self.calls.push_back(&mut kept, Chain::Queue, id);
            }
        }
        self.function(function).queue = kept;
    }
}
