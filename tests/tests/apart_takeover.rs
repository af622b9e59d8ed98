//! A gateway and its successor with an engine of another process: calls go on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use nightcore_tests::client::Body;
use nightcore_tests::gateway::Site;
use nightcore_tests::{Connection, functions, get, post, wait_until};

/// Between two calls of a client.
const PERIOD: Duration = Duration::from_millis(5);
const CLIENTS: usize = 4;
const CALLS: u64 = 100;

/// Where engines join, as the gateway's configuration has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Port,
    Path,
}

#[test]
fn calls_of_an_engine_elsewhere_go_on_while_gateways_take_over_from_each_other() {
    go_on(Way::Port);
}

#[test]
fn calls_of_a_neighbour_go_on_while_gateways_take_over_from_each_other() {
    go_on(Way::Path);
}

fn go_on(way: Way) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("engines.sock");
    let place = match way {
        Way::Port => "listen = \"127.0.0.1:0\"".to_owned(),
        Way::Path => format!("path = \"{}\"", path.display()),
    };
    let site = Site::new(&format!(
        "[gateway]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n\
         [gateway.engines]\n{place}\ninsecure = true\n[engine]\nshards = 2\n"
    ));
    let mut gateway = site.start(&[]);
    let address = gateway.address().expect("it serves");
    let engines = match way {
        Way::Port => gateway.engines_address().expect("it has a port for engines").to_string(),
        Way::Path => format!("unix:{}", path.display()),
    };
    let host = Site::new(&format!(
        "[engine]\nshards = 2\nnode = \"host-1\"\ngateways = [\"{engines}\"]\n\
         [engine.link]\ninsecure = true\n{}",
        functions(&["echo"])
    ));
    let _engine = host.launch("engine", &[]);
    let call = || {
        let mut connection = Connection::open(address).expect("no connection is refused");
        connection.exchange(&post("/function/echo", b"x")).status
    };
    wait_until("the engine has joined", || call() == 200);
    let admin = gateway.admin_address().expect("it serves");
    let engines = || {
        let mut connection = Connection::open(admin).expect("it accepts");
        connection.exchange(&get("/v1/engines")).json()["engines"].clone()
    };
    // Of every shard: a connection may come to any.
    wait_until("all links have come", || engines()[0]["links"] == 2);
    wait_until("all of them have the function", || (0..20).all(|_| call() == 200));

    let (over, answered) = (&AtomicBool::new(false), &AtomicU64::new(0));
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || {
                // SYNC(over): carries no other data.
                for number in (0..).take_while(|_: &u32| !over.load(Ordering::Relaxed)) {
                    thread::sleep(PERIOD);
                    let mut connection = Connection::open(address).expect("no refusal");
                    let body = format!("{client}-{number}");
                    connection.send(&post("/function/echo", body.as_bytes()));
                    let answer = connection.try_read(Body::Present).expect("an answer");
                    assert_eq!(answer.expect("an answer").ok(), body.as_bytes());
                    // SYNC(answered): a plain counter.
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let end = Over(over);
        let more = || {
            // SYNC(answered): a plain counter.
            let before = answered.load(Ordering::Relaxed);
            wait_until("calls go on", || answered.load(Ordering::Relaxed) >= before + CALLS);
        };
        for _ in 0..3 {
            more();
            let successor = site.start(&["--takeover"]);
            assert_eq!(gateway.wait(), Some(0), "{}", gateway.stderr());
            gateway = successor;
        }
        more();
        drop(end);
    });
    let listed = engines();
    assert_eq!((&listed[0]["node"], &listed[0]["state"]), (&"host-1".into(), &"serving".into()));
    assert_eq!(listed[0]["functions"][0]["name"], "echo");
    let shown = site.list(admin);
    assert!(shown.contains("host-1") && shown.contains("echo"), "{shown}");
    if way == Way::Path {
        let left = directory.path().read_dir().expect("a directory").count();
        assert_eq!(left, 1, "the last successor's, and nothing of those before");
    }
}

/// Ends the load, also when the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        // SYNC(over): carries no other data.
        self.0.store(true, Ordering::Relaxed);
    }
}
