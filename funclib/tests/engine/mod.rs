//! An engine for one worker, made of nothing but `ipc`: the test's thread plays it, the worker runs
//! on a thread of its own. It keeps the books of blocks and tokens as the real one does.

#![allow(dead_code, clippy::unwrap_used)] // each test uses a part; only tests use this

use std::collections::{HashMap, VecDeque};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use ipc::engine_side::EngineChannel;
use ipc::envelope::{ReplyFields, RequestFields, parse_call, parse_reply};
use ipc::worker_side::{WorkerChannel, WorkerLane};
use ipc::{Block, CallId, Geometry, LaneIndex, Outcome, ToEngine, ToWorker};
use nightcore::host::library::{Function, V2Call};
use nightcore::host::worker::{self, CreateError};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub const LANE: LaneIndex = LaneIndex(0);
/// Ends a test that waits for something that never comes.
const WATCHDOG_MS: u16 = 60_000;

pub type Header<'a> = (&'a [u8], &'a [u8]);

pub struct Engine {
    pub channel: EngineChannel,
    worker: Option<JoinHandle<Result<(), CreateError>>>,
    /// Inputs of the calls that are not completed, in order.
    dispatched: VecDeque<Block>,
    /// Answer of every token in use, once there is one.
    tokens: HashMap<u32, Option<Block>>,
    calls: u32,
    /// Of the lane's present worker.
    pub completed: u32,
}

/// How a call ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Completion {
    pub outcome: Outcome,
    pub status: Option<u16>,
    pub content_type: String,
    pub headers: Vec<(String, String)>,
    pub payload: Vec<u8>,
}

impl Completion {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).unwrap()
    }
}

/// An internal call as the engine reads it.
#[derive(Debug)]
pub struct Asked {
    pub token: u32,
    pub function: String,
    pub input: Vec<u8>,
}

pub enum Said {
    Asked(Asked),
    Completed(Completion),
}

/// A channel and its first lane, without a worker yet.
pub fn channel(payload_max: u32) -> (EngineChannel, WorkerLane) {
    let geometry = Geometry::new(1, payload_max).unwrap();
    let (mut channel, fds) = EngineChannel::create(geometry).unwrap();
    let doorbell = channel.open_lane(LANE).unwrap();
    let worker_channel = WorkerChannel::map(geometry, fds.a, fds.b, fds.bell).unwrap();
    let lane = WorkerLane::new(Arc::new(worker_channel), LANE, doorbell).unwrap();
    (channel, lane)
}

impl Engine {
    /// With a worker that runs the entry which `#[nightcore::function]` made.
    pub fn with_entry(payload_max: u32, entry: V2Call) -> Engine {
        // SAFETY: the attribute generates what nightcore.h asks of `nightcore_call`.
        let function = unsafe { Function::of_this_process("tested", entry) };
        Engine::with_function(payload_max, function)
    }

    pub fn with_function(payload_max: u32, function: Function) -> Engine {
        let (channel, lane) = channel(payload_max);
        let worker = std::thread::spawn(move || worker::run(lane, payload_max, &function));
        let mut engine = Engine::over(channel);
        engine.worker = Some(worker);
        assert_eq!(engine.receive(), ToEngine::Started);
        engine
    }

    /// Over a channel whose worker is elsewhere.
    pub fn over(channel: EngineChannel) -> Engine {
        let (worker, dispatched, tokens) = (None, VecDeque::new(), HashMap::new());
        Engine { channel, worker, dispatched, tokens, calls: 0, completed: 0 }
    }

    /// The worker's next message; sleeps as an engine does.
    pub fn receive(&mut self) -> ToEngine {
        loop {
            let _ = self.channel.take_ready();
            if let Some(message) = self.channel.lane(LANE).unwrap().receive().unwrap() {
                return message;
            }
            self.channel.arm();
            if !self.channel.has_ready() {
                sleep_on(self.channel.bell());
                // Emptied, so that the next sleep is one.
                nix::unistd::read(self.channel.bell(), &mut [0; 8]).unwrap();
            }
            self.channel.disarm();
        }
    }

    pub fn publish(&mut self, message: &ToWorker) {
        let lane = self.channel.lane(LANE).unwrap();
        lane.publish(message).unwrap();
        if lane.must_ring() {
            nix::unistd::write(lane.doorbell(), &1u64.to_ne_bytes()).unwrap();
        }
    }

    /// Runs an internal-looking call, behind those that run or wait: no method, no headers.
    pub fn dispatch(&mut self, input: &[u8]) -> CallId {
        self.dispatch_request(
            RequestFields { headers: [].into_iter(), ..Default::default() },
            input,
        )
    }

