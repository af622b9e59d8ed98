//! A gateway's half of a hand-over: it lends its listening sockets to a successor, and drains when that
//! one serves. `crate::admin::handover` has what is said.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use engine::mailbox::{Post, ToSupervisor};

use super::listeners::Listeners;
use super::mail::ShardMail;
use super::standing::SharedStanding;
use crate::admin::{Acknowledged, Failure, FailureKind, Offer, Socket, Standing, Word};

/// How long a successor may take to start. One that hangs must not keep others from trying.
const SUCCESSOR_TIME: Duration = Duration::from_secs(60);
/// Of a shard that does not answer, something is wrong that a hand-over cannot cure.
const SHARD_TIME: Duration = Duration::from_secs(5);

/// See the module's description.
#[derive(Debug)]
pub(super) struct HandOver {
    /// What is lent.
    pub(super) listeners: Arc<Listeners>,
    /// To the shard that accepts.
    pub(super) acceptor: Post<ShardMail>,
    pub(super) supervisor: Post<ToSupervisor>,
    pub(super) standing: Arc<SharedStanding>,
    pub(super) under_way: UnderWay,
}

/// Whether somebody is taking over.
#[derive(Debug, Default)]
pub(super) struct UnderWay(AtomicBool);

/// One hand-over; while it lives there is no other.
struct Attempt<'a>(&'a UnderWay);

impl UnderWay {
    fn begin(&self) -> Option<Attempt<'_>> {
        // SYNC(under_way): pairs with the store in `Attempt::drop`; it carries no other data.
        (!self.0.swap(true, Ordering::Relaxed)).then_some(Attempt(self))
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        // SYNC(under_way): pairs with the swap in `begin`.
        self.0.0.store(false, Ordering::Relaxed);
    }
}

impl HandOver {
    /// Serves a successor on this connection until it serves, or has failed.
    ///
    /// # Errors
    /// What it is told instead.
    pub(super) fn serve(&self, stream: &UnixStream) -> Result<(), Failure> {
        let Some(_attempt) = self.under_way.begin() else {
            let message = "another process is taking over from this gateway already";
            return Err(Failure::new(FailureKind::Busy, message));
        };
        if self.standing.get() != Standing::Serving {
            let message = "this gateway does not serve, so there is nothing to take over";
            return Err(Failure::new(FailureKind::Unavailable, message));
        }
        tracing::info!("a successor asked for the listening sockets");
        let taken = self.converse(stream);
        match &taken {
            Ok(()) => {
                tracing::info!("a successor serves: this gateway drains");
                self.supervisor.send(ToSupervisor::Drain);
                Ok(())
            }
            Err(error) => {
                tracing::warn!(
                    "the successor did not get to serve, so this gateway goes on: {error}"
                );
                self.bequeath(Vec::new());
                Err(Failure::new(FailureKind::Unavailable, format!("given up: {error}")))
            }
        }
    }

    fn converse(&self, stream: &UnixStream) -> io::Result<()> {
        stream.set_read_timeout(Some(SUCCESSOR_TIME))?;
        let mut socket = Socket::new(stream);
        let lent = self.listeners.lend();
        let listeners = lent.iter().map(|(handed, _)| *handed).collect();
        let descriptors: Vec<_> = lent.iter().map(|(_, socket)| &**socket).collect();
        socket.send(&Offer { listeners }, &descriptors)?;
        // The successor has them; here they must be able to close.
        drop(lent);
        let Word::Taken { listeners } = receive(&mut socket)? else {
            return Err(io::Error::other("it said that it serves before it had taken anything"));
        };
        if !self.bequeath(listeners) {
            return Err(io::Error::other("the shard that accepts does not answer"));
        }
        socket.send(&Acknowledged { pid: std::process::id() }, &[])?;
        match receive(&mut socket)? {
            Word::Serving {} => Ok(()),
            Word::Taken { .. } => Err(io::Error::other("it took twice")),
        }
    }

    /// Says whose the connections are that still wait when the listeners close.
    fn bequeath(&self, to_successor: Vec<SocketAddr>) -> bool {
        let (done, told) = mpsc::channel();
        self.acceptor.send(ShardMail::Yield { to_successor, done });
        told.recv_timeout(SHARD_TIME).is_ok()
    }
}

fn receive(socket: &mut Socket<'_>) -> io::Result<Word> {
    let word = socket.receive().map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => io::Error::other(format!("silent for {SUCCESSOR_TIME:?}")),
        _ => error,
    })?;
    word.map(|(word, _)| word).ok_or_else(|| io::Error::other("it has ended"))
}
