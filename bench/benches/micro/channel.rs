//! The channel between a shard and a container: a descriptor alone, and a whole hop with payload.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput};
use ipc::engine_side::EngineChannel;
use ipc::worker_side::{WorkerChannel, WorkerLane};
use ipc::{CallId, Geometry, LaneIndex, Outcome, ToEngine, ToWorker};

const LANE: LaneIndex = LaneIndex(0);
const CALL: CallId = CallId(1);
const PAYLOAD_MAX: u32 = 1 << 20;
/// The two sizes of the bars of the call path, and the largest that fits the small arena.
const PAYLOAD_SIZES: [usize; 3] = [32, 1024, 64 * 1024];

/// Both sides of one lane.
struct Pair {
    engine: EngineChannel,
    worker: WorkerLane,
}

pub fn bench(criterion: &mut Criterion) {
    let mut pair = Pair::new();
    criterion.bench_function("descriptor", |bencher| bencher.iter(|| pair.pass_descriptor()));

    let mut group = criterion.benchmark_group("hop");
    for size in PAYLOAD_SIZES {
        let payload = vec![b'x'; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_with_input(BenchmarkId::from_parameter(size), &payload, |bencher, payload| {
            bencher.iter(|| pair.hop(black_box(payload)));
        });
    }
    group.finish();
}

impl Pair {
    fn new() -> Pair {
        let geometry = Geometry::new(1, PAYLOAD_MAX).expect("one lane of 1 MiB");
        let (mut engine, fds) = EngineChannel::create(geometry).expect("two memfds");
        let channel = WorkerChannel::map(geometry, fds.a, fds.b, fds.bell).expect("our own memfds");
        let doorbell = engine.open_lane(LANE).expect("a closed lane");
        let worker = WorkerLane::new(Arc::new(channel), LANE, doorbell).expect("a free lane");
        Pair { engine, worker }
    }

    /// Through one ring: encode, publish, receive, decode.
    fn pass_descriptor(&mut self) -> Option<ToWorker> {
        let lane = self.engine.lane(LANE).expect("it is open");
        lane.publish(black_box(&ToWorker::Cancel { call: CALL })).expect("the ring is empty");
        self.worker.receive().expect("the engine is honest")
    }

    /// There and back, as `engine/io` and the runtime library do it for a function that answers
    /// with as many bytes as it was given: one copy in, one by the function, none out.
    fn hop(&mut self, payload: &[u8]) -> usize {
        let lane = self.engine.lane(LANE).expect("it is open");
        let mut writer = lane.reserve(0, payload.len()).expect("the arena is empty");
        writer.write(payload);
        let inbound = writer.finish();
        let dispatch = ToWorker::Dispatch {
            call: CALL,
            depth: 0,
            deadline_ns: u64::MAX,
            results_read: 0,
            block: inbound,
        };
        lane.publish(&dispatch).expect("the ring is empty");
        black_box(lane.must_ring());

        let received = self.worker.receive().expect("the engine is honest");
        let Some(ToWorker::Dispatch { call, block, .. }) = received else {
            panic!("not what was published: {received:?}");
        };
        let size = block.payload_size as usize;
        let buffer = self.worker.allocate(size).expect("the arena is empty");
        black_box(self.worker.inbound(&block).expect("a block of this lane"));
        self.worker.outbound_mut(&buffer).copy_from_slice(payload);
        let block = self.worker.block(&buffer, 0, size);
        let complete = ToEngine::Complete {
            call,
            outcome: Outcome::Ok,
            released: None,
            ran_ns: 0,
            usage: None,
            block,
        };
        self.worker.publish(&complete).expect("the lane is open");
        self.worker.ring().expect("the engine is awake");

        black_box(self.engine.take_ready());
        let lane = self.engine.lane(LANE).expect("it is open");
        let received = lane.receive().expect("the worker is honest");
        let Some(ToEngine::Complete { block, .. }) = received else {
            panic!("not what was published: {received:?}");
        };
        let answer = lane.outbound(&block).expect("a block of this lane");
        lane.release(&inbound);
        self.worker.free(buffer);
        answer.payload_size()
    }
}
