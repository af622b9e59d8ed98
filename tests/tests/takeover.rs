//! A gateway and its successors on one host: who comes meanwhile notices nothing.

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nightcore_tests::client::Body;
use nightcore_tests::gateway::{Gateway, Site};
use nightcore_tests::{Connection, get, wait_until};
use nix::sys::signal::Signal;

const CONFIG: &str = "[gateway]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n\
                      [engine]\nshards = 2\n";
/// Clients that keep their connection, and as many that come anew each time.
const CLIENTS: usize = 6;
/// Between two requests of a client.
const PERIOD: Duration = Duration::from_millis(4);
/// A draining gateway lets a connection be idle for half a second before it closes it: whoever pauses
/// longer may see it closed under his next request. Clocks are read at different moments, hence the
/// margin.
const PAUSE_MAX: Duration = Duration::from_millis(400);

/// Requests in the open until it is over.
struct Visitors {
    address: SocketAddr,
    over: AtomicBool,
    answered: AtomicU64,
}

impl Visitors {
    fn new(address: SocketAddr) -> Visitors {
        Visitors { address, over: AtomicBool::new(false), answered: AtomicU64::new(0) }
    }

    /// Runs `during` under load, in which every request must get its answer.
    fn expect_no_loss<T>(&self, during: impl FnOnce() -> T) -> T {
        thread::scope(|scope| {
            for client in 0..CLIENTS {
                scope.spawn(move || self.stay(client));
                scope.spawn(move || self.come_and_go(client));
            }
            self.wait_for_more();
            let end = Over(&self.over);
            let result = during();
            self.wait_for_more();
            drop(end);
            result
        })
    }

    /// Waits for some hundred answers.
    fn wait_for_more(&self) {
        // SYNC(answered): a plain counter; it carries no other data.
        let before = self.answered.load(Ordering::Relaxed);
        wait_until("the load goes on", || self.answered.load(Ordering::Relaxed) >= before + 200);
    }

    fn turns(&self) -> impl Iterator<Item = u32> + '_ {
        let begin = Instant::now();
        (0..).take_while(move |turn| {
            thread::sleep((begin + PERIOD * *turn).saturating_duration_since(Instant::now()));
            // SYNC(over): pairs with the store in `Over::drop`.
            !self.over.load(Ordering::Relaxed)
        })
    }

    /// A client that keeps its connection until it is told that an answer was the last.
    fn stay(&self, client: usize) {
        let mut kept: Option<(Connection, Instant)> = None;
        for turn in self.turns() {
            kept = kept.filter_map_ended();
            let (mut connection, since) = kept.take().unwrap_or_else(|| {
                let connection = Connection::open(self.address).expect("no connection is refused");
                (connection, Instant::now())
            });
            let id = format!("stay-{client}-{turn}");
            let pause = since.elapsed();
            let sent = connection.try_send(&request(&id, "keep-alive"));
            match sent.and_then(|()| connection.try_read(Body::Present)) {
                Ok(Some(answer)) => {
                    answer.ok();
                    assert_eq!(answer.header("x-request-id"), Some(id.as_str()));
                    // SYNC(answered): a plain counter.
                    self.answered.fetch_add(1, Ordering::Relaxed);
                    if !answer.is_last() {
                        kept = Some((connection, Instant::now()));
                    }
                }
                _ if pause > PAUSE_MAX => {}
                failed => panic!("{id}, {pause:?} after the last one: {failed:?}"),
            }
        }
    }

    /// A client with a connection for each request.
    fn come_and_go(&self, client: usize) {
        for turn in self.turns() {
            let began = Instant::now();
            let mut connection = Connection::open(self.address).expect("no connection is refused");
            let id = format!("fresh-{client}-{turn}");
            let sent = connection.try_send(&request(&id, "close"));
            let pause = began.elapsed();
            match sent.and_then(|()| connection.try_read(Body::Present)) {
                Ok(Some(answer)) => {
                    answer.ok();
                    assert_eq!(answer.header("x-request-id"), Some(id.as_str()));
                    connection.expect_end();
                    // SYNC(answered): a plain counter.
                    self.answered.fetch_add(1, Ordering::Relaxed);
                }
                _ if pause > PAUSE_MAX => {}
                failed => panic!("{id}, {pause:?} after it connected: {failed:?}"),
            }
        }
    }
}

/// Ends the load, also when the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        // SYNC(over): pairs with the load in `Visitors::turns`; it carries no other data.
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Forgets a connection that was closed while nothing was under way.
trait Kept: Sized {
    fn filter_map_ended(self) -> Self;
}

