//! Containers that a real OCI runtime runs: `runc`, which `scripts/test` installs.
//!
//! Only root may run containers as they are meant; elsewhere these tests say so and prove nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nightcore_tests::binaries::built;
use nightcore_tests::functions::build;
use nightcore_tests::process::Process;
use nightcore_tests::stack::refused;
use nightcore_tests::{Connection, Stack, config, functions, post, wait_until};
use nix::sys::signal::Signal;
use tempfile::TempDir;

const OCI: &str = "[engine]\ncontainer = \"oci\"\n";

/// Whether there is no runtime to test with, which only a developer's machine may lack.
fn is_skipped() -> bool {
    let mut runc = Command::new("runc");
    let found = runc.arg("--version").stdout(Stdio::null()).status().is_ok();
    if found && nix::unistd::geteuid().is_root() {
        return false;
    }
    assert!(std::env::var_os("CI").is_none(), "CI runs these tests, as root and with runc");
    eprintln!("skipped: needs root and runc");
    true
}

/// A stack of `witness` with more keys of its own, and of these examples.
fn witness(directory: &Path, keys: &str, examples: &[&str]) -> Stack {
    let witness = config::function("witness", &build("witness", directory));
    Stack::start(&format!("{OCI}{}{witness}{keys}", functions(examples)))
}

/// What the function says to an input.
fn ask(stack: &Stack, input: &str) -> String {
    let answer = stack.call("witness", input.as_bytes());
    String::from_utf8_lossy(answer.ok()).into_owned()
}

/// The containers' processes: the engine has a watchdog for a child as well.
fn workers(stack: &Stack) -> Vec<Process> {
    let children = stack.process().children().into_iter();
    let name = |process: &Process| fs::read_to_string(format!("/proc/{}/comm", process.pid));
    // The kernel keeps fifteen bytes.
    children.filter(|child| name(child).is_ok_and(|name| name == "nightcore-worke\n")).collect()
}

/// The process of a function's container.
fn worker_of(stack: &Stack, function: &str) -> Process {
    let arguments = format!("--function\0{function}\0");
    let found = workers(stack).into_iter().find(|worker| {
        let line = fs::read_to_string(format!("/proc/{}/cmdline", worker.pid));
        line.is_ok_and(|line| line.contains(&arguments))
    });
    found.expect("its container runs")
}

fn watchdog(stack: &Stack) -> Process {
    let workers = workers(stack);
    let mut others = stack.process().children();
    others.retain(|child| !workers.contains(child));
    assert_eq!(others.len(), 1, "{others:?}");
    others[0]
}

/// Control groups and mounts of an engine's containers, wherever they are.
fn traces(engine: Process) -> Vec<String> {
    let prefix = format!("nightcore-{}-", engine.pid);
    let root = Path::new("/sys/fs/cgroup");
    let mut groups: Vec<PathBuf> = below(root);
    groups.extend(below(root).iter().flat_map(|controller| below(controller)));
    let names = groups.iter().filter_map(|path| path.file_name()?.to_str());
    let groups = names.filter(|name| name.starts_with(&prefix)).map(str::to_owned);
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
    let home = format!("nightcore-oci-{}-", engine.pid);
    let mounts = mounts.lines().filter(|line| line.contains(&home)).map(str::to_owned);
    groups.chain(mounts).collect()
}

