//! One connection to the admin socket: who it is, what it asks, what it gets.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;

use super::Engine;
use crate::admin::{Failure, FailureKind, REQUEST_SIZE_MAX, Request};

/// A peer that says nothing for this long is sent away.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads the request and answers it. A peer that is gone is no news.
pub(super) fn serve(stream: &UnixStream, engine: &Engine) {
    let request = check_peer(stream).and_then(|()| read_request(stream));
    match request {
        Ok(request) => match engine.answer(request, stream) {
            Ok(()) => {}
            Err(failure) => refuse(stream, &failure),
        },
        Err(failure) => refuse(stream, &failure),
    }
}

/// Answers with a failure.
pub(super) fn refuse(stream: &UnixStream, failure: &Failure) {
    let _ = write_line(stream, failure);
}

/// Writes one line of an answer.
pub(super) fn write_line(mut stream: &UnixStream, line: &impl serde::Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    stream.write_all(&text)
}

/// The peer is this user's, or root's.
fn check_peer(stream: &UnixStream) -> Result<(), Failure> {
    let forbidden = |message: String| Failure::new(FailureKind::Forbidden, message);
    let peer = getsockopt(stream, PeerCredentials)
        .map_err(|error| forbidden(format!("who asks is unknown: {error}")))?;
    if peer.uid() == 0 || peer.uid() == geteuid().as_raw() {
        return Ok(());
    }
    tracing::warn!(uid = peer.uid(), "another user's process at the admin socket is turned away");
    Err(forbidden(format!("user {} may not ask this engine", peer.uid())))
}

fn read_request(stream: &UnixStream) -> Result<Request, Failure> {
    let bad = |message: String| Failure::new(FailureKind::BadRequest, message);
    let failed = |error: io::Error| bad(format!("no request came: {error}"));
    stream.set_read_timeout(Some(REQUEST_TIMEOUT)).map_err(failed)?;
    let limit = u64::try_from(REQUEST_SIZE_MAX).unwrap_or(u64::MAX);
    let mut line = Vec::new();
    BufReader::new(stream.take(limit)).read_until(b'\n', &mut line).map_err(failed)?;
    if line.len() == REQUEST_SIZE_MAX && !line.ends_with(b"\n") {
        return Err(bad(format!("a request is a line of at most {REQUEST_SIZE_MAX} bytes")));
    }
    serde_json::from_slice(&line).map_err(|error| bad(format!("not a request: {error}")))
}
