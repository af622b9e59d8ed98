//! What is measured of a channel, from the engine's end.

use std::time::Instant;

use hdrhistogram::Histogram;
use ipc::layout::RESIDENT_MAX;
use ipc::{
    Block, CALLS_OUTSTANDING_MAX, CallId, Geometry, Outcome, RING_DEPTH, Region, ToEngine, ToWorker,
};

use super::engine_end::{EngineEnd, Waiting};
use super::worker_end::{Job, now_ns};
use crate::case::{Error, Rounds, histogram, nanoseconds};
use crate::page_buffer::PageBuffer;
use crate::process::Placement;
use crate::sample::Sample;

const CALL: CallId = CallId(1);
/// Bytes of all payloads of a case at most, so that the largest take no longer than the smallest.
const BYTES_MAX: usize = 2 << 30;

/// Messages that are read before the worker is rung: as a shard, which reads at most this from a
/// lane and turns.
const BATCH_MAX: u64 = RING_DEPTH as u64;

/// Which way the payloads go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    ToWorker,
    ToEngine,
}

impl Direction {
    pub(super) fn name(self) -> &'static str {
        match self {
            Direction::ToWorker => "to_worker",
            Direction::ToEngine => "to_engine",
        }
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Direction::ToWorker => "to the worker",
            Direction::ToEngine => "to the engine",
        }
    }
}

/// Messages of `size` bytes that may be on their way at once: as many as a worker may have calls,
/// as far as their payloads stay resident.
pub(super) fn window(size: usize) -> usize {
    (RESIDENT_MAX / size).clamp(1, CALLS_OUTSTANDING_MAX as usize)
}

/// A payload to the worker and the same bytes back.
pub(super) fn round_trips(
    case: &str,
    rounds: Rounds,
    geometry: Geometry,
    waiting: Waiting,
    placement: Placement,
    size: u32,
) -> Result<Sample, Error> {
    let mut payload = filled(size as usize);
    let mut answer = PageBuffer::new(size as usize);
    let mut engine = EngineEnd::open(geometry, waiting, placement, Job::Echo)?;
    let rounds = affordable(rounds, size as usize);
    let mut number = 0u64;
    let times = rounds.time(|| {
        number += 1;
        payload.bytes_mut()[..8].copy_from_slice(&number.to_ne_bytes());
        exchange(&mut engine, payload.bytes(), &mut answer)?;
        check_size(answer.bytes(), size as usize)?;
        if answer.bytes()[..8] == payload.bytes()[..8] {
            return Ok(());
        }
        let got = format!("{:?}", &answer.bytes()[..8]);
        Err(Error::Unexpected { expected: "the bytes that were sent", got })
    })?;
    let mut sample = Sample::new(case, &times);
    sample.extra.insert("rings_to_worker_per_round".into(), engine.rings() as f64 / number as f64);
    Ok(sample)
}

/// From before the sender writes a payload until the receiver has read it.
pub(super) fn latency(
    rounds: Rounds,
    geometry: Geometry,
    direction: Direction,
    placement: Placement,
    size: u32,
) -> Result<Histogram<u64>, Error> {
    let (job, payload_size) = match direction {
        Direction::ToWorker => (Job::Stamp, size as usize),
        Direction::ToEngine => (Job::Produce(size as usize), 8),
    };
    let mut engine = EngineEnd::open(geometry, Waiting::Epoll, placement, job)?;
    let payload = filled(payload_size);
    let mut answer = PageBuffer::new(size as usize);
    let rounds = affordable(rounds, size as usize);
    let mut times = histogram();
    for round in 0..rounds.warm_up() + rounds.0 {
        let sent = now_ns();
        exchange(&mut engine, payload.bytes(), &mut answer)?;
        let received = now_ns();
        let answer = answer.bytes();
        check_size(answer, if direction == Direction::ToWorker { 8 } else { size as usize })?;
        let stamp = answer.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        let time = match direction {
            Direction::ToWorker => stamp.saturating_sub(sent),
            Direction::ToEngine => received.saturating_sub(stamp),
        };
        if round >= rounds.warm_up() {
            times.saturating_record(time);
        }
    }
    Ok(times)
}

