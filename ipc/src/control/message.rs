//! Messages of the control socket and their bytes: a head of magic, version and kind, then fixed
//! fields, little-endian, then at most one text that fills the rest of the packet.

use std::io;

use super::ControlError;

/// Version of the control protocol; another one is refused.
pub const PROTOCOL_VERSION: u32 = 1;
/// Bytes of a packet at most.
pub const PACKET_MAX: usize = 1024;
/// Bytes of a packet's text at most; a longer message is cut.
pub const TEXT_MAX: usize = PACKET_MAX - 64;

/// "NCCS", then the version.
const MAGIC: u32 = u32::from_le_bytes(*b"NCCS");
const VERSION: u16 = 1;
const _: () = assert!(VERSION as u32 == PROTOCOL_VERSION);

const WELCOME: u16 = 1;
const CHANNEL: u16 = 2;
const SPAWN: u16 = 3;
const STOP: u16 = 4;
const HELLO: u16 = 0x81;
const REFUSED: u16 = 0x82;
const SPAWN_FAILED: u16 = 0x83;

/// What an engine says to a launcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToLauncher {
    /// The answer to `Hello`.
    Welcome {
        /// The engine's protocol version.
        version: u32,
        /// The function's name.
        function: String,
        /// Bytes of a payload at most.
        payload_max: u32,
    },
    /// A channel to a shard. Descriptors: memory A, memory B, the engine's bell.
    Channel {
        /// The shard.
        shard: u16,
        /// Lanes of the channel.
        lanes: u16,
        /// Bytes of a payload at most.
        payload_max: u32,
    },
    /// Start a worker. Descriptor: its doorbell.
    Spawn {
        /// Whose channel.
        shard: u16,
        /// The lane, just opened.
        lane: u16,
        /// Where to pin the worker.
        core: Option<u16>,
    },
    /// End the process.
    Stop,
}

/// What a launcher says to an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromLauncher {
    /// The library is loaded and initialised.
    Hello {
        /// The launcher's protocol version.
        version: u32,
        /// Its process, as it sees it.
        pid: u32,
        /// Interface of the library: 1 or 2.
        interface: u8,
    },
    /// The library cannot be used.
    Refused {
        /// Why, for people.
        message: String,
    },
    /// A worker could not be started.
    SpawnFailed {
        /// As in `Spawn`.
        shard: u16,
        /// As in `Spawn`.
        lane: u16,
        /// Why, for people.
        message: String,
    },
}

impl ToLauncher {
    /// Descriptors that belong to it.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        match self {
            ToLauncher::Channel { .. } => 3,
            ToLauncher::Spawn { .. } => 1,
            ToLauncher::Welcome { .. } | ToLauncher::Stop => 0,
        }
    }

    /// Its bytes. A function's name that does not fit is an error: cut, it would be another name.
    pub(super) fn encode(&self) -> io::Result<Vec<u8>> {
        let packet = match self {
            ToLauncher::Welcome { version, function, payload_max } => {
                if function.len() > TEXT_MAX {
                    let text = "the function's name is too long for a packet";
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
                }
                Packet::new(WELCOME).u32(*version).u32(*payload_max).text(function)
            }
            ToLauncher::Channel { shard, lanes, payload_max } => {
                Packet::new(CHANNEL).u16(*shard).u16(*lanes).u32(*payload_max)
            }
            ToLauncher::Spawn { shard, lane, core } => {
                let pin = u16::from(core.is_some());
                Packet::new(SPAWN).u16(*shard).u16(*lane).u16(pin).u16(core.unwrap_or(0))
            }
            ToLauncher::Stop => Packet::new(STOP),
        };
        Ok(packet.0)
    }

    pub(super) fn decode(packet: &[u8]) -> Result<ToLauncher, ControlError> {
        let (kind, mut body) = Body::open(packet)?;
        let message = match kind {
            WELCOME => ToLauncher::Welcome {
                version: body.u32()?,
                payload_max: body.u32()?,
                function: body.text()?,
            },
            CHANNEL => ToLauncher::Channel {
                shard: body.u16()?,
                lanes: body.u16()?,
                payload_max: body.u32()?,
            },
            SPAWN => {
                let (shard, lane) = (body.u16()?, body.u16()?);
                let core = match (body.u16()?, body.u16()?) {
                    (0, 0) => None,
                    (1, core) => Some(core),
                    _ => return Err(ControlError::Malformed("neither a core nor none")),
                };
                ToLauncher::Spawn { shard, lane, core }
            }
            STOP => ToLauncher::Stop,
            _ => return Err(ControlError::Malformed("no kind of message to a launcher")),
        };
        body.close().map(|()| message)
    }
}

