//! From bytes to a call: the half of a connection that reads. It understands as much of the bytes
//! it is given as one request allows, in place if the request lies in them as a whole, and leaves
//! the connection in the state that fits.

use std::time::Duration;

use ipc::envelope::RequestFields;

use crate::answer::{self, Outgoing};
use crate::arrival::Door;
use crate::auth::{Credentials, Resource};
use crate::connection::{Connection, State};
use crate::cors;
use crate::http::chunked::{ChunkFault, Progress};
use crate::http::head::{self, Expectation, Framing, Head, Persistence, TimeLeft};
use crate::reject::Reject;
use crate::request_body::RequestBody;
use crate::respond::{self, Exchange};
use crate::route::{Route, route};
use crate::shared::Io;
use crate::upstream::{CredentialFields, ForwardedHeaders, NewCall, Upstream};

/// A body up to this size is read although its request is turned away, as that saves the client a
/// new connection. A larger one is not worth reading.
const UNWANTED_BODY_MAX: u64 = 64 * 1024;

/// What a request is for.
enum Target<'a> {
    Function {
        function: u32,
        suffix: &'a [u8],
        query: &'a [u8],
    },
    /// One of the gateway's own resources.
    Own(Route<'a>),
}

/// Whether this is the look at a request that counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Its body has not come yet.
    Ahead,
    /// It is complete: there is one such look at each request.
    Final,
}

impl Connection {
    /// Takes what it can of `bytes` and says how many. Fewer than all: the rest belongs to a head
    /// that is incomplete, or to a later request.
    pub(crate) fn feed(
        &mut self,
        io: &mut Io<'_>,
        upstream: &mut impl Upstream,
        bytes: &[u8],
    ) -> usize {
        let mut used = 0;
        loop {
            let rest = &bytes[used..];
            let taken = match &self.state {
                State::Idle | State::Head => self.feed_head(io, upstream, rest),
                State::Body(_) => self.feed_body(io, upstream, rest),
                State::Calling { .. } | State::Sending(_) | State::Draining { .. } => 0,
            };
            if taken == 0 {
                return used;
            }
            used += taken;
        }
    }

    fn feed_head(&mut self, io: &mut Io<'_>, upstream: &mut impl Upstream, bytes: &[u8]) -> usize {
        // Empty lines ahead of a request are skipped, as RFC 9112, 2.2 asks. Half of one begins none.
        if bytes.is_empty() || bytes == b"\r" {
            return 0;
        }
        if bytes.starts_with(b"\r\n") {
            return 2;
        }
        let mut storage = head::storage();
        match head::parse(bytes, &mut storage, &io.shared.config) {
            Ok(Some(head)) => self.begin(io, upstream, bytes, &head),
            Ok(None) => {
                if matches!(self.state, State::Idle) {
                    self.state = State::Head;
                    self.set_deadline(io, io.shared.config.head_timeout);
                }
                0
            }
            Err(reject) => {
                self.exchange = Exchange::unknown(&mut io.shared.ids);
                self.refuse(io, reject);
                bytes.len()
            }
        }
    }

    /// A head is complete; `bytes` begins with it.
    fn begin(
        &mut self,
        io: &mut Io<'_>,
        upstream: &mut impl Upstream,
        bytes: &[u8],
        head: &Head<'_>,
    ) -> usize {
        io.shared.metrics.requests += 1;
        let cors = io.shared.config.cors.as_deref();
        self.exchange = Exchange::of(head, &mut io.shared.ids, cors);
        if let Some(access) = &mut self.access {
            access.begin(head);
        }
        let limit = io.shared.config.body_max;
        let reject = match (head.fault, head.framing) {
            (Some(fault), _) if !fault.leaves_framing_intact() => Some(fault),
            (_, Framing::Length(size)) if size > u64::from(limit) => {
                Some(Reject::BodyTooLarge { limit })
            }
            _ => None,
        };
        if let Some(reject) = reject {
            return self.refuse_unread(io, bytes, reject);
        }
        if let Framing::Length(size) = head.framing
            && let Ok(size) = usize::try_from(size)
            && let Some(body) = bytes[head.size..].get(..size)
        {
            self.dispatch(io, upstream, head, body);
            return head.size + size;
        }
        let mut body = RequestBody::new(head, bytes, limit, &mut io.shared.pool);
        match body.take(&bytes[head.size..]) {
            Ok((taken, Progress::Done)) => {
                self.complete(io, upstream, body);
                head.size + taken
            }
            Ok((_, Progress::More)) => {
                if let Some(reject) = self.unwanted(io, &*upstream, head) {
                    body.recycle(&mut io.shared.pool);
                    return self.refuse_unread(io, bytes, reject);
                }
                if head.expectation == Expectation::Continue {
                    self.seal_interim(io, respond::CONTINUE);
                }
                self.state = State::Body(body);
                self.set_deadline(io, io.shared.config.body_timeout);
                bytes.len()
            }
            Err(fault) => {
                body.recycle(&mut io.shared.pool);
                self.refuse_unread(io, bytes, reject_of(fault, limit))
            }
        }
    }

