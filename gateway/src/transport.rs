//! What lies between a connection's socket and its HTTP: nothing, or TLS. The handshake is done when a
//! connection comes; what TLS still has to say by itself (tickets, alerts) leaves between answers.
//!
//! ```text
//!   socket ──► receive ──► open ──► HTTP          (plain: receive ──► HTTP)
//!   socket ◄── one send ◄─ seal ◄── answer        (plain: one send ◄─ answer)
//! ```
//! An answer is sealed as a whole when it is composed: its function's memory is free at once, and the
//! ciphertext is sent as any bytes of our own. Records must leave in the order in which they were
//! sealed. They do, since nothing is sealed while an answer is on its way, and an answer waits for
//! what was sealed before it.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;

use nix::sys::socket::{MsgFlags, send};
use rustls::ServerConnection;

use crate::answer::Outgoing;
use crate::connection::Receiving;
use crate::connection::{Connection, Fate, State};
use crate::http::head::Persistence;
use crate::lifecycle::Incident;
use crate::shared::Io;
use crate::upstream::Upstream;

/// Plain bytes sealed at once: a full record, which lies in the cache while it is.
const CHUNK: usize = 16 * 1024;

/// See the module's description.
pub(crate) enum Transport {
    Plain,
    Tls(Box<ServerConnection>),
}

/// What a client said by TLS itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notice {
    None,
    /// It will send no more.
    Close,
}

/// What comes behind the bytes that are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    None,
    /// The client is told that nothing follows, so that nobody can cut the answer short unnoticed.
    CloseNotify,
}

/// The client broke TLS, or ours ended before.
#[derive(Debug)]
struct Broken;

impl Transport {
    pub(crate) fn of(tls: Option<Box<ServerConnection>>) -> Transport {
        tls.map_or(Transport::Plain, Transport::Tls)
    }

    pub(crate) fn is_plain(&self) -> bool {
        matches!(self, Transport::Plain)
    }
}

impl Connection {
    /// Takes bytes of the socket when there is TLS.
    pub(crate) fn on_ciphertext(
        &mut self,
        io: &mut Io<'_>,
        upstream: &mut impl Upstream,
        bytes: &[u8],
    ) -> Fate {
        let Transport::Tls(tls) = &mut self.transport else { return Fate::Open };
        let mut plain = io.shared.pool.take();
        let opened = open(tls, bytes, &mut plain);
        let fate = match plain.is_empty() {
            true => Fate::Open,
            false => self.on_bytes(io, upstream, &plain),
        };
        io.shared.pool.put(plain);
        match (fate, opened) {
            (Fate::Open, Ok(Notice::None)) => {
                self.flush_transport(io);
                Fate::Open
            }
            (Fate::Open, Ok(Notice::Close)) => self.on_close_notify(io, upstream),
            (Fate::Open, Err(Broken)) => self.on_incident(io, upstream, Incident::Reset),
            (fate, _) => fate,
        }
    }

    /// The client sends no more: the same to us as the end of its half of the connection.
    fn on_close_notify(&mut self, io: &mut Io<'_>, upstream: &mut impl Upstream) -> Fate {
        if let Receiving::Armed(operation) = self.receiving {
            io.reactor.cancel(operation);
        }
        if matches!(self.receiving, Receiving::Ended) {
            return Fate::Open;
        }
        self.receiving = Receiving::Ended;
        self.on_incident(io, upstream, Incident::Ended)
    }

    /// Seals the answer that is about to be sent, if there is TLS.
    pub(crate) fn seal(&mut self, io: &mut Io<'_>) {
        let (Transport::Tls(tls), State::Sending(sending)) = (&mut self.transport, &mut self.state)
        else {
            return;
        };
        let ending = match self.exchange.persistence {
            Persistence::KeepAlive => Ending::None,
            Persistence::Close => Ending::CloseNotify,
        };
        let shared = &mut *io.shared;
        sending.replace(|outgoing| {
            let mut sealed = shared.pool.take();
            if seal(tls, &outgoing, ending, &mut shared.scratch, &mut sealed).is_err() {
                // A send of nothing ends as one to a broken connection does, and a part of an answer
                // must not be taken for all of it.
                sealed.clear();
            }
            let (Outgoing::Bytes(plain) | Outgoing::WithBody(plain, _)) = outgoing;
            shared.pool.put(plain);
            sealed
        });
    }

