//! One container as this shard sees it: its channel, made when the first worker is asked for, and what
//! each lane's worker holds of the channel's memory.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use ipc::control::ToLauncher;
use ipc::engine_side::{ChannelFds, EngineChannel, EngineLane, SharedBlock};
use ipc::{Block, CALLS_OUTSTANDING_MAX, CallId, Geometry, LaneIndex, PIPELINE_MAX};
use reactor::{Operation, Reactor};

use super::attention::Attention;
use super::token::Subject;
use crate::container::Container;
use crate::core::FunctionId;

/// Which shard's channels these are, and where their workers run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placement {
    pub(super) shard: u16,
    /// The core that this shard's workers are pinned to; none: the scheduler chooses.
    pub(super) core: Option<u16>,
}

/// See the module's description.
pub(super) struct Link {
    pub(super) container: Arc<Container>,
    /// Tells this link's events from those of a predecessor.
    pub(super) number: u16,
    geometry: Geometry,
    channel: Option<OpenChannel>,
}

pub(super) struct OpenChannel {
    pub(super) channel: EngineChannel,
    pub(super) lanes: Vec<LaneState>,
    poll: Operation,
    /// Whether the channel is polled by the shard's loop; otherwise its bell is armed.
    pub(super) watched: bool,
    /// What its container asks of the loop's time.
    pub(super) attention: Attention,
}

/// What a lane's worker holds.
pub(super) struct LaneState {
    /// Whether a worker was asked for and has not gone.
    pub(super) worker: bool,
    /// The inputs of the calls it was given: of the one that it runs, and of those behind it.
    pub(super) requests: Vec<(CallId, Block)>,
    /// Answers that it has not released, by token.
    pub(super) answers: Vec<(u32, Block)>,
    /// The result that it has just published, until it is on its way.
    pub(super) result: Option<SharedBlock>,
    /// The call whose result was published last.
    pub(super) completed: CallId,
    /// Results it published since its lane was opened, wrapping around; how many of them are known to
    /// be read, and how many are being read now.
    pub(super) results: u32,
    pub(super) results_read: u32,
    pub(super) results_held: u32,
    /// Whether something was published since its doorbell was last considered.
    pub(super) must_ring: bool,
}

impl LaneState {
    /// Of a lane that is closed.
    fn closed() -> Self {
        Self {
            worker: false,
            requests: Vec::new(),
            answers: Vec::new(),
            result: None,
            completed: CallId(0),
            results: 0,
            results_read: 0,
            results_held: 0,
            must_ring: false,
        }
    }

    /// Of a lane that is opened for a worker. Its calls, and answers to all it may have in flight, find
    /// room without an allocation on the dispatch path; only a worker that hoards them makes it grow.
    fn opened() -> Self {
        let answers = Vec::with_capacity(CALLS_OUTSTANDING_MAX as usize);
        let requests = Vec::with_capacity(1 + usize::from(PIPELINE_MAX));
        Self { worker: true, answers, requests, ..Self::closed() }
    }

    /// The input of a call that the worker was given, which is then the caller's to free.
    pub(super) fn take_request(&mut self, call: CallId) -> Option<Block> {
        let place = self.requests.iter().position(|(given, _)| *given == call)?;
        Some(self.requests.swap_remove(place).1)
    }

    /// One of the results is read. Whether none is being read any more, so that the worker may write
    /// over them all.
    pub(super) fn result_read(&mut self) -> bool {
        self.results_held = self.results_held.saturating_sub(1);
        if self.results_held == 0 {
            self.results_read = self.results;
        }
        self.results_held == 0
    }
}

impl Link {
    pub(super) fn new(container: Arc<Container>, number: u16, geometry: Geometry) -> Self {
        Self { container, number, geometry, channel: None }
    }

    pub(super) fn open(&mut self) -> Option<&mut OpenChannel> {
        self.channel.as_mut()
    }

    /// Whether a result of one of its workers is being read.
    pub(super) fn has_readers(&self) -> bool {
        let lanes = self.channel.iter().flat_map(|open| &open.lanes);
        lanes.into_iter().any(|lane| lane.results_held > 0)
    }

    pub(super) fn lane(&mut self, lane: LaneIndex) -> Option<(&mut EngineLane, &mut LaneState)> {
        let open = self.channel.as_mut()?;
        let state = open.lanes.get_mut(usize::from(lane.0))?;
        Some((open.channel.lane(lane)?, state))
    }

    /// Has the launcher start a worker for `lane`.
    pub(super) fn spawn(
        &mut self,
        reactor: &mut Reactor,
        function: FunctionId,
        lane: LaneIndex,
        placement: Placement,
    ) -> io::Result<()> {
        if self.channel.is_none() {
            self.channel = Some(self.make_channel(reactor, function, placement)?);
        }
        let open = self.channel.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let doorbell = open.channel.open_lane(lane)?;
        let order =
            ToLauncher::Spawn { shard: placement.shard, lane: lane.0, core: placement.core };
        if let Err(error) = self.container.control.send_to_launcher(&order, &[doorbell.as_fd()]) {
            open.channel.close_lane(lane);
            return Err(error);
        }
        if let Some(state) = open.lanes.get_mut(usize::from(lane.0)) {
            *state = LaneState::opened();
        }
        Ok(())
    }

    fn make_channel(
        &self,
        reactor: &mut Reactor,
        function: FunctionId,
        placement: Placement,
    ) -> io::Result<OpenChannel> {
        let (channel, ChannelFds { a, b, bell }) = EngineChannel::create(self.geometry)?;
        let order = ToLauncher::Channel {
            shard: placement.shard,
            lanes: self.geometry.lanes(),
            payload_max: self.geometry.payload_max(),
        };
        self.container.control.send_to_launcher(&order, &[a.as_fd(), b.as_fd(), bell.as_fd()])?;
        channel.arm();
        let token = Subject::Bell { function, link: self.number }.token();
        let poll = reactor.poll(channel.bell(), token);
        let lanes = (0..self.geometry.lanes()).map(|_| LaneState::closed()).collect();
        let (watched, attention) = (false, Attention::default());
        Ok(OpenChannel { channel, lanes, poll, watched, attention })
    }

    /// The worker of `lane` is gone; its place in the container is free.
    pub(super) fn close_lane(&mut self, lane: LaneIndex) {
        let Some(open) = self.channel.as_mut() else { return };
        let Some(state) = open.lanes.get_mut(usize::from(lane.0)) else { return };
        if state.worker {
            *state = LaneState::closed();
            open.channel.close_lane(lane);
            self.container.free_worker();
        }
    }

    /// Lets go of the channel. The kernel's poll is cancelled; its last event carries a stale number.
    pub(super) fn close(self, reactor: &mut Reactor) {
        if let Some(open) = self.channel {
            reactor.cancel(open.poll);
        }
    }
}
