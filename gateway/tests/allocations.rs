//! A request in steady state allocates nothing: not in the gateway, and not in the ring under it.
//! Client and server share one thread, so that an allocator which counts sees exactly this path.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gateway::{Answer, Arrival, Config, Door, Gateway, NewCall, Refusal, Upstream};
use ipc::engine_side::EngineChannel;
use ipc::worker_side::{WorkerChannel, WorkerLane};
use ipc::{Block, Geometry, LaneIndex, Outcome};
use reactor::clock::{self, Nanos};
use reactor::{Event, Reactor, Token, Wait};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to `System` unchanged, which keeps the contract; counting has no effect
// on it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SYNC: a count read by the thread that made it.
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps `alloc`'s contract, which is `System`'s.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `alloc` above with this layout, thus from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Answers every call with the same block.
struct OneBlock {
    engine: EngineChannel,
    block: Block,
    caller: Option<u64>,
}

impl Upstream for OneBlock {
    fn resolve(&self, name: &[u8]) -> Option<u32> {
        (name == b"f").then_some(0)
    }

    fn submit(&mut self, _: &mut Reactor, _: Nanos, call: NewCall<'_>) -> Result<u64, Refusal> {
        assert_eq!(call.body, b"hello");
        self.caller = Some(call.caller);
        Ok(1)
    }

    fn cancel(&mut self, _: &mut Reactor, _: Nanos, _: u64) {}

    fn write_unready(&self, _: &mut String) {}

    fn is_draining(&self) -> bool {
        false
    }

    fn metrics(&self, _: &mut String) {}

    fn functions_json(&self, _: &mut String) {}
}

#[test]
fn a_request_in_steady_state_allocates_nothing() {
    let lane = LaneIndex(0);
    let geometry = Geometry::new(1, 1 << 20).unwrap();
    let (mut engine, fds) = EngineChannel::create(geometry).unwrap();
    let doorbell = engine.open_lane(lane).unwrap();
    let channel = Arc::new(WorkerChannel::map(geometry, fds.a, fds.b, fds.bell).unwrap());
    let mut worker = WorkerLane::new(channel, lane, doorbell).unwrap();
    let buffer = worker.allocate(1000).unwrap();
    let block = worker.block(&buffer, 0, 1000);
    let mut upstream = OneBlock { engine, block, caller: None };

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_nonblocking(true).unwrap();
    client.set_nodelay(true).unwrap();
    let mut reactor = Reactor::new(&reactor::Config::default()).unwrap();
    let mut gateway = Gateway::new(Config::default(), 0);
    let mut events = Vec::new();
    reactor.accept(listener.as_fd(), Token(1));

    let whole = "POST /function/f HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello";
    let chunked = "POST /function/f HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
                   5\r\nhello\r\n0\r\n\r\n";
    // A whole request, one whose head comes in two parts, one whose body does.
    let rounds = [(whole, 0), (whole, 20), (whole, whole.len() - 2), (chunked, chunked.len() - 8)];
    let mut answer = [0; 4096];
    let mut before = 0;
    for round in 0..4_000 {
        if round == 2_000 {
            before = ALLOCATIONS.load(Ordering::Relaxed);
        }
        let (request, cut) = rounds[round % rounds.len()];
        client.write_all(&request.as_bytes()[..cut]).unwrap();
        let mut rest = Some(&request.as_bytes()[cut..]);
        let mut size = 0;
        while !answer[..size].ends_with(&[0; 1000]) || size < 1000 {
            reactor.turn(Wait::Not, &mut events).unwrap();
            for event in events.drain(..) {
                match event {
                    Event::Accepted { socket, .. } => {
                        let arrival = Arrival { socket, door: Door::Public, tls: None };
                        gateway.adopt(&mut reactor, clock::now(), arrival);
                    }
                    event => gateway.on_event(&mut reactor, clock::now(), &mut upstream, event),
                }
            }
            if let Some(caller) = upstream.caller.take() {
                let lane = upstream.engine.lane(lane).unwrap();
                let block = Some(lane.outbound(&upstream.block).unwrap());
                let outcome = Outcome::Ok;
                let answer =
                    Answer { outcome, message: "", retry_after_s: None, block, times: None };
                gateway.on_answer(&mut reactor, clock::now(), &mut upstream, caller, answer);
            }
            if let Some(rest) = rest.take() {
                client.write_all(rest).unwrap();
            }
            size += client.read(&mut answer[size..]).unwrap_or(0);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 0);
}
