//! What an engine that was killed left behind, told from what a live one uses.
//!
//! Whatever an engine makes outside of its own memory bears its mark: a name made of an [`Owner`], or
//! a directory that it keeps locked. A later engine removes what no live one owns. A pid alone would
//! not do, for the kernel gives it to others again.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Names of the directories that engines make begin like this; a pid follows.
pub(super) const PREFIX: &str = "nightcore-";

/// One process, told from every other that has or had its pid. Written `<pid>-<start time>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pid: u32,
    /// In clock ticks since the machine started.
    started: u64,
}

/// A text that names no owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not of the form <pid>-<start time>")]
pub struct NotAnOwner;

impl Owner {
    /// This process.
    ///
    /// # Errors
    /// When `/proc` is not there.
    pub fn this() -> io::Result<Self> {
        let pid = std::process::id();
        Self::find(pid).ok_or_else(|| io::Error::other("/proc does not show this process"))
    }

    /// Whether the process still runs. One of another pid namespace counts as dead.
    #[must_use]
    pub fn is_alive(self) -> bool {
        Self::find(self.pid) == Some(self)
    }

    /// The process that has this pid now, unless it has ended and only waits to be reaped.
    fn find(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // proc(5): the second field, the name in parentheses, may hold anything; `state` is the third,
        // `starttime` the 22nd.
        let (_, behind_name) = stat.rsplit_once(") ")?;
        let mut fields = behind_name.split_ascii_whitespace();
        let state = fields.next()?;
        let started = fields.nth(18)?.parse().ok()?;
        (!matches!(state, "Z" | "X")).then_some(Self { pid, started })
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.pid, self.started)
    }
}

impl FromStr for Owner {
    type Err = NotAnOwner;

    fn from_str(text: &str) -> Result<Self, NotAnOwner> {
        let (pid, started) = text.split_once('-').ok_or(NotAnOwner)?;
        let pid = pid.parse().map_err(|_| NotAnOwner)?;
        Ok(Self { pid, started: started.parse().map_err(|_| NotAnOwner)? })
    }
}

/// Removes the socket directories below `parent` that engines left which are dead, and gives those that
/// it removed. Other users' are passed over, as is whatever cannot be removed: it does no harm.
///
/// # Errors
/// When `parent` cannot be read.
pub(super) fn clear_directories(parent: &Path) -> io::Result<Vec<PathBuf>> {
    let mut removed = Vec::new();
    for entry in fs::read_dir(parent)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let pid = name.and_then(|name| name.strip_prefix(PREFIX));
        if pid.is_none_or(|pid| pid.parse::<u32>().is_err()) {
            continue;
        }
        // Held until it is gone, so that nobody makes it his own meanwhile.
        if let Ok(Some(_lock)) = lock_directory(&path)
            && fs::remove_dir_all(&path).is_ok()
        {
            removed.push(path);
        }
    }
    Ok(removed)
}

/// Locks a directory of this user for as long as the result lives; `None` while another engine has it.
///
/// # Errors
/// When it is no directory, or another user's, or has just been removed.
pub(super) fn lock_directory(path: &Path) -> io::Result<Option<Flock<File>>> {
    let is_own =
        |found: &fs::Metadata| found.is_dir() && found.uid() == nix::unistd::geteuid().as_raw();
    // Not through a link, which anybody may leave in a directory for temporary files.
    if !is_own(&fs::symlink_metadata(path)?) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let directory = match Flock::lock(File::open(path)?, FlockArg::LockExclusiveNonblock) {
        Ok(directory) => directory,
        Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
        Err((_, error)) => return Err(error.into()),
    };
    // Whoever removes one holds its lock; so if what is locked is what the path names, it stays.
    let (locked, named) = (directory.metadata()?, fs::symlink_metadata(path)?);
    if !is_own(&named) || (locked.dev(), locked.ino()) != (named.dev(), named.ino()) {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(Some(directory))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn an_owner_is_alive_until_its_process_ends_though_nobody_has_reaped_it() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let owner = Owner::find(child.id()).unwrap();
        assert!(owner.is_alive());
        assert_eq!(owner.to_string().parse(), Ok(owner));
        drop(child.stdin.take());
        nix::sys::wait::waitid(
            nix::sys::wait::Id::Pid(nix::unistd::Pid::from_raw(child.id().try_into().unwrap())),
            nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT,
        )
        .unwrap();
        assert!(!owner.is_alive(), "a zombie");
        child.wait().unwrap();
        assert!(!owner.is_alive());
    }

    #[test]
    fn another_process_with_the_pid_of_an_owner_is_not_the_owner() {
        let this = Owner::this().unwrap();
        let before = Owner { started: this.started - 1, ..this };
        assert!(this.is_alive());
        assert!(!before.is_alive());
        for text in ["", "1", "1-", "-1", "1-x", "1-2-3"] {
            assert_eq!(text.parse::<Owner>(), Err(NotAnOwner), "{text}");
        }
    }

    #[test]
    fn only_directories_that_nobody_holds_are_cleared() {
        let parent = std::env::temp_dir().join(format!("remains-{}", Owner::this().unwrap()));
        fs::create_dir(&parent).unwrap();
        let path = |name: &str| parent.join(name);
        for name in ["nightcore-1", "nightcore-2", "nightcore-web", "other-3"] {
            fs::create_dir(path(name)).unwrap();
            fs::write(path(name).join("0-1"), "").unwrap();
        }
        fs::write(path("nightcore-4"), "").unwrap();
        std::os::unix::fs::symlink(path("other-3"), path("nightcore-5")).unwrap();
        let held = lock_directory(&path("nightcore-2")).unwrap().unwrap();
        assert!(lock_directory(&path("nightcore-2")).unwrap().is_none());

        assert_eq!(clear_directories(&parent).unwrap(), [path("nightcore-1")]);
        for name in ["nightcore-2/0-1", "nightcore-web/0-1", "other-3/0-1", "nightcore-5/0-1"] {
            assert!(path(name).exists(), "{name}");
        }
        drop(held);
        assert_eq!(clear_directories(&parent).unwrap(), [path("nightcore-2")]);
        fs::remove_dir_all(&parent).unwrap();
    }
}
