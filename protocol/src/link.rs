//! A connection between an engine and a gateway, after the handshake, on a shard's reactor: messages
//! in and out, TLS if there is any, and the heartbeat. Its owner passes it the reactor's events, takes
//! what came, says what is to be said, and flushes once a turn.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use ipc::engine_side::SharedSlice;
use reactor::clock::Nanos;
use reactor::{Reactor, Token};

use crate::error::{LinkError, ProtocolError};
use crate::established::Established;
use crate::frame::Kind;
use crate::heartbeat::{Beat, Heartbeat};
use crate::message::{
    AnswerHead, CallHead, Load, Message, REASON_MAX, encode_loads, parse_functions, parse_loads,
};
use crate::outbox::{Outbox, Withdrawn};
use crate::reader::{Fixed, Limits, Raw, Reader};

/// Bytes that the kernel keeps beyond what is under way: what is queued there, nothing overtakes.
const UNSENT_MAX: libc::c_int = 128 * 1024;
/// Stream of messages that belong to no call.
const CONTROL: u64 = u64::MAX;
/// Plain bytes taken from TLS at once.
const PLAIN_CHUNK: usize = 16 * 1024;

/// Which end of a link this is: it decides what may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Calls go out, answers come in.
    Gateway,
    /// Calls come in, answers go out.
    Engine,
}

/// See the module's description.
#[derive(Debug)]
pub struct Link {
    side: Side,
    socket: OwnedFd,
    tls: Option<Box<rustls::Connection>>,
    reader: Reader,
    outbox: Outbox,
    heartbeat: Heartbeat,
    send_token: Token,
    /// The vector of the last send, when none is under way.
    idle: Option<Vec<u8>>,
    /// Bytes of the send under way that are out.
    sent: usize,
    scratch: Vec<u8>,
}

impl Link {
    /// Begins to receive on a connection whose handshake is done. Events of the two tokens are to be
    /// passed to [`Link::on_received`] and [`Link::on_sent`]; messages may be there at once.
    ///
    /// # Errors
    /// When bytes that came with the handshake are no TLS.
    pub fn new(
        reactor: &mut Reactor,
        now: Nanos,
        established: Established,
        side: Side,
        limits: Limits,
        [receive_token, send_token]: [Token; 2],
    ) -> Result<Link, LinkError> {
        let Established { socket, mut tls, early } = established;
        set_option(&socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
        set_option(&socket, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, UNSENT_MAX);
        if let Some(tls) = &mut tls {
            // Its own limit is 64 KiB, which a batch of small messages may exceed; a batch is taken out
            // as soon as it is in.
            tls.set_buffer_limit(None);
        }
        reactor.receive(socket.as_fd(), receive_token);
        let mut link = Link {
            side,
            socket,
            tls,
            reader: Reader::new(limits),
            outbox: Outbox::default(),
            heartbeat: Heartbeat::new(now),
            send_token,
            idle: Some(Vec::new()),
            sent: 0,
            scratch: Vec::new(),
        };
        link.reader.push(&early);
        if link.tls.is_some() {
            link.decrypt(&[])?;
        }
        Ok(link)
    }

    /// Takes bytes of the connection.
    ///
    /// # Errors
    /// When they are no TLS.
    pub fn on_received(&mut self, now: Nanos, bytes: &[u8]) -> Result<(), LinkError> {
        self.heartbeat.heard(now);
        if self.tls.is_some() {
            self.decrypt(bytes)
        } else {
            self.reader.push(bytes);
            Ok(())
        }
    }

    /// The next message that has come. To be called until there is none.
    ///
    /// # Errors
    /// The link is over, for this reason.
    pub fn next_message(&mut self) -> Result<Option<Message<'_>>, LinkError> {
        match self.reader.next()? {
            Some(raw) => parse(self.side, raw).map(Some),
            None => Ok(None),
        }
    }

    /// A call. `block` is envelope and payload.
    pub fn send_call(&mut self, stream: u64, head: &CallHead, block: SharedSlice) {
        self.outbox.push(Kind::Call, stream, &head.encode(), block);
    }

    /// The end of a call. `block` is envelope and payload.
    pub fn send_answer(&mut self, stream: u64, head: &AnswerHead, block: Option<SharedSlice>) {
        match block {
            Some(block) => self.outbox.push(Kind::Answer, stream, &head.encode(), block),
            None => self.outbox.push_small(Kind::Answer, stream, &[&head.encode()]),
        }
    }

    /// Takes a call back: unsaid if nothing of it is out, else by a CANCEL.
    pub fn cancel(&mut self, stream: u64) {
        if self.outbox.withdraw(stream) != Some(Withdrawn::Nothing) {
            self.outbox.push_small(Kind::Cancel, stream, &[]);
        }
    }

    /// All functions, as `message::encode_functions` writes them.
    pub fn send_functions(&mut self, encoded: Vec<u8>) {
        let block = ipc::engine_side::SharedBlock::from_bytes(encoded, 0);
        self.outbox.push(Kind::Functions, CONTROL, &[], block.whole());
    }

    /// How busy some functions are.
    pub fn send_loads(&mut self, loads: &[Load]) {
        self.scratch.clear();
        encode_loads(loads, &mut self.scratch);
        let block = ipc::engine_side::SharedBlock::from_bytes(self.scratch.clone(), 0);
        self.outbox.push(Kind::Load, CONTROL - 1, &[], block.whole());
    }

    /// No new calls, please; or none will come.
    pub fn send_draining(&mut self) {
        self.outbox.push_small(Kind::Draining, CONTROL, &[]);
    }

