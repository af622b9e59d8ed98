//! One function's place in the supervisor: its container, or the wait for the next one.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipc::control::{ControlListener, ControlSocket, PROTOCOL_VERSION, ToLauncher};

use super::process::Process;
use super::watch::{Source, Watch};
use super::{Container, ContainerSpec};

/// A launcher that has not said hello by then is taken for dead: loading a library takes milliseconds.
pub(super) const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// A container that lived this long was healthy: its end does not count towards the backoff.
const HEALTHY_AFTER: Duration = Duration::from_secs(1);
/// Backoff after the second early death in a row, doubled each time up to the maximum.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// See the module's description.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) spec: ContainerSpec,
    /// Counts the containers that the function has had.
    pub(super) generation: u32,
    pub(super) phase: Phase,
    /// Deaths in a row that came soon after a start.
    early_deaths: u32,
}

/// Where a container is in its life; the supervisor's module draws it.
#[derive(Debug)]
pub(super) enum Phase {
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

/// What ended in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Nothing ran.
    Nothing,
    /// A container that no shard knew of.
    Starting,
    /// A container that shards must forget.
    Up,
}

impl Slot {
    pub(super) fn new(spec: ContainerSpec) -> Self {
        let phase = Phase::Waiting { until: Instant::now() };
        Self { spec, generation: 0, phase, early_deaths: 0 }
    }

    /// Starts the next container; its socket lies in `sockets`, named for the function's `index`.
    pub(super) fn start(
        &mut self,
        index: usize,
        worker: &Path,
        sockets: &Path,
    ) -> Result<(), String> {
        self.generation = self.generation.wrapping_add(1);
        let name = format!("{index}-{}", self.generation);
        let listener = ControlListener::bind(sockets, &name)
            .map_err(|error| format!("its control socket could not be made: {error}"))?;
        let process = Process::start(worker, &self.spec, listener.path()).map_err(|error| {
            format!("its container could not be started ({}): {error}", worker.display())
        })?;
        let until = Instant::now() + HELLO_TIMEOUT;
        self.phase = Phase::Starting { process, listener, peer: None, until };
        Ok(())
    }

    /// When something is due without news.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Waiting { until } | Phase::Starting { until, .. } => Some(*until),
            Phase::Up { .. } | Phase::Stopped => None,
        }
    }

    /// Adds the descriptors that have news of this slot.
    pub(super) fn watch<'fd>(&'fd self, index: usize, watch: &mut Watch<'fd>) {
        match &self.phase {
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

    /// The socket on which the launcher speaks.
    pub(super) fn control(&self) -> Option<&ControlSocket> {
        match &self.phase {
            Phase::Starting { peer, .. } => peer.as_ref(),
            Phase::Up { container, .. } => Some(&container.control),
            Phase::Waiting { .. } | Phase::Stopped => None,
        }
    }

    pub(super) fn process(&mut self) -> Option<&mut Process> {
        match &mut self.phase {
            Phase::Starting { process, .. } | Phase::Up { process, .. } => Some(process),
            Phase::Waiting { .. } | Phase::Stopped => None,
        }
    }

    /// The launcher said hello: greets it and gives the container that is up now.
    pub(super) fn hello(&mut self, version: u32) -> Result<Arc<Container>, String> {
        if version != PROTOCOL_VERSION {
            return Err(format!(
                "nightcore-worker speaks protocol {version}, this engine {PROTOCOL_VERSION}"
            ));
        }
        let greeting = ToLauncher::Welcome {
            version: PROTOCOL_VERSION,
            function: self.spec.name.clone(),
            payload_max: self.spec.payload_max,
        };
        match std::mem::replace(&mut self.phase, Phase::Stopped) {
            Phase::Starting { process, peer: Some(control), .. } => {
                let greeted = control.send_to_launcher(&greeting, &[]);
                let container = Arc::new(Container::new(
                    self.generation,
                    process.pid(),
                    control,
                    self.spec.max_workers,
                ));
                let since = Instant::now();
                self.phase = Phase::Up { process, container: Arc::clone(&container), since };
                greeted.map_err(|error| format!("its launcher could not be greeted: {error}"))?;
                Ok(container)
            }
            phase => {
                self.phase = phase;
                Err("its launcher said hello twice".to_owned())
            }
        }
    }

    /// Ends what runs; the slot waits then, and not at all if it was healthy.
    pub(super) fn end(&mut self) -> Ended {
        let now = Instant::now();
        match std::mem::replace(&mut self.phase, Phase::Waiting { until: now }) {
            Phase::Up { since, .. } => {
                let early = now - since < HEALTHY_AFTER;
                self.early_deaths = if early { self.early_deaths + 1 } else { 0 };
                Ended::Up
            }
            Phase::Starting { .. } => {
                self.early_deaths += 1;
                Ended::Starting
            }
            phase @ (Phase::Waiting { .. } | Phase::Stopped) => {
                self.phase = phase;
                Ended::Nothing
            }
        }
    }

    /// Puts the next start off, by how often it failed lately, and says by how much.
    pub(super) fn back_off(&mut self) -> Duration {
        let delay = backoff(self.early_deaths);
        self.phase = Phase::Waiting { until: Instant::now() + delay };
        delay
    }

    /// A start failed before there was a process.
    pub(super) fn start_failed(&mut self) {
        self.early_deaths += 1;
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
