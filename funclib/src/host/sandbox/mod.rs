//! How a container confines itself before it loads its function's library, whose constructors are the
//! first foreign code to run.
//!
//! Until then the process is one thread of code of ours, born by the engine into a process id
//! namespace, so that all of this is plain system calls one after the other. Each step gives up what
//! the ones before it needed: `root` needs the right to mount, `identity` ends all rights, `landlock`
//! and `filter` bar what anybody may do. `needed` finds the libraries that the function's needs.

mod filter;
mod identity;
mod landlock;
mod needed;
mod root;

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// The namespaces that a container can make for itself, as the command line names them.
const NAMESPACES: [(&str, CloneFlags); 5] = [
    ("mount", CloneFlags::CLONE_NEWNS),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("cgroup", CloneFlags::CLONE_NEWCGROUP),
    ("net", CloneFlags::CLONE_NEWNET),
];

/// What the engine says of the sandbox.
#[derive(Debug)]
pub struct Sandbox {
    /// Namespaces to make; the one of process ids, and of users, it was born into.
    namespaces: CloneFlags,
    /// User and group to become.
    pub user: Option<u32>,
    /// Whether the function may reach a network.
    pub network: bool,
    /// Files and directories that the function may read beside what every one may.
    pub read_only: Vec<PathBuf>,
}

/// A part of the sandbox that cannot be had; nothing has been loaded.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A system call failed.
    #[error("{what}: {error}")]
    System {
        /// What it was to do.
        what: String,
        /// What the system said.
        error: io::Error,
    },
    /// The container's user may not read the library.
    #[error("the container's user {user} may not read library {}", path.display())]
    Unreadable {
        /// The library.
        path: PathBuf,
        /// The user's number.
        user: u32,
    },
    /// Landlock refused the rules.
    #[error("Landlock: {0}")]
    Landlock(#[from] ::landlock::RulesetError),
    /// The filter of system calls could not be made.
    #[error("the filter of system calls: {0}")]
    Filter(#[from] seccompiler::Error),
}

impl Default for Sandbox {
    fn default() -> Self {
        let (namespaces, read_only) = (CloneFlags::empty(), Vec::new());
        Self { namespaces, user: None, network: false, read_only }
    }
}

impl Sandbox {
    /// Reads names of namespaces, with a comma between two.
    ///
    /// # Errors
    /// With the name that is none.
    pub fn set_namespaces(&mut self, names: &OsStr) -> Result<(), String> {
        let names = names.to_string_lossy();
        for name in names.split(',').filter(|name| !name.is_empty()) {
            let found = NAMESPACES.iter().find(|(known, _)| *known == name);
            let (_, flag) = found.ok_or_else(|| format!("{name} is no namespace"))?;
            self.namespaces |= *flag;
        }
        Ok(())
    }

    /// Confines this process, which must have one thread, to what `library` needs; gives the path by
    /// which to load it. `stage` is a directory of the engine's that the container needs no more.
    ///
    /// # Errors
    /// The first step that failed. The process must not go on to load anything.
    pub fn enter(
        &self,
        function: &str,
        library: &Path,
        stage: &Path,
    ) -> Result<PathBuf, SandboxError> {
        let library = library.canonicalize().map_err(|error| failed(library, error))?;
        let view = root::View::new(&library, self);
        step("new namespaces", unshare(self.namespaces))?;
        let has_root = self.namespaces.contains(CloneFlags::CLONE_NEWNS);
        if has_root {
            view.become_root(stage)?;
        }
        if self.namespaces.contains(CloneFlags::CLONE_NEWUTS) {
            step("the host name", nix::unistd::sethostname(function))?;
        }
        identity::limit()?;
        identity::assume(self.user)?;
        if nix::unistd::access(&library, nix::unistd::AccessFlags::R_OK).is_err() {
            let user = nix::unistd::geteuid().as_raw();
            return Err(SandboxError::Unreadable { path: library, user });
        }
        die_of_signals()?;
        landlock::restrict(&view, has_root, self.network)?;
        filter::install(self.network)?;
        Ok(library)
    }
}

fn step<T>(what: &str, result: Result<T, Errno>) -> Result<T, SandboxError> {
    result.map_err(|error| SandboxError::System { what: what.to_owned(), error: error.into() })
}

fn failed(path: &Path, error: impl Into<io::Error>) -> SandboxError {
    SandboxError::System { what: path.display().to_string(), error: error.into() }
}

/// The first process of a namespace does not die of signals from within, unless it handles them: then
/// `abort` ends in a fault that looks like another. So it exits as a shell would say it was killed.
/// Faults kill it as ever.
fn die_of_signals() -> Result<(), SandboxError> {
    use Signal::*;
    extern "C" fn end(signal: libc::c_int) {
        // SAFETY: ends the process.
        unsafe { libc::_exit(128 + signal) }
    }
    if std::process::id() != 1 {
        return Ok(());
    }
    let action = SigAction::new(SigHandler::Handler(end), SaFlags::SA_ONSTACK, SigSet::empty());
    for signal in [SIGABRT, SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGALRM, SIGUSR1, SIGUSR2, SIGXCPU] {
        // SAFETY: the handler makes one system call.
        step("signal handlers", unsafe { sigaction(signal, &action) })?;
    }
    Ok(())
}
