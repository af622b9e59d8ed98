//! A call's way through a channel allocates nothing.
#![cfg(not(loom))]
#![allow(missing_docs, clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use ipc::engine_side::EngineChannel;
use ipc::envelope::{ReplyFields, RequestFields, parse_reply, parse_request};
use ipc::worker_side::{WorkerChannel, WorkerLane};
use ipc::{CallId, Geometry, LaneIndex, Outcome, ToEngine, ToWorker};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as in `alloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn a_call_and_its_answer_allocate_nothing_once_buffers_are_warm() {
    let geometry = Geometry::new(1, 1 << 20).unwrap();
    let (mut engine, fds) = EngineChannel::create(geometry).unwrap();
    let channel = Arc::new(WorkerChannel::map(geometry, fds.a, fds.b, fds.bell).unwrap());
    let doorbell = engine.open_lane(LaneIndex(0)).unwrap();
    let mut worker = WorkerLane::new(channel, LaneIndex(0), doorbell).unwrap();
    let lane = engine.lane(LaneIndex(0)).unwrap();
    let (mut envelope, mut body) = (Vec::new(), Vec::new());
    let mut call = |payload: &[u8]| {
        let fields = RequestFields {
            method: b"POST",
            request_id: b"0123456789abcdef",
            headers: [(&b"accept"[..], &b"text/html"[..])].into_iter(),
            ..RequestFields::default()
        };
        let mut writer = lane.reserve(fields.encoded_size().unwrap(), payload.len()).unwrap();
        fields.encode(&mut writer);
        writer.write(payload);
        let block = writer.finish();
        let message = ToWorker::Dispatch {
            call: CallId(1),
            depth: 0,
            deadline_ns: 0,
            results_read: 0,
            block,
        };
        lane.publish(&message).unwrap();
        assert_eq!(worker.receive().unwrap(), Some(message));
        let (request, input) = worker.inbound(&block).unwrap();
        assert_eq!(parse_request(request).unwrap().headers.count(), 1);
        let size = input.len();
        let buffer = worker.allocate(size + 64).unwrap();
        let headers = std::iter::empty();
        let reply = ReplyFields { status: Some(200), content_type: b"text/html", headers };
        let head = reply.encoded_size().unwrap();
        let block_out = worker.block(&buffer, head, size);
        let complete = ToEngine::Complete {
            call: CallId(1),
            outcome: Outcome::Ok,
            released: None,
            ran_ns: 0,
            usage: None,
            block: block_out,
        };
        reply.encode(&mut worker.outbound_mut(&buffer));
        worker.publish(&complete).unwrap();
        worker.ring().unwrap();
        assert_eq!(lane.receive().unwrap(), Some(complete));
        let shared = lane.outbound(&block_out).unwrap();
        shared.copy_envelope(&mut envelope);
        assert_eq!(parse_reply(&envelope).unwrap().content_type, b"text/html");
        body.clear();
        shared.payload().append_to(&mut body);
        lane.release(&block);
        worker.free(buffer);
    };
    let payload = vec![1; 200 << 10];
    call(&payload);
    let before = ALLOCATIONS.with(Cell::get);
    for size in [0, 1, 1000, 60 << 10, 200 << 10] {
        call(&payload[..size]);
    }
    assert_eq!(ALLOCATIONS.with(Cell::get), before);
}
