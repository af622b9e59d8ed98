//! Containers that lie, one family of lies a test: each lie ends in the answer and the reason that
//! its case names, everybody else is served as if nothing happened, and the function is as good as
//! new afterwards. The lies are told by `hostile-worker`; `tests/hostile/README.md` lists them.

mod load;

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nightcore_tests::binaries::built;
use nightcore_tests::process::Process;
use nightcore_tests::{Answer, Stack, config, functions, post, wait_until};
use tempfile::TempDir;

use self::load::with_load;

/// What the client sees whose call the lie is told in.
#[derive(Clone, Copy, Debug)]
enum Seen {
    /// The answer of a container that has not lied yet, or not in a way that matters.
    Answer,
    /// 502: the container was closed during the call.
    Died,
    /// 504: nothing came until the deadline.
    Late,
    /// An answer, 500 or 502, or 504: two threads race.
    Any,
    /// 502 or 504: two threads race.
    DiedOrLate,
}

/// What becomes of the container.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// Closed for a reason that the log gives.
    Closed(&'static str),
    /// Nothing: what it does is permitted, or hurts nobody but itself.
    Stays,
    /// Closed for a reason that the log gives, or not at all: two threads race.
    Either,
}

struct Case {
    lie: &'static str,
    seen: Seen,
    fate: Fate,
}

impl Case {
    /// Short where the end of it is what is to be seen, else longer than anything takes.
    fn timeout(&self) -> &'static str {
        match (self.seen, self.lie) {
            (Seen::Late | Seen::DiedOrLate | Seen::Any, _) => "300ms",
            (_, "race-sleep" | "doorbell-empty") => "300ms",
            _ => "20s",
        }
    }
}

const fn case(lie: &'static str, seen: Seen, fate: Fate) -> Case {
    Case { lie, seen, fate }
}

const PAST_ITS_TIME: &str = "ran on past its time";
const RESTARTED: &str = "starting it again";

#[test]
fn cursors_and_messages_that_cannot_be_close_the_container() {
    run(
        "rings",
        &[
            case("ring-ahead", Seen::Died, Fate::Closed("the peer's ring cursor")),
            case("ring-backward", Seen::Died, Fate::Closed("the peer's ring cursor")),
            case("ring-huge", Seen::Died, Fate::Closed("the peer's ring cursor")),
            case("ring-head", Seen::Died, Fate::Closed("the peer's ring cursor")),
            case("ring-unread", Seen::Died, Fate::Closed("are unread")),
            case("ring-empty", Seen::Died, Fate::Closed("no kind of message")),
            case("ring-noise", Seen::Died, Fate::Closed("container is closed")),
        ],
    );
}

#[test]
fn blocks_and_names_that_are_none_close_the_container() {
    run(
        "blocks",
        &[
            case("block-behind", Seen::Died, Fate::Closed("in a region of")),
            case("block-across", Seen::Died, Fate::Closed("in a region of")),
            case("block-wrap", Seen::Died, Fate::Closed("in a region of")),
            case("block-sizes", Seen::Died, Fate::Closed("are allowed")),
            case("block-envelope", Seen::Died, Fate::Closed("an envelope of")),
            case("block-payload", Seen::Died, Fate::Closed("a payload of")),
            case("block-region", Seen::Died, Fate::Closed("no region of messages")),
            case("block-nameless", Seen::Died, Fate::Closed("no function is named")),
            case("block-noise", Seen::Died, Fate::Closed("field")),
            case("block-control", Seen::Died, Fate::Closed("field 7")),
        ],
    );
}

