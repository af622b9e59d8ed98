//! The prototype's engine: relays first calls, grants leases, observes them, revokes them.
//!
//! One thread in `ppoll(2)` over the workers' sockets. What it knows of a lease that it did not
//! decide itself it takes for a claim. Unlike the engine proper it would wait for a worker whose
//! socket is full, and it does not remember who accused whom. Policy: a pair gets a lease when the
//! callee has completed a call for the caller and no call waits for the function, nor has lately;
//! the lease is bound to the caller's running call.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use super::conduct::Conduct;
use super::event::{EngineError, Event, PATIENCE};
use super::lease::Reason;
use super::pair::{Observed, Pair, SIDES};
use super::wake::{Wake, now_ns};
use super::wire::{Ended, Socket, ToEngine, ToWorker};

/// For so long after calls had to queue, their function is not leased: else two callers would take
/// its worker from each other at every call.
const COOL_DOWN: Duration = Duration::from_millis(10);

/// The engine and its workers; ends them when dropped.
#[derive(Debug)]
pub struct Engine {
    program: PathBuf,
    wake: Wake,
    children: Vec<Child>,
    /// Kept open: a container ends when its control socket closes.
    controls: Vec<Socket>,
    workers: Vec<Worker>,
    pairs: Vec<Pair>,
    /// Calls that wait: caller, function, input.
    queue: VecDeque<(usize, String, Vec<u8>)>,
    /// Functions for which calls had to queue, and when.
    contended: HashMap<String, Instant>,
    events: VecDeque<Event>,
}

#[derive(Debug)]
struct Worker {
    function: String,
    /// Of whose process it is a thread, and which.
    container: usize,
    thread: usize,
    socket: Option<Socket>,
    state: State,
    /// Of the parent call that it runs.
    deadline_ns: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Idle,
    /// Runs a parent call.
    Parent,
    /// Runs a call for that worker.
    Serves(usize),
    /// Reserved while the memories of the pair are passed around; what the caller is owed then.
    Preparing {
        pair: usize,
        output: Vec<u8>,
    },
    /// Reserved for a pair.
    Leased(usize),
    Dead,
}

fn system(what: &'static str) -> impl Fn(io::Error) -> EngineError {
    move |error| EngineError::System { what, error }
}

impl Engine {
    /// `program` is this one, which also runs the workers.
    #[must_use]
    pub fn new(program: &Path, wake: Wake) -> Engine {
        Engine {
            program: program.to_owned(),
            wake,
            children: Vec::new(),
            controls: Vec::new(),
            workers: Vec::new(),
            pairs: Vec::new(),
            queue: VecDeque::new(),
            contended: HashMap::new(),
            events: VecDeque::new(),
        }
    }

    /// Starts a process of `function` with a worker on each of `cores`; returns the first's index.
    pub fn start(
        &mut self,
        function: &str,
        conduct: Conduct,
        cores: &[usize],
    ) -> Result<usize, EngineError> {
        let conduct = conduct.to_possible_value().map_or_else(String::new, |v| v.get_name().into());
        let (ours, theirs) = Socket::pair().map_err(system("making a control socket"))?;
        let child = Command::new(&self.program)
            .args(["handoff-worker", "--conduct", &conduct])
            .stdin(Stdio::from(theirs.into_fd()))
            .spawn()
            .map_err(system("starting a worker"))?;
        self.children.push(child);
        let first = self.workers.len();
        for (thread, &core) in cores.iter().enumerate() {
            let (socket, theirs) = Socket::pair().map_err(system("making a worker's socket"))?;
            let theirs: OwnedFd = theirs.into_fd();
            ours.send(&ToWorker::Spawn { core }, &[theirs.as_raw_fd()])
                .map_err(system("spawning a worker"))?;
            self.workers.push(Worker {
                function: function.to_owned(),
                container: self.controls.len(),
                thread,
                socket: Some(socket),
                state: State::Idle,
                deadline_ns: u64::MAX,
            });
        }
        self.controls.push(ours);
        Ok(first)
    }

    /// Has a worker run a call that calls `callee` `calls` times.
    pub fn parent(&mut self, worker: usize, calls: u32, size: usize, deadline_ns: u64) {
        self.workers[worker].state = State::Parent;
        self.workers[worker].deadline_ns = deadline_ns;
        self.send(worker, &ToWorker::Parent { calls, size, deadline_ns });
    }

