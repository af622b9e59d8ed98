//! How a worker of the prototype behaves: as it should, or in one of the ways in which a stranger
//! could try to hurt its peer. Misconduct begins with the fourth direct call.

use std::io;

use clap::ValueEnum;
use ipc::sync::{AtomicU32, Ordering};
use nix::libc;

use super::lease::{End, Message};
use super::region::PAYLOAD_MAX;
use super::wake::wake_word;

/// Whose waiters `FUTEX_CMP_REQUEUE` moves at most.
const REQUEUE_MAX: usize = 16;

/// What a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Conduct {
    /// Answers with its input; calls as told.
    Honest,
    /// Serves each direct call by a call of its own, to `leaf`.
    Nested,
    /// Takes a call and never answers; makes no further one.
    Hang,
    /// Aborts its process: with a call taken, or with one under way.
    Die,
    /// Claims more bytes than there are.
    BadSize,
    /// Moves its cursor to where it cannot be.
    WildCursor,
    /// Answers a call that nobody made, or requests by a message that is none.
    Nonsense,
    /// Repeats messages of a lease that is over.
    Stale,
    /// Takes a call, moves the sleeping peer to a futex of its own, and never answers.
    Requeue,
    /// Honest, but does not tell the engine that it has left.
    Stay,
    /// Changes the payload all the time while the peer reads it.
    Scribble,
}

impl Conduct {
    /// What a callee does instead of answering `call`, or before.
    pub fn misbehave_as_callee(self, end: &mut End, call: u32) {
        let lie = match self {
            Conduct::Honest | Conduct::Nested | Conduct::Stay => return,
            Conduct::Hang => never(),
            Conduct::Die => std::process::abort(),
            Conduct::Scribble => return scribble(end),
            Conduct::WildCursor => {
                end.own().tail.store(0x8000_0000, Ordering::Release);
                wake_word(&end.own().tail);
                never()
            }
            Conduct::Requeue => {
                steal_waiter(end);
                never()
            }
            Conduct::BadSize => {
                let size = u32::try_from(PAYLOAD_MAX + 1).unwrap_or(u32::MAX);
                Message::Answer { call, size }.encode(end.epoch())
            }
            Conduct::Nonsense => {
                Message::Answer { call: call.wrapping_add(9), size: 1 }.encode(end.epoch())
            }
            Conduct::Stale => loop {
                let stale = Message::Answer { call, size: 1 }.encode(end.epoch() + 1);
                if end.say_words(stale).is_err() {
                    std::thread::yield_now();
                }
            },
        };
        let _ = end.say_words(lie);
        never()
    }

    /// What a caller does before its next call.
    pub fn misbehave_as_caller(self, end: &mut End) {
        let lie = match self {
            Conduct::Hang => never(),
            Conduct::Die => {
                let request = Message::Request { call: u32::MAX, size: 1 };
                let _ = end.say_words(request.encode(end.epoch()));
                std::process::abort()
            }
            Conduct::BadSize => Message::Request { call: 9, size: u32::MAX }.encode(end.epoch()),
            Conduct::Nonsense => [u64::MAX; 8],
            Conduct::WildCursor => {
                end.own().tail.store(0x8000_0000, Ordering::Release);
                wake_word(&end.own().tail);
                never()
            }
            Conduct::Scribble => return scribble(end),
            _ => return,
        };
        let _ = end.say_words(lie);
        never()
    }

    /// Lets the thread serve nobody any more.
    pub fn for_ever() -> io::Result<()> {
        never()
    }
}

fn never() -> ! {
    loop {
        std::thread::park();
    }
}

fn scribble(end: &End) {
    for byte in 0..=u8::MAX {
        end.own().write(&[byte; PAYLOAD_MAX]);
    }
}

/// Once the peer sleeps on our tail, moves it to a word of which nobody knows.
fn steal_waiter(end: &End) {
    static ELSEWHERE: AtomicU32 = AtomicU32::new(0);
    let word = &end.own().tail;
    loop {
        // SAFETY: both words live through the call; FUTEX_CMP_REQUEUE compares the first by an
        // atomic load and writes neither.
        let moved = unsafe {
            libc::syscall(
                libc::SYS_futex,
                word.as_ptr(),
                libc::FUTEX_CMP_REQUEUE,
                0,
                REQUEUE_MAX,
                ELSEWHERE.as_ptr(),
                word.load(Ordering::Relaxed),
            )
        };
        if moved > 0 {
            return;
        }
        std::thread::yield_now();
    }
}
