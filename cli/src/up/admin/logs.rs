//! The answer to a request for functions' lines.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use engine::logs::{Batch, Follower, Line, Logs};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::connection::write_line;
use super::timestamp::rfc3339;
use crate::admin::{Failure, FailureKind, LogLine};

/// What is asked.
pub(super) struct Query<'a> {
    pub(super) function: Option<&'a str>,
    pub(super) lines: Option<usize>,
    pub(super) follow: bool,
}

/// Why to go on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wake {
    Lines,
    PeerLeft,
}

/// Writes the lines there are and, if the peer follows, those that come while it stays.
pub(super) fn answer(logs: &Logs, query: Query<'_>, stream: &UnixStream) -> Result<(), Failure> {
    let failed = |error| {
        Failure::new(FailureKind::Unavailable, format!("the lines cannot be followed: {error}"))
    };
    // Before the first look, so that no line falls between the two.
    let follower = query.follow.then(|| logs.follow()).transpose().map_err(failed)?;
    let first = logs.read(query.function, None).ok_or_else(|| {
        let name = query.function.unwrap_or_default();
        Failure::new(FailureKind::NotFound, format!("no function is named {name:?}"))
    })?;
    let skipped = first.lines.len() - query.lines.unwrap_or(usize::MAX).min(first.lines.len());
    // A peer that is gone needs no more lines.
    let _ = write_lines(&first.lines[skipped..], stream).and_then(|()| match follower {
        Some(follower) => follow(logs, &query, &follower, first, stream),
        None => Ok(()),
    });
    Ok(())
}

fn follow(
    logs: &Logs,
    query: &Query<'_>,
    follower: &Follower,
    mut batch: Batch,
    stream: &UnixStream,
) -> io::Result<()> {
    loop {
        // Asked before the lines are read: what was published before the end is among them.
        let has_ended = logs.has_ended();
        let Some(next) = logs.read(query.function, Some(batch.last)) else { return Ok(()) };
        batch = next;
        write_lines(&batch.lines, stream)?;
        if has_ended || wait(follower, stream)? == Wake::PeerLeft {
            return Ok(());
        }
        follower.hush();
    }
}

fn wait(follower: &Follower, stream: &UnixStream) -> io::Result<Wake> {
    let mut fds = [
        PollFd::new(follower.as_fd(), PollFlags::POLLIN),
        // The end is told in any case.
        PollFd::new(stream.as_fd(), PollFlags::empty()),
    ];
    loop {
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => {
                let has_left = fds[1].any().unwrap_or(true);
                return Ok(if has_left { Wake::PeerLeft } else { Wake::Lines });
            }
        }
    }
}

fn write_lines(lines: &[std::sync::Arc<Line>], stream: &UnixStream) -> io::Result<()> {
    lines.iter().try_for_each(|line| write_line(stream, &shown(line)))
}

fn shown(line: &Line) -> LogLine {
    LogLine {
        time: rfc3339(line.time),
        function: line.function.to_string(),
        version: line.origin.version,
        generation: line.origin.generation,
        stream: line.origin.stream.as_str().to_owned(),
        request_id: line.request_id.clone(),
        text: line.text.clone(),
        cut: line.cut,
    }
}