    /// Serves until `is_it` gives something for an event; earlier events are dropped.
    pub fn wait_for<T>(
        &mut self,
        what: &'static str,
        mut is_it: impl FnMut(&Event) -> Option<T>,
    ) -> Result<T, EngineError> {
        let end = Instant::now() + PATIENCE;
        loop {
            while let Some(event) = self.events.pop_front() {
                if let Some(found) = is_it(&event) {
                    return Ok(found);
                }
            }
            if Instant::now() > end {
                return Err(EngineError::Silent(what));
            }
            self.turn(end)?;
        }
    }

    /// Serves until the worker's parent call is over.
    pub fn ended(&mut self, worker: usize) -> Result<Ended, EngineError> {
        self.wait_for("a parent call ended", |event| match event {
            Event::Ended(who, ended) if *who == worker => Some(ended.clone()),
            _ => None,
        })
    }

    /// What is known of the calls from `caller` to `callee`.
    #[must_use]
    pub fn observe(&self, caller: usize, callee: usize) -> Option<Observed> {
        self.pairs.iter().find(|pair| pair.workers == [caller, callee]).map(Pair::observe)
    }

    /// Processor time that all workers' processes have used. Counts what a busy machine only delays.
    pub fn cpu_time(&self) -> Result<Duration, EngineError> {
        let of_child = |child: &Child| -> io::Result<Duration> {
            let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
            Ok(clock_gettime(clock_getcpuclockid(Pid::from_raw(pid))?)?.into())
        };
        let all: io::Result<Vec<Duration>> = self.children.iter().map(of_child).collect();
        Ok(all.map_err(system("reading a process's time"))?.iter().sum())
    }

    /// One round: timers, then whatever has arrived, or the next timer.
    fn turn(&mut self, end: Instant) -> Result<(), EngineError> {
        let (now, now_ns) = (Instant::now(), now_ns());
        let mut next = end;
        for index in 0..self.pairs.len() {
            let lease = self.pairs[index].lease.as_ref();
            if let Some(deadline_ns) = lease.filter(|l| l.revoked.is_none()).map(|l| l.deadline_ns)
            {
                let left = Duration::from_nanos(deadline_ns.saturating_sub(now_ns));
                if left.is_zero() {
                    self.revoke(index, Reason::Deadline);
                } else {
                    next = next.min(now.checked_add(left).unwrap_or(end));
                }
            }
            let pair = &mut self.pairs[index];
            let is_due = pair.nudge_at().is_some_and(|at| at <= now);
            let stuck = if is_due { pair.nudge() } else { Vec::new() };
            next = pair.nudge_at().map_or(next, |at| next.min(at));
            for worker in stuck {
                let Worker { container, thread, .. } = self.workers[worker];
                // One that cannot be told is dead.
                let _ = self.controls[container].send(&ToWorker::Interrupt { thread }, &[]);
            }
        }
        let left = next.saturating_duration_since(Instant::now());
        for worker in self.heard(left).map_err(system("waiting for workers"))? {
            self.hear(worker)?;
        }
        Ok(())
    }

