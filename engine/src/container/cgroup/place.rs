//! Where the groups of one controller are made: below the engine's own group.
//!
//! So whoever limits the engine limits its containers with it. On v2 a group whose children have
//! controllers may hold no process itself, but for the root: there the engine moves down into a group
//! of its own first, which takes a group that holds nobody else.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::layout::{Controller, Home, Version};
use super::name::Names;
use super::{Missing, set};

/// See the module's description.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) version: Version,
    pub(super) parent: PathBuf,
}

impl Place {
    /// Makes the groups of a controller possible and tries whether they are.
    pub(super) fn open(
        controller: Controller,
        home: &Home,
        names: &Names,
    ) -> Result<Self, Missing> {
        let place = Self { version: home.version, parent: home.directory.clone() };
        if home.version == Version::V2 {
            enable(controller, &home.directory, names)?;
        }
        let probe = place.parent.join(names.of(&format!("probe-{}", controller.as_str())));
        fs::create_dir(&probe).map_err(|error| Missing::refused(&probe, &error))?;
        let limit = probe.join(place.limit_file(controller));
        let result = fs::OpenOptions::new().write(true).open(&limit);
        let _ = fs::remove_dir(&probe);
        result.map(|_| place).map_err(|error| Missing::refused(&limit, &error))
    }

    /// The file that takes the limit of a controller.
    pub(super) fn limit_file(&self, controller: Controller) -> &'static str {
        match (self.version, controller) {
            (Version::V1, Controller::Cpu) => "cpu.cfs_quota_us",
            (Version::V2, Controller::Cpu) => "cpu.max",
            (Version::V1, Controller::Memory) => "memory.limit_in_bytes",
            (Version::V2, Controller::Memory) => "memory.max",
            (_, Controller::Pids) => "pids.max",
        }
    }
}

/// Gives the children of a group of v2 a controller.
fn enable(controller: Controller, group: &Path, names: &Names) -> Result<(), Missing> {
    let control = group.join("cgroup.subtree_control");
    if lists(&control, controller)? {
        return Ok(());
    }
    if !lists(&group.join("cgroup.controllers"), controller)? {
        return Err(Missing::NotGiven(group.to_owned()));
    }
    let own = group.join(names.of("engine"));
    // The root has no type, and may hold processes.
    if group.join("cgroup.type").exists() {
        move_down(group, &own)?;
    }
    set(&control, &format!("+{}", controller.as_str()))
        .map_err(|error| Missing::refused(&control, &error))?;
    if controller == Controller::Cpu && own.exists() {
        // Before the containers, as its niceness says among equals.
        let weight = own.join("cpu.weight");
        set(&weight, "10000").map_err(|error| Missing::refused(&weight, &error))?;
    }
    Ok(())
}

/// Moves this process from a group into one below it, unless others are there.
fn move_down(group: &Path, own: &Path) -> Result<(), Missing> {
    let members = group.join("cgroup.procs");
    let text = read(&members)?;
    let this = std::process::id().to_string();
    if text.lines().any(|pid| pid != this) {
        return Err(Missing::Shared(group.to_owned()));
    }
    if text.is_empty() {
        // An earlier controller has moved it.
        return Ok(());
    }
    match fs::create_dir(own) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Missing::refused(own, &error));
        }
        _ => {}
    }
    set(&own.join("cgroup.procs"), "0").map_err(|error| Missing::refused(own, &error))
}

fn lists(file: &Path, controller: Controller) -> Result<bool, Missing> {
    Ok(read(file)?.split_ascii_whitespace().any(|word| word == controller.as_str()))
}

fn read(file: &Path) -> Result<String, Missing> {
    fs::read_to_string(file).map_err(|error| Missing::refused(file, &error))
}
