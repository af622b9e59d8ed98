//! Functions that call functions.

use nightcore_tests::functions::build;
use nightcore_tests::{Stack, binaries, config, functions, request};
use tempfile::TempDir;

#[test]
fn a_hundred_calls_in_a_chain_and_in_a_fan_come_back() {
    let stack = Stack::start(&functions(&["echo", "chain", "fanout"]));
    for function in ["chain", "fanout"] {
        for n in [0, 1, 100, 1_000] {
            let input = format!("{{\"n\": {n}}}");
            let summary = stack.call(function, input.as_bytes()).json();
            assert_eq!((&summary["n"], &summary["size"]), (&n.into(), &1024.into()), "{function}");
            let [p50, p99, p999] =
                ["p50_us", "p99_us", "p999_us"].map(|key| summary[key].as_f64().expect("a number"));
            assert!(p50 <= p99 && p99 <= p999, "{summary}");
            assert!(n == 0 || p50 > 0.0, "{summary}");
        }
    }
    assert_eq!(stack.count("echo", "completed"), 2 * 1_101);
}

#[test]
fn chains_carry_payloads_from_1_byte_to_1_mebibyte() {
    let stack = Stack::start(&functions(&["echo", "chain", "fanout"]));
    for size in [0, 1, 64, 1 << 10, 64 << 10, (64 << 10) + 1, 1 << 20] {
        for function in ["chain", "fanout"] {
            let input = format!("{{\"n\": 10, \"size\": {size}}}");
            let summary = stack.call(function, input.as_bytes()).json();
            assert_eq!((&summary["n"], &summary["size"]), (&10.into(), &size.into()), "{function}");
        }
    }
}

#[test]
fn an_answer_passes_through_two_functions_unchanged() {
    let directory = TempDir::new().expect("a directory");
    let relay = config::function("relay", &build("relay", directory.path()));
    let stack = Stack::start(&format!("{}{relay}", functions(&["echo"])));
    let mut random = nightcore_tests::Random::new(5);
    for size in [0, 1, 1_000, 100_000, 1 << 20, 8 << 20] {
        let body = random.bytes(size);
        let input = [b"relay\necho\n".as_slice(), &body].concat();
        let answer = stack.call("relay", &input);
        assert!(answer.ok() == body, "{size}: {}", answer.show());
    }
}

#[test]
fn a_function_without_standing_workers_gets_one_when_called() {
    let config = functions(&["nop"]) + &functions(&["chain"]) + "min_workers = 0\n";
    let stack = Stack::start(&config);
    assert_eq!(stack.count("chain", "workers"), 0);
    assert_eq!(stack.call("chain", b"{\"function\": \"nop\"}").json()["n"], 10);
    assert_eq!(stack.count("chain", "workers"), 1);
}

#[test]
fn recursion_reaches_the_depth_asked_for() {
    let stack = Stack::start(&functions(&["recurse"]));
    for n in [0, 1, 5, 15, 16] {
        let input = format!("{{\"n\": {n}}}");
        assert_eq!(stack.call("recurse", input.as_bytes()).json()["depth"], n);
    }
}

#[test]
fn many_recursions_at_once_do_not_deadlock_the_pool() {
    // Five chains of nine workers each would need more than there are.
    let stack = Stack::start(&(functions(&["recurse"]) + "max_workers = 12\ntimeout = \"2s\"\n"));
    std::thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| {
                let answer = stack.call("recurse", b"{\"n\": 8}");
                assert!([200, 503, 504].contains(&answer.status), "{}", answer.show());
            });
        }
    });
    assert_eq!(stack.call("recurse", b"{\"n\": 8}").json()["depth"], 8);
}

#[test]
fn markdown_renders_the_readme_and_highlights_its_code() {
    let stack = Stack::start(&functions(&["markdown", "highlight"]));
    let readme = std::fs::read(binaries::in_tree("README.md")).expect("the project has a README");
    let text = String::from_utf8(readme).expect("it is text");
    let title = text.lines().find_map(|line| line.strip_prefix("# ")).expect("it has a title");
    let answer = stack.call("markdown", text.as_bytes());
    let html = std::str::from_utf8(answer.ok()).expect("text");
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("text/html")));
    assert!(html.contains("<h1>") && html.contains(title), "{html}");
    assert!(html.contains("<pre><code"), "{html}");

    let answer = stack.call("markdown", b"Text\n\n```rust\nfn main() { 1 < 2; }\n```\n\nEnd\n");
    let html = std::str::from_utf8(answer.ok()).expect("text");
    assert!(html.contains("<p>Text</p>") && html.contains("<p>End</p>"), "{html}");
    assert!(html.contains("<span class=\"hl-") && html.contains("&lt;"), "{html}");
    assert!(stack.count("highlight", "completed") >= 1);
}

