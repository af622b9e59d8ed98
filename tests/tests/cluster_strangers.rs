//! Strangers at the ports of a cluster: they get nothing, and nobody else suffers. The handshakes that
//! they know are real ones, heard on the wire.

use std::net::SocketAddr;
use std::thread;

use nightcore_tests::cluster::network::Host;
use nightcore_tests::cluster::relay::{Recording, Relay};
use nightcore_tests::cluster::report::Report;
use nightcore_tests::cluster::settings::{Bearer, Security, Settings};
use nightcore_tests::cluster::stranger::{Impostor, dial, frames, kind, kinds};
use nightcore_tests::{Cluster, Random, wait_until};

/// Requests a second over both gateways, meanwhile.
const RATE: u32 = 200;

/// Strangers who say nothing, at once. More than a gateway lets in.
const SILENT: usize = 300;

#[test]
fn whoever_has_no_key_gets_nothing_and_nobody_suffers() {
    let cluster = Cluster::start(Settings::default());
    let target = cluster.engines_doors()[0];
    let recording = record(&cluster, target);
    let said = frames(&recording.dialler);
    let (hello, proof) = (said[0], said[1]);
    let load = cluster.load(RATE);

    let garbage = Random::new(7).bytes(4096);
    let mut false_proof = proof.to_vec();
    *false_proof.last_mut().expect("a body") ^= 1;
    let mut long = hello.to_vec();
    long[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    let behind = said[2..].concat();
    let lives: Vec<(&str, Vec<&[u8]>)> = vec![
        ("garbage", vec![&garbage]),
        ("zeros", vec![&[0; 4096]]),
        ("another protocol", vec![b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n"]),
        ("a hello of 4 GiB", vec![&long]),
        ("nothing at all", vec![b""]),
        ("half a hello, then nothing", vec![&hello[..hello.len() / 2]]),
        ("a hello, then nothing", vec![hello]),
        ("a proof without a hello", vec![proof]),
        ("a false proof", vec![hello, &false_proof]),
        ("its functions instead of a proof", vec![hello, &behind]),
        ("a recorded handshake, answer by answer", vec![hello, proof, &behind]),
        ("a recorded handshake, all at once", vec![&recording.dialler]),
    ];
    thread::scope(|scope| {
        for (life, parts) in &lives {
            scope.spawn(move || expect_nothing(life, &dial(target, parts)));
        }
    });
    let report = load.stop();
    expect_nobody_suffered(&cluster, &report);
}

#[test]
fn an_engine_with_another_key_does_not_join() {
    let cluster = Cluster::start(Settings::default());
    let client = cluster.network().address(Host::Client);
    let relay = Relay::start(client, cluster.engines_doors()[0]).expect("a free port");
    let load = cluster.load(RATE);
    let mut outsider = cluster.start_outsider("outsider", &[relay.address()], Bearer::Foreign);
    // It tries again and again.
    wait_until("it has been refused three times", || {
        assert!(!outsider.has_ended(), "it gave up");
        relay.recordings().iter().filter(|it| kinds(&it.dialler).contains(&kind::PROOF)).count() > 2
    });
    let report = load.stop();
    outsider.kill();
    for recording in relay.recordings() {
        expect_nothing("another key", &recording.listener);
        let said = kinds(&recording.dialler);
        let only_tried = said.iter().all(|it| matches!(*it, kind::HELLO | kind::PROOF | kind::BYE));
        assert!(only_tried, "it tells of itself: {said:?}");
    }
    expect_nobody_suffered(&cluster, &report);
}

#[test]
fn links_with_certificates_serve_and_whoever_listens_understands_nothing() {
    let settings = Settings { security: Security::Certificates, ..Settings::default() };
    let cluster = Cluster::start(settings);
    let client = cluster.network().address(Host::Client);
    let relay = Relay::start(client, cluster.engines_doors()[0]).expect("a free port");
    let foreign = cluster.start_outsider("outsider", &[relay.address()], Bearer::Foreign);
    let load = cluster.load(RATE);
    wait_until("it has been refused three times", || relay.recordings().len() > 3);
    foreign.kill();
    let report = load.stop();
    expect_nobody_suffered(&cluster, &report);

    let relay = Relay::start(client, cluster.engines_doors()[0]).expect("a free port");
    let engine = cluster.start_outsider("heard", &[relay.address()], Bearer::Engine);
    wait_until("it has joined", || cluster.probe(0).is_some_and(|host| host == engine.name()));
    for Recording { dialler, listener } in relay.recordings() {
        for word in ["lookup", "charge", "heard", "probe-"] {
            let has = |said: &[u8]| said.windows(word.len()).any(|it| it == word.as_bytes());
            assert!(!has(&dialler) && !has(&listener), "{word} is on the wire");
        }
    }
}

#[test]
fn an_engine_gives_nothing_to_whoever_replays_a_gateway() {
    let cluster = Cluster::start(Settings::default());
    let recording = record(&cluster, cluster.engines_doors()[0]);
    let heard = kinds(&recording.listener);
    assert_eq!(heard[..2], [kind::CHALLENGE, kind::WELCOME], "{heard:?}");
    let client = cluster.network().address(Host::Client);
    let impostor = Impostor::start(client, &recording.listener).expect("a free port");
    let mut outsider = cluster.start_outsider("deceived", &[impostor.address()], Bearer::Engine);
    wait_until("it has come three times", || {
        assert!(!outsider.has_ended(), "it gave up");
        impostor.heard().len() > 2
    });
    outsider.kill();
    for heard in impostor.heard() {
        let said = kinds(&heard);
        let only_tried = said.iter().all(|it| matches!(*it, kind::HELLO | kind::PROOF | kind::BYE));
        assert!(only_tried, "it tells of itself: {said:?}");
    }
}

#[test]
fn a_crowd_of_silent_strangers_keeps_no_engine_out() {
    let mut cluster = Cluster::start(Settings::default());
    let target = cluster.engines_doors()[0];
    let load = cluster.load(RATE);
    let crowd: Vec<_> = (0..SILENT).map(|_| std::net::TcpStream::connect(target)).collect();
    cluster.update_engine(0);
    drop(crowd);
    let report = load.stop();
    expect_nobody_suffered(&cluster, &report);
}

/// What an engine and a gateway say to each other until the gateway sends it calls.
fn record(cluster: &Cluster, target: SocketAddr) -> Recording {
    let client = cluster.network().address(Host::Client);
    let relay = Relay::start(client, target).expect("a free port");
    let engine = cluster.start_outsider("recorded", &[relay.address()], Bearer::Engine);
    wait_until("it has joined", || cluster.probe(0).is_some_and(|host| host == engine.name()));
    engine.kill();
    wait_until("it is gone", || {
        (0..20).all(|_| cluster.probe(0).is_some_and(|host| host != "recorded"))
    });
    let recordings = relay.recordings();
    let whole = recordings.into_iter().find(|it| kinds(&it.dialler).len() > 2);
    let whole = whole.expect("one has joined");
    assert_eq!(kinds(&whole.dialler)[..2], [kind::HELLO, kind::PROOF]);
    whole
}

/// Asserts that all a stranger was told is what everybody is: a challenge, and that it ends.
fn expect_nothing(life: &str, heard: &[u8]) {
    let told = kinds(heard);
    println!("{life}: told {} bytes, of the kinds {told:?}", heard.len());
    let is_nothing = told.iter().all(|it| matches!(*it, kind::CHALLENGE | kind::BYE));
    assert!(is_nothing, "{life}: told {told:?}");
    let whole: usize = frames(heard).iter().map(|frame| frame.len()).sum();
    assert_eq!(heard.len(), whole, "{life}: what it was told is no frame");
    for name in ["lookup", "charge", "engine-"] {
        let is_told = heard.windows(name.len()).any(|bytes| bytes == name.as_bytes());
        assert!(!is_told, "{life}: told of {name}");
    }
}

fn expect_nobody_suffered(cluster: &Cluster, report: &Report) {
    const NEVER: [&str; 2] = ["outsider", "recorded"];
    report.expect_no_failure();
    report.expect_started_once(&cluster.ledger());
    let served = |host: &str| report.records.iter().any(|it| it.host.as_deref() == Some(host));
    assert!(!NEVER.iter().any(|host| served(host)), "a stranger has served a call");
}
