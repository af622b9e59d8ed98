//! The documents of the gateway: health, readiness, metrics, the list of functions.

use nightcore_tests::{Stack, functions, get, post};

#[test]
fn health_and_readiness_answer_200() {
    let stack = Stack::start(&functions(&["nop"]));
    let mut connection = stack.connect();
    for path in ["/healthz", "/readyz"] {
        let answer = connection.exchange(&get(path));
        assert!(!answer.ok().is_empty(), "{path}");
        assert!(!answer.is_last(), "{path}");
    }
}

#[test]
fn head_of_a_document_is_its_get_without_the_body() {
    let stack = Stack::start(&functions(&["nop"]));
    let mut connection = stack.connect();
    for path in ["/healthz", "/readyz"] {
        let full = connection.exchange(&get(path));
        connection.send(format!("HEAD {path} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes());
        let head = connection.read_head_only();
        assert_eq!(head.status, full.status);
        assert_eq!(head.header("content-type"), full.header("content-type"));
        assert_eq!(head.header("content-length"), full.header("content-length"));
    }
    // What is read next is the next answer, not a body.
    assert_eq!(connection.exchange(&get("/healthz")).status, 200);
}

#[test]
fn a_get_may_name_the_server_in_its_target() {
    let stack = Stack::start(&functions(&["nop"]));
    let target = format!("http://{}/healthz", stack.address());
    assert_eq!(stack.get(&target).status, 200);
}

#[test]
fn metrics_are_prometheus_text_and_count_calls() {
    let stack = Stack::start(&functions(&["nop", "fail"]));
    for _ in 0..7 {
        stack.call("nop", b"").ok();
    }
    for _ in 0..3 {
        stack.call("fail", b"").failure(500, "function_error");
    }
    let answer = stack.get("/metrics");
    let kind = answer.header("content-type").expect("a content type");
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    let text = std::str::from_utf8(answer.ok()).expect("text");
    let samples = parse_prometheus(text);
    let value = |series: &str| {
        let found = samples.iter().find(|(name, _)| name == series);
        found.unwrap_or_else(|| panic!("no {series} in\n{text}")).1
    };
    assert_eq!(value("nightcore_function_arrivals_total{function=\"nop\"}"), 7.0);
    assert_eq!(value("nightcore_function_calls_total{function=\"nop\",outcome=\"ok\"}"), 7.0);
    let failed = "nightcore_function_calls_total{function=\"fail\",outcome=\"function_error\"}";
    assert_eq!(value(failed), 3.0);
    assert_eq!(value("nightcore_container_up{function=\"nop\"}"), 1.0);
}

#[test]
fn durations_are_histograms_of_every_call_that_ran() {
    let stack = Stack::start(&functions(&["chain", "echo"]));
    for _ in 0..4 {
        stack.call("chain", b"{\"n\": 2}").ok();
    }
    let answer = stack.get("/metrics");
    let samples = parse_prometheus(answer.text());
    for (function, calls) in [("chain", 4.0), ("echo", 8.0)] {
        for metric in ["queue_delay", "processing"] {
            let name = |end| format!("nightcore_function_{metric}_seconds_{end}");
            let of = |end| {
                let series = format!("{}{{function=\"{function}\"", name(end));
                let found = samples.iter().filter(move |(found, _)| found.starts_with(&series));
                found.map(|(series, value)| (series.as_str(), *value)).collect::<Vec<_>>()
            };
            let buckets = of("bucket");
            assert!(buckets.is_sorted_by_key(|(_, value)| *value), "{buckets:?}");
            let (series, last) = buckets.last().expect("a bucket");
            assert!(series.contains("le=\"+Inf\""), "{series}");
            assert_eq!((*last, of("count")[0].1), (calls, calls), "{function}: {metric}");
            let sum = of("sum")[0].1;
            assert!(sum >= 0.0, "{sum}");
            assert!(metric == "queue_delay" || sum > 0.0, "{function} ran for no time");
        }
    }
    let list = stack.get("/v1/functions").json();
    let echo = &list["functions"][1];
    assert_eq!(echo["outcomes"]["ok"], 8);
    assert_eq!(echo["processing"]["count"], 8);
    let quantile = |key: &str| echo["processing"][key].as_u64().expect("calls were measured");
    assert!(0 < quantile("p50_ns") && quantile("p50_ns") <= quantile("p99_ns"), "{echo}");
    let buckets = echo["processing"]["buckets"].as_array().expect("a list").len();
    assert_eq!(buckets, list["bounds_ns"].as_array().expect("a list").len() + 1);
}

#[test]
fn calls_that_waited_in_vain_are_counted_though_nothing_else_happens() {
    let config = functions(&["sleep"]) + "max_workers = 1\ntimeout = \"300ms\"\n";
    let stack = Stack::start(&config);
    let mut connections = [stack.connect(), stack.connect()];
    for connection in &mut connections {
        connection.send(&post("/function/sleep", b"{\"ms\": 600}"));
    }
    for connection in &mut connections {
        connection.read().failure(504, "deadline_exceeded");
    }
    let outcomes = &stack.get("/v1/functions").json()["functions"][0]["outcomes"];
    assert_eq!(outcomes["deadline_exceeded"], 2, "{outcomes}");
    assert_eq!(stack.count("sleep", "queued"), 0);
}

#[test]
fn the_list_of_functions_tells_their_names_and_counts() {
    let stack = Stack::start(&functions(&["echo", "nop"]));
    stack.call("echo", b"x").ok();
    let list = stack.get("/v1/functions").json();
    let names: Vec<_> = list["functions"].as_array().expect("a list").iter().collect();
    let names: Vec<_> = names.iter().map(|entry| entry["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["echo", "nop"]);
    assert_eq!(stack.count("echo", "arrivals"), 1);
    assert_eq!(stack.count("echo", "completed"), 1);
    assert_eq!(stack.count("nop", "arrivals"), 0);
}

#[test]
fn the_command_line_client_calls_and_lists() {
    let stack = Stack::start(&functions(&["echo"]));
    let url = format!("http://{}", stack.address());
    let nightcore = |arguments: &[&str]| {
        let output = std::process::Command::new(nightcore_tests::binaries::built("nightcore"))
            .args(arguments)
            .args(["--url", &url])
            .output()
            .expect("`nightcore` can be run");
        let stdout = String::from_utf8(output.stdout).expect("text");
        (output.status.code(), stdout)
    };
    assert_eq!(nightcore(&["invoke", "echo", "-d", "hi"]), (Some(0), "hi".to_owned()));
    assert_eq!(nightcore(&["invoke", "unknown"]), (Some(1), String::new()));
    let (code, table) = nightcore(&["ls"]);
    assert_eq!(code, Some(0));
    assert!(table.lines().any(|line| line.starts_with("echo ")), "{table}");
}

/// Samples as series and value. Fails on whatever a Prometheus server would not take, and on two
/// samples of one series.
fn parse_prometheus(text: &str) -> Vec<(String, f64)> {
    assert!(text.ends_with('\n'), "the last line must end too");
    let mut samples: Vec<(String, f64)> = Vec::new();
    let mut typed = Vec::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (keyword, name) = (words.next(), words.next().expect("a metric's name"));
            match keyword {
                Some("HELP") => {}
                Some("TYPE") => {
                    let kind = words.next().expect("a type");
                    assert!(["counter", "gauge", "histogram", "summary"].contains(&kind), "{line}");
                    assert!(!typed.contains(&name), "typed twice: {line}");
                    typed.push(name);
                }
                _ => panic!("neither HELP nor TYPE: {line}"),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a series and a value");
        let name_size = series.find('{').unwrap_or(series.len());
        let (name, labels) = series.split_at(name_size);
        let is_name = |text: &str| {
            text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
                && !text.starts_with(|first: char| first.is_ascii_digit())
                && !text.is_empty()
        };
        assert!(is_name(name), "{line}");
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        assert!(typed.contains(&name) || family.is_some_and(|f| typed.contains(&f)), "{line}");
        if !labels.is_empty() {
            let inner = labels.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            for label in inner.expect("labels in braces").split(',') {
                let (key, value) = label.split_once('=').expect("a label");
                assert!(is_name(key), "{line}");
                assert!(
                    value.len() >= 2 && value.starts_with('"') && value.ends_with('"'),
                    "{line}"
                );
            }
        }
        assert!(samples.iter().all(|(known, _)| known != series), "twice: {line}");
        samples.push((series.to_owned(), value.parse().expect("a number")));
    }
    samples
}
