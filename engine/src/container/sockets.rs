//! The private directory in which containers find their control sockets.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A directory that only this user may enter, removed with everything in it when dropped.
#[derive(Debug)]
pub struct SocketDirectory {
    path: PathBuf,
}

impl SocketDirectory {
    /// Makes a fresh directory `nightcore-<pid>` below `parent`.
    ///
    /// # Errors
    /// When `parent` does not exist or is not writable.
    pub fn create(parent: &Path) -> io::Result<Self> {
        let path = parent.join(format!("nightcore-{}", std::process::id()));
        // A predecessor with our pid that was killed may have left one.
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self { path })
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
