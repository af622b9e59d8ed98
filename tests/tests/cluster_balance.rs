//! How calls are spread over engines, the real ones.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nightcore_tests::Cluster;
use nightcore_tests::cluster::settings::Settings;

/// Requests a second over both gateways.
const RATE: u32 = 400;
/// Requests of which shares are counted.
const COUNTED: u32 = 2_100;
/// Requests a second where an engine is slow. So few that calls seldom meet at the same gateway's shard
/// and engine: when they do, a slow engine that is free is as good as a fast one that is not.
const RATE_SLOWED: u32 = 150;
/// Until every worker, connection and estimate is there.
const WARM_UP: u32 = 300;
/// A machine that others use as well adds this much to a p99 by itself.
const NOISE: Duration = Duration::from_millis(15);
/// Equal engines are equal only as far as the machine treats them so, and times are its as much as ours:
/// one good run is enough.
const RUNS_MAX: u32 = 3;

#[test]
fn three_equal_engines_get_equal_shares() {
    let cluster = Cluster::start(Settings::default());
    let mut seen = Vec::new();
    for _ in 0..RUNS_MAX {
        let shares = shares(&cluster);
        let total: usize = shares.values().sum();
        println!("{total} requests: {shares:?}");
        assert!(total >= 2_000, "{total}");
        assert_eq!(shares.len(), 3, "{shares:?}");
        let even = total / 3;
        // Within 5%.
        if shares.values().all(|share| share.abs_diff(even) * 20 <= even) {
            return;
        }
        seen.push(shares);
    }
    panic!("not even in any run: {seen:?}");
}

/// How many calls each engine served of a load on all three.
fn shares(cluster: &Cluster) -> BTreeMap<String, usize> {
    let load = cluster.load(RATE);
    load.wait_for(WARM_UP);
    let from = Instant::now();
    load.wait_for(COUNTED);
    let report = load.stop();
    report.expect_no_failure();
    report.expect_started_once(&cluster.ledger());
    let shares = report.shares(from, Instant::now());
    shares.into_iter().map(|(host, share)| (host.to_owned(), share)).collect()
}

#[test]
fn an_engine_that_is_three_times_slower_slows_nobody_down() {
    let mut seen = Vec::new();
    for _ in 0..RUNS_MAX {
        let healthy = p99(20_000);
        let slowed = p99(60_000);
        println!("p99 of three equal engines {healthy:?}, with one three times slower {slowed:?}");
        if slowed <= healthy.mul_f64(1.5) + NOISE {
            return;
        }
        seen.push((healthy, slowed));
    }
    panic!("each time more than 1.5 times as slow: {seen:?}");
}

/// Of all requests, where the calls of two engines take 20 ms and those of the first this long.
fn p99(first_us: u32) -> Duration {
    let mut settings = Settings { service_us: vec![20_000; 3], ..Settings::default() };
    settings.service_us[0] = first_us;
    let cluster = Cluster::start(settings);
    let load = cluster.load(RATE_SLOWED);
    load.wait_for(2 * RATE_SLOWED);
    let from = Instant::now();
    load.wait_for(6 * RATE_SLOWED);
    let to = Instant::now();
    let report = load.stop();
    report.expect_no_failure();
    println!("  shares {:?}", report.shares(from, to));
    report.quantile(0.99, from, to)
}
