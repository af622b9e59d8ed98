//! Limits by control groups: memory, processes, CPU time.
//!
//! `layout` finds the engine's own groups on hosts of v1, v2 and both, `place` is where groups can be
//! made below them, `name` says whose they are, `group` is what one container gets, and `removal` ends
//! and removes what is left in them, also what an engine left that was killed.
//!
//! Every group is a direct child of the engine's own, and only limits that are asked for make one: a
//! CPU group costs a wake-up microseconds.

mod group;
mod layout;
mod name;
mod place;
mod removal;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

use self::group::Limit;
pub(super) use self::group::{Group, enter, raw};
use self::layout::{Controller, locate};
use self::name::Names;
use self::place::Place;
use self::removal::Removal;
use super::Limits;

const CONTROLLERS: [Controller; 3] = [Controller::Memory, Controller::Pids, Controller::Cpu];

/// Why a limit is not enforced on this host.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum Missing {
    #[error("this kernel does not have the controller")]
    NoController,
    #[error("its control groups are not mounted")]
    NotMounted,
    #[error("the engine's control group {0:?} lies outside of what is mounted")]
    Outside(PathBuf),
    #[error("{0:?} does not get the controller from its parent")]
    NotGiven(PathBuf),
    #[error(
        "others live in the engine's control group {0:?}: give it one of its own, \
         such as that of a systemd unit with Delegate=yes"
    )]
    Shared(PathBuf),
    #[error("{path:?}: {error}")]
    Refused { path: PathBuf, error: String },
}

impl Missing {
    fn refused(path: &Path, error: &io::Error) -> Self {
        Self::Refused { path: path.to_owned(), error: error.to_string() }
    }
}

/// A container did not get its groups.
#[derive(Debug, Error)]
pub(super) enum GroupError {
    #[error("its limit `{limit}` would not be enforced on this host: {reason}")]
    Unenforced { limit: &'static str, reason: Missing },
    #[error("its control group for `{limit}` could not be made: {error}")]
    Failed { limit: &'static str, error: io::Error },
}

/// Makes the groups of an engine's containers.
#[derive(Debug)]
pub(super) struct ControlGroups {
    /// Refuse containers with a limit that is not enforced.
    require: bool,
    names: Names,
    /// The kernel's account of what is mounted and where this process was at the start; it may move.
    mountinfo: String,
    membership: String,
    /// What was found out so far: a controller is touched when the first container wants it.
    places: Vec<(Controller, Result<Place, Missing>)>,
    removal: Removal,
}

impl ControlGroups {
    /// Removes what dead engines left, in a while; makes nothing yet.
    ///
    /// # Errors
    /// When `/proc` is not there, or there can be no more threads.
    pub(super) fn new(require: bool) -> io::Result<Self> {
        let groups = Self {
            require,
            names: Names::this()?,
            mountinfo: fs::read_to_string("/proc/self/mountinfo")?,
            membership: fs::read_to_string("/proc/self/cgroup")?,
            places: Vec::new(),
            removal: Removal::start()?,
        };
        groups.remove_abandoned();
        Ok(groups)
    }

    /// Makes the groups of one container; `name` names it among all of this engine.
    ///
    /// # Errors
    /// When one cannot be made, or a limit is not enforced where that is required. Otherwise a warning
    /// says so once.
    pub(super) fn create(&mut self, name: &str, limits: &Limits) -> Result<Group, GroupError> {
        let mut group = Group::new(self.removal.remover());
        let name = self.names.of(name);
        let wanted = [
            ("memory", limits.memory.map(Limit::Memory)),
            ("pids", limits.pids.map(Limit::Pids)),
            ("cpu_quota", limits.cpu_quota.map(Limit::CpuQuota)),
            ("priority = \"groups\"", limits.cpu_last.then_some(Limit::CpuLast)),
        ];
        for (key, limit) in wanted {
            let Some(limit) = limit else { continue };
            match self.place(limit.controller(), key) {
                Ok(place) => group
                    .limit(limit, &place, &name)
                    .map_err(|error| GroupError::Failed { limit: key, error })?,
                Err(reason) if self.require => {
                    return Err(GroupError::Unenforced { limit: key, reason });
                }
                Err(_) => {}
            }
        }
        Ok(group)
    }

    /// Where groups of a controller are made, found out once.
    fn place(&mut self, controller: Controller, limit: &str) -> Result<Place, Missing> {
        if let Some((_, known)) = self.places.iter().find(|(known, _)| *known == controller) {
            return known.clone();
        }
        let home = locate(controller, &self.mountinfo, &self.membership);
        let place = home.and_then(|home| Place::open(controller, &home, &self.names));
        if let (Err(reason), false) = (&place, self.require) {
            tracing::warn!("the limit `{limit}` of functions is not enforced: {reason}");
        }
        self.places.push((controller, place.clone()));
        place
    }

    fn remove_abandoned(&self) {
        let remover = self.removal.remover();
        for controller in CONTROLLERS {
            let Ok(home) = locate(controller, &self.mountinfo, &self.membership) else { continue };
            for entry in fs::read_dir(home.directory).into_iter().flatten().flatten() {
                let name = entry.file_name();
                if name.to_str().is_some_and(|name| self.names.is_abandoned(name)) {
                    remover.remove(entry.path());
                }
            }
        }
    }
}

/// Writes a file of a group; one that is not there cannot be made.
fn set(file: &Path, value: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(file)?.write_all(value.as_bytes())
}
