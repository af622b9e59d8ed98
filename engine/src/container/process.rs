//! One container's process: a plain child that runs `nightcore-worker`, watched by pidfd.
//!
//! The child gets its own process group (Ctrl-C in a terminal is the engine's business), dies with the
//! supervisor's thread, and starts with a clean environment. It stays in the engine's session on
//! purpose: with `sched_autogroup_enabled` niceness counts only inside one session.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use super::ContainerSpec;

/// Variables of the engine's own environment that a container may see.
const INHERITED: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];

/// A child process and the descriptor that says when it ended.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    pidfd: OwnedFd,
}

impl Process {
    /// Starts the host binary `worker` for `spec`; it will connect to `socket`.
    pub(super) fn start(worker: &Path, spec: &ContainerSpec, socket: &Path) -> io::Result<Self> {
        let mut command = Command::new(worker);
        command.arg("--library").arg(&spec.library).arg("--function").arg(&spec.name);
        command.env_clear();
        for name in INHERITED {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.envs(spec.env.iter().map(|(name, value)| (name, value)));
        command.env("NIGHTCORE_SOCKET", socket);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::from(std::io::stderr().as_fd().try_clone_to_owned()?));
        command.process_group(0);
        let (memory, niceness) = (spec.memory, spec.niceness);
        let parent = std::process::id();
        // SAFETY: the closure runs between fork and exec and makes async-signal-safe system calls only;
        // it allocates nothing and touches no lock.
        unsafe { command.pre_exec(move || settle(parent, memory, niceness)) };
        let mut child = command.spawn()?;
        match pidfd_open(child.id()) {
            Ok(pidfd) => Ok(Self { child, pidfd }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Becomes readable when the process has ended.
    pub(super) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// How it ended, if it has; reaps it.
    pub(super) fn ended(&mut self) -> Option<String> {
        match self.child.try_wait() {
            Ok(Some(status)) => Some(describe(status)),
            Ok(None) => None,
            Err(error) => Some(format!("it could not be waited for: {error}")),
        }
    }

    pub(super) fn kill(&mut self) {
        let _ = self.child.kill();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Does nothing to a child that was reaped: std remembers its status.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs in the child before `exec`.
fn settle(parent: u32, memory: Option<u64>, niceness: i32) -> io::Result<()> {
    use nix::sys::prctl;
    use nix::sys::resource::{Resource, setrlimit};
    use nix::sys::signal::{SigSet, Signal};

    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if u32::try_from(nix::unistd::getppid().as_raw()) != Ok(parent) {
        // The engine died before the line above: nobody is left to be killed by.
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
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

fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two plain numbers and returns a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(fd).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it exited with code {code}"),
        (None, Some(signal)) => match nix::sys::signal::Signal::try_from(signal) {
            Ok(signal) => format!("it was killed by {signal}"),
            Err(_) => format!("it was killed by signal {signal}"),
        },
        (None, None) => "it ended".to_owned(),
    }
}
