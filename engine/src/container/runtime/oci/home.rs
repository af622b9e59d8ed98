//! The directory of an engine's OCI containers, and the watchdog that empties it when the engine is
//! killed.
//!
//! ```text
//! nightcore-oci-<owner>/          locked by the engine that uses it
//!     runtime                     name of the runtime
//!     sweep                       what deletes all of this: sweep.sh
//!     state/                      its own, one directory a container
//!     containers/<name>/          bundle of a container: config.json, rootfs, log, pid
//! ```
//!
//! The watchdog is a shell that runs `sweep` and reads the lifeline, a pipe into which nobody writes. It
//! ends when the engine and the runtimes that it has started are gone; then the watchdog deletes what
//! there is: nothing after an orderly end.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::thread::JoinHandle;

use nix::fcntl::Flock;

use crate::container::remains::{self, Owner};

const PREFIX: &str = "nightcore-oci-";
const SWEEP: &str = include_str!("sweep.sh");

/// See the module's description.
#[derive(Debug)]
pub(super) struct Home {
    path: PathBuf,
    owner: Owner,
    runtime: String,
    watchdog: Child,
    lifeline: Option<ChildStdin>,
    /// Threads that delete containers.
    deletions: Mutex<Vec<JoinHandle<()>>>,
    _lock: Flock<File>,
}

impl Home {
    pub(super) fn open(parent: &Path, runtime: &str) -> io::Result<Self> {
        let owner = Owner::this()?;
        let path = parent.join(format!("{PREFIX}{owner}"));
        let unnamed = parent.join(format!(".{PREFIX}{owner}"));
        DirBuilder::new().mode(0o700).create(&unnamed)?;
        let made = furnish(&unnamed, &path, runtime);
        let watched = made.and_then(|lock| Ok((lock, sweep(&path, Stdio::piped())?)));
        let (lock, mut watchdog) = watched.inspect_err(|_| {
            // No container has been here yet.
            let _ = fs::remove_dir_all(&unnamed).or_else(|_| fs::remove_dir_all(&path));
        })?;
        let (lifeline, deletions) = (watchdog.stdin.take(), Mutex::new(Vec::new()));
        let runtime = runtime.to_owned();
        Ok(Self { path, owner, runtime, watchdog, lifeline, deletions, _lock: lock })
    }

    /// The runtime, with its state here and its messages in `log`.
    pub(super) fn command(&self, log: &Path) -> Command {
        let mut command = Command::new(&self.runtime);
        command.arg("--root").arg(self.path.join("state"));
        command.arg("--log").arg(log).args(["--log-format", "json"]);
        command
    }

    pub(super) fn bundle(&self, name: &str) -> PathBuf {
        self.path.join("containers").join(name)
    }

    /// What the runtime keeps of a container, as long as it is not deleted.
    pub(super) fn state(&self, id: &str) -> PathBuf {
        self.path.join("state").join(id)
    }

    /// What the runtime calls a container of this name; its control groups are called the same.
    pub(super) fn id(&self, name: &str) -> String {
        format!("nightcore-{}-{name}", self.owner)
    }

    /// The watchdog waits for everybody who holds this descriptor open.
    pub(super) fn lifeline(&self) -> RawFd {
        self.lifeline.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    /// Runs a deletion beside the supervisor: it takes a runtime some milliseconds.
    pub(super) fn delete(&self, deletion: impl FnOnce() + Send + 'static) {
        let Ok(mut deletions) = self.deletions.lock() else { return };
        deletions.retain(|deletion| !deletion.is_finished());
        match std::thread::Builder::new().name("delete".to_owned()).spawn(deletion) {
            Ok(deletion) => deletions.push(deletion),
            Err(error) => tracing::warn!("a container is not deleted before the end: {error}"),
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Ok(deletions) = self.deletions.get_mut() {
            for deletion in deletions.drain(..) {
                // One that panicked leaves its container to the watchdog.
                let _ = deletion.join();
            }
        }
        drop(self.lifeline.take());
        let _ = self.watchdog.wait();
        if self.path.exists() {
            // Somebody has killed the watchdog, or a deletion failed.
            sweep_now(&self.path);
        }
    }
}

/// Makes of an empty directory a home, locked before it has the name by which others look for remains.
fn furnish(unnamed: &Path, path: &Path, runtime: &str) -> io::Result<Flock<File>> {
    let lock = remains::lock_directory(unnamed)?;
    let lock = lock.ok_or_else(|| io::Error::from(io::ErrorKind::ResourceBusy))?;
    fs::write(unnamed.join("runtime"), runtime)?;
    fs::write(unnamed.join("sweep"), SWEEP)?;
    fs::create_dir(unnamed.join("state"))?;
    fs::create_dir(unnamed.join("containers"))?;
    fs::rename(unnamed, path)?;
    Ok(lock)
}

/// Deletes the containers of engines that were killed, where their watchdog was as well.
pub(super) fn clear(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if name.and_then(|name| name.strip_prefix(PREFIX)).is_none() {
            continue;
        }
        // Held until it is gone. The directory is this user's, and so is what it says.
        let Ok(Some(_lock)) = remains::lock_directory(&path) else { continue };
        tracing::info!("deleting the containers in {}: their engine was killed", path.display());
        sweep_now(&path);
    }
}

fn sweep_now(path: &Path) {
    let swept = sweep(path, Stdio::null()).and_then(|mut sweep| sweep.wait());
    match swept {
        Ok(status) if status.success() => {}
        Ok(status) => tracing::warn!("{} could not be cleared: {status}", path.display()),
        Err(error) => tracing::warn!("{} could not be cleared: {error}", path.display()),
    }
}

/// Deletes all that is in a home, and the home, once `stdin` has ended.
fn sweep(path: &Path, stdin: Stdio) -> io::Result<Child> {
    let mut command = Command::new("/bin/sh");
    command.arg(path.join("sweep")).arg(path);
    // Ctrl-C in a terminal is the engine's business.
    command.stdin(stdin).stdout(Stdio::null()).process_group(0);
    command.spawn().map_err(|error| io::Error::new(error.kind(), format!("/bin/sh: {error}")))
}
