//! The other shards: they have more or less work, take calls, answer or return them, and send their own.

use ipc::{CallId, Outcome};

use super::super::*;
use super::{Known, OUTCOMES, TICK, Thread, World, key};

/// What another shard may have to do, in ns.
const WORKS: [u64; 4] = [0, 0, 50_000, 1_000_000];

impl World {
    /// What other shards have to do changes, and with it where calls could go.
    pub(super) fn look_around(&mut self) {
        self.relief = match self.random.below(4) {
            0 => None,
            _ => Some(Relief {
                shard: u16::try_from(1 + self.random.below(3)).unwrap(),
                work_ns: self.random.pick(&WORKS).unwrap(),
            }),
        };
        self.core.set_relief(self.relief);
    }

    pub(super) fn hear_from_shards(&mut self) {
        match self.random.below(20) {
            0..8 => self.foreign_call(),
            8..13 => self.come_back(),
            13..16 => self.bounce(),
            16..18 => self.recall(),
            _ => self.hear_of_a_call_that_is_gone(),
        }
    }

    fn foreign_call(&mut self) {
        let function = self.any_function();
        let shard = u16::try_from(1 + self.random.below(3)).unwrap();
        // Ids of one shard; no two calls of it have the same.
        let call = CallId(u64::MAX - self.ids.len() as u64);
        let ms = u32::try_from(self.random.below(200)).unwrap();
        let depth = u16::try_from(self.random.below(4)).unwrap();
        let (deadline, cost_ns) = (self.now + TICK * ms, 100_000);
        let above: Box<[FunctionId]> = match self.random.below(3) {
            0 => [self.any_function()].into(),
            _ => Box::default(),
        };
        self.above.insert((shard, call.0), above.clone());
        let foreign = ForeignCall { shard, call, function, deadline, depth, above, cost_ns };
        match self.core.foreign_call(self.now, foreign, &mut self.effects) {
            Some(id) => {
                assert!(self.up[function.index()] && !self.draining && ms > 0);
                self.learn(id, Origin::Shard { shard, call }, function);
                self.perform();
            }
            None => assert_eq!(self.effects, []),
        }
    }

    fn any_call(&mut self, wanted: impl Fn(&Known) -> bool) -> Option<u64> {
        let found: Vec<u64> =
            self.calls.iter().filter(|(_, known)| wanted(known)).map(|(&id, _)| id).collect();
        self.random.pick(&found)
    }

    /// Another shard wants a worker of the function, or has let one go.
    pub(super) fn share_workers(&mut self) {
        let function = self.any_function();
        if self.random.below(2) == 0 {
            let has = u16::try_from(self.random.below(4)).unwrap();
            self.tell(Event::YieldWorker { function, has });
        } else {
            self.paused[function.0 as usize] = None;
            self.tell(Event::WorkerFreed { function });
        }
    }

    /// Another shard answers.
    pub(super) fn come_back(&mut self) {
        let Some(id) = self.any_call(|known| known.away.is_some()) else { return };
        let outcome = self.random.pick(&OUTCOMES).unwrap();
        let reply = match self.random.below(3) {
            0 => Refusal::CONTAINER_DIED.into(),
            _ => Reply::Returned { outcome },
        };
        self.tell(Event::Returned { call: CallId(id), reply });
        assert!(!self.calls.contains_key(&id), "no answer to a call that came back");
    }

    fn bounce(&mut self) {
        let Some(id) = self.any_call(|known| known.away.is_some()) else { return };
        let known = self.calls.get_mut(&id).unwrap();
        (known.away, known.out_of_order, known.stays) = (None, true, true);
        self.tell(Event::Bounced { call: CallId(id) });
    }

    fn recall(&mut self) {
        let is_foreign = |known: &Known| matches!(known.origin, Origin::Shard { .. });
        let Some(id) = self.any_call(|known| is_foreign(known) && known.owed) else { return };
        let known = self.calls[&id];
        let Origin::Shard { shard, call: home } = known.origin else { unreachable!() };
        let leaver = self.random.pick(&[Leaver::Caller, Leaver::Parent]).unwrap();
        self.abandon(id);
        let event = Event::Recalled { shard, call: home, leaver };
        self.core.on_event(self.now, event, &mut self.effects).unwrap();
        let call = CallId(id);
        let expected = match known.worker {
            None => vec![Effect::DropPayload { call }],
            Some(worker) if leaver == Leaver::Caller && self.is_alone(worker, call) => {
                vec![Effect::CancelWorker { worker, call }]
            }
            Some(_) => vec![],
        };
        assert_eq!(self.take_effects(), expected);
        if known.worker.is_none() {
            self.calls.remove(&id);
        }
    }

    /// Whatever crosses the end of a call changes nothing.
    fn hear_of_a_call_that_is_gone(&mut self) {
        let (call, shard) = (CallId(self.random.0), 1);
        let reply = Reply::Returned { outcome: Outcome::Ok };
        let event = match self.random.below(3) {
            0 => Event::Returned { call, reply },
            1 => Event::Bounced { call },
            _ => Event::Recalled { shard, call, leaver: Leaver::Caller },
        };
        self.core.on_event(self.now, event, &mut self.effects).unwrap();
        assert_eq!(self.effects, []);
    }

    /// Whether the worker runs the call, with none behind it.
    pub(super) fn is_alone(&self, worker: WorkerId, call: CallId) -> bool {
        let behind = self.behind.get(&key(worker)).is_none_or(std::collections::VecDeque::is_empty);
        behind && self.threads[&key(worker)] == Thread::On(call)
    }

    /// Checks that the core may send a call away.
    pub(super) fn moved(&mut self, call: CallId, shard: u16, cost_ns: u64) {
        let relief = self.relief.as_mut().expect("moved to nowhere");
        assert_eq!(relief.shard, shard);
        let known = self.calls.get_mut(&call.0).unwrap();
        assert_eq!((known.worker, known.away, known.owed, known.stays), (None, None, true, false));
        assert!(!matches!(known.origin, Origin::Shard { .. }), "a foreign call moved on");
        let spec = &self.specs[known.function.index()];
        assert!(spec.max_workers > 1 && spec.queue_max > 0 && spec.pipeline_max > 0);
        assert!(cost_ns >= 100_000, "a short call moved");
        known.away = Some(shard);
        relief.work_ns += cost_ns;
    }

    pub(super) fn check_shards(&self) {
        let away = self.calls.values().filter(|known| known.away.is_some()).count();
        assert_eq!(self.core.calls_away() as usize, away);
        let is_foreign =
            |known: &&Known| known.owed && matches!(known.origin, Origin::Shard { .. });
        assert_eq!(self.core.calls_foreign(), self.calls.values().filter(is_foreign).count());
        let here = self.calls.iter().filter(|(_, known)| known.away.is_none());
        let costs = here.map(|(&id, _)| self.core.call(CallId(id)).unwrap().cost_ns);
        assert_eq!(self.core.work_ns(), costs.sum::<u64>());
    }
}
