//! One function's place in the supervisor: its container, or the wait for the next one.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipc::control::{ControlListener, ControlSocket, PROTOCOL_VERSION, ToLauncher};

use super::cgroup::ControlGroups;
use super::lease::Lease;
use super::process::Process;
use super::restart::{Breaker, Restarts};
use super::rollout::Stage;
use super::runtime::{Making, Runtimes, Start, Started};
use super::watch::{Source, Watch};
use super::{Cause, Container, ContainerKind, ContainerSpec, Limits};
use crate::logs::Capture;

/// A launcher that has not said hello by then is taken for dead: loading a library takes milliseconds.
pub(super) const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// A runtime is taken to hang that is not done by then. It takes tens of milliseconds, but all functions of a
/// start are made at once.
const MAKING_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a container may take to leave when asked.
pub(super) const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);
/// A container whose control socket is closed is dying, as a rule: how long that may take.
const HANG_UP_TIMEOUT: Duration = Duration::from_secs(2);

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
    /// When the next one may be started.
    pub(super) restarts: Restarts,
    /// The launcher closed its socket: when its container is killed.
    hung_up: Option<Instant>,
    /// When the slot was made.
    since: Instant,
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
    /// A container that shards must forget, and that was up for so long.
    Up { lived: Duration },
}

impl Slot {
    pub(super) fn new(spec: ContainerSpec) -> Self {
        let since = Instant::now();
        let phase = Phase::Waiting { until: since };
        let restarts = Restarts::new(spec.crash_loop);
        let (stage, generation) = (Stage::Serving, 0);
        let (wanted, leaving, hung_up) = (false, None, None);
        Self { spec, generation, phase, stage, wanted, leaving, restarts, hung_up, since }
    }