#[test]
fn a_failed_call_tells_its_caller_why() {
    let directory = TempDir::new().expect("a directory");
    let relay = config::function("relay", &build("relay", directory.path()));
    let stack = Stack::start(&format!("{}{relay}", functions(&["fail", "panic", "crash"])));
    let relayed = |input: &str| {
        let answer = stack.call("relay", input.as_bytes());
        String::from_utf8(answer.ok().to_vec()).expect("text")
    };
    // The numbers are those of nightcore.h.
    assert!(relayed("unknown\n").starts_with("outcome 4: "));
    assert_eq!(relayed("fail\nas told"), "outcome 1: as told");
    assert_eq!(relayed("panic\nas told"), "outcome 2: as told");
    assert!(relayed("crash\n").starts_with("outcome 10: "));
}

#[test]
fn a_function_that_gives_up_on_a_failed_call_fails_itself() {
    let stack = Stack::start(&functions(&["chain", "fanout", "fail", "panic"]));
    for function in ["chain", "fanout"] {
        for callee in ["unknown", "fail", "panic"] {
            let input = format!("{{\"function\": \"{callee}\"}}");
            let answer = stack.call(function, input.as_bytes());
            answer.failure(500, "function_error");
        }
    }
}

#[test]
fn a_deadline_is_handed_down() {
    let stack = Stack::start(&functions(&["chain", "sleep"]));
    let input = b"{\"n\": 1, \"function\": \"sleep\", \"input\": \"{\\\"ms\\\": 2000}\"}";
    let headers = "X-Nightcore-Timeout-Ms: 100\r\n";
    let answer = stack.connect().exchange(&request("POST", "/function/chain", headers, input));
    answer.failure(504, "deadline_exceeded");
}

#[test]
fn a_function_sees_the_whole_request_and_shapes_the_answer() {
    let directory = TempDir::new().expect("a directory");
    let stack = Stack::start(&config::function("inspect", &build("inspect", directory.path())));
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = format!("X-Request-Id: id-7\r\nTraceparent: {trace}\r\nX-Color: blue\r\n");
    let path = "/function/inspect/some/path?a=1&b=%20";
    let answer = stack.connect().exchange(&request("POST", path, &headers, b"body"));
    assert_eq!(answer.status, 201, "{}", answer.show());
    assert_eq!(answer.header("content-type"), Some("text/x-inspected"));
    assert_eq!(answer.header("x-inspected"), Some("yes"));
    assert_eq!(answer.header("x-request-id"), Some("id-7"));
    for line in [
        "function=inspect",
        "method=POST",
        "suffix=/some/path",
        "query=a=1&b=%20",
        "request_id=id-7",
        "depth=0",
        "input=body",
    ] {
        assert!(answer.text().lines().any(|known| known == line), "{line}: {}", answer.show());
    }
    let lower = answer.text().to_ascii_lowercase();
    assert!(lower.contains("header x-color=blue"), "{lower}");
    // The trace is the client's; the span may be one of the gateway's own.
    assert!(lower.contains(&format!("traceparent={}", &trace[..36])), "{lower}");
}

#[test]
fn request_id_trace_and_depth_go_along_with_internal_calls() {
    let directory = TempDir::new().expect("a directory");
    let inspect = config::function("inspect", &build("inspect", directory.path()));
    let relay = config::function("relay", &build("relay", directory.path()));
    let stack = Stack::start(&format!("{inspect}{relay}"));
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = format!("X-Request-Id: id-8\r\nTraceparent: {trace}\r\nX-Color: blue\r\n");
    let bytes = request("POST", "/function/relay/x?y", &headers, b"relay\ninspect\nbody");
    let answer = stack.connect().exchange(&bytes);
    let text = std::str::from_utf8(answer.ok()).expect("text");
    for line in
        ["function=inspect", "request_id=id-8", "depth=2", "input=body", "suffix=", "query="]
    {
        assert!(text.lines().any(|known| known == line), "{line}: {text}");
    }
    assert!(text.contains(&format!("traceparent={}", &trace[..36])), "{text}");
    assert!(!text.to_ascii_lowercase().contains("x-color"), "headers are the client's: {text}");
}
