//! A worker's process: a thread for each worker, which runs parent calls (a caller) or serves (a
//! callee), by the lease where it has one and through the engine where not.
//!
//! What it does to its peer is its [`Conduct`], honest or not: the tests are against real
//! processes.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::thread::JoinHandleExt;
use std::thread::JoinHandle;
use std::time::Instant;

use nix::libc;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::Pid;

use super::conduct::Conduct;
use super::lease::{CallError, End, LeaseFault, Reason};
use super::region::{Access, Direction, Mapped, Memory, Orders};
use super::wake::{Bells, Wake};
use super::wire::{Ended, Socket, ToEngine, ToWorker};
use crate::sample::Sample;

/// What a caller's first bytes say, so that no answer is taken for another's.
const STAMP: usize = 8;
/// Ends a worker's sleep.
const INTERRUPT: Signal = Signal::SIGUSR1;
/// The function that a nested call is for.
pub const LEAF: &str = "leaf";

/// Options of the worker's process, which the engine alone starts.
#[derive(Debug, clap::Args)]
pub struct WorkerArguments {
    /// What it does.
    #[arg(long, value_enum)]
    conduct: Conduct,
}

/// Memories that are mapped but not yet joined with the peer's.
#[derive(Debug)]
struct Half {
    wake: Wake,
    own: Mapped<Direction>,
    orders: Mapped<Orders>,
    bells: Option<Bells>,
}

/// One worker.
#[derive(Debug)]
struct Worker {
    socket: Socket,
    conduct: Conduct,
    half: Option<Half>,
    /// Its end of the pair in which it is the caller, and in which the callee.
    caller: Option<End>,
    callee: Option<End>,
    /// The caller's end has a lease.
    is_leased: bool,
    /// Calls served directly.
    served: u32,
}

/// Which end of a pair a message is about: who waits for an answer is the caller.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Caller,
    Callee,
}

/// Runs a container whose control socket is standard input, until the engine closes it.
pub fn run_worker(arguments: &WorkerArguments) -> io::Result<()> {
    let control = Socket::new(io::stdin().as_fd().try_clone_to_owned()?);
    let conduct = arguments.conduct;
    let mut threads = Vec::new();
    let action =
        SigAction::new(SigHandler::Handler(on_interrupt), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing, and no other code of this process uses the signal.
    unsafe { sigaction(INTERRUPT, &action) }?;
    while let Some((message, fds)) = control.receive()? {
        match message {
            ToWorker::Spawn { core } => {
                let socket = Socket::new(one(fds)?);
                threads.push(std::thread::spawn(move || run_thread(socket, conduct, core)));
            }
            ToWorker::Interrupt { thread } => interrupt(&threads, thread),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
    // The engine has closed the workers' sockets as well, or is gone; one that serves for ever
    // must not keep the process.
    std::process::exit(0);
}

fn run_thread(socket: Socket, conduct: Conduct, core: usize) {
    let result = pin(core).and_then(|()| {
        ipc::rseq::leave();
        Worker::new(socket, conduct).run()
    });
    if let Err(error) = result {
        eprintln!("nightcore-bench: a worker of the hand-off ends: {error}");
        std::process::abort();
    }
}

/// Ends the system call in which the worker sleeps.
fn interrupt(threads: &[JoinHandle<()>], thread: usize) {
    let Some(thread) = threads.get(thread) else { return };
    // SAFETY: a thread that is not joined keeps its name, even when it has ended.
    let result = unsafe { libc::pthread_kill(thread.as_pthread_t(), INTERRUPT as libc::c_int) };
    debug_assert!(result == 0 || result == libc::ESRCH, "pthread_kill: {result}");
}

/// That a system call returned is all that is wanted.
extern "C" fn on_interrupt(_: libc::c_int) {}

/// Keeps the calling thread on `core`.
pub fn pin(core: usize) -> io::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &cores)?)
}

impl Worker {
    fn new(socket: Socket, conduct: Conduct) -> Worker {
        Worker {
            socket,
            conduct,
            half: None,
            caller: None,
            callee: None,
            is_leased: false,
            served: 0,
        }
    }

    fn run(&mut self) -> io::Result<()> {
        while let Some((message, fds)) = self.socket.receive()? {
            match message {
                ToWorker::Parent { calls, size, .. } => {
                    let ended = self.parent(calls, size)?;
                    self.is_leased = false;
                    self.socket.send(&ToEngine::Ended(Box::new(ended)), &[])?;
                }
                ToWorker::Call { input } => {
                    self.socket.send(&ToEngine::Complete { output: input }, &[])?;
                }
                message => self.on_lease(message, fds, Side::Callee)?,
            }
        }
        Ok(())
    }

    /// A call of this worker's function that calls: the times of the direct ones are kept.
    fn parent(&mut self, calls: u32, size: usize) -> io::Result<Ended> {
        let mut ended = Ended::default();
        let mut times = super::measure::histogram()?;
        let (mut input, mut output) = (vec![7; size], Vec::new());
        for call in 0..calls {
            let stamp = u64::from(call).to_ne_bytes();
            let stamped = STAMP.min(size);
            input[..stamped].copy_from_slice(&stamp[..stamped]);
            let start = Instant::now();
            match self.call_directly(&input, &mut output)? {
                Some(Ok(())) => {
                    times.saturating_record(elapsed_ns(start));
                    ended.direct += 1;
                }
                Some(Err(reason)) => {
                    ended.failure = Some(reason);
                    break;
                }
                None => match self.relay("callee", &input)? {
                    Ok(answer) => {
                        output = answer;
                        ended.relayed += 1;
                    }
                    Err(reason) => {
                        ended.failure = Some(reason);
                        break;
                    }
                },
            }
            ended.wrong += u32::from(output != input);
        }
        ended.times = (!times.is_empty()).then(|| Sample::new("direct", &times));
        Ok(ended)
    }

