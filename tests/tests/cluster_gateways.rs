//! Gateways that are lost, and come back, under load. `docs/cluster.md` has a row for each.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use nightcore_tests::Cluster;
use nightcore_tests::cluster::settings::Settings;
use nightcore_tests::load::Outcome;

/// Requests a second over both gateways.
const RATE: u32 = 400;
/// Before a fault, and behind it: a second.
const CALM: u32 = RATE;

#[test]
fn a_gateway_that_is_killed_costs_the_requests_that_it_had_and_serves_again_once_started() {
    let mut cluster = Cluster::start(Settings::default());
    let load = cluster.load(RATE);
    load.wait_for(CALM);
    let struck = Instant::now();
    cluster.take_gateway(0).kill();
    load.wait_for(CALM);
    cluster.start_gateway(0);
    (0..3).for_each(|index| cluster.wait_until_serves(index));
    let back = Instant::now();
    load.wait_for(CALM);
    let report = load.stop();

    // A gateway that just starts may say that it has no engine yet.
    let started = |record: &&_| is_of_a_start(record);
    let (starting, lost): (Vec<_>, Vec<_>) = report.failures().partition(started);
    let last = lost.iter().map(|record| record.ended.saturating_duration_since(struck)).max();
    println!(
        "kill -9 of a gateway: {} of {} broke, the last {last:?} behind it; {} came before its \
         engines did: {:?}",
        lost.len(),
        report.records.len(),
        starting.len(),
        report.outcomes(),
    );
    for record in &lost {
        let broke = matches!(
            record.outcome,
            Outcome::Closed
                | Outcome::Broken(
                    ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
                )
        );
        assert!(broke, "{record:?}");
        // Its clients' kernel is told at once.
        assert!(record.sent <= struck + Duration::from_millis(500), "{record:?}");
    }
    assert!(lost.len() <= 40, "{} had no answer yet", lost.len());
    assert!(starting.iter().all(|record| record.sent < back), "{starting:?}");
    report.expect_started_once(&cluster.ledger());
}

fn is_of_a_start(record: &nightcore_tests::cluster::report::Record) -> bool {
    matches!(record.outcome, Outcome::Failed(503, _))
}

#[test]
fn a_gateway_that_drains_loses_nothing() {
    let mut cluster = Cluster::start(Settings::default());
    let load = cluster.load(RATE);
    load.wait_for(CALM);
    let gateway = cluster.take_gateway(1);
    gateway.terminate();
    gateway.expect_clean_end();
    load.wait_for(CALM / 2);
    let report = load.stop();
    report.expect_no_failure();
    report.expect_started_once(&cluster.ledger());
}

#[test]
fn a_gateway_hands_its_sockets_to_its_successor_and_no_connection_is_refused() {
    // With one gateway nobody else could have taken them.
    let mut cluster = Cluster::start(Settings { gateways: 1, ..Settings::default() });
    let load = cluster.load(RATE);
    load.wait_for(CALM / 2);
    cluster.update_gateway(0);
    load.wait_for(CALM / 2);
    cluster.update_gateway(0);
    load.wait_for(CALM / 2);
    let report = load.stop();
    report.expect_no_failure();
    report.expect_started_once(&cluster.ledger());
}