    /// Starts the next container; its socket lies in `sockets`, named for the function's `index`.
    pub(super) fn start(
        &mut self,
        index: usize,
        runtimes: &Runtimes,
        groups: &mut ControlGroups,
        sockets: &Path,
        capture: &Capture,
    ) -> Result<(), Cause> {
        let since = Instant::now();
        self.hung_up = None;
        self.restarts.starts();
        self.generation = self.generation.wrapping_add(1);
        let name = format!("{index}-{}", self.generation);
        let listener = ControlListener::bind(sockets, &name)
            .map_err(|error| Cause::failed_start(format_args!("no control socket: {error}")))?;
        let failed = |error: std::io::Error| Cause::failed_start(error);
        let (spec, socket) = (&self.spec, listener.path());
        let runtime = runtimes.of(spec.kind);
        runtime.permit().map_err(failed)?;
        let limits = match spec.kind {
            ContainerKind::Process | ContainerKind::Sandbox => spec.limits,
            // Its runtime makes groups itself.
            ContainerKind::Oci => Limits::default(),
        };
        let group = groups.create(&format!("{name}-{}", spec.name), &limits);
        let group = group.map_err(Cause::failed_start)?;
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
    pub(super) fn made(&mut self) -> Result<(), Cause> {
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
                    let failed = |error| {
                        Cause::failed_start(format_args!(
                            "its container could not be started: {error}"
                        ))
                    };
                    unfinished.map_or(Ok(()), |result| result.map(drop).map_err(failed))
                }
            },
            phase => {
                self.phase = phase;
                Ok(())
            }
        }
    }

    /// When something is due without news.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let due = match &self.phase {
            Phase::Waiting { until }
            | Phase::Making { until, .. }
            | Phase::Starting { until, .. } => Some(*until),
            Phase::Up { since, .. } => self.restarts.proven_at(*since),
            Phase::Idle | Phase::Stopped => None,
        };
        let leaves = self.leaving.as_ref().map(|leaving| leaving.until);
        [due, leaves, self.hung_up].into_iter().flatten().min()
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
                if peer.is_none() {
                    watch.add(Source::Listener(index), listener.as_fd());
                }
            }
            Phase::Up { process, .. } => {
                watch.add(Source::Process(index), process.pidfd());
            }
            Phase::Waiting { .. } | Phase::Idle | Phase::Stopped => {}
        }
        if let Some(control) = self.control() {
            watch.add(Source::Control(index), control.as_fd());
        }
    }

    /// The socket on which the launcher speaks, unless it has hung up.
    pub(super) fn control(&self) -> Option<&ControlSocket> {
        match &self.phase {
            _ if self.hung_up.is_some() => None,
            Phase::Starting { peer, .. } => peer.as_ref(),
            Phase::Up { container, .. } => Some(&container.control),
            _ => None,
        }
    }

    pub(super) fn process(&self) -> Option<&Process> {
        match &self.phase {
            Phase::Starting { process, .. } | Phase::Up { process, .. } => Some(process),
            _ => None,
        }
    }

    /// Why what runs has ended, if it has.
    pub(super) fn ended(&mut self) -> Option<Cause> {
        let process = match &mut self.phase {
            Phase::Starting { process, .. } | Phase::Up { process, .. } => process,
            _ => return None,
        };
        let cause = process.ended()?;
        Some(match (cause, self.spec.kind) {
            (Cause::OutOfMemory { .. }, _) => Cause::OutOfMemory { limit: self.spec.limits.memory },
            (cause, ContainerKind::Process) => cause,
            (cause, ContainerKind::Sandbox | ContainerKind::Oci) => cause.through_sandbox(),
        })
    }

    /// The launcher closed its socket. As a rule the process is ending, and says in a moment of what.
    pub(super) fn hang_up(&mut self) {
        self.hung_up = Some(Instant::now() + HANG_UP_TIMEOUT);
    }

    /// What runs and must not any longer, if that is so by `now`.
    pub(super) fn overdue(&self, now: Instant) -> Option<Cause> {
        match &self.phase {
            Phase::Making { until, .. } if *until <= now => {
                let reason = format_args!("its runtime was not done within {MAKING_TIMEOUT:?}");
                Some(Cause::failed_start(reason))
            }
            Phase::Starting { until, .. } if *until <= now => {
                let reason = format_args!("its launcher said nothing within {HELLO_TIMEOUT:?}");
                Some(Cause::failed_start(reason))
            }
            _ => self.hung_up.filter(|at| *at <= now).map(|_| Cause::HungUp),
        }
    }

    /// Whether the container that is up has just proved that the function is no longer in a crash loop.
    pub(super) fn recovers(&mut self, now: Instant) -> bool {
        let Phase::Up { since, .. } = &self.phase else { return false };
        let recovers = self.restarts.proven_at(*since).is_some_and(|at| at <= now);
        if recovers {
            self.restarts.forget();
        }
        recovers
    }

    /// The launcher said hello: greets it and gives the container that is up now, and how long its start
    /// took.
    pub(super) fn hello(&mut self, version: u32) -> Result<(Arc<Container>, Duration), Cause> {
        if version != PROTOCOL_VERSION {
            return Err(Cause::failed_start(format_args!(
                "nightcore-worker speaks protocol {version}, this engine {PROTOCOL_VERSION}"
            )));
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
                greeted.map_err(|error| {
                    Cause::failed_start(format_args!("its launcher could not be greeted: {error}"))
                })?;
                Ok((container, since - started))
            }
            phase => {
                self.phase = phase;
                Err(Cause::protocol("its launcher said hello twice"))
            }
        }
    }

    /// Ends what runs; the slot waits then, for how long is to be said.
    pub(super) fn end(&mut self) -> Ended {
        let now = Instant::now();
        self.hung_up = None;
        match std::mem::replace(&mut self.phase, Phase::Waiting { until: now }) {
            Phase::Up { since, .. } => Ended::Up { lived: now - since },
            Phase::Making { .. } | Phase::Starting { .. } => Ended::Starting,
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
                self.hung_up = None;
                self.restarts.forget();
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
        let is_tried = self.restarts.breaker() != Breaker::Closed;
        let rests = !self.wanted
            && !is_tried
            && self.spec.idle_timeout.is_some_and(|timeout| timeout <= quiet);
        if rests {
            self.phase = Phase::Idle;
        }
        rests
    }

    /// Puts the next start off after the death of a container that was up for so long, and says by how
    /// much.
    pub(super) fn back_off(&mut self, lived: Duration) -> Duration {
        let now = Instant::now();
        let until = self.restarts.died(now, lived);
        self.phase = Phase::Waiting { until };
        until - now
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::{Breaker, CrashLoop};
    use super::*;

    /// A slot whose next start is due.
    pub(in super::super) fn due(idle_timeout: Option<Duration>) -> Slot {
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
            crash_loop: CrashLoop { deaths: 3, window: Duration::from_secs(1) },
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
        for _ in 0..2 {
            assert!(slot.back_off(Duration::ZERO) < Duration::from_secs(1));
        }
        let until = slot.deadline();
        assert!(!slot.want());
        assert_eq!(slot.deadline(), until);
    }

    #[test]
    fn what_is_in_a_crash_loop_is_tried_when_its_time_is_over_though_nobody_calls() {
        let mut slot = due(Some(Duration::ZERO));
        for _ in 0..3 {
            slot.back_off(Duration::ZERO);
        }
        assert_eq!(slot.restarts.breaker(), Breaker::Open);
        assert!(!slot.rest(Duration::MAX));
        slot.restarts.forget();
        assert!(slot.rest(Duration::MAX));
    }
}
