//! The state behind a call's context: what came in, what the function asks of the runtime, what
//! goes out. One session per worker, which it outlives no call of.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::time::Duration;

use ipc::copy::copy_slice;
use ipc::envelope::{Request, call_size, encode_call, parse_request};
use ipc::mark::write_marked;
use ipc::worker_side::WorkerLane;
use ipc::{Block, CallId, Outcome, ToEngine, ToWorker};
use nix::time::{ClockId, clock_gettime};

use super::Fault;
use super::calls::{Calls, Delivered};
use super::library::Function;
use super::meter::Meter;
use super::outgoing::Outgoing;

/// What was published without ringing is rung for once this time has passed, in ns: some wake-ups.
const RING_AFTER: u64 = 50_000;
/// Memory that is kept for the next line that is logged, in bytes.
const LOG_KEPT: usize = 4 << 10;

/// A worker's lane and the call that runs in it.
pub(crate) struct Session<'f> {
    pub function: &'f Function,
    pub outgoing: Outgoing,
    /// Answers that interface v1 promised until the function returns, and how many are in use.
    pub kept: Vec<Vec<u8>>,
    pub kept_count: usize,
    lane: WorkerLane,
    calls: Calls,
    running: Option<Running>,
    /// Calls that came while one ran, and are not begun.
    pipelined: VecDeque<Dispatched>,
    /// Whether something is published for which the engine was not rung.
    is_unrung: bool,
    /// Since when a completion is.
    held_ns: Option<u64>,
    /// When the last call ended, if the next follows at once.
    ended_ns: Option<u64>,
    meter: Meter,
    payload_max: usize,
    retiring: bool,
    scratch: Vec<u8>,
}

/// The call that the worker runs.
pub(crate) struct Running {
    call: CallId,
    pub depth: u16,
    deadline_ns: u64,
    began_ns: u64,
    is_cancelled: bool,
    /// 'static stands for "until this is dropped": the block is the worker's until `complete`.
    pub request: Request<'static>,
    input: &'static [u8],
}

/// A `Dispatch`.
struct Dispatched {
    call: CallId,
    depth: u16,
    deadline_ns: u64,
    block: Block,
}

/// When the engine is to know of a call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Departure {
    /// At once.
    Now,
    /// With the next call that leaves at once, or when the function waits or returns.
    WithNext,
}

/// Why a call could not be started, as the interface says it.
pub(crate) enum StartError {
    Invalid,
    Failed(Outcome),
}

/// Whether to sleep until there is a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Patience {
    Wait,
    LookOnly,
}

impl<'f> Session<'f> {
    pub(crate) fn new(lane: WorkerLane, payload_max: usize, function: &'f Function) -> Session<'f> {
        Session {
            function,
            outgoing: Outgoing::new(payload_max),
            kept: Vec::new(),
            kept_count: 0,
            lane,
            calls: Calls::new(),
            running: None,
            pipelined: VecDeque::new(),
            is_unrung: false,
            held_ns: None,
            ended_ns: None,
            meter: Meter::new(),
            payload_max,
            retiring: false,
            scratch: Vec::new(),
        }
    }

    /// Says that the worker is ready.
    pub(crate) fn started(&mut self) {
        self.say(&ToEngine::Started);
    }

    /// Says that the worker has ended. Nothing may be said after it.
    pub(crate) fn retired(&mut self) {
        self.say(&ToEngine::Retired);
    }

    /// Waits for the next call and returns its input, valid until `complete`; `None`: retire.
    pub(crate) fn next(&mut self) -> Option<*const [u8]> {
        if let Some(dispatched) = self.pipelined.pop_front() {
            return Some(self.begin(&dispatched));
        }
        while !self.retiring {
            match self.take() {
                Some(ToWorker::Dispatch { call, depth, deadline_ns, results_read, block }) => {
                    self.on_results_read(results_read);
                    return Some(self.begin(&Dispatched { call, depth, deadline_ns, block }));
                }
                Some(ToWorker::Retire) => self.retiring = true,
                // Of a call that was completed meanwhile.
                Some(ToWorker::Cancel { .. }) => {}
                Some(ToWorker::Answer { token, .. }) => self.abort(&Fault::UnknownToken(token)),
                None => self.wait(),
            }
        }
        self.outgoing.on_all_read(&mut self.lane);
        None
    }

    /// The function returned: waits for calls it left in flight, whose inputs the engine may still
    /// read, and sends the answer.
    pub(crate) fn complete(&mut self, code: i32) {
        let released = self.calls.release_all(&mut self.lane);
        self.trusted(released);
        while self.calls.in_flight() > 0 {
            self.receive(Patience::Wait);
        }
        let finished = self.outgoing.finish(&mut self.lane, code);
        let (outcome, block) = self.trusted(finished);
        self.kept_count = 0;
        if let Some(running) = self.running.take() {
            let released = self.calls.take_released();
            let now_ns = now_ns();
            let ran_ns = now_ns - running.began_ns;
            let usage = self.meter.on_call(ran_ns);
            let ran_ns = u32::try_from(ran_ns).unwrap_or(u32::MAX);
            let call = running.call;
            self.publish(&ToEngine::Complete { call, outcome, released, ran_ns, usage, block });
            self.ring_unless_next(now_ns);
        }
    }

    /// With more to do in the lane the engine learns of several completions at once: to be rung for
    /// each would cost more than a short call. It looks by itself should one of them take long.
    fn ring_unless_next(&mut self, now_ns: u64) {
        let has_next = self.lane.has_next();
        let has_next = !self.pipelined.is_empty() || self.trusted(has_next);
        self.ended_ns = has_next.then_some(now_ns);
        let since = *self.held_ns.get_or_insert(now_ns);
        if !has_next || now_ns - since >= RING_AFTER {
            self.ring();
        }
    }

    /// The call that runs; the interface reaches a session only while there is one.
    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().expect("a context is used by the function it was given to")
    }

