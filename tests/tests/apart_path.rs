//! A gateway and an engine that are neighbours: the engine joins by the path of a socket.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

use nightcore_tests::apart::Part;
use nightcore_tests::config::functions;
use nightcore_tests::watchdog::wait_until;
use nix::sys::signal::Signal;
use tempfile::TempDir;

fn place() -> (TempDir, PathBuf) {
    let directory = TempDir::with_prefix("nightcore-path-").expect("a temporary directory");
    let path = directory.path().join("engines.sock");
    (directory, path)
}

#[test]
fn functions_of_a_neighbour_are_called_by_the_path_of_a_socket() {
    let (_directory, path) = place();
    let gateway = Part::gateway_by(&path);
    let metadata = path.symlink_metadata().unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.mode() & 0o777, 0o600);
    let _engine = Part::engine_by(&path, &functions(&["echo", "fail"]));
    gateway.wait_for("echo");
    for size in [0_usize, 1, 1000, 16 * 1024, 100_000, 5 << 20] {
        let input: Vec<u8> = (0..=250).cycle().take(size).collect();
        assert!(gateway.call("echo", &input).ok() == input, "{size} bytes");
    }
    gateway.call("fail", b"x").failure(500, "function_error");
}

#[test]
fn a_neighbour_that_is_killed_is_missed_at_once_and_comes_back() {
    let (_directory, path) = place();
    let gateway = Part::gateway_by(&path);
    let list = functions(&["echo", "sleep"]);
    for _ in 0..2 {
        let engine = Part::engine_by(&path, &list);
        gateway.wait_for("echo");
        wait_until("it sleeps", || gateway.call("sleep", b"").status == 200);
        std::thread::scope(|scope| {
            let call = scope.spawn(|| gateway.call("sleep", b"{\"ms\": 60000}"));
            wait_until("the call is there", || {
                gateway.metric("nightcore_engines_calls_in_flight") == 1
            });
            // By SIGKILL.
            drop(engine);
            call.join().unwrap().failure(502, "host_lost");
        });
        wait_until("nobody has it", || gateway.call("echo", b"x").status != 200);
    }
}

#[test]
fn what_a_killed_gateway_leaves_is_replaced_and_one_that_ends_leaves_nothing() {
    let (directory, path) = place();
    let gateway = Part::gateway_by(&path);
    let engine = Part::engine_by(&path, &functions(&["echo"]));
    gateway.wait_for("echo");
    drop(gateway);
    assert!(path.exists(), "it was killed");
    let gateway = Part::gateway_by(&path);
    gateway.wait_for("echo");
    assert!(engine.process().is_alive());
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.wait(), Some(0));
    assert_eq!(directory.path().read_dir().unwrap().count(), 0);
}
