//! One shard with its links, and a gateway at the other end of one of them, on one thread.

use std::collections::{HashMap, HashSet};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipc::engine_side::SharedBlock;
use ipc::envelope::RequestFields;
use ipc::{Geometry, Outcome};
use protocol::message::{CallHead, Function as Announced, Load, Message, Repeat, Started};
use protocol::{Established, Limits as Taken, Link, LinkError, Side};
use reactor::clock::now;
use reactor::{Config, Event, Reactor, Token, Wait};

use super::super::*;
use crate::core::{Caller, FunctionId, FunctionSpec, Limits, Policy};
use crate::io::{Answer, Engine, Function, Parts, exchanges};
use crate::mailbox::{Mailbox, Post, ToShard, ToSupervisor, mailbox};

/// Far longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(30);
const GATEWAY: [Token; 2] = [Token(1), Token(2)];

/// What the gateway was told.
pub(super) enum Said {
    Functions(Vec<Announced>),
    Load(Vec<Load>),
    Answer { stream: u64, outcome: Outcome, started: Started, block: Vec<u8> },
    Draining,
}

pub(super) struct Stage {
    pub(super) reactor: Reactor,
    pub(super) engine: Engine,
    pub(super) uplinks: Uplinks,
    pub(super) stats: Arc<Stats>,
    listener: TcpListener,
    gateway: Option<Link>,
    said: Vec<Said>,
    byes: Vec<String>,
    notices: Vec<Notice>,
    loads: HashMap<u32, Load>,
    /// Numbers of functions that were announced.
    known: HashSet<u32>,
    post: Post<ToShard>,
    _supervisor: Mailbox<ToSupervisor>,
    deployed: usize,
}

fn function(name: &str, queue_max: u32) -> Function {
    Function {
        name: name.to_owned(),
        spec: FunctionSpec {
            min_workers: 1,
            max_workers: 4,
            timeout: Duration::from_secs(60),
            queue_max,
            pipeline_max: 0,
            policy: Policy::Fixed,
            cores: 1,
            queue_wait_max: None,
            grace: Duration::from_secs(1),
        },
        geometry: Geometry::new(4, 1 << 20).unwrap(),
        pinned: false,
        quota: None,
        version: 1,
        repeat: Repeat::Never,
    }
}

impl Stage {
    /// Functions with the lengths of their queues.
    pub(super) fn new(functions: &[(&str, u32)]) -> Stage {
        Stage::with_bounds(functions, Bounds::for_payloads(1 << 20))
    }

    /// One function, `f`, and a gateway that knows it.
    pub(super) fn joined() -> Stage {
        let mut stage = Stage::new(&[("f", 8)]);
        stage.join(1);
        stage.functions(|functions| functions.len() == 1);
        stage
    }

    pub(super) fn with_bounds(functions: &[(&str, u32)], bounds: Bounds) -> Stage {
        let mut reactor = Reactor::new(&Config::default()).unwrap();
        let (supervisor, supervisor_mail) = mailbox().unwrap();
        let (post, mail) = mailbox().unwrap();
        let (mut ends, _) = exchanges(1);
        let functions: Vec<_> = functions.iter().map(|(name, max)| function(name, *max)).collect();
        let deployed = functions.len();
        let parts = Parts {
            shard: 0,
            core: 0,
            limits: Limits::default(),
            functions,
            supervisor,
            siblings: Vec::new(),
            mailbox: mail,
            exchange: ends.remove(0),
            stats: Arc::new(crate::stats::Stats::new(deployed + 16, 1)),
        };
        let engine = Engine::new(parts, &mut reactor);
        let stats = Arc::new(Stats::new(1));
        let uplinks = Uplinks::new(0, bounds, Arc::clone(&stats));
        Stage {
            reactor,
            engine,
            uplinks,
            stats,
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            gateway: None,
            said: Vec::new(),
            byes: Vec::new(),
            notices: Vec::new(),
            loads: HashMap::new(),
            known: HashSet::new(),
            post,
            _supervisor: supervisor_mail,
            deployed,
        }
    }

