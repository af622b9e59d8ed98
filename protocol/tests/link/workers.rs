//! Answers that lie in a worker's memory: sent where they lie, but no peer keeps a worker by it.

use std::sync::Arc;
use std::time::Duration;

use ipc::engine_side::{DropList, EngineChannel, SharedBlock};
use ipc::worker_side::{OutboundBuffer, WorkerChannel, WorkerLane};
use ipc::{Geometry, LaneIndex};
use reactor::Wait;
use reactor::clock;

use crate::peer::{Heard, PAYLOAD_MAX, Peer, WRAPS, answer_head, both_until, pair, pattern};

const LANE: LaneIndex = LaneIndex(0);
const SIZE: usize = 12 << 20;
const TAG: u64 = 7;
/// How long a worker waits for a peer, as `docs/protocol.md` says.
const PIN_TIME: Duration = Duration::from_millis(50);

/// A worker that has left one answer.
struct Worker {
    engine: EngineChannel,
    lane: WorkerLane,
    buffer: OutboundBuffer,
    size: usize,
    dropped: DropList,
}

impl Worker {
    fn new(bytes: &[u8]) -> Worker {
        let geometry = Geometry::new(1, PAYLOAD_MAX).unwrap();
        let (mut engine, fds) = EngineChannel::create(geometry).unwrap();
        let doorbell = engine.open_lane(LANE).unwrap();
        let channel = WorkerChannel::map(geometry, fds.a, fds.b, fds.bell).unwrap();
        let mut lane = WorkerLane::new(Arc::new(channel), LANE, doorbell).unwrap();
        let buffer = lane.allocate(bytes.len()).unwrap();
        lane.outbound_mut(&buffer)[..bytes.len()].copy_from_slice(bytes);
        Worker { engine, lane, buffer, size: bytes.len(), dropped: DropList::default() }
    }

    fn answer(&mut self) -> SharedBlock {
        let block = self.lane.block(&self.buffer, 0, self.size);
        let mut block = self.engine.lane(LANE).unwrap().outbound(&block).unwrap();
        block.report_drop(self.dropped.clone(), TAG);
        block
    }

    /// What its next call does.
    fn overwrite(&mut self) {
        self.lane.outbound_mut(&self.buffer).fill(0xee);
    }
}

fn is_answer(heard: &[Heard], bytes: &[u8]) -> bool {
    matches!(heard, [Heard::Answer(1, head, got)] if *head == answer_head(bytes.len()) && got == bytes)
}

/// Turns until the socket takes nothing more for a while.
fn fill(engine: &mut Peer) {
    let mut left = engine.link().queued_bytes();
    loop {
        for _ in 0..20 {
            engine.turn();
        }
        if std::mem::replace(&mut left, engine.link().queued_bytes()) == left {
            return;
        }
    }
}

#[test]
fn a_worker_goes_on_at_once_when_its_answer_fits_a_frame() {
    for wrap in WRAPS {
        let (mut engine, mut gateway) = pair(wrap);
        let bytes = pattern(1, 10_000);
        let mut worker = Worker::new(&bytes);
        engine.link().send_answer_block(1, &answer_head(bytes.len()), worker.answer());
        assert_eq!(worker.dropped.take(), Some(TAG));
        worker.overwrite();
        both_until(&mut engine, &mut gateway, "it is there", |_, gateway| {
            !gateway.heard.is_empty()
        });
        assert!(is_answer(&gateway.heard, &bytes));
    }
}

#[test]
fn a_worker_goes_on_when_its_answer_is_out() {
    for wrap in WRAPS {
        let (mut engine, mut gateway) = pair(wrap);
        let bytes = pattern(1, SIZE);
        let mut worker = Worker::new(&bytes);
        // The link's clock stands still, so a worker's time is never over.
        engine.link().send_answer_block(1, &answer_head(SIZE), worker.answer());
        let mut dropped = None;
        both_until(&mut engine, &mut gateway, "it is there", |engine, gateway| {
            dropped = dropped.or_else(|| worker.dropped.take());
            assert!(dropped.is_none() || engine.link().queued_bytes() == 0, "it was copied");
            !gateway.heard.is_empty() && dropped.is_some()
        });
        assert!(is_answer(&gateway.heard, &bytes));
    }
}

#[test]
fn a_gateway_that_does_not_read_keeps_no_worker() {
    for wrap in WRAPS {
        let (mut engine, mut gateway) = pair(wrap);
        let bytes = pattern(1, SIZE);
        let mut worker = Worker::new(&bytes);
        engine.link().send_answer_block(1, &answer_head(SIZE), worker.answer());
        assert!(engine.link().next_timer() <= clock::now() + PIN_TIME, "the link knows when");
        fill(&mut engine);
        let left = engine.link().queued_bytes();
        assert!((1..SIZE).contains(&left), "{left} bytes left, some of them out");
        assert_eq!(worker.dropped.take(), None, "the gateway has {left} bytes to take");
        engine.now = clock::now() + PIN_TIME;
        let mut dropped = None;
        engine.turn_until("the worker is free", |_| {
            dropped = dropped.or_else(|| worker.dropped.take());
            dropped.is_some()
        });
        worker.overwrite();
        assert!(gateway.heard.is_empty(), "the gateway has read nothing");
        both_until(&mut engine, &mut gateway, "it is there", |_, gateway| {
            !gateway.heard.is_empty()
        });
        assert!(is_answer(&gateway.heard, &bytes), "as it was before the worker went on");
    }
}

#[test]
fn a_slice_that_a_worker_may_overwrite_is_copied() {
    for wrap in WRAPS {
        let (mut engine, mut gateway) = pair(wrap);
        let bytes = pattern(1, SIZE);
        let mut worker = Worker::new(&bytes);
        let block = worker.answer();
        engine.link().send_answer(1, &answer_head(SIZE), Some(block.whole()));
        drop(block);
        worker.overwrite();
        both_until(&mut engine, &mut gateway, "it is there", |_, gateway| {
            !gateway.heard.is_empty()
        });
        assert!(is_answer(&gateway.heard, &bytes));
    }
}

#[test]
fn a_worker_goes_on_when_the_link_ends() {
    for wrap in WRAPS {
        let (mut engine, _gateway) = pair(wrap);
        let mut worker = Worker::new(&pattern(1, SIZE));
        engine.link().send_answer_block(1, &answer_head(SIZE), worker.answer());
        fill(&mut engine);
        assert_eq!(worker.dropped.take(), None);
        engine.close(None);
        while engine.reactor.in_flight() > 0 {
            engine.reactor.turn(Wait::Forever, &mut Vec::new()).unwrap();
        }
        assert_eq!(worker.dropped.take(), Some(TAG));
    }
}
