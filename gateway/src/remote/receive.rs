//! What engines say: which functions they have, how busy those are, and how calls ended. An engine has
//! proved who it is, not that it is sane: everything is checked, and what is wrong ends its link.

use std::collections::HashSet;
use std::time::Duration;

use ipc::engine_side::SharedBlock;
use ipc::{Outcome, Times, envelope};
use protocol::Message;
use protocol::message::{AnswerHead, Function, Load, LoadState, Repeat, Started};
use reactor::Reactor;
use reactor::clock::Nanos;

use super::balance::{self, Condition, Ending, FunctionIndex};
use super::call::{ATTEMPTS_MAX, Sent};
use super::directory::{NAMES_MAX, Standing};
use super::key::{CallKey, LinkKey};
use super::links::{Due, Location, Remote, Tenure};
use super::metrics::Again;
use super::peer::{Breach, Ended, Loss, NUMBERS_MAX, Offer, Stage};
use crate::upstream::Answer;

/// Seats of a shard: a thousand engines of a thousand functions each.
const SEATS_MAX: usize = 1 << 20;
/// How long an engine that refused a call gets none of that function. One that is full has that long to
/// report room, or answer a call, before it is tried without.
const PAUSE: Duration = Duration::from_millis(100);
/// What a call may take at most, whatever its engine announces: no client waits longer.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

/// A message that does not borrow its link any more.
enum Said {
    Functions(Vec<Function>),
    Loads(Vec<Load>),
    Answer { stream: u64, head: AnswerHead, bytes: Vec<u8> },
    Draining,
}

/// A function may answer more on its engine than this gateway passes on.
const ANSWER_TOO_LARGE: &str = "the answer is over the body_max of this gateway";

impl Remote {
    /// Takes what has come on a link.
    pub(super) fn hear(&mut self, reactor: &mut Reactor, now: Nanos, key: LinkKey) {
        // Bounded by the bytes that one event brought.
        loop {
            let Some(peer) = self.peer_mut(key) else { return };
            let said = match peer.link.next_message() {
                Ok(None) => return,
                Ok(Some(Message::Functions(functions))) => Said::Functions(functions),
                Ok(Some(Message::Load(loads))) => Said::Loads(loads),
                Ok(Some(Message::Answer { stream, head, block })) => {
                    Said::Answer { stream, head, bytes: block.into_owned() }
                }
                Ok(Some(Message::Draining)) => Said::Draining,
                // The link lets a gateway hear nothing else.
                Ok(Some(Message::Call { .. } | Message::Cancel { .. })) => continue,
                Err(error) => return self.lose(reactor, now, key, error.into()),
            };
            let taken = match said {
                Said::Functions(functions) => self.announced(now, key, &functions),
                Said::Loads(loads) => self.reported(now, key, &loads),
                Said::Answer { stream, head, bytes } => {
                    self.answered(now, key, stream, &head, bytes)
                }
                Said::Draining => {
                    self.drained(now, key);
                    Ok(())
                }
            };
            if let Err(breach) = taken {
                return self.lose(reactor, now, key, Loss::Breach(breach));
            }
        }
    }

    /// All functions that an engine has.
    fn announced(
        &mut self,
        now: Nanos,
        key: LinkKey,
        functions: &[Function],
    ) -> Result<(), Breach> {
        let mut numbers = HashSet::with_capacity(functions.len());
        let mut names = HashSet::with_capacity(functions.len());
        for function in functions {
            if !numbers.insert(function.number) || !names.insert(function.name.as_str()) {
                return Err(Breach::Renamed(function.number));
            }
        }
        let mut changed = Vec::new();
        let known = self.directory.len();
        for function in functions {
            changed.extend(self.offer(key, function)?);
        }
        if self.directory.len() > known {
            // The board has it with the next tick: a successor waits for what stands there. Only for new
            // names, so that many engines that come at once do not have it written for each.
            self.published = Nanos(0);
        }
        let Some(peer) = self.peer_mut(key) else { return Ok(()) };
        let mut ending = Vec::new();
        for (number, offer) in &mut peer.offers {
            if !numbers.contains(number)
                && let Some(seat) = offer.seat.take()
            {
                ending.push(seat);
                changed.push(offer.function);
            }
        }
        for seat in ending {
            self.balance.set_condition(seat, Condition::Draining);
            if let Some(location) = &mut self.seats[seat.index()] {
                location.tenure = Tenure::Ending;
            }
            self.leave_if_over(seat);
        }
        for function in changed {
            self.settle(now, function, Standing::Withdrawn);
        }
        Ok(())
    }

