//! A successor's half of a hand-over: it gets the listening sockets of the gateway that runs, and tells
//! it when it may drain. `crate::admin::handover` has what is said.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::admin::{
    Acknowledged, AdminError, Failure, Handed, Offer, Place, Request, Role, Socket, Word,
};

/// A predecessor that does not answer for so long is stuck, and cannot drain either.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// Why nothing is taken over.
#[derive(Debug, Error)]
pub(super) enum TakeoverError {
    /// It could not be asked.
    #[error("the running gateway cannot be taken over: {0}")]
    Ask(#[from] AdminError),
    /// It refused.
    #[error("the running gateway refuses: {0}")]
    Refused(String),
    /// It broke off, or spoke another language.
    #[error("the running gateway cannot be taken over: {0}")]
    Io(#[from] io::Error),
}

/// The predecessor, while it goes on serving.
#[derive(Debug)]
pub(super) struct Takeover {
    stream: UnixStream,
}

/// The predecessor's listening sockets.
pub(super) type Inherited = Vec<(Handed, OwnedFd)>;

/// An answer to which a failure may come instead.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line<T> {
    Failure(Failure),
    Answer(T),
}

impl Takeover {
    /// Asks the gateway whose directory is in `parent` for its sockets; `None` if there is none.
    ///
    /// # Errors
    /// When there are several, or the one does not lend them.
    pub(super) fn begin(parent: &Path) -> Result<Option<(Takeover, Inherited)>, TakeoverError> {
        let place = Place { runtime_dir: Some(parent.to_owned()), ..Place::default() };
        let stream = match place.open(&Request::HandOver {}, |about| about.role == Role::Gateway) {
            Ok(stream) => stream,
            Err(AdminError::Absent(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        stream.set_read_timeout(Some(ANSWER_TIME))?;
        let answer = receive::<Offer>(&stream)?.ok_or_else(|| io::Error::other("it has ended"))?;
        let (Offer { listeners }, sockets) = answer;
        if listeners.len() != sockets.len() {
            return Err(io::Error::other("it did not give a socket for each address").into());
        }
        let inherited = listeners.into_iter().zip(sockets).collect();
        Ok(Some((Takeover { stream }, inherited)))
    }

    /// Says that all stands and that engines may come: the predecessor has them dial again. Returns the
    /// functions to wait for.
    ///
    /// # Errors
    /// When the predecessor has given up waiting and goes on serving.
    pub(super) fn join(&self) -> Result<BTreeSet<String>, TakeoverError> {
        Ok(self.ask(&Word::Joining {})?.map_or_else(BTreeSet::new, |answer| answer.functions))
    }

    /// Says that it would accept from these. Returns when the predecessor agrees, or has died meanwhile:
    /// the sockets are the successor's alone then.
    ///
    /// # Errors
    /// As [`Takeover::join`].
    pub(super) fn take(&self, listeners: Vec<SocketAddr>) -> Result<(), TakeoverError> {
        match self.ask(&Word::Taken { listeners })? {
            Some(Acknowledged { pid, .. }) => tracing::info!("taking over from process {pid}"),
            None => tracing::warn!("the predecessor has ended before it was asked to"),
        }
        Ok(())
    }

    fn ask(&self, word: &Word) -> Result<Option<Acknowledged>, TakeoverError> {
        if let Err(error) = Socket::new(&self.stream).send(word, &[]) {
            // What it said before it closed is still there to be read.
            tracing::warn!("the predecessor has closed: {error}");
        }
        Ok(receive::<Acknowledged>(&self.stream)?.map(|(answer, _)| answer))
    }

    /// Says that the predecessor may drain.
    pub(super) fn serving(self) {
        if let Err(error) = Socket::new(&self.stream).send(&Word::Serving {}, &[]) {
            tracing::warn!("the predecessor could not be told to drain: {error}");
        }
    }
}

/// `None` at the end of the connection.
fn receive<T: DeserializeOwned>(
    stream: &UnixStream,
) -> Result<Option<(T, Vec<OwnedFd>)>, TakeoverError> {
    match Socket::new(stream).receive::<Line<T>>() {
        Ok(Some((Line::Answer(answer), sockets))) => Ok(Some((answer, sockets))),
        Ok(Some((Line::Failure(failure), _))) => Err(TakeoverError::Refused(failure.message)),
        Ok(None) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
        Err(error) => Err(error.into()),
    }
}
