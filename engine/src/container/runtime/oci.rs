//! Containers by an OCI runtime such as `runc`, which is told by a bundle what to make.
//!
//! A start runs `runc run --detach`, which ends once the container runs; as its subreaper the engine
//! then is the container's parent, which reaps and watches it like any other child. What a container
//! has of the runtime (state, control groups, bundle) is its [`Place`], deleted when it has ended.
//!
//! A runtime's containers do not die with the engine by themselves. They notice that their control
//! socket closes, and for those that cannot, hung or stopped, there is a watchdog ([`Home`]): it
//! outlives an engine that is killed by as long as it takes to delete all containers.

mod adoption;
mod bundle;
mod home;
mod making;
mod place;
mod seccomp;

use std::cell::OnceCell;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

pub(in crate::container) use self::making::Making;
pub(in crate::container) use self::place::Place;

use self::adoption::Adoption;
use self::bundle::Bundle;
use self::home::Home;
use super::{HostSpec, Runtime, Start, Started};

/// User and group of the first function's containers; the same as those of sandboxes.
const USER_FIRST: u32 = 0x7000_0000;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Oci {
    worker: PathBuf,
    runtime: String,
    rootfs: Option<PathBuf>,
    /// Where the home is made.
    directory: PathBuf,
    /// Made for the first container.
    home: OnceCell<Arc<Home>>,
}

impl Oci {
    /// Deletes what killed engines left below `directory`.
    pub(super) fn new(host: &HostSpec, directory: &Path) -> Self {
        home::clear(directory);
        Self {
            worker: host.worker.clone(),
            runtime: host.oci_runtime.clone(),
            rootfs: host.oci_rootfs.clone(),
            directory: directory.to_owned(),
            home: OnceCell::new(),
        }
    }

    fn home(&self) -> io::Result<&Arc<Home>> {
        if self.home.get().is_none() {
            let home = Home::open(&self.directory, &self.runtime)?;
            let _ = self.home.set(Arc::new(home));
        }
        self.home.get().ok_or_else(|| io::Error::other("no home for OCI containers"))
    }
}

impl Runtime for Oci {
    fn start(&self, start: Start<'_>) -> io::Result<Started> {
        let home = self.home()?;
        let place = Place::make(home, start.name)?;
        Bundle {
            spec: start.spec,
            user: user(start.index)?,
            worker: &self.worker,
            socket: start.socket,
            rootfs: self.rootfs.as_deref(),
            id: place.id(),
        }
        .write(place.bundle())?;
        // The container's user connects to it. Nobody else comes as far: its directory is the engine's.
        fs::set_permissions(start.socket, Permissions::from_mode(0o666))?;
        let mut command = home.command(&place.log());
        command.args(["run", "--detach", "--bundle"]).arg(place.bundle());
        command.arg("--pid-file").arg(place.pid_file()).arg(place.id());
        // The container's from then on.
        command
            .stdin(Stdio::null())
            .stdout(Stdio::from(start.output.stdout))
            .stderr(Stdio::from(start.output.stderr));
        settle(&mut command, home.lifeline(), start.spec.niceness);
        let adoption = Adoption::begin()?;
        let child = command
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", self.runtime)))?;
        Making::new(child, place, adoption).map(Started::Making)
    }
}

/// Each function has a user of its own, since the kernel counts some things by user.
fn user(index: usize) -> io::Result<u32> {
    let user = u32::try_from(index).ok().and_then(|index| USER_FIRST.checked_add(index));
    user.ok_or_else(|| io::Error::other("there is no user for its place"))
}

/// Has the runtime run at the container's niceness, which inherits it: a bundle cannot say it. Also
/// the runtime holds the lifeline, so that the watchdog waits for it.
fn settle(command: &mut Command, lifeline: i32, niceness: i32) {
    let settle = move || {
        // SAFETY: fcntl takes plain numbers; the descriptor is this process's.
        if unsafe { libc::fcntl(lifeline, libc::F_SETFD, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: setpriority takes plain numbers; 0 means the calling process.
        if niceness != 0 && unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, niceness) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    };
    command.process_group(0);
    // SAFETY: the closure runs between fork and exec and makes async-signal-safe system calls only;
    // it allocates nothing and touches no lock.
    unsafe { command.pre_exec(settle) };
}
