//! When connections move from one shard to another, and how many. No clock, no thread, no file: it is
//! shown one window after the other.
//!
//! The measure is how busy a *core* is, with whatever runs there: functions, and clients on the same
//! machine. So a shard whose functions fill its core gives connections to an idle core, but not
//! to one that the client itself needs.
//!
//! - **Spread**: a core was full and another one mostly idle in [`AGREEING`] windows in a row.
//! - **Consolidate**: two cores together stayed below what one shard may carry for [`QUIET`] windows.
//!
//! A spread leaves the two cores with at least [`CORE_FULL`] between them, and a consolidation one core with
//! at most [`BOTH_MAX`]: neither is the reason for the other, so nothing swings.

/// A core this busy (in thousandths) has no time left; the rest is the coarseness of the measure.
const CORE_FULL: u64 = 900;
/// A core that is no busier than this can take half of what a full one has. A client on it that keeps a
/// shard busy takes 60% and more.
const CORE_FREE: u64 = 400;
/// What a core may be busy with after it took over the work of another.
const BOTH_MAX: u64 = 700;
const _: () = assert!(CORE_FREE < CORE_FULL && BOTH_MAX + 100 < CORE_FULL);
/// A shard this busy has work of its own. One with calls out has, too: its functions run.
const WORKING: u64 = 100;
/// Windows in a row that must say the same before connections spread. With two, a client that the
/// scheduler had moved for a moment made its own core look idle.
const AGREEING: u32 = 5;
/// The same before they consolidate, which is less urgent.
const QUIET: u32 = 10;
/// Windows that are not looked at behind a move: it takes time, and they show the time before it.
pub(super) const PAUSE: u32 = 2;
/// Connections moved in one step: a few microseconds each, so that no request waits for a millisecond.
const STEP_MAX: u32 = 256;

/// What a window says of one shard.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct View {
    /// How busy its core was, in thousandths.
    pub(super) core: u64,
    /// How busy its own thread was; 0 if it slept.
    pub(super) busy: u64,
    pub(super) connections: u32,
    /// Those among them that wait for a call.
    pub(super) calling: u32,
}

/// `count` connections of shard `from` shall go to shard `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Move {
    pub(super) from: u16,
    pub(super) to: u16,
    pub(super) count: u32,
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Policy {
    connections_max: u32,
    /// By shard: windows in a row in which its core was full, or free.
    full: Vec<u32>,
    free: Vec<u32>,
    /// The pair of shards, from and to, that could be one, and for how many windows.
    pair: Option<(usize, usize)>,
    quiet: u32,
    pause: u32,
}

impl Policy {
    /// No shard is given more than `connections_max` connections by a consolidation.
    pub(super) fn new(shards: u16, connections_max: u32) -> Self {
        let (full, free) = (vec![0; shards.into()], vec![0; shards.into()]);
        Self { connections_max, full, free, pair: None, quiet: 0, pause: 0 }
    }

    /// Forgets what the last windows said: there was a gap.
    pub(super) fn forget(&mut self) {
        self.full.fill(0);
        self.free.fill(0);
        (self.pair, self.quiet) = (None, 0);
    }

    /// Takes a window, one view a shard, and decides.
    pub(super) fn decide(&mut self, views: &[View]) -> Option<Move> {
        if self.pause > 0 {
            self.pause -= 1;
            return None;
        }
        self.count(views);
        let (from, to, count) = match self.spread(views) {
            Some(spread) => {
                self.forget();
                spread
            }
            None => self.consolidate(views)?,
        };
        self.pause = PAUSE;
        let count = count.min(STEP_MAX);
        Some(Move { from: u16::try_from(from).ok()?, to: u16::try_from(to).ok()?, count })
    }

    fn count(&mut self, views: &[View]) {
        let streak = |streak: &mut u32, goes_on| *streak = if goes_on { *streak + 1 } else { 0 };
        for ((full, free), view) in self.full.iter_mut().zip(&mut self.free).zip(views) {
            streak(full, view.core >= CORE_FULL && view.is_working());
            streak(free, view.core <= CORE_FREE);
        }
        let pair = mergeable(views, self.connections_max);
        self.quiet = if pair.is_some() && pair == self.pair { self.quiet + 1 } else { 1 };
        self.pair = pair;
    }

    /// From the full core with the most calls to the freest.
    fn spread(&self, views: &[View]) -> Option<(usize, usize, u32)> {
        let long =
            |streaks: &[u32], index: usize| streaks.get(index).is_some_and(|s| *s >= AGREEING);
        let full = views.iter().enumerate().filter(|(index, _)| long(&self.full, *index));
        let (from, source) = full.max_by_key(|(_, view)| view.calling)?;
        let free = views.iter().enumerate().filter(|(index, _)| long(&self.free, *index));
        let (to, target) = free.min_by_key(|(_, view)| view.core)?;
        let count = half_of_the_difference(source, target);
        (count > 0).then_some((from, to, count))
    }

    fn consolidate(&self, views: &[View]) -> Option<(usize, usize, u32)> {
        let (from, to) = self.pair.filter(|_| self.quiet >= QUIET)?;
        Some((from, to, views.get(from)?.connections))
    }
}

impl View {
    fn is_working(&self) -> bool {
        self.connections > 0 && (self.busy >= WORKING || self.calling > 0)
    }

    /// Has connections, and they bring requests.
    fn is_awake(&self) -> bool {
        self.connections > 0 && self.busy > 0
    }
}

/// The highest shard whose work would fit beside that of a lower one. Shards that sleep stay as they are.
fn mergeable(views: &[View], connections_max: u32) -> Option<(usize, usize)> {
    let fits = |from: &View, to: &View| {
        from.core + to.core <= BOTH_MAX
            && from.connections.saturating_add(to.connections) <= connections_max
    };
    let awake = || views.iter().enumerate().filter(|(_, view)| view.is_awake());
    awake().rev().find_map(|(from, source)| {
        let lower = awake().take_while(|(to, _)| *to < from);
        lower.into_iter().find(|(_, target)| fits(source, target)).map(|(to, _)| (from, to))
    })
}

/// Half of the difference in calls, as connections: those that only wait for their client are taken
/// along in proportion, for nobody knows which of them will bring the next call.
fn half_of_the_difference(source: &View, target: &View) -> u32 {
    let calling = u64::from(source.calling).max(1);
    let surplus = calling.saturating_sub(target.calling.into());
    let count = u64::from(source.connections) * surplus / (2 * calling);
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
