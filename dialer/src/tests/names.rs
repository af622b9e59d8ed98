//! A server of the DNS with a handful of records, by UDP (RFC 1035, RFC 2782).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;

const TYPE_A: u16 = 1;
const TYPE_SRV: u16 = 33;
/// Bytes of a message's head.
const HEAD: usize = 12;
/// An answer; authoritative, recursion desired and available.
const ANSWER: [u8; 2] = [0x85, 0x80];

/// An address record.
#[derive(Clone)]
pub(super) struct A(pub(super) [u8; 4]);

/// A service record: target and port.
#[derive(Clone)]
pub(super) struct Srv(pub(super) String, pub(super) u16);

/// Data of records, by name and type.
type Records = Arc<Mutex<HashMap<(String, u16), Vec<Vec<u8>>>>>;

pub(super) struct Names {
    records: Records,
    address: SocketAddr,
}

impl Names {
    pub(super) async fn serve() -> Names {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let records = Records::default();
        tokio::spawn(answer_all(socket, Arc::clone(&records)));
        Names { records, address }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn set_addresses(&self, name: &str, records: Vec<A>) {
        let data = records.into_iter().map(|A(octets)| octets.to_vec()).collect();
        self.records.lock().unwrap().insert((name.to_owned(), TYPE_A), data);
    }

    pub(super) fn set_services(&self, name: &str, records: Vec<Srv>) {
        let data = records.into_iter().map(|Srv(target, port)| {
            // Priority and weight 0.
            [&[0; 4][..], &port.to_be_bytes(), &labels(&target)].concat()
        });
        let data = data.collect();
        self.records.lock().unwrap().insert((name.to_owned(), TYPE_SRV), data);
    }
}

async fn answer_all(socket: UdpSocket, records: Records) {
    let mut buffer = [0; 1500];
    loop {
        let Ok((size, from)) = socket.recv_from(&mut buffer).await else { continue };
        if let Some(answer) = answer(&buffer[..size], &records) {
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

/// `None`: that was no question.
fn answer(message: &[u8], records: &Records) -> Option<Vec<u8>> {
    let (name, end) = question(message)?;
    let (kind, _) = message.get(end..)?.split_first_chunk::<2>()?;
    let kind = u16::from_be_bytes(*kind);
    let records = records.lock().unwrap();
    let is_known = records.keys().any(|(known, _)| *known == name);
    let found = records.get(&(name, kind)).cloned().unwrap_or_default();
    let count = u16::try_from(found.len()).unwrap();
    let mut out = message[..2].to_vec();
    out.extend_from_slice(&[ANSWER[0], ANSWER[1] | if is_known { 0 } else { 3 }]);
    for number in [1, count, 0, 0] {
        out.extend_from_slice(&u16::to_be_bytes(number));
    }
    out.extend_from_slice(message.get(HEAD..end + 4)?);
    for data in found {
        // The question's name, its type, the Internet, no time to live.
        out.extend_from_slice(&[0xc0, 12]);
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&[0, 1, 0, 0, 0, 0]);
        out.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
        out.extend_from_slice(&data);
    }
    Some(out)
}

/// The name that is asked for, and where it ends.
fn question(message: &[u8]) -> Option<(String, usize)> {
    let (mut name, mut at) = (String::new(), HEAD);
    loop {
        let size = usize::from(*message.get(at)?);
        at += 1;
        if size == 0 {
            return Some((name.to_ascii_lowercase(), at));
        }
        name.push_str(std::str::from_utf8(message.get(at..at + size)?).ok()?);
        name.push('.');
        at += size;
    }
}

fn labels(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.trim_end_matches('.').split('.') {
        out.push(u8::try_from(label.len()).unwrap());
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out
}
