//! What the tests share: a watchdog against deadlocks, pairs of sockets, loops until an event.

use reactor::{Config, Event, Reactor, Wait};
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

/// Aborts the process if it lives too long: a deadlock must end the test run, and says where.
pub struct Watchdog {
    _alive: Sender<()>,
}

pub fn watchdog() -> Watchdog {
    let (alive, ended) = mpsc::channel::<()>();
    let test = thread::current().name().unwrap_or("a test").to_owned();
    thread::spawn(move || {
        if ended.recv_timeout(Duration::from_secs(120)) == Err(RecvTimeoutError::Timeout) {
            // Not eprintln, which a test run captures, and loses in the abort.
            let _ = writeln!(io::stderr(), "watchdog: {test} hangs");
            std::process::abort();
        }
    });
    Watchdog { _alive: alive }
}

pub fn reactor() -> Reactor {
    Reactor::new(&Config::default()).unwrap()
}

/// A connection over loopback: ours (non-blocking, for the reactor) and the peer's (blocking).
pub fn connection() -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    ours.set_nonblocking(true).unwrap();
    (ours.into(), peer)
}

pub fn eventfd(initial: u32) -> OwnedFd {
    // SAFETY: takes no memory; the result is checked.
    let fd = unsafe { libc::eventfd(initial, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: a fresh descriptor, named nowhere else.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Adds `value` to an eventfd by write(2).
pub fn add(eventfd: BorrowedFd<'_>, value: u64) -> io::Result<()> {
    // SAFETY: eight readable bytes.
    let written = unsafe { libc::write(eventfd.as_raw_fd(), (&raw const value).cast(), 8) };
    if written == 8 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes the count of an eventfd by read(2).
pub fn take(eventfd: BorrowedFd<'_>) -> io::Result<u64> {
    let mut value = 0u64;
    // SAFETY: eight writable bytes.
    let read = unsafe { libc::read(eventfd.as_raw_fd(), (&raw mut value).cast(), 8) };
    if read == 8 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// Turns until `seen` says that this event is the last one wanted.
pub fn turn_until(reactor: &mut Reactor, mut seen: impl FnMut(&mut Reactor, Event) -> bool) {
    let mut events = Vec::new();
    let mut done = false;
    while !done {
        reactor.turn(Wait::Forever, &mut events).unwrap();
        for event in events.drain(..) {
            done |= seen(reactor, event);
        }
    }
}

/// Turns without waiting, and asserts that nothing happened.
pub fn assert_quiet(reactor: &mut Reactor) {
    let mut events = Vec::new();
    reactor.turn(Wait::Not, &mut events).unwrap();
    assert!(events.is_empty(), "{events:?}");
}

/// Names of the kernel's worker threads that serve rings of the calling thread.
pub fn kernel_workers() -> Vec<String> {
    // SAFETY: takes nothing, cannot fail.
    let own = unsafe { libc::gettid() };
    let name = format!("iou-wrk-{own}");
    std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok())
        .map(|comm| comm.trim().to_owned())
        .filter(|comm| *comm == name)
        .collect()
}

/// `size` bytes in which every position differs from its neighbours' period.
pub fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|at| u8::try_from((at ^ (at >> 8) ^ (at >> 16)) & 0xff).unwrap()).collect()
}
