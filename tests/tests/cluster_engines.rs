//! Engines that are lost, and come back, under load. `docs/cluster.md` has a row for each.

use std::time::{Duration, Instant};

use nightcore_tests::Cluster;
use nightcore_tests::cluster::network::Host;
use nightcore_tests::cluster::report::Report;
use nightcore_tests::cluster::settings::Settings;
use nightcore_tests::wait_until;

/// Requests a second over both gateways.
const RATE: u32 = 400;
/// Before a fault, and behind it: a second.
const CALM: u32 = RATE;
/// A cut is to be noticed within a second. On a machine that does something else meanwhile the test's
/// own threads are late as well.
const DETECTION_MAX: Duration = Duration::from_secs(3);

/// What a fault may cost: calls of the function that is not idempotent, that were sent to the lost
/// engine until it was missed. That is a third of the half of all.
fn expect_bounded_losses(what: &str, report: &Report, struck: Instant, blind: Duration) {
    let last = report.last_failure(struck);
    let failures = report.failures().count();
    println!(
        "{what}: {failures} of {} failed, the last {last:?} behind it: {:?}",
        report.records.len(),
        report.outcomes(),
    );
    assert!(last <= DETECTION_MAX, "the last failure came {last:?} behind the fault");
    // Those that were in flight at that moment were sent at most a second before, on a slow machine.
    let from = struck.checked_sub(Duration::from_secs(1)).expect("the machine runs for longer");
    for record in report.failures() {
        let is_within = (from..=struck + blind).contains(&record.sent);
        assert!(is_within, "sent {:?} behind it: {record:?}", record.sent - struck);
    }
    let most = blind.as_millis() * u128::from(RATE) / 2_000;
    assert!(failures as u128 <= most, "{failures} of at most {most}");
}

/// Asserts that an engine served calls again behind a moment.
fn expect_back(report: &Report, name: &str, since: Instant) {
    let shares = report.shares(since, Instant::now());
    assert!(shares.contains_key(name), "{name} is not back: {shares:?}");
}

#[test]
fn an_engine_that_is_killed_costs_the_calls_that_it_had_and_no_other() {
    let mut cluster = Cluster::start(Settings::default());
    let load = cluster.load(RATE);
    load.wait_for(CALM);
    let struck = Instant::now();
    cluster.take_engine(0).kill();
    load.wait_for(CALM);
    cluster.start_engine(0);
    cluster.wait_until_serves(0);
    let back = Instant::now();
    load.wait_for(CALM / 2);
    let report = load.stop();
    report.expect_only_losses(&cluster.ledger());
    // The kernel closes its connections at once: nothing is sent into the void.
    expect_bounded_losses("kill -9 of an engine", &report, struck, Duration::from_millis(500));
    expect_back(&report, cluster.engine(0).name(), back);
}

/// An engine falls silent under load, and comes back.
fn expect_missed_and_back(
    what: &str,
    index: usize,
    mut cluster: Cluster,
    fall_silent: impl Fn(&Cluster),
    come_back: impl Fn(&Cluster),
) {
    let load = cluster.load(RATE);
    load.wait_for(CALM);
    let struck = Instant::now();
    fall_silent(&cluster);
    load.wait_for(2 * CALM);
    come_back(&cluster);
    cluster.wait_until_serves(index);
    let back = Instant::now();
    load.wait_for(CALM / 2);
    let report = load.stop();
    report.expect_only_losses(&cluster.ledger());
    expect_bounded_losses(what, &report, struck, DETECTION_MAX);
    expect_others_go_on(&report, struck);
    expect_back(&report, cluster.engine(index).name(), back);
}

#[test]
fn an_engine_that_is_cut_off_is_missed_within_a_second_and_comes_back_by_itself() {
    let cluster = Cluster::start(Settings::default());
    if !cluster.network().can_cut() {
        return;
    }
    let cut = |cluster: &Cluster| cluster.network().cut(Host::Engine(1));
    let heal = |cluster: &Cluster| cluster.network().heal(Host::Engine(1));
    expect_missed_and_back("cut of an engine", 1, cluster, cut, heal);
}

#[test]
fn an_engine_that_is_held_is_missed_and_comes_back_when_it_goes_on() {
    let cluster = Cluster::start(Settings::default());
    let hold = |cluster: &Cluster| cluster.engine(2).hold();
    let release = |cluster: &Cluster| cluster.engine(2).release();
    expect_missed_and_back("SIGSTOP of an engine", 2, cluster, hold, release);
}

#[test]
fn an_engine_that_drains_loses_nothing() {
    let mut cluster = Cluster::start(Settings::default());
    let load = cluster.load(RATE);
    load.wait_for(CALM);
    let engine = cluster.take_engine(0);
    let name = engine.name().to_owned();
    engine.terminate();
    engine.expect_clean_end();
    let gone = Instant::now();
    load.wait_for(CALM);
    cluster.start_engine(0);
    cluster.wait_until_serves(0);
    let back = Instant::now();
    load.wait_for(CALM / 2);
    let report = load.stop();
    report.expect_no_failure();
    report.expect_started_once(&cluster.ledger());
    let shares = report.shares(gone, Instant::now());
    assert!(!shares.contains_key(name.as_str()), "{shares:?}");
    expect_back(&report, cluster.engine(0).name(), back);
}

#[test]
fn an_engine_that_does_not_end_its_calls_is_ended_by_its_time_limit() {
    let mut settings = Settings { drain_timeout_ms: 300, ..Settings::default() };
    settings.service_us[0] = 1_000_000;
    let mut cluster = Cluster::start(settings);
    let load = cluster.load(RATE / 4);
    let started = || cluster.ledger().started_on(cluster.engine(0).name());
    let before = started();
    wait_until("the slow engine has calls of the load", || started() > before);
    let mut engine = cluster.take_engine(0);
    engine.terminate();
    wait_until("it has ended", || engine.has_ended());
    let struck = Instant::now();
    load.wait_for(RATE / 4);
    let report = load.stop();
    report.expect_only_losses(&cluster.ledger());
    let late = report.failures().find(|record| record.sent > struck);
    assert!(late.is_none(), "{late:?}");
}

/// Asserts that in the three quarters of a second for which nobody can know of the fault, whoever was
/// not on that engine was served.
fn expect_others_go_on(report: &Report, struck: Instant) {
    let median = report.quantile(0.5, struck, struck + Duration::from_millis(750));
    println!("  the median latency until it is missed is {median:?}");
    assert!(median <= Duration::from_millis(250), "others wait as well: {median:?}");
}
