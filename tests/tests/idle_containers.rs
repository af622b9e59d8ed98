//! Containers that are stopped while nobody calls, and started again for the next call.

use std::fmt::Write;
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nightcore_tests::process::Process;
use nightcore_tests::{
    Connection, Random, Stack, binaries, config, functions, post, request, wait_until,
};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::{NamedTempFile, TempDir};

const SHARD_CONNECTIONS: &str = "nightcore_shard_connections";
const STARTS: &str = "nightcore_container_starts_total";

/// A stack of `steady` functions, and of `echo` with this `idle_timeout`.
fn stack(steady: &[&str], idle_timeout: &str) -> Stack {
    let echo = functions(&["echo"]);
    Stack::start(&format!("{}{echo}idle_timeout = \"{idle_timeout}\"\n", functions(steady)))
}

/// What `/v1/functions` says of a function.
fn state(stack: &Stack, function: &str) -> String {
    let list = stack.get("/v1/functions").json();
    let functions = list["functions"].as_array().expect("a list");
    let entry = functions.iter().find(|entry| entry["name"] == function).expect("it is listed");
    entry["state"].as_str().expect("a word").to_owned()
}

/// Between two calls.
fn pause(random: &mut Random, us: Range<u64>) {
    thread::sleep(Duration::from_micros(us.start + random.number() % (us.end - us.start)));
}

fn wait_until_idle(stack: &Stack) {
    wait_until("its container is stopped", || state(stack, "echo") == "idle");
}

#[test]
fn a_container_that_nobody_calls_is_stopped_and_the_next_call_starts_another() {
    let stack = stack(&["nop"], "200ms");
    stack.call("echo", b"x").ok();
    let before = stack.containers();
    wait_until("only the other one is left", || stack.containers().len() == 1);
    let steady = stack.containers();
    assert!(before.contains(&steady[0]));
    wait_until_idle(&stack);
    assert_eq!(state(&stack, "nop"), "up");
    assert_eq!(stack.get("/readyz").status, 200);
    assert_eq!(stack.samples("nightcore_container_up"), [1, 0]);
    assert_eq!(stack.samples(STARTS), [1, 1]);

    let start = Instant::now();
    assert_eq!(stack.call("echo", b"hello").ok(), b"hello");
    println!("a call with a cold start took {:?}", start.elapsed());
    assert_eq!(stack.samples(STARTS), [1, 2]);
    assert!(stack.containers().contains(&steady[0]), "the other one is untouched");

    let ended = stack.stop();
    assert_eq!((ended.code, ended.left), (Some(0), vec![]));
}

#[test]
fn a_stack_whose_containers_are_all_stopped_costs_no_cpu_time() {
    let stack = stack(&[], "50ms");
    stack.call("echo", b"x").ok();
    wait_until("no container is left", || stack.containers().is_empty());
    let before = stack.process().cpu_ticks();
    // The time in which nothing happens is what is measured here.
    thread::sleep(Duration::from_secs(2));
    let ticks = stack.process().cpu_ticks() - before;
    // Of 10 ms each: the end of the container may take one, and the clock may have been about to turn.
    assert!(ticks <= 2, "{ticks} ticks of CPU time in two seconds of idleness");
}

#[test]
fn fifty_calls_at_once_start_one_container_and_all_succeed() {
    let stack = stack(&[], "2s");
    wait_until_idle(&stack);
    let connections: Vec<Connection> = (0..50).map(|_| stack.connect()).collect();
    thread::scope(|scope| {
        for (number, mut connection) in connections.into_iter().enumerate() {
            scope.spawn(move || {
                let body = number.to_string();
                let answer = connection.exchange(&post("/function/echo", body.as_bytes()));
                assert_eq!(answer.ok(), body.as_bytes());
            });
        }
    });
    assert_eq!(stack.samples(STARTS), [2]);
    assert_eq!(stack.containers().len(), 1);
}

#[test]
fn an_internal_call_starts_an_idle_container_too() {
    let stack = stack(&["chain"], "50ms");
    for _ in 0..5 {
        wait_until_idle(&stack);
        stack.call("chain", b"{\"n\": 3}").ok();
    }
    assert_eq!(stack.samples(STARTS)[0], 1, "whoever is called is stopped, not whoever calls");
}

