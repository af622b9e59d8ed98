//! One shard's half of the engine: calls come in from the front end and from lanes, `core` decides,
//! effects are performed, answers go to the front end and to lanes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ipc::engine_side::{DropList, SharedBlock};
use ipc::envelope::RequestFields;
use ipc::{CallId, Geometry, Outcome, Times};
use protocol::message::{Repeat, Started};
use reactor::clock::Nanos;
use reactor::{Event as ReactorEvent, Reactor};

use super::deploy::Stage;
use super::exchange::Exchange;
use super::link::{Link, Placement};
use super::offer::Offers;
use super::payload::{Payload, Payloads, RequestContext};
use super::token::Subject;
use crate::core::{
    Caller, Core, Effect, Effects, Event, FunctionId, FunctionSpec, Limits, Quota, Refusal,
    WorkerId,
};
use crate::mailbox::{Mailbox, Post, ToShard, ToSupervisor};
use crate::stats::Stats;

/// A channel with calls behind others is looked at after this time even if it is silent: several times
/// what a full pipeline of short calls takes.
const PATROL_AFTER: Duration = Duration::from_micros(300);

/// A function as a shard needs to know it.
#[derive(Clone, Debug)]
pub struct Function {
    /// Its name, which callers use.
    pub name: String,
    /// Bounds and timeout for this shard's core.
    pub spec: FunctionSpec,
    /// Shape of its channels.
    pub geometry: Geometry,
    /// Whether its workers are pinned to the shard's core.
    pub pinned: bool,
    /// Limits of its owner, the same object on every shard.
    pub quota: Option<Arc<Quota>>,
    /// Counts the deployments of the name.
    pub version: u32,
    /// Whether a call of it that may have begun may be begun again elsewhere.
    pub repeat: Repeat,
}

/// A call from the front end; everything is borrowed until [`Engine::submit`] returns.
#[derive(Debug)]
pub struct NewCall<'a, H> {
    /// Which function.
    pub function: FunctionId,
    /// Comes back with the answer.
    pub caller: Caller,
    /// Shortens the function's own timeout.
    pub timeout: Option<Duration>,
    /// What the function may know of the request.
    pub request: RequestFields<'a, H>,
    /// The input.
    pub body: &'a [u8],
}

/// The answer to a call of the front end.
#[derive(Debug)]
pub struct Answer {
    /// How the call ended.
    pub outcome: Outcome,
    /// For people, when the runtime itself failed the call.
    pub message: &'static str,
    /// When to try again, in seconds.
    pub retry_after_s: Option<u32>,
    /// Whether a worker may have seen the call.
    pub started: Started,
    /// Reply envelope and payload of a call that completed, straight from the function's memory unless
    /// it ran on another shard. The worker gets its next call once this is dropped.
    pub block: Option<SharedBlock>,
    /// Where its time went.
    pub times: Option<Times>,
}

/// See the module's description.
pub struct Engine {
    pub(super) shard: u16,
    pub(super) core_index: u16,
    pub(super) core: Core,
    pub(super) functions: Vec<FunctionState>,
    pub(super) names: HashMap<Box<[u8]>, FunctionId>,
    pub(super) effects: Effects,
    pub(super) payloads: Payloads,
    pub(super) answers: VecDeque<(Caller, Answer)>,
    /// Tags of results that were let go since the loop last looked.
    pub(super) released: DropList,
    /// Functions whose channel is polled instead of armed.
    pub(super) watched: Vec<FunctionId>,
    /// Armed channels with calls behind others, and when to look at them all the same.
    pub(super) patrol: Vec<FunctionId>,
    pub(super) patrol_at: Option<Nanos>,
    /// Workers to whom something was published since the last flush.
    pub(super) unrung: Vec<WorkerId>,
    pub(super) scratch: Vec<u8>,
    /// Bytes that were copied from one lane to another, or between a lane and our own memory, ever.
    pub(super) copied: u64,
    pub(super) supervisor: Post<ToSupervisor>,
    siblings: Vec<Post<ToShard>>,
    pub(super) mailbox: Mailbox<ToShard>,
    pub(super) exchange: Exchange,
    pub(super) stats: Arc<Stats>,
    /// Functions whose published counters lag behind.
    changed: Vec<FunctionId>,
    /// The last call that was taken off its queue, never to be dispatched.
    pub(super) dropped: Option<CallId>,
    pub(super) offers: Offers,
    pub(super) orders: VecDeque<Order>,
}

