//! Makes this process the parent of what orphans leave, while a runtime makes a container.
//!
//! Only then: orphans of a function that runs as a plain process are not the engine's to reap.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Starts under way. The supervisor's thread alone changes it.
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// One start under way.
#[derive(Debug)]
pub(super) struct Adoption(());

impl Adoption {
    pub(super) fn begin() -> io::Result<Self> {
        nix::sys::prctl::set_child_subreaper(true)?;
        UNDER_WAY.fetch_add(1, Ordering::Relaxed);
        Ok(Self(()))
    }
}

impl Drop for Adoption {
    fn drop(&mut self) {
        if UNDER_WAY.fetch_sub(1, Ordering::Relaxed) == 1 {
            let _ = nix::sys::prctl::set_child_subreaper(false);
        }
    }
}