    /// One function of an engine. Returns it if it was not there before.
    fn offer(&mut self, key: LinkKey, said: &Function) -> Result<Option<FunctionIndex>, Breach> {
        let Some(function) = self.name(&said.name) else { return Ok(None) };
        self.directory.at(function).allow(Duration::from_nanos(said.timeout_ns).min(TIMEOUT_MAX));
        let is_full = self.balance.seats() >= SEATS_MAX;
        let Some(peer) = self.peers.get_mut(key.slot()) else { return Ok(None) };
        let count = peer.offers.len();
        if let Some(offer) = peer.offers.get_mut(&said.number) {
            if offer.function != function {
                return Err(Breach::Renamed(said.number));
            }
            (offer.version, offer.repeat) = (said.version, said.repeat);
            if offer.seat.is_some() {
                return Ok(None);
            }
        } else if count >= NUMBERS_MAX {
            return Err(Breach::Numbers);
        }
        if is_full {
            return Ok(None);
        }
        let seat = self.balance.join(function, said.capacity);
        if peer.stage == Stage::Draining {
            self.balance.set_condition(seat, Condition::Draining);
        }
        let Function { number, version, repeat, .. } = *said;
        let ended = Ended::default();
        let offer = Offer { function, seat: Some(seat), version, repeat, load: None, ended };
        peer.offers.insert(number, offer);
        if self.seats.len() <= seat.index() {
            self.seats.resize(seat.index() + 1, None);
        }
        self.seats[seat.index()] = Some(Location { link: key, number, tenure: Tenure::Offered });
        Ok(Some(function))
    }

    /// The function of that name; `None` where there are too many.
    fn name(&mut self, name: &str) -> Option<FunctionIndex> {
        let found = self.directory.find(name.as_bytes());
        if found.is_some() {
            return found;
        }
        if self.directory.len() >= NAMES_MAX {
            tracing::warn!("{name} is not served: {NAMES_MAX} names of functions are known");
            return None;
        }
        let function = self.balance.add_function();
        self.directory.add(function, name, self.config.queue);
        Some(function)
    }

    /// How busy some functions of an engine are.
    fn reported(&mut self, now: Nanos, key: LinkKey, loads: &[Load]) -> Result<(), Breach> {
        for load in loads {
            let Some(peer) = self.peer_mut(key) else { return Ok(()) };
            let offer = peer.offers.get_mut(&load.number);
            let offer = offer.ok_or(Breach::UnknownFunction(load.number))?;
            // One that it has just lost may still be in a report.
            let Some(seat) = offer.seat else { continue };
            offer.load = Some(*load);
            let function = offer.function;
            let condition = match load.state {
                LoadState::Serving => Condition::Open,
                LoadState::Broken => Condition::Broken,
            };
            let calls = load.queued.saturating_add(load.running).saturating_add(load.waiting);
            let report = balance::Load { calls, room: load.room, condition };
            self.balance.report(seat, &report);
            self.settle(now, function, Standing::Lost { since: now });
        }
        Ok(())
    }

    /// An engine takes no new calls.
    fn drained(&mut self, now: Nanos, key: LinkKey) {
        let Some(peer) = self.peer_mut(key) else { return };
        peer.stage = Stage::Draining;
        tracing::info!("engine {} is draining", peer.identity.node);
        let seats = peer.offers.values().filter_map(|offer| Some((offer.function, offer.seat?)));
        let seats: Vec<_> = seats.collect();
        for (function, seat) in seats {
            self.balance.set_condition(seat, Condition::Draining);
            self.settle(now, function, Standing::Lost { since: now });
        }
    }

    /// The end of a call, as its engine says.
    fn answered(
        &mut self,
        now: Nanos,
        link: LinkKey,
        stream: u64,
        head: &AnswerHead,
        bytes: Vec<u8>,
    ) -> Result<(), Breach> {
        let found = CallKey::parse(stream).and_then(|stream| self.calls.on_stream(link, stream));
        let Some((key, sent)) = found else {
            let Some(peer) = self.peer_mut(link) else { return Ok(()) };
            // It crossed a cancellation on the way, or comes after the caller has lost patience.
            peer.given_up = peer.given_up.checked_sub(1).ok_or(Breach::UnknownStream(stream))?;
            return Ok(());
        };
        let envelope_size = check(head, &bytes)?;
        self.release(now, sent, ending(head, now.saturating_since(sent.at)));
        let Some(function) = self.calls.get_mut(key).map(|call| call.function) else {
            return Ok(());
        };
        if head.started == Started::No && is_elsewhere(head.outcome) {
            self.pause(now, sent, head.outcome);
        }
        if self.may_go_elsewhere(now, key, sent, head) {
            self.metrics.count_again(Again::Refused);
            self.enqueue(key);
        } else {
            self.count(sent, head.outcome);
            let AnswerHead { outcome, retry_after_s, queued_ns, ran_ns, .. } = *head;
            let (queued, ran) = (Duration::from_nanos(queued_ns), Duration::from_nanos(ran_ns));
            let times = Some(Times { queued, ran });
            if outcome == Outcome::Ok && head.payload_size > self.config.payload_max {
                let (outcome, message) = (Outcome::FunctionError, ANSWER_TOO_LARGE);
                let answer = Answer { outcome, message, retry_after_s: None, block: None, times };
                self.finish(key, answer);
                self.settle(now, function, Standing::Lost { since: now });
                return Ok(());
            }
            let block = (!bytes.is_empty() || outcome == Outcome::Ok)
                .then(|| SharedBlock::from_bytes(bytes, envelope_size));
            self.finish(key, Answer { outcome, message: "", retry_after_s, block, times });
        }
        self.settle(now, function, Standing::Lost { since: now });
        Ok(())
    }