#[test]
fn calls_and_tokens_out_of_turn_close_the_container() {
    run(
        "calls",
        &[
            case("call-twice", Seen::Answer, Fate::Closed("completed a call")),
            case("call-late", Seen::Late, Fate::Stays),
            case("call-late2", Seen::Late, Fate::Closed("completed a call")),
            case("call-unknown", Seen::Died, Fate::Closed("the worker is on call")),
            case("call-stale", Seen::Died, Fate::Closed("the worker is on call")),
            case("call-neighbour", Seen::Died, Fate::Closed("the worker is on call")),
            case("call-foreign", Seen::Died, Fate::Closed("the worker is on call")),
            case("call-decline", Seen::Died, Fate::Closed("does not wait in the lane")),
            case("call-token", Seen::Died, Fate::Closed("token 7 is in use")),
            case("call-many", Seen::Died, Fate::Closed("more than 48")),
            case("call-hoard", Seen::Died, Fate::Closed("more than 48")),
            case("call-release", Seen::Died, Fate::Closed("token 3")),
            case("call-started", Seen::Died, Fate::Closed("cannot say that it started")),
            case("call-retired", Seen::Died, Fate::Closed("cannot say that it retired")),
            case("call-boast", Seen::Answer, Fate::Stays),
            case("call-idle", Seen::Answer, Fate::Closed("made a call")),
        ],
    );
}

#[test]
fn replies_that_are_to_break_out_close_the_container() {
    run(
        "replies",
        &[
            case("reply-split", Seen::Died, Fate::Closed("field 6")),
            case("reply-body", Seen::Died, Fate::Closed("field 9")),
            case("reply-binary", Seen::Died, Fate::Closed("field 9")),
            case("reply-status", Seen::Died, Fate::Closed("field 8")),
            case("reply-twice", Seen::Died, Fate::Closed("field 8 came twice")),
            case("reply-tag", Seen::Died, Fate::Closed("field 7")),
            case("reply-short", Seen::Died, Fate::Closed("no whole field")),
            case("reply-noise", Seen::Died, Fate::Closed("field")),
            case("reply-many", Seen::Died, Fate::Closed("fields")),
            case("reply-large", Seen::Answer, Fate::Stays),
        ],
    );
}

#[test]
fn bytes_that_change_while_they_are_read_hurt_nobody() {
    run(
        "races",
        &[
            case("race-message", Seen::Any, Fate::Either),
            case("race-reply", Seen::Any, Fate::Either),
            case("race-sleep", Seen::Answer, Fate::Either),
        ],
    );
}

#[test]
fn bells_neither_keep_the_engine_busy_nor_waiting() {
    run(
        "doorbells",
        &[
            case("doorbell-flood", Seen::Died, Fate::Closed("said nothing")),
            case("doorbell-ready", Seen::DiedOrLate, Fate::Closed("container is closed")),
            case("doorbell-ready2", Seen::Died, Fate::Closed("said nothing")),
            case("doorbell-strange", Seen::Answer, Fate::Stays),
            case("doorbell-bell", Seen::Late, Fate::Closed(PAST_ITS_TIME)),
            case("doorbell-full", Seen::Answer, Fate::Closed("its doorbell")),
            case("doorbell-brim", Seen::Answer, Fate::Closed("its doorbell")),
            case("doorbell-empty", Seen::Answer, Fate::Closed(PAST_ITS_TIME)),
        ],
    );
}

#[test]
fn memory_is_what_it_was_made_as() {
    run(
        "memory",
        &[
            case("memory-seals", Seen::Answer, Fate::Stays),
            case("memory-hole", Seen::Answer, Fate::Stays),
            case("memory-holes", Seen::Any, Fate::Closed("container is closed")),
        ],
    );
}

#[test]
fn lies_on_the_control_socket_close_the_container() {
    run(
        "control",
        &[
            case("control-noise", Seen::Died, Fate::Closed("sent nonsense")),
            case("control-version", Seen::Died, Fate::Closed("sent nonsense")),
            case("control-long", Seen::Died, Fate::Closed("sent nonsense")),
            case("control-empty", Seen::Died, Fate::Closed(RESTARTED)),
            case("control-rights", Seen::Died, Fate::Closed("sent nonsense")),
            case("control-hello", Seen::Died, Fate::Closed("hello twice")),
            case("control-refused", Seen::Died, Fate::Closed("no ERROR nightcore")),
            case("control-shard", Seen::Died, Fate::Closed("no shard 65535")),
            case("control-lane", Seen::Died, Fate::Closed("lane 65535")),
            case("control-worker", Seen::Died, Fate::Closed("failed to start")),
            case("control-flood", Seen::Died, Fate::Closed("container is closed")),
            case("control-closed", Seen::Late, Fate::Closed(PAST_ITS_TIME)),
            case("control-stop", Seen::Late, Fate::Closed(PAST_ITS_TIME)),
        ],
    );
}

