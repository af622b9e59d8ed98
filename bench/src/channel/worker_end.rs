//! The worker's end of a bare channel, in its own process: receives until nothing is left, rings
//! once for all that it said, and sleeps as the runtime library does, with epoll on its doorbell.

use std::hint::spin_loop;
use std::time::Duration;

use ipc::worker_side::{OutboundBuffer, WorkerLane};
use ipc::{Block, CALLS_OUTSTANDING_MAX, CallId, Outcome, Region, ToEngine, ToWorker};
use nix::time::{ClockId, clock_gettime};

use super::measure::window;
use crate::case::Error;
use crate::page_buffer::PageBuffer;

/// What the worker does with what it is given.
#[derive(Clone, Copy, Debug)]
pub(super) enum Job {
    /// Answers each payload with its own bytes.
    Echo,
    /// Reads each payload, and answers with the time at which it had.
    Stamp,
    /// Answers with so many bytes, of which the first eight are the time before they were written.
    Produce(usize),
    /// Reads each payload, and answers with nothing.
    Consume,
    /// Makes calls of so many bytes, as many at once as the lane has room for.
    Call(usize),
}

/// What the worker does while there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    Sleep,
    Spin,
}

pub(super) struct Worker {
    lane: WorkerLane,
    patience: Patience,
    /// Where payloads are copied from and to.
    private: PageBuffer,
}

/// What a token, its index, names.
struct Outgoing {
    /// Of the call in flight.
    buffer: Option<OutboundBuffer>,
    was_answered: bool,
}

impl Worker {
    /// For payloads of `payload_max` bytes at most.
    pub(super) fn new(lane: WorkerLane, patience: Patience, payload_max: usize) -> Worker {
        Worker { lane, patience, private: PageBuffer::new(payload_max) }
    }

    /// Works until this process is ended.
    pub(super) fn work(mut self, job: Job) -> Result<(), Error> {
        ipc::rseq::leave();
        match job {
            Job::Call(size) => self.call(size),
            _ => self.serve(job),
        }
    }

    fn serve(&mut self, job: Job) -> Result<(), Error> {
        let mut answered: Option<OutboundBuffer> = None;
        loop {
            let (call, block) = match self.next()? {
                ToWorker::Dispatch { call, block, .. } => (call, block),
                other => return Err(unexpected("a dispatch", &other)),
            };
            // A dispatch gives back what the last answer lies in.
            if let Some(buffer) = answered.take() {
                self.lane.free(buffer);
            }
            let (_, input) = self.lane.inbound(&block)?;
            self.private.set(input);
            let now = now_ns().to_ne_bytes();
            match job {
                Job::Stamp => self.private.set(&now),
                Job::Produce(size) => {
                    self.private.resize(size);
                    self.private.bytes_mut()[..8].copy_from_slice(&now);
                }
                Job::Consume => self.private.resize(0),
                Job::Echo | Job::Call(_) => {}
            }
            let (buffer, block) = self.write()?;
            self.complete(call, block)?;
            answered = Some(buffer);
        }
    }

    fn complete(&mut self, call: CallId, block: Block) -> Result<(), Error> {
        let outcome = Outcome::Ok;
        Ok(self.lane.publish(&ToEngine::Complete {
            call,
            outcome,
            released: None,
            ran_ns: 0,
            usage: None,
            block,
        })?)
    }

    fn call(&mut self, size: usize) -> Result<(), Error> {
        self.private.resize(size);
        let mut outgoing: Vec<Outgoing> =
            (0..window(size)).map(|_| Outgoing { buffer: None, was_answered: false }).collect();
        let mut free: Vec<usize> = (0..outgoing.len()).collect();
        loop {
            while let Some(index) = free.pop() {
                let (buffer, block) = self.write()?;
                let token = u32::try_from(index).unwrap_or(CALLS_OUTSTANDING_MAX);
                let place = &mut outgoing[index];
                place.buffer = Some(buffer);
                // The token's last answer, if any, is done with.
                let released = place.was_answered.then_some(token);
                let deadline_ns = u64::MAX;
                self.lane.publish(&ToEngine::Call { token, deadline_ns, released, block })?;
            }
            // Waits for one answer, then takes all there are.
            let mut message = Some(self.next()?);
            while let Some(answer) = message {
                let ToWorker::Answer { token, .. } = answer else {
                    return Err(unexpected("an answer", &answer));
                };
                let index = token as usize;
                let place = &mut outgoing[index];
                place.was_answered = true;
                if let Some(buffer) = place.buffer.take() {
                    self.lane.free(buffer);
                }
                free.push(index);
                message = self.lane.receive()?;
            }
        }
    }

    /// Copies the private bytes into a new buffer.
    fn write(&mut self) -> Result<(OutboundBuffer, Block), Error> {
        let size = self.private.bytes().len();
        if size == 0 {
            let buffer = self.lane.allocate(0)?;
            return Ok((buffer, Block::empty(Region::Outbound)));
        }
        let buffer = self.lane.allocate(size)?;
        self.lane.outbound_mut(&buffer).copy_from_slice(self.private.bytes());
        let block = self.lane.block(&buffer, 0, size);
        Ok((buffer, block))
    }

    /// The next message. Before waiting, rings for what was published.
    fn next(&mut self) -> Result<ToWorker, Error> {
        if let Some(message) = self.lane.receive()? {
            return Ok(message);
        }
        self.lane.ring()?;
        loop {
            match self.patience {
                Patience::Sleep => self.lane.wait()?,
                Patience::Spin => spin_loop(),
            }
            if let Some(message) = self.lane.receive()? {
                return Ok(message);
            }
        }
    }
}

/// The time on the monotonic clock, which all processes share.
pub(super) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has this clock");
    crate::case::nanoseconds(Duration::from(now))
}

fn unexpected(expected: &'static str, got: &ToWorker) -> Error {
    Error::Unexpected { expected, got: format!("{got:?}") }
}
