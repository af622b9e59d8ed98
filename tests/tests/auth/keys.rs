//! API keys.

use std::fs;
use std::process::Command;

use nightcore_tests::stack::refused;
use nightcore_tests::{binaries, functions, request, wait_until};
use nix::sys::signal::Signal;

use crate::lock::{Lock, bearer, call, nightcore, reload};

#[test]
fn without_a_key_only_health_is_told() {
    let lock = Lock::new();
    let key = lock.add_key("k", &[]);
    let stack = lock.start("");
    let mut connection = stack.connect();
    for path in ["/function/echo", "/function/nowhere", "/metrics", "/v1/functions"] {
        let answer = connection.exchange(&request("GET", path, "", b""));
        answer.failure(401, "unauthorized");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"nightcore\""));
        assert!(!answer.is_last(), "{path}");
    }
    for path in ["/healthz", "/readyz"] {
        connection.exchange(&request("GET", path, "", b"")).ok();
    }
    for headers in [bearer(&key), format!("X-Api-Key: {key}\r\n")] {
        assert_eq!(call(&mut connection, "echo", &headers).ok(), b"hi");
        for path in ["/metrics", "/v1/functions"] {
            connection.exchange(&request("GET", path, &headers, b"")).ok();
        }
    }
    let wrong = bearer(&key.replace("nck_k_", "nck_k2_"));
    let answer = call(&mut connection, "echo", &wrong);
    answer.failure(401, "unauthorized");
    assert!(answer.header("www-authenticate").is_some_and(|it| it.contains("invalid_token")));
}

#[test]
fn keys_of_one_client_have_functions_and_rates_of_their_own() {
    let lock = Lock::new();
    let bound = lock.add_key("bound", &["--function", "ins*"]);
    let slow = lock.add_key("slow", &["--rate", "1", "--burst", "2"]);
    let free = lock.add_key("free", &[]);
    let stack = lock.start("[engine]\nshards = 2\n");
    let mut connection = stack.connect();
    let answer = call(&mut connection, "echo", &bearer(&bound));
    answer.failure(403, "forbidden");
    assert!(answer.header("www-authenticate").is_some_and(|it| it.contains("insufficient_scope")));
    assert_eq!(call(&mut connection, "inspect", &bearer(&bound)).status, 201);

    // Over both shards: one connection each, as far as the stack places them so. However slow the
    // machine is, 50 calls do not take 25 s.
    let mut connections = [stack.connect(), stack.connect()];
    let answers: Vec<_> = (0..50)
        .map(|index: usize| call(&mut connections[index % 2], "echo", &bearer(&slow)))
        .collect();
    assert_eq!((answers[0].status, answers[1].status), (200, 200), "the burst");
    let limited = answers.iter().find(|answer| answer.status != 200).expect("the rate holds");
    limited.failure(429, "limit_reached");
    assert_eq!(limited.header("retry-after"), Some("1"));
    assert_eq!(call(&mut connection, "echo", &bearer(&free)).ok(), b"hi");
}

#[test]
fn a_reload_takes_a_key_away_and_a_bad_file_changes_nothing() {
    let lock = Lock::new();
    let first = lock.add_key("first", &[]);
    let only_first = lock.read("keys.toml");
    let second = lock.add_key("second", &[]);
    let stack = lock.start("");
    let mut connection = stack.connect();
    assert_eq!(call(&mut connection, "echo", &bearer(&second)).ok(), b"hi");

    lock.write("keys.toml", &only_first);
    assert_eq!(reload(&stack), (Some(0), "[auth]: read again, 1 API keys\n".to_owned()));
    call(&mut connection, "echo", &bearer(&second)).failure(401, "unauthorized");
    assert_eq!(call(&mut connection, "echo", &bearer(&first)).ok(), b"hi");

    lock.write("keys.toml", "[[key]]\nid = \"x\"\n");
    let (code, text) = reload(&stack);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("keys.toml: line 1: missing field"), "{text}");
    assert_eq!(call(&mut connection, "echo", &bearer(&first)).ok(), b"hi");

    lock.write("keys.toml", "");
    stack.signal(Signal::SIGHUP);
    let is_locked_out = || call(&mut stack.connect(), "echo", &bearer(&first)).status == 401;
    wait_until("the signal has taken the last key away", is_locked_out);
}

#[test]
fn a_key_reaches_no_function() {
    let lock = Lock::new();
    let key = lock.add_key("k", &[]);
    let stack = lock.start("");
    for headers in [bearer(&key), format!("x-API-key: {key}\r\n")] {
        let headers = format!("{headers}X-Other: 1\r\n");
        let answer = call(&mut stack.connect(), "inspect", &headers);
        let text = answer.text().to_lowercase();
        assert!(text.contains("header x-other=1"), "{text}");
        for word in [&key, "authorization", "x-api-key"] {
            assert!(!text.contains(word), "{text}");
        }
    }
}

#[test]
fn a_file_of_keys_that_cannot_be_used_ends_the_start_with_one_line() {
    let lock = Lock::new();
    let text = format!(
        "[auth]\nkeys_file = \"{}\"\n{}",
        lock.path("keys.toml").display(),
        functions(&["nop"])
    );
    for (content, words) in [
        (None, "keys.toml: cannot be read: No such file"),
        (Some("[[key]]\nid = 7\n"), "keys.toml: line 2: "),
        (
            Some("[[key]]\nid = \"a\"\nhash = \"nck_secret\"\nclient = \"c\"\n"),
            "keys.toml: key 1: a hash is ",
        ),
    ] {
        if let Some(content) = content {
            lock.write("keys.toml", content);
        }
        let ended = refused(&text);
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
        assert!(!ended.stderr.contains("nck_secret"), "{}", ended.stderr);
        assert!(ended.left.is_empty(), "{:?}", ended.left);
    }
}

#[test]
fn commands_show_the_key_of_their_environment() {
    let lock = Lock::new();
    let key = lock.add_key("k", &[]);
    let stack = lock.start("");
    let url = format!("http://{}", stack.address());
    for arguments in [vec!["ls", "--url", &url], vec!["invoke", "--url", &url, "echo", "-d", "hi"]]
    {
        let run = |key: &str| {
            let mut command = Command::new(binaries::built("nightcore"));
            command.args(&arguments).env("NIGHTCORE_KEY", key).output().expect("it can be run")
        };
        assert_eq!(run("nonsense").status.code(), Some(1));
        let output = run(&key);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_key_and_its_hash_are_made_by_the_command() {
    let lock = Lock::new();
    let key = lock.add_key("k-1", &["--function", "f", "--rate", "5"]);
    let table = fs::read_to_string(lock.path("keys.toml")).expect("a file");
    assert!(key.starts_with("nck_k-1_") && !table.contains(&key));
    let hashed = nightcore(&["key", "hash"], &format!("{key}\n"));
    let hash = String::from_utf8(hashed.stdout).expect("text");
    assert!(hash.starts_with("sha256:") && table.contains(hash.trim()), "{hash}{table}");
    assert_eq!(nightcore(&["key", "hash"], "nonsense").status.code(), Some(2));
    assert_eq!(nightcore(&["key", "new", "a_b", "--client", "c"], "").status.code(), Some(2));
}
