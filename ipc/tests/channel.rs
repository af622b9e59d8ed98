//! A channel with both its sides in one process: what arrives, what is sealed, what is refused.
#![cfg(not(loom))]
#![allow(missing_docs, clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use ipc::engine_side::{ChannelFds, EngineChannel, SharedBlock};
use ipc::layout::INBOUND_SMALL;
use ipc::worker_side::{LaneError, WorkerChannel, WorkerLane};
use ipc::{
    Block, CallId, Fault, Geometry, LaneIndex, MapError, NoSpace, Outcome, Region, ToEngine,
    ToWorker,
};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mprotect, munmap};
use nix::unistd::ftruncate;

const LANE: LaneIndex = LaneIndex(1);

struct Pair {
    engine: EngineChannel,
    worker: WorkerLane,
    channel: Arc<WorkerChannel>,
    geometry: Geometry,
    /// The container's memory, for what an honest worker would not write.
    b: File,
}

fn pair(payload_max: u32) -> Pair {
    let geometry = Geometry::new(3, payload_max).unwrap();
    let (mut engine, fds) = EngineChannel::create(geometry).unwrap();
    let b = File::from(fds.b.try_clone().unwrap());
    let channel = Arc::new(WorkerChannel::map(geometry, fds.a, fds.b, fds.bell).unwrap());
    let doorbell = engine.open_lane(LANE).unwrap();
    let worker = WorkerLane::new(Arc::clone(&channel), LANE, doorbell).unwrap();
    Pair { engine, worker, channel, geometry, b }
}

impl Pair {
    fn send(&mut self, envelope: &[u8], payload: &[u8]) -> Block {
        let lane = self.engine.lane(LANE).unwrap();
        let mut writer = lane.reserve(envelope.len(), payload.len()).unwrap();
        writer.write(envelope);
        writer.write(payload);
        writer.finish()
    }

    fn scribble(&self, offset: usize, bytes: &[u8]) {
        self.b.write_all_at(bytes, offset as u64).unwrap();
    }

    /// Makes the engine see `words` as the lane's first message.
    fn inject(&self, words: [u64; 8]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.scribble(self.geometry.to_engine_slots(LANE), &bytes);
        self.scribble(self.geometry.to_engine_tail(LANE), &1u32.to_le_bytes());
    }

    fn engine_receives(&mut self) -> Result<Option<ToEngine>, Fault> {
        self.engine.lane(LANE).unwrap().receive()
    }
}

fn payload_of(block: &SharedBlock) -> Vec<u8> {
    let mut payload = Vec::new();
    block.payload().append_to(&mut payload);
    payload
}

#[test]
fn a_call_goes_to_the_worker_and_its_answer_comes_back() {
    let mut pair = pair(1 << 20);
    let block = pair.send(b"envelope", b"payload");
    let dispatch = ToWorker::Dispatch {
        call: CallId::new(1, 2),
        depth: 3,
        deadline_ns: u64::MAX,
        results_read: 0,
        block,
    };
    let lane = pair.engine.lane(LANE).unwrap();
    lane.publish(&dispatch).unwrap();
    assert!(!lane.must_ring(), "the worker is awake");

    assert_eq!(pair.worker.receive().unwrap(), Some(dispatch));
    assert_eq!(pair.worker.inbound(&block).unwrap(), (&b"envelope"[..], &b"payload"[..]));
    let buffer = pair.worker.allocate(11).unwrap();
    pair.worker.outbound_mut(&buffer).copy_from_slice(b"REPLYanswer");
    let reply = pair.worker.block(&buffer, 5, 6);
    let complete = ToEngine::Complete {
        call: CallId::new(1, 2),
        outcome: Outcome::Ok,
        released: None,
        ran_ns: 0,
        usage: None,
        block: reply,
    };
    assert!(!pair.engine.has_ready());
    pair.worker.publish(&complete).unwrap();

    assert!(pair.engine.has_ready());
    assert_eq!(pair.engine.take_ready(), [2, 0, 0, 0]);
    assert!(!pair.engine.has_ready());
    assert_eq!(pair.engine_receives().unwrap(), Some(complete));
    assert_eq!(pair.engine_receives().unwrap(), None);
    let lane = pair.engine.lane(LANE).unwrap();
    let shared = lane.outbound(&reply).unwrap();
    let mut envelope = b"old".to_vec();
    shared.copy_envelope(&mut envelope);
    assert_eq!((envelope, payload_of(&shared)), (b"REPLY".to_vec(), b"answer".to_vec()));
    lane.release(&block);
    assert_eq!(lane.blocks_live(), 0);
    pair.worker.free(buffer);
}

