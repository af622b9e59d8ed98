//! Two hundred deaths of containers leave nothing behind. `docs/reliability.md` has the row.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use nightcore_tests::binaries::built;
use nightcore_tests::{Stack, config, post, wait_until};
use nix::sys::signal::Signal;

/// Containers that die at once; with the number of rounds, two hundred deaths.
const FUNCTIONS: usize = 40;
const ROUNDS: usize = 5;

#[test]
fn two_hundred_deaths_leave_nothing_behind() {
    // A function has a channel on every shard that was called.
    let mut text = String::from("[engine]\nshards = 1\n");
    let names: Vec<String> = (0..FUNCTIONS).map(|number| format!("function-{number}")).collect();
    for name in &names {
        let function = config::function(name, &built("libecho.so"));
        write!(text, "{function}memory = \"256MiB\"\npids = 200\nbreaker_deaths = 1000\n")
            .expect("a String");
    }
    let stack = Stack::start(&text);
    // Twice: what is made once and kept is no leak.
    for _ in 0..2 {
        kill_all(&stack, &names);
    }
    let before = belongings(&stack);
    for _ in 0..ROUNDS {
        kill_all(&stack, &names);
    }
    println!("before and after {} deaths: {before:?}", FUNCTIONS * ROUNDS);
    wait_until("it has what it had", || belongings(&stack) == before);
    let deaths: u64 = stack.samples("nightcore_container_starts_total").iter().sum();
    assert!(deaths >= u64::try_from(FUNCTIONS * (ROUNDS + 3)).expect("a small number"));
}

/// Kills every container and waits until every function answers again.
fn kill_all(stack: &Stack, names: &[String]) {
    let containers = stack.containers();
    assert_eq!(containers.len(), names.len());
    containers.iter().for_each(|container| container.signal(Signal::SIGKILL));
    wait_until("all are dead", || containers.iter().all(|container| !container.is_alive()));
    let mut connection = stack.connect();
    for name in names {
        let call = post(&format!("/function/{name}"), b"x");
        wait_until("it is back", || connection.exchange(&call).status == 200);
    }
}

/// How much of everything the stack has.
fn belongings(stack: &Stack) -> BTreeMap<&'static str, usize> {
    let pid = stack.process().pid;
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("it runs");
    let groups = Path::new("/sys/fs/cgroup");
    BTreeMap::from([
        ("files", stack.process().descriptors()),
        ("children", stack.process().children().len()),
        ("threads", fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").count()),
        ("mounts", mounts.lines().count()),
        ("control groups", count_groups(groups, &format!("nightcore-{pid}-"))),
        ("sockets", stack.sockets().len()),
    ])
}

/// Directories at any depth whose names begin so.
fn count_groups(directory: &Path, prefix: &str) -> usize {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let directories = entries.flatten().filter(|it| it.file_type().is_ok_and(|it| it.is_dir()));
    let counts = directories.map(|it| {
        let is_ours = it.file_name().to_string_lossy().starts_with(prefix);
        usize::from(is_ours) + count_groups(&it.path(), prefix)
    });
    counts.sum()
}
