//! One client connection: what it is doing, what it is owed, and the way its bytes take. The
//! phases are drawn in `lifecycle`. One request is in progress at a time; what the client sends
//! ahead waits in the backlog, and beyond a bound in the client's own socket.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv};
use reactor::{Operation, ReceiveBuffer};

use crate::access::Access;
use crate::access_log::Entry;
use crate::answer::{self, Outgoing};
use crate::arrival::{Arrival, Door};
use crate::backlog::Backlog;
use crate::deadline::Deadline;
use crate::departure::Departure;
use crate::http::head::Persistence;
use crate::key::{Key, Purpose};
use crate::lifecycle::{Incident, Owed, Phase, owed};
use crate::reject::Reject;
use crate::request_body::RequestBody;
use crate::respond::{self, Exchange, Failure};
use crate::send::{Interim, Sending, Step};
use crate::shared::{Io, Stage};
use crate::transport::Transport;
use crate::upstream::{Answer, Upstream};

/// Bytes a client may send ahead of the answer to its current request before we stop receiving:
/// two of the largest heads, so that a head always fits.
const BACKLOG_MAX: usize = 64 * 1024;
const _: () = assert!(BACKLOG_MAX >= 2 * crate::config::HEAD_SIZE_LIMIT as usize);
/// Bytes thrown away behind the last answer: a client that is in the middle of an upload of the
/// default body limit and reads only afterwards still gets to its answer.
const DRAIN_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How long we wait behind the last answer for the client to close its half.
const DRAIN_TIME: Duration = Duration::from_secs(3);
/// What the kernel holds at the end of a deadline has this long to come up the ring.
const UNREAD_TIME: Duration = Duration::from_millis(10);

/// What becomes of a connection in a step.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Open,
    Closed,
    /// It is between two requests and the ring holds nothing of it: it goes to this shard.
    Leaves(u16),
}

/// Whether the connection counts against the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Served,
    /// Over the limit: it gets one answer, without having asked.
    Refused,
}

pub(crate) enum State {
    Idle,
    Head,
    Body(RequestBody),
    Calling { call: u64 },
    Sending(Sending),
    Draining { left: usize },
}

pub(crate) enum Receiving {
    Armed(Operation),
    /// The receive was cancelled, for the backlog is full or the connection is about to leave; its
    /// end is on its way.
    Stopping,
    Stopped,
    /// The client closed its half, or the connection broke.
    Ended,
}

pub(crate) struct Connection {
    pub(crate) key: Key,
    pub(crate) admission: Admission,
    pub(crate) door: Door,
    pub(crate) socket: OwnedFd,
    pub(crate) transport: Transport,
    pub(crate) state: State,
    /// Of the request in progress, or the last one.
    pub(crate) exchange: Exchange,
    pub(crate) interim: Interim,
    /// What the access log will be told; `None` where there is no log.
    pub(crate) access: Option<Box<Access>>,
    pub(crate) deadline: Deadline,
    pub(crate) receiving: Receiving,
    pub(crate) backlog: Backlog,
    /// Set when another shard shall have it.
    pub(crate) departure: Option<Departure>,
}

impl Connection {
    pub(crate) fn adopt(io: &mut Io<'_>, key: Key, arrival: Arrival, admission: Admission) -> Self {
        let Arrival { socket, door, tls } = arrival;
        let operation = io.reactor.receive(socket.as_fd(), key.token(Purpose::Receive));
        let access = io.shared.access_log.is_some().then(|| Access::of(&socket));
        let mut connection = Connection {
            access,
            key,
            admission,
            door,
            socket,
            transport: Transport::of(tls),
            state: State::Idle,
            exchange: Exchange::unknown(&mut io.shared.ids),
            interim: Interim::None,
            deadline: Deadline::default(),
            receiving: Receiving::Armed(operation),
            backlog: Backlog::default(),
            departure: None,
        };
        match admission {
            Admission::Served => connection.set_deadline(io, io.shared.idle_timeout()),
            Admission::Refused => connection.refuse(io, Reject::TooManyConnections),
        }
        connection
    }

    /// What the access log will be told of the request in progress; `None` where there is no log.
    pub(crate) fn logged(&mut self) -> Option<&mut Entry> {
        self.access.as_mut()?.request()
    }

