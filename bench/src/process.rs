//! The processes of a measurement: forked from this one, seated on a core, ended with it.
//!
//! - A [`Peer`] is forked while this process has one thread, so that it may do whatever we could.
//! - It ends when its handle is dropped or this process ends, and this process ends when it fails:
//!   nobody else would wake who waits for it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::libc;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, getpid, getppid};

use crate::case::Error;

/// Another process of a measurement.
#[derive(Debug)]
pub struct Peer {
    pid: Pid,
}

/// Where two processes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Both on the first core that this process may use.
    SameCore,
    /// One on the first, the other on the second.
    AcrossCores,
    /// Wherever the scheduler puts them.
    Unpinned,
}

/// The cores a process may run on.
#[derive(Clone, Copy, Debug)]
pub struct Seat(CpuSet);

/// While it lives, this process is on its seat; then it may run where it could before.
#[derive(Debug)]
pub struct Seated {
    before: CpuSet,
}

impl Peer {
    /// Runs `body` in a new process, which ends after it.
    ///
    /// # Errors
    /// When this process has more than one thread, or may not fork.
    pub fn fork(body: impl FnOnce() -> Result<(), Error>) -> Result<Peer, Error> {
        let threads = std::fs::read_dir("/proc/self/task")?.count();
        if threads != 1 {
            return Err(Error::Threads(threads));
        }
        let parent = getpid();
        // SAFETY: this process has one thread (just counted; only that thread could make another),
        // so no lock is held by a thread that the child lacks.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => Ok(Peer { pid: child }),
            ForkResult::Child => {
                let run = || {
                    set_pdeathsig(Signal::SIGKILL)?;
                    // Had it ended before, nobody would tell us.
                    if getppid() == parent { body() } else { Ok(()) }
                };
                let status = match catch_unwind(AssertUnwindSafe(run)) {
                    Ok(Ok(())) => 0,
                    Ok(Err(error)) => {
                        eprintln!("nightcore-bench: a process of the measurement failed: {error}");
                        1
                    }
                    Err(_) => 1,
                };
                if status != 0 {
                    // Fails only if the parent is gone.
                    let _ = kill(parent, Signal::SIGTERM);
                }
                // SAFETY: ends this process without the handlers and buffers that are the parent's.
                unsafe { libc::_exit(status) }
            }
        }
    }

    /// Gives it a niceness.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where a lower one than ours is not permitted.
    pub fn set_niceness(&self, niceness: i32) -> Result<(), Error> {
        let pid = self.pid.as_raw().cast_unsigned();
        // SAFETY: takes plain numbers.
        if unsafe { libc::setpriority(libc::PRIO_PROCESS, pid, niceness) } != 0 {
            return Err(Error::Unavailable("it needs CAP_SYS_NICE"));
        }
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It is our child and has not been waited for, so the pid is its own. Neither call fails.
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
    }
}

impl Placement {
    /// All of them, the cheapest first.
    pub const ALL: [Placement; 3] =
        [Placement::SameCore, Placement::AcrossCores, Placement::Unpinned];

    /// As it ends the name of a case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Placement::SameCore => "same_core",
            Placement::AcrossCores => "across_cores",
            Placement::Unpinned => "unpinned",
        }
    }

    /// As it ends the title of a case.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Placement::SameCore => "one core",
            Placement::AcrossCores => "across cores",
            Placement::Unpinned => "unpinned",
        }
    }

    /// Seats for this process and for its peers, of the cores that this process may use now.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if there is only one core where two are needed.
    pub fn seats(self) -> Result<[Seat; 2], Error> {
        let all = sched_getaffinity(Pid::from_raw(0))?;
        let mut cores = (0..CpuSet::count()).filter(|core| all.is_set(*core) == Ok(true));
        let mut next = || -> Result<Seat, Error> {
            let mut seat = CpuSet::new();
            seat.set(cores.next().ok_or(Error::Unavailable("it needs two cores"))?)?;
            Ok(Seat(seat))
        };
        match self {
            Placement::SameCore => next().map(|seat| [seat, seat]),
            Placement::AcrossCores => Ok([next()?, next()?]),
            Placement::Unpinned => Ok([Seat(all), Seat(all)]),
        }
    }
}

impl Seat {
    /// Moves the calling process there.
    ///
    /// # Errors
    /// When the core went offline meanwhile.
    pub fn take(&self) -> Result<Seated, Error> {
        let before = sched_getaffinity(Pid::from_raw(0))?;
        sched_setaffinity(Pid::from_raw(0), &self.0)?;
        Ok(Seated { before })
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        // Fails only if those cores went offline: then this process runs where the kernel put it.
        let _ = sched_setaffinity(Pid::from_raw(0), &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_forked_where_there_are_threads() {
        let (ends, waits) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || waits.recv());
            let forked = Peer::fork(|| Ok(()));
            assert!(matches!(forked, Err(Error::Threads(2..))), "{forked:?}");
            drop(ends);
        });
    }

    #[test]
    fn who_leaves_a_seat_may_run_where_it_could_before() {
        let before = sched_getaffinity(Pid::from_raw(0)).unwrap();
        let [seat, other] = Placement::SameCore.seats().unwrap();
        assert_eq!(seat.0, other.0);
        let seated = seat.take().unwrap();
        assert_eq!(sched_getaffinity(Pid::from_raw(0)).unwrap(), seat.0);
        drop(seated);
        assert_eq!(sched_getaffinity(Pid::from_raw(0)).unwrap(), before);
    }
}
