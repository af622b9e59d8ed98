//! Connections move to shards with idle cores and back, and no client notices. How busy the cores are
//! is told by the test, in a file of the form of `/proc/stat`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nightcore_tests::client::Body;
use nightcore_tests::{Connection, Random, Stack, functions, get, post, request, wait_until};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tempfile::NamedTempFile;

const CONNECTIONS: usize = 32;
const SHARD_CONNECTIONS: &str = "nightcore_shard_connections";
const MOVED: &str = "nightcore_shard_connections_moved_total";
/// Between two lines of the file: a few of them in each window that the stack looks at.
const PACE: Duration = Duration::from_millis(20);
/// How long one shard seems full at most before the other one does: many windows.
const TURN: Duration = Duration::from_secs(2);

/// What the cores of the two shards seem to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seeming {
    /// The first is full, the second idle.
    FirstFull,
    SecondFull,
    /// Both have next to nothing to do.
    Quiet,
}

/// A stack of two shards on cores that the test describes.
struct Stage {
    stack: Stack,
    seeming: AtomicUsize,
    /// A thread asked to end.
    over: AtomicBool,
    answered: AtomicU64,
    file: NamedTempFile,
    cores: Vec<usize>,
}

impl Stage {
    /// None on a machine without two cores.
    fn set(names: &[&str]) -> Option<Stage> {
        let set = sched_getaffinity(Pid::from_raw(0)).expect("every thread has one");
        let usable = |core: &usize| set.is_set(*core).unwrap_or(false);
        let cores: Vec<usize> = (0..CpuSet::count()).filter(usable).take(2).collect();
        if cores.len() < 2 {
            eprintln!("skipped: two cores are needed");
            return None;
        }
        let file = NamedTempFile::new().expect("a temporary file");
        write(file.as_file(), &cores, [(0, 0), (0, 0)]);
        let config = format!("[engine]\nshards = 2\n{}", functions(names));
        let stack = Stack::start_with(&config, &[("NIGHTCORE_PROC_STAT", file.path())]);
        let (seeming, over, answered) = Default::default();
        Some(Stage { stack, seeming, over, answered, file, cores })
    }

