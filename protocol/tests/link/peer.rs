//! A link with its reactor, driven by the test: one turn at a time, by a clock that the test turns.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use ipc::Outcome;
use ipc::engine_side::{SharedBlock, SharedSlice};
use protocol::message::{AnswerHead, CallHead, Function, Load, Started};
use protocol::{Established, Limits, Link, LinkError, Message, Side};
use reactor::clock::{self, Nanos};
use reactor::{Config, Event, Reactor, Token, Wait};

use crate::tls;

const RECEIVE: Token = Token(1);
const SEND: Token = Token(2);
/// Payloads of these tests.
pub const PAYLOAD_MAX: u32 = 16 << 20;
/// Far longer than anything takes here, even on a machine that does something else meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);
/// A turn with nothing to do waits so long.
const PAUSE: Duration = Duration::from_millis(1);

/// What is around the frames, or below them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrap {
    Plain,
    Tls,
    /// A unix socket.
    Local,
}

pub const WRAPS: [Wrap; 3] = [Wrap::Plain, Wrap::Tls, Wrap::Local];

/// A message that came.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    Functions(Vec<Function>),
    Load(Vec<Load>),
    Call(u64, CallHead, Vec<u8>),
    Answer(u64, AnswerHead, Vec<u8>),
    Cancel(u64),
    Draining,
}

pub struct Peer {
    pub reactor: Reactor,
    pub link: Option<Link>,
    pub heard: Vec<Heard>,
    /// Why the link ended.
    pub ended: Option<LinkError>,
    /// The time that the link sees.
    pub now: Nanos,
}

impl Peer {
    pub fn new(established: Established, side: Side) -> Peer {
        let config = Config { receive_buffers: 64, ..Config::default() };
        let mut reactor = Reactor::new(&config).unwrap();
        let (now, limits) = (clock::now(), Limits::for_payloads(PAYLOAD_MAX));
        let link = Link::new(&mut reactor, now, established, side, limits, [RECEIVE, SEND]);
        let (link, ended) = match link {
            Ok(link) => (Some(link), None),
            Err(error) => (None, Some(error)),
        };
        Peer { reactor, link, heard: Vec::new(), ended, now }
    }

    pub fn link(&mut self) -> &mut Link {
        self.link.as_mut().expect("the link lives")
    }

    /// What a shard does in a turn: what arrived, then timers, then what is to be sent.
    pub fn turn(&mut self) {
        let mut events = Vec::new();
        self.reactor.turn(Wait::Until(clock::now() + PAUSE), &mut events).unwrap();
        for event in events {
            self.after(|peer| peer.on_event(event));
        }
        self.after(Peer::take_messages);
        self.after(|peer| {
            let now = peer.now;
            peer.link().tick(now)
        });
        self.after(|peer| {
            let Peer { link: Some(link), reactor, .. } = peer else { return Ok(()) };
            link.flush(reactor)
        });
    }

    pub fn close(&mut self, reason: Option<&str>) {
        self.link.take().unwrap().close(&mut self.reactor, reason);
    }

    pub fn turn_until(&mut self, what: &str, mut is_so: impl FnMut(&mut Peer) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(Instant::now() < end, "waited in vain until {what}: {:?}", self.ended);
            self.turn();
        }
    }

    fn after(&mut self, step: impl FnOnce(&mut Peer) -> Result<(), LinkError>) {
        if self.link.is_none() {
            return;
        }
        if let Err(error) = step(self) {
            let reason = matches!(error, LinkError::Protocol(_)).then(|| error.to_string());
            self.close(reason.as_deref());
            self.ended = Some(error);
        }
    }

    fn on_event(&mut self, event: Event) -> Result<(), LinkError> {
        let Peer { link: Some(link), reactor, now, .. } = self else { return Ok(()) };
        match event {
            Event::Received { data, .. } => {
                link.on_received(*now, &data)?;
                self.take_messages()
            }
            Event::ReceiveEnded { error, .. } => {
                let error = error.unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
                Err(error.into())
            }
            Event::Sent { data, result, .. } => link.on_sent(reactor, data, result),
            other => panic!("{other:?}"),
        }
    }

    fn take_messages(&mut self) -> Result<(), LinkError> {
        let Peer { link: Some(link), heard, .. } = self else { return Ok(()) };
        while let Some(message) = link.next_message()? {
            heard.push(match message {
                Message::Functions(functions) => Heard::Functions(functions),
                Message::Load(loads) => Heard::Load(loads),
                Message::Call { stream, head, block } => {
                    Heard::Call(stream, head, block.into_owned())
                }
                Message::Answer { stream, head, block } => {
                    Heard::Answer(stream, head, block.into_owned())
                }
                Message::Cancel { stream } => Heard::Cancel(stream),
                Message::Draining => Heard::Draining,
            });
        }
        Ok(())
    }
}