    /// An interim answer as it goes to the socket.
    pub(crate) fn seal_interim(&mut self, io: &mut Io<'_>, plain: &[u8]) {
        let mut bytes = io.shared.pool.take();
        match &mut self.transport {
            Transport::Plain => bytes.extend_from_slice(plain),
            Transport::Tls(tls) => {
                if tls.writer().write_all(plain).is_err() {
                    return io.shared.pool.put(bytes);
                }
                // Behind what is on its way already.
                if self.interim.is_in_flight() {
                    return io.shared.pool.put(bytes);
                }
                drain(tls, &mut bytes);
            }
        }
        self.interim.start(io, &self.socket, self.key, bytes);
    }

    /// Sends what TLS has to say by itself, unless something is on its way: then the end of that does.
    pub(crate) fn flush_transport(&mut self, io: &mut Io<'_>) {
        let Transport::Tls(tls) = &mut self.transport else { return };
        let busy = self.interim.is_in_flight() || matches!(self.state, State::Sending(_));
        if busy || !tls.wants_write() {
            return;
        }
        let mut bytes = io.shared.pool.take();
        drain(tls, &mut bytes);
        self.interim.start(io, &self.socket, self.key, bytes);
    }

    /// The last word of TLS before the socket is closed: why, or that nothing was cut off. Said at once
    /// or not at all, as nobody waits for whether it arrives.
    pub(crate) fn say_goodbye(&mut self, io: &mut Io<'_>) {
        let Transport::Tls(tls) = &mut self.transport else { return };
        if self.interim.is_in_flight() || matches!(self.state, State::Sending(_)) {
            return;
        }
        tls.send_close_notify();
        let mut bytes = io.shared.pool.take();
        drain(tls, &mut bytes);
        if !bytes.is_empty() {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            let _ = send(self.socket.as_raw_fd(), &bytes, flags);
        }
        io.shared.pool.put(bytes);
    }
}

/// Opens what has come, and with it what TLS had kept. `plain` grows by less than `bytes` and one
/// record: TLS keeps no more than a record that is incomplete.
fn open(
    tls: &mut ServerConnection,
    mut bytes: &[u8],
    plain: &mut Vec<u8>,
) -> Result<Notice, Broken> {
    loop {
        let taken = match bytes.is_empty() {
            true => 0,
            false => tls.read_tls(&mut bytes).map_err(|_| Broken)?,
        };
        let state = tls.process_new_packets().map_err(|_| Broken)?;
        let from = plain.len();
        plain.resize(from + state.plaintext_bytes_to_read(), 0);
        tls.reader().read_exact(&mut plain[from..]).map_err(|_| Broken)?;
        if state.peer_has_closed() {
            return Ok(Notice::Close);
        }
        if taken == 0 || bytes.is_empty() {
            return Ok(Notice::None);
        }
    }
}

/// The records of an answer. `scratch` is for what lies in a function's memory, which may change while it
/// is read.
fn seal(
    tls: &mut ServerConnection,
    outgoing: &Outgoing,
    ending: Ending,
    scratch: &mut Vec<u8>,
    sealed: &mut Vec<u8>,
) -> Result<(), Broken> {
    let (head, body) = match outgoing {
        Outgoing::Bytes(bytes) => (bytes, None),
        Outgoing::WithBody(head, body) => (head, Some(body.payload())),
    };
    for chunk in head.chunks(CHUNK) {
        write(tls, chunk, sealed)?;
    }
    if let Some(body) = body {
        for from in (0..body.len()).step_by(CHUNK) {
            scratch.clear();
            body.slice(from..body.len().min(from + CHUNK)).append_to(scratch);
            write(tls, scratch, sealed)?;
        }
    }
    if ending == Ending::CloseNotify {
        tls.send_close_notify();
        drain(tls, sealed);
    }
    Ok(())
}

fn write(tls: &mut ServerConnection, plain: &[u8], sealed: &mut Vec<u8>) -> Result<(), Broken> {
    // The buffer of TLS is empty in between and takes more than a chunk.
    tls.writer().write_all(plain).map_err(|_| Broken)?;
    drain(tls, sealed);
    Ok(())
}

/// Appends what TLS has ready for the socket.
fn drain(tls: &mut ServerConnection, sealed: &mut Vec<u8>) {
    // A vector takes everything, so each turn takes a part of what is there.
    while tls.wants_write() && tls.write_tls(sealed).is_ok() {}
}
