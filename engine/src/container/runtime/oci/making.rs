//! A container that the runtime is making.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Child, ExitStatus};

use super::Adoption;
use super::place::Place;
use crate::container::process::{Process, pidfd_open};

/// See the module's description. Dropped, the container is deleted, whatever became of it.
#[derive(Debug)]
pub(in crate::container) struct Making {
    /// The runtime and its container, until it is done.
    under_way: Option<(Child, Place)>,
    pidfd: OwnedFd,
    _adoption: Adoption,
}

impl Making {
    pub(super) fn new(child: Child, mut place: Place, adoption: Adoption) -> io::Result<Self> {
        match pidfd_open(child.id()) {
            Ok(pidfd) => Ok(Self { under_way: Some((child, place)), pidfd, _adoption: adoption }),
            Err(error) => {
                place.abandon(child);
                Err(error)
            }
        }
    }

    /// Becomes readable when the runtime is done.
    pub(in crate::container) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The container's process, or in one line why there is none; `None` while the runtime is at work.
    pub(in crate::container) fn finish(&mut self) -> Option<Result<Process, String>> {
        let (child, _) = self.under_way.as_mut()?;
        let status = match child.try_wait() {
            Ok(None) => return None,
            Ok(Some(status)) => status,
            Err(error) => return Some(Err(error.to_string())),
        };
        let (_, place) = self.under_way.take()?;
        if !status.success() {
            return Some(Err(complaint(&place.log(), status)));
        }
        let pid = fs::read_to_string(place.pid_file());
        let pid = pid.and_then(|text| text.trim().parse().map_err(io::Error::other));
        let process = pid.and_then(|pid| Process::of_runtime(pid, place));
        Some(process.map_err(|error| format!("the runtime tells of no process: {error}")))
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if let Some((child, mut place)) = self.under_way.take() {
            place.abandon(child);
        }
    }
}

/// What the runtime says went wrong: the last message of its log, a JSON object a line.
fn complaint(log: &Path, status: ExitStatus) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let messages = text.lines().rev().filter_map(|line| {
        let entry: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_error = matches!(entry["level"].as_str(), Some("error" | "fatal"));
        is_error.then(|| entry["msg"].as_str().map(str::to_owned))?
    });
    let message = messages.map(|message| message.trim().replace('\n', " ")).next();
    message.unwrap_or_else(|| format!("the OCI runtime failed without a word ({status})"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn a_runtimes_complaint_is_its_last_error_in_one_line() {
        let log = std::env::temp_dir().join(format!("complaint-{}", std::process::id()));
        let status = ExitStatus::from_raw(1 << 8);
        let text = concat!(
            "{\"level\":\"error\",\"msg\":\"first\",\"time\":\"2026-11-27T19:40:24Z\"}\n",
            "{\"level\":\"error\",\"msg\":\"runc create failed:\\nno such file\"}\n",
            "{\"level\":\"warning\",\"msg\":\"Failed to remove cgroup\"}\n",
            "cut o",
        );
        fs::write(&log, text).unwrap();
        assert_eq!(complaint(&log, status), "runc create failed: no such file");
        fs::remove_file(&log).unwrap();
        let silent = complaint(&log, status);
        assert_eq!(silent, "the OCI runtime failed without a word (exit status: 1)");
    }
}
