//! One request over HTTP/2, from its head to its answer. What it may be and what it is told is
//! decided where HTTP/1.1 has it decided (`gateway::intake`); here is what HTTP/2 says it with.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gateway::RequestId;
use gateway::access_log::{Entry, Feed};
use gateway::cors::{self, Cors};
use gateway::intake::{Failure, Fault, Head, Inquiry, Intake, Parcel};
use gateway::portal::{Reply, Subject};
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;

use crate::activity::{Activity, Busy};
use crate::body::{Body, held};
use crate::desk::{Answered, Desk};
use crate::gather::{GatherFault, Shape, Terms, gather};
use crate::grpc;
use crate::ledger::{Client, Hold};
use crate::line::{Journal, Line};
use crate::stats::{Protocol, Stats};
use crate::unwanted::discard;

/// The name under which ids come and go.
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What all requests share.
pub struct Room {
    /// Reads requests.
    pub intake: RefCell<Intake>,
    /// Reaches the shards.
    pub desk: Rc<Desk>,
    /// Counts.
    pub stats: Arc<Stats>,
    /// Where answers are logged, if they are.
    pub log: RefCell<Option<Feed>>,
}

/// Whose request it is.
#[derive(Clone)]
pub struct Origin {
    /// Its page in the ledger.
    pub client: Arc<Client>,
    /// Its connection's.
    pub activity: Rc<Activity>,
    /// Who connected.
    pub peer: SocketAddr,
}

/// A request that was read as far as its head.
pub struct Exchange<'a> {
    pub(crate) room: &'a Room,
    pub(crate) client: &'a Arc<Client>,
    pub(crate) id: RequestId,
    /// When its head was complete.
    pub(crate) began: Instant,
    pub(crate) busy: Busy,
    /// What the access log will be told.
    pub(crate) line: &'a Line<'a>,
    /// The page that asks.
    origin: cors::Origin,
    /// Where web pages are told about.
    pub(crate) cors: Option<Arc<Cors>>,
}

/// A call that could not be sent, or was not answered.
pub enum CallFault {
    /// As HTTP would say it.
    Failure(Failure),
    /// It is not what a call of gRPC is.
    Message(grpc::message::MessageFault),
}

/// Serves one request.
///
/// # Errors
/// None.
pub async fn serve(
    room: Rc<Room>,
    origin: Origin,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let busy = origin.activity.begin();
    let (parts, mut incoming) = request.into_parts();
    let cookies = cookies(&parts.headers);
    let headers = fields(&parts, cookies.as_ref());
    let id = room.intake.borrow_mut().request_id(&headers);
    let began = Instant::now();
    let (page, cors) = {
        let intake = room.intake.borrow();
        (intake.origin(&headers), intake.config().cors.clone())
    };
    let journal = Journal { feed: &room.log, stats: &room.stats };
    let entry = Entry::new(parts.method.as_str().as_bytes(), head_size(&parts, &headers));
    let line = Line::new(journal, id, origin.peer, entry);
    let client = &origin.client;
    let exchange =
        Exchange { room: &room, client, id, began, busy, line: &line, origin: page, cors };
    let response =
        if grpc::path::is_grpc(&parts.headers) && !parts.uri.path().starts_with("/function/") {
            room.stats.request(Protocol::Grpc);
            grpc::exchange::answer(exchange, &parts, &headers, &mut incoming).await
        } else {
            room.stats.request(Protocol::Http);
            exchange.answer(&parts, &headers, &mut incoming).await
        };
    line.answered(&response);
    if !incoming.is_end_stream() {
        tokio::task::spawn_local(discard(incoming));
    }
    Ok(response)
}

/// Bytes of a head before they are packed: what names and values have.
fn head_size(parts: &Parts, headers: &[(&str, &[u8])]) -> usize {
    let line = parts.method.as_str().len() + target(parts).len();
    line + headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
}