#[test]
fn a_call_that_runs_longer_than_the_idle_timeout_keeps_its_container() {
    let stack = Stack::start(&(functions(&["sleep"]) + "idle_timeout = \"20ms\"\n"));
    for _ in 0..3 {
        let answer = stack.call("sleep", b"{\"ms\": 300}");
        assert_eq!(answer.status, 200, "{}", answer.show());
    }
    wait_until("it is stopped after all", || stack.containers().is_empty());
}

/// Calls that come about when the container is being stopped, on one connection and then on several.
#[test]
fn calls_as_far_apart_as_the_idle_timeout_all_succeed() {
    let stack = stack(&["nop"], "20ms");
    let mut random = Random::new(7);
    let mut connections: Vec<Connection> = (0..4).map(|_| stack.connect()).collect();
    for round in 0..400_u32 {
        let body = round.to_string();
        let count = if round % 2 == 0 { 1 } else { connections.len() };
        for connection in &mut connections[..count] {
            connection.send(&post("/function/echo", body.as_bytes()));
        }
        for connection in &mut connections[..count] {
            assert_eq!(connection.read().ok(), body.as_bytes(), "round {round}");
        }
        // When the calls come is what is tested here.
        pause(&mut random, 18_000..24_000);
    }
    let starts = stack.samples(STARTS);
    println!("containers started in 400 rounds: {}", starts[1]);
    assert!(starts[1] > 20, "the calls came too early to find a container stopped: {starts:?}");
    assert_eq!(starts[0], 1);
}

/// The same from both shards. That the first one's core is full, so that the second gets a connection, is
/// told by the test, in a file of the form of `/proc/stat`.
#[test]
fn calls_on_several_shards_about_the_idle_timeout_all_succeed() {
    let file = NamedTempFile::new().expect("a temporary file");
    let Some(cores) = two_cores() else {
        eprintln!("skipped: two cores are needed");
        return;
    };
    write(file.as_file(), &cores, 0);
    let config = format!("[engine]\nshards = 2\n{}", functions(&["nop", "echo"]));
    let config = config + "idle_timeout = \"20ms\"\n";
    let stack = Stack::start_with(&config, &[("NIGHTCORE_PROC_STAT", file.path())]);
    let connections = on_both_shards(&stack, |ticks| write(file.as_file(), &cores, ticks));
    let before = stack.samples(STARTS)[1];
    let _connections: Vec<Connection> = thread::scope(|scope| {
        let callers = (1..).zip(connections).map(|(seed, mut connection)| {
            let mut random = Random::new(seed);
            scope.spawn(move || {
                for round in 0..200_u32 {
                    let body = round.to_string();
                    let answer = connection.exchange(&post("/function/echo", body.as_bytes()));
                    assert_eq!(answer.ok(), body.as_bytes(), "round {round}");
                    pause(&mut random, 20_000..80_000);
                }
                connection
            })
        });
        let callers: Vec<_> = callers.collect();
        callers.into_iter().map(|caller| caller.join().expect("its calls succeed")).collect()
    });
    let starts = stack.samples(STARTS)[1] - before;
    println!("containers started: {starts}");
    assert!(starts > 20, "the calls came too early to find a container stopped: {starts}");
    assert!(stack.samples(SHARD_CONNECTIONS)[1] > 0, "all calls came on one shard");
}

/// A connection on each of the two shards. `tick` is given a time that goes on.
fn on_both_shards(stack: &Stack, tick: impl Fn(u64)) -> [Connection; 2] {
    // SYNC(over): it carries no other data.
    let over = AtomicBool::new(false);
    let first = stack.connect();
    thread::scope(|scope| {
        let _end = OnDrop(&over);
        for _ in 0..4 {
            let mut connection = stack.connect();
            let over = &over;
            scope.spawn(move || {
                let calls = post("/function/nop", b"").repeat(16);
                while !over.load(Ordering::Relaxed) {
                    connection.send(&calls);
                    for _ in 0..16 {
                        connection.read().ok();
                    }
                }
            });
        }
        let (mut second, mut ticks) = (None, 0);
        wait_until("the second shard gets a connection", || {
            ticks += 1;
            tick(ticks);
            // The one before, if it did not get there, is closed.
            second = Some(stack.connect());
            // With that of this request.
            stack.samples(SHARD_CONNECTIONS)[1] >= 2
        });
        [first, second.expect("it was looked for")]
    })
}

/// The cores of the two shards.
fn two_cores() -> Option<[usize; 2]> {
    let set = sched_getaffinity(Pid::from_raw(0)).expect("every thread has one");
    let mut cores = (0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false));
    Some([cores.next()?, cores.next()?])
}

