//! The kernel's table of a process's open files.

use std::fs::File;
use std::os::fd::{FromRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::resource::{Resource, getrlimit};

/// Has the table of this process hold `count` descriptors, or as many as it may have, from now on.
///
/// To be called while there is one thread. The kernel enlarges a table that threads share only after
/// every core has been through a grace period of RCU: whoever makes the 257th descriptor, the 513th
/// and so on waits 10 to 20 ms for it, and those in an `io_uring_enter` of the same ring wait with him.
/// An entry takes 8 bytes of the kernel's memory. It can fail for lack of memory; then the table
/// grows when it must, as it would without this.
pub fn reserve(count: u64) {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(count, |(soft, _)| soft);
    let Some(highest) = count.min(limit).checked_sub(1) else { return };
    let (Ok(highest), Ok(any)) = (i32::try_from(highest), File::open("/")) else { return };
    if let Ok(made) = fcntl(&any, FcntlArg::F_DUPFD_CLOEXEC(highest)) {
        // SAFETY: fcntl has just made this descriptor for us, and nobody else knows it.
        drop(unsafe { OwnedFd::from_raw_fd(made) });
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Entries of this process's table.
    fn size() -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
        line.trim().parse().unwrap()
    }

    #[test]
    fn the_table_has_room_as_far_as_the_limit_permits() {
        let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let more = size() + 1;
        reserve(more);
        assert!(size() >= more.min(limit), "{} of {limit}", size());
        reserve(1 << 16);
        assert!(size() >= limit.min(1 << 16), "{} of {limit}", size());
        let before = size();
        reserve(0);
        assert_eq!(size(), before);
    }
}
