//! Which parts of a sandbox this host lets the engine's children have.
//!
//! Asked by doing: a child enters what it can and tells by its exit code. Rights to namespaces depend
//! on too much (capabilities, sysctls, security modules, filters) to be computed.

use std::ffi::CStr;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::Process;
use super::spawn::{Identities, Namespaces, clone};

/// User and group of the first container of a root engine, the following functions' behind it. No
/// distribution gives ids of this range to anybody: systemd lists it as unused.
const USER_FIRST: u32 = 0x7000_0000;
/// Where an engine is root over few users, all containers share the one of nobody.
const USER_NOBODY: u32 = 65_534;

/// A namespace that the worker makes for itself: its flag, its name on the command line, and what a
/// container lacks without it.
const NAMESPACES: [(CloneFlags, &str, &str); 5] = [
    (CloneFlags::CLONE_NEWNS, "mount", "a root of their own"),
    (CloneFlags::CLONE_NEWIPC, "ipc", "shared memory and semaphores of their own"),
    (CloneFlags::CLONE_NEWUTS, "uts", "a host name of their own"),
    (CloneFlags::CLONE_NEWCGROUP, "cgroup", "their own view of control groups"),
    (CloneFlags::CLONE_NEWNET, "net", "a network of their own"),
];
/// The bits of the child's exit code: one for each namespace, then the two kinds of users.
const USER_OWN: u32 = 1 << NAMESPACES.len();
const USER_SHARED: u32 = USER_OWN << 1;

/// What the host lets a container have.
#[derive(Debug)]
pub(super) struct Permitted {
    is_root: bool,
    born_into: Namespaces,
    /// Bits as above.
    bits: u32,
    landlock: bool,
    seccomp: bool,
}

impl Permitted {
    pub(super) fn find_out() -> Self {
        let identities = Identities::of_this_process();
        let candidates = [(true, false), (true, true), (false, false)];
        let candidates = candidates.map(|(pids, user)| Namespaces { pids, user });
        let found = candidates.into_iter().find_map(|born_into| {
            let bits = try_out(born_into, &identities)?;
            // A root engine that may make pid namespaces may make the others; a user namespace in
            // which nothing can be mounted is of no use.
            (!born_into.user || bits & 1 != 0).then_some((born_into, bits))
        });
        let (born_into, bits) = found.unwrap_or_default();
        Self {
            is_root: nix::unistd::geteuid().is_root(),
            born_into,
            bits,
            landlock: landlock_abi() > 0,
            seccomp: has_filters(),
        }
    }

    /// What a container has to be born into.
    pub(super) fn born_into(&self) -> Namespaces {
        self.born_into
    }

    /// What a container makes for itself, as the worker reads it.
    pub(super) fn namespaces(&self, network: bool) -> String {
        let all = self.each_namespace().filter(|(_, permitted)| *permitted);
        let names = all.map(|((_, name, _), _)| name).filter(|name| !(network && *name == "net"));
        names.collect::<Vec<_>>().join(",")
    }

    /// User and group of the container of the function at this place. Each has one of its own, since
    /// the kernel counts pipes, locked memory and descriptors in flight by user.
    pub(super) fn user(&self, index: usize) -> Option<u32> {
        let own = u32::try_from(index).ok().and_then(|index| USER_FIRST.checked_add(index));
        match self.bits {
            bits if bits & USER_OWN != 0 => own,
            bits if bits & USER_SHARED != 0 => Some(USER_NOBODY),
            _ => None,
        }
    }

    /// What sandboxes should have and cannot, for people.
    pub(super) fn missing(&self) -> Vec<&'static str> {
        let namespaces = self.each_namespace().filter(|(_, permitted)| !permitted);
        let mut missing: Vec<_> = namespaces.map(|((_, _, what), _)| what).collect();
        let has_user = !self.is_root || self.born_into.user || self.user(0).is_some();
        let others = [
            (self.born_into.pids, "process ids of their own"),
            (has_user, "users of their own"),
            (self.landlock, "Landlock"),
            (self.seccomp, "seccomp filters"),
        ];
        missing.extend(others.iter().filter(|(has, _)| !has).map(|(_, what)| *what));
        missing
    }

    fn each_namespace(
        &self,
    ) -> impl Iterator<Item = ((CloneFlags, &'static str, &'static str), bool)> {
        let bits = self.bits;
        let has = move |index: usize| bits & (1 << index) != 0;
        NAMESPACES.into_iter().enumerate().map(move |(index, namespace)| (namespace, has(index)))
    }
}

/// What a child that is born into these namespaces can do; `None` if it cannot be.
fn try_out(born_into: Namespaces, identities: &Identities) -> Option<u32> {
    let Some((pid, pidfd)) = clone(born_into, None).ok()? else {
        let code = explore(born_into, identities).unwrap_or(u32::from(u8::MAX));
        // SAFETY: ends the process, a copy of one that goes on, without a trace.
        unsafe { libc::_exit(code.cast_signed()) };
    };
    let code = Process::of_clone(pid, pidfd).exit_code()?;
    u32::try_from(code).ok().filter(|code| *code < u32::from(u8::MAX))
}

/// Runs in the child: system calls only.
fn explore(born_into: Namespaces, identities: &Identities) -> Option<u32> {
    if born_into.user {
        identities.enter().ok()?;
    }
    let mut bits = 0;
    for (index, (flag, _, _)) in NAMESPACES.into_iter().enumerate() {
        if unshare(flag).is_ok() {
            bits |= 1 << index;
        }
    }
    // Where a security module permits namespaces but no mounts, there is nothing in them.
    let (nothing, flags) = (None::<&CStr>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
    if mount(nothing, c"/", nothing, flags, nothing).is_err() {
        bits &= !1;
    }
    for (user, bit) in [(USER_FIRST, USER_OWN), (USER_NOBODY, USER_SHARED)] {
        if !born_into.user && may_become(user) {
            return Some(bits | bit);
        }
    }
    Some(bits)
}

/// Becomes that user, by the calls alone: the library's would look for other threads.
fn may_become(user: u32) -> bool {
    // SAFETY: plain numbers, and a list of no groups.
    let groups = unsafe { libc::syscall(libc::SYS_setgroups, 0, 0) };
    // SAFETY: plain numbers.
    let group = unsafe { libc::syscall(libc::SYS_setresgid, user, user, user) };
    // SAFETY: plain numbers.
    let user = unsafe { libc::syscall(libc::SYS_setresuid, user, user, user) };
    (groups, group, user) == (0, 0, 0)
}

/// The version of Landlock that the kernel has; 0 or less: none.
fn landlock_abi() -> i64 {
    const VERSION: u32 = 1;
    // SAFETY: asks for a number; no attributes are given.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, VERSION) }
}

/// Whether a system call can be made to fail by a filter.
fn has_filters() -> bool {
    let action = libc::SECCOMP_RET_ERRNO;
    // SAFETY: the kernel reads one number.
    let answer = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action)
    };
    answer == 0
}
