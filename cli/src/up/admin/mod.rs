//! The admin socket of this engine: `crate::admin` has what is said on it.
//!
//! A thread accepts; each connection has a thread of its own that blocks, since there are few and
//! none is on the way of a call. Peers are this user's processes and root's: the directory lets no
//! other in, and the kernel's word for who connected is checked beside it. Even so their bytes are
//! taken for a stranger's.

mod answer;
mod connection;
mod logs;
mod timestamp;

use std::io;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

pub(super) use self::answer::Engine;
use crate::admin::{Failure, FailureKind, socket_in};

/// Connections at once; who follows the logs holds one.
const CONNECTIONS_MAX: usize = 32;
/// How long the end waits for connections that are being answered.
const END_PATIENCE: Duration = Duration::from_secs(1);
/// Between two attempts to accept when the system lacks descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// The socket while it is served. Dropped, it takes no more connections, and those that are answered
/// get a moment to end.
#[derive(Debug)]
pub(super) struct Admin {
    listener: Arc<UnixListener>,
    thread: Option<JoinHandle<()>>,
    places: Arc<Places>,
}

/// How many connections there are.
#[derive(Debug, Default)]
struct Places {
    taken: Mutex<usize>,
    freed: Condvar,
}

/// One connection's place, free again when dropped.
struct Taken(Arc<Places>);

impl Admin {
    /// Listens in the engine's private directory.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn start(directory: &Path, engine: Engine) -> io::Result<Admin> {
        let listener = Arc::new(UnixListener::bind(socket_in(directory))?);
        let places = Arc::new(Places::default());
        let (accepting, its_places) = (Arc::clone(&listener), Arc::clone(&places));
        let accept = move || accept(&accepting, &its_places, &Arc::new(engine));
        let thread = thread::Builder::new().name("admin".to_owned()).spawn(accept)?;
        Ok(Admin { listener, thread: Some(thread), places })
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        // Ends the thread's `accept`.
        let _ =
            nix::sys::socket::shutdown(self.listener.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.places.wait_until_free();
    }
}

fn accept(listener: &UnixListener, places: &Arc<Places>, engine: &Arc<Engine>) {
    loop {
        match listener.accept() {
            Ok((stream, _)) => serve(stream, places, engine),
            // The listener was shut down.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return,
            Err(error) => {
                tracing::warn!("a connection to the admin socket could not be accepted: {error}");
                thread::sleep(PAUSE);
            }
        }
    }
}

/// Answers a connection on a thread of its own, or says that there are too many.
fn serve(stream: UnixStream, places: &Arc<Places>, engine: &Arc<Engine>) {
    let Some(place) = places.take() else {
        let message = format!("{CONNECTIONS_MAX} connections are open already");
        return connection::refuse(&stream, &Failure::new(FailureKind::Busy, message));
    };
    let engine = Arc::clone(engine);
    let body = move || {
        let _place = place;
        connection::serve(&stream, &engine);
        let _ = stream.shutdown(Shutdown::Both);
    };
    if let Err(error) = thread::Builder::new().name("admin".to_owned()).spawn(body) {
        tracing::warn!("a connection to the admin socket has no thread: {error}");
    }
}

impl Places {
    fn take(self: &Arc<Self>) -> Option<Taken> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        (*taken < CONNECTIONS_MAX).then(|| {
            *taken += 1;
            Taken(Arc::clone(self))
        })
    }

    fn wait_until_free(&self) {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.freed.wait_timeout_while(taken, END_PATIENCE, |taken| *taken > 0);
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        *self.0.taken.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.freed.notify_all();
    }
}

#[cfg(test)]
mod tests;
