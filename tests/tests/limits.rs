//! What containers may use, held by the kernel's control groups; and what is left of those.
//!
//! Where this host does not let the engine make groups, a test says so and ends.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nightcore_tests::binaries::built;
use nightcore_tests::functions::build;
use nightcore_tests::process::Process;
use nightcore_tests::{Stack, config, functions, wait_until};
use nix::sys::signal::Signal;
use tempfile::TempDir;

/// Nobody's id in particular, and not root's.
const USER: u32 = 1000;

/// Whether the host does not let the engine enforce this limit; says why.
fn is_skipped(stack: &Stack, limit: &str, controller: &str) -> bool {
    let stderr = stack.stderr();
    let warning = format!("the limit `{limit}` of functions is not enforced");
    let Some(line) = stderr.lines().find(|line| line.contains(&warning)) else { return false };
    assert!(!may_make_groups(controller), "the engine could have made groups: {line}");
    eprintln!("skipped: {line}");
    true
}

/// Whether this test can make a group where the engine should: in the group of both, on v1, where
/// nothing but rights stands in the way.
fn may_make_groups(controller: &str) -> bool {
    let membership = fs::read_to_string("/proc/self/cgroup").expect("control groups");
    let path =
        membership.lines().find_map(|line| line.split_once(&format!(":{controller}:"))?.1.into());
    let Some(path) = path.map(|path: &str| path.trim_start_matches('/')) else { return false };
    let name = format!("test-{controller}-{}", std::process::id());
    let group = Path::new("/sys/fs/cgroup").join(controller).join(path).join(name);
    fs::create_dir(&group).and_then(|()| fs::remove_dir(&group)).is_ok()
}

/// The groups that the engine made for a container.
fn groups(container: Process) -> Vec<PathBuf> {
    let membership = fs::read_to_string(format!("/proc/{}/cgroup", container.pid));
    let membership = membership.expect("the container is there");
    let made = membership.lines().filter(|line| line.contains("/nightcore-"));
    let directories = made.map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next().expect("one"), fields.next().expect("one"));
        Path::new("/sys/fs/cgroup").join(controllers).join(path.trim_start_matches('/'))
    });
    directories.collect()
}

fn members(group: &Path) -> Vec<Process> {
    let text = fs::read_to_string(group.join("cgroup.procs")).expect("the group is there");
    text.lines().filter_map(|pid| Process::find(pid.parse().expect("a pid"))).collect()
}

fn container_of(stack: &Stack, function: &str) -> Process {
    let list = stack.get("/v1/functions").json();
    let functions = list["functions"].as_array().expect("a list");
    let place = functions.iter().position(|entry| entry["name"] == function);
    let place = format!("-{}-", place.expect("it is listed"));
    let found = stack.containers().into_iter().find(|container| {
        groups(*container).iter().any(|group| {
            let name = group.file_name().and_then(|name| name.to_str()).expect("text");
            name.contains(&place) && name.ends_with(&format!("-{function}"))
        })
    });
    found.expect("its container is in a group that bears its name")
}

/// A function that fills its container with processes, and another.
fn multiply(directory: &Path) -> String {
    let multiply = config::function("multiply", &build("multiply", directory));
    let limits = "container = \"process\"\nmax_workers = 4\npids = 40\n";
    format!("{}{multiply}{limits}", functions(&["echo"]))
}

#[test]
fn whoever_takes_more_than_its_memory_is_killed_and_nobody_else() {
    for kind in ["process", "sandbox"] {
        let memory = format!("container = \"{kind}\"\nmemory = \"64MiB\"\n");
        let config = format!("{}{memory}{}{memory}", functions(&["echo"]), functions(&["crash"]));
        let stack = Stack::start(&config);
        if is_skipped(&stack, "memory", "memory") {
            return;
        }
        let others = container_of(&stack, "echo");
        stack.call("crash", b"{\"how\": \"oom\"}").failure(502, "container_died");
        wait_until("the container is back", || {
            stack.call("crash", b"{\"how\": \"none\"}").status == 200
        });
        assert!(stack.stderr().contains("memory"), "the cause is told: {}", stack.stderr());
        assert_eq!(container_of(&stack, "echo"), others);
        assert_eq!(stack.call("echo", b"x").ok(), b"x");
    }
}

#[test]
fn processes_that_multiply_stay_within_their_container_and_go_with_it() {
    let directory = TempDir::new().expect("a directory");
    let stack = Stack::start(&multiply(directory.path()));
    if is_skipped(&stack, "pids", "pids") {
        return;
    }
    let container = container_of(&stack, "multiply");
    assert_eq!(stack.call("multiply", b"fork").ok(), b"EAGAIN");
    let groups = groups(container);
    let processes: Vec<Process> = groups.iter().flat_map(|group| members(group)).collect();
    assert!(processes.len() > 20, "{processes:?}");
    assert_eq!(stack.call("echo", b"x").ok(), b"x");
    assert_eq!(stack.call("multiply", b"").ok(), b"alive");

    stack.call("multiply", b"die").failure(502, "container_died");
    wait_until("all of them have gone", || !processes.iter().any(|process| process.is_alive()));
    wait_until("its groups too", || !groups.iter().any(|group| group.exists()));
    assert_eq!(stack.call("multiply", b"").ok(), b"alive");
}

