//! The real `nightcore-worker` as a child, with the test as its engine on the control socket.

#![allow(clippy::unwrap_used)]

mod engine;
mod libraries;

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use engine::{Engine, LANE, sleep_on};
use ipc::control::{
    ControlError, ControlListener, ControlSocket, FromLauncher, PROTOCOL_VERSION, ToLauncher,
};
use ipc::engine_side::{ChannelFds, EngineChannel};
use ipc::{Block, Geometry, Outcome, Region, ToEngine, ToWorker};
use tempfile::TempDir;

const MIB: u32 = 1 << 20;
const V1: &str = include_str!("libraries/v1.c");

/// A container and the engine's end of its control socket.
struct Container {
    child: Child,
    control: ControlSocket,
    _directory: TempDir,
}

impl Container {
    fn start(library: impl FnOnce(&Path) -> PathBuf) -> Container {
        let directory = tempfile::tempdir().unwrap();
        let library = library(directory.path());
        let listener = ControlListener::bind(directory.path(), "control").unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_nightcore-worker"))
            .args(["--function", "tested", "--library"])
            .arg(library)
            .env("NIGHTCORE_SOCKET", listener.path())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let control = loop {
            sleep_on(listener.as_fd());
            if let Some(control) = listener.accept(child.id()).unwrap() {
                break control;
            }
        };
        Container { child, control, _directory: directory }
    }

    fn welcomed(source: &str) -> Container {
        let container = Container::start(|dir| libraries::compile(dir, "tested", source));
        let FromLauncher::Hello { version, pid, interface } = container.receive().unwrap() else {
            panic!("no hello");
        };
        assert_eq!((version, pid, interface), (PROTOCOL_VERSION, container.child.id(), 1));
        let welcome = ToLauncher::Welcome {
            version: PROTOCOL_VERSION,
            function: "tested".to_owned(),
            payload_max: MIB,
        };
        container.control.send_to_launcher(&welcome, &[]).unwrap();
        container
    }

    fn receive(&self) -> Result<FromLauncher, ControlError> {
        loop {
            match self.control.receive_from_launcher()? {
                Some(message) => return Ok(message),
                None => sleep_on(self.control.as_fd()),
            }
        }
    }

    /// Gives shard 4's channel of one lane, and starts a worker there.
    fn with_worker(&self) -> Engine {
        let (mut channel, fds) = EngineChannel::create(Geometry::new(1, MIB).unwrap()).unwrap();
        self.give(&fds);
        self.spawn(&mut channel, 4);
        Engine::over(channel)
    }

    fn give(&self, fds: &ChannelFds) {
        let message = ToLauncher::Channel { shard: 4, lanes: 1, payload_max: MIB };
        let fds = [fds.a.as_fd(), fds.b.as_fd(), fds.bell.as_fd()];
        self.control.send_to_launcher(&message, &fds).unwrap();
    }

    fn spawn(&self, channel: &mut EngineChannel, shard: u16) {
        let doorbell = channel.open_lane(LANE).unwrap();
        let message = ToLauncher::Spawn { shard, lane: LANE.0, core: Some(0) };
        self.control.send_to_launcher(&message, &[doorbell.as_fd()]).unwrap();
    }

    fn output(self) -> Output {
        drop(self.control);
        self.child.wait_with_output().unwrap()
    }
}

#[test]
fn a_container_runs_calls_and_leaves_when_the_engine_does() {
    let container = Container::welcomed(V1);
    let mut engine = container.with_worker();
    assert_eq!(engine.receive(), ToEngine::Started);
    for _ in 0..100 {
        assert_eq!(engine.run(b"\x02ab").text(), "abab");
    }
    let output = container.output();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn a_lane_serves_a_second_worker_when_the_first_has_retired() {
    let container = Container::welcomed(V1);
    let mut engine = container.with_worker();
    assert_eq!(engine.receive(), ToEngine::Started);
    for round in 0..50 {
        engine.publish(&ToWorker::Retire);
        assert_eq!(engine.receive(), ToEngine::Retired, "round {round}");
        engine.channel.close_lane(LANE);
        engine.completed = 0;
        container.spawn(&mut engine.channel, 4);
        assert_eq!(engine.receive(), ToEngine::Started, "round {round}");
        assert_eq!(engine.run(b"\x01x").outcome, Outcome::Ok);
    }
    container.control.send_to_launcher(&ToLauncher::Stop, &[]).unwrap();
    assert_eq!(container.output().status.code(), Some(0));
}

#[test]
fn a_library_that_cannot_be_used_is_refused_and_the_exit_code_is_2() {
    let renamed = V1.replace("int faas_func_call(", "int renamed(");
    let container = Container::start(|dir| libraries::compile(dir, "tested", &renamed));
    let FromLauncher::Refused { message } = container.receive().unwrap() else {
        panic!("not refused");
    };
    assert!(message.contains("lacks faas_func_call"), "{message}");
    let output = container.output();
    assert_eq!(output.status.code(), Some(2));
    // The engine tells whoever started it, in its own words.
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");

    let container = Container::start(|dir| dir.join("missing.so"));
    assert!(matches!(container.receive().unwrap(), FromLauncher::Refused { .. }));
    assert_eq!(container.output().status.code(), Some(2));
}

#[test]
fn a_worker_that_cannot_start_is_told_and_the_container_goes_on() {
    let container = Container::welcomed(&V1.replace("!initialised", "initialised"));
    let mut engine = container.with_worker();
    let failed = container.receive().unwrap();
    let FromLauncher::SpawnFailed { shard: 4, lane: 0, message } = failed else {
        panic!("{failed:?}");
    };
    assert!(message.contains("returned -1"), "{message}");
    engine.channel.close_lane(LANE);
    container.spawn(&mut engine.channel, 5);
    let failed = container.receive().unwrap();
    let FromLauncher::SpawnFailed { shard: 5, lane: 0, message } = failed else {
        panic!("{failed:?}");
    };
    assert_eq!(message, "shard 5 has no channel");
    assert_eq!(container.output().status.code(), Some(0));
}

#[test]
fn an_engine_that_breaks_the_contract_ends_the_container_with_one_line() {
    let container = Container::welcomed(V1);
    let mut engine = container.with_worker();
    assert_eq!(engine.receive(), ToEngine::Started);
    let block = Block::empty(Region::Small);
    engine.publish(&ToWorker::Answer { token: 9, outcome: Outcome::Ok, block });
    assert!(matches!(container.receive(), Err(ControlError::Closed)));
    let output = container.output();
    assert_eq!(output.status.code(), None, "ends by a signal");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("function tested, lane 0: the engine answered token 9"), "{text}");
}

#[test]
fn a_wrong_command_line_exits_with_2_and_shows_the_usage() {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nightcore-worker"));
        command.args(arguments).env_remove("NIGHTCORE_SOCKET").output().unwrap()
    };
    for arguments in [&[][..], &["--library"], &["--library", "x"], &["--nonsense"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("Usage:"));
    }
    let output = run(&["--library", "x", "--function", "f"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("NIGHTCORE_SOCKET is not set"));
    assert_eq!(run(&["--help"]).status.code(), Some(0));
}
