//! What groups are called: `nightcore-<pid>-<start time>-<pid namespace>-<name>`, so that a later engine
//! can tell whether the one that made them still lives.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use crate::container::remains::{Owner, PREFIX};

/// The names that one engine gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    owner: Owner,
    /// Inode of the pid namespace, in which alone the owner's pid means something.
    namespace: u64,
}

impl Names {
    /// Those of this process.
    ///
    /// # Errors
    /// When `/proc` is not there.
    pub(super) fn this() -> io::Result<Self> {
        let namespace = fs::metadata("/proc/self/ns/pid")?.ino();
        Ok(Self { owner: Owner::this()?, namespace })
    }

    /// The full name of a group.
    pub(super) fn of(&self, group: &str) -> String {
        format!("{PREFIX}{}-{}-{group}", self.owner, self.namespace)
    }

    /// Whether a group was made by an engine that is surely dead. What an engine in another pid
    /// namespace made is its own business.
    pub(super) fn is_abandoned(&self, group: &str) -> bool {
        parse(group).is_some_and(|names| {
            names.namespace == self.namespace && names != *self && !names.owner.is_alive()
        })
    }
}

fn parse(group: &str) -> Option<Names> {
    let mut fields = group.strip_prefix(PREFIX)?.splitn(4, '-');
    let owner = format!("{}-{}", fields.next()?, fields.next()?).parse().ok()?;
    let namespace = fields.next()?.parse().ok()?;
    fields.next()?;
    Some(Names { owner, namespace })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(pid: u32, started: u64, namespace: u64) -> String {
        format!("nightcore-{pid}-{started}-{namespace}-0-1-echo")
    }

    #[test]
    fn only_groups_of_dead_engines_of_the_same_pid_namespace_are_abandoned() {
        let this = Names::this().unwrap();
        let own = this.of("0-1-echo");
        assert_eq!(parse(&own), Some(this.clone()));
        assert!(!this.is_abandoned(&own));
        // Beyond the largest pid that the kernel gives.
        assert!(this.is_abandoned(&named(1 << 23, 1, this.namespace)));
        assert!(!this.is_abandoned(&named(1 << 23, 1, this.namespace + 1)));
        // The pid is taken, by a process that started at another time.
        assert!(this.is_abandoned(&named(std::process::id(), 1, this.namespace)));
        for other in ["", "nightcore", "nightcore-1-2-3", "nightcore-x-1-2-echo", "docker-1-2-3-x"]
        {
            assert!(!this.is_abandoned(other), "{other}");
        }
    }
}
