//! What the tests of `remote` play on: a shard's links on a real reactor, and engines at the other ends
//! of them that do what they are told.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipc::Outcome;
use ipc::engine_side::SharedBlock;
use ipc::envelope::RequestFields;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use protocol::hello::Hello;
use protocol::message::{
    AnswerHead, CallHead, Function, Load, LoadState, Repeat, Started, encode_functions,
};
use protocol::{Established, Limits, Link, Message, Side};
use reactor::clock::{self, Nanos};
use reactor::{Event, Reactor, Token, Wait};

use super::board::Board;
use super::links::{Config, JoinError, Remote};
use crate::upstream::{Answer, CredentialFields, ForwardedHeaders, NewCall, Refusal};

/// Far longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(30);
/// Top byte of the tokens of the engines' ends.
const MARK: u64 = 0x54;
pub(super) const PAYLOAD_MAX: u32 = 1 << 20;
pub(super) const QUEUE: usize = 4;

pub(super) struct Stage {
    pub(super) reactor: Reactor,
    pub(super) remote: Remote,
    pub(super) engines: Vec<Engine>,
    answers: HashMap<u64, Vec<Answer>>,
    callers: u64,
}

/// The far end of a link.
pub(super) struct Engine {
    /// `None`: it is not there any more.
    link: Option<Link>,
    /// The same socket, for what no link would say.
    raw: OwnedFd,
    /// Calls that came and were not taken by a test yet.
    pub(super) calls: Vec<Heard>,
    pub(super) cancels: Vec<u64>,
    pub(super) was_told_to_drain: bool,
    /// What ended it.
    pub(super) ended: Option<String>,
    pub(super) hearing: Hearing,
}

/// Whether an engine takes what the kernel has for it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Hearing {
    Listens,
    /// As one that was stopped.
    Deaf,
}

pub(super) struct Heard {
    pub(super) stream: u64,
    pub(super) head: CallHead,
    pub(super) body: Vec<u8>,
}

impl Stage {
    pub(super) fn new() -> Stage {
        let config = Config { shard: 0, queue: QUEUE, payload_max: PAYLOAD_MAX, seed: 1 };
        Stage {
            reactor: Reactor::new(&reactor::Config::default()).unwrap(),
            remote: Remote::new(config, Arc::new(Board::new(1))),
            engines: Vec::new(),
            answers: HashMap::new(),
            callers: 0,
        }
    }

