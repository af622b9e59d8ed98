//! HTTP/1.1 over TLS: the same contract as on the open port, with what only TLS has.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::{fs, io};

use nightcore_tests::tls::{Authority, Secured, Stream};
use nightcore_tests::watchdog::PATIENCE;
use nightcore_tests::{Connection, Random, Stack, functions, get, post, wait_until};
use nix::sys::signal::Signal;
use rustls::{ClientConfig, HandshakeKind};

const MIB: usize = 1 << 20;
/// Below the default limit of a body, and far above what sockets buffer.
const LARGE: usize = 12 * MIB;

/// A stack with TLS, the authority of its certificate, and what clients know of that.
struct Door {
    stack: Stack,
    authority: Authority,
    client: Arc<ClientConfig>,
}

impl Door {
    fn start(names: &[&str]) -> Door {
        Door::start_with("", names, "")
    }

    /// With lines of `[gateway]`, and behind the last function.
    fn start_with(gateway: &str, names: &[&str], last: &str) -> Door {
        let authority = Authority::new();
        let tls = authority.lines("server");
        let functions = functions(names);
        let stack = Stack::start(&format!(
            "[gateway]\n{gateway}\n[gateway.tls]\nlisten = \"127.0.0.1:0\"\n{tls}{functions}{last}\n"
        ));
        let client = authority.client();
        Door { stack, authority, client }
    }

    fn address(&self) -> SocketAddr {
        self.stack.tls_address()
    }

    fn connect(&self) -> Connection {
        Connection::open_secured(self.address(), &self.client).expect("the door opens")
    }

    fn secured(&self) -> Secured {
        Secured::open(self.address(), &self.client).expect("the door opens")
    }

    fn handshakes(&self, state: &str) -> u64 {
        let name = "nightcore_handshakes_total";
        self.stack.metric_line(&format!("{name}{{peer=\"client\",state=\"{state}\"}}"))
    }
}

fn over(secured: Secured) -> Connection {
    Connection::over(Stream::Secured(Box::new(secured)))
}

fn echo(connection: &mut Connection, body: &[u8]) {
    assert!(connection.exchange(&post("/function/echo", body)).ok() == body);
}

/// A socket that has been told nothing by us yet.
fn bare(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).expect("a connection");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
    socket
}

/// Reads until the peer ends it, in whichever way.
fn read_until_closed(socket: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match socket.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
    bytes
}

#[test]
fn a_connection_is_kept_for_many_requests_of_every_size() {
    let door = Door::start(&["echo"]);
    let mut connection = door.connect();
    let mut random = Random::new(1);
    for size in [0, 1, 100, 16_383, 16_384, 16_385, 65_535, 65_536, 1 << 20] {
        for _ in 0..5 {
            echo(&mut connection, &random.bytes(size));
        }
    }
    assert_eq!(connection.exchange(&get("/healthz")).ok(), b"ok\n");
}

#[test]
fn large_bodies_and_answers_come_whole() {
    let door = Door::start(&["echo"]);
    let mut connection = door.connect();
    let mut random = Random::new(2);
    for _ in 0..2 {
        echo(&mut connection, &random.bytes(LARGE));
    }
    let answer = connection.exchange(&post("/function/echo", &random.bytes(16 * MIB + 1)));
    answer.failure(413, "payload_too_large");
}

#[test]
fn requests_sent_ahead_are_answered_in_order() {
    let door = Door::start(&["echo"]);
    let mut connection = door.connect();
    let bodies: Vec<Vec<u8>> = (0..100).map(|number| format!("{number}").into_bytes()).collect();
    let requests: Vec<u8> = bodies.iter().flat_map(|body| post("/function/echo", body)).collect();
    connection.send(&requests);
    for body in &bodies {
        assert_eq!(connection.read().ok(), body);
    }
    // The same in records of one byte each.
    for byte in post("/function/echo", b"drop by drop") {
        connection.send(&[byte]);
    }
    assert_eq!(connection.read().ok(), b"drop by drop");
}

#[test]
fn a_request_that_comes_with_the_end_of_the_handshake_is_answered() {
    let door = Door::start(&["echo"]);
    for _ in 0..20 {
        let request = post("/function/echo", b"no time to lose");
        let secured = Secured::open_with(door.address(), &door.client, &request);
        let mut connection = over(secured.expect("the door opens"));
        assert_eq!(connection.read().ok(), b"no time to lose");
        echo(&mut connection, b"and again");
    }
}

#[test]
fn a_slow_reader_keeps_no_worker_from_others() {
    let door = Door::start_with("", &["echo"], "max_workers = 1\n");
    let mut random = Random::new(3);
    let body = random.bytes(LARGE);
    let mut slow: Vec<Connection> = (0..3).map(|_| door.connect()).collect();
    for connection in &mut slow {
        connection.send(&post("/function/echo", &body));
        echo(&mut door.connect(), b"meanwhile");
    }
    for connection in &mut slow {
        assert!(connection.read().ok() == body);
    }
}

