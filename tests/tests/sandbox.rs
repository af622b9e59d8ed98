//! What a sandboxed container can do and see, tried from within, and that a plain process can.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nightcore_tests::binaries::built;
use nightcore_tests::functions::build;
use nightcore_tests::stack::{refused, refused_by};
use nightcore_tests::{Stack, config, functions, wait_until};
use nix::sys::signal::Signal;
use tempfile::TempDir;

/// System calls that nobody may make in a sandbox.
const FORBIDDEN: [&str; 27] = [
    "io_uring_setup",
    "io_setup",
    "ptrace",
    "mount",
    "umount",
    "chroot",
    "unshare",
    "unshare_user",
    "clone_user",
    "clone3",
    "setns",
    "bpf",
    "keyctl",
    "add_key",
    "perf_event_open",
    "userfaultfd",
    "kexec_load",
    "init_module",
    "open_by_handle_at",
    "process_vm_readv",
    "pidfd_getfd",
    "personality",
    "outlive",
    "setuid",
    "setgroups",
    "nice",
    "raw_socket",
];
const ENOENT: i32 = 2;
const ENOSYS: i32 = 38;

/// A stack with the burglar, of the given kind, and the directory that is its library's.
struct Break {
    stack: Stack,
    directory: TempDir,
}

impl Break {
    /// `keys` are more lines of the function's table.
    fn in_a(kind: &str, keys: &str) -> Break {
        let directory = TempDir::new().expect("a directory");
        let stack = Stack::start(&config_of(&directory, kind, keys));
        Break { stack, directory }
    }

    fn tries(&self, attempt: &str) -> (i32, String) {
        tries(&self.stack, attempt)
    }

    fn pid(&self) -> u32 {
        self.stack.process().pid
    }
}

fn config_of(directory: &TempDir, kind: &str, keys: &str) -> String {
    let burglar = config::function("burglar", &build("burglar", directory.path()));
    format!("{burglar}container = \"{kind}\"\n{keys}{}", functions(&["echo"]))
}

/// The error's number, 0 for a success, and what was found.
fn tries(stack: &Stack, attempt: &str) -> (i32, String) {
    let answer = stack.call("burglar", attempt.as_bytes());
    let text = String::from_utf8(answer.ok().to_vec()).expect("text");
    let (error, found) = text.split_once(' ').expect("a number comes first");
    (error.parse().expect("a number"), found.to_owned())
}

#[test]
fn a_sandbox_shows_its_own_library_and_no_other_file_of_the_host() {
    let held = Break::in_a("sandbox", "");
    let library = held.directory.path().join("libburglar.so");
    fs::set_permissions(held.directory.path(), fs::Permissions::from_mode(0o755)).expect("ours");
    let secret = held.directory.path().join("secret");
    fs::write(&secret, "s").expect("a file");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).expect("ours");

    assert_eq!(held.tries(&format!("read {}", library.display())).0, 0);
    for path in [secret.to_str().expect("text"), "/etc/passwd", "/etc/shadow", "/root", "/sys"] {
        assert_eq!(held.tries(&format!("read {path}")).0, ENOENT, "{path}");
    }
    let others = built("libecho.so");
    assert_eq!(held.tries(&format!("read {}", others.display())).0, ENOENT);
    assert_eq!(held.tries("list /").1.split_whitespace().count(), top_of_the_view());
    assert_eq!(held.tries("list /home").0, ENOENT);
    assert_eq!(held.tries("run true").0, 8, "there is no shell");

    // It all works where nothing hides it, so that the above says something.
    let open = Break::in_a("process", "");
    for path in [secret.to_str().expect("text"), "/etc/passwd"] {
        assert_eq!(open.tries(&format!("read {path}")).0, 0, "{path}");
    }
    assert_eq!(open.tries("run true").0, 0);
}

/// What there is below `/`: libraries as far as the host has them there, and five directories.
fn top_of_the_view() -> usize {
    let libraries = ["/lib", "/lib32", "/lib64"].iter().filter(|path| Path::new(path).exists());
    libraries.count() + ["dev", "etc", "proc", "tmp", "usr"].len()
}

