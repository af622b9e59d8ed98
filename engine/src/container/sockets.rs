//! The private directory in which containers find their control sockets.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::fcntl::Flock;

use super::remains::{self, PREFIX};

/// Between its making and its lock, another engine that starts may take a directory for remains.
const TRIES: u32 = 100;

/// A directory that only this user may enter, removed with everything in it when dropped.
#[derive(Debug)]
pub struct SocketDirectory {
    path: PathBuf,
    /// Tells other engines that it is in use. The kernel lets go of it whatever becomes of this one.
    _lock: Flock<File>,
}

impl SocketDirectory {
    /// Removes what engines left below `parent` that were killed, and makes a fresh directory
    /// `nightcore-<pid>` there.
    ///
    /// # Errors
    /// When `parent` does not exist or is not writable, or a live engine that cannot see this one's pid
    /// has the directory.
    pub fn create(parent: &Path) -> io::Result<Self> {
        for path in remains::clear_directories(parent)? {
            tracing::info!("removed {}, which an engine left that was killed", path.display());
        }
        let path = parent.join(format!("{PREFIX}{}", std::process::id()));
        for _ in 0..TRIES {
            DirBuilder::new().mode(0o700).create(&path)?;
            if let Ok(Some(lock)) = remains::lock_directory(&path) {
                return Ok(Self { path, _lock: lock });
            }
        }
        Err(io::Error::other(format!("{} is always taken away", path.display())))
    }

    /// Where it was made.
    #[must_use]
    pub fn parent(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}
