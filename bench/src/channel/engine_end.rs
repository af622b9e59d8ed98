//! The engine's end of a bare channel, in this process: reads the lane until nothing is left, rings
//! once for all that it said, arms, looks once more, and sleeps: a shard's loop with one lane.

use std::collections::VecDeque;
use std::hint::spin_loop;

use ipc::engine_side::EngineChannel;
use ipc::worker_side::{WorkerChannel, WorkerLane};
use ipc::{Block, Geometry, LaneIndex, NoSpace, ToEngine, ToWorker};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use reactor::{Config, Event, Reactor, Token, Wait};

use super::worker_end::{Job, Patience, Worker};
use crate::case::Error;
use crate::page_buffer::PageBuffer;
use crate::process::{Peer, Placement, Seated};

const LANE: LaneIndex = LaneIndex(0);
const BELL: Token = Token(0);
const DOORBELL: Token = Token(1);
/// What a ring adds to a doorbell: nothing, as `ipc` makes it to be rung.
const RING: [u8; 8] = [0; 8];

/// How the engine's end waits for the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    /// For an edge of the bell, with epoll; rings by `write`. One system call each.
    Epoll,
    /// By the shards' loop: rings and waits with one `io_uring_enter`.
    Reactor,
    /// Never sleeps, and neither does the worker: nobody rings.
    Spin,
}

/// The engine's end, the worker's process, and their seats.
pub(super) struct EngineEnd {
    channel: EngineChannel,
    waiter: Waiter,
    /// The lane's ready bit was taken, and it has not been empty since.
    reading: bool,
    /// Something was published since the last flush.
    unrung: bool,
    /// Blocks that the worker has not given back, oldest first.
    lent: VecDeque<Block>,
    rings: u64,
    _seated: Seated,
    _worker: Peer,
}

enum Waiter {
    Epoll(Epoll),
    Reactor { reactor: Box<Reactor>, events: Vec<Event> },
    Spin,
}

impl Waiting {
    pub(super) fn title(self) -> &'static str {
        match self {
            Waiting::Epoll => "",
            Waiting::Reactor => " by the reactor",
            Waiting::Spin => ", both spinning",
        }
    }
}

impl EngineEnd {
    /// Makes a channel of one lane and a process that does `job` at its other end.
    pub(super) fn open(
        geometry: Geometry,
        waiting: Waiting,
        placement: Placement,
        job: Job,
    ) -> Result<EngineEnd, Error> {
        let [here, there] = placement.seats()?;
        let (mut channel, fds) = EngineChannel::create(geometry)?;
        let doorbell = channel.open_lane(LANE)?;
        let patience = if waiting == Waiting::Spin { Patience::Spin } else { Patience::Sleep };
        let worker = Peer::fork(move || {
            let _seated = there.take()?;
            let channel = WorkerChannel::map(geometry, fds.a, fds.b, fds.bell)?;
            let lane = WorkerLane::new(channel.into(), LANE, doorbell)?;
            Worker::new(lane, patience, geometry.payload_max() as usize).work(job)
        })?;
        let seated = here.take()?;
        // As every shard does, and the worker at its end.
        ipc::rseq::leave();
        let waiter = Waiter::new(waiting, &channel)?;
        if waiting != Waiting::Spin {
            channel.arm();
        }
        Ok(EngineEnd {
            channel,
            waiter,
            reading: false,
            unrung: false,
            lent: VecDeque::with_capacity(ipc::arena::BLOCKS_MAX),
            rings: 0,
            _seated: seated,
            _worker: worker,
        })
    }

    /// Doorbells rung so far.
    pub(super) fn rings(&self) -> u64 {
        self.rings
    }

    /// Publishes a message; `flush` comes after the last of a batch.
    pub(super) fn publish(&mut self, message: &ToWorker) -> Result<(), Error> {
        self.unrung = true;
        Ok(lane(&mut self.channel).publish(message)?)
    }

