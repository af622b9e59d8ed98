//! All five processes are replaced, one after the other, under load.

use std::time::Instant;

use nightcore_tests::Cluster;
use nightcore_tests::cluster::settings::Settings;

/// Requests a second over both gateways.
const RATE: u32 = 400;

#[test]
fn an_update_of_all_engines_and_gateways_loses_nothing() {
    let mut cluster = Cluster::start(Settings::default());
    let load = cluster.load(RATE);
    load.wait_for(RATE / 2);
    let begin = Instant::now();
    for index in 0..3 {
        cluster.update_engine(index);
    }
    for index in 0..2 {
        cluster.update_gateway(index);
    }
    (0..3).for_each(|index| cluster.wait_until_serves(index));
    let updated = Instant::now();
    load.wait_for(RATE);
    let report = load.stop();
    println!(
        "update of three engines and two gateways in {:?}: {} requests, p50 {:?}, p99 {:?} meanwhile",
        updated - begin,
        report.records.len(),
        report.quantile(0.5, begin, updated),
        report.quantile(0.99, begin, updated),
    );
    report.expect_no_failure();
    report.expect_started_once(&cluster.ledger());
    let shares = report.shares(updated, Instant::now());
    let expected: Vec<&str> = (0..3).map(|index| cluster.engine(index).name()).collect();
    assert_eq!(shares.keys().copied().collect::<Vec<_>>(), expected, "{shares:?}");
}
