//! The queue from one shard to the thread of the log, and the bell that wakes it. While the thread is
//! awake, or sleeps for a moment to gather lines, a record costs a shard no system call.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;

use super::record::Record;

/// Records that may wait in one shard's queue, of about 300 bytes each: what a shard at its limit
/// answers while the thread gathers lines, several times over.
pub(super) const QUEUE_MAX: usize = 8192;

/// A shard's end of its queue.
#[derive(Debug)]
pub struct Feed {
    queue: SyncSender<Record>,
    bell: Arc<Bell>,
    dropped: u64,
}

/// Wakes the thread of the log.
#[derive(Debug, Default)]
pub(super) struct Bell {
    /// Set by the thread before it looks into the queues for the last time; cleared by whoever wakes it.
    asleep: AtomicBool,
    thread: OnceLock<Thread>,
    /// Of all shards, for the log's own end.
    pub(super) dropped: AtomicU64,
}

impl Feed {
    pub(super) fn new(bell: Arc<Bell>) -> (Feed, Receiver<Record>) {
        let (queue, records) = sync_channel(QUEUE_MAX);
        (Feed { queue, bell, dropped: 0 }, records)
    }

    /// Has a record written, or counts it as dropped.
    pub fn push(&mut self, record: Record) {
        match self.queue.try_send(record) {
            Ok(()) => self.bell.ring(),
            // Disconnected: the log has ended, and so does the process.
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped += 1;
                self.bell.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Records that did not fit.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

impl Bell {
    /// The thread that is woken from now on.
    pub(super) fn belongs_to(&self, thread: Thread) {
        // Set once, at the start of the only thread.
        let _ = self.thread.set(thread);
    }

    /// Wakes the thread if it sleeps.
    pub(super) fn ring(&self) {
        // SYNC(asleep): pairs with the fence in `sleep_unless`. Either it sees the record, or we see
        // that it sleeps.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed)
            && self.asleep.swap(false, Ordering::Relaxed)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    /// Sleeps until the next ring, unless there is something to do already. May return early.
    pub(super) fn sleep_unless(&self, has_work: impl FnOnce() -> bool) {
        self.asleep.store(true, Ordering::Relaxed);
        // SYNC(asleep): pairs with the fence in `ring`.
        fence(Ordering::SeqCst);
        if !has_work() {
            std::thread::park();
        }
        self.asleep.store(false, Ordering::Relaxed);
    }
}
