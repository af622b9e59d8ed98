//! One container's process, whoever started it: watched, killed and reaped by pidfd.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::process::Child;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};

use super::Cause;
use super::cgroup::Group;
use super::runtime::Place;

/// A child process and the descriptor that says when it ended.
#[derive(Debug)]
pub(super) struct Process {
    pid: u32,
    pidfd: OwnedFd,
    reaped: bool,
    /// What limits it, removed once it has ended.
    group: Option<Group>,
    /// What its runtime made for it, removed once it has ended.
    place: Option<Place>,
}

impl Process {
    /// Takes over a child. It is not reaped by anybody else, so its pid is its own until then.
    pub(super) fn of_child(child: &Child) -> io::Result<Self> {
        let pid = child.id();
        match pidfd_open(pid) {
            Ok(pidfd) => Ok(Self { pid, pidfd, reaped: false, group: None, place: None }),
            Err(error) => {
                kill_and_reap(pid);
                Err(error)
            }
        }
    }

    /// Takes over a container that an OCI runtime has made and left to us, its subreaper.
    pub(super) fn of_runtime(pid: u32, place: Place) -> io::Result<Self> {
        let pidfd = pidfd_open(pid)?;
        Ok(Self { pid, pidfd, reaped: false, group: None, place: Some(place) })
    }

    /// Takes over a child that was made together with its pidfd.
    pub(super) fn of_clone(pid: u32, pidfd: OwnedFd) -> Self {
        Self { pid, pidfd, reaped: false, group: None, place: None }
    }

    /// Keeps the control groups that it has entered.
    pub(super) fn keep(&mut self, mut group: Group) {
        group.close();
        self.group = Some(group);
    }

    /// How often the kernel killed for its limit of memory; `None` where there is none.
    pub(super) fn oom_kills(&self) -> Option<u64> {
        let own = self.group.as_ref().and_then(Group::oom_kills);
        own.or_else(|| self.place.as_ref().and_then(Place::oom_kills))
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Becomes readable when the process has ended.
    pub(super) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// How it ended, if it has; reaps it.
    pub(super) fn ended(&mut self) -> Option<Cause> {
        match self.wait(WaitPidFlag::WNOHANG) {
            Ok(WaitStatus::StillAlive) => None,
            Ok(WaitStatus::Exited(_, code)) => Some(Cause::Exit { code }),
            Ok(WaitStatus::Signaled(_, Signal::SIGKILL, _)) if self.oom_kills() > Some(0) => {
                Some(Cause::OutOfMemory { limit: None })
            }
            Ok(WaitStatus::Signaled(_, signal, _)) => Some(Cause::of_signal(signal)),
            // It is reaped, by a real-time signal: for those nix has an error instead of a name.
            Ok(_) | Err(_) => Some(Cause::Signal { name: "a signal without a name" }),
        }
    }

    /// Waits for its end; `None` unless it exited of itself.
    pub(super) fn exit_code(mut self) -> Option<i32> {
        match self.wait(WaitPidFlag::empty()) {
            Ok(WaitStatus::Exited(_, code)) => Some(code),
            _ => None,
        }
    }

    pub(super) fn kill(&mut self) {
        if !self.reaped {
            pidfd_kill(self.pidfd());
        }
    }

    fn wait(&mut self, flags: WaitPidFlag) -> Result<WaitStatus, Errno> {
        loop {
            match waitid(Id::PIDFd(self.pidfd.as_fd()), flags | WaitPidFlag::WEXITED) {
                Err(Errno::EINTR) => {}
                other => {
                    self.reaped |= !matches!(other, Ok(WaitStatus::StillAlive));
                    return other;
                }
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
            let _ = self.wait(WaitPidFlag::empty());
        }
    }
}

fn kill_and_reap(pid: u32) {
    let Ok(pid) = i32::try_from(pid).map(nix::unistd::Pid::from_raw) else { return };
    let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
    let _ = nix::sys::wait::waitpid(pid, None);
}

/// Kills the process, if it still runs.
pub(super) fn pidfd_kill(pidfd: BorrowedFd<'_>) {
    let fd = pidfd.as_raw_fd();
    // SAFETY: plain numbers, and a null pointer where no details are given.
    unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, libc::SIGKILL, 0, 0) };
}

/// A descriptor that becomes readable when the process has ended.
pub(super) fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two plain numbers and returns a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(fd).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
