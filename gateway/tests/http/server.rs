//! A shard in small: one thread with a ring, a listener, a gateway, and an upstream whose calls
//! are run by a worker's end of a real channel in the same process.

use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use gateway::{
    Answer, Arrival, Config, Departed, Departure, Door, Gateway, NewCall, Refusal, Upstream,
};
use ipc::engine_side::{DropList, EngineChannel};
use ipc::envelope::ReplyFields;
use ipc::worker_side::{OutboundBuffer, WorkerChannel, WorkerLane};
use ipc::{Geometry, LaneIndex, Outcome};
use reactor::clock::{self, Nanos};
use reactor::{Event, Reactor, Token, Wait};
use rustls::{ServerConfig, ServerConnection};

const LISTENER: Token = Token(1);
const COMMANDS: Token = Token(2);
const DESTINATION: u16 = 3;
const LANE: LaneIndex = LaneIndex(0);
const FUNCTIONS: [&str; 7] = ["echo", "inspect", "reply", "fail", "size", "hold", "refuse"];

/// What a test asks of the server's thread.
pub enum Command {
    /// Answers every call of `hold`.
    Release,
    Drain,
    /// Asks every connection to leave. Those that do are taken over by the same gateway.
    SendAway,
    /// Does so again in every turn from now on.
    Unsettle,
    /// Tells what the server looks like when everything before has been done.
    Report(Sender<Report>),
    Stop,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    pub held: usize,
    pub cancelled: usize,
    /// Blocks of the worker that the gateway has not given back.
    pub blocks: usize,
    pub is_empty: bool,
    /// Bytes of all connections.
    pub received: u64,
    /// Connections that left.
    pub departed: usize,
}

pub struct Server {
    pub address: SocketAddr,
    commands: Sender<Command>,
    bell: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(config: Config) -> Server {
        Server::start_with(config, None)
    }

    /// With TLS, of which the handshake is done by the server's own thread.
    pub fn start_secured(config: Config, tls: Arc<ServerConfig>) -> Server {
        Server::start_with(config, Some(tls))
    }

    fn start_with(config: Config, tls: Option<Arc<ServerConfig>>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (commands, received) = mpsc::channel();
        let (bell, rung) = UnixStream::pair().unwrap();
        rung.set_nonblocking(true).unwrap();
        let thread = std::thread::spawn(move || serve(config, tls, &listener, &rung, &received));
        Server { address, commands, bell, thread: Some(thread) }
    }

    pub fn command(&self, command: Command) {
        self.commands.send(command).unwrap();
        (&self.bell).write_all(&[1]).unwrap();
    }

    pub fn report(&self) -> Report {
        let (sender, report) = mpsc::channel();
        self.command(Command::Report(sender));
        report.recv().unwrap()
    }

    /// Asks for reports until one satisfies; the test's own timeout is the watchdog.
    pub fn wait_for(&self, satisfied: impl Fn(&Report) -> bool) {
        while !satisfied(&self.report()) {
            std::thread::yield_now();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Stop);
        let _ = (&self.bell).write_all(&[1]);
        let result = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            result.unwrap();
        }
    }
}

