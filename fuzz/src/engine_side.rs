//! A container that writes anything anywhere in its memory, between any two steps of the engine. What
//! the engine takes from it is refused as a fault, or lies where and is as large as it may, and is what
//! the container wrote there; what the engine keeps in its own memory stays as it is.

use ipc::control::PACKET_MAX;
use ipc::engine_side::{EngineChannel, EngineLane};
use ipc::layout::{READY, RING_DEPTH};
use ipc::{Block, CallId, ENVELOPE_MAX, Geometry, LaneIndex, Outcome, Region, ToEngine, ToWorker};

use crate::input::Input;
use crate::shared::Shared;

const LANES: u16 = 2;
const PAYLOAD_MAX: u32 = 4000;
/// Steps at most: more of them find nothing that fewer do not.
const STEPS_MAX: usize = 200;

/// An engine's channel, and the stranger's mapping of B.
struct World {
    geometry: Geometry,
    channel: EngineChannel,
    b: Shared,
    /// Inbound blocks that are not released, with what was written into them.
    blocks: [Vec<(Block, Vec<u8>)>; LANES as usize],
    /// What the container has pushed, and what it could have popped, where it is honest.
    tails: [u32; LANES as usize],
    heads: [u32; LANES as usize],
}

/// Takes the bytes for the steps of both sides.
pub fn run(data: &[u8]) {
    let geometry = Geometry::new(LANES, PAYLOAD_MAX).expect("a possible geometry");
    let (channel, fds) = EngineChannel::create(geometry).expect("a channel");
    let b = Shared::map(&fds.b, geometry.b_size());
    let blocks = [const { Vec::new() }; LANES as usize];
    let mut world = World { geometry, channel, b, blocks, tails: [0; 2], heads: [0; 2] };
    for lane in 0..LANES {
        world.channel.open_lane(LaneIndex(lane)).expect("a closed lane is opened");
    }
    let mut input = Input::new(data);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        let word = input.u8();
        let lane = LaneIndex(u16::from(word) % LANES);
        match word / 2 % 16 {
            0..=5 => world.lie(lane, word / 2 % 16, &mut input),
            6 => world.speak(lane, &mut input),
            7 => drop(world.receive_all(lane)),
            8 => world.poll(),
            9 => world.send(lane, &mut input),
            10 => world.give_up(lane, &mut input),
            11 => world.release(lane, &mut input),
            12 => world.look_at(lane, &mut input),
            13 => world.reopen(lane),
            _ => world.doze(lane),
        }
    }
    for lane in 0..LANES {
        while let Some((block, written)) = world.blocks[usize::from(lane)].pop() {
            world.check_inbound(LaneIndex(lane), &block, &written);
        }
    }
}

impl World {
    fn lane(&mut self, lane: LaneIndex) -> &mut EngineLane {
        self.channel.lane(lane).expect("every lane is open between two steps")
    }

