//! The thread that reads what containers print, and the pipes it reads.
//!
//! It sleeps in `epoll_wait(2)` on every pipe. One round reads each pipe with news once, so that one
//! that is always full keeps no other waiting, and reading pauses when it was too much of late.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::unistd::pipe2;

use super::Logs;
use super::keeper::{Keeper, Source};
use super::line::{Origin, Stream};
use crate::container::ContainerSpec;
use crate::mailbox::{Mailbox, Post, mailbox};

/// Bytes read of one pipe at a time: all that a pipe holds.
const CHUNK: usize = 64 << 10;
/// Pipes read in one round.
const ROUND: usize = 16;
/// What may be read in [`TICK`], of all pipes together: 50 MiB a second, a few hundredths of a core.
const BYTES_PER_TICK: usize = 512 << 10;
const TICK: Duration = Duration::from_millis(10);
/// Pipes of one function: two of each container, and children that outlive theirs hold theirs open.
const PIPES_MAX: usize = 8;
/// Read of each pipe at the end, where a child that outlives its container may print for ever: the
/// most that a container may make its pipe hold.
const LAST_CHUNKS: usize = 16;
/// The token of the mailbox; pipes have later ones.
const BELL: u64 = 0;

/// The running capture. Dropped, it reads what is in the pipes, and ends.
#[derive(Debug)]
pub struct Capture {
    logs: Logs,
    post: Post<ToReader>,
    thread: Option<JoinHandle<()>>,
}

/// Where a container writes.
#[derive(Debug)]
pub(crate) struct Output {
    /// Its standard output.
    pub(crate) stdout: OwnedFd,
    /// Its standard error.
    pub(crate) stderr: OwnedFd,
}

/// What the thread is told.
#[derive(Debug)]
enum ToReader {
    Open(Pipe),
    Stop,
}

#[derive(Debug)]
struct Pipe {
    file: File,
    source: Source,
}

struct Reader {
    logs: Logs,
    mailbox: Mailbox<ToReader>,
    epoll: Epoll,
    /// By token: the oldest first.
    pipes: BTreeMap<u64, Pipe>,
    last_token: u64,
    keeper: Keeper,
    buffer: Vec<u8>,
    pace: Pace,
}

/// How much was read since when.
struct Pace {
    since: Instant,
    size: usize,
}

