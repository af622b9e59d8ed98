//! A root directory with what the function needs, and nothing of it writable but two small tmpfs.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, pivot_root};

use super::needed::needed_beside;
use super::{Sandbox, SandboxError, failed, step};

/// What every function sees of the host, where it is there: libraries, the dynamic linker's cache and
/// configuration, time zones.
const SYSTEM: [&str; 13] = [
    "/lib",
    "/lib32",
    "/lib64",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/local/lib",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/usr/share/zoneinfo",
    "/etc/localtime",
    "/usr/share/locale",
];
/// Certificates and what says how they are used, without anybody's keys.
const CERTIFICATES: [&str; 6] = [
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/ssl/cert.pem",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
    "/usr/share/ca-certificates",
];
/// What it sees beside that with `network`: how names are resolved.
const RESOLVER: [&str; 6] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/protocols",
];
/// The devices that are there.
pub(super) const DEVICES: [&str; 5] =
    ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];
/// What can be written.
pub(super) const WRITABLE: [&str; 2] = ["/tmp", "/dev/shm"];
/// The size of each of those. What is in them counts as the container's memory where that is limited.
const WRITABLE_OPTIONS: &str = "mode=1777,size=64m,nr_inodes=16k";

/// What can be read.
pub(super) struct View {
    pub(super) paths: Vec<PathBuf>,
}

impl View {
    /// Of the host, with the function's library and those of its directory that it needs.
    pub(super) fn new(library: &Path, sandbox: &Sandbox) -> View {
        let system = SYSTEM.iter().chain(&CERTIFICATES);
        let resolver = RESOLVER.iter().filter(|_| sandbox.network);
        let system = system.chain(resolver).map(PathBuf::from).filter(|path| path.exists());
        let own = [library.to_owned()].into_iter().chain(needed_beside(library));
        View { paths: system.chain(own).chain(sandbox.read_only.iter().cloned()).collect() }
    }

    /// Builds the root on `stage`, and leaves the old one for good. Needs a mount namespace.
    pub(super) fn become_root(&self, stage: &Path) -> Result<(), SandboxError> {
        // The engine's may be such that the container's user sees nothing.
        umask(Mode::from_bits_truncate(0o022));
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        step("private mounts", mount(NONE, "/", NONE, private, NONE))?;
        tmpfs(stage, "mode=755,nr_inodes=16k")?;
        for path in WRITABLE {
            let path = inside(stage, Path::new(path));
            fs::create_dir_all(&path).map_err(|error| failed(&path, error))?;
            tmpfs(&path, WRITABLE_OPTIONS)?;
        }
        for path in &self.paths {
            let target = bind(stage, path)?;
            let no = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
            set_attributes(&target, libc::AT_RECURSIVE, no).map_err(|error| failed(path, error))?;
        }
        for path in DEVICES {
            bind(stage, Path::new(path))?;
        }
        mount_processes(stage)?;
        step("the new root", chdir(stage))?;
        // The old root is stacked on the new one, and comes off with all that is mounted in it.
        step("the new root", pivot_root(".", "."))?;
        step("the old root", umount2(".", MntFlags::MNT_DETACH))?;
        step("the new root", chdir("/"))?;
        step("the new root", set_attributes(Path::new("/"), 0, libc::MOUNT_ATTR_RDONLY))
    }
}

const NONE: Option<&str> = None;

/// Where a path of the container is while its root is built.
fn inside(stage: &Path, path: &Path) -> PathBuf {
    stage.join(path.strip_prefix("/").unwrap_or(path))
}

fn tmpfs(target: &Path, options: &str) -> Result<(), SandboxError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), target, Some("tmpfs"), flags, Some(options))
        .map_err(|error| failed(target, error))
}

/// Shows a path of the host under the same name.
fn bind(stage: &Path, path: &Path) -> Result<PathBuf, SandboxError> {
    let target = inside(stage, path);
    place(path, &target).map_err(|error| failed(path, error))?;
    mount(Some(path), &target, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
        .map_err(|error| failed(path, error))?;
    Ok(target)
}

/// Makes something to mount on. What is there already is left as it is: it may be the host's.
fn place(path: &Path, target: &Path) -> io::Result<()> {
    let is_directory = fs::metadata(path)?.is_dir();
    if target.exists() {
        return Ok(());
    }
    if is_directory {
        return fs::create_dir_all(target);
    }
    target.parent().map_or(Ok(()), fs::create_dir_all)?;
    OpenOptions::new().write(true).create_new(true).open(target).map(drop)
}

/// `/proc` of the container's own processes, without the files that tell of the host. Where the host
/// may not mount one (its own is covered in part), the container goes without.
fn mount_processes(stage: &Path) -> Result<(), SandboxError> {
    let target = inside(stage, Path::new("/proc"));
    fs::create_dir_all(&target).map_err(|error| failed(&target, error))?;
    if std::process::id() != 1 {
        // These would be the processes of the host.
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
    match mount(Some("proc"), &target, Some("proc"), flags, Some("subset=pid")) {
        Ok(()) | Err(Errno::EPERM) => Ok(()),
        Err(error) => Err(failed(&target, error)),
    }
}

fn set_attributes(target: &Path, flags: i32, attributes: u64) -> Result<(), Errno> {
    let target =
        std::ffi::CString::new(target.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let set = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let (size, here) = (size_of::<libc::mount_attr>(), libc::AT_FDCWD);
    // SAFETY: a text that ends with NUL and a structure of the given size, both read only.
    let result = unsafe {
        libc::syscall(libc::SYS_mount_setattr, here, target.as_ptr(), flags, &raw const set, size)
    };
    Errno::result(result).map(drop)
}
