//! The two ends of a lease: a caller's worker calls, a callee's worker serves, the engine only
//! observes.
//!
//! One call is under way at a time. A lease lives for one epoch, which the engine's order names;
//! what was said in an earlier one is dropped. A revoked lease ends so that no call is lost and
//! none is run twice:
//!
//! ```text
//! callee  order revoked? ──▶ serves what its ring holds ──▶ farewell ──▶ takes nothing more
//! caller  order revoked? ──▶ queueing: waits for answer or farewell ─┬─▶ answered
//!                        │                                           └─▶ not begun: to the engine
//!                        └─▶ else ends at once: begun if the callee's head passed the request
//! ```
//!
//! The farewell follows the last answer in one ring, so who hears it has all answers. The callee's
//! head is its own word: if it lies, its own function runs twice or not at all.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ipc::spsc::{Consumer, CursorFault, Producer, PushError};
use ipc::sync::{Ordering, SLOT_WORDS};
use serde::{Deserialize, Serialize};

use super::region::{DEPTH, Direction, LeaseRing, Mapped, Orders, PAYLOAD_MAX};
use super::wake::{Bells, Slept, Waiter, Wake};

/// Why the engine ended a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// Another call waits for the function: the callee finishes what it has begun.
    Queueing,
    /// The call that the lease was bound to is answered.
    ParentEnded,
    /// That call's deadline is over.
    Deadline,
    /// The caller's process is gone.
    CallerDied,
    /// The callee's process is gone.
    CalleeDied,
    /// One side said that the other broke the protocol.
    Fault,
}

const REASONS: [Reason; 6] = [
    Reason::Queueing,
    Reason::ParentEnded,
    Reason::Deadline,
    Reason::CallerDied,
    Reason::CalleeDied,
    Reason::Fault,
];

/// What the engine orders: the epoch in the upper 24 bits, below it 0 or one more than the
/// reason's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Which lease between these two it is, from 1.
    pub epoch: u32,
    /// `None` while it lives.
    pub revoked: Option<Reason>,
}

impl Order {
    /// As stored in [`Orders`].
    #[must_use]
    pub fn encode(self) -> u32 {
        let place = |reason| REASONS.iter().position(|&r| r == reason).map_or(0, |at| at + 1);
        let reason = self.revoked.map_or(0, place);
        (self.epoch << 8) | u32::try_from(reason).unwrap_or(0)
    }

    /// The engine is trusted: a number that it never writes is a revocation.
    #[must_use]
    pub fn decode(word: u32) -> Order {
        let revoked = match word as usize & 0xff {
            0 => None,
            place => Some(REASONS.get(place - 1).copied().unwrap_or(Reason::Fault)),
        };
        Order { epoch: word >> 8, revoked }
    }
}

/// What the peer did that an honest one never does.
#[derive(Debug, thiserror::Error)]
pub enum LeaseFault {
    /// An impossible cursor.
    #[error(transparent)]
    Cursor(#[from] CursorFault),
    /// Words that are no message.
    #[error("the peer's message {0:x?} is none of the protocol's")]
    Message([u64; SLOT_WORDS]),
    /// More bytes than there can be.
    #[error("the peer's message has {0} bytes, {PAYLOAD_MAX} are possible")]
    Size(u64),
    /// An answer to what was not asked, or a request in place of an answer.
    #[error("the peer said {got:?} while call {call} was under way")]
    OutOfTurn {
        /// The call.
        call: u32,
        /// The message.
        got: Message,
    },
    /// It speaks and speaks of leases that are over.
    #[error("the peer sent {0} messages of ended leases")]
    Stale(u32),
    /// It has not listened for `DEPTH` messages.
    #[error("the peer's ring is full")]
    Full,
    /// The system refused to let us wait.
    #[error("waiting for the peer: {0}")]
    System(#[from] io::Error),
}

/// Why a direct call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The lease is over and the callee has not begun: the engine can be asked instead.
    #[error("not begun, the lease is over: {0:?}")]
    NotBegun(Reason),
    /// The lease is over, and the callee may have begun.
    #[error("abandoned: {0:?}")]
    Abandoned(Reason),
    /// The callee broke the protocol.
    #[error(transparent)]
    Fault(#[from] LeaseFault),
}

/// What travels in a lease's rings.
#[expect(missing_docs, reason = "each message says what its fields are")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// To the callee: run it. `size` bytes of input.
    Request { call: u32, size: u32 },
    /// To the caller: `size` bytes of output.
    Answer { call: u32, size: u32 },
    /// To the caller: the callee has left.
    Farewell,
}

/// One side's end of a lease.
#[derive(Debug)]
pub struct End {
    own: Arc<Mapped<Direction>>,
    peer: Arc<Mapped<Direction>>,
    orders: Arc<Mapped<Orders>>,
    to_peer: Producer<LeaseRing>,
    from_peer: Consumer<LeaseRing>,
    waiter: Waiter,
    epoch: u32,
    deadline_ns: u64,
    /// Calls said or heard in all epochs: names them.
    calls: u32,
    /// Messages of earlier epochs heard in this one.
    stale: u32,
}

/// What [`End::wait`] found.
enum Waited {
    /// Something may have changed.
    News,
    /// The deadline is over.
    Out,
}

impl End {
    /// Over memories that nobody has used. Of `bells`, the first is ours and the second the
    /// peer's.
    pub fn new(
        wake: Wake,
        own: Mapped<Direction>,
        peer: Mapped<Direction>,
        orders: Mapped<Orders>,
        bells: Option<Bells>,
    ) -> io::Result<End> {
        let (own, peer, orders) = (Arc::new(own), Arc::new(peer), Arc::new(orders));
        let ring = |speaker: &Arc<_>, hearer: &Arc<_>| LeaseRing {
            speaker: Arc::clone(speaker),
            hearer: Arc::clone(hearer),
        };
        Ok(End {
            to_peer: Producer::new(ring(&own, &peer)),
            from_peer: Consumer::new(ring(&peer, &own)),
            waiter: Waiter::new(wake, Arc::clone(&peer), Arc::clone(&orders), bells)?,
            own,
            peer,
            orders,
            epoch: 0,
            deadline_ns: u64::MAX,
            calls: 0,
            stale: 0,
        })
    }