#[test]
fn a_block_is_copied_from_one_lane_to_another_through_either_region() {
    let mut pair = pair(1 << 20);
    pair.engine.open_lane(LaneIndex(0)).unwrap();
    for size in [0, 1, 1000, INBOUND_SMALL, INBOUND_SMALL + 1, 1 << 20] {
        let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        let buffer = pair.worker.allocate(size).unwrap();
        pair.worker.outbound_mut(&buffer).copy_from_slice(&bytes);
        let from = pair.worker.block(&buffer, 0, size);
        let shared = pair.engine.lane(LANE).unwrap().outbound(&from).unwrap();
        let lane = pair.engine.lane(LANE).unwrap();
        let mut writer = lane.reserve(0, size).unwrap();
        writer.write_shared(&shared.payload());
        let block = writer.finish();
        let region = if size <= INBOUND_SMALL { Region::Small } else { Region::Large };
        assert_eq!(block.region, region);
        assert_eq!(pair.worker.inbound(&block).unwrap().1, bytes);
        pair.engine.lane(LANE).unwrap().release(&block);
        pair.worker.free(buffer);
    }
    assert_eq!(pair.engine.lane(LANE).unwrap().blocks_live(), 0);
}

#[test]
fn an_unfinished_block_gives_its_memory_back() {
    let mut pair = pair(1 << 20);
    let lane = pair.engine.lane(LANE).unwrap();
    lane.reserve(10, 10).unwrap().write(b"half");
    assert_eq!(lane.blocks_live(), 0);
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_taken() {
    let mut pair = pair(4096);
    let lane = pair.engine.lane(LANE).unwrap();
    assert_eq!(lane.reserve(0, 4097).unwrap_err(), NoSpace { size: 4097 });
    assert_eq!(lane.reserve(64 * 1024 + 1, 0).unwrap_err(), NoSpace { size: 65537 });
    assert!(lane.reserve(usize::MAX, usize::MAX).is_err());
    // The largest blocks fill the small arena and the whole large extent, then there is no room.
    let mut blocks = Vec::new();
    while let Ok(mut writer) = lane.reserve(64 * 1024, 4096) {
        writer.write(&[1; 64 * 1024 + 4096]);
        blocks.push(writer.finish());
    }
    assert_eq!(blocks.len(), 4);
    blocks.iter().for_each(|block| lane.release(block));
    assert_eq!(lane.blocks_live(), 0);
    let extent = pair.geometry.extent_size();
    assert!(pair.worker.allocate(extent + 1).is_err());
    assert!(pair.worker.allocate(extent).is_ok());
}

#[test]
fn a_large_block_leaves_no_pages_behind() {
    let mut pair = pair(16 << 20);
    let blocks = |file: &File| file.metadata().unwrap().blocks() * 512;
    let before = blocks(&pair.b);
    let block = pair.send(b"", &vec![7; 16 << 20]);
    let buffer = pair.worker.allocate(16 << 20).unwrap();
    pair.worker.outbound_mut(&buffer).fill(7);
    assert!(blocks(&pair.b) >= before + (32 << 20));
    pair.engine.lane(LANE).unwrap().release(&block);
    pair.worker.free(buffer);
    assert!(blocks(&pair.b) <= before + (2 << 20), "1 MiB of each extent stays");
    // And both work as before.
    let block = pair.send(b"", &vec![8; 16 << 20]);
    assert!(pair.worker.inbound(&block).unwrap().1.iter().all(|&byte| byte == 8));
}

#[test]
fn the_engine_finds_a_ring_full_only_if_the_worker_leaves_it_unread() {
    let mut pair = pair(4096);
    let lane = pair.engine.lane(LANE).unwrap();
    for _ in 0..ipc::RING_DEPTH {
        lane.publish(&ToWorker::Cancel { call: CallId(1) }).unwrap();
    }
    assert!(matches!(lane.publish(&ToWorker::Retire), Err(Fault::Full)));
    pair.worker.receive().unwrap().unwrap();
    pair.engine.lane(LANE).unwrap().publish(&ToWorker::Retire).unwrap();
}

#[test]
fn a_hostile_cursor_is_a_fault_and_never_a_read_out_of_bounds() {
    for cursor in [65, 1000, u32::MAX, i32::MAX as u32] {
        let mut pair = pair(4096);
        pair.scribble(pair.geometry.to_engine_tail(LANE), &cursor.to_le_bytes());
        assert!(matches!(pair.engine_receives(), Err(Fault::Cursor(_))), "tail {cursor}");
        pair.scribble(pair.geometry.to_worker_head(LANE), &cursor.to_le_bytes());
        let lane = pair.engine.lane(LANE).unwrap();
        let fault = (0..=ipc::RING_DEPTH).find_map(|_| lane.publish(&ToWorker::Retire).err());
        assert!(matches!(fault, Some(Fault::Cursor(_))), "head {cursor}");
    }
    // Backward: the worker takes messages back.
    let mut pair = pair(4096);
    for _ in 0..3 {
        pair.worker.publish(&ToEngine::Release { token: 1 }).unwrap();
    }
    while pair.engine_receives().unwrap().is_some() {}
    pair.scribble(pair.geometry.to_engine_tail(LANE), &2u32.to_le_bytes());
    assert!(matches!(pair.engine_receives(), Err(Fault::Cursor(_))));
}

#[test]
fn hostile_words_are_faults() {
    let mut pair = pair(4096);
    pair.inject([0; 8]);
    assert!(matches!(pair.engine_receives(), Err(Fault::Descriptor(_))));
}

#[test]
fn hostile_blocks_are_faults() {
    let extent = Geometry::new(3, 4096).unwrap().extent_size() as u64;
    let cases = [
        (extent, 0, 1, "behind the region"),
        (extent - 1, 1, 1, "across its end"),
        (u64::MAX, 0, 1, "wraps around"),
        (u64::MAX - 4096, 4096, 4096, "wraps around"),
        (0, 64 * 1024 + 1, 0, "a large envelope"),
        (0, u32::MAX, u32::MAX, "huge sizes"),
        (0, 0, 4097, "above payload_max"),
    ];
    for (offset, envelope_size, payload_size, what) in cases {
        let mut pair = pair(4096);
        let block = Block { region: Region::Outbound, offset, envelope_size, payload_size };
        let complete = ToEngine::Complete {
            call: CallId(1),
            outcome: Outcome::Ok,
            released: None,
            ran_ns: 0,
            usage: None,
            block,
        };
        pair.inject(complete.encode().0);
        let fault = pair.engine_receives().unwrap_err();
        assert!(
            matches!(
                fault,
                Fault::OutOfRange { .. } | Fault::EnvelopeSize { .. } | Fault::PayloadSize { .. }
            ),
            "{what}: {fault}"
        );
        assert!(pair.engine.lane(LANE).unwrap().outbound(&block).is_err(), "{what}");
    }
    let mut pair = pair(4096);
    let lane = pair.engine.lane(LANE).unwrap();
    for region in [Region::Small, Region::Large] {
        assert!(matches!(lane.outbound(&Block::empty(region)), Err(Fault::Region(_))));
    }
    let largest = Block {
        region: Region::Outbound,
        offset: extent - 64 * 1024 - 4096,
        envelope_size: 64 * 1024,
        payload_size: 4096,
    };
    assert!(lane.outbound(&largest).is_ok(), "the last bytes are the lane's own");
}

#[test]
fn ready_bits_of_lanes_that_are_not_open_are_ignored() {
    let mut pair = pair(4096);
    pair.scribble(ipc::layout::READY, &[0xff; 32]);
    assert!(pair.engine.has_ready());
    assert_eq!(pair.engine.take_ready(), [2, 0, 0, 0]);
    pair.engine.close_lane(LANE);
    pair.scribble(ipc::layout::READY, &[0xff; 32]);
    assert!(!pair.engine.has_ready());
    assert_eq!(pair.engine.take_ready(), [0; 4]);
    assert!(pair.engine.lane(LANE).is_none());
    assert!(pair.engine.lane(LaneIndex(3)).is_none());
}

#[test]
fn a_block_stays_readable_when_its_lane_and_channel_are_gone() {
    let mut pair = pair(4096);
    let buffer = pair.worker.allocate(4).unwrap();
    pair.worker.outbound_mut(&buffer).copy_from_slice(b"late");
    let block = pair.worker.block(&buffer, 0, 4);
    let shared = pair.engine.lane(LANE).unwrap().outbound(&block).unwrap();
    pair.engine.close_lane(LANE);
    drop(pair);
    assert_eq!(payload_of(&shared), b"late");
}

#[test]
fn copied_bytes_go_into_a_lane_like_a_workers_and_stay_while_a_part_is_held() {
    let copy = SharedBlock::from_bytes(b"REPLYanswer".to_vec(), 5);
    assert_eq!((copy.envelope_size(), copy.payload_size()), (5, 6));
    assert_eq!(payload_of(&copy), b"answer");
    let mut pair = pair(1 << 20);
    let lane = pair.engine.lane(LANE).unwrap();
    let mut writer = lane.reserve(copy.envelope_size(), copy.payload_size()).unwrap();
    writer.write_shared(&copy.whole());
    let block = writer.finish();
    assert_eq!(pair.worker.inbound(&block).unwrap(), (&b"REPLY"[..], &b"answer"[..]));
    let part = copy.payload().slice(2..6);
    drop(copy);
    let mut bytes = Vec::new();
    part.append_to(&mut bytes);
    assert_eq!(bytes, b"swer");
    let none = SharedBlock::from_bytes(Vec::new(), 0);
    assert!(none.whole().is_empty());
}

#[test]
fn a_lane_is_opened_again_after_it_retired() {
    let mut pair = pair(4096);
    for _ in 0..100 {
        pair.engine.lane(LANE).unwrap().publish(&ToWorker::Retire).unwrap();
        assert_eq!(pair.worker.receive().unwrap(), Some(ToWorker::Retire));
        pair.worker.publish(&ToEngine::Retired).unwrap();
        assert!(matches!(pair.worker.publish(&ToEngine::Started), Err(Fault::Retired)));
        assert!(matches!(pair.worker.receive(), Err(Fault::Retired)));
        assert!(matches!(pair.worker.wait(), Err(Fault::Retired)));
        assert_eq!(pair.engine_receives().unwrap(), Some(ToEngine::Retired));
        pair.engine.close_lane(LANE);
        let doorbell = pair.engine.open_lane(LANE).unwrap();
        // The old worker's lane still exists here, as it may in a container.
        pair.worker = WorkerLane::new(Arc::clone(&pair.channel), LANE, doorbell).unwrap();
        pair.worker.publish(&ToEngine::Started).unwrap();
        assert_eq!(pair.engine_receives().unwrap(), Some(ToEngine::Started));
    }
}

#[test]
fn a_lane_has_one_worker_and_must_exist() {
    let mut pair = pair(4096);
    assert!(pair.engine.open_lane(LANE).is_err());
    assert!(pair.engine.open_lane(LaneIndex(3)).is_err());
    let fd = || File::open("/dev/null").map(OwnedFd::from).unwrap();
    let lane = |index, fd| WorkerLane::new(Arc::clone(&pair.channel), LaneIndex(index), fd);
    assert!(matches!(lane(3, fd()), Err(LaneError::NoSuchLane(3, 3))));
    assert!(matches!(lane(2, fd()), Err(LaneError::System(_))), "a file has no edges");
    let doorbell = OwnedFd::from(nix::sys::eventfd::EventFd::new().unwrap());
    assert!(matches!(lane(1, doorbell), Err(LaneError::Claimed(1))));
}

#[test]
fn each_ring_wakes_a_sleeper_though_nobody_reads_the_counter() {
    let mut pair = pair(4096);
    let doorbell = pair.engine.lane(LANE).unwrap().doorbell().try_clone_to_owned().unwrap();
    // As the engine rings, which adds nothing to the counter.
    let ring = || nix::unistd::write(&doorbell, &0u64.to_ne_bytes()).unwrap();
    // A ring before the sleep is an edge too; a lost one would hang here.
    for _ in 0..100 {
        ring();
        pair.worker.wait().unwrap();
    }
    let mut counter = [0; 8];
    nix::unistd::read(&doorbell, &mut counter).unwrap();
    assert_eq!(u64::from_ne_bytes(counter), 1, "the worker has never read it");
    // With a message there, no ring is needed.
    pair.engine.lane(LANE).unwrap().publish(&ToWorker::Retire).unwrap();
    pair.worker.wait().unwrap();
}

#[test]
fn workers_ring_only_an_armed_engine() {
    let mut pair = pair(4096);
    let rings = |pair: &mut Pair| {
        pair.worker.publish(&ToEngine::Release { token: 1 }).unwrap();
        pair.worker.ring().unwrap();
        let mut counter = [0; 8];
        match nix::unistd::read(pair.engine.bell(), &mut counter) {
            Ok(_) => u64::from_ne_bytes(counter),
            Err(error) => {
                assert_eq!(error, Errno::EAGAIN, "the bell does not block");
                0
            }
        }
    };
    assert_eq!(rings(&mut pair), 0);
    pair.engine.arm();
    assert_eq!(rings(&mut pair), 1);
    pair.engine.disarm();
    assert_eq!(rings(&mut pair), 0);
    // A counter that is full is no error: the engine has been rung.
    pair.engine.arm();
    nix::unistd::write(pair.engine.bell(), &(u64::MAX - 1).to_ne_bytes()).unwrap();
    pair.worker.ring().unwrap();
}

#[test]
fn a_container_can_neither_write_a_nor_resize_either_memory() {
    let geometry = Geometry::new(1, 4096).unwrap();
    let (_engine, ChannelFds { a, b, bell: _ }) = EngineChannel::create(geometry).unwrap();
    let size = NonZeroUsize::new(geometry.a_size()).unwrap();
    let map = |protection| {
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        unsafe { mmap(None, size, protection, MapFlags::MAP_SHARED, &a, 0) }
    };
    assert_eq!(map(ProtFlags::PROT_READ | ProtFlags::PROT_WRITE), Err(Errno::EPERM));
    assert_eq!(map(ProtFlags::PROT_WRITE), Err(Errno::EPERM));
    let readable = map(ProtFlags::PROT_READ).unwrap();
    // SAFETY: our own mapping, to which there are no references.
    let widened = unsafe { mprotect(readable, size.get(), ProtFlags::PROT_WRITE) };
    assert_eq!(widened, Err(Errno::EACCES));
    // SAFETY: as above; it is not used again.
    unsafe { munmap(readable, size.get()) }.unwrap();
    assert_eq!(nix::unistd::write(&a, b"x"), Err(Errno::EPERM));
    let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    assert_eq!(fallocate(&a, hole, 0, 4096), Err(Errno::EPERM));
    for (fd, size) in [(&a, geometry.a_size()), (&b, geometry.b_size())] {
        let size = i64::try_from(size).unwrap();
        assert_eq!(ftruncate(fd, size - 4096), Err(Errno::EPERM));
        assert_eq!(ftruncate(fd, size + 4096), Err(Errno::EPERM));
        let seal = fcntl(fd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE));
        assert_eq!(seal, Err(Errno::EPERM), "nor can it take B away from the engine");
    }
}

