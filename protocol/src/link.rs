//! A connection between an engine and a gateway, after the handshake, on a shard's reactor: messages
//! in and out, TLS if there is any, and the heartbeat. Its owner passes it the reactor's events, takes
//! what came, says what is to be said, and flushes once a turn:
//!
//! ```text
//! Received ---> on_received, then next_message until there is none
//! Sent -------> on_sent
//! next_timer -> tick
//! each turn --> flush
//! an error ---> close
//! ```
//! What was sent may lie in a worker's memory ([`Link::send_answer_block`]): that worker waits until it
//! is out, or for 50 ms; then the rest is copied.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use ipc::engine_side::{SharedBlock, SharedSlice};
use reactor::clock::Nanos;
use reactor::{Reactor, Token};

use crate::cipher::{Cipher, Flow};
use crate::error::LinkError;
use crate::established::Established;
use crate::frame::Kind;
use crate::heartbeat::{Beat, Heartbeat};
use crate::lane::Given;
use crate::message::{AnswerHead, CallHead, LOADS_MAX, Load, Message, encode_loads, encode_reason};
use crate::outbox::{Bodies, Body, Outbox};
use crate::reader::{Limits, Reader};
use crate::sender::{KEPT_MAX, Sender};
use crate::side::Side;
use crate::socket;

/// Of messages that fit a frame and belong to no call: a reader does not look at it.
const NO_STREAM: u64 = 0;

