//! Packets of the control socket, through a real one. What is no message is an error; what is one is
//! sent again as the same bytes, but for control characters in a container's words; descriptors that
//! come along are closed or handed over, never lost.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use ipc::control::{ControlError, ControlSocket, FromLauncher, PACKET_MAX, TEXT_MAX, ToLauncher};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recv, sendmsg, socketpair,
};

use crate::input::Input;

/// More than belong to any message.
const DESCRIPTORS: usize = 5;
/// Magic, version and kind.
const HEAD_SIZE: usize = 8;

/// The first byte says how many descriptors come with the packet, which is the rest.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let descriptors = usize::from(input.u8()) % DESCRIPTORS;
    let packet = input.rest();
    if packet.is_empty() {
        return;
    }
    let (stranger, ours) = pair();
    let ours = ControlSocket::from(ours);
    to_engine(&stranger, &ours, packet, descriptors);
    to_launcher(&stranger, &ours, packet, descriptors);
}

fn to_engine(stranger: &OwnedFd, ours: &ControlSocket, packet: &[u8], descriptors: usize) {
    let free = lowest_free();
    send(stranger, packet, descriptors);
    match ours.receive_from_launcher() {
        Ok(Some(message)) => {
            assert_eq!(descriptors, 0, "the engine takes no descriptors: {message:?}");
            ours.send_to_engine(&message).expect("what was received can be sent");
            let again = sent(stranger);
            let (words_at, words) = match &message {
                FromLauncher::Hello { .. } => (packet.len(), ""),
                FromLauncher::Refused { message } => (HEAD_SIZE, message.as_str()),
                FromLauncher::SpawnFailed { message, .. } => (HEAD_SIZE + 4, message.as_str()),
            };
            assert!(!words.chars().any(char::is_control), "{message:?}");
            let is_same = packet[words_at..] == *words.as_bytes() && words.len() <= TEXT_MAX;
            let kept = if is_same { packet } else { &packet[..words_at] };
            assert!(again.starts_with(kept) && (!is_same || again.len() == packet.len()));
        }
        Ok(None) => panic!("a packet was there"),
        Err(error) => check(&error, packet),
    }
    assert_eq!(lowest_free(), free, "a descriptor is lost");
}

fn to_launcher(stranger: &OwnedFd, ours: &ControlSocket, packet: &[u8], descriptors: usize) {
    let free = lowest_free();
    send(stranger, packet, descriptors);
    match ours.receive_from_engine() {
        Ok((message, received)) => {
            assert_eq!(received.len(), message.descriptors(), "{message:?}");
            let fits = match &message {
                ToLauncher::Welcome { function, .. } => function.len() <= TEXT_MAX,
                _ => true,
            };
            let borrowed: Vec<BorrowedFd<'_>> = received.iter().map(AsFd::as_fd).collect();
            assert_eq!(ours.send_to_launcher(&message, &borrowed).is_ok(), fits);
            if fits {
                assert_eq!(sent(stranger), packet, "{message:?}");
            }
        }
        Err(error) => check(&error, packet),
    }
    assert_eq!(lowest_free(), free, "a descriptor is lost");
}

/// An error that these bytes can give, in one line.
fn check(error: &ControlError, packet: &[u8]) {
    assert!(!error.to_string().contains('\n'));
    match error {
        ControlError::Version { got } => assert_eq!(got.to_le_bytes(), packet[4..6]),
        ControlError::Malformed(_) | ControlError::Descriptors { .. } => {}
        other => panic!("{other}"),
    }
}

fn pair() -> (OwnedFd, OwnedFd) {
    let flags = SockFlag::SOCK_CLOEXEC;
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).expect("a socket pair")
}

fn send(stranger: &OwnedFd, packet: &[u8], descriptors: usize) {
    let raw: Vec<RawFd> = vec![stranger.as_raw_fd(); descriptors];
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights[..] };
    let parts = [IoSlice::new(packet)];
    sendmsg::<()>(stranger.as_raw_fd(), &parts, control, MsgFlags::MSG_DONTWAIT, None)
        .expect("an empty socket takes a packet");
}

/// The packet that the other end has sent; its descriptors are dropped.
fn sent(stranger: &OwnedFd) -> Vec<u8> {
    let mut packet = [0; PACKET_MAX + 1];
    let size = recv(stranger.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT).expect("a packet");
    packet[..size].to_vec()
}

/// Number of the next descriptor that is opened.
fn lowest_free() -> RawFd {
    std::io::stdin().as_fd().try_clone_to_owned().expect("a descriptor").as_raw_fd()
}
