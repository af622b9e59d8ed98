//! A thread that ends what is left in groups and removes them.
//!
//! A group can be removed once its last process has gone, which may take a while after the kill; and
//! the kernel may take milliseconds for a change of groups. The supervisor waits for neither.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::set;
use crate::container::process::{pidfd_kill, pidfd_open};

/// Pauses between attempts, doubled each time up to the maximum.
const PAUSE_FIRST: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long the end of the engine waits for groups to become empty.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);
/// Processes of a group that are killed before it is looked at again: each takes a descriptor.
const KILL_BATCH: usize = 256;

#[derive(Debug)]
enum Order {
    Remove(PathBuf),
    Finish,
}

/// The thread; dropping it waits until every group is removed, or for a bounded time.
#[derive(Debug)]
pub(super) struct Removal {
    orders: Sender<Order>,
    thread: Option<JoinHandle<()>>,
}

/// Hands groups to the thread.
#[derive(Clone, Debug)]
pub(super) struct Remover(Sender<Order>);

impl Removal {
    pub(super) fn start() -> io::Result<Self> {
        let (orders, receiver) = mpsc::channel();
        let builder = std::thread::Builder::new().name("control-groups".to_owned());
        let thread = builder.spawn(move || run(&receiver))?;
        Ok(Self { orders, thread: Some(thread) })
    }

    pub(super) fn remover(&self) -> Remover {
        Remover(self.orders.clone())
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::Finish);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Remover {
    /// Ends whoever is in the group and removes it, in a while.
    pub(super) fn remove(&self, group: PathBuf) {
        // If the thread has finished, the group is the next engine's to remove.
        let _ = self.0.send(Order::Remove(group));
    }
}

fn run(orders: &Receiver<Order>) {
    let mut left: Vec<PathBuf> = Vec::new();
    let (mut pause, mut finish_by) = (PAUSE_FIRST, None);
    loop {
        let order = if left.is_empty() && finish_by.is_none() {
            orders.recv().map_err(RecvTimeoutError::from)
        } else {
            orders.recv_timeout(pause)
        };
        match order {
            Ok(Order::Remove(group)) => {
                left.push(group);
                pause = PAUSE_FIRST;
            }
            Ok(Order::Finish) | Err(RecvTimeoutError::Disconnected) => {
                finish_by = finish_by.or(Some(Instant::now() + FINISH_TIMEOUT));
            }
            Err(RecvTimeoutError::Timeout) => pause = (pause * 2).min(PAUSE_MAX),
        }
        left.retain(|group| !remove(group));
        match finish_by {
            Some(_) if left.is_empty() => return,
            Some(by) if by <= Instant::now() => {
                return tracing::warn!(
                    "control groups that do not become empty are left: {left:?}"
                );
            }
            _ => {}
        }
    }
}

/// Tries once; whether nothing is left to do.
fn remove(group: &Path) -> bool {
    match fs::remove_dir(group) {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
        // What another user's engine left.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return true,
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!("a control group is left: {}: {error}", group.display());
            return true;
        }
        _ => return true,
    }
    if let Err(error) = kill_members(group) {
        tracing::warn!("what lives in {} cannot be killed: {error}", group.display());
    }
    // Made by a function.
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove(&entry.path());
    }
    false
}

/// Kills whoever is in the group.
fn kill_members(group: &Path) -> io::Result<()> {
    match set(&group.join("cgroup.kill"), "1") {
        // v1 has no such file.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    // Where pids are limited, nobody comes after.
    let _ = set(&group.join("pids.max"), "0");
    let held: Vec<(u32, OwnedFd)> = members(group)?
        .into_iter()
        .take(KILL_BATCH)
        .filter_map(|pid| Some((pid, pidfd_open(pid).ok()?)))
        .collect();
    // A pid that is still there is that of the process that is held, or it is nobody's.
    let still = members(group)?;
    for (_, pidfd) in held.iter().filter(|(pid, _)| still.contains(pid)) {
        pidfd_kill(pidfd.as_fd());
    }
    Ok(())
}

fn members(group: &Path) -> io::Result<HashSet<u32>> {
    let text = fs::read_to_string(group.join("cgroup.procs"))?;
    // Processes that this one's pid namespace does not show are listed as 0.
    Ok(text.lines().filter_map(|pid| pid.parse().ok()).filter(|pid| *pid != 0).collect())
}
