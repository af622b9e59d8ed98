//! Function containers: the process, its start and its death.
//!
//! `process` starts one and watches it by pidfd, `cgroup` limits what it uses, `slot` is one function's
//! place with its container or the wait for the next one, `cause` why one ended, `restart` when the next
//! is started, `supervisor` keeps every container alive and tells the shards, `death` is what it does
//! when one ends, `idleness` its stop of those that nobody calls, `lease` what the shards are asked for
//! that, `rollout` has functions come and go, `record` what it tells of each, `watch` is what it waits in,
//! `sockets` the private directory in which containers find their control socket, `remains` what becomes
//! of it and the like when the engine is killed.

mod cause;
mod cgroup;
mod death;
mod idleness;
mod lease;
mod process;
mod record;
pub mod remains;
mod restart;
mod rollout;
mod runtime;
mod slot;
mod sockets;
mod supervisor;
mod watch;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ipc::control::ControlSocket;

pub use self::cause::Cause;
pub use self::record::{Record, Records, State};
pub use self::restart::{Breaker, CrashLoop};
pub use self::rollout::{Change, Changed, Deployment, Wanted};
pub use self::sockets::SocketDirectory;
pub use self::supervisor::{StartError, Stopped, Supervisor};

/// How a container is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerKind {
    /// A plain child process: for development.
    Process,
    /// Namespaces, a root of its own, control groups, seccomp, Landlock.
    Sandbox,
    /// By an OCI runtime.
    Oci,
}

impl ContainerKind {
    /// As it is configured and listed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Sandbox => "sandbox",
            Self::Oci => "oci",
        }
    }
}

/// What a container may use; `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// CPU time in thousandths of a core.
    pub cpu_quota: Option<u32>,
    /// Whether it gets a CPU group of minimum weight, so that whatever is outside of such groups, the
    /// engine above all, comes first.
    pub cpu_last: bool,
}

/// What all containers of an engine have in common.
#[derive(Clone, Debug)]
pub struct HostSpec {
    /// The host binary `nightcore-worker`.
    pub worker: PathBuf,
    /// Refuse a container of which a part of the isolation or a limit is not enforced.
    pub require: bool,
    /// Name or path of the OCI runtime.
    pub oci_runtime: String,
    /// Root file system of OCI containers; `None`: the host's system directories.
    pub oci_rootfs: Option<PathBuf>,
}

/// How to start the container of one function.
#[derive(Clone, Debug)]
pub struct ContainerSpec {
    /// The function's name.
    pub name: String,
    /// Counts the deployments of the name.
    pub version: u32,
    /// Absolute path of its cdylib.
    pub library: PathBuf,
    /// How it is run.
    pub kind: ContainerKind,
    /// What it may use.
    pub limits: Limits,
    /// Whether it sees the host's network.
    pub network: bool,
    /// Files and directories of the host that it may read, beside what every container may.
    pub read_only: Vec<PathBuf>,
    /// Environment of the function, beside the few variables that every container gets.
    pub env: Vec<(String, String)>,
    /// Largest input or output of one call, in bytes.
    pub payload_max: u32,
    /// Workers that it is started with.
    pub min_workers: u16,
    /// Workers the container may have, on all shards together.
    pub max_workers: u16,
    /// Without a call for this long, the container is stopped until the next one.
    pub idle_timeout: Option<Duration>,
    /// What is taken for a crash loop.
    pub crash_loop: CrashLoop,
    /// Lines a second of its output that are kept, and as many at once.
    pub log_rate: u32,
    /// Niceness of the container relative to the supervisor's thread.
    pub niceness: i32,
}

/// A running container, as the shards see it.
#[derive(Debug)]
pub struct Container {
    /// Counts the containers that the function has had.
    pub generation: u32,
    /// Its process.
    pub pid: u32,
    /// Where its launcher takes orders: sending is atomic, so every shard may.
    pub control: ControlSocket,
    workers: AtomicU32,
    workers_max: u32,
}

impl Container {
    pub(crate) fn new(generation: u32, pid: u32, control: ControlSocket, workers_max: u16) -> Self {
        Self {
            generation,
            pid,
            control,
            workers: AtomicU32::new(0),
            workers_max: workers_max.into(),
        }
    }

    /// Takes one of the `max_workers` places, if one is free.
    #[must_use]
    pub fn reserve_worker(&self) -> bool {
        // A plain counter: it orders nothing but itself.
        self.workers
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (count < self.workers_max).then_some(count + 1)
            })
            .is_ok()
    }

    /// Gives a place back.
    pub fn free_worker(&self) {
        let before = self.workers.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "a worker was freed that had no place");
    }
}