    fn seem(&self, seeming: Seeming) {
        // SYNC: plain values that carry no other data; so are those below.
        self.seeming.store(seeming as usize, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Lets `scene` happen while the cores seem to work, and connections do.
    fn perform(
        &self,
        client: impl Fn(&Stage, &mut Connection, usize) + Sync,
        scene: impl FnOnce(),
    ) {
        let client = &client;
        thread::scope(|scope| {
            let clock = scope.spawn(|| self.tick());
            let clients: Vec<_> = (0..CONNECTIONS)
                .map(|index| {
                    let mut connection = self.stack.connect();
                    scope.spawn(move || client(self, &mut connection, index))
                })
                .collect();
            // Whatever fails in it, the threads must end.
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(scene));
            if outcome.is_err() {
                self.stack.signal(Signal::SIGTERM);
            }
            self.over.store(true, Ordering::Relaxed);
            let ends: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
            clock.join().expect("the file can be written");
            if let Err(panic) = outcome {
                std::panic::resume_unwind(panic);
            }
            assert!(ends.iter().all(Result::is_ok), "a request did not get its answer");
        });
    }

    /// Continues the file as the cores seem to go on.
    fn tick(&self) {
        let mut ticks = [(0, 0), (0, 0)];
        while !self.is_over() {
            let seeming = self.seeming.load(Ordering::Relaxed);
            let busy = match seeming {
                full if full == Seeming::FirstFull as usize => [10, 1],
                full if full == Seeming::SecondFull as usize => [1, 10],
                _ => [1, 1],
            };
            for ((total_busy, idle), busy) in ticks.iter_mut().zip(busy) {
                *total_busy += busy;
                *idle += 10 - busy;
            }
            write(self.file.as_file(), &self.cores, ticks);
            thread::sleep(PACE);
        }
    }

    fn answered(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// Lets connections move to and fro until `count` of them have.
    fn stir(&self, count: u64) {
        let mut full = Seeming::FirstFull;
        wait_until("connections have moved often", || {
            let before = self.stack.metric(MOVED);
            self.seem(full);
            // The shard that seems full may have nothing to give, if the last move was late.
            let turn = Instant::now() + TURN;
            wait_until("some more move", || {
                self.stack.metric(MOVED) > before || Instant::now() > turn
            });
            full = match full {
                Seeming::FirstFull => Seeming::SecondFull,
                _ => Seeming::FirstFull,
            };
            self.stack.metric(MOVED) >= count
        });
    }
}

/// Numbers of a fixed width, so that one write replaces all.
fn write(file: &File, cores: &[usize], ticks: [(u64, u64); 2]) {
    let mut text = String::from("cpu  0 0 0 0 0 0 0 0 0 0\n");
    for (core, (busy, idle)) in cores.iter().zip(ticks) {
        text.push_str(&format!("cpu{core} {busy:012} 0 0 0 {idle:012} 0 0 0 0 0\n"));
    }
    file.write_all_at(text.as_bytes(), 0).expect("a file");
}

fn chain_until_over(stage: &Stage, connection: &mut Connection, index: usize) {
    let n = 1 + index % 5;
    let call = post("/function/chain", format!("{{\"n\": {n}, \"size\": 100}}").as_bytes());
    while !stage.is_over() {
        assert_eq!(connection.exchange(&call).json()["n"], n);
        stage.answered();
    }
}

#[test]
fn connections_go_to_an_idle_core_and_come_back_when_one_suffices() {
    let Some(stage) = Stage::set(&["chain", "echo"]) else { return };
    let total = CONNECTIONS as u64;
    let counts = || stage.stack.samples(SHARD_CONNECTIONS);
    stage.perform(chain_until_over, || {
        wait_until("all have come", || stage.stack.metric(SHARD_CONNECTIONS) >= total);
        stage.seem(Seeming::FirstFull);
        wait_until("both shards have some", || counts().iter().all(|count| *count >= total / 4));
        let before = stage.answered.load(Ordering::Relaxed);
        wait_until("both answer", || stage.answered.load(Ordering::Relaxed) > before + 1_000);
        stage.seem(Seeming::Quiet);
        // Those that ask are on one of them.
        wait_until("one shard has all", || counts().iter().any(|count| *count <= 2));
    });
    let completed = stage.stack.count("chain", "completed");
    assert_eq!(completed, stage.answered.load(Ordering::Relaxed));
}

#[test]
fn what_is_sent_ahead_in_parts_or_slowly_is_answered_in_order_while_connections_move() {
    let Some(stage) = Stage::set(&["chain", "echo"]) else { return };
    let client = |stage: &Stage, connection: &mut Connection, index: usize| {
        let mut random = Random::new(index as u64 + 1);
        for number in 0_u64.. {
            if stage.is_over() {
                return;
            }
            match index % 4 {
                0 => send_ahead(connection, &mut random, number),
                1 => send_in_two_parts(connection, number),
                2 => ask_before_sending(connection, number),
                _ => {
                    let call = post("/function/chain", b"{\"n\": 3, \"size\": 100}");
                    assert_eq!(connection.exchange(&call).json()["n"], 3);
                }
            }
        }
    };
    stage.perform(client, || stage.stir(60));
}

#[test]
fn sigterm_while_connections_move_loses_nothing() {
    let Some(stage) = Stage::set(&["chain", "echo"]) else { return };
    let client = |stage: &Stage, connection: &mut Connection, index: usize| {
        loop {
            let text = format!("client {index}");
            // The end may come between two requests, and without a pause only then.
            let sent = connection.try_send(&post("/function/echo", text.as_bytes()));
            let answer = sent.and_then(|()| connection.try_read(Body::Present));
            let answer = answer.expect("no reset").expect("an answer, not the end");
            assert_eq!(answer.text(), text);
            stage.answered();
            if answer.is_last() {
                return connection.expect_end();
            }
        }
    };
    stage.perform(client, || {
        stage.stir(20);
        stage.stack.signal(Signal::SIGTERM);
    });
    let ended = stage.stack.wait();
    assert_eq!((ended.code, ended.stderr.as_str(), ended.left), (Some(0), "", vec![]));
}

/// Some requests at once; their answers must come in their order.
fn send_ahead(connection: &mut Connection, random: &mut Random, number: u64) {
    let count = 1 + random.below(8);
    let body = |position| format!("{number}, {position}");
    let requests: Vec<u8> =
        (0..count).flat_map(|position| post("/function/echo", body(position).as_bytes())).collect();
    let cut = random.below(requests.len());
    connection.send(&requests[..cut]);
    connection.send(&requests[cut..]);
    for position in 0..count {
        assert_eq!(connection.read().text(), body(position));
    }
}

fn send_in_two_parts(connection: &mut Connection, number: u64) {
    let body = number.to_string();
    let whole = post("/function/echo", body.as_bytes());
    let cut = usize::try_from(number).unwrap_or(0) % whole.len();
    connection.send(&whole[..cut]);
    // Time to move in the middle of the request, if it could.
    if number.is_multiple_of(16) {
        thread::sleep(PACE * 15);
    }
    connection.send(&whole[cut..]);
    assert_eq!(connection.read().text(), body);
    assert_eq!(connection.exchange(&get("/healthz")).text(), "ok\n");
}

fn ask_before_sending(connection: &mut Connection, number: u64) {
    let body = number.to_string();
    let whole = request("POST", "/function/echo", "Expect: 100-continue\r\n", body.as_bytes());
    let (head, body) = whole.split_at(whole.len() - body.len());
    connection.send(head);
    assert_eq!(connection.read().status, 100);
    connection.send(body);
    assert_eq!(connection.read().body, body);
}
