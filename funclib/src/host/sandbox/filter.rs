//! Which system calls a container may make: a list of what functions need, after the defaults that
//! container engines have converged on. All others are answered as by a kernel that has none of them
//! (ENOSYS), which is what libraries are prepared for: nobody is killed for trying.
//!
//! Not on the list, on purpose: io_uring and the older asynchronous I/O, ptrace and the reading of
//! other processes' memory, mounts and namespaces, bpf, perf, userfaultfd, keyrings, kernel modules,
//! kexec, clocks, swap, NUMA policy, and `clone3`, whose flags no filter can read: the C library then
//! takes `clone`, whose flags one can.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp,
    SeccompCondition, SeccompFilter, SeccompRule, TargetArch, apply_filter,
};

use libc as c;

/// Numbers of system calls, by the names that `libc` gives them.
macro_rules! calls {
    ($($name:ident)*) => { &[$(c::$name),*] };
}

/// Files.
const FILES: &[i64] = calls! {
    SYS_read SYS_write SYS_readv SYS_writev SYS_pread64 SYS_pwrite64 SYS_preadv SYS_pwritev
    SYS_preadv2 SYS_pwritev2 SYS_openat SYS_openat2 SYS_close SYS_close_range SYS_lseek
    SYS_fstat SYS_newfstatat SYS_statx SYS_statfs SYS_fstatfs SYS_getdents64 SYS_readlinkat
    SYS_faccessat SYS_faccessat2 SYS_fcntl SYS_flock SYS_dup SYS_dup3 SYS_pipe2 SYS_getcwd
    SYS_chdir SYS_fchdir SYS_mkdirat SYS_mknodat SYS_unlinkat SYS_symlinkat SYS_linkat
    SYS_renameat SYS_renameat2 SYS_truncate SYS_ftruncate SYS_fallocate SYS_fadvise64
    SYS_readahead SYS_fsync SYS_fdatasync SYS_sync_file_range SYS_fchmod SYS_fchmodat SYS_fchown
    SYS_fchownat SYS_utimensat SYS_umask SYS_getxattr SYS_lgetxattr SYS_fgetxattr SYS_listxattr
    SYS_llistxattr SYS_flistxattr SYS_setxattr SYS_lsetxattr SYS_fsetxattr SYS_removexattr
    SYS_lremovexattr SYS_fremovexattr SYS_sendfile SYS_copy_file_range SYS_splice SYS_tee
    SYS_vmsplice SYS_inotify_init1 SYS_inotify_add_watch SYS_inotify_rm_watch
};

/// Memory.
const MEMORY: &[i64] = calls! {
    SYS_brk SYS_mmap SYS_munmap SYS_mremap SYS_mprotect SYS_madvise SYS_mincore SYS_msync
    SYS_mlock SYS_mlock2 SYS_mlockall SYS_munlock SYS_munlockall SYS_memfd_create SYS_pkey_alloc
    SYS_pkey_free SYS_pkey_mprotect SYS_membarrier SYS_shmget SYS_shmat SYS_shmdt SYS_shmctl
    SYS_semget SYS_semop SYS_semtimedop SYS_semctl SYS_msgget SYS_msgsnd SYS_msgrcv SYS_msgctl
    SYS_mq_open SYS_mq_unlink SYS_mq_timedsend SYS_mq_timedreceive SYS_mq_notify
    SYS_mq_getsetattr
};

/// Threads, processes and their signals. `clone` is below.
const PROCESSES: &[i64] = calls! {
    SYS_execve SYS_execveat SYS_exit SYS_exit_group SYS_wait4 SYS_waitid SYS_set_tid_address
    SYS_set_robust_list SYS_get_robust_list SYS_rseq SYS_futex SYS_futex_waitv SYS_getpid SYS_getppid SYS_gettid
    SYS_getpgid SYS_setpgid SYS_getsid SYS_setsid SYS_getuid SYS_geteuid SYS_getgid SYS_getegid
    SYS_getresuid SYS_getresgid SYS_getgroups SYS_setuid SYS_setgid SYS_setreuid SYS_setregid
    SYS_setresuid SYS_setresgid SYS_setgroups SYS_setfsuid SYS_setfsgid SYS_capget SYS_capset
    SYS_getrlimit SYS_setrlimit SYS_prlimit64 SYS_getrusage SYS_times SYS_getpriority
    SYS_setpriority SYS_ioprio_get SYS_ioprio_set SYS_sched_yield SYS_sched_getaffinity
    SYS_sched_setaffinity SYS_sched_getparam SYS_sched_setparam SYS_sched_getscheduler
    SYS_sched_setscheduler SYS_sched_getattr SYS_sched_setattr SYS_sched_get_priority_max
    SYS_sched_get_priority_min SYS_sched_rr_get_interval SYS_getcpu SYS_kill SYS_tkill
    SYS_tgkill SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigpending SYS_rt_sigqueueinfo
    SYS_rt_sigreturn SYS_rt_sigsuspend SYS_rt_sigtimedwait SYS_rt_tgsigqueueinfo SYS_sigaltstack
    SYS_restart_syscall SYS_pidfd_open SYS_pidfd_send_signal SYS_seccomp
    SYS_landlock_create_ruleset SYS_landlock_add_rule SYS_landlock_restrict_self
};