/// One function's state on this shard.
pub(super) struct FunctionState {
    pub(super) function: Function,
    pub(super) link: Option<Link>,
    pub(super) links_made: u16,
    /// Whether the function is listed in [`Engine::changed`].
    pub(super) changed: bool,
    /// Whether the function is listed among those whose load may be another now.
    pub(super) stirred: bool,
    /// Whether the supervisor knows that a call waits for a container.
    pub(super) wanted: bool,
    /// Why its last container died, in words for whoever's call was in it.
    pub(super) death: Option<Arc<str>>,
    pub(super) stage: Stage,
}

/// What the embedding loop must do on behalf of the supervisor.
#[derive(Debug)]
pub enum Order {
    /// Stop accepting, finish, report.
    Drain,
    /// End the loop now.
    Stop,
}

/// What an [`Engine`] is made of.
pub struct Parts {
    /// Which shard this is.
    pub shard: u16,
    /// The core that its thread is pinned to.
    pub core: u16,
    /// Bounds of the core.
    pub limits: Limits,
    /// Every function, in the supervisor's order.
    pub functions: Vec<Function>,
    /// Where faults are reported.
    pub supervisor: Post<ToSupervisor>,
    /// The other shards' mailboxes.
    pub siblings: Vec<Post<ToShard>>,
    /// This shard's mailbox.
    pub mailbox: Mailbox<ToShard>,
    /// This shard's end of the way of calls to other shards and back.
    pub exchange: Exchange,
    /// Where counters are published.
    pub stats: Arc<Stats>,
}

impl Engine {
    /// Makes the engine half of a shard and starts to listen to its mailbox.
    #[must_use]
    pub fn new(parts: Parts, reactor: &mut Reactor) -> Self {
        let mut core = Core::new(parts.limits);
        let mut names = HashMap::new();
        let functions = parts.functions.into_iter().map(|function| {
            let id = core.add_function(function.spec);
            core.set_quota(id, function.quota.clone());
            names.insert(function.name.clone().into_bytes().into_boxed_slice(), id);
            FunctionState::new(function, Stage::Serving)
        });
        let functions: Vec<_> = functions.collect();
        let changed = Vec::with_capacity(functions.len());
        reactor.poll(parts.mailbox.bell(), Subject::Mailbox.token());
        Self {
            shard: parts.shard,
            core_index: parts.core,
            core,
            functions,
            names,
            effects: Effects::default(),
            payloads: Payloads::default(),
            answers: VecDeque::new(),
            released: DropList::default(),
            watched: Vec::new(),
            patrol: Vec::new(),
            patrol_at: None,
            unrung: Vec::new(),
            scratch: Vec::new(),
            copied: 0,
            supervisor: parts.supervisor,
            siblings: parts.siblings,
            mailbox: parts.mailbox,
            exchange: parts.exchange,
            stats: parts.stats,
            changed,
            dropped: None,
            offers: Offers::default(),
            orders: VecDeque::new(),
        }
    }

    /// Finds a function by name.
    #[must_use]
    pub fn resolve(&self, name: &[u8]) -> Option<FunctionId> {
        self.names.get(name).copied()
    }

    /// The name of a function.
    #[must_use]
    pub fn name(&self, function: FunctionId) -> Option<&str> {
        self.functions.get(function.index()).map(|state| state.function.name.as_str())
    }

