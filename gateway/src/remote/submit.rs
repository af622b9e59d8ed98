//! A call's way to an engine: taken or refused, sent or queued, and its end by time or by its caller.

use std::time::Duration;

use ipc::Outcome;
use ipc::engine_side::SharedBlock;
use protocol::message::CallHead;
use reactor::Reactor;
use reactor::clock::Nanos;

use super::balance::{Ending, FunctionIndex, Outlook, SeatId};
use super::call::{Arrival, Place, Sent};
use super::directory::Standing;
use super::key::CallKey;
use super::links::{Due, Remote, Tenure};
use crate::upstream::{Answer, NewCall, Refusal};

/// How long an engine has beyond a call's deadline to say itself that it has passed: a way there and
/// back, and a turn of a busy shard.
const LATE: Duration = Duration::from_millis(250);
/// How long calls wait for an engine when none is left that has their function: an engine that was
/// restarted or cut off dials again within that time.
pub(super) const ORPHAN_GRACE: Duration = Duration::from_secs(1);
/// Bytes of all calls that are held here: a client must not fill the gateway's memory while engines
/// are slow. A single call is always taken.
const HELD_MAX: usize = 256 << 20;

const UNKNOWN: Refusal = plain(Outcome::NotFound, "no function of that name is deployed");
const UNFIT: Refusal = plain(
    Outcome::BadRequest,
    "the request's headers are too many or too large for an envelope, or hold control characters",
);
const TOO_LARGE: Refusal = plain(Outcome::TooLarge, "the body is larger than engines take");
const MEMORY: Refusal = retry(Outcome::Overloaded, "the gateway holds too many bytes for engines");
const QUEUE_FULL: Refusal =
    retry(Outcome::Overloaded, "every engine is full, and so is the gateway's queue");
const BROKEN: Refusal =
    retry(Outcome::BreakerOpen, "the function's containers keep dying on every engine");
const NOBODY: Refusal = retry(Outcome::Unavailable, "no engine that has the function is there");

const fn plain(outcome: Outcome, message: &'static str) -> Refusal {
    Refusal { outcome, message, retry_after_s: None }
}

const fn retry(outcome: Outcome, message: &'static str) -> Refusal {
    Refusal { outcome, message, retry_after_s: Some(1) }
}

impl Remote {
    /// The number of a function that engines have, or had until they were lost.
    #[must_use]
    pub fn resolve(&self, name: &[u8]) -> Option<u32> {
        let index = self.directory.find(name)?;
        let function = self.directory.get(index)?;
        (function.standing != Standing::Withdrawn).then_some(index.0)
    }

    /// Whether an engine would take a call of that function now.
    #[must_use]
    pub fn has_room(&self, function: u32) -> bool {
        let index = FunctionIndex(function);
        self.directory.get(index).is_some() && self.balance.outlook(index) == Outlook::Room
    }

    /// Takes a call, or refuses it. The id returned names it in [`Remote::cancel`]; its top bit is
    /// clear. The answer comes out of [`Remote::next_answer`].
    ///
    /// # Errors
    /// The call was not taken.
    pub fn submit(
        &mut self,
        _reactor: &mut Reactor,
        now: Nanos,
        call: &NewCall<'_>,
    ) -> Result<u64, Refusal> {
        let taken = self.admit(now, call);
        if let Err(refusal) = &taken {
            self.metrics.count(refusal.outcome);
        }
        taken
    }