impl Kept for Option<(Connection, Instant)> {
    fn filter_map_ended(self) -> Self {
        self.and_then(|(mut connection, since)| {
            (!connection.has_ended()).then_some((connection, since))
        })
    }
}

fn request(id: &str, connection: &str) -> Vec<u8> {
    format!(
        "GET /healthz HTTP/1.1\r\nHost: test\r\nX-Request-Id: {id}\r\nConnection: {connection}\r\n\r\n"
    )
    .into_bytes()
}

/// A site and its first gateway.
fn start() -> (Site, Gateway) {
    let site = Site::new(CONFIG);
    let gateway = site.start(&[]);
    (site, gateway)
}

fn status(address: SocketAddr, path: &str) -> u16 {
    Connection::open(address).expect("it takes connections").exchange(&get(path)).status
}

/// Of a process that can be taken over.
fn admin_socket(site: &Site, gateway: &Gateway) -> UnixStream {
    let path = site.runtime_dir().join(format!("nightcore-{}", gateway.process().pid));
    UnixStream::connect(path.join("admin.sock")).expect("it listens")
}

fn ask_to_hand_over(site: &Site, gateway: &Gateway) -> UnixStream {
    use std::io::Write;
    let mut stream = admin_socket(site, gateway);
    stream.write_all(b"{\"request\":\"hand_over\"}\n").expect("it reads");
    stream
}

#[test]
fn three_successors_in_a_row_lose_no_request_and_refuse_no_connection() {
    let (site, mut gateway) = start();
    let address = gateway.address().expect("it serves");
    let admin = gateway.admin_address().expect("it has a port for it");
    let visitors = Visitors::new(address);
    let mut last = visitors.expect_no_loss(|| {
        for _ in 0..3 {
            let successor = site.start(&["--takeover"]);
            assert_eq!(successor.address(), Some(address));
            assert_eq!(successor.admin_address(), Some(admin));
            assert_eq!(gateway.wait(), Some(0), "{}", gateway.stderr());
            assert!(!gateway.stderr().contains("WARN"), "{}", gateway.stderr());
            gateway = successor;
            visitors.wait_for_more();
        }
        gateway
    });
    assert_eq!(status(admin, "/metrics"), 200);
    last.signal(Signal::SIGTERM);
    assert_eq!(last.wait(), Some(0), "{}", last.stderr());
    assert!(Connection::open(address).is_err(), "nobody listens any more");
}

#[test]
fn a_successor_that_dies_half_way_changes_nothing_and_the_next_one_takes_over() {
    let (site, mut gateway) = start();
    let address = gateway.address().expect("it serves");
    let visitors = Visitors::new(address);
    visitors.expect_no_loss(|| {
        // Killed at moments from before it asks until after it has the sockets.
        for delay_ms in [0_u64, 3, 6, 10, 15, 20] {
            let mut successor = site.launch("gateway", &["--takeover"]);
            thread::sleep(Duration::from_millis(delay_ms));
            // One that serves already may not be killed without loss.
            successor.signal(Signal::SIGSTOP);
            wait_until("it is held", || successor.process().is_stopped() || successor.has_ended());
            if gateway.stderr().contains("a successor serves") || successor.address().is_some() {
                successor.signal(Signal::SIGCONT);
                assert_eq!(gateway.wait(), Some(0), "{}", gateway.stderr());
                gateway = successor;
                continue;
            }
            successor.signal(Signal::SIGKILL);
            assert_eq!(successor.wait(), None);
            assert!(!gateway.has_ended(), "{}", gateway.stderr());
        }
        let successor = site.start(&["--takeover"]);
        assert_eq!(gateway.wait(), Some(0), "{}", gateway.stderr());
        gateway = successor;
    });
    assert_eq!(status(address, "/healthz"), 200);
}

#[test]
fn a_successor_that_has_the_sockets_and_breaks_off_leaves_the_gateway_serving() {
    use std::io::{BufRead, BufReader, Write};
    let (site, mut gateway) = start();
    let address = gateway.address().expect("it serves");
    let visitors = Visitors::new(address);
    visitors.expect_no_loss(|| {
        for words in [
            String::new(),
            "garbage\n".to_owned(),
            "{\"word\":\"serving\"}\n".to_owned(),
            format!("{{\"word\":\"taken\",\"listeners\":[\"{address}\"]}}\n"),
        ] {
            // The one before may not be over yet.
            wait_until("it offers its sockets", || {
                let mut stream = ask_to_hand_over(&site, &gateway);
                let mut offer = String::new();
                BufReader::new(&stream).read_line(&mut offer).expect("an answer");
                let offers = offer.contains(&format!("\"address\":\"{address}\""));
                assert!(offers || offer.contains("\"error\":\"busy\""), "{offer}");
                if offers {
                    stream.write_all(words.as_bytes()).expect("it reads");
                }
                offers
            });
        }
        // They are over when the next one is let in.
        let successor = wait_for_successor(&site);
        assert_eq!(gateway.wait(), Some(0), "{}", gateway.stderr());
        gateway = successor;
    });
    assert_eq!(status(address, "/healthz"), 200);
}

