//! Requests that were read on another thread, by the rules of this gateway: what HTTP/1.1 refuses
//! is refused here, what it forwards is forwarded. Of a protocol of its own is only the framing.
//!
//! A request becomes an owned [`Inquiry`], which crosses to a shard and becomes a call there
//! (`portal`).

use std::time::Duration;

use httparse::Header;
use ipc::Outcome;
use ipc::envelope::{RequestFields, Sink};
use reactor::clock;

use crate::access_log::Entry;
use crate::auth::{AuthReject, Credentials, Doorkeeper, Resource};
use crate::config::{Config, HEADERS_LIMIT};
use crate::cors::{self, Origin};
use crate::http::head::{Method, TARGET_MAX, TimeLeft};
use crate::http::rules::Fields;
use crate::reject::Reject;
use crate::request_id::{RequestId, RequestIds};
use crate::respond;
use crate::route::{Route, is_name, route};
use crate::upstream::{CredentialFields, ForwardedHeaders};

/// Made for requests of a thread that is no shard; shards count from zero.
const IDS_SALT: u16 = u16::MAX / 2;

/// Reads requests. Belongs to one thread.
pub struct Intake {
    config: Config,
    ids: RequestIds,
    /// Where requests show who they are; `None`: the door stands open.
    doorkeeper: Option<Doorkeeper>,
}

/// A request's head, as its protocol framed it.
#[derive(Clone, Copy)]
pub struct Head<'a> {
    /// As sent.
    pub method: &'a [u8],
    /// Path and query.
    pub target: &'a [u8],
    /// Names in lower case, and values.
    pub headers: &'a [(&'a str, &'a [u8])],
}

/// Where a request wants to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination<'a> {
    /// Names of the function, tried in this order. At least one.
    pub names: &'a [&'a str],
    /// Empty, or begins with a slash.
    pub suffix: &'a [u8],
    /// Without its question mark.
    pub query: &'a [u8],
}

/// What a request asks for.
#[derive(Debug)]
pub enum Inquiry {
    /// `/healthz`: whether the process answers.
    Health,
    /// `/readyz`: whether it can run calls; a shard knows.
    Ready,
    /// The question of a browser whether its page may ask.
    Preflight,
    /// A call.
    Call(Parcel),
}

/// A call without its body, owned.
#[derive(Debug)]
pub struct Parcel {
    /// Names of the function, tried in this order.
    pub names: Vec<Box<[u8]>>,
    /// What the function is told beside the body, encoded as `ipc::envelope` does.
    pub envelope: Vec<u8>,
    /// What the client asked for.
    pub timeout: Option<Duration>,
}

/// An error of the contract, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What HTTP says.
    pub status: u16,
    /// What a call would have come to for the same reason.
    pub outcome: Outcome,
    /// `error` of the JSON body.
    pub kind: &'static str,
    /// For people.
    pub message: String,
    /// For `Retry-After`.
    pub retry_after_s: Option<u32>,
    /// For `Allow`.
    pub allow: Option<&'static str>,
    /// For `WWW-Authenticate`.
    pub challenge: Option<&'static str>,
}

/// Faults that only whoever reads the bytes of a request can find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// More bytes of body than the limit allows.
    BodyTooLarge,
    /// The body paused for longer than it may.
    TooSlow,
    /// More is held for clients than there is memory set aside for.
    Crowded,
    /// The time that the client gave is over.
    NoTimeLeft,
    /// Whoever was to answer is gone.
    Gone,
}

struct Text<'a>(&'a mut Vec<u8>);

