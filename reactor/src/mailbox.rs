//! Mail for a thread from other threads: for what is rarer than a call, or has nowhere else to go.
//!
//! A queue and an eventfd. The receiving side polls the eventfd with whatever it waits on (a shard its
//! ring, other threads `poll(2)`), then takes everything that is there. Posting after the receiver is
//! gone is harmless: the process is about to end.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

/// The posting end. Cheap to clone.
#[derive(Debug)]
pub struct Post<T> {
    queue: Sender<T>,
    bell: Arc<OwnedFd>,
}

impl<T> Clone for Post<T> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), bell: Arc::clone(&self.bell) }
    }
}

impl<T> Post<T> {
    /// Queues `message` and wakes the receiver.
    pub fn send(&self, message: T) {
        if self.queue.send(message).is_ok() {
            // The counter cannot overflow in practice, and a full one has woken the receiver already.
            ring(&self.bell);
        }
    }
}

/// The receiving end.
#[derive(Debug)]
pub struct Mailbox<T> {
    queue: Receiver<T>,
    bell: Arc<OwnedFd>,
}

impl<T> Mailbox<T> {
    /// Takes the next message, if there is one.
    pub fn take(&self) -> Option<T> {
        self.queue.try_recv().ok()
    }

    /// Clears the bell. Call it before taking messages, so that a later one rings again.
    pub fn hush(&self) {
        hush(&self.bell);
    }

    /// The eventfd that says there is mail.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

/// Makes a mailbox and its posting end.
///
/// # Errors
/// When no eventfd can be made (descriptor limit).
pub fn mailbox<T>() -> io::Result<(Post<T>, Mailbox<T>)> {
    let bell = Arc::new(eventfd()?);
    let (sender, receiver) = mpsc::channel();
    Ok((Post { queue: sender, bell: Arc::clone(&bell) }, Mailbox { queue: receiver, bell }))
}

fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: takes no memory.
    let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just made it, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn ring(bell: &OwnedFd) {
    let one = 1u64;
    // SAFETY: reads the eight bytes of `one`.
    let _ = unsafe { libc::write(bell.as_raw_fd(), (&raw const one).cast(), size_of::<u64>()) };
}

fn hush(bell: &OwnedFd) {
    let mut count = 0u64;
    // SAFETY: writes the eight bytes of `count`.
    let _ = unsafe { libc::read(bell.as_raw_fd(), (&raw mut count).cast(), size_of::<u64>()) };
}