/// In a test of its own, since the engine is patient with workers that start.
#[test]
fn a_container_that_does_as_it_is_told_by_nobody_is_closed() {
    run("deaf", &[case("control-deaf", Seen::Late, Fate::Closed("has not been heard of"))]);
}

#[test]
fn lies_of_the_handshake_close_the_container() {
    let lies = [
        ("hello-noise", "sent nonsense"),
        ("hello-version", "protocol 255"),
        ("hello-interface", "sent nonsense"),
        ("hello-long", "sent nonsense"),
        ("hello-rights", "sent nonsense"),
        ("hello-thousand", RESTARTED),
        ("hello-strangers", "too many strangers"),
    ];
    run("handshake", &lies.map(|(lie, reason)| case(lie, Seen::Died, Fate::Closed(reason))));
}

#[test]
fn work_without_end_is_cut_off() {
    run(
        "floods",
        &[
            case("flood-self", Seen::Late, Fate::Closed(PAST_ITS_TIME)),
            case("flood-echo", Seen::Late, Fate::Closed(PAST_ITS_TIME)),
            case("flood-unknown", Seen::Late, Fate::Closed(PAST_ITS_TIME)),
            case("flood-large", Seen::Late, Fate::Closed(PAST_ITS_TIME)),
        ],
    );
}

/// A caller takes no harm from what its callee makes of a reply.
#[test]
fn a_lie_to_another_function_ends_with_the_engine() {
    let scene = Scene::new(&[case("reply-split", Seen::Died, Fate::Closed("field 6"))]);
    let before = scene.stack.containers();
    let input = b"{\"n\": 1, \"function\": \"hostile-reply-split\", \"input\": \"lie\"}";
    let answer = scene.stack.call("chain", input);
    // What the caller makes of it that its call has failed.
    answer.failure(500, "function_error");
    scene.wait_for_log("reply-split", "field 6");
    wait_until("the function is honest", || scene.echoes("reply-split"));
    let gone = before.iter().filter(|container| !container.is_alive()).count();
    assert_eq!(gone, 1, "the liar's container and no other");
}

/// A stack with honest functions and one liar for each case.
struct Scene {
    stack: Stack,
    directory: TempDir,
}

impl Scene {
    fn new(cases: &[Case]) -> Scene {
        let directory = TempDir::new().expect("a directory");
        // One shard, so that everybody is on the liars'. As many workers as there will ever be, so
        // that descriptors can be counted.
        let mut text = "[gateway]\nbody_max = \"1MiB\"\n".to_owned();
        text += "[engine]\nshards = 1\ncontainer = \"process\"\n";
        for name in ["echo", "chain"] {
            text += &(functions(&[name]) + "min_workers = 4\nmax_workers = 4\n");
        }
        for case in cases {
            let lie = case.lie;
            text += &config::function(&format!("hostile-{lie}"), &built("libecho.so"));
            let starts = starts(directory.path(), lie);
            writeln!(
                text,
                "min_workers = 2\nmax_workers = 2\ntimeout = \"{}\"\ngrace = \"200ms\"\n\
                 env = {{ HOSTILE_STARTS = \"{}\" }}",
                case.timeout(),
                starts.display()
            )
            .expect("text grows");
        }
        let worker = built("hostile-worker");
        let stack = Stack::start_with(&text, &[("NIGHTCORE_WORKER", &worker)]);
        Scene { stack, directory }
    }

    fn call(&self, lie: &str, input: &[u8]) -> Answer {
        self.stack.call(&format!("hostile-{lie}"), input)
    }

    fn echoes(&self, lie: &str) -> bool {
        let answer = self.call(lie, b"are you there");
        answer.status == 200 && answer.body == b"are you there"
    }

    /// How often the liar's container was started.
    fn starts(&self, lie: &str) -> u64 {
        fs::metadata(starts(self.directory.path(), lie)).map_or(0, |file| file.len())
    }

    fn wait_for_log(&self, lie: &str, reason: &str) {
        let name = format!("hostile-{lie}");
        wait_until(&format!("the log says of {name}: {reason}"), || {
            let log = self.stack.stderr();
            log.lines().any(|line| line.contains(&name) && line.contains(reason))
        });
    }