impl Sink for Text<'_> {
    fn append(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

impl<'a> Head<'a> {
    fn fields(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        self.headers.iter().map(|(name, value)| (name.as_bytes(), *value))
    }
}

impl Intake {
    /// With the limits that HTTP/1.1 has.
    #[must_use]
    pub fn new(config: Config) -> Intake {
        let doorkeeper = config.auth.clone().map(Doorkeeper::new);
        Intake { config: config.bounded(), ids: RequestIds::new(IDS_SALT), doorkeeper }
    }

    /// The limits.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The id of a request: the client's, if it is one.
    pub fn request_id(&mut self, headers: &[(&str, &[u8])]) -> RequestId {
        let given = headers.iter().find(|(name, _)| *name == "x-request-id");
        given.and_then(|(_, value)| RequestId::accept(value)).unwrap_or_else(|| self.ids.make())
    }

    /// Whose page asks, where web pages are told about.
    #[must_use]
    pub fn origin(&self, headers: &[(&str, &[u8])]) -> Origin {
        let Some(cors) = &self.config.cors else { return Origin::Other };
        cors.origin_of(headers.iter().map(|(name, value)| (name.as_bytes(), *value)))
    }

    /// What a request asks for; `entry` learns what of it is logged. A call counts against the rate
    /// of its key.
    ///
    /// # Errors
    /// What it is refused with.
    pub fn read(
        &mut self,
        head: &Head<'_>,
        id: &RequestId,
        entry: &mut Entry,
    ) -> Result<Inquiry, Failure> {
        let target = head.target;
        if target.len() > TARGET_MAX {
            return Err(Reject::UriTooLong.into());
        }
        if cors::is_preflight(head.method, self.origin(head.headers), head.fields()) {
            return Ok(Inquiry::Preflight);
        }
        match route(Method::of(head.method), target)? {
            Route::Function { name, suffix, query } => {
                let name = std::str::from_utf8(name).unwrap_or_default();
                let destination = Destination { names: &[name], suffix, query };
                self.send(head, &destination, id, entry).map(Inquiry::Call)
            }
            Route::Health => Ok(Inquiry::Health),
            Route::Ready => Ok(Inquiry::Ready),
            // For operators, who have them where they ever were.
            Route::Metrics | Route::Functions | Route::Engines => {
                Err(Reject::NotFound("no such path").into())
            }
        }
    }

    /// A call of a function that is named otherwise than by the path of the request; `entry` learns
    /// what of it is logged. It counts against the rate of its key.
    ///
    /// # Errors
    /// What the request is refused with.
    pub fn send(
        &mut self,
        head: &Head<'_>,
        destination: &Destination<'_>,
        id: &RequestId,
        entry: &mut Entry,
    ) -> Result<Parcel, Failure> {
        let count = head.headers.len();
        if count > self.config.headers_max || head.target.len() > TARGET_MAX {
            return Err(Reject::HeaderTooLarge.into());
        }
        let mut storage = [httparse::EMPTY_HEADER; HEADERS_LIMIT];
        for (place, (name, value)) in storage.iter_mut().zip(head.headers) {
            *place = Header { name, value };
        }
        let headers = &storage[..count];
        let fields = Fields::collect(headers);
        if fields.has_oversized_name() {
            return Err(Reject::HeaderTooLarge.into());
        }
        fields.expectation()?;
        let timeout = match fields.time_left()? {
            TimeLeft::Unlimited => None,
            TimeLeft::Milliseconds(0) => return Err(Reject::NoTimeLeft.into()),
            TimeLeft::Milliseconds(time) => Some(Duration::from_millis(time)),
        };
        let names = destination.names.iter().map(|name| name.as_bytes());
        let mut names: Vec<Box<[u8]>> = names.filter(|name| is_name(name)).map(Box::from).collect();
        let Some(first) = names.first() else {
            return Err(Reject::NotFound("no such function").into());
        };
        entry.name(first);
        let credentials = self.admit(head, &mut names, entry)?;
        let request = RequestFields {
            method: head.method,
            suffix: destination.suffix,
            query: destination.query,
            request_id: id.as_bytes(),
            traceparent: fields.traceparent(),
            headers: ForwardedHeaders::new(headers, credentials),
        };
        let size = request.encoded_size().map_err(|_| Failure::from(Reject::HeaderTooLarge))?;
        let mut envelope = Vec::with_capacity(size);
        request.encode(&mut Text(&mut envelope));
        Ok(Parcel { names, envelope, timeout })
    }

    /// Asks the doorkeeper, if there is one, and leaves the names that the client may call.
    fn admit(
        &mut self,
        head: &Head<'_>,
        names: &mut Vec<Box<[u8]>>,
        entry: &mut Entry,
    ) -> Result<CredentialFields, Reject> {
        let Some(doorkeeper) = &mut self.doorkeeper else { return Ok(CredentialFields::Forwarded) };
        let client = doorkeeper.authenticate(Credentials::collect(head.fields()));
        let client = client.map_err(Reject::Auth)?;
        entry.recognise(&client);
        names.retain(|name| client.authorize(Resource::Function(name)).is_ok());
        if names.is_empty() {
            return Err(Reject::Auth(AuthReject::Forbidden));
        }
        client.spend(clock::now()).map_err(Reject::Auth)?;
        Ok(CredentialFields::Withheld)
    }

    /// What a request with this fault is refused with.
    #[must_use]
    pub fn refuse(&self, fault: Fault) -> Failure {
        match fault {
            Fault::BodyTooLarge => Reject::BodyTooLarge { limit: self.config.body_max },
            Fault::TooSlow => Reject::TooSlow,
            Fault::Crowded => Reject::NotReady("too much is held for clients; try again"),
            Fault::NoTimeLeft => Reject::NoTimeLeft,
            Fault::Gone => Reject::NotReady("the host is going down"),
        }
        .into()
    }
}

impl From<Reject> for Failure {
    fn from(reject: Reject) -> Failure {
        Failure {
            status: reject.status(),
            outcome: reject.outcome(),
            kind: reject.kind(),
            message: reject.to_string(),
            retry_after_s: reject.retry_after_s(),
            allow: reject.allow(),
            challenge: reject.challenge(),
        }
    }
}

impl Failure {
    /// The body of the answer, as JSON.
    #[must_use]
    pub fn json(&self, request_id: &RequestId) -> Vec<u8> {
        let mut body = Vec::new();
        respond::failure_body(&mut body, self.kind, &self.message, request_id);
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{ApiKey, AuthSource, Authorities, KeyId};

    type Fields<'a> = &'a [(&'a str, &'a [u8])];

    fn read(method: &str, target: &str, headers: Fields<'_>) -> Result<Inquiry, Failure> {
        let mut intake = Intake::new(Config::default());
        let head = Head { method: method.as_bytes(), target: target.as_bytes(), headers };
        let id = intake.request_id(headers);
        intake.read(&head, &id, &mut Entry::new(b"", 0))
    }

    fn status(method: &str, target: &str, headers: Fields<'_>) -> u16 {
        read(method, target, headers).expect_err("it is refused").status
    }

    #[test]
    fn a_call_carries_what_http_1_would_tell_the_function() {
        let trace: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let headers: Fields<'_> = &[
            ("host", b"h"),
            ("x-request-id", b"abc"),
            ("traceparent", trace),
            ("x-nightcore-timeout-ms", b"250"),
            ("te", b"trailers"),
            ("content-length", b"5"),
            ("x-mine", b"1"),
        ];
        let Ok(Inquiry::Call(parcel)) = read("POST", "/function/f/a/b?c=d", headers) else {
            panic!("it is a call");
        };
        let request = ipc::envelope::parse_request(&parcel.envelope).unwrap();
        assert_eq!(parcel.names, [Box::from(*b"f")]);
        assert_eq!(parcel.timeout, Some(Duration::from_millis(250)));
        assert_eq!(
            (request.method, request.suffix, request.query),
            (b"POST".as_slice(), b"/a/b".as_slice(), b"c=d".as_slice())
        );
        assert_eq!((request.request_id, request.traceparent), (b"abc".as_slice(), trace));
        let headers: Vec<_> = request.headers.collect();
        assert_eq!(headers, [(b"host".as_slice(), b"h".as_slice()), (b"x-mine", b"1")]);
    }

    /// An intake with this key alone.
    fn locked(key: &ApiKey, rest: &str) -> Intake {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("keys.toml");
        let hash = key.hash();
        let table = format!("[[key]]\nid = \"k\"\nhash = \"{hash}\"\nclient = \"c\"\n{rest}");
        std::fs::write(&file, table).unwrap();
        let source = AuthSource { keys_file: Some(file), jwt: None };
        let auth = Some(Authorities::load(source).unwrap());
        Intake::new(Config { auth, ..Config::default() })
    }

    #[test]
    fn a_locked_door_is_locked_here_too_and_keeps_the_key() {
        let key = ApiKey::generate(KeyId::parse("k").unwrap()).unwrap();
        let mut intake = locked(&key, "functions = [\"f\", \"pay.*\"]\nrate = 1\nburst = 3\n");
        let bearer = format!("Bearer {}", key.reveal());
        let shown: Fields<'_> = &[("authorization", bearer.as_bytes()), ("x-mine", b"1")];
        let id = intake.request_id(&[]);
        let mut read = |target: &str, headers: Fields<'_>| {
            let head = Head { method: b"GET", target: target.as_bytes(), headers };
            intake.read(&head, &id, &mut Entry::new(b"", 0))
        };
        let failure = read("/function/f", &[]).unwrap_err();
        assert_eq!((failure.status, failure.kind), (401, "unauthorized"));
        assert_eq!(failure.challenge, Some("Bearer realm=\"nightcore\""));
        assert_eq!(read("/function/g", shown).unwrap_err().status, 403);
        assert!(matches!(read("/healthz", &[]), Ok(Inquiry::Health)));
        let Ok(Inquiry::Call(parcel)) = read("/function/f", shown) else { panic!("it is a call") };
        let request = ipc::envelope::parse_request(&parcel.envelope).unwrap();
        let headers: Vec<_> = request.headers.collect();
        assert_eq!(headers, [(b"x-mine".as_slice(), b"1".as_slice())]);

        // As gRPC names functions: those that the key is not for are not tried.
        let names = &["pay.Service", "Service"][..];
        let destination = Destination { names, suffix: b"/M", query: b"" };
        let head = Head { method: b"POST", target: b"/pay.Service/M", headers: shown };
        let mut send = || intake.send(&head, &destination, &id, &mut Entry::new(b"", 0));
        let parcel = send().unwrap();
        assert_eq!(parcel.names, [Box::from(*b"pay.Service")]);
        let limited = (0..50).find_map(|_| send().err()).unwrap();
        assert_eq!((limited.status, limited.retry_after_s), (429, Some(1)));
        assert_eq!(limited.outcome, Outcome::LimitReached);
    }

    #[test]
    fn what_http_1_refuses_is_refused() {
        assert_eq!(status("DELETE", "/function/f", &[]), 405);
        assert_eq!(status("POST", "/healthz", &[]), 405);
        assert_eq!(status("GET", "/function/a~b", &[]), 404);
        assert_eq!(status("GET", "/", &[]), 404);
        assert_eq!(status("GET", &format!("/function/f?{}", "x".repeat(TARGET_MAX)), &[]), 414);
        assert_eq!(status("GET", "/function/f", &[("x-nightcore-timeout-ms", b"x")]), 400);
        assert_eq!(status("GET", "/function/f", &[("x-nightcore-timeout-ms", b"0")]), 504);
        assert_eq!(status("GET", "/function/f", &[("expect", b"a miracle")]), 417);
        let long = "x".repeat(256);
        assert_eq!(status("GET", "/function/f", &[(&long, b"")]), 431);
        let many: [(&str, &[u8]); HEADERS_LIMIT + 1] = [("a", b""); _];
        assert_eq!(status("GET", "/function/f", &many), 431);
    }

    #[test]
    fn an_id_that_is_none_is_replaced() {
        let mut intake = Intake::new(Config::default());
        assert_eq!(intake.request_id(&[("x-request-id", b"mine")]).as_bytes(), b"mine");
        assert_eq!(intake.request_id(&[("x-request-id", b"a\"b")]).as_bytes().len(), 32);
        assert_eq!(intake.request_id(&[]).as_bytes().len(), 32);
    }

    #[test]
    fn a_failure_tells_what_http_1_tells() {
        let mut intake = Intake::new(Config::default());
        let failure = intake.refuse(Fault::Gone);
        assert_eq!((failure.status, failure.retry_after_s), (503, Some(1)));
        let id = intake.request_id(&[("x-request-id", b"mine")]);
        let json = String::from_utf8(failure.json(&id)).unwrap();
        let expected = "{\"error\":\"unavailable\",\"message\":\"the host is going down\",\
                        \"request_id\":\"mine\"}\n";
        assert_eq!(json, expected);
    }
}
