//! Child processes that end with their owner, whatever happens to it.
//!
//! A server lives in a process group of its own, so that Ctrl-C reaches only us:
//! [`stop_at_signals`] then ends all that run before it ends this process. It blocks those signals
//! here, and each child unblocks them for itself. On every other way out their owner is dropped.
//! Only processes started here are ever signalled, by pid, and only before they are reaped.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

use super::Error;

/// A thousand containers take their time.
const STOP_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

/// What has to be ended and removed when a signal ends us.
struct Running {
    pids: BTreeSet<i32>,
    scratch: Option<PathBuf>,
}

static RUNNING: Mutex<Running> = Mutex::new(Running { pids: BTreeSet::new(), scratch: None });

fn running() -> MutexGuard<'static, Running> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on SIGINT and SIGTERM end every server, remove `scratch`, and only then this process.
/// To be called before any other thread exists.
pub fn stop_at_signals(scratch: &Path) -> Result<(), Error> {
    running().scratch = Some(scratch.to_owned());
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
    signals.thread_block().map_err(|errno| Error::System { what: "sigmask", errno })?;
    std::thread::spawn(move || {
        let signal = signals.wait().unwrap_or(Signal::SIGTERM);
        // Kept until the end: nobody starts another server.
        let running = running();
        for &pid in &running.pids {
            end(Pid::from_raw(pid));
        }
        if let Some(scratch) = &running.scratch {
            let _ = fs::remove_dir_all(scratch);
        }
        std::process::exit(128 + signal as i32);
    });
    Ok(())
}

/// Ends a child of ours that may be waited for elsewhere: there it is then gone.
fn end(pid: Pid) {
    let deadline = Instant::now() + STOP_MAX;
    let _ = kill(pid, Signal::SIGTERM);
    while let Ok(WaitStatus::StillAlive) = waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
        if Instant::now() > deadline {
            let _ = kill(pid, Signal::SIGKILL);
        }
        std::thread::sleep(POLL);
    }
}

/// A running child process.
#[derive(Debug)]
pub struct Server {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts `command` on a core, or wherever the kernel likes; its output goes to `log`.
    pub fn start(
        name: &str,
        mut command: Command,
        core: Option<usize>,
        log: &Path,
    ) -> Result<Server, Error> {
        let failed = |source| Error::Start { name: name.to_owned(), source };
        let output = File::create(log).map_err(failed)?;
        command.stdin(Stdio::null()).stderr(output.try_clone().map_err(failed)?).stdout(output);
        command.process_group(0);
        let all = SigSet::all();
        // SAFETY: between fork and exec the closure makes one call, pthread_sigmask, which may be
        // made from a signal handler; the set was made before.
        unsafe { command.pre_exec(move || all.thread_unblock().map_err(Into::into)) };
        let mut running = running();
        let child = on_core(core, || command.spawn())?.map_err(failed)?;
        let server = Server { name: name.to_owned(), child, log: log.to_owned() };
        running.pids.insert(server.pid().as_raw());
        Ok(server)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Waits until `is_ready`, given the output so far, says so.
    pub fn wait_until(
        &mut self,
        within: Duration,
        mut is_ready: impl FnMut(&str) -> bool,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + within;
        loop {
            let output = fs::read_to_string(&self.log).unwrap_or_default();
            if is_ready(&output) {
                return Ok(());
            }
            let ended = !matches!(self.child.try_wait(), Ok(None));
            if ended || Instant::now() > deadline {
                let what = if ended { "ended at its start" } else { "was not ready in time" };
                return Err(Error::Server { name: self.name.clone(), what, output: tail(&output) });
            }
            std::thread::sleep(POLL);
        }
    }

    /// Waits until it ends by itself with success; gives what it printed.
    pub fn finish(mut self, within: Duration) -> Result<String, Error> {
        let deadline = Instant::now() + within;
        let status = loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < deadline => std::thread::sleep(POLL),
                ended => break ended.ok().flatten(),
            }
        };
        let output = fs::read_to_string(&self.log).unwrap_or_default();
        let what = match status {
            Some(status) if status.success() => return Ok(output),
            Some(_) => "failed",
            None => "did not end in time",
        };
        Err(Error::Server { name: self.name.clone(), what, output: tail(&output) })
    }

    /// Ends it: SIGTERM, and SIGKILL for one that does not obey, which is an error.
    pub fn stop(mut self) -> Result<(), Error> {
        let obeyed = self.end();
        if obeyed {
            return Ok(());
        }
        let output = tail(&fs::read_to_string(&self.log).unwrap_or_default());
        Err(Error::Server { name: self.name.clone(), what: "did not stop as asked", output })
    }

    /// Whether it ended by itself once it was asked to, with success.
    fn end(&mut self) -> bool {
        let pid = self.pid();
        let mut obeyed = true;
        if let Ok(None) = self.child.try_wait() {
            // Not reaped, so the pid is still that of our child.
            let _ = kill(pid, Signal::SIGTERM);
            let deadline = Instant::now() + STOP_MAX;
            while let Ok(None) = self.child.try_wait() {
                if obeyed && Instant::now() > deadline {
                    obeyed = false;
                    let _ = self.child.kill();
                }
                std::thread::sleep(POLL);
            }
        }
        running().pids.remove(&pid.as_raw());
        // By the signal, or with the code that says so: what had to be cleaned up was.
        let term = Signal::SIGTERM as i32;
        let ended_well = |status: std::process::ExitStatus| {
            status.success() || status.signal() == Some(term) || status.code() == Some(128 + term)
        };
        obeyed && self.child.try_wait().ok().flatten().is_some_and(ended_well)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// The last lines of a log, for an error message.
fn tail(output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

/// The `nth` of the cores that this process may use, from 0; the first again behind the last.
pub fn nth_core(nth: usize) -> Result<usize, Error> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).map_err(affinity)?;
    let cores: Vec<usize> =
        (0..CpuSet::count()).filter(|&core| allowed.is_set(core).unwrap_or(false)).collect();
    cores.get(nth % cores.len().max(1)).copied().ok_or(affinity(Errno::EINVAL))
}

