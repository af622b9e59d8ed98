//! Functions that come, change and go while they are called.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use nightcore_tests::functions::build;
use nightcore_tests::{Stack, config, functions, post, wait_until};
use nix::sys::signal::Signal;
use tempfile::TempDir;

/// A stack whose function `f` answers with its version, beside others.
struct Stage {
    stack: Stack,
    library: TempDir,
    others: String,
}

impl Stage {
    fn set(shards: u16, others: &[&str], lines: &str) -> Stage {
        let library = TempDir::new().expect("a temporary directory");
        let _f = build("versioned", library.path());
        let relay = config::function("relay", &build("relay", library.path()));
        let others = format!("[engine]\nshards = {shards}\n{}{relay}", functions(others));
        let first = versioned(library.path(), "one", lines);
        Stage { stack: Stack::start(&format!("{others}{first}")), library, others }
    }

    /// Has the stack read a configuration with this version of `f`, or without it.
    fn reload(&self, version: Option<&str>, lines: &str) {
        let f = version.map(|version| versioned(self.library.path(), version, lines));
        self.stack.configure(&format!("{}{}", self.others, f.unwrap_or_default()));
        self.stack.signal(Signal::SIGHUP);
    }

    fn wait_for(&self, version: &str) {
        let answers = || self.stack.call("f", b"0").text() == version;
        wait_until("the next version answers", answers);
    }

    /// Lets clients call `f`, half of them through another function, while `scene` happens; gives
    /// every answer that one of them got.
    fn perform(&self, scene: impl FnOnce(&dyn Fn())) -> BTreeSet<String> {
        let (over, answered) = (AtomicBool::new(false), AtomicU64::new(0));
        let answers = Mutex::new(BTreeSet::new());
        let client = |index: u64| {
            let mut connection = self.stack.connect();
            let us = 100 * (index % 4);
            let direct = post("/function/f", us.to_string().as_bytes());
            let through = post("/function/relay", format!("f\n{us}").as_bytes());
            let call = if index.is_multiple_of(2) { direct } else { through };
            // SYNC: plain values that carry no other data.
            while !over.load(Ordering::Relaxed) {
                let answer = connection.exchange(&call);
                assert_eq!(answer.status, 200, "{}", answer.show());
                answers.lock().expect("no poison").insert(answer.text().to_owned());
                answered.fetch_add(1, Ordering::Relaxed);
            }
        };
        let wait_for_more = || {
            let before = answered.load(Ordering::Relaxed);
            wait_until("calls go on", || answered.load(Ordering::Relaxed) > before + 500);
        };
        thread::scope(|scope| {
            let client = &client;
            let clients: Vec<_> = (0..8).map(|index| scope.spawn(move || client(index))).collect();
            let scene = std::panic::AssertUnwindSafe(|| scene(&wait_for_more));
            let outcome = std::panic::catch_unwind(scene);
            over.store(true, Ordering::Relaxed);
            for client in clients {
                client.join().expect("every call is answered");
            }
            if let Err(panic) = outcome {
                std::panic::resume_unwind(panic);
            }
        });
        answers.into_inner().expect("no poison")
    }
}

fn versioned(directory: &Path, version: &str, lines: &str) -> String {
    let f = config::function("f", &directory.join("libversioned.so"));
    format!("{f}env = {{ VERSION = \"{version}\" }}\n{lines}")
}

#[test]
fn updates_under_load_lose_no_call_and_leave_one_container() {
    for shards in [1, 2] {
        let stage = Stage::set(shards, &["nop"], "");
        let answers = stage.perform(|wait_for_more| {
            for version in ["two", "three", "four", "five"] {
                wait_for_more();
                stage.reload(Some(version), "");
                stage.wait_for(version);
            }
            wait_for_more();
        });
        assert!(["one", "five"].iter().all(|version| answers.contains(*version)), "{answers:?}");
        // Those before have ended their calls and gone: relay, nop and f are left.
        wait_until("older containers leave", || stage.stack.containers().len() == 3);
        assert_eq!(stage.stack.count("f", "version"), 5);
        // What all versions counted is the function's.
        wait_until("all is counted", || {
            let count = |key| stage.stack.count("f", key);
            count("arrivals") == count("completed") && count("failed") == 0
        });
        assert!(stage.stack.count("f", "completed") > 2_000);
        assert_eq!(stage.stack.call("f", b"0").text(), "five");
    }
}

#[test]
fn a_version_that_cannot_be_used_leaves_the_former_one_in_place() {
    let stage = Stage::set(2, &[], "");
    let pid = stage.stack.containers();
    let answers = stage.perform(|wait_for_more| {
        wait_for_more();
        stage.reload(Some("broken"), "");
        wait_until("it is told", || stage.stack.stderr().contains("not deployed"));
        wait_for_more();
    });
    assert_eq!(answers, BTreeSet::from(["one".to_owned()]));
    let stderr = stage.stack.stderr();
    assert!(stderr.contains("a worker could not be started"), "{stderr}");
    wait_until("its container has gone", || stage.stack.containers() == pid);
    assert_eq!(stage.stack.count("f", "version"), 1);
    // The next one that can be used takes the place.
    stage.reload(Some("two"), "");
    stage.wait_for("two");
}

