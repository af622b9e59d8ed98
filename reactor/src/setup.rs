//! Making a ring, and saying exactly what is missing when there can be none: a kernel too old, a
//! seccomp filter, a sysctl.
//!
//! Flags, feature bits and opcodes are asked for; what the kernel does not list (multishot, writes
//! that do not wait, sends in part) is tried once, in `rehearse`, on the finished reactor.

use crate::buffers::{BUFFERS_MAX, BufferRing};
use crate::clock;
use crate::event::{Event, Token, Wait};
use crate::reactor::Reactor;
use io_uring::{IoUring, Parameters, Probe, opcode};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

/// The one group of provided buffers.
pub(crate) const BUFFER_GROUP: u16 = 0;
/// Completions the queue holds for each submission entry: a multishot operation posts many, and
/// when there is no room the kernel ends it and must allocate.
const COMPLETIONS_PER_ENTRY: u32 = 16;
/// Submission entries at most, so that the completion queue stays below the kernel's 2^16.
const ENTRIES_MAX: u32 = 4096;
/// The rehearsal completes within its first turns; the bound is for a kernel that misbehaves.
const REHEARSAL_TURNS: u32 = 100;
const REHEARSAL_WAIT: Duration = Duration::from_millis(10);

/// Sizes of a reactor.
#[derive(Clone, Debug)]
pub struct Config {
    /// Submission queue entries: operations queued in one turn before it costs another system
    /// call. 1 to 4096.
    pub entries: u32,
    /// Buffers to receive into: a power of two, up to 32768.
    pub receive_buffers: u16,
    /// Bytes of each: the most that one [`Event::Received`] carries.
    pub receive_buffer_size: u32,
}

impl Default for Config {
    fn default() -> Config {
        Config { entries: 256, receive_buffers: 256, receive_buffer_size: 16 * 1024 }
    }
}

/// Why there is no reactor.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A size is out of range.
    #[error("reactor: {what} is {got}, but must be {expected}")]
    Size {
        /// Field of [`Config`].
        what: &'static str,
        /// Its value.
        got: u32,
        /// The values allowed.
        expected: &'static str,
    },
    /// The kernel has io_uring, but this process may not use it.
    #[error(
        "io_uring is forbidden here ({call}: {source}): a seccomp filter blocks it, or the sysctl \
         kernel.io_uring_disabled is set"
    )]
    Forbidden {
        /// The system call that was refused.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
    /// The kernel lacks a feature.
    #[error(
        "{feature} is missing: Linux {since} brings it, this is Linux {running} \
         (or a seccomp filter blocks it); the minimum is Linux 6.1"
    )]
    Missing {
        /// The feature.
        feature: &'static str,
        /// First kernel that has it.
        since: &'static str,
        /// The kernel we run on.
        running: String,
    },
    /// Out of memory or descriptors, or something unforeseen.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// Its error.
        source: io::Error,
    },
}

/// Makes ring and buffers, and checks whatever the kernel can be asked about.
pub(crate) fn create(config: &Config) -> Result<(IoUring, Rc<BufferRing>), SetupError> {
    check_sizes(config)?;
    let ring = build(config.entries)?;
    check_features(ring.params())?;
    check_opcodes(&ring)?;
    let buffers = BufferRing::new(config.receive_buffers, config.receive_buffer_size)
        .map_err(|source| SetupError::System { doing: "map the receive buffers", source })?;
    // SAFETY: the mapping begins with `count` entries at a page boundary, and the reactor frees it
    // only when the ring holds no operation that could use it.
    let registered = unsafe {
        ring.submitter().register_buf_ring_with_flags(
            buffers.address(),
            buffers.count(),
            BUFFER_GROUP,
            0,
        )
    };
    match registered {
        Ok(()) => Ok((ring, buffers)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            Err(missing("io_uring provided buffer rings (REGISTER_PBUF_RING)", "5.19"))
        }
        Err(source) => Err(refused("io_uring_register", "register the receive buffers", source)),
    }
}

