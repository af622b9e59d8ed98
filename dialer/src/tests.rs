//! The dialer's thread and gateways on loopback that the tests speak for.

mod certificates;
mod names;
mod stage;

use std::collections::HashSet;
use std::time::Duration;

use engine::uplink::Notice;
use protocol::hello::Challenge;
use protocol::{VERSION, handshake};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use self::certificates::{Authority, engine_trust, gateway_config};
use self::names::{A, Names, Srv};
use self::stage::{GATEWAY, Gateway, KEY, OTHER_KEY, Stage, key, within};
use crate::backoff::PAUSE_MAX;
use crate::complaint::AttemptError;
use crate::name::Address;
use crate::resolve::Place;
use crate::shared::Shared;
use crate::{Trust, attempt};

#[tokio::test]
async fn there_is_a_connection_for_each_shard_of_the_side_that_has_more() {
    let gateway = Gateway::bind("127.0.0.1:0").await;
    let mut stage = Stage::start(2, &[gateway.name()]);
    let mut connections = HashSet::new();
    let mut streams = Vec::new();
    for _ in 0..3 {
        let (stream, hello) = gateway.answer(3).await.unwrap();
        assert_eq!((hello.node.as_str(), hello.shards), ("host-1", 2));
        connections.insert(hello.connection);
        streams.push(stream);
    }
    assert_eq!(connections, HashSet::from([0, 1, 2]));
    for _ in 0..3 {
        let link = stage.delivered().await;
        assert_eq!(link.shard, link.identity.connection % 2);
        assert_eq!(*link.identity.gateway, gateway.name());
    }
}

#[tokio::test]
async fn a_link_that_ended_is_dialled_again_with_a_higher_epoch() {
    let gateway = Gateway::bind("127.0.0.1:0").await;
    let mut stage = Stage::start(1, &[gateway.name()]);
    let (_, first) = gateway.answer(1).await.unwrap();
    let link = stage.delivered().await;
    assert_eq!(link.identity.epoch, first.epoch);
    stage.tell(Notice::Ended { epoch: first.epoch });
    let (_, second) = gateway.answer(1).await.unwrap();
    assert_eq!((second.instance, second.connection), (first.instance, 0));
    assert!(second.epoch > first.epoch);
    assert_ne!(second.nonce, first.nonce);
    assert_eq!(stage.delivered().await.identity.epoch, second.epoch);
}

#[tokio::test]
async fn the_successor_of_a_gateway_that_drains_is_dialled_while_the_old_link_lives() {
    let gateway = Gateway::bind("127.0.0.1:0").await;
    let mut stage = Stage::start(1, &[gateway.name()]);
    let (_, first) = gateway.answer(1).await.unwrap();
    let _old = stage.delivered().await;
    stage.tell(Notice::Draining { epoch: first.epoch });
    let (_, second) = gateway.answer_as(GATEWAY + 1, 1).await.unwrap();
    let link = stage.delivered().await;
    assert_eq!(link.identity.epoch, second.epoch);
    // The end of the old one is nothing to the new one, whose own end is.
    stage.tell(Notice::Ended { epoch: first.epoch });
    stage.tell(Notice::Ended { epoch: second.epoch });
    let (_, third) = gateway.answer_as(GATEWAY + 1, 1).await.unwrap();
    assert!(third.epoch > second.epoch);
}

#[tokio::test]
async fn a_gateway_that_comes_back_with_other_shards_gets_other_connections() {
    let gateway = Gateway::bind("127.0.0.1:0").await;
    let mut stage = Stage::start(1, &[gateway.name()]);
    let (_, first) = gateway.answer(2).await.unwrap();
    let (_, second) = gateway.answer(2).await.unwrap();
    for _ in 0..2 {
        stage.delivered().await;
    }
    for epoch in [first.epoch, second.epoch] {
        stage.tell(Notice::Ended { epoch });
    }
    // Whichever comes first tells the new number; of three, none is missing in the end.
    let mut connections = HashSet::new();
    let mut kept = Vec::new();
    while connections.len() < 3 {
        let (stream, hello) = gateway.answer_as(GATEWAY + 1, 3).await.unwrap();
        // Until then nobody could tell of its end.
        assert_eq!(stage.delivered().await.identity.epoch, hello.epoch);
        connections.insert(hello.connection);
        kept.push((stream, hello.epoch));
    }
    for (_, epoch) in &kept {
        stage.tell(Notice::Ended { epoch: *epoch });
    }
    // Of one, the others end: only the first one goes on for ever.
    let mut lonely = 0;
    while lonely < 3 {
        let (_stream, hello) = gateway.answer_as(GATEWAY + 2, 1).await.unwrap();
        assert_eq!(stage.delivered().await.identity.epoch, hello.epoch);
        lonely = if hello.connection == 0 { lonely + 1 } else { 0 };
        stage.tell(Notice::Ended { epoch: hello.epoch });
    }
}

