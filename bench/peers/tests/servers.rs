//! The `peer` binary from outside: fronts against their backends, over real sockets.

#![allow(clippy::unwrap_used)] // a test fails where it cannot go on

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// A running `peer`; killed with the test that started it.
struct Peer {
    process: Child,
    address: String,
    _out: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts `peer ARGUMENTS` and waits until it listens.
    fn start(arguments: &[&str]) -> Peer {
        let mut process = Command::new(env!("CARGO_BIN_EXE_peer"))
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on ").expect(&line).to_owned();
        Peer { process, address, _out: out }
    }

    /// The front `command` of one thread, with this as its backend.
    fn front(&self, command: &str) -> Peer {
        Peer::start(&[command, "--listen", "127.0.0.1:0", "--backend", &self.address])
    }

    /// Status and body of the answer to a POST.
    fn post(&self, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: peer\r\nConnection: close\r\n\
             Content-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
        let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
        (status, answer.split_off(end + 4))
    }

    fn stop(mut self, signal: Signal) -> ExitStatus {
        kill(Pid::from_raw(self.process.id().try_into().unwrap()), signal).unwrap();
        self.process.wait().unwrap()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Both fail where the test has already stopped it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn hyper() -> Peer {
    Peer::start(&["hyper", "--listen", "127.0.0.1:0"])
}

/// Chain and fan-out through `front` make as many calls as they are asked for, of that size.
fn assert_calls(front: &Peer) {
    for path in ["/function/chain", "/function/fanout"] {
        for (n, size) in [(0, 1024), (1, 0), (10, 1024), (100, 65536), (2, 5 << 20)] {
            let (status, body) =
                front.post(path, format!(r#"{{"n":{n},"size":{size}}}"#).as_bytes());
            assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
            let summary: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(summary["n"], n, "{path}: {summary}");
            assert_eq!(summary["size"], size, "{path}: {summary}");
            let quantiles = ["p50_us", "p99_us", "p999_us"].map(|name| summary[name].as_f64());
            assert!(quantiles.is_sorted() && quantiles[0].is_some(), "{path}: {summary}");
        }
    }
}

#[test]
fn hyper_answers_nothing_to_nop_and_the_body_to_echo() {
    let peer = hyper();
    let body = vec![b'x'; 300_000];
    assert_eq!(peer.post("/function/nop", b"ignored"), (200, Vec::new()));
    assert_eq!(peer.post("/function/echo", &body), (200, body));
    assert_eq!(peer.post("/function/other", b"").0, 404);
}

#[test]
fn the_hyper_front_makes_as_many_calls_as_asked() {
    assert_calls(&hyper().front("hyper-front"));
}

#[test]
fn the_tonic_front_makes_as_many_calls_as_asked_over_tcp() {
    let backend = Peer::start(&["tonic", "--listen", "tcp:127.0.0.1:0"]);
    assert_calls(&backend.front("tonic-front"));
}

#[test]
fn the_tonic_front_makes_as_many_calls_as_asked_over_a_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", directory.path().join("tonic").display());
    // Two, since the second finds what the first left.
    Peer::start(&["tonic", "--listen", &socket]).stop(Signal::SIGKILL);
    let backend = Peer::start(&["tonic", "--listen", &socket, "--threads", "2"]);
    assert_eq!(backend.address, socket);
    assert_calls(&Peer::start(&[
        "tonic-front",
        "--listen",
        "127.0.0.1:0",
        "--backend",
        &socket,
        "--threads",
        "2",
        "--backend-connections",
        "3",
    ]));
}

#[test]
fn a_fan_out_wider_than_the_pool_waits_for_its_connections() {
    let backend = hyper();
    let front = Peer::start(&[
        "hyper-front",
        "--listen",
        "127.0.0.1:0",
        "--backend",
        &backend.address,
        "--backend-connections",
        "2",
        "--threads",
        "2",
    ]);
    assert_calls(&front);
}

#[test]
fn a_front_blames_the_client_for_its_arguments_and_itself_for_the_backend() {
    let tonic = Peer::start(&["tonic", "--listen", "tcp:127.0.0.1:0"]);
    for (backend, command) in [(hyper(), "hyper-front"), (tonic, "tonic-front")] {
        let front = backend.front(command);
        assert_eq!(front.post("/function/chain", b"{").0, 400);
        assert_eq!(front.post("/function/echo", b"").0, 404);
        backend.stop(Signal::SIGKILL);
        for path in ["/function/chain", "/function/fanout"] {
            assert_eq!(front.post(path, br#"{"n":10,"size":1024}"#).0, 500, "{command}: {path}");
        }
    }
}

#[test]
fn sigterm_ends_every_server_with_0() {
    let directory = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", directory.path().join("tonic").display());
    for threads in ["1", "2"] {
        let start =
            |arguments: &[&str]| Peer::start(&[arguments, &["--threads", threads]].concat());
        let hyper = start(&["hyper", "--listen", "127.0.0.1:0"]);
        let tcp = start(&["tonic", "--listen", "tcp:127.0.0.1:0"]);
        let unix = start(&["tonic", "--listen", &socket]);
        // Fronts hold connections to the backends, which must end all the same.
        let fronts = [hyper.front("hyper-front"), tcp.front("tonic-front")];
        for peer in [hyper, tcp, unix].into_iter().chain(fronts) {
            let address = peer.address.clone();
            assert_eq!(peer.stop(Signal::SIGTERM).code(), Some(0), "{address}");
        }
    }
}

#[test]
fn iceoryx2_counts_every_round_trip_between_two_processes() {
    for mode in ["event", "busy"] {
        let output = Command::new(env!("CARGO_BIN_EXE_peer"))
            .args(["iceoryx2", "--mode", mode, "--size", "1024", "--rounds", "100"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let sample: nightcore_peers::sample::Sample =
            serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((sample.case, sample.n), (format!("iceoryx2_{mode}"), 100));
    }
}
