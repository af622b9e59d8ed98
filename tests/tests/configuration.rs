//! A configuration that cannot be used: one clear line, exit code 2, nothing half started.

use std::fs;
use std::path::Path;
use std::process::Command;

use nightcore_tests::functions::build;
use nightcore_tests::stack::refused;
use nightcore_tests::{binaries, config, functions};
use tempfile::TempDir;

/// Asserts that the configuration is refused at this line, for a reason in which these words occur.
#[track_caller]
fn expect_refusal(text: &str, line: usize, words: &[&str]) {
    let ended = refused(text);
    let stderr = &ended.stderr;
    assert_eq!(ended.code, Some(2), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "not one line: {stderr}");
    assert!(stderr.contains(&format!("nightcore.toml:{line}: ")), "not of line {line}: {stderr}");
    for word in words {
        assert!(stderr.contains(word), "no {word:?} in {stderr}");
    }
    assert_eq!(ended.left, [] as [std::path::PathBuf; 0], "{stderr}");
}

#[test]
fn a_library_that_lacks_a_symbol_is_refused() {
    let directory = TempDir::new().expect("a directory");
    let good = functions(&["nop", "echo"]);
    let stranger = build("stranger", directory.path());
    let text = format!("{good}{}", config::function("odd", &stranger));
    // The functions before it were started by then, and have to be ended again.
    expect_refusal(&text, 7, &["odd", "nightcore_abi_version", "faas_init"]);
    let unfinished = build("unfinished", directory.path());
    let text = format!("{good}{}", config::function("odd", &unfinished));
    expect_refusal(&text, 7, &["odd", "faas_func_call"]);
}

#[test]
fn a_library_that_is_none_is_refused() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("libtext.so");
    fs::write(&path, "this is text").expect("a file");
    expect_refusal(&config::function("text", &path), 1, &["text", "libtext.so"]);
}

#[test]
fn a_wrong_path_is_refused() {
    let text = config::function("f", Path::new("/nonexistent/libf.so"));
    expect_refusal(&text, 3, &["function.library", "/nonexistent/libf.so"]);
    let text = config::function("f", Path::new("libnothing.so"));
    expect_refusal(&text, 3, &["function.library", "libnothing.so"]);
    // A directory is no library either.
    let directory = TempDir::new().expect("a directory");
    expect_refusal(&config::function("f", directory.path()), 3, &["function.library"]);
}

#[test]
fn a_name_that_is_used_twice_is_refused() {
    let text = functions(&["nop", "echo", "nop"]);
    expect_refusal(&text, 8, &["function.name", "\"nop\"", "line 1"]);
}

#[test]
fn a_bad_value_is_refused_with_what_was_expected() {
    let function = functions(&["nop"]);
    for (line, words) in [
        ("memory = \"12 potatoes\"", ["function.memory", "12 potatoes"]),
        ("memory = \"64MB\"", ["function.memory", "64MB"]),
        ("container = \"vm\"", ["function.container", "sandbox"]),
        ("pids = 0", ["function.pids", "0"]),
        ("cpu_quota = 0.001", ["function.cpu_quota", "0.01"]),
        ("cpu_quota = \"half\"", ["function.cpu_quota", "half"]),
        ("network = 1", ["function.network", "true or false"]),
        ("read_only = [\"etc\"]", ["function.read_only", "absolute"]),
        ("timeout = \"soon\"", ["function.timeout", "soon"]),
        ("timeout = \"-1s\"", ["function.timeout", "-1s"]),
        ("timeout = 30", ["function.timeout", "30"]),
        ("max_workers = 0", ["function.max_workers", "0"]),
        ("max_workers = 257", ["function.max_workers", "257"]),
        ("min_workers = 129", ["function.min_workers", "129"]),
        ("timeout = \"0s\"", ["function.timeout", "0s"]),
        ("grace = \"0s\"", ["function.grace", "0s"]),
        ("queue_wait_max = \"-1s\"", ["function.queue_wait_max", "-1s"]),
        ("concurrency = \"many\"", ["function.concurrency", "managed"]),
        ("concurrency_limit = 0", ["function.concurrency_limit", "0"]),
        ("rate_limit = -5", ["function.rate_limit", "-5"]),
        ("placement = \"here\"", ["function.placement", "here"]),
        ("max_worker = 3", ["max_worker", "max_workers"]),
        ("env = { NIGHTCORE_SOCKET = \"x\" }", ["function.env", "NIGHTCORE_"]),
    ] {
        expect_refusal(&format!("{function}{line}\n"), 4, &words);
    }
    for (line, word) in [
        ("body_max = \"1PiB\"", "gateway.body_max"),
        ("head_timeout = \"1\"", "gateway.head_timeout"),
        ("connections_max = 0", "gateway.connections_max"),
        ("listen = \"localhost\"", "gateway.listen"),
        ("lsten = \"127.0.0.1:0\"", "lsten"),
    ] {
        expect_refusal(&format!("[gateway]\n{line}\n{function}"), 2, &[word]);
    }
}

#[test]
fn a_file_that_is_no_toml_is_refused() {
    expect_refusal("[gateway]\nlisten = \n", 2, &["TOML"]);
    expect_refusal("[gateway\n", 1, &["TOML"]);
    expect_refusal("[unknown]\n", 1, &["unknown"]);
}

#[test]
fn a_file_that_is_not_there_is_refused() {
    let output = std::process::Command::new(binaries::built("nightcore"))
        .args(["up", "-c", "/nonexistent/nightcore.toml"])
        .output()
        .expect("`nightcore` can be run");
    let stderr = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.starts_with("/nonexistent/nightcore.toml: "), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn a_wrong_command_line_is_refused() {
    for arguments in [&["up", "--listen", "nowhere"][..], &["up", "--shards", "0"], &["dance"], &[]]
    {
        let output = std::process::Command::new(binaries::built("nightcore"))
            .args(arguments)
            .output()
            .expect("`nightcore` can be run");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_host_binary_that_is_not_there_is_the_systems_fault_and_not_the_configurations() {
    let directory = TempDir::new().expect("a directory");
    let command = directory.path().join("nightcore");
    fs::copy(binaries::built("nightcore"), &command).expect("a copy without its companion");
    let path = directory.path().join("nightcore.toml");
    let library = binaries::built("libnop.so");
    fs::write(&path, config::function("nop", &library)).expect("a file");
    let output = Command::new(&command)
        .args(["up", "--listen", "127.0.0.1:0", "--config"])
        .arg(&path)
        .env_remove("NIGHTCORE_WORKER")
        .output()
        .expect("`nightcore` can be run");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "not one line: {stderr}");
    assert!(stderr.contains("nightcore-worker"), "{stderr}");
}