    fn admit(&mut self, now: Nanos, call: &NewCall<'_>) -> Result<u64, Refusal> {
        let function = FunctionIndex(call.function);
        let state = self.directory.get(function).ok_or(UNKNOWN)?;
        let outlook = self.balance.outlook(function);
        match (outlook, state.standing) {
            (Outlook::Room, _) => {}
            (Outlook::Broken, _) => return Err(BROKEN),
            (Outlook::Nobody, Standing::Withdrawn) => return Err(UNKNOWN),
            (Outlook::Nobody, Standing::Lost { since }) if now >= since + ORPHAN_GRACE => {
                return Err(NOBODY);
            }
            (Outlook::Full | Outlook::Nobody, _) if state.queue.is_full() => {
                return Err(QUEUE_FULL);
            }
            (Outlook::Full | Outlook::Nobody, _) => {}
        }
        let envelope_size = call.request.encoded_size().map_err(|_| UNFIT)?;
        let payload_size = u32::try_from(call.body.len()).map_err(|_| TOO_LARGE)?;
        if payload_size > self.config.payload_max {
            return Err(TOO_LARGE);
        }
        let size = envelope_size + call.body.len();
        if self.calls.len() > 0 && self.calls.bytes().saturating_add(size) > HELD_MAX {
            return Err(MEMORY);
        }
        let own = state.timeout;
        let deadline = now + call.timeout.map_or(own, |timeout| timeout.min(own));
        let mut bytes = Vec::with_capacity(size);
        call.request.encode(&mut bytes);
        bytes.extend_from_slice(call.body);
        let arrival = Arrival {
            caller: call.caller,
            function,
            deadline,
            block: SharedBlock::from_bytes(bytes, envelope_size).whole(),
            envelope_size: u32::try_from(envelope_size).map_err(|_| UNFIT)?,
            payload_size,
        };
        let wheel = &mut self.wheel;
        let start = |key| wheel.insert(deadline, Due::Call(key));
        let key = self.calls.insert(arrival, start).ok_or(MEMORY)?;
        self.enqueue(key);
        self.pump(now, function);
        Ok(key.word())
    }

    /// Nobody waits for that call any more. An answer that is under way is ignored.
    pub fn cancel(&mut self, _reactor: &mut Reactor, now: Nanos, call: u64) {
        let Some(key) = CallKey::parse(call) else { return };
        let Some(call) = self.calls.remove(key) else { return };
        self.wheel.cancel(call.timer);
        self.metrics.count(Outcome::Cancelled);
        match call.place {
            Place::Waiting => {
                self.directory.at(call.function).queue.remove(call.sequence);
            }
            Place::Sent(sent) => self.give_up(now, sent, Ending::Unanswered),
        }
        self.pump(now, call.function);
    }

    /// A call waits, at its place in time.
    pub(super) fn enqueue(&mut self, key: CallKey) {
        if let Some(call) = self.calls.get_mut(key) {
            call.place = Place::Waiting;
            let (function, sequence) = (call.function, call.sequence);
            self.directory.at(function).queue.put(sequence, key);
        }
    }

    /// Sends what waits, as long as there is room.
    pub(super) fn pump(&mut self, now: Nanos, function: FunctionIndex) {
        // Bounded by the queue: a call that was sent is not in it any more.
        while !self.directory.at(function).queue.is_empty() {
            let Some(seat) = self.balance.choose(function, now) else { return };
            let Some(key) = self.directory.at(function).queue.pop() else { return };
            self.send(now, key, seat);
        }
    }