    /// Gives everything back. The call in progress, if any, has been cancelled or answered.
    pub(crate) fn close(mut self, io: &mut Io<'_>) {
        if matches!(self.state, State::Calling { .. }) {
            io.shared.calling -= 1;
        }
        let id = &self.exchange.request_id;
        let abandoned = |access: Box<Access>| (*access).abandoned(id);
        if let Some(record) = self.access.take().and_then(abandoned) {
            io.shared.log(record);
        }
        self.say_goodbye(io);
        self.deadline.disarm(&mut io.shared.wheel);
        self.backlog.clear(&mut io.shared.pool);
        if let State::Body(body) = self.state {
            body.recycle(&mut io.shared.pool);
        }
        io.reactor.close(self.socket);
    }

    pub(crate) fn on_received(
        &mut self,
        io: &mut Io<'_>,
        upstream: &mut impl Upstream,
        data: ReceiveBuffer,
    ) -> Fate {
        io.shared.metrics.bytes_in += data.len() as u64;
        if let State::Draining { left } = &mut self.state {
            *left = left.saturating_sub(data.len());
            return if *left == 0 { Fate::Closed } else { Fate::Open };
        }
        match self.transport {
            Transport::Plain => self.on_bytes(io, upstream, &data),
            Transport::Tls(_) => self.on_ciphertext(io, upstream, &data),
        }
    }

    /// Takes bytes of HTTP.
    pub(crate) fn on_bytes(
        &mut self,
        io: &mut Io<'_>,
        upstream: &mut impl Upstream,
        data: &[u8],
    ) -> Fate {
        match &mut self.state {
            State::Draining { .. } => {}
            State::Calling { .. } => self.hold(io, data),
            State::Sending(_) => {
                io.reactor.hasten();
                self.hold(io, data);
            }
            State::Idle | State::Head | State::Body(_) if self.backlog.is_empty() => {
                let used = self.feed(io, upstream, data);
                self.hold(io, &data[used..]);
            }
            State::Idle | State::Head | State::Body(_) => {
                self.backlog.append(data, &mut io.shared.pool);
                // Without a line's end there is nothing new to understand, and a head that comes
                // byte by byte must not be parsed for every byte.
                let head_max = io.shared.config.head_max as usize;
                if data.contains(&b'\n') || self.backlog.len() >= head_max {
                    self.feed_backlog(io, upstream);
                }
            }
        }
        Fate::Open
    }

    pub(crate) fn on_receive_ended(
        &mut self,
        io: &mut Io<'_>,
        upstream: &mut impl Upstream,
        error: Option<std::io::Error>,
    ) -> Fate {
        let cancelled = |error: &std::io::Error| error.raw_os_error() == Some(libc::ECANCELED);
        match (&self.receiving, &error) {
            // It ended before, by a word of TLS.
            (Receiving::Ended, _) => Fate::Open,
            (Receiving::Stopping, Some(error)) if cancelled(error) => {
                self.receiving = Receiving::Stopped;
                self.leave_or_resume(io)
            }
            (_, None) => {
                self.receiving = Receiving::Ended;
                self.on_incident(io, upstream, Incident::Ended)
            }
            (_, Some(_)) => {
                self.receiving = Receiving::Ended;
                self.on_incident(io, upstream, Incident::Reset)
            }
        }
    }

    pub(crate) fn on_timer(&mut self, io: &mut Io<'_>, upstream: &mut impl Upstream) -> Fate {
        if !self.deadline.fired(io.now, self.key, &mut io.shared.wheel) {
            return Fate::Open;
        }
        if self.has_unread() {
            self.set_deadline(io, UNREAD_TIME);
            return Fate::Open;
        }
        self.on_incident(io, upstream, Incident::Timeout)
    }

    /// Whether the client has sent what we wait for, and only we have not read it: a host that was
    /// held up finds its timers overdue before the ring, which brings a few completions a turn, has
    /// told it all. To close then would reset a client that was in time.
    fn has_unread(&self) -> bool {
        let waits = matches!(self.state, State::Idle | State::Head | State::Body(_))
            && matches!(self.receiving, Receiving::Armed(_) | Receiving::Stopping);
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        waits && recv(self.socket.as_raw_fd(), &mut [0], flags).is_ok_and(|size| size > 0)
    }