/// An engine and its gateway.
pub fn pair(wrap: Wrap) -> (Peer, Peer) {
    let (dialler, acceptor): (OwnedFd, OwnedFd) = if wrap == Wrap::Local {
        let (dialler, acceptor) = UnixStream::pair().unwrap();
        for socket in [&dialler, &acceptor] {
            socket.set_nonblocking(true).unwrap();
        }
        (dialler.into(), acceptor.into())
    } else {
        let (dialler, acceptor) = sockets();
        (dialler.into(), acceptor.into())
    };
    let (client, server) = match wrap {
        Wrap::Plain | Wrap::Local => (None, None),
        Wrap::Tls => {
            let (client, server) = tls::pair();
            (Some(client), Some(server))
        }
    };
    let engine = Established { socket: dialler, tls: client, early: Vec::new() };
    let gateway = Established { socket: acceptor, tls: server, early: Vec::new() };
    (Peer::new(engine, Side::Engine), Peer::new(gateway, Side::Gateway))
}

/// Two ends of a connection, both non-blocking.
pub fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let dialler = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (acceptor, _) = listener.accept().unwrap();
    for socket in [&dialler, &acceptor] {
        socket.set_nonblocking(true).unwrap();
    }
    (dialler, acceptor)
}

/// Turns both until it is so.
pub fn both_until(
    a: &mut Peer,
    b: &mut Peer,
    what: &str,
    mut is_so: impl FnMut(&mut Peer, &mut Peer) -> bool,
) {
    let end = Instant::now() + PATIENCE;
    while !is_so(a, b) {
        let ends = (&a.ended, &b.ended);
        assert!(Instant::now() < end, "waited in vain until {what}: {ends:?}");
        a.turn();
        b.turn();
    }
}

/// Bytes that differ by seed and place.
pub fn pattern(seed: u64, size: usize) -> Vec<u8> {
    let mut word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(size + 8);
    while out.len() < size {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.truncate(size);
    out
}

pub fn slice(bytes: &[u8]) -> SharedSlice {
    SharedBlock::from_bytes(bytes.to_vec(), 0).whole()
}

pub fn call_head(size: usize) -> CallHead {
    let payload_size = u32::try_from(size).unwrap();
    CallHead { function: 3, timeout_ns: 1_000_000_000, envelope_size: 0, payload_size }
}

pub fn answer_head(size: usize) -> AnswerHead {
    AnswerHead {
        outcome: Outcome::Ok,
        started: Started::Perhaps,
        retry_after_s: Some(3),
        queued_ns: 1,
        ran_ns: 2,
        envelope_size: 0,
        payload_size: u32::try_from(size).unwrap(),
    }
}

impl Peer {
    pub fn say_call(&mut self, stream: u64, bytes: &[u8]) {
        self.link().send_call(stream, &call_head(bytes.len()), slice(bytes));
    }

    pub fn say_answer(&mut self, stream: u64, bytes: &[u8]) {
        self.link().send_answer(stream, &answer_head(bytes.len()), Some(slice(bytes)));
    }
}