    /// Appends to the answer.
    pub(crate) fn append(&mut self, data: &[u8]) -> Result<(), Outcome> {
        let place = self.outgoing.reserve(&mut self.lane, data.len())?;
        copy_slice(data, place);
        Ok(())
    }

    /// Appends bytes that the function will write through the pointer.
    pub(crate) fn reserve(&mut self, count: usize) -> Result<*mut u8, Outcome> {
        Ok(self.outgoing.reserve(&mut self.lane, count)?.as_mut_ptr())
    }

    /// Writes lines to standard error that tell their request: in one piece as far as a pipe can.
    pub(crate) fn log(&mut self, text: &[u8]) {
        let mut lines = std::mem::take(&mut self.scratch);
        lines.clear();
        write_marked(self.running().request.request_id, text, &mut lines);
        // Who reads it has gone, or nobody ever did: no reason to fail the call.
        let _ = io::stderr().write_all(&lines);
        lines.shrink_to(LOG_KEPT);
        self.scratch = lines;
    }

    /// Until the deadline.
    pub(crate) fn time_remaining(&self) -> Duration {
        Duration::from_nanos(self.running().deadline_ns.saturating_sub(now_ns()))
    }

    /// Whether nobody wants the answer: the engine said so in what has arrived until now, or the
    /// deadline, at which the engine has answered in our place, is over.
    pub(crate) fn is_cancelled(&mut self) -> bool {
        self.receive(Patience::LookOnly);
        let running = self.running();
        running.is_cancelled || now_ns() >= running.deadline_ns
    }

    /// Starts an internal call and returns its handle.
    pub(crate) fn start(
        &mut self,
        function: &[u8],
        input: &[u8],
        departure: Departure,
    ) -> Result<u64, StartError> {
        let envelope_size = call_size(function).map_err(|_| StartError::Invalid)?;
        if function.len() > usize::from(u8::MAX) {
            return Err(StartError::Invalid);
        }
        if input.len() > self.payload_max {
            return Err(StartError::Failed(Outcome::TooLarge));
        }
        if !self.calls.has_handle() {
            return Err(StartError::Failed(Outcome::Overloaded));
        }
        let token = self.token();
        let buffer = loop {
            match self.lane.allocate(envelope_size + input.len()) {
                Ok(buffer) => break buffer,
                // Each answer frees an input.
                Err(_) if self.calls.in_flight() > 0 => self.receive(Patience::Wait),
                Err(_) => {
                    self.calls.return_token(token);
                    return Err(StartError::Failed(Outcome::NoSpace));
                }
            }
        };
        self.scratch.clear();
        encode_call(function, &mut self.scratch);
        let (before, behind) = self.lane.outbound_mut(&buffer).split_at_mut(envelope_size);
        before.copy_from_slice(&self.scratch);
        copy_slice(input, behind);
        let block = self.lane.block(&buffer, envelope_size, input.len());
        let handle = self.calls.start(token, buffer);
        let released = self.calls.take_released();
        // The engine lowers the deadline to this call's own.
        self.publish(&ToEngine::Call { token, deadline_ns: u64::MAX, released, block });
        if departure == Departure::Now {
            self.ring();
        }
        Ok(handle)
    }

    /// Waits for the answer of a call; `None` if there is no such handle.
    pub(crate) fn wait_for(&mut self, handle: u64) -> Option<Delivered> {
        while self.calls.is_in_flight(handle)? {
            self.receive(Patience::Wait);
        }
        let delivered = self.calls.deliver(&mut self.lane, handle);
        self.trusted(delivered)
    }

