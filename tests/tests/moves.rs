//! Calls move to a shard with less work, and whoever asked does not notice. What moves is told by the
//! metric, since how long it takes depends on what else the machine does.

use std::collections::BTreeSet;

use nightcore_tests::functions::build;
use nightcore_tests::{Connection, Random, Stack, config, get, post, request, wait_until};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tempfile::TempDir;

const MOVED: &str = "nightcore_shard_calls_moved_total";
/// Longer than any test.
const FOR_EVER: &[u8] = b"3600000000\n";

/// A stack of two shards whose functions are `burn` and `spread`, and their libraries.
struct Stage {
    stack: Stack,
    _directory: TempDir,
}

impl Stage {
    /// With so much of concurrency control for `burn`. None on a machine without two cores.
    fn set(concurrency: &str) -> Option<Stage> {
        let set = sched_getaffinity(Pid::from_raw(0)).expect("every thread has one");
        let cores = (0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false));
        if cores.count() < 2 {
            eprintln!("skipped: two cores are needed");
            return None;
        }
        let directory = TempDir::new().expect("a directory");
        let function = |name| config::function(name, &build(name, directory.path()));
        let [burn, spread] = ["burn", "spread"].map(function);
        let burn = format!("{burn}concurrency = \"{concurrency}\"\n");
        let stack = Stack::start(&format!("[engine]\nshards = 2\n{burn}{spread}"));
        let stage = Stage { stack, _directory: directory };
        stage.teach();
        Some(stage)
    }

    /// Until calls have moved, for which the shards must know what they cost.
    fn teach(&self) {
        wait_until("calls move", || {
            self.spread(8, b"1000\n");
            self.moved() > 0
        });
    }

    fn moved(&self) -> u64 {
        self.stack.metric(MOVED)
    }

    /// Calls `burn` so many times at once; the answers.
    fn spread(&self, count: usize, input: &[u8]) -> Vec<Vec<u8>> {
        let mut connection = self.stack.connect();
        let answer = connection.exchange(&spread(count, input));
        split(answer.ok())
    }

    /// Connections whose calls of `burn` take for ever, one of which at least has moved. Each has an
    /// answer to read before: whoever leaves without doing so resets it, while one that only closes its
    /// half could still wait for the rest.
    fn burn_for_ever(&self, headers: &str) -> Vec<Connection> {
        let mut connections = Vec::new();
        wait_until("a call that takes for ever has moved", || {
            connections.clear();
            wait_until("none runs", || self.running() == 0);
            let before = self.moved();
            for _ in 0..8 {
                let mut connection = self.stack.connect();
                connection.send(&get("/healthz"));
                connection.send(&request("POST", "/function/burn", headers, FOR_EVER));
                connections.push(connection);
            }
            wait_until("all eight run", || self.running() == 8);
            self.moved() > before
        });
        connections
    }

    fn running(&self) -> u64 {
        self.stack.count("burn", "running")
    }

    /// All is as it was: nothing runs, nothing waits, and every call has ended in one way.
    fn expect_rest(&self) {
        wait_until("all has ended", || {
            let count = |function, key| self.stack.count(function, key);
            let ends = |function| {
                let ended = ["completed", "failed", "abandoned"].map(|key| count(function, key));
                count(function, "arrivals") == ended.iter().sum::<u64>()
            };
            let rests = |function| {
                ["running", "waiting", "queued"].iter().all(|key| count(function, key) == 0)
            };
            ["burn", "spread"].into_iter().all(|function| ends(function) && rests(function))
        });
        assert_eq!(self.spread(8, b"1000\nstill").len(), 8);
    }
}

fn spread(count: usize, input: &[u8]) -> Vec<u8> {
    let body = [format!("burn\n{count}\n").as_bytes(), input].concat();
    post("/function/spread", &body)
}

/// The answers in an answer of `spread`, all of them successes.
fn split(mut text: &[u8]) -> Vec<Vec<u8>> {
    let mut answers = Vec::new();
    while !text.is_empty() {
        let (line, rest) = cut(text);
        let (outcome, size) = line.split_once(' ').expect("an outcome and a length");
        let (answer, rest) = rest.split_at(size.parse().expect("a number"));
        assert_eq!(outcome, "0", "{}", String::from_utf8_lossy(answer));
        answers.push(answer.to_vec());
        text = rest;
    }
    answers
}

/// The first line and the rest.
fn cut(text: &[u8]) -> (&str, &[u8]) {
    let end = text.iter().position(|byte| *byte == b'\n').expect("a line");
    (std::str::from_utf8(&text[..end]).expect("text"), &text[end + 1..])
}

