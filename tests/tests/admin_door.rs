//! The admin door: who may see the state of a host, and where.

use nightcore_tests::gateway::Site;
use nightcore_tests::{Connection, functions, get, post};

const DOCUMENTS: [&str; 3] = ["/metrics", "/v1/functions", "/v1/engines"];

fn site(config: &str, role: &str) -> (Site, nightcore_tests::gateway::Gateway) {
    let site = Site::new(config);
    let process = site.launch(role, &[]);
    nightcore_tests::wait_until("it has an admin door", || process.admin_address().is_some());
    (site, process)
}

#[test]
fn with_an_admin_door_the_public_one_has_functions_and_health_alone() {
    let config = format!(
        "[gateway]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n{}",
        functions(&["nop"])
    );
    let (_site, host) = site(&config, "up");
    let open = |address| Connection::open(address).expect("it takes connections");
    let mut public = open(host.address().expect("it serves"));
    let mut admin = open(host.admin_address().expect("it serves"));
    for path in ["/healthz", "/readyz"] {
        public.exchange(&get(path)).ok();
        admin.exchange(&get(path)).ok();
    }
    for path in DOCUMENTS {
        public.exchange(&get(path)).failure(404, "not_found");
        admin.exchange(&get(path)).ok();
    }
    public.exchange(&post("/function/nop", b"")).ok();
    let failure = admin.exchange(&post("/function/nop", b"")).failure(404, "not_found");
    assert!(failure.message.contains("public port"), "{}", failure.message);
    // Both go on: the connection is as good as any.
    admin.exchange(&get("/v1/functions")).ok();
    public.exchange(&post("/function/nop", b"")).ok();
}

#[test]
fn without_an_admin_door_the_public_one_has_the_documents() {
    let stack = nightcore_tests::Stack::start(&functions(&["nop"]));
    let mut connection = stack.connect();
    for path in DOCUMENTS {
        connection.exchange(&get(path)).ok();
    }
    let engines = connection.exchange(&get("/v1/engines")).json();
    assert_eq!(engines, serde_json::json!({ "engines": [], "queues": [] }));
}

#[test]
fn an_engine_without_a_door_for_clients_has_one_for_its_state() {
    let config = format!("[engine]\nadmin_listen = \"127.0.0.1:0\"\n{}", functions(&["nop"]));
    let (_site, engine) = site(&config, "engine");
    assert_eq!(engine.address(), None);
    let address = engine.admin_address().expect("it serves");
    let mut admin = Connection::open(address).expect("it takes connections");
    let list = admin.exchange(&get("/v1/functions")).json();
    assert_eq!(list["functions"][0]["name"], "nop");
    assert!(admin.exchange(&get("/metrics")).text().contains("nightcore_container_up"));
    admin.exchange(&post("/function/nop", b"")).failure(404, "not_found");
}

#[test]
fn a_gateway_without_engines_lives_and_is_not_ready() {
    let config = "[gateway]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n";
    let (_site, gateway) = site(config, "gateway");
    for address in [gateway.address(), gateway.admin_address()] {
        let mut connection = Connection::open(address.expect("it serves")).expect("it accepts");
        connection.exchange(&get("/healthz")).ok();
        let failure = connection.exchange(&get("/readyz")).failure(503, "unavailable");
        assert!(failure.message.contains("no engine"), "{}", failure.message);
    }
}