fn serve(
    config: Config,
    tls: Option<Arc<ServerConfig>>,
    listener: &TcpListener,
    rung: &UnixStream,
    commands: &Receiver<Command>,
) {
    let mut reactor = Reactor::new(&reactor::Config::default()).unwrap();
    let mut gateway = Gateway::new(config, 7);
    let mut upstream = Functions::new();
    let mut events = Vec::new();
    let (mut departed, mut unsettled) = (0, false);
    reactor.accept(listener.as_fd(), LISTENER);
    reactor.poll(rung.as_fd(), COMMANDS);
    loop {
        let wait = match gateway.next_timer() {
            Some(at) => Wait::Until(at),
            None => Wait::Forever,
        };
        reactor.turn(wait, &mut events).unwrap();
        let now = clock::now();
        for event in events.drain(..) {
            match event {
                Event::Accepted { socket, .. } if tls.is_some() => {
                    let arrival = shake(socket, tls.as_ref().unwrap());
                    gateway.adopt_secured(&mut reactor, now, &mut upstream, arrival);
                }
                Event::Accepted { socket, .. } => {
                    let arrival = Arrival { socket, door: Door::Public, tls: None };
                    gateway.adopt(&mut reactor, now, arrival);
                }
                event if event.token().is_some_and(Gateway::owns) => {
                    gateway.on_event(&mut reactor, now, &mut upstream, event);
                }
                _ => {}
            }
        }
        while rung.try_clone().unwrap().read(&mut [0; 64]).is_ok() {}
        while let Ok(command) = commands.try_recv() {
            match command {
                Command::Release => upstream.release(),
                Command::Drain => {
                    upstream.draining = true;
                    gateway.drain(&mut reactor, now, &mut upstream);
                }
                Command::SendAway => send_all_away(&mut gateway, &mut reactor, now),
                Command::Unsettle => unsettled = true,
                Command::Report(report) => {
                    upstream.collect();
                    let _ = report.send(Report {
                        held: upstream.held.len(),
                        cancelled: upstream.cancelled,
                        blocks: upstream.buffers.len(),
                        is_empty: gateway.is_empty(),
                        received: received_bytes(&gateway),
                        departed,
                    });
                }
                Command::Stop => return,
            }
        }
        while let Some((caller, answer)) = upstream.ready.pop_front() {
            gateway.on_answer(&mut reactor, now, &mut upstream, caller, answer);
        }
        gateway.on_tick(&mut reactor, now, &mut upstream);
        upstream.collect();
        if unsettled {
            send_all_away(&mut gateway, &mut reactor, now);
        }
        while let Some(Departed { socket, to }) = gateway.next_departed() {
            assert_eq!(to, DESTINATION);
            departed += 1;
            gateway.take_over(&mut reactor, now, socket);
        }
    }
}

fn shake(socket: OwnedFd, config: &Arc<ServerConfig>) -> Arrival {
    let mut socket = TcpStream::from(socket);
    socket.set_nonblocking(false).unwrap();
    let mut session = ServerConnection::new(Arc::clone(config)).unwrap();
    while session.is_handshaking() {
        session.complete_io(&mut socket).unwrap();
    }
    socket.set_nonblocking(true).unwrap();
    Arrival { socket: socket.into(), door: Door::Public, tls: Some(Box::new(session)) }
}

fn send_all_away(gateway: &mut Gateway, reactor: &mut Reactor, now: Nanos) {
    let departure = Departure { to: DESTINATION, until: Nanos(u64::MAX) };
    gateway.send_away(reactor, now, gateway.connections(), departure);
}

/// Runs calls at once, on the worker's end of a channel.
struct Functions {
    engine: EngineChannel,
    worker: WorkerLane,
    /// What `SharedBlock`s in use name, by tag.
    buffers: HashMap<u64, OutboundBuffer>,
    dropped: DropList,
    next: u64,
    ready: VecDeque<(u64, Answer)>,
    /// Callers of `hold`, by call.
    held: HashMap<u64, u64>,
    cancelled: usize,
    draining: bool,
}

impl Functions {
    fn new() -> Functions {
        let geometry = Geometry::new(1, 16 << 20).unwrap();
        let (mut engine, fds) = EngineChannel::create(geometry).unwrap();
        let doorbell = engine.open_lane(LANE).unwrap();
        let channel = WorkerChannel::map(geometry, fds.a, fds.b, fds.bell).unwrap();
        Functions {
            engine,
            worker: WorkerLane::new(Arc::new(channel), LANE, doorbell).unwrap(),
            buffers: HashMap::new(),
            dropped: DropList::default(),
            next: 1,
            ready: VecDeque::new(),
            held: HashMap::new(),
            cancelled: 0,
            draining: false,
        }
    }

    fn collect(&mut self) {
        while let Some(tag) = self.dropped.take() {
            self.worker.free(self.buffers.remove(&tag).unwrap());
        }
    }

    fn release(&mut self) {
        let held: Vec<u64> = self.held.drain().map(|(_, caller)| caller).collect();
        for caller in held {
            self.answer(caller, Outcome::Ok, &Spoken::default(), b"released");
        }
    }