impl Capture {
    /// Starts the thread; the lines go to `logs`.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(logs: Logs) -> io::Result<Self> {
        let (post, mailbox) = mailbox()?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(mailbox.bell(), EpollEvent::new(EpollFlags::EPOLLIN, BELL))?;
        let mut reader = Reader {
            logs: logs.clone(),
            mailbox,
            epoll,
            pipes: BTreeMap::new(),
            last_token: BELL,
            keeper: Keeper::new(logs.clone()),
            buffer: vec![0; CHUNK],
            pace: Pace { since: Instant::now(), size: 0 },
        };
        let thread = thread::Builder::new().name("logs".to_owned()).spawn(move || reader.run())?;
        Ok(Self { logs, post, thread: Some(thread) })
    }

    /// Makes the pipes of a function's next container.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub(crate) fn open(&self, spec: &ContainerSpec, generation: u32) -> io::Result<Output> {
        let log = self.logs.open(&spec.name, spec.log_rate, Instant::now());
        let pipe = |stream| {
            let (reading, writing) = pipe2(OFlag::O_CLOEXEC)?;
            // Of this end alone: the container's writes wait for room.
            fcntl(&reading, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            let origin = Origin { version: spec.version, generation, stream };
            let source = Source::new(log.clone(), origin);
            Ok::<_, io::Error>((Pipe { file: File::from(reading), source }, writing))
        };
        let (out, stdout) = pipe(Stream::Stdout)?;
        let (err, stderr) = pipe(Stream::Stderr)?;
        self.post.send(ToReader::Open(out));
        self.post.send(ToReader::Open(err));
        Ok(Output { stdout, stderr })
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.post.send(ToReader::Stop);
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Reader {
    fn run(&mut self) {
        let mut events = [EpollEvent::empty(); ROUND];
        loop {
            let count = match self.epoll.wait(&mut events, self.timeout()) {
                Ok(count) => count,
                Err(Errno::EINTR) => 0,
                Err(error) => {
                    tracing::error!("the functions' output cannot be read: {error}");
                    return self.logs.end();
                }
            };
            let now = Instant::now();
            for event in &events[..count] {
                match event.data() {
                    BELL if self.read_mail() => return self.finish(now),
                    BELL => {}
                    token => self.read(token, now),
                }
            }
            self.keeper.tell_dropped(now);
            self.keeper.publish();
            self.pace.rest(now);
        }
    }

    /// Until there is something to tell; rounded up to the millisecond.
    fn timeout(&self) -> EpollTimeout {
        let Some(at) = self.keeper.notice_at() else { return EpollTimeout::NONE };
        let wait = at.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
        EpollTimeout::try_from(wait.as_millis()).unwrap_or(EpollTimeout::MAX)
    }

    /// Whether it said to stop.
    fn read_mail(&mut self) -> bool {
        self.mailbox.hush();
        while let Some(message) = self.mailbox.take() {
            match message {
                ToReader::Open(pipe) => self.open(pipe),
                ToReader::Stop => return true,
            }
        }
        false
    }

    fn open(&mut self, pipe: Pipe) {
        let of_function =
            self.pipes.iter().filter(|(_, other)| other.source.is_sibling_of(&pipe.source));
        let tokens: Vec<u64> = of_function.map(|(token, _)| *token).collect();
        if tokens.len() >= PIPES_MAX {
            // Who still writes there is no container any more.
            self.close(tokens[0]);
        }
        self.last_token += 1;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, self.last_token);
        match self.epoll.add(&pipe.file, event) {
            Ok(()) => drop(self.pipes.insert(self.last_token, pipe)),
            Err(error) => tracing::warn!("a container's output is not read: {error}"),
        }
    }

    /// Reads a pipe once.
    fn read(&mut self, token: u64, now: Instant) {
        let Some(pipe) = self.pipes.get_mut(&token) else { return };
        match pipe.file.read(&mut self.buffer) {
            Ok(size) if size > 0 => {
                self.pace.size += size;
                self.keeper.take_in(&mut pipe.source, &self.buffer[..size], now);
                // At once, so that never more lines wait to be told than one pipe holds.
                self.keeper.publish();
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Ok(_) | Err(_) => self.close(token),
        }
    }

    fn close(&mut self, token: u64) {
        let Some(pipe) = self.pipes.remove(&token) else { return };
        self.keeper.end(pipe.source);
    }

    /// Reads what is left. Whoever wrote it has ended, but for children of containers.
    fn finish(&mut self, now: Instant) {
        let tokens: Vec<u64> = self.pipes.keys().copied().collect();
        for token in tokens {
            for _ in 0..LAST_CHUNKS {
                self.read(token, now);
            }
            self.close(token);
        }
        self.keeper.tell_all_dropped();
        self.keeper.publish();
        self.logs.end();
    }
}

impl Pace {
    /// Pauses if enough was read in this tick.
    fn rest(&mut self, now: Instant) {
        if self.size >= BYTES_PER_TICK {
            thread::sleep((self.since + TICK).saturating_duration_since(Instant::now()));
        } else if now.saturating_duration_since(self.since) < TICK {
            return;
        }
        *self = Self { since: Instant::now(), size: 0 };
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::PathBuf;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;
    use crate::container::{ContainerKind, CrashLoop, Limits};

    fn spec(log_rate: u32) -> ContainerSpec {
        ContainerSpec {
            name: "f".to_owned(),
            version: 1,
            library: PathBuf::new(),
            kind: ContainerKind::Process,
            limits: Limits::default(),
            network: false,
            read_only: Vec::new(),
            env: Vec::new(),
            payload_max: 0,
            min_workers: 0,
            max_workers: 0,
            idle_timeout: None,
            crash_loop: CrashLoop { deaths: 5, window: Duration::from_secs(1) },
            log_rate,
            niceness: 0,
        }
    }

    fn texts(logs: &Logs) -> Vec<String> {
        let batch = logs.read(Some("f"), None).expect("it was opened");
        batch.lines.iter().map(|line| line.text.clone()).collect()
    }

    #[test]
    fn what_is_in_the_pipes_at_the_end_is_read_though_a_writer_stays() {
        let logs = Logs::default();
        let capture = Capture::start(logs.clone()).unwrap();
        let output = capture.open(&spec(1_000), 1).unwrap();
        let (mut out, mut err) = (File::from(output.stdout), File::from(output.stderr));
        out.write_all(b"one\ntwo\nthr").unwrap();
        err.write_all(b"four\n").unwrap();
        drop(err);
        drop(capture);
        let mut texts = texts(&logs);
        texts.sort();
        assert_eq!(texts, ["four", "one", "thr", "two"]);
        assert!(logs.has_ended());
        assert!(out.write_all(b"five\n").is_err(), "nobody reads any more");
    }

    #[test]
    fn whoever_follows_is_woken_by_lines_and_by_the_end() {
        let logs = Logs::default();
        let capture = Capture::start(logs.clone()).unwrap();
        let follower = logs.follow().unwrap();
        let output = capture.open(&spec(1_000), 1).unwrap();
        let mut out = File::from(output.stdout);
        let wait = || {
            let mut fds = [PollFd::new(std::os::fd::AsFd::as_fd(&follower), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::NONE).unwrap();
            follower.hush();
        };
        for (count, line) in [(1, b"one\n"), (2, b"two\n")] {
            out.write_all(line).unwrap();
            while texts(&logs).len() < count {
                wait();
            }
        }
        drop(capture);
        while !logs.has_ended() {
            wait();
        }
    }

    #[test]
    fn outputs_that_are_held_open_are_let_go_when_they_are_too_many() {
        let logs = Logs::default();
        let capture = Capture::start(logs.clone()).unwrap();
        let outputs: Vec<_> =
            (0..6).map(|generation| capture.open(&spec(1_000), generation).unwrap()).collect();
        let mut files: Vec<_> = outputs.into_iter().map(|o| File::from(o.stderr)).collect();
        // The first is let go once the thread has heard of the fifth.
        while files[0].write_all(b"x\n").is_ok() {
            std::thread::yield_now();
        }
        while files[1].write_all(b"x\n").is_ok() {
            std::thread::yield_now();
        }
        for file in &mut files[2..] {
            file.write_all(b"y\n").unwrap();
        }
        drop(capture);
        assert_eq!(texts(&logs).iter().filter(|text| *text == "y").count(), 4);
    }

    #[test]
    fn a_writer_without_end_is_never_blocked_for_good() {
        let logs = Logs::default();
        let capture = Capture::start(logs.clone()).unwrap();
        let output = capture.open(&spec(10), 1).unwrap();
        let mut out = File::from(output.stdout);
        let block = b"0123456\n".repeat(8 << 10);
        // Many times what the pipe holds and a tick allows.
        for _ in 0..64 {
            out.write_all(&block).unwrap();
        }
        drop((out, output.stderr));
        drop(capture);
        let counts = logs.counts("f");
        assert_eq!(counts.kept + counts.dropped, 64 * (8 << 10));
    }
}