#[test]
fn nothing_of_a_sandbox_is_writable_but_two_bounded_places() {
    let held = Break::in_a("sandbox", "");
    for path in ["/new", "/etc/new", "/usr/lib/new", "/dev/new", "/proc/self/comm", "/proc/new"] {
        assert_ne!(held.tries(&format!("create {path}")).0, 0, "{path}");
    }
    for path in ["/tmp/new", "/dev/shm/new", "/dev/null"] {
        assert_eq!(held.tries(&format!("create {path}")).0, 0, "{path}");
    }
    // What begins with a dot is not listed, as the place of the library.
    assert_eq!(held.tries("list /tmp").1, "new ");
    assert!(!Path::new("/dev/shm/new").exists());
    for path in ["/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/proc/kcore"] {
        assert_eq!(held.tries(&format!("read {path}")).0, ENOENT, "{path}");
    }
}

#[test]
fn a_sandbox_sees_no_process_but_its_own_and_cannot_reach_the_engine() {
    let held = Break::in_a("sandbox", "");
    let engine = held.pid();
    let processes = held.tries("list /proc").1;
    let mut processes: Vec<_> = processes.split_whitespace().collect();
    processes.sort_unstable();
    assert_eq!(processes, ["1", "self", "thread-self"]);
    assert_ne!(held.tries(&format!("kill {engine}")).0, 0);
    assert_eq!(held.tries(&format!("read /proc/{engine}/status")).0, ENOENT);

    let open = Break::in_a("process", "");
    let engine = open.pid();
    assert_eq!(open.tries(&format!("kill {engine}")).0, 0);
    assert_eq!(open.tries(&format!("read /proc/{engine}/status")).0, 0);
}

#[test]
fn a_sandbox_finds_the_sockets_of_nobody() {
    let held = Break::in_a("sandbox", "");
    let engine = held.stack.process().pid;
    let run = held.stack.runtime_directory();
    assert_eq!(held.tries(&format!("list {}", run.display())).0, ENOENT);
    let open = Break::in_a("process", "");
    let run = open.stack.runtime_directory();
    let (error, found) = open.tries(&format!("list {}", run.display()));
    assert_eq!(error, 0);
    assert!(found.starts_with("nightcore-") && !found.contains(&engine.to_string()), "{found}");
}

#[test]
fn the_network_is_there_only_where_it_is_configured() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let attempt = format!("connect {}", listener.local_addr().expect("bound").port());
    assert_ne!(Break::in_a("sandbox", "").tries(&attempt).0, 0);
    let networked = Break::in_a("sandbox", "network = true\n");
    assert_eq!(networked.tries(&attempt).0, 0);
    assert_ne!(networked.tries("call raw_socket").0, 0);
    assert_eq!(Break::in_a("process", "").tries(&attempt).0, 0);
}

#[test]
fn system_calls_that_reach_beyond_a_function_fail_and_kill_nobody() {
    let held = Break::in_a("sandbox", "");
    let before = held.stack.containers();
    for call in FORBIDDEN {
        assert_ne!(held.tries(&format!("call {call}")).0, 0, "{call}");
    }
    assert_eq!(held.tries("call clone3").0, ENOSYS, "so that libraries take another way");
    for call in ["sched_setaffinity", "setuid_same"] {
        assert_eq!(held.tries(&format!("call {call}")).0, 0, "{call}");
    }
    assert_ne!(held.tries("limit").0, 0);
    assert_ne!(held.tries("capabilities").0, 0);
    assert_eq!(held.stack.containers(), before);

    let open = Break::in_a("process", "");
    for call in ["io_uring_setup", "io_setup", "unshare", "setuid", "outlive"] {
        assert_eq!(open.tries(&format!("call {call}")).0, 0, "{call}");
    }
}

#[test]
fn a_sandbox_has_no_rights_and_no_descriptors_but_its_own() {
    let held = Break::in_a("sandbox", "");
    let (error, status) = held.tries("read /proc/self/status");
    assert_eq!(error, 0);
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.expect("it is there").trim_start_matches(':').trim().to_owned()
    };
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!((field("NoNewPrivs"), field("Seccomp")), ("1".to_owned(), "2".to_owned()));
    let own = fs::metadata("/proc/self").map(|own| std::os::unix::fs::MetadataExt::uid(&own));
    if own.expect("there") == 0 {
        let users = field("Uid");
        assert!(
            users
                .split_whitespace()
                .all(|user| user.parse::<u32>().is_ok_and(|user| user >= 0x7000_0000)),
            "{users}"
        );
        assert_eq!(field("Groups"), "");
    }
    let (_, descriptors) = held.tries("descriptors");
    let strange = |target: &&str| {
        let own = ["anon_inode:[eventfd]", "anon_inode:[eventpoll]", "/dev/null"];
        let stderr = target.ends_with("/stderr") || target.starts_with("pipe:");
        !own.contains(target) && !stderr && !target.ends_with("/schedstat")
    };
    let strangers: Vec<_> = descriptors.lines().filter(strange).collect();
    assert_eq!(strangers.len(), 1, "the control socket alone: {descriptors}");
    assert!(strangers[0].starts_with("socket:"), "{descriptors}");
}

