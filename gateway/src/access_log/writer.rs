//! The thread that writes the log.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::feed::{Bell, Feed};
use super::record::Record;

/// How long lines are gathered before the next write, so that a busy gateway wakes this thread a
/// hundred times a second and not for every request.
const GATHER: Duration = Duration::from_millis(10);
/// Bytes that are written at once.
const CHUNK: usize = 256 * 1024;

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Appended to this file, which is made where it is not there.
    File(PathBuf),
    /// Standard output.
    Output,
}

/// The log of a process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AccessLog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    destination: Destination,
    bell: Arc<Bell>,
    /// Queues that the thread does not know yet.
    feeds: Mutex<Vec<Receiver<Record>>>,
    has_feeds: AtomicBool,
    /// The file to go on with. `None`: as before.
    next: Mutex<Option<File>>,
    has_next: AtomicBool,
    ends: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl AccessLog {
    /// Opens the log and starts its thread.
    ///
    /// # Errors
    /// The file cannot be opened, or the thread not be started.
    pub fn start(destination: Destination) -> io::Result<AccessLog> {
        let first = open(&destination)?;
        let shared = Arc::new(Shared {
            destination,
            bell: Arc::new(Bell::default()),
            feeds: Mutex::new(Vec::new()),
            has_feeds: AtomicBool::new(false),
            next: Mutex::new(None),
            has_next: AtomicBool::new(false),
            ends: AtomicBool::new(false),
            thread: Mutex::new(None),
        });
        let of_thread = Arc::clone(&shared);
        let body = move || Writer::new(of_thread, first).run();
        let thread = thread::Builder::new().name("access-log".to_owned()).spawn(body)?;
        *lock(&shared.thread) = Some(thread);
        Ok(AccessLog { shared })
    }

    /// A queue for one thread.
    #[must_use]
    pub fn feed(&self) -> Feed {
        let (feed, records) = Feed::new(Arc::clone(&self.shared.bell));
        lock(&self.shared.feeds).push(records);
        self.shared.has_feeds.store(true, Ordering::Release);
        self.shared.bell.ring();
        feed
    }

    /// Opens the file again, which somebody has moved away. Standard output stays what it is.
    ///
    /// # Errors
    /// It cannot be opened; the former one is written on.
    pub fn reopen(&self) -> io::Result<()> {
        if let Some(file) = open(&self.shared.destination)? {
            *lock(&self.shared.next) = Some(file);
            self.shared.has_next.store(true, Ordering::Release);
            self.shared.bell.ring();
        }
        Ok(())
    }

    /// Writes what is left and ends the thread. To be called when nobody pushes any more.
    pub fn finish(&self) {
        self.shared.ends.store(true, Ordering::Release);
        self.shared.bell.ring();
        if let Some(thread) = lock(&self.shared.thread).take() {
            // It does not panic; if it did, there is nobody left to tell.
            let _ = thread.join();
        }
    }

    /// Records of all feeds that did not fit.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.bell.dropped.load(Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What is in there is replaced as a whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The file, or nothing for standard output.
fn open(destination: &Destination) -> io::Result<Option<File>> {
    match destination {
        Destination::Output => Ok(None),
        Destination::File(path) => {
            OpenOptions::new().append(true).create(true).open(path).map(Some)
        }
    }
}

/// The thread's own.
struct Writer {
    shared: Arc<Shared>,
    file: Option<File>,
    queues: Vec<Receiver<Record>>,
    text: Vec<u8>,
    /// Whether the last write failed: told once until one succeeds.
    fails: bool,
}

impl Writer {
    fn new(shared: Arc<Shared>, file: Option<File>) -> Writer {
        shared.bell.belongs_to(thread::current());
        Writer { shared, file, queues: Vec::new(), text: Vec::with_capacity(CHUNK), fails: false }
    }

    fn run(mut self) {
        loop {
            // Before the queues: what was pushed before the end is written.
            let ends = self.shared.ends.load(Ordering::Acquire);
            self.look_around();
            if self.write_all_there_is() {
                if !ends {
                    thread::park_timeout(GATHER);
                }
            } else if ends {
                return;
            } else {
                self.sleep();
            }
        }
    }

    /// Takes new queues and a new file.
    fn look_around(&mut self) {
        let shared = &self.shared;
        if shared.has_feeds.swap(false, Ordering::Acquire) {
            self.queues.append(&mut lock(&shared.feeds));
        }
        if shared.has_next.swap(false, Ordering::Acquire)
            && let Some(file) = lock(&shared.next).take()
        {
            self.file = Some(file);
        }
    }

    /// Whether there was anything.
    fn write_all_there_is(&mut self) -> bool {
        let mut queues = std::mem::take(&mut self.queues);
        let mut any = false;
        for queue in &queues {
            // Bounded by the queue: what comes meanwhile has the next turn.
            for record in queue.try_iter().take(super::feed::QUEUE_MAX) {
                any = true;
                record.write(&mut self.text);
                if self.text.len() >= CHUNK {
                    self.flush();
                }
            }
        }
        std::mem::swap(&mut self.queues, &mut queues);
        self.flush();
        any
    }

    fn flush(&mut self) {
        if self.text.is_empty() {
            return;
        }
        let written = match &mut self.file {
            Some(file) => file.write_all(&self.text),
            None => io::stdout().write_all(&self.text).and_then(|()| io::stdout().flush()),
        };
        self.text.clear();
        match written {
            Ok(()) => self.fails = false,
            // Not through the log of the process: this crate has none, and lines are lost, not calls.
            Err(error) if !self.fails => {
                self.fails = true;
                eprintln!("nightcore: the access log cannot be written: {error}");
            }
            Err(_) => {}
        }
    }

    fn sleep(&mut self) {
        let shared = Arc::clone(&self.shared);
        let mut found = Vec::new();
        shared.bell.sleep_unless(|| {
            // A record that is taken out to see whether there is one is kept.
            found.extend(self.queues.iter().filter_map(|queue| queue.try_recv().ok()));
            !found.is_empty()
                || shared.has_feeds.load(Ordering::Relaxed)
                || shared.has_next.load(Ordering::Relaxed)
                || shared.ends.load(Ordering::Relaxed)
        });
        for record in found {
            record.write(&mut self.text);
        }
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::SystemTime;

    use super::super::feed::QUEUE_MAX;
    use super::super::record::Label;
    use super::*;

    fn record(number: usize) -> Record {
        Record {
            time: SystemTime::now(),
            request_id: Label::new(number.to_string().as_bytes()),
            method: Label::new(b"GET"),
            function: None,
            status: Some(200),
            grpc_status: None,
            bytes_in: 0,
            bytes_out: 0,
            times: None,
            peer: None,
            client: None,
        }
    }

    /// Of the lines that are whole: a reader may meet a write half done.
    fn ids(file: &Path) -> Vec<String> {
        let line = |line: &str| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            value["request_id"].as_str().unwrap().to_owned()
        };
        let text = fs::read_to_string(file).unwrap();
        text.split_inclusive('\n').filter(|text| text.ends_with('\n')).map(line).collect()
    }

    #[test]
    fn all_that_was_pushed_is_written_in_order_or_counted() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("access.log");
        let log = AccessLog::start(Destination::File(file.clone())).unwrap();
        let threads: Vec<_> = (0..3)
            .map(|shard| {
                let mut feed = log.feed();
                thread::spawn(move || {
                    for number in 0..2 * QUEUE_MAX {
                        feed.push(record(number * 3 + shard));
                    }
                    feed.dropped()
                })
            })
            .collect();
        let dropped: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        log.finish();
        assert_eq!(log.dropped(), dropped);
        let ids: Vec<usize> = ids(&file).iter().map(|id| id.parse().unwrap()).collect();
        assert_eq!(ids.len() as u64 + dropped, 3 * 2 * QUEUE_MAX as u64);
        for shard in 0..3 {
            let of_shard: Vec<_> = ids.iter().filter(|id| *id % 3 == shard).collect();
            assert!(of_shard.is_sorted(), "shard {shard}");
        }
    }

    #[test]
    fn a_single_record_wakes_the_thread_from_its_sleep() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("access.log");
        let log = AccessLog::start(Destination::File(file.clone())).unwrap();
        let mut feed = log.feed();
        for number in 1..=20 {
            feed.push(record(number));
            while ids(&file).len() < number {
                thread::yield_now();
            }
        }
        log.finish();
        assert_eq!(ids(&file).len(), 20);
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let [file, moved] = ["access.log", "access.log.1"].map(|name| directory.path().join(name));
        let log = AccessLog::start(Destination::File(file.clone())).unwrap();
        let mut feed = log.feed();
        feed.push(record(1));
        while ids(&file).is_empty() {
            thread::yield_now();
        }
        fs::rename(&file, &moved).unwrap();
        log.reopen().unwrap();
        feed.push(record(2));
        log.finish();
        assert_eq!((ids(&moved), ids(&file)), (vec!["1".to_owned()], vec!["2".to_owned()]));
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_an_error_at_the_start() {
        let file = Destination::File("/proc/nowhere/access.log".into());
        assert!(AccessLog::start(file).is_err());
    }
}
