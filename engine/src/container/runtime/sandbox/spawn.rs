//! The birth of a sandboxed container: `clone3` into its namespaces, then `exec`.
//!
//! `std::process::Command` makes children in the namespaces of their parent only. Here as there, what
//! runs between the two calls is a copy of one thread of a process with many: it makes system calls
//! and nothing else, on what was prepared before it was there.

use std::ffi::{CStr, CString, c_char};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, pipe2, setpgid, write};

use super::{Group, Process, cgroup};
use crate::logs::Output;

/// `clone_args.cgroup` is used. `libc` has it for a wider type of flags than it has itself.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// The namespaces that a process can only be born into.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Namespaces {
    pub(super) pids: bool,
    pub(super) user: bool,
}

impl Namespaces {
    fn flags(self) -> u64 {
        let flag = |wanted, flag: i32| if wanted { u64::from(flag.unsigned_abs()) } else { 0 };
        flag(self.pids, libc::CLONE_NEWPID) | flag(self.user, libc::CLONE_NEWUSER)
    }
}

/// What a child becomes.
pub(super) struct Birth<'a> {
    pub(super) program: CString,
    pub(super) arguments: Vec<CString>,
    pub(super) environment: Vec<CString>,
    /// Its standard output and standard error.
    pub(super) output: Output,
    pub(super) namespaces: Namespaces,
    /// The control groups that it is in before it runs anything.
    pub(super) group: &'a Group,
    /// Bytes of data it may have.
    pub(super) memory: Option<u64>,
    /// Relative to the caller's.
    pub(super) niceness: i32,
}

/// The steps of a child, as it names them when one fails.
const STEPS: [&str; 9] = [
    "its end with the engine's",
    "its user namespace",
    "its process group",
    "its signal mask",
    "its limits",
    "its niceness",
    "its standard streams",
    "the execution of nightcore-worker",
    "its control groups",
];

/// The number of a step, and what the system says to it.
type Failure = (u32, Errno);

impl Birth<'_> {
    /// Starts the child, and waits until it has executed the program.
    ///
    /// # Errors
    /// What the system says, with the step that failed. Nothing is left behind then.
    pub(super) fn give(self) -> io::Result<Process> {
        let arguments = pointers(&self.arguments);
        let environment = pointers(&self.environment);
        let identities = Identities::of_this_process();
        // A child that is born into its group need not enter it.
        let procs = match self.group.birthplace() {
            Some(_) => Vec::new(),
            None => cgroup::raw(self.group.procs()),
        };
        let null = open(c"/dev/null", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        let (news, report) = pipe2(OFlag::O_CLOEXEC)?;
        let Some((pid, pidfd)) = clone(self.namespaces, self.group.birthplace())? else {
            let (step, errno) = match self.settle(&null, &identities, &procs) {
                Ok(()) => (7, execute(&self.program, &arguments, &environment)),
                Err(failure) => failure,
            };
            let mut failure = [0; 8];
            failure[..4].copy_from_slice(&step.to_ne_bytes());
            failure[4..].copy_from_slice(&(errno as i32).to_ne_bytes());
            let _ = write(&report, &failure);
            // SAFETY: ends the process, a copy of one that goes on, without a trace.
            unsafe { libc::_exit(127) };
        };
        // Killed and reaped where this returns early.
        let process = Process::of_clone(pid, pidfd);
        drop(report);
        let mut failure = [0; 8];
        match File::from(news).read_exact(&mut failure) {
            // Closed by `exec`. A child that was killed before is found by its pidfd.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(process),
            Err(error) => Err(error),
            Ok(()) => {
                let [s0, s1, s2, s3, e0, e1, e2, e3] = failure;
                let step = u32::from_ne_bytes([s0, s1, s2, s3]) as usize;
                let error = io::Error::from_raw_os_error(i32::from_ne_bytes([e0, e1, e2, e3]));
                let step = STEPS.get(step).copied().unwrap_or("an unknown step");
                Err(io::Error::new(error.kind(), format!("{step}: {error}")))
            }
        }
    }

    /// Runs in the child.
    fn settle(
        &self,
        null: &OwnedFd,
        identities: &Identities,
        procs: &[RawFd],
    ) -> Result<(), Failure> {
        let at = |step: u32| move |errno: Errno| (step, errno);
        // If the engine died before this line, nobody listens where the worker connects, and it ends.
        prctl::set_pdeathsig(Signal::SIGKILL).map_err(at(0))?;
        cgroup::enter(procs).map_err(at(8))?;
        if self.namespaces.user {
            identities.enter().map_err(at(1))?;
        }
        // It stays in the engine's session: where sessions are scheduled as groups, niceness counts
        // only inside one.
        setpgid(Pid::from_raw(0), Pid::from_raw(0)).map_err(at(2))?;
        SigSet::empty().thread_set_mask().map_err(at(3))?;
        if let Some(bytes) = self.memory {
            setrlimit(Resource::RLIMIT_DATA, bytes, bytes).map_err(at(4))?;
        }
        if self.niceness != 0 {
            // SAFETY: setpriority takes plain numbers; 0 means the calling process.
            let refused = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, self.niceness) } != 0;
            if refused {
                return Err((5, Errno::last()));
            }
        }
        dup2_stdin(null).map_err(at(6))?;
        dup2_stdout(&self.output.stdout).map_err(at(6))?;
        dup2_stderr(&self.output.stderr).map_err(at(6))?;
        // A belt: the engine opens everything so that it closes with `exec`.
        let cloexec = libc::CLOSE_RANGE_CLOEXEC;
        // SAFETY: marks descriptors of this process, none of which is used by its number later.
        let marked = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, cloexec) };
        Errno::result(marked).map_err(at(6)).map(drop)
    }
}

