//! An engine that writes anything anywhere in A, and in B. A worker trusts its engine with what a call
//! says, not with its own memory: what cannot be is a fault, and a block is read within its region.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use ipc::layout::{ENGINE_ARMED, HEADER, LAYOUT_VERSION, MAGIC, RING_DEPTH};
use ipc::worker_side::{OutboundBuffer, WorkerChannel, WorkerLane};
use ipc::{
    Block, CallId, ENVELOPE_MAX, Fault, Geometry, LaneIndex, Outcome, Region, ToEngine, ToWorker,
};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::input::Input;
use crate::shared::Shared;

const LANES: u16 = 2;
const LANE: LaneIndex = LaneIndex(1);
const PAYLOAD_MAX: u32 = 4000;
const STEPS_MAX: usize = 200;

/// A worker's lane, and the engine's mappings of both memories.
struct World {
    geometry: Geometry,
    lane: WorkerLane,
    a: Shared,
    b: Shared,
    /// What the engine has pushed, where it is honest.
    tail: u32,
    /// What the worker has pushed.
    pushed: u32,
    buffers: Vec<(OutboundBuffer, u8)>,
}

/// Takes the bytes for the header of A, then for the steps of both sides.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let Some(mut world) = World::meet(&mut input) else { return };
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        let outcome = match input.u8() % 16 {
            what @ 0..=4 => {
                world.lie(what, &mut input);
                Ok(())
            }
            5 | 6 => {
                world.speak(&mut input);
                Ok(())
            }
            7 => world.receive_all(),
            8 => world.sleep(),
            9 | 10 => world.publish(&mut input),
            11 => {
                world.free(&mut input);
                Ok(())
            }
            12 => world.look_at(&mut input),
            _ => world.lane.ring(),
        };
        // A worker ends with its first fault.
        if outcome.is_err() {
            break;
        }
    }
    world.check_buffers();
}

impl World {
    /// The memories as an engine passes them; `None` if the container refuses them.
    fn meet(input: &mut Input<'_>) -> Option<World> {
        let geometry = Geometry::new(LANES, PAYLOAD_MAX).expect("a possible geometry");
        let (a_fd, b_fd) = (memory(geometry.a_size()), memory(geometry.b_size()));
        let a = Shared::map(&a_fd, geometry.a_size());
        let b = Shared::map(&b_fd, geometry.b_size());
        let mut header = MAGIC.to_le_bytes().to_vec();
        for word in [LAYOUT_VERSION, u32::from(LANES), PAYLOAD_MAX] {
            header.extend(word.to_le_bytes());
        }
        a.write(HEADER, &header);
        let change = input.u8();
        if change != 0 {
            a.write(HEADER + usize::from(change) % header.len(), &[input.u8()]);
        }
        let sealed = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        seal(&a_fd, sealed | SealFlag::F_SEAL_FUTURE_WRITE);
        seal(&b_fd, sealed);
        let (intact, bell) = (a.read(HEADER, header.len()) == header, eventfd());
        let mapped = WorkerChannel::map(geometry, a_fd, b_fd, bell);
        assert_eq!(mapped.is_ok(), intact, "{mapped:?}");
        let channel = Arc::new(mapped.ok()?);
        let lane = WorkerLane::new(Arc::clone(&channel), LANE, eventfd()).expect("a free lane");
        assert!(WorkerLane::new(channel, LANE, eventfd()).is_err(), "a lane has one worker");
        Some(World { geometry, lane, a, b, tail: 0, pushed: 0, buffers: Vec::new() })
    }