#[test]
fn a_quota_of_cpu_time_holds_for_all_workers_together() {
    for kind in ["process", "sandbox"] {
        let quota = format!("container = \"{kind}\"\nplacement = \"free\"\ncpu_quota = 0.25\n");
        let stack = Stack::start(&(functions(&["spin"]) + &quota));
        if is_skipped(&stack, "cpu_quota", "cpu") {
            return;
        }
        stack.call("spin", b"{\"us\": 1}").ok();
        let start = Instant::now();
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| stack.call("spin", b"{\"us\": 250000}").ok().len());
            }
        });
        // Half a second of CPU time takes two at least, but for what is left of two periods of 100 ms.
        let took = start.elapsed();
        assert!(took > Duration::from_millis(1700), "{took:?}");
    }
}

#[test]
fn functions_come_last_by_groups_of_minimum_weight_where_that_is_configured() {
    let stack = Stack::start(&format!("[engine]\npriority = \"groups\"\n{}", functions(&["echo"])));
    if is_skipped(&stack, "priority = \"groups\"", "cpu") {
        return;
    }
    stack.call("echo", b"x").ok();
    let weight = |group: &PathBuf| {
        let read = |file: &str| fs::read_to_string(group.join(file)).ok();
        read("cpu.shares").or_else(|| read("cpu.weight"))
    };
    let groups = groups(container_of(&stack, "echo"));
    let weights: Vec<String> = groups.iter().filter_map(weight).collect();
    assert!(
        matches!(&weights[..], [weight] if ["2\n", "1\n"].contains(&weight.as_str())),
        "{weights:?}"
    );
}

#[test]
fn groups_go_with_the_stack() {
    let limits = "memory = \"64MiB\"\ncpu_quota = 1.0\n";
    let stack = Stack::start(&(functions(&["echo"]) + limits));
    if is_skipped(&stack, "memory", "memory") || is_skipped(&stack, "cpu_quota", "cpu") {
        return;
    }
    let groups = groups(container_of(&stack, "echo"));
    assert!(!groups.is_empty() && groups.iter().all(|group| group.exists()), "{groups:?}");
    assert_eq!(stack.stop().code, Some(0));
    let left: Vec<_> = groups.iter().filter(|group| group.exists()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_a_killed_engine_left_is_ended_and_removed_by_the_next_which_leaves_the_living_alone() {
    let directory = TempDir::new().expect("a directory");
    let living = Stack::start(&functions(&["echo"]));
    let killed = Stack::start(&multiply(directory.path()));
    if is_skipped(&killed, "pids", "pids") {
        return;
    }
    let lives = groups(container_of(&living, "echo"));
    let multiplied = groups(container_of(&killed, "multiply"));
    let echo = groups(container_of(&killed, "echo"));
    assert_eq!(killed.call("multiply", b"fork").ok(), b"EAGAIN");
    let processes: Vec<Process> = multiplied.iter().flat_map(|group| members(group)).collect();
    assert!(processes.len() > 20, "{processes:?}");
    killed.signal(Signal::SIGKILL);
    assert_eq!(killed.wait().code, None);

    let _next = Stack::start(&functions(&["nop"]));
    let is_left = || multiplied.iter().chain(&echo).any(|group| group.exists());
    wait_until("the groups are removed", || !is_left());
    assert!(!processes.iter().any(|process| process.is_alive()));
    assert!(lives.iter().all(|group| group.exists()), "{lives:?}");
    assert_eq!(living.call("echo", b"x").ok(), b"x");
}

/// Starts `nightcore up` as a user without rights, with copies of what it needs in a directory of his.
fn unprivileged(directory: &Path, engine: &str) -> Option<Child> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can become somebody else");
        return None;
    }
    for name in ["nightcore", "nightcore-worker", "libecho.so"] {
        fs::copy(built(name), directory.join(name)).expect("the binaries can be copied");
    }
    let function = config::function("echo", &directory.join("libecho.so"));
    let text = format!("[engine]\ncontainer = \"process\"\n{engine}{function}memory = \"64MiB\"\n");
    let file = directory.join("nightcore.toml");
    fs::write(&file, config::with_runtime_dir(&text, directory)).expect("a file");
    chown(directory, Some(USER), Some(USER)).expect("root may");
    let mut command = Command::new(directory.join("nightcore"));
    command.args(["up", "--listen", "127.0.0.1:0", "--config"]).arg(&file);
    command.env_remove("NIGHTCORE_LOG").uid(USER).gid(USER);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Some(command.spawn().expect("it can be run"))
}

#[test]
fn without_the_rights_for_a_limit_it_is_a_warning() {
    let directory = TempDir::new().expect("a directory");
    let Some(mut child) = unprivileged(directory.path(), "") else { return };
    let mut stdout = BufReader::new(child.stdout.take().expect("it is a pipe"));
    let mut first = String::new();
    stdout.read_line(&mut first).expect("text");
    Process::of_child(&child).signal(Signal::SIGTERM);
    let output = child.wait_with_output().expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(first.contains("serves on"), "{stderr}");
    for limit in ["memory", "pids"] {
        let warning = format!("the limit `{limit}` of functions is not enforced: ");
        assert_eq!(stderr.matches(&warning).count(), 1, "{stderr}");
    }
    assert!(!stderr.contains("cpu_quota"), "nobody asked for one: {stderr}");
}

#[test]
fn without_the_rights_for_a_limit_that_is_required_the_start_is_refused() {
    let directory = TempDir::new().expect("a directory");
    let Some(child) = unprivileged(directory.path(), "require = true\n") else { return };
    let output = child.wait_with_output().expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    let refusal = "function \"echo\": its limit `memory` would not be enforced on this host: ";
    assert!(stderr.contains(refusal), "{stderr}");
}
