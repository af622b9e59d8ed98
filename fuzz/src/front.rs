//! A gateway with one client on a real connection, the functions behind it, and what the client sees.
//! Time stands still, and everything happens in the turn that asks for it, so the same bytes in the
//! same pieces have the same end.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use gateway::{
    Answer, Arrival, Config, Departed, Departure, Door, Gateway, NewCall, Refusal, Upstream,
};
use reactor::clock::Nanos;
use reactor::{Reactor, Wait};

const NOW: Nanos = Nanos(1_000_000_000);
/// Turns after which what goes on would go on for ever.
const TURNS_MAX: usize = 10_000;
/// Names that functions have.
const FUNCTIONS: [&[u8]; 2] = [b"f", b"a.b_c-9"];
/// As in `gateway`: longer ones are cut to it.
const TIMEOUT_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

thread_local! {
    /// Made once: a ring costs more than what is tried on it.
    static REACTOR: RefCell<Reactor> = RefCell::new(
        Reactor::new(&reactor::Config {
            entries: 64,
            receive_buffers: 64,
            receive_buffer_size: 16 * 1024,
        })
        .expect("a ring"),
    );
}

/// A piece of what the client sends.
#[derive(Clone, Copy)]
pub struct Piece<'a> {
    pub bytes: &'a [u8],
    /// Whether the connection is asked to move to another shard before these bytes come.
    pub moves: bool,
}

/// A call as it reached the functions.
#[derive(Debug, PartialEq, Eq)]
pub struct Call {
    pub function: u32,
    pub timeout: Option<Duration>,
    pub texts: [Vec<u8>; 4],
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    pub body: Vec<u8>,
}

/// Functions that answer each call by `answer`.
pub struct Functions<F> {
    pub calls: Vec<Call>,
    answer: F,
    ready: VecDeque<(u64, Answer)>,
}

impl<F: FnMut() -> Answer> Functions<F> {
    /// Called by nobody yet.
    pub fn new(answer: F) -> Functions<F> {
        Functions { calls: Vec::new(), answer, ready: VecDeque::new() }
    }
}

/// Sends the pieces one after the other, ends the client's half, and gives all that the client got.
/// Nothing is left of the connection then.
pub fn converse<F: FnMut() -> Answer>(
    config: &Config,
    functions: &mut Functions<F>,
    pieces: &[Piece<'_>],
) -> Vec<u8> {
    let (client, socket) = UnixStream::pair().expect("a socket pair");
    for end in [&client, &socket] {
        end.set_nonblocking(true).expect("a socket can be non-blocking");
    }
    REACTOR.with_borrow_mut(|reactor| {
        let mut front = Front {
            gateway: Gateway::new(config.clone(), 7),
            reactor,
            functions,
            seen: Vec::new(),
        };
        let arrival = Arrival { socket: OwnedFd::from(socket), door: Door::Public, tls: None };
        front.gateway.adopt(front.reactor, NOW, arrival);
        for piece in pieces {
            if piece.moves {
                let departure = Departure { to: 3, until: Nanos(u64::MAX) };
                front.gateway.send_away(front.reactor, NOW, 1, departure);
            }
            // A gateway that has closed takes no more, which is its right.
            if (&client).write_all(piece.bytes).is_err() {
                break;
            }
            front.settle(&client);
        }
        let _ = client.shutdown(Shutdown::Write);
        front.settle(&client);
        let seen = std::mem::take(&mut front.seen);
        drop(client);
        for _ in 0..TURNS_MAX {
            if front.gateway.is_empty() && front.reactor.in_flight() == 0 {
                return seen;
            }
            front.turn();
        }
        panic!("a connection outlives its client");
    })
}

struct Front<'a, F> {
    gateway: Gateway,
    reactor: &'a mut Reactor,
    functions: &'a mut Functions<F>,
    seen: Vec<u8>,
}

impl<F: FnMut() -> Answer> Front<'_, F> {
    /// Lets everything happen that can happen without another byte from the client.
    fn settle(&mut self, mut client: &UnixStream) {
        let mut quiet = 0;
        for _ in 0..TURNS_MAX {
            let mut buffer = [0; 16 * 1024];
            let read = client.read(&mut buffer).unwrap_or(0);
            self.seen.extend_from_slice(&buffer[..read]);
            quiet = if self.turn() || read > 0 { 0 } else { quiet + 1 };
            // What a turn submits may complete in the next one.
            if quiet == 2 {
                return;
            }
        }
        panic!("a connection never rests");
    }

    /// Whether anything happened.
    fn turn(&mut self) -> bool {
        let mut events = Vec::new();
        self.reactor.turn(Wait::Not, &mut events).expect("the ring goes on");
        let mut happened = !events.is_empty();
        for event in events {
            self.gateway.on_event(self.reactor, NOW, self.functions, event);
        }
        while let Some((caller, answer)) = self.functions.ready.pop_front() {
            happened = true;
            self.gateway.on_answer(self.reactor, NOW, self.functions, caller, answer);
        }
        while let Some(Departed { socket, .. }) = self.gateway.next_departed() {
            happened = true;
            self.gateway.take_over(self.reactor, NOW, socket);
        }
        happened
    }
}

impl<F: FnMut() -> Answer> Upstream for Functions<F> {
    fn resolve(&self, name: &[u8]) -> Option<u32> {
        assert!((1..=64).contains(&name.len()), "a name of {} bytes", name.len());
        assert!(name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(byte)));
        (0..).zip(FUNCTIONS).find(|(_, function)| *function == name).map(|(index, _)| index)
    }

    fn submit(&mut self, _: &mut Reactor, _: Nanos, call: NewCall<'_>) -> Result<u64, Refusal> {
        let request = &call.request;
        assert!(request.encoded_size().is_ok(), "the envelope has room for every accepted head");
        assert!(request.suffix.is_empty() || request.suffix.starts_with(b"/"));
        assert!((1..=64).contains(&request.request_id.len()));
        let in_id = |byte: &u8| byte.is_ascii_alphanumeric() || b"._:-".contains(byte);
        assert!(request.request_id.iter().all(in_id), "{:?}", request.request_id);
        assert!(matches!(request.traceparent.len(), 0 | 55));
        assert!(call.timeout.is_none_or(|time| !time.is_zero() && time <= TIMEOUT_MAX));
        let texts = [request.method, request.suffix, request.query, request.traceparent];
        let headers = request.headers.clone();
        self.calls.push(Call {
            function: call.function,
            timeout: call.timeout,
            texts: texts.map(<[u8]>::to_vec),
            headers: headers.map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
            body: call.body.to_vec(),
        });
        self.ready.push_back((call.caller, (self.answer)()));
        Ok(self.calls.len() as u64)
    }

    fn cancel(&mut self, _: &mut Reactor, _: Nanos, _: u64) {}

    fn write_unready(&self, _: &mut String) {}

    fn is_draining(&self) -> bool {
        false
    }

    fn metrics(&self, out: &mut String) {
        out.push_str("engine_metric 1\n");
    }

    fn functions_json(&self, out: &mut String) {
        out.push_str("{\"functions\":[]}");
    }
}
