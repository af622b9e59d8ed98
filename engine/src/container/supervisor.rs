//! Keeps one container per function alive and tells the shards what became of each.
//!
//! Runs on the process's main thread, off the call path: it sleeps in `poll(2)` on every container's
//! pidfd and control socket, its mailbox and the signals. A container's life:
//!
//! ```text
//!            start              Hello
//!  Waiting ---------> Starting -------> Up
//!     ^                  |              |
//!     |   Refused, late  |   its end,   |
//!     +------------------+---- a fault -+
//! ```
//!
//! A container that ends is started again at once; one that keeps ending soon after its start waits
//! longer each time. During [`Supervisor::start_all`] nothing is retried: the first failure is the result.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipc::control::{ControlError, ControlListener, ControlSocket, FromLauncher, ToLauncher};
use nix::sys::signalfd::SignalFd;
use thiserror::Error;

use super::process::Process;
use super::watch::{Source, Watch};
use super::{Container, ContainerSpec, SocketDirectory};
use crate::core::FunctionId;
use crate::mailbox::{Mailbox, Post, ToShard, ToSupervisor};

/// A launcher that has not said hello by then is taken for dead: loading a library takes milliseconds.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// A container that lived this long was healthy: its end does not count towards the backoff.
const HEALTHY_AFTER: Duration = Duration::from_secs(1);
/// Backoff after the second early death in a row, doubled each time up to the maximum.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How long containers may take to leave when asked.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Control messages taken from one container before others get their turn.
const CONTROL_BUDGET: usize = 64;

/// A container could not be started.
#[derive(Debug, Error)]
#[error("function \"{function}\": {reason}")]
pub struct StartError {
    /// The function's name.
    pub function: String,
    /// What went wrong, in one line.
    pub reason: String,
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
    worker: PathBuf,
    sockets: SocketDirectory,
    slots: Vec<Slot>,
    shards: Vec<Post<ToShard>>,
    mailbox: Mailbox<ToSupervisor>,
    signals: SignalFd,
    drained: usize,
    failure: Option<String>,
}

#[derive(Debug)]
struct Slot {
    spec: ContainerSpec,
    generation: u32,
    /// Deaths in a row that came soon after a start.
    early_deaths: u32,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Waiting {
        until: Instant,
    },
    Starting {
        process: Process,
        listener: ControlListener,
        peer: Option<ControlSocket>,
        until: Instant,
    },
    Up {
        process: Process,
        container: Arc<Container>,
        since: Instant,
    },
    Stopped,
}

impl Supervisor {
    /// Makes a supervisor; nothing is started yet. `signals` must be blocked in every thread.
    #[must_use]
    pub fn new(
        worker: PathBuf,
        sockets: SocketDirectory,
        specs: Vec<ContainerSpec>,
        shards: Vec<Post<ToShard>>,
        mailbox: Mailbox<ToSupervisor>,
        signals: SignalFd,
    ) -> Self {
        let now = Instant::now();
        let slots = specs
            .into_iter()
            .map(|spec| Slot {
                spec,
                generation: 0,
                early_deaths: 0,
                phase: Phase::Waiting { until: now },
            })
            .collect();
        Self { worker, sockets, slots, shards, mailbox, signals, drained: 0, failure: None }
    }

    /// Starts every container and returns when all are up.
    ///
    /// # Errors
    /// With the first container that cannot be started; the others end when `self` is dropped.
    pub fn start_all(&mut self) -> Result<(), StartError> {
        for index in 0..self.slots.len() {
            self.start(index).map_err(|reason| self.start_error(index, reason))?;
        }
        while self.slots.iter().any(|slot| !matches!(slot.phase, Phase::Up { .. })) {
            let mut failed = None;
            let interrupted = self.step(&mut |index, reason| {
                failed.get_or_insert((index, reason));
            });
            if let Some((index, reason)) = failed {
                return Err(self.start_error(index, reason));
            }
            if interrupted {
                return Err(self.start_error(0, "the start was interrupted by a signal".to_owned()));
            }
        }
        Ok(())
    }