/// The fields as HTTP/1.1 has them: `:authority` is its Host, and a cookie is one field
/// (RFC 9113, 8.2.3).
fn fields<'a>(parts: &'a Parts, cookies: Option<&'a Vec<u8>>) -> Vec<(&'a str, &'a [u8])> {
    let mut fields = Vec::with_capacity(parts.headers.len() + 1);
    if let Some(authority) = parts.uri.authority()
        && !parts.headers.contains_key(header::HOST)
    {
        fields.push((header::HOST.as_str(), authority.as_str().as_bytes()));
    }
    let others =
        parts.headers.iter().filter(|(name, _)| cookies.is_none() || *name != header::COOKIE);
    fields.extend(others.map(|(name, value)| (name.as_str(), value.as_bytes())));
    fields.extend(cookies.map(|cookies| (header::COOKIE.as_str(), cookies.as_slice())));
    fields
}

/// The crumbs of a cookie in one piece; none if there is none or one.
fn cookies(headers: &HeaderMap) -> Option<Vec<u8>> {
    let crumbs = headers.get_all(header::COOKIE);
    crumbs.iter().nth(1)?;
    let crumbs: Vec<&[u8]> = crumbs.iter().map(HeaderValue::as_bytes).collect();
    Some(crumbs.join(b"; ".as_slice()))
}

/// Path and query.
pub(crate) fn target(parts: &Parts) -> &[u8] {
    parts.uri.path_and_query().map_or(b"".as_slice(), |target| target.as_str().as_bytes())
}