    /// Has the lie told, and waits until its container is as it is to be.
    fn tell(&self, case: &Case) {
        let lie = case.lie;
        let mut held = self.stack.connect();
        if lie == "call-foreign" {
            held.send(&post("/function/hostile-call-foreign", b"hold"));
            wait_until("a call is held", || {
                self.stack.count("hostile-call-foreign", "running") == 1
            });
        }
        let answer = self.call(lie, if lie == "control-deaf" { b"x" } else { b"lie" });
        match (case.seen, answer.status) {
            (Seen::Answer | Seen::Any, 200) => {}
            (Seen::Died | Seen::DiedOrLate | Seen::Any, 502) => {
                _ = answer.failure(502, "container_died")
            }
            (Seen::Any, 500) => _ = answer.failure(500, "function_error"),
            (Seen::Late | Seen::DiedOrLate | Seen::Any, 504) => {
                answer.failure(504, "deadline_exceeded");
            }
            (seen, _) => panic!("{lie}: {seen:?} expected: {}", answer.show()),
        }
        match lie {
            "memory-seals" => assert_eq!(answer.text(), "nothing was possible"),
            "memory-hole" => assert!(answer.body.iter().all(|byte| *byte == 0), "a hole is empty"),
            _ => {}
        }
        // What waits for the next call, or needs some more to be caught.
        let follow_up = match (case.fate, lie) {
            (Fate::Either, _) => 300,
            (_, "doorbell-full" | "doorbell-brim" | "doorbell-empty") => 2,
            _ => 0,
        };
        if lie == "doorbell-full" || lie == "doorbell-brim" {
            // The engine does not ring for a worker that is awake, and the lie shows when it rings.
            let liar = || self.stack.container(&format!("hostile-{lie}"));
            wait_until("its worker sleeps", || liar().is_none_or(Process::is_asleep));
        }
        for _ in 0..follow_up {
            let answer = self.call(lie, b"and now");
            assert!(matches!(answer.status, 200 | 500 | 502 | 504), "{lie}: {}", answer.show());
            if self.starts(lie) > 1 {
                break;
            }
        }
        match case.fate {
            Fate::Closed(reason) => {
                self.wait_for_log(lie, reason);
                wait_until("it is started again", || self.starts(lie) > 1);
            }
            Fate::Stays => assert_eq!(self.starts(lie), 1, "{lie}: the container stays"),
            Fate::Either => {}
        }
        wait_until(&format!("{lie}: the function serves"), || self.echoes(lie));
    }
}

/// Has every lie told while others are called.
fn run(family: &str, cases: &[Case]) {
    let scene = Scene::new(cases);
    for Case { lie, .. } in cases.iter().filter(|case| case.lie != "control-deaf") {
        wait_until("it is honest at first", || scene.echoes(lie));
    }
    let engine = scene.stack.process();
    let [calm, during] = with_load(&scene.stack, |begin| {
        wait_until("the load is known", || begin.calls() >= 300);
        let (files, memory) = (engine.descriptors(), engine.private_memory());
        begin.second_phase();
        for case in cases {
            let start = Instant::now();
            scene.tell(case);
            println!("{}: {:?}", case.lie, start.elapsed());
        }
        wait_until("there is something to compare", || begin.calls() >= 300);
        wait_until("no descriptor is left behind", || engine.descriptors() <= files);
        let grown = engine.private_memory().saturating_sub(memory);
        assert!(grown < 24 << 20, "the engine has {grown} bytes more than before");
    });
    println!("{family}: calm {calm:?}, during the lies {during:?}");
    // A shard that a liar holds is held for good; a machine that does other things takes a moment.
    assert!(during.max < Duration::from_secs(5), "{during:?}");
    let bound = 5 * calm.p99 + Duration::from_millis(50);
    assert!(during.p99 <= bound, "{during:?}, but {calm:?} before");
    let ended = scene.stack.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.left.is_empty(), "{:?}", ended.left);
}

fn starts(directory: &Path, lie: &str) -> PathBuf {
    directory.join(format!("starts-{lie}"))
}
