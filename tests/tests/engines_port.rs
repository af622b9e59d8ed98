//! The port where engines join: who proves itself gets in, nobody else does, and neither waits for the
//! other. What becomes of a link later is the business of other tests.

use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use nightcore_tests::tls::Authority;
use nightcore_tests::watchdog::PATIENCE;
use nightcore_tests::{Random, Stack, functions, wait_until};
use protocol::hello::{Challenge, Hello, Key, NONCE_SIZE};
use protocol::{LinkError, VERSION};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio_rustls::TlsConnector;

/// A gateway with a port for engines.
fn start(trust: &str) -> Stack {
    let section = format!("[gateway.engines]\nlisten = \"127.0.0.1:0\"\n{trust}\n");
    Stack::start(&format!("{section}{}", functions(&["echo"])))
}

fn count(stack: &Stack, state: &str) -> u64 {
    let name = "nightcore_handshakes_total";
    stack.metric_line(&format!("{name}{{peer=\"engine\",state=\"{state}\"}}"))
}

fn hello(connection: u16) -> Hello {
    Hello {
        version_min: VERSION,
        version_max: VERSION,
        node: "host-1".into(),
        instance: 1,
        epoch: 1,
        connection,
        shards: 2,
        cores: 2,
        nonce: [7; NONCE_SIZE],
    }
}

/// Dials as an engine does, with bounded patience.
fn dial(
    stack: &Stack,
    key: Option<&Key>,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<Challenge, LinkError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let dialled = async {
        let mut stream = tokio::net::TcpStream::connect(stack.engines_address()).await?;
        let Some(tls) = tls else {
            return protocol::handshake::dial(&mut stream, &hello(0), key).await;
        };
        let name = ServerName::from(IpAddr::from(Ipv4Addr::LOCALHOST));
        let mut stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await?;
        let challenge = protocol::handshake::dial(&mut stream, &hello(0), key).await?;
        // A link that stands has something to say: its first message, a heartbeat.
        stream.read_u8().await?;
        Ok(challenge)
    };
    let bounded = async { tokio::time::timeout(PATIENCE, dialled).await };
    runtime.block_on(bounded).expect("an answer in time")
}

/// A file that only its owner can read.
fn key_file(directory: &TempDir, byte: char) -> String {
    let path = directory.path().join("link.key");
    fs::write(&path, format!("{}\n", byte.to_string().repeat(40))).expect("a file");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("it is ours");
    format!("key_file = \"{}\"", path.display())
}

fn key(byte: u8) -> Key {
    Key::new(vec![byte; 40]).expect("it is long enough")
}

#[test]
fn who_has_the_key_joins_and_nobody_else_does() {
    let directory = TempDir::new().unwrap();
    let stack = start(&key_file(&directory, 'k'));
    let first = dial(&stack, Some(&key(b'k')), None).unwrap();
    let second = dial(&stack, Some(&key(b'k')), None).unwrap();
    assert_eq!(first.instance, second.instance, "one process");
    assert_ne!(first.nonce, second.nonce, "fresh each time");
    wait_until("both are in", || count(&stack, "done") == 2);
    for stranger in [Some(key(b'x')), None] {
        let refused = dial(&stack, stranger.as_ref(), None);
        let Err(LinkError::Bye(reason)) = refused else { panic!("let in: {refused:?}") };
        assert_eq!(reason, "it could not prove that it has the key");
    }
    wait_until("both are counted", || count(&stack, "failed") == 2);
    wait_until("it is told", || {
        stack.stderr().contains("was not let in: it could not prove that it has the key")
    });
    assert_eq!(count(&stack, "done"), 2);
}

#[test]
fn who_has_a_certificate_that_is_believed_joins_and_nobody_else_does() {
    let (gateways, engines, others) = (Authority::new(), Authority::new(), Authority::new());
    let roots = engines.path("authority.pem");
    let own = gateways.lines("server");
    let stack = start(&format!("{own}authorities = \"{}\"", roots.display()));
    dial(&stack, None, Some(&engines.client_with_certificate(&gateways))).unwrap();
    wait_until("it is in", || count(&stack, "done") == 1);
    let foreign = others.client_with_certificate(&gateways);
    let nobody = gateways.client();
    for stranger in [Some(&foreign), Some(&nobody), None] {
        assert!(dial(&stack, None, stranger).is_err());
    }
    wait_until("all are counted", || count(&stack, "failed") == 3);
    assert_eq!(count(&stack, "done"), 1);
}

#[test]
fn strangers_who_talk_nonsense_or_nothing_keep_no_engine_out() {
    let directory = TempDir::new().unwrap();
    let stack = start(&key_file(&directory, 'k'));
    let connect = || {
        let socket = TcpStream::connect(stack.engines_address()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let mut random = Random::new(1);
    // More than may shake hands at once: silent ones, and some in the middle of a frame's head.
    let mut stalled: Vec<TcpStream> = (0..100).map(|_| connect()).collect();
    for socket in stalled.iter_mut().skip(50) {
        socket.write_all(&[0; 7]).unwrap();
    }
    for _ in 0..50 {
        let mut socket = connect();
        let _ = socket.write_all(&random.bytes(1000));
        match socket.read_to_end(&mut Vec::new()) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        }
    }
    dial(&stack, Some(&key(b'k')), None).unwrap();
    wait_until("it is in", || count(&stack, "done") == 1);
    assert_eq!(stack.call("echo", b"meanwhile").ok(), b"meanwhile");
    for mut socket in stalled {
        let _ = socket.read_to_end(&mut Vec::new());
    }
    wait_until("all have gone", || {
        count(&stack, "failed") + count(&stack, "displaced") == count(&stack, "started") - 1
    });
}
