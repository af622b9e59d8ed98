//! Ten million messages between two processes over one lane, both sides falling asleep at random:
//! each arrives once, in order, with its bytes intact, and nobody sleeps for ever.
//!
//! The engine dispatches numbered calls, one in sixteen with a payload; the worker completes them
//! in order, one in sixteen with a payload of its own. Blocks are given back by `Release` (or
//! `released`) one way and, for want of an engine's policy here, by `Cancel` the other way. The
//! second process is this same test binary, asked to be the worker; they meet over the real
//! control socket.
#![cfg(not(loom))]
#![allow(missing_docs, clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::collections::VecDeque;
use std::hash::Hasher;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use ipc::control::{ControlError, ControlListener, ControlSocket, FromLauncher, ToLauncher};
use ipc::engine_side::{EngineChannel, EngineLane};
use ipc::worker_side::{OutboundBuffer, WorkerChannel, WorkerLane};
use ipc::{Block, CallId, Geometry, LaneIndex, Outcome, Region, ToEngine, ToWorker};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// Each is a `Dispatch` and a `Complete`: ten million messages, and the releases beside them.
const CALLS: u64 = 5_000_000;
/// Calls in flight; at most twice as many and one messages to the worker are unread (the
/// dispatches, and a `Cancel` for each completion since the oldest of them): below the depth.
const WINDOW: u64 = 24;
const PAYLOAD_MAX: u32 = 256 * 1024;
const LANE: LaneIndex = LaneIndex(5);
const SOCKET: &str = "NIGHTCORE_STRESS_SOCKET";
/// Without any progress for this long, it is a deadlock.
const PATIENCE: Duration = Duration::from_secs(60);

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A payload, and in front of it its checksum as the envelope. One in 256 is a large one.
fn fill(random: &mut Random, out: &mut Vec<u8>) {
    let size = if random.one_in(256) { random.below(200_000) } else { random.below(2000) };
    out.clear();
    out.resize(8, 0);
    while out.len() < 8 + size as usize {
        out.extend_from_slice(&random.next().to_le_bytes());
    }
    out.truncate(8 + size as usize);
    let sum = checksum(&out[8..]);
    out[..8].copy_from_slice(&sum.to_le_bytes());
}

fn checksum(bytes: &[u8]) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

fn assert_intact(call: u64, envelope: &[u8], payload: &[u8]) {
    assert_eq!(envelope, checksum(payload).to_le_bytes(), "payload of call {call}");
}

/// What a message carries beside its number, so that a torn slot shows.
fn deadline_of(call: u64) -> u64 {
    call.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[test]
fn ten_million_messages_between_two_processes_arrive_once_in_order_and_intact() {
    let seed = u64::from(std::process::id()) << 20 | 1;
    println!("seed {seed}");
    let dir = tempfile::tempdir().unwrap();
    let listener = ControlListener::bind(dir.path(), "control").unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "worker_process", "--nocapture"])
        .env(SOCKET, listener.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let progress = watch_over();
    wait_readable(&listener);
    let control = listener.accept(child.id()).unwrap().unwrap();
    wait_readable(&control);
    let hello = control.receive_from_launcher().unwrap().unwrap();
    assert_eq!(hello, FromLauncher::Hello { version: 1, pid: child.id(), interface: 2 });

    let geometry = Geometry::new(8, PAYLOAD_MAX).unwrap();
    let (mut channel, fds) = EngineChannel::create(geometry).unwrap();
    let message = ToLauncher::Channel { shard: 0, lanes: 8, payload_max: PAYLOAD_MAX };
    control
        .send_to_launcher(&message, &[fds.a, fds.b, fds.bell].each_ref().map(AsFd::as_fd))
        .unwrap();
    let doorbell = channel.open_lane(LANE).unwrap();
    let message = ToLauncher::Spawn { shard: 0, lane: LANE.0, core: None };
    control.send_to_launcher(&message, &[doorbell.as_fd()]).unwrap();

    let mut engine = Engine::new(channel, seed);
    engine.run(&progress);
    drop(control);
    assert!(child.wait().unwrap().success());
    println!("{:?}", engine.counts);
}

/// The other process of the test above; nothing when not asked to be.
#[test]
fn worker_process() {
    let Some(path) = std::env::var_os(SOCKET) else { return };
    let control = ControlSocket::connect(Path::new(&path)).unwrap();
    let pid = std::process::id();
    control.send_to_engine(&FromLauncher::Hello { version: 1, pid, interface: 2 }).unwrap();
    let (message, fds) = control.receive_from_engine().unwrap();
    let ToLauncher::Channel { lanes, payload_max, .. } = message else { panic!("{message:?}") };
    let [a, b, bell] = fds.try_into().unwrap();
    let geometry = Geometry::new(lanes, payload_max).unwrap();
    let mapped = Arc::new(WorkerChannel::map(geometry, a, b, bell).unwrap());
    let (message, mut fds) = control.receive_from_engine().unwrap();
    let ToLauncher::Spawn { lane, .. } = message else { panic!("{message:?}") };
    let lane = WorkerLane::new(mapped, LaneIndex(lane), fds.remove(0)).unwrap();
    let (ends, ended) = channel();
    std::thread::spawn(move || {
        Worker::new(lane, u64::from(pid) << 8 | 1).run();
        ends.send(()).unwrap();
    });
    // The parent closes when it has seen `Retired`, or has given up: then this process ends too.
    assert!(matches!(control.receive_from_engine(), Err(ControlError::Closed)));
    ended.recv_timeout(PATIENCE).expect("the worker has ended");
}

