//! Every case of `limits` and of `channel` runs, and gives a plausible distribution.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::process::{Command, Output};

use nightcore_bench::sample::Sample;

/// A deadlock must end the test run.
const SECONDS_MAX: &str = "300";

/// Runs the tool: measurements fork, which a test's process of many threads may not.
fn run(arguments: &[&str]) -> Output {
    Command::new("timeout")
        .args([SECONDS_MAX, env!("CARGO_BIN_EXE_nightcore-bench")])
        .args(arguments)
        .output()
        .unwrap()
}

/// The samples of a run, by case, each checked for what holds on every machine.
fn measure(arguments: &[&str]) -> BTreeMap<String, Sample> {
    let output = run(arguments);
    let notes = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {notes}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let samples = lines.lines().map(|line| serde_json::from_str::<Sample>(line).unwrap());
    let samples: BTreeMap<_, _> = samples.map(|sample| (sample.case.clone(), sample)).collect();
    for sample in samples.values() {
        assert!(sample.n > 0, "{sample:?}");
        assert!(sample.p50_us > 0.0 && sample.p50_us <= sample.p99_us, "{sample:?}");
        assert!(sample.p99_us <= sample.max_us, "{sample:?}");
    }
    samples
}

fn cores() -> usize {
    std::thread::available_parallelism().unwrap().get()
}

#[test]
fn each_limit_gives_a_distribution() {
    let samples = measure(&["limits", "--rounds", "30", "--json"]);
    for name in ["eventfd", "pipe", "futex", "unix_socket", "relay_write", "relay_entry"] {
        for placement in ["same_core", "unpinned"] {
            assert!(samples.contains_key(&format!("limits/{name}_{placement}")), "{name}");
        }
        let across = samples.contains_key(&format!("limits/{name}_across_cores"));
        assert_eq!(across, cores() > 1, "{name}");
    }
    assert!(samples.contains_key("limits/relay_entry_blocking_same_core"));
    assert_eq!(samples.contains_key("limits/spin_across_cores"), cores() > 1);
    assert_eq!(samples["limits/eventfd_same_core"].n, 30);
}

#[test]
fn each_size_of_a_copy_has_a_bandwidth() {
    let samples = measure(&["limits", "--only", "memcpy", "--rounds", "3", "--json"]);
    assert_eq!(samples.len(), 9);
    assert!(samples.values().all(|sample| sample.extra["gb_per_s"] > 0.0));
}

#[test]
fn only_what_is_named_is_measured() {
    let samples = measure(&["limits", "--only", "eventfd_same_core", "--rounds", "30", "--json"]);
    assert_eq!(samples.into_keys().collect::<Vec<_>>(), ["limits/eventfd_same_core"]);
    let output = run(&["limits", "--only", "event"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("\"event\""));
}

#[test]
fn a_channel_carries_payloads_of_every_region_in_every_way() {
    // Inline in A's arena, and beyond it in B's extent.
    let samples = measure(&["channel", "--sizes", "32,200000", "--rounds", "30", "--json"]);
    let ways = ["rtt", "rtt_reactor", "latency_to_worker", "latency_to_engine"];
    let streams = ["throughput_to_worker", "throughput_to_engine"];
    for way in ways.into_iter().chain(streams) {
        for size in [32, 200_000] {
            let sample = &samples[&format!("channel/{way}_same_core_{size}")];
            assert_eq!(sample.rps.is_some(), way.starts_with("throughput"), "{sample:?}");
        }
        assert_eq!(samples.contains_key(&format!("channel/{way}_across_cores_32")), cores() > 1);
    }
    assert_eq!(samples.contains_key("channel/rtt_spin_across_cores_32"), cores() > 1);
}