    /// Writes what an honest engine would not.
    fn lie(&mut self, what: u8, input: &mut Input<'_>) {
        let geometry = self.geometry;
        let cursor = |near: u32, input: &mut Input<'_>| match input.u8() {
            byte @ 0..=127 => near.wrapping_add(u32::from(byte)).wrapping_sub(32),
            _ => input.u32(),
        };
        match what {
            0 => {
                let tail = cursor(self.tail, input);
                self.a.write(geometry.to_worker_tail(LANE), &tail.to_le_bytes());
            }
            1 => {
                let head = cursor(self.pushed, input);
                self.a.write(geometry.to_engine_head(LANE), &head.to_le_bytes());
            }
            2 => {
                let slot = input.below(RING_DEPTH as usize);
                self.a.write(geometry.to_worker_slots(LANE) + slot * 64, input.bytes(64));
            }
            3 => {
                let offset = input.below(geometry.extent_size());
                let size = usize::from(input.u8());
                let bytes = input.bytes(size);
                self.a.write(geometry.small(LANE) + offset, bytes);
                self.b.write(geometry.large(LANE) + offset, bytes);
            }
            _ => self.a.write(ENGINE_ARMED, &input.array::<4>()),
        }
    }

    /// Pushes a message of the right form, with any values in it.
    fn speak(&mut self, input: &mut Input<'_>) {
        let message = match input.u8() % 8 {
            0..=3 => ToWorker::Dispatch {
                call: CallId(input.u64()),
                depth: input.u16(),
                deadline_ns: input.u64(),
                results_read: input.u32(),
                block: any_block(input),
            },
            4 | 5 => ToWorker::Answer {
                token: input.u32(),
                outcome: Outcome::ALL[input.below(Outcome::ALL.len())],
                block: any_block(input),
            },
            6 => ToWorker::Cancel { call: CallId(input.u64()) },
            _ => ToWorker::Retire,
        };
        let slot = (self.tail % RING_DEPTH) as usize;
        let bytes: Vec<u8> =
            message.encode().0.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.a.write(self.geometry.to_worker_slots(LANE) + slot * 64, &bytes);
        self.tail = self.tail.wrapping_add(1);
        self.a.write(self.geometry.to_worker_tail(LANE), &self.tail.to_le_bytes());
    }

    fn receive_all(&mut self) -> Result<(), Fault> {
        for _ in 0..RING_DEPTH {
            match self.lane.receive()? {
                Some(ToWorker::Dispatch { block, .. } | ToWorker::Answer { block, .. }) => {
                    self.check_inbound(&block)?;
                }
                Some(_) => {}
                None => return Ok(()),
            }
        }
        assert_eq!(self.lane.receive()?, None, "more than a ring holds");
        Ok(())
    }

    /// A block is refused, or read as it lies in its region.
    fn check_inbound(&self, block: &Block) -> Result<(), Fault> {
        let geometry = self.geometry;
        let (envelope, payload) = self.lane.inbound(block)?;
        assert!(envelope.len() <= ENVELOPE_MAX && payload.len() <= PAYLOAD_MAX as usize);
        let (memory, start, region_size) = match block.region {
            Region::Small => (&self.a, geometry.small(LANE), ipc::layout::INBOUND_SMALL),
            _ => (&self.b, geometry.large(LANE), geometry.extent_size()),
        };
        let offset = usize::try_from(block.offset).expect("within the region");
        assert!(offset + block.size() <= region_size, "outside of the region");
        assert_eq!([envelope, payload].concat(), memory.read(start + offset, block.size()));
        let _ = (ipc::envelope::parse_request(envelope), ipc::envelope::parse_reply(envelope));
        Ok(())
    }

    fn look_at(&mut self, input: &mut Input<'_>) -> Result<(), Fault> {
        let region = [Region::Small, Region::Large, Region::Outbound][input.below(3)];
        let block = Block { region, ..any_block(input) };
        let seen = self.check_inbound(&block);
        assert!(
            region != Region::Outbound || seen.is_err(),
            "a block that the engine cannot write"
        );
        Ok(())
    }

    /// Only where there is something to wake up for: nobody would ring.
    fn sleep(&mut self) -> Result<(), Fault> {
        if self.lane.has_next()? { self.lane.wait() } else { Ok(()) }
    }

    /// Room, bytes and a message about them. Only where the engine leaves room in the ring: for that
    /// a worker waits.
    fn publish(&mut self, input: &mut Input<'_>) -> Result<(), Fault> {
        let (size, filler) = (input.below(3 * PAYLOAD_MAX as usize), input.u8());
        let Ok(buffer) = self.lane.allocate(size) else { return Ok(()) };
        assert_eq!(buffer.size(), size);
        self.lane.outbound_mut(&buffer).fill(filler);
        let block = self.lane.block(&buffer, size / 3, size / 2);
        self.buffers.push((buffer, filler));
        let head = self.a.word(self.geometry.to_engine_head(LANE));
        if self.pushed.wrapping_sub(head) == RING_DEPTH {
            return Ok(());
        }
        let token = input.u32();
        self.lane.publish(&ToEngine::Call { token, deadline_ns: 1, released: None, block })?;
        self.pushed = self.pushed.wrapping_add(1);
        Ok(())
    }

    fn free(&mut self, input: &mut Input<'_>) {
        if !self.buffers.is_empty() {
            let (buffer, _) = self.buffers.swap_remove(input.below(self.buffers.len()));
            self.lane.free(buffer);
        }
    }

    /// What the worker wrote for the engine is where it wrote it.
    fn check_buffers(&mut self) {
        for (buffer, filler) in &self.buffers {
            let bytes = self.lane.outbound_mut(buffer);
            assert!(bytes.iter().all(|byte| byte == filler), "{buffer:?}");
        }
    }
}

fn memory(size: usize) -> OwnedFd {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let fd = memfd_create(c"nightcore-fuzz", flags).expect("a memory");
    nix::unistd::ftruncate(&fd, i64::try_from(size).expect("small")).expect("room");
    fd
}

fn seal(fd: &OwnedFd, seals: SealFlag) {
    fcntl(fd.as_fd(), FcntlArg::F_ADD_SEALS(seals)).expect("a memory can be sealed");
}

fn eventfd() -> OwnedFd {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    EventFd::from_value_and_flags(0, flags).expect("an eventfd").into()
}

/// Often within the region, sometimes at its edge, or anywhere.
fn any_block(input: &mut Input<'_>) -> Block {
    let region = [Region::Small, Region::Large][input.below(2)];
    let (offset, envelope_size, payload_size) = match input.u8() % 4 {
        0 => (input.u64(), input.u32(), input.u32()),
        1 => (u64::MAX - u64::from(input.u8()), input.u16().into(), input.u16().into()),
        _ => (input.u16().into(), input.u8().into(), input.u16().into()),
    };
    Block { region, offset, envelope_size, payload_size }
}