    fn feed_body(&mut self, io: &mut Io<'_>, upstream: &mut impl Upstream, bytes: &[u8]) -> usize {
        let State::Body(body) = &mut self.state else { return 0 };
        match body.take(bytes) {
            Ok((taken, Progress::More)) => {
                if body.has_progressed() {
                    self.set_deadline(io, io.shared.config.body_timeout);
                }
                taken
            }
            Ok((taken, Progress::Done)) => {
                if let State::Body(body) = std::mem::replace(&mut self.state, State::Idle) {
                    self.complete(io, upstream, body);
                }
                taken
            }
            Err(fault) => {
                if let State::Body(body) = std::mem::replace(&mut self.state, State::Idle) {
                    body.recycle(&mut io.shared.pool);
                }
                let limit = io.shared.config.body_max;
                self.refuse_unread(io, bytes, reject_of(fault, limit))
            }
        }
    }

    /// The body of a request that came in parts is complete.
    fn complete(&mut self, io: &mut Io<'_>, upstream: &mut impl Upstream, body: RequestBody) {
        let mut storage = head::storage();
        match head::parse(body.head(), &mut storage, &io.shared.config) {
            Ok(Some(head)) => self.dispatch(io, upstream, &head, body.body()),
            // It was complete and without fault when the body began.
            Ok(None) | Err(_) => self.refuse(io, Reject::Malformed("the head changed")),
        }
        body.recycle(&mut io.shared.pool);
    }

    /// Turns a request away and never looks at what is left of it.
    fn refuse_unread(&mut self, io: &mut Io<'_>, bytes: &[u8], reject: Reject) -> usize {
        self.exchange.persistence = Persistence::Close;
        self.refuse(io, reject);
        bytes.len()
    }

    /// The request is complete.
    fn dispatch(
        &mut self,
        io: &mut Io<'_>,
        upstream: &mut impl Upstream,
        head: &Head<'_>,
        body: &[u8],
    ) {
        if let Some(request) = self.logged() {
            request.count_body(body.len());
        }
        let origin = self.exchange.origin;
        if cors::is_preflight(head.method_text, origin, head.fields()) && head.fault.is_none() {
            return self.answer_preflight(io, head);
        }
        match self.target(io, &*upstream, head, Look::Final) {
            Err(reject) => self.refuse(io, reject),
            Ok(Target::Own(route)) => self.answer_own(io, upstream, route),
            Ok(Target::Function { function, suffix, query }) => {
                let request = RequestFields {
                    method: head.method_text,
                    suffix,
                    query,
                    request_id: self.exchange.request_id.as_bytes(),
                    traceparent: head.traceparent,
                    headers: ForwardedHeaders::new(head.headers, self.credential_fields(io)),
                };
                let timeout = match head.time_left {
                    TimeLeft::Unlimited => None,
                    TimeLeft::Milliseconds(0) => return self.refuse(io, Reject::NoTimeLeft),
                    TimeLeft::Milliseconds(time) => Some(Duration::from_millis(time)),
                };
                let caller = self.key.caller();
                let call = NewCall { function, caller, timeout, request, body };
                match upstream.submit(io.reactor, io.now, call) {
                    Ok(call) => {
                        self.state = State::Calling { call };
                        io.shared.calling += 1;
                        self.deadline.clear();
                    }
                    Err(refusal) => {
                        self.settle_persistence(io);
                        let frame = io.shared.frame(&self.exchange, io.now);
                        let (status, bytes) = answer::refuse(refusal, &frame, &mut io.shared.pool);
                        self.send(io, status, Outgoing::Bytes(bytes));
                    }
                }
            }
        }
    }