    pub fn dispatch_request<'a, H>(&mut self, fields: RequestFields<'a, H>, input: &[u8]) -> CallId
    where
        H: Iterator<Item = Header<'a>> + Clone,
    {
        let lane = self.channel.lane(LANE).unwrap();
        let mut writer = lane.reserve(fields.encoded_size().unwrap(), input.len()).unwrap();
        fields.encode(&mut writer);
        writer.write(input);
        let block = writer.finish();
        self.dispatched.push_back(block);
        self.calls += 1;
        let call = CallId::new(3, self.calls);
        let deadline_ns = u64::MAX;
        self.publish(&ToWorker::Dispatch {
            call,
            depth: 2,
            deadline_ns,
            results_read: self.completed,
            block,
        });
        call
    }

    /// What the worker says next about the running call; releases are booked on the way.
    pub fn next(&mut self) -> Said {
        loop {
            match self.receive() {
                ToEngine::Release { token } => self.release(token),
                ToEngine::Call { token, released, block, .. } => {
                    released.into_iter().for_each(|token| self.release(token));
                    assert!(self.tokens.insert(token, None).is_none(), "token {token} is in use");
                    assert!(self.tokens.len() <= 48, "too many calls outstanding");
                    return Said::Asked(self.asked(token, &block));
                }
                ToEngine::Complete { outcome, released, block, .. } => {
                    released.into_iter().for_each(|token| self.release(token));
                    assert!(self.tokens.is_empty(), "tokens are left: {:?}", self.tokens);
                    let block = self.completion(outcome, &block);
                    let lane = self.channel.lane(LANE).unwrap();
                    lane.release(&self.dispatched.pop_front().unwrap());
                    assert_eq!(lane.blocks_live(), self.dispatched.len());
                    self.completed += 1;
                    return Said::Completed(block);
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// The next internal call; panics if the function completes instead.
    pub fn asked_next(&mut self) -> Asked {
        match self.next() {
            Said::Asked(asked) => asked,
            Said::Completed(completion) => panic!("completed early: {completion:?}"),
        }
    }

    /// The call's end; panics if the function calls another instead.
    pub fn completed(&mut self) -> Completion {
        match self.next() {
            Said::Completed(completion) => completion,
            Said::Asked(asked) => panic!("an unexpected call: {asked:?}"),
        }
    }

    /// Dispatches, answers every internal call with its own input at once, until the call ends.
    pub fn run(&mut self, input: &[u8]) -> Completion {
        self.dispatch(input);
        loop {
            match self.next() {
                Said::Asked(asked) => self.answer(asked.token, Outcome::Ok, &asked.input),
                Said::Completed(completion) => return completion,
            }
        }
    }

    pub fn answer(&mut self, token: u32, outcome: Outcome, payload: &[u8]) {
        let fields =
            ReplyFields { status: None, content_type: b"text/plain", headers: [].into_iter() };
        let lane = self.channel.lane(LANE).unwrap();
        let mut writer = lane.reserve(fields.encoded_size().unwrap(), payload.len()).unwrap();
        fields.encode(&mut writer);
        writer.write(payload);
        let block = writer.finish();
        assert_eq!(self.tokens.insert(token, Some(block)), Some(None), "token {token}");
        self.publish(&ToWorker::Answer { token, outcome, block });
    }

    /// Frees the inputs of the last `count` calls, which the worker declined.
    pub fn take_back(&mut self, count: usize) {
        let kept = self.dispatched.len() - count;
        for block in self.dispatched.drain(kept..) {
            self.channel.lane(LANE).unwrap().release(&block);
        }
    }

    /// Ends the worker and returns what its thread did.
    pub fn retire(mut self) -> Result<(), CreateError> {
        self.publish(&ToWorker::Retire);
        assert_eq!(self.receive(), ToEngine::Retired);
        self.worker.take().unwrap().join().unwrap()
    }

    fn release(&mut self, token: u32) {
        let block = self.tokens.remove(&token).flatten();
        self.channel.lane(LANE).unwrap().release(&block.expect("released before it was answered"));
    }

    fn asked(&mut self, token: u32, block: &Block) -> Asked {
        let (envelope, input) = self.read(block);
        let function = String::from_utf8(parse_call(&envelope).unwrap().to_vec()).unwrap();
        Asked { token, function, input }
    }

    fn completion(&mut self, outcome: Outcome, block: &Block) -> Completion {
        let (envelope, payload) = self.read(block);
        let reply = parse_reply(&envelope).unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Completion {
            outcome,
            status: reply.status,
            content_type: text(reply.content_type),
            headers: reply.headers.map(|(name, value)| (text(name), text(value))).collect(),
            payload,
        }
    }

    fn read(&mut self, block: &Block) -> (Vec<u8>, Vec<u8>) {
        let shared = self.channel.lane(LANE).unwrap().outbound(block).unwrap();
        let (mut envelope, mut payload) = (Vec::new(), Vec::new());
        shared.copy_envelope(&mut envelope);
        shared.payload().append_to(&mut payload);
        (envelope, payload)
    }
}

/// Until the descriptor is readable.
pub fn sleep_on(descriptor: BorrowedFd<'_>) {
    let mut polled = [PollFd::new(descriptor, PollFlags::POLLIN)];
    let count = poll(&mut polled, PollTimeout::from(WATCHDOG_MS)).unwrap();
    assert_ne!(count, 0, "nothing came for {WATCHDOG_MS} ms");
}