#[test]
fn an_idle_sandbox_has_less_than_four_mebibytes_of_its_own() {
    let stack = Stack::start(&functions(&["echo"]));
    stack.call("echo", b"x").ok();
    let container = stack.containers()[0];
    let memory = container.private_memory();
    assert!(memory < 4 << 20, "{memory} bytes");
}

#[test]
fn a_sandbox_and_all_it_started_end_with_the_engine() {
    let held = Break::in_a("sandbox", "");
    assert_eq!(held.tries("child").0, 0);
    let mut processes = held.stack.containers();
    let children: Vec<_> = processes.iter().flat_map(|container| container.children()).collect();
    assert_eq!(children.len(), 1);
    processes.extend(children);
    held.stack.signal(Signal::SIGKILL);
    wait_until("all of them end", || processes.iter().all(|process| !process.is_alive()));
}

#[test]
fn what_a_container_started_ends_with_it() {
    let held = Break::in_a("sandbox", "");
    assert_eq!(held.tries("child").0, 0);
    let containers = held.stack.containers();
    let children: Vec<_> = containers.iter().flat_map(|container| container.children()).collect();
    assert_eq!(children.len(), 1);
    held.stack.call("burglar", b"abort").failure(502, "container_died");
    wait_until("it ends", || !children[0].is_alive());
}

#[test]
fn an_abort_and_a_signal_from_within_end_the_container_and_the_abort_is_named() {
    let held = Break::in_a("sandbox", "");
    for attempt in ["abort", "raise 15"] {
        held.stack.call("burglar", attempt.as_bytes()).failure(502, "container_died");
        wait_until("it is back", || held.stack.call("burglar", b"list /").status == 200);
    }
    wait_until("it is told", || held.stack.stderr().contains("SIGABRT"));
}

#[test]
fn paths_that_are_configured_can_be_read_and_not_written() {
    let shown = TempDir::new().expect("a directory");
    fs::set_permissions(shown.path(), fs::Permissions::from_mode(0o777)).expect("ours");
    fs::write(shown.path().join("data"), "d").expect("a file");
    fs::set_permissions(shown.path().join("data"), fs::Permissions::from_mode(0o666))
        .expect("ours");
    let keys = format!("read_only = [\"{}\"]\n", shown.path().display());
    let held = Break::in_a("sandbox", &keys);
    let data = shown.path().join("data");
    assert_eq!(held.tries(&format!("read {}", data.display())), (0, "d".to_owned()));
    for path in [&data, &shown.path().join("new")] {
        assert_ne!(held.tries(&format!("create {}", path.display())).0, 0);
    }
}

#[test]
fn a_library_that_the_container_may_not_read_is_named() {
    let directory = TempDir::new().expect("a directory");
    let library = build("burglar", directory.path());
    fs::set_permissions(&library, fs::Permissions::from_mode(0o600)).expect("ours");
    if nix::unistd::geteuid().is_root() {
        let ended = refused(&config::function("burglar", &library));
        assert_eq!(ended.code, Some(2));
        assert!(ended.stderr.contains("may not read library"), "{}", ended.stderr);
        assert!(ended.stderr.contains("libburglar.so"), "{}", ended.stderr);
    }
}

#[test]
fn a_variable_that_loads_code_before_the_sandbox_stands_is_refused() {
    let directory = TempDir::new().expect("a directory");
    let text = config_of(&directory, "sandbox", "env = { LD_PRELOAD = \"/tmp/x.so\" }\n");
    let ended = refused(&text);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("LD_PRELOAD"), "{}", ended.stderr);
}

