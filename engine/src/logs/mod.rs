//! What functions print: read from their containers, told in the engine's log, kept for who asks.
//!
//! Every container writes into two pipes of its own, one a stream, since which of the two a line
//! came by cannot be told of one that both share. One thread reads them all (`reader`), cuts them into
//! lines (`splitter`), keeps as many a second as the function may have (`bucket`), and hands each
//! line (`line`) to the log and to the function's ring (`keeper`, `ring`). It is on no call's way:
//! a shard takes its locks only to count for `/metrics`. Nothing is printed, nothing runs.
//!
//! A container never waits for long to write: what it prints beyond its rate is read and dropped, and
//! counted. Only one that prints tens of MiB a second meets a full pipe, for some milliseconds, since
//! reading without end would cost a core (`reader` has the bound).

mod bucket;
mod keeper;
mod line;
mod reader;
mod ring;
mod splitter;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use nix::sys::eventfd::{EfdFlags, EventFd};

use self::bucket::Bucket;
pub use self::line::{Escaped, Line, Origin, Stream};
pub use self::reader::Capture;
pub(crate) use self::reader::Output;
use self::ring::Ring;

/// The lines of all functions. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Logs(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    functions: Mutex<BTreeMap<Arc<str>, Arc<FunctionLog>>>,
    /// Sequence of the last line that is in its ring. Written by the reader alone.
    published: AtomicU64,
    /// Of those who follow.
    bells: Mutex<Vec<Weak<EventFd>>>,
    has_ended: AtomicBool,
}

/// One function's lines.
#[derive(Debug)]
struct FunctionLog {
    name: Arc<str>,
    kept: AtomicU64,
    dropped: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    ring: Ring,
    bucket: Bucket,
    /// Lines that were dropped since that was last told.
    untold: u64,
}

/// Lines in their order.
#[derive(Debug)]
pub struct Batch {
    /// The lines.
    pub lines: Vec<Arc<Line>>,
    /// Later ones come behind this sequence.
    pub last: u64,
}

/// How many lines a function printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lines that were kept and told.
    pub kept: u64,
    /// Lines that were dropped, as too many.
    pub dropped: u64,
}

/// Hears of new lines.
#[derive(Debug)]
pub struct Follower(Arc<EventFd>);

impl Logs {
    /// What a function printed so far, in lines.
    #[must_use]
    pub fn counts(&self, function: &str) -> Counts {
        // Plain counters, each for itself.
        self.0.functions().get(function).map_or_else(Counts::default, |log| Counts {
            kept: log.kept.load(Ordering::Relaxed),
            dropped: log.dropped.load(Ordering::Relaxed),
        })
    }

    /// The lines that are kept of one function, or of all: those behind `after`, a batch's `last`.
    /// Where lines behind it are lost, a notice is in their place. `None`: no such function.
    #[must_use]
    pub fn read(&self, function: Option<&str>, after: Option<u64>) -> Option<Batch> {
        let logs: Vec<_> = {
            let functions = self.0.functions();
            match function {
                Some(name) => vec![Arc::clone(functions.get(name)?)],
                None => functions.values().cloned().collect(),
            }
        };
        // SYNC(published): pairs with the store in `publish`. Every line up to it is in its ring,
        // so that none turns up later with a sequence that was passed over here.
        let last = self.0.published.load(Ordering::Acquire);
        let mut lines = Vec::new();
        for log in logs {
            let state = log.state();
            let between = state.ring.between(after.unwrap_or(0), last);
            let begin = lines.len();
            lines.extend(between.cloned());
            if after.is_some_and(|after| state.ring.lost() > after)
                && let Some(first) = lines.get(begin)
            {
                let text = "lines are missing here: they came faster than they were read";
                let gap = Line {
                    sequence: state.ring.lost(),
                    origin: Origin { stream: Stream::Notice, ..first.origin },
                    request_id: None,
                    text: text.to_owned(),
                    cut: 0,
                    ..Line::clone(first)
                };
                lines.push(Arc::new(gap));
            }
        }
        lines.sort_by_key(|line| line.sequence);
        Some(Batch { lines, last })
    }

    /// Hears of new lines from now on.
    ///
    /// # Errors
    /// When no eventfd can be made (descriptor limit).
    pub fn follow(&self) -> io::Result<Follower> {
        let bell = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        let bell = Arc::new(bell);
        locked(&self.0.bells).push(Arc::downgrade(&bell));
        Ok(Follower(bell))
    }

    /// Whether no line will follow any more.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        // SYNC(has_ended): pairs with the store in `end`: whoever sees it finds the last lines.
        self.0.has_ended.load(Ordering::Acquire)
    }

    /// Forgets a function and its lines. What its containers still print is told, and not kept.
    pub fn forget(&self, function: &str) {
        self.0.functions().remove(function);
    }

    /// The log of a function, which is known from now on; with the rate that it has now.
    fn open(&self, function: &str, rate: u32, now: Instant) -> Arc<FunctionLog> {
        let mut functions = self.0.functions();
        let log = functions.entry(function.into()).or_insert_with_key(|name| {
            let state = State { ring: Ring::default(), bucket: Bucket::new(rate, now), untold: 0 };
            Arc::new(FunctionLog {
                name: Arc::clone(name),
                kept: AtomicU64::new(0),
                dropped: AtomicU64::new(0),
                state: Mutex::new(state),
            })
        });
        let mut state = log.state();
        if state.bucket.rate() != rate {
            state.bucket = Bucket::new(rate, now);
        }
        drop(state);
        Arc::clone(log)
    }

    /// Lets everybody see lines up to `sequence`, which are in their rings.
    fn publish(&self, sequence: u64) {
        // SYNC(published): pairs with the load in `read`.
        self.0.published.store(sequence, Ordering::Release);
        self.0.ring_bells();
    }

    fn end(&self) {
        // SYNC(has_ended): pairs with the load in `has_ended`.
        self.0.has_ended.store(true, Ordering::Release);
        self.0.ring_bells();
    }
}

impl Shared {
    fn functions(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Arc<FunctionLog>>> {
        locked(&self.functions)
    }

    fn ring_bells(&self) {
        locked(&self.bells).retain(|bell| {
            let Some(bell) = bell.upgrade() else { return false };
            // A full counter has woken its owner already.
            let _ = bell.write(1);
            true
        });
    }
}

impl FunctionLog {
    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }
}

impl Follower {
    /// Clears the bell. Call it before reading, so that a later line rings again.
    pub fn hush(&self) {
        let _ = self.0.read();
    }
}

impl AsFd for Follower {
    /// Becomes readable when there are new lines, or none will follow.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Nothing that is locked here is left half done by a panic.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
