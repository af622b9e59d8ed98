//! Sends whose end nobody waits for.
//!
//! A send that its socket takes at once is over when the system call that submits it returns, and its
//! completion would end the wait of that same call: one more turn, in which nothing is to be done. So a
//! quiet send is tried once (`MSG_DONTWAIT`), whole or not (`MSG_WAITALL`), and makes a completion only
//! if it fails, which a part does as well. Without one it has succeeded, and its owner is told in the
//! turn that ends for another reason. An attempt that finds no room becomes a usual send.

use crate::clock;
use crate::event::{Event, Token, Wait};
use crate::operation::{Operation, State, Work};
use crate::reactor::Reactor;
use io_uring::opcode;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::Fd;
use std::mem;
use std::os::fd::{BorrowedFd, RawFd};
use std::time::Duration;

/// How much later than at its end the owner of a quiet send is told, at most.
pub const QUIET_MAX: Duration = Duration::from_millis(10);
/// Larger ones often take more than one attempt, and are sent as usual.
const SIZE_MAX: usize = 64 * 1024;
const FLAGS: i32 = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | libc::MSG_WAITALL;

fn entry(fd: RawFd, data: &[u8]) -> Entry {
    // At most `SIZE_MAX`.
    let size = u32::try_from(data.len()).unwrap_or(u32::MAX);
    opcode::Send::new(Fd(fd), data.as_ptr(), size).flags(FLAGS).build().flags(Flags::SKIP_SUCCESS)
}

/// Of one reactor.
#[derive(Default)]
pub(crate) struct Quiet {
    /// Queued, or submitted and not known to be over; those that failed are still here.
    sends: Vec<Operation>,
    hastened: bool,
}

impl Reactor {
    /// Like [`Reactor::send`], but no turn ends for it: [`Event::Sent`] comes with the next events, ahead
    /// of them, or [`QUIET_MAX`] later. For what nothing is to follow.
    ///
    /// # Panics
    /// When `from` is past the end.
    pub fn send_quietly(
        &mut self,
        socket: BorrowedFd<'_>,
        data: Vec<u8>,
        from: usize,
        token: Token,
    ) -> Operation {
        let operation = self.insert_send(socket, data, from, token);
        self.arm_quietly(operation);
        operation
    }

    /// Somebody does wait for the end of a quiet send: the next turn tells it.
    pub fn hasten(&mut self) {
        self.quiet.hastened = true;
    }

    fn arm_quietly(&mut self, operation: Operation) {
        let Some(fd) = self.operations.fd(operation) else { return };
        let Some(slot) = self.operations.get_mut(operation) else { return };
        match &slot.work {
            Work::Send { data, from } if data.len() - from <= SIZE_MAX => {
                slot.is_quiet = true;
                let entry = entry(fd, &data[*from..]).user_data(operation.user_data());
                self.quiet.sends.push(operation);
                self.push(entry);
            }
            _ => self.arm(operation),
        }
    }

    /// How long a turn may wait where quiet sends are under way.
    pub(crate) fn wait_of_quiet(&mut self, wait: Wait) -> Wait {
        let hastened = mem::take(&mut self.quiet.hastened);
        if self.quiet.sends.is_empty() {
            return wait;
        }
        let at = || clock::now() + QUIET_MAX;
        match wait {
            _ if hastened => Wait::Not,
            Wait::Not => Wait::Not,
            Wait::Forever => Wait::Until(at()),
            Wait::Until(limit) => Wait::Until(limit.min(at())),
        }
    }

    /// Tells the ends of quiet sends, ahead of the events of this turn, which begin at `first`. All are
    /// submitted, and the failures among them completed.
    pub(crate) fn tell_quiet(&mut self, first: usize, events: &mut Vec<Event>) {
        let others = events.len();
        let mut sends = mem::take(&mut self.quiet.sends);
        for operation in sends.drain(..) {
            // Those that failed have ended, or go on as usual.
            let Some(slot) = self.operations.get_mut(operation).filter(|slot| slot.is_quiet) else {
                continue;
            };
            let (token, size) = (slot.token, slot.work.own_size());
            if let Some(slot) = self.operations.remove(operation) {
                self.finish(token, slot, Ok(size), events);
            }
        }
        self.quiet.sends = sends;
        let told = events.len() - others;
        events[first..].rotate_right(told);
    }

    /// Takes the failure of a quiet send that found no room. True if it goes on.
    pub(crate) fn goes_on_aloud(&mut self, operation: Operation, result: i32) -> bool {
        let Some(slot) = self.operations.get_mut(operation) else { return false };
        if !slot.is_quiet || result != -libc::EAGAIN || slot.state == State::Ending {
            return false;
        }
        slot.is_quiet = false;
        self.arm(operation);
        true
    }
}