    /// An engine has answered a call for good.
    fn count(&mut self, sent: Sent, outcome: Outcome) {
        let Some(Location { link, number, .. }) = self.location(sent.seat) else { return };
        let offer = self.peer_mut(link).and_then(|peer| peer.offers.get_mut(&number));
        match (offer, outcome) {
            (Some(offer), Outcome::Ok) => offer.ended.ok += 1,
            (Some(offer), _) => offer.ended.failed += 1,
            (None, _) => {}
        }
    }

    fn may_go_elsewhere(
        &mut self,
        now: Nanos,
        key: CallKey,
        sent: Sent,
        head: &AnswerHead,
    ) -> bool {
        let Some(call) = self.calls.get_mut(key) else { return false };
        let is_harmless = match head.started {
            Started::No => is_elsewhere(head.outcome),
            Started::Perhaps => {
                let is_hosts = matches!(head.outcome, Outcome::Unavailable | Outcome::HostLost);
                is_hosts && sent.repeat == Repeat::Idempotent
            }
        };
        is_harmless && call.attempts < ATTEMPTS_MAX && now < call.deadline
    }

    /// A seat gets no calls for a moment.
    fn pause(&mut self, now: Nanos, sent: Sent, outcome: Outcome) {
        let Some(Location { link, number, tenure }) = self.location(sent.seat) else { return };
        if tenure == Tenure::Ending || self.balance.condition(sent.seat) != Condition::Open {
            return;
        }
        if matches!(outcome, Outcome::Overloaded | Outcome::NoSpace) {
            self.balance.fill(sent.seat);
        } else {
            self.balance.set_condition(sent.seat, Condition::Paused);
        }
        self.wheel.insert(now + PAUSE, Due::Resume(link, number));
    }

    /// The moment is over.
    pub(super) fn resume(&mut self, now: Nanos, key: LinkKey, number: u32) {
        let Some(offer) = self.peer(key).and_then(|peer| peer.offers.get(&number)) else { return };
        let (function, Some(seat)) = (offer.function, offer.seat) else { return };
        match self.balance.condition(seat) {
            Condition::Open => self.balance.reopen(seat),
            Condition::Paused => self.balance.set_condition(seat, Condition::Open),
            Condition::Broken | Condition::Draining => return,
        }
        self.settle(now, function, Standing::Lost { since: now });
    }
}

/// Whether a refusal is about the engine rather than the call.
fn is_elsewhere(outcome: Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Overloaded
            | Outcome::Unavailable
            | Outcome::NoSpace
            | Outcome::NotFound
            | Outcome::BreakerOpen
            | Outcome::Deadlock
    )
}

/// Only what the function itself did says how long it takes: an engine that fails at once must not look
/// fast.
fn ending(head: &AnswerHead, latency: Duration) -> Ending {
    match (head.started, head.outcome) {
        (Started::Perhaps, Outcome::Ok | Outcome::FunctionError) => Ending::Answered(latency),
        (Started::Perhaps, Outcome::DeadlineExceeded) => Ending::Overdue(latency),
        _ => Ending::Unanswered,
    }
}

/// The size of an answer's envelope, if the answer is one.
fn check(head: &AnswerHead, bytes: &[u8]) -> Result<usize, Breach> {
    if head.outcome == Outcome::Ok && head.started == Started::No {
        return Err(Breach::Contradiction);
    }
    let size = head.envelope_size as usize;
    let envelope = bytes.get(..size).ok_or(Breach::Answer)?;
    if bytes.len() - size != head.payload_size as usize {
        return Err(Breach::Answer);
    }
    envelope::parse_reply(envelope).map_err(|_| Breach::Answer)?;
    Ok(size)
}
