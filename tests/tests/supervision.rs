//! Why containers die and what follows: the cause is named everywhere, the next one is there at once,
//! crash loops are broken off, and what a killed engine leaves is cleared.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use nightcore_tests::binaries::built;
use nightcore_tests::functions::build;
use nightcore_tests::process::Process;
use nightcore_tests::stack::refused;
use nightcore_tests::{Connection, Stack, config, functions, post, wait_until};
use nix::sys::signal::Signal;
use tempfile::TempDir;

/// Functions of `tests/functions/fate.c`: a name and further keys each.
fn fates(directory: &TempDir, each: &[(&str, &str)]) -> String {
    let library = build("fate", directory.path());
    each.iter().map(|(name, keys)| config::function(name, &library) + keys + "\n").collect()
}

/// A function's entry in `/v1/functions`.
fn entry(stack: &Stack, function: &str) -> serde_json::Value {
    let list = stack.get("/v1/functions").json();
    let entries = list["functions"].as_array().expect("a list");
    entries.iter().find(|entry| entry["name"] == function).expect("it is listed").clone()
}

/// A sample of `/metrics`.
fn sample(stack: &Stack, series: &str) -> u64 {
    let answer = stack.get("/metrics");
    let line = answer.text().lines().find_map(|line| line.strip_prefix(series));
    line.unwrap_or_else(|| panic!("no {series}")).trim().parse().expect("a number")
}

/// Checks what is told of a function's death, of which there was one.
fn expect_told(stack: &Stack, function: &str, kind: &str, words: &str) {
    let series = format!("{{function=\"{function}\",cause=\"{kind}\"}}");
    let deaths = || sample(stack, &format!("nightcore_container_deaths_total{series}"));
    wait_until("its death is counted", || deaths() == 1);
    let entry = entry(stack, function);
    assert_eq!(entry["last_death"]["cause"], kind, "{entry}");
    assert_eq!(entry["last_death"]["message"], words, "{entry}");
    let log = format!("its container {words}; starting it again");
    wait_until("it is logged", || {
        let stderr = stack.stderr();
        stderr.lines().any(|line| line.contains(&log) && line.contains(function))
    });
    wait_until("it is started again", || stack.call(function, b"").status == 200);
    assert_eq!(self::entry(stack, function)["restarts"], 1);
}

#[test]
fn what_ended_a_container_is_told_to_its_callers_in_the_log_and_in_metrics() {
    let directory = TempDir::new().expect("a directory");
    let deaths = [
        ("exit", "exit", "exited with code 3"),
        ("segv", "signal", "was killed by SIGSEGV"),
        ("abort", "signal", "was killed by SIGABRT"),
        ("hang up", "hung_up", "closed its control socket"),
        ("end thread", "signal", "was killed by SIGABRT"),
        ("end launcher", "signal", "was killed by SIGABRT"),
    ];
    for kind in ["process", "sandbox"] {
        let keys = format!("container = \"{kind}\"");
        let names = deaths.map(|(how, ..)| how.replace(' ', "_"));
        let each: Vec<_> = names.iter().map(|name| (name.as_str(), keys.as_str())).collect();
        let stack = Stack::start(&fates(&directory, &each));
        for (name, (how, cause, words)) in names.iter().zip(deaths) {
            let answer = stack.call(name, how.as_bytes());
            let message = answer.failure(502, "container_died").message;
            assert_eq!(message, format!("the function's container {words}"), "{kind}");
            expect_told(&stack, name, cause, words);
        }
    }
}

#[test]
fn what_a_container_did_wrong_is_told() {
    let directory = TempDir::new().expect("a directory");
    let stack = Stack::start(&fates(&directory, &[("liar", "container = \"process\"")]));
    let message = stack.call("liar", b"nonsense").failure(502, "container_died").message;
    let words = message.strip_prefix("the function's container ").expect("it goes on so");
    assert!(words.starts_with("broke the protocol: its launcher sent nonsense: "), "{words}");
    expect_told(&stack, "liar", "protocol", words);
}

#[test]
fn calls_that_go_down_with_one_that_is_stuck_are_told_so() {
    let directory = TempDir::new().expect("a directory");
    let stack = Stack::start(&fates(&directory, &[("stuck", "timeout = \"3s\"\ngrace = \"1s\"")]));
    stack.call("stuck", b"wait").failure(504, "deadline_exceeded");
    // The second has come before the first one's grace is over.
    let message = stack.call("stuck", b"wait").failure(502, "container_died").message;
    let words = "was replaced: a call ran on past its timeout and the function's grace";
    assert_eq!(message, format!("the function's container {words}"));
    expect_told(&stack, "stuck", "stuck", words);
}

