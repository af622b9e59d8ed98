//! Keeps one container per function alive and tells the shards what became of each.
//!
//! Runs on the process's main thread, off the call path: it sleeps in `poll(2)` on every container's
//! pidfd and control socket, its mailbox and the signals. A container's life:
//!
//! ```text
//!            start              Hello        all shards part with it
//!  Waiting ---------> Starting -------> Up -------------------------> Idle
//!     ^ ^                |              |                              | ^
//!     | |  Refused, late |   its end,   |                              | |
//!     | +----------------+---- a fault -+                              | |
//!     |                                    a call waits                | |
//!     +----------------------------------------------------------------+ |
//!     +------------------------------------------------------------------+
//!                 nobody called when the next start was due
//! ```
//!
//! A container that a runtime makes is `Making` before it is `Starting`, until the runtime is done: the
//! supervisor waits for neither.
//!
//! A container that ends is started again, when `restart` says. `idleness` stops those that nobody calls. During [`Supervisor::start_all`] nothing is retried: the first failure is the result.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipc::control::{ControlError, FromLauncher, ToLauncher};
use nix::sys::signalfd::SignalFd;
use thiserror::Error;

use super::cgroup::ControlGroups;
use super::death::Death;
use super::lease::Reply;
use super::record::State;
use super::rollout::Stage;
use super::runtime::Runtimes;
use super::slot::{LEAVE_TIMEOUT, Phase, Slot};
use super::watch::{Source, Watch};
use super::{Breaker, Cause, ContainerSpec, HostSpec, SocketDirectory};
use crate::core::FunctionId;
use crate::logs::Capture;
use crate::mailbox::{Mailbox, Post, ToShard, ToSupervisor};
use crate::stats::Stats;

/// Control messages taken from one container before others get their turn.
const CONTROL_BUDGET: usize = 64;

/// Strangers that are turned away from one container's control socket before it is ended: whoever finds
/// the socket is most likely a child of that container.
const STRANGERS_MAX: u32 = 16;

/// The containers could not all be started.
#[derive(Debug, Error)]
pub enum StartError {
    /// This one could not.
    #[error("function \"{function}\": {reason}")]
    Container {
        /// The function's name.
        function: String,
        /// What went wrong, in one line.
        reason: String,
    },
    /// A signal asked to stop before they were all up.
    #[error("a signal ended the start")]
    Interrupted,
}

/// Why [`Supervisor::run`] returned.
#[derive(Debug)]
pub enum Stopped {
    /// A signal asked for it, and every shard finished what it had accepted.
    Drained,
    /// A signal asked for it, and the drain was cut short by its time limit or a second signal.
    Cut,
    /// A shard failed.
    Failed(String),
}

/// See the module's description.
#[derive(Debug)]
pub struct Supervisor {
    // Dropped in this order: containers, what runtimes have of them, their directory.
    pub(super) slots: Vec<Slot>,
    runtimes: Runtimes,
    sockets: SocketDirectory,
    /// Behind the slots: it waits until their containers' groups are removed.
    groups: ControlGroups,
    pub(super) shards: Vec<Post<ToShard>>,
    pub(super) stats: Arc<Stats>,
    mailbox: Mailbox<ToSupervisor>,
    signals: SignalFd,
    /// Whether a signal asked to stop: nothing is changed any more.
    pub(super) is_stopping: bool,
    drained: usize,
    /// Containers that are gone and whose slots wait, with the reason; not yet told to anybody.
    pub(super) ended: Vec<Death>,
    failure: Option<String>,
    /// Behind the slots: it ends when their containers have, with their last words.
    capture: Capture,
}

/// Whether somebody asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    None,
    Stop,
}

impl Supervisor {
    /// Makes a supervisor; nothing is started yet. `signals` must be blocked in every thread.
    ///
    /// # Errors
    /// When this process cannot be told from others by `/proc`, or there can be no more threads.
    #[expect(clippy::too_many_arguments, reason = "each is the only one of its kind")]
    pub fn new(
        host: &HostSpec,
        sockets: SocketDirectory,
        specs: Vec<ContainerSpec>,
        shards: Vec<Post<ToShard>>,
        mailbox: Mailbox<ToSupervisor>,
        signals: SignalFd,
        stats: Arc<Stats>,
        capture: Capture,
    ) -> io::Result<Self> {
        let slots = specs.into_iter().map(Slot::new).collect();
        let runtimes = Runtimes::new(host, sockets.parent());
        let groups = ControlGroups::new(host.require)?;
        Ok(Self {
            slots,
            runtimes,
            sockets,
            groups,
            shards,
            stats,
            mailbox,
            signals,
            is_stopping: false,
            drained: 0,
            ended: Vec::new(),
            failure: None,
            capture,
        })
    }