    /// Sends what was said, unless a send is under way: then that one's end does.
    pub fn flush(&mut self, reactor: &mut Reactor) -> Result<(), LinkError> {
        let Some(mut batch) = self.idle.take() else { return Ok(()) };
        batch.clear();
        if let Some(question) = self.reader.take_ping() {
            self.outbox.push_small(Kind::Pong, question, &[]);
        }
        if let Some(tls) = &mut self.tls {
            if !self.outbox.is_empty() {
                self.scratch.clear();
                self.outbox.give(&mut self.scratch);
                tls.writer().write_all(&self.scratch)?;
            }
            while tls.wants_write() {
                tls.write_tls(&mut batch)?;
            }
        } else {
            self.outbox.give(&mut batch);
        }
        if batch.is_empty() {
            self.idle = Some(batch);
        } else {
            self.sent = 0;
            reactor.send(self.socket.as_fd(), batch, 0, self.send_token);
        }
        Ok(())
    }

    /// Takes the end of a send. [`Link::flush`] sends what has gathered meanwhile.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn on_sent(
        &mut self,
        reactor: &mut Reactor,
        data: Vec<u8>,
        result: io::Result<usize>,
    ) -> Result<(), LinkError> {
        match result? {
            0 => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
            count => self.sent += count,
        }
        if self.sent < data.len() {
            reactor.send(self.socket.as_fd(), data, self.sent, self.send_token);
        } else {
            self.idle = Some(data);
        }
        Ok(())
    }

    /// Asks whether the other side is there when that is due.
    ///
    /// # Errors
    /// When it has not answered in time.
    pub fn tick(&mut self, now: Nanos) -> Result<(), LinkError> {
        match self.heartbeat.look(now) {
            Beat::Nothing => Ok(()),
            Beat::Ask => {
                self.outbox.push_small(Kind::Ping, now.0, &[]);
                Ok(())
            }
            Beat::Dead => Err(LinkError::Silent(self.heartbeat.silence(now).as_millis())),
        }
    }

    /// When [`Link::tick`] is wanted next.
    #[must_use]
    pub fn next_timer(&self) -> Nanos {
        self.heartbeat.next()
    }

    /// Bytes that wait to be sent.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.outbox.size()
    }

    /// Whether everything that was said is with the kernel.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.idle.is_some() && self.outbox.is_empty()
    }

    /// Calls of which no byte has left: their function provably never saw them.
    pub fn unsent_calls(&self) -> impl Iterator<Item = u64> {
        self.outbox.unsent_calls()
    }

    /// Ends the link, with a word if there is a reason and room for it. Calls that wait here stay unsaid:
    /// their owner makes them elsewhere, and they must not run twice.
    pub fn close(mut self, reactor: &mut Reactor, reason: Option<&str>) {
        if let (Some(reason), true) = (reason, self.idle.is_some()) {
            if self.side == Side::Gateway {
                self.outbox = Outbox::default();
            }
            let reason = reason.floor_char_boundary_max(REASON_MAX);
            self.outbox.push_small(Kind::Bye, CONTROL, &[reason.as_bytes()]);
            // A link that cannot say it any more is closed all the same.
            let _ = self.flush(reactor);
        }
        reactor.shutdown(self.socket.as_fd(), std::net::Shutdown::Write);
        reactor.close(self.socket);
    }

    fn decrypt(&mut self, mut bytes: &[u8]) -> Result<(), LinkError> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        loop {
            if !bytes.is_empty() {
                tls.read_tls(&mut bytes)?;
            }
            let state = tls.process_new_packets()?;
            let buffer = self.reader.make_room();
            let mut left = state.plaintext_bytes_to_read();
            while left > 0 {
                let from = buffer.len();
                buffer.resize(from + left.min(PLAIN_CHUNK), 0);
                let count = tls.reader().read(&mut buffer[from..])?;
                buffer.truncate(from + count);
                left -= count;
            }
            if bytes.is_empty() {
                return Ok(());
            }
            if state.peer_has_closed() {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }
}

/// A prefix of a text that ends between two characters.
trait Prefix {
    fn floor_char_boundary_max(&self, size: usize) -> &str;
}

impl Prefix for str {
    fn floor_char_boundary_max(&self, size: usize) -> &str {
        let mut end = self.len().min(size);
        while !self.is_char_boundary(end) {
            end -= 1;
        }
        &self[..end]
    }
}

fn parse(side: Side, raw: Raw<'_>) -> Result<Message<'_>, LinkError> {
    let Raw { kind, stream, fixed, body } = raw;
    match (side, kind, fixed) {
        (Side::Gateway, Kind::Functions, _) => {
            Ok(Message::Functions(parse_functions(body.bytes())?))
        }
        (Side::Gateway, Kind::Load, _) => Ok(Message::Load(parse_loads(body.bytes())?)),
        (Side::Gateway, Kind::Answer, Fixed::Answer(head)) => {
            Ok(Message::Answer { stream, head, block: body })
        }
        (Side::Engine, Kind::Call, Fixed::Call(head)) => {
            Ok(Message::Call { stream, head, block: body })
        }
        (Side::Engine, Kind::Cancel, _) => Ok(Message::Cancel { stream }),
        (_, Kind::Draining, _) => Ok(Message::Draining),
        (_, Kind::Bye, _) => {
            Err(LinkError::Bye(String::from_utf8_lossy(body.bytes()).escape_debug().collect()))
        }
        (_, kind, _) => Err(ProtocolError::Unexpected(kind.name()).into()),
    }
}

fn set_option(socket: &OwnedFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) {
    let size = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(0);
    // SAFETY: reads `size` bytes of `value`. A socket that is not TCP refuses, and goes without.
    let _ = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), size)
    };
}
