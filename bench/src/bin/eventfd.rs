//! Prints the median round trip, in microseconds, of two processes on one core that wake each other by
//! eventfds: the least that two wake-ups cost on this machine, right now.

use std::os::fd::AsFd;
use std::time::Instant;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::eventfd::EventFd;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};

const ROUNDS: usize = 8_000;

fn main() -> nix::Result<()> {
    let mut core = CpuSet::new();
    core.set(0)?;
    sched_setaffinity(Pid::from_raw(0), &core)?;
    let (there, back) = (EventFd::new()?, EventFd::new()?);
    // SAFETY: this process has one thread, so the child may do whatever it could.
    match unsafe { fork() }? {
        ForkResult::Child => loop {
            wait(&there)?;
            back.write(1)?;
        },
        ForkResult::Parent { child } => {
            let mut times = Vec::with_capacity(ROUNDS);
            for _ in 0..ROUNDS {
                let start = Instant::now();
                there.write(1)?;
                wait(&back)?;
                times.push(start.elapsed());
            }
            kill(child, Signal::SIGKILL)?;
            waitpid(child, None)?;
            times.sort_unstable();
            println!("{:.2}", times[ROUNDS / 2].as_secs_f64() * 1e6);
            Ok(())
        }
    }
}

fn wait(bell: &EventFd) -> nix::Result<()> {
    nix::unistd::read(bell.as_fd(), &mut [0; 8]).map(|_| ())
}
