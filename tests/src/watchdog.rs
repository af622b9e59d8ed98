//! The one place where tests wait for something that nobody tells them.

use std::time::{Duration, Instant};

/// Far longer than anything takes here, even on a machine that does something else meanwhile.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Looks until `is_so`.
///
/// # Panics
/// When [`PATIENCE`] ends first.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "waited {PATIENCE:?} in vain until {what}");
        std::thread::sleep(PAUSE);
    }
}