    /// What the request is for, if it may be. Who it comes from is looked at first, so that a stranger
    /// does not learn which functions there are.
    fn target<'a>(
        &mut self,
        io: &mut Io<'_>,
        upstream: &impl Upstream,
        head: &Head<'a>,
        look: Look,
    ) -> Result<Target<'a>, Reject> {
        if let Some(fault) = head.fault {
            return Err(fault);
        }
        let route = route(head.method, head.target)?;
        let route = route.permitted(self.door, io.shared.config.documents)?;
        if let (Route::Function { name, .. }, Some(request)) = (route, self.logged()) {
            request.name(name);
        }
        self.admit(io, head, route, look)?;
        match route {
            Route::Function { name, suffix, query } => {
                let function =
                    upstream.resolve(name).ok_or_else(|| Reject::no_function(upstream))?;
                Ok(Target::Function { function, suffix, query })
            }
            own => Ok(Target::Own(own)),
        }
    }

    /// Asks the doorkeeper, if there is one. Whoever comes to the admin door may see what is there to be
    /// seen; a function asks for a key at any door.
    fn admit(
        &mut self,
        io: &mut Io<'_>,
        head: &Head<'_>,
        route: Route<'_>,
        look: Look,
    ) -> Result<(), Reject> {
        let Some(doorkeeper) = &mut io.shared.doorkeeper else { return Ok(()) };
        let resource = match (route, self.door) {
            // A balancer in front has no key, and they tell nothing.
            (Route::Health | Route::Ready, _) => return Ok(()),
            (Route::Metrics | Route::Functions | Route::Engines, Door::Admin) => return Ok(()),
            (Route::Metrics | Route::Functions | Route::Engines, Door::Public) => Resource::Own,
            (Route::Function { name, .. }, _) => Resource::Function(name),
        };
        let credentials = Credentials::collect(head.fields());
        let client = doorkeeper.authenticate(credentials).map_err(Reject::Auth)?;
        if let Some(request) = self.logged() {
            request.recognise(&client);
        }
        client.authorize(resource).map_err(Reject::Auth)?;
        match look {
            Look::Ahead => Ok(()),
            Look::Final => client.spend(io.now).map_err(Reject::Auth),
        }
    }

    /// Whether a request can be turned away before its body has come, and should be: a client that
    /// asks first is told at once, and a body that is large or of unknown size is not waited for.
    fn unwanted(
        &mut self,
        io: &mut Io<'_>,
        upstream: &impl Upstream,
        head: &Head<'_>,
    ) -> Option<Reject> {
        let reject = self.target(io, upstream, head, Look::Ahead).err()?;
        let small = matches!(head.framing, Framing::Length(size) if size <= UNWANTED_BODY_MAX);
        (head.expectation == Expectation::Continue || !small).then_some(reject)
    }

    fn credential_fields(&self, io: &Io<'_>) -> CredentialFields {
        match io.shared.doorkeeper {
            Some(_) => CredentialFields::Withheld,
            None => CredentialFields::Forwarded,
        }
    }

    fn answer_preflight(&mut self, io: &mut Io<'_>, head: &Head<'_>) {
        self.settle_persistence(io);
        let frame = io.shared.frame(&self.exchange, io.now);
        let mut out = io.shared.pool.take();
        respond::preflight(&mut out, &frame, head);
        self.send(io, 204, Outgoing::Bytes(out));
    }

    fn answer_own(&mut self, io: &mut Io<'_>, upstream: &mut impl Upstream, route: Route<'_>) {
        let open = io.shared.served as usize;
        io.shared.text.clear();
        let content_type: &[u8] = match route {
            Route::Ready if upstream.is_draining() => {
                return self.refuse(io, Reject::NotReady("draining"));
            }
            Route::Ready => {
                upstream.write_unready(&mut io.shared.text);
                if !io.shared.text.is_empty() {
                    return self.tell_unready(io);
                }
                io.shared.text.push_str("ok\n");
                b"text/plain; charset=utf-8"
            }
            Route::Health | Route::Function { .. } => {
                io.shared.text.push_str("ok\n");
                b"text/plain; charset=utf-8"
            }
            Route::Metrics => {
                upstream.metrics(&mut io.shared.text);
                io.shared.metrics.write(io.shared.shard, open, &mut io.shared.text);
                b"text/plain; version=0.0.4; charset=utf-8"
            }
            Route::Functions => {
                upstream.functions_json(&mut io.shared.text);
                b"application/json"
            }
            Route::Engines => {
                upstream.engines_json(&mut io.shared.text);
                b"application/json"
            }
        };
        self.settle_persistence(io);
        let frame = io.shared.frame(&self.exchange, io.now);
        let mut out = io.shared.pool.take();
        respond::document(&mut out, 200, &frame, content_type, io.shared.text.as_bytes());
        self.send(io, 200, Outgoing::Bytes(out));
    }

    /// Answers `/readyz` with what stands in `text`.
    fn tell_unready(&mut self, io: &mut Io<'_>) {
        self.settle_persistence(io);
        let shared = &mut *io.shared;
        let frame = shared.frame(&self.exchange, io.now);
        let reject = Reject::NotReady("");
        let mut failure = respond::Failure::of(reject, &mut shared.scratch);
        failure.message = &shared.text;
        let mut out = shared.pool.take();
        respond::failure(&mut out, &frame, &failure, &mut shared.pool);
        self.send(io, reject.status(), Outgoing::Bytes(out));
    }
}

fn reject_of(fault: ChunkFault, limit: u32) -> Reject {
    match fault {
        ChunkFault::Size => Reject::Malformed("malformed chunk size"),
        ChunkFault::Extension => Reject::Malformed("malformed or oversized chunk extension"),
        ChunkFault::LineEnd => Reject::Malformed("a chunk must end with CR LF"),
        ChunkFault::Trailer => Reject::Malformed("malformed or oversized trailer"),
        ChunkFault::TooLarge => Reject::BodyTooLarge { limit },
    }
}
