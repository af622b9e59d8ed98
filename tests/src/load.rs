//! A load in the open: requests are due on a schedule, whatever becomes of those before, and each that
//! is sent has exactly one outcome.
//!
//! Every connection is kept, used by a thread of its own, and made anew when it ends. Latency counts
//! from the moment a request was due: a stack that stalls delays all who would have come meanwhile.
//! An answer must carry its request's id, so that one too many, or another's, cannot pass for it.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Deserialize;

use crate::client::{Answer, Body, Connection, request};

/// Longer ones count as this one, a minute.
const LATENCY_MAX_US: u64 = 60_000_000;

/// Requests for one function.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// Its name.
    pub function: &'static str,
    /// Of every request; none: the request's own id, which must come back.
    pub input: Option<&'static str>,
    /// Requests a second over all connections.
    pub per_second: u32,
    /// Kept connections: at most so many requests are under way at once.
    pub connections: u32,
}

/// Traffic that runs.
#[derive(Debug)]
pub struct Load {
    over: Arc<AtomicBool>,
    lanes: Vec<JoinHandle<Vec<Record>>>,
}

/// What became of one request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// A success.
    Ok,
    /// Another status, with the word for it.
    Failed(u16, String),
    /// The connection ended in good order instead of an answer.
    Closed,
    /// It broke before the answer was whole.
    Broken(io::ErrorKind),
    /// There was no connection to send it on.
    Refused(io::ErrorKind),
}

/// One request.
#[derive(Clone, Debug)]
pub struct Record {
    /// When it should have been sent.
    pub due: Instant,
    /// When it was.
    pub sent: Instant,
    /// When its outcome was known.
    pub ended: Instant,
    /// What became of it.
    pub outcome: Outcome,
}

/// All requests of a load.
#[derive(Debug)]
pub struct Report {
    /// In no order.
    pub records: Vec<Record>,
}

/// The schedule of one connection.
struct Lane {
    address: SocketAddr,
    traffic: Traffic,
    index: u32,
    begin: Instant,
    over: Arc<AtomicBool>,
}

/// The word in the body of a failure.
#[derive(Deserialize)]
struct Word {
    error: String,
}

impl Load {
    /// Starts to send.
    #[must_use]
    pub fn start(address: SocketAddr, traffic: &Traffic) -> Load {
        let over = Arc::<AtomicBool>::default();
        let begin = Instant::now();
        let lane = |index| {
            let (traffic, over) = (traffic.clone(), Arc::clone(&over));
            let lane = Lane { address, traffic, index, begin, over };
            thread::spawn(move || lane.run())
        };
        let lanes = (0..traffic.connections).map(lane).collect();
        Load { over, lanes }
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
        Report { records: records.collect() }
    }

    fn end(&self) {
        // SYNC(over): pairs with the load in `Lane::run`; it carries no other data.
        self.over.store(true, Ordering::Relaxed);
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

impl Lane {
    fn run(&self) -> Vec<Record> {
        let mut records = Vec::new();
        let mut connection = None;
        for turn in 0_u32.. {
            let number = turn * self.traffic.connections + self.index;
            let due = self.begin + Duration::from_secs(1) * number / self.traffic.per_second;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            // SYNC(over): pairs with the store in `Load::end`.
            if self.over.load(Ordering::Relaxed) {
                break;
            }
            let sent = Instant::now();
            let outcome = self.send(&mut connection, number);
            records.push(Record { due, sent, ended: Instant::now(), outcome });
        }
        if let Some(mut connection) = connection {
            connection.end_sending();
            connection.expect_end();
        }
        records
    }

    fn send(&self, slot: &mut Option<Connection>, number: u32) -> Outcome {
        // One that was closed while nothing was under way costs nobody anything.
        let kept = slot.take().and_then(|mut kept| (!kept.has_ended()).then_some(kept));
        let mut connection = match kept.map_or_else(|| Connection::open(self.address), Ok) {
            Ok(connection) => connection,
            Err(error) => return Outcome::Refused(error.kind()),
        };
        let Traffic { function, input, .. } = &self.traffic;
        let id = format!("{function}-{number}");
        let input = input.unwrap_or(&id);
        let (path, header) = (format!("/function/{function}"), format!("X-Request-Id: {id}\r\n"));
        let sent = connection.try_send(&request("POST", &path, &header, input.as_bytes()));
        let answer = match sent.and_then(|()| connection.try_read(Body::Present)) {
            Ok(Some(answer)) => answer,
            Ok(None) => return Outcome::Closed,
            Err(error) => return Outcome::Broken(error.kind()),
        };
        assert_eq!(answer.header("x-request-id"), Some(id.as_str()), "{}", answer.show());
        if answer.status == 200 && self.traffic.input.is_none() {
            assert_eq!(answer.text(), id);
        }
        if !answer.is_last() {
            *slot = Some(connection);
        }
        outcome(&answer)
    }
}

fn outcome(answer: &Answer) -> Outcome {
    if answer.status == 200 {
        return Outcome::Ok;
    }
    let word: Word = serde_json::from_slice(&answer.body)
        .unwrap_or_else(|error| panic!("not the JSON of a failure: {error}: {}", answer.show()));
    Outcome::Failed(answer.status, word.error)
}

impl Outcome {
    /// A failure that an answer told of.
    #[must_use]
    pub fn failed(status: u16, word: &str) -> Outcome {
        Outcome::Failed(status, word.to_owned())
    }
}

impl Report {
    /// How often each outcome came.
    #[must_use]
    pub fn outcomes(&self) -> BTreeMap<&Outcome, usize> {
        let mut counts = BTreeMap::new();
        for record in &self.records {
            *counts.entry(&record.outcome).or_default() += 1;
        }
        counts
    }

    /// Requests that got no success.
    pub fn failures(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(|record| record.outcome != Outcome::Ok)
    }

    /// The 99th percentile of the latencies of requests due in a span of time, to the microsecond.
    ///
    /// # Panics
    /// If none was due then.
    #[must_use]
    pub fn p99(&self, from: Instant, to: Instant) -> Duration {
        let mut latencies =
            Histogram::<u64>::new_with_max(LATENCY_MAX_US, 3).expect("valid bounds");
        for record in self.records.iter().filter(|record| (from..to).contains(&record.due)) {
            let micros = (record.ended - record.due).as_micros();
            latencies.saturating_record(u64::try_from(micros).unwrap_or(u64::MAX));
        }
        assert!(!latencies.is_empty(), "no request was due within {:?}", to - from);
        Duration::from_micros(latencies.value_at_quantile(0.99))
    }

    /// How long after `moment` the first success came of a request sent behind it.
    #[must_use]
    pub fn first_success(&self, moment: Instant) -> Option<Duration> {
        let good = self.records.iter().filter(|record| record.outcome == Outcome::Ok);
        let late = good.filter(|record| record.sent >= moment);
        late.map(|record| record.ended - moment).min()
    }

    /// How long after `moment` the last failure came; zero if none came later.
    #[must_use]
    pub fn last_failure(&self, moment: Instant) -> Duration {
        let ends = self.failures().map(|record| record.ended.saturating_duration_since(moment));
        ends.max().unwrap_or_default()
    }
}