/// A successor that may come too early, while the gateway is still busy with another.
fn wait_for_successor(site: &Site) -> Gateway {
    let mut found = None;
    wait_until("a successor is let in", || {
        let mut successor = site.launch("gateway", &["--takeover"]);
        wait_until("it serves or ends", || successor.address().is_some() || successor.has_ended());
        found = successor.address().is_some().then_some(successor);
        found.is_some()
    });
    found.expect("it was waited for")
}

#[test]
fn of_two_successors_at_once_the_second_is_refused() {
    use std::io::{BufRead, BufReader};
    let (site, mut gateway) = start();
    let address = gateway.address().expect("it serves");
    let first = ask_to_hand_over(&site, &gateway);
    let mut offer = String::new();
    BufReader::new(&first).read_line(&mut offer).expect("an offer");
    let mut second = site.launch("gateway", &["--takeover"]);
    assert_eq!(second.wait(), Some(1));
    let words = "another process is taking over";
    assert!(second.stderr().contains(words), "{}", second.stderr());
    assert!(!gateway.has_ended());
    assert_eq!(status(address, "/healthz"), 200);
    drop(first);
    drop(wait_for_successor(&site));
    assert_eq!(gateway.wait(), Some(0), "{}", gateway.stderr());
}

#[test]
fn a_successor_whose_configuration_is_wrong_ends_with_2_and_the_gateway_serves_on() {
    let (site, mut gateway) = start();
    let address = gateway.address().expect("it serves");
    site.configure(&CONFIG.replace("listen", "liste"));
    let mut successor = site.launch("gateway", &["--takeover"]);
    assert_eq!(successor.wait(), Some(2));
    assert!(successor.stderr().contains("gateway.toml:2: "), "{}", successor.stderr());
    assert!(!gateway.has_ended());
    assert_eq!(status(address, "/healthz"), 200);
}

#[test]
fn a_successor_that_cannot_bind_another_address_ends_with_1_and_the_gateway_serves_on() {
    let (site, mut gateway) = start();
    let address = gateway.address().expect("it serves");
    let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = holder.local_addr().expect("an address").to_string();
    site.configure(
        &CONFIG.replace("admin_listen = \"127.0.0.1:0\"", &format!("admin_listen = \"{taken}\"")),
    );
    let mut successor = site.launch("gateway", &["--takeover"]);
    assert_eq!(successor.wait(), Some(1));
    assert!(successor.stderr().contains(&taken), "{}", successor.stderr());
    assert!(!gateway.has_ended());
    assert_eq!(status(address, "/healthz"), 200);
    drop(holder);
}

#[test]
fn a_successor_of_another_address_leaves_the_old_one_to_close() {
    let (site, mut gateway) = start();
    let (address, admin) = (gateway.address().expect("it serves"), gateway.admin_address());
    site.configure(
        &CONFIG.replace("listen = \"127.0.0.1:0\"\nadmin", "listen = \"127.0.0.2:0\"\nadmin"),
    );
    let successor = site.start(&["--takeover"]);
    assert_eq!(gateway.wait(), Some(0), "{}", gateway.stderr());
    let new = successor.address().expect("it serves");
    assert_ne!(new.ip(), address.ip());
    assert_eq!(successor.admin_address(), admin, "that one is taken over");
    assert_eq!(status(new, "/healthz"), 200);
    assert!(Connection::open(address).is_err(), "nobody listens there any more");
}

#[test]
fn without_a_gateway_there_is_nothing_to_take_over_and_it_starts_as_usual() {
    let site = Site::new(CONFIG);
    let gateway = site.start(&["--takeover"]);
    assert_eq!(status(gateway.address().expect("it serves"), "/healthz"), 200);
    assert!(gateway.stderr().contains("there is none to take over"), "{}", gateway.stderr());
}

#[test]
fn a_gateway_has_no_functions_to_deploy_remove_or_read_the_output_of() {
    let (site, _gateway) = start();
    let library = site.config();
    let library = library.to_str().expect("UTF-8");
    for arguments in [&["deploy", "f", "--library", library][..], &["rm", "f"], &["logs"]] {
        let output = site.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("this is a gateway, which has no functions"), "{text}");
    }
}