#[test]
fn a_function_that_is_removed_ends_its_calls_and_is_not_found_afterwards() {
    let stage = Stage::set(2, &["nop"], "");
    let mut slow = stage.stack.connect();
    slow.send(&post("/function/f", b"300000"));
    wait_until("it runs", || stage.stack.count("f", "running") == 1);
    stage.reload(None, "");
    wait_until("no new call gets there", || stage.stack.call("f", b"0").status == 404);
    assert_eq!(slow.read().text(), "one");
    wait_until("it is gone", || stage.stack.containers().len() == 2);
    let list = stage.stack.get("/v1/functions").text().to_owned();
    wait_until("it is listed no more", || {
        !stage.stack.get("/v1/functions").text().contains("\"f\"")
    });
    assert!(list.contains("\"nop\""), "{list}");
    assert!(stage.stack.call("relay", b"f\n0").text().starts_with("outcome "));
    // It comes back in a place of its own.
    stage.reload(Some("two"), "min_workers = 0\n");
    wait_until("it is there", || stage.stack.call("f", b"0").status == 200);
    assert_eq!(stage.stack.call("f", b"0").text(), "two");
    assert_eq!(stage.stack.get("/readyz").status, 200);
}

#[test]
fn a_configuration_that_cannot_be_read_changes_nothing() {
    let stage = Stage::set(1, &[], "");
    stage.stack.configure("[[function]]\nname = 1\n");
    stage.stack.signal(Signal::SIGHUP);
    wait_until("it is told", || stage.stack.stderr().contains("not reloaded"));
    assert!(stage.stack.stderr().contains("function.library"), "{}", stage.stack.stderr());
    assert_eq!(stage.stack.call("f", b"0").text(), "one");
    assert_eq!(stage.stack.count("f", "version"), 1);
}

/// Runs `nightcore` with these words, about the stack of this stage.
fn nightcore(stage: &Stage, words: &[&str]) -> (Option<i32>, String, String) {
    let mut command = std::process::Command::new(nightcore_tests::binaries::built("nightcore"));
    let output = command.args(words).arg("-c").arg(stage.stack.config()).output();
    let output = output.expect("`nightcore` can be run");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_commands_deploy_update_and_remove() {
    let stage = Stage::set(2, &["nop"], "");
    // One that is in no file.
    let library = stage.library.path().join("libversioned.so");
    let library = library.to_str().expect("a path of text");
    let settings = ["--set", "min_workers = 2", "--set", "env = { VERSION = \"solo\" }"];
    let mut words = vec!["deploy", "g", "--library", library];
    words.extend(settings);
    let (code, stdout, stderr) = nightcore(&stage, &words);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(stdout.starts_with("g: version 1 serves, process "), "{stdout}");
    assert_eq!(stage.stack.call("g", b"0").text(), "solo");
    assert_eq!(stage.stack.call("relay", b"g\n0").text(), "solo");

    // One of the file's, changed there; the others stay as they are.
    stage.stack.configure(&format!(
        "{}{}",
        stage.others,
        versioned(stage.library.path(), "two", "")
    ));
    let (code, stdout, _) = nightcore(&stage, &["deploy", "f"]);
    assert_eq!(code, Some(0));
    assert!(stdout.starts_with("f: version 2 serves"), "{stdout}");
    assert_eq!(stage.stack.call("f", b"0").text(), "two");
    assert_eq!(stage.stack.count("nop", "version"), 1);

    // Nothing is as broken as it was asked.
    let broken = versioned(stage.library.path(), "broken", "");
    stage.stack.configure(&format!("{}{broken}", stage.others));
    let (code, stdout, stderr) = nightcore(&stage, &["deploy", "f"]);
    assert_eq!((code, stderr.as_str()), (Some(1), "nightcore: 1 of 1 failed\n"));
    assert!(stdout.starts_with("f: failed: a worker could not be started"), "{stdout}");
    assert_eq!(stage.stack.call("f", b"0").text(), "two");
    let (code, _, stderr) = nightcore(&stage, &["deploy", "h"]);
    assert_eq!(code, Some(2), "{stderr}");

    let (code, stdout, _) = nightcore(&stage, &["rm", "g", "h"]);
    assert_eq!(code, Some(1));
    assert!(stdout.starts_with("g: removed\nh: failed: there is no function \"h\""), "{stdout}");
    assert_eq!(stage.stack.call("g", b"0").status, 404);

    // The file has the last word.
    stage.stack.configure(&format!(
        "{}{}",
        stage.others,
        versioned(stage.library.path(), "six", "")
    ));
    let (code, stdout, _) = nightcore(&stage, &["reload", "--json"]);
    assert_eq!(code, Some(0));
    assert!(stdout.starts_with("{\"function\":\"f\",\"done\":true"), "{stdout}");
    assert_eq!(stage.stack.call("f", b"0").text(), "six");
}

#[test]
fn a_flood_of_updates_leaks_nothing() {
    let stage = Stage::set(2, &[], "");
    let update = || {
        let (code, stdout, stderr) = nightcore(&stage, &["deploy", "f"]);
        assert_eq!(code, Some(0), "{stdout}{stderr}");
    };
    let settled = || {
        wait_until("older versions leave", || stage.stack.containers().len() == 2);
        stage.stack.process().descriptors()
    };
    (0..3).for_each(|_| update());
    let before = settled();
    // More than there is room for at once.
    (0..150).for_each(|_| update());
    wait_until("their descriptors are closed", || settled() <= before);
    assert_eq!(stage.stack.count("f", "version"), 154);
    assert_eq!(stage.stack.call("f", b"0").text(), "one");
}