    /// `None` if it is to be relayed.
    fn call_directly(
        &mut self,
        input: &[u8],
        output: &mut Vec<u8>,
    ) -> io::Result<Option<Result<(), Reason>>> {
        let Some(end) = self.caller.as_mut().filter(|_| self.is_leased) else { return Ok(None) };
        if self.served == 3 {
            self.conduct.misbehave_as_caller(end);
        }
        self.served += 1;
        let message = match end.call(input, output) {
            Ok(()) => return Ok(Some(Ok(()))),
            Err(CallError::Abandoned(reason) | CallError::NotBegun(reason @ Reason::Deadline)) => {
                self.is_leased = false;
                return Ok(Some(Err(reason)));
            }
            Err(CallError::NotBegun(_)) => ToEngine::Released { epoch: end.epoch() },
            Err(CallError::Fault(fault)) => {
                ToEngine::Accuse { epoch: end.epoch(), fault: fault.to_string() }
            }
        };
        self.is_leased = false;
        self.socket.send(&message, &[])?;
        let is_fault = matches!(message, ToEngine::Accuse { .. });
        Ok(is_fault.then_some(Err(Reason::Fault)))
    }

    /// Has the engine run it, and takes the lease that it may give before it answers.
    fn relay(&mut self, function: &str, input: &[u8]) -> io::Result<Result<Vec<u8>, Reason>> {
        let call = ToEngine::Call { function: function.to_owned(), input: input.to_vec() };
        self.socket.send(&call, &[])?;
        loop {
            let Some((message, fds)) = self.socket.receive()? else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            match message {
                ToWorker::Answer(answer) => return Ok(answer),
                message => self.on_lease(message, fds, Side::Caller)?,
            }
        }
    }

    fn on_lease(&mut self, message: ToWorker, fds: Vec<OwnedFd>, side: Side) -> io::Result<()> {
        match message {
            ToWorker::Own { wake } => {
                let mut fds = fds.into_iter();
                let mut next = || fds.next().ok_or(io::ErrorKind::InvalidData);
                let own = Memory::received(next()?, Access::Write)?;
                let orders = Memory::received(next()?, Access::Read)?;
                let bells = (wake == Wake::Epoll).then(|| -> io::Result<_> {
                    Ok(Bells { own: next()?, peer: next()?, engine: next()? })
                });
                self.half = Some(Half { wake, own, orders, bells: bells.transpose()? });
                self.socket.send(&ToEngine::Mapped, &[])
            }
            ToWorker::Peer => {
                let half = self.half.take().ok_or(io::ErrorKind::InvalidData)?;
                let peer = Memory::received(one(fds)?, Access::Read)?;
                let end = End::new(half.wake, half.own, peer, half.orders, half.bells)?;
                *self.end(side) = Some(end);
                Ok(())
            }
            ToWorker::Lease { epoch, deadline_ns } => {
                let end = self.end(side).as_mut().ok_or(io::ErrorKind::InvalidData)?;
                end.begin(epoch, deadline_ns);
                match side {
                    Side::Caller => self.is_leased = true,
                    Side::Callee => self.serve()?,
                }
                Ok(())
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn end(&mut self, side: Side) -> &mut Option<End> {
        match side {
            Side::Caller => &mut self.caller,
            Side::Callee => &mut self.callee,
        }
    }

    /// The callee's lease, from its first call to its farewell.
    fn serve(&mut self) -> io::Result<()> {
        let Some(mut end) = self.callee.take() else { return Ok(()) };
        let epoch = end.epoch();
        let served = self.serve_calls(&mut end)?;
        self.callee = Some(end);
        // A lease in which this worker called ends with the call that it served.
        self.is_leased = false;
        let message = match served {
            Ok(()) if self.conduct == Conduct::Stay => return Conduct::for_ever(),
            Ok(()) => ToEngine::Released { epoch },
            Err(fault) => ToEngine::Accuse { epoch, fault: fault.to_string() },
        };
        self.socket.send(&message, &[])
    }

    fn serve_calls(&mut self, end: &mut End) -> io::Result<Result<(), LeaseFault>> {
        let mut input = Vec::new();
        loop {
            let call = match end.next(&mut input) {
                Ok(Some(call)) => call,
                Ok(None) => return Ok(Ok(())),
                Err(fault) => return Ok(Err(fault)),
            };
            let start = Instant::now();
            self.served += 1;
            if self.served > 3 {
                self.conduct.misbehave_as_callee(end, call);
            }
            if self.conduct == Conduct::Nested {
                let mut output = Vec::new();
                let direct = self.call_directly(&input, &mut output)?;
                input = match direct {
                    Some(Ok(())) => output,
                    Some(Err(_)) => Vec::new(),
                    None => self.relay(LEAF, &input)?.unwrap_or_default(),
                };
            }
            if let Err(fault) = end.answer(call, &input, start.elapsed()) {
                return Ok(Err(fault));
            }
        }
    }
}

/// Nanoseconds since `start`.
fn elapsed_ns(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn one(fds: Vec<OwnedFd>) -> io::Result<OwnedFd> {
    fds.into_iter().next().ok_or_else(|| io::ErrorKind::InvalidData.into())
}
