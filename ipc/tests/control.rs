//! The control socket: who may connect, what passes, what a stranger's packets do.
#![cfg(not(loom))]
#![allow(missing_docs, clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::fs::File;
use std::io::{ErrorKind, IoSlice, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use ipc::control::{
    ControlError, ControlListener, ControlSocket, FromLauncher, PACKET_MAX, PROTOCOL_VERSION,
    TEXT_MAX, ToLauncher,
};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
};
use nix::sys::stat::fstat;
use proptest::prelude::*;

/// The engine's end, and the container's for honest and for other use.
fn pair() -> (ControlSocket, ControlSocket, OwnedFd) {
    let flags = SockFlag::SOCK_CLOEXEC;
    let (engine, launcher) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
    let raw = launcher.try_clone().unwrap();
    (ControlSocket::from(engine), ControlSocket::from(launcher), raw)
}

fn hello() -> FromLauncher {
    FromLauncher::Hello { version: PROTOCOL_VERSION, pid: 7, interface: 2 }
}

/// Bytes of `message` as they are on the wire.
fn packet(message: &FromLauncher) -> Vec<u8> {
    // Sent from the other end, so that the raw one receives.
    let (sender, _receiver, raw) = pair();
    sender.send_to_engine(message).unwrap();
    let mut bytes = vec![0; PACKET_MAX];
    let size = nix::sys::socket::recv(raw.as_raw_fd(), &mut bytes, MsgFlags::empty()).unwrap();
    bytes.truncate(size);
    bytes
}

#[test]
fn the_container_connects_and_the_path_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let listener = ControlListener::bind(dir.path(), "control").unwrap();
    let path = listener.path().to_owned();
    assert!(listener.accept(std::process::id()).unwrap().is_none(), "nobody yet");
    let launcher = ControlSocket::connect(&path).unwrap();
    let engine = listener.accept(std::process::id()).unwrap().unwrap();
    assert!(!path.exists());
    launcher.send_to_engine(&hello()).unwrap();
    assert_eq!(engine.receive_from_launcher().unwrap(), Some(hello()));
    assert_eq!(engine.receive_from_launcher().unwrap(), None);
    drop(launcher);
    assert!(matches!(engine.receive_from_launcher(), Err(ControlError::Closed)));
}