#[test]
fn a_fan_out_runs_on_both_cores_and_its_answers_are_whole() {
    let Some(stage) = Stage::set("managed") else { return };
    let mut random = Random::new(1);
    for size in [0, 1, 5_000, 200_000, 1_500_000] {
        let payload: Vec<u8> = (0..size).map(|_| random.below(256).to_le_bytes()[0]).collect();
        let input = [b"1000\n", payload.as_slice()].concat();
        let mut cores = BTreeSet::new();
        wait_until("both cores are used", || {
            let before = stage.moved();
            let answers = stage.spread(8, &input);
            assert_eq!(answers.len(), 8);
            let mut ids = BTreeSet::new();
            for answer in &answers {
                let (line, rest) = cut(answer);
                let (core, id) = line.split_once(' ').expect("a core and an id");
                cores.insert(core.to_owned());
                ids.insert(id.to_owned());
                assert!(rest == payload, "another payload of {} bytes", rest.len());
            }
            assert_eq!(ids.len(), 1, "they serve one request");
            cores.len() > 1 && stage.moved() > before
        });
    }
    stage.expect_rest();
}

#[test]
fn large_answers_from_another_shard_reach_their_clients() {
    let Some(stage) = Stage::set("managed") else { return };
    let before = stage.moved();
    wait_until("some have moved", || {
        let mut waiting: Vec<_> = (0..8).map(|_| stage.stack.connect()).collect();
        let input = |index: usize| [b"1000\n".to_vec(), vec![b'a'; 300_000 * index]].concat();
        for (index, connection) in waiting.iter_mut().enumerate() {
            let headers = format!("X-Request-Id: client-{index}\r\n");
            connection.send(&request("POST", "/function/burn", &headers, &input(index)));
        }
        for (index, connection) in waiting.iter_mut().enumerate() {
            let answer = connection.read();
            let (line, rest) = cut(answer.ok());
            assert_eq!(line.split_once(' ').map(|(_, id)| id), Some(&*format!("client-{index}")));
            assert!(rest == &input(index)[5..], "client {index}: {} bytes", rest.len());
        }
        stage.moved() >= before + 20
    });
    stage.expect_rest();
}

#[test]
fn calls_that_moved_fail_with_their_container() {
    let Some(stage) = Stage::set("unlimited") else { return };
    let mut waiting = stage.burn_for_ever("");
    stage.stack.call("burn", b"die").failure(502, "container_died");
    for connection in &mut waiting {
        assert_eq!(connection.read().text(), "ok\n");
        connection.read().failure(502, "container_died");
    }
    stage.expect_rest();
}

#[test]
fn calls_that_moved_end_with_the_container_that_made_them() {
    let Some(stage) = Stage::set("managed") else { return };
    let mut connection = stage.stack.connect();
    let before = stage.moved();
    connection.send(&spread(8, FOR_EVER));
    wait_until("some have moved", || stage.moved() > before);
    stage.stack.containers().iter().for_each(|container| container.signal(Signal::SIGKILL));
    connection.read().failure(502, "container_died");
    stage.expect_rest();
}

#[test]
fn calls_that_moved_are_told_when_their_clients_leave() {
    let Some(stage) = Stage::set("unlimited") else { return };
    drop(stage.burn_for_ever(""));
    stage.expect_rest();
}

#[test]
fn calls_that_moved_meet_their_deadlines() {
    let Some(stage) = Stage::set("unlimited") else { return };
    for connection in &mut stage.burn_for_ever("X-Nightcore-Timeout-Ms: 2000\r\n") {
        assert_eq!(connection.read().text(), "ok\n");
        connection.read().failure(504, "deadline_exceeded");
    }
    stage.expect_rest();
}

#[test]
fn sigterm_while_calls_are_away_loses_no_answer() {
    let Some(stage) = Stage::set("managed") else { return };
    let mut waiting: Vec<_> = (0..4).map(|_| stage.stack.connect()).collect();
    let before = stage.moved();
    wait_until("many have moved", || {
        for connection in &mut waiting {
            connection.send(&spread(8, b"20000\n"));
        }
        let moved = stage.moved() > before + 8;
        if moved {
            stage.stack.signal(Signal::SIGTERM);
        }
        for connection in &mut waiting {
            assert_eq!(split(connection.read().ok()).len(), 8);
        }
        moved
    });
    let ended = stage.stack.wait();
    assert_eq!((ended.code, ended.stderr.as_str(), ended.left), (Some(0), "", vec![]));
}
