//! How containers are run: a plain process, a sandbox, or an OCI runtime, behind one trait.

mod process;
mod sandbox;

use std::io;
use std::path::Path;

use self::process::PlainProcess;
use self::sandbox::Sandbox;
use super::cgroup::{self, Group};
use super::process::Process;
use super::{ContainerKind, ContainerSpec, HostSpec};
use crate::logs::Output;

/// Starts containers of one kind.
pub(super) trait Runtime: std::fmt::Debug {
    /// Whether this host lets containers of this kind have what they must.
    ///
    /// # Errors
    /// What is missing of that which is required.
    fn permit(&self) -> io::Result<()> {
        Ok(())
    }

    /// Starts `nightcore-worker` for a function; it will connect to the socket.
    ///
    /// # Errors
    /// What the system says, with the step that failed. Nothing is left behind then.
    fn start(&self, start: Start<'_>) -> io::Result<Process>;
}

/// What is started.
pub(super) struct Start<'a> {
    pub(super) spec: &'a ContainerSpec,
    /// The function's place.
    pub(super) index: usize,
    /// Names the container among all that this engine starts: the function's place and a count.
    #[expect(dead_code, reason = "a plain process needs no name")]
    pub(super) name: &'a str,
    /// The unix socket that listens for this container alone.
    pub(super) socket: &'a Path,
    /// The control groups that the container enters before it runs anything.
    pub(super) group: &'a Group,
    /// Where standard output and standard error go.
    pub(super) output: Output,
}

/// The runtimes of this host.
#[derive(Debug)]
pub(super) struct Runtimes {
    process: PlainProcess,
    sandbox: Sandbox,
}

impl Runtimes {
    pub(super) fn new(host: &HostSpec) -> Self {
        Self { process: PlainProcess::new(host), sandbox: Sandbox::new(host) }
    }

    /// The one for containers of this kind.
    pub(super) fn of(&self, kind: ContainerKind) -> &dyn Runtime {
        match kind {
            ContainerKind::Process | ContainerKind::Oci => &self.process,
            ContainerKind::Sandbox => &self.sandbox,
        }
    }
}
