//! Two processes that wake each other by a word of shared memory, without a descriptor.

use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;
use nix::libc;

use super::line::{self, Line};
use super::words::SharedWords;
use crate::case::{Case, Error};

struct Futex {
    words: SharedWords,
    /// Messages heard by this process.
    heard: u32,
}

pub(super) fn cases() -> Vec<Case> {
    line::cases::<Futex>("futex", "futex in shared memory")
}

impl Line for Futex {
    fn new() -> Result<Futex, Error> {
        Ok(Futex { words: SharedWords::new()?, heard: 0 })
    }

    fn say(&mut self) -> Result<(), Error> {
        let word = self.words.word(0);
        // SYNC(word): release, pairs with the acquire in `hear`.
        word.fetch_add(1, Ordering::Release);
        call(word, libc::FUTEX_WAKE, 1)
    }

    fn hear(&mut self) -> Result<(), Error> {
        let word = self.words.word(0);
        // SYNC(word): acquire, pairs with the release in `say`.
        while word.load(Ordering::Acquire) == self.heard {
            match call(word, libc::FUTEX_WAIT, self.heard) {
                Err(Error::System(error)) if error.raw_os_error() == Some(libc::EAGAIN) => {}
                other => other?,
            }
        }
        self.heard = self.heard.wrapping_add(1);
        Ok(())
    }
}

fn call(word: &AtomicU32, operation: libc::c_int, value: u32) -> Result<(), Error> {
    let no_timeout = std::ptr::null::<libc::timespec>();
    // SAFETY: the word is mapped and aligned, and the kernel only reads it; no timeout is passed.
    let result =
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, value, no_timeout) };
    Errno::result(result)?;
    Ok(())
}