#[test]
fn a_library_beside_the_functions_that_it_needs_is_found() {
    let directory = TempDir::new().expect("a directory");
    let source = directory.path().join("part.c");
    fs::write(&source, "int part(void) { return 0; }\n").expect("a file");
    let compile = |arguments: &[&str]| {
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-I"]).arg(include()).args(arguments);
        assert!(compiler.current_dir(directory.path()).status().expect("cc runs").success());
    };
    compile(&["-o", "libpart.so", "part.c"]);
    let whole = "#include \"nightcore.h\"\nint part(void);\nint faas_init(void) { return part(); }\n\
        int faas_create_func_worker(void* c, invoke_fn i, append_output_fn a, void** w)\n\
        { (void)i; (void)a; *w = c; return 0; }\n\
        int faas_destroy_func_worker(void* w) { (void)w; return 0; }\n\
        int faas_func_call(void* w, const char* i, size_t n)\n\
        { (void)w; (void)i; (void)n; return 0; }\n";
    fs::write(directory.path().join("whole.c"), whole).expect("a file");
    compile(&["-o", "libwhole.so", "whole.c", "-L.", "-lpart", "-Wl,-rpath,$ORIGIN"]);
    let library = directory.path().join("libwhole.so");
    Stack::start(&config::function("whole", &library)).call("whole", b"").ok();
}

fn include() -> PathBuf {
    nightcore_tests::binaries::in_tree("funclib/include")
}

/// An engine that is not root, with copies of the binaries that it may read.
#[test]
fn an_engine_without_rights_sandboxes_by_user_namespaces() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let directory = TempDir::new().expect("a directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("ours");
    let text = config_of(&directory, "sandbox", "").replace(
        &*built("libecho.so").to_string_lossy(),
        &directory.path().join("libecho.so").to_string_lossy(),
    );
    for name in ["nightcore", "nightcore-worker", "libecho.so"] {
        fs::copy(built(name), directory.path().join(name)).expect("a copy");
    }
    let command = Command::new(directory.path().join("nightcore"));
    let stack = Stack::start_by(&text, command, Some(1000));
    let engine = stack.process().pid;
    for attempt in ["read /etc/passwd", &format!("kill {engine}"), "create /new", "capabilities"] {
        assert_ne!(tries(&stack, attempt).0, 0, "{attempt}");
    }
    for call in FORBIDDEN {
        // It is root already, of a namespace of one.
        let expected_success = call == "setuid";
        assert_eq!(tries(&stack, &format!("call {call}")).0 == 0, expected_success, "{call}");
    }
    let (_, status) = tries(&stack, "read /proc/self/status");
    assert!(status.contains("CapBnd:\t0000000000000000"), "{status}");
    assert!(!stack.stderr().contains("does not let"), "{}", stack.stderr());
}

/// `nightcore` without any capability, and without the right to make namespaces.
fn without_namespaces() -> Command {
    let mut command = Command::new("unshare");
    let script = "echo 0 >/proc/sys/user/max_user_namespaces && \
        exec setpriv --bounding-set=-all --inh-caps=-all \"$0\" \"$@\"";
    command.args(["--user", "--map-root-user", "sh", "-c", script]).arg(built("nightcore"));
    command
}

#[test]
fn a_host_without_namespaces_is_warned_of_once_and_the_rest_is_enforced() {
    let directory = TempDir::new().expect("a directory");
    let text = config_of(&directory, "sandbox", "");
    let stack = Stack::start_by(&text, without_namespaces(), None);
    let warning = "this host does not let sandboxes have";
    assert_eq!(stack.stderr().matches(warning).count(), 1, "{}", stack.stderr());
    assert!(stack.stderr().contains("a root of their own"), "{}", stack.stderr());
    // Landlock and the filter are still there.
    for attempt in ["read /etc/passwd", "create /tmp/new", "call io_uring_setup", "connect 1"] {
        assert_ne!(tries(&stack, attempt).0, 0, "{attempt}");
    }
}

#[test]
fn a_host_without_namespaces_is_refused_where_they_are_required() {
    let directory = TempDir::new().expect("a directory");
    let text = format!("{}[engine]\nrequire = true\n", config_of(&directory, "sandbox", ""));
    let ended = refused_by(&text, without_namespaces(), "127.0.0.1:0");
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("a root of their own"), "{}", ended.stderr);
}