/// Payloads one way, as many at once as `window` says, each acknowledged without a payload. A value
/// is the time between two sleeps divided by the messages in it.
pub(super) fn throughput(
    case: &str,
    rounds: Rounds,
    geometry: Geometry,
    direction: Direction,
    placement: Placement,
    size: u32,
) -> Result<Sample, Error> {
    let bytes = size as usize;
    let job = match direction {
        Direction::ToWorker => Job::Consume,
        Direction::ToEngine => Job::Call(bytes),
    };
    let mut engine = EngineEnd::open(geometry, Waiting::Epoll, placement, job)?;
    let mut private = filled(bytes);
    let mut turn = |engine: &mut EngineEnd| match direction {
        Direction::ToWorker => send_batch(engine, private.bytes()),
        Direction::ToEngine => receive_batch(engine, &mut private),
    };
    let rounds = affordable(rounds, bytes);
    let mut warm_up = u64::from(rounds.warm_up());
    while warm_up > 0 {
        warm_up = warm_up.saturating_sub(turn(&mut engine)?);
    }
    let mut times = histogram();
    let (start, mut last, mut count) = (Instant::now(), Instant::now(), 0);
    while count < u64::from(rounds.0) {
        let messages = turn(&mut engine)?;
        let now = Instant::now();
        times.saturating_record_n(nanoseconds(now - last) / messages, messages);
        (last, count) = (now, count + messages);
    }
    let rate = count as f64 / start.elapsed().as_secs_f64();
    let mut sample = Sample::new(case, &times);
    sample.rps = Some(rate);
    sample.extra.insert("gb_per_s".into(), rate * f64::from(size) / 1e9);
    Ok(sample)
}

/// Fills the window, then takes the acknowledgements that there are, at least one.
fn send_batch(engine: &mut EngineEnd, payload: &[u8]) -> Result<u64, Error> {
    while engine.lent() < window(payload.len()) {
        // In the small arena and behind it in the extent, there is room for less than a window.
        let Ok(block) = engine.lend(payload) else { break };
        engine.publish(&dispatch(block))?;
    }
    engine.flush()?;
    let mut messages = 0;
    let mut message = Some(engine.next()?);
    while let Some(acknowledgement) = message {
        let ToEngine::Complete { .. } = acknowledgement else {
            return Err(unexpected("a completion", &acknowledgement));
        };
        engine.take_back();
        messages += 1;
        message = engine.look()?;
    }
    Ok(messages)
}

/// Takes the calls that there are, at least one, and answers each.
fn receive_batch(engine: &mut EngineEnd, private: &mut PageBuffer) -> Result<u64, Error> {
    let mut messages = 0;
    let mut message = Some(engine.next()?);
    while let Some(call) = message {
        let ToEngine::Call { token, block, .. } = call else {
            return Err(unexpected("a call", &call));
        };
        engine.read(&block, private)?;
        let (outcome, block) = (Outcome::Ok, Block::empty(Region::Small));
        engine.publish(&ToWorker::Answer { token, outcome, block })?;
        messages += 1;
        message = if messages < BATCH_MAX { engine.look()? } else { None };
    }
    engine.flush()?;
    Ok(messages)
}

/// Dispatches one call and reads its answer.
fn exchange(engine: &mut EngineEnd, payload: &[u8], answer: &mut PageBuffer) -> Result<(), Error> {
    let block = engine.lend(payload)?;
    engine.publish(&dispatch(block))?;
    let message = engine.next()?;
    let ToEngine::Complete { block, .. } = message else {
        return Err(unexpected("a completion", &message));
    };
    engine.read(&block, answer)?;
    engine.take_back();
    Ok(())
}

fn filled(size: usize) -> PageBuffer {
    let mut buffer = PageBuffer::new(size);
    buffer.resize(size);
    buffer
}

fn dispatch(block: Block) -> ToWorker {
    ToWorker::Dispatch { call: CALL, depth: 0, deadline_ns: u64::MAX, block }
}

fn affordable(rounds: Rounds, size: usize) -> Rounds {
    let most = u32::try_from(BYTES_MAX / size).unwrap_or(u32::MAX);
    Rounds(rounds.0.min(most).max(1))
}

fn check_size(answer: &[u8], expected: usize) -> Result<(), Error> {
    if answer.len() == expected {
        return Ok(());
    }
    let got = format!("{} bytes where {expected} were sent", answer.len());
    Err(Error::Unexpected { expected: "the whole payload", got })
}

fn unexpected(expected: &'static str, got: &ToEngine) -> Error {
    Error::Unexpected { expected, got: format!("{got:?}") }
}