#[derive(Debug, Default)]
struct Counts {
    sent: u64,
    completed: u64,
    releases: u64,
    payloads_in: u64,
    payloads_out: u64,
    sleeps: u64,
    rings: u64,
}

struct Engine {
    channel: EngineChannel,
    epoll: Epoll,
    random: Random,
    /// Blocks the worker has not released, oldest first.
    unreleased: VecDeque<(u32, Block)>,
    counts: Counts,
    scratch: Vec<u8>,
}

impl Engine {
    fn new(channel: EngineChannel, seed: u64) -> Engine {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        let edges = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        epoll.add(channel.bell(), EpollEvent::new(edges, 0)).unwrap();
        Engine {
            channel,
            epoll,
            random: Random(seed),
            unreleased: VecDeque::new(),
            counts: Counts::default(),
            scratch: Vec::new(),
        }
    }

    fn run(&mut self, progress: &Sender<()>) {
        self.receive_until(|engine, message| match message {
            ToEngine::Started => true,
            other => panic!("{other:?} after {:?}", engine.counts),
        });
        while self.counts.completed < CALLS {
            let burst = 1 + self.random.below(WINDOW);
            for _ in 0..burst {
                if self.counts.sent == CALLS || self.counts.sent - self.counts.completed == WINDOW {
                    break;
                }
                self.dispatch();
            }
            self.ring();
            let target = self.counts.completed + 1;
            self.receive_until(|engine, message| {
                engine.on_message(message);
                engine.counts.completed >= target
            });
            if self.counts.completed % 4096 < WINDOW {
                progress.send(()).unwrap();
            }
        }
        self.lane().publish(&ToWorker::Retire).unwrap();
        self.ring();
        self.receive_until(|engine, message| match message {
            ToEngine::Retired => true,
            other => {
                engine.on_message(other);
                false
            }
        });
        assert_eq!(self.lane().receive().unwrap(), None, "nothing after Retired");
        assert_eq!(self.lane().blocks_live(), 0, "every block was released");
    }

    fn lane(&mut self) -> &mut EngineLane {
        self.channel.lane(LANE).unwrap()
    }

    fn dispatch(&mut self) {
        let call = self.counts.sent;
        let mut block = Block::empty(Region::Small);
        if self.random.one_in(16) {
            fill(&mut self.random, &mut self.scratch);
            let lane = self.channel.lane(LANE).unwrap();
            if let Ok(mut writer) = lane.reserve(8, self.scratch.len() - 8) {
                writer.write(&self.scratch);
                block = writer.finish();
                self.unreleased.push_back((call as u32, block));
                self.counts.payloads_in += 1;
            }
        }
        let (depth, deadline_ns) = (call as u16, deadline_of(call));
        let message =
            ToWorker::Dispatch { call: CallId(call), depth, deadline_ns, results_read: 0, block };
        self.lane().publish(&message).unwrap();
        self.counts.sent += 1;
    }

    fn ring(&mut self) {
        let lane = self.channel.lane(LANE).unwrap();
        if lane.must_ring() {
            // As the engine's reactor rings, which adds nothing to the counter.
            nix::unistd::write(lane.doorbell(), &0u64.to_ne_bytes()).unwrap();
            self.counts.rings += 1;
        }
    }

    /// Takes ready bits and drains the lane each time, as a shard does; sleeps or not between.
    /// `done` says when a message was enough, but what is there is always drained.
    fn receive_until(&mut self, mut done: impl FnMut(&mut Engine, ToEngine) -> bool) {
        let mut is_done = false;
        loop {
            let ready = self.channel.take_ready();
            if ready != [0; 4] {
                assert_eq!(ready, [1 << LANE.0, 0, 0, 0]);
                while let Some(message) = self.lane().receive().unwrap() {
                    is_done |= done(self, message);
                }
            }
            if is_done {
                return;
            }
            // What draining has published must not wait for a worker that sleeps.
            self.ring();
            if self.random.one_in(16) {
                self.channel.arm();
                if !self.channel.has_ready() {
                    self.counts.sleeps += 1;
                    let events = &mut [EpollEvent::empty()];
                    while self.epoll.wait(events, EpollTimeout::NONE).is_err() {}
                }
                self.channel.disarm();
            } else if self.random.one_in(2) {
                std::thread::yield_now();
            }
        }
    }

