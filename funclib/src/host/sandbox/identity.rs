//! Who the container is: a user that owns nothing, without a right that not everybody has.

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use super::{SandboxError, step};

/// Descriptors that a container may have open: three for each of at most 256 workers, and what the
/// function opens.
const FILES_MAX: u64 = 4096;

/// Sets the limits that a container cannot raise once it has no rights.
pub(super) fn limit() -> Result<(), SandboxError> {
    step("the limit of core dumps", setrlimit(Resource::RLIMIT_CORE, 0, 0))?;
    let (_, hard) = step("the limit of open files", getrlimit(Resource::RLIMIT_NOFILE))?;
    let files = hard.min(FILES_MAX);
    step("the limit of open files", setrlimit(Resource::RLIMIT_NOFILE, files, files))
}

/// Becomes `user`, if one is given, and gives up every capability for good.
pub(super) fn assume(user: Option<u32>) -> Result<(), SandboxError> {
    drop_bounds();
    if let Some(user) = user {
        let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
        step("the container's groups", setgroups(&[]))?;
        step("the container's group", setresgid(gid, gid, gid))?;
        step("the container's user", setresuid(uid, uid, uid))?;
    }
    step("no capabilities", drop_capabilities())?;
    step("no new privileges", prctl::set_no_new_privs())?;
    // Its memory is not for others of the same user, its files in /proc are root's.
    step("no dumps", prctl::set_dumpable(false))?;
    // The change of user has undone this. An engine that died meanwhile has closed its end of the
    // control socket, which ends the container as well.
    step("its end with the engine's", prctl::set_pdeathsig(Signal::SIGKILL))
}

/// Empties the set of capabilities that could ever be had again. Fails with the first number that is
/// no capability, or at once for who has none to lose.
fn drop_bounds() {
    for capability in 0..64 {
        // SAFETY: plain numbers.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            break;
        }
    }
}

/// All three sets, and with the inheritable one the ambient one.
fn drop_capabilities() -> Result<(), Errno> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let nothing = [0_u32; 6];
    // SAFETY: the kernel reads a header of two numbers and, in this version, six numbers.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), nothing.as_ptr()) };
    Errno::result(result).map(drop)
}