fn below(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// What an engine's home is called, of which nothing shall be left.
fn homes(directory: &Path) -> Vec<PathBuf> {
    let mut homes = below(directory);
    homes.retain(|path| path.to_string_lossy().contains("nightcore-oci-"));
    homes
}

#[test]
fn calls_of_every_size_and_between_containers_are_answered() {
    if is_skipped() {
        return;
    }
    let stack = Stack::start(&format!("{OCI}{}", functions(&["echo", "chain", "nop"])));
    for size in [0, 1, 1000, 100_000, 4 << 20] {
        let body = vec![b'x'; size];
        assert!(stack.call("echo", &body).ok() == body, "{size} bytes");
    }
    assert_eq!(stack.call("chain", b"{\"n\": 5}").status, 200);
    assert_eq!(workers(&stack).len(), 3);
    let ended = stack.stop();
    assert_eq!((ended.code, ended.left), (Some(0), vec![]), "{}", ended.stderr);
    assert_eq!(ended.stderr, "");
}

#[test]
fn a_container_gets_its_environment_and_what_it_may_read_and_nothing_else_of_the_host() {
    if is_skipped() {
        return;
    }
    let directory = TempDir::new().expect("a directory");
    let (open, secret) = (directory.path().join("open"), directory.path().join("secret"));
    fs::write(&open, "for the function").expect("a file");
    fs::write(&secret, "not for the function").expect("a file");
    let keys = format!("read_only = [\"{}\"]\nenv = {{ COLOUR = \"red\" }}\n", open.display());
    let stack = witness(directory.path(), &keys, &[]);

    assert_eq!(ask(&stack, "env COLOUR"), "red");
    assert_eq!(ask(&stack, "env HOME"), "/tmp");
    assert_eq!(ask(&stack, &format!("read {}", open.display())), "for the function");
    for path in [&open, Path::new("/usr/lib/x"), Path::new("/nightcore/x"), Path::new("/x")] {
        let answer = ask(&stack, &format!("write {}", path.display()));
        let refusals = ["error: Read-only file system", "error: Permission denied"];
        assert!(refusals.contains(&answer.as_str()), "{}: {answer}", path.display());
    }
    for path in [&secret, Path::new("/etc/passwd"), Path::new("/root"), Path::new("/home")] {
        let answer = ask(&stack, &format!("read {}", path.display()));
        assert_eq!(answer, "error: No such file or directory", "{}", path.display());
    }
    assert_eq!(ask(&stack, "write /tmp/x"), "done");
    assert_eq!(ask(&stack, "write /dev/shm/x"), "done");

    let expected = ["dev", "etc", "lib", "lib32", "lib64", "nightcore", "proc", "tmp", "usr"];
    for name in ask(&stack, "list /").lines() {
        let is_way = open.starts_with(Path::new("/").join(name));
        assert!(is_way || expected.contains(&name), "{name}");
    }
    let processes = ask(&stack, "list /proc");
    let pids = processes.lines().filter(|name| name.parse::<u32>().is_ok());
    assert_eq!(pids.collect::<Vec<_>>(), ["1"]);
}

#[test]
fn a_container_has_no_privileges() {
    if is_skipped() {
        return;
    }
    let directory = TempDir::new().expect("a directory");
    let stack = witness(directory.path(), "", &[]);
    let status = ask(&stack, "read /proc/self/status");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        line.expect("the kernel shows it").split_ascii_whitespace().last().map(str::to_owned)
    };
    for capabilities in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(capabilities).as_deref(), Some("0000000000000000"), "{capabilities}");
    }
    assert_eq!(field("Uid:").as_deref(), Some("1879048192"));
    assert_eq!(field("Gid:").as_deref(), Some("1879048192"));
    assert_eq!(field("NoNewPrivs:").as_deref(), Some("1"));
    assert_eq!(field("Seccomp:").as_deref(), Some("2"));
    assert_eq!(ask(&stack, "io_uring"), "error: Function not implemented");
    assert_eq!(ask(&stack, "mount"), "error: Operation not permitted");
    let (pid, own) = (workers(&stack)[0].pid, std::process::id());
    for namespace in ["pid", "mnt", "ipc", "uts", "net", "cgroup"] {
        let of = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).expect("a link");
        assert_ne!(of(pid), of(own), "{namespace}");
    }
}

#[test]
fn a_container_reaches_the_network_only_where_it_may() {
    if is_skipped() {
        return;
    }
    let directory = TempDir::new().expect("a directory");
    let stack = witness(directory.path(), "", &[]);
    let connect = |stack: &Stack| ask(stack, &format!("connect {}", stack.address().port()));
    // It has a loopback interface of its own, where nobody listens.
    assert_eq!(connect(&stack), "error: Connection refused");
    let stack = witness(directory.path(), "network = true\n", &[]);
    assert_eq!(connect(&stack), "done");
}

