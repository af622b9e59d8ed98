//! From completion entries to events: who ends, who is armed again, what goes back to its owner.
//!
//! A multishot operation that the kernel ends without an error (its completion queue was full, say)
//! is armed again here, unseen by its owner; so is a receive that found no buffer.

use crate::alarm::ALARM;
use crate::event::{Event, Token};
use crate::operation::{InFlight, Operation, State, Vectored, Work, halves};
use crate::reactor::{DOORBELL, IGNORED, MESSAGE, Reactor};
use io_uring::cqueue;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// Spare vectors kept for `send_with_body`: bounds the memory left after a burst.
const VECTORED_SPARE_MAX: usize = 256;

impl Reactor {
    /// Appends the events of one completion.
    pub(crate) fn complete(&mut self, completion: &cqueue::Entry, events: &mut Vec<Event>) {
        let (user_data, result) = (completion.user_data(), completion.result());
        if result == MESSAGE {
            events.push(Event::Message { value: user_data });
            return;
        }
        if user_data == IGNORED {
            return;
        }
        if user_data == ALARM {
            self.alarm_rang();
            return;
        }
        let [low, high] = halves(user_data);
        if low == DOORBELL {
            self.doorbell_completed(high, result, events);
            return;
        }
        let operation = Operation::from_user_data(user_data);
        let Some(slot) = self.operations.get_mut(operation) else {
            debug_assert!(false, "completion of an unknown operation, {operation:?}");
            return;
        };
        let token = slot.token;
        match slot.work {
            Work::Accept | Work::Receive | Work::Poll => {
                self.multishot_completed(operation, completion, events);
            }
            Work::Send { .. } | Work::SendWithBody { .. } | Work::Message { .. } => {
                if self.goes_on_aloud(operation, result) {
                    return;
                }
                if let Some(slot) = self.operations.remove(operation) {
                    let result = count(result).map(|size| size as usize);
                    self.finish(token, slot, result, events);
                }
            }
        }
    }

    fn multishot_completed(
        &mut self,
        operation: Operation,
        completion: &cqueue::Entry,
        events: &mut Vec<Event>,
    ) {
        let Some(slot) = self.operations.get_mut(operation) else { return };
        let token = slot.token;
        let progress = match slot.work {
            Work::Receive => self.received(token, completion, events),
            Work::Accept => count(completion.result()).map(|_| {
                // SAFETY: a successful accept returns a new descriptor, named nowhere else.
                let socket = unsafe { OwnedFd::from_raw_fd(completion.result()) };
                events.push(Event::Accepted { token, socket });
                Progress::Goes
            }),
            _ => count(completion.result()).map(|_| {
                events.push(Event::Polled { token });
                Progress::Goes
            }),
        };
        if !cqueue::more(completion.flags()) {
            self.multishot_ended(operation, progress, events);
        } else {
            debug_assert!(matches!(progress, Ok(Progress::Goes)), "an end with more to come");
        }
    }

    /// After a final completion: arms again, or frees the operation and reports its end.
    fn multishot_ended(
        &mut self,
        operation: Operation,
        progress: io::Result<Progress>,
        events: &mut Vec<Event>,
    ) {
        let Some(slot) = self.operations.get_mut(operation) else { return };
        let ending = slot.state == State::Ending;
        let error = match progress {
            Ok(Progress::Goes) if !ending => {
                self.arm(operation);
                return;
            }
            Ok(Progress::Starves) if !ending => {
                slot.state = State::Starved;
                self.starved.push_back(operation);
                return;
            }
            Ok(Progress::Goes | Progress::Starves) => {
                Some(io::Error::from_raw_os_error(libc::ECANCELED))
            }
            Ok(Progress::EndOfStream) => None,
            Err(error) => Some(error),
        };
        let Some(slot) = self.operations.remove(operation) else { return };
        let token = slot.token;
        events.push(match (slot.work, error) {
            (Work::Accept, Some(error)) => Event::AcceptEnded { token, error },
            (Work::Poll, Some(error)) => Event::PollEnded { token, error },
            (_, error) => Event::ReceiveEnded { token, error },
        });
    }

    fn received(
        &mut self,
        token: Token,
        completion: &cqueue::Entry,
        events: &mut Vec<Event>,
    ) -> io::Result<Progress> {
        let size = match count(completion.result()) {
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                return Ok(Progress::Starves);
            }
            size => size?,
        };
        // Even an end of stream may have taken a buffer, which then goes straight back.
        let data = cqueue::buffer_select(completion.flags()).map(|id| self.buffers.lend(id, size));
        match data {
            _ if size == 0 => Ok(Progress::EndOfStream),
            Some(data) => {
                events.push(Event::Received { token, data });
                Ok(Progress::Goes)
            }
            None => Err(io::Error::other("the kernel received into no buffer")),
        }
    }

    /// Reports a single-shot operation and returns its buffers.
    pub(crate) fn finish(
        &mut self,
        token: Token,
        slot: InFlight,
        result: io::Result<usize>,
        events: &mut Vec<Event>,
    ) {
        let (data, body) = match slot.work {
            Work::Send { data, .. } => (data, None),
            Work::SendWithBody { head, body, vectored } => {
                self.keep(vectored);
                (head, Some(body))
            }
            Work::Message { value } => {
                if let Err(error) = result {
                    events.push(Event::MessageFailed { error, value });
                }
                return;
            }
            Work::Accept | Work::Receive | Work::Poll => return,
        };
        events.push(Event::Sent { token, data, body, result });
    }

    fn keep(&mut self, vectored: Box<Vectored>) {
        if self.vectored_spare.len() < VECTORED_SPARE_MAX {
            self.vectored_spare.push(vectored);
        }
    }

    fn doorbell_completed(&mut self, fd: u32, result: i32, events: &mut Vec<Event>) {
        // A success arrives only from a kernel that ignores CQE_SKIP_SUCCESS.
        let Err(error) = count(result) else { return };
        let token = self.doorbells[fd as usize];
        events.push(Event::DoorbellFailed { token, error });
    }
}

/// What a completion of a multishot operation means for it, errors apart.
enum Progress {
    Goes,
    Starves,
    EndOfStream,
}

/// A completion's result: a count, or an errno below zero.
fn count(result: i32) -> io::Result<u32> {
    u32::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}
