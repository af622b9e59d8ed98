//! The socket file by which engines of this host join, mode 0600.
//!
//! It is made under another name and renamed when engines may come, so that no moment passes in which a
//! path that was served is not:
//!
//! ```text
//!            nothing, or a file that nobody listens on: renamed over it
//!   aside ----------------------------------------------------------------> alone
//!      \  a predecessor's: exchanged                                       ^
//!       `---------------------------> swapped ---------- settled ----------'
//!                                        `-- dropped: exchanged again, as if nothing had been
//! ```
//! A file of somebody who listens is left alone otherwise, and so is whatever is no socket.

use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

/// Our user and root only.
const MODE: u32 = 0o600;
/// Looked through for a file that was renamed: a directory of sockets has few.
const ENTRIES_MAX: usize = 4096;

/// Whether somebody who listens at the path may be displaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occupant {
    /// It is the gateway that is being taken over.
    Predecessor,
    /// It is a stranger.
    Stranger,
}

/// See the module's description. Dropped, it takes away the file if that is still its own; the listener
/// is to live that long, since it keeps others from getting the same inode.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// The name under which it was made; what was at `path` has it while they are swapped.
    aside: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
    occupant: Occupant,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Aside,
    Swapped,
    Alone,
}

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    /// Nobody listens: whoever did was killed.
    Stale,
    Live,
}

impl SocketFile {
    /// Makes the socket, under another name as yet.
    ///
    /// # Errors
    /// When the path is taken, and what the system says.
    pub(super) fn bind(path: &Path, occupant: Occupant) -> io::Result<(SocketFile, UnixListener)> {
        is_free(look(path)?, occupant)?;
        let mut aside = path.as_os_str().to_owned();
        aside.push(format!(".{}", std::process::id()));
        let aside = PathBuf::from(aside);
        match look(&aside)? {
            Found::Nothing => {}
            Found::Stale => fs::remove_file(&aside)?,
            Found::Live => return Err(io::ErrorKind::AddrInUse.into()),
        }
        let listener = UnixListener::bind(&aside)?;
        let identity = identity(&fs::symlink_metadata(&aside)?);
        let path = path.to_owned();
        let file = SocketFile { path, aside, identity, occupant, place: Place::Aside };
        fs::set_permissions(&file.aside, Permissions::from_mode(MODE))?;
        listener.set_nonblocking(true)?;
        Ok((file, listener))
    }

    /// Has the path lead here.
    ///
    /// # Errors
    /// When it was taken meanwhile, and what the system says.
    pub(super) fn stand(&mut self) -> io::Result<()> {
        let found = look(&self.path)?;
        is_free(found, self.occupant)?;
        self.place = match found {
            Found::Live => {
                self.exchange()?;
                Place::Swapped
            }
            Found::Nothing | Found::Stale => {
                fs::rename(&self.aside, &self.path)?;
                Place::Alone
            }
        };
        Ok(())
    }

    /// This process serves, and no other is between its start and that: a predecessor will not go on, or
    /// a successor has failed.
    ///
    /// # Errors
    /// When a successor was killed with the path in its hands, and the path cannot be had back.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        match self.place {
            Place::Swapped => {
                self.place = Place::Alone;
                // Whoever removed it before did as well.
                let _ = fs::remove_file(&self.aside);
                Ok(())
            }
            Place::Alone if !self.is_ours(&self.path) => self.recover(),
            Place::Aside | Place::Alone => Ok(()),
        }
    }

    /// Puts our file back from where a successor that was killed has left it.
    fn recover(&self) -> io::Result<()> {
        is_free(look(&self.path)?, Occupant::Stranger)?;
        let parent = self.path.parent().unwrap_or(Path::new("/"));
        let entries = fs::read_dir(parent)?.take(ENTRIES_MAX).filter_map(Result::ok);
        let ours = entries.map(|entry| entry.path()).find(|path| self.is_ours(path));
        fs::rename(ours.ok_or(io::ErrorKind::NotFound)?, &self.path)
    }

    fn exchange(&self) -> io::Result<()> {
        let flags = RenameFlags::RENAME_EXCHANGE;
        Ok(renameat2(AT_FDCWD, &self.aside, AT_FDCWD, &self.path, flags)?)
    }

    /// Whether this is our file, and not one that somebody has put in its place.
    fn is_ours(&self, path: &Path) -> bool {
        fs::symlink_metadata(path).is_ok_and(|metadata| identity(&metadata) == self.identity)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = match self.place {
            Place::Aside => &self.aside,
            Place::Alone => &self.path,
            Place::Swapped if self.is_ours(&self.path) && self.exchange().is_ok() => &self.aside,
            Place::Swapped => return,
        };
        if self.is_ours(ours) {
            // Nothing is left to be done where that fails.
            let _ = fs::remove_file(ours);
        }
    }
}

