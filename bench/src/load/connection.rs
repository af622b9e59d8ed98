//! One kept connection: sends the prebuilt request, receives until the response is complete, and
//! does it again when the pace says so. Nothing is allocated between a request and the next.
//!
//! Requests go out by a plain `send`, which takes what it can at once: measured against queueing it
//! on the ring, it costs the same CPU at 64 connections and an eighth less at one, since it has no
//! completion to wake up for, and the moment of sending is exact. Receiving waits, so it is the
//! ring's. What a full socket buffer leaves of a large request is the ring's, too.
//!
//! Whoever waits on the ring here is ended by shutting the socket down, never by dropping the
//! future: tokio-uring frees buffers that the kernel may still write to when a runtime goes with
//! operations in flight. So every task runs to its end.

use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};
use tokio::sync::Semaphore;
use tokio_uring::buf::BoundedBuf;
use tokio_uring::net::TcpStream;

use super::Job;
use super::response::{Answer, Malformed, Parser};
use super::thread::Shard;

/// Room for a head; bodies are of any size, since they are not kept.
const BUFFER_SIZE: usize = 16 * 1024;
/// Before another attempt when none could be made.
const CONNECT_PAUSE: Duration = Duration::from_millis(10);

/// A connection and what comes in on it.
pub(super) struct Link {
    pub(super) stream: Rc<TcpStream>,
    /// Always `BUFFER_SIZE` long, but for the time it is lent to the kernel.
    buffer: Vec<u8>,
    parser: Parser,
}

/// Why a request got no answer.
#[derive(Debug)]
pub(super) enum Failure {
    Connect,
    Write,
    Read,
    Short,
    Malformed,
    Timeout,
}

impl From<Malformed> for Failure {
    fn from(_: Malformed) -> Failure {
        Failure::Malformed
    }
}

/// A complete answer.
pub(super) struct Received {
    pub(super) answer: Answer,
    pub(super) bytes: u64,
}

impl Link {
    /// Connects as soon as `gate` allows, since a listener's backlog is short.
    pub(super) async fn connect(job: &Job, gate: &Semaphore) -> io::Result<Link> {
        let _permit = gate.acquire().await.map_err(io::Error::other)?;
        let connecting = tokio::net::TcpStream::connect(job.address);
        let stream = tokio::time::timeout(job.timeout, connecting).await??.into_std()?;
        stream.set_nodelay(true)?;
        // On a non-blocking socket the ring would report EAGAIN instead of waiting.
        stream.set_nonblocking(false)?;
        Ok(Link {
            stream: Rc::new(TcpStream::from_std(stream)),
            buffer: vec![0; BUFFER_SIZE],
            parser: Parser::new(&job.method),
        })
    }

    async fn exchange(&mut self, request: &Bytes) -> Result<Received, Failure> {
        self.send(request).await?;
        self.receive().await
    }

    async fn send(&self, request: &Bytes) -> Result<(), Failure> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let sent = match send(self.stream.as_raw_fd(), request, flags) {
            Ok(sent) => sent,
            Err(Errno::EAGAIN) => 0,
            Err(_) => return Err(Failure::Write),
        };
        if sent == request.len() {
            return Ok(());
        }
        let (result, _) = self.stream.write_all(request.slice(sent..)).await;
        result.map_err(|_| Failure::Write)
    }

    async fn receive(&mut self) -> Result<Received, Failure> {
        let mut filled = 0;
        let mut bytes = 0;
        loop {
            let free = mem::take(&mut self.buffer).slice(filled..);
            let (result, free) = self.stream.read(free).await;
            self.buffer = free.into_inner();
            let size = match result {
                Ok(0) => {
                    let answer = self.parser.end().ok_or(Failure::Short)?;
                    return Ok(Received { answer, bytes });
                }
                Ok(size) => size,
                Err(_) => return Err(Failure::Read),
            };
            bytes += size as u64;
            filled += size;
            let (consumed, answer) = self.parser.advance(&self.buffer[..filled])?;
            if let Some(answer) = answer {
                // Bytes that nobody has asked for.
                return if consumed == filled {
                    Ok(Received { answer, bytes })
                } else {
                    Err(Failure::Malformed)
                };
            }
            self.buffer.copy_within(consumed..filled, 0);
            filled -= consumed;
            if filled == BUFFER_SIZE {
                return Err(Failure::Malformed);
            }
        }
    }
}

/// Carries the requests of one connection from the start to the end of the run.
pub(super) async fn carry(shard: Rc<Shard>, lane: usize, mut link: Option<Link>) {
    let mut free_at = shard.start;
    let mut turn = 0;
    while let Some(due) = shard.next_due(lane, turn).await {
        let request = shard.request(lane, turn);
        turn += 1;
        free_at = match connected(&shard, lane, link).await {
            Ok(mut open) => {
                let sent = Instant::now();
                let due = due.unwrap_or(sent);
                let waiting_since = &shard.lanes[lane].waiting_since;
                waiting_since.set(Some(sent));
                let outcome = open.exchange(&shard.job.requests[request]).await;
                let outcome = match waiting_since.take() {
                    Some(_) => outcome,
                    None => Err(Failure::Timeout), // the watch has taken it
                };
                let keep = outcome.as_ref().is_ok_and(|received| received.answer.keep_alive);
                link = keep.then_some(open);
                shard.settle(request, (due, free_at, sent), &outcome)
            }
            Err(_) => {
                link = None;
                let now = Instant::now();
                let moments = (due.unwrap_or(now), now, now);
                shard.settle(request, moments, &Err(Failure::Connect));
                tokio::time::sleep(CONNECT_PAUSE).await;
                Instant::now()
            }
        };
    }
    shard.count_unsent(lane, turn);
}

/// The link, made anew if there is none.
async fn connected(shard: &Shard, lane: usize, link: Option<Link>) -> io::Result<Link> {
    if let Some(link) = link {
        return Ok(link);
    }
    *shard.lanes[lane].stream.borrow_mut() = None;
    let link = Link::connect(&shard.job, &shard.connecting).await?;
    shard.tally.borrow_mut().reconnects += 1;
    *shard.lanes[lane].stream.borrow_mut() = Some(Rc::clone(&link.stream));
    Ok(link)
}