    /// An engine that joins and says nothing yet.
    pub(super) fn join(&mut self, node: &str, epoch: u64) -> Result<usize, JoinError> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (near, far) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags).unwrap();
        let hello = Hello {
            version_min: 1,
            version_max: 1,
            node: node.to_owned(),
            instance: 7,
            epoch,
            connection: 0,
            shards: 1,
            cores: 2,
            nonce: [0; 32],
        };
        let raw = far.try_clone().unwrap();
        let number = u64::try_from(self.engines.len()).unwrap();
        let tokens = [0, 1].map(|purpose| Token(MARK << 56 | purpose << 32 | number));
        let limits = Limits::for_payloads(PAYLOAD_MAX);
        let now = clock::now();
        let link =
            Link::new(&mut self.reactor, now, established(far), Side::Engine, limits, tokens);
        self.engines.push(Engine {
            link: Some(link.unwrap()),
            raw,
            calls: Vec::new(),
            cancels: Vec::new(),
            was_told_to_drain: false,
            ended: None,
            hearing: Hearing::Listens,
        });
        self.remote.add_link(&mut self.reactor, now, established(near), &hello)?;
        Ok(self.engines.len() - 1)
    }

    /// Engines that have `echo`, with room for `capacity` calls each.
    pub(super) fn with_engines(count: usize, capacity: u32, repeat: Repeat) -> Stage {
        let mut stage = Stage::new();
        for index in 0..count {
            let engine = stage.join(&format!("host-{index}"), 1).unwrap();
            stage.engines[engine].announce(&[function(1, "echo", capacity, repeat)]);
        }
        let want = u32::try_from(count).unwrap() * capacity;
        stage.until("they are known", |stage| stage.room("echo") == want);
        stage
    }

    /// Calls that the engines have said they would take, less those that they have.
    pub(super) fn room(&self, name: &str) -> u32 {
        let found = self.remote.directory.find(name.as_bytes());
        let offers = self.remote.peers.iter().flat_map(|(_, peer)| peer.offers.values());
        let seats = offers.filter(|offer| Some(offer.function) == found);
        seats.filter_map(|offer| offer.seat).map(|seat| self.remote.balance.room(seat)).sum()
    }

    pub(super) fn call(&mut self, name: &str, body: &[u8]) -> Result<Called, Refusal> {
        self.call_within(name, body, None)
    }

    pub(super) fn call_within(
        &mut self,
        name: &str,
        body: &[u8],
        timeout: Option<Duration>,
    ) -> Result<Called, Refusal> {
        self.callers += 1;
        let caller = self.callers;
        let function = self.remote.resolve(name.as_bytes()).expect("the function is known");
        let request = RequestFields {
            method: b"POST",
            suffix: b"",
            query: b"",
            request_id: b"id",
            traceparent: b"",
            headers: ForwardedHeaders::new(&[], CredentialFields::Forwarded),
        };
        let call = NewCall { function, caller, timeout, request, body };
        let id = self.remote.submit(&mut self.reactor, clock::now(), &call)?;
        Ok(Called { caller, id })
    }

    /// The answers that a call has got.
    pub(super) fn answers(&self, called: Called) -> &[Answer] {
        self.answers.get(&called.caller).map_or(&[], Vec::as_slice)
    }

    /// How a call ended, once it has, and the payload.
    pub(super) fn answer(&mut self, called: Called) -> (Outcome, Vec<u8>) {
        self.until("it is answered", |stage| !stage.answers(called).is_empty());
        let answer = &self.answers(called)[0];
        let mut body = Vec::new();
        if let Some(block) = &answer.block {
            block.payload().append_to(&mut body);
        }
        (answer.outcome, body)
    }

    /// Turns until `is_so`.
    pub(super) fn until(&mut self, what: &str, mut is_so: impl FnMut(&Stage) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(Instant::now() < end, "waited {PATIENCE:?} in vain until {what}");
            self.turn();
        }
    }

    /// One call for `engine`, taken off its list.
    pub(super) fn heard(&mut self, engine: usize) -> Heard {
        self.until("an engine has a call", |stage| !stage.engines[engine].calls.is_empty());
        self.engines[engine].calls.remove(0)
    }

    /// The one engine that has calls.
    pub(super) fn holder(&mut self) -> usize {
        self.until("some engine has a call", |stage| {
            stage.engines.iter().any(|engine| !engine.calls.is_empty())
        });
        self.engines.iter().position(|engine| !engine.calls.is_empty()).unwrap()
    }

    pub(super) fn turn(&mut self) {
        let now = clock::now();
        self.remote.flush(&mut self.reactor, now);
        for engine in &mut self.engines {
            if let Some(link) = &mut engine.link {
                // A link that is broken says so by its events too.
                let _ = link.flush(&mut self.reactor);
            }
        }
        let mut events = Vec::new();
        let wait = Wait::Until(now + Duration::from_millis(2));
        self.reactor.turn(wait, &mut events).unwrap();
        let now = clock::now();
        for event in events {
            let Some(token) = event.token() else { continue };
            if super::owns(token) {
                self.remote.on_event(&mut self.reactor, now, event);
            } else {
                let number = usize::try_from(token.0 & u64::from(u32::MAX)).unwrap();
                self.engines[number].on_event(&mut self.reactor, now, event);
            }
        }
        self.remote.on_tick(&mut self.reactor, now);
        for engine in &mut self.engines {
            engine.tick(now);
        }
        while let Some((caller, answer)) = self.remote.next_answer() {
            self.answers.entry(caller).or_default().push(answer);
        }
    }

    /// The end of an engine's process: its socket closes, without a word.
    pub(super) fn kill(&mut self, engine: usize) {
        if let Some(link) = self.engines[engine].link.take() {
            link.close(&mut self.reactor, None);
        }
        let _ = nix::sys::socket::shutdown(
            std::os::fd::AsRawFd::as_raw_fd(&self.engines[engine].raw),
            nix::sys::socket::Shutdown::Both,
        );
    }

    /// An engine's good-bye.
    pub(super) fn bye(&mut self, engine: usize) {
        if let Some(link) = self.engines[engine].link.take() {
            link.close(&mut self.reactor, Some("done"));
        }
    }
}