/// See the module's description.
#[derive(Debug)]
pub struct Link {
    side: Side,
    socket: OwnedFd,
    cipher: Option<Cipher>,
    reader: Reader,
    /// Whether more can come.
    flow: Flow,
    outbox: Outbox,
    sender: Sender,
    /// A send is to be called back with the next flush.
    call_back: bool,
    heartbeat: Heartbeat,
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
        let Established { socket, tls, early } = established;
        socket::prepare(&socket);
        let mut link = Link {
            side,
            socket,
            cipher: tls.map(Cipher::new),
            reader: Reader::new(side, limits),
            flow: Flow::Goes,
            outbox: Outbox::new(),
            sender: Sender::new(send_token, now),
            call_back: false,
            heartbeat: Heartbeat::new(now),
            scratch: Vec::new(),
        };
        link.reader.push(&early);
        if let Some(cipher) = &mut link.cipher {
            link.flow = cipher.decrypt(&[], &mut link.reader)?;
        }
        // Last, for a socket that is dropped must have nothing in flight.
        reactor.receive(link.socket.as_fd(), receive_token);
        Ok(link)
    }

    /// Takes bytes of the connection.
    ///
    /// # Errors
    /// When they are no TLS.
    pub fn on_received(&mut self, now: Nanos, bytes: &[u8]) -> Result<(), LinkError> {
        self.heartbeat.heard(now);
        match &mut self.cipher {
            None => self.reader.push(bytes),
            Some(cipher) if self.flow == Flow::Goes => {
                self.flow = cipher.decrypt(bytes, &mut self.reader)?;
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// The next message that has come. To be called until there is none, or the reader's memory grows.
    ///
    /// # Errors
    /// The link is over, for this reason.
    pub fn next_message(&mut self) -> Result<Option<Message<'_>>, LinkError> {
        match self.reader.next_message()? {
            None if self.flow == Flow::Ended => {
                Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
            }
            message => Ok(message),
        }
    }

    /// A call. `block` is envelope and payload; it is copied if a container may change it.
    pub fn send_call(&mut self, stream: u64, head: &CallHead, block: SharedSlice) {
        debug_assert_eq!(block.len(), head.envelope_size as usize + head.payload_size as usize);
        self.outbox.push(Kind::Call, stream, &head.encode(), Body::Slice(block));
    }

    /// The end of a call. `block` is envelope and payload; it is copied if a container may change it.
    pub fn send_answer(&mut self, stream: u64, head: &AnswerHead, block: Option<SharedSlice>) {
        let size = block.as_ref().map_or(0, SharedSlice::len);
        debug_assert_eq!(size, head.envelope_size as usize + head.payload_size as usize);
        match block {
            Some(block) => {
                self.outbox.push(Kind::Answer, stream, &head.encode(), Body::Slice(block));
            }
            None => self.outbox.push_small(Kind::Answer, stream, &head.encode()),
        }
    }

    /// The end of a call, out of the worker's memory: `block` is dropped when it is sent or copied,
    /// which it is at once if it fits a frame, and at the latest with the first [`Link::tick`] after
    /// 50 ms.
    pub fn send_answer_block(&mut self, stream: u64, head: &AnswerHead, block: SharedBlock) {
        debug_assert_eq!(block.envelope_size(), head.envelope_size as usize);
        debug_assert_eq!(block.payload_size(), head.payload_size as usize);
        self.outbox.push(Kind::Answer, stream, &head.encode(), Body::Block(block));
    }

    /// Takes back a call, or the rest of an answer. A large one is unsaid if nothing of it is out. The
    /// other side is told by CANCEL of a call, and of an answer that it would wait for the rest of.
    pub fn cancel(&mut self, stream: u64) {
        let is_to_be_told = match self.outbox.withdraw(stream) {
            Some(Given::Nothing) => false,
            Some(Given::Something) => true,
            None => self.side == Side::Gateway,
        };
        if is_to_be_told {
            self.outbox.push_small(Kind::Cancel, stream, &[]);
        }
    }

    /// All functions, as `message::encode_functions` writes them. If an earlier list has not begun to
    /// leave, it never does.
    pub fn send_functions(&mut self, encoded: Vec<u8>) {
        self.outbox.push_functions(encoded);
    }

    /// How busy some functions are. May overtake the list that announces them.
    pub fn send_loads(&mut self, loads: &[Load]) {
        for loads in loads.chunks(LOADS_MAX) {
            self.scratch.clear();
            encode_loads(loads, &mut self.scratch);
            self.outbox.push_small(Kind::Load, NO_STREAM, &self.scratch);
        }
    }

    /// Whether a part of the functions has not left: what is said of them now would overtake it.
    #[must_use]
    pub fn is_announcing(&self) -> bool {
        self.outbox.is_announcing()
    }

    /// No new calls, please; or none will come.
    pub fn send_draining(&mut self) {
        self.outbox.push_small(Kind::Draining, NO_STREAM, &[]);
    }

    /// Sends what was said, unless a send is under way: then that one's end does. To be called once a
    /// turn, also when nothing was said: TLS and PINGs want answers too.
    ///
    /// # Errors
    /// When TLS takes no more.
    pub fn flush(&mut self, reactor: &mut Reactor) -> Result<(), LinkError> {
        if std::mem::take(&mut self.call_back) {
            self.sender.call_back(reactor);
        }
        let Some(mut batch) = self.sender.take_idle() else {
            if !self.outbox.is_empty() {
                self.sender.hasten(reactor);
            }
            return Ok(());
        };
        if let Some(question) = self.reader.take_ping() {
            self.outbox.push_small(Kind::Pong, question, &[]);
        }
        let mut bodies = None;
        match &mut self.cipher {
            None => bodies = self.outbox.give(&mut batch, Bodies::Gathered),
            Some(cipher) if cipher.wants_write() || !self.outbox.is_empty() => {
                self.scratch.clear();
                self.outbox.give(&mut self.scratch, Bodies::Copied);
                cipher.encrypt(&self.scratch, &mut batch)?;
                if self.scratch.capacity() > KEPT_MAX {
                    self.scratch = Vec::new();
                }
            }
            Some(_) => {}
        }
        let quietly = self.outbox.is_empty();
        self.sender.start(reactor, &self.socket, batch, bodies, quietly);
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
        Ok(self.sender.on_sent(reactor, &self.socket, data, result)?)
    }

    /// Does what is due: asks whether the other side is there, lets workers go that have waited for a
    /// slow peer. To be called after what has arrived was passed on, and before [`Link::flush`].
    ///
    /// # Errors
    /// When the other side has not answered, or taken anything, in time.
    pub fn tick(&mut self, now: Nanos) -> Result<(), LinkError> {
        if let Some(silence) = self.sender.stalled(now) {
            let text = format!("it took nothing for {} ms", silence.as_millis());
            return Err(io::Error::new(io::ErrorKind::TimedOut, text).into());
        }
        self.call_back |= self.sender.next_call_back().is_some_and(|at| at <= now);
        self.outbox.unpin(now);
        match self.heartbeat.look(now) {
            Beat::Nothing => Ok(()),
            Beat::Ask => {
                self.outbox.push_small(Kind::Ping, now.0, &[]);
                Ok(())
            }
            Beat::Dead => Err(LinkError::Silent(self.heartbeat.silence(now).as_millis())),
        }
    }

    /// When [`Link::tick`] is wanted next. It may become earlier with whatever is sent.
    #[must_use]
    pub fn next_timer(&self) -> Nanos {
        let workers = [self.sender.next_call_back(), self.outbox.next_unpin()];
        workers.into_iter().flatten().fold(self.heartbeat.next(), Nanos::min)
    }

    /// Bytes that wait to be sent; owners bound them by [`crate::QUEUED_MAX`].
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.outbox.size()
    }

    /// Whether everything that was said is with the kernel.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.sender.is_idle() && self.outbox.is_empty()
    }

    /// Calls of which no byte has left: their function provably never saw them.
    pub fn unsent_calls(&self) -> impl Iterator<Item = u64> {
        self.outbox.unsent_calls()
    }

    /// Ends the link at once, with a word if there is a reason. The word is left out when a send is under
    /// way: it would lie within a frame that may never end. Large messages end unfinished; who wants them
    /// to leave waits for [`Link::is_flushed`]. Calls that wait here stay unsaid: their owner makes them
    /// elsewhere, and they must not run twice.
    pub fn close(mut self, reactor: &mut Reactor, reason: Option<&str>) {
        if let (Some(reason), true) = (reason, self.sender.is_idle()) {
            if self.side == Side::Gateway {
                self.outbox = Outbox::new();
            }
            self.outbox.withdraw_all();
            self.outbox.push_small(Kind::Bye, NO_STREAM, encode_reason(reason));
            if let Some(cipher) = &mut self.cipher {
                cipher.end();
            }
            // A link that cannot say it any more is closed all the same.
            let _ = self.flush(reactor);
        }
        reactor.shutdown(self.socket.as_fd(), std::net::Shutdown::Write);
        reactor.close(self.socket);
    }
}