fn check_sizes(config: &Config) -> Result<(), SetupError> {
    let buffers = config.receive_buffers;
    if config.entries == 0 || config.entries > ENTRIES_MAX {
        let (what, got) = ("entries", config.entries);
        return Err(SetupError::Size { what, got, expected: "1 to 4096" });
    }
    if !buffers.is_power_of_two() || buffers > BUFFERS_MAX {
        let (what, got) = ("receive_buffers", buffers.into());
        return Err(SetupError::Size { what, got, expected: "a power of two, up to 32768" });
    }
    if config.receive_buffer_size == 0 || config.receive_buffer_size > 1 << 30 {
        let (what, got) = ("receive_buffer_size", config.receive_buffer_size);
        return Err(SetupError::Size { what, got, expected: "1 byte to 1 GiB" });
    }
    Ok(())
}

/// The flags of the ring in the order kernels learned them. An unknown one fails with EINVAL, so
/// the first that turns success into failure is the one missing.
fn build(entries: u32) -> Result<IoUring, SetupError> {
    let with_flags = |flags: usize| {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(entries.next_power_of_two() * COMPLETIONS_PER_ENTRY);
        if flags >= 1 {
            builder.setup_submit_all();
        }
        if flags >= 2 {
            builder.setup_single_issuer();
        }
        if flags >= 3 {
            builder.setup_defer_taskrun().setup_taskrun_flag();
        }
        builder.build(entries)
    };
    let error = match with_flags(3) {
        Ok(ring) => return Ok(ring),
        Err(error) => error,
    };
    if error.raw_os_error() != Some(libc::EINVAL) {
        return Err(refused("io_uring_setup", "create the ring", error));
    }
    Err(match (0..3).find(|&flags| with_flags(flags).is_err()) {
        Some(0) => missing("io_uring with a completion queue of its own size", "5.5"),
        Some(1) => missing("IORING_SETUP_SUBMIT_ALL", "5.18"),
        Some(2) => missing("IORING_SETUP_SINGLE_ISSUER", "6.0"),
        _ => missing("IORING_SETUP_DEFER_TASKRUN", "6.1"),
    })
}

fn check_features(params: &Parameters) -> Result<(), SetupError> {
    let features = [
        (params.is_feature_nodrop(), "IORING_FEAT_NODROP", "5.5"),
        (params.is_feature_submit_stable(), "IORING_FEAT_SUBMIT_STABLE", "5.5"),
        (params.is_feature_fast_poll(), "IORING_FEAT_FAST_POLL", "5.7"),
        (params.is_feature_skip_cqe_on_success(), "IORING_FEAT_CQE_SKIP", "5.17"),
    ];
    match features.into_iter().find(|(present, ..)| !present) {
        Some((_, feature, since)) => Err(missing(feature, since)),
        None => Ok(()),
    }
}

fn check_opcodes(ring: &IoUring) -> Result<(), SetupError> {
    let mut probe = Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(|source| refused("io_uring_register", "ask for the operations", source))?;
    let opcodes = [
        (opcode::PollAdd::CODE, "IORING_OP_POLL_ADD", "5.1"),
        (opcode::SendMsg::CODE, "IORING_OP_SENDMSG", "5.3"),
        (opcode::Timeout::CODE, "IORING_OP_TIMEOUT", "5.4"),
        (opcode::AcceptMulti::CODE, "IORING_OP_ACCEPT", "5.5"),
        (opcode::AsyncCancel2::CODE, "IORING_OP_ASYNC_CANCEL", "5.5"),
        (opcode::Close::CODE, "IORING_OP_CLOSE", "5.6"),
        (opcode::Write::CODE, "IORING_OP_WRITE", "5.6"),
        (opcode::Send::CODE, "IORING_OP_SEND", "5.6"),
        (opcode::RecvMulti::CODE, "IORING_OP_RECV", "5.6"),
        (opcode::MsgRingData::CODE, "IORING_OP_MSG_RING", "5.18"),
    ];
    match opcodes.into_iter().find(|&(code, ..)| !probe.is_supported(code)) {
        Some((_, feature, since)) => Err(missing(feature, since)),
        None => Ok(()),
    }
}

/// What `rehearse` waits to see, by the token of its operation.
const RECEIVE: Token = Token(0);
const POLL: Token = Token(1);
const DOORBELL: Token = Token(2);
const MESSAGE: u64 = 3;
const QUIET: Token = Token(4);
/// More than the socket takes at once.
const QUIET_SIZE: usize = 48 * 1024;

