//! The honest part: hello, channels, workers that echo. What a lie needs is kept beside it: the
//! descriptors that an honest container closes, and raw access to the memory.

use std::collections::HashMap;
use std::error::Error;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use ipc::control::{ControlSocket, FromLauncher, PROTOCOL_VERSION, ToLauncher};
use ipc::worker_side::{WorkerChannel, WorkerLane};
use ipc::{Block, CallId, Fault, Geometry, LaneIndex, Outcome, Region, ToEngine, ToWorker};

use crate::forger::Forger;
use crate::lies;

/// An input that is not answered.
pub const HOLD: &[u8] = b"hold";
/// The input at which the lie is told.
pub const LIE: &[u8] = b"lie";

/// What all workers of the container have in common.
pub struct Container {
    pub lie: String,
    pub control: ControlSocket,
    /// A call that is not answered, for a lie that needs one.
    pub held: Mutex<Option<CallId>>,
}

/// One worker: its lane as an honest worker has it, and as a forger sees it.
pub struct Worker {
    pub container: Arc<Container>,
    pub shard: u16,
    pub lane: WorkerLane,
    pub forger: Forger,
    pub doorbell: OwnedFd,
}

/// A channel, and the descriptors that an honest container would have closed.
struct Channel {
    channel: Arc<WorkerChannel>,
    geometry: Geometry,
    a: Arc<OwnedFd>,
    b: Arc<OwnedFd>,
    bell: Arc<OwnedFd>,
}

/// Serves until the engine goes away or the lie ends it.
pub fn serve(socket: &Path, lie: &str) -> Result<(), Box<dyn Error>> {
    let control = ControlSocket::connect(socket)?;
    let pid = std::process::id();
    control.send_to_engine(&FromLauncher::Hello {
        version: PROTOCOL_VERSION,
        pid,
        interface: 2,
    })?;
    let container = Arc::new(Container { lie: lie.to_owned(), control, held: Mutex::new(None) });
    if lie == "control-deaf" {
        loop {
            thread::park();
        }
    }
    let mut channels: HashMap<u16, Channel> = HashMap::new();
    loop {
        let (message, fds) = container.control.receive_from_engine()?;
        match message {
            ToLauncher::Welcome { .. } => {}
            ToLauncher::Channel { shard, lanes, payload_max } => {
                channels.insert(shard, Channel::map(Geometry::new(lanes, payload_max)?, fds)?);
            }
            ToLauncher::Spawn { shard, lane, .. } => {
                let channel = channels.get(&shard).ok_or("a worker without a channel")?;
                let [doorbell] = <[OwnedFd; 1]>::try_from(fds).map_err(|_| "not one doorbell")?;
                channel.spawn(&container, shard, LaneIndex(lane), doorbell)?;
            }
            ToLauncher::Stop => return Ok(()),
        }
    }
}

impl Channel {
    fn map(geometry: Geometry, fds: Vec<OwnedFd>) -> Result<Channel, Box<dyn Error>> {
        let [a, b, bell] = <[OwnedFd; 3]>::try_from(fds).map_err(|_| "not three descriptors")?;
        let channel =
            WorkerChannel::map(geometry, a.try_clone()?, b.try_clone()?, bell.try_clone()?)?;
        let channel = Arc::new(channel);
        let [a, b, bell] = [a, b, bell].map(Arc::new);
        Ok(Channel { channel, geometry, a, b, bell })
    }

    fn spawn(
        &self,
        container: &Arc<Container>,
        shard: u16,
        lane: LaneIndex,
        doorbell: OwnedFd,
    ) -> Result<(), Box<dyn Error>> {
        let (a, b, bell) = (Arc::clone(&self.a), Arc::clone(&self.b), Arc::clone(&self.bell));
        let mut worker = Worker {
            container: Arc::clone(container),
            shard,
            lane: WorkerLane::new(Arc::clone(&self.channel), lane, doorbell.try_clone()?)?,
            forger: Forger::new(self.geometry, lane, a, b, bell)?,
            doorbell,
        };
        thread::spawn(move || {
            if let Err(fault) = worker.run() {
                eprintln!("hostile-worker: {fault}");
                std::process::abort();
            }
        });
        Ok(())
    }
}

impl Worker {
    fn run(&mut self) -> Result<(), Fault> {
        self.say(&ToEngine::Started)?;
        loop {
            match self.hear()? {
                ToWorker::Dispatch { call, deadline_ns, block, .. } => {
                    let input = self.lane.inbound(&block)?.1.to_vec();
                    match input.as_slice() {
                        HOLD => *self.container.held.lock().expect("no thread panics") = Some(call),
                        LIE => lies::tell(self, call, deadline_ns)?,
                        input => self.answer(call, &[], input)?,
                    }
                }
                ToWorker::Retire => return self.say(&ToEngine::Retired),
                ToWorker::Answer { .. } | ToWorker::Cancel { .. } => {}
            }
        }
    }

    /// The engine's next message.
    pub fn hear(&mut self) -> Result<ToWorker, Fault> {
        loop {
            match self.lane.receive()? {
                Some(message) => return Ok(message),
                None => self.lane.wait()?,
            }
        }
    }

    /// Publishes a message and wakes the engine.
    pub fn say(&mut self, message: &ToEngine) -> Result<(), Fault> {
        self.lane.publish(message)?;
        self.lane.ring()
    }

    /// Completes a call with these bytes, all at the start of the outbound region: one result at a
    /// time.
    pub fn answer(&mut self, call: CallId, envelope: &[u8], payload: &[u8]) -> Result<(), Fault> {
        let block = self.write(0, envelope, payload);
        self.say(&complete(call, block))
    }

    /// Writes a block at `offset` of the outbound region.
    pub fn write(&mut self, offset: u64, envelope: &[u8], payload: &[u8]) -> Block {
        self.forger.write_outbound(offset, envelope);
        self.forger.write_outbound(offset + envelope.len() as u64, payload);
        let size = |bytes: &[u8]| u32::try_from(bytes.len()).expect("it fits into a region");
        Block {
            region: Region::Outbound,
            offset,
            envelope_size: size(envelope),
            payload_size: size(payload),
        }
    }

    /// Descriptors of the container's side of the control socket.
    pub fn control(&self) -> impl AsFd {
        self.container.control.as_fd()
    }
}

/// The honest message that ends a call.
pub fn complete(call: CallId, block: Block) -> ToEngine {
    let (outcome, released, ran_ns, usage) = (Outcome::Ok, None, 1000, None);
    ToEngine::Complete { call, outcome, released, ran_ns, usage, block }
}