    /// Supervises until a signal, then lets the shards finish within `drain_timeout`.
    #[must_use]
    pub fn run(&mut self, drain_timeout: Duration) -> Stopped {
        while self.failure.is_none() {
            if self.step_and_restart() {
                break;
            }
        }
        if let Some(reason) = self.failure.take() {
            return Stopped::Failed(reason);
        }
        // The first shard accepts for all: it passes this on once it has stopped, so that no connection
        // reaches a shard that believes it is done.
        if let Some(acceptor) = self.shards.first() {
            acceptor.send(ToShard::Drain);
        }
        let deadline = Instant::now() + drain_timeout;
        while self.drained < self.shards.len() && self.failure.is_none() {
            if Instant::now() >= deadline || self.step_until(deadline) {
                return Stopped::Cut;
            }
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
                Phase::Waiting { .. } | Phase::Stopped => {}
            }
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

    fn start_error(&self, index: usize, reason: String) -> StartError {
        let function =
            self.slots.get(index).map_or_else(String::new, |slot| slot.spec.name.clone());
        StartError { function, reason }
    }

    fn post_all(&self, message: impl Fn() -> ToShard) {
        for shard in &self.shards {
            shard.send(message());
        }
    }

    fn start(&mut self, index: usize) -> Result<(), String> {
        let slot = &mut self.slots[index];
        slot.generation = slot.generation.wrapping_add(1);
        let name = format!("{index}-{}", slot.generation);
        let listener = ControlListener::bind(self.sockets.path(), &name)
            .map_err(|error| format!("its control socket could not be made: {error}"))?;
        let process =
            Process::start(&self.worker, &slot.spec, listener.path()).map_err(|error| {
                format!("its container could not be started ({}): {error}", self.worker.display())
            })?;
        let until = Instant::now() + HELLO_TIMEOUT;
        slot.phase = Phase::Starting { process, listener, peer: None, until };
        Ok(())
    }

    fn step_and_restart(&mut self) -> bool {
        let mut ended = Vec::new();
        let interrupted = self.step(&mut |index, reason| ended.push((index, reason)));
        for (index, reason) in ended {
            self.wait_before_restart(index, &reason);
        }
        self.restart_due();
        interrupted
    }

    fn step_until(&mut self, deadline: Instant) -> bool {
        let mut ended = Vec::new();
        let interrupted = self
            .step_with_deadline(Some(deadline), &mut |index, reason| ended.push((index, reason)));
        for (index, reason) in ended {
            self.wait_before_restart(index, &reason);
        }
        self.restart_due();
        interrupted
    }

    fn step(&mut self, ended: &mut dyn FnMut(usize, String)) -> bool {
        self.step_with_deadline(None, ended)
    }

    /// Waits for one round of news and handles it. Reports containers that are gone to `ended`; their
    /// slot is `Waiting` then. Returns whether a signal asked to stop.
    fn step_with_deadline(
        &mut self,
        deadline: Option<Instant>,
        ended: &mut dyn FnMut(usize, String),
    ) -> bool {
        let timeout = self.next_deadline().into_iter().chain(deadline).min();
        let mut interrupted = false;
        for source in self.wait(timeout) {
            match source {
                Source::Mailbox => self.read_mail(ended),
                Source::Signals => interrupted |= matches!(self.signals.read_signal(), Ok(Some(_))),
                Source::Process(index) => self.process_ended(index, ended),
                Source::Listener(index) => self.accept(index, ended),
                Source::Control(index) => self.read_control(index, ended),
            }
        }
        let now = Instant::now();
        for index in 0..self.slots.len() {
            if matches!(&self.slots[index].phase, Phase::Starting { until, .. } if *until <= now) {
                let reason = format!("its launcher said nothing within {HELLO_TIMEOUT:?}");
                self.end(index, reason, ended);
            }
        }
        interrupted
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.slots
            .iter()
            .filter_map(|slot| match &slot.phase {
                Phase::Waiting { until } | Phase::Starting { until, .. } => Some(*until),
                Phase::Up { .. } | Phase::Stopped => None,
            })
            .min()
    }

    fn wait(&self, deadline: Option<Instant>) -> Vec<Source> {
        let mut watch = Watch::new();
        watch.add(Source::Mailbox, self.mailbox.bell());
        watch.add(Source::Signals, self.signals.as_fd());
        for (index, slot) in self.slots.iter().enumerate() {
            match &slot.phase {
                Phase::Starting { process, listener, peer, .. } => {
                    watch.add(Source::Process(index), process.pidfd());
                    match peer {
                        Some(peer) => watch.add(Source::Control(index), peer.as_fd()),
                        None => watch.add(Source::Listener(index), listener.as_fd()),
                    }
                }
                Phase::Up { process, container, .. } => {
                    watch.add(Source::Process(index), process.pidfd());
                    watch.add(Source::Control(index), container.control.as_fd());
                }
                Phase::Waiting { .. } | Phase::Stopped => {}
            }
        }
        watch.wait(deadline)
    }

    fn read_mail(&mut self, ended: &mut dyn FnMut(usize, String)) {
        self.mailbox.hush();
        while let Some(message) = self.mailbox.take() {
            match message {
                ToSupervisor::Drained { .. } => self.drained += 1,
                ToSupervisor::ShardFailed { shard, reason } => {
                    self.failure = Some(format!("shard {shard}: {reason}"));
                }
                ToSupervisor::Condemn { function, generation, reason } => {
                    let index = function.index();
                    let current =
                        self.slots.get(index).is_some_and(|slot| slot.generation == generation);
                    if current {
                        self.end(index, format!("it broke the protocol: {reason}"), ended);
                    }
                }
            }
        }
    }

    /// The pidfd became readable. A refusal that the launcher left in its socket says more than its exit code.
    fn process_ended(&mut self, index: usize, ended: &mut dyn FnMut(usize, String)) {
        self.accept(index, ended);
        self.read_control(index, ended);
        let (Phase::Starting { process, .. } | Phase::Up { process, .. }) =
            &mut self.slots[index].phase
        else {
            return;
        };
        if let Some(how) = process.ended() {
            self.end(index, how, ended);
        }
    }

    fn accept(&mut self, index: usize, ended: &mut dyn FnMut(usize, String)) {
        let Phase::Starting { process, listener, peer, .. } = &mut self.slots[index].phase else {
            return;
        };
        if peer.is_some() {
            return;
        }
        match listener.accept(process.pid()) {
            Ok(Some(socket)) => {
                *peer = Some(socket);
                self.read_control(index, ended);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(
                function = self.slots[index].spec.name,
                "a stranger at a container's control socket was turned away: {error}"
            ),
        }
    }

    fn read_control(&mut self, index: usize, ended: &mut dyn FnMut(usize, String)) {
        for _ in 0..CONTROL_BUDGET {
            let socket = match &self.slots[index].phase {
                Phase::Starting { peer: Some(peer), .. } => peer,
                Phase::Up { container, .. } => &container.control,
                _ => return,
            };
            let message = match socket.receive_from_launcher() {
                Ok(Some(message)) => message,
                Ok(None) => return,
                // Its end follows on the pidfd, with the reason.
                Err(ControlError::Closed) => return self.expect_end(index),
                Err(error) => {
                    return self.end(index, format!("its launcher sent nonsense: {error}"), ended);
                }
            };
            if let Err(reason) = self.launcher_said(index, message) {
                return self.end(index, reason, ended);
            }
        }
    }

    /// A launcher that closed its socket must be gone soon; one that stays is killed.
    fn expect_end(&mut self, index: usize) {
        if let Phase::Starting { process, .. } | Phase::Up { process, .. } =
            &mut self.slots[index].phase
            && process.ended().is_none()
        {
            process.kill();
        }
    }

    fn launcher_said(&mut self, index: usize, message: FromLauncher) -> Result<(), String> {
        match message {
            FromLauncher::Hello { version, .. } => self.hello(index, version),
            FromLauncher::Refused { message } => Err(message),
            FromLauncher::SpawnFailed { shard, lane, message } => {
                let slot = &self.slots[index];
                tracing::warn!(
                    function = slot.spec.name,
                    lane,
                    "a worker could not be started: {message}"
                );
                let shard = self
                    .shards
                    .get(usize::from(shard))
                    .ok_or_else(|| format!("there is no shard {shard}"))?;
                shard.send(ToShard::WorkerFailed {
                    function: FunctionId::from_index(index),
                    generation: slot.generation,
                    lane: ipc::LaneIndex(lane),
                });
                Ok(())
            }
        }
    }

    fn hello(&mut self, index: usize, version: u32) -> Result<(), String> {
        let slot = &mut self.slots[index];
        if version != ipc::control::PROTOCOL_VERSION {
            let expected = ipc::control::PROTOCOL_VERSION;
            return Err(format!(
                "nightcore-worker speaks protocol {version}, this engine {expected}"
            ));
        }
        match std::mem::replace(&mut slot.phase, Phase::Stopped) {
            Phase::Starting { process, peer: Some(control), .. } => {
                let welcome = ToLauncher::Welcome {
                    version: ipc::control::PROTOCOL_VERSION,
                    function: slot.spec.name.clone(),
                    payload_max: slot.spec.payload_max,
                };
                control
                    .send_to_launcher(&welcome, &[])
                    .map_err(|error| format!("its launcher could not be greeted: {error}"))?;
                let container = Arc::new(Container::new(
                    slot.generation,
                    process.pid(),
                    control,
                    slot.spec.max_workers,
                ));
                slot.phase =
                    Phase::Up { process, container: Arc::clone(&container), since: Instant::now() };
                let function = FunctionId::from_index(index);
                self.post_all(|| ToShard::ContainerUp {
                    function,
                    container: Arc::clone(&container),
                });
                Ok(())
            }
            phase => {
                slot.phase = phase;
                Err("its launcher said hello twice".to_owned())
            }
        }
    }

    /// Ends what runs in the slot and reports it.
    fn end(&mut self, index: usize, reason: String, ended: &mut dyn FnMut(usize, String)) {
        let slot = &mut self.slots[index];
        let now = Instant::now();
        match std::mem::replace(&mut slot.phase, Phase::Waiting { until: now }) {
            Phase::Up { since, process, .. } => {
                drop(process);
                slot.early_deaths =
                    if now - since < HEALTHY_AFTER { slot.early_deaths + 1 } else { 0 };
                let function = FunctionId::from_index(index);
                let generation = slot.generation;
                self.post_all(|| ToShard::ContainerDown { function, generation });
            }
            Phase::Starting { .. } => slot.early_deaths += 1,
            phase @ (Phase::Waiting { .. } | Phase::Stopped) => {
                slot.phase = phase;
                return;
            }
        }
        ended(index, reason);
    }

    fn wait_before_restart(&mut self, index: usize, reason: &str) {
        let slot = &mut self.slots[index];
        let delay = backoff(slot.early_deaths);
        tracing::warn!(
            function = slot.spec.name,
            ?delay,
            "container ended: {reason}; starting it again"
        );
        slot.phase = Phase::Waiting { until: Instant::now() + delay };
    }

    fn restart_due(&mut self) {
        let now = Instant::now();
        for index in 0..self.slots.len() {
            if !matches!(&self.slots[index].phase, Phase::Waiting { until } if *until <= now) {
                continue;
            }
            if let Err(reason) = self.start(index) {
                self.slots[index].early_deaths += 1;
                self.wait_before_restart(index, &reason);
            }
        }
    }
}

/// The first two early deaths in a row cost no wait, later ones twice as much each.
fn backoff(early_deaths: u32) -> Duration {
    match early_deaths {
        0 | 1 => Duration::ZERO,
        n => BACKOFF_FIRST.saturating_mul(1 << (n - 2).min(16)).min(BACKOFF_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_early_death_is_restarted_at_once_and_later_ones_wait_longer_up_to_a_limit() {
        assert_eq!(backoff(0), Duration::ZERO);
        assert_eq!(backoff(1), Duration::ZERO);
        assert_eq!(backoff(2), BACKOFF_FIRST);
        assert_eq!(backoff(3), BACKOFF_FIRST * 2);
        assert_eq!(backoff(u32::MAX), BACKOFF_MAX);
    }
}