#[test]
fn limits_hold_and_the_weight_is_low() {
    if is_skipped() {
        return;
    }
    let directory = TempDir::new().expect("a directory");
    let keys = "pids = 40\nmax_workers = 2\ncpu_quota = 0.5\n";
    let crash = "memory = \"64MiB\"\n";
    let stack = witness(directory.path(), keys, &[]);
    let made: u32 = ask(&stack, "fork 100").parse().expect("a number");
    // Launcher and workers count as well.
    assert!((30..40).contains(&made), "{made} children");
    assert_eq!(ask(&stack, "env PATH"), std::env::var("PATH").expect("a path"));
    let setting = |v1: &str, v2: &str| {
        let groups = fs::read_to_string(format!("/proc/{}/cgroup", workers(&stack)[0].pid));
        let groups = groups.expect("the container is there");
        let path = |line: &str| line.rsplit_once(":/").expect("a path").1.to_owned();
        let mut candidates = groups.lines().flat_map(|line| {
            let (root, group) = (Path::new("/sys/fs/cgroup"), path(line));
            [root.join("cpu").join(&group).join(v1), root.join(&group).join(v2)]
        });
        candidates.find_map(|file| fs::read_to_string(file).ok()).expect("the group is there")
    };
    assert!(["110\n", "5\n"].contains(&setting("cpu.shares", "cpu.weight").as_str()));
    let quota = setting("cpu.cfs_quota_us", "cpu.max");
    assert!(["50000\n", "50000 100000\n"].contains(&quota.as_str()), "{quota}");
    drop(stack);

    let stack = Stack::start(&format!("{OCI}{}{crash}", functions(&["crash"])));
    stack.call("crash", b"{\"how\": \"oom\"}").failure(502, "container_died");
    wait_until("the log tells why", || stack.stderr().contains("memory"));
}

#[test]
fn a_container_that_dies_fails_its_call_and_comes_back() {
    if is_skipped() {
        return;
    }
    let stack = Stack::start(&format!("{OCI}{}", functions(&["echo", "crash"])));
    for how in ["segv", "abort", "exit", "stack"] {
        let input = format!("{{\"how\": \"{how}\"}}");
        stack.call("crash", input.as_bytes()).failure(502, "container_died");
        wait_until("the container is back", || {
            stack.call("crash", b"{\"how\": \"none\"}").status == 200
        });
        assert_eq!(stack.call("echo", how.as_bytes()).ok(), how.as_bytes());
    }
    // What the dead ones had is deleted while the engine goes on.
    let containers = homes(&stack.runtime_dir())[0].join("containers");
    wait_until("two are left", || below(&containers).len() == 2);
}

#[test]
fn an_idle_container_is_stopped_and_deleted_and_the_next_call_makes_another() {
    if is_skipped() {
        return;
    }
    let keys = "idle_timeout = \"100ms\"\n";
    let stack = Stack::start(&format!("{OCI}{}{keys}", functions(&["echo"])));
    let containers = homes(&stack.runtime_dir())[0].join("containers");
    for _ in 0..3 {
        wait_until("it is gone", || workers(&stack).is_empty() && below(&containers).is_empty());
        assert_eq!(stack.call("echo", b"again").ok(), b"again");
    }
}

#[test]
fn a_stack_that_is_stopped_leaves_nothing() {
    if is_skipped() {
        return;
    }
    let stack = Stack::start(&format!("{OCI}{}", functions(&["echo", "nop", "sleep"])));
    let (engine, workers) = (stack.process(), workers(&stack));
    assert_eq!(workers.len(), 3);
    assert!(!traces(engine).is_empty());
    let ended = stack.stop();
    assert_eq!((ended.code, ended.left), (Some(0), vec![]), "{}", ended.stderr);
    assert!(workers.iter().all(|worker| !worker.is_alive()));
    assert_eq!(traces(engine), [] as [String; 0]);
}

#[test]
fn a_stack_that_is_killed_leaves_nothing_not_even_containers_that_hang_or_are_stopped() {
    if is_skipped() {
        return;
    }
    let stack = Stack::start(&format!("{OCI}{}", functions(&["echo", "spin", "nop"])));
    let engine = stack.process();
    let workers = workers(&stack);
    assert_eq!(workers.len(), 3);
    worker_of(&stack, "echo").signal(Signal::SIGSTOP);
    let mut busy = stack.connect();
    busy.send(&post("/function/spin", b"{\"us\": 20000000}"));
    wait_until("it spins", || stack.count("spin", "running") == 1);
    stack.signal(Signal::SIGKILL);
    wait_until("nothing is left", || {
        workers.iter().all(|worker| !worker.is_alive())
            && traces(engine).is_empty()
            && homes(&stack.runtime_dir()).is_empty()
    });
}