#[test]
fn a_function_that_calls_one_that_dies_is_told_of_what() {
    let directory = TempDir::new().expect("a directory");
    let relay = config::function("relay", &build("relay", directory.path()));
    let stack = Stack::start(&(fates(&directory, &[("fate", "")]) + &relay));
    let answer = stack.call("relay", b"fate\nsegv");
    assert_eq!(answer.text(), "outcome 10: the function's container was killed by SIGSEGV");
}

#[test]
fn a_library_that_is_loaded_for_ever_fails_its_start() {
    let directory = TempDir::new().expect("a directory");
    let ended = refused(&fates(&directory, &[("mute", "env = { FATE = \"silent\" }")]));
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("its launcher said nothing within 10s"), "{}", ended.stderr);
}

#[test]
fn after_its_first_crash_a_function_answers_again_at_once() {
    let stack = Stack::start(&functions(&["crash"]));
    let mut connection = stack.connect();
    let crash = post("/function/crash", br#"{"how":"segv"}"#);
    connection.exchange(&crash).failure(502, "container_died");
    let died = Instant::now();
    connection.exchange(&post("/function/crash", br#"{"how":"none"}"#)).ok();
    println!("the first good answer came {:?} after the crash", died.elapsed());
    let stderr = stack.stderr();
    assert!(stderr.contains("delay=0ns"), "{stderr}");
    assert_eq!((stack.count("crash", "starts"), stack.count("crash", "restarts")), (2, 1));
}

#[test]
fn a_crash_loop_is_refused_at_once_until_the_function_is_mended() {
    let directory = TempDir::new().expect("a directory");
    let broken = directory.path().join("broken");
    let keys = format!("container = \"process\"\nenv = {{ FATE = \"{}\" }}", broken.display());
    let relay = config::function("relay", &build("relay", directory.path()));
    let others = functions(&["echo"]) + &relay;
    let stack = Stack::start(&(others + &fates(&directory, &[("fate", &keys)])));
    stack.call("fate", b"").ok();
    fs::write(&broken, "").expect("a file");

    let mut connection = stack.connect();
    for _ in 0..5 {
        connection.exchange(&post("/function/fate", b"")).failure(502, "container_died");
    }
    let answer = connection.exchange(&post("/function/fate", b""));
    answer.failure(503, "breaker_open");
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(stack.call("relay", b"fate\n").text().split(':').next(), Some("outcome 15"));
    stack.call("echo", b"x").ok();

    // It is tried again, in vain, and the breaker is open for longer.
    let opened = |stack: &Stack| stack.stderr().matches("calls are refused until").count();
    wait_until("it is tried", || {
        connection.exchange(&post("/function/fate", b""));
        connection.exchange(&post("/function/echo", b"x")).ok();
        opened(&stack) == 2
    });
    assert_eq!(stack.count("fate", "restarts"), 5);
    let state =
        |state| format!("nightcore_container_breaker{{function=\"fate\",state=\"{state}\"}}");
    assert_eq!(sample(&stack, &state("open")), 1);
    assert_eq!(entry(&stack, "fate")["state"], "broken");
    let ready = stack.get("/readyz").failure(503, "unavailable").message;
    assert_eq!(ready, "fate is broken");
    stack.get("/healthz").ok();

    fs::remove_file(&broken).expect("it is there");
    wait_until("it answers", || connection.exchange(&post("/function/fate", b"")).status == 200);
    stack.get("/readyz").ok();
    wait_until("its breaker is closed", || sample(&stack, &state("closed")) == 1);
    assert_eq!(sample(&stack, "nightcore_container_up{function=\"echo\"}"), 1);
    assert_eq!(stack.count("echo", "restarts"), 0);
}

#[test]
fn calls_that_wait_for_a_function_that_does_not_start_are_refused_with_the_loop() {
    let directory = TempDir::new().expect("a directory");
    let keys = "breaker_deaths = 6\nbreaker_window = \"200ms\"";
    let config = fates(&directory, &[("fate", keys)]);
    let library = directory.path().join("libfate.so");
    let stack = Stack::start(&config);
    let first = stack.containers()[0];
    let aside = directory.path().join("aside");
    fs::rename(&library, &aside).expect("it can be moved");
    first.signal(Signal::SIGKILL);
    wait_until("its end is known", || stack.count("fate", "restarts") > 0);
    // Those that come early wait, and those that come late do not.
    for _ in 0..3 {
        let mut waiting: Vec<Connection> = (0..3).map(|_| stack.connect()).collect();
        waiting.iter_mut().for_each(|connection| connection.send(&post("/function/fate", b"")));
        for connection in &mut waiting {
            connection.read().failure(503, "breaker_open");
        }
    }
    let told = entry(&stack, "fate");
    assert_eq!(told["last_death"]["cause"], "failed_start", "{told}");
    assert!(told["last_death"]["message"].as_str().expect("text").contains("libfate.so"), "{told}");
    assert!(told["failed_starts"].as_u64() >= Some(2), "{told}");
    fs::rename(&aside, &library).expect("it can be moved back");
    wait_until("it is there", || stack.call("fate", b"").status == 200);
}

/// A `nightcore up` in a directory that others use too. Killed when dropped.
struct Beside {
    child: Child,
    address: SocketAddr,
}

impl Beside {
    fn spawn(parent: &Path, functions: &str) -> Child {
        let file = tempfile::NamedTempFile::new_in(parent).expect("a file").keep().expect("kept").1;
        fs::write(&file, config::with_runtime_dir(functions, parent)).expect("it is written");
        Command::new(built("nightcore"))
            .args(["up", "--listen", "127.0.0.1:0", "--config"])
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("`nightcore` can be run")
    }

    fn start(parent: &Path, functions: &str) -> Beside {
        let mut child = Beside::spawn(parent, functions);
        let mut line = String::new();
        let stdout = child.stdout.as_mut().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("text");
        let address = line.split_once("http://").expect("it serves").1;
        Beside { child, address: address.trim().parse().expect("an address") }
    }

    fn sockets(&self, parent: &Path) -> PathBuf {
        parent.join(format!("nightcore-{}", self.child.id()))
    }

    fn answers(&self) -> bool {
        let mut connection = Connection::open(self.address).expect("it takes connections");
        connection.exchange(&post("/function/nop", b"")).status == 200
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_engine_clears_what_dead_ones_left_and_nothing_of_a_live_one() {
    let directory = TempDir::new().expect("a directory");
    let parent = directory.path();
    let nop = functions(&["nop"]);
    let live = Beside::start(parent, &nop);
    let killed = Beside::start(parent, &nop);
    let left = killed.sockets(parent);
    drop(killed);
    assert!(left.is_dir(), "there is something to clear");
    let stale = parent.join("nightcore-4194304");
    fs::create_dir(&stale).expect("no process has this pid");
    fs::write(stale.join("0-1"), "").expect("a file");

    let next = Beside::start(parent, &nop);
    assert!(!left.exists() && !stale.exists());
    assert!(live.sockets(parent).is_dir() && next.sockets(parent).is_dir());
    // The live one needs its directory for every start.
    let container = Process::of_child(&live.child).children()[0];
    container.signal(Signal::SIGKILL);
    wait_until("it has died", || !container.is_alive());
    // The first call may go down with the container that has just died.
    wait_until("another is there", || live.answers());
    assert!(next.answers());
}

#[test]
fn no_container_outlives_an_engine_that_is_killed_while_it_starts_them() {
    let directory = TempDir::new().expect("a directory");
    let mark = directory.path().to_str().expect("text");
    let library = built("libnop.so");
    let each = (0..40).map(|number| {
        let kind = if number % 2 == 0 { "process" } else { "sandbox" };
        let keys = format!("container = \"{kind}\"\nenv = {{ MARK = \"{mark}\" }}\n");
        config::function(&format!("nop{number}"), &library) + &keys
    });
    let functions: String = each.collect();
    for started in [1, 4, 10, 20, 30] {
        let mut child = Beside::spawn(directory.path(), &functions);
        let engine = Process::of_child(&child);
        wait_until("some have started", || engine.children().len() >= started);
        // The engine, and those of them that have come as far as their library.
        wait_until("they are marked", || marked(mark) >= started);
        child.kill().expect("it runs");
        child.wait().expect("it ends");
        wait_until("all have ended", || marked(mark) == 0);
    }
}

/// Processes with this text on their command line, as the engine and what it has just forked, or in their
/// environment, as a container.
fn marked(text: &str) -> usize {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    let has = |path: PathBuf| {
        fs::read(path).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(text))
    };
    let is_marked = |path: &PathBuf| has(path.join("cmdline")) || has(path.join("environ"));
    entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_marked).count()
}
