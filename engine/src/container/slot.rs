//! One function's place in the supervisor: its container, or the wait for the next one.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipc::control::{ControlListener, ControlSocket, PROTOCOL_VERSION, ToLauncher};

use super::cgroup::ControlGroups;
use super::lease::Lease;
use super::process::Process;
use super::rollout::Stage;
use super::runtime::{Making, Runtimes, Start, Started};
use super::watch::{Source, Watch};
use super::{Container, ContainerKind, ContainerSpec, Limits};
use crate::logs::Capture;

/// A launcher that has not said hello by then is taken for dead: loading a library takes milliseconds.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// A runtime is taken to hang that is not done by then. It takes tens of milliseconds, but all functions of a
/// start are made at once.
const MAKING_TIMEOUT: Duration = Duration::from_secs(30);
/// A container that lived this long was healthy: its end does not count towards the backoff.
const HEALTHY_AFTER: Duration = Duration::from_secs(1);
/// How long a container may take to leave when asked.
pub(super) const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
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
    pub(super) stage: Stage,
    /// Whether a call waits for the next container.
    pub(super) wanted: bool,
    /// The last container that was stopped, until it has gone.
    pub(super) leaving: Option<Leaving>,
    /// When the slot was made.
    since: Instant,
    /// Deaths in a row that came soon after a start.
    early_deaths: u32,
}

/// Where a container is in its life; the supervisor's module draws it.
#[derive(Debug)]
pub(super) enum Phase {
    Waiting {
        until: Instant,
    },
    /// A runtime makes the container, which may connect already.
    Making {
        making: Making,
        listener: ControlListener,
        since: Instant,
        until: Instant,
    },
    Starting {
        process: Process,
        listener: ControlListener,
        peer: Option<ControlSocket>,
        /// Connections of others that were turned away.
        strangers: u32,
        since: Instant,
        until: Instant,
    },
    Up {
        process: Process,
        container: Arc<Container>,
        since: Instant,
        lease: Lease,
    },
    /// Nobody calls the function.
    Idle,
    Stopped,
}

