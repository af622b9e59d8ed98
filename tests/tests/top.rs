//! `nightcore top` beside a stack: through a pipe, on a terminal, and when the stack ends.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use nightcore_tests::process::Process;
use nightcore_tests::watchdog::PATIENCE;
use nightcore_tests::{Stack, binaries, functions, wait_until};
use nix::pty::openpty;
use nix::sys::signal::Signal;
use nix::sys::termios::{LocalFlags, tcgetattr};

/// The time between two polls: the shortest there is.
const INTERVAL: &str = "100ms";
const CONTROL_C: &[u8] = &[3];
const CURSOR_HIDDEN: &str = "\x1b[?25l";
const CURSOR_SHOWN: &str = "\x1b[?25h";

fn top(stack: &Stack) -> Command {
    let mut command = Command::new(binaries::built("nightcore"));
    let url = format!("http://{}", stack.address());
    command.args(["top", "--interval", INTERVAL, "--url", &url]);
    command
}

fn exit_code(mut child: Child) -> Option<i32> {
    let mut status = None;
    wait_until("`nightcore top` ends", || {
        status = child.try_wait().expect("it is a child");
        status.is_some()
    });
    status.and_then(|status| status.code())
}

/// The lines of a pipe, read in a thread of their own so that none is waited for in vain.
fn lines(from: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    receiver
}

/// What is written to a terminal, in pieces. Its end is an error, which must not cost the last one.
fn pieces(mut from: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 1024];
        while let Ok(size @ 1..) = from.read(&mut buffer) {
            let _ = sender.send(String::from_utf8_lossy(&buffer[..size]).into_owned());
        }
    });
    receiver
}

#[test]
fn the_intervals_have_every_call_once() {
    const CALLS: f64 = 5.0;
    let stack = Stack::start(&functions(&["nop", "fail"]));
    // Calls before it looks are not its own.
    stack.call("nop", b"").ok();
    let mut child = top(&stack).arg("--json").stdout(Stdio::piped()).spawn().expect("it runs");
    let lines = lines(child.stdout.take().expect("it is a pipe"));
    let next = || lines.recv_timeout(PATIENCE).expect("a line for every interval");
    next();
    for _ in 0..5 {
        stack.call("nop", b"").ok();
        stack.call("fail", b"").failure(500, "function_error");
    }
    let (mut calls, mut failures) = (0.0, 0.0);
    while failures < CALLS - 0.5 || calls < CALLS - 0.5 {
        let line: serde_json::Value = serde_json::from_str(&next()).expect("JSON");
        let seconds = line["seconds"].as_f64().expect("a number");
        let functions = line["functions"].as_array().expect("a list");
        let of = |name: &str, key: &str| {
            let function = functions.iter().find(|function| function["name"] == name);
            function.expect("it is listed")[key].as_f64().map(|value| value * seconds)
        };
        calls += of("nop", "calls_per_second").expect("a number");
        failures += of("fail", "failures_per_second").expect("a number");
        assert_eq!(of("nop", "failures_per_second"), Some(0.0), "{line}");
        let is_timed = of("nop", "processing_p99_ns").is_some();
        assert!(is_timed || of("nop", "calls_per_second") == Some(0.0), "{line}");
    }
    assert_eq!((calls.round(), failures.round()), (CALLS, CALLS));
    Process::of_child(&child).signal(Signal::SIGINT);
    assert_eq!(exit_code(child), Some(0));
}

#[test]
fn once_is_one_table() {
    let stack = Stack::start(&functions(&["nop"]));
    let output = top(&stack).arg("--once").output().expect("it runs");
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).expect("text");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].starts_with("NAME ") && lines[1].starts_with("nop "), "{text}");
}

#[test]
fn a_terminal_is_drawn_on_until_a_key_ends_it_and_is_left_as_it_was() {
    let stack = Stack::start(&functions(&["nop"]));
    for key in [b"q", CONTROL_C] {
        let pty = openpty(None, None).expect("a pseudo-terminal");
        let before = tcgetattr(&pty.slave).expect("it is a terminal");
        let slave = || Stdio::from(pty.slave.try_clone().expect("a descriptor"));
        let child = top(&stack).stdin(slave()).stdout(slave()).spawn().expect("it runs");
        let mut keys = File::from(pty.master.try_clone().expect("a descriptor"));
        let screen = pieces(File::from(pty.master));
        let mut seen = String::new();
        // Twice: it is drawn again.
        while seen.matches("\nnop ").count() < 2 {
            seen += &screen.recv_timeout(PATIENCE).expect("the screen is drawn");
        }
        let during = tcgetattr(&pty.slave).expect("it is a terminal");
        assert!(!during.local_flags.contains(LocalFlags::ECHO));
        keys.write_all(key).expect("keys can be pressed");
        assert_eq!(exit_code(child), Some(0), "key {key:?}");
        assert_eq!(tcgetattr(&pty.slave).expect("it is a terminal"), before);
        // With the last descriptor on this side the other one ends.
        drop(pty.slave);
        seen.extend(screen.iter());
        assert!(seen.starts_with(CURSOR_HIDDEN), "{seen:?}");
        assert!(seen.ends_with(CURSOR_SHOWN), "{seen:?}");
    }
}

#[test]
fn when_the_stack_ends_so_does_top_with_the_code_of_no_answer() {
    let stack = Stack::start(&functions(&["nop"]));
    let mut command = top(&stack);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let lines = lines(child.stdout.take().expect("it is a pipe"));
    lines.recv_timeout(PATIENCE).expect("a table");
    assert_eq!(stack.stop().code, Some(0));
    let mut stderr = child.stderr.take().expect("it is a pipe");
    assert_eq!(exit_code(child), Some(3));
    let mut message = String::new();
    stderr.read_to_string(&mut message).expect("text");
    assert!(message.starts_with("nightcore: http://"), "{message}");
}