#[tokio::test]
async fn a_gateway_with_another_key_gets_no_link_and_is_tried_again() {
    let gateway = Gateway::bind("127.0.0.1:0").await;
    let mut stage = Stage::start(1, &[gateway.name()]);
    for _ in 0..3 {
        assert!(gateway.answer_with(key(OTHER_KEY), GATEWAY, 1).await.is_err());
    }
    assert!(stage.nothing_delivered());
    gateway.answer(1).await.unwrap();
    stage.delivered().await;
}

#[tokio::test]
async fn a_gateway_that_accepts_and_says_nothing_holds_up_nobody() {
    let (mute, gateway) = (Gateway::bind("127.0.0.1:0").await, Gateway::bind("127.0.0.1:0").await);
    let mut stage = Stage::start(1, &[mute.name(), gateway.name()]);
    let _held = mute.accept().await;
    gateway.answer(1).await.unwrap();
    assert_eq!(*stage.delivered().await.identity.gateway, gateway.name());
    let _again = mute.accept().await;
    assert!(stage.nothing_delivered());
}

#[tokio::test]
async fn garbage_in_the_place_of_a_handshake_is_an_error_and_no_more() {
    let gateway = Gateway::bind("127.0.0.1:0").await;
    let mut stage = Stage::start(1, &[gateway.name()]);
    for bytes in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], &[0xff; 64], &[0; 64]] {
        let mut stream = gateway.accept().await;
        stream.write_all(bytes).await.unwrap();
    }
    gateway.answer(1).await.unwrap();
    stage.delivered().await;
}

#[tokio::test]
async fn all_targets_of_a_service_are_gateways() {
    let gateways = [Gateway::bind("127.0.0.1:0").await, Gateway::bind("127.0.0.2:0").await];
    let names = Names::serve().await;
    let record = |gateway: &Gateway, host: &str| Srv(host.to_owned(), gateway.port());
    let targets = [record(&gateways[0], "one.test."), record(&gateways[1], "two.test.")];
    names.set_services("_nightcore._tcp.test.", targets.to_vec());
    names.set_addresses("one.test.", vec![A([127, 0, 0, 1])]);
    names.set_addresses("two.test.", vec![A([127, 0, 0, 2])]);
    let mut stage = Stage::resolving(1, &["srv:_nightcore._tcp.test.".to_owned()], names.address());
    for gateway in &gateways {
        gateway.answer_as(u64::from(gateway.port()), 1).await.unwrap();
    }
    let mut reached = HashSet::new();
    for _ in 0..2 {
        reached.insert(stage.delivered().await.identity.gateway.to_string());
    }
    assert_eq!(reached, gateways.iter().map(Gateway::name).collect());
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_is_followed_and_the_old_link_stays_until_it_ends() {
    let old = Gateway::bind("127.0.0.1:0").await;
    let new = Gateway::bind(&format!("127.0.0.2:{}", old.port())).await;
    let names = Names::serve().await;
    names.set_addresses("gw.test.", vec![A([127, 0, 0, 1])]);
    let name = format!("gw.test.:{}", old.port());
    let mut stage = Stage::resolving(1, &[name], names.address());
    let (_stream, hello) = old.answer(1).await.unwrap();
    assert_eq!(*stage.delivered().await.identity.gateway, old.name());
    names.set_addresses("gw.test.", vec![A([127, 0, 0, 2])]);
    new.answer_as(GATEWAY + 1, 1).await.unwrap();
    assert_eq!(*stage.delivered().await.identity.gateway, new.name());
    stage.tell(Notice::Ended { epoch: hello.epoch });
    let again = timeout(PAUSE_MAX + Duration::from_millis(500), old.listener.accept()).await;
    assert!(again.is_err(), "no name leads there any more");
}

#[tokio::test]
async fn a_gateway_of_two_addresses_is_reached_by_one_of_them() {
    let one = Gateway::bind("127.0.0.1:0").await;
    let other = Gateway::bind("127.0.0.2:0").await;
    let mut stage = Stage::start(1, &[one.name(), other.name()]);
    // Both answer as the same process.
    let (_, first) = one.answer(1).await.unwrap();
    stage.delivered().await;
    other.answer(1).await.unwrap();
    let again = timeout(PAUSE_MAX, other.listener.accept()).await;
    assert!(again.is_err() && stage.nothing_delivered());
    // Its link by the first address ends, and the second one serves as well.
    stage.tell(Notice::Ended { epoch: first.epoch });
    other.answer(1).await.unwrap();
    assert_eq!(*stage.delivered().await.identity.gateway, other.name());
}

#[tokio::test]
async fn with_certificates_both_sides_know_each_other_and_the_link_is_encrypted() {
    let authority = Authority::new();
    let gateway = Gateway::bind("127.0.0.1:0").await;
    let trust = engine_trust(&authority, &authority, Some("gateway.test"));
    let mut stage = Stage::trusting(trust, &[gateway.name()]);
    let acceptor = TlsAcceptor::from(gateway_config(&authority, &authority, "gateway.test"));
    let stream = gateway.accept().await;
    let mut stream = within(acceptor.accept(stream)).await.unwrap();
    let (_, hello) = gateway.prove(&mut stream, None, GATEWAY, 1).await.unwrap();
    assert_eq!(hello.node, "host-1");
    let version = stream.get_ref().1.protocol_version();
    assert_eq!(version, Some(rustls::ProtocolVersion::TLSv1_3));
    assert!(stage.delivered().await.established.tls.is_some());
}

#[tokio::test]
async fn a_gateway_whose_authority_or_name_is_another_gets_no_word() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    for (signer, name) in [(&foreign, "gateway.test"), (&authority, "elsewhere.test")] {
        let gateway = Gateway::bind("127.0.0.1:0").await;
        let trust = engine_trust(&authority, &authority, Some("gateway.test"));
        let stage = Stage::trusting(trust, &[gateway.name()]);
        let acceptor = TlsAcceptor::from(gateway_config(signer, &authority, name));
        for _ in 0..2 {
            let stream = gateway.accept().await;
            assert!(within(acceptor.accept(stream)).await.is_err());
        }
        assert!(stage.nothing_delivered());
    }
}

