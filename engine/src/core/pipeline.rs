//! Calls that wait in a lane behind the one that its worker runs, and when that is worth it.
//!
//! A worker that finds its next call in the lane runs it without sleeping: the wake-up, which costs
//! more than a short call itself, is paid once for several. It binds calls to a worker early, so it is
//! for functions whose calls are short on average, and a worker that begins to wait for an answer
//! declines what it has not begun.

use std::collections::VecDeque;

use ipc::{CallId, LaneIndex, PIPELINE_MAX};

/// A call that runs this long on average costs several wake-ups: a worker of its own pays off. In ns.
const SHORT_MAX: u32 = 25_000;
/// No call counts for more, in ns: a short one that was put off its core is told from one that takes
/// long by how often it happens. One in twenty of them makes a function's calls long.
const SAMPLE_MAX: u32 = 500_000;
/// Until so many calls are measured, all are taken for long.
const SAMPLES_MIN: u8 = 16;
/// The average moves by one in so many of each new difference.
const WEIGHT: u32 = 16;
const _: () = assert!(SAMPLE_MAX / WEIGHT > SHORT_MAX, "one in twenty must tell");

/// How long a function's calls run: an exponential moving average, as its workers say.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Pace {
    /// Times `WEIGHT`, in ns.
    sum: u32,
    samples: u8,
}

/// The pipelines of one function's lanes.
#[derive(Debug)]
pub(super) struct Pipelines {
    /// By lane. A queue gets its memory with its first worker.
    queues: Vec<VecDeque<CallId>>,
    size_max: usize,
    /// The worker that was dispatched to last: the only one that gets more.
    leader: Option<LaneIndex>,
    calls: u32,
}

impl Pace {
    /// A call ran for so many ns.
    pub fn record(&mut self, ran_ns: u32) {
        self.sum = self.sum - self.sum / WEIGHT + ran_ns.min(SAMPLE_MAX);
        self.samples = self.samples.saturating_add(1);
    }

    /// Are calls short against a wake-up?
    pub fn is_short(self) -> bool {
        self.samples >= SAMPLES_MIN && self.sum / WEIGHT <= SHORT_MAX
    }
}

impl Pipelines {
    /// For `lanes` lanes, of up to `size_max` calls each; 0 for none.
    pub fn new(lanes: u16, size_max: u16) -> Pipelines {
        assert!(size_max <= PIPELINE_MAX, "a ring has no room for {size_max} calls");
        let queues = (0..lanes).map(|_| VecDeque::new()).collect();
        Pipelines { queues, size_max: size_max.into(), leader: None, calls: 0 }
    }

    /// Calls of all lanes.
    pub fn calls(&self) -> u32 {
        self.calls
    }

    /// A worker is to come to the lane.
    pub fn prepare(&mut self, lane: LaneIndex) {
        self.queues[usize::from(lane.0)].reserve(self.size_max);
    }

    /// A worker was woken for a call: further ones may follow it.
    pub fn lead(&mut self, lane: LaneIndex) {
        self.leader = Some(lane);
    }

    /// The lane that gets the next call, if it has room.
    pub fn open(&self) -> Option<LaneIndex> {
        let lane = self.leader?;
        (self.queues[usize::from(lane.0)].len() < self.size_max).then_some(lane)
    }

    /// Whether nothing waits in the lane.
    pub fn is_empty(&self, lane: LaneIndex) -> bool {
        self.queues[usize::from(lane.0)].is_empty()
    }

    pub fn push(&mut self, lane: LaneIndex, call: CallId) {
        self.queues[usize::from(lane.0)].push_back(call);
        self.calls += 1;
    }

    /// The call that the lane's worker begins once it has completed one.
    pub fn pop(&mut self, lane: LaneIndex) -> Option<CallId> {
        let call = self.queues[usize::from(lane.0)].pop_front()?;
        self.calls -= 1;
        Some(call)
    }

    /// Takes a call out that its worker will not begin; false if it is not there. The lane gets no
    /// more for now.
    pub fn decline(&mut self, lane: LaneIndex, call: CallId) -> bool {
        let Some(queue) = self.queues.get_mut(usize::from(lane.0)) else { return false };
        let Some(place) = queue.iter().position(|&waiting| waiting == call) else { return false };
        queue.remove(place);
        self.calls -= 1;
        if self.leader == Some(lane) {
            self.leader = None;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(samples: impl IntoIterator<Item = u32>) -> Pace {
        let mut pace = Pace::default();
        samples.into_iter().for_each(|ns| pace.record(ns));
        pace
    }

    #[test]
    fn calls_are_long_until_enough_were_short() {
        assert!(!pace([1_000; 15]).is_short());
        assert!(pace([1_000; 16]).is_short());
        assert!(!pace([30_000; 200]).is_short());
    }

    #[test]
    fn one_long_call_in_ten_makes_calls_long_and_one_in_a_thousand_for_a_while() {
        let mixed = |period: usize| {
            (0..2_000).map(move |n| if n % period == 0 { 10_000_000 } else { 1_000 })
        };
        assert!(!pace(mixed(10)).is_short());
        assert!(pace(mixed(1_000)).is_short());
        assert!(!pace(mixed(1_000).chain([10_000_000])).is_short());
    }

    #[test]
    fn a_lane_that_declines_gets_no_more_until_it_leads_again() {
        let (lane, calls) = (LaneIndex(1), [1, 2, 3].map(|slot| CallId::new(slot, 1)));
        let mut pipelines = Pipelines::new(2, 2);
        assert_eq!(pipelines.open(), None);
        pipelines.lead(lane);
        pipelines.push(lane, calls[0]);
        assert_eq!(pipelines.open(), Some(lane));
        pipelines.push(lane, calls[1]);
        assert_eq!(pipelines.open(), None);
        assert!(!pipelines.decline(lane, calls[2]));
        assert!(!pipelines.decline(LaneIndex(9), calls[0]));
        assert!(pipelines.decline(lane, calls[0]));
        assert_eq!(pipelines.open(), None);
        pipelines.lead(lane);
        assert_eq!((pipelines.open(), pipelines.calls()), (Some(lane), 1));
        assert_eq!((pipelines.pop(lane), pipelines.pop(lane)), (Some(calls[1]), None));
    }
}