#[test]
fn what_a_stack_left_whose_watchdog_was_killed_too_is_deleted_by_the_next() {
    if is_skipped() {
        return;
    }
    let configuration = format!("{OCI}{}", functions(&["echo"]));
    let stack = Stack::start(&configuration);
    let (engine, workers) = (stack.process(), workers(&stack));
    // It cannot notice that its engine is gone.
    workers[0].signal(Signal::SIGSTOP);
    watchdog(&stack).signal(Signal::SIGKILL);
    stack.signal(Signal::SIGKILL);
    wait_until("the engine is gone", || !engine.is_alive());
    assert!(workers[0].is_alive());
    assert_eq!(homes(&stack.runtime_dir()).len(), 1);

    let next = stack.start_behind(&configuration);
    assert!(!workers[0].is_alive());
    assert_eq!(traces(engine), [] as [String; 0]);
    assert_eq!(homes(&stack.runtime_dir()).len(), 1, "its own");
    assert_eq!(next.call("echo", b"next").ok(), b"next");
    let ended = next.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(homes(&stack.runtime_dir()), [] as [PathBuf; 0]);
}

#[test]
fn a_stack_without_its_watchdog_still_leaves_nothing_when_it_stops() {
    if is_skipped() {
        return;
    }
    let stack = Stack::start(&format!("{OCI}{}", functions(&["echo"])));
    let engine = stack.process();
    watchdog(&stack).signal(Signal::SIGKILL);
    assert_eq!(stack.call("echo", b"still").ok(), b"still");
    let ended = stack.stop();
    assert_eq!((ended.code, ended.left), (Some(0), vec![]), "{}", ended.stderr);
    assert_eq!(traces(engine), [] as [String; 0]);
}

#[test]
fn a_start_is_refused_with_what_the_runtime_says() {
    if is_skipped() {
        return;
    }
    let nowhere = "[engine]\ncontainer = \"oci\"\noci_runtime = \"/nowhere/runc\"\n";
    let ended = refused(&format!("{nowhere}{}", functions(&["echo"])));
    assert_eq!((ended.code, ended.left), (Some(2), vec![]), "{}", ended.stderr);
    assert!(ended.stderr.contains("function \"echo\": "), "{}", ended.stderr);
    assert!(ended.stderr.contains("/nowhere/runc: No such file"), "{}", ended.stderr);

    // Without a loader the worker cannot be executed.
    let image = TempDir::new().expect("a directory");
    let ended = refused(&format!("{}{}", with_image(image.path()), functions(&["echo"])));
    assert_eq!((ended.code, ended.left), (Some(2), vec![]), "{}", ended.stderr);
    assert!(ended.stderr.contains("/nightcore/nightcore-worker"), "{}", ended.stderr);
    assert!(ended.stderr.contains("no such file or directory"), "{}", ended.stderr);
}

fn with_image(directory: &Path) -> String {
    format!("{OCI}oci_rootfs = \"{}\"\n", directory.display())
}

#[test]
fn containers_may_share_an_unpacked_image() {
    if is_skipped() {
        return;
    }
    let image = TempDir::new().expect("a directory");
    // What the worker and a function are linked to, at the places where they look for it.
    for program in [built("nightcore-worker"), built("libecho.so")] {
        let output = Command::new("ldd").arg(program).output().expect("ldd is part of glibc");
        let text = String::from_utf8(output.stdout).expect("text");
        for library in text.split_ascii_whitespace().filter(|word| word.starts_with('/')) {
            let copy = image.path().join(library.trim_start_matches('/'));
            fs::create_dir_all(copy.parent().expect("a directory")).expect("a directory");
            fs::copy(library, copy).expect("a file");
        }
    }
    fs::write(image.path().join("of-the-image"), "here").expect("a file");
    let directory = TempDir::new().expect("a directory");
    let witness = config::function("witness", &build("witness", directory.path()));
    let text = format!("{}{}{witness}", with_image(image.path()), functions(&["echo", "nop"]));
    let stack = Stack::start(&text);
    assert_eq!(stack.call("echo", b"x").ok(), b"x");
    assert_eq!(ask(&stack, "read /of-the-image"), "here");
    assert_ne!(ask(&stack, "write /of-the-image"), "done");
    let mut connections: Vec<Connection> = (0..4).map(|_| stack.connect()).collect();
    for connection in &mut connections {
        connection.exchange(&post("/function/nop", b"")).ok();
    }
    let ended = stack.stop();
    assert_eq!((ended.code, ended.left), (Some(0), vec![]), "{}", ended.stderr);
}
