//! How busy the cores are, with whatever runs there: from the first lines of `/proc/stat`.
//!
//! ```text
//! cpu0 user nice system idle iowait irq softirq steal guest guest_nice
//! ```
//! Clock ticks of 10 ms since the machine started. A thread that waits in its ring counts as `iowait`, so
//! that is idle here; what the hypervisor took away (`steal`) is busy, as nobody else can have it; guests
//! are part of `user`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Names the file where it is not the kernel's own: in a container that sees another, and in tests.
const STAT_VARIABLE: &str = "NIGHTCORE_PROC_STAT";
const STAT: &str = "/proc/stat";

/// The first line is the sum of all cores.
const LINES_BEFORE: usize = 1;
/// Ten numbers of twenty digits at most.
const LINE_SIZE: usize = 256;

/// Reads the cores of the shards. Allocates when it is made, never again.
#[derive(Debug)]
pub(super) struct Cores {
    file: File,
    buffer: Vec<u8>,
    shards: Vec<Core>,
}

/// The core of a shard.
#[derive(Debug)]
struct Core {
    number: u16,
    last: Ticks,
    /// In thousandths, in the last window that had any ticks.
    busy: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ticks {
    busy: u64,
    idle: u64,
}

impl Cores {
    /// `cores` has the core of each shard.
    ///
    /// # Errors
    /// When there is no such file.
    pub(super) fn open(cores: &[u16]) -> io::Result<Self> {
        let path = std::env::var_os(STAT_VARIABLE).map_or_else(|| STAT.into(), PathBuf::from);
        let file = File::open(path)?;
        let highest = cores.iter().copied().max().unwrap_or(0);
        let buffer = vec![0; (LINES_BEFORE + usize::from(highest) + 1) * LINE_SIZE];
        let core = |number: &u16| Core { number: *number, last: Ticks::default(), busy: 0 };
        Ok(Self { file, buffer, shards: cores.iter().map(core).collect() })
    }

    /// Ends a window and begins the next one. What was busy in it says [`Self::busy`].
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn sample(&mut self) -> io::Result<()> {
        let size = self.file.read_at(&mut self.buffer, 0)?;
        let text = self.buffer.get(..size).unwrap_or_default();
        for (number, ticks) in text.split(|byte| *byte == b'\n').filter_map(parse) {
            for core in self.shards.iter_mut().filter(|core| core.number == number) {
                core.advance(ticks);
            }
        }
        Ok(())
    }

    /// How busy each shard's core was, in thousandths.
    pub(super) fn busy(&self) -> impl Iterator<Item = u64> {
        self.shards.iter().map(|core| core.busy)
    }
}

impl Core {
    fn advance(&mut self, now: Ticks) {
        // The kernel lets `iowait` run backwards at times.
        let busy = now.busy.saturating_sub(self.last.busy);
        let idle = now.idle.saturating_sub(self.last.idle);
        if let Some(busy) = (busy * 1000).checked_div(busy + idle) {
            self.busy = busy;
        }
        self.last = now;
    }
}

/// The number of the core that a line is about, and its ticks.
fn parse(line: &[u8]) -> Option<(u16, Ticks)> {
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let number = words.next()?.strip_prefix("cpu")?.parse().ok()?;
    let mut next = || words.next()?.parse::<u64>().ok();
    let (user, nice, system, idle, iowait) = (next()?, next()?, next()?, next()?, next()?);
    let (irq, softirq, steal) = (next()?, next()?, next()?);
    let busy = user + nice + system + irq + softirq + steal;
    Some((number, Ticks { busy, idle: idle + iowait }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_split_into_what_is_busy_and_what_is_idle() {
        let expected = Ticks { busy: 1 + 2 + 3 + 6 + 7 + 8, idle: 4 + 5 };
        assert_eq!(parse(b"cpu12 1 2 3 4 5 6 7 8 9 10"), Some((12, expected)));
        for other in ["cpu  1 2 3 4 5 6 7 8 9 10", "intr 1 2", "", "cpu1 1 2 3", "cpux 1 2 3 4 5"] {
            assert_eq!(parse(other.as_bytes()), None);
        }
    }

    #[test]
    fn a_window_is_the_difference_of_two_samples_and_an_empty_one_changes_nothing() {
        let mut core = Core { number: 0, last: Ticks::default(), busy: 0 };
        core.advance(Ticks { busy: 100, idle: 100 });
        core.advance(Ticks { busy: 109, idle: 101 });
        assert_eq!(core.busy, 900);
        core.advance(Ticks { busy: 109, idle: 101 });
        assert_eq!(core.busy, 900);
        core.advance(Ticks { busy: 110, idle: 91 });
        assert_eq!(core.busy, 1000);
    }

    #[test]
    fn the_cores_of_this_machine_can_be_read() {
        let mut cores = Cores::open(&[0]).unwrap();
        cores.sample().unwrap();
        assert_ne!(cores.shards[0].last, Ticks::default());
        assert!(cores.busy().all(|busy| busy <= 1000));
    }
}