    fn answer(&mut self, caller: u64, outcome: Outcome, spoken: &Spoken, payload: &[u8]) {
        let headers =
            spoken.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let fields = ReplyFields {
            status: spoken.status,
            content_type: spoken.content_type.as_bytes(),
            headers,
        };
        let mut bytes = Vec::new();
        fields.encode(&mut bytes);
        let envelope_size = bytes.len();
        bytes.extend_from_slice(payload);
        let tag = self.next;
        self.next += 1;
        let buffer = self.worker.allocate(bytes.len()).unwrap();
        self.worker.outbound_mut(&buffer)[..bytes.len()].copy_from_slice(&bytes);
        let block = self.worker.block(&buffer, envelope_size, payload.len());
        self.buffers.insert(tag, buffer);
        let mut block = self.engine.lane(LANE).unwrap().outbound(&block).unwrap();
        block.report_drop(self.dropped.clone(), tag);
        let block = Some(block);
        let answer = Answer { outcome, message: "", retry_after_s: None, block, times: None };
        self.ready.push_back((caller, answer));
    }
}

/// What a function says beside its payload.
#[derive(Default)]
struct Spoken {
    status: Option<u16>,
    content_type: String,
    headers: Vec<(String, String)>,
}

impl Spoken {
    /// From the lines of a body: `status: N`, `type: T`, anything else is a header.
    fn parse(text: &str) -> Spoken {
        let mut spoken = Spoken::default();
        for (name, value) in text.lines().filter_map(|line| line.split_once(": ")) {
            match name {
                "status" => spoken.status = Some(value.parse().unwrap()),
                "type" => value.clone_into(&mut spoken.content_type),
                _ => spoken.headers.push((name.to_owned(), value.to_owned())),
            }
        }
        spoken
    }
}

impl Upstream for Functions {
    fn resolve(&self, name: &[u8]) -> Option<u32> {
        let index = FUNCTIONS.iter().position(|function| function.as_bytes() == name)?;
        u32::try_from(index).ok()
    }

    fn submit(&mut self, _: &mut Reactor, _: Nanos, call: NewCall<'_>) -> Result<u64, Refusal> {
        let id = self.next;
        self.next += 1;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let query = text(call.request.query);
        let plain = Spoken::default();
        match FUNCTIONS[call.function as usize] {
            "echo" => self.answer(call.caller, Outcome::Ok, &plain, call.body),
            "inspect" => {
                let request = &call.request;
                let mut seen = format!(
                    "method={} suffix={} query={query} id={} trace={} timeout={:?}\n",
                    text(request.method),
                    text(request.suffix),
                    text(request.request_id),
                    text(request.traceparent),
                    call.timeout
                );
                for (name, value) in request.headers.clone() {
                    seen.push_str(&format!("{}: {}\n", text(name), text(value)));
                }
                self.answer(call.caller, Outcome::Ok, &plain, seen.as_bytes());
            }
            "reply" => {
                let spoken = Spoken::parse(&text(call.body));
                self.answer(call.caller, Outcome::Ok, &spoken, b"payload");
            }
            "fail" => {
                let outcome = Outcome::try_from(query.parse::<u8>().unwrap()).unwrap();
                let status = text(call.request.suffix).trim_start_matches('/').parse().ok();
                let spoken = Spoken { status, ..plain };
                self.answer(call.caller, outcome, &spoken, call.body);
            }
            "size" => {
                let size: usize = query.parse().unwrap();
                let payload: Vec<u8> = (0..size).map(pattern).collect();
                self.answer(call.caller, Outcome::Ok, &plain, &payload);
            }
            "refuse" => {
                let (outcome, message) = (Outcome::Overloaded, "the queue is full");
                return Err(Refusal { outcome, message, retry_after_s: Some(3) });
            }
            _ => {
                self.held.insert(id, call.caller);
            }
        }
        Ok(id)
    }

    fn cancel(&mut self, _: &mut Reactor, _: Nanos, call: u64) {
        self.cancelled += usize::from(self.held.remove(&call).is_some());
    }

    fn write_unready(&self, out: &mut String) {
        if self.draining {
            out.push_str("draining");
        }
    }

    fn is_draining(&self) -> bool {
        self.draining
    }

    fn metrics(&self, out: &mut String) {
        out.push_str("engine_metric 1\n");
    }

    fn functions_json(&self, out: &mut String) {
        out.push_str("{\"functions\":[]}");
    }
}

fn received_bytes(gateway: &Gateway) -> u64 {
    let mut metrics = String::new();
    gateway.metrics(&mut metrics);
    let name = "nightcore_gateway_received_bytes_total{shard=\"7\"} ";
    metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse().unwrap()
}

/// Byte `index` of what `size` answers.
#[expect(clippy::cast_possible_truncation, reason = "below 251")]
pub fn pattern(index: usize) -> u8 {
    (index % 251) as u8
}