#[test]
fn another_process_is_refused_and_the_container_still_gets_in() {
    let dir = tempfile::tempdir().unwrap();
    let listener = ControlListener::bind(dir.path(), "control").unwrap();
    let stranger = ControlSocket::connect(listener.path()).unwrap();
    let me = std::process::id();
    match listener.accept(me + 1) {
        Err(ControlError::Peer { expected, got }) => {
            assert_eq!((expected, u32::try_from(got)), (me + 1, Ok(me)));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(stranger.receive_from_engine(), Err(ControlError::Closed)));
    let _container = ControlSocket::connect(listener.path()).unwrap();
    assert!(listener.accept(me).unwrap().is_some());
}

/// A descriptor of a process that has not been waited for.
fn pidfd(pid: u32) -> OwnedFd {
    // SAFETY: takes two plain numbers and returns a new descriptor or -1.
    let fd = unsafe { nix::libc::syscall(nix::libc::SYS_pidfd_open, pid, 0) };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

#[test]
fn a_process_is_told_from_another_that_claims_its_pid() {
    let dir = tempfile::tempdir().unwrap();
    let listener = ControlListener::bind(dir.path(), "control").unwrap();
    let path = listener.path().to_owned();
    let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let (me, theirs) = (std::process::id(), pidfd(other.id()));
    let _stranger = ControlSocket::connect(&path).unwrap();
    // The kernel tells processes apart since Linux 6.9.
    let told = listener.accept_process(me, theirs.as_fd());
    other.kill().unwrap();
    other.wait().unwrap();
    let distinct = fstat(&theirs).unwrap().st_ino != fstat(pidfd(me)).unwrap().st_ino;
    assert_eq!(matches!(told, Err(ControlError::Impostor { pid }) if pid == me), distinct);

    let listener = ControlListener::bind(dir.path(), "next").unwrap();
    let _container = ControlSocket::connect(listener.path()).unwrap();
    assert!(listener.accept_process(me, pidfd(me).as_fd()).unwrap().is_some());
}

#[test]
fn a_listener_leaves_no_path_behind() {
    let dir = tempfile::tempdir().unwrap();
    drop(ControlListener::bind(dir.path(), "control").unwrap());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    let long = "x".repeat(200);
    assert!(ControlListener::bind(dir.path(), &long).is_err());
    assert!(ControlSocket::connect(&dir.path().join("nobody")).is_err());
}

#[test]
fn a_launchers_text_ends_no_line_and_steers_no_terminal() {
    let (engine, launcher, _raw) = pair();
    let (message, heard) = ("a\r\nERROR b\u{1b}[2J\u{85}c\0ü", "a  ERROR b [2J c ü");
    let refused = |message: &str| FromLauncher::Refused { message: message.to_owned() };
    let failed = |message: &str| FromLauncher::SpawnFailed {
        shard: 1,
        lane: 2,
        message: message.to_owned(),
    };
    for (said, heard) in [(refused(message), refused(heard)), (failed(message), failed(heard))] {
        launcher.send_to_engine(&said).unwrap();
        assert_eq!(engine.receive_from_launcher().unwrap(), Some(heard));
    }
}

#[test]
fn every_message_arrives_as_it_was_sent() {
    let (engine, launcher, _raw) = pair();
    let text = || String::from("größe: no such symbol");
    for message in [
        hello(),
        FromLauncher::Refused { message: text() },
        FromLauncher::Refused { message: String::new() },
        FromLauncher::SpawnFailed { shard: 1, lane: 2, message: text() },
    ] {
        launcher.send_to_engine(&message).unwrap();
        assert_eq!(engine.receive_from_launcher().unwrap(), Some(message));
    }
    let welcome = |function| ToLauncher::Welcome { version: 1, function, payload_max: 1 << 24 };
    for message in [
        welcome("echo".to_owned()),
        welcome("x".repeat(TEXT_MAX)),
        ToLauncher::Channel { shard: 3, lanes: 256, payload_max: 77 },
        ToLauncher::Spawn { shard: 3, lane: 255, core: None },
        ToLauncher::Spawn { shard: 3, lane: 0, core: Some(0) },
        ToLauncher::Stop,
    ] {
        let null = File::open("/dev/null").unwrap();
        let descriptors = vec![null.as_fd(); message.descriptors()];
        engine.send_to_launcher(&message, &descriptors).unwrap();
        let (received, owned) = launcher.receive_from_engine().unwrap();
        assert_eq!((&received, owned.len()), (&message, message.descriptors()));
    }
    let error = engine.send_to_launcher(&welcome("x".repeat(TEXT_MAX + 1)), &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn descriptors_arrive_in_order_and_name_the_same_files() {
    let (engine, launcher, _raw) = pair();
    let files: Vec<File> = (0u8..3)
        .map(|index| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&[index]).unwrap();
            file
        })
        .collect();
    let descriptors: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    let channel = ToLauncher::Channel { shard: 0, lanes: 1, payload_max: 1 };
    engine.send_to_launcher(&channel, &descriptors).unwrap();
    assert!(engine.send_to_launcher(&channel, &descriptors[..2]).is_err(), "a channel has three");
    assert!(engine.send_to_launcher(&ToLauncher::Stop, &descriptors[..1]).is_err());
    let (_, owned) = launcher.receive_from_engine().unwrap();
    for (index, fd) in (0u8..).zip(owned) {
        let mut file = File::from(fd);
        file.rewind().unwrap();
        let mut byte = [9];
        file.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [index]);
    }
}

#[test]
fn a_long_message_is_cut_between_characters() {
    let (engine, launcher, _raw) = pair();
    launcher.send_to_engine(&FromLauncher::Refused { message: "ü".repeat(2000) }).unwrap();
    let Some(FromLauncher::Refused { message }) = engine.receive_from_launcher().unwrap() else {
        panic!("another message");
    };
    assert_eq!(message, "ü".repeat(TEXT_MAX / 2));
}

#[test]
fn a_launcher_that_reads_nothing_does_not_block_the_engine() {
    let (engine, _launcher, _raw) = pair();
    let error = loop {
        if let Err(error) = engine.send_to_launcher(&ToLauncher::Stop, &[]) {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_launcher_that_is_gone_is_an_error_and_no_signal() {
    let (engine, launcher, raw) = pair();
    drop((launcher, raw));
    assert!(engine.send_to_launcher(&ToLauncher::Stop, &[]).is_err());
}

#[test]
fn short_long_and_odd_packets_are_errors() {
    let (engine, _launcher, raw) = pair();
    let refused = |bytes: &[u8]| {
        nix::unistd::write(&raw, bytes).unwrap();
        engine.receive_from_launcher().unwrap_err()
    };
    let good = packet(&hello());
    for end in 1..good.len() {
        assert!(matches!(refused(&good[..end]), ControlError::Malformed("too short")), "{end}");
    }
    let long = [&good[..], &[0]].concat();
    assert!(matches!(refused(&long), ControlError::Malformed("too long")));
    assert!(matches!(refused(&[0; PACKET_MAX + 1]), ControlError::Malformed(_)));
    let changed = |at: usize, byte| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    assert!(matches!(refused(&changed(0, b'X')), ControlError::Malformed("no magic word")));
    assert!(matches!(refused(&changed(4, 2)), ControlError::Version { got: 2 }));
    assert!(matches!(refused(&changed(6, 1)), ControlError::Malformed(_)), "an engine's kind");
    assert!(matches!(refused(&changed(16, 3)), ControlError::Malformed(_)), "no interface 3");
    let text = packet(&FromLauncher::Refused { message: "abc".into() });
    assert!(matches!(refused(&[&text[..], &[0xff]].concat()), ControlError::Malformed(_)));
}

#[test]
fn a_container_cannot_hand_the_engine_a_descriptor() {
    let (engine, _launcher, raw) = pair();
    let (read, write) = nix::unistd::pipe().unwrap();
    let fds = [write.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&fds)];
    let bytes = packet(&hello());
    let parts = [IoSlice::new(&bytes)];
    sendmsg::<()>(raw.as_raw_fd(), &parts, &rights, MsgFlags::empty(), None).unwrap();
    let error = engine.receive_from_launcher().unwrap_err();
    assert!(matches!(error, ControlError::Descriptors { .. }));
    drop(write);
    assert_eq!(nix::unistd::read(&read, &mut [0]), Ok(0), "nobody holds the pipe's other end");
}

proptest! {
    #[test]
    fn random_packets_never_panic(
        kind in any::<u16>(), body in prop::collection::vec(any::<u8>(), 0..40)
    ) {
        let (engine, launcher, raw) = pair();
        let mut bytes = packet(&hello())[..6].to_vec();
        bytes.extend(kind.to_le_bytes());
        bytes.extend(body);
        nix::unistd::write(&raw, &bytes).unwrap();
        let _ = engine.receive_from_launcher();
        nix::unistd::write(&engine, &bytes).unwrap();
        let _ = launcher.receive_from_engine();
    }
}
