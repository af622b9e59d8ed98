//! A wire that listens: passes on what two processes say to each other over TCP, and keeps it.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Enough for a handshake and the first messages behind it; more is passed on, but not kept.
const KEPT_MAX: usize = 64 << 10;
const CHUNK: usize = 16 << 10;

/// What was said on one connection, in each direction.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// By whoever connected.
    pub dialler: Vec<u8>,
    /// By whoever it was connected to.
    pub listener: Vec<u8>,
}

/// A relay that runs until its process ends.
#[derive(Clone, Debug)]
pub struct Relay {
    address: SocketAddr,
    recordings: Arc<Mutex<Vec<Recording>>>,
}

/// Who speaks.
#[derive(Clone, Copy, Debug)]
enum Side {
    Dialler,
    Listener,
}

impl Relay {
    /// Listens on a free port of this address, and connects whoever comes to the target.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(address: IpAddr, target: SocketAddr) -> io::Result<Relay> {
        let listener = TcpListener::bind((address, 0))?;
        let relay = Relay { address: listener.local_addr()?, recordings: Arc::default() };
        let served = relay.clone();
        thread::spawn(move || {
            for dialler in listener.incoming().map_while(Result::ok) {
                // Whoever cannot be passed on sees his connection close.
                let Ok(listener) = TcpStream::connect(target) else { continue };
                let _ = served.connect(&dialler, &listener);
            }
        });
        Ok(relay)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What was said so far, in the order in which connections came.
    #[must_use]
    pub fn recordings(&self) -> Vec<Recording> {
        self.recordings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn connect(&self, dialler: &TcpStream, listener: &TcpStream) -> io::Result<()> {
        let index = {
            let mut recordings = self.recordings.lock().unwrap_or_else(PoisonError::into_inner);
            recordings.push(Recording::default());
            recordings.len() - 1
        };
        let ways = [
            (Side::Dialler, dialler.try_clone()?, listener.try_clone()?),
            (Side::Listener, listener.try_clone()?, dialler.try_clone()?),
        ];
        for (side, mut from, mut to) in ways {
            let relay = self.clone();
            thread::spawn(move || {
                let _ = relay.pass_on(index, side, &mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
        }
        Ok(())
    }

    fn pass_on(
        &self,
        index: usize,
        side: Side,
        from: &mut TcpStream,
        to: &mut TcpStream,
    ) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let size = from.read(&mut buffer)?;
            if size == 0 {
                return Ok(());
            }
            {
                let mut all = self.recordings.lock().unwrap_or_else(PoisonError::into_inner);
                let kept = match side {
                    Side::Dialler => &mut all[index].dialler,
                    Side::Listener => &mut all[index].listener,
                };
                let room = KEPT_MAX.saturating_sub(kept.len());
                kept.extend_from_slice(&buffer[..size.min(room)]);
            }
            to.write_all(&buffer[..size])?;
        }
    }
}