#[tokio::test]
async fn an_engine_whose_certificate_the_gateway_does_not_know_gets_no_link() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let gateway = Gateway::bind("127.0.0.1:0").await;
    let trust = engine_trust(&foreign, &authority, Some("gateway.test"));
    let stage = Stage::trusting(trust, &[gateway.name()]);
    let acceptor = TlsAcceptor::from(gateway_config(&authority, &authority, "gateway.test"));
    for _ in 0..2 {
        let stream = gateway.accept().await;
        assert!(within(acceptor.accept(stream)).await.is_err());
    }
    assert!(stage.nothing_delivered());
}

#[tokio::test]
async fn without_credentials_no_other_host_is_dialled() {
    let settings = stage::settings(1, &[], None, Trust::Insecure);
    let shared = Shared::new(settings, Box::new(|_| {}));
    let address = Address::Tcp("192.0.2.1:8090".parse().unwrap());
    let place = Place { address, host: "gw.test".into() };
    let result = attempt::dial(&shared, &place, 0, 1).await;
    assert!(matches!(result, Err(AttemptError::Elsewhere)));
}

#[tokio::test]
async fn a_dialer_that_is_told_to_stop_dials_no_more() {
    let gateway = Gateway::bind("127.0.0.1:0").await;
    let mut stage = Stage::start(1, &[gateway.name()]);
    let (mut stream, _) = gateway.answer(1).await.unwrap();
    let link = stage.delivered().await;
    stage.stop();
    // The link is the shard's.
    std::mem::drop(link);
    assert_eq!(within(stream.read(&mut [0; 1])).await.unwrap(), 0);
    let again = timeout(PAUSE_MAX, gateway.listener.accept()).await;
    assert!(again.is_err());
}

#[tokio::test]
async fn a_gateway_on_this_host_is_dialled_by_the_path_of_its_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("engines.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let name = format!("unix:{}", path.display());
    let mut stage = Stage::start(1, std::slice::from_ref(&name));
    for _ in 0..2 {
        let (mut stream, _) = within(listener.accept()).await.unwrap();
        let challenge =
            Challenge { version: VERSION, shards: 1, instance: GATEWAY, nonce: [9; 32] };
        let key = key(KEY);
        let hello = within(handshake::answer(&mut stream, &challenge, key.as_ref())).await.unwrap();
        let link = stage.delivered().await;
        assert_eq!((&*link.identity.gateway, link.identity.epoch), (&*name, hello.epoch));
        stage.tell(Notice::Ended { epoch: hello.epoch });
    }
}

#[tokio::test]
async fn certificates_of_a_gateway_on_this_host_are_for_localhost() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("engines.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let trust = engine_trust(&authority, &authority, None);
    let mut stage = Stage::trusting(trust, &[format!("unix:{}", path.display())]);
    let acceptor = TlsAcceptor::from(gateway_config(&authority, &authority, "localhost"));
    let (stream, _) = within(listener.accept()).await.unwrap();
    let mut stream = within(acceptor.accept(stream)).await.unwrap();
    let challenge = Challenge { version: VERSION, shards: 1, instance: GATEWAY, nonce: [9; 32] };
    within(handshake::answer(&mut stream, &challenge, None)).await.unwrap();
    assert!(stage.delivered().await.established.tls.is_some());
}
