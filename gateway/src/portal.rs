//! Calls that come from another thread and whose answers go back there: how protocols that do not
//! run on the reactor reach the functions of a shard. They go to the same [`Upstream`] as those of
//! the connections here, and so through the same admission.
//!
//! Everything crosses as owned data ([`Mail`]), by whatever mailbox the shard has. One call is
//! answered exactly once, by its [`ReplyTo`]; one that is dropped instead tells its owner that the
//! shard is gone.

use std::collections::HashMap;
use std::fmt;

use ipc::{Times, envelope};
use reactor::Reactor;
use reactor::clock::Nanos;

use crate::answer::{self, Failed, Verdict};
use crate::intake::Failure;
use crate::reject::Reject;
use crate::upstream::{Answer, ForwardedHeaders, NewCall, Upstream};

/// Top byte of the caller's word of every call from here.
const MARK: u64 = 0x50;
const MARK_SHIFT: u32 = 56;

/// Names a call from its thread to its shard. Given once by whoever sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(u64);

/// What is told to a shard. In the order of its sending, or a cancellation would come too early.
#[derive(Debug)]
pub enum Mail {
    /// A request.
    Ask(Box<Question>),
    /// Nobody waits for the answer any more.
    Cancel(Ticket),
    /// Nothing will follow.
    Closed,
}

/// A request that crosses.
pub struct Question {
    /// Names it.
    pub ticket: Ticket,
    /// What it asks for.
    pub subject: Subject,
    /// Takes the answer.
    pub reply: ReplyTo,
}

/// What a request asks a shard for.
pub enum Subject {
    /// Whether it can run calls.
    Readiness,
    /// A call.
    Call {
        /// Names of the function, tried in this order.
        names: Vec<Box<[u8]>>,
        /// As `ipc::envelope` encodes a request.
        envelope: Vec<u8>,
        /// The body, decoded.
        body: Vec<u8>,
        /// The client's, on the monotonic clock.
        deadline: Option<Nanos>,
    },
}

/// Takes an answer to the thread that asked, and the times of a call that ran. Must not block.
pub type ReplyTo = Box<dyn FnOnce(Reply, Option<Times>) + Send>;

/// What became of a request.
#[derive(Debug)]
pub enum Reply {
    /// The function's own answer.
    Told {
        /// 200 to 599.
        status: u16,
        /// Names and values, checked: they cannot break a head.
        fields: Vec<(Vec<u8>, Vec<u8>)>,
        /// The body. Empty where the status knows none.
        body: Vec<u8>,
    },
    /// An error of the contract.
    Failed(Failure),
}

/// One shard's end. Belongs to the shard's thread.
pub struct Portal {
    waiting: HashMap<Ticket, Waiting>,
    phase: Phase,
    /// Calls that were taken, for metrics.
    taken: u64,
    /// Stale in between.
    scratch: Vec<u8>,
}

struct Waiting {
    /// As the upstream names it.
    call: u64,
    reply: ReplyTo,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    Closed,
}

impl Ticket {
    /// The ticket of this number, of which 56 bits count: more than are ever sent.
    #[must_use]
    pub fn new(number: u64) -> Ticket {
        Ticket(number & ((1 << MARK_SHIFT) - 1))
    }

    fn caller(self) -> u64 {
        (MARK << MARK_SHIFT) | self.0
    }
}

impl Portal {
    /// A portal through which something may come. It is open until [`Mail::Closed`].
    #[must_use]
    pub fn open() -> Portal {
        Portal { phase: Phase::Open, ..Portal::closed() }
    }

    /// A portal through which nothing comes.
    #[must_use]
    pub fn closed() -> Portal {
        let waiting = HashMap::new();
        Portal { waiting, phase: Phase::Closed, taken: 0, scratch: Vec::new() }
    }

    /// Whether an answer to this caller is for [`Portal::on_answer`].
    #[must_use]
    pub fn owns(caller: u64) -> bool {
        caller >> MARK_SHIFT == MARK
    }

