//! Why a container ended: told apart by whoever sees it first, named to callers, in the log and in
//! metrics.
//!
//! | seen by | causes |
//! |---|---|
//! | `process`, of the kernel | exit, signal |
//! | `slot`, which knows the limits | out of memory; a signal that a sandbox shows as an exit |
//! | `supervisor`, on the control socket | failed start, protocol, hang-up |
//! | a shard, on its channel | protocol, stuck |

use std::fmt;

use nix::sys::signal::Signal;

/// See the module's description. Its display goes on a sentence about the container: "was killed by
/// SIGSEGV".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It ended itself.
    Exit {
        /// With this code.
        code: i32,
    },
    /// A signal ended it.
    Signal {
        /// Its name.
        name: &'static str,
    },
    /// It needed more memory than it may have.
    OutOfMemory {
        /// In bytes; `None`: the host had no more.
        limit: Option<u64>,
    },
    /// It never came up.
    FailedStart {
        /// What its library, the system or the runtime says.
        reason: String,
    },
    /// It did on its channel or control socket what no container does.
    Protocol {
        /// What.
        reason: String,
    },
    /// It closed its control socket and lived on: nobody is there to start its workers.
    HungUp,
    /// It goes on and on with something, or with nothing, and was replaced.
    Stuck {
        /// With what.
        reason: &'static str,
    },
    /// It was told to: idle, replaced or no longer wanted. No death, and counted nowhere.
    Stopped,
}

/// An exit code above this tells of a signal, as a shell does, and as does a sandbox: no signal of its own
/// ends its first process.
const SIGNALLED: i32 = 128;

impl Cause {
    /// Every kind of death, in the order of the metric's labels.
    pub const KINDS: [&str; 7] =
        ["exit", "signal", "out_of_memory", "failed_start", "protocol", "hung_up", "stuck"];

    /// Its place among [`Self::KINDS`]; `None`: it is no death.
    pub(super) fn place(&self) -> Option<usize> {
        match self {
            Self::Exit { .. } => Some(0),
            Self::Signal { .. } => Some(1),
            Self::OutOfMemory { .. } => Some(2),
            Self::FailedStart { .. } => Some(3),
            Self::Protocol { .. } => Some(4),
            Self::HungUp => Some(5),
            Self::Stuck { .. } => Some(6),
            Self::Stopped => None,
        }
    }

    /// The label in metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.place().map_or("stopped", |place| Self::KINDS[place])
    }

    pub(super) fn of_signal(signal: Signal) -> Self {
        Self::Signal { name: signal.as_str() }
    }

    pub(super) fn failed_start(reason: impl fmt::Display) -> Self {
        Self::FailedStart { reason: reason.to_string() }
    }

    pub(super) fn protocol(reason: impl fmt::Display) -> Self {
        Self::Protocol { reason: reason.to_string() }
    }

    /// Why a start failed, in one line for whoever asked for it.
    pub(super) fn of_start(&self) -> String {
        match self {
            Self::FailedStart { reason } => reason.clone(),
            cause => format!("its container {cause}"),
        }
    }

    /// The same as seen through a sandbox.
    pub(super) fn through_sandbox(self) -> Self {
        match self {
            Self::Exit { code } => {
                Signal::try_from(code - SIGNALLED).map_or(Self::Exit { code }, Self::of_signal)
            }
            other => other,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit { code } => write!(f, "exited with code {code}"),
            Self::Signal { name } => write!(f, "was killed by {name}"),
            Self::OutOfMemory { limit: Some(bytes) } if bytes % MIB == 0 => {
                write!(f, "ran out of memory (limit {} MiB)", bytes / MIB)
            }
            Self::OutOfMemory { limit: Some(bytes) } => {
                write!(f, "ran out of memory (limit {bytes} bytes)")
            }
            Self::OutOfMemory { limit: None } => {
                f.write_str("was killed as the host ran out of memory")
            }
            Self::FailedStart { reason } => write!(f, "could not be started: {reason}"),
            Self::Protocol { reason } => write!(f, "broke the protocol: {reason}"),
            Self::HungUp => f.write_str("closed its control socket"),
            Self::Stuck { reason } => write!(f, "was replaced: {reason}"),
            Self::Stopped => f.write_str("was stopped"),
        }
    }
}

const MIB: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_death_has_a_kind_of_its_own_and_a_stop_has_none() {
        let reason = || "why".to_owned();
        let deaths = [
            Cause::Exit { code: 3 },
            Cause::of_signal(Signal::SIGSEGV),
            Cause::OutOfMemory { limit: None },
            Cause::FailedStart { reason: reason() },
            Cause::Protocol { reason: reason() },
            Cause::HungUp,
            Cause::Stuck { reason: "why" },
        ];
        assert_eq!(deaths.each_ref().map(Cause::kind), Cause::KINDS);
        assert_eq!((Cause::Stopped.place(), Cause::Stopped.kind()), (None, "stopped"));
    }

    #[test]
    fn causes_go_on_a_sentence_about_the_container() {
        let limit = Some(64 << 20);
        for (cause, words) in [
            (Cause::Exit { code: 3 }, "exited with code 3"),
            (Cause::of_signal(Signal::SIGSEGV), "was killed by SIGSEGV"),
            (Cause::OutOfMemory { limit }, "ran out of memory (limit 64 MiB)"),
            (
                Cause::OutOfMemory { limit: Some(1_500_000) },
                "ran out of memory (limit 1500000 bytes)",
            ),
        ] {
            assert_eq!(cause.to_string(), words);
        }
    }

    #[test]
    fn a_signal_is_seen_through_a_sandbox_and_other_exits_stay() {
        let abort = Cause::of_signal(Signal::SIGABRT);
        assert_eq!(Cause::Exit { code: 134 }.through_sandbox(), abort);
        for code in [0, 3, 128, 255] {
            assert_eq!(Cause::Exit { code }.through_sandbox(), Cause::Exit { code });
        }
    }
}