    /// Starts every container and returns when all are up.
    ///
    /// # Errors
    /// With the first container that cannot be started; the others end when `self` is dropped.
    pub fn start_all(&mut self) -> Result<(), StartError> {
        for index in 0..self.slots.len() {
            self.start(index).map_err(|cause| self.start_error(index, &cause))?;
        }
        while self.slots.iter().any(|slot| !matches!(slot.phase, Phase::Up { .. })) {
            let signal = self.step(None);
            if let Some(Death { index, cause, .. }) = self.ended.pop() {
                return Err(self.start_error(index, &cause));
            }
            if signal == Signal::Stop {
                return Err(StartError::Interrupted);
            }
        }
        Ok(())
    }

    /// Supervises until a signal, or [`ToSupervisor::Drain`], then tells `draining` and lets the shards
    /// finish within `drain_timeout`.
    #[must_use]
    pub fn run(&mut self, drain_timeout: Duration, draining: impl FnOnce()) -> Stopped {
        while self.failure.is_none() && self.step(self.next_due()) == Signal::None {
            self.go_on_with_changes();
            self.restart_ended();
            self.look_for_idle();
        }
        if let Some(reason) = self.failure.take() {
            return Stopped::Failed(reason);
        }
        self.is_stopping = true;
        draining();
        // The first shard accepts for all: it passes this on once it has stopped, so that no connection
        // reaches a shard that believes it is done.
        if let Some(acceptor) = self.shards.first() {
            acceptor.send(ToShard::Drain);
        }
        let deadline = Instant::now() + drain_timeout;
        while self.drained < self.shards.len() && self.failure.is_none() {
            if Instant::now() >= deadline || self.step(Some(deadline)) == Signal::Stop {
                return Stopped::Cut;
            }
            self.restart_ended();
        }
        self.failure.take().map_or(Stopped::Drained, Stopped::Failed)
    }

    /// Ends the shards' loops, then the containers: asks first, kills those that stay.
    pub fn shut_down(mut self) {
        self.post_all(|| ToShard::Stop);
        let deadline = Instant::now() + LEAVE_TIMEOUT;
        let mut leaving = Vec::new();
        for slot in &mut self.slots {
            match std::mem::replace(&mut slot.phase, Phase::Stopped) {
                Phase::Up { process, container, .. } => {
                    let _ = container.control.send_to_launcher(&ToLauncher::Stop, &[]);
                    leaving.push(process);
                }
                Phase::Starting { mut process, .. } => process.kill(),
                Phase::Waiting { .. } | Phase::Making { .. } | Phase::Idle | Phase::Stopped => {}
            }
            leaving.extend(slot.leaving.take().map(|leaving| leaving.process));
        }
        for mut process in leaving {
            let mut watch = Watch::new();
            watch.add(Source::Process(0), process.pidfd());
            let _ = watch.wait(Some(deadline));
            if process.ended().is_none() {
                tracing::warn!(
                    pid = process.pid(),
                    "a container did not leave in time and is killed"
                );
            }
            // Dropping it kills what still runs and reaps it.
        }
    }

    /// The pid and generation of a function's container, while it is up.
    pub fn containers(&self) -> impl Iterator<Item = (&str, u32)> {
        self.slots.iter().filter_map(|slot| match &slot.phase {
            Phase::Up { container, .. } => Some((slot.spec.name.as_str(), container.pid)),
            _ => None,
        })
    }

    fn start_error(&self, index: usize, cause: &Cause) -> StartError {
        let function = self.slots[index].spec.name.clone();
        StartError::Container { function, reason: cause.of_start() }
    }

    pub(super) fn post_all(&self, message: impl Fn() -> ToShard) {
        for shard in &self.shards {
            shard.send(message());
        }
    }

    fn next_due(&self) -> Option<Instant> {
        self.next_look().into_iter().chain(self.next_change()).min()
    }

    pub(super) fn start(&mut self, index: usize) -> Result<(), Cause> {
        let (slot, sockets) = (&mut self.slots[index], self.sockets.path());
        let started = slot.start(index, &self.runtimes, &mut self.groups, sockets, &self.capture);
        self.stats.containers.count_start(index);
        self.stats.containers.set_breaker(index, slot.restarts.breaker());
        started
    }

    /// Waits for one round of news, until `deadline` at most, and handles it.
    fn step(&mut self, deadline: Option<Instant>) -> Signal {
        let due = self.slots.iter().filter_map(Slot::deadline).chain(deadline).min();
        let mut signal = Signal::None;
        for source in self.wait(due) {
            match source {
                Source::Mailbox => {
                    if self.read_mail() == Signal::Stop {
                        signal = Signal::Stop;
                    }
                }
                Source::Signals => {
                    if matches!(self.signals.read_signal(), Ok(Some(_))) {
                        signal = Signal::Stop;
                    }
                }
                Source::Making(index) => {
                    if let Err(reason) = self.slots[index].made() {
                        self.end(index, reason);
                    }
                }
                Source::Process(index) => self.process_ended(index),
                // What has left is reaped below.
                Source::Leaving(_) => {}
                Source::Listener(index) => self.accept(index),
                Source::Control(index) => self.read_control(index),
            }
        }
        let now = Instant::now();
        for index in 0..self.slots.len() {
            self.slots[index].reap();
            if let Some(cause) = self.slots[index].overdue(now) {
                self.end(index, cause);
            }
            if self.slots[index].recovers(now) {
                let name = &self.slots[index].spec.name;
                tracing::info!(function = name, "its containers live again: calls are as usual");
                self.stats.containers.set_breaker(index, Breaker::Closed);
            }
        }
        signal
    }