    /// A lease begins. What the last one left in the ring is dropped when it is met.
    pub fn begin(&mut self, epoch: u32, deadline_ns: u64) {
        (self.epoch, self.deadline_ns, self.stale) = (epoch, deadline_ns, 0);
    }

    /// The caller's: has `input` run and puts the answer into `output`.
    pub fn call(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<(), CallError> {
        if let Some(reason) = self.revoked(self.order()) {
            return Err(CallError::NotBegun(reason));
        }
        self.calls = self.calls.wrapping_add(1);
        let call = self.calls;
        self.own.write(input);
        let size = u32::try_from(input.len()).unwrap_or(u32::MAX);
        self.say(Message::Request { call, size })?;
        loop {
            let (tail, order) = self.glance();
            match self.hear()? {
                Some(Message::Answer { call: got, size }) if got == call => {
                    self.peer.read(size as usize, output);
                    return Ok(());
                }
                Some(Message::Farewell) => {
                    return Err(CallError::NotBegun(
                        self.revoked(self.order()).unwrap_or(Reason::Fault),
                    ));
                }
                Some(got) => return Err(LeaseFault::OutOfTurn { call, got }.into()),
                None => {}
            }
            match self.revoked(order) {
                None | Some(Reason::Queueing) => {}
                Some(reason) if self.is_begun() => return Err(CallError::Abandoned(reason)),
                Some(reason) => return Err(CallError::NotBegun(reason)),
            }
            if matches!(self.wait(tail, order)?, Waited::Out) {
                return Err(CallError::Abandoned(Reason::Deadline));
            }
        }
    }

    /// The callee's: the next call's name, its input in `input`; `None` when the lease is over and
    /// farewell is said.
    pub fn next(&mut self, input: &mut Vec<u8>) -> Result<Option<u32>, LeaseFault> {
        loop {
            let (tail, order) = self.glance();
            match self.hear()? {
                Some(Message::Request { call, size }) => {
                    self.peer.read(size as usize, input);
                    return Ok(Some(call));
                }
                Some(got) => return Err(LeaseFault::OutOfTurn { call: self.calls, got }),
                None => {}
            }
            if self.revoked(order).is_some() {
                self.say(Message::Farewell)?;
                return Ok(None);
            }
            // Past the deadline the engine has revoked, or is about to.
            self.wait(tail, order)?;
        }
    }

    /// The callee's: answers the call that `next` returned, which took `busy`.
    pub fn answer(&mut self, call: u32, output: &[u8], busy: Duration) -> Result<(), LeaseFault> {
        self.own.write(output);
        let total = self.own.busy_ns.load(Ordering::Relaxed);
        let busy = u64::try_from(busy.as_nanos()).unwrap_or(u64::MAX);
        self.own.busy_ns.store(total.wrapping_add(busy), Ordering::Relaxed);
        let size = u32::try_from(output.len()).unwrap_or(u32::MAX);
        self.say(Message::Answer { call, size })
    }

    /// The memory that this side writes: for those who write what they must not.
    #[must_use]
    pub fn own(&self) -> &Direction {
        &self.own
    }

    /// The memory that the other side writes.
    #[must_use]
    pub fn peer(&self) -> &Direction {
        &self.peer
    }

    /// Publishes words that may be no message.
    pub fn say_words(&mut self, words: [u64; SLOT_WORDS]) -> Result<(), LeaseFault> {
        match self.to_peer.push(words) {
            Ok(()) => {}
            Err(PushError::Full) => return Err(LeaseFault::Full),
            Err(PushError::Cursor(fault)) => return Err(fault.into()),
        }
        if self.peer.sleeping.must_ring() {
            self.waiter.wake(&self.own);
        }
        Ok(())
    }

    /// The epoch that messages of now carry.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    fn say(&mut self, message: Message) -> Result<(), LeaseFault> {
        self.say_words(message.encode(self.epoch))
    }