    pub(crate) fn on_answer(&mut self, io: &mut Io<'_>, answer: Answer) {
        if !matches!(self.state, State::Calling { .. }) {
            return;
        }
        io.shared.calling -= 1;
        if let Some(request) = self.logged() {
            request.time(answer.times);
        }
        self.settle_persistence(io);
        let frame = io.shared.frame(&self.exchange, io.now);
        let shared = &mut *io.shared;
        let (status, outgoing) =
            answer::compose(answer, &frame, &mut shared.scratch, &mut shared.pool);
        self.send(io, status, outgoing);
    }

    /// Performs what the table of `lifecycle` owes.
    pub(crate) fn on_incident(
        &mut self,
        io: &mut Io<'_>,
        upstream: &mut impl Upstream,
        incident: Incident,
    ) -> Fate {
        if matches!(self.state, State::Sending(_)) {
            io.reactor.hasten();
        }
        match owed(self.phase(), incident) {
            Owed::Nothing => {}
            Owed::Close => return Fate::Closed,
            Owed::CancelAndClose => {
                if let State::Calling { call } = self.state {
                    upstream.cancel(io.reactor, io.now, call);
                }
                return Fate::Closed;
            }
            Owed::AnswerTooSlow => self.refuse_unfinished(io, Reject::TooSlow),
            Owed::AnswerIncomplete => {
                self.refuse_unfinished(io, Reject::Malformed("the request ended early"));
            }
            Owed::CopyOut => {
                if let State::Sending(sending) = &mut self.state {
                    sending.unpin(io.reactor);
                }
                self.set_deadline(io, io.shared.config.write_timeout);
            }
            Owed::Grace => self.set_deadline(io, io.shared.idle_timeout()),
        }
        Fate::Open
    }

    /// An answer of ours is out, or a part of it.
    pub(crate) fn on_sent(
        &mut self,
        io: &mut Io<'_>,
        upstream: &mut impl Upstream,
        data: Vec<u8>,
        result: std::io::Result<usize>,
    ) -> Fate {
        let State::Sending(sending) = &mut self.state else {
            io.shared.pool.put(data);
            return Fate::Open;
        };
        match sending.step(io, &self.socket, self.key, data, result) {
            Step::Moved => {
                self.set_deadline(io, io.shared.config.write_timeout);
                Fate::Open
            }
            Step::Broken => self.on_incident(io, upstream, Incident::Reset),
            Step::Done => self.answered(io, upstream),
        }
    }

    /// The interim answer is out, or a part of it.
    pub(crate) fn on_interim_sent(
        &mut self,
        io: &mut Io<'_>,
        upstream: &mut impl Upstream,
        data: Vec<u8>,
        result: std::io::Result<usize>,
    ) -> Fate {
        match self.interim.step(io, &self.socket, self.key, data, result) {
            Step::Moved => Fate::Open,
            Step::Broken => self.on_incident(io, upstream, Incident::Reset),
            Step::Done => {
                self.start_sending(io);
                self.flush_transport(io);
                Fate::Open
            }
        }
    }

    /// Turns the request in progress away. What the answer leaves unread decides, with the
    /// reject, whether the connection goes on.
    pub(crate) fn refuse(&mut self, io: &mut Io<'_>, reject: Reject) {
        if !reject.leaves_framing_intact() {
            self.exchange.persistence = Persistence::Close;
        }
        self.settle_persistence(io);
        let shared = &mut *io.shared;
        let frame = shared.frame(&self.exchange, io.now);
        let failure = Failure::of(reject, &mut shared.scratch);
        let mut out = shared.pool.take();
        respond::failure(&mut out, &frame, &failure, &mut shared.pool);
        self.send(io, reject.status(), Outgoing::Bytes(out));
    }