/// Tries on the finished reactor what cannot be asked for: a multishot receive, a multishot poll of
/// a doorbell, a message (to itself), a quiet send that is taken in part, cancellation by descriptor.
pub(crate) fn rehearse(reactor: &mut Reactor) -> Result<(), SetupError> {
    let system = |source| SetupError::System { doing: "rehearse the ring", source };
    let (mut peer, socket) = UnixStream::pair().map_err(system)?;
    peer.write_all(&[0]).map_err(system)?;
    let bell = eventfd().map_err(system)?;
    reactor.receive(socket.as_fd(), RECEIVE);
    reactor.poll(bell.as_fd(), POLL);
    reactor.message(reactor.address(), MESSAGE);
    limit_room(&socket).map_err(system)?;
    reactor.send_quietly(socket.as_fd(), vec![0; QUIET_SIZE], 0, QUIET);

    let mut seen = [false; 5];
    let mut events = Vec::new();
    for _ in 0..REHEARSAL_TURNS {
        reactor
            .turn(Wait::Until(clock::now() + REHEARSAL_WAIT), &mut events)
            .map_err(|source| refused("io_uring_enter", "rehearse the ring", source))?;
        for event in events.drain(..) {
            // The first edge is the count that the eventfd began with, the second the ring.
            if matches!(event, Event::Polled { .. }) && !seen[1] {
                reactor.ring_doorbell(bell.as_fd(), DOORBELL);
            }
            note(event, &mut seen)?;
        }
        if seen == [true; 5] {
            break;
        }
    }
    reactor.close(socket.into());
    reactor.close(bell);
    for _ in 0..REHEARSAL_TURNS {
        if reactor.in_flight() == 0 {
            return first_unseen(seen);
        }
        reactor.turn(Wait::Until(clock::now() + REHEARSAL_WAIT), &mut events).map_err(system)?;
    }
    Err(missing("cancellation by descriptor (IORING_ASYNC_CANCEL_FD)", "5.19"))
}

fn note(event: Event, seen: &mut [bool; 5]) -> Result<(), SetupError> {
    let without = |number: usize| first_unseen(std::array::from_fn(|other| other != number));
    match event {
        Event::Received { .. } => seen[0] = true,
        Event::Polled { .. } if seen[1] => seen[2] = true,
        Event::Polled { .. } => seen[1] = true,
        Event::Message { value: MESSAGE } => seen[3] = true,
        Event::Sent { result: Ok(1..QUIET_SIZE), .. } => seen[4] = true,
        Event::ReceiveEnded { .. } => return without(0),
        Event::PollEnded { .. } => return without(1),
        Event::DoorbellFailed { .. } => return without(2),
        Event::MessageFailed { .. } => return without(3),
        Event::Sent { .. } => return without(4),
        _ => {}
    }
    Ok(())
}

fn first_unseen(seen: [bool; 5]) -> Result<(), SetupError> {
    match seen.into_iter().position(|seen| !seen) {
        None => Ok(()),
        Some(0) => Err(missing("multishot receive (IORING_RECV_MULTISHOT)", "6.0")),
        Some(1) => Err(missing("multishot poll (IORING_POLL_ADD_MULTI)", "5.13")),
        Some(2) => Err(missing("writing an eventfd with RWF_NOWAIT", "5.8")),
        Some(3) => Err(missing("IORING_OP_MSG_RING to a ring with deferred work", "6.1")),
        Some(_) => Err(missing("completions of sends that are taken in part", "6.1")),
    }
}

/// Has a socket take the least that the kernel lets it take at once, some KiB.
fn limit_room(socket: &UnixStream) -> io::Result<()> {
    let (level, option, least) = (libc::SOL_SOCKET, libc::SO_SNDBUF, 1 as libc::c_int);
    let value = (&raw const least).cast();
    // SAFETY: four readable bytes, of an integer.
    match unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value, 4) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: takes no memory; the result is checked before use.
    let fd = unsafe { libc::eventfd(1, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor, named nowhere else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The meaning of an errno from one of the three system calls of io_uring.
fn refused(call: &'static str, doing: &'static str, source: io::Error) -> SetupError {
    match source.raw_os_error() {
        Some(libc::ENOSYS) => missing("io_uring", "5.1"),
        Some(libc::EPERM | libc::EACCES) => SetupError::Forbidden { call, source },
        _ => SetupError::System { doing, source },
    }
}

fn missing(feature: &'static str, since: &'static str) -> SetupError {
    let running = std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "(unknown)".into(), |release| release.trim().to_owned());
    SetupError::Missing { feature, since, running }
}
