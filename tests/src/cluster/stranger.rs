//! Whoever comes to the port for engines, or waits for an engine to come, and has no key.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::watchdog::PATIENCE;

/// Bytes of a frame's head, and where its kind is (`docs/protocol.md`).
const HEAD_SIZE: usize = 16;
const KIND: usize = 4;
/// Nobody tells a stranger more than this.
const HEARD_MAX: usize = 64 << 10;

/// The kinds of frames of a handshake, and of a refusal.
pub mod kind {
    /// Engine: who it is.
    pub const HELLO: u8 = 1;
    /// Gateway: prove it.
    pub const CHALLENGE: u8 = 2;
    /// Engine: the proof.
    pub const PROOF: u8 = 3;
    /// Gateway: its own proof.
    pub const WELCOME: u8 = 4;
    /// Either: the end.
    pub const BYE: u8 = 13;
}

/// The whole frames in these bytes, each with its head.
#[must_use]
pub fn frames(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while let Some((size, _)) = bytes.split_first_chunk::<4>() {
        let size = usize::try_from(u32::from_le_bytes(*size)).expect("it fits");
        let Some((frame, rest)) = bytes.split_at_checked(HEAD_SIZE + size) else { break };
        found.push(frame);
        bytes = rest;
    }
    found
}

/// The kinds of the whole frames in these bytes.
#[must_use]
pub fn kinds(bytes: &[u8]) -> Vec<u8> {
    frames(bytes).iter().map(|frame| frame[KIND]).collect()
}

/// Says one part after the other, each when something was heard in answer to the one before, and
/// listens until the other side ends it.
///
/// # Panics
/// If it never does, or says very much.
#[must_use]
pub fn dial(target: SocketAddr, parts: &[&[u8]]) -> Vec<u8> {
    let mut stream = TcpStream::connect_timeout(&target, PATIENCE).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let mut heard = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        // A side that has closed does not take it, which is its right.
        let taken = stream.write_all(part);
        if taken.is_err() || index + 1 == parts.len() || !hear(&mut stream, &mut heard) {
            break;
        }
    }
    while hear(&mut stream, &mut heard) {}
    heard
}

/// Hears more; `false` at the end, in good order or by a reset.
fn hear(stream: &mut TcpStream, heard: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 4096];
    match stream.read(&mut buffer) {
        Ok(0) => false,
        Ok(size) => {
            heard.extend_from_slice(&buffer[..size]);
            assert!(heard.len() <= HEARD_MAX, "a stranger is told too much");
            true
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            panic!("a stranger is kept for {PATIENCE:?}")
        }
        Err(_) => false,
    }
}

/// A listener that says the same to whoever comes, until its process ends.
#[derive(Clone, Debug)]
pub struct Impostor {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Impostor {
    /// Listens on a free port of this address.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(address: IpAddr, says: &[u8]) -> io::Result<Impostor> {
        let listener = TcpListener::bind((address, 0))?;
        let impostor = Impostor { address: listener.local_addr()?, heard: Arc::default() };
        let (served, says) = (impostor.clone(), says.to_vec());
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut heard = Vec::new();
                // Behind the hello, which it answers.
                let _ = stream.set_read_timeout(Some(PATIENCE));
                if hear(&mut stream, &mut heard) && stream.write_all(&says).is_ok() {
                    while hear(&mut stream, &mut heard) {}
                }
                served.heard.lock().unwrap_or_else(PoisonError::into_inner).push(heard);
            }
        });
        Ok(impostor)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What was said to it on each connection that has ended.
    #[must_use]
    pub fn heard(&self) -> Vec<Vec<u8>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
