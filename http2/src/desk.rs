//! The way to the shards: which one gets a call, and how its answer comes back.
//!
//! Everything here belongs to the thread of this crate but the reply, which is sent from the
//! shard's.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use gateway::intake::Fault;
use gateway::portal::{Mail, Question, Reply, Subject, Ticket};
use ipc::Times;
use tokio::sync::oneshot;

use crate::ledger::{Client, Hold, Side};

/// Calls that are with the shards at once, cancelled ones included until a shard has seen that: the
/// shards' mailboxes are as long as this at most. A full machine has fewer in flight.
const CALLS_MAX: usize = 8 * 1_024;

/// How the process reaches its shards.
pub trait Shards: Send + Sync {
    /// How many there are; at least one.
    fn count(&self) -> u16;

    /// Sends mail, which arrives in the order of its sending.
    fn post(&self, shard: u16, mail: Mail);
}

/// Sends calls and takes answers.
pub struct Desk {
    shards: Box<dyn Shards>,
    /// Of each shard: calls that are with it.
    in_flight: Vec<Arc<AtomicUsize>>,
    total: Arc<AtomicUsize>,
    tickets: Cell<u64>,
    random: Cell<u64>,
}

/// An answer that is to come. Dropped before it has, its call is cancelled.
pub struct Pending {
    desk: Rc<Desk>,
    shard: u16,
    ticket: Ticket,
    answer: oneshot::Receiver<Answered>,
    settled: bool,
}

/// An answer, and the memory that it may take until it is dropped.
pub struct Answered {
    /// What became of the request.
    pub reply: Reply,
    /// For the body.
    pub hold: Option<Hold>,
    /// Of a call that ran.
    pub times: Option<Times>,
}

/// Counts a call for as long as a shard has it.
struct InFlight(Arc<AtomicUsize>, Arc<AtomicUsize>);

