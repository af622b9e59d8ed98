//! How far this process is between its start and its end, for all its threads.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::admin::Standing;

/// Written by the main thread and by a hand-over, read by the admin socket.
#[derive(Debug, Default)]
pub(super) struct SharedStanding(AtomicU8);

impl SharedStanding {
    pub(super) fn get(&self) -> Standing {
        // SYNC(standing): pairs with the store in `set`; it carries no other data.
        match self.0.load(Ordering::Relaxed) {
            0 => Standing::Starting,
            1 => Standing::Serving,
            _ => Standing::Draining,
        }
    }

    pub(super) fn set(&self, standing: Standing) {
        let number = match standing {
            Standing::Starting => 0,
            Standing::Serving => 1,
            Standing::Draining => 2,
        };
        // SYNC(standing): pairs with the load in `get`. It never goes back.
        self.0.fetch_max(number, Ordering::Relaxed);
    }
}