#[test]
fn who_ends_its_half_still_gets_the_answer_and_a_proper_end() {
    let door = Door::start(&["echo", "sleep"]);
    let request = [get("/healthz"), post("/function/sleep", b"{\"ms\": 50}")].concat();
    // By TLS alone, by TLS and the socket, and by the socket alone.
    let mut by_word = door.secured();
    by_word.write_all(&request).unwrap();
    by_word.say_end().unwrap();
    let mut by_both = door.connect();
    by_both.send(&request);
    by_both.end_sending();
    let mut by_socket = door.secured();
    by_socket.write_all(&request).unwrap();
    by_socket.socket().shutdown(Shutdown::Write).unwrap();
    for mut connection in [over(by_word), by_both, over(by_socket)] {
        assert_eq!(connection.read().ok(), b"ok\n");
        assert_eq!(connection.read().status, 200);
        connection.expect_end();
    }
    let mut half = door.connect();
    half.send(b"POST /function/echo HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhe");
    half.end_sending();
    half.read().failure(400, "bad_request");
    half.expect_end();
}

#[test]
fn every_end_of_ours_is_told_by_tls() {
    let door = Door::start_with("idle_timeout = \"2s\"", &["echo"], "");
    let mut idle = door.connect();
    idle.expect_end();
    let mut last = door.connect();
    let request = "GET /healthz HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
    assert!(last.exchange(request.as_bytes()).is_last());
    last.expect_end();
}

#[test]
fn keys_change_in_the_middle_of_a_session() {
    let door = Door::start(&["echo"]);
    let mut secured = door.secured();
    let mut answer = [0; 4096];
    for round in 0..5 {
        secured.refresh_keys().unwrap();
        let body = format!("round {round}");
        secured.write_all(&post("/function/echo", body.as_bytes())).unwrap();
        let mut size = 0;
        while !answer[..size].ends_with(body.as_bytes()) {
            let count = secured.read(&mut answer[size..]).unwrap();
            assert!(count > 0);
            size += count;
        }
    }
}

#[test]
fn a_session_goes_on_in_the_next_connection_and_over_a_reload() {
    let door = Door::start(&["echo"]);
    let visit = || {
        let secured = door.secured();
        let kind = secured.kind();
        echo(&mut over(secured), b"which brings the tickets");
        kind
    };
    assert_eq!(visit(), Some(HandshakeKind::Full));
    assert_eq!(visit(), Some(HandshakeKind::Resumed));
    door.stack.signal(Signal::SIGHUP);
    wait_until("it has reloaded", || door.stack.stderr().contains("reloaded "));
    assert_eq!(visit(), Some(HandshakeKind::Resumed));
}

#[test]
fn another_certificate_is_taken_without_losing_a_connection() {
    let door = Door::start(&["echo"]);
    // A new client each time, for a session that goes on shows no certificate.
    let shown = || {
        let secured = Secured::open(door.address(), &door.authority.client()).unwrap();
        secured.certificate().map(<[u8]>::to_vec)
    };
    let mut former = door.connect();
    echo(&mut former, b"before");
    let first = shown();
    door.authority.sign("server");
    assert_eq!(shown(), first, "nobody has said that there is another one");
    door.stack.signal(Signal::SIGHUP);
    wait_until("the new certificate is shown", || shown() != first);
    let second = shown();
    echo(&mut former, b"after");

    fs::write(door.authority.path("server.pem"), "no certificate").unwrap();
    door.stack.signal(Signal::SIGHUP);
    let refused = "server.pem: expected a certificate in PEM, found none";
    wait_until("the file is refused", || door.stack.stderr().contains(refused));
    assert_eq!(shown(), second, "the former one stays");
    echo(&mut former, b"still");
}

#[test]
fn what_is_no_handshake_is_closed_with_an_alert_and_told_once_a_second() {
    let door = Door::start(&["echo"]);
    for _ in 0..20 {
        let mut socket = bare(door.address());
        socket.write_all(&get("/healthz")).unwrap();
        let bytes = read_until_closed(&mut socket);
        // A fatal alert, in cleartext.
        assert_eq!((bytes.first(), bytes.get(5)), (Some(&21), Some(&2)), "{bytes:?}");
    }
    wait_until("all are counted", || door.handshakes("failed") == 20);
    let lines = door.stack.stderr();
    let told = lines.lines().filter(|line| line.contains("was not let in")).count();
    assert!((1..20).contains(&told), "{lines}");
    echo(&mut door.connect(), b"well-behaved");
}

