//! The internal calls of one session: a table from the function's handles to the channel's tokens.
//!
//! ```text
//!            start              answer                wait
//!   Vacant ─────────▶ InFlight ────────▶ Answered ─────────▶ Held ───┐
//!     ▲                  │ release           │ token wanted, or      │
//!     │                  ▼                   │ enough held           │ release
//!     │              Abandoned               ▼                       │
//!     │                  │ answer          Copied                    │
//!     └──────────────────┴───────────────────┴───────────────────────┘
//! ```
//!
//! A token is taken from `InFlight` until its release has been told to the engine. There are only
//! as many as the engine lets one lane have, while a function may keep any number of answers: at
//! most `HELD_MAX` of them stay where the engine put them, further ones are copied to the heap.

use ipc::worker_side::{OutboundBuffer, WorkerLane};
use ipc::{Block, CALLS_OUTSTANDING_MAX, Outcome, ToEngine};

use super::Fault;

/// Tokens of a lane: calls that are not answered and released, as the engine counts them.
const TOKENS: u32 = CALLS_OUTSTANDING_MAX;
/// Answers that the function may look at in shared memory; the other tokens stay for new calls.
const HELD_MAX: u32 = TOKENS / 2;
/// Handles that one call of the function may leave unreleased.
const HANDLES_MAX: usize = 65_536;

/// What `nightcore_answer` needs: pointers valid until the handle is released.
pub(crate) struct Delivered {
    pub outcome: Outcome,
    pub envelope: *const [u8],
    pub payload: *const [u8],
}

enum State {
    Vacant,
    /// The engine has the input.
    InFlight {
        token: u32,
        input: OutboundBuffer,
    },
    /// The same, and the function has let go.
    Abandoned {
        token: u32,
        input: OutboundBuffer,
    },
    /// In shared memory, and nobody has pointers there.
    Answered {
        token: u32,
        outcome: Outcome,
        block: Block,
    },
    /// In shared memory, and the function has pointers there.
    Held {
        token: u32,
        outcome: Outcome,
        block: Block,
    },
    /// Envelope and payload on the heap. The `Vec` is never touched, so pointers into it hold.
    Copied {
        outcome: Outcome,
        envelope_size: usize,
        bytes: Vec<u8>,
    },
}

struct Entry {
    /// Makes a handle stale once its entry is vacant.
    generation: u32,
    state: State,
}

/// The table. Vectors keep their capacity, so calls allocate nothing once the table has grown.
pub(crate) struct Calls {
    entries: Vec<Entry>,
    vacant: Vec<u32>,
    /// Entry of each token that is in flight or whose answer is in shared memory.
    by_token: [u32; TOKENS as usize],
    tokens: Vec<u32>,
    /// A token that is free but not yet said to be: travels with the next message.
    released: Option<u32>,
    in_flight: u32,
    held: u32,
}

impl Calls {
    pub(crate) fn new() -> Calls {
        Calls {
            entries: Vec::new(),
            vacant: Vec::new(),
            by_token: [u32::MAX; TOKENS as usize],
            tokens: (0..TOKENS).rev().collect(),
            released: None,
            in_flight: 0,
            held: 0,
        }
    }

    /// Calls that the engine has not answered.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Whether there is a handle left for another call.
    pub(crate) fn has_handle(&self) -> bool {
        !self.vacant.is_empty() || self.entries.len() < HANDLES_MAX
    }

    /// A token for a new call; `None` if an answer must come first.
    pub(crate) fn take_token(&mut self, lane: &mut WorkerLane) -> Result<Option<u32>, Fault> {
        if self.tokens.is_empty() && self.released.is_none() {
            let answered = |entry: &Entry| matches!(entry.state, State::Answered { .. });
            if let Some(slot) = self.entries.iter().position(answered) {
                self.copy_out(lane, slot)?;
            }
        }
        if self.tokens.is_empty() {
            self.tell_released(lane)?;
        }
        Ok(self.tokens.pop())
    }

    /// Gives an unused token back.
    pub(crate) fn return_token(&mut self, token: u32) {
        self.tokens.push(token);
    }

    /// Enters a call that is about to be published. Returns its handle.
    pub(crate) fn start(&mut self, token: u32, input: OutboundBuffer) -> u64 {
        let slot = self.vacant.pop().unwrap_or_else(|| {
            self.entries.push(Entry { generation: 0, state: State::Vacant });
            to_u32(self.entries.len() - 1)
        });
        self.by_token[token as usize] = slot;
        self.in_flight += 1;
        let entry = &mut self.entries[slot as usize];
        entry.state = State::InFlight { token, input };
        (u64::from(entry.generation) << 32) | u64::from(slot)
    }

    /// The token to be released by the message about to be published.
    pub(crate) fn take_released(&mut self) -> Option<u32> {
        let released = self.released.take();
        self.tokens.extend(released);
        released
    }