    /// A link whose other end is the test's.
    pub(super) fn raw(&mut self, epoch: u64) -> TcpStream {
        let dialled = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = self.listener.accept().unwrap();
        dialled.set_nonblocking(true).unwrap();
        let established = Established { socket: dialled.into(), tls: None, early: Vec::new() };
        let identity = Identity { gateway: "gateway".into(), connection: 0, epoch };
        let Stage { uplinks, engine, reactor, .. } = self;
        uplinks.add(engine, reactor, now(), established, identity);
        accepted
    }

    /// A link whose other end is a gateway's.
    pub(super) fn join(&mut self, epoch: u64) {
        let accepted = self.raw(epoch);
        accepted.set_nonblocking(true).unwrap();
        let established = Established { socket: accepted.into(), tls: None, early: Vec::new() };
        let limits = Taken::for_payloads(16 << 20);
        let (side, reactor) = (Side::Gateway, &mut self.reactor);
        let link = Link::new(reactor, now(), established, side, limits, GATEWAY).unwrap();
        self.gateway = Some(link);
    }

    pub(super) fn hang_up(&mut self) {
        if let Some(link) = self.gateway.take() {
            link.close(&mut self.reactor, None);
        }
    }

    pub(super) fn gateway_drains(&mut self) {
        self.gateway().send_draining();
    }

    fn gateway(&mut self) -> &mut Link {
        self.gateway.as_mut().expect("a gateway has joined")
    }

    pub(super) fn call(&mut self, stream: u64, function: u32, timeout: Duration, payload: &[u8]) {
        let fields = RequestFields {
            method: b"POST",
            suffix: b"/x",
            query: b"",
            request_id: b"id-1",
            traceparent: b"",
            headers: [(&b"accept"[..], &b"*/*"[..])].into_iter(),
        };
        let mut envelope = Vec::new();
        fields.encode(&mut envelope);
        self.call_with(stream, function, timeout, &envelope, payload);
    }

    pub(super) fn call_with(
        &mut self,
        stream: u64,
        function: u32,
        timeout: Duration,
        envelope: &[u8],
        payload: &[u8],
    ) {
        let head = CallHead {
            function,
            timeout_ns: timeout.as_nanos().try_into().unwrap(),
            envelope_size: envelope.len().try_into().unwrap(),
            payload_size: payload.len().try_into().unwrap(),
        };
        let block = SharedBlock::from_bytes([envelope, payload].concat(), envelope.len());
        self.gateway().send_call(stream, &head, block.whole());
    }

    pub(super) fn cancel(&mut self, stream: u64) {
        self.gateway().cancel(stream);
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.post.send(ToShard::Route { name: name.into(), to: None });
    }

    pub(super) fn deploy(&mut self, name: &str) {
        let id = FunctionId::from_index(self.deployed);
        self.deployed += 1;
        let deployed = Box::new(function(name, 8));
        self.post.send(ToShard::Deploy { function: id, deployed });
        self.post.send(ToShard::Route { name: name.into(), to: Some(id) });
    }

    /// Answers the call that the links have, or one of them, as if a worker had completed it.
    pub(super) fn complete(&mut self, block: SharedBlock) {
        let caller = self.uplinks.any_caller().expect("a call is there");
        self.answer_to(caller, block);
    }

    pub(super) fn answer_to(&mut self, caller: Caller, block: SharedBlock) {
        let answer = Answer {
            outcome: Outcome::Ok,
            message: "",
            retry_after_s: None,
            started: Started::Perhaps,
            block: Some(block),
            times: None,
        };
        self.uplinks.on_answer(caller, answer);
    }

    /// One turn of the loop, as a shard makes it.
    pub(super) fn turn(&mut self) {
        let Stage { reactor, engine, uplinks, gateway, .. } = self;
        if let Some(link) = gateway {
            link.flush(reactor).unwrap();
        }
        engine.flush(reactor);
        uplinks.flush(engine, reactor, now());
        engine.arm(now());
        let soon = now() + Duration::from_millis(10);
        let mut events = Vec::new();
        reactor.turn(Wait::Until(soon), &mut events).unwrap();
        for event in events {
            self.handle(event);
        }
        let Stage { reactor, engine, uplinks, notices, .. } = self;
        engine.tick(reactor, now());
        while let Some((caller, answer)) = engine.next_answer() {
            assert!(owns_caller(caller));
            uplinks.on_answer(caller, answer);
        }
        uplinks.tick(engine, reactor, now());
        while let Some(notice) = uplinks.next_notice() {
            notices.push(notice);
        }
    }

