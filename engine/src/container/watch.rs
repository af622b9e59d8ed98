//! The supervisor's `poll(2)`: which of its descriptors have news.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// What a watched descriptor belongs to; the number is a function's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Mailbox,
    Signals,
    Making(usize),
    Process(usize),
    Leaving(usize),
    Listener(usize),
    Control(usize),
}

/// Descriptors to wait for, once.
pub(super) struct Watch<'fd> {
    sources: Vec<Source>,
    fds: Vec<PollFd<'fd>>,
}

impl<'fd> Watch<'fd> {
    pub(super) fn new() -> Self {
        Self { sources: Vec::new(), fds: Vec::new() }
    }

    pub(super) fn add(&mut self, source: Source, fd: BorrowedFd<'fd>) {
        self.sources.push(source);
        self.fds.push(PollFd::new(fd, PollFlags::POLLIN));
    }

    /// Waits until some are readable or closed, or `deadline` has passed.
    pub(super) fn wait(mut self, deadline: Option<Instant>) -> Vec<Source> {
        match poll(&mut self.fds, timeout(deadline)) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Vec::new(),
            Err(error) => {
                tracing::error!("the supervisor cannot wait for its containers: {error}");
                return Vec::new();
            }
        }
        let with_news = self.fds.iter().map(|fd| fd.any().unwrap_or(false));
        self.sources
            .into_iter()
            .zip(with_news)
            .filter_map(|(source, news)| news.then_some(source))
            .collect()
    }
}

/// Rounded up to the millisecond: waking a little late beats spinning through the last one.
fn timeout(deadline: Option<Instant>) -> PollTimeout {
    let Some(deadline) = deadline else { return PollTimeout::NONE };
    let wait = deadline.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
    PollTimeout::try_from(wait.as_millis()).unwrap_or(PollTimeout::MAX)
}
