//! The bundle of a container: what the runtime is told to make, as `config.json`, and where nobody
//! has configured a root file system, an empty one.
//!
//! All that is the engine's lies in `/nightcore`, so that an image needs that directory alone. The
//! host's system libraries appear where they are, but only in a root without an image.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit};
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capabilities, Linux, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxCpuBuilder,
    LinuxMemoryBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType,
    LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder, Mount, MountBuilder, PosixRlimit,
    PosixRlimitBuilder, PosixRlimitType, Process, ProcessBuilder, RootBuilder, Spec, SpecBuilder,
    UserBuilder,
};

use super::super::process::environment_inside;
use super::seccomp;
use crate::container::{ContainerSpec, Limits};

/// Where in the container the engine's own things are.
const WORKER: &str = "/nightcore/nightcore-worker";
const SOCKET: &str = "/nightcore/control";
const LIBRARIES: &str = "/nightcore/function";
/// What a library needs that was built for this host. Symbolic links, as `/lib` often is, are made anew.
const SYSTEM: [&str; 9] = [
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/local/lib",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/localtime",
];
/// What else it needs to find others on the network.
const NETWORK: [&str; 5] =
    ["/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/services", "/etc/ssl/certs"];
/// The weight of niceness 10: the engine's wake-ups come first, and yet whatever else computes on the
/// host leaves functions their share. With the least there is, 2, they starve beside it.
const CPU_SHARES: u64 = 110;
/// The least that there are.
const CPU_SHARES_LEAST: u64 = 2;
const CPU_PERIOD_US: u64 = 100_000;
/// A worker has a doorbell, a channel three descriptors; more than all of them together.
const DESCRIPTORS_MAX: u64 = 4096;
/// Where the kernel counts memory and swap together, if it does (cgroup v1).
const MEMORY_AND_SWAP: &str = "/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes";
const CGROUP2: &str = "/sys/fs/cgroup/cgroup.controllers";

/// What one container is made of.
pub(super) struct Bundle<'a> {
    pub(super) spec: &'a ContainerSpec,
    /// User and group.
    pub(super) user: u32,
    pub(super) worker: &'a Path,
    /// The control socket, for this container alone.
    pub(super) socket: &'a Path,
    /// An unpacked image.
    pub(super) rootfs: Option<&'a Path>,
    /// Names its control groups.
    pub(super) id: &'a str,
}

impl Bundle<'_> {
    /// Writes it into a directory.
    pub(super) fn write(&self, directory: &Path) -> io::Result<()> {
        let rootfs = match self.rootfs {
            Some(rootfs) => rootfs.to_owned(),
            None => empty_root(directory)?,
        };
        let spec = self.describe(&rootfs).map_err(io::Error::other)?;
        spec.save(directory.join("config.json")).map_err(io::Error::other)
    }

    fn describe(&self, rootfs: &Path) -> Result<Spec, OciSpecError> {
        let root = RootBuilder::default().path(rootfs).readonly(true).build()?;
        SpecBuilder::default()
            .version("1.0.2")
            .root(root)
            .hostname("nightcore")
            .mounts(self.mounts()?)
            .process(self.process()?)
            .linux(self.linux()?)
            .build()
    }

    fn mounts(&self) -> Result<Vec<Mount>, OciSpecError> {
        let mut mounts = vec![
            mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"])?,
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "noexec", "mode=755", "size=64k"])?,
            scratch("/dev/shm")?,
            scratch("/tmp")?,
            mount("/nightcore", "tmpfs", "tmpfs", &["nosuid", "nodev", "ro", "size=64k"])?,
            read_only(self.worker, WORKER)?,
            read_only(&self.spec.library, self.library())?,
            mount(SOCKET, "bind", self.socket, &["bind", "nosuid", "nodev", "noexec"])?,
        ];
        if self.rootfs.is_none() {
            let network = self.spec.network.then_some(NETWORK).into_iter().flatten();
            for path in SYSTEM.into_iter().chain(network).filter(|path| Path::new(path).exists()) {
                if !is_link(Path::new(path)) || !Path::new(path).is_dir() {
                    mounts.push(read_only(Path::new(path), path)?);
                }
            }
        }
        for path in &self.spec.read_only {
            mounts.push(read_only(path, path)?);
        }
        Ok(mounts)
    }

    /// Where the container finds the function's library.
    fn library(&self) -> PathBuf {
        Path::new(LIBRARIES).join(self.spec.library.file_name().unwrap_or_default())
    }

    fn process(&self) -> Result<Process, OciSpecError> {
        let library = self.library().display().to_string();
        let arguments = [WORKER, "--library", &library, "--function", &self.spec.name];
        let variables = environment_inside(self.spec, Path::new(SOCKET))
            .map(|(name, value)| format!("{}={}", name.to_string_lossy(), value.to_string_lossy()));
        let none = Capabilities::new;
        let capabilities = LinuxCapabilitiesBuilder::default()
            .bounding(none())
            .effective(none())
            .inheritable(none())
            .permitted(none())
            .ambient(none());
        ProcessBuilder::default()
            .terminal(false)
            .user(UserBuilder::default().uid(self.user).gid(self.user).build()?)
            .cwd("/")
            .args(arguments.map(str::to_owned))
            .env(variables.collect::<Vec<_>>())
            .capabilities(capabilities.build()?)
            .rlimits(rlimits()?)
            .no_new_privileges(true)
            .build()
    }

    fn linux(&self) -> Result<Linux, OciSpecError> {
        LinuxBuilder::default()
            .namespaces(namespaces(self.spec.network)?)
            .cgroups_path(Path::new("/").join(self.id))
            .resources(resources(self.spec.limits)?)
            .seccomp(seccomp::profile()?)
            .build()
    }
}