    /// The oldest message of this epoch.
    fn hear(&mut self) -> Result<Option<Message>, LeaseFault> {
        while let Some(words) = self.from_peer.pop()? {
            let (epoch, message) = Message::decode(words)?;
            if epoch == self.epoch {
                return Ok(Some(message));
            }
            self.stale += 1;
            if self.stale > 2 * DEPTH {
                return Err(LeaseFault::Stale(self.stale));
            }
        }
        Ok(None)
    }

    /// What is known before looking for messages: a sleep ends when either has changed.
    fn glance(&self) -> (u32, u32) {
        // SYNC(order): acquire, before the look at the ring: an order that is seen here was given
        // before whatever the ring does not hold now.
        let order = self.orders.word.load(Ordering::Acquire);
        (self.peer.tail.load(Ordering::Relaxed), order)
    }

    fn order(&self) -> u32 {
        self.orders.word.load(Ordering::Acquire)
    }

    /// Why this epoch's lease is over, if it is.
    fn revoked(&self, order: u32) -> Option<Reason> {
        let order = Order::decode(order);
        if order.epoch == self.epoch { order.revoked } else { Some(Reason::ParentEnded) }
    }

    /// Whether the callee says that it has taken the last request.
    fn is_begun(&self) -> bool {
        self.peer.head.load(Ordering::Acquire) == self.own.tail.load(Ordering::Relaxed)
    }

    fn wait(&mut self, tail: u32, order: u32) -> Result<Waited, LeaseFault> {
        if self.waiter.linger(tail, order) {
            return Ok(Waited::News);
        }
        self.own.sleeping.announce();
        let slept = if self.glance() == (tail, order) {
            self.waiter.sleep(tail, order, self.deadline_ns)
        } else {
            Ok(Slept::Woken)
        };
        self.own.sleeping.clear();
        Ok(match slept? {
            Slept::Out if self.glance() == (tail, order) => Waited::Out,
            Slept::Out | Slept::Woken => Waited::News,
        })
    }
}

const REQUEST: u64 = 1;
const ANSWER: u64 = 2;
const FAREWELL: u64 = 3;

impl Message {
    /// Epoch and call, kind and size; the rest is zero.
    #[must_use]
    pub fn encode(self, epoch: u32) -> [u64; SLOT_WORDS] {
        let (kind, call, size) = match self {
            Message::Request { call, size } => (REQUEST, call, size),
            Message::Answer { call, size } => (ANSWER, call, size),
            Message::Farewell => (FAREWELL, 0, 0),
        };
        let name = (u64::from(epoch) << 32) | u64::from(call);
        [name, (kind << 32) | u64::from(size), 0, 0, 0, 0, 0, 0]
    }

    fn decode(words: [u64; SLOT_WORDS]) -> Result<(u32, Message), LeaseFault> {
        let [name, what, rest @ ..] = words;
        let low = |word: u64| u32::try_from(word & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        let (call, size) = (low(name), low(what));
        if size as usize > PAYLOAD_MAX {
            return Err(LeaseFault::Size(size.into()));
        }
        let message = match what >> 32 {
            REQUEST => Message::Request { call, size },
            ANSWER => Message::Answer { call, size },
            FAREWELL if (call, size) == (0, 0) => Message::Farewell,
            _ => return Err(LeaseFault::Message(words)),
        };
        if rest.iter().any(|&word| word != 0) {
            return Err(LeaseFault::Message(words));
        }
        Ok((low(name >> 32), message))
    }
}
