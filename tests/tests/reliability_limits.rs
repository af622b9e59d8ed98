//! Starts and growth while the host has nothing left to give, and functions that take all they can
//! get, under load. `docs/reliability.md` has a row for each.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use nightcore_tests::fault::{OTHERS, strike, within_bounds};
use nightcore_tests::functions::build;
use nightcore_tests::load::{Outcome, Traffic};
use nightcore_tests::{Stack, config, functions, post, wait_until};
use nix::sys::signal::Signal;
use tempfile::TempDir;

/// A channel takes more address space than this.
const CHANNEL_MIN: u64 = 256 << 20;
/// How long the host has nothing to give.
const SHORTAGE: Duration = Duration::from_millis(500);

/// Takes something from the engine by `take`, has `nop` called while its container is stopped, and
/// gives it back by `give`.
fn expect_late_start(name: &str, take: impl Fn(&Stack) -> String, give: &str) {
    let config = functions(&[OTHERS[0], OTHERS[1], "nop"]) + "idle_timeout = \"100ms\"\n";
    // So that the call waits for as long as it takes.
    let config = config + "breaker_deaths = 1000\n";
    let config = config + "[engine]\nshards = 1\n";
    let echo = Traffic { function: "echo", input: None, per_second: 100, connections: 2 };
    within_bounds(|| {
        let stack = Stack::start(&config);
        stack.call("nop", b"").ok();
        let with_channel = stack.process().address_space();
        let seen = strike(name, &stack, &echo, |stack| {
            wait_until("it is cold", || stack.container("nop").is_none());
            let unmapped = || stack.process().address_space() + CHANNEL_MIN < with_channel;
            wait_until("its channel is unmapped", unmapped);
            let mut waiting = stack.connect();
            stack.process().limit(&take(stack));
            waiting.send(&post("/function/nop", b""));
            thread::sleep(SHORTAGE);
            stack.process().limit(give);
            waiting.read().ok();
        });
        seen.expect_failures(&[]);
        assert!(stack.stderr().contains("nop"), "it was not felt: {}", stack.stderr());
        seen
    });
}

#[test]
fn a_container_that_cannot_be_started_for_lack_of_descriptors_is_started_later() {
    let take = |stack: &Stack| format!("nofile={}:", stack.process().descriptors() + 1);
    expect_late_start("no descriptor for a start", take, "nofile=20000:");
}

#[test]
fn a_channel_that_has_no_memory_is_made_later() {
    // Room for all but the memory of a channel.
    let take = |stack: &Stack| format!("as={}:", stack.process().address_space() + (64 << 20));
    expect_late_start("no memory for a channel", take, "as=unlimited:");
}

#[test]
fn a_fork_bomb_ends_at_its_limit_and_with_its_container() {
    let directory = TempDir::new().expect("a directory");
    let library = build("rogue", directory.path());
    let rogue = config::function("rogue", &library);
    let config = format!("{}{rogue}pids = 64\nmax_workers = 16\n", functions(&OTHERS));
    let waiting =
        Traffic { function: "rogue", input: Some("wait"), per_second: 100, connections: 8 };
    within_bounds(|| {
        let stack = Stack::start(&config);
        let seen = strike("fork bomb", &stack, &waiting, |stack| {
            let answer = stack.call("rogue", b"fork");
            let count: usize = answer.text().parse().expect("a number");
            assert!((1..64).contains(&count), "{count} processes");
            assert!(processes_with(&library) > count, "they are there");
            let container = stack.container("rogue").expect("it is up");
            container.signal(Signal::SIGKILL);
            wait_until("it is dead", || !container.is_alive());
        });
        seen.expect_failures(&[(Outcome::failed(502, "container_died"), 8)]);
        wait_until("one process of it is left", || processes_with(&library) == 1);
        seen
    });
}

/// Processes on whose command line this file is.
fn processes_with(file: &Path) -> usize {
    let file = file.to_str().expect("text").as_bytes();
    let processes = fs::read_dir("/proc").expect("it is mounted");
    let lines = processes.filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
    lines.filter(|line| line.windows(file.len()).any(|it| it == file)).count()
}