fn is_free(found: Found, occupant: Occupant) -> io::Result<()> {
    match (found, occupant) {
        (Found::Live, Occupant::Stranger) => Err(io::ErrorKind::AddrInUse.into()),
        (Found::Nothing | Found::Stale | Found::Live, _) => Ok(()),
    }
}

/// # Errors
/// When there is something that is no socket, or it cannot be told.
fn look(path: &Path) -> io::Result<Found> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            let message = "something that is no socket is there";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        found => found?,
    };
    // Non-blocking: somebody whose queue is full would have us wait.
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let probe = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    match connect(probe.as_raw_fd(), &UnixAddr::new(path)?) {
        Ok(()) | Err(Errno::EAGAIN) => Ok(Found::Live),
        Err(Errno::ECONNREFUSED) => Ok(Found::Stale),
        Err(Errno::ENOENT) => Ok(Found::Nothing),
        Err(error) => Err(error.into()),
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("engines.sock");
        (directory, path)
    }

    fn stand(path: &Path, occupant: Occupant) -> (SocketFile, UnixListener) {
        let (mut file, listener) = SocketFile::bind(path, occupant).unwrap();
        file.stand().unwrap();
        (file, listener)
    }

    fn count(directory: &tempfile::TempDir) -> usize {
        fs::read_dir(directory.path()).unwrap().count()
    }

    #[test]
    fn a_path_is_there_for_this_user_alone_while_it_is_served() {
        let (directory, path) = place();
        let (mut file, listener) = SocketFile::bind(&path, Occupant::Stranger).unwrap();
        assert!(UnixStream::connect(&path).is_err(), "nobody is let in yet");
        file.stand().unwrap();
        let _client = UnixStream::connect(&path).unwrap();
        listener.accept().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, MODE);
        drop(file);
        assert_eq!(count(&directory), 0);
        drop(SocketFile::bind(&path, Occupant::Stranger).unwrap());
        assert_eq!(count(&directory), 0, "one that never stood leaves nothing either");
    }

    #[test]
    fn what_one_who_was_killed_has_left_is_replaced() {
        let (directory, path) = place();
        drop(UnixListener::bind(&path).unwrap());
        let (file, _listener) = stand(&path, Occupant::Stranger);
        UnixStream::connect(&path).unwrap();
        drop(file);
        assert_eq!(count(&directory), 0);
    }

    #[test]
    fn what_is_no_socket_or_another_process_listens_on_stays() {
        let (_directory, path) = place();
        fs::write(&path, "mine").unwrap();
        for occupant in [Occupant::Stranger, Occupant::Predecessor] {
            let error = SocketFile::bind(&path, occupant).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        }
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        fs::remove_file(&path).unwrap();
        // One that comes between the two steps too.
        let (mut late, _late) = SocketFile::bind(&path, Occupant::Stranger).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        assert_eq!(late.stand().unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let error = SocketFile::bind(&path, Occupant::Stranger).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(late);
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_successor_that_fails_gives_the_path_back_and_one_that_serves_keeps_it() {
        let (directory, path) = place();
        let (mut first, listener) = stand(&path, Occupant::Stranger);
        let inode = first.identity;
        // The two are processes of their own, each with a name for itself.
        first.aside = path.with_extension("first");
        let (failing, _failing) = stand(&path, Occupant::Predecessor);
        assert_ne!(identity(&fs::metadata(&path).unwrap()), inode);
        drop(failing);
        assert_eq!(identity(&fs::metadata(&path).unwrap()), inode);
        let (mut second, accepting) = stand(&path, Occupant::Predecessor);
        second.settle().unwrap();
        drop((first, listener));
        let _client = UnixStream::connect(&path).unwrap();
        accepting.accept().unwrap();
        assert_eq!(count(&directory), 1);
        drop(second);
        assert_eq!(count(&directory), 0);
    }

    #[test]
    fn a_path_that_a_successor_took_is_had_back_when_that_one_is_killed() {
        let (directory, path) = place();
        let (mut first, accepting) = stand(&path, Occupant::Stranger);
        first.aside = path.with_extension("first");
        let (killed, its_listener) = stand(&path, Occupant::Predecessor);
        assert!(first.settle().is_err(), "it lives");
        std::mem::forget(killed);
        drop(its_listener);
        assert!(UnixStream::connect(&path).is_err());
        first.settle().unwrap();
        let _client = UnixStream::connect(&path).unwrap();
        accepting.accept().unwrap();
        drop(first);
        assert_eq!(count(&directory), 0);
    }
}
