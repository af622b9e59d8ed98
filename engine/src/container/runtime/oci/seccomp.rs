//! The system calls that a container may not make, after the default profiles of container engines:
//! those that administer the host, see into other processes, or are a large way into the kernel for
//! which functions have no use.

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
    LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};

/// Refused as forbidden (`EPERM`). Names that this architecture lacks are passed over by runtimes.
const FORBIDDEN: [&str; 68] = [
    "_sysctl",
    "acct",
    "add_key",
    "adjtimex",
    "afs_syscall",
    "bpf",
    "chroot",
    "clock_adjtime",
    "clock_settime",
    "create_module",
    "delete_module",
    "fanotify_init",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "get_kernel_syms",
    "init_module",
    "ioperm",
    "iopl",
    "kcmp",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "mknod",
    "mknodat",
    "mount",
    "mount_setattr",
    "move_mount",
    "move_pages",
    "name_to_handle_at",
    "nfsservctl",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "personality",
    "pidfd_getfd",
    "pivot_root",
    "process_madvise",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    "query_module",
    "quotactl",
    "quotactl_fd",
    "reboot",
    "request_key",
    "setdomainname",
    "sethostname",
    "setns",
    "settimeofday",
    "swapoff",
    "swapon",
    "syslog",
    "tuxcall",
    "umount",
    "umount2",
    "unshare",
    "uselib",
    "userfaultfd",
    "ustat",
    "vhangup",
    "vm86",
    "vm86old",
    "vmsplice",
    "vserver",
];

/// Refused as if the kernel lacked them (`ENOSYS`), so that programs do without: asynchronous I/O in
/// its two forms, and the form of `clone` whose flags a filter cannot read.
const MISSING: [&str; 9] = [
    "clone3",
    "io_cancel",
    "io_destroy",
    "io_getevents",
    "io_setup",
    "io_submit",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
];

pub(super) fn profile() -> Result<LinuxSeccomp, OciSpecError> {
    let user_namespace = u64::from(libc::CLONE_NEWUSER.unsigned_abs());
    let new_user = LinuxSeccompArgBuilder::default()
        .index(0_usize)
        .op(LinuxSeccompOperator::ScmpCmpMaskedEq)
        .value(user_namespace)
        .value_two(user_namespace)
        .build()?;
    // One of its own would give it all capabilities there.
    let clone = refused(&["clone"], libc::EPERM).args([new_user]).build()?;
    let syscalls: [LinuxSyscall; 3] = [
        refused(&FORBIDDEN, libc::EPERM).build()?,
        refused(&MISSING, libc::ENOSYS).build()?,
        clone,
    ];
    // Calls of another architecture, which one may make on some, end the process.
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActAllow)
        .syscalls(syscalls)
        .build()
}

fn refused(names: &[&str], errno: i32) -> LinuxSyscallBuilder {
    LinuxSyscallBuilder::default()
        .names(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
        .action(LinuxSeccompAction::ScmpActErrno)
        .errno_ret(errno.unsigned_abs())
}