/// A call that was taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Called {
    pub(super) caller: u64,
    pub(super) id: u64,
}

impl Engine {
    pub(super) fn is_there(&self) -> bool {
        self.link.is_some()
    }

    pub(super) fn announce(&mut self, functions: &[Function]) {
        let mut encoded = Vec::new();
        encode_functions(functions, &mut encoded).unwrap();
        self.link.as_mut().unwrap().send_functions(encoded);
    }

    pub(super) fn report(&mut self, loads: &[Load]) {
        self.link.as_mut().unwrap().send_loads(loads);
    }

    pub(super) fn say_draining(&mut self) {
        self.link.as_mut().unwrap().send_draining();
    }

    /// Answers with the call's own body.
    pub(super) fn echo(&mut self, heard: &Heard) {
        self.say(heard.stream, Outcome::Ok, Started::Perhaps, &heard.body);
    }

    pub(super) fn say(&mut self, stream: u64, outcome: Outcome, started: Started, body: &[u8]) {
        let head = AnswerHead {
            outcome,
            started,
            retry_after_s: None,
            queued_ns: 0,
            ran_ns: 0,
            envelope_size: 0,
            payload_size: u32::try_from(body.len()).unwrap(),
        };
        let block = SharedBlock::from_bytes(body.to_vec(), 0).whole();
        self.link.as_mut().unwrap().send_answer(stream, &head, Some(block));
    }

    /// An answer whose first `envelope_size` bytes are an envelope, or not.
    pub(super) fn say_envelope(&mut self, stream: u64, envelope_size: u32, body: &[u8]) {
        let head = AnswerHead {
            outcome: Outcome::Ok,
            started: Started::Perhaps,
            retry_after_s: None,
            queued_ns: 0,
            ran_ns: 0,
            envelope_size,
            payload_size: u32::try_from(body.len()).unwrap() - envelope_size,
        };
        let block = SharedBlock::from_bytes(body.to_vec(), 0).whole();
        self.link.as_mut().unwrap().send_answer(stream, &head, Some(block));
    }

    pub(super) fn write_raw(&self, bytes: &[u8]) {
        assert_eq!(nix::unistd::write(self.raw.as_fd(), bytes), Ok(bytes.len()));
    }

    fn on_event(&mut self, reactor: &mut Reactor, now: Nanos, event: Event) {
        let Some(link) = &mut self.link else { return };
        let result = match event {
            Event::Received { data, .. } if self.hearing == Hearing::Listens => {
                link.on_received(now, &data)
            }
            Event::ReceiveEnded { .. } => {
                self.ended.get_or_insert("the connection ended".to_owned());
                return self.link.take().unwrap().close(reactor, None);
            }
            Event::Sent { data, result, .. } => link.on_sent(reactor, data, result),
            _ => Ok(()),
        };
        let result = result.and_then(|()| {
            while let Some(message) = link.next_message()? {
                match message {
                    Message::Call { stream, head, block } => {
                        let body = block.bytes()[head.envelope_size as usize..].to_vec();
                        self.calls.push(Heard { stream, head, body });
                    }
                    Message::Cancel { stream } => self.cancels.push(stream),
                    Message::Draining => self.was_told_to_drain = true,
                    other => panic!("a gateway does not say {other:?}"),
                }
            }
            Ok(())
        });
        if let Err(error) = result {
            self.ended = Some(error.to_string());
            if let Some(link) = self.link.take() {
                link.close(reactor, None);
            }
        }
    }

    fn tick(&mut self, now: Nanos) {
        if self.hearing == Hearing::Listens
            && let Some(link) = &mut self.link
        {
            // Only for what it says: the gateway is there, and on this thread.
            let _ = link.tick(now);
        }
    }
}

pub(super) fn function(number: u32, name: &str, capacity: u32, repeat: Repeat) -> Function {
    let timeout_ns = 60_000_000_000;
    Function { number, name: name.to_owned(), version: 1, timeout_ns, repeat, capacity }
}

pub(super) fn load(number: u32, room: u32, state: LoadState) -> Load {
    Load { number, state, queued: 0, running: 0, waiting: 0, room }
}

fn established(socket: OwnedFd) -> Established {
    Established { socket, tls: None, early: Vec::new() }
}