    /// `refuse` while the request is incomplete.
    fn refuse_unfinished(&mut self, io: &mut Io<'_>, reject: Reject) {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Body(body) => body.recycle(&mut io.shared.pool),
            _ => self.exchange = Exchange::unknown(&mut io.shared.ids),
        }
        self.refuse(io, reject);
    }

    /// Sends an answer; the state is `Sending` until it is out.
    pub(crate) fn send(&mut self, io: &mut Io<'_>, status: u16, outgoing: Outgoing) {
        io.shared.metrics.answered(status);
        let sending = Sending::new(outgoing);
        if let Some(access) = &mut self.access {
            let id = &self.exchange.request_id;
            io.shared.log(access.answered(id, status, sending.total()));
        }
        self.state = State::Sending(sending);
        self.seal(io);
        self.prepare_departure(io);
        // Answers leave in order: this one waits for an interim one.
        if self.interim.is_in_flight() {
            self.set_deadline(io, io.shared.config.write_timeout);
        } else {
            self.start_sending(io);
        }
    }

    fn start_sending(&mut self, io: &mut Io<'_>) {
        // Behind its answer, this client is to speak next.
        let quietly = self.exchange.persistence == Persistence::KeepAlive
            && self.backlog.is_empty()
            && matches!(self.receiving, Receiving::Armed(_));
        if let State::Sending(sending) = &mut self.state {
            let time = sending.start(io, &self.socket, self.key, quietly);
            self.set_deadline(io, time);
        }
    }

    /// While the host drains, every answer is the last of its connection.
    pub(crate) fn settle_persistence(&mut self, io: &Io<'_>) {
        if io.shared.stage == Stage::Draining {
            self.exchange.persistence = Persistence::Close;
        }
    }

    pub(crate) fn set_deadline(&mut self, io: &mut Io<'_>, time: Duration) {
        self.deadline.set(io.now + time, self.key, &mut io.shared.wheel);
    }

    fn phase(&self) -> Phase {
        match &self.state {
            State::Idle => Phase::Idle,
            State::Head => Phase::Head,
            State::Body(_) => Phase::Body,
            State::Calling { .. } => Phase::Calling,
            State::Sending(sending) if sending.is_pinned() => Phase::Pinned,
            State::Sending(_) => Phase::Sending,
            State::Draining { .. } => Phase::Draining,
        }
    }

    /// The answer is out: on to the next request, or towards the end.
    fn answered(&mut self, io: &mut Io<'_>, upstream: &mut impl Upstream) -> Fate {
        match self.exchange.persistence {
            Persistence::KeepAlive => {
                self.state = State::Idle;
                self.set_deadline(io, io.shared.idle_timeout());
                if !self.backlog.is_empty() {
                    self.feed_backlog(io, upstream);
                }
            }
            Persistence::Close => {
                io.reactor.shutdown(self.socket.as_fd(), std::net::Shutdown::Write);
                self.backlog.clear(&mut io.shared.pool);
                self.state = State::Draining { left: DRAIN_BYTES_MAX };
                self.set_deadline(io, DRAIN_TIME);
            }
        }
        match self.receiving {
            Receiving::Ended => self.on_incident(io, upstream, Incident::Ended),
            _ => {
                self.flush_transport(io);
                self.leave_or_resume(io)
            }
        }
    }

    fn feed_backlog(&mut self, io: &mut Io<'_>, upstream: &mut impl Upstream) {
        let mut backlog = std::mem::take(&mut self.backlog);
        let used = self.feed(io, upstream, backlog.bytes());
        backlog.consume(used, &mut io.shared.pool);
        self.backlog = backlog;
    }

    /// Keeps bytes for later, unless there is no later.
    fn hold(&mut self, io: &mut Io<'_>, bytes: &[u8]) {
        let closing = self.exchange.persistence == Persistence::Close;
        if closing && matches!(self.state, State::Calling { .. } | State::Sending(_)) {
            return;
        }
        self.backlog.append(bytes, &mut io.shared.pool);
        if self.backlog.len() > BACKLOG_MAX
            && let Receiving::Armed(operation) = self.receiving
        {
            io.reactor.cancel(operation);
            self.receiving = Receiving::Stopping;
        }
    }

    /// Receives again if that was stopped and there is room again.
    pub(crate) fn resume(&mut self, io: &mut Io<'_>) {
        if matches!(self.receiving, Receiving::Stopped) && self.backlog.len() <= BACKLOG_MAX {
            let token = self.key.token(Purpose::Receive);
            self.receiving = Receiving::Armed(io.reactor.receive(self.socket.as_fd(), token));
        }
    }
}