    fn send(&mut self, now: Nanos, key: CallKey, seat: SeatId) {
        let location = self.location(seat);
        let Some(stream) = self.calls.stream(key) else { return };
        let Some(call) = self.calls.get_mut(key) else { return };
        let place = location.and_then(|location| {
            let peer = self.peers.get_mut(location.link.slot())?;
            Some((location, peer))
        });
        let Some((location, peer)) = place else {
            debug_assert!(false, "the balance knows only seats that are there");
            return;
        };
        let Some(offer) = peer.offers.get(&location.number) else { return };
        let timeout = call.deadline.saturating_since(now);
        let head = CallHead {
            function: location.number,
            timeout_ns: u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX),
            envelope_size: call.envelope_size,
            payload_size: call.payload_size,
        };
        let (link, repeat) = (location.link, offer.repeat);
        call.attempts += 1;
        call.place = Place::Sent(Sent { link, seat, stream, at: now, repeat });
        peer.link.send_call(stream.word(), &head, call.block.clone());
        self.balance.begin(seat);
        self.mark(link);
    }

    /// A call at an engine ends here, before the engine has said so.
    fn give_up(&mut self, now: Nanos, sent: Sent, ending: Ending) {
        if let Some(peer) = self.peer_mut(sent.link) {
            peer.link.cancel(sent.stream.word());
            peer.given_up += 1;
            self.mark(sent.link);
        }
        self.release(now, sent, ending);
    }

    /// A call is not at its engine any more.
    pub(super) fn release(&mut self, now: Nanos, sent: Sent, ending: Ending) {
        self.balance.end(sent.seat, now, ending);
        self.leave_if_over(sent.seat);
    }

    /// A seat that is not offered any more leaves with its last call.
    pub(super) fn leave_if_over(&mut self, seat: SeatId) {
        let tenure = self.location(seat).map(|location| location.tenure);
        if tenure == Some(Tenure::Ending) && self.balance.in_flight(seat) == 0 {
            self.balance.leave(seat);
            self.seats[seat.index()] = None;
        }
    }

    /// A call's caller gets its answer.
    pub(super) fn finish(&mut self, key: CallKey, answer: Answer) {
        let Some(call) = self.calls.remove(key) else { return };
        self.wheel.cancel(call.timer);
        self.metrics.count(answer.outcome);
        self.answers.push_back((call.caller, answer));
    }

    /// A call's time is over.
    pub(super) fn expire(&mut self, now: Nanos, key: CallKey) {
        let wheel = &mut self.wheel;
        let Some(call) = self.calls.get_mut(key) else { return };
        let (function, sequence) = (call.function, call.sequence);
        match call.place {
            Place::Waiting => {
                self.directory.at(function).queue.remove(sequence);
            }
            Place::Sent(_) if now < call.deadline + LATE => {
                call.timer = wheel.insert(call.deadline + LATE, Due::Call(key));
                return;
            }
            // As slow as it looks from here: others are better for the next call.
            Place::Sent(sent) => {
                let waited = now.saturating_since(sent.at);
                self.give_up(now, sent, Ending::Overdue(waited));
            }
        }
        let message = "the call's deadline has passed";
        self.finish(key, failure(Outcome::DeadlineExceeded, message, None));
        self.pump(now, function);
    }

    /// The calls of a function that wait are not going to be sent.
    pub(super) fn fail_waiting(&mut self, function: FunctionIndex, refusal: &Refusal) {
        let Refusal { outcome, message, retry_after_s } = *refusal;
        while let Some(key) = self.directory.at(function).queue.pop() {
            self.finish(key, failure(outcome, message, retry_after_s));
        }
    }

    /// What engines say of a function has changed, or which of them are there: what becomes of it, and of
    /// the calls that wait for it. `loss`: why it may be without engines now.
    pub(super) fn settle(&mut self, now: Nanos, function: FunctionIndex, loss: Standing) {
        match self.balance.outlook(function) {
            Outlook::Room | Outlook::Full => {
                self.directory.at(function).standing = Standing::Served;
                self.pump(now, function);
            }
            Outlook::Broken => {
                self.directory.at(function).standing = Standing::Served;
                self.fail_waiting(function, &BROKEN);
            }
            Outlook::Nobody => {
                let state = self.directory.at(function);
                if state.standing != Standing::Served {
                    // A call may have come back long after the others were failed.
                    return self.orphan(now, function);
                }
                state.standing = loss;
                match loss {
                    Standing::Lost { since } => {
                        self.wheel.insert(since + ORPHAN_GRACE, Due::Orphan(function));
                    }
                    Standing::Served | Standing::Withdrawn => {
                        self.fail_waiting(function, &UNKNOWN);
                    }
                }
            }
        }
    }

    /// A function was lost some time ago.
    pub(super) fn orphan(&mut self, now: Nanos, function: FunctionIndex) {
        if let Standing::Lost { since } = self.directory.at(function).standing
            && now >= since + ORPHAN_GRACE
        {
            self.fail_waiting(function, &NOBODY);
        }
    }
}

/// An answer of this gateway's own.
pub(super) fn failure(
    outcome: Outcome,
    message: &'static str,
    retry_after_s: Option<u32>,
) -> Answer {
    Answer { outcome, message, retry_after_s, block: None, times: None }
}