    fn wait(&self, deadline: Option<Instant>) -> Vec<Source> {
        let mut watch = Watch::new();
        watch.add(Source::Mailbox, self.mailbox.bell());
        watch.add(Source::Signals, self.signals.as_fd());
        for (index, slot) in self.slots.iter().enumerate() {
            slot.watch(index, &mut watch);
        }
        watch.wait(deadline)
    }

    fn read_mail(&mut self) -> Signal {
        let mut signal = Signal::None;
        self.mailbox.hush();
        while let Some(message) = self.mailbox.take() {
            match message {
                ToSupervisor::Drained { .. } => self.drained += 1,
                // A signal that came before is no reason to cut the drain short.
                ToSupervisor::Drain if self.is_stopping => {}
                ToSupervisor::Drain => signal = Signal::Stop,
                ToSupervisor::ShardFailed { shard, reason } => {
                    self.failure = Some(format!("shard {shard}: {reason}"));
                }
                ToSupervisor::Parted { function, generation } => {
                    self.shard_answered(function, generation, Reply::Parted);
                }
                ToSupervisor::Kept { function, generation } => {
                    self.shard_answered(function, generation, Reply::Kept);
                }
                ToSupervisor::Wanted { function } => self.call_waits(function),
                ToSupervisor::Warm { function } => self.warm(function),
                ToSupervisor::Routed { name } => self.routed(&name),
                ToSupervisor::Left { function, empty } => self.left(function, empty),
                ToSupervisor::Change(change) => self.change(change),
                ToSupervisor::Condemn { function, generation, cause } => {
                    let index = function.index();
                    let slot = self.slots.get(index);
                    if slot.is_some_and(|slot| slot.generation == generation) {
                        self.end(index, cause);
                    }
                }
            }
        }
        signal
    }

    /// The pidfd became readable. A refusal that the launcher left in its socket says more than its exit code.
    fn process_ended(&mut self, index: usize) {
        self.accept(index);
        self.read_control(index);
        if let Some(cause) = self.slots[index].ended() {
            self.end(index, cause);
        }
    }

    fn accept(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let Phase::Starting { process, listener, peer: peer @ None, strangers, .. } =
            &mut slot.phase
        else {
            return;
        };
        match listener.accept_process(process.pid(), process.pidfd()) {
            Ok(Some(socket)) => {
                *peer = Some(socket);
                self.read_control(index);
            }
            Ok(None) => {}
            Err(error) => {
                *strangers += 1;
                let many = *strangers > STRANGERS_MAX;
                tracing::warn!(
                    function = slot.spec.name,
                    "a stranger at a container's control socket was turned away: {error}"
                );
                if many {
                    let reason = "too many strangers came to its control socket";
                    self.end(index, Cause::protocol(reason));
                }
            }
        }
    }

    fn read_control(&mut self, index: usize) {
        for _ in 0..CONTROL_BUDGET {
            let Some(socket) = self.slots[index].control() else { return };
            let message = match socket.receive_from_launcher() {
                Ok(Some(message)) => message,
                Ok(None) => return,
                // Its end follows on the pidfd, with the cause.
                Err(ControlError::Closed) => return self.slots[index].hang_up(),
                Err(error) => {
                    let reason = format_args!("its launcher sent nonsense: {error}");
                    return self.end(index, Cause::protocol(reason));
                }
            };
            if let Err(cause) = self.launcher_said(index, message) {
                return self.end(index, cause);
            }
        }
    }

    fn launcher_said(&mut self, index: usize, message: FromLauncher) -> Result<(), Cause> {
        let function = FunctionId::from_index(index);
        let slot = &mut self.slots[index];
        match message {
            FromLauncher::Hello { version, .. } => {
                let (container, start_time) = slot.hello(version)?;
                self.stats.containers.set_start_time(index, start_time);
                self.stats.containers.set_state(index, State::Up);
                self.post_all(|| ToShard::ContainerUp {
                    function,
                    container: Arc::clone(&container),
                });
                if self.slots[index].spec.min_workers == 0 {
                    self.warm(function);
                }
                Ok(())
            }
            FromLauncher::Refused { message } => Err(Cause::FailedStart { reason: message }),
            FromLauncher::SpawnFailed { shard, lane, message } => {
                let post = self.shards.get(usize::from(shard));
                let post =
                    post.ok_or_else(|| Cause::protocol(format_args!("there is no shard {shard}")))?;
                if let Stage::Candidate { .. } = slot.stage {
                    let reason = format_args!("a worker could not be started: {message}");
                    return Err(Cause::failed_start(reason));
                }
                let (generation, lane) = (slot.generation, ipc::LaneIndex(lane));
                post.send(ToShard::WorkerFailed { function, generation, lane, message });
                Ok(())
            }
        }
    }
}
