//! A gateway's half of a hand-over: it lends its listening sockets to a successor, and drains when that
//! one serves. `crate::admin::handover` has what is said.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use engine::mailbox::{Post, ToSupervisor};
use gateway::remote::Board;

use super::doorman;
use super::listeners::Listeners;
use super::mail::{ShardMail, Succession};
use super::standing::SharedStanding;
use crate::admin::{Acknowledged, Failure, FailureKind, Offer, Socket, Standing, Word};

/// How long a successor may take to start. One that hangs must not keep others from trying.
const SUCCESSOR_TIME: Duration = Duration::from_secs(60);
/// See the module's description.
#[derive(Debug)]
pub(super) struct HandOver {
    /// What is lent.
    pub(super) listeners: Arc<Listeners>,
    pub(super) shards: Vec<Post<ShardMail>>,
    /// Who lets engines in, and what is known of them.
    pub(super) engines: Option<(doorman::Annex, Arc<Board>)>,
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
                self.listeners.bequeath(&[]);
                self.keep_engines();
                Err(Failure::new(FailureKind::Unavailable, format!("given up: {error}")))
            }
        }
    }

    fn converse(&self, stream: &UnixStream) -> io::Result<()> {
        stream.set_read_timeout(Some(SUCCESSOR_TIME))?;
        let mut socket = Socket::new(stream);
        let lent = self.listeners.lend();
        let listeners = lent.iter().map(|(handed, _)| *handed).collect();
        let descriptors: Vec<_> = lent.iter().map(|(_, socket)| socket.as_fd()).collect();
        socket.send(&Offer { listeners }, &descriptors)?;
        // The successor has them; here they must be able to close.
        drop(lent);
        self.listeners.bequeath(&[]);
        let pid = std::process::id();
        // Each word at most once, and in this order.
        let mut word = receive(&mut socket)?;
        if word == (Word::Joining {}) {
            let functions = self.yield_engines();
            socket.send(&Acknowledged { pid, functions }, &[])?;
            word = receive(&mut socket)?;
        }
        let Word::Taken { listeners } = word else { return Err(out_of_turn()) };
        self.listeners.bequeath(&listeners);
        socket.send(&Acknowledged { pid, functions: BTreeSet::new() }, &[])?;
        match receive(&mut socket)? {
            Word::Serving {} => Ok(()),
            Word::Joining {} | Word::Taken { .. } => Err(out_of_turn()),
        }
    }

    /// Has the engines dial the successor. They keep their links to here, by which calls go on. Returns
    /// the functions that they have.
    fn yield_engines(&self) -> BTreeSet<String> {
        let Some((doorman, board)) = &self.engines else { return BTreeSet::new() };
        let functions = board.functions();
        doorman.yield_engines();
        self.tell_shards(Succession::Expected);
        functions
    }

    fn keep_engines(&self) {
        if let Some((doorman, _)) = &self.engines {
            self.tell_shards(Succession::Off);
            doorman.serve();
        }
    }

    fn tell_shards(&self, succession: Succession) {
        self.shards.iter().for_each(|shard| shard.send(ShardMail::Succession(succession)));
    }
}

fn out_of_turn() -> io::Error {
    io::Error::other("it spoke out of turn")
}

fn receive(socket: &mut Socket<'_>) -> io::Result<Word> {
    let word = socket.receive().map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => io::Error::other(format!("silent for {SUCCESSOR_TIME:?}")),
        _ => error,
    })?;
    word.map(|(word, _)| word).ok_or_else(|| io::Error::other("it has ended"))
}