/// Runs in the child; returns why it still does. The arrays are those of [`pointers`].
fn execute(program: &CStr, arguments: &[*const c_char], environment: &[*const c_char]) -> Errno {
    // SAFETY: both arrays end with a null pointer and point to texts that end with NUL.
    unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    Errno::last()
}

/// Array of pointers for `execve`, valid as long as the texts are.
fn pointers(texts: &[CString]) -> Vec<*const c_char> {
    texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
}

/// What maps this process's user and group to root of a user namespace, prepared as text.
pub(super) struct Identities {
    users: String,
    groups: String,
}

impl Identities {
    pub(super) fn of_this_process() -> Self {
        let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
        Self { users: format!("0 {user} 1"), groups: format!("0 {group} 1") }
    }

    /// To be called by the one process of a new user namespace: it is root there from now on. Makes
    /// system calls only.
    pub(super) fn enter(&self) -> nix::Result<()> {
        let put = |path: &CStr, text: &str| {
            let file = open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
            write(&file, text.as_bytes()).map(drop)
        };
        // Without this a group that denies could be left.
        put(c"/proc/self/setgroups", "deny")?;
        put(c"/proc/self/uid_map", &self.users)?;
        put(c"/proc/self/gid_map", &self.groups)
    }
}

/// A copy of this process with a copy of this thread alone; `None` in the copy, which may make system
/// calls only. It is born into a control group of v2, if one is given.
pub(super) fn clone(
    namespaces: Namespaces,
    group: Option<BorrowedFd<'_>>,
) -> io::Result<Option<(u32, OwnedFd)>> {
    let mut pidfd: RawFd = -1;
    // SAFETY: all fields are numbers, of which 0 says that a feature is not used.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    let pidfd_wanted = u64::from(libc::CLONE_PIDFD.unsigned_abs());
    arguments.flags = namespaces.flags() | pidfd_wanted;
    arguments.pidfd = (&raw mut pidfd).addr() as u64;
    arguments.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    if let Some(group) = group {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = u64::from(group.as_raw_fd().unsigned_abs());
    }
    let size = size_of::<libc::clone_args>();
    // SAFETY: without CLONE_VM the child has a copy of this memory, stack included; the kernel writes
    // one descriptor to `pidfd`, which outlives the call.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size) };
    match u32::try_from(pid) {
        Err(_) => Err(io::Error::last_os_error()),
        Ok(0) => Ok(None),
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(pid) => Ok(Some((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))),
    }
}