#[test]
fn garbage_within_a_session_ends_that_connection_alone() {
    let door = Door::start(&["echo"]);
    let mut good = door.connect();
    let mut random = Random::new(4);
    for round in 0..10 {
        let mut secured = door.secured();
        secured.write_all(&post("/function/echo", b"hello")).unwrap();
        let garbage = match round % 3 {
            // A record that cannot be opened, bytes that are no record, a record over the limit.
            0 => [&[23, 3, 3, 0, 100][..], &random.bytes(100)].concat(),
            1 => random.bytes(1000),
            _ => [&[23, 3, 3, 0xff, 0xff][..], &random.bytes(20_000)].concat(),
        };
        secured.socket().write_all(&garbage).unwrap();
        let mut answers = Vec::new();
        let ended = secured.read_to_end(&mut answers);
        assert!(ended.is_err(), "no good order for garbage");
        echo(&mut good, b"undisturbed");
    }
}

#[test]
fn half_a_handshake_is_closed_in_time() {
    let door = Door::start(&["echo"]);
    let mut stalled: Vec<TcpStream> = (0..3).map(|_| bare(door.address())).collect();
    // The beginning of a record that never ends; one says nothing at all.
    for socket in &mut stalled[1..] {
        socket.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).unwrap();
    }
    echo(&mut door.connect(), b"meanwhile");
    for socket in &mut stalled {
        read_until_closed(socket);
    }
    wait_until("all are counted", || door.handshakes("failed") == 3);
    wait_until("it is told", || door.stack.stderr().contains("it took longer than 5s"));
}

#[test]
fn hundreds_that_say_nothing_keep_nobody_out() {
    let door = Door::start(&["echo"]);
    let mut former = door.connect();
    let mut stalled: Vec<TcpStream> = (0..300).map(|_| bare(door.address())).collect();
    wait_until("all have come", || door.handshakes("started") >= 301);
    for _ in 0..20 {
        echo(&mut door.connect(), b"new");
        echo(&mut former, b"old");
    }
    // Those that were not displaced may have run out of time by now.
    assert!(door.handshakes("displaced") + door.handshakes("failed") >= 300 - 256);
    // The first to come were the first to go.
    read_until_closed(&mut stalled[0]);
}

#[test]
fn connections_over_the_limit_are_told_so() {
    let door = Door::start_with("connections_max = 2", &["echo"], "[engine]\nshards = 1\n");
    let mut first = door.connect();
    let mut second = door.connect();
    echo(&mut first, b"one");
    echo(&mut second, b"two");
    let mut third = door.connect();
    third.read().failure(503, "too_many_connections");
    third.expect_end();
    echo(&mut first, b"goes on");
}

#[test]
fn a_stop_answers_what_has_come_and_does_not_wait_for_handshakes() {
    let door = Door::start(&["echo", "sleep"]);
    let mut busy = door.connect();
    busy.send(&post("/function/sleep", b"{\"ms\": 2000}"));
    wait_until("the call runs", || door.stack.count("sleep", "running") == 1);
    let _stalled: Vec<TcpStream> = (0..3).map(|_| bare(door.address())).collect();
    wait_until("they have come", || door.handshakes("started") >= 4);
    let Door { stack, .. } = door;
    stack.signal(Signal::SIGTERM);
    let answer = busy.read();
    assert_eq!(answer.status, 200);
    busy.expect_end();
    drop(busy);
    let ended = stack.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

#[test]
fn each_port_speaks_its_own_protocol_over_tls() {
    let http2 = "[gateway.http2]\nlisten = \"127.0.0.1:0\"\ntls_listen = \"127.0.0.1:0\"\n";
    let door = Door::start_with("", &["echo"], http2);
    let ports = [
        (door.address(), &b"http/1.1"[..], &b"h2"[..]),
        (door.stack.http2_tls_address(), &b"h2"[..], &b"http/1.1"[..]),
    ];
    for (address, spoken, other) in ports {
        let offer = |protocol: &[u8]| {
            let mut client = ClientConfig::clone(&door.client);
            client.alpn_protocols = vec![protocol.to_vec()];
            Secured::open(address, &Arc::new(client))
        };
        assert!(offer(other).is_err());
        let mut secured = offer(spoken).unwrap();
        assert_eq!(secured.protocol(), Some(spoken));
        if spoken == b"h2" {
            // The preface and empty settings are answered by settings.
            secured.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
            secured.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).unwrap();
            let mut head = [0; 9];
            secured.read_exact(&mut head).unwrap();
            assert_eq!(head[3], 4, "settings come first: {head:?}");
        } else {
            echo(&mut over(secured), b"as ever");
        }
    }
}

#[test]
fn curl_believes_the_certificate() {
    let door = Door::start(&["echo"]);
    let url = format!("https://{}/function/echo", door.address());
    let authority = door.authority.path("authority.pem");
    let curl = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "30", "--http1.1", "--cacert"])
        .arg(&authority)
        .args(["--data-binary", "hello", &url, &url])
        .output();
    match curl {
        Err(error) if error.kind() == io::ErrorKind::NotFound => eprintln!("skipped: no curl here"),
        curl => {
            let output = curl.expect("curl can be run");
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.stdout, b"hellohello", "{errors}");
        }
    }
}
