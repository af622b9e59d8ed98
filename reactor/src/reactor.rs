//! The loop: operations are queued as submission entries, one `turn` submits them and waits.
//!
//! Invariants:
//! - An entry is never lost: what the full submission queue does not take waits in `backlog`, and
//!   goes out in the order it was asked for.
//! - `turn` makes one `io_uring_enter`. Only a full submission queue, or `shutdown` behind queued
//!   sends, costs another.
//! - Nothing allocates in a steady state: table, queues and vectors keep their capacity.

use crate::alarm::Alarm;
use crate::buffers::{BufferRing, StableBuffer};
use crate::clock;
use crate::event::{Event, Token, Wait};
use crate::operation::{Operation, Operations, State, Vectored, Work};
use crate::quiet::Quiet;
use crate::setup::{self, BUFFER_GROUP, Config, SetupError};
use io_uring::types::{CancelBuilder, Fd};
use io_uring::{EnterFlags, IoUring, opcode, squeue};
use std::collections::VecDeque;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;
use std::{io, mem, ptr};

/// `user_data` of entries whose completion means nothing: cancel and close.
pub(crate) const IGNORED: u64 = u32::MAX as u64;
/// Low half of the `user_data` of doorbell writes; the high half is the descriptor.
pub(crate) const DOORBELL: u32 = u32::MAX - 1;
/// Result of the completion that `message` posts in the target ring. The kernel's own results are
/// errno values (above -4096) or counts, so this one cannot be mistaken.
pub(crate) const MESSAGE: i32 = i32::MIN;
/// `RWF_NOWAIT`: the write fails rather than waits, and is not handed to a kernel worker.
const NOWAIT: i32 = libc::RWF_NOWAIT;
/// What a doorbell adds to its eventfd: nothing. Any write is an edge for whoever polls, provided
/// that the counter is not zero; and a write of zero always has room, so the kernel has no reason to
/// wait, whatever the other holder does to counter and flags meanwhile (`docs/reactor.md`).
static RING: u64 = 0;
/// Turns, and their length, granted to the kernel at the end of a reactor. Cancelled operations
/// complete within the first; the bound is for a kernel that misbehaves.
const FAREWELL_TURNS: u32 = 100;
const FAREWELL_WAIT: Duration = Duration::from_millis(10);
/// The ring of another shard, as a destination of [`Reactor::message`]. Plain data: it does not
/// keep that ring alive, and a message to one that is gone fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address(RawFd);

/// One io_uring and everything in flight on it. Used by the thread that made it, as the kernel
/// demands of a ring with `SINGLE_ISSUER`:
///
/// ```compile_fail
/// fn send<T: Send>() {}
/// send::<reactor::Reactor>();
/// ```
pub struct Reactor {
    pub(crate) ring: IoUring,
    pub(crate) operations: Operations,
    pub(crate) buffers: Rc<BufferRing>,
    /// Receives in state Starved, oldest first; handles of ended ones are skipped.
    pub(crate) starved: VecDeque<Operation>,
    /// Events that need no completion, for the next turn.
    pub(crate) ready: Vec<Event>,
    /// Entries that did not fit into the submission queue, oldest first.
    backlog: VecDeque<squeue::Entry>,
    /// Token of the last ring of each doorbell, by descriptor. A ring completes while it is
    /// submitted, and in silence unless it fails, so it needs no place in `operations`.
    pub(crate) doorbells: Vec<Token>,
    /// Vectors of ended sends, to be used again. Boxed, for the kernel has their address.
    #[expect(clippy::vec_box, reason = "reused as boxes; unboxing would allocate again")]
    pub(crate) vectored_spare: Vec<Box<Vectored>>,
    pub(crate) alarm: Alarm,
    pub(crate) quiet: Quiet,
    enters: u64,
}

impl Reactor {
    /// Makes a ring for the calling thread, and tries every feature the crate uses.
    ///
    /// # Errors
    /// Names the feature that is missing and the kernel that brings it.
    pub fn new(config: &Config) -> Result<Reactor, SetupError> {
        let (ring, buffers) = setup::create(config)?;
        let mut reactor = Reactor {
            ring,
            operations: Operations::with_capacity(config.entries as usize),
            buffers,
            starved: VecDeque::new(),
            ready: Vec::new(),
            backlog: VecDeque::new(),
            doorbells: Vec::new(),
            alarm: Alarm::default(),
            vectored_spare: Vec::new(),
            quiet: Quiet::default(),
            enters: 0,
        };
        setup::rehearse(&mut reactor)?;
        Ok(reactor)
    }

