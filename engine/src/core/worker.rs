//! One worker thread as the core sees it: the states of a lane and every transition between them.
//!
//! The diagram is in `mod.rs`. The function is pure: whoever calls it stores the new state.

use ipc::CallId;

/// What a lane's worker is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WorkerState {
    /// The lane has no worker.
    Absent,
    /// Asked for, not yet heard of.
    Starting,
    /// Waits for a call. On its function's idle stack.
    Idle,
    /// Serves a call and has no unanswered internal call.
    Running {
        /// The call it was given.
        call: CallId,
    },
    /// Serves a call and has unanswered internal calls. It may be blocked on them or not: parallel
    /// calls leave it running, and it may even complete without their answers.
    Waiting {
        /// The call it was given.
        call: CallId,
        /// Unanswered internal calls; at least 1.
        outstanding: u16,
    },
    /// Completed a call whose result is still being read out of its memory.
    Held {
        /// The completed call.
        call: CallId,
    },
    /// Told to leave, not yet gone.
    Retiring,
}

/// What may happen to a worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WorkerEvent {
    /// The core asks for a worker in this lane.
    Spawn,
    /// The worker reports in.
    Started,
    /// The launcher could not spawn it.
    Failed,
    /// The core gives it a call.
    Dispatch(CallId),
    /// It makes an internal call.
    CallOut,
    /// One of its internal calls is answered.
    Answered,
    /// It completes a call.
    Complete(CallId),
    /// Having completed one, it begins the call that waited behind it in its lane.
    Next(CallId),
    /// Its result has been read, or nobody wants it.
    Release(CallId),
    /// The core tells it to leave.
    Retire,
    /// It has left.
    Retired,
    /// Its container is gone.
    ContainerDown,
}

/// A pair of state and event that has no transition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mismatch {
    /// Never valid in this state.
    State,
    /// Names another call than the worker's.
    Call {
        /// The worker's.
        expected: CallId,
    },
}

impl WorkerState {
    /// The state after `event`; an error, and no change, when that cannot happen in this state.
    pub fn on(self, event: WorkerEvent) -> Result<WorkerState, Mismatch> {
        use WorkerEvent as E;
        use WorkerState as S;
        Ok(match (self, event) {
            (_, E::ContainerDown) => S::Absent,
            (S::Absent, E::Spawn) => S::Starting,
            (S::Starting, E::Started) => S::Idle,
            (S::Starting, E::Failed) => S::Absent,
            (S::Idle, E::Dispatch(call)) => S::Running { call },
            (S::Idle, E::Retire) => S::Retiring,
            (S::Running { call }, E::CallOut) => S::Waiting { call, outstanding: 1 },
            (S::Waiting { call, outstanding }, E::CallOut) => {
                S::Waiting { call, outstanding: outstanding + 1 }
            }
            (S::Waiting { call, outstanding: 1 }, E::Answered) => S::Running { call },
            (S::Waiting { call, outstanding }, E::Answered) => {
                S::Waiting { call, outstanding: outstanding - 1 }
            }
            (S::Running { call } | S::Waiting { call, .. }, E::Complete(got)) => {
                if call != got {
                    return Err(Mismatch::Call { expected: call });
                }
                S::Held { call }
            }
            (S::Held { .. }, E::Next(call)) => S::Running { call },
            (S::Held { call }, E::Release(got)) => {
                if call != got {
                    return Err(Mismatch::Call { expected: call });
                }
                S::Idle
            }
            (S::Retiring, E::Retired) => S::Absent,
            _ => return Err(Mismatch::State),
        })
    }

    /// The call the worker serves, if it serves one.
    pub fn call(self) -> Option<CallId> {
        match self {
            WorkerState::Running { call } | WorkerState::Waiting { call, .. } => Some(call),
            _ => None,
        }
    }

    /// For people, after "a worker that is".
    pub fn name(self) -> &'static str {
        match self {
            WorkerState::Absent => "absent",
            WorkerState::Starting => "starting",
            WorkerState::Idle => "idle",
            WorkerState::Running { .. } => "running",
            WorkerState::Waiting { .. } => "waiting",
            WorkerState::Held { .. } => "held",
            WorkerState::Retiring => "retiring",
        }
    }
}

impl WorkerEvent {
    /// For people, after "cannot say that it".
    pub fn name(self) -> &'static str {
        match self {
            WorkerEvent::Spawn => "is spawned",
            WorkerEvent::Started => "started",
            WorkerEvent::Failed => "failed to start",
            WorkerEvent::Dispatch(_) => "is given a call",
            WorkerEvent::CallOut => "makes a call",
            WorkerEvent::Answered => "is answered",
            WorkerEvent::Complete(_) => "completed a call",
            WorkerEvent::Next(_) => "begins the next call",
            WorkerEvent::Release(_) => "is released",
            WorkerEvent::Retire => "is told to retire",
            WorkerEvent::Retired => "retired",
            WorkerEvent::ContainerDown => "lost its container",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Mismatch::{Call, State};
    use super::WorkerEvent as E;
    use super::WorkerState as S;
    use super::*;

    #[test]
    fn every_pair_of_state_and_event_is_decided() {
        let (mine, other) = (CallId::new(1, 1), CallId::new(1, 2));
        let wrong = Err(Call { expected: mine });
        let no = Err(State);
        let running = S::Running { call: mine };
        let waiting = |outstanding| S::Waiting { call: mine, outstanding };
        let held = S::Held { call: mine };
        let events = [
            E::Spawn,
            E::Started,
            E::Failed,
            E::Dispatch(mine),
            E::CallOut,
            E::Answered,
            E::Complete(mine),
            E::Complete(other),
            E::Next(mine),
            E::Release(mine),
            E::Release(other),
            E::Retire,
            E::Retired,
            E::ContainerDown,
        ];
        let absent = Ok(S::Absent);
        let idle = Ok(S::Idle);
        let up = Ok(S::Starting);
        let gone = Ok(S::Retiring);
        #[rustfmt::skip]
        let table = [
            //            spawn start   fail dispatch    call out        answer          done      done other next release other retire retired down
            (S::Absent,   [up, no, no, no, no, no, no, no, no, no, no, no, no, absent]),
            (S::Starting, [no, idle, absent, no, no, no, no, no, no, no, no, no, no, absent]),
            (S::Idle,     [no, no, no, Ok(running), no, no, no, no, no, no, no, gone, no, absent]),
            (running,     [no, no, no, no, Ok(waiting(1)), no, Ok(held), wrong, no, no, no, no, no, absent]),
            (waiting(1),  [no, no, no, no, Ok(waiting(2)), Ok(running), Ok(held), wrong, no, no, no, no, no, absent]),
            (waiting(2),  [no, no, no, no, Ok(waiting(3)), Ok(waiting(1)), Ok(held), wrong, no, no, no, no, no, absent]),
            (held,        [no, no, no, no, no, no, no, no, Ok(running), idle, wrong, no, no, absent]),
            (S::Retiring, [no, no, no, no, no, no, no, no, no, no, no, no, absent, absent]),
        ];
        for (state, expected) in table {
            for (event, expected) in events.into_iter().zip(expected) {
                assert_eq!(state.on(event), expected, "{state:?} on {event:?}");
            }
        }
    }
}