impl Exchange<'_> {
    async fn answer(
        self,
        parts: &Parts,
        headers: &[(&str, &[u8])],
        incoming: &mut Incoming,
    ) -> Response<Body> {
        let head =
            Head { method: parts.method.as_str().as_bytes(), target: target(parts), headers };
        let inquiry = {
            let mut intake = self.room.intake.borrow_mut();
            self.line.fill(|entry| intake.read(&head, &self.id, entry))
        };
        let answered = match inquiry {
            Err(failure) => Err(failure),
            Ok(Inquiry::Health) => {
                let text = HeaderValue::from_static("text/plain; charset=utf-8");
                let response = self.begin(StatusCode::OK);
                return self.end(response, text, Bytes::from_static(b"ok\n"), &parts.method);
            }
            Ok(Inquiry::Preflight) => return self.allow(headers),
            Ok(Inquiry::Ready) => self.ask(Subject::Readiness, None).await,
            Ok(Inquiry::Call(parcel)) => {
                let called = self.call(parcel, incoming, Shape::Any, None).await;
                called.map_err(|fault| match fault {
                    CallFault::Failure(failure) => failure,
                    // Of nothing but messages, which were not asked for.
                    CallFault::Message(_) => self.refuse(Fault::Gone),
                })
            }
        };
        match answered {
            Ok(Answered { reply: Reply::Told { status, fields, body }, hold, .. }) => {
                self.tell(status, fields, held(body, hold), &parts.method)
            }
            Ok(Answered { reply: Reply::Failed(failure), .. }) | Err(failure) => {
                self.fail(&failure, &parts.method)
            }
        }
    }

    /// Gathers the body and has a shard run the call. `timeout` is what another protocol says beside
    /// the parcel.
    pub(crate) async fn call(
        &self,
        parcel: Parcel,
        incoming: &mut Incoming,
        shape: Shape,
        timeout: Option<Duration>,
    ) -> Result<Answered, CallFault> {
        let failure = |fault| CallFault::Failure(self.refuse(fault));
        let timeout = [timeout, parcel.timeout].into_iter().flatten().min();
        // Longer than a process lives is no deadline.
        let deadline = timeout.and_then(|timeout| self.began.checked_add(timeout));
        let terms = self.terms(shape, deadline);
        let gathered = gather(incoming, terms, self.client).await;
        let (body, hold) = gathered.map_err(|fault| match fault {
            GatherFault::Limit(fault) => failure(fault),
            GatherFault::Message(fault) => CallFault::Message(fault),
            GatherFault::Reset => {
                self.line.abandon();
                failure(Fault::Gone)
            }
        })?;
        self.line.count_body(body.len());
        let body = match shape {
            Shape::Any => body,
            Shape::Message => grpc::message::strip(body).map_err(CallFault::Message)?,
        };
        // On the clock that shards go by.
        let deadline = timeout
            .map(|timeout| reactor::clock::now() + timeout.saturating_sub(self.began.elapsed()));
        let Parcel { names, envelope, .. } = parcel;
        let subject = Subject::Call { names, envelope, body, deadline };
        self.ask(subject, Some(hold)).await.map_err(CallFault::Failure)
    }

    async fn ask(&self, subject: Subject, body: Option<Hold>) -> Result<Answered, Failure> {
        let pending = self.room.desk.ask(subject, body, self.client);
        let pending = pending.map_err(|fault| self.refuse(fault))?;
        let answered = pending.await.map_err(|fault| self.refuse(fault))?;
        self.line.time(answered.times);
        Ok(answered)
    }

    pub(crate) fn refuse(&self, fault: Fault) -> Failure {
        self.room.intake.borrow().refuse(fault)
    }

    fn terms(&self, shape: Shape, deadline: Option<Instant>) -> Terms {
        let intake = self.room.intake.borrow();
        let config = intake.config();
        let prefix = match shape {
            Shape::Any => 0,
            Shape::Message => grpc::message::PREFIX_SIZE,
        };
        Terms {
            max: config.body_max as usize + prefix,
            pause: config.body_timeout,
            deadline,
            shape,
        }
    }

    /// An answer with what every answer has; `hyper` adds the date.
    pub(crate) fn begin(&self, status: StatusCode) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = status;
        // An id is of characters that every field may have.
        if let Ok(id) = HeaderValue::from_bytes(self.id.as_bytes()) {
            response.headers_mut().insert(X_REQUEST_ID, id);
        }
        if let Some(cors) = &self.cors {
            cors.write(self.origin, |name, value| append(response.headers_mut(), name, value));
        }
        response
    }

    /// Answers a preflight.
    fn allow(self, headers: &[(&str, &[u8])]) -> Response<Body> {
        let mut response = self.begin(StatusCode::NO_CONTENT);
        let fields = headers.iter().map(|(name, value)| (name.as_bytes(), *value));
        cors::write_preflight(fields, |name, value| append(response.headers_mut(), name, value));
        self.finish(response, Bytes::new(), &Method::OPTIONS)
    }

    /// Adds what a function says. It was checked by the rules of HTTP/1.1.
    pub(crate) fn relay(&self, headers: &mut HeaderMap, fields: Vec<(Vec<u8>, Vec<u8>)>) {
        for (name, value) in fields {
            if self.cors.is_none() || !cors::is_ours(&name) {
                append(headers, &name, &value);
            }
        }
    }

    fn tell(
        self,
        status: u16,
        fields: Vec<(Vec<u8>, Vec<u8>)>,
        body: Bytes,
        method: &Method,
    ) -> Response<Body> {
        // The portal lets no other status through.
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = self.begin(status);
        self.relay(response.headers_mut(), fields);
        self.finish(response, body, method)
    }

    fn fail(self, failure: &Failure, method: &Method) -> Response<Body> {
        let status = StatusCode::from_u16(failure.status);
        let mut response = self.begin(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
        let headers = response.headers_mut();
        if let Some(seconds) = failure.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = failure.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        if let Some(challenge) = failure.challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        let body = Bytes::from(failure.json(&self.id));
        self.end(response, HeaderValue::from_static("application/json"), body, method)
    }

    fn end(
        self,
        mut response: Response<()>,
        content_type: HeaderValue,
        body: Bytes,
        method: &Method,
    ) -> Response<Body> {
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        self.finish(response, body, method)
    }

    /// The length is told also where the body is not: to HEAD.
    fn finish(self, mut response: Response<()>, body: Bytes, method: &Method) -> Response<Body> {
        if !matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            let size = HeaderValue::from(body.len());
            response.headers_mut().insert(header::CONTENT_LENGTH, size);
        }
        let body = if *method == Method::HEAD { Bytes::new() } else { body };
        response.map(|()| Body::new(body, self.busy))
    }
}

/// Adds a field. What HTTP/2 does not take, although HTTP/1.1 does, is left out.
fn append(headers: &mut HeaderMap, name: &[u8], value: &[u8]) {
    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
        headers.append(name, value);
    }
}