    fn on_message(&mut self, message: ToEngine) {
        match message {
            ToEngine::Complete { call, outcome, released, block, .. } => {
                let expected = self.counts.completed;
                assert_eq!(call, CallId(expected), "in order");
                assert_eq!(outcome, Outcome::ALL[(expected % 13) as usize]);
                if let Some(token) = released {
                    self.release(token);
                }
                if block.size() > 0 {
                    let shared = self.lane().outbound(&block).unwrap();
                    self.scratch.clear();
                    shared.whole().append_to(&mut self.scratch);
                    let (envelope, payload) = self.scratch.split_at(shared.envelope_size());
                    assert_intact(expected, envelope, payload);
                    self.lane().publish(&ToWorker::Cancel { call }).unwrap();
                    self.counts.payloads_out += 1;
                }
                self.counts.completed += 1;
            }
            ToEngine::Release { token } => self.release(token),
            other => panic!("{other:?} after {:?}", self.counts),
        }
    }

    fn release(&mut self, token: u32) {
        let (expected, block) = self.unreleased.pop_front().expect("a block to release");
        assert_eq!(token, expected, "in order");
        self.lane().release(&block);
        self.counts.releases += 1;
    }
}

struct Worker {
    lane: WorkerLane,
    random: Random,
    received: u64,
    /// Buffers that the engine has not given back, oldest first.
    lent: VecDeque<(CallId, OutboundBuffer)>,
    scratch: Vec<u8>,
}

impl Worker {
    fn new(lane: WorkerLane, seed: u64) -> Worker {
        Worker {
            lane,
            random: Random(seed),
            received: 0,
            lent: VecDeque::new(),
            scratch: Vec::new(),
        }
    }

    fn run(mut self) {
        self.lane.publish(&ToEngine::Started).unwrap();
        self.lane.ring().unwrap();
        loop {
            match self.lane.receive().unwrap() {
                Some(ToWorker::Dispatch { call, depth, deadline_ns, block, .. }) => {
                    assert_eq!(call, CallId(self.received), "in order");
                    assert_eq!(depth, call.0 as u16);
                    assert_eq!(deadline_ns, deadline_of(call.0));
                    self.received += 1;
                    self.complete(call, &block);
                }
                Some(ToWorker::Cancel { call }) => {
                    let (expected, buffer) = self.lent.pop_front().expect("a buffer to give back");
                    assert_eq!(call, expected, "in order");
                    self.lane.free(buffer);
                }
                Some(ToWorker::Retire) => break,
                Some(other) => panic!("{other:?}"),
                None => {
                    self.lane.ring().unwrap();
                    if self.random.one_in(16) {
                        self.lane.wait().unwrap();
                    } else if self.random.one_in(2) {
                        std::thread::yield_now();
                    }
                }
            }
        }
        assert_eq!(self.received, CALLS);
        assert!(self.lent.is_empty());
        self.lane.publish(&ToEngine::Retired).unwrap();
        self.lane.ring().unwrap();
    }

    fn complete(&mut self, call: CallId, block: &Block) {
        let mut released = None;
        if block.size() > 0 {
            let (envelope, payload) = self.lane.inbound(block).unwrap();
            assert_intact(call.0, envelope, payload);
            released = Some(call.0 as u32);
            if call.0 % 2 == 1 {
                self.lane.publish(&ToEngine::Release { token: call.0 as u32 }).unwrap();
                released = None;
            }
        }
        let mut block = Block::empty(Region::Outbound);
        if self.random.one_in(16) {
            fill(&mut self.random, &mut self.scratch);
            if let Ok(buffer) = self.lane.allocate(self.scratch.len()) {
                self.lane.outbound_mut(&buffer).copy_from_slice(&self.scratch);
                block = self.lane.block(&buffer, 8, self.scratch.len() - 8);
                self.lent.push_back((call, buffer));
            }
        }
        let outcome = Outcome::ALL[(call.0 % 13) as usize];
        self.lane
            .publish(&ToEngine::Complete { call, outcome, released, ran_ns: 0, usage: None, block })
            .unwrap();
        if self.random.one_in(4) {
            self.lane.ring().unwrap();
        }
    }
}

/// Ends the process when nothing has been sent for `PATIENCE`: a lost wake-up would hang it.
fn watch_over() -> Sender<()> {
    let (progress, watched) = channel();
    std::thread::spawn(move || {
        loop {
            match watched.recv_timeout(PATIENCE) {
                Ok(()) => {}
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    eprintln!("no progress for {PATIENCE:?}: a deadlock");
                    std::process::abort();
                }
            }
        }
    });
    progress
}

fn wait_readable(fd: &impl AsFd) {
    poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).unwrap();
}