    /// Whether nobody waits here, and nobody will.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Closed && self.waiting.is_empty()
    }

    /// Calls that wait for an answer.
    #[must_use]
    pub fn calling(&self) -> usize {
        self.waiting.len()
    }

    /// Calls that were taken so far.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Takes what came from the other thread.
    pub fn on_mail(
        &mut self,
        reactor: &mut Reactor,
        now: Nanos,
        upstream: &mut impl Upstream,
        mail: Mail,
    ) {
        match mail {
            Mail::Ask(question) => self.ask(reactor, now, upstream, *question),
            Mail::Cancel(ticket) => {
                if let Some(waiting) = self.waiting.remove(&ticket) {
                    upstream.cancel(reactor, now, waiting.call);
                }
            }
            Mail::Closed => self.phase = Phase::Closed,
        }
    }

    /// Takes the answer to a call of a caller that is [owned](Portal::owns).
    pub fn on_answer(&mut self, caller: u64, answer: Answer) {
        let Some(waiting) = self.waiting.remove(&Ticket::new(caller)) else { return };
        let times = answer.times;
        (waiting.reply)(tell(answer, &mut self.scratch), times);
    }

    fn ask(
        &mut self,
        reactor: &mut Reactor,
        now: Nanos,
        upstream: &mut impl Upstream,
        question: Question,
    ) {
        let Question { ticket, subject, reply } = question;
        let asked = match subject {
            Subject::Readiness => Err(readiness(upstream)),
            Subject::Call { names, envelope, body, deadline } => {
                let time = deadline.map(|deadline| deadline.saturating_since(now));
                let function = names.iter().find_map(|name| upstream.resolve(name));
                match (function, envelope::parse_request(&envelope)) {
                    (None, _) => Err(refused(Reject::no_function(upstream))),
                    (_, Err(_)) => Err(refused(Reject::HeaderTooLarge)),
                    _ if time.is_some_and(|time| time.is_zero()) => {
                        Err(refused(Reject::NoTimeLeft))
                    }
                    (Some(function), Ok(request)) => {
                        let call = NewCall {
                            function,
                            caller: ticket.caller(),
                            timeout: time,
                            request: envelope::RequestFields {
                                method: request.method,
                                suffix: request.suffix,
                                query: request.query,
                                request_id: request.request_id,
                                traceparent: request.traceparent,
                                headers: ForwardedHeaders::of_envelope(request.headers),
                            },
                            body: &body,
                        };
                        let call = upstream.submit(reactor, now, call);
                        call.map_err(|refusal| Reply::Failed(Failed::of(refusal).into()))
                    }
                }
            }
        };
        match asked {
            Ok(call) => {
                self.taken += 1;
                self.waiting.insert(ticket, Waiting { call, reply });
            }
            Err(told) => reply(told, None),
        }
    }
}

fn refused(reject: Reject) -> Reply {
    Reply::Failed(reject.into())
}

fn readiness(upstream: &impl Upstream) -> Reply {
    let mut missing = String::new();
    if upstream.is_draining() {
        missing.push_str("draining");
    } else {
        upstream.write_unready(&mut missing);
    }
    if missing.is_empty() {
        let fields = vec![(b"content-type".to_vec(), b"text/plain; charset=utf-8".to_vec())];
        return Reply::Told { status: 200, fields, body: b"ok\n".to_vec() };
    }
    let failure = Failure { message: missing, ..Failure::from(Reject::NotReady("")) };
    Reply::Failed(failure)
}

/// The one copy of an answer's body: the worker's memory is the shard's to read, and free again
/// behind it.
fn tell(answer: Answer, scratch: &mut Vec<u8>) -> Reply {
    match answer::judge(answer, scratch) {
        Verdict::Told { status, reply, block } => {
            let mut fields = Vec::new();
            answer::for_each_field(status, &reply, |name, value| {
                fields.push((name.to_ascii_lowercase(), value.to_vec()));
            });
            let mut body = Vec::new();
            if let Some(block) = block.filter(|_| !answer::is_bodiless(status)) {
                block.payload().append_to(&mut body);
            }
            Reply::Told { status, fields, body }
        }
        Verdict::Failed(failed) => Reply::Failed(failed.into()),
    }
}

impl From<Failed<'_>> for Failure {
    fn from(failed: Failed<'_>) -> Failure {
        Failure {
            status: failed.status,
            outcome: failed.outcome,
            kind: failed.outcome.as_str(),
            message: failed.message.into_owned(),
            retry_after_s: failed.retry_after_s,
            allow: None,
            challenge: None,
        }
    }
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question").field("ticket", &self.ticket).finish_non_exhaustive()
    }
}