/// Keeps this thread, and those that it starts from now on, on `core`.
pub fn stay_on(core: usize) -> Result<(), Error> {
    let mut wanted = CpuSet::new();
    wanted.set(core).map_err(affinity)?;
    sched_setaffinity(Pid::from_raw(0), &wanted).map_err(affinity)
}

/// Runs `start` with this thread on `core`, which a child inherits.
fn on_core<T>(core: Option<usize>, start: impl FnOnce() -> T) -> Result<T, Error> {
    let Some(core) = core else { return Ok(start()) };
    let this = Pid::from_raw(0);
    let before = sched_getaffinity(this).map_err(affinity)?;
    stay_on(core)?;
    let started = start();
    sched_setaffinity(this, &before).map_err(affinity)?;
    Ok(started)
}

fn affinity(errno: Errno) -> Error {
    Error::System { what: "affinity", errno }
}

/// All descendants of `pid`.
#[must_use]
pub fn descendants(pid: Pid) -> Vec<Pid> {
    let mut found = Vec::new();
    let mut parents = vec![pid];
    while let Some(parent) = parents.pop() {
        let Ok(threads) = fs::read_dir(format!("/proc/{parent}/task")) else { continue };
        for thread in threads.flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
            parents.extend(children.clone().map(Pid::from_raw));
            found.extend(children.map(Pid::from_raw));
        }
    }
    found
}

/// CPU time of a process since its start, ended threads included, to the nanosecond; of a process
/// that is gone, none.
#[must_use]
pub fn cpu_time(pid: Pid) -> Duration {
    clock_getcpuclockid(pid).and_then(|clock| clock.now()).map(Duration::from).unwrap_or_default()
}

/// Memory that is a process's own, in KiB.
#[must_use]
pub fn private_kib(pid: Pid) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let kib = rollup.lines().filter_map(|line| {
        let rest = line.strip_prefix("Private_Clean:").or(line.strip_prefix("Private_Dirty:"))?;
        rest.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    });
    Some(kib.sum())
}

/// A port that nobody listens on, as far as one can tell without keeping it.
pub fn free_port() -> io::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn shell(script: &str, log: &Path) -> Server {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        Server::start("shell", command, None, log).unwrap()
    }

    fn exists(pid: Pid) -> bool {
        kill(pid, None).is_ok()
    }

    #[test]
    fn a_server_that_is_dropped_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let mut server = shell("echo ready; exec sleep 1000", &directory.path().join("log"));
        server.wait_until(PATIENCE, |output| output.contains("ready")).unwrap();
        let pid = server.pid();
        assert!(exists(pid));
        drop(server);
        assert!(!exists(pid) && !running().pids.contains(&pid.as_raw()));
    }

    #[test]
    fn a_server_can_be_asked_to_stop_by_one_who_blocks_that_signal() {
        let directory = tempfile::tempdir().unwrap();
        SigSet::all().thread_block().unwrap();
        let mut server = shell("echo ready; exec sleep 1000", &directory.path().join("log"));
        server.wait_until(PATIENCE, |output| output.contains("ready")).unwrap();
        let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
        assert!(status.contains("SigBlk:\t0000000000000000\n"), "{status}");
        server.stop().unwrap();
    }

    #[test]
    fn one_that_ends_at_its_start_says_why() {
        let directory = tempfile::tempdir().unwrap();
        let mut server = shell("echo no such thing >&2; exit 3", &directory.path().join("log"));
        let error = server.wait_until(PATIENCE, |_| false).unwrap_err().to_string();
        assert!(error.contains("ended at its start") && error.contains("no such thing"), "{error}");
    }

    #[test]
    fn a_failure_at_the_stop_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let script = "trap 'exit 4' TERM; echo ready; while :; do sleep 0.01; done";
        let mut server = shell(script, &directory.path().join("log"));
        server.wait_until(PATIENCE, |output| output.contains("ready")).unwrap();
        assert!(server.stop().is_err());
    }

    #[test]
    fn children_are_found_and_their_time_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let script =
            "sleep 1000 & i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo ready; wait";
        let mut server =
            shell(&format!("trap 'kill $!; exit 0' TERM; {script}"), &directory.path().join("log"));
        server.wait_until(PATIENCE, |output| output.contains("ready")).unwrap();
        let children = descendants(server.pid());
        assert_eq!(children.len(), 1);
        assert!(cpu_time(server.pid()) > Duration::ZERO);
        assert!(private_kib(children[0]).unwrap() > 0);
        server.stop().unwrap();
    }

    #[test]
    fn a_child_runs_on_the_core_asked_for_and_its_parent_where_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let before = sched_getaffinity(Pid::from_raw(0)).unwrap();
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "grep Cpus_allowed_list /proc/self/status; echo ready; exec sleep 1000"]);
        let log = directory.path().join("log");
        let core = nth_core(0).unwrap();
        let mut server = Server::start("shell", command, Some(core), &log).unwrap();
        server.wait_until(PATIENCE, |output| output.contains("ready")).unwrap();
        let expected = format!("Cpus_allowed_list:\t{core}\n");
        assert!(fs::read_to_string(&log).unwrap().contains(&expected));
        assert_eq!(sched_getaffinity(Pid::from_raw(0)).unwrap(), before);
    }
}