#[test]
fn memories_that_are_not_the_agreed_ones_are_refused() {
    let geometry = Geometry::new(2, 4096).unwrap();
    let make = |geometry| EngineChannel::create(geometry).unwrap().1;
    let map = |geometry, fds: ChannelFds| WorkerChannel::map(geometry, fds.a, fds.b, fds.bell);
    assert!(map(geometry, make(geometry)).is_ok());
    let other = Geometry::new(3, 4096).unwrap();
    assert!(matches!(map(other, make(geometry)), Err(MapError::Size { memory: "A", .. })));
    let other = Geometry::new(2, 8192).unwrap();
    assert!(matches!(map(other, make(geometry)), Err(MapError::Size { memory: "B", .. })));
    // The same pages, another limit: only the header tells.
    let other = Geometry::new(2, 4095).unwrap();
    assert!(matches!(
        map(other, make(geometry)),
        Err(MapError::Header { field: "payload_max", expected: 4095, got: 4096 })
    ));
    let swapped = |fds: ChannelFds| ChannelFds { a: fds.b, b: fds.a, bell: fds.bell };
    assert!(matches!(
        map(geometry, swapped(make(geometry))),
        Err(MapError::Seals { memory: "A", .. })
    ));
    let null = || File::open("/dev/null").map(OwnedFd::from).unwrap();
    assert!(map(geometry, ChannelFds { a: null(), b: null(), bell: null() }).is_err());
}