    fn handle(&mut self, event: Event) {
        let Stage { reactor, engine, uplinks, .. } = self;
        let token = event.token().unwrap_or(Token(0));
        if owns(token) {
            uplinks.on_event(engine, reactor, now(), event);
        } else if crate::io::owns(token) {
            engine.on_event(reactor, now(), event);
        } else {
            self.gateway_hears(event);
        }
    }

    fn gateway_hears(&mut self, event: Event) {
        let Stage { reactor, gateway, .. } = self;
        let Some(link) = gateway else { return };
        let result = match event {
            Event::Received { data, .. } => link.on_received(now(), &data),
            Event::Sent { data, result, .. } => link.on_sent(reactor, data, result),
            Event::ReceiveEnded { .. } => {
                self.hang_up();
                return;
            }
            _ => return,
        };
        result.unwrap();
        loop {
            let link = self.gateway();
            let said = match link.next_message() {
                Ok(None) => return,
                Ok(Some(Message::Functions(functions))) => Said::Functions(functions),
                Ok(Some(Message::Load(loads))) => Said::Load(loads),
                Ok(Some(Message::Answer { stream, head, block })) => {
                    let (outcome, started) = (head.outcome, head.started);
                    Said::Answer { stream, outcome, started, block: block.into_owned() }
                }
                Ok(Some(Message::Draining)) => Said::Draining,
                Ok(Some(other)) => panic!("an engine never says {other:?}"),
                Err(LinkError::Bye(reason)) => {
                    self.byes.push(reason);
                    return self.hang_up();
                }
                Err(error) => panic!("{error}"),
            };
            if let Said::Functions(functions) = &said {
                self.known.extend(functions.iter().map(|function| function.number));
            }
            if let Said::Load(loads) = &said {
                let is_known = |load: &Load| self.known.contains(&load.number);
                assert!(loads.iter().all(is_known), "a load of a function that nobody has named");
                self.loads.extend(loads.iter().map(|load| (load.number, *load)));
            }
            self.said.push(said);
        }
    }

    pub(super) fn until(&mut self, what: &str, mut is_so: impl FnMut(&mut Stage) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(Instant::now() < end, "waited {PATIENCE:?} in vain until {what}");
            self.turn();
        }
    }

    /// Waits for something to be said, and takes it.
    pub(super) fn hear(&mut self, what: &str, is_it: impl Fn(&Said) -> bool) -> Said {
        let mut found = None;
        self.until(what, |stage| {
            found = stage.said.iter().position(&is_it);
            found.is_some()
        });
        self.said.remove(found.unwrap())
    }

    pub(super) fn answer(&mut self, stream: u64) -> (Outcome, Started, Vec<u8>) {
        let is_it =
            |said: &Said| matches!(said, Said::Answer { stream: got, .. } if *got == stream);
        match self.hear("there is an answer", is_it) {
            Said::Answer { outcome, started, block, .. } => (outcome, started, block),
            _ => unreachable!(),
        }
    }

    /// The names and numbers of the first list that is as it should be.
    pub(super) fn functions(&mut self, is_it: impl Fn(&[Announced]) -> bool) -> Vec<(String, u32)> {
        let is_it = |said: &Said| matches!(said, Said::Functions(list) if is_it(list));
        match self.hear("functions are announced", is_it) {
            Said::Functions(list) => {
                list.into_iter().map(|function| (function.name, function.number)).collect()
            }
            _ => unreachable!(),
        }
    }

    pub(super) fn loads(
        &mut self,
        is_so: impl Fn(&HashMap<u32, Load>) -> bool,
    ) -> HashMap<u32, Load> {
        self.until("the loads are told", |stage| is_so(&stage.loads));
        self.loads.clone()
    }

    pub(super) fn notice(&mut self) -> Notice {
        self.until("whoever dials is told something", |stage| !stage.notices.is_empty());
        self.notices.remove(0)
    }

    pub(super) fn bye(&mut self) -> String {
        self.until("the engine says goodbye", |stage| !stage.byes.is_empty());
        self.byes.remove(0)
    }
}