/// A container that was asked to leave, of which no shard knows any more.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) process: Process,
    until: Instant,
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
        let since = Instant::now();
        let phase = Phase::Waiting { until: since };
        let (generation, early_deaths) = (0, 0);
        let (stage, wanted, leaving) = (Stage::Serving, false, None);
        Self { spec, generation, phase, stage, wanted, leaving, since, early_deaths }
    }

    /// Starts the next container; its socket lies in `sockets`, named for the function's `index`.
    pub(super) fn start(
        &mut self,
        index: usize,
        runtimes: &Runtimes,
        groups: &mut ControlGroups,
        sockets: &Path,
        capture: &Capture,
    ) -> Result<(), String> {
        let since = Instant::now();
        self.generation = self.generation.wrapping_add(1);
        let name = format!("{index}-{}", self.generation);
        let listener = ControlListener::bind(sockets, &name)
            .map_err(|error| format!("its control socket could not be made: {error}"))?;
        let failed = |error| format!("its container could not be started: {error}");
        let (spec, socket) = (&self.spec, listener.path());
        let runtime = runtimes.of(spec.kind);
        runtime.permit().map_err(failed)?;
        let limits = match spec.kind {
            ContainerKind::Process | ContainerKind::Sandbox => spec.limits,
            // Its runtime makes groups itself.
            ContainerKind::Oci => Limits::default(),
        };
        let group = groups.create(&format!("{name}-{}", spec.name), &limits);
        let group = group.map_err(|error| error.to_string())?;
        let output = capture.open(spec, self.generation).map_err(failed)?;
        let start = Start { spec, index, name: &name, socket, group: &group, output };
        self.phase = match runtime.start(start).map_err(failed)? {
            Started::Running(mut process) => {
                process.keep(group);
                let until = since + HELLO_TIMEOUT;
                Phase::Starting { process, listener, peer: None, strangers: 0, since, until }
            }
            Started::Making(making) => {
                Phase::Making { making, listener, since, until: since + MAKING_TIMEOUT }
            }
        };
        Ok(())
    }

    /// The runtime has news: goes on with the container, if it is made.
    pub(super) fn made(&mut self) -> Result<(), String> {
        match std::mem::replace(&mut self.phase, Phase::Stopped) {
            Phase::Making { mut making, listener, since, until } => match making.finish() {
                Some(Ok(process)) => {
                    let until = Instant::now() + HELLO_TIMEOUT;
                    self.phase = Phase::Starting {
                        process,
                        listener,
                        peer: None,
                        strangers: 0,
                        since,
                        until,
                    };
                    Ok(())
                }
                unfinished => {
                    self.phase = Phase::Making { making, listener, since, until };
                    let failed = |error| format!("its container could not be started: {error}");
                    unfinished.map_or(Ok(()), |result| result.map(drop).map_err(failed))
                }
            },
            phase => {
                self.phase = phase;
                Ok(())
            }
        }
    }

    /// Why the start that is under way has failed, if it takes too long.
    pub(super) fn overdue(&self, now: Instant) -> Option<String> {
        match &self.phase {
            Phase::Making { until, .. } if *until <= now => {
                Some(format!("its runtime was not done within {MAKING_TIMEOUT:?}"))
            }
            Phase::Starting { until, .. } if *until <= now => {
                Some(format!("its launcher said nothing within {HELLO_TIMEOUT:?}"))
            }
            _ => None,
        }
    }

    /// When something is due without news.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let due = match &self.phase {
            Phase::Waiting { until }
            | Phase::Making { until, .. }
            | Phase::Starting { until, .. } => Some(*until),
            Phase::Up { .. } | Phase::Idle | Phase::Stopped => None,
        };
        self.leaving.as_ref().map(|leaving| leaving.until).into_iter().chain(due).min()
    }

    /// When to look whether the container is idle.
    pub(super) fn look_at(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Up { lease, .. } => lease.look_at(),
            _ => None,
        }
    }

    /// Adds the descriptors that have news of this slot.
    pub(super) fn watch<'fd>(&'fd self, index: usize, watch: &mut Watch<'fd>) {
        if let Some(leaving) = &self.leaving {
            watch.add(Source::Leaving(index), leaving.process.pidfd());
        }
        match &self.phase {
            Phase::Making { making, .. } => watch.add(Source::Making(index), making.pidfd()),
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
            Phase::Waiting { .. } | Phase::Idle | Phase::Stopped => {}
        }
    }

    /// The socket on which the launcher speaks.
    pub(super) fn control(&self) -> Option<&ControlSocket> {
        match &self.phase {
            Phase::Starting { peer, .. } => peer.as_ref(),
            Phase::Up { container, .. } => Some(&container.control),
            _ => None,
        }
    }

    pub(super) fn process(&mut self) -> Option<&mut Process> {
        match &mut self.phase {
            Phase::Starting { process, .. } | Phase::Up { process, .. } => Some(process),
            _ => None,
        }
    }

    /// The launcher said hello: greets it and gives the container that is up now, and how long its start
    /// took.
    pub(super) fn hello(&mut self, version: u32) -> Result<(Arc<Container>, Duration), String> {
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
            Phase::Starting { process, peer: Some(control), since: started, .. } => {
                let greeted = control.send_to_launcher(&greeting, &[]);
                let container = Arc::new(Container::new(
                    self.generation,
                    process.pid(),
                    control,
                    self.spec.max_workers,
                ));
                let since = Instant::now();
                let lease = self.lease(since);
                self.phase = Phase::Up { process, container: Arc::clone(&container), since, lease };
                self.wanted = false;
                greeted.map_err(|error| format!("its launcher could not be greeted: {error}"))?;
                Ok((container, since - started))
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
            Phase::Making { .. } | Phase::Starting { .. } => {
                self.early_deaths += 1;
                Ended::Starting
            }
            phase @ (Phase::Waiting { .. } | Phase::Idle | Phase::Stopped) => {
                self.phase = phase;
                Ended::Nothing
            }
        }
    }

    /// The shards have the container for at least another `idle_timeout`.
    pub(super) fn renew_lease(&mut self) {
        let renewed = self.lease(Instant::now());
        if let Phase::Up { lease, .. } = &mut self.phase {
            *lease = renewed;
            self.wanted = false;
        }
    }

    fn lease(&self, now: Instant) -> Lease {
        Lease::Held { look_at: self.spec.idle_timeout.map(|timeout| now + timeout) }
    }

    /// Asks a container that no shard has any more to leave. It did nothing wrong, so that earlier
    /// deaths are forgotten.
    pub(super) fn leave(&mut self) {
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Up { process, container, .. } => {
                // One that is gone needs no order.
                let _ = container.control.send_to_launcher(&ToLauncher::Stop, &[]);
                self.early_deaths = 0;
                // One at a time: the one before has had its time.
                self.dismiss();
                self.leaving = Some(Leaving { process, until: Instant::now() + LEAVE_TIMEOUT });
            }
            phase => self.phase = phase,
        }
    }

    /// Lets go of a container that has left, or kills one that has not in time.
    pub(super) fn reap(&mut self) {
        let Some(leaving) = &mut self.leaving else { return };
        if leaving.process.ended().is_some() || leaving.until <= Instant::now() {
            self.dismiss();
        }
    }

    /// Kills the container that was asked to leave, if it has not left.
    fn dismiss(&mut self) {
        let Some(mut leaving) = self.leaving.take() else { return };
        if leaving.process.ended().is_none() {
            let (name, pid) = (&self.spec.name, leaving.process.pid());
            tracing::warn!(function = name, pid, "a container did not leave in time and is killed");
        }
    }

    /// A call waits for a container: none that is idle stays so. Whether this wakes it.
    pub(super) fn want(&mut self) -> bool {
        let wakes = match &self.phase {
            // The shard that said so has it by now.
            Phase::Up { lease: Lease::Held { .. }, .. } => return false,
            Phase::Idle => true,
            _ => false,
        };
        self.wanted = true;
        if wakes {
            self.phase = Phase::Waiting { until: Instant::now() };
        }
        wakes
    }

    /// Stays down, instead of the start that is due, if no call waits and none came for `quiet`.
    pub(super) fn rest(&mut self, quiet: Duration) -> bool {
        let quiet = quiet.min(self.since.elapsed());
        let rests = !self.wanted && self.spec.idle_timeout.is_some_and(|timeout| timeout <= quiet);
        if rests {
            self.phase = Phase::Idle;
        }
        rests
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

    /// A slot whose next start is due.
    fn due(idle_timeout: Option<Duration>) -> Slot {
        Slot::new(ContainerSpec {
            name: "echo".to_owned(),
            version: 1,
            library: "libecho.so".into(),
            kind: ContainerKind::Process,
            limits: Limits::default(),
            network: false,
            read_only: Vec::new(),
            env: Vec::new(),
            payload_max: 1 << 20,
            min_workers: 1,
            max_workers: 1,
            idle_timeout,
            log_rate: 1000,
            niceness: 0,
        })
    }

    #[test]
    fn what_nobody_calls_stays_down_until_the_first_call_that_waits() {
        let mut slot = due(Some(Duration::ZERO));
        assert!(slot.rest(Duration::MAX));
        assert!(matches!(slot.phase, Phase::Idle));
        assert_eq!(slot.deadline(), None);
        assert!(slot.want());
        assert!(!slot.want(), "the second call finds it waking");
        assert!(slot.deadline().is_some());
        assert!(!slot.rest(Duration::MAX), "a call waits");
    }

    #[test]
    fn what_was_called_of_late_is_started_again() {
        assert!(!due(Some(Duration::from_secs(60))).rest(Duration::from_secs(59)));
        // Nobody can have called a slot before it was there.
        assert!(!due(Some(Duration::from_secs(60))).rest(Duration::MAX));
        assert!(!due(None).rest(Duration::MAX));
    }

    #[test]
    fn a_call_that_waits_does_not_cut_the_backoff_short() {
        let mut slot = due(Some(Duration::ZERO));
        slot.early_deaths = 5;
        slot.back_off();
        let until = slot.deadline();
        assert!(!slot.want());
        assert_eq!(slot.deadline(), until);
    }
}