impl FromLauncher {
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            FromLauncher::Hello { version, pid, interface } => {
                Packet::new(HELLO).u32(*version).u32(*pid).u16(u16::from(*interface))
            }
            FromLauncher::Refused { message } => Packet::new(REFUSED).text(message),
            FromLauncher::SpawnFailed { shard, lane, message } => {
                Packet::new(SPAWN_FAILED).u16(*shard).u16(*lane).text(message)
            }
        }
        .0
    }

    /// From a stranger's packet.
    pub(super) fn decode(packet: &[u8]) -> Result<FromLauncher, ControlError> {
        let (kind, mut body) = Body::open(packet)?;
        let message = match kind {
            HELLO => FromLauncher::Hello {
                version: body.u32()?,
                pid: body.u32()?,
                interface: match body.u16()? {
                    1 => 1,
                    2 => 2,
                    _ => return Err(ControlError::Malformed("no interface of ours")),
                },
            },
            REFUSED => FromLauncher::Refused { message: body.words()? },
            SPAWN_FAILED => FromLauncher::SpawnFailed {
                shard: body.u16()?,
                lane: body.u16()?,
                message: body.words()?,
            },
            _ => return Err(ControlError::Malformed("no kind of message to an engine")),
        };
        body.close().map(|()| message)
    }
}

/// A packet being written.
struct Packet(Vec<u8>);

impl Packet {
    fn new(kind: u16) -> Packet {
        Packet(MAGIC.to_le_bytes().to_vec()).u16(VERSION).u16(kind)
    }

    fn u16(mut self, value: u16) -> Packet {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u32(mut self, value: u32) -> Packet {
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Cut, if it must be, where a character ends.
    fn text(mut self, text: &str) -> Packet {
        let end = (0..=TEXT_MAX.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
        self.0.extend(&text.as_bytes()[..end.unwrap_or(0)]);
        self
    }
}

/// What is left of a packet being read.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn open(packet: &'a [u8]) -> Result<(u16, Body<'a>), ControlError> {
        let mut body = Body(packet);
        if body.u32()? != MAGIC {
            return Err(ControlError::Malformed("no magic word"));
        }
        match body.u16()? {
            VERSION => Ok((body.u16()?, body)),
            got => Err(ControlError::Version { got }),
        }
    }

    fn take<const SIZE: usize>(&mut self) -> Result<[u8; SIZE], ControlError> {
        let (bytes, rest) =
            self.0.split_first_chunk().ok_or(ControlError::Malformed("too short"))?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn u16(&mut self) -> Result<u16, ControlError> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, ControlError> {
        self.take().map(u32::from_le_bytes)
    }

    fn text(&mut self) -> Result<String, ControlError> {
        let text = std::str::from_utf8(core::mem::take(&mut self.0));
        text.map(str::to_owned).map_err(|_| ControlError::Malformed("text that is not UTF-8"))
    }

    /// A text for people, of a stranger: what could end a line of the log, or steer the terminal on
    /// which it is read, becomes a space.
    fn words(&mut self) -> Result<String, ControlError> {
        let text = self.text()?;
        Ok(text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
    }

    fn close(&self) -> Result<(), ControlError> {
        if self.0.is_empty() { Ok(()) } else { Err(ControlError::Malformed("too long")) }
    }
}
