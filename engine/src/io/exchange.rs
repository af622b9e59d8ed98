//! One shard's end of what calls need that move between shards: parcels, their bells and the board.
//!
//! A parcel lies in the queue of the shard that it is for, which owns it: whatever becomes of a bell,
//! nothing leaks or gets lost. The bell is a ring message, one for all that a shard has sent to another
//! in a turn, and rung again in the next should it fail.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, OnceLock};

use ipc::CallId;
use reactor::{Address, Reactor};

use super::board::Board;
use super::payload::RequestContext;
use super::token::Subject;
use crate::core::{ForeignCall, Leaver, Relief, Reply};

/// The input or the result of a call that moves, copied out of the memory in which it lay.
#[derive(Debug)]
pub(super) struct Bytes {
    /// Envelope, then payload.
    pub(super) bytes: Vec<u8>,
    pub(super) envelope_size: usize,
}

/// What one shard sends another.
#[derive(Debug)]
pub(super) enum Parcel {
    /// A call moves.
    Call { call: ForeignCall, input: Bytes, context: RequestContext },
    /// The answer to a call that moved. The result is empty if the call failed.
    Answer { call: CallId, reply: Reply, result: Bytes },
    /// A call comes back as it was.
    Bounce { call: CallId, input: Bytes },
    /// Nobody waits for a call any more that moved from this shard.
    Recall { shard: u16, call: CallId, leaver: Leaver },
}

/// The rings of all shards, once they stand. No call moves before.
#[derive(Debug, Default)]
pub struct Rings(OnceLock<Box<[Address]>>);

/// See the module's description.
#[derive(Debug)]
pub struct Exchange {
    shard: u16,
    board: Arc<Board>,
    rings: Arc<Rings>,
    inbox: Receiver<Parcel>,
    /// By shard.
    outboxes: Vec<Sender<Parcel>>,
    /// Shards that were sent something since the last flush.
    unrung: Vec<u16>,
    /// What the board says of this shard.
    published_ns: u64,
}

/// Makes the ends of so many shards, and what they are to be told their rings by.
#[must_use]
pub fn exchanges(shards: u16) -> (Vec<Exchange>, Arc<Rings>) {
    let (board, rings) = (Arc::new(Board::new(shards)), Arc::new(Rings::default()));
    let (outboxes, inboxes): (Vec<_>, Vec<_>) = (0..shards).map(|_| mpsc::channel()).unzip();
    let ends = (0..shards).zip(inboxes).map(|(shard, inbox)| Exchange {
        shard,
        board: Arc::clone(&board),
        rings: Arc::clone(&rings),
        inbox,
        outboxes: outboxes.clone(),
        unrung: Vec::new(),
        published_ns: 0,
    });
    (ends.collect(), rings)
}

impl Rings {
    /// Opens the way between the shards, by shard.
    pub fn open(&self, rings: &[Address]) {
        let _ = self.0.set(rings.into());
    }

    fn get(&self, shard: u16) -> Option<Address> {
        self.0.get()?.get(usize::from(shard)).copied()
    }
}

impl Exchange {
    /// Where calls of this shard could go.
    pub(super) fn relief(&self) -> Option<Relief> {
        self.board.least(self.shard).filter(|relief| self.rings.get(relief.shard).is_some())
    }

    /// Tells the others how much work there is here, in ns.
    pub(super) fn publish(&mut self, work_ns: u64) {
        if self.published_ns != work_ns {
            self.published_ns = work_ns;
            self.board.publish(self.shard, work_ns);
        }
    }

    /// From here on calls of other shards are sent back.
    pub(super) fn close(&self) {
        self.board.close(self.shard);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.board.is_closed(self.shard)
    }

    /// Calls that each shard sent away, ever.
    pub(super) fn moved(&self) -> impl Iterator<Item = u64> {
        self.board.moved()
    }

    /// Sends a parcel; the bell is rung by the next flush.
    pub(super) fn send(&mut self, to: u16, parcel: Parcel) {
        if let Parcel::Call { call, .. } = &parcel {
            self.board.leaves(self.shard, to, call.cost_ns);
        }
        // A shard that is gone has taken the process along.
        if self.outboxes[usize::from(to)].send(parcel).is_ok() {
            self.ring(to);
        }
    }

    /// Rings a shard's bell with the next flush.
    pub(super) fn ring(&mut self, shard: u16) {
        if !self.unrung.contains(&shard) {
            self.unrung.push(shard);
        }
    }

    /// Takes the next parcel for this shard.
    pub(super) fn take(&self) -> Option<Parcel> {
        let parcel = self.inbox.try_recv().ok()?;
        if let Parcel::Call { call, .. } = &parcel {
            self.board.arrives(self.shard, call.cost_ns);
        }
        Some(parcel)
    }

    pub(super) fn flush(&mut self, reactor: &mut Reactor) {
        while let Some(shard) = self.unrung.pop() {
            if let Some(ring) = self.rings.get(shard) {
                reactor.message(ring, Subject::Parcels { shard }.token().0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use reactor::{Config, Event, Token, Wait};

    use super::*;

    fn recall(number: u64) -> Parcel {
        Parcel::Recall { shard: 0, call: CallId(number), leaver: Leaver::Caller }
    }

    /// Turns until there is an event.
    fn turn(reactor: &mut Reactor) -> Event {
        let mut events = Vec::new();
        while events.is_empty() {
            reactor.turn(Wait::Forever, &mut events).unwrap();
        }
        assert_eq!(events.len(), 1, "{events:?}");
        events.remove(0)
    }

    #[test]
    fn one_bell_announces_all_parcels_of_a_turn() {
        let mut reactors = [(); 2].map(|()| Reactor::new(&Config::default()).unwrap());
        let (mut ends, rings) = exchanges(2);
        assert_eq!(ends[0].relief(), None, "no shard can be reached yet");
        rings.open(&[reactors[0].address(), reactors[1].address()]);
        assert_eq!(ends[0].relief(), Some(Relief { shard: 1, work_ns: 0 }));
        (0..3).for_each(|number| ends[0].send(1, recall(number)));
        ends[0].flush(&mut reactors[0]);
        reactors[0].turn(Wait::Not, &mut Vec::new()).unwrap();
        let Event::Message { value } = turn(&mut reactors[1]) else { panic!("no message") };
        assert_eq!(Subject::of(Token(value)), Some(Subject::Parcels { shard: 1 }));
        for number in 0..3 {
            let Some(Parcel::Recall { call, .. }) = ends[1].take() else { panic!("no parcel") };
            assert_eq!(call, CallId(number));
        }
        assert!(ends[1].take().is_none());
    }

    #[test]
    fn a_bell_that_fails_names_the_shard_whose_parcel_waits_for_the_next() {
        let [mut sender, receiver] = [(); 2].map(|()| Reactor::new(&Config::default()).unwrap());
        let (mut ends, rings) = exchanges(2);
        rings.open(&[sender.address(), receiver.address()]);
        drop(receiver);
        ends[0].send(1, recall(7));
        ends[0].flush(&mut sender);
        let Event::MessageFailed { value, .. } = turn(&mut sender) else { panic!("it is gone") };
        assert_eq!(Subject::of(Token(value)), Some(Subject::Parcels { shard: 1 }));
        assert!(matches!(ends[1].take(), Some(Parcel::Recall { .. })));
    }
}