    /// The engine answered.
    pub(crate) fn on_answer(
        &mut self,
        lane: &mut WorkerLane,
        token: u32,
        outcome: Outcome,
        block: Block,
    ) -> Result<(), Fault> {
        let slot = self.by_token.get(token as usize).map_or(u32::MAX, |slot| *slot);
        let Some(entry) = self.entries.get_mut(slot as usize) else {
            return Err(Fault::UnknownToken(token));
        };
        match std::mem::replace(&mut entry.state, State::Vacant) {
            State::InFlight { input, .. } => {
                entry.state = State::Answered { token, outcome, block };
                lane.free(input);
            }
            State::Abandoned { input, .. } => {
                lane.free(input);
                self.vacate(slot);
                self.release_token(lane, token)?;
            }
            _ => return Err(Fault::UnknownToken(token)),
        }
        self.in_flight -= 1;
        Ok(())
    }

    /// Whether the handle's call is in flight; `None` if there is no such handle.
    pub(crate) fn is_in_flight(&self, handle: u64) -> Option<bool> {
        let slot = self.slot(handle)?;
        Some(matches!(self.entries[slot].state, State::InFlight { .. }))
    }

    /// The answer of a call that is not in flight any more; `None` if there is none.
    pub(crate) fn deliver(
        &mut self,
        lane: &mut WorkerLane,
        handle: u64,
    ) -> Result<Option<Delivered>, Fault> {
        let Some(slot) = self.slot(handle) else { return Ok(None) };
        if let State::Answered { token, outcome, block } = self.entries[slot].state {
            if self.held < HELD_MAX {
                self.held += 1;
                self.entries[slot].state = State::Held { token, outcome, block };
            } else {
                self.copy_out(lane, slot)?;
            }
        }
        Ok(match &self.entries[slot].state {
            State::Held { outcome, block, .. } => {
                let (envelope, payload) = lane.inbound(block)?;
                Some(Delivered { outcome: *outcome, envelope, payload })
            }
            State::Copied { outcome, envelope_size, bytes } => {
                let (envelope, payload) = bytes.split_at(*envelope_size);
                Some(Delivered { outcome: *outcome, envelope, payload })
            }
            _ => None,
        })
    }

    /// The function is done with the handle; unknown ones are none of ours.
    pub(crate) fn release(&mut self, lane: &mut WorkerLane, handle: u64) -> Result<(), Fault> {
        match self.slot(handle) {
            Some(slot) => self.release_slot(lane, slot),
            None => Ok(()),
        }
    }

    /// The function has returned: every handle it left is released.
    pub(crate) fn release_all(&mut self, lane: &mut WorkerLane) -> Result<(), Fault> {
        if self.vacant.len() == self.entries.len() {
            return Ok(());
        }
        (0..self.entries.len()).try_for_each(|slot| self.release_slot(lane, slot))
    }

    fn release_slot(&mut self, lane: &mut WorkerLane, slot: usize) -> Result<(), Fault> {
        let entry = &mut self.entries[slot];
        let token = match std::mem::replace(&mut entry.state, State::Vacant) {
            State::Vacant => return Ok(()),
            State::InFlight { token, input } | State::Abandoned { token, input } => {
                entry.state = State::Abandoned { token, input };
                return Ok(());
            }
            State::Copied { .. } => None,
            State::Answered { token, .. } => Some(token),
            State::Held { token, .. } => {
                self.held -= 1;
                Some(token)
            }
        };
        self.vacate(to_u32(slot));
        token.map_or(Ok(()), |token| self.release_token(lane, token))
    }

    /// Moves an answer that nobody has pointers to out of shared memory.
    fn copy_out(&mut self, lane: &mut WorkerLane, slot: usize) -> Result<(), Fault> {
        let State::Answered { token, outcome, block } = self.entries[slot].state else {
            return Ok(());
        };
        let (envelope, payload) = lane.inbound(&block)?;
        let bytes = [envelope, payload].concat();
        let envelope_size = envelope.len();
        self.entries[slot].state = State::Copied { outcome, envelope_size, bytes };
        self.release_token(lane, token)
    }

    /// Has the engine told with the next message, or at once if one is already to be told.
    fn release_token(&mut self, lane: &mut WorkerLane, token: u32) -> Result<(), Fault> {
        self.by_token[token as usize] = u32::MAX;
        self.tell_released(lane)?;
        self.released = Some(token);
        Ok(())
    }

    fn tell_released(&mut self, lane: &mut WorkerLane) -> Result<(), Fault> {
        if let Some(token) = self.take_released() {
            lane.publish(&ToEngine::Release { token })?;
        }
        Ok(())
    }

    fn vacate(&mut self, slot: u32) {
        let entry = &mut self.entries[slot as usize];
        entry.state = State::Vacant;
        entry.generation = entry.generation.wrapping_add(1);
        self.vacant.push(slot);
    }

    /// The entry that the handle names; one that the function has released is none.
    fn slot(&self, handle: u64) -> Option<usize> {
        let slot = usize::try_from(handle & u64::from(u32::MAX)).ok()?;
        let entry = self.entries.get(slot)?;
        let is_current = u64::from(entry.generation) == handle >> 32;
        let is_open = !matches!(entry.state, State::Vacant | State::Abandoned { .. });
        (is_current && is_open).then_some(slot)
    }
}

fn to_u32(slot: usize) -> u32 {
    u32::try_from(slot).expect("HANDLES_MAX bounds the table")
}