/// The first core is full, the second half so, which is too much to take from the first.
fn write(file: &File, cores: &[usize; 2], time: u64) {
    let mut text = "cpu  0 0 0 0 0 0 0 0 0 0\n".to_owned();
    for (core, busy) in cores.iter().zip([10, 5]) {
        let (busy, idle) = (busy * time, (10 - busy) * time);
        let _ = writeln!(text, "cpu{core} {busy:012} 0 0 {idle:012} 0 0 0 0 0 0");
    }
    file.write_all_at(text.as_bytes(), 0).expect("the file can be written");
}

struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_container_that_does_not_leave_holds_up_nobody_and_is_killed() {
    let stack = stack(&[], "100ms");
    let old = stack.containers()[0];
    old.signal(Signal::SIGSTOP);
    wait_until_idle(&stack);
    assert!(old.is_alive());
    assert_eq!(stack.call("echo", b"x").ok(), b"x");
    wait_until("the one that stayed is killed", || !old.is_alive());
    assert!(stack.stderr().contains("did not leave in time"), "{}", stack.stderr());
}

#[test]
fn a_container_that_is_killed_at_its_wake_up_loses_no_call_silently() {
    let stack = stack(&[], "100ms");
    let mut connection = stack.connect();
    let (mut killed, mut died) = (0, 0);
    for round in 0..40_u64 {
        // A stop in order, after which deaths are counted anew: what is tested here is not the backoff.
        wait_until("a call succeeds", || {
            connection.exchange(&post("/function/echo", b"")).status == 200
        });
        wait_until_idle(&stack);
        connection.send(&post("/function/echo", b"x"));
        // Soon stopped again, so that a slow look may miss it.
        let end = Instant::now() + Duration::from_millis(80);
        let mut victim: Option<Process> = None;
        while victim.is_none() && Instant::now() < end {
            victim = stack.containers().first().copied();
        }
        // Before its exec, while it loads the library, when it runs.
        thread::sleep(Duration::from_micros(round % 8 * 800));
        if let Some(victim) = victim.filter(|victim| victim.is_alive()) {
            let pid = i32::try_from(victim.pid).expect("the kernel's ids are this small");
            killed += u32::from(kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok());
        }
        let answer = connection.read();
        match answer.status {
            200 => assert_eq!(answer.ok(), b"x"),
            _ => {
                answer.failure(502, "container_died");
                died += 1;
            }
        }
    }
    println!("containers killed: {killed}, calls that died with them: {died}");
    assert!(killed > 10, "{killed} containers were found in time");
    wait_until("a call succeeds", || stack.call("echo", b"").status == 200);
}

#[test]
fn calls_whose_cold_start_fails_meet_their_deadlines_and_later_ones_succeed() {
    let directory = TempDir::new().expect("a directory");
    let library = directory.path().join("libecho.so");
    fs::copy(binaries::built("libecho.so"), &library).expect("it can be copied");
    let echo = config::function("echo", &library);
    let stack = Stack::start(&format!(
        "{}{echo}idle_timeout = \"50ms\"\nbreaker_deaths = 1000\n",
        functions(&["nop"])
    ));
    wait_until_idle(&stack);
    let aside = directory.path().join("aside");
    fs::rename(&library, &aside).expect("it can be moved");

    let hurried = request("POST", "/function/echo", "X-Nightcore-Timeout-Ms: 300\r\n", b"x");
    stack.connect().exchange(&hurried).failure(504, "deadline_exceeded");
    assert_eq!(stack.get("/readyz").status, 503);
    assert_eq!(stack.call("nop", b"").status, 200);
    assert!(stack.stderr().contains("libecho.so"), "{}", stack.stderr());

    let mut waiting = stack.connect();
    waiting.send(&post("/function/echo", b"y"));
    fs::rename(&aside, &library).expect("it can be moved back");
    assert_eq!(waiting.read().ok(), b"y");
    assert_eq!(stack.get("/readyz").status, 200);
    wait_until_idle(&stack);
}

#[test]
fn a_container_that_dies_before_its_idle_timeout_comes_back_without_a_call() {
    let stack = stack(&[], "10m");
    let first = stack.containers()[0];
    first.signal(Signal::SIGKILL);
    wait_until("another is there before the idle timeout", || {
        stack.containers().first().is_some_and(|other| *other != first)
    });
    assert_eq!(stack.call("echo", b"x").ok(), b"x");
}