    /// Takes a call. Its answer comes through [`Self::next_answer`], never from inside this function.
    ///
    /// # Errors
    /// When the call is refused: nothing of it is kept.
    pub fn submit<'a, H>(
        &mut self,
        reactor: &mut Reactor,
        now: Nanos,
        call: &NewCall<'a, H>,
    ) -> Result<CallId, Refusal>
    where
        H: Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
    {
        let Ok(envelope_size) = call.request.encoded_size() else {
            return Err(Refusal::UNFIT_REQUEST);
        };
        self.look_around(call.function);
        let deadline = call.timeout.map(|timeout| now + timeout);
        let mut effects = std::mem::take(&mut self.effects);
        let admitted =
            self.core.external_call(now, call.function, call.caller, deadline, &mut effects);
        self.touch(call.function);
        if let Ok(id) = admitted {
            let context = RequestContext::new(call.request.request_id, call.request.traceparent);
            self.payloads.admit(now, id, Payload::None, context);
            let is_this =
                |effect: &Effect| matches!(effect, Effect::Dispatch { call, .. } if *call == id);
            if !effects.iter().any(is_this) {
                self.keep_external(id, call, envelope_size);
            }
            // In order: a lane's calls are published as the core has lined them up.
            for effect in effects.drain(..) {
                match effect {
                    Effect::Dispatch { worker, call: dispatched } if dispatched == id => {
                        self.dispatch_external(reactor, now, worker, id, call, envelope_size);
                    }
                    effect => self.perform_one(reactor, now, effect),
                }
            }
        }
        self.give_back(effects);
        self.perform(reactor, now);
        self.want(call.function);
        admitted
    }

    /// Calls of all functions that are queued, on a worker or on another shard.
    #[must_use]
    pub fn calls_live(&self) -> u32 {
        self.core.calls_live()
    }

    /// The front end no longer wants the answer to `call`.
    pub fn cancel(&mut self, reactor: &mut Reactor, now: Nanos, call: CallId) {
        if let Some(function) = self.core.call(call).map(|call| call.function) {
            self.tell_core(reactor, now, function, Event::CallerGone { call });
        }
    }

    /// The next answer for the front end. Drain them after every call into the engine.
    pub fn next_answer(&mut self) -> Option<(Caller, Answer)> {
        self.answers.pop_front()
    }

    /// Handles an event whose token, or a ring message whose value, [`super::owns`].
    pub fn on_event(&mut self, reactor: &mut Reactor, now: Nanos, event: ReactorEvent) {
        match event {
            ReactorEvent::Polled { token } => match Subject::of(token) {
                Some(Subject::Mailbox) => self.read_mail(reactor, now),
                Some(Subject::Bell { function, link }) => self.bell_rang(function, link),
                Some(Subject::Doorbell { .. } | Subject::Parcels { .. }) | None => {}
            },
            ReactorEvent::Message { .. } => self.read_parcels(reactor, now),
            ReactorEvent::MessageFailed { value, .. } => self.bell_failed(value),
            ReactorEvent::DoorbellFailed { token, error } => {
                if let Some(Subject::Doorbell { function, link }) = Subject::of(token)
                    && self.is_current(function, link)
                {
                    let reason = format!("it keeps its doorbell from being rung: {error}");
                    self.condemn(reactor, now, function, reason);
                }
            }
            ReactorEvent::PollEnded { token, error } => {
                if let Some(Subject::Bell { function, link }) = Subject::of(token)
                    && self.is_current(function, link)
                {
                    self.condemn(
                        reactor,
                        now,
                        function,
                        format!("its bell cannot be polled: {error}"),
                    );
                }
            }
            _ => {}
        }
    }

    /// What the supervisor wants of the loop; drain it after [`Self::on_event`].
    pub fn next_order(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    /// Lets deadlines pass.
    pub fn tick(&mut self, reactor: &mut Reactor, now: Nanos) {
        if self.core.next_timer().is_some_and(|at| at <= now) {
            self.core.set_relief(self.exchange.relief());
            // Whose call it was that waited too long, only the core knows.
            for index in 0..self.functions.len() {
                self.touch(FunctionId::from_index(index));
            }
            let outcome = self.core.on_event(now, Event::Tick, &mut self.effects);
            debug_assert!(outcome.is_ok(), "time breaks no protocol");
            self.perform(reactor, now);
        }
    }

    /// When the loop must turn again even if nothing happens.
    #[must_use]
    pub fn next_timer(&self) -> Option<Nanos> {
        self.core.next_timer().into_iter().chain(self.patrol_at).min()
    }

    /// Reports that this shard has nothing left to answer.
    pub fn report_drained(&self) {
        self.supervisor.send(ToSupervisor::Drained { shard: self.shard });
    }

    /// Rings the doorbells of sleeping workers that were given something, and the bells of shards that
    /// were sent something. Call it before each turn.
    pub fn flush(&mut self, reactor: &mut Reactor) {
        self.exchange.flush(reactor);
        while let Some(worker) = self.unrung.pop() {
            let Some(link) = self.link(worker.function) else { continue };
            let number = link.number;
            let Some((lane, state)) = link.lane(worker.lane) else { continue };
            if std::mem::take(&mut state.must_ring) && lane.must_ring() {
                let subject = Subject::Doorbell { function: worker.function, link: number };
                reactor.ring_doorbell(lane.doorbell(), subject.token());
            }
        }
    }

    /// Arms the bell of every watched channel. Returns whether there is something to read after all: then
    /// poll again instead of sleeping.
    pub fn arm(&mut self, now: Nanos) -> bool {
        self.publish_stats(now);
        self.exchange.publish(self.core.work_ns());
        let mut ready = false;
        for index in (0..self.watched.len()).rev() {
            let function = self.watched[index];
            // A worker with more to do says nothing of what it has completed until all is done, for
            // its calls are short; should one of them not be, the others' answers wait no longer.
            if self.core.pipelined(function) > 0 && !self.patrol.contains(&function) {
                self.patrol.push(function);
                self.patrol_at.get_or_insert(now + PATROL_AFTER);
            }
            let Some(open) = self.link(function).and_then(Link::open) else {
                self.watched.swap_remove(index);
                continue;
            };
            open.channel.arm();
            if open.attention.has_unread() || open.channel.has_ready() {
                open.channel.disarm();
                ready = true;
            } else {
                open.watched = false;
                self.watched.swap_remove(index);
            }
        }
        ready
    }

    pub(super) fn link(&mut self, function: FunctionId) -> Option<&mut Link> {
        self.functions.get_mut(function.index())?.link.as_mut()
    }

    pub(super) fn touch(&mut self, function: FunctionId) {
        if let Some(state) = self.functions.get_mut(function.index())
            && !std::mem::replace(&mut state.changed, true)
        {
            self.changed.push(function);
        }
    }

    fn is_current(&mut self, function: FunctionId, number: u16) -> bool {
        self.link(function).is_some_and(|link| link.number == number)
    }

    fn bell_rang(&mut self, function: FunctionId, number: u16) {
        if !self.is_current(function, number) {
            return;
        }
        self.watch(function);
        if let Some(open) = self.link(function).and_then(Link::open) {
            open.attention.ring();
        }
    }

    /// Polls the channel from here on, until [`Self::arm`] finds it quiet.
    pub(super) fn watch(&mut self, function: FunctionId) {
        let Some(open) = self.link(function).and_then(Link::open) else { return };
        if !std::mem::replace(&mut open.watched, true) {
            open.channel.disarm();
            self.watched.push(function);
        }
    }

    pub(super) fn tell_core(
        &mut self,
        reactor: &mut Reactor,
        now: Nanos,
        function: FunctionId,
        event: Event,
    ) {
        self.touch(function);
        self.look_around(function);
        if let Err(violation) = self.core.on_event(now, event, &mut self.effects) {
            self.condemn(reactor, now, function, violation.to_string());
        }
        self.perform(reactor, now);
    }

    /// Tells the other shards something.
    pub fn tell_siblings(&self, message: impl Fn() -> ToShard) {
        for sibling in &self.siblings {
            sibling.send(message());
        }
    }

    pub(super) fn placement(&self, function: FunctionId) -> Placement {
        let pinned =
            self.functions.get(function.index()).is_some_and(|state| state.function.pinned);
        Placement { shard: self.shard, core: pinned.then_some(self.core_index) }
    }

    fn publish_stats(&mut self, now: Nanos) {
        while let Some(function) = self.changed.pop() {
            self.functions[function.index()].changed = false;
            self.stir(function);
            let snapshot = self.core.snapshot(function);
            self.stats.note_activity(self.shard, function, &snapshot, now);
            self.stats.publish(self.shard, function, &snapshot);
            self.stats.publish_times(self.shard, function, self.core.times(function));
        }
    }
}