    /// The function is done with a call.
    pub(crate) fn release(&mut self, handle: u64) {
        let released = self.calls.release(&mut self.lane, handle);
        self.trusted(released);
    }

    /// Ends the process unless the engine did what it must.
    pub(crate) fn trusted<T, E: Into<Fault>>(&self, result: Result<T, E>) -> T {
        result.unwrap_or_else(|fault| self.abort(&fault.into()))
    }

    fn begin(&mut self, dispatched: &Dispatched) -> *const [u8] {
        let Dispatched { call, depth, deadline_ns, ref block } = *dispatched;
        let began_ns = self.ended_ns.take().unwrap_or_else(now_ns);
        let (envelope, input) = self.trusted(self.lane.inbound(block));
        // SAFETY: the block is the worker's, unchanged, until its call is completed; `complete`
        // drops `running` when it has sent the answer, and the lane's memory lives as long as we.
        let envelope = unsafe { outlive(envelope) };
        // SAFETY: the same.
        let input = unsafe { outlive(input) };
        let request = self.trusted(parse_request(envelope));
        self.running = Some(Running {
            call,
            depth,
            deadline_ns,
            began_ns,
            is_cancelled: false,
            request,
            input,
        });
        self.running().input
    }

    fn token(&mut self) -> u32 {
        loop {
            let token = self.calls.take_token(&mut self.lane);
            match self.trusted(token) {
                Some(token) => return token,
                None => self.receive(Patience::Wait),
            }
        }
    }

    /// Takes all messages there are; with patience, at least one.
    fn receive(&mut self, patience: Patience) {
        let mut has_waited = patience == Patience::LookOnly;
        loop {
            let Some(message) = self.take() else {
                if has_waited {
                    return;
                }
                self.decline_pipelined();
                self.wait();
                continue;
            };
            has_waited = true;
            match message {
                ToWorker::Answer { token, outcome, block } => {
                    let answered = self.calls.on_answer(&mut self.lane, token, outcome, block);
                    self.trusted(answered);
                }
                ToWorker::Cancel { call } => {
                    if let Some(running) = self.running.as_mut().filter(|r| r.call == call) {
                        running.is_cancelled = true;
                    }
                }
                ToWorker::Retire => self.retiring = true,
                ToWorker::Dispatch { call, depth, deadline_ns, results_read, block } => {
                    self.on_results_read(results_read);
                    self.pipelined.push_back(Dispatched { call, depth, deadline_ns, block });
                }
            }
        }
    }

    /// Before the running call waits: what is behind it may be what it waits for, and need not wait
    /// with it in any case. The last first, so that they come back to the front of the queue in order.
    fn decline_pipelined(&mut self) {
        while let Some(Dispatched { call, .. }) = self.pipelined.pop_back() {
            self.publish(&ToEngine::Decline { call });
        }
    }

    fn on_results_read(&mut self, count: u32) {
        let freed = self.outgoing.on_read(&mut self.lane, count);
        self.trusted(freed);
    }

    fn take(&mut self) -> Option<ToWorker> {
        let received = self.lane.receive();
        self.trusted(received)
    }

    fn wait(&mut self) {
        self.ring();
        let waited = self.lane.wait();
        self.trusted(waited);
    }

    fn say(&mut self, message: &ToEngine) {
        self.publish(message);
        self.ring();
    }

    /// Says something that need not be heard before `ring`, or `wait`, which rings.
    fn publish(&mut self, message: &ToEngine) {
        let said = self.lane.publish(message);
        self.trusted(said);
        self.is_unrung = true;
    }

    fn ring(&mut self) {
        self.held_ns = None;
        if std::mem::take(&mut self.is_unrung) {
            let rung = self.lane.ring();
            self.trusted(rung);
        }
    }

    #[cold]
    fn abort(&self, fault: &Fault) -> ! {
        let (name, lane) = (&self.function.name, self.lane.index().0);
        eprintln!("nightcore-worker: function {name}, lane {lane}: {fault}; the container ends");
        std::process::abort();
    }
}

/// # Safety
/// Whoever calls does not use the result longer than the bytes are there, unchanged.
unsafe fn outlive(bytes: &[u8]) -> &'static [u8] {
    let (start, size) = (bytes.as_ptr(), bytes.len());
    // SAFETY: start and size are a valid slice's; the lifetime is the caller's duty.
    unsafe { std::slice::from_raw_parts(start, size) }
}

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has this clock");
    u64::try_from(Duration::from(now).as_nanos()).unwrap_or(u64::MAX)
}