// SYNC(in_flight): counts alone, which publish nothing else.
impl InFlight {
    fn new(shard: &Arc<AtomicUsize>, total: &Arc<AtomicUsize>) -> InFlight {
        shard.fetch_add(1, Ordering::Relaxed);
        total.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(shard), Arc::clone(total))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
        self.1.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Desk {
    /// A desk before these shards.
    #[must_use]
    pub fn new(shards: Box<dyn Shards>, seed: u64) -> Desk {
        let in_flight = (0..shards.count()).map(|_| Arc::default()).collect();
        let (total, tickets) = (Arc::default(), Cell::new(0));
        // Xorshift stands still at zero.
        Desk { shards, in_flight, total, tickets, random: Cell::new(seed | 1) }
    }

    /// Sends a request to a shard. `body` is the memory that the request holds; it is free once the
    /// shard has answered. The answer is held for `client`.
    ///
    /// # Errors
    /// Too many are under way.
    pub fn ask(
        self: &Rc<Self>,
        subject: Subject,
        body: Option<Hold>,
        client: &Arc<Client>,
    ) -> Result<Pending, Fault> {
        if self.total.load(Ordering::Relaxed) >= CALLS_MAX {
            return Err(Fault::Crowded);
        }
        let shard = self.choose();
        let ticket = Ticket::new(self.tickets.get());
        self.tickets.set(self.tickets.get().wrapping_add(1));
        let in_flight = InFlight::new(&self.in_flight[usize::from(shard)], &self.total);
        let (sender, answer) = oneshot::channel();
        let client = Arc::clone(client);
        let reply = Box::new(move |reply, times| {
            let (_counted, _body) = (in_flight, body);
            // Whoever asked may be gone.
            let _ = sender.send(hold(reply, times, &client));
        });
        self.shards.post(shard, Mail::Ask(Box::new(Question { ticket, subject, reply })));
        Ok(Pending { desk: Rc::clone(self), shard, ticket, answer, settled: false })
    }

    /// Tells all shards that nothing will follow.
    pub fn close(&self) {
        for shard in 0..self.shards.count() {
            self.shards.post(shard, Mail::Closed);
        }
    }

    /// Of two shards that chance picks, the one with fewer calls from here.
    fn choose(&self) -> u16 {
        let count = self.shards.count();
        let word = self.next_random();
        let pick = |word: u64| u16::try_from(word % u64::from(count.max(1))).unwrap_or(0);
        let (first, second) = (pick(word & 0xffff_ffff), pick(word >> 32));
        let load = |shard: u16| self.in_flight[usize::from(shard)].load(Ordering::Relaxed);
        if load(second) < load(first) { second } else { first }
    }

    /// Marsaglia's xorshift: which shard is no secret.
    fn next_random(&self) -> u64 {
        let mut word = self.random.get();
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        self.random.set(word);
        word
    }
}

/// On the shard's thread: an answer is sent only if there is room for it.
fn hold(reply: Reply, times: Option<Times>, client: &Arc<Client>) -> Answered {
    let size = match &reply {
        Reply::Told { body, .. } => body.len(),
        Reply::Failed(_) => 0,
    };
    match client.hold(Side::Answer, size) {
        Ok(hold) => Answered { reply, hold: Some(hold), times },
        Err(_) => Answered { reply, hold: None, times },
    }
}

impl Future for Pending {
    type Output = Result<Answered, Fault>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answer).poll(context));
        self.settled = true;
        Poll::Ready(match answer {
            // What found no room is dropped here.
            Ok(Answered { hold: None, .. }) => Err(Fault::Crowded),
            Ok(answered) => Ok(answered),
            Err(_) => Err(Fault::Gone),
        })
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.settled {
            self.desk.shards.post(self.shard, Mail::Cancel(self.ticket));
        }
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("ticket", &self.ticket).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::ledger::Ledger;

    /// Keeps all mail.
    struct Kept(u16, Arc<Mutex<Vec<(u16, Mail)>>>);

    impl Shards for Kept {
        fn count(&self) -> u16 {
            self.0
        }

        fn post(&self, shard: u16, mail: Mail) {
            self.1.lock().unwrap().push((shard, mail));
        }
    }

    type Letters = Arc<Mutex<Vec<(u16, Mail)>>>;

    fn desk(shards: u16) -> (Rc<Desk>, Letters) {
        let kept = Letters::default();
        (Rc::new(Desk::new(Box::new(Kept(shards, Arc::clone(&kept))), 7)), kept)
    }

    fn answer(mail: Mail) {
        let Mail::Ask(question) = mail else { panic!("it is a question") };
        (question.reply)(Reply::Told { status: 200, fields: Vec::new(), body: vec![1; 10] }, None);
    }

    #[test]
    fn an_answer_holds_its_memory_until_it_is_dropped() {
        let (desk, kept) = desk(1);
        let ledger = Ledger::new(100);
        let member = ledger.join();
        let body = member.client().hold(Side::Request, 50).unwrap();
        let pending = desk.ask(Subject::Readiness, Some(body), member.client()).unwrap();
        assert_eq!(ledger.held(), 50);
        answer(kept.lock().unwrap().remove(0).1);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let answered = runtime.block_on(pending).unwrap();
        assert_eq!(ledger.held(), 10);
        drop(answered);
        assert_eq!(ledger.held(), 0);
        assert!(kept.lock().unwrap().is_empty(), "what was answered is not cancelled");
    }

    #[test]
    fn what_nobody_waits_for_is_cancelled_at_its_shard() {
        let (desk, kept) = desk(4);
        let member = Ledger::new(100).join();
        drop(desk.ask(Subject::Readiness, None, member.client()).unwrap());
        let mail = std::mem::take(&mut *kept.lock().unwrap());
        let [(to, Mail::Ask(question)), (also_to, Mail::Cancel(ticket))] = &mail[..] else {
            panic!("{mail:?}");
        };
        assert_eq!((to, &question.ticket), (also_to, ticket));
    }

    #[test]
    fn cancelled_calls_count_until_the_shard_has_seen_it() {
        let (desk, kept) = desk(1);
        let member = Ledger::new(100).join();
        for _ in 0..CALLS_MAX {
            drop(desk.ask(Subject::Readiness, None, member.client()).unwrap());
        }
        let refused = desk.ask(Subject::Readiness, None, member.client()).unwrap_err();
        assert_eq!(refused, Fault::Crowded);
        kept.lock().unwrap().clear();
        assert!(desk.ask(Subject::Readiness, None, member.client()).is_ok());
    }

    #[test]
    fn shards_get_even_parts() {
        let (desk, kept) = desk(4);
        let member = Ledger::new(100).join();
        let pending: Vec<_> = (0..400)
            .map(|_| desk.ask(Subject::Readiness, None, member.client()).unwrap())
            .collect();
        let mut counts = [0; 4];
        kept.lock().unwrap().iter().for_each(|(shard, _)| counts[usize::from(*shard)] += 1);
        assert!(counts.iter().all(|count| (80..=120).contains(count)), "{counts:?}");
        drop(pending);
    }

    #[test]
    fn a_shard_that_is_gone_is_told_apart_from_one_that_answers() {
        let (desk, kept) = desk(1);
        let member = Ledger::new(100).join();
        let pending = desk.ask(Subject::Readiness, None, member.client()).unwrap();
        kept.lock().unwrap().clear();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(runtime.block_on(pending).err(), Some(Fault::Gone));
    }
}
