//! Versions of a function that come under load, also those that cannot. `docs/reliability.md` has a row
//! for each.

use std::process::Command;

use nightcore_tests::binaries::built;
use nightcore_tests::fault::{OTHERS, strike, within_bounds};
use nightcore_tests::functions::build;
use nightcore_tests::load::Traffic;
use nightcore_tests::{Stack, config, functions, wait_until};
use nix::sys::signal::Signal;
use tempfile::TempDir;

/// Calls of 2 ms, some of which are always under way.
const CALLS: Traffic =
    Traffic { function: "f", input: Some("2000"), per_second: 200, connections: 8 };

/// A function that answers with its version.
struct Versions {
    directory: TempDir,
}

impl Versions {
    fn new() -> Versions {
        let directory = TempDir::new().expect("a directory");
        let _library = build("versioned", directory.path());
        Versions { directory }
    }

    fn config(&self, version: &str, settings: &str) -> String {
        let f = config::function("f", &self.directory.path().join("libversioned.so"));
        let others = functions(&OTHERS);
        format!("{others}{f}env = {{ VERSION = \"{version}\" }}\n{settings}")
    }

    fn deploy(&self, stack: &Stack, version: &str, settings: &str) {
        stack.configure(&self.config(version, settings));
        stack.signal(Signal::SIGHUP);
    }
}

fn wait_for(stack: &Stack, version: &str) {
    wait_until("that version answers", || stack.call("f", b"0").text() == version);
}

/// The second version cannot be started after `take`, which is logged in these words; a third one can
/// after `give`.
fn expect_former(name: &str, take: impl Fn(&Stack) -> String, logged: &str, give: &str) {
    let versions = Versions::new();
    within_bounds(|| {
        let stack = Stack::start(&versions.config("one", ""));
        let seen = strike(name, &stack, &CALLS, |stack| {
            stack.process().limit(&take(stack));
            versions.deploy(stack, "two", "");
            wait_until("it is told", || stack.stderr().contains(logged));
            assert_eq!(stack.call("f", b"0").text(), "one");
            stack.process().limit(give);
        });
        seen.expect_failures(&[]);
        // It may have been tried again meanwhile.
        let is_two = || stack.call("f", b"0").text() == "two";
        wait_until("it is settled", || stack.stderr().contains("not deployed") || is_two());
        versions.deploy(&stack, "three", "");
        wait_for(&stack, "three");
        seen
    });
}

#[test]
fn a_deploy_under_load_loses_no_call() {
    let versions = Versions::new();
    within_bounds(|| {
        let stack = Stack::start(&versions.config("one", ""));
        let seen = strike("deploy", &stack, &CALLS, |stack| {
            for version in ["two", "three", "four"] {
                versions.deploy(stack, version, "");
                wait_for(stack, version);
            }
        });
        seen.expect_failures(&[]);
        wait_until("the former ones have gone", || stack.containers().len() == 3);
        seen
    });
}

#[test]
fn a_deploy_without_descriptors_leaves_the_former_version() {
    let take = |stack: &Stack| format!("nofile={}:", stack.process().descriptors() + 2);
    expect_former("deploy without descriptors", take, "not deployed", "nofile=20000:");
}

#[test]
fn a_deploy_without_memory_for_its_channel_leaves_the_former_version() {
    // Room for all but a channel.
    let take = |stack: &Stack| format!("as={}:", stack.process().address_space() + (64 << 20));
    expect_former("deploy without memory", take, "could not be asked for", "as=unlimited:");
}

#[test]
fn a_deploy_of_what_cannot_run_within_its_limits_leaves_the_former_version() {
    let versions = Versions::new();
    within_bounds(|| {
        let stack = Stack::start(&versions.config("one", ""));
        let seen = strike("deploy of what may have no worker", &stack, &CALLS, |stack| {
            versions.deploy(stack, "two", "pids = 1\n");
            wait_until("it is told", || stack.stderr().contains("not deployed"));
        });
        seen.expect_failures(&[]);
        assert_eq!(stack.call("f", b"0").text(), "one");
        seen
    });
}

#[test]
fn a_full_dev_shm_concerns_nobody() {
    let script = "mount -t tmpfs -o size=64k full /dev/shm && \
                  ! head -c 1M /dev/zero 2>/dev/null >/dev/shm/full && exec \"$@\"";
    let versions = Versions::new();
    within_bounds(|| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(built("nightcore"));
        let stack = Stack::start_by(&versions.config("one", ""), command, None);
        let seen = strike("full /dev/shm", &stack, &CALLS, |stack| {
            versions.deploy(stack, "two", "");
            wait_for(stack, "two");
        });
        seen.expect_failures(&[]);
        seen
    });
}