    /// Where other shards send messages for this one.
    #[must_use]
    pub fn address(&self) -> Address {
        Address(self.ring.as_raw_fd())
    }

    /// Operations that have not ended. Doorbells and closes do not count.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.operations.len()
    }

    /// `io_uring_enter` calls so far; the budget is one a turn.
    #[must_use]
    pub fn enters(&self) -> u64 {
        self.enters
    }

    /// Accepts connections until [`Event::AcceptEnded`].
    pub fn accept(&mut self, listener: BorrowedFd<'_>, token: Token) -> Operation {
        self.start(listener, token, Work::Accept)
    }

    /// Receives until [`Event::ReceiveEnded`]. When all buffers are held, it pauses until one is
    /// dropped.
    pub fn receive(&mut self, socket: BorrowedFd<'_>, token: Token) -> Operation {
        self.start(socket, token, Work::Receive)
    }

    /// Reports each edge of readability until [`Event::PollEnded`]; the descriptor is not read.
    pub fn poll(&mut self, fd: BorrowedFd<'_>, token: Token) -> Operation {
        self.start(fd, token, Work::Poll)
    }

    /// Sends `data[from..]` in one attempt: waits until the socket takes something, then ends with
    /// what it took.
    ///
    /// # Panics
    /// When `from` is past the end.
    pub fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        data: Vec<u8>,
        from: usize,
        token: Token,
    ) -> Operation {
        let operation = self.insert_send(socket, data, from, token);
        self.arm(operation);
        operation
    }

    pub(crate) fn insert_send(
        &mut self,
        socket: BorrowedFd<'_>,
        data: Vec<u8>,
        from: usize,
        token: Token,
    ) -> Operation {
        assert!(from <= data.len(), "send from {from} of {}", data.len());
        self.operations.insert(Some(socket.as_raw_fd()), token, Work::Send { data, from })
    }

    /// Like [`Reactor::send`], for `head` and all ranges of `body` in sequence; `from` counts bytes
    /// of both.
    ///
    /// # Panics
    /// When `from` is past the end.
    pub fn send_with_body(
        &mut self,
        socket: BorrowedFd<'_>,
        head: Vec<u8>,
        body: Box<dyn StableBuffer>,
        from: usize,
        token: Token,
    ) -> Operation {
        let mut vectored = self.vectored_spare.pop().unwrap_or_default();
        vectored.point_to(&head, &*body, from);
        self.start(socket, token, Work::SendWithBody { head, body, vectored })
    }

    /// Rings an eventfd that somebody else holds too, without ever waiting: an edge for whoever
    /// polls it. The eventfd must have been made non-blocking with a count of 1, and is not to be
    /// read: the ring changes no count, and at zero it would wake nobody. Silent unless it fails.
    /// A second ring of one descriptor in the same turn should carry the same token.
    pub fn ring_doorbell(&mut self, eventfd: BorrowedFd<'_>, token: Token) {
        let fd = eventfd.as_raw_fd();
        // A borrowed descriptor is open, so its number is not negative.
        let number = u32::try_from(fd).unwrap_or_default();
        if self.doorbells.len() <= number as usize {
            self.doorbells.resize(number as usize + 1, token);
        }
        self.doorbells[number as usize] = token;
        let entry = opcode::Write::new(Fd(fd), ptr::from_ref(&RING).cast(), 8)
            .rw_flags(NOWAIT)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data((u64::from(number) << 32) | u64::from(DOORBELL));
        self.push(entry);
    }

    /// Sends `value` to another shard, where it arrives as [`Event::Message`].
    pub fn message(&mut self, to: Address, value: u64) {
        let operation = self.operations.insert(None, Token(0), Work::Message { value });
        let entry = opcode::MsgRingData::new(Fd(to.0), MESSAGE, value, None)
            .build()
            .user_data(operation.user_data());
        self.push(entry);
    }

    /// Asks for the end of an operation; its ending event still arrives.
    pub fn cancel(&mut self, operation: Operation) {
        if self.end(operation) {
            let target = CancelBuilder::user_data(operation.user_data());
            self.push(opcode::AsyncCancel2::new(target).build().user_data(IGNORED));
        }
    }

    /// Shuts one or both halves of a connection, behind everything queued before.
    pub fn shutdown(&mut self, socket: BorrowedFd<'_>, how: Shutdown) {
        // Not `IORING_OP_SHUTDOWN`: the kernel always hands that to a worker thread.
        self.refill();
        self.flush();
        let how = match how {
            Shutdown::Read => libc::SHUT_RD,
            Shutdown::Write => libc::SHUT_WR,
            Shutdown::Both => libc::SHUT_RDWR,
        };
        // SAFETY: takes no memory. A failure means that the peer was faster (ENOTCONN).
        let _ = unsafe { libc::shutdown(socket.as_raw_fd(), how) };
    }

    /// Cancels every operation on `fd`, then closes it. The ending events still arrive.
    pub fn close(&mut self, fd: OwnedFd) {
        let fd = fd.into_raw_fd();
        let mut in_kernel = false;
        while let Some(operation) = self.operations.detach(fd) {
            in_kernel |= self.end(operation);
        }
        if in_kernel {
            let target = CancelBuilder::fd(Fd(fd)).all();
            self.push(opcode::AsyncCancel2::new(target).build().user_data(IGNORED));
        }
        let entry = opcode::Close::new(Fd(fd)).build();
        self.push(entry.flags(squeue::Flags::SKIP_SUCCESS).user_data(IGNORED));
    }

    /// Submits everything queued, waits for the first event, and appends all there are to
    /// `events`. May return with none: after a signal, the time given, or internal work.
    ///
    /// # Errors
    /// Only those that mean the ring cannot go on.
    pub fn turn(&mut self, wait: Wait, events: &mut Vec<Event>) -> io::Result<()> {
        self.rearm_starved();
        self.refill();
        let wait = if self.ready.is_empty() && self.backlog.is_empty() { wait } else { Wait::Not };
        let wait = self.wait_of_quiet(wait);
        if let Wait::Until(at) = wait {
            self.wake_at(at);
        }
        let first = events.len();
        events.append(&mut self.ready);
        let entered = self.enter(wait);
        // Completions below have entries queued again, which nothing is known of.
        let settled = self.is_settled();
        // At most one queue's worth: a turn is finite whatever arrives meanwhile.
        for _ in 0..self.ring.params().cq_entries() {
            let Some(completion) = self.ring.completion().next() else { break };
            self.complete(&completion, events);
        }
        if settled {
            self.tell_quiet(first, events);
        }
        entered
    }

    fn start(&mut self, fd: BorrowedFd<'_>, token: Token, work: Work) -> Operation {
        let operation = self.operations.insert(Some(fd.as_raw_fd()), token, work);
        self.arm(operation);
        operation
    }

    /// Queues the entry of an operation that is not the kernel's, for the first time or again.
    pub(crate) fn arm(&mut self, operation: Operation) {
        let Some(fd) = self.operations.fd(operation) else { return };
        let Some(slot) = self.operations.get_mut(operation) else { return };
        slot.state = State::Armed;
        let fd = Fd(fd);
        let entry = match &slot.work {
            Work::Accept => {
                opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK).build()
            }
            Work::Receive => opcode::RecvMulti::new(fd, BUFFER_GROUP).build(),
            // Multishot without the LEVEL flag is edge-triggered.
            Work::Poll => opcode::PollAdd::new(fd, libc::POLLIN as u32).multi(true).build(),
            Work::Send { data, from } => {
                let data = &data[*from..];
                // The kernel takes a u32; the rest is one more short send.
                let size = u32::try_from(data.len()).unwrap_or(u32::MAX);
                opcode::Send::new(fd, data.as_ptr(), size).flags(libc::MSG_NOSIGNAL).build()
            }
            Work::SendWithBody { vectored, .. } => {
                opcode::SendMsg::new(fd, &raw const vectored.header)
                    .flags(libc::MSG_NOSIGNAL as u32)
                    .build()
            }
            Work::Message { .. } => return,
        };
        self.push(entry.user_data(operation.user_data()));
    }

    /// Marks an operation as Ending, so that it is never armed again. True if the kernel holds it
    /// and must be asked; a starved receive ends here.
    fn end(&mut self, operation: Operation) -> bool {
        let Some(slot) = self.operations.get_mut(operation) else { return false };
        match mem::replace(&mut slot.state, State::Ending) {
            State::Armed => true,
            State::Ending => false,
            State::Starved => {
                let token = slot.token;
                let error = Some(io::Error::from_raw_os_error(libc::ECANCELED));
                self.ready.push(Event::ReceiveEnded { token, error });
                self.operations.remove(operation);
                false
            }
        }
    }

    /// Once there are buffers again, arms all starved receives, the longest waiting first. Not
    /// just as many as there are buffers: some have nothing to receive, and would keep theirs from
    /// the others. Those that come too late starve again.
    fn rearm_starved(&mut self) {
        if self.buffers.available() == 0 {
            return;
        }
        while let Some(operation) = self.starved.pop_front() {
            self.arm(operation);
        }
    }

    pub(crate) fn push(&mut self, entry: squeue::Entry) {
        if self.backlog.is_empty() && (self.try_push(&entry) || self.flush_and_push(&entry)) {
            return;
        }
        self.backlog.push_back(entry);
    }

    /// Whether the kernel has taken every entry, and whatever it had to say at once is in the queue.
    fn is_settled(&mut self) -> bool {
        let submission = self.ring.submission();
        self.backlog.is_empty() && submission.is_empty() && !submission.cq_overflow()
    }

    /// Moves the backlog into the submission queue, as far as it goes.
    fn refill(&mut self) {
        while let Some(entry) = self.backlog.pop_front() {
            if !self.try_push(&entry) && !self.flush_and_push(&entry) {
                self.backlog.push_front(entry);
                return;
            }
        }
    }

    fn try_push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: every pointer in an entry is to memory owned by its operation in the table (heap
        // blocks that do not move with it), or to a static, and the table keeps an operation until
        // its final completion.
        unsafe { self.ring.submission().push(entry) }.is_ok()
    }

    fn flush_and_push(&mut self, entry: &squeue::Entry) -> bool {
        self.flush();
        self.try_push(entry)
    }

    /// Submits what is queued without waiting. A failure leaves it queued, and comes back as the
    /// error of the next turn if it lasts.
    fn flush(&mut self) {
        let queued = self.ring.submission().len();
        if queued > 0 {
            let _ = self.call_enter(queued, 0, EnterFlags::empty());
        }
    }

    fn enter(&mut self, wait: Wait) -> io::Result<()> {
        let submission = self.ring.submission();
        let queued = submission.len();
        // With nothing to submit or wait for, deferred work and overflow are the only reasons left.
        let idle = queued == 0 && !submission.taskrun() && !submission.cq_overflow();
        drop(submission);
        let want = match wait {
            Wait::Not if idle => return Ok(()),
            Wait::Not => 0,
            Wait::Forever | Wait::Until(_) => 1,
        };
        // GETEVENTS also without waiting: it runs the deferred work and flushes overflow.
        match self.call_enter(queued, want, EnterFlags::GETEVENTS) {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // A signal; no memory for requests or completions right now: what is queued stays
                // queued.
                Some(libc::EINTR | libc::EAGAIN | libc::EBUSY) => Ok(()),
                _ => Err(error),
            },
        }
    }

    fn call_enter(&mut self, queued: usize, want: u32, flags: EnterFlags) -> io::Result<usize> {
        self.enters += 1;
        // The submission queue holds at most 2^15 entries.
        let queued = u32::try_from(queued).unwrap_or(u32::MAX);
        // SAFETY: without an argument no flag announces one, and the kernel reads nothing of ours.
        unsafe { self.ring.submitter().enter::<libc::sigset_t>(queued, want, flags.bits(), None) }
    }
}

impl Drop for Reactor {
    /// Cancels everything and waits for the kernel to let go; closing a ring alone would not, for
    /// the kernel finishes its requests afterwards. Should it not let go, the memory is leaked.
    fn drop(&mut self) {
        for operation in self.operations.all() {
            self.end(operation);
        }
        let all = CancelBuilder::any();
        self.push(opcode::AsyncCancel2::new(all).build().user_data(IGNORED));
        let mut events = Vec::new();
        for _ in 0..FAREWELL_TURNS {
            let idle = self.operations.len() == 0 && self.backlog.is_empty();
            let wait = if idle { Wait::Not } else { Wait::Until(clock::now() + FAREWELL_WAIT) };
            if self.turn(wait, &mut events).is_err() || idle {
                break;
            }
            events.clear();
        }
        if self.operations.len() > 0 {
            mem::forget(mem::take(&mut self.operations));
            mem::forget(Rc::clone(&self.buffers));
        }
    }
}
