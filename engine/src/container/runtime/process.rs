//! A container as a plain child process that runs `nightcore-worker`: for development.
//!
//! The child gets its own process group (Ctrl-C in a terminal is the engine's business), dies with the
//! supervisor's thread, and starts with a clean environment. It stays in the engine's session on
//! purpose: with `sched_autogroup_enabled` niceness counts only inside one session.

use std::ffi::OsString;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{ContainerSpec, HostSpec, Process, Runtime, Start, cgroup};

/// Variables of the engine's own environment that a container may see.
const INHERITED: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];

/// See the module's description.
#[derive(Debug)]
pub(super) struct PlainProcess {
    worker: PathBuf,
}

impl PlainProcess {
    pub(super) fn new(host: &HostSpec) -> Self {
        Self { worker: host.worker.clone() }
    }
}

impl Runtime for PlainProcess {
    fn start(&self, start: Start<'_>) -> io::Result<Process> {
        let spec = start.spec;
        let mut command = Command::new(&self.worker);
        command.arg("--library").arg(&spec.library).arg("--function").arg(&spec.name);
        command.env_clear().envs(environment(spec, start.socket));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::from(start.output.stdout))
            .stderr(Stdio::from(start.output.stderr));
        command.process_group(0);
        let niceness = spec.niceness;
        // Where no control group limits it: what it allocates, not what it shares or maps.
        let memory = spec.limits.memory.filter(|_| !start.group.limits_memory());
        // The group outlives this call, and so do its descriptors.
        let procs = cgroup::raw(start.group.procs());
        let parent = std::process::id();
        // SAFETY: the closure runs between fork and exec and makes async-signal-safe system calls only;
        // it allocates nothing and touches no lock.
        unsafe { command.pre_exec(move || settle(parent, &procs, memory, niceness)) };
        Process::of_child(&command.spawn()?)
    }
}

/// The variables of a container.
pub(super) fn environment<'a>(
    spec: &'a ContainerSpec,
    socket: &Path,
) -> impl Iterator<Item = (OsString, OsString)> + use<'a> {
    let is_own = |name: &&str| spec.env.iter().any(|(own, _)| own == name);
    let inherited = INHERITED.into_iter().filter(move |name| !is_own(name));
    let inherited = inherited.filter_map(|name| Some((name.into(), std::env::var_os(name)?)));
    let own = spec.env.iter().map(|(name, value)| (name.into(), value.into()));
    inherited.chain(own).chain([("NIGHTCORE_SOCKET".into(), socket.into())])
}

/// Runs in the child before `exec`.
fn settle(parent: u32, procs: &[RawFd], memory: Option<u64>, niceness: i32) -> io::Result<()> {
    use nix::sys::prctl;
    use nix::sys::resource::{Resource, setrlimit};
    use nix::sys::signal::{SigSet, Signal};

    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if u32::try_from(nix::unistd::getppid().as_raw()) != Ok(parent) {
        // The engine died before the line above: nobody is left to be killed by.
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    cgroup::enter(procs)?;
    SigSet::empty().thread_set_mask()?;
    if let Some(bytes) = memory {
        setrlimit(Resource::RLIMIT_DATA, bytes, bytes)?;
    }
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    if niceness != 0 {
        // SAFETY: setpriority takes plain numbers; 0 means the calling process.
        if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, niceness) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