    /// The workers that have spoken, or are gone.
    fn heard(&self, timeout: Duration) -> io::Result<Vec<usize>> {
        let sockets = self.workers.iter().enumerate();
        let open: Vec<(usize, BorrowedFd<'_>)> =
            sockets.filter_map(|(i, w)| Some((i, w.socket.as_ref()?.as_fd()))).collect();
        let mut fds: Vec<PollFd<'_>> =
            open.iter().map(|&(_, fd)| PollFd::new(fd, PollFlags::POLLIN)).collect();
        ppoll(&mut fds, Some(TimeSpec::from_duration(timeout)), None)?;
        let has_news = |fd: &PollFd<'_>| fd.revents().is_some_and(|r| !r.is_empty());
        Ok(open.iter().zip(&fds).filter(|(_, fd)| has_news(fd)).map(|((i, _), _)| *i).collect())
    }

    fn hear(&mut self, worker: usize) -> Result<(), EngineError> {
        let Some(socket) = &self.workers[worker].socket else { return Ok(()) };
        match socket.receive::<ToEngine>() {
            Ok(Some((message, _))) => self.on_message(worker, message),
            // A packet that is none: the worker is closed like one that died.
            Ok(None) | Err(_) => {
                self.on_death(worker);
                Ok(())
            }
        }
    }

    fn on_message(&mut self, worker: usize, message: ToEngine) -> Result<(), EngineError> {
        match message {
            ToEngine::Mapped => return self.on_mapped(worker),
            ToEngine::Released { epoch } => self.on_released(worker, epoch),
            ToEngine::Accuse { epoch, fault } => {
                self.events.push_back(Event::Accused { by: worker, fault });
                for index in self.pairs_of(worker) {
                    if self.pairs[index].is_now(epoch) {
                        self.revoke(index, Reason::Fault);
                    }
                }
                self.on_released(worker, epoch);
            }
            ToEngine::Call { function, input } => {
                self.leave_as_caller(worker, None);
                self.queue.push_back((worker, function, input));
                self.dispatch();
            }
            ToEngine::Complete { output } => return self.on_complete(worker, output),
            ToEngine::Ended(ended) => {
                self.leave_as_caller(worker, Some(Reason::ParentEnded));
                self.workers[worker].state = State::Idle;
                self.events.push_back(Event::Ended(worker, *ended));
            }
        }
        Ok(())
    }

    /// Gives waiting calls to idle workers; where there is none, takes one back that is leased.
    fn dispatch(&mut self) {
        for (caller, function, input) in std::mem::take(&mut self.queue) {
            if self.workers[caller].state == State::Dead {
                continue;
            }
            let of_function = |w: &Worker| w.function == function && w.state != State::Dead;
            let idle = |w: &Worker| of_function(w) && w.state == State::Idle;
            if let Some(callee) = self.workers.iter().position(idle) {
                self.workers[callee].state = State::Serves(caller);
                self.send(callee, &ToWorker::Call { input });
                continue;
            }
            if !self.workers.iter().any(of_function) {
                self.send(caller, &ToWorker::Answer(Err(Reason::CalleeDied)));
                continue;
            }
            let lent = |pair: &Pair| {
                let is_live = pair.lease.as_ref().is_some_and(|lease| lease.revoked.is_none());
                is_live && of_function(&self.workers[pair.workers[1]])
            };
            let index = self.pairs.iter().position(lent);
            self.contended.insert(function.clone(), Instant::now());
            if let Some(index) = index {
                self.revoke(index, Reason::Queueing);
            }
            self.queue.push_back((caller, function, input));
        }
    }

    /// A callee has run a relayed call: its caller gets the answer, and with it a lease if nobody
    /// waits.
    fn on_complete(&mut self, callee: usize, output: Vec<u8>) -> Result<(), EngineError> {
        let State::Serves(caller) = self.workers[callee].state else { return Ok(()) };
        self.leave_as_caller(callee, Some(Reason::ParentEnded));
        let contended = self.contended.get(&self.workers[callee].function);
        let is_wanted = contended.is_some_and(|at| at.elapsed() < COOL_DOWN);
        // A worker keeps one end of each kind: only the latest pair of both is still joined.
        let latest = self
            .pairs
            .iter()
            .rposition(|pair| pair.workers[0] == caller || pair.workers[1] == callee);
        let known = latest.filter(|&index| self.pairs[index].workers == [caller, callee]);
        let is_busy = known.is_some_and(|index| self.pairs[index].lease.is_some());
        if is_wanted || is_busy || self.workers[caller].state == State::Dead {
            self.workers[callee].state = State::Idle;
            self.send(caller, &ToWorker::Answer(Ok(output)));
            self.dispatch();
            return Ok(());
        }
        if let Some(pair) = known {
            self.grant(pair, output);
            return Ok(());
        }
        let pair =
            Pair::new([caller, callee], self.wake).map_err(system("making a pair's memories"))?;
        for side in SIDES {
            let own = ToWorker::Own { wake: self.wake };
            self.send_with(pair.workers[side], &own, &pair.own(side));
        }
        self.pairs.push(pair);
        self.workers[callee].state = State::Preparing { pair: self.pairs.len() - 1, output };
        Ok(())
    }

    fn on_mapped(&mut self, worker: usize) -> Result<(), EngineError> {
        let unmapped = |pair: &Pair| {
            let side = SIDES.into_iter().find(|&side| pair.workers[side] == worker);
            side.filter(|&side| !pair.mapped[side])
        };
        let Some((index, side)) =
            self.pairs.iter().enumerate().find_map(|(i, pair)| Some((i, unmapped(pair)?)))
        else {
            return Ok(());
        };
        let pair = &mut self.pairs[index];
        pair.mapped[side] = true;
        let [caller, callee] = pair.workers;
        if pair.mapped != [true; 2] {
            return Ok(());
        }
        let Some(memories) = pair.seal().map_err(system("sealing a pair's memories"))? else {
            return Ok(());
        };
        self.send_with(caller, &ToWorker::Peer, &[memories[1].as_fd().as_raw_fd()]);
        self.send_with(callee, &ToWorker::Peer, &[memories[0].as_fd().as_raw_fd()]);
        let callee = &mut self.workers[callee];
        if let State::Preparing { output, .. } = std::mem::replace(&mut callee.state, State::Idle) {
            self.grant(index, output);
        }
        Ok(())
    }

    /// A lease begins, and the caller gets the answer that it waits for.
    fn grant(&mut self, index: usize, output: Vec<u8>) {
        let [caller, callee] = self.pairs[index].workers;
        let deadline_ns = self.workers[caller].deadline_ns;
        let epoch = self.pairs[index].grant(deadline_ns);
        self.workers[callee].state = State::Leased(index);
        self.workers[callee].deadline_ns = deadline_ns;
        self.send(callee, &ToWorker::Lease { epoch, deadline_ns });
        self.send(caller, &ToWorker::Lease { epoch, deadline_ns });
        self.send(caller, &ToWorker::Answer(Ok(output)));
        self.events.push_back(Event::Granted { workers: [caller, callee], epoch });
    }

    fn revoke(&mut self, index: usize, reason: Reason) {
        let pair = &mut self.pairs[index];
        if pair.revoke(reason) {
            self.events.push_back(Event::Revoked { workers: pair.workers, reason });
        }
    }

    /// A side says that it is out of a lease. The callee's word frees it.
    fn on_released(&mut self, worker: usize, epoch: u32) {
        for index in self.pairs_of(worker) {
            let pair = &mut self.pairs[index];
            let [caller, callee] = pair.workers;
            if caller == worker && pair.is_now(epoch) {
                pair.leave(0);
            }
            if callee == worker && self.workers[worker].state == State::Leased(index) {
                pair.leave(1);
                self.workers[worker].state = State::Idle;
                self.leave_as_caller(worker, Some(Reason::ParentEnded));
                self.events.push_back(Event::Freed(worker));
            }
        }
        self.dispatch();
    }

    /// A worker is in no lease as a caller any more: it asks us, or its call is over.
    fn leave_as_caller(&mut self, worker: usize, reason: Option<Reason>) {
        for index in self.pairs_of(worker) {
            if self.pairs[index].workers[0] != worker {
                continue;
            }
            let is_revoked =
                |pair: &Pair| pair.lease.as_ref().is_some_and(|lease| lease.revoked.is_some());
            if let Some(reason) = reason {
                self.revoke(index, reason);
            }
            if reason.is_some() || is_revoked(&self.pairs[index]) {
                self.pairs[index].leave(0);
            }
        }
    }

    fn on_death(&mut self, worker: usize) {
        self.workers[worker].socket = None;
        let state = std::mem::replace(&mut self.workers[worker].state, State::Dead);
        self.events.push_back(Event::Died(worker));
        for index in self.pairs_of(worker) {
            let side = usize::from(self.pairs[index].workers[1] == worker);
            self.revoke(index, [Reason::CallerDied, Reason::CalleeDied][side]);
            self.pairs[index].leave(side);
            let callee = self.pairs[index].workers[1];
            let state = &mut self.workers[callee].state;
            if matches!(state, State::Preparing { pair, .. } if *pair == index) {
                *state = State::Idle;
            }
        }
        let waiting = match state {
            State::Serves(caller) => Some(caller),
            State::Preparing { pair, .. } => Some(self.pairs[pair].workers[0]),
            _ => None,
        };
        if let Some(caller) = waiting {
            self.send(caller, &ToWorker::Answer(Err(Reason::CalleeDied)));
        }
        self.dispatch();
    }

    fn pairs_of(&self, worker: usize) -> Vec<usize> {
        let is_in = |index: &usize| self.pairs[*index].workers.contains(&worker);
        (0..self.pairs.len()).filter(is_in).collect()
    }

    fn send(&self, worker: usize, message: &ToWorker) {
        self.send_with(worker, message, &[]);
    }

    /// One that cannot be reached is dead: its socket says so at the next look.
    fn send_with(&self, worker: usize, message: &ToWorker, fds: &[i32]) {
        if let Some(socket) = &self.workers[worker].socket {
            let _ = socket.send(message, fds);
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Errors mean that it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
