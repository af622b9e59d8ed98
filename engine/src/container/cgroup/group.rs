//! The groups of one container: what it may use, and what became of it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::layout::{Controller, Version};
use super::place::Place;
use super::removal::Remover;
use super::set;

/// The period of CPU quotas in microseconds, the kernel's own default.
const PERIOD_US: u64 = 100_000;

/// One container's control groups. Whoever still lives in them when they are dropped is killed, and
/// they are removed a while later.
#[derive(Debug)]
pub(in crate::container) struct Group {
    directories: Vec<PathBuf>,
    procs: Vec<OwnedFd>,
    /// The directory of the one group on v2.
    birthplace: Option<OwnedFd>,
    /// Where kills for the limit of memory are counted.
    oom: Option<PathBuf>,
    remover: Remover,
}

/// One thing that a container may use no more of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Limit {
    /// Bytes.
    Memory(u64),
    /// Processes and threads.
    Pids(u32),
    /// Thousandths of a core.
    CpuQuota(u32),
    /// What others leave of a core: the least weight there is.
    CpuLast,
}

impl Limit {
    pub(super) fn controller(self) -> Controller {
        match self {
            Self::Memory(_) => Controller::Memory,
            Self::Pids(_) => Controller::Pids,
            Self::CpuQuota(_) | Self::CpuLast => Controller::Cpu,
        }
    }
}

impl Group {
    /// In no group yet.
    pub(super) fn new(remover: Remover) -> Self {
        Self { directories: Vec::new(), procs: Vec::new(), birthplace: None, oom: None, remover }
    }

    /// Sets one more limit, in a group called `name` at the place of its controller.
    pub(super) fn limit(&mut self, limit: Limit, place: &Place, name: &str) -> io::Result<()> {
        let directory = place.parent.join(name);
        // One group serves all limits of a controller, and on v2 those of all controllers.
        if !self.directories.contains(&directory) {
            fs::create_dir(&directory)?;
            self.directories.push(directory.clone());
            let entrance = match place.version {
                // Taking a single thread, it spares the kernel a lock that costs milliseconds.
                Version::V1 => "tasks",
                Version::V2 => "cgroup.procs",
            };
            self.procs.push(OpenOptions::new().write(true).open(directory.join(entrance))?.into());
            if place.version == Version::V2 {
                self.birthplace = Some(File::open(&directory)?.into());
            }
        }
        let file = directory.join(place.limit_file(limit.controller()));
        match (limit, place.version) {
            (Limit::Memory(bytes), version) => {
                set(&file, &bytes.to_string())?;
                self.oom = Some(limit_swap(&directory, version, bytes)?);
                Ok(())
            }
            (Limit::Pids(count), _) => set(&file, &count.to_string()),
            (Limit::CpuQuota(thousandths), version) => {
                let quota_us = u64::from(thousandths) * PERIOD_US / 1000;
                match version {
                    Version::V1 => {
                        set(&directory.join("cpu.cfs_period_us"), &PERIOD_US.to_string())?;
                        set(&file, &quota_us.to_string())
                    }
                    Version::V2 => set(&file, &format!("{quota_us} {PERIOD_US}")),
                }
            }
            (Limit::CpuLast, Version::V1) => set(&directory.join("cpu.shares"), "2"),
            (Limit::CpuLast, Version::V2) => set(&directory.join("cpu.weight"), "1"),
        }
    }

    /// What a child writes "0" to before `exec`: see [`enter`].
    pub(in crate::container) fn procs(&self) -> &[OwnedFd] {
        &self.procs
    }

    /// On v2 the group into which `clone3` can make a child: that spares the kernel the lock that
    /// entering takes.
    pub(in crate::container) fn birthplace(&self) -> Option<BorrowedFd<'_>> {
        self.birthplace.as_ref().map(AsFd::as_fd)
    }

    /// Nobody enters any more: a container keeps no descriptor open.
    pub(in crate::container) fn close(&mut self) {
        self.procs.clear();
        self.birthplace = None;
    }

    /// Whether the container's memory is limited here.
    pub(in crate::container) fn limits_memory(&self) -> bool {
        self.oom.is_some()
    }

    /// How many processes the kernel has killed in it for its limit of memory; `None` if it has none.
    pub(in crate::container) fn oom_kills(&self) -> Option<u64> {
        let text = fs::read_to_string(self.oom.as_ref()?).ok()?;
        oom_kills(&text)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for directory in self.directories.drain(..) {
            self.remover.remove(directory);
        }
    }
}

/// Moves the calling process, a child of one thread, into the groups of these descriptors
/// ([`Group::procs`]). Async-signal-safe: for use between `fork` and `exec`.
pub(in crate::container) fn enter(procs: &[RawFd]) -> nix::Result<()> {
    for fd in procs {
        // SAFETY: the text is one byte long and lives as long as the program.
        if unsafe { libc::write(*fd, c"0".as_ptr().cast(), 1) } != 1 {
            return Err(Errno::last());
        }
    }
    Ok(())
}

/// The descriptors of a group for a closure that runs in the child, where they are the same.
pub(in crate::container) fn raw(procs: &[OwnedFd]) -> Vec<RawFd> {
    procs.iter().map(AsRawFd::as_raw_fd).collect()
}

/// Keeps memory that does not fit from going to swap, and all processes of the container together. Gives
/// the file that counts kills.
fn limit_swap(directory: &Path, version: Version, limit: u64) -> io::Result<PathBuf> {
    let (file, value, counter) = match version {
        Version::V1 => ("memory.memsw.limit_in_bytes", limit.to_string(), "memory.oom_control"),
        Version::V2 => ("memory.swap.max", "0".to_owned(), "memory.events"),
    };
    match set(&directory.join(file), &value) {
        // A kernel without swap, or without its account.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => other?,
    }
    if version == Version::V2 {
        set(&directory.join("memory.oom.group"), "1")?;
    }
    Ok(directory.join(counter))
}

/// The line `oom_kill 3` of `memory.oom_control` or `memory.events`.
fn oom_kills(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_counted_in_the_files_of_both_versions() {
        let v1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 2\noom_group_kill 0\n";
        let v2 = "low 0\nhigh 0\nmax 7\noom 1\noom_kill 1\noom_group_kill 1\n";
        assert_eq!(oom_kills(v1), Some(2));
        assert_eq!(oom_kills(v2), Some(1));
        assert_eq!(oom_kills("oom_kill_disable 0\n"), None);
    }
}