/// An empty directory for a root, with the host's links between its system directories.
fn empty_root(directory: &Path) -> io::Result<PathBuf> {
    let root = directory.join("rootfs");
    fs::create_dir(&root)?;
    for path in SYSTEM.map(Path::new) {
        if is_link(path) && path.is_dir() {
            let link = root.join(path.strip_prefix("/").unwrap_or(path));
            symlink(fs::read_link(path)?, link)?;
        }
    }
    Ok(root)
}

fn is_link(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.is_symlink())
}

fn mount(
    destination: impl Into<PathBuf>,
    kind: &str,
    source: impl Into<PathBuf>,
    options: &[&str],
) -> Result<Mount, OciSpecError> {
    MountBuilder::default()
        .destination(destination)
        .typ(kind)
        .source(source)
        .options(options.iter().map(|&option| option.to_owned()).collect::<Vec<_>>())
        .build()
}

/// A file or directory of the host, without what is mounted below it.
fn read_only(source: &Path, destination: impl Into<PathBuf>) -> Result<Mount, OciSpecError> {
    mount(destination, "bind", source, &["bind", "ro", "nosuid", "nodev"])
}

/// Memory to write files to, counted as the container's.
fn scratch(destination: &str) -> Result<Mount, OciSpecError> {
    let options = ["nosuid", "noexec", "nodev", "mode=1777", "size=64m"];
    mount(destination, "tmpfs", "tmpfs", &options)
}

fn namespaces(network: bool) -> Result<Vec<LinuxNamespace>, OciSpecError> {
    let own = [
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Cgroup,
    ];
    let network = (!network).then_some(LinuxNamespaceType::Network);
    own.into_iter()
        .chain(network)
        .map(|kind| LinuxNamespaceBuilder::default().typ(kind).build())
        .collect()
}

fn rlimits() -> Result<Vec<PosixRlimit>, OciSpecError> {
    // Raised it may not be.
    let hard = getrlimit(Resource::RLIMIT_NOFILE).map_or(DESCRIPTORS_MAX, |(_, hard)| hard);
    let limits = [
        (PosixRlimitType::RlimitCore, 0),
        (PosixRlimitType::RlimitNofile, hard.min(DESCRIPTORS_MAX)),
    ];
    let limit = |(kind, most): (PosixRlimitType, u64)| {
        PosixRlimitBuilder::default().typ(kind).soft(most).hard(most).build()
    };
    limits.into_iter().map(limit).collect()
}

fn resources(limits: Limits) -> Result<LinuxResources, OciSpecError> {
    let shares = if limits.cpu_last { CPU_SHARES_LEAST } else { CPU_SHARES };
    let mut cpu = LinuxCpuBuilder::default().shares(shares);
    if let Some(thousandths) = limits.cpu_quota {
        let quota_us = u64::from(thousandths) * CPU_PERIOD_US / 1000;
        cpu = cpu.period(CPU_PERIOD_US).quota(quota_us.cast_signed());
    }
    let mut resources = LinuxResourcesBuilder::default().cpu(cpu.build()?);
    if let Some(bytes) = limits.memory {
        let bytes = bytes.cast_signed();
        let mut memory = LinuxMemoryBuilder::default().limit(bytes);
        if [MEMORY_AND_SWAP, CGROUP2].iter().any(|file| Path::new(file).exists()) {
            // Together, so that there is no swap beyond the limit.
            memory = memory.swap(bytes);
        }
        resources = resources.memory(memory.build()?);
    }
    if let Some(pids) = limits.pids {
        let pids = LinuxPidsBuilder::default().limit(pids);
        resources = resources.pids(pids.build()?);
    }
    resources.build()
}
