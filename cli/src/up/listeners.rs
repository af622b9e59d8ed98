//! The listening sockets of this process: made, or got from its predecessor, and shown to its successor.
//!
//! Who accepts holds a socket, this holds only the way to it: what nobody accepts from any more cannot
//! be lent to a successor, and is closed.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::listener::Listener;
use crate::admin::{Handed, Purpose};

/// See the module's description. Shared by all threads that accept.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    has_predecessor: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Of the predecessor, and not taken yet.
    inherited: Vec<(Handed, OwnedFd)>,
    /// Taken from it.
    adopted: Vec<SocketAddr>,
    open: Vec<Weak<Listening>>,
}

/// A socket that somebody accepts from.
#[derive(Debug)]
pub(super) struct Listening {
    handed: Handed,
    socket: OwnedFd,
    /// Whose those are who have connected, but were not accepted when this is closed: a successor's,
    /// which has the socket too, or this process's.
    is_successors: AtomicBool,
}

impl Listening {
    /// Whether those who wait when it closes are to be left to a successor.
    pub(super) fn is_successors(&self) -> bool {
        // SYNC(is_successors): pairs with the store in `Listeners::bequeath`; the drain, which is
        // ordered behind it by the mail that asks for it, is when it matters.
        self.is_successors.load(Ordering::Relaxed)
    }

    /// Another descriptor of the socket, to accept from.
    ///
    /// # Errors
    /// When there is none left.
    pub(super) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Listening {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Listeners {
    /// What a predecessor lent.
    pub(super) fn inherit(inherited: Vec<(Handed, OwnedFd)>) -> Listeners {
        let state = Mutex::new(State { inherited, ..State::default() });
        Listeners { has_predecessor: true, state }
    }

    /// Whether there is a gateway that is to be relieved.
    pub(super) fn has_predecessor(&self) -> bool {
        self.has_predecessor
    }

    /// Takes the address: from the predecessor if it listens there, else from the system. Port 0 takes
    /// whatever port the predecessor has for this purpose, else a free one.
    ///
    /// # Errors
    /// What the system says of the address.
    pub(super) fn bind(&self, purpose: Purpose, address: SocketAddr) -> io::Result<Listener> {
        let mut state = self.state();
        let fits = |handed: &Handed| match address.port() {
            0 => handed.purpose == purpose && handed.address.ip() == address.ip(),
            _ => handed.address == address,
        };
        if let Some(index) = state.inherited.iter().position(|(handed, _)| fits(handed)) {
            let (Handed { address, .. }, socket) = state.inherited.swap_remove(index);
            state.adopted.push(address);
            return Ok(Listener::adopt(socket, address));
        }
        // It may take a while, and nobody else has to wait for it.
        drop(state);
        Listener::bind(address)
    }

    /// Lets connections in.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn open(&self, purpose: Purpose, listener: Listener) -> io::Result<Arc<Listening>> {
        let handed = Handed { purpose, address: listener.address() };
        let socket = listener.listen()?;
        let is_successors = AtomicBool::new(false);
        let listening = Arc::new(Listening { handed, socket, is_successors });
        self.state().open.push(Arc::downgrade(&listening));
        Ok(listening)
    }

    /// Closes what the predecessor lent and nobody took, and tells what was taken.
    pub(super) fn settle(&self) -> Vec<SocketAddr> {
        let mut state = self.state();
        state.inherited.clear();
        state.adopted.clone()
    }

    /// What this process accepts from now.
    pub(super) fn lend(&self) -> Vec<(Handed, Arc<Listening>)> {
        let mut state = self.state();
        state.open.retain(|listening| listening.strong_count() > 0);
        let open = state.open.iter().filter_map(Weak::upgrade);
        open.map(|listening| (listening.handed, listening)).collect()
    }

    /// Says whose the connections are that still wait when this process drains: at these addresses a
    /// successor's, at all others its own.
    pub(super) fn bequeath(&self, to_successor: &[SocketAddr]) {
        for (handed, listening) in self.lend() {
            let goes = to_successor.contains(&handed.address);
            // SYNC(is_successors): pairs with the load in `Listening::is_successors`.
            listening.is_successors.store(goes, Ordering::Relaxed);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn local(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    /// What a successor gets of `predecessor`.
    fn lent(predecessor: &Listeners) -> Listeners {
        let lent = predecessor.lend().into_iter();
        Listeners::inherit(
            lent.map(|(handed, socket)| (handed, socket.duplicate().unwrap())).collect(),
        )
    }

    #[test]
    fn a_successor_gets_the_sockets_of_its_addresses_and_closes_the_others() {
        let predecessor = Listeners::default();
        let public = predecessor.bind(Purpose::Public, local(0)).unwrap();
        let admin = predecessor.bind(Purpose::Admin, local(0)).unwrap();
        let (address, other) = (public.address(), admin.address());
        let _public = predecessor.open(Purpose::Public, public).unwrap();
        let admin = predecessor.open(Purpose::Admin, admin).unwrap();

        let successor = lent(&predecessor);
        let adopted = successor.bind(Purpose::Public, address).unwrap();
        assert_eq!(adopted.address(), address);
        let adopted = successor.open(Purpose::Public, adopted).unwrap();
        assert_eq!(successor.settle(), [address]);
        drop(admin);
        assert!(TcpStream::connect(other).is_err(), "nobody holds it any more");
        drop(predecessor);
        TcpStream::connect(address).unwrap();
        drop(adopted);
    }

    #[test]
    fn a_port_that_is_not_said_is_the_predecessors_of_the_same_purpose() {
        let predecessor = Listeners::default();
        let public = predecessor.bind(Purpose::Public, local(0)).unwrap();
        let address = public.address();
        let _public = predecessor.open(Purpose::Public, public).unwrap();
        let successor = lent(&predecessor);
        let admin = successor.bind(Purpose::Admin, local(0)).unwrap();
        assert_ne!(admin.address(), address);
        assert_eq!(successor.bind(Purpose::Public, local(0)).unwrap().address(), address);
        // Given once.
        assert_ne!(successor.bind(Purpose::Public, local(0)).unwrap().address(), address);
        assert_eq!(successor.settle(), [address]);
    }

    #[test]
    fn what_nobody_accepts_from_any_more_is_not_lent() {
        let listeners = Listeners::default();
        let listener = listeners.bind(Purpose::Public, local(0)).unwrap();
        let socket = listeners.open(Purpose::Public, listener).unwrap();
        assert_eq!(listeners.lend().len(), 1);
        assert!(!socket.is_successors());
        listeners.bequeath(&[local(1)]);
        assert!(!socket.is_successors(), "that is another address");
        listeners.bequeath(&[listeners.lend()[0].0.address]);
        assert!(socket.is_successors());
        listeners.bequeath(&[]);
        assert!(!socket.is_successors());
        drop(socket);
        assert!(listeners.lend().is_empty());
    }
}