    /// Writes what an honest container would not.
    fn lie(&mut self, lane: LaneIndex, what: u8, input: &mut Input<'_>) {
        let geometry = self.geometry;
        let cursor = |near: u32, input: &mut Input<'_>| match input.u8() {
            byte @ 0..=127 => near.wrapping_add(u32::from(byte)).wrapping_sub(32),
            _ => input.u32(),
        };
        match what {
            0 => {
                let tail = cursor(self.tails[usize::from(lane.0)], input);
                self.b.write(geometry.to_engine_tail(lane), &tail.to_le_bytes());
            }
            1 => {
                let head = cursor(self.heads[usize::from(lane.0)], input);
                self.b.write(geometry.to_worker_head(lane), &head.to_le_bytes());
            }
            2 => {
                let slot = input.below(RING_DEPTH as usize);
                self.b.write(geometry.to_engine_slots(lane) + slot * 64, input.bytes(64));
            }
            3 => {
                let offset = input.below(2 * geometry.extent_size());
                let size = usize::from(input.u8());
                self.b.write(geometry.outbound(lane) + offset, input.bytes(size));
            }
            4 => self.b.write(READY, &input.array::<32>()),
            _ => self.b.write(geometry.sleeping(lane), &input.array::<4>()),
        }
    }

    /// Pushes a message of the right form, with any values in it.
    fn speak(&mut self, lane: LaneIndex, input: &mut Input<'_>) {
        let message = match input.u8() % 8 {
            0 => ToEngine::Started,
            1..=3 => ToEngine::Call {
                token: input.u32(),
                deadline_ns: input.u64(),
                released: Some(input.u32()).filter(|token| token % 2 == 0),
                block: any_block(input),
            },
            4 | 5 => ToEngine::Complete {
                call: CallId(input.u64()),
                outcome: Outcome::ALL[input.below(Outcome::ALL.len())],
                released: None,
                ran_ns: input.u32(),
                usage: None,
                block: any_block(input),
            },
            6 => ToEngine::Decline { call: CallId(input.u64()) },
            _ => ToEngine::Retired,
        };
        let tail = &mut self.tails[usize::from(lane.0)];
        let slot = (*tail % RING_DEPTH) as usize;
        let bytes: Vec<u8> =
            message.encode().0.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.b.write(self.geometry.to_engine_slots(lane) + slot * 64, &bytes);
        *tail = tail.wrapping_add(1);
        self.b.write(self.geometry.to_engine_tail(lane), &tail.to_le_bytes());
    }

    /// Takes all that a lane says, or its first fault. Without more lies it ends.
    fn receive_all(&mut self, lane: LaneIndex) -> Result<(), ipc::Fault> {
        for _ in 0..RING_DEPTH {
            let Some(message) = self.lane(lane).receive()? else { return Ok(()) };
            if let ToEngine::Call { block, .. } | ToEngine::Complete { block, .. } = message {
                self.check_outbound(lane, &block, matches!(message, ToEngine::Call { .. }));
            }
        }
        let more = self.lane(lane).receive()?;
        assert!(more.is_none(), "more than a ring holds: {more:?}");
        Ok(())
    }

    /// A block that was received: it lies in the lane's outbound region, and is read as it is there.
    fn check_outbound(&mut self, lane: LaneIndex, block: &Block, names_function: bool) {
        let geometry = self.geometry;
        let shared = self.lane(lane).outbound(block).expect("a received block was checked");
        let (envelope_size, payload_size) = (shared.envelope_size(), shared.payload_size());
        assert!(envelope_size <= ENVELOPE_MAX && payload_size <= PAYLOAD_MAX as usize);
        let offset = usize::try_from(block.offset).expect("within the region");
        assert!(offset + block.size() <= geometry.extent_size(), "outside of the region");
        let expected = self.b.read(geometry.outbound(lane) + offset, block.size());
        let (mut envelope, mut payload) = (vec![1, 2, 3], Vec::new());
        shared.copy_envelope(&mut envelope);
        shared.payload().append_to(&mut payload);
        assert_eq!([&envelope[..], &payload].concat(), expected);
        if names_function {
            let _ = ipc::envelope::parse_call(&envelope);
        } else {
            let _ = ipc::envelope::parse_reply(&envelope);
        }
    }

    /// What a shard does with a channel that was rung.
    fn poll(&mut self) {
        let ready = self.channel.take_ready();
        assert!(ready[1..].iter().all(|word| *word == 0) && ready[0] < 1 << LANES, "{ready:?}");
        for lane in (0..LANES).filter(|lane| ready[0] & 1 << lane != 0) {
            let _ = self.receive_all(LaneIndex(lane));
        }
        assert!(!self.channel.has_ready());
    }

    /// A call for the worker. A full ring and an impossible cursor are its faults.
    fn send(&mut self, lane: LaneIndex, input: &mut Input<'_>) {
        let envelope = input.below(PACKET_MAX);
        let payload = input.below(PAYLOAD_MAX as usize + 2);
        let filler = input.u8();
        let bytes = vec![filler; envelope + payload];
        let Ok(mut writer) = self.lane(lane).reserve(envelope, payload) else { return };
        assert!(payload <= PAYLOAD_MAX as usize);
        writer.write(&bytes[..envelope]);
        writer.write(&bytes[envelope..]);
        let block = writer.finish();
        self.blocks[usize::from(lane.0)].push((block, bytes));
        let message = ToWorker::Dispatch {
            call: CallId(input.u64()),
            depth: 1,
            deadline_ns: 2,
            results_read: 3,
            block,
        };
        if self.lane(lane).publish(&message).is_ok() {
            self.heads[usize::from(lane.0)] += 1;
        }
    }

    /// A block that is begun and not finished takes no room.
    fn give_up(&mut self, lane: LaneIndex, input: &mut Input<'_>) {
        let live = self.lane(lane).blocks_live();
        let size = input.below(PAYLOAD_MAX as usize);
        if let Ok(mut writer) = self.lane(lane).reserve(size / 2, size) {
            writer.write(&vec![0xee; size]);
        }
        assert_eq!(self.lane(lane).blocks_live(), live);
    }

    fn release(&mut self, lane: LaneIndex, input: &mut Input<'_>) {
        let blocks = &mut self.blocks[usize::from(lane.0)];
        if !blocks.is_empty() {
            let (block, written) = blocks.swap_remove(input.below(blocks.len()));
            self.check_inbound(lane, &block, &written);
            self.lane(lane).release(&block);
        }
    }

    /// A block as no message named it: located, or refused.
    fn look_at(&mut self, lane: LaneIndex, input: &mut Input<'_>) {
        let region = [Region::Small, Region::Large, Region::Outbound][input.below(3)];
        let block = Block { region, ..any_block(input) };
        if self.lane(lane).outbound(&block).is_ok() {
            assert_eq!(region, Region::Outbound);
            self.check_outbound(lane, &block, true);
        }
    }

    fn reopen(&mut self, lane: LaneIndex) {
        self.channel.close_lane(lane);
        assert!(self.channel.lane(lane).is_none());
        self.channel.open_lane(lane).expect("a closed lane is opened");
        let index = usize::from(lane.0);
        self.blocks[index].clear();
        (self.tails[index], self.heads[index]) = (0, 0);
        let first = self.lane(lane).receive().expect("an opened lane is empty");
        assert_eq!(first, None);
    }

    fn doze(&mut self, lane: LaneIndex) {
        self.channel.arm();
        let _ = (self.channel.has_ready(), self.lane(lane).must_ring());
        self.channel.disarm();
    }

    /// In A, which the container cannot write, a block is as it was filled. In B it is whatever the
    /// container makes of it, of the size that the engine gave it.
    fn check_inbound(&mut self, lane: LaneIndex, block: &Block, written: &[u8]) {
        let mut read = Vec::new();
        self.lane(lane).copy_inbound(block, &mut read);
        assert_eq!(read.len(), written.len());
        assert!(block.region == Region::Large || read == written, "{block:?}");
    }
}

/// Often within the region, sometimes at its edge, or anywhere.
fn any_block(input: &mut Input<'_>) -> Block {
    let (offset, envelope_size, payload_size) = match input.u8() % 4 {
        0 => (input.u64(), input.u32(), input.u32()),
        1 => (u64::MAX - u64::from(input.u8()), input.u16().into(), input.u16().into()),
        _ => (input.u32().into(), input.u8().into(), input.u16().into()),
    };
    Block { region: Region::Outbound, offset, envelope_size, payload_size }
}
