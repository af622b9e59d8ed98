//! A load on all gateways: requests are due on a schedule, whatever becomes of those before, and each
//! has exactly one outcome.
//!
//! Threads draw the numbers of requests, wait until they are due, and send them on whichever kept
//! connection is free: one that waits for its answer delays no other request. Every second request is
//! for the function that is not idempotent; gateways take turns. A client whose connection is refused
//! goes to the next gateway, since a request that was never sent was never started; otherwise it sends
//! nothing twice.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::report::{Record, Report};
use super::settings::{IDEMPOTENT, ONCE};
use crate::client::{Answer, Body, Connection, request};
use crate::load::Outcome;
use crate::watchdog::wait_until;

/// Most requests under way: what is due in a third of a second at 600 a second.
const LANES: u32 = 200;
/// A draining gateway lets a connection be idle for half a second. One that was idle for longer than
/// this is not used again, as it may be closed under the request.
const IDLE_MAX: Duration = Duration::from_millis(250);
/// Threads that do so little need no more.
const STACK_SIZE: usize = 256 << 10;

/// A load that runs.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    lanes: Vec<JoinHandle<Vec<Record>>>,
}

#[derive(Debug)]
struct Shared {
    /// Which load of this process it is: no two requests have the same id.
    series: u32,
    doors: Vec<Door>,
    per_second: u32,
    begin: Instant,
    over: AtomicBool,
    next: AtomicU32,
    ended: AtomicU32,
}

/// One gateway.
#[derive(Debug)]
struct Door {
    address: SocketAddr,
    /// Free connections with the time since when they are; the last one is used first.
    kept: Mutex<Vec<(Connection, Instant)>>,
}

/// The word in the body of a failure.
#[derive(Deserialize)]
struct Word {
    error: String,
}

impl Load {
    /// Starts to send.
    ///
    /// # Panics
    /// If there are no threads to be had.
    #[must_use]
    pub fn start(gateways: &[SocketAddr], per_second: u32) -> Load {
        let door = |address: &SocketAddr| Door { address: *address, kept: Mutex::default() };
        static SERIES: AtomicU32 = AtomicU32::new(0);
        let shared = Arc::new(Shared {
            // SYNC(SERIES): a plain counter; it carries no other data.
            series: SERIES.fetch_add(1, Ordering::Relaxed),
            doors: gateways.iter().map(door).collect(),
            per_second,
            begin: Instant::now(),
            over: AtomicBool::new(false),
            next: AtomicU32::new(0),
            ended: AtomicU32::new(0),
        });
        let lane = |_| {
            let shared = Arc::clone(&shared);
            let thread = thread::Builder::new().stack_size(STACK_SIZE);
            thread.spawn(move || shared.run()).expect("a thread")
        };
        let lanes = (0..LANES).map(lane).collect();
        Load { shared, lanes }
    }

    /// Waits until so many more requests have their outcomes.
    ///
    /// # Panics
    /// If they do not get them.
    pub fn wait_for(&self, requests: u32) {
        // SYNC(ended): a plain counter; it carries no other data.
        let ended = || self.shared.ended.load(Ordering::Relaxed);
        let enough = ended() + requests;
        wait_until("requests have got their outcomes", || ended() >= enough);
    }

    /// Sends no more, and waits for what is owed.
    ///
    /// # Panics
    /// If an answer was not its request's, or came without one.
    #[must_use]
    pub fn stop(mut self) -> Report {
        self.end();
        let lanes = std::mem::take(&mut self.lanes);
        let records = lanes.into_iter().flat_map(|lane| lane.join().expect("only its own answers"));
        let records = records.collect();
        for door in &self.shared.doors {
            for (mut connection, _) in door.kept().drain(..) {
                // An answer too many would be found here.
                connection.end_sending();
                assert!(connection.try_read(Body::Present).ok().flatten().is_none());
            }
        }
        Report { records }
    }

    fn end(&self) {
        // SYNC(over): pairs with the load in `Shared::run`; it carries no other data.
        self.shared.over.store(true, Ordering::Relaxed);
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn run(&self) -> Vec<Record> {
        let mut records = Vec::new();
        loop {
            // SYNC(next): a plain counter; it carries no other data.
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let due = self.begin + Duration::from_secs(1) * number / self.per_second;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            // SYNC(over): pairs with the store in `Load::end`.
            if self.over.load(Ordering::Relaxed) {
                return records;
            }
            records.push(self.send(number, due));
            self.ended.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn send(&self, number: u32, due: Instant) -> Record {
        let function = if number.is_multiple_of(2) { IDEMPOTENT } else { ONCE };
        let id = format!("{function}-{}-{number}", self.series);
        let sent = Instant::now();
        let mut record =
            Record { id, function, due, sent, ended: sent, outcome: Outcome::Closed, host: None };
        let doors = self.doors.len();
        let first = usize::try_from(number / 2).expect("it fits") % doors;
        for turn in 0..doors {
            let door = &self.doors[(first + turn) % doors];
            match door.connection() {
                Ok(connection) => {
                    door.exchange(connection, &mut record);
                    break;
                }
                Err(error) => record.outcome = Outcome::Refused(error.kind()),
            }
        }
        record.ended = Instant::now();
        record
    }
}

impl Door {
    fn kept(&self) -> MutexGuard<'_, Vec<(Connection, Instant)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that is free, or a new one.
    fn connection(&self) -> std::io::Result<Connection> {
        loop {
            let Some((mut connection, since)) = self.kept().pop() else {
                return Connection::open(self.address);
            };
            if since.elapsed() < IDLE_MAX && !connection.has_ended() {
                return Ok(connection);
            }
        }
    }

    fn exchange(&self, mut connection: Connection, record: &mut Record) {
        let path = format!("/function/{}", record.function);
        let header = format!("X-Request-Id: {}\r\n", record.id);
        let bytes = request("POST", &path, &header, record.id.as_bytes());
        let read = connection.try_send(&bytes).and_then(|()| connection.try_read(Body::Present));
        let answer = match read {
            Ok(Some(answer)) => answer,
            Ok(None) => return,
            Err(error) => {
                record.outcome = Outcome::Broken(error.kind());
                return;
            }
        };
        let id = answer.header("x-request-id");
        assert_eq!(id, Some(record.id.as_str()), "another's answer: {}", answer.show());
        if !answer.is_last() {
            self.kept().push((connection, Instant::now()));
        }
        judge(&answer, record);
    }
}

fn judge(answer: &Answer, record: &mut Record) {
    if answer.status == 200 {
        let (host, id) = answer.text().split_once(' ').expect("a host and an id");
        assert_eq!(id, record.id, "another's answer");
        record.host = Some(host.to_owned());
        record.outcome = Outcome::Ok;
        return;
    }
    let word: Word = serde_json::from_slice(&answer.body)
        .unwrap_or_else(|error| panic!("not the JSON of a failure: {error}: {}", answer.show()));
    record.outcome = Outcome::Failed(answer.status, word.error);
}
