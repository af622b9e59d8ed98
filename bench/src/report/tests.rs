//! The report on small runs whose figures are known.

use std::fs;

use super::bars::{Bar, RATIOS, Ratio, Side};
use super::runs::{Record, Runs};
use super::summary::Summary;
use crate::sample::Sample;

fn sample(case: &str, p50_us: f64, rps: Option<f64>) -> Sample {
    Sample {
        case: case.to_owned(),
        n: 100,
        mean_us: p50_us,
        p50_us,
        p90_us: p50_us * 1.5,
        p99_us: p50_us * 2.0,
        p999_us: p50_us * 3.0,
        p9999_us: p50_us * 4.0,
        max_us: p50_us * 5.0,
        rps,
        extra: [("cpu_us".to_owned(), p50_us / 10.0)].into(),
        percentiles: vec![(0.0, 1.0), (50.0, p50_us), (100.0, p50_us * 5.0)],
    }
}

fn runs(samples: &[(u32, Sample)]) -> Runs {
    let mut runs = Runs::default();
    for (run, sample) in samples {
        runs.add(Record { run: *run, sample: sample.clone() });
    }
    runs
}

fn ratio(figure: &'static str) -> Ratio {
    Ratio {
        name: "a_over_b",
        what: "",
        of: Side { case: "a", figure },
        over: Some(Side { case: "b", figure }),
        bar: Some(Bar::AtMost(1.0)),
        moonshot: None,
    }
}

#[test]
fn a_ratio_is_taken_within_each_round() {
    // A slow second round slows both: the ratio of the medians would be 20 / 20.
    let runs = runs(&[
        (1, sample("a", 10.0, None)),
        (1, sample("b", 20.0, None)),
        (2, sample("b", 90.0, None)),
        (2, sample("a", 45.0, None)),
        (3, sample("a", 20.0, None)),
        (3, sample("b", 10.0, None)),
        (4, sample("a", 1.0, None)), // nothing to compare it with
    ]);
    let value = ratio("p50_us").value(&runs).unwrap();
    assert_eq!((value.median, value.min, value.max, value.runs), (0.5, 0.5, 2.0, 3));
}

#[test]
fn several_samples_of_a_round_count_once() {
    let runs = runs(&[
        (1, sample("a", 10.0, None)),
        (1, sample("a", 12.0, None)),
        (1, sample("a", 99.0, None)),
        (1, sample("b", 6.0, None)),
    ]);
    assert_eq!(ratio("p50_us").value(&runs).unwrap().median, 2.0);
}

#[test]
fn a_peer_counts_in_the_placement_that_is_best_for_the_figure() {
    let runs = runs(&[
        (1, sample("a", 10.0, Some(100.0))),
        (1, sample("b", 20.0, Some(300.0))),
        (1, sample("b@one_core", 5.0, Some(200.0))),
        (1, sample("bb@one_core", 1.0, Some(9000.0))), // another case
    ]);
    assert_eq!(ratio("p50_us").value(&runs).unwrap().median, 2.0);
    assert_eq!(ratio("rps").value(&runs).unwrap().median, 100.0 / 300.0);
}

#[test]
fn bars_have_a_direction() {
    assert!(Bar::AtMost(1.2).is_met(1.2) && !Bar::AtMost(1.2).is_met(1.21));
    assert!(Bar::AtLeast(1.5).is_met(1.5) && !Bar::AtLeast(1.5).is_met(1.49));
}

#[test]
fn a_moonshot_lies_beyond_its_bar() {
    for ratio in RATIOS {
        let (Some(bar), Some(moonshot)) = (ratio.bar, ratio.moonshot) else { continue };
        assert!(bar.is_met(moonshot), "{}", ratio.name);
    }
}

#[test]
fn the_summary_has_its_stable_schema() {
    let mut idle = sample("idle_cpu_percent", 0.0, None);
    idle.n = 0;
    idle.extra = [("percent".to_owned(), 0.0)].into();
    let runs = runs(&[(1, sample("a", 10.0, Some(2.5))), (1, sample("b", 4.0, None)), (1, idle)]);
    let env = serde_json::json!({"cores": 2});
    let summary = Summary::new(env, &runs, &[ratio("p50_us"), ratio("rps")]);
    let expected = serde_json::json!({
        "schema": 1,
        "env": {"cores": 2},
        "cases": {
            "a": {"p50_us": 10.0, "p99_us": 20.0, "p999_us": 30.0, "rps": 2.5, "n": 100, "runs": 1,
                  "cpu_us": 1.0},
            "b": {"p50_us": 4.0, "p99_us": 8.0, "p999_us": 12.0, "rps": null, "n": 100, "runs": 1,
                  "cpu_us": 0.4},
            "idle_cpu_percent": {"p50_us": null, "p99_us": null, "p999_us": null, "rps": null,
                                 "n": 0, "runs": 1, "percent": 0.0},
        },
        "ratios": {"a_over_b": {"median": 2.5, "min": 2.5, "max": 2.5, "runs": 1}},
    });
    let written: serde_json::Value = serde_json::from_str(&summary.to_json()).unwrap();
    assert_eq!(written, expected);
}

#[test]
fn a_directory_of_raw_samples_becomes_a_report() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    fs::create_dir(path.join("raw")).unwrap();
    for run in 1..=3 {
        let lines: Vec<String> = ["nop_c1", "nginx_c1", "nop_c64", "nginx_proxy_c64"]
            .map(|case| Record { run, sample: sample(case, 60.0, Some(1000.0)) })
            .map(|record| serde_json::to_string(&record).unwrap())
            .to_vec();
        fs::write(path.join(format!("raw/round-{run}.jsonl")), lines.join("\n")).unwrap();
    }
    let environment = r#"{"cores": 2, "skipped": {"workerd_nop_c1": "no workerd"}}"#;
    fs::write(path.join("environment.json"), environment).unwrap();

    let table = super::run(path).unwrap();
    assert!(table.contains("workerd_nop_c1: no workerd"), "{table}");
    let bar = table.lines().find(|line| line.contains("nop_c1_over_nginx")).unwrap();
    assert!(bar.contains("1.00") && bar.contains("<= 1.20") && bar.contains("met"), "{bar}");
    let missed = table.lines().find(|line| line.contains("nop_c64_rps_over")).unwrap();
    assert!(missed.contains("missed"), "{missed}");

    let summary = fs::read_to_string(path.join("summary.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(summary["ratios"]["nop_c1_over_nginx"]["runs"], 3);
    let page = fs::read_to_string(path.join("summary.md")).unwrap();
    assert!(page.contains("![cdf nop c1](cdf_nop_c1.svg)"), "{page}");
    let svg = fs::read_to_string(path.join("cdf_nop_c1.svg")).unwrap();
    roxmltree::Document::parse(&svg).unwrap();
}

#[test]
fn a_broken_line_is_named() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("raw")).unwrap();
    let file = directory.path().join("raw/round-1.jsonl");
    let good = Record { run: 1, sample: sample("a", 1.0, None) };
    fs::write(&file, serde_json::to_string(&good).unwrap() + "\n{\"run\":1}\n").unwrap();
    let error = super::run(directory.path()).unwrap_err().to_string();
    assert!(error.contains("round-1.jsonl:2"), "{error}");
}