/// Time, waiting, sockets, and the rest. `socket` and `socketpair` are below.
const OTHERS: &[i64] = calls! {
    SYS_clock_gettime SYS_clock_getres SYS_clock_nanosleep SYS_nanosleep SYS_gettimeofday
    SYS_getitimer SYS_setitimer SYS_timer_create SYS_timer_settime SYS_timer_gettime
    SYS_timer_getoverrun SYS_timer_delete SYS_timerfd_create SYS_timerfd_settime
    SYS_timerfd_gettime SYS_eventfd2 SYS_signalfd4 SYS_epoll_create1 SYS_epoll_ctl
    SYS_epoll_pwait SYS_epoll_pwait2 SYS_ppoll SYS_pselect6  SYS_bind SYS_listen
    SYS_accept SYS_accept4 SYS_connect SYS_getsockname SYS_getpeername SYS_sendto SYS_recvfrom
    SYS_sendmsg SYS_recvmsg SYS_sendmmsg SYS_recvmmsg SYS_setsockopt SYS_getsockopt SYS_shutdown
    SYS_getrandom SYS_uname SYS_sysinfo
};

/// What only this architecture has, mostly older forms of the above.
#[cfg(target_arch = "x86_64")]
const OLDER: &[i64] = calls! {
    SYS_open SYS_creat SYS_stat SYS_lstat SYS_access SYS_readlink SYS_getdents SYS_dup2 SYS_pipe
    SYS_mkdir SYS_rmdir SYS_mknod SYS_unlink SYS_symlink SYS_link SYS_rename SYS_chmod SYS_chown
    SYS_lchown SYS_utime SYS_utimes SYS_futimesat SYS_inotify_init SYS_fork SYS_vfork
    SYS_getpgrp SYS_arch_prctl SYS_time SYS_alarm SYS_pause SYS_eventfd SYS_signalfd
    SYS_epoll_create SYS_epoll_wait SYS_poll SYS_select
};
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[i64] = &[];

/// All flags of `clone` that make a namespace.
const CLONE_NAMESPACES: i32 = c::CLONE_NEWNS
    | c::CLONE_NEWCGROUP
    | c::CLONE_NEWUTS
    | c::CLONE_NEWIPC
    | c::CLONE_NEWUSER
    | c::CLONE_NEWPID
    | c::CLONE_NEWNET;
/// The one that `personality` reads by, and the two harmless ones: none, and without random addresses.
const PERSONALITIES: [u32; 3] = [u32::MAX, 0, 0x0004_0000];

/// Bars every other system call for this thread and all that come of it.
pub(super) fn install(network: bool) -> Result<(), Error> {
    apply_filter(&program(network)?)
}

fn program(network: bool) -> Result<BpfProgram, BackendError> {
    let lists = [FILES, MEMORY, PROCESSES, OTHERS, OLDER];
    let calls = lists.into_iter().flatten().map(|call| (*call, Vec::new()));
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = calls.collect();
    let rule = |conditions| SeccompRule::new(conditions);

    let mask = u64::from(CLONE_NAMESPACES.unsigned_abs());
    rules.insert(c::SYS_clone, vec![rule(vec![is(0, SeccompCmpOp::MaskedEq(mask), 0)?])?]);
    let personalities = PERSONALITIES.map(u64::from);
    let personality = |value| rule(vec![is(0, SeccompCmpOp::Eq, value)?]);
    rules.insert(
        c::SYS_personality,
        personalities.into_iter().map(personality).collect::<Result<_, _>>()?,
    );
    // A terminal that the engine shares with its containers takes no input from them.
    let not = |value: u64| is(1, SeccompCmpOp::Ne, value);
    rules.insert(c::SYS_ioctl, vec![rule(vec![not(c::TIOCSTI)?, not(c::TIOCLINUX)?])?]);
    // The container dies with its engine, and its children may do so with it.
    let death = u64::from(c::PR_SET_PDEATHSIG.unsigned_abs());
    let kill = u64::from(c::SIGKILL.unsigned_abs());
    rules.insert(
        c::SYS_prctl,
        vec![
            rule(vec![is(0, SeccompCmpOp::Ne, death)?])?,
            rule(vec![is(0, SeccompCmpOp::Eq, death)?, is(1, SeccompCmpOp::Eq, kill)?])?,
        ],
    );
    let family = |family: i32| is(0, SeccompCmpOp::Eq, u64::from(family.unsigned_abs()));
    let local = rule(vec![family(c::AF_UNIX)?])?;
    rules.insert(c::SYS_socketpair, vec![local.clone()]);
    let mut sockets = vec![local];
    if network {
        sockets.push(rule(vec![family(c::AF_INET)?])?);
        sockets.push(rule(vec![family(c::AF_INET6)?])?);
        // What lists addresses and routes, of all that netlink does.
        sockets.push(rule(vec![family(c::AF_NETLINK)?, is(2, SeccompCmpOp::Eq, 0)?])?);
    }
    rules.insert(c::SYS_socket, sockets);

    let missing = SeccompAction::Errno(c::ENOSYS.unsigned_abs());
    let target: TargetArch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, missing, SeccompAction::Allow, target)?.try_into()
}

/// A condition on an argument of which the kernel reads 32 bits.
fn is(argument: u8, how: SeccompCmpOp, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, how, value)
}
