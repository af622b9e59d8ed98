//! What the gateway needs of whatever runs calls. The shard that embeds it implements this; so
//! can a connection to an engine on another host.

use std::slice;
use std::time::Duration;

use httparse::Header;
use ipc::engine_side::SharedBlock;
use ipc::envelope::{Headers, RequestFields};
use ipc::{Outcome, Times};
use reactor::Reactor;
use reactor::clock::Nanos;

use crate::auth::is_credential;

/// Runs calls. What it answers comes back through [`Gateway::on_answer`](crate::Gateway), never
/// from within `submit`.
pub trait Upstream {
    /// The function of that name.
    fn resolve(&self, name: &[u8]) -> Option<u32>;

    /// Whether functions may come that are not known yet, so that a name without one is no mistake.
    fn is_incomplete(&self) -> bool {
        false
    }

    /// Takes a call, or refuses it. Everything in `call` is borrowed for the duration of this.
    /// The id returned names the call in `cancel`.
    ///
    /// # Errors
    /// The call was not taken; its client gets the refusal as an answer.
    fn submit(
        &mut self,
        reactor: &mut Reactor,
        now: Nanos,
        call: NewCall<'_>,
    ) -> Result<u64, Refusal>;

    /// Nobody waits for that call any more. An answer that is under way is ignored.
    fn cancel(&mut self, reactor: &mut Reactor, now: Nanos, call: u64);

    /// Appends what keeps `/readyz` from saying so, in words; nothing where nothing does.
    fn write_unready(&self, out: &mut String);

    /// Whether the host is going down: connections are closed behind their answers.
    fn is_draining(&self) -> bool;

    /// The upstream's part of `/metrics`, in whole lines.
    fn metrics(&self, out: &mut String);

    /// The body of `/v1/functions`.
    fn functions_json(&self, out: &mut String);

    /// The body of `/v1/engines`: those elsewhere that are joined to this host, and what waits for
    /// them. None, unless the host has a port for them.
    fn engines_json(&self, out: &mut String) {
        out.push_str("{\"engines\":[],\"queues\":[]}");
    }
}

/// A request that became a call.
pub struct NewCall<'a> {
    /// As `resolve` gave it.
    pub function: u32,
    /// Comes back in the answer.
    pub caller: u64,
    /// What the client asked for; never longer than the function's own.
    pub timeout: Option<Duration>,
    /// What becomes the envelope.
    pub request: RequestFields<'a, ForwardedHeaders<'a>>,
    /// The body, decoded.
    pub body: &'a [u8],
}

/// Why a call was not taken.
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    /// Never `Ok`.
    pub outcome: Outcome,
    /// For people.
    pub message: &'static str,
    /// For the `Retry-After` header.
    pub retry_after_s: Option<u32>,
}

/// What became of a call.
pub struct Answer {
    /// `Ok`: the block is the answer. Else the block's payload, if any, is a message for people.
    pub outcome: Outcome,
    /// The message if the runtime itself failed the call, else empty.
    pub message: &'static str,
    /// For the `Retry-After` header.
    pub retry_after_s: Option<u32>,
    /// Envelope and payload where the function left them. The worker's memory is free again when
    /// it is dropped, which happens as soon as the client has taken it or proved slow.
    pub block: Option<SharedBlock>,
    /// Where its time went, if it came to an engine.
    pub times: Option<Times>,
}

/// What becomes of the fields that may carry a key or token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CredentialFields {
    /// They are the function's, as the door stands open.
    Forwarded,
    /// They were for the door: a function that saw a key could use it elsewhere.
    Withheld,
}

/// The header fields of a request that its function gets to see: all but those which concern this
/// connection alone and those which have a place of their own in the envelope.
#[derive(Clone)]
pub struct ForwardedHeaders<'a>(Source<'a>);

#[derive(Clone)]
enum Source<'a> {
    /// Of a head as it came.
    Head { credentials: CredentialFields, all: &'a [Header<'a>], rest: slice::Iter<'a, Header<'a>> },
    /// Chosen before.
    Envelope(Headers<'a>),
}

impl<'a> ForwardedHeaders<'a> {
    pub(crate) fn new(
        headers: &'a [Header<'a>],
        credentials: CredentialFields,
    ) -> ForwardedHeaders<'a> {
        ForwardedHeaders(Source::Head { credentials, all: headers, rest: headers.iter() })
    }

    pub(crate) fn of_envelope(headers: Headers<'a>) -> ForwardedHeaders<'a> {
        ForwardedHeaders(Source::Envelope(headers))
    }
}

impl<'a> Iterator for ForwardedHeaders<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Source::Head { credentials, all, rest } => {
                let withheld = *credentials == CredentialFields::Withheld;
                let header = rest.find(|header| {
                    let is_credential = withheld && is_credential(header.name.as_bytes());
                    !is_credential && is_forwarded(header.name, all)
                })?;
                Some((header.name.as_bytes(), header.value))
            }
            Source::Envelope(headers) => headers.next(),
        }
    }
}

fn is_forwarded(name: &str, all: &[Header<'_>]) -> bool {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    let own_place = match name.len() {
        6 => is("expect"),
        11 => is("traceparent"),
        12 => is("x-request-id"),
        14 => is("content-length"),
        22 => is("x-nightcore-timeout-ms"),
        _ => false,
    };
    !own_place && !is_hop_by_hop(name.as_bytes()) && !is_nominated(name, all)
}

/// Fields that concern one connection (RFC 9110, 7.6.1), in requests and answers.
pub(crate) fn is_hop_by_hop(name: &[u8]) -> bool {
    let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
    match name.len() {
        2 => is(b"te"),
        7 => is(b"trailer") || is(b"upgrade"),
        10 => is(b"connection") || is(b"keep-alive"),
        16 => is(b"proxy-connection"),
        17 => is(b"transfer-encoding"),
        18 => is(b"proxy-authenticate"),
        19 => is(b"proxy-authorization"),
        _ => false,
    }
}

/// Whether a `Connection` field names this one.
fn is_nominated(name: &str, all: &[Header<'_>]) -> bool {
    all.iter().filter(|header| header.name.eq_ignore_ascii_case("connection")).any(|header| {
        header
            .value
            .split(|byte| *byte == b',')
            .any(|option| option.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
    })
}