    /// A block with `payload`, the engine's until `take_back`.
    pub(super) fn lend(&mut self, payload: &[u8]) -> Result<Block, NoSpace> {
        let mut writer = lane(&mut self.channel).reserve(0, payload.len())?;
        writer.write(payload);
        let block = writer.finish();
        self.lent.push_back(block);
        Ok(block)
    }

    /// Frees the oldest block lent.
    pub(super) fn take_back(&mut self) {
        if let Some(block) = self.lent.pop_front() {
            lane(&mut self.channel).release(&block);
        }
    }

    /// Blocks lent.
    pub(super) fn lent(&self) -> usize {
        self.lent.len()
    }

    /// Replaces `out` with the payload of a block of the worker's.
    pub(super) fn read(&mut self, block: &Block, out: &mut PageBuffer) -> Result<(), Error> {
        out.set_shared(&lane(&mut self.channel).outbound(block)?.payload());
        Ok(())
    }

    /// Rings the worker if it sleeps and was told something.
    pub(super) fn flush(&mut self) -> Result<(), Error> {
        let lane = lane(&mut self.channel);
        if !std::mem::take(&mut self.unrung) || !lane.must_ring() {
            return Ok(());
        }
        self.rings += 1;
        match &mut self.waiter {
            Waiter::Reactor { reactor, .. } => reactor.ring_doorbell(lane.doorbell(), DOORBELL),
            Waiter::Epoll(_) | Waiter::Spin => {
                nix::unistd::write(lane.doorbell(), &RING)?;
            }
        }
        Ok(())
    }

    /// The worker's next message, if it is there.
    pub(super) fn look(&mut self) -> Result<Option<ToEngine>, Error> {
        loop {
            if self.reading {
                let message = lane(&mut self.channel).receive()?;
                self.reading = message.is_some();
                if message.is_some() {
                    return Ok(message);
                }
            }
            self.reading = self.channel.take_ready()[0] != 0;
            if !self.reading {
                return Ok(None);
            }
        }
    }

    /// The worker's next message. Flushes before it sleeps.
    pub(super) fn next(&mut self) -> Result<ToEngine, Error> {
        loop {
            if let Some(message) = self.look()? {
                return Ok(message);
            }
            self.flush()?;
            self.waiter.sleep(&self.channel)?;
        }
    }
}

impl Waiter {
    fn new(waiting: Waiting, channel: &EngineChannel) -> Result<Waiter, Error> {
        Ok(match waiting {
            Waiting::Epoll => {
                let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
                let edges = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
                epoll.add(channel.bell(), EpollEvent::new(edges, 0))?;
                Waiter::Epoll(epoll)
            }
            Waiting::Reactor => {
                let mut reactor = Box::new(Reactor::new(&Config::default())?);
                reactor.poll(channel.bell(), BELL);
                Waiter::Reactor { reactor, events: Vec::new() }
            }
            Waiting::Spin => Waiter::Spin,
        })
    }

    /// Returns when the worker may have said something.
    fn sleep(&mut self, channel: &EngineChannel) -> Result<(), Error> {
        if let Waiter::Spin = self {
            spin_loop();
            return Ok(());
        }
        channel.arm();
        let is_ready = channel.has_ready();
        match self {
            Waiter::Epoll(epoll) if !is_ready => {
                match epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::NONE) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Waiter::Reactor { reactor, events } => {
                reactor.turn(if is_ready { Wait::Not } else { Wait::Forever }, events)?;
                for event in events.drain(..) {
                    let Event::Polled { token: BELL } = event else {
                        let got = format!("{event:?}");
                        return Err(Error::Unexpected { expected: "a ring of the bell", got });
                    };
                }
            }
            Waiter::Epoll(_) | Waiter::Spin => {}
        }
        channel.disarm();
        Ok(())
    }
}

fn lane(channel: &mut EngineChannel) -> &mut ipc::engine_side::EngineLane {
    channel.lane(LANE).expect("opened with the channel, and never closed")
}
